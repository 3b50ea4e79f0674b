//! The memory that unfinished events may hold together.
//!
//! A decoder holds its first 64 KiB for free. What it holds beyond that is drawn from a budget that
//! all decoders of one server share. When the budget is used up, reading waits, which slows the
//! server by back-pressure; a shell that has waited for [`PATIENCE`] gives up, so that a hundred
//! half-sent giants cannot block each other for good.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Waker;
use std::time::Duration;

/// What all decoders of one server may hold beyond their free part, in bytes.
pub const TOTAL: usize = 64 * 1024 * 1024;
/// What each decoder holds for free, in bytes.
pub const FREE: usize = 64 * 1024;
/// How long to wait for a share before giving up.
pub const PATIENCE: Duration = Duration::from_secs(10);

/// The budget of one server. Clones share it.
#[derive(Debug, Clone)]
pub struct MemoryBudget(Arc<Mutex<Pool>>);

#[derive(Debug)]
struct Pool {
    left: usize,
    waiting: Vec<Waker>,
}

/// What one decoder holds of it; given back when dropped.
#[derive(Debug)]
pub struct Share {
    budget: MemoryBudget,
    drawn: usize,
}

impl Default for MemoryBudget {
    fn default() -> Self {
        Self::new(TOTAL)
    }
}

impl MemoryBudget {
    /// A budget of so many bytes. One that is smaller than the largest allowed event makes that
    /// event impossible.
    #[must_use]
    pub fn new(total: usize) -> Self {
        Self(Arc::new(Mutex::new(Pool {
            left: total,
            waiting: Vec::new(),
        })))
    }

    /// A decoder's share, empty at first.
    #[must_use]
    pub fn share(&self) -> Share {
        Share {
            budget: self.clone(),
            drawn: 0,
        }
    }

    /// Bytes that can still be drawn.
    #[must_use]
    pub fn left(&self) -> usize {
        self.pool().left
    }

    fn pool(&self) -> MutexGuard<'_, Pool> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Share {
    /// Makes the share fit `held` bytes. False if the budget does not have them: the share stays
    /// as it was, and `waker` is woken when something was given back.
    #[must_use]
    pub fn hold(&mut self, held: usize, waker: &Waker) -> bool {
        let needed = held.saturating_sub(FREE);
        if needed == self.drawn {
            return true;
        }
        let mut pool = self.budget.pool();
        if needed > self.drawn + pool.left {
            if !pool.waiting.iter().any(|known| known.will_wake(waker)) {
                pool.waiting.push(waker.clone());
            }
            return false;
        }
        let gave_back = needed < self.drawn;
        pool.left = pool.left + self.drawn - needed;
        self.drawn = needed;
        if gave_back {
            wake(pool);
        }
        true
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        if self.drawn > 0 {
            let mut pool = self.budget.pool();
            pool.left += self.drawn;
            wake(pool);
        }
    }
}

/// Wakes without the lock: a waker may run anything.
fn wake(mut pool: MutexGuard<'_, Pool>) {
    let waiting = std::mem::take(&mut pool.waiting);
    drop(pool);
    for waker in waiting {
        waker.wake();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::Wake;

    use super::*;

    #[derive(Default)]
    struct Woken(AtomicUsize);

    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn small_decoders_draw_nothing() {
        let budget = MemoryBudget::new(100);
        let mut share = budget.share();
        assert!(share.hold(FREE, Waker::noop()));
        assert_eq!(budget.left(), 100);
        assert!(share.hold(FREE + 1, Waker::noop()));
        assert_eq!(budget.left(), 99);
        assert!(share.hold(0, Waker::noop()));
        assert_eq!(budget.left(), 100);
    }

    #[test]
    fn a_used_up_budget_refuses_until_something_is_given_back() {
        let woken = Arc::new(Woken::default());
        let waker = Waker::from(Arc::clone(&woken));
        let budget = MemoryBudget::new(100);
        let (mut first, mut second) = (budget.share(), budget.share());
        assert!(first.hold(FREE + 80, &waker));
        assert!(!second.hold(FREE + 21, &waker));
        assert!(!second.hold(FREE + 21, &waker));
        assert!(second.hold(FREE + 20, &waker));
        assert!(!second.hold(FREE + 21, &waker));
        assert_eq!(woken.0.load(Ordering::Relaxed), 0);
        drop(first);
        assert_eq!(woken.0.load(Ordering::Relaxed), 1, "once");
        assert!(second.hold(FREE + 100, &waker));
        drop(second);
        assert_eq!(budget.left(), 100);
    }
}
