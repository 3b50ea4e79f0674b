//! When a command that keeps crashing is started again.
//!
//! A process that ends by itself before it sent a single message, and soon, has crashed
//! unproductively. When so many of those in a row, over all sessions, have used up the attempts of
//! the reconnection [`Policy`], starts are refused but for about one a minute
//! (`docs/resilience.md`, "Lost sessions"). That bounds what the sessions of one command do
//! together, and what clients do that come anew; how each session comes back, with what delays and
//! when it is given up, is the pipeline's, which counts that and tells of it.

use std::time::Duration;

use shadowcat_sse::reconnect::Policy;
use shadowcat_sse::reconnect::backoff;
use shadowcat_sse::reconnect::policy::PRODUCTIVE_AFTER;
use tokio::time::Instant;

/// The distance of the starts that are let through: the shortest one of two looks of a session
/// that was given up, so that none of them is refused.
fn distance() -> Duration {
    backoff::probe(0.0)
}

/// See the [module](self).
#[derive(Debug)]
pub(super) struct Crashes {
    /// Unproductive crashes in a row before starts are refused.
    limit: u32,
    in_a_row: u32,
    /// No start before this, once there were too many crashes.
    next_start: Option<Instant>,
    /// Crashed processes that no start has replaced yet.
    unreplaced: u32,
}

impl Crashes {
    /// No crashes yet; how many are too many is for `policy` to say.
    pub(super) fn new(policy: &Policy) -> Self {
        Self {
            // Without a crash a command is never refused.
            limit: policy.max_attempts.max(1),
            in_a_row: 0,
            next_start: None,
            unreplaced: 0,
        }
    }

    /// A process is to be started. Says whether it replaces one that crashed.
    ///
    /// # Errors
    /// How long no start is allowed.
    pub(super) fn start(&mut self, now: Instant) -> Result<bool, Duration> {
        if let Some(wait) = self.parked(now) {
            return Err(wait);
        }
        if self.in_a_row >= self.limit {
            // The one start of this period.
            self.next_start = Some(now + distance());
        }
        let replaces = self.unreplaced > 0;
        self.unreplaced -= u32::from(replaces);
        Ok(replaces)
    }

    /// How long no start is allowed, if none is.
    pub(super) fn parked(&self, now: Instant) -> Option<Duration> {
        self.next_start
            .and_then(|next| next.checked_duration_since(now))
            .filter(|wait| !wait.is_zero())
    }

    /// A process sent a message.
    pub(super) fn productive(&mut self) {
        self.in_a_row = 0;
        self.next_start = None;
    }

    /// A process ended by itself after `lived`, and had sent something or not. Says whether the
    /// command is started rarely from now on.
    pub(super) fn crashed(&mut self, now: Instant, lived: Duration, productive: bool) -> bool {
        self.unreplaced = self.unreplaced.saturating_add(1);
        if productive || lived >= PRODUCTIVE_AFTER {
            self.productive();
            return false;
        }
        self.in_a_row = self.in_a_row.saturating_add(1);
        if self.in_a_row >= self.limit {
            self.next_start.get_or_insert(now + distance());
        }
        self.in_a_row == self.limit
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The attempts of the default policy.
    const LIMIT: u32 = 10;

    const MOMENT: Duration = Duration::from_millis(5);

    #[test]
    fn after_ten_crashes_in_a_row_about_one_start_a_minute_is_let_through() {
        let mut crashes = Crashes::new(&Policy::default());
        let mut now = Instant::now();
        for n in 1..=LIMIT {
            assert_eq!(crashes.start(now), Ok(n > 1));
            assert_eq!(crashes.crashed(now, MOMENT, false), n == LIMIT);
        }
        for _ in 0..3 {
            assert_eq!(crashes.start(now), Err(distance()));
            now += distance() / 2;
            assert_eq!(crashes.parked(now), Some(distance() / 2));
            now += distance() / 2;
            assert_eq!(crashes.parked(now), None);
            assert_eq!(crashes.start(now), Ok(true));
            // Others wait for what becomes of it.
            assert_eq!(crashes.start(now), Err(distance()));
            assert!(!crashes.crashed(now, MOMENT, false));
        }
        now += distance();
        assert_eq!(crashes.start(now), Ok(true));
        crashes.productive();
        assert_eq!(crashes.start(now), Ok(false));
    }

    #[test]
    fn no_look_of_a_session_is_refused() {
        let mut crashes = Crashes::new(&Policy::default());
        let mut now = Instant::now();
        for _ in 0..LIMIT {
            crashes.crashed(now, MOMENT, false);
        }
        for draw in [0.0, 0.1, 0.5, 0.99] {
            now += backoff::probe(draw);
            assert_eq!(crashes.start(now), Ok(true));
            now += MOMENT;
            crashes.crashed(now, MOMENT, false);
        }
    }

    #[test]
    fn only_crashes_without_a_message_soon_after_the_start_count() {
        let mut crashes = Crashes::new(&Policy::default());
        let now = Instant::now();
        for _ in 0..LIMIT {
            crashes.crashed(now, MOMENT, false);
            crashes.crashed(now, MOMENT, true);
            crashes.crashed(now, PRODUCTIVE_AFTER, false);
        }
        assert_eq!(crashes.parked(now), None);
    }
}
