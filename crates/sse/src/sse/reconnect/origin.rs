//! What the streams of one origin share: how fast and how many may connect.
//!
//! No failure, however shaped, makes a storm: a token bucket paces stream opens, a number of slots
//! bounds connects under way, a mass drop is spread out, and an origin that accepts no connection
//! sees one probe at a time. POSTs never wait here; what becomes of them is noted, and one that found
//! no connection hears of the next that somebody else found.
//!
//! An [`Engine`](super::Engine) does all of this by itself; the shell keeps one `Origin` per
//! upstream behind a lock and lends it. Tickets, slots and marks are given back when the engine
//! that holds them is dropped.

use std::collections::BTreeMap;
use std::ops::DerefMut;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::task::Waker;
use std::time::{Duration, Instant};

use super::backoff::{Draw, scaled};

mod arrivals;
mod breaker;
mod bucket;
mod herd;

use arrivals::Arrivals;
pub(crate) use arrivals::Awaited;
use breaker::{Breaker, Gate};
use bucket::Bucket;
use herd::Herd;

/// Where an engine gets its origin when it needs it. Most steps of most streams do without: a shell
/// that keeps the origin behind a lock takes that for the others only.
pub trait Lend {
    /// The origin, for one step.
    fn lend(&mut self) -> impl DerefMut<Target = Origin>;
}

impl Lend for Origin {
    fn lend(&mut self) -> impl DerefMut<Target = Origin> {
        self
    }
}

/// The numbers of an origin.
#[derive(Debug, Clone, PartialEq)]
pub struct OriginPolicy {
    /// Stream opens per second. Default 50.
    pub rate: f64,
    /// Stream opens that may come at once. Default 20, at least 1.
    pub burst: u32,
    /// Connects (TCP and TLS) under way at once. Default 16, at least 1.
    pub connects: usize,
    /// Streams that must drop for a drop to be a herd: fewer are no load worth a delay. Default 5.
    pub herd: usize,
}

impl Default for OriginPolicy {
    fn default() -> Self {
        Self {
            rate: 50.0,
            burst: 20,
            connects: 16,
            herd: 5,
        }
    }
}

/// Who goes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Class {
    /// A request waits for it.
    Resume,
    /// A standing stream.
    Standing,
    /// A parked stream that has a look.
    Probe,
}

/// A place in the line.
#[derive(Debug)]
pub(crate) struct Ticket {
    key: (Class, u64),
    _alive: Arc<()>,
}

/// What a ticket gets.
#[derive(Debug)]
pub(crate) enum Admission {
    /// Go.
    Granted(Slot),
    /// Ask again then, or when the waker is woken.
    Wait(Instant),
    /// The origin's probe failed while this ticket waited for it: that counts for all.
    Failed,
}

/// One of something of which there may be so many; given back when dropped.
#[derive(Debug)]
pub(crate) struct Slot(Arc<AtomicUsize>);

impl Slot {
    fn take(count: &Arc<AtomicUsize>) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(count))
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[derive(Debug)]
struct Waiter {
    alive: Weak<()>,
    not_before: Instant,
    /// When it was told to ask again.
    told: Instant,
    failed: bool,
    waker: Waker,
}

/// How long a waiter may be late before others go past it, and how often a waiter for a slot looks
/// for itself.
const GRACE: Duration = Duration::from_secs(1);
/// How many of those before it a waiter counts.
const FORESIGHT: usize = 64;

/// See the [module](self).
#[derive(Debug)]
pub struct Origin {
    policy: OriginPolicy,
    bucket: Bucket,
    line: BTreeMap<(Class, u64), Waiter>,
    /// How long the line may get before it is looked through for those who have left it.
    sweep_at: usize,
    tickets: u64,
    connecting: Arc<AtomicUsize>,
    open: Arc<AtomicUsize>,
    herd: Herd,
    breaker: Breaker,
    arrivals: Arrivals,
    hold_until: Option<Instant>,
}

/// What an origin looks like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OriginSummary {
    /// Event streams open.
    pub open: usize,
    /// Connects under way.
    pub connecting: usize,
    /// Streams in line.
    pub waiting: usize,
    /// Connect failures in a row.
    pub connect_failures: u32,
    /// Whether the origin is taken for dead, and probed.
    pub down: bool,
    /// Whether the slow start after that goes on.
    pub slow_start: bool,
    /// Until when a 503 holds all reconnects.
    pub hold_until: Option<Instant>,
}

impl Default for Origin {
    fn default() -> Self {
        Self::new(OriginPolicy::default())
    }
}

impl Origin {
    /// An origin that nothing is known of.
    #[must_use]
    pub fn new(policy: OriginPolicy) -> Self {
        Self {
            bucket: Bucket::new(policy.rate, policy.burst),
            herd: Herd::new(policy.herd),
            policy,
            line: BTreeMap::new(),
            sweep_at: FORESIGHT,
            tickets: 0,
            connecting: Arc::default(),
            open: Arc::default(),
            breaker: Breaker::default(),
            arrivals: Arrivals::default(),
            hold_until: None,
        }
    }

    /// A connection came about, for a stream or for a POST: the origin is alive.
    pub fn note_connected(&mut self, now: Instant) {
        if self.breaker.connected() {
            self.bucket.slow_start(now);
        }
        self.arrivals.arrived(now);
        self.wake(now);
    }

    /// No connection came about. The fifth in a row with no stream open stops the reconnects.
    pub fn note_connect_failed(&mut self, now: Instant) {
        let open = self.open.load(Ordering::Relaxed);
        if self.breaker.connect_failed(open) {
            for waiter in self.line.values_mut() {
                waiter.failed = true;
            }
        }
        self.wake(now);
    }

    /// What it looks like.
    #[must_use]
    pub fn summary(&self, now: Instant) -> OriginSummary {
        OriginSummary {
            open: self.open.load(Ordering::Relaxed),
            connecting: self.connecting.load(Ordering::Relaxed),
            waiting: self.line.values().filter(|waiter| waiter.lives()).count(),
            connect_failures: self.breaker.failures(),
            down: self.breaker.is_open(),
            slow_start: self.bucket.is_slow(now),
            hold_until: self.hold_until.filter(|until| *until > now),
        }
    }

    /// Begins to wait for the next connection, whosever it is.
    pub(crate) fn await_connection(&mut self) -> Awaited {
        self.arrivals.wait()
    }

    /// When the connection came about that was waited for; until then `waker` is woken by it.
    pub(crate) fn connected_at(&mut self, awaited: &Awaited, waker: &Waker) -> Option<Instant> {
        self.arrivals.poll(awaited, waker)
    }

    /// Marks a stream as open for as long as the mark lives.
    pub(crate) fn opened(&mut self) -> Slot {
        Slot::take(&self.open)
    }

    /// An open stream dropped, and did not end as it should. Call it before its mark is dropped.
    pub(crate) fn dropped(&mut self, now: Instant) {
        let open = self.open.load(Ordering::Relaxed);
        self.herd.dropped(now, open);
    }

    /// A 503 with Retry-After: no stream reconnects before.
    pub(crate) fn hold(&mut self, until: Instant) {
        self.hold_until = self.hold_until.max(Some(until));
    }

    /// A place in the line. `first` tries after a mass drop are spread out.
    pub(crate) fn enqueue(
        &mut self,
        now: Instant,
        class: Class,
        first: bool,
        draw: Draw,
        waker: &Waker,
    ) -> Ticket {
        let alive = Arc::new(());
        let key = (class, self.tickets);
        self.tickets += 1;
        let spread = match self.herd.window(now, self.policy.rate) {
            Some((since, window)) if first => since + scaled(window, draw),
            _ => now,
        };
        let waiter = Waiter {
            alive: Arc::downgrade(&alive),
            not_before: spread.max(now),
            told: now,
            failed: false,
            waker: waker.clone(),
        };
        self.sweep();
        self.line.insert(key, waiter);
        Ticket { key, _alive: alive }
    }

    /// Forgets who has left the line, once the line is twice as long as it was after the last time.
    fn sweep(&mut self) {
        if self.line.len() >= self.sweep_at {
            self.line.retain(|_, waiter| waiter.lives());
            self.sweep_at = (2 * self.line.len()).max(FORESIGHT);
        }
    }

    /// Whether the ticket may go. A granted ticket is used up.
    pub(crate) fn poll(&mut self, now: Instant, ticket: &Ticket, waker: &Waker) -> Admission {
        let admission = self.admit(now, ticket.key);
        match (&admission, self.line.get_mut(&ticket.key)) {
            (Admission::Wait(until), Some(waiter)) => {
                waiter.told = *until;
                waiter.waker.clone_from(waker);
            }
            _ => {
                self.line.remove(&ticket.key);
            }
        }
        admission
    }

    fn admit(&mut self, now: Instant, key: (Class, u64)) -> Admission {
        let Some(waiter) = self.line.get(&key) else {
            return Admission::Failed;
        };
        if waiter.failed {
            return Admission::Failed;
        }
        let earliest = waiter.not_before.max(self.hold_until.unwrap_or(now));
        if earliest > now {
            return Admission::Wait(earliest);
        }
        let ahead = self.ahead(now, key);
        let free = self.free_connects();
        match self.breaker.gate(now) {
            Gate::Shut(until) => return Admission::Wait(until),
            Gate::Probe if ahead > 0 => return Admission::Wait(now + GRACE),
            Gate::Probe | Gate::Open if ahead >= free => return Admission::Wait(now + GRACE),
            Gate::Probe | Gate::Open => {}
        }
        if let Err(until) = self.bucket.take_after(now, ahead) {
            return Admission::Wait(until);
        }
        let slot = Slot::take(&self.connecting);
        self.breaker.admitted(now);
        Admission::Granted(slot)
    }

    fn free_connects(&self) -> usize {
        let connecting = self.connecting.load(Ordering::Relaxed);
        self.policy.connects.max(1).saturating_sub(connecting)
    }

    /// How many stand before `key` and could go now. Who is late does not count: its driver may
    /// wait for a reader of its own.
    fn ahead(&mut self, now: Instant, key: (Class, u64)) -> usize {
        while let Some(first) = self.line.first_entry() {
            if first.get().lives() {
                break;
            }
            first.remove();
        }
        let before = self.line.range(..key).map(|(_, waiter)| waiter);
        before
            .filter(|waiter| waiter.lives() && waiter.not_before <= now)
            .filter(|waiter| waiter.told + GRACE >= now)
            .take(FORESIGHT)
            .count()
    }

    /// Wakes those who may find the way free now.
    pub(crate) fn wake(&mut self, now: Instant) {
        let free = self.free_connects().min(FORESIGHT);
        let mut woken = 0;
        for waiter in self.line.values_mut() {
            if waiter.failed {
                waiter.waker.wake_by_ref();
            } else if woken < free && waiter.lives() && waiter.not_before <= now {
                woken += 1;
                waiter.told = now;
                waiter.waker.wake_by_ref();
            }
        }
    }
}

impl Waiter {
    fn lives(&self) -> bool {
        self.alive.strong_count() > 0
    }
}

#[cfg(test)]
mod tests;
