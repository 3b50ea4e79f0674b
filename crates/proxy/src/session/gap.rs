//! Whether the client is told to look again after its server's stream was away.
//!
//! What a stream without a cursor may have missed is covered by saying that it may have changed:
//! the standalone stream for a legacy session, each
//! `subscriptions/listen` for a modern client.

use std::time::Duration;

use tokio::time::Instant;

/// How long a stream may have been away before the client is told.
const WORTH_TELLING: Duration = Duration::from_secs(5);
/// How often a client is told at most.
const PERIOD: Duration = Duration::from_secs(600);

/// When the client of one stream was told last.
#[derive(Debug, Default)]
pub(super) struct Refreshes(Option<Instant>);

impl Refreshes {
    /// Whether the client is to be told now, which is noted, of a gap of `away`.
    pub(super) fn is_due(&mut self, away: Duration) -> bool {
        if away < WORTH_TELLING || self.0.is_some_and(|at| at.elapsed() < PERIOD) {
            return false;
        }
        self.0 = Some(Instant::now());
        true
    }
}
