//! What a refusal is called: the status, what the server says about it, and what to do where the
//! status alone tells.
//!
//! The body is the server's own: without us its client would have got it whole. So its beginning is
//! told to clients and logs, but not what it repeats of the request's secrets.

use http::header::{
    ACCEPT, AUTHORIZATION, CONTENT_LENGTH, CONTENT_TYPE, COOKIE, HOST, PROXY_AUTHORIZATION,
    USER_AGENT,
};
use http::{HeaderMap, HeaderName, StatusCode};
use shadowcat_mcp::headers;
use shadowcat_mcp::inspect;
use shadowcat_mcp::message::Message;
use shadowcat_sse::said;

use super::Shared;

/// Fields whose values are no secrets, and may well stand in an error.
const PLAIN: [HeaderName; 8] = [
    ACCEPT,
    CONTENT_LENGTH,
    CONTENT_TYPE,
    HOST,
    USER_AGENT,
    headers::PROTOCOL_VERSION,
    headers::METHOD,
    headers::NAME,
];

/// An answer of this status, in words.
pub(super) fn answered(shared: &Shared, status: StatusCode) -> String {
    format!("{} answered {status}", shared.name)
}

/// A refusal in words. `sent`: the request's header fields; `head` and `body`: the server's;
/// `error`: the body, where that is a JSON-RPC error.
pub(super) fn words(
    shared: &Shared,
    sent: &HeaderMap,
    head: &http::response::Parts,
    body: &[u8],
    error: Option<&Message>,
) -> String {
    let mut words = answered(shared, head.status);
    let said = match error {
        Some(error) => inspect::error_text(error),
        None => text(&head.headers, body),
    };
    let said = said.map(|said| said::in_short(&said, &secrets(shared, sent)));
    if let Some(said) = said.filter(|said| !said.is_empty()) {
        words += &format!("; it says: {said}");
    }
    if matches!(
        head.status,
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN
    ) {
        words += "; ";
        words += &credentials_advice(shared);
    }
    words
}

/// What a body says, if people can read it.
fn text(headers: &HeaderMap, body: &[u8]) -> Option<String> {
    let kind = headers.get(CONTENT_TYPE).map(http::HeaderValue::as_bytes);
    let kind = kind.unwrap_or_default();
    let is_text = kind.len() >= 5 && kind[..5].eq_ignore_ascii_case(b"text/");
    (is_text || headers::is_json(headers)).then(|| said::beginning(body))
}

/// What of the request must not be repeated.
fn secrets(shared: &Shared, sent: &HeaderMap) -> Vec<String> {
    let fields = sent.iter().filter(|(name, _)| !PLAIN.contains(name));
    said::secrets(fields.map(|(_, value)| value), shared.config.url.query())
}

/// What to do after a 401 or 403, by what can be done.
fn credentials_advice(shared: &Shared) -> String {
    let given = shared.config.headers.keys().filter(|n| is_credential(n));
    let given: Vec<_> = given.map(HeaderName::as_str).collect();
    if !given.is_empty() {
        let given = given.join(", ");
        return format!(
            "it refuses the credentials that --header gives it ({given}): are they right, and still \
             valid?"
        );
    }
    let clients_own = match shared.config.http_clients {
        true => ", or pass the client's own with --forward-auth",
        false => "",
    };
    format!("give it credentials with --header 'Authorization: Bearer ${{TOKEN}}'{clients_own}")
}

/// Whether a field is likely to say who we are.
fn is_credential(name: &HeaderName) -> bool {
    let words = ["auth", "cookie", "key", "token", "secret", "password"];
    *name == AUTHORIZATION
        || *name == PROXY_AUTHORIZATION
        || *name == COOKIE
        || words.iter().any(|word| name.as_str().contains(word))
}
