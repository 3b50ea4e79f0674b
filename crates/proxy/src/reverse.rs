//! Reverse mode, and forward mode with `--listen`: Streamable HTTP in, one server out.
//!
//! An assembly only; the two differ in their defaults, which the command line sets.

use std::sync::Arc;
use std::time::Duration;

use shadowcat_transport::downstream::http::{Accept, HttpEdge, HttpEdgeConfig};

use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::http::HttpGateway;
use crate::session::Shared;

/// How long what was ended with its session may take to reach its client.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// Serves HTTP clients until `shutdown` completes; what is in flight then has `drain` to finish,
/// after which it is answered with an error. Until then connections are accepted: what is in flight
/// may wait for something that its client sends on another one.
pub async fn http(
    shared: Arc<Shared>,
    listener: impl Accept,
    edge: HttpEdgeConfig,
    shutdown: impl Future<Output = ()> + Send + 'static,
    drain: Duration,
) {
    let metrics = Arc::clone(&shared.metrics);
    let gateway = HttpGateway::new(shared);
    let (stop, stopped) = oneshot::channel();
    let stopping = async {
        shutdown.await;
        let deadline = Instant::now() + drain;
        gateway.drain(drain).await;
        let _ = stop.send(deadline + LAST_WORDS);
        gateway.end().await;
    };
    let edge = HttpEdge::new(edge, metrics);
    let until = async { stopped.await.unwrap_or_else(|_| Instant::now()) };
    let serving = edge.serve(listener, Arc::clone(&gateway), until);
    tokio::join!(serving, stopping);
}
