//! A task that wakes itself goes on at once.
//!
//! hyper moves messages and bodies through channels. Where both ends of such a channel live in one
//! task, taking a piece wakes the other end, that is, the task that is running. tokio then queues
//! the task anew and wakes another thread to help with the queue: a system call and a thread switch
//! for every request, or every event. Here a wake during a poll is a second poll instead, a few
//! times at most.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use futures_util::task::AtomicWaker;

/// Polls of a [`Repoll`] in a row; a future that wakes itself more often waits for its turn.
const POLLS: u8 = 4;

/// Nobody polls: a wake goes to the task.
const RESTING: u8 = 0;
/// Somebody polls: a wake is noted.
const POLLING: u8 = 1;
/// There was a wake.
const WOKEN: u8 = 2;

/// A future that is polled again when it woke itself; see the [module](self).
pub(crate) struct Repoll<F> {
    future: Pin<Box<F>>,
    rounds: Rounds,
}

impl<F: Future> Repoll<F> {
    pub(crate) fn new(future: F) -> Self {
        Self {
            future: Box::pin(future),
            rounds: Rounds::default(),
        }
    }
}

impl<F: Future> Future for Repoll<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let this = &mut *self;
        this.rounds
            .poll(cx, POLLS, |cx| this.future.as_mut().poll(cx))
    }
}

/// Polls whatever it is given, and once more when that woke itself.
pub(crate) struct Rounds {
    shared: Arc<Shared>,
    waker: Waker,
}

struct Shared {
    state: AtomicU8,
    task: AtomicWaker,
}

impl Wake for Shared {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if self.state.swap(WOKEN, Ordering::AcqRel) == RESTING {
            self.task.wake();
        }
    }
}

impl Default for Rounds {
    fn default() -> Self {
        let shared = Arc::new(Shared {
            state: AtomicU8::new(RESTING),
            task: AtomicWaker::new(),
        });
        let waker = Waker::from(Arc::clone(&shared));
        Self { shared, waker }
    }
}

impl Rounds {
    /// Polls until there is a result, or nothing woke what was polled, at most `polls` times.
    pub(crate) fn poll<T>(
        &mut self,
        cx: &mut Context<'_>,
        polls: u8,
        mut poll: impl FnMut(&mut Context<'_>) -> Poll<T>,
    ) -> Poll<T> {
        self.shared.task.register(cx.waker());
        let mut inner = Context::from_waker(&self.waker);
        for _ in 0..polls {
            // A swap, not a store: it sees what was done before a wake that it takes away.
            self.shared.state.swap(POLLING, Ordering::AcqRel);
            if let Poll::Ready(output) = poll(&mut inner) {
                return Poll::Ready(output);
            }
            let rested = self.shared.state.compare_exchange(
                POLLING,
                RESTING,
                Ordering::AcqRel,
                Ordering::Acquire,
            );
            if rested.is_ok() {
                return Poll::Pending;
            }
        }
        // It was woken during the last poll, too. The state stays WOKEN until the next poll, so
        // further wakes are covered by this one.
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use super::*;

    /// Wakes itself `wakes` times, then is ready.
    fn restless(wakes: usize) -> impl Future<Output = usize> {
        let mut polls = 0;
        std::future::poll_fn(move |cx| {
            polls += 1;
            if polls > wakes {
                return Poll::Ready(polls);
            }
            cx.waker().wake_by_ref();
            Poll::Pending
        })
    }

    #[derive(Default)]
    struct Count(AtomicUsize);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    #[test]
    fn a_wake_during_a_poll_is_another_poll() {
        let count = Arc::new(Count::default());
        let waker = Waker::from(Arc::clone(&count));
        let mut cx = Context::from_waker(&waker);
        let mut few = Repoll::new(restless(2));
        assert_eq!(Pin::new(&mut few).poll(&mut cx), Poll::Ready(3));
        assert_eq!(count.0.load(Ordering::SeqCst), 0);
        let mut many = Repoll::new(restless(10));
        assert_eq!(Pin::new(&mut many).poll(&mut cx), Poll::Pending);
        assert_eq!(count.0.load(Ordering::SeqCst), 1, "its turn comes");
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn no_wake_is_lost_between_threads() {
        for _ in 0..2000 {
            let (sender, receiver) = tokio::sync::oneshot::channel();
            let waiting = tokio::spawn(Repoll::new(receiver));
            tokio::spawn(async move { sender.send(7) });
            assert_eq!(waiting.await.unwrap(), Ok(7));
        }
        assert_eq!(
            tokio::spawn(Repoll::new(restless(1000))).await.unwrap(),
            1001
        );
    }
}
