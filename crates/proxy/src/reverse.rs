//! Reverse mode, and forward mode with `--listen`: Streamable HTTP in, one server out.
//!
//! An assembly only; the two differ in their defaults, which the command line sets.

use std::sync::Arc;
use std::time::Duration;

use shadowcat_transport::downstream::http::{Accept, HttpEdge, HttpEdgeConfig};

use tokio_util::sync::CancellationToken;

use crate::http::HttpGateway;
use crate::session::Shared;

/// How long what the drain has ended may take to reach its clients.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// Serves HTTP clients until `shutdown` completes; what is in flight then has `drain` to finish,
/// after which it is answered with an error.
pub async fn http(
    shared: Arc<Shared>,
    listener: impl Accept,
    mut edge: HttpEdgeConfig,
    shutdown: impl Future<Output = ()> + Send + 'static,
    drain: Duration,
) {
    let metrics = Arc::clone(&shared.metrics);
    let gateway = HttpGateway::new(shared);
    edge.drain = drain + LAST_WORDS;
    let stop = CancellationToken::new();
    let stopping = async {
        shutdown.await;
        stop.cancel();
        gateway.drain(drain).await;
    };
    let edge = HttpEdge::new(edge, metrics);
    let serving = edge.serve(listener, Arc::clone(&gateway), stop.cancelled());
    tokio::join!(serving, stopping);
}
