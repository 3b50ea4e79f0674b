//! Reverse mode, and forward mode with `--listen`: Streamable HTTP in, one server out.
//!
//! An assembly only; the two differ in their defaults, which the command line sets.

use std::sync::Arc;
use std::time::Duration;

use shadowcat_transport::downstream::http::{Accept, HttpEdge, HttpEdgeConfig};

use crate::http::HttpGateway;
use crate::session::Shared;

/// Serves HTTP clients until `shutdown` completes; what is in flight then has `drain` to finish.
pub async fn http(
    shared: Arc<Shared>,
    listener: impl Accept,
    edge: HttpEdgeConfig,
    shutdown: impl Future<Output = ()> + Send + 'static,
    drain: Duration,
) {
    let metrics = Arc::clone(&shared.metrics);
    let gateway = HttpGateway::new(shared);
    let serving = HttpEdge::new(edge, metrics).serve(listener, Arc::clone(&gateway), shutdown);
    serving.await;
    gateway.drain(drain).await;
}
