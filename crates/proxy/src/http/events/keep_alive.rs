//! When a connection that carries a stream needs a sign of life.

use std::future::poll_fn;
use std::time::Duration;

use bytes::Bytes;
use shadowcat_transport::timer::Timer;
use tokio::time::Instant;

use crate::session::Shared;

/// What is sent then: a comment, which clients skip.
pub(super) const COMMENT: Bytes = Bytes::from_static(b": keep-alive\n\n");

/// The time for keep-alive comments on one connection.
pub(super) struct KeepAlive {
    timer: Timer,
    period: Duration,
    last: Instant,
}

impl KeepAlive {
    /// Spread by 20 % around the mean, so that many streams do not speak at once.
    pub(super) fn new(shared: &Shared) -> Self {
        let period = shared
            .config
            .keep_alive
            .mul_f64(0.8 + 0.4 * shared.entropy.fraction());
        let now = Instant::now();
        Self {
            timer: Timer::new(now + period),
            period,
            last: now,
        }
    }

    pub(super) fn sent(&mut self) {
        self.last = Instant::now();
    }

    /// Ends when nothing was sent for a period.
    pub(super) async fn due(&mut self) {
        let due = self.last + self.period;
        poll_fn(|cx| self.timer.poll(due, cx)).await;
        self.last = Instant::now();
    }
}
