//! A timer that is always about to fire while there is traffic.
//!
//! tokio wakes the thread that waits for I/O whenever a timer is set that is earlier than all
//! others: a system call and a thread switch, several times an event stream, because each stream
//! sets deadlines that are never reached (its keep-alive, the silence of its server). As long as some
//! timer fires within [`BEAT`], no deadline is ever the earliest, and setting one costs no more than a
//! list insertion. What stays set between calls ([`crate::timer`]) does not replace it: that fires
//! seconds apart. Without traffic there are no beats.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use tokio::sync::Notify;

/// The distance of beats: shorter than any deadline on the path of a request, the first of which is
/// that of `--stream-after` (50 ms by default), and no shorter than it has to be. A beat may change which thread waits
/// for I/O, and the calls after it find cold caches.
const BEAT: Duration = Duration::from_millis(25);
/// Beats after the last request.
const BEATS: u32 = 40;

/// See the [module](self).
#[derive(Debug, Default)]
pub(super) struct Heartbeat {
    left: AtomicU32,
    begin: Notify,
}

impl Heartbeat {
    /// There is traffic.
    pub(super) fn touch(&self) {
        // Written once a beat, not at every request: all threads come here.
        if self.left.load(Ordering::Relaxed) != BEATS
            && self.left.swap(BEATS, Ordering::Relaxed) == 0
        {
            self.begin.notify_one();
        }
    }

    /// Beats while there is traffic; ends never.
    pub(super) async fn run(self: Arc<Self>) {
        loop {
            self.begin.notified().await;
            while self.left.fetch_sub(1, Ordering::Relaxed) > 1 {
                tokio::time::sleep(BEAT).await;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn beats_only_while_there_is_traffic() {
        let heart = Arc::new(Heartbeat::default());
        let task = tokio::spawn(Arc::clone(&heart).run());
        heart.touch();
        tokio::time::sleep(BEAT * 10).await;
        assert!(heart.left.load(Ordering::Relaxed) > 0);
        tokio::time::sleep(BEAT * (BEATS + 2)).await;
        assert_eq!(heart.left.load(Ordering::Relaxed), 0);
        heart.touch();
        tokio::time::sleep(BEAT * 10).await;
        assert!(
            heart.left.load(Ordering::Relaxed) < BEATS,
            "it begins again"
        );
        task.abort();
    }
}
