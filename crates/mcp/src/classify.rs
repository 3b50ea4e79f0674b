//! Which era a message belongs to, and whether its version channels agree.
//!
//! A version is said in up to three places: the `MCP-Protocol-Version` header, the body of
//! `initialize`, and a request's `_meta`. The body is read first and the header is checked against
//! it (`docs/protocol.md`, "Versions"), so that nothing is routed on a header that its body
//! contradicts.

use std::borrow::Cow;

use http::{HeaderMap, HeaderName, HeaderValue};

use crate::fault::Rejection;
use crate::handshake::Offer;
use crate::headers::{self, Single, VersionHeader};
use crate::inspect::{self, Claim};
use crate::message::{Kind, Message, Payload, RequestId};
use crate::method::Method;
use crate::version::{Era, ProtocolVersion, VersionPolicy};

/// What an HTTP POST is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Classified {
    /// Belongs to a session. What its header says of the version is the session's to check.
    Legacy(VersionHeader),
    /// Stands alone.
    Modern(ModernRequest),
    /// Neither.
    Rejected(Rejection),
}

/// A modern message that may go on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ModernRequest {
    /// Wants an answer.
    Request {
        /// Its id.
        id: RequestId,
        /// Its method.
        method: Method,
    },
    /// Wants none.
    Notification,
}

const ALLOW_POST: Rejection = Rejection::MethodNotAllowed { allow: "POST" };

/// Judges a POST.
#[must_use]
pub fn post(headers: &HeaderMap, payload: &Payload, policy: &VersionPolicy) -> Classified {
    let header = headers::version(headers);
    let judged = match payload {
        Payload::Single(message) => single(headers, &header, message, policy),
        Payload::Batch(messages) => batch(&header, messages),
    };
    match judged {
        Ok(Some(modern)) => Classified::Modern(modern),
        Ok(None) => Classified::Legacy(header),
        Err(rejection) => Classified::Rejected(rejection),
    }
}

/// Judges a GET or a DELETE: the modern era has neither. Returns what the header says of the version,
/// for the session to check.
///
/// # Errors
/// 405 when the header names a modern version.
pub fn bodiless(headers: &HeaderMap) -> Result<VersionHeader, Rejection> {
    let header = headers::version(headers);
    if is_modern(&header) {
        Err(ALLOW_POST)
    } else {
        Ok(header)
    }
}

fn is_modern(header: &VersionHeader) -> bool {
    matches!(header, VersionHeader::Known(version) if version.era() == Era::Modern)
}

fn single(
    headers: &HeaderMap,
    header: &VersionHeader,
    message: &Message,
    policy: &VersionPolicy,
) -> Result<Option<ModernRequest>, Rejection> {
    match message.kind() {
        Kind::Response { .. } | Kind::Error { .. } if is_modern(header) => {
            Err(Rejection::InvalidRequest(
                "protocol version 2026-07-28 has no responses from clients".to_owned(),
            ))
        }
        Kind::Response { .. } | Kind::Error { .. } => Ok(None),
        Kind::Notification { .. } => Ok(is_modern(header).then_some(ModernRequest::Notification)),
        Kind::Request { id, method } => {
            let claim = claimed(message, method, policy);
            let Some(version) = claim.map_err(|refused| header_first(headers, refused))? else {
                return unclaimed(header, method).map(|()| None);
            };
            routing_agrees(headers, message, version, method)?;
            no_handshake(method, version)?;
            Ok(Some(ModernRequest::Request {
                id: id.clone(),
                method: method.clone(),
            }))
        }
    }
}

/// The modern version that a request claims in its body; `None` if it claims none.
fn claimed(
    message: &Message,
    method: &Method,
    policy: &VersionPolicy,
) -> Result<Option<ProtocolVersion>, Rejection> {
    match inspect::claim(message) {
        Claim::None if *method == Method::Discover => Err(Rejection::MissingMetadata(
            "server/discover needs _meta[\"io.modelcontextprotocol/protocolVersion\"]",
        )),
        Claim::None => Ok(None),
        Claim::Malformed { why, .. } => Err(Rejection::MissingMetadata(why)),
        Claim::WellFormed { version } => {
            let known = version.parse::<ProtocolVersion>().ok();
            match known.filter(|known| known.era() == Era::Modern && policy.allows(*known)) {
                Some(known) => Ok(Some(known)),
                None => Err(Rejection::UnsupportedVersion {
                    requested: version,
                    supported: policy.served(Era::Modern),
                }),
            }
        }
    }
}

/// A header that contradicts a claim weighs more than that the claimed version is not served: "if
/// the values do not match, the server MUST reject the request with [...] `HeaderMismatch`"
/// (2026-07-28, Transports, "Protocol Version Header"). A client that sent no header at all is
/// better served by the list of versions.
fn header_first(headers: &HeaderMap, refused: Rejection) -> Rejection {
    let Rejection::UnsupportedVersion { requested, .. } = &refused else {
        return refused;
    };
    match version_agrees(headers, requested) {
        Err(Rejection::MissingHeader { .. }) | Ok(()) => refused,
        Err(mismatch) => mismatch,
    }
}

/// The modern era has no handshake, and its servers take one that is passed on for what it is not: on
/// a process that is shared it would change the era of everybody.
fn no_handshake(method: &Method, version: ProtocolVersion) -> Result<(), Rejection> {
    if *method == Method::Initialize {
        return Err(Rejection::InitializeClaims { version });
    }
    Ok(())
}

/// A request without a claim belongs to a session, unless its header says otherwise.
fn unclaimed(header: &VersionHeader, method: &Method) -> Result<(), Rejection> {
    match header {
        VersionHeader::Known(version) if version.era() == Era::Modern => {
            if *method == Method::Initialize {
                return Err(Rejection::ModernInitialize { header: *version });
            }
            Err(Rejection::MissingMetadata(
                "a 2026-07-28 request needs _meta[\"io.modelcontextprotocol/protocolVersion\"]",
            ))
        }
        _ => Ok(()),
    }
}

/// Whether a header has this value.
fn is(header: &HeaderValue, value: &str) -> bool {
    header.to_str().is_ok_and(|header| header == value)
}

/// Whether a header has this value, as it is or encoded.
fn means(header: &HeaderValue, value: &str) -> bool {
    headers::decoded(header).as_deref() == Some(value)
}

fn version_agrees(headers: &HeaderMap, claimed: &str) -> Result<(), Rejection> {
    agrees(
        headers,
        &headers::PROTOCOL_VERSION,
        "MCP-Protocol-Version".into(),
        is,
        Some(claimed),
    )
}

/// The routing headers must say once what the body says. Which tool parameters are mirrored only
/// the server knows; here they are not compared.
fn routing_agrees(
    headers: &HeaderMap,
    message: &Message,
    version: ProtocolVersion,
    method: &Method,
) -> Result<(), Rejection> {
    version_agrees(headers, version.as_str())?;
    agrees(
        headers,
        &headers::METHOD,
        "Mcp-Method".into(),
        is,
        Some(method.as_str()),
    )?;
    if method.name_param().is_some() {
        let name = inspect::routing_name(message);
        agrees(
            headers,
            &headers::NAME,
            "Mcp-Name".into(),
            means,
            name.as_deref(),
        )?;
    }
    match headers::repeated_param(headers) {
        Some(name) => Err(Rejection::DuplicateHeader {
            header: name.to_string().into(),
        }),
        None => Ok(()),
    }
}

/// Compares a routing header with what the body says.
pub(crate) fn agrees(
    headers: &HeaderMap,
    name: &HeaderName,
    header: Cow<'static, str>,
    says: impl Fn(&HeaderValue, &str) -> bool,
    body: Option<&str>,
) -> Result<(), Rejection> {
    let value = match (headers::single(headers, name), body) {
        (Single::Once(value), _) => value,
        (Single::Repeated, _) => return Err(Rejection::DuplicateHeader { header }),
        (Single::Absent, None) => return Ok(()),
        (Single::Absent, Some(body)) => {
            let body = body.to_owned();
            return Err(Rejection::MissingHeader { header, body });
        }
    };
    if body.is_some_and(|body| says(value, body)) {
        return Ok(());
    }
    let said = String::from_utf8_lossy(value.as_bytes()).into_owned();
    Err(match body {
        Some(body) => Rejection::HeaderMismatch {
            header,
            said,
            body: body.to_owned(),
        },
        None => Rejection::UnmatchedHeader { header, said },
    })
}

/// A batch belongs to the legacy era; which of its versions has batches is the session's to say.
fn batch(header: &VersionHeader, messages: &[Message]) -> Result<Option<ModernRequest>, Rejection> {
    let claims = messages
        .iter()
        .any(|message| inspect::claim(message) != Claim::None);
    let initializes = messages
        .iter()
        .any(|message| message.method() == Some(&Method::Initialize));
    if claims || initializes || is_modern(header) {
        return Err(Rejection::BatchNotAllowed);
    }
    Ok(None)
}

/// Checks the header of a message inside a session against the version settled there; returns the
/// version that it names.
///
/// # Errors
/// [`Rejection::VersionConflict`] or [`Rejection::UnsupportedVersionHeader`], both 400.
pub fn check_version(
    header: VersionHeader,
    negotiated: Option<ProtocolVersion>,
) -> Result<Option<ProtocolVersion>, Rejection> {
    match (header, negotiated) {
        (VersionHeader::Absent, _) => Ok(None),
        (VersionHeader::Known(header), None) => Ok(Some(header)),
        (VersionHeader::Known(header), Some(negotiated)) if header == negotiated => {
            Ok(Some(header))
        }
        (VersionHeader::Known(header), Some(negotiated)) => Err(Rejection::VersionConflict {
            header: header.to_string(),
            body: negotiated.to_string(),
        }),
        (VersionHeader::Unknown(header), _) => Err(Rejection::UnsupportedVersionHeader { header }),
    }
}

/// Checks the header of an `initialize`, if there is one, against its body.
///
/// # Errors
/// [`Rejection::VersionConflict`] or [`Rejection::UnsupportedVersionHeader`], both 400.
pub fn check_initialize(header: VersionHeader, initialize: &Message) -> Result<(), Rejection> {
    let Ok(offer) = Offer::read(initialize) else {
        return Ok(());
    };
    match header {
        VersionHeader::Absent => Ok(()),
        VersionHeader::Known(header) if header.as_str() == offer.version() => Ok(()),
        VersionHeader::Known(header) => Err(Rejection::VersionConflict {
            header: header.to_string(),
            body: offer.version().to_owned(),
        }),
        VersionHeader::Unknown(header) => Err(Rejection::UnsupportedVersionHeader { header }),
    }
}

/// Which era a message on a pipe belongs to. `connection` is what earlier messages decided.
///
/// # Errors
/// When the message does not fit the connection's era or its own claim.
pub fn stdio(
    message: &Message,
    connection: Option<Era>,
    policy: &VersionPolicy,
) -> Result<Era, Rejection> {
    let Kind::Request { method, .. } = message.kind() else {
        return Ok(connection.unwrap_or(Era::Legacy));
    };
    let era = match (method, claimed(message, method, policy)?) {
        (_, Some(version)) => {
            no_handshake(method, version)?;
            Era::Modern
        }
        (Method::Initialize, None) => Era::Legacy,
        (_, None) => connection.unwrap_or(Era::Legacy),
    };
    match (connection, era, method) {
        (Some(Era::Modern), Era::Modern, _)
            if inspect::claim(message) == Claim::None && *method != Method::Ping =>
        {
            Err(Rejection::MissingMetadata(
                "a 2026-07-28 request needs _meta[\"io.modelcontextprotocol/protocolVersion\"]",
            ))
        }
        (Some(Era::Modern), Era::Legacy, _) => Err(Rejection::UnsupportedVersion {
            requested: Offer::read(message)
                .map_or_else(|_| method.to_string(), |offer| offer.version().to_owned()),
            supported: policy.served(Era::Modern),
        }),
        (Some(Era::Legacy), Era::Modern, _) => Err(Rejection::InvalidRequest(
            "this connection was opened with initialize; a 2026-07-28 request does not fit it"
                .to_owned(),
        )),
        _ => Ok(era),
    }
}

/// Whether a message decides the era of its connection: `initialize`, or a request that claims a
/// version, save `server/discover` and `ping`, which decide nothing.
#[must_use]
pub fn decides_era(message: &Message) -> bool {
    match message.kind() {
        Kind::Request { method, .. } => match method {
            Method::Initialize => true,
            Method::Discover | Method::Ping => false,
            _ => matches!(inspect::claim(message), Claim::WellFormed { .. }),
        },
        _ => false,
    }
}

#[cfg(test)]
mod tests;
