//! Forward mode: beside the client. Stdio in (or, with `--listen`, local HTTP), one server out.
//!
//! An assembly only: which edge meets which gateway, and in which order things end.

use std::sync::Arc;
use std::time::Duration;

use shadowcat_transport::downstream::stdio::{self, StdioLimits};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_util::sync::CancellationToken;
use tracing::info;

use crate::session::Shared;
use crate::stdio::StdioGateway;

/// Why forwarding over stdio ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// The client closed its end.
    Eof,
    /// `shutdown` was cancelled.
    Shutdown,
    /// The upstream session was lost, and losing it was to be passed on.
    SessionLost,
}

/// Serves one client on a pair of pipes until it closes its end, `shutdown` is cancelled, or the
/// session is lost. What is in flight then has `drain` to finish; `shutdown` is cancelled by then,
/// whatever the reason.
pub async fn stdio(
    shared: Arc<Shared>,
    input: impl AsyncRead + Send + Unpin + 'static,
    output: impl AsyncWrite + Send + Unpin + 'static,
    shutdown: CancellationToken,
    drain: Duration,
) -> Ended {
    let limits = StdioLimits {
        max_message_size: shared.config.max_message_size,
    };
    let writer = stdio::writer(output);
    let gateway = StdioGateway::new(shared, Arc::new(writer.sink()));
    let reading = stdio::read(input, Arc::clone(&gateway), writer.sink(), limits);
    let ended = tokio::select! {
        () = reading => Ended::Eof,
        () = shutdown.cancelled() => Ended::Shutdown,
        () = gateway.lost() => Ended::SessionLost,
    };
    shutdown.cancel();
    info!(?ended, "finishing what is open");
    gateway.drain(drain).await;
    writer.finish().await;
    ended
}
