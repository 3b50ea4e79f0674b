//! Every move of the machine.

use std::task::Waker;
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use http::{HeaderMap, StatusCode};

use super::super::classify::{Parking, Refusal, Trouble};
use super::super::fault::{Executed, Fault, FaultKind};
use super::super::origin::Origin;
use super::super::policy::Policy;
use super::*;
use crate::{Event, Item};

mod answers;
mod items;
mod moves;
mod recheck;
mod session;
mod standing;
mod timing;

const MS: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);

/// A stream, its origin, and a clock that jumps from deadline to deadline.
struct Run {
    engine: Engine,
    origin: Origin,
    start: Instant,
    now: Instant,
}

impl Run {
    fn new(kind: Kind) -> Self {
        Self::with(kind, Policy::default())
    }

    fn with(kind: Kind, policy: Policy) -> Self {
        let now = instant();
        Self {
            engine: Engine::new(kind, policy, 42),
            origin: Origin::default(),
            start: now,
            now,
        }
    }

    /// A stream that is open.
    fn open(kind: Kind) -> Self {
        let mut run = Self::new(kind);
        run.reconnect();
        run
    }

    fn poll(&mut self) -> Action {
        self.engine.poll(self.now, &mut self.origin, Waker::noop())
    }

    #[track_caller]
    fn tell(&mut self, input: Input) {
        self.try_tell(input).unwrap();
    }

    fn try_tell(&mut self, input: Input) -> Result<(), Unexpected> {
        self.engine.handle(self.now, &mut self.origin, input)
    }

    #[track_caller]
    fn fail(&mut self, trouble: Trouble) {
        self.tell(Input::Failed(trouble));
    }

    fn pass(&mut self, time: Duration) {
        self.now += time;
    }

    /// Lets time pass until there is an attempt; what was waited, and the attempt.
    #[track_caller]
    fn attempt(&mut self) -> (Duration, Attempt) {
        let from = self.now;
        for _ in 0..10_000 {
            match self.poll() {
                Action::Connect(attempt) => return (self.now - from, attempt),
                Action::Wait(Some(until)) => self.now = until,
                other => panic!("no attempt but {other:?}"),
            }
        }
        panic!("no attempt in sight");
    }

    /// Waits for the next attempt and lets it succeed.
    #[track_caller]
    fn reconnect(&mut self) -> Duration {
        let (waited, _) = self.attempt();
        self.tell(Input::Opened);
        waited
    }

    /// Waits for the next attempt and lets it fail.
    #[track_caller]
    fn refuse(&mut self, trouble: Trouble) -> Duration {
        let (waited, _) = self.attempt();
        self.fail(trouble);
        waited
    }

    /// Takes an event in and accepts it.
    #[track_caller]
    fn event(&mut self, id: Option<&str>, data: &str) -> Verdict {
        let verdict = self.item(&event(id, data));
        if verdict == Verdict::Deliver {
            self.engine.commit();
        }
        verdict
    }

    #[track_caller]
    fn item(&mut self, item: &Item) -> Verdict {
        self.engine.received(self.now);
        self.engine.item(self.now, item).unwrap()
    }

    /// The cursor that the next attempt sends.
    #[track_caller]
    fn next_cursor(&mut self) -> Option<String> {
        let (_, attempt) = self.attempt();
        cursor(&attempt)
    }

    #[track_caller]
    fn fault(&mut self) -> Fault {
        match self.poll() {
            Action::Finish(Finish::Failed(fault)) => fault,
            other => panic!("no fault but {other:?}"),
        }
    }

    fn parking(&self) -> Option<Parking> {
        self.engine.health(self.now).parking
    }
}

/// Where a test's clock begins; only distances matter.
#[allow(clippy::disallowed_methods)]
pub(crate) fn instant() -> Instant {
    Instant::now()
}

fn event(id: Option<&str>, data: &str) -> Item {
    Item::Event(Event {
        event_type: Bytes::new(),
        data: Bytes::copy_from_slice(data.as_bytes()),
        id: id.map(|id| Bytes::copy_from_slice(id.as_bytes())),
    })
}

fn cursor(attempt: &Attempt) -> Option<String> {
    let bytes = match &attempt.opening {
        Opening::Resume(cursor) => cursor.as_bytes().to_vec(),
        Opening::Get(Some(cursor)) => cursor.as_bytes().to_vec(),
        _ => return None,
    };
    Some(String::from_utf8(bytes).unwrap())
}

fn refused(code: u16) -> Trouble {
    let status = StatusCode::from_u16(code).unwrap();
    Trouble::Refused(Refusal::new(
        status,
        &HeaderMap::new(),
        SystemTime::UNIX_EPOCH,
    ))
}

fn busy(code: u16, seconds: u64) -> Trouble {
    let status = StatusCode::from_u16(code).unwrap();
    let mut headers = HeaderMap::new();
    headers.insert("retry-after", seconds.into());
    Trouble::Refused(Refusal::new(status, &headers, SystemTime::UNIX_EPOCH))
}

fn lost_session() -> Trouble {
    let status = StatusCode::NOT_FOUND;
    let refusal = Refusal::new(status, &HeaderMap::new(), SystemTime::UNIX_EPOCH);
    Trouble::Refused(refusal.in_session(false))
}
