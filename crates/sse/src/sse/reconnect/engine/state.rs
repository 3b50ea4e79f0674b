//! The states, their names, and what can be seen of the moves between them.

use std::fmt;
use std::time::{Duration, Instant};

use super::super::classify::{Parking, Trouble};
use super::super::fault::Fault;
use super::super::origin::{Slot, Ticket};
use super::connection::Connection;

#[derive(Debug)]
pub(crate) enum State {
    Idle,
    Backoff {
        until: Instant,
    },
    Queued {
        ticket: Ticket,
    },
    Connecting {
        since: Instant,
        connected: Option<Instant>,
        /// `None` for a POST, and once the connection stands.
        slot: Option<Slot>,
        with_cursor: bool,
    },
    Open(Connection),
    Parked {
        why: Parking,
        probe_at: Option<Instant>,
    },
    Done,
    Failed(Fault),
    Closed,
}

impl State {
    pub(crate) fn name(&self) -> StateName {
        match self {
            Self::Idle => StateName::Idle,
            Self::Backoff { .. } => StateName::Backoff,
            Self::Queued { .. } => StateName::Queued,
            Self::Connecting { .. } => StateName::Connecting,
            Self::Open(_) => StateName::Open,
            Self::Parked { .. } => StateName::Parked,
            Self::Done => StateName::Done,
            Self::Failed(_) => StateName::Failed,
            Self::Closed => StateName::Closed,
        }
    }
}

named! {
    /// Where a stream is; see the diagram at [`Engine`](super::Engine).
    pub enum StateName {
        /// Not begun.
        Idle = "idle",
        /// Waiting for its time.
        Backoff = "backoff",
        /// Waiting for the origin's permit.
        Queued = "queued",
        /// An attempt is under way.
        Connecting = "connecting",
        /// Events come.
        Open = "open",
        /// Resting, visibly; some are probed.
        Parked = "parked",
        /// The response was delivered.
        Done = "done",
        /// Over, with a fault.
        Failed = "failed",
        /// Closed by us.
        Closed = "closed",
    }
}

impl StateName {
    /// Whether nothing follows.
    #[must_use]
    pub fn is_final(self) -> bool {
        matches!(self, Self::Done | Self::Failed | Self::Closed)
    }
}

impl fmt::Display for StateName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What the driver tells the engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Input {
    /// The connection stands (TCP, TLS). Optional: the head or its failure says it too, but then
    /// the head's time runs with the connection's.
    Connected,
    /// The head is there: 200 with an event stream. A session: it is in use.
    Opened,
    /// It went wrong, whatever "it" was.
    Failed(Trouble),
    /// The response was delivered: what the stream was for is done.
    Answered,
    /// There is a new session with the server.
    NewSession,
    /// Something changed outside: do not wait any longer.
    Hurry,
    /// The stream is not wanted any more.
    Close,
}

impl Input {
    /// The name in errors.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Connected => "connected",
            Self::Opened => "opened",
            Self::Failed(trouble) => trouble.as_str(),
            Self::Answered => "answered",
            Self::NewSession => "new_session",
            Self::Hurry => "hurry",
            Self::Close => "close",
        }
    }
}

/// An input that the state has no place for: a mistake of the driver's. The state did not change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unexpected {
    /// The state.
    pub state: StateName,
    /// The input.
    pub input: &'static str,
}

impl fmt::Display for Unexpected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} has no place in state {}", self.input, self.state)
    }
}

impl std::error::Error for Unexpected {}

/// Why a state was left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// An input.
    Input(Input),
    /// Its time had come.
    Due,
    /// A resumed answer brought nothing new for some time: it is resumed anew, to see whether there
    /// is more. Nothing broke.
    Recheck,
    /// The origin gave its permit.
    Admitted,
    /// The origin's probe failed while the stream waited for it.
    OriginDown,
}

impl Cause {
    /// The name in metrics and logs.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Input(input) => input.as_str(),
            Self::Due => "due",
            Self::Recheck => "recheck",
            Self::Admitted => "admitted",
            Self::OriginDown => "origin_down",
        }
    }
}

/// A move from state to state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Transition {
    /// When.
    pub at: Instant,
    /// From where.
    pub from: StateName,
    /// To where.
    pub to: StateName,
    /// Why.
    pub cause: Cause,
    /// Unproductive connections in a row by now.
    pub unproductive: u32,
    /// To [`StateName::Backoff`] or [`StateName::Parked`]: until when.
    pub until: Option<Instant>,
    /// To [`StateName::Open`]: how long the stream had been away, if it had been open before.
    pub away: Option<Duration>,
    /// To [`StateName::Parked`]: why.
    pub parking: Option<Parking>,
    /// To [`StateName::Failed`]: the fault.
    pub fault: Option<Fault>,
}
