//! The HTTP header fields that MCP gives a meaning to, and which fields pass a proxy.
//!
//! MCP specification, Transports, "Streamable HTTP"; RFC 9110, sections 5.6, 7.6.1 and 12.5.1.

use std::borrow::Cow;
use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use http::header::{ACCEPT, CONNECTION, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};

use crate::fault::Rejection;
use crate::inspect;
use crate::message::Message;
use crate::version::{Era, ProtocolVersion};

/// `Mcp-Session-Id`
pub const SESSION_ID: HeaderName = HeaderName::from_static("mcp-session-id");
/// `MCP-Protocol-Version`
pub const PROTOCOL_VERSION: HeaderName = HeaderName::from_static("mcp-protocol-version");
/// `Last-Event-ID` (WHATWG HTML, server-sent events, section 9.2.4)
pub const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");
/// `Mcp-Method`
pub const METHOD: HeaderName = HeaderName::from_static("mcp-method");
/// `Mcp-Name`
pub const NAME: HeaderName = HeaderName::from_static("mcp-name");
/// What the names of mirrored tool parameters begin with.
const PARAM_PREFIX: &str = "mcp-param-";

/// How the official SDKs write what the answer to a POST may be; compared before it is parsed.
const USUAL_ACCEPT: &str = "application/json, text/event-stream";

const JSON_TYPE: &str = "application/json";
/// The media type of JSON answers.
pub const JSON: HeaderValue = HeaderValue::from_static(JSON_TYPE);
/// The media type of event streams.
pub const EVENT_STREAM: HeaderValue = HeaderValue::from_static("text/event-stream");

macro_rules! session_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, Hash)]
        pub struct $name(String);

        impl $name {
            /// The id, if the value is visible ASCII (0x21 to 0x7E) and not empty.
            #[must_use]
            pub fn from_header(value: &HeaderValue) -> Option<Self> {
                let bytes = value.as_bytes();
                // All are looked at: without a branch at each byte it takes a few steps.
                let others = bytes.iter().fold(false, |others, b| others | !b.is_ascii_graphic());
                let text = std::str::from_utf8(bytes).ok()?;
                (!others && !text.is_empty()).then(|| Self(text.to_owned()))
            }

            /// The id, for the header field.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Debug for $name {
            /// Masked: whoever knows the id has the session.
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(concat!(stringify!($name), "(…)"))
            }
        }
    };
}

session_id! {
    /// A session id that we minted for a client.
    ClientSessionId
}
session_id! {
    /// A session id that a server minted for us.
    UpstreamSessionId
}

impl ClientSessionId {
    /// A new id from random hex digits.
    #[must_use]
    pub fn minted(digits: String) -> Self {
        Self(digits)
    }
}

/// The client's session id, if it sent one.
///
/// # Errors
/// [`Rejection::MalformedSessionId`].
pub fn client_session_id(headers: &HeaderMap) -> Result<Option<ClientSessionId>, Rejection> {
    match single(headers, &SESSION_ID) {
        Single::Absent => Ok(None),
        Single::Once(value) => ClientSessionId::from_header(value)
            .map(Some)
            .ok_or(Rejection::MalformedSessionId),
        Single::Repeated => Err(Rejection::MalformedSessionId),
    }
}

/// Tells the client its session id.
pub fn insert_session_id(headers: &mut HeaderMap, id: &ClientSessionId) {
    if let Ok(value) = HeaderValue::from_str(id.as_str()) {
        headers.insert(SESSION_ID, value);
    }
}

/// The position from which a client wants a stream again.
#[must_use]
pub fn last_event_id(headers: &HeaderMap) -> Option<String> {
    let value = headers.get(LAST_EVENT_ID)?;
    // What is no text was never an id of ours; it is told apart from an absent header.
    Some(value.to_str().unwrap_or("\u{FFFD}").to_owned())
}

/// How often a field that must stand once was sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Single<'a> {
    Absent,
    Once(&'a HeaderValue),
    Repeated,
}

/// A field that must stand once.
pub(crate) fn single<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Single<'a> {
    let mut values = headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (None, _) => Single::Absent,
        (Some(value), None) => Single::Once(value),
        (Some(_), Some(_)) => Single::Repeated,
    }
}

/// A mirrored tool parameter that was sent more than once.
pub(crate) fn repeated_param(headers: &HeaderMap) -> Option<&HeaderName> {
    headers.keys().find(|name| {
        name.as_str().starts_with(PARAM_PREFIX) && single(headers, name) == Single::Repeated
    })
}

/// What `MCP-Protocol-Version` says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum VersionHeader {
    /// Nothing.
    Absent,
    /// A version that is known.
    Known(ProtocolVersion),
    /// Anything else, several different values included.
    Unknown(String),
}

/// Reads `MCP-Protocol-Version`.
#[must_use]
pub fn version(headers: &HeaderMap) -> VersionHeader {
    let mut values = headers.get_all(&PROTOCOL_VERSION).iter();
    let Some(first) = values.next() else {
        return VersionHeader::Absent;
    };
    let lossy = |value: &HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
    if let Some(second) = values.find(|value| *value != first) {
        return VersionHeader::Unknown(format!("{}, {}", lossy(first).trim(), lossy(second)));
    }
    let text = first.as_bytes().trim_ascii();
    let mut known = ProtocolVersion::ALL.into_iter();
    match known.find(|version| version.as_str().as_bytes() == text) {
        Some(version) => VersionHeader::Known(version),
        None => VersionHeader::Unknown(lossy(first).trim().to_owned()),
    }
}

/// Whether `Accept` allows both types that the answer to a POST may have.
#[must_use]
pub fn accepts_json_and_events(headers: &HeaderMap) -> bool {
    let once = single(headers, &ACCEPT);
    if matches!(once, Single::Once(value) if value == USUAL_ACCEPT) {
        return true;
    }
    accepts(headers, "application", "json") && accepts_events(headers)
}

/// Whether `Accept` allows event streams.
#[must_use]
pub fn accepts_events(headers: &HeaderMap) -> bool {
    accepts(headers, "text", "event-stream")
}

/// Whether `Accept` allows a media type: the most specific range that matches decides, and `q=0`
/// excludes (RFC 9110, section 12.5.1). An absent field allows nothing here: the specification
/// wants both types listed.
fn accepts(headers: &HeaderMap, kind: &str, subtype: &str) -> bool {
    let mut best: Option<(u8, bool)> = None;
    let values = headers
        .get_all(ACCEPT)
        .iter()
        .filter_map(|value| value.to_str().ok());
    for range in values.flat_map(|value| value.split(',')) {
        let mut parts = range.split(';').map(str::trim);
        let Some((range_kind, range_subtype)) = parts.next().and_then(|t| t.split_once('/')) else {
            continue;
        };
        let rank = if range_kind.eq_ignore_ascii_case(kind) {
            if range_subtype.eq_ignore_ascii_case(subtype) {
                2
            } else if range_subtype == "*" {
                1
            } else {
                continue;
            }
        } else if range_kind == "*" && range_subtype == "*" {
            0
        } else {
            continue;
        };
        let refused = parts.any(|parameter| {
            let weight = parameter
                .split_once('=')
                .filter(|(n, _)| n.eq_ignore_ascii_case("q"));
            weight.is_some_and(|(_, weight)| weight.trim().parse::<f32>() == Ok(0.0))
        });
        if best.is_none_or(|(known, _)| rank >= known) {
            best = Some((rank, !refused));
        }
    }
    best.is_some_and(|(_, allowed)| allowed)
}

/// What a body is declared to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Content {
    /// `application/json`
    Json,
    /// `text/event-stream`
    EventStream,
    /// Anything else, or nothing.
    Other,
}

/// What `Content-Type` says, whatever its parameters.
#[must_use]
pub fn content(headers: &HeaderMap) -> Content {
    let value = headers.get(CONTENT_TYPE).map(HeaderValue::as_bytes);
    if value == Some(JSON_TYPE.as_bytes()) {
        // As it is most often, whole.
        return Content::Json;
    }
    let essence = value.and_then(|value| value.split(|byte| *byte == b';').next());
    match essence.map(<[u8]>::trim_ascii) {
        Some(kind) if kind.eq_ignore_ascii_case(JSON_TYPE.as_bytes()) => Content::Json,
        Some(kind) if kind.eq_ignore_ascii_case(EVENT_STREAM.as_bytes()) => Content::EventStream,
        _ => Content::Other,
    }
}

/// Whether the body is declared to be JSON.
#[must_use]
pub fn is_json(headers: &HeaderMap) -> bool {
    content(headers) == Content::Json
}

/// Whether the body is declared to be an event stream.
#[must_use]
pub fn is_event_stream(headers: &HeaderMap) -> bool {
    content(headers) == Content::EventStream
}

/// Header fields of one connection, or of one body, that never pass (RFC 9110, section 7.6.1), and
/// those that each side of a proxy writes for itself.
fn belongs_to_the_connection(name: &HeaderName) -> bool {
    matches!(
        name.as_str(),
        "connection"
            | "keep-alive"
            | "proxy-connection"
            | "proxy-authenticate"
            | "proxy-authorization"
            | "te"
            | "trailer"
            | "transfer-encoding"
            | "upgrade"
            | "http2-settings"
            | "host"
            | "content-length"
            | "content-type"
            | "content-encoding"
            | "accept"
            | "accept-encoding"
            | "expect"
            | "origin"
            | "referer"
            | "date"
            | "cache-control"
            | "last-event-id"
            | "mcp-session-id"
            | "mcp-protocol-version"
    )
}

fn is_credential(name: &HeaderName) -> bool {
    matches!(name.as_str(), "authorization" | "cookie" | "set-cookie")
}

/// What `Connection` names is hop-by-hop, too.
fn connection_options(headers: &HeaderMap) -> Vec<String> {
    if !headers.contains_key(CONNECTION) {
        return Vec::new();
    }
    let values = headers.get_all(CONNECTION).iter();
    let text = values.filter_map(|value| value.to_str().ok());
    text.flat_map(|v| v.split(','))
        .map(|option| option.trim().to_ascii_lowercase())
        .collect()
}

/// The client's header fields that go to the server. Credentials only with `--forward-auth`;
/// routing headers are made anew from the body that is sent, except mirrored tool parameters,
/// which a modern server must get.
#[must_use]
pub fn to_upstream(headers: &HeaderMap, era: Era, forward_auth: bool) -> HeaderMap {
    let options = connection_options(headers);
    let is_routing = |name: &HeaderName| {
        name.as_str().starts_with("mcp-")
            && !(era == Era::Modern && name.as_str().starts_with(PARAM_PREFIX))
    };
    let is_fetch_metadata = |name: &HeaderName| {
        name.as_str().starts_with("sec-") || name.as_str().starts_with("access-control-request-")
    };
    filtered(headers, |name| {
        // First, as it is most often what a field is.
        !belongs_to_the_connection(name)
            && !is_routing(name)
            && !is_fetch_metadata(name)
            && (forward_auth || !is_credential(name))
            && !options.iter().any(|option| option == name.as_str())
    })
}

/// The same fields in memory of their own. As they arrive they are pieces of the buffer that they
/// were read into; what is kept for long must not keep that buffer.
#[must_use]
pub fn detached(headers: &HeaderMap) -> HeaderMap {
    let mut own = headers.clone();
    for value in own.values_mut() {
        if let Ok(mut copy) = HeaderValue::from_bytes(value.as_bytes()) {
            copy.set_sensitive(value.is_sensitive());
            *value = copy;
        }
    }
    own
}

/// Header fields of an answer on its way to the client. Small, as an answer goes from hand to hand;
/// most often there are none.
#[derive(Debug, Default)]
pub struct Fields(Option<Box<HeaderMap>>);

impl From<HeaderMap> for Fields {
    fn from(headers: HeaderMap) -> Self {
        Self((!headers.is_empty()).then(|| Box::new(headers)))
    }
}

impl From<Fields> for HeaderMap {
    fn from(fields: Fields) -> Self {
        fields.0.map_or_else(Self::new, |headers| *headers)
    }
}

/// The server's header fields that go to the client.
#[must_use]
pub fn to_client(headers: &HeaderMap, forward_auth: bool) -> HeaderMap {
    let options = connection_options(headers);
    filtered(headers, |name| {
        let cors = name.as_str().starts_with("access-control-") || name.as_str() == "vary";
        let ours = matches!(name.as_str(), "server" | "x-accel-buffering" | "alt-svc");
        let challenge = name.as_str() == "www-authenticate";
        !belongs_to_the_connection(name)
            && !cors
            && !ours
            && (forward_auth || !(is_credential(name) || challenge))
            && !options.iter().any(|option| option == name.as_str())
    })
}

fn filtered(headers: &HeaderMap, passes: impl Fn(&HeaderName) -> bool) -> HeaderMap {
    let passing = headers.iter().filter(|(name, _)| passes(name));
    let mut kept = HeaderMap::new();
    for (name, value) in passing {
        kept.append(name.clone(), value.clone());
    }
    kept
}

/// The routing headers of a modern message, made from its body: `Mcp-Method`, and `Mcp-Name` for
/// the methods that have it. A name that a header cannot hold as it is goes Base64-encoded
/// (2026-07-28, "Value encoding"); a method of that kind has no such form and gets no header.
pub fn insert_routing(headers: &mut HeaderMap, message: &Message) {
    if let Some(method) = message.method()
        && is_plain(method.as_str())
        && let Ok(value) = HeaderValue::from_str(method.as_str())
    {
        headers.insert(METHOD, value);
    }
    if let Some(name) = inspect::routing_name(message)
        && let Ok(value) = HeaderValue::from_str(&encoded(&name))
    {
        headers.insert(NAME, value);
    }
}

/// The value of `Mcp-Name` or `Mcp-Param-*` as it is meant: `=?base64?…?=` is decoded. `None` for
/// characters that a header must not hold plainly, and for what is no Base64 of UTF-8.
#[must_use]
pub fn decoded(value: &HeaderValue) -> Option<Cow<'_, str>> {
    // Visible ASCII, spaces and tabs.
    let value = value.to_str().ok()?;
    match value
        .strip_prefix("=?base64?")
        .and_then(|rest| rest.strip_suffix("?="))
    {
        Some(encoded) => {
            let bytes = BASE64.decode(encoded).ok()?;
            String::from_utf8(bytes).ok().map(Cow::Owned)
        }
        None => Some(Cow::Borrowed(value)),
    }
}

/// Whether a header holds the value as it is: on its way it may lose spaces at its ends, and all
/// but ASCII.
fn is_plain(value: &str) -> bool {
    value.bytes().all(|b| matches!(b, 0x20..=0x7e)) && value.trim() == value
}

pub(crate) fn encoded(value: &str) -> String {
    if is_plain(value) && !value.starts_with("=?base64?") {
        return value.to_owned();
    }
    format!("=?base64?{}?=", BASE64.encode(value))
}

#[cfg(test)]
mod tests;
