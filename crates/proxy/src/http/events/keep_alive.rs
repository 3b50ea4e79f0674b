//! When a connection that carries a stream needs a sign of life.

use std::pin::Pin;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::{Instant, Sleep};

use crate::session::Shared;

/// What is sent then: a comment, which clients skip.
pub(super) const COMMENT: Bytes = Bytes::from_static(b": keep-alive\n\n");

/// The time for keep-alive comments on one connection.
pub(super) struct KeepAlive {
    sleep: Pin<Box<Sleep>>,
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
            sleep: Box::pin(tokio::time::sleep_until(now + period)),
            period,
            last: now,
        }
    }

    pub(super) fn sent(&mut self) {
        self.last = Instant::now();
    }

    /// Ends when nothing was sent for a period.
    pub(super) async fn due(&mut self) {
        loop {
            self.sleep.as_mut().await;
            let now = Instant::now();
            let due = self.last + self.period;
            if due <= now {
                self.last = now;
                self.sleep.as_mut().reset(now + self.period);
                return;
            }
            self.sleep.as_mut().reset(due);
        }
    }
}
