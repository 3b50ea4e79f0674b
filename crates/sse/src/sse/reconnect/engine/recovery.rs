//! How the engine leaves a connection and comes to the next one.

use std::task::Waker;
use std::time::{Duration, Instant};

use super::super::backoff::{self, scaled};
use super::super::classify::{Decision, Facts, Hint, Leg, Parking, Trouble, classify};
use super::super::cursor::Standing;
use super::super::fault::{Executed, Fault, FaultKind};
use super::super::origin::{Awaited, Class, Lend, Origin, Slot};
use super::super::policy::{
    FREE_POLLS, MIN_INTERVAL, POST_DELAY, POST_DELAY_MAX, POST_PATIENCE, SETTLED, SLOW_POLL,
};
use super::connection::Connection;
use super::state::{Cause, State};
use super::{Action, Attempt, Engine, Finish, Kind, Opening};

/// How often the POST itself was tried.
#[derive(Debug, Default)]
pub(super) struct PostTries {
    no_connection_since: Option<Instant>,
    no_connection: u32,
    busy: u32,
    /// The connection of somebody else that the next try need not wait longer for, and how long
    /// after it to go, so that not all go at once.
    awaited: Option<(Awaited, Duration)>,
}

/// What went wrong, when, and how that was noticed.
#[derive(Debug, Clone, Copy)]
struct Mishap {
    now: Instant,
    trouble: Trouble,
    cause: Cause,
}

/// What a connection or an attempt left behind.
#[derive(Debug, Clone, Copy, Default)]
struct Parted {
    /// How long it had been open.
    open_for: Option<Duration>,
    /// The server ended it in order, on purpose: it is polled.
    polled: bool,
}

impl Engine {
    /// Begins the next attempt: a POST at once, anything else by way of the origin's line.
    pub(super) fn depart(
        &mut self,
        now: Instant,
        origin: &mut impl Lend,
        waker: &Waker,
    ) -> Option<Action> {
        if self.leg() == Leg::Post {
            return Some(self.connect(now, None, Cause::Due));
        }
        let class = match self.kind {
            _ if self.probing || self.recheck.under_way => Class::Probe,
            Kind::Response => Class::Resume,
            _ => Class::Standing,
        };
        self.recheck.due(now);
        let draw = self.draws.draw();
        let ticket = origin
            .lend()
            .enqueue(now, class, self.first_try, draw, waker);
        self.go(now, State::Queued { ticket }, Cause::Due);
        None
    }

    pub(super) fn connect(&mut self, now: Instant, slot: Option<Slot>, cause: Cause) -> Action {
        let Some(opening) = self.opening() else {
            let fault = Fault::new(FaultKind::StreamEnded, Executed::Unknown);
            self.go(now, State::Failed(fault), cause);
            return Action::Finish(Finish::Failed(fault));
        };
        let with_cursor = match &opening {
            Opening::Resume(_) => true,
            Opening::Get(cursor) => cursor.is_some(),
            Opening::Post | Opening::Listen | Opening::Session => false,
        };
        self.first_try = false;
        self.last_start = Some(now);
        self.post.awaited = None;
        self.counters.attempts += 1;
        let connecting = State::Connecting {
            since: now,
            connected: None,
            slot,
            with_cursor,
        };
        self.go(now, connecting, cause);
        Action::Connect(Attempt {
            opening,
            number: self.unproductive.saturating_add(1),
            connect_timeout: self.policy.connect_timeout,
        })
    }

    /// `None` for the answer of a POST that is to be resumed from nowhere: the POST is never the
    /// way back.
    fn opening(&self) -> Option<Opening> {
        Some(match self.kind {
            Kind::Response if self.resuming => Opening::Resume(self.position.cursor()?),
            Kind::Response | Kind::ModernResponse => Opening::Post,
            Kind::Standalone => Opening::Get(self.position.cursor::<Standing>()),
            Kind::LegacySse => Opening::Get(None),
            Kind::Listen => Opening::Listen,
            Kind::Session => Opening::Session,
        })
    }

    fn leg(&self) -> Leg {
        match self.kind {
            Kind::Response if self.resuming => Leg::Resume,
            Kind::Response | Kind::ModernResponse => Leg::Post,
            // Until it was open once, a listen is a request like others, and somebody waits for
            // what becomes of it.
            Kind::Listen if self.counters.opened == 0 => Leg::Post,
            Kind::Standalone | Kind::Listen | Kind::LegacySse | Kind::Session => Leg::Standing,
        }
    }

    /// When an attempt is given up: TCP and TLS have their time, then the head of a GET. A POST has
    /// its request's deadline, a session that of its handshake.
    pub(super) fn head_deadline(
        &self,
        since: Instant,
        connected: Option<Instant>,
    ) -> Option<Instant> {
        let head = self.policy.head_timeout.min(self.policy.idle_timeout);
        match (self.leg(), connected) {
            _ if self.kind == Kind::Session => None,
            (Leg::Post, _) => None,
            // Without word of the connection the head's time runs from the end of its time.
            (_, None) => since.checked_add(self.policy.connect_timeout.saturating_add(head)),
            (_, Some(at)) => at.checked_add(head),
        }
    }

    pub(super) fn open(&mut self, now: Instant, origin: &mut Origin, cause: Cause) {
        let (known, with_cursor) = match &mut self.state {
            State::Connecting {
                connected,
                slot,
                with_cursor,
                ..
            } => {
                drop(slot.take());
                (connected.is_some(), *with_cursor)
            }
            _ => (false, false),
        };
        if !known {
            origin.note_connected(now);
        }
        self.last_start.get_or_insert(now);
        self.counters.opened += 1;
        self.probing = false;
        self.last_trouble = None;
        self.recheck.opened(now);
        let mark = origin.opened();
        let connection = Connection::new(now, with_cursor, mark);
        self.go(now, State::Open(connection), cause);
        let Some(lost_at) = self.lost_at.take() else {
            return;
        };
        if with_cursor {
            self.counters.resumed += 1;
        } else if matches!(self.kind, Kind::Standalone | Kind::Listen) {
            self.counters.gaps += 1;
            self.gap = Some(now.saturating_duration_since(lost_at));
        }
    }

    /// Something went wrong: leaves the connection or the attempt and does what the table says.
    pub(super) fn settle(
        &mut self,
        now: Instant,
        origin: &mut Origin,
        trouble: Trouble,
        cause: Cause,
    ) {
        let mishap = Mishap {
            now,
            trouble,
            cause,
        };
        let parted = match self.state {
            State::Open(_) => self.part(now, origin, trouble),
            _ => self.attempt_failed(now, origin, trouble),
        };
        self.probing = false;
        self.position.discard();
        // What was handed over was handed over, accepted or not.
        self.counters.committed = self.counters.delivered;
        let last = self.last_trouble.take();
        let facts = Facts {
            cursor: self.kind.has_cursor() && self.position.has_cursor(),
            repeated: last.is_some_and(|last| last.as_str() == trouble.as_str()),
        };
        self.last_trouble = parted.open_for.is_none().then_some(trouble);
        match classify(&trouble, self.leg(), facts) {
            Decision::Return { floor, hint } => {
                self.come_back(mishap, origin, parted, floor, hint);
            }
            Decision::SendAgain { hint, or } => self.send_again(mishap, origin, hint, or),
            Decision::DropCursor => {
                self.position.reset();
                self.come_back(mishap, origin, parted, Duration::ZERO, None);
            }
            Decision::Fail(kind, executed) => self.fail(mishap, kind, executed, None),
            Decision::Park(why) => self.park(now, why, cause, None),
            Decision::SessionLost => {
                let executed = match self.leg() {
                    Leg::Post => Executed::No,
                    Leg::Resume | Leg::Standing => Executed::Unknown,
                };
                self.fail(mishap, FaultKind::SessionLost, executed, None);
            }
        }
    }

    /// An open connection is over.
    fn part(&mut self, now: Instant, origin: &mut Origin, trouble: Trouble) -> Parted {
        let State::Open(connection) = &self.state else {
            return Parted::default();
        };
        let open_for = now.saturating_duration_since(connection.opened);
        let polled = trouble == Trouble::Ended && connection.directed && self.kind.has_cursor();
        if polled && connection.messages == 0 {
            self.empty_polls = self.empty_polls.saturating_add(1);
        }
        if !connection.is_productive(now) && !polled && trouble != Trouble::Silent {
            // Our own close of a silent connection leaves the number alone.
            self.unproductive = self.unproductive.saturating_add(1);
        }
        self.credit(now);
        if polled {
            self.counters.polls += 1;
        } else {
            self.counters.drops += 1;
        }
        if !polled && trouble != Trouble::Silent {
            origin.dropped(now);
        }
        self.lost_at.get_or_insert(now);
        self.first_try = true;
        Parted {
            open_for: Some(open_for),
            polled,
        }
    }

    /// Notes what an open connection that is over was good for.
    pub(super) fn credit(&mut self, now: Instant) {
        let State::Open(connection) = &self.state else {
            return;
        };
        if connection.messages > 0 {
            self.empty_polls = 0;
        }
        if connection.is_productive(now) {
            self.unproductive = 0;
            self.exhausted = false;
        }
    }

    /// An attempt did not lead to an open stream.
    fn attempt_failed(&mut self, now: Instant, origin: &mut Origin, trouble: Trouble) -> Parted {
        if self.leg() != Leg::Post {
            self.unproductive = self.unproductive.saturating_add(1);
        }
        let conflict = matches!(trouble, Trouble::Refused(refusal) if refusal.is_conflict());
        if self.recheck.failed(conflict) || matches!(self.state, State::Idle) {
            // Until now it was not lost; or whoever opened it without us has lost it.
            self.lost_at.get_or_insert(now);
        }
        if let State::Connecting {
            connected, slot, ..
        } = &mut self.state
        {
            let known = connected.is_some();
            drop(slot.take());
            match trouble {
                Trouble::NoConnection => origin.note_connect_failed(now),
                Trouble::Tls => origin.wake(now),
                _ if known => {}
                _ => origin.note_connected(now),
            }
        }
        Parted::default()
    }

    fn come_back(
        &mut self,
        mishap: Mishap,
        origin: &mut Origin,
        parted: Parted,
        floor: Duration,
        hint: Option<Hint>,
    ) {
        let Mishap { now, cause, .. } = mishap;
        if !parted.polled && self.policy.is_exhausted(self.unproductive) {
            // Not again by the probes that find nothing.
            self.counters.exhausted += u64::from(!std::mem::replace(&mut self.exhausted, true));
            let kind = FaultKind::BudgetExhausted;
            return match self.kind.is_answer() {
                true => self.fail(mishap, kind, Executed::Unknown, hint),
                false => self.park(now, Parking::OutOfBudget, cause, hint),
            };
        }
        let mut wait = self.backoff(parted.polled).max(floor);
        if let Some(hint) = hint {
            if hint.origin_wide {
                origin.hold(backoff::after(now, self.policy.clamp_hint(hint.wait)));
            }
            wait = wait.max(backoff::asked(&self.policy, hint.wait, self.draws.draw()));
        }
        if parted.polled && self.empty_polls > FREE_POLLS {
            wait = wait.max(SLOW_POLL);
        }
        let mut until = backoff::after(now, wait);
        if let Some(last_start) = self.last_start
            && parted.open_for.is_none_or(|open_for| open_for < SETTLED)
        {
            until = until.max(last_start + MIN_INTERVAL);
        }
        if self.kind.is_answer() && self.deadline.is_some_and(|deadline| deadline <= until) {
            let kind = FaultKind::StreamEnded;
            return self.fail(mishap, kind, Executed::Unknown, hint);
        }
        self.resuming = self.kind == Kind::Response;
        self.go(now, State::Backoff { until }, cause);
    }

    /// A poll is no failure: it waits like after a productive connection.
    fn backoff(&mut self, polled: bool) -> Duration {
        let n = if polled { 0 } else { self.unproductive };
        backoff::delay(&self.policy, n, self.retry, self.draws.draw())
    }

    /// The POST was certainly not processed.
    fn send_again(
        &mut self,
        mishap: Mishap,
        origin: &mut Origin,
        hint: Option<Hint>,
        or: FaultKind,
    ) {
        let Mishap { now, cause, .. } = mishap;
        let wait = match mishap.trouble {
            Trouble::Refused(_) => self.busy_wait(hint),
            _ => {
                let spread = scaled(POST_DELAY, self.draws.draw());
                self.post.awaited = Some((origin.await_connection(), spread));
                self.no_connection_wait(now)
            }
        };
        if let Some(hint) = hint.filter(|hint| hint.origin_wide) {
            origin.hold(backoff::after(now, self.policy.clamp_hint(hint.wait)));
        }
        let until = wait.map(|wait| backoff::after(now, wait));
        let in_time = until.filter(|until| self.deadline.is_none_or(|deadline| *until < deadline));
        match in_time {
            Some(until) => self.go(now, State::Backoff { until }, cause),
            None => self.fail(mishap, or, Executed::No, hint),
        }
    }

    fn busy_wait(&mut self, hint: Option<Hint>) -> Option<Duration> {
        self.post.busy += 1;
        if self.post.busy > self.policy.max_attempts {
            return None;
        }
        match hint {
            Some(hint) if hint.wait > self.policy.hint_max => None,
            Some(hint) => Some(self.policy.clamp_hint(hint.wait)),
            None => {
                let draw = self.draws.draw();
                Some(backoff::delay(&self.policy, self.post.busy, None, draw))
            }
        }
    }

    fn no_connection_wait(&mut self, now: Instant) -> Option<Duration> {
        let since = *self.post.no_connection_since.get_or_insert(now);
        self.post.no_connection = self.post.no_connection.saturating_add(1);
        let delay = backoff::exponential(POST_DELAY, POST_DELAY_MAX, self.post.no_connection);
        let spread = scaled(delay, self.policy.jitter * self.draws.draw());
        let wait = delay.saturating_add(spread);
        (backoff::after(now, wait) <= since + POST_PATIENCE).then_some(wait)
    }

    /// When to go that would go then: a POST that found no connection, soon after somebody else
    /// found one.
    pub(super) fn unless_connected(
        &self,
        until: Instant,
        origin: &mut Origin,
        waker: &Waker,
    ) -> Instant {
        let Some((awaited, spread)) = &self.post.awaited else {
            return until;
        };
        let Some(connected_at) = origin.connected_at(awaited, waker) else {
            return until;
        };
        let settled = self.last_start.map(|start| start + MIN_INTERVAL);
        let soon = (connected_at + *spread).max(settled.unwrap_or(connected_at));
        until.min(soon)
    }

    fn park(&mut self, now: Instant, why: Parking, cause: Cause, hint: Option<Hint>) {
        if why == Parking::TooLarge {
            self.position.reset();
        }
        let draw = self.draws.draw();
        // Nothing from outside would bring a session back.
        let probed = why.is_probed() || self.kind == Kind::Session;
        let asked = hint.map(|hint| backoff::asked(&self.policy, hint.wait, self.draws.draw()));
        let wait = backoff::probe(draw).max(asked.unwrap_or_default());
        let probe_at = probed.then(|| backoff::after(now, wait));
        self.go(now, State::Parked { why, probe_at }, cause);
    }

    fn fail(&mut self, mishap: Mishap, kind: FaultKind, executed: Executed, hint: Option<Hint>) {
        let fault = Fault {
            kind,
            executed,
            status: match mishap.trouble {
                Trouble::Refused(refusal) => Some(refusal.status),
                _ => None,
            },
            retry_after: hint.map(|hint| hint.wait),
        };
        self.go(mishap.now, State::Failed(fault), mishap.cause);
    }

    /// A new session changes the ground of a stream that stands by itself.
    pub(super) fn may_begin_again(&self) -> bool {
        matches!(self.kind, Kind::Standalone | Kind::Listen)
            && match &self.state {
                State::Failed(fault) => fault.kind == FaultKind::SessionLost,
                State::Done | State::Closed => false,
                _ => true,
            }
    }

    /// The cursor and what was seen belonged to the old session.
    pub(super) fn begin_again(&mut self, now: Instant, cause: Cause) {
        if matches!(self.state, State::Open(_)) {
            self.lost_at.get_or_insert(now);
        }
        self.position.reset();
        self.counters.committed = self.counters.delivered;
        self.window.clear();
        self.shown = None;
        self.unproductive = 0;
        self.exhausted = false;
        self.retry = None;
        self.empty_polls = 0;
        self.probing = false;
        self.last_trouble = None;
        self.post = PostTries::default();
        self.go(now, State::Backoff { until: now }, cause);
    }
}
