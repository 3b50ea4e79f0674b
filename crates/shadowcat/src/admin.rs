//! The operator's endpoint: `/healthz`, `/readyz`, `/metrics`.
//!
//! - `/healthz`: 200 as long as the process answers.
//! - `/readyz`: 200 when clients can be served: the upstream can be reached, or its command found,
//!   and no shutdown has begun; else 503 with the reason.
//! - `/metrics`: the OpenMetrics 1.0 text format, which Prometheus reads.
//!
//! Nothing here changes anything. On a loopback address the `Host` field must name a loopback host
//! or one of `--allow-host`, so that no web page reads it through its visitor's browser.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use shadowcat_mcp::origin::Access;
use shadowcat_transport::metrics::Metrics;
use shadowcat_transport::upstream::Upstream;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

/// How long a readiness probe may take; probes come every few seconds.
const PROBE_TIMEOUT: Duration = Duration::from_secs(5);

/// What the endpoint reports on.
#[derive(Clone)]
pub(crate) struct Admin {
    /// The counters.
    pub(crate) metrics: Arc<Metrics>,
    /// The server whose reach is readiness.
    pub(crate) upstream: Arc<dyn Upstream>,
    /// Cancelled when a shutdown has begun.
    pub(crate) shutdown: CancellationToken,
    /// Whose requests are answered; `None`: everyone's.
    pub(crate) access: Option<Access>,
}

impl Admin {
    /// Serves until the task is dropped: metrics stay readable while connections drain.
    pub(crate) async fn serve(self, listener: TcpListener) {
        let routes = Router::new()
            .route("/healthz", get(|| async { "ok\n" }))
            .route("/readyz", get(readiness))
            .route("/metrics", get(scrape))
            .layer(middleware::from_fn_with_state(self.clone(), check_host))
            .with_state(self);
        // It retries failed accepts by itself and ends only with its listener.
        let _ = axum::serve(listener, routes).await;
    }
}

async fn check_host(State(admin): State<Admin>, request: Request, next: Next) -> Response {
    let Some(access) = &admin.access else {
        return next.run(request).await;
    };
    let authority = request
        .uri()
        .authority()
        .map(|authority| authority.as_str());
    match access.check_host(authority, request.headers()) {
        Ok(()) => next.run(request).await,
        Err(rejection) => (rejection.status(), format!("{rejection}\n")).into_response(),
    }
}

async fn readiness(State(admin): State<Admin>) -> (StatusCode, String) {
    if admin.shutdown.is_cancelled() {
        return (StatusCode::SERVICE_UNAVAILABLE, "shutting down\n".into());
    }
    let probe = tokio::time::timeout(PROBE_TIMEOUT, admin.upstream.probe());
    match probe.await {
        Ok(Ok(())) => (StatusCode::OK, "ready\n".into()),
        Ok(Err(why)) => (StatusCode::SERVICE_UNAVAILABLE, format!("{why}\n")),
        Err(_) => {
            let name = admin.upstream.name();
            let seconds = PROBE_TIMEOUT.as_secs();
            (
                StatusCode::SERVICE_UNAVAILABLE,
                format!("{name} did not answer within {seconds} s\n"),
            )
        }
    }
}

async fn scrape(State(admin): State<Admin>) -> impl IntoResponse {
    const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    ([(CONTENT_TYPE, OPENMETRICS)], admin.metrics.render())
}
