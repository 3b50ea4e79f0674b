//! A task that wakes itself goes on at once ([`Rounds`]), and what nobody woke is left alone
//! ([`OnWake`]).
//!
//! hyper moves messages and bodies through channels. Where both ends of such a channel live in one
//! task, taking a piece wakes the other end, that is, the task that is running. tokio then queues
//! the task anew and wakes another thread to help with the queue: a system call and a thread switch
//! for every request, or every event. Here a wake during a poll is a second poll instead, a few
//! times at most.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use futures_util::task::AtomicWaker;

/// Nobody polls: a wake goes to the task.
const RESTING: u8 = 0;
/// Somebody polls: a wake is noted.
const POLLING: u8 = 1;
/// There was a wake.
const WOKEN: u8 = 2;

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

/// Polls whatever it is given when that was woken, and not when its task was woken for another
/// reason. A connection polls the answer to its request whenever it is polled itself, and an answer
/// polls all it waits for.
pub(crate) struct OnWake {
    wakes: Arc<Wakes>,
    waker: Waker,
}

struct Wakes {
    woken: AtomicBool,
    task: AtomicWaker,
}

impl Wake for Wakes {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if !self.woken.swap(true, Ordering::AcqRel) {
            self.task.wake();
        }
    }
}

impl Default for OnWake {
    fn default() -> Self {
        let wakes = Arc::new(Wakes {
            // What was never polled waits for nothing.
            woken: AtomicBool::new(true),
            task: AtomicWaker::new(),
        });
        let waker = Waker::from(Arc::clone(&wakes));
        Self { wakes, waker }
    }
}

impl OnWake {
    /// What is polled from now on was never polled before. What was may still wake it: a poll in vain.
    pub(crate) fn begin(&self) {
        self.wakes.woken.store(true, Ordering::Release);
    }

    /// Polls if it was woken since the last time.
    pub(crate) fn poll<T>(
        &self,
        cx: &mut Context<'_>,
        poll: impl FnOnce(&mut Context<'_>) -> Poll<T>,
    ) -> Poll<T> {
        self.wakes.task.register(cx.waker());
        // Cleared before the poll, so that a wake during it counts.
        if self.wakes.woken.swap(false, Ordering::AcqRel) {
            poll(&mut Context::from_waker(&self.waker))
        } else {
            Poll::Pending
        }
    }
}

#[cfg(test)]
mod tests {
    use std::pin::{Pin, pin};
    use std::sync::atomic::AtomicUsize;
    use std::time::Duration;

    use super::*;

    /// Wakes itself `wakes` times, then is ready.
    fn restless(wakes: usize) -> impl Future<Output = usize> + Unpin {
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

    async fn repolled<F: Future + Unpin>(mut future: F) -> F::Output {
        let mut rounds = Rounds::default();
        std::future::poll_fn(|cx| rounds.poll(cx, 4, |cx| Pin::new(&mut future).poll(cx))).await
    }

    async fn on_wake<F: Future + Unpin>(mut future: F) -> F::Output {
        let wakes = OnWake::default();
        std::future::poll_fn(|cx| wakes.poll(cx, |cx| Pin::new(&mut future).poll(cx))).await
    }

    /// A wake that is lost shows as a wait without an end.
    async fn in_time<T>(waiting: impl Future<Output = T>) -> T {
        let waiting = tokio::time::timeout(Duration::from_secs(60), waiting);
        waiting.await.expect("a wake was lost")
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
        let few = pin!(repolled(restless(2)));
        assert_eq!(few.poll(&mut cx), Poll::Ready(3));
        assert_eq!(count.0.load(Ordering::SeqCst), 0);
        let many = pin!(repolled(restless(10)));
        assert_eq!(many.poll(&mut cx), Poll::Pending);
        assert_eq!(count.0.load(Ordering::SeqCst), 1, "its turn comes");
    }

    #[test]
    fn what_was_not_woken_is_not_polled() {
        let mut cx = Context::from_waker(Waker::noop());
        let (sender, mut receiver) = tokio::sync::oneshot::channel();
        let (wakes, mut polls) = (OnWake::default(), 0);
        let mut poll = |cx: &mut Context<'_>| {
            polls += 1;
            Pin::new(&mut receiver).poll(cx)
        };
        for _ in 0..3 {
            assert!(wakes.poll(&mut cx, &mut poll).is_pending());
        }
        sender.send(7).unwrap();
        assert_eq!(wakes.poll(&mut cx, &mut poll), Poll::Ready(Ok(7)));
        assert_eq!(polls, 2, "the first time, and once it was woken");
    }

    #[test]
    fn what_begins_is_polled_without_a_wake() {
        let mut cx = Context::from_waker(Waker::noop());
        let (wakes, mut polls) = (OnWake::default(), 0);
        let mut poll = |_: &mut Context<'_>| {
            polls += 1;
            Poll::<()>::Pending
        };
        assert!(wakes.poll(&mut cx, &mut poll).is_pending());
        wakes.begin();
        for _ in 0..3 {
            assert!(wakes.poll(&mut cx, &mut poll).is_pending());
        }
        assert_eq!(polls, 2, "once each");
    }

    #[test]
    fn a_wake_of_what_is_left_alone_wakes_the_task() {
        let count = Arc::new(Count::default());
        let waker = Waker::from(Arc::clone(&count));
        let mut cx = Context::from_waker(&waker);
        let mut restless = pin!(on_wake(restless(2)));
        assert!(restless.as_mut().poll(&mut cx).is_pending());
        assert_eq!(count.0.load(Ordering::SeqCst), 1, "it woke itself");
        assert!(restless.as_mut().poll(&mut cx).is_pending());
        assert_eq!(restless.as_mut().poll(&mut cx), Poll::Ready(3));
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn no_wake_is_lost_between_threads() {
        for _ in 0..2000 {
            let (sender, receiver) = tokio::sync::oneshot::channel();
            let waiting = tokio::spawn(repolled(Box::pin(on_wake(receiver))));
            tokio::spawn(async move { sender.send(7) });
            assert_eq!(in_time(waiting).await.unwrap(), Ok(7));
        }
        let restless = Box::pin(on_wake(restless(1000)));
        let restless = tokio::spawn(repolled(restless));
        assert_eq!(in_time(restless).await.unwrap(), 1001);
    }
}
