//! What a refusal is called: the status, what a JSON-RPC error says, and what to do where the status
//! alone tells.
//!
//! Another body is not repeated. It may repeat secrets of the request, ours or another client's, in
//! forms that cannot all be known. A JSON-RPC error is the client's in any case.

use http::header::{AUTHORIZATION, COOKIE, PROXY_AUTHORIZATION};
use http::{HeaderName, StatusCode};
use shadowcat_mcp::inspect;
use shadowcat_mcp::message::Message;
use shadowcat_sse::said;

use super::Shared;

/// An answer of this status, in words.
pub(super) fn answered(shared: &Shared, status: StatusCode) -> String {
    format!("{} answered {status}", shared.name)
}

/// A refusal in words.
pub(super) fn words(shared: &Shared, status: StatusCode, error: Option<&Message>) -> String {
    let mut words = answered(shared, status);
    let said = error.and_then(inspect::error_text);
    if let Some(said) = said.map(|said| said::in_short(&said, &[])) {
        words += &format!("; it says: {said}");
    }
    if matches!(status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) {
        words += &format!("; {}", credentials_advice(shared));
    }
    words
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
    let clients_own = match shared.config.http_clients && !shared.config.forward_auth {
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
