//! The order of what a client sends besides requests.
//!
//! Notifications and responses leave in the order in which they came, one after the other has been
//! accepted. Requests run concurrently, but none overtakes a `notifications/initialized` that the
//! server has not accepted yet (MCP specification, Lifecycle).

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;
use shadowcat_transport::upstream::BoxFuture;
use tokio::sync::{Notify, oneshot};

/// Jobs run in the order of [`Lane::push`], one at a time, by a task that exists only while there
/// is work.
#[derive(Default)]
pub(crate) struct Lane {
    queue: Mutex<Queue>,
    barriers: AtomicUsize,
    lifted: Notify,
    room: Notify,
}

#[derive(Default)]
struct Queue {
    jobs: VecDeque<BoxFuture<()>>,
    running: bool,
}

/// See [`Lane::hold`].
pub(crate) struct Hold {
    _held: oneshot::Sender<Infallible>,
}

/// Jobs a lane holds before its client has to wait.
const CAPACITY: usize = 1024;

impl Lane {
    /// Puts a job at the end of the lane.
    pub(crate) fn push(self: &Arc<Self>, job: BoxFuture<()>) {
        let mut queue = self.queue.lock();
        queue.jobs.push_back(job);
        if !std::mem::replace(&mut queue.running, true) {
            tokio::spawn(Arc::clone(self).run());
        }
    }

    /// Holds requests and jobs that come after this call, until the hold is dropped.
    pub(crate) fn hold(self: &Arc<Self>) -> Hold {
        let (held, released) = oneshot::channel::<Infallible>();
        self.push_barrier(Box::pin(async move {
            let _ = released.await;
        }));
        Hold { _held: held }
    }

    /// Like [`Lane::push`], for a job that requests have to wait for.
    pub(crate) fn push_barrier(self: &Arc<Self>, job: BoxFuture<()>) {
        self.barriers.fetch_add(1, Ordering::SeqCst);
        let lane = Arc::clone(self);
        self.push(Box::pin(async move {
            job.await;
            lane.barriers.fetch_sub(1, Ordering::SeqCst);
            lane.lifted.notify_waiters();
        }));
    }

    /// Whether no barrier is in the lane.
    pub(crate) fn is_passable(&self) -> bool {
        self.barriers.load(Ordering::SeqCst) == 0
    }

    /// Waits while a barrier is in the lane.
    pub(crate) async fn passable(&self) {
        wait_until(&self.lifted, || self.is_passable()).await;
    }

    /// Whether another job fits without waiting.
    pub(crate) fn has_room(&self) -> bool {
        self.queue.lock().jobs.len() < CAPACITY
    }

    /// Waits while the lane is full.
    pub(crate) async fn room(&self) {
        wait_until(&self.room, || self.has_room()).await;
    }

    async fn run(self: Arc<Self>) {
        loop {
            let job = {
                let mut queue = self.queue.lock();
                let job = queue.jobs.pop_front();
                queue.running = job.is_some();
                job
            };
            let Some(job) = job else { return };
            self.room.notify_waiters();
            job.await;
        }
    }
}

/// Waits until `condition` holds; `notify` is told after every change that may make it hold.
async fn wait_until(notify: &Notify, condition: impl Fn() -> bool) {
    if condition() {
        return;
    }
    loop {
        let notified = notify.notified();
        if condition() {
            return;
        }
        notified.await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[tokio::test(start_paused = true)]
    async fn jobs_keep_their_order_however_long_they_take() {
        let lane = Arc::new(Lane::default());
        let seen = Arc::new(Mutex::new(Vec::new()));
        let (done, mut finished) = tokio::sync::mpsc::unbounded_channel();
        for job in 0..20_u64 {
            let (seen, done) = (Arc::clone(&seen), done.clone());
            lane.push(Box::pin(async move {
                tokio::time::sleep(Duration::from_millis(20 - job)).await;
                seen.lock().push(job);
                let _ = done.send(());
            }));
        }
        for _ in 0..20 {
            finished.recv().await;
        }
        assert_eq!(*seen.lock(), (0..20).collect::<Vec<_>>());
    }

    #[tokio::test(start_paused = true)]
    async fn a_barrier_holds_what_comes_after_it() {
        let lane = Arc::new(Lane::default());
        lane.passable().await;
        let start = tokio::time::Instant::now();
        lane.push_barrier(Box::pin(tokio::time::sleep(Duration::from_secs(1))));
        lane.passable().await;
        assert!(start.elapsed() >= Duration::from_secs(1));
    }
}
