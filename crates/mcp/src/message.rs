//! JSON-RPC messages as the bytes that arrived.
//!
//! A proxy relays; it does not re-serialise. A [`Message`] keeps its bytes and knows where in them
//! the routing fields stand. Where something must change (an id on a shared upstream), the span
//! alone is replaced.
//!
//! Strict where two readers could disagree: exactly one JSON object, valid UTF-8, no member of
//! JSON-RPC twice, `jsonrpc` "2.0", and exactly the members of a request, a notification or a
//! response (JSON-RPC 2.0, sections 4 and 5).

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::value::RawValue;

pub use crate::id::{IdTable, RequestId};
use crate::json::{self, Elements, present, span_in};
use crate::method::Method;

/// Messages that one batch may hold.
pub const MAX_BATCH: usize = 64;

/// How deep the arrays and objects of a message may nest, the message's own object included. It is
/// where readers that build a tree by recursion commonly stop, serde_json's among them.
pub const MAX_DEPTH: usize = 128;

/// A string as JSON.
#[must_use]
pub fn json_string(text: &str) -> String {
    // Serialising a str cannot fail; an empty string stands in for the impossible.
    serde_json::to_string(text).unwrap_or_else(|_| "\"\"".to_owned())
}

/// What a message is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// Wants a response.
    Request {
        /// Its id.
        id: RequestId,
        /// Its method.
        method: Method,
    },
    /// Wants none.
    Notification {
        /// Its method.
        method: Method,
    },
    /// A successful response.
    Response {
        /// The id of the request that it answers.
        id: RequestId,
    },
    /// An error response.
    Error {
        /// The id of the request that it answers; `None` (JSON `null` or absent) if the sender
        /// could not tell.
        id: Option<RequestId>,
    },
}

/// One JSON-RPC message. It goes through many hands: cloned and moved it is a pointer.
#[derive(Clone, PartialEq, Eq)]
pub struct Message(Arc<Parts>);

#[derive(Clone, PartialEq, Eq)]
struct Parts {
    raw: Bytes,
    kind: Kind,
    id: Option<Range<usize>>,
    /// `params`, `result` or `error`: a message has at most one of them that matters.
    body: Option<Range<usize>>,
}

/// Why bytes are no message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ParseError {
    /// Not JSON, or not UTF-8: JSON-RPC -32700.
    NotJson(String),
    /// JSON, but no JSON-RPC 2.0 message: -32600. The id, if one could be read.
    Invalid(&'static str, Option<RequestId>),
    /// A batch without messages: -32600.
    EmptyBatch,
    /// A batch of more than [`MAX_BATCH`] messages: -32600.
    BatchTooLong,
}

impl fmt::Display for ParseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotJson(why) => write!(f, "not JSON: {why}"),
            Self::Invalid(why, _) => write!(f, "not a JSON-RPC 2.0 message: {why}"),
            Self::EmptyBatch => f.write_str("an empty batch"),
            Self::BatchTooLong => write!(f, "a batch of more than {MAX_BATCH} messages"),
        }
    }
}

impl std::error::Error for ParseError {}

impl ParseError {
    /// The JSON-RPC error code.
    #[must_use]
    pub fn code(&self) -> i32 {
        match self {
            Self::NotJson(_) => -32700,
            Self::Invalid(..) | Self::EmptyBatch | Self::BatchTooLong => -32600,
        }
    }
}

#[derive(Deserialize)]
struct Envelope<'a> {
    #[serde(borrow, default, deserialize_with = "present")]
    jsonrpc: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    id: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    method: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    params: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    result: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    error: Option<&'a RawValue>,
}

impl<'a> Envelope<'a> {
    fn read(text: &'a str) -> Result<Self, ParseError> {
        if !json::is_object(text) {
            return Err(match serde_json::from_str::<IgnoredAny>(text) {
                Ok(_) => ParseError::Invalid("not an object", None),
                Err(error) => ParseError::NotJson(error.to_string()),
            });
        }
        serde_json::from_str(text).map_err(|error| {
            if error.is_data() {
                ParseError::Invalid("a member stands twice", None)
            } else {
                ParseError::NotJson(error.to_string())
            }
        })
    }
}

impl Message {
    /// Reads one message. The bytes are kept as they are, without copying.
    ///
    /// # Errors
    /// [`ParseError::NotJson`] or [`ParseError::Invalid`]; a batch is invalid here.
    pub fn parse(raw: Bytes) -> Result<Self, ParseError> {
        let (kind, id, body) = {
            let text = text(&raw)?;
            let envelope = Envelope::read(text)?;
            let (kind, body) = kind(&envelope)?;
            if json::is_deeper_than(MAX_DEPTH, text) {
                let id = envelope.id.and_then(|raw| RequestId::parse(raw.get()));
                return Err(ParseError::Invalid("nested deeper than 128 levels", id));
            }
            let span = |part: Option<&RawValue>| part.map(|part| span_in(text, part.get()));
            (kind, span(envelope.id), span(body))
        };
        Ok(Self::from(Parts {
            raw,
            kind,
            id,
            body,
        }))
    }

    /// An error without an id, from bytes known to be one.
    pub(crate) fn from_static_error(raw: Bytes) -> Self {
        Self::from(Parts {
            raw,
            kind: Kind::Error { id: None },
            id: None,
            body: None,
        })
    }

    /// The bytes as they arrived.
    #[must_use]
    pub fn raw(&self) -> &Bytes {
        &self.0.raw
    }

    /// The same message in memory of its own. Bytes that arrived are a piece of the buffer that they
    /// were read into; what is kept for long must not keep that buffer.
    #[must_use]
    pub fn detached(&self) -> Self {
        Self::from(Parts {
            raw: Bytes::copy_from_slice(&self.0.raw),
            ..Parts::clone(&self.0)
        })
    }

    /// What it is.
    #[must_use]
    pub fn kind(&self) -> &Kind {
        &self.0.kind
    }

    /// The id of a request or a response.
    #[must_use]
    pub fn id(&self) -> Option<&RequestId> {
        match &self.0.kind {
            Kind::Request { id, .. } | Kind::Response { id } => Some(id),
            Kind::Error { id } => id.as_ref(),
            Kind::Notification { .. } => None,
        }
    }

    /// The method of a request or a notification.
    #[must_use]
    pub fn method(&self) -> Option<&Method> {
        match &self.0.kind {
            Kind::Request { method, .. } | Kind::Notification { method } => Some(method),
            Kind::Response { .. } | Kind::Error { .. } => None,
        }
    }

    /// Whether it answers a request, with a result or an error.
    #[must_use]
    pub fn is_response(&self) -> bool {
        matches!(self.0.kind, Kind::Response { .. } | Kind::Error { .. })
    }

    /// The raw JSON of `params` (request, notification), `result` (response) or `error`.
    #[must_use]
    pub fn body(&self) -> Option<&str> {
        // The whole was checked to be UTF-8 and the span stands on JSON token borders.
        std::str::from_utf8(self.0.raw.get(self.0.body.clone()?)?).ok()
    }

    /// The bytes without CR and LF, as a line or an event's single `data` field wants them. In
    /// valid JSON these stand between tokens only, so a space takes their place.
    #[must_use]
    pub fn as_line(&self) -> Bytes {
        if memchr::memchr2(b'\n', b'\r', &self.0.raw).is_none() {
            return self.0.raw.clone();
        }
        let mut line = BytesMut::from(&self.0.raw[..]);
        for byte in line.iter_mut().filter(|byte| matches!(byte, b'\n' | b'\r')) {
            *byte = b' ';
        }
        line.freeze()
    }

    /// The same message under another id. An error that lacks the member gets it; any other message
    /// without an id stays as it is.
    #[must_use]
    pub fn with_id(&self, id: &RequestId) -> Self {
        let Some(span) = self.0.id.clone() else {
            return match self.0.kind {
                Kind::Error { .. } => self.with_id_added(id),
                _ => self.clone(),
            };
        };
        let mut changed = self.replaced(span, &id.to_json());
        match &mut changed.kind {
            Kind::Request { id: old, .. } | Kind::Response { id: old } => *old = id.clone(),
            Kind::Error { id: old } => *old = Some(id.clone()),
            Kind::Notification { .. } => {}
        }
        Self::from(changed)
    }

    fn with_id_added(&self, id: &RequestId) -> Self {
        const MEMBER: &str = "\"id\":";
        let Some(brace) = memchr::memchr(b'{', &self.0.raw) else {
            return self.clone();
        };
        let (at, json) = (brace + 1, id.to_json());
        let mut changed = self.replaced(at..at, &format!("{MEMBER}{json},"));
        let start = at + MEMBER.len();
        changed.id = Some(start..start + json.len());
        changed.kind = Kind::Error {
            id: Some(id.clone()),
        };
        Self::from(changed)
    }

    /// The same message with the JSON at `part`, a slice of [`Message::body`], replaced.
    #[must_use]
    pub(crate) fn with_part(&self, part: &str, json: &str) -> Self {
        match std::str::from_utf8(&self.0.raw) {
            Ok(text) => Self::from(self.replaced(span_in(text, part), json)),
            Err(_) => self.clone(),
        }
    }

    fn replaced(&self, span: Range<usize>, json: &str) -> Parts {
        let mut raw = BytesMut::with_capacity(self.0.raw.len() - span.len() + json.len());
        raw.extend_from_slice(&self.0.raw[..span.start]);
        raw.extend_from_slice(json.as_bytes());
        raw.extend_from_slice(&self.0.raw[span.end..]);
        let moved = |other: &Option<Range<usize>>| {
            let other = other.clone()?;
            let shift = |at: usize| {
                if at >= span.end {
                    at - span.len() + json.len()
                } else {
                    at
                }
            };
            Some(shift(other.start)..shift(other.end))
        };
        let (mut id, body) = (moved(&self.0.id), moved(&self.0.body));
        if self.0.id.as_ref() == Some(&span) {
            id = Some(span.start..span.start + json.len());
        }
        Parts {
            raw: raw.freeze(),
            kind: self.0.kind.clone(),
            id,
            body,
        }
    }
}

impl From<Parts> for Message {
    fn from(parts: Parts) -> Self {
        Self(Arc::new(parts))
    }
}

impl fmt::Debug for Message {
    /// Without the contents: they may hold secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Message")
            .field("kind", &self.0.kind)
            .field("bytes", &self.0.raw.len())
            .finish_non_exhaustive()
    }
}

/// The body of a POST or a line: one message, or a batch of them (2025-03-26).
#[derive(Debug, Clone)]
pub enum Payload {
    /// One message.
    Single(Message),
    /// A JSON array of 1 to [`MAX_BATCH`] messages.
    Batch(Vec<Message>),
}

impl Payload {
    /// Reads a message or a batch. The messages of a batch share its bytes.
    ///
    /// # Errors
    /// As [`Message::parse`]; one invalid message makes a batch invalid.
    pub fn parse(raw: Bytes) -> Result<Self, ParseError> {
        let first = raw.iter().find(|byte| !byte.is_ascii_whitespace());
        if first != Some(&b'[') {
            return Message::parse(raw).map(Self::Single);
        }
        let spans: Vec<Range<usize>> = {
            let text = text(&raw)?;
            let elements = Elements::<MAX_BATCH>::read(text)
                .map_err(|error| ParseError::NotJson(error.to_string()))?;
            let Elements::Some(elements) = elements else {
                return Err(ParseError::BatchTooLong);
            };
            let span = |element: &&RawValue| span_in(text, element.get());
            elements.iter().map(span).collect()
        };
        if spans.is_empty() {
            return Err(ParseError::EmptyBatch);
        }
        spans
            .into_iter()
            .map(|span| Message::parse(raw.slice(span)))
            .collect::<Result<_, _>>()
            .map(Self::Batch)
    }
}

fn text(raw: &[u8]) -> Result<&str, ParseError> {
    std::str::from_utf8(raw).map_err(|_| ParseError::NotJson("not UTF-8".to_owned()))
}

type Shape<'a> = (Kind, Option<&'a RawValue>);

fn kind<'a>(envelope: &Envelope<'a>) -> Result<Shape<'a>, ParseError> {
    let null = |raw: &RawValue| raw.get() == "null";
    let id = match envelope.id {
        None => None,
        Some(raw) if null(raw) => None,
        Some(raw) => Some(
            RequestId::parse(raw.get())
                .filter(RequestId::is_string_or_integer)
                .ok_or(ParseError::Invalid(
                    "id is neither a string nor an integer",
                    None,
                ))?,
        ),
    };
    let invalid = |why| Err(ParseError::Invalid(why, id.clone()));
    if envelope.jsonrpc.and_then(json::string).as_deref() != Some("2.0") {
        return invalid("jsonrpc is not \"2.0\"");
    }
    match (envelope.method, envelope.result, envelope.error) {
        (Some(name), None, None) => {
            if envelope
                .params
                .is_some_and(|params| !params.get().starts_with(['{', '[']))
            {
                return invalid("params is neither an object nor an array");
            }
            let Some(name) = json::string(name) else {
                return invalid("method is not a string");
            };
            let method = Method::from_name(&name);
            match (id, envelope.id) {
                (Some(id), _) => Ok((Kind::Request { id, method }, envelope.params)),
                (None, None) => Ok((Kind::Notification { method }, envelope.params)),
                (None, Some(_)) => Err(ParseError::Invalid("a request with a null id", None)),
            }
        }
        (None, Some(result), None) => match id {
            Some(id) => Ok((Kind::Response { id }, Some(result))),
            None => invalid("a result without an id"),
        },
        (None, None, Some(error)) => {
            if !error.get().starts_with('{') {
                return invalid("error is no object");
            }
            Ok((Kind::Error { id }, Some(error)))
        }
        (None, None, None) => invalid("neither method, result nor error"),
        _ => invalid("more than one of method, result and error"),
    }
}

#[cfg(test)]
mod tests;
