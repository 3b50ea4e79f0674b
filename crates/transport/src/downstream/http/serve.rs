//! Accepting and serving connections, and ending them in order.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{debug, warn};

use super::super::HttpService;
use super::{Accept, HttpEdge};

/// Bytes of a request's header section; hyper answers 431 beyond it.
const HEADER_BYTES: usize = 64 * 1024;
/// Header fields of a request; hyper answers 431 beyond it.
const HEADER_FIELDS: usize = 100;
/// How long accepting pauses after a failure such as being out of descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

impl HttpEdge {
    /// Serves until `shutdown` completes. Then nothing is accepted any more, idle connections are
    /// closed, and the others may finish what they are at within the drain time.
    pub async fn serve<S: HttpService>(
        self: Arc<Self>,
        mut listener: impl Accept,
        service: Arc<S>,
        shutdown: impl Future<Output = ()> + Send,
    ) {
        let stop = CancellationToken::new();
        let connections = TaskTracker::new();
        let slots = Arc::new(Semaphore::new(self.config.max_connections));
        let accepting = async {
            loop {
                let Ok(slot) = Arc::clone(&slots).acquire_owned().await else {
                    return;
                };
                let io = match listener.accept().await {
                    Ok(io) => io,
                    Err(error) => {
                        warn!(%error, "could not accept a connection");
                        tokio::time::sleep(ACCEPT_PAUSE).await;
                        continue;
                    }
                };
                let (edge, service) = (Arc::clone(&self), Arc::clone(&service));
                let stopping = stop.clone();
                connections.spawn(async move {
                    edge.connection(io, service, stopping).await;
                    drop(slot);
                });
            }
        };
        tokio::select! {
            () = accepting => {}
            () = shutdown => {}
        }
        stop.cancel();
        connections.close();
        if tokio::time::timeout(self.config.drain, connections.wait())
            .await
            .is_err()
        {
            warn!(
                open = connections.len(),
                "cut connections that did not end in time"
            );
        }
    }

    async fn connection<S: HttpService>(
        self: Arc<Self>,
        io: impl tokio::io::AsyncRead + tokio::io::AsyncWrite + Send + Unpin + 'static,
        service: Arc<S>,
        stopping: CancellationToken,
    ) {
        self.metrics.client_connections.inc();
        let edge = Arc::clone(&self);
        let answer = service_fn(move |request| {
            let (edge, service) = (Arc::clone(&edge), Arc::clone(&service));
            async move { Ok::<_, Infallible>(edge.answer(service, request).await) }
        });
        let mut builder = auto::Builder::new(TokioExecutor::new());
        builder
            .http1()
            .timer(TokioTimer::new())
            .header_read_timeout(self.config.header_timeout)
            .max_buf_size(HEADER_BYTES)
            .max_headers(HEADER_FIELDS);
        builder
            .http2()
            .timer(TokioTimer::new())
            .keep_alive_interval(Duration::from_secs(30))
            .max_header_list_size(u32::try_from(HEADER_BYTES).unwrap_or(u32::MAX))
            .max_concurrent_streams(1000);
        let connection = builder.serve_connection(TokioIo::new(io), answer);
        let mut connection = std::pin::pin!(connection);
        let served = tokio::select! {
            served = connection.as_mut() => served,
            () = stopping.cancelled() => {
                connection.as_mut().graceful_shutdown();
                connection.as_mut().await
            }
        };
        if let Err(error) = served {
            debug!(%error, "a client connection ended early");
        }
        self.metrics.client_connections.dec();
    }
}
