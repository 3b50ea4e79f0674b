//! `--max-connections`: how many event streams of one server are open at once.
//!
//! A POST may be answered by an event stream, so it takes its permit before it is sent and gives it
//! back when the answer was something else. Streams that stand for hours (standalone, listen) hold
//! at most four fifths, so that calls always find room.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// How long a POST waits for a permit.
pub(crate) const EXCHANGE_WAIT: Duration = Duration::from_secs(5);

/// The permits of one server.
pub(crate) struct Connections {
    all: Arc<Semaphore>,
    standing: Arc<Semaphore>,
}

/// The right to hold one event stream open.
#[derive(Debug)]
pub(crate) struct Permit {
    _all: OwnedSemaphorePermit,
    _standing: Option<OwnedSemaphorePermit>,
}

impl Connections {
    /// Permits for `max` streams, at least one; standing streams get four fifths of them.
    pub(crate) fn new(max: usize) -> Self {
        let max = max.clamp(1, Semaphore::MAX_PERMITS);
        let standing = (max / 5 * 4 + max % 5 * 4 / 5).max(1);
        Self {
            all: Arc::new(Semaphore::new(max)),
            standing: Arc::new(Semaphore::new(standing)),
        }
    }

    /// A permit for a POST's answer; `None` when none came free within [`EXCHANGE_WAIT`].
    pub(crate) async fn exchange(&self) -> Option<Permit> {
        let all = match Arc::clone(&self.all).try_acquire_owned() {
            Ok(permit) => permit,
            Err(_) => {
                let waiting = Arc::clone(&self.all).acquire_owned();
                tokio::time::timeout(EXCHANGE_WAIT, waiting)
                    .await
                    .ok()?
                    .ok()?
            }
        };
        Some(Permit {
            _all: all,
            _standing: None,
        })
    }

    /// A permit for a stream that stays; waits in line.
    pub(crate) async fn standing(&self) -> Option<Permit> {
        let standing = Arc::clone(&self.standing).acquire_owned().await.ok()?;
        Some(Permit {
            _all: Arc::clone(&self.all).acquire_owned().await.ok()?,
            _standing: Some(standing),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn standing_streams_leave_a_fifth_to_calls() {
        let connections = Connections::new(5);
        let mut held = Vec::new();
        for _ in 0..4 {
            held.push(connections.standing().await.unwrap());
        }
        let fifth = tokio::time::timeout(Duration::from_secs(60), connections.standing()).await;
        assert!(fifth.is_err(), "a fifth standing stream must wait");
        let call = connections.exchange().await.unwrap();
        drop(call);
        held.pop();
        assert!(connections.standing().await.is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn a_post_waits_five_seconds_for_a_permit() {
        let connections = Connections::new(1);
        let held = connections.exchange().await.unwrap();
        let started = tokio::time::Instant::now();
        assert!(connections.exchange().await.is_none());
        assert_eq!(started.elapsed(), EXCHANGE_WAIT);
        drop(held);
        assert!(connections.exchange().await.is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn a_permit_that_comes_free_in_time_is_taken() {
        let connections = Arc::new(Connections::new(1));
        let held = connections.exchange().await.unwrap();
        let waiting = tokio::spawn({
            let connections = Arc::clone(&connections);
            async move { connections.exchange().await.is_some() }
        });
        tokio::time::sleep(Duration::from_secs(1)).await;
        drop(held);
        assert!(waiting.await.unwrap());
    }
}
