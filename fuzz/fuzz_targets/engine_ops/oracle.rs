//! What must be true of one engine, kept without any of its code.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use shadowcat_sse::Item;
use shadowcat_sse::reconnect::{
    Action, Engine, Finish, Input, Kind, Opening, Policy, StateName, Trouble, Verdict,
};

/// The longest id that may become a cursor.
const LONGEST: usize = 4096;

pub(crate) struct Oracle {
    kind: Kind,
    policy: Policy,
    /// The id that was committed last; empty for none.
    committed: Vec<u8>,
    /// What the next acceptance commits: an id, or nothing new.
    on_its_way: Option<Option<Vec<u8>>>,
    /// Something happened after which the engine may forget its cursor, but not change it.
    may_forget: bool,
    window: VecDeque<(Vec<u8>, Vec<u8>)>,
    delivered: u64,
    duplicates: u64,
    /// The request may have reached the server.
    posted: bool,
    last_start: Option<Instant>,
    opened: Option<Instant>,
    /// How long the connection before was open.
    open_for: Option<Duration>,
    was_open: bool,
    /// The next attempt may come at once.
    hurried: bool,
    /// Attempts since the last that was of use, rechecks aside: they cost none of the tries.
    in_vain: u32,
    /// Rechecks so far, and whether the next attempt is one.
    rechecks: u64,
    rechecking: bool,
    finish: Option<Finish>,
}

impl Oracle {
    pub(crate) fn new(kind: Kind, policy: Policy) -> Self {
        Self {
            kind,
            policy,
            committed: Vec::new(),
            on_its_way: None,
            may_forget: false,
            window: VecDeque::new(),
            delivered: 0,
            duplicates: 0,
            posted: false,
            last_start: None,
            opened: None,
            open_for: None,
            was_open: false,
            hurried: false,
            in_vain: 0,
            rechecks: 0,
            rechecking: false,
            finish: None,
        }
    }

    fn has_cursor(&self) -> bool {
        matches!(self.kind, Kind::Standalone | Kind::Response)
    }

    fn is_answer(&self) -> bool {
        matches!(self.kind, Kind::Response | Kind::ModernResponse)
    }

    pub(crate) fn action(&mut self, now: Instant, action: &Action) {
        let ended_by_us = matches!(action, Action::Finish(Finish::Closed | Finish::Done));
        if !matches!(action, Action::Read(_)) && !ended_by_us {
            // The connection is lost, perhaps by a deadline: what was not accepted never will be.
            self.on_its_way = None;
            self.left(now);
        }
        match action {
            Action::Connect(attempt) => self.connect(now, &attempt.opening),
            Action::Wait(until) | Action::AwaitHead(until) | Action::Read(until) => {
                assert!(
                    until.is_none_or(|until| until > now),
                    "a hot loop: {action:?}"
                );
                assert_eq!(self.finish, None, "it was over");
            }
            Action::Finish(finish) => {
                assert!(self.finish.is_none_or(|known| known == *finish));
                self.finish = Some(*finish);
            }
        }
    }

    fn connect(&mut self, now: Instant, opening: &Opening) {
        assert_eq!(self.finish, None, "it was over");
        let cursor = match opening {
            _ if self.is_request(opening) => {
                assert!(!self.posted, "the request is sent again");
                None
            }
            Opening::Resume(cursor) => {
                assert!(self.posted, "nothing was asked yet");
                assert!(!cursor.as_bytes().is_empty());
                Some(cursor.as_bytes())
            }
            Opening::Get(cursor) => cursor.as_ref().map(|cursor| cursor.as_bytes()),
            Opening::Post | Opening::Listen | Opening::Session => None,
        };
        self.on_its_way = None;
        match cursor {
            Some(cursor) => assert_eq!(cursor, self.committed, "not where the stream stands"),
            None if self.has_cursor() && !self.committed.is_empty() => {
                assert!(self.may_forget, "the cursor is lost");
                self.committed.clear();
            }
            None => {}
        }
        self.may_forget = false;
        self.paced(now, opening);
        self.last_start = Some(now);
        self.open_for = None;
        self.hurried = false;
        self.in_vain += u32::from(!std::mem::take(&mut self.rechecking));
        if self.is_answer() {
            // Resumes, tries for a connection, and tries on a busy server.
            let most = 2 * self.policy.max_attempts + 12;
            assert!(self.in_vain <= most, "{} attempts in vain", self.in_vain);
        }
    }

    /// Whether somebody waits for what becomes of this very attempt.
    fn is_request(&self, opening: &Opening) -> bool {
        matches!(opening, Opening::Post) || matches!(opening, Opening::Listen) && !self.was_open
    }

    /// No two attempts in quick succession, unless the stream was open in between.
    fn paced(&self, now: Instant, opening: &Opening) {
        let settled = (self.open_for).is_some_and(|time| time >= Duration::from_secs(1));
        let least = match self.is_request(opening) {
            true => Duration::from_millis(100),
            false => Duration::from_millis(250),
        };
        if let Some(last_start) = self.last_start
            && !settled
            && !self.hurried
        {
            assert!(now - last_start >= least, "after {:?}", now - last_start);
        }
    }

    /// An input had its place in the state before.
    pub(crate) fn told(&mut self, now: Instant, input: Input, before: StateName) {
        match input {
            Input::Opened => {
                self.opened = Some(now);
                self.was_open = true;
                self.posted = true;
            }
            Input::Failed(trouble) => self.failed(now, trouble),
            Input::NewSession => {
                self.opened = None;
                self.committed.clear();
                self.on_its_way = None;
                self.window.clear();
                self.finish = None;
                self.hurried = true;
                self.posted = false;
            }
            Input::Hurry => self.hurried = true,
            Input::Close if before.is_final() => {}
            Input::Connected | Input::Answered | Input::Close => {}
        }
    }

    /// The connection is over, if there was one. One that stayed open for long was of use.
    fn left(&mut self, now: Instant) {
        let Some(opened) = self.opened.take() else {
            return;
        };
        let open_for = now - opened;
        if open_for >= Duration::from_secs(30) {
            self.in_vain = 0;
        }
        self.open_for = Some(open_for);
    }

    fn failed(&mut self, now: Instant, trouble: Trouble) {
        self.on_its_way = None;
        self.left(now);
        let untouched = match trouble {
            Trouble::NoConnection | Trouble::NotProcessed => true,
            Trouble::Refused(refusal) => {
                refusal.status == 429 || refusal.status == 503 && refusal.retry_after.is_some()
            }
            _ => false,
        };
        self.posted |= !untouched;
        match trouble {
            Trouble::Refused(refusal) if refusal.status == 400 => self.may_forget = true,
            Trouble::TooLarge => self.may_forget = true,
            // A poll.
            Trouble::Ended => self.in_vain = 0,
            _ => {}
        }
    }

    pub(crate) fn item(&mut self, item: &Item, verdict: Verdict) {
        let (id, data, hands_over) = match item {
            Item::Comment | Item::Retry(_) => {
                assert_eq!(verdict, Verdict::Noted);
                return;
            }
            Item::IdOnly(id) => (Some(&id[..]), &[][..], false),
            Item::Event(event) => {
                let primes =
                    self.policy.empty_data_primes && event.data.is_empty() && event.id.is_some();
                (event.id.as_deref(), &event.data[..], !primes)
            }
        };
        if self.was_seen(id, data) {
            self.duplicates += 1;
            assert_eq!(verdict, Verdict::Duplicate, "delivered twice");
            return;
        }
        let expected = if hands_over {
            Verdict::Deliver
        } else {
            Verdict::Noted
        };
        assert_eq!(verdict, expected);
        self.delivered += u64::from(hands_over);
        let usable = |id: &&[u8]| {
            id.len() <= LONGEST && id.iter().all(|byte| *byte >= b' ' || *byte == b'\t')
        };
        let moved = id.filter(usable).map(<[u8]>::to_vec);
        let waits = self.on_its_way.is_some();
        let on_its_way = self.on_its_way.get_or_insert(None);
        if moved.is_some() {
            *on_its_way = moved;
        }
        if !hands_over && !waits {
            self.commit();
        }
    }

    /// Whether an event was here before; remembers it.
    fn was_seen(&mut self, id: Option<&[u8]>, data: &[u8]) -> bool {
        let Some(id) = id.filter(|id| !id.is_empty() && self.has_cursor()) else {
            return false;
        };
        if self.policy.dedup_window == 0 {
            return false;
        }
        let event = (id.to_vec(), data.to_vec());
        if self.window.contains(&event) {
            return true;
        }
        if self.window.len() == self.policy.dedup_window {
            self.window.pop_front();
        }
        self.window.push_back(event);
        false
    }

    pub(crate) fn accepted(&mut self) {
        if self.on_its_way.is_some() {
            self.in_vain = 0;
            self.commit();
        }
    }

    fn commit(&mut self) {
        if let Some(Some(id)) = self.on_its_way.take() {
            self.committed = id;
        }
    }

    /// What holds after every operation.
    pub(crate) fn check(&mut self, engine: &Engine, now: Instant) {
        let counters = engine.counters();
        assert_eq!(counters.delivered, self.delivered);
        assert_eq!(counters.duplicates, self.duplicates);
        assert!(counters.committed <= counters.delivered);
        self.rechecking |= counters.rechecks > self.rechecks;
        self.rechecks = counters.rechecks;
        let (bytes, entries) = engine.held();
        assert!(bytes <= 4 * LONGEST, "holds {bytes} bytes of ids");
        assert!(
            entries <= self.policy.dedup_window,
            "remembers {entries} events"
        );
        let health = engine.health(now);
        assert_eq!(health.state, engine.state());
        let resumable = self.has_cursor() && !self.committed.is_empty();
        assert!(!health.resumable || resumable, "a cursor from nowhere");
        if self.finish.is_some() {
            assert!(engine.state().is_final());
        }
    }
}
