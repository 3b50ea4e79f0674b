//! POSTs that found no connection, and wait for word that somebody else found one.

use std::collections::BTreeMap;
use std::sync::{Arc, Weak};
use std::task::Waker;
use std::time::Instant;

/// How many may be remembered before those are looked for that wait no more.
const SWEEP_AT: usize = 64;

/// A wait for the next connection of the origin.
#[derive(Debug)]
pub(crate) struct Awaited {
    key: u64,
    _alive: Arc<()>,
}

/// See the [module](self).
#[derive(Debug)]
pub(super) struct Arrivals {
    waiting: BTreeMap<u64, Waiting>,
    next: u64,
    sweep_at: usize,
}

#[derive(Debug)]
struct Waiting {
    alive: Weak<()>,
    waker: Waker,
    /// When the connection came about.
    arrived: Option<Instant>,
}

impl Default for Arrivals {
    fn default() -> Self {
        Self {
            waiting: BTreeMap::new(),
            next: 0,
            sweep_at: SWEEP_AT,
        }
    }
}

impl Arrivals {
    /// Begins a wait.
    pub(super) fn wait(&mut self) -> Awaited {
        if self.waiting.len() >= self.sweep_at {
            self.sweep();
            self.sweep_at = (2 * self.waiting.len()).max(SWEEP_AT);
        }
        let (key, alive) = (self.next, Arc::new(()));
        self.next += 1;
        let waiting = Waiting {
            alive: Arc::downgrade(&alive),
            waker: Waker::noop().clone(),
            arrived: None,
        };
        self.waiting.insert(key, waiting);
        Awaited { key, _alive: alive }
    }

    /// When the connection came about that was waited for. Until then the waker is woken by it.
    pub(super) fn poll(&mut self, awaited: &Awaited, waker: &Waker) -> Option<Instant> {
        let waiting = self.waiting.get_mut(&awaited.key)?;
        waiting.waker.clone_from(waker);
        waiting.arrived
    }

    /// A connection came about.
    pub(super) fn arrived(&mut self, now: Instant) {
        self.sweep();
        for waiting in self.waiting.values_mut() {
            waiting.arrived.get_or_insert(now);
            waiting.waker.wake_by_ref();
        }
    }

    /// Forgets who waits no more.
    fn sweep(&mut self) {
        let waits = |waiting: &Waiting| waiting.alive.strong_count() > 0;
        self.waiting.retain(|_, waiting| waits(waiting));
    }
}
