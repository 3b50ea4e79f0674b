//! What an exchange waits for besides its server.

use std::sync::Arc;
use std::time::Duration;

use shadowcat_mcp::version::Era;
use shadowcat_transport::upstream::Deadline;
use tokio::time::Instant;

use super::super::Session;
use super::super::flight::Flight;

/// How long the upstream may still answer a request that the client has cancelled; a drain does not
/// wait for it.
const CANCEL_GRACE: Duration = Duration::from_secs(5);

/// What an exchange may wait for, and how long.
pub(super) struct Bounds {
    pub(super) session: Arc<Session>,
    pub(super) flight: Arc<Flight>,
    pub(super) deadline: Deadline,
}

impl Bounds {
    /// Whether the deadline has passed: a stream that always has something must not outlive it.
    pub(super) fn is_late(&self) -> bool {
        self.deadline.get().is_some_and(|at| at <= Instant::now())
    }

    /// Runs `work` unless the session ends, the deadline passes, or the client has cancelled. Work
    /// that is done wins.
    pub(super) async fn unless_interrupted<T>(
        &self,
        work: impl Future<Output = T>,
    ) -> Result<T, Interrupt> {
        let deadline = async {
            match self.deadline.get() {
                Some(deadline) => tokio::time::sleep_until(deadline).await,
                None => std::future::pending().await,
            }
        };
        let cancelled = async {
            let at = self.flight.cancelled().await;
            if self.session.era() == Era::Legacy {
                // What is rare is boxed: every exchange has a place for all it may wait for.
                Box::pin(self.grace(at)).await;
            }
        };
        tokio::select! {
            biased;
            done = work => Ok(done),
            () = self.session.ended() => Err(Interrupt::SessionEnded),
            () = cancelled => Err(Interrupt::Cancelled),
            () = deadline => Err(Interrupt::Deadline),
        }
    }

    /// Ends when the answer to a request that was cancelled then is not waited for any more.
    async fn grace(&self, cancelled: Instant) {
        tokio::select! {
            biased;
            () = tokio::time::sleep_until(cancelled + CANCEL_GRACE) => {}
            () = self.session.shared.draining.cancelled() => {}
        }
    }
}

/// What ends an exchange from outside.
pub(super) enum Interrupt {
    SessionEnded,
    Deadline,
    Cancelled,
}
