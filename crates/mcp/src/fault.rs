//! What went wrong, whose fault it was, and what the client is told.
//!
//! Two families. A [`Fault`] ends a request that was fine by itself: a JSON-RPC error under the
//! request's id, whose `data.shadowcat` says which side failed and whether a retry is safe
//! (resilience, section 3, "Faults toward the client"). A [`Rejection`] refuses a message before
//! any server sees it, with the status that the specification gives (eras, section 1, "What must
//! be rejected, and with what").

use std::fmt;
use std::time::Duration;

use http::StatusCode;

use crate::build;
use crate::message::{Message, ParseError, RequestId, json_string};
use crate::version::{Era, ProtocolVersion, version_data};

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

    /// Whether the same attempt may succeed later without anybody changing anything.
    #[must_use]
    pub fn is_temporary(&self) -> bool {
        !matches!(
            self.kind,
            FaultKind::Unauthorized
                | FaultKind::VersionMismatch
                | FaultKind::Tls
                | FaultKind::Redirect
                | FaultKind::DuplicateId
                | FaultKind::Cancelled
                | FaultKind::SessionEnded
        )
    }

    /// The status that an HTTP client of this era gets. A legacy client gets 200 with the error in
    /// the body, because an official client hangs on an unexpected non-2xx.
    #[must_use]
    pub fn status(&self, era: Era) -> StatusCode {
        match (era, self.kind, self.side) {
            (Era::Legacy, ..) => StatusCode::OK,
            (Era::Modern, FaultKind::Timeout, _) => StatusCode::GATEWAY_TIMEOUT,
            (Era::Modern, FaultKind::Overloaded | FaultKind::RateLimited, _) => {
                StatusCode::SERVICE_UNAVAILABLE
            }
            (Era::Modern, FaultKind::DuplicateId, _) => StatusCode::BAD_REQUEST,
            (Era::Modern, _, Side::Upstream) => StatusCode::BAD_GATEWAY,
            (Era::Modern, ..) => StatusCode::INTERNAL_SERVER_ERROR,
        }
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

/// Why a message is refused before any server sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Rejection {
    /// The body is not JSON or no message.
    Parse(ParseError),
    /// A message that does not fit where it stands.
    InvalidRequest(String),
    /// A batch where the version has none.
    BatchNotAllowed,
    /// A request that is no `initialize` came without a session id.
    SessionRequired,
    /// A session id that is malformed, unknown or expired.
    UnknownSession,
    /// An `Mcp-Session-Id` that is not visible ASCII.
    MalformedSessionId,
    /// A `Last-Event-ID` that was never issued, or is forgotten.
    UnknownEventId,
    /// `MCP-Protocol-Version` names a version that is unknown here.
    UnsupportedVersionHeader {
        /// The value.
        header: String,
    },
    /// The version channels disagree.
    VersionConflict {
        /// What the header says.
        header: String,
        /// What the body said or the handshake settled.
        body: String,
    },
    /// A modern request whose routing header and body disagree, or a routing header sent twice:
    /// -32020.
    HeaderMismatch {
        /// Which header.
        header: &'static str,
        /// What the header says; `None` if it is absent.
        said: Option<String>,
        /// What the body says.
        body: String,
    },
    /// A modern request without its metadata, or with malformed metadata: -32602.
    MissingMetadata(&'static str),
    /// A modern request of a version that is not served: -32022.
    UnsupportedVersion {
        /// The version.
        requested: String,
        /// What is served, newest first.
        supported: Vec<ProtocolVersion>,
    },
    /// A path other than `/mcp`.
    NotFound,
    /// A method that is not offered.
    MethodNotAllowed {
        /// The value of `Allow`.
        allow: &'static str,
    },
    /// `Accept` lacks a type that the answer may have.
    NotAcceptable {
        /// What has to be acceptable.
        needed: &'static str,
    },
    /// The body's type is not JSON.
    UnsupportedMediaType,
    /// An `Origin` that is not allowed.
    OriginNotAllowed {
        /// Its value.
        origin: String,
    },
    /// A `Host` that is not ours.
    HostNotAllowed {
        /// Its value.
        host: String,
    },
    /// The body is over `--max-message-size`.
    BodyTooLarge {
        /// The limit in bytes.
        limit: usize,
    },
    /// The header section is over its limit.
    HeadersTooLarge,
    /// `--max-sessions` is reached.
    TooManySessions,
    /// A bound is reached for now.
    Overloaded {
        /// Which.
        what: &'static str,
        /// When to come back, in seconds.
        retry_after: u64,
    },
}

impl Rejection {
    /// The HTTP status.
    #[must_use]
    pub fn status(&self) -> StatusCode {
        match self {
            Self::Parse(_)
            | Self::InvalidRequest(_)
            | Self::BatchNotAllowed
            | Self::SessionRequired
            | Self::MalformedSessionId
            | Self::UnknownEventId
            | Self::UnsupportedVersionHeader { .. }
            | Self::VersionConflict { .. }
            | Self::HeaderMismatch { .. }
            | Self::MissingMetadata(_)
            | Self::UnsupportedVersion { .. } => StatusCode::BAD_REQUEST,
            Self::UnknownSession | Self::NotFound => StatusCode::NOT_FOUND,
            Self::MethodNotAllowed { .. } => StatusCode::METHOD_NOT_ALLOWED,
            Self::NotAcceptable { .. } => StatusCode::NOT_ACCEPTABLE,
            Self::UnsupportedMediaType => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::OriginNotAllowed { .. } => StatusCode::FORBIDDEN,
            Self::HostNotAllowed { .. } => StatusCode::MISDIRECTED_REQUEST,
            Self::BodyTooLarge { .. } => StatusCode::PAYLOAD_TOO_LARGE,
            Self::HeadersTooLarge => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            Self::TooManySessions | Self::Overloaded { .. } => StatusCode::SERVICE_UNAVAILABLE,
        }
    }

    /// The JSON-RPC code.
    #[must_use]
    pub fn code(&self) -> i32 {
        match self {
            Self::Parse(error) => error.code(),
            Self::HeaderMismatch { .. } => -32020,
            Self::UnsupportedVersion { .. } => -32022,
            Self::MissingMetadata(_) => -32602,
            Self::TooManySessions | Self::Overloaded { .. } => -32603,
            _ => -32600,
        }
    }

    /// The header that goes with the status: name and value.
    #[must_use]
    pub fn header(&self) -> Option<(http::HeaderName, String)> {
        match self {
            Self::MethodNotAllowed { allow } => Some((http::header::ALLOW, (*allow).to_owned())),
            Self::TooManySessions => Some((http::header::RETRY_AFTER, "10".to_owned())),
            Self::Overloaded { retry_after, .. } => {
                Some((http::header::RETRY_AFTER, retry_after.to_string()))
            }
            _ => None,
        }
    }

    fn data(&self) -> Option<String> {
        match self {
            Self::VersionConflict { header, body } => Some(format!(
                r#"{{"header":{},"body":{}}}"#,
                json_string(header),
                json_string(body)
            )),
            Self::UnsupportedVersionHeader { header } => {
                let all = ProtocolVersion::ALL
                    .iter()
                    .rev()
                    .map(|version| version.as_str());
                Some(version_data(all, header))
            }
            Self::UnsupportedVersion {
                requested,
                supported,
            } => Some(version_data(
                supported.iter().map(|version| version.as_str()),
                requested,
            )),
            _ => None,
        }
    }

    /// The JSON-RPC error that is the body; under the request's id where there is one.
    #[must_use]
    pub fn to_response(&self, id: Option<&RequestId>) -> Message {
        let id = match self {
            Self::Parse(ParseError::Invalid(_, Some(id))) => Some(id),
            _ => id,
        };
        build::error(id, self.code(), &self.to_string(), self.data().as_deref())
    }
}

impl fmt::Display for Rejection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Parse(error) => write!(f, "{error}"),
            Self::InvalidRequest(why) => f.write_str(why),
            Self::BatchNotAllowed => f.write_str(
                "batches exist in protocol version 2025-03-26 only; send one message at a time",
            ),
            Self::SessionRequired => f.write_str(
                "no Mcp-Session-Id header; send initialize first and repeat the session id it returns",
            ),
            Self::UnknownSession => {
                f.write_str("unknown or expired session; start a new one with initialize")
            }
            Self::MalformedSessionId => {
                f.write_str("Mcp-Session-Id must be one value of visible ASCII characters")
            }
            Self::UnknownEventId => f.write_str(
                "Last-Event-ID was not issued in this session or is no longer kept; open the stream without it",
            ),
            Self::UnsupportedVersionHeader { header } => {
                write!(f, "MCP-Protocol-Version {header:?} is not supported")
            }
            Self::VersionConflict { header, body } => write!(
                f,
                "MCP-Protocol-Version is {header}, but the version in the body (or settled by initialize) is {body}; they must be equal"
            ),
            Self::HeaderMismatch { header, said: Some(said), body } => {
                write!(f, "{header} is {said:?}, but the body says {body:?}; they must be equal")
            }
            Self::HeaderMismatch { header, said: None, body } => {
                write!(f, "{header} is missing; the body says {body:?}")
            }
            Self::MissingMetadata(what) => f.write_str(what),
            Self::UnsupportedVersion { requested, .. } => {
                write!(f, "protocol version {requested:?} is not supported")
            }
            Self::NotFound => f.write_str("nothing here; the MCP endpoint is /mcp"),
            Self::MethodNotAllowed { allow } => write!(f, "method not allowed; allowed: {allow}"),
            Self::NotAcceptable { needed } => {
                write!(f, "not acceptable: the Accept header must allow {needed}")
            }
            Self::UnsupportedMediaType => {
                f.write_str("unsupported media type: Content-Type must be application/json")
            }
            Self::OriginNotAllowed { origin } => {
                write!(f, "Origin {origin:?} is not allowed; --allow-origin allows it")
            }
            Self::HostNotAllowed { host } => {
                write!(f, "Host {host:?} is not served here; --allow-host allows it")
            }
            Self::BodyTooLarge { limit } => write!(
                f,
                "the message is larger than {limit} bytes; --max-message-size sets the limit"
            ),
            Self::HeadersTooLarge => f.write_str("the request's header fields are too large"),
            Self::TooManySessions => {
                f.write_str("too many sessions; --max-sessions sets the limit, try again later")
            }
            Self::Overloaded { what, .. } => write!(f, "overloaded: {what}; try again later"),
        }
    }
}

impl std::error::Error for Rejection {}

impl From<ParseError> for Rejection {
    fn from(error: ParseError) -> Self {
        Self::Parse(error)
    }
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
}
