//! What went wrong, whose fault it was, and what the client is told.
//!
//! Two families. A [`Fault`] ends a request that was fine by itself: a JSON-RPC error under the
//! request's id, whose `data.shadowcat` says which side failed and whether a retry is safe
//! (`docs/resilience.md`, "Errors"). A [`Rejection`] refuses a message before
//! any server sees it, with the status that the specification gives (`docs/protocol.md`, "What is
//! refused").

use std::fmt;
use std::time::Duration;

use http::header::RETRY_AFTER;
use http::{HeaderMap, StatusCode};

use crate::build;
use crate::inspect;
use crate::message::{Message, RequestId};
use crate::method::Method;
use crate::version::Era;

mod rejection;

pub use rejection::Rejection;

/// Who failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Side {
    /// The client.
    Client,
    /// Shadowcat itself: a bound of its own.
    Shadowcat,
    /// The server, or the way to it.
    Upstream,
}

impl Side {
    /// The name on the wire.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::Shadowcat => "shadowcat",
            Self::Upstream => "upstream",
        }
    }
}

macro_rules! fault_kinds {
    ($($(#[doc = $doc:literal])* $variant:ident = $name:literal,)*) => {
        /// What failed.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum FaultKind {
            $($(#[doc = $doc])* $variant,)*
        }

        impl FaultKind {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$variant,)*];

            /// The name on the wire and in metrics.
            #[must_use]
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }
        }
    };
}

fault_kinds! {
    /// No connection could be made.
    Connect = "connect",
    /// The connection broke before the response's head.
    ConnectionLost = "connection_lost",
    /// TLS failed, its certificates included.
    Tls = "tls",
    /// A deadline passed.
    Timeout = "timeout",
    /// An HTTP status that means failure.
    Status = "status",
    /// 401 or 403.
    Unauthorized = "unauthorized",
    /// 429, or 503 with Retry-After, for longer than the request may wait.
    RateLimited = "rate_limited",
    /// A response with the wrong content type, or none.
    ContentType = "content_type",
    /// A body that is no JSON-RPC response to the request.
    BadResponse = "bad_response",
    /// A line, an event or a message over its limit.
    TooLarge = "too_large",
    /// An event stream ended without the response and cannot be resumed.
    StreamEnded = "stream_ended",
    /// A stream's retry budget is used up.
    BudgetExhausted = "budget_exhausted",
    /// The upstream does not know our session any more.
    SessionLost = "session_lost",
    /// The server's process ended.
    ChildExited = "child_exited",
    /// The server's process could not be started.
    ChildNotStarted = "child_not_started",
    /// A bound of Shadowcat's is reached.
    Overloaded = "overloaded",
    /// The session was ended.
    SessionEnded = "session_ended",
    /// Shadowcat is about to end.
    ShuttingDown = "shutting_down",
    /// The client cancelled.
    Cancelled = "cancelled",
    /// A request id is in use.
    DuplicateId = "duplicate_id",
    /// The two sides do not agree on a protocol version.
    VersionMismatch = "version_mismatch",
    /// A redirect that must not be followed.
    Redirect = "redirect",
}

impl FaultKind {
    /// Whether the server's session is gone, and all that belonged to it.
    #[must_use]
    pub fn is_session_loss(self) -> bool {
        matches!(self, Self::SessionLost | Self::ChildExited)
    }

    /// Whether the answer was lost on its way, so that a safe request may be sent once more.
    #[must_use]
    pub fn is_transport_loss(self) -> bool {
        matches!(
            self,
            Self::ConnectionLost | Self::StreamEnded | Self::SessionLost | Self::ChildExited
        )
    }
}

/// Whether the server may have executed the request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Executed {
    /// Certainly not.
    No,
    /// Perhaps.
    Unknown,
}

impl Executed {
    /// The name on the wire.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::No => "no",
            Self::Unknown => "unknown",
        }
    }
}

/// A failure of one request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// Who failed.
    pub side: Side,
    /// What failed.
    pub kind: FaultKind,
    /// Whether the request may have been executed.
    pub executed: Executed,
    /// When to come back, if somebody said so.
    pub retry_after: Option<Duration>,
    /// For people: what happened, to what, and what to do next. Without secrets.
    pub detail: String,
    /// The server's own JSON-RPC error, to be relayed in place of ours. Boxed, because it is rare
    /// and results that may hold a fault are everywhere.
    pub relayed: Option<Box<Message>>,
}

impl Fault {
    /// A fault without details.
    #[must_use]
    pub fn new(side: Side, kind: FaultKind, executed: Executed) -> Self {
        Self {
            side,
            kind,
            executed,
            retry_after: None,
            detail: String::new(),
            relayed: None,
        }
    }

    /// Says what happened, to what, and what to do next.
    #[must_use]
    pub fn because(mut self, detail: impl Into<String>) -> Self {
        self.detail = detail.into();
        self
    }

    /// Says when to come back.
    #[must_use]
    pub fn after(mut self, retry_after: Option<Duration>) -> Self {
        self.retry_after = retry_after;
        self
    }

    /// Puts the server's own error in the place of ours.
    #[must_use]
    pub fn relaying(mut self, error: Message) -> Self {
        self.relayed = Some(Box::new(error));
        self
    }

    /// Whether sending the request again cannot execute it twice.
    #[must_use]
    pub fn retry_safe(&self) -> bool {
        self.executed == Executed::No
    }

    /// The status that an HTTP client of this era gets. A legacy client gets 200 with the error in
    /// the body, because an official client hangs on an unexpected non-2xx.
    #[must_use]
    pub fn status(&self, era: Era) -> StatusCode {
        match (era, self.kind, self.side) {
            (Era::Legacy, ..) => StatusCode::OK,
            (Era::Modern, FaultKind::Timeout, _) => StatusCode::GATEWAY_TIMEOUT,
            (
                Era::Modern,
                FaultKind::Overloaded | FaultKind::RateLimited | FaultKind::ShuttingDown,
                _,
            ) => StatusCode::SERVICE_UNAVAILABLE,
            (Era::Modern, FaultKind::DuplicateId, _) => StatusCode::BAD_REQUEST,
            (Era::Modern, _, Side::Upstream) => StatusCode::BAD_GATEWAY,
            (Era::Modern, ..) => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    /// The status that answers a request of this method. There is no session yet that a legacy
    /// client could hang in when its `initialize` finds no room, or comes too late: it gets the 503
    /// that says when to come back.
    #[must_use]
    pub fn status_of(&self, era: Era, method: &Method) -> StatusCode {
        match (method, self.kind) {
            (Method::Initialize, FaultKind::Overloaded | FaultKind::ShuttingDown) => {
                StatusCode::SERVICE_UNAVAILABLE
            }
            _ => self.status(era),
        }
    }

    /// The header fields that go with the status: `Retry-After` with 503.
    #[must_use]
    pub fn headers(&self, status: StatusCode) -> HeaderMap {
        let mut headers = HeaderMap::new();
        if let Some(after) = self.retry_after
            && status == StatusCode::SERVICE_UNAVAILABLE
        {
            headers.insert(RETRY_AFTER, seconds(after).into());
        }
        headers
    }

    /// The JSON-RPC code.
    #[must_use]
    pub fn code(&self) -> i32 {
        match self.kind {
            FaultKind::DuplicateId => -32600,
            _ => -32603,
        }
    }

    /// The error response in place of the one that will not come.
    #[must_use]
    pub fn to_response(&self, id: &RequestId) -> Message {
        if let Some(relayed) = &self.relayed {
            return relayed.with_id(id);
        }
        let after = self
            .retry_after
            .map(|after| format!(r#","retry_after":{}"#, seconds(after)));
        let data = format!(
            r#"{{"shadowcat":{{"side":"{}","kind":"{}","executed":"{}","retry_safe":{}{}}}}}"#,
            self.side.as_str(),
            self.kind.as_str(),
            self.executed.as_str(),
            self.retry_safe(),
            after.unwrap_or_default(),
        );
        build::error(Some(id), self.code(), &self.to_string(), Some(&data))
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}: {}",
            self.side.as_str(),
            self.kind.as_str().replace('_', " ")
        )?;
        if !self.detail.is_empty() {
            write!(f, ": {}", self.detail)?;
        }
        Ok(())
    }
}

impl std::error::Error for Fault {}

/// Whole seconds, at least one: what `Retry-After` can say (RFC 9110, section 10.2.3).
#[must_use]
pub fn seconds(duration: Duration) -> u64 {
    let rounded = duration.as_secs() + u64::from(duration.subsec_nanos() > 0);
    rounded.max(1)
}

/// The status of an answer that came without one, by a pipe or an event stream. A modern client
/// sees by it what went wrong (2026-07-28, "Protocol Version Header", "Server Validation" and
/// "Error Codes"); a legacy client gets 200 and reads the body.
#[must_use]
pub fn status_of_answer(era: Era, response: &Message) -> StatusCode {
    match (era, inspect::error_code(response)) {
        (Era::Modern, Some(-32601)) => StatusCode::NOT_FOUND,
        (Era::Modern, Some(-32022..=-32020)) => StatusCode::BAD_REQUEST,
        _ => StatusCode::OK,
    }
}

/// Whether a server that knows only the other era may answer a modern request with this status.
/// Anything else (401, 403, 429, 5xx) says nothing about eras.
#[must_use]
pub fn may_tell_era(status: StatusCode) -> bool {
    matches!(status.as_u16(), 200 | 400 | 404 | 405 | 406 | 415)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_says_whose_it_was_and_whether_a_retry_is_safe() {
        let fault = Fault::new(Side::Upstream, FaultKind::RateLimited, Executed::No)
            .after(Some(Duration::from_millis(1500)))
            .because("the server asked to wait");
        let response = fault.to_response(&RequestId::Integer(4));
        assert_eq!(
            std::str::from_utf8(response.raw()).unwrap(),
            r#"{"jsonrpc":"2.0","id":4,"error":{"code":-32603,"message":"upstream: rate limited: the server asked to wait","data":{"shadowcat":{"side":"upstream","kind":"rate_limited","executed":"no","retry_safe":true,"retry_after":2}}}}"#
        );
    }

    #[test]
    fn when_to_come_back_is_said_with_a_503() {
        let after = Some(Duration::from_millis(1500));
        let busy = Fault::new(Side::Shadowcat, FaultKind::Overloaded, Executed::No).after(after);
        assert_eq!(busy.headers(busy.status(Era::Modern))[RETRY_AFTER], "2");
        assert!(busy.headers(busy.status(Era::Legacy)).is_empty());
        assert_eq!(busy.status_of(Era::Legacy, &Method::ToolsCall), 200);
        assert_eq!(busy.status_of(Era::Legacy, &Method::Initialize), 503);
        let failed = Fault::new(Side::Upstream, FaultKind::Status, Executed::No).after(after);
        assert_eq!(failed.status_of(Era::Legacy, &Method::Initialize), 200);
        assert!(failed.headers(failed.status(Era::Modern)).is_empty());
    }

    #[test]
    fn a_legacy_client_always_gets_200() {
        let fault = Fault::new(Side::Upstream, FaultKind::Connect, Executed::No);
        assert_eq!(fault.status(Era::Legacy), 200);
        assert_eq!(fault.status(Era::Modern), 502);
    }

    #[test]
    fn a_relayed_error_takes_the_request_s_id() {
        let theirs = build::error(None, -32000, "Bad Request", None);
        let fault =
            Fault::new(Side::Upstream, FaultKind::Status, Executed::Unknown).relaying(theirs);
        let response = fault.to_response(&RequestId::Integer(9));
        assert_eq!(response.id(), Some(&RequestId::Integer(9)));
        assert!(
            std::str::from_utf8(response.raw())
                .unwrap()
                .contains("Bad Request")
        );
    }

    #[test]
    fn an_answer_by_pipe_gets_the_status_of_its_era() {
        let id = RequestId::Integer(1);
        for (code, modern) in [
            (-32601, 404),
            (-32020, 400),
            (-32021, 400),
            (-32022, 400),
            (-32602, 200),
            (-32603, 200),
        ] {
            let error = build::error(Some(&id), code, "no", None);
            assert_eq!(status_of_answer(Era::Modern, &error), modern, "{code}");
            assert_eq!(status_of_answer(Era::Legacy, &error), 200, "{code}");
        }
        let result = build::result(&id, r#"{"code":-32601}"#);
        assert_eq!(status_of_answer(Era::Modern, &result), 200);
    }

    /// Every kind, with what a modern client gets if the upstream failed, and if we did.
    #[test]
    fn the_statuses_of_faults() {
        use FaultKind::*;
        for (kind, name, upstream, own) in [
            (Connect, "connect", 502, 500),
            (ConnectionLost, "connection_lost", 502, 500),
            (Tls, "tls", 502, 500),
            (Timeout, "timeout", 504, 504),
            (Status, "status", 502, 500),
            (Unauthorized, "unauthorized", 502, 500),
            (RateLimited, "rate_limited", 503, 503),
            (ContentType, "content_type", 502, 500),
            (BadResponse, "bad_response", 502, 500),
            (TooLarge, "too_large", 502, 500),
            (StreamEnded, "stream_ended", 502, 500),
            (BudgetExhausted, "budget_exhausted", 502, 500),
            (SessionLost, "session_lost", 502, 500),
            (ChildExited, "child_exited", 502, 500),
            (ChildNotStarted, "child_not_started", 502, 500),
            (Overloaded, "overloaded", 503, 503),
            (SessionEnded, "session_ended", 502, 500),
            (ShuttingDown, "shutting_down", 503, 503),
            (Cancelled, "cancelled", 502, 500),
            (DuplicateId, "duplicate_id", 400, 400),
            (VersionMismatch, "version_mismatch", 502, 500),
            (Redirect, "redirect", 502, 500),
        ] {
            assert_eq!(kind.as_str(), name);
            let fault = |side| Fault::new(side, kind, Executed::Unknown);
            assert_eq!(
                fault(Side::Upstream).status(Era::Modern),
                upstream,
                "{name}"
            );
            assert_eq!(fault(Side::Shadowcat).status(Era::Modern), own, "{name}");
            assert_eq!(fault(Side::Upstream).status(Era::Legacy), 200, "{name}");
            let code = if kind == DuplicateId { -32600 } else { -32603 };
            assert_eq!(fault(Side::Client).code(), code, "{name}");
        }
    }
}
