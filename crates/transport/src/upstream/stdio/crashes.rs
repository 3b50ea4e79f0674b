//! When a command that keeps crashing is started again.
//!
//! A process that ends by itself before it sent a single message has crashed unproductively. After
//! [`LIMIT`] of those in a row, over all sessions, starts are refused but for one each
//! [`PROBE_PERIOD`] (resilience, section 2, "Child"). Delays between single restarts are the
//! pipeline's.

use std::time::Duration;

use tokio::time::Instant;

/// Unproductive crashes in a row before starts are refused.
const LIMIT: u32 = 10;
/// How often the start is tried then.
const PROBE_PERIOD: Duration = Duration::from_secs(60);
/// A process that lived so long was not unproductive, even in silence.
const STABLE: Duration = Duration::from_secs(30);

/// See the [module](self).
#[derive(Debug, Default)]
pub(super) struct Crashes {
    in_a_row: u32,
    /// No start before this, once there were too many crashes.
    next_start: Option<Instant>,
    /// Crashed processes that no start has replaced yet.
    unreplaced: u32,
}

impl Crashes {
    /// A process is to be started. Says whether it replaces one that crashed.
    ///
    /// # Errors
    /// How long no start is allowed.
    pub(super) fn start(&mut self, now: Instant) -> Result<bool, Duration> {
        if let Some(wait) = self.parked(now) {
            return Err(wait);
        }
        if self.in_a_row >= LIMIT {
            // The one start of this period.
            self.next_start = Some(now + PROBE_PERIOD);
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
    /// command is given up with this.
    pub(super) fn crashed(&mut self, now: Instant, lived: Duration, productive: bool) -> bool {
        self.unreplaced = self.unreplaced.saturating_add(1);
        if productive || lived >= STABLE {
            self.productive();
            return false;
        }
        self.in_a_row = self.in_a_row.saturating_add(1);
        if self.in_a_row >= LIMIT {
            self.next_start.get_or_insert(now + PROBE_PERIOD);
        }
        self.in_a_row == LIMIT
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOMENT: Duration = Duration::from_millis(5);

    #[test]
    fn after_ten_crashes_in_a_row_one_start_a_minute_is_let_through() {
        let mut crashes = Crashes::default();
        let mut now = Instant::now();
        for n in 1..=LIMIT {
            assert_eq!(crashes.start(now), Ok(n > 1));
            assert_eq!(crashes.crashed(now, MOMENT, false), n == LIMIT);
        }
        for _ in 0..3 {
            assert_eq!(crashes.start(now), Err(PROBE_PERIOD));
            now += PROBE_PERIOD / 2;
            assert_eq!(crashes.parked(now), Some(PROBE_PERIOD / 2));
            now += PROBE_PERIOD / 2;
            assert_eq!(crashes.parked(now), None);
            assert_eq!(crashes.start(now), Ok(true));
            // Others wait for what becomes of it.
            assert_eq!(crashes.start(now), Err(PROBE_PERIOD));
            assert!(!crashes.crashed(now, MOMENT, false));
        }
        now += PROBE_PERIOD;
        assert_eq!(crashes.start(now), Ok(true));
        crashes.productive();
        assert_eq!(crashes.start(now), Ok(false));
    }

    #[test]
    fn only_crashes_without_a_message_soon_after_the_start_count() {
        let mut crashes = Crashes::default();
        let now = Instant::now();
        for _ in 0..LIMIT {
            crashes.crashed(now, MOMENT, false);
            crashes.crashed(now, MOMENT, true);
            crashes.crashed(now, STABLE, false);
        }
        assert_eq!(crashes.parked(now), None);
    }
}
