//! What is refused before any server sees it: status, code and text of each refusal.
//!
//! The one table of the client edge (MCP specification, Streamable HTTP, all versions; RFC 9110,
//! section 15). Every text says what to do next.

use std::borrow::Cow;
use std::fmt;

use http::StatusCode;

use crate::build;
use crate::message::{Message, ParseError, RequestId, json_string};
use crate::version::{ProtocolVersion, Served, version_data};

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
    /// An `initialize` under a header of the modern era, which has none: -32020.
    ModernInitialize {
        /// What `MCP-Protocol-Version` says.
        header: ProtocolVersion,
    },
    /// An `initialize` that claims a version of the modern era in its body: -32601 and 404, as for
    /// any method that the version does not have.
    InitializeClaims {
        /// What `_meta` says.
        version: ProtocolVersion,
    },
    /// A modern request whose routing header and body disagree: -32020.
    HeaderMismatch {
        /// Which header.
        header: Cow<'static, str>,
        /// What the header says.
        said: String,
        /// What the body says.
        body: String,
    },
    /// A modern request without a routing header that its body calls for: -32020.
    MissingHeader {
        /// Which header.
        header: Cow<'static, str>,
        /// What the body says.
        body: String,
    },
    /// A modern request with a routing header whose source its body lacks: -32020.
    UnmatchedHeader {
        /// Which header.
        header: Cow<'static, str>,
        /// What the header says.
        said: String,
    },
    /// A modern request that repeats a routing header, so that two readers may take different
    /// values: -32020.
    DuplicateHeader {
        /// Which header.
        header: Cow<'static, str>,
    },
    /// A modern request without its metadata, or with malformed metadata: -32602.
    MissingMetadata(&'static str),
    /// A modern request of a version that is not served: -32022.
    UnsupportedVersion {
        /// The version.
        requested: String,
        /// What is served: modern versions, or legacy ones where no modern one is allowed.
        supported: Served,
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
            | Self::ModernInitialize { .. }
            | Self::HeaderMismatch { .. }
            | Self::MissingHeader { .. }
            | Self::UnmatchedHeader { .. }
            | Self::DuplicateHeader { .. }
            | Self::MissingMetadata(_)
            | Self::UnsupportedVersion { .. } => StatusCode::BAD_REQUEST,
            Self::UnknownSession | Self::NotFound | Self::InitializeClaims { .. } => {
                StatusCode::NOT_FOUND
            }
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
            Self::ModernInitialize { .. }
            | Self::HeaderMismatch { .. }
            | Self::MissingHeader { .. }
            | Self::UnmatchedHeader { .. }
            | Self::DuplicateHeader { .. } => -32020,
            Self::UnsupportedVersion { .. } => -32022,
            Self::InitializeClaims { .. } => -32601,
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
            } => Some(supported.data(requested)),
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
                "no Mcp-Session-Id header; send initialize first and repeat the session id it returns (one \
                 that was answered with an error returned none)",
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
            Self::UnsupportedVersionHeader { header } => write!(
                f,
                "MCP-Protocol-Version {header:?} is not supported; send the version that initialize settled, once"
            ),
            Self::VersionConflict { header, body } => write!(
                f,
                "MCP-Protocol-Version is {header}, but the version in the body (or settled by initialize) is {body}; they must be equal"
            ),
            Self::ModernInitialize { header } => write!(
                f,
                "MCP-Protocol-Version is {header}, which has no initialize; leave the header out, or send requests with _meta"
            ),
            Self::InitializeClaims { version } => write!(
                f,
                "protocol version {version} has no initialize; send the request itself, or leave the version out of _meta"
            ),
            Self::HeaderMismatch { header, said, body } => write!(
                f,
                "{header} is {said:?}, but the body says {body:?}; they must be equal"
            ),
            Self::MissingHeader { header, body } => {
                write!(f, "{header} is missing; send what the body says: {body:?}")
            }
            Self::UnmatchedHeader { header, said } => write!(
                f,
                "{header} is {said:?}, but the body has no such value; send both or neither"
            ),
            Self::DuplicateHeader { header } => {
                write!(f, "{header} stands more than once; send it once")
            }
            Self::MissingMetadata(what) => f.write_str(what),
            Self::UnsupportedVersion {
                requested,
                supported,
            } => write!(
                f,
                "protocol version {requested:?} is not served this way; use one of: {supported}"
            ),
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
            Self::HeadersTooLarge => {
                f.write_str("the request's header fields are too large; send fewer or shorter ones")
            }
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
mod tests;
