//! The machine that decides for one stream, or for one session.

use std::sync::Arc;
use std::task::Waker;
use std::time::{Duration, Instant};

use super::backoff::Draws;
use super::classify::Trouble;
use super::cursor::{Cursor, Move, Position, Standing};
use super::dedup::{Digests, EventKey, Seen, Window};
use super::origin::{Admission, Lend};
use super::policy::Policy;
use crate::Item;

#[macro_use]
mod named;
mod connection;
mod look;
mod output;
mod recheck;
mod recovery;
mod session;
mod state;
mod untold;

pub use output::{Action, Attempt, Counters, Finish, Health, Kind, Liveness, Opening, Verdict};
use recheck::Recheck;
use recovery::PostTries;
use state::State;
pub use state::{Cause, Input, StateName, Transition, Unexpected};
use untold::Untold;

/// Decides for one stream when to connect, from where, what of what comes is new, and when to give
/// up; for one session when to make it anew, and when to give up.
///
/// ```text
///            poll             permit              head
///   Idle ──────────► Queued ──────────► Connecting(n) ──────► Open ──────► Done
///    │ a POST           ▲                │  ▲       │           │ answered
///    └──────────────────┼────────────────┼──┘       │           │
///                  due  │        failed  │          │           │ ended, broken,
///                       │                ▼          │ answered  │ silent
///                       ├──────────── Backoff ◄─────┼───────────┤
///                       │ probe                     ▼           │
///                       └──────────── Parked ◄──── Done         │
///                                        ▲                      │
///   Failed(fault) ◄──────────────────────┴──────────────────────┘   Closed ◄── any
///
///   A session: Idle ──► Open       its client opened it
///              Idle ──► Backoff    lost before it was known to be open
///              Idle ──► Parked     the same, and not to be had at once
/// ```
///
/// | state | inputs that have a place in it |
/// |---|---|
/// | Idle | opened, failed (of a session); new session, close |
/// | Backoff | new session, hurry, close |
/// | Queued | new session, close |
/// | Connecting | connected (once), opened, answered (of an answer, of a listen), failed (of an attempt), new session, close |
/// | Open | answered (of an answer, of a listen), failed (of a stream), new session, close; items |
/// | Parked | new session, hurry, close |
/// | Failed | new session, if it was the session that was lost; close |
/// | Done, Closed | close |
///
/// New sessions exist for [`Kind::Standalone`] and [`Kind::Listen`]; for other kinds a new session
/// is another stream. A [`Kind::Session`] is opened by its client, not by the engine, which hears
/// what became of it; each attempt after that is the engine's. Anything else is an [`Unexpected`]
/// and changes nothing. What becomes of a failure is for [`classify`](super::classify()) to say.
///
/// The engine is asked with [`poll`](Self::poll) what to do, told with [`handle`](Self::handle)
/// what happened, and shown with [`item`](Self::item) what came. It watches its deadlines itself:
/// poll it when they come. The same seed and the same calls give the same answers.
#[derive(Debug)]
pub struct Engine {
    kind: Kind,
    policy: Arc<Policy>,
    draws: Draws,
    state: State,
    position: Position,
    /// `None` before the first event that has an id.
    digests: Option<Digests>,
    digest_key: u64,
    window: Window,
    /// The last item, if it was new and has an id.
    shown: Option<Shown>,
    /// Unproductive connections in a row.
    unproductive: u32,
    /// They used up the budget, and none was productive since.
    exhausted: bool,
    /// The server's reconnection time, clamped.
    retry: Option<Duration>,
    /// The answer of a POST is being fetched by GET now.
    resuming: bool,
    /// The stream was open, and no attempt was made since.
    first_try: bool,
    /// The attempt under way is a look from [`State::Parked`].
    probing: bool,
    recheck: Recheck,
    last_start: Option<Instant>,
    /// Polls in a row that brought no message.
    empty_polls: u32,
    /// What the attempt before failed with.
    last_trouble: Option<Trouble>,
    post: PostTries,
    deadline: Option<Instant>,
    /// Since when an open stream is away, or a session that was lost before it was known to be open.
    lost_at: Option<Instant>,
    gap: Option<Duration>,
    counters: Counters,
    untold: Untold,
}

/// An event that has an id.
#[derive(Debug, Clone, Copy)]
struct Shown {
    key: EventKey,
    /// Whether the connection had been [`directed`](connection::Connection::directed) before it.
    directed_before: bool,
}

impl Engine {
    /// An engine for a new stream. `seed` is all the randomness that it gets; seeds should differ
    /// between streams and be hard to guess, as the key of the digests comes from them.
    #[must_use]
    pub fn new(kind: Kind, policy: impl Into<Arc<Policy>>, seed: u64) -> Self {
        let policy = policy.into();
        let mut draws = Draws::new(seed);
        let digest_key = draws.bits();
        let window = if kind.has_cursor() {
            policy.dedup_window
        } else {
            0
        };
        Self {
            kind,
            digests: None,
            digest_key,
            window: Window::new(window),
            shown: None,
            policy,
            draws,
            state: State::Idle,
            position: Position::default(),
            unproductive: 0,
            exhausted: false,
            retry: None,
            resuming: false,
            first_try: true,
            probing: false,
            recheck: Recheck::default(),
            last_start: None,
            empty_polls: 0,
            last_trouble: None,
            post: PostTries::default(),
            deadline: None,
            lost_at: None,
            gap: None,
            counters: Counters::default(),
            untold: Untold::default(),
        }
    }

    /// A standalone stream that goes on where another program left it.
    #[must_use]
    pub fn starting_at(
        cursor: &Cursor<Standing>,
        policy: impl Into<Arc<Policy>>,
        seed: u64,
    ) -> Self {
        let mut engine = Self::new(Kind::Standalone, policy, seed);
        engine.position.start_at(cursor);
        engine
    }

    /// Until when the answer of a POST is of use: no wait of ours goes beyond it.
    pub fn set_deadline(&mut self, deadline: Option<Instant>) {
        self.deadline = deadline;
    }

    /// What the stream is.
    #[must_use]
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// Where the stream is.
    #[must_use]
    pub fn state(&self) -> StateName {
        self.state.name()
    }

    /// What to do now. `waker` is woken when a wait for the origin may be over.
    pub fn poll(&mut self, now: Instant, origin: &mut impl Lend, waker: &Waker) -> Action {
        loop {
            if let Some(until) = self.poll_open(now) {
                return Action::Read(until);
            }
            match &self.state {
                State::Idle => {
                    if let Some(action) = self.depart(now, origin, waker) {
                        return action;
                    }
                }
                State::Backoff { until } => {
                    let until = *until;
                    let until = self.unless_connected(until, &mut origin.lend(), waker);
                    if now < until {
                        return Action::Wait(Some(until));
                    }
                    if let Some(action) = self.depart(now, origin, waker) {
                        return action;
                    }
                }
                State::Queued { ticket } => {
                    let admission = origin.lend().poll(now, ticket, waker);
                    match admission {
                        Admission::Wait(until) => return Action::Wait(Some(until)),
                        Admission::Failed => {
                            let (trouble, cause) = (Trouble::NoConnection, Cause::OriginDown);
                            self.settle(now, &mut origin.lend(), trouble, cause);
                        }
                        Admission::Granted(slot) => {
                            return self.connect(now, Some(slot), Cause::Admitted);
                        }
                    }
                }
                State::Connecting {
                    since, connected, ..
                } => {
                    let (since, connected) = (*since, *connected);
                    let until = self.head_deadline(since, connected);
                    if until.is_none_or(|until| now < until) {
                        return Action::AwaitHead(until);
                    }
                    let trouble = match connected {
                        None => Trouble::NoConnection,
                        Some(_) => Trouble::NoHead,
                    };
                    self.settle(now, &mut origin.lend(), trouble, Cause::Due);
                }
                State::Open(connection) => {
                    let dead_at = connection.dead_at(self.patience());
                    if dead_at.is_some_and(|dead_at| dead_at <= now) {
                        self.settle(now, &mut origin.lend(), Trouble::Silent, Cause::Due);
                    } else {
                        self.recheck(now);
                    }
                }
                State::Parked { probe_at, .. } => {
                    let probe_at = *probe_at;
                    if probe_at.is_none_or(|probe_at| now < probe_at) {
                        return Action::Wait(probe_at);
                    }
                    self.probing = true;
                    if let Some(action) = self.depart(now, origin, waker) {
                        return action;
                    }
                }
                State::Done => return Action::Finish(Finish::Done),
                State::Failed(fault) => return Action::Finish(Finish::Failed(*fault)),
                State::Closed => return Action::Finish(Finish::Closed),
            }
        }
    }

    /// [`poll`](Self::poll) for an open stream, which needs no origin: until when to read. `None`
    /// if there is something else to do, which `poll` says.
    pub fn poll_open(&mut self, now: Instant) -> Option<Option<Instant>> {
        let patience = self.patience();
        let State::Open(connection) = &mut self.state else {
            return None;
        };
        connection.wait(now);
        let dead_at = connection.dead_at(patience);
        let over_at = [dead_at, self.recheck_at()].into_iter().flatten().min();
        over_at
            .is_none_or(|over_at| now < over_at)
            .then_some(over_at)
    }

    /// Tells what happened.
    ///
    /// # Errors
    /// [`Unexpected`] if that cannot have happened in this state.
    pub fn handle(
        &mut self,
        now: Instant,
        origin: &mut impl Lend,
        input: Input,
    ) -> Result<(), Unexpected> {
        let cause = Cause::Input(input);
        let may_begin_again = self.may_begin_again();
        match (input, &mut self.state) {
            (
                Input::Connected,
                State::Connecting {
                    connected, slot, ..
                },
            ) if connected.is_none() => {
                *connected = Some(now);
                drop(slot.take());
                origin.lend().note_connected(now);
            }
            (Input::Opened, State::Connecting { .. }) => self.open(now, &mut origin.lend(), cause),
            (Input::Opened, State::Idle) if self.kind == Kind::Session => {
                self.open(now, &mut origin.lend(), cause);
            }
            (Input::Failed(trouble), State::Connecting { .. }) if fails_attempt(trouble) => {
                self.settle(now, &mut origin.lend(), trouble, cause);
            }
            (Input::Failed(trouble), State::Idle)
                if self.kind == Kind::Session && fails_attempt(trouble) =>
            {
                self.settle(now, &mut origin.lend(), trouble, cause);
            }
            (Input::Failed(trouble), State::Open(_)) if breaks_stream(trouble) => {
                self.settle(now, &mut origin.lend(), trouble, cause);
            }
            (Input::Answered, State::Connecting { connected, .. }) if self.kind.is_answered() => {
                if connected.is_none() {
                    origin.lend().note_connected(now);
                }
                self.go(now, State::Done, cause);
            }
            (Input::Answered, State::Open(_)) if self.kind.is_answered() => {
                self.go(now, State::Done, cause);
            }
            (Input::NewSession, _) if may_begin_again => self.begin_again(now, cause),
            (Input::Hurry, State::Backoff { .. } | State::Parked { .. }) => {
                self.probing = matches!(self.state, State::Parked { .. });
                self.go(now, State::Backoff { until: now }, cause);
            }
            (Input::Close, state) => {
                if !state.name().is_final() {
                    self.go(now, State::Closed, cause);
                    origin.lend().wake(now);
                }
            }
            (input, state) => {
                return Err(Unexpected {
                    state: state.name(),
                    input: input.as_str(),
                });
            }
        }
        Ok(())
    }

    /// Bytes came, as many as may be: the connection is alive. Comes before their items.
    pub fn received(&mut self, now: Instant) {
        if let State::Open(connection) = &mut self.state {
            connection.received(now);
        }
    }

    /// The bytes that came last belong to an event whose rest is not here: the server is not silent.
    /// Tell it before you poll to read on, as long as it is so.
    pub fn holds_part(&mut self) {
        if let State::Open(connection) = &mut self.state {
            connection.holds_part();
        }
    }

    /// Says what an item of the open connection means. What was handed over before should have been
    /// committed: an item that is read while another is on its way is committed with it.
    ///
    /// # Errors
    /// [`Unexpected`] if the stream is not open.
    pub fn item(&mut self, now: Instant, item: &Item) -> Result<Verdict, Unexpected> {
        let State::Open(connection) = &mut self.state else {
            return Err(Unexpected {
                state: self.state(),
                input: "item",
            });
        };
        self.shown = None;
        connection.item();
        Ok(match item {
            Item::Comment => {
                connection.comment(now);
                Verdict::Noted
            }
            Item::Retry(time) => {
                connection.directed = true;
                self.retry = Some(self.policy.clamp_hint(*time));
                Verdict::Noted
            }
            Item::IdOnly(id) => self.event(Some(id), &[], true),
            Item::Event(event) => {
                let id = event.id.as_deref();
                let primes = self.policy.empty_data_primes && event.data.is_empty() && id.is_some();
                self.event(id, &event.data, primes)
            }
        })
    }

    fn event(&mut self, id: Option<&[u8]>, data: &[u8], primes: bool) -> Verdict {
        if let Some(id) = id.filter(|id| !id.is_empty()) {
            let key = self.window.is_on().then(|| {
                let digest_key = self.digest_key;
                let digests = self.digests.get_or_insert_with(|| Digests::new(digest_key));
                digests.of(id, data)
            });
            match key.map_or(Seen::New, |key| self.window.see(key)) {
                Seen::Duplicate => {
                    self.counters.duplicates += 1;
                    if let State::Open(connection) = &mut self.state {
                        connection.replays();
                    }
                    return Verdict::Duplicate;
                }
                Seen::Reused => self.counters.reused_ids += 1,
                Seen::New => {}
            }
            if let State::Open(connection) = &mut self.state {
                let directed_before = std::mem::replace(&mut connection.directed, true);
                self.shown = key.map(|key| Shown {
                    key,
                    directed_before,
                });
            }
        }
        let on_its_way = self.position.is_pending();
        if self.kind.has_cursor() && self.position.tentative(id) == Move::Unusable {
            self.counters.unusable_ids += 1;
        }
        if !primes {
            self.counters.delivered += 1;
            return Verdict::Deliver;
        }
        if !on_its_way {
            self.position.commit(false);
        }
        Verdict::Noted
    }

    /// What was handed over was accepted, and the reader comes back for more. Without anything on
    /// its way it does nothing.
    pub fn commit(&mut self) {
        self.accepted(true);
    }

    /// What was handed over is nothing that anybody wants (no message, a foreign event type). The
    /// position moves past it, but it does not make the connection productive.
    pub fn skip(&mut self) {
        if self.accepted(false) {
            self.counters.skipped += 1;
        }
    }

    fn accepted(&mut self, wanted: bool) -> bool {
        let some = self.counters.delivered > self.counters.committed;
        if some {
            self.position.commit(wanted);
            self.counters.committed = self.counters.delivered;
            if let State::Open(connection) = &mut self.state {
                connection.resumed_reading();
                if wanted {
                    connection.spoke();
                    let by_itself = connection.is_past_replay();
                    self.recheck.heard(self.resuming && by_itself);
                }
            }
        }
        some
    }

    /// A message was delivered that came as no event, but by a session's own way: its connection is
    /// productive.
    pub fn delivered(&mut self) {
        if let State::Open(connection) = &mut self.state {
            connection.messages += 1;
        }
    }

    /// How long the stream was away without a cursor, told once after it is open again: messages
    /// may be missing.
    pub fn take_gap(&mut self) -> Option<Duration> {
        self.gap.take()
    }
}

/// Whether an attempt can fail in this way.
fn fails_attempt(trouble: Trouble) -> bool {
    !matches!(trouble, Trouble::Ended | Trouble::Reset | Trouble::Silent)
}

/// Whether an open stream can break in this way.
fn breaks_stream(trouble: Trouble) -> bool {
    matches!(
        trouble,
        Trouble::Ended | Trouble::Reset | Trouble::Silent | Trouble::TooLarge | Trouble::NoMemory
    )
}

#[cfg(test)]
mod tests;
