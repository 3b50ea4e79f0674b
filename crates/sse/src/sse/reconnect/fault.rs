//! How a stream ends that cannot go on.

use std::fmt;
use std::time::Duration;

use http::StatusCode;

/// What failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FaultKind {
    /// No connection could be made.
    Connect,
    /// TLS failed, its certificates included.
    Tls,
    /// The connection broke, or a deadline passed, before the response's head or within its JSON.
    ConnectionLost,
    /// The stream ended, broke or fell silent, and there is no way back to it.
    StreamEnded,
    /// 429, or 503 with Retry-After, for longer than the request may wait.
    RateLimited,
    /// A status that means failure.
    Status,
    /// 401 or 403.
    Unauthorized,
    /// The server does not know our session any more.
    SessionLost,
    /// The server does not know our cursor.
    CursorRejected,
    /// The server offers no way to resume (405).
    NotResumable,
    /// A success without an event stream.
    ContentType,
    /// A body that is no response to the request.
    BadResponse,
    /// A line or an event over its limit.
    TooLarge,
    /// A redirect that must not be followed.
    Redirect,
    /// Our own memory for unfinished events stayed used up.
    Overloaded,
    /// The retry budget is used up.
    BudgetExhausted,
}

impl FaultKind {
    /// The name in metrics and logs.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Connect => "connect",
            Self::Tls => "tls",
            Self::ConnectionLost => "connection_lost",
            Self::StreamEnded => "stream_ended",
            Self::RateLimited => "rate_limited",
            Self::Status => "status",
            Self::Unauthorized => "unauthorized",
            Self::SessionLost => "session_lost",
            Self::CursorRejected => "cursor_rejected",
            Self::NotResumable => "not_resumable",
            Self::ContentType => "content_type",
            Self::BadResponse => "bad_response",
            Self::TooLarge => "too_large",
            Self::Redirect => "redirect",
            Self::Overloaded => "overloaded",
            Self::BudgetExhausted => "budget_exhausted",
        }
    }

    /// Who failed.
    #[must_use]
    pub fn side(self) -> Side {
        match self {
            Self::Overloaded => Side::Local,
            _ => Side::Remote,
        }
    }
}

/// Who failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Side {
    /// A bound of our own.
    Local,
    /// The server, or the way to it.
    Remote,
}

/// Whether the server may have executed the request whose answer the stream was.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Executed {
    /// Certainly not.
    No,
    /// Perhaps.
    Unknown,
}

/// Why a stream is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fault {
    /// What failed.
    pub kind: FaultKind,
    /// Whether the request may have been executed.
    pub executed: Executed,
    /// The status that said so, where one did.
    pub status: Option<StatusCode>,
    /// When the server wants to be asked again.
    pub retry_after: Option<Duration>,
}

impl Fault {
    /// A fault without status and hint.
    #[must_use]
    pub fn new(kind: FaultKind, executed: Executed) -> Self {
        Self {
            kind,
            executed,
            status: None,
            retry_after: None,
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.kind.as_str().replace('_', " "))?;
        if let Some(status) = self.status {
            write!(f, " ({status})")?;
        }
        Ok(())
    }
}

impl std::error::Error for Fault {}
