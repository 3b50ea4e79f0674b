//! Timers for times that are nearly always called off before they come.
//!
//! To set a timer of tokio's and to take it off again, each takes a lock that all threads share, and
//! writes to the timers beside it. Here a timer whose time moves later stays set ([`Timer`]), and one
//! that is not needed any more stays set for the next who needs one ([`Timers`]): it fires now and
//! then for nobody, and otherwise costs no more than a look.

use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::task::coop::unconstrained;
use tokio::time::{Instant, Sleep, sleep_until};

/// Timers kept for the next who needs one.
const KEPT: usize = 64;

/// A timer for a time that may be another one at every look.
#[derive(Debug)]
pub struct Timer(Pin<Box<Sleep>>);

impl Timer {
    /// A timer for this time, for now. It needs a tokio runtime with a clock.
    #[must_use]
    pub fn new(at: Instant) -> Self {
        Self(Box::pin(sleep_until(at)))
    }

    /// Ready from `until` on. What was set for an earlier time stays set, and is set anew when it
    /// fires.
    pub fn poll(&mut self, until: Instant, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            let set = self.0.deadline();
            if set > until || set < until && self.0.is_elapsed() {
                self.0.as_mut().reset(until);
            }
            ready!(self.0.as_mut().poll(cx));
            if self.0.deadline() >= until {
                return Poll::Ready(());
            }
        }
    }
}

/// Timers that are set and that nobody waits for.
#[derive(Debug, Default)]
pub struct Timers(Mutex<Vec<Timer>>);

/// The time of a [`Timers::timeout`] has passed.
#[derive(Debug, PartialEq, Eq)]
pub struct Elapsed;

impl Timers {
    /// Waits for `work`, at most for `patience`. Work that is done wins.
    ///
    /// # Errors
    /// [`Elapsed`] when it is not done by then.
    pub async fn timeout<T>(
        &self,
        patience: Duration,
        work: impl Future<Output = T>,
    ) -> Result<T, Elapsed> {
        tokio::select! {
            biased;
            done = work => Ok(done),
            () = self.sleep(patience) => Err(Elapsed),
        }
    }

    /// Ends after this time; never, if that is beyond the clock.
    async fn sleep(&self, patience: Duration) {
        let Some(until) = Instant::now().checked_add(patience) else {
            return std::future::pending().await;
        };
        let mut lent = Lent {
            timers: self,
            timer: self.0.lock().pop(),
        };
        // Whatever `work` has spent of the task's budget, the time is looked at.
        unconstrained(poll_fn(|cx| lent.poll(until, cx))).await;
    }
}

/// A timer in use; it goes back unless it has fired.
struct Lent<'a> {
    timers: &'a Timers,
    timer: Option<Timer>,
}

impl Lent<'_> {
    fn poll(&mut self, until: Instant, cx: &mut Context<'_>) -> Poll<()> {
        let timer = self.timer.get_or_insert_with(|| Timer::new(until));
        timer.poll(until, cx)
    }
}

impl Drop for Lent<'_> {
    fn drop(&mut self) {
        let Some(mut timer) = self.timer.take() else {
            return;
        };
        // Nobody is woken by what is kept, nor kept in memory to be woken.
        let mut nobody = Context::from_waker(Waker::noop());
        if timer.0.as_mut().poll(&mut nobody).is_ready() {
            return;
        }
        let mut kept = self.timers.0.lock();
        if kept.len() < KEPT {
            kept.push(timer);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::{pending, ready};
    use std::pin::pin;
    use std::sync::Arc;
    use std::task::Wake;

    use tokio::task::consume_budget;
    use tokio::time::{advance, sleep};

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    /// In how long each timer fires that nobody waits for.
    fn kept(timers: &Timers) -> Vec<Duration> {
        let kept = timers.0.lock();
        let from_now = |timer: &Timer| timer.0.deadline() - Instant::now();
        kept.iter().map(from_now).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn a_wait_ends_at_its_time_whatever_its_timer_was_set_for() {
        for set in [0, 1, 3, 5, 9] {
            let start = Instant::now();
            let mut timer = Timer::new(start + set * SECOND);
            let looked = poll_fn(|cx| timer.poll(start + set * SECOND, cx));
            let _ = tokio::time::timeout(2 * SECOND, looked).await;
            sleep_until(start + 2 * SECOND).await;
            for until in [5, 6] {
                let until = start + until * SECOND;
                poll_fn(|cx| timer.poll(until, cx)).await;
                assert_eq!(Instant::now(), until, "set for {set} s");
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_done_in_time_wins() {
        let (timers, start) = (Timers::default(), Instant::now());
        assert_eq!(timers.timeout(Duration::ZERO, ready(7)).await, Ok(7));
        assert_eq!(timers.timeout(Duration::MAX, sleep(SECOND)).await, Ok(()));
        let late = timers.timeout(SECOND, pending::<()>()).await;
        assert_eq!(late, Err(Elapsed));
        assert_eq!(start.elapsed(), 2 * SECOND);
    }

    #[tokio::test(start_paused = true)]
    async fn a_timer_stays_set_for_the_next_wait() {
        let timers = Timers::default();
        for left in [4, 3] {
            let done = timers.timeout(5 * SECOND, sleep(SECOND)).await;
            assert_eq!((done, kept(&timers)), (Ok(()), vec![left * SECOND]));
        }
        // Once it is set for too late, once it has fired meanwhile.
        for rest in [0, 20] {
            sleep(rest * SECOND).await;
            let start = Instant::now();
            let late = timers.timeout(2 * SECOND, pending::<()>()).await;
            assert_eq!((late, start.elapsed()), (Err(Elapsed), 2 * SECOND));
            assert_eq!(kept(&timers), [], "it has fired");
            let done = timers.timeout(5 * SECOND, sleep(SECOND)).await;
            assert_eq!(done, Ok(()));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_timer_that_fires_too_early_for_its_second_user_is_set_anew() {
        let timers = Timers::default();
        let done = timers.timeout(2 * SECOND, sleep(SECOND)).await;
        assert_eq!((done, kept(&timers)), (Ok(()), vec![SECOND]));
        let start = Instant::now();
        let late = timers.timeout(5 * SECOND, pending::<()>()).await;
        assert_eq!((late, start.elapsed()), (Err(Elapsed), 5 * SECOND));
    }

    #[tokio::test(start_paused = true)]
    async fn work_that_spends_all_its_budget_does_not_hide_the_time() {
        let timers = Timers::default();
        let work = async {
            for _ in 0..1_000_000 {
                consume_budget().await;
            }
        };
        tokio::spawn(advance(2 * SECOND));
        assert_eq!(timers.timeout(SECOND, work).await, Err(Elapsed));
    }

    #[tokio::test(start_paused = true)]
    async fn a_timer_that_is_kept_knows_nobody() {
        struct Nobody;
        impl Wake for Nobody {
            fn wake(self: Arc<Self>) {}
        }
        let (timers, nobody) = (Timers::default(), Arc::new(Nobody));
        {
            let waker = Waker::from(Arc::clone(&nobody));
            let waiting = pin!(timers.timeout(SECOND, pending::<()>()));
            let polled = waiting.poll(&mut Context::from_waker(&waker));
            assert!(polled.is_pending());
        }
        assert_eq!(kept(&timers), [SECOND]);
        assert_eq!(Arc::strong_count(&nobody), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn not_more_are_kept_than_have_a_place() {
        let timers = Timers::default();
        let waits = (0..2 * KEPT).map(|_| timers.timeout(5 * SECOND, sleep(SECOND)));
        futures_util::future::join_all(waits).await;
        assert_eq!(kept(&timers).len(), KEPT);
    }
}
