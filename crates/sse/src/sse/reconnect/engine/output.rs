//! What the engine gives back: what to do, what an item means, and what it looks like.

use std::time::{Duration, Instant};

use super::super::classify::Parking;
use super::super::cursor::{Answer, Cursor, Standing};
use super::super::fault::Fault;
use super::state::StateName;

named! {
    /// What a stream is.
    pub enum Kind {
        /// A GET in a legacy session: can always be opened again.
        Standalone = "standalone",
        /// The answer to a POST in a legacy session: resumed by GET once an id was committed on it.
        Response = "response",
        /// The answer to a modern POST: never resumed.
        ModernResponse = "modern_response",
        /// A modern `subscriptions/listen`: issued again as a new request once it was open.
        Listen = "listen",
        /// The stream of HTTP+SSE (2024-11-05): a reconnect is a new session.
        LegacySse = "legacy_sse",
        /// The session with a server, whatever carries it: a process, or a session id. Its client
        /// opens it; when it is lost, coming back is a new handshake.
        Session = "session",
    }
}

impl Kind {
    /// It answers one request, and whoever made that waits for it.
    #[must_use]
    pub fn is_answer(self) -> bool {
        matches!(self, Self::Response | Self::ModernResponse)
    }

    /// A response ends the stream.
    pub(crate) fn is_answered(self) -> bool {
        self.is_answer() || self == Self::Listen
    }

    /// The stream remembers where it stands.
    pub(crate) fn has_cursor(self) -> bool {
        matches!(self, Self::Response | Self::Standalone)
    }
}

/// What to open.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Opening {
    /// Send the POST. It is sent again only when the server certainly did not process it.
    Post,
    /// GET the rest of a POST's answer.
    Resume(Cursor<Answer>),
    /// GET the standalone stream, or the HTTP+SSE stream.
    Get(Option<Cursor<Standing>>),
    /// Send `subscriptions/listen`; the second time and later under a new request id.
    Listen,
    /// Make a new session: start the child if there is one, and initialize.
    Session,
}

/// One try.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attempt {
    /// What to open.
    pub opening: Opening,
    /// 1 for a stream in good standing; grows with each unproductive connection.
    pub number: u32,
    /// How long TCP and TLS may take; the engine watches it too.
    pub connect_timeout: Duration,
}

/// What to do next. Except for [`Connect`](Self::Connect), which comes once per attempt, it says
/// the same until something happens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Begin this attempt, then poll again.
    Connect(Attempt),
    /// An attempt is under way: wait for its head, and poll again then.
    AwaitHead(Option<Instant>),
    /// Read the body, and poll again then.
    Read(Option<Instant>),
    /// No connection now (drop the one there was): poll again then, or when woken.
    Wait(Option<Instant>),
    /// It is over.
    Finish(Finish),
}

/// How it is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Finish {
    /// The response was delivered.
    Done,
    /// It failed for good.
    Failed(Fault),
    /// We closed it.
    Closed,
}

/// What an item means.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Verdict {
    /// A new event. Hand it over, then [`commit`](super::Engine::commit) it; or if it is none that
    /// anybody wants, [`skip`](super::Engine::skip) it.
    Deliver,
    /// It was here before. Drop it.
    Duplicate,
    /// Not for anybody but the engine: an id, a comment, a reconnection time.
    Noted,
}

named! {
    /// How alive a stream seems.
    pub enum Liveness {
        /// Heard of lately, or of a kind whose silence means nothing.
        Healthy = "healthy",
        /// Silent for half of what means death, or more.
        Degraded = "degraded",
        /// Silent for too long, or not open.
        Dead = "dead",
    }
}

/// A look at one stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Health {
    /// Where it is.
    pub state: StateName,
    /// How alive it seems.
    pub liveness: Liveness,
    /// How long the connection has been open.
    pub open_for: Option<Duration>,
    /// How long ago the last byte came.
    pub last_byte_age: Option<Duration>,
    /// The period of the server's comments, once known.
    pub comment_period: Option<Duration>,
    /// Unproductive connections in a row.
    pub unproductive: u32,
    /// Whether there is a cursor to resume from.
    pub resumable: bool,
    /// Why it is parked.
    pub parking: Option<Parking>,
}

/// What happened to a stream so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counters {
    /// Attempts begun.
    pub attempts: u64,
    /// Connections that opened.
    pub opened: u64,
    /// Open connections that dropped, polls excepted.
    pub drops: u64,
    /// Open connections that the server ended in order to be polled.
    pub polls: u64,
    /// Open connections that we closed to ask for more of an answer.
    pub rechecks: u64,
    /// Openings that went on at a cursor.
    pub resumed: u64,
    /// Openings that could not: messages may be missing.
    pub gaps: u64,
    /// Events handed over.
    pub delivered: u64,
    /// Events that were accepted, skipped ones included.
    pub committed: u64,
    /// Events that nobody wanted.
    pub skipped: u64,
    /// Events dropped as duplicates.
    pub duplicates: u64,
    /// Events whose id had been used for another payload.
    pub reused_ids: u64,
    /// Events that fell out of the deduplication window.
    pub window_overflow: u64,
    /// Ids that no `Last-Event-ID` can carry.
    pub unusable_ids: u64,
    /// Times the retry budget was used up; what is probed after that uses up nothing more.
    pub exhausted: u64,
}
