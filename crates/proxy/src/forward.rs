//! Forward mode: beside the client. Stdio in (or, with `--listen`, local HTTP), one server out.
//!
//! An assembly only: which edge meets which gateway, and in which order things end.

use std::pin::pin;
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
/// session is lost. What is in flight then has `drain` to finish, and may wait for what the client
/// still sends; `shutdown` is cancelled by then, whatever the reason.
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
    let mut reading = pin!(reading);
    let ended = tokio::select! {
        // Of what comes at once, that first which an exit status tells.
        biased;
        () = gateway.lost() => Ended::SessionLost,
        () = &mut reading => Ended::Eof,
        () = shutdown.cancelled() => Ended::Shutdown,
    };
    match ended {
        Ended::Eof => info!("the client closed stdin; ending"),
        Ended::SessionLost => info!("the client's session is over; ending"),
        // Who cancelled it has said so.
        Ended::Shutdown => {}
    }
    shutdown.cancel();
    let draining = gateway.drain(drain);
    match ended {
        Ended::Shutdown => hear(reading, draining).await,
        Ended::Eof | Ended::SessionLost => draining.await,
    }
    gateway.end().await;
    writer.finish().await;
    ended
}

/// Goes on reading what the client sends until `draining` is over.
async fn hear(reading: impl Future<Output = ()>, draining: impl Future<Output = ()>) {
    let reading = async {
        reading.await;
        std::future::pending::<()>().await;
    };
    tokio::select! {
        biased;
        () = draining => {}
        () = reading => {}
    }
}
