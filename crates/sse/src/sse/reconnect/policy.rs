//! The numbers that the engine works with (`docs/resilience.md`, "Timing").

use std::time::Duration;

/// The shortest wait that a server's hint can ask for: `retry: 0` would be a hot loop.
pub const MIN_HINT: Duration = Duration::from_millis(250);
/// The least time between the starts of two attempts of one stream, unless it was open for
/// [`SETTLED`].
pub const MIN_INTERVAL: Duration = Duration::from_millis(250);
/// An open time after which the next attempt may start at once.
pub const SETTLED: Duration = Duration::from_secs(1);
/// A connection that stayed open so long was productive whatever it brought.
pub const PRODUCTIVE_AFTER: Duration = Duration::from_secs(30);
/// The most jitter on top of a server's `retry` after a productive connection.
pub const MAX_RETRY_JITTER: Duration = Duration::from_millis(200);
/// How often a parked stream is probed, give or take [`PROBE_SPREAD`].
pub const PROBE_EVERY: Duration = Duration::from_secs(60);
/// The share of [`PROBE_EVERY`] by which probes are spread to either side.
pub const PROBE_SPREAD: f64 = 0.2;
/// The least wait after a 409.
pub const CONFLICT_FLOOR: Duration = Duration::from_secs(5);
/// So many polls without a message are paced by the server alone.
pub const FREE_POLLS: u32 = 10;
/// The least wait between polls after that.
pub const SLOW_POLL: Duration = Duration::from_secs(5);
/// How long a POST without a connection is tried again.
pub const POST_PATIENCE: Duration = Duration::from_secs(10);
/// The first delay between those tries; it doubles up to [`POST_DELAY_MAX`].
pub const POST_DELAY: Duration = Duration::from_millis(100);
/// See [`POST_DELAY`].
pub const POST_DELAY_MAX: Duration = Duration::from_secs(2);
/// The least silence that counts as death where comments show a period.
pub const MIN_SILENCE: Duration = Duration::from_secs(5);

/// How long a resumed answer may bring nothing new before its stream is resumed anew; doubles up to
/// [`RECHECK_MAX`].
pub const RECHECK_AFTER: Duration = Duration::from_secs(2);
/// See [`RECHECK_AFTER`]. Clients commonly give a request 60 s, a sixth of which is this.
pub const RECHECK_MAX: Duration = Duration::from_secs(10);
/// The same where the server has shown that it speaks on a stream that it has resumed.
pub const RECHECK_SPEAKING: Duration = Duration::from_secs(30);
/// A resumed answer waits at least so many times as long as it takes to resume it anew.
pub const RECHECK_SHARE: u32 = 3;
/// A message that comes after so long a wait on its connection was not replayed.
pub const REPLAYED_WITHIN: Duration = Duration::from_secs(1);

/// What can be chosen for a stream. Everything has a default.
#[derive(Debug, Clone, PartialEq)]
pub struct Policy {
    /// The first delay after an unproductive connection. Default 1 s.
    pub initial: Duration,
    /// The cap on our own delays. Default 30 s.
    pub max: Duration,
    /// `jitter = random(0, delay * factor)` is added to a delay. Default 0.3, at least 0.
    pub jitter: f64,
    /// Unproductive connections in a row before a stream is given up or parked. Default 10.
    pub max_attempts: u32,
    /// The cap on a server's `retry` and `Retry-After`. Default 5 min.
    pub hint_max: Duration,
    /// A silence that counts as death where no comments show a period. Default 5 min.
    pub idle_timeout: Duration,
    /// How long TCP and TLS may take. Default 5 s.
    pub connect_timeout: Duration,
    /// How long the head of a GET's response may take after that; at most
    /// [`idle_timeout`](Self::idle_timeout). A POST has only its own deadline. Default 10 s.
    pub head_timeout: Duration,
    /// Event ids remembered per stream, and as many for all streams of a session together where its
    /// shell has a [`SessionWindow`](super::SessionWindow). Default 1000; 0 switches deduplication
    /// off.
    pub dedup_window: usize,
    /// Whether an event with an id and empty data only moves the cursor, as MCP 2025-11-25 primes
    /// its streams, or is an event like others. Default true.
    pub empty_data_primes: bool,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            initial: Duration::from_secs(1),
            max: Duration::from_secs(30),
            jitter: 0.3,
            max_attempts: 10,
            hint_max: Duration::from_secs(300),
            idle_timeout: Duration::from_secs(300),
            connect_timeout: Duration::from_secs(5),
            head_timeout: Duration::from_secs(10),
            dedup_window: 1000,
            empty_data_primes: true,
        }
    }
}

impl Policy {
    /// Whether so many unproductive connections in a row are the last before a stream is given up
    /// or parked.
    #[must_use]
    pub fn is_exhausted(&self, unproductive: u32) -> bool {
        unproductive >= self.max_attempts
    }

    /// A server's hint within the bounds that we keep: at least [`MIN_HINT`], at most
    /// [`hint_max`](Self::hint_max).
    #[must_use]
    pub fn clamp_hint(&self, hint: Duration) -> Duration {
        hint.min(self.hint_max).max(MIN_HINT)
    }
}
