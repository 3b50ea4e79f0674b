//! A token bucket, and the slow start after an outage.

use std::time::{Duration, Instant};

/// The share of the rate that a slow start begins with; it doubles every second.
const SLOW_SHARE: f64 = 0.1;

#[derive(Debug)]
pub(crate) struct Bucket {
    rate: f64,
    burst: f64,
    tokens: f64,
    filled: Option<Instant>,
    slow_since: Option<Instant>,
}

impl Bucket {
    pub(crate) fn new(rate: f64, burst: u32) -> Self {
        let burst = f64::from(burst.max(1));
        Self {
            rate: if rate > 0.001 { rate } else { 0.001 },
            burst,
            tokens: burst,
            filled: None,
            slow_since: None,
        }
    }

    /// Takes a token if one is left for each of the `ahead` others; else when that may be.
    #[allow(clippy::cast_precision_loss)]
    pub(crate) fn take_after(&mut self, now: Instant, ahead: usize) -> Result<(), Instant> {
        self.fill(now);
        // More than the burst never lies in the bucket: who is far back waits for its turn.
        let needed = 1.0 + ahead as f64;
        if self.tokens >= needed {
            self.tokens -= 1.0;
            return Ok(());
        }
        let missing = (needed - self.tokens) / self.rate_at(now);
        let wait = Duration::try_from_secs_f64(missing).unwrap_or(Duration::from_secs(3600));
        Err(now + wait.max(Duration::from_millis(1)))
    }

    /// One token at once, the rest at a rate that grows from a tenth.
    pub(crate) fn slow_start(&mut self, now: Instant) {
        self.fill(now);
        self.tokens = self.tokens.min(1.0);
        self.slow_since = Some(now);
    }

    pub(crate) fn is_slow(&self, now: Instant) -> bool {
        self.share_at(now) < 1.0
    }

    fn fill(&mut self, now: Instant) {
        let since = self.filled.unwrap_or(now);
        let rate = self.rate_at(since);
        let elapsed = now.saturating_duration_since(since).as_secs_f64();
        self.tokens = (self.tokens + elapsed * rate).min(self.burst);
        self.filled = Some(now.max(since));
        if !self.is_slow(now) {
            self.slow_since = None;
        }
    }

    fn rate_at(&self, at: Instant) -> f64 {
        self.rate * self.share_at(at)
    }

    fn share_at(&self, at: Instant) -> f64 {
        let Some(since) = self.slow_since else {
            return 1.0;
        };
        let seconds = at.saturating_duration_since(since).as_secs_f64();
        (SLOW_SHARE * seconds.exp2()).min(1.0)
    }
}
