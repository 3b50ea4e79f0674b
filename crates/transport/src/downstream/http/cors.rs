//! Cross-origin requests of the origins that are allowed, so that browser clients work.
//!
//! The Fetch standard, "CORS protocol". The origin itself was checked before; here it is only
//! answered.

use http::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, ACCESS_CONTROL_REQUEST_HEADERS, ALLOW,
    ORIGIN, VARY,
};
use http::{HeaderMap, HeaderValue};

/// The methods of the endpoint.
pub(super) const METHODS: &str = "GET, POST, DELETE, OPTIONS";
/// What a page may read of our responses beyond the standard's own list.
const EXPOSED: HeaderValue = HeaderValue::from_static("Mcp-Session-Id, WWW-Authenticate");
/// How long a browser may keep the answer to a preflight, in seconds. Browsers cap it at 2 to 24
/// hours.
const MAX_AGE: HeaderValue = HeaderValue::from_static("7200");

/// The origin of a cross-origin request.
pub(super) fn origin(headers: &HeaderMap) -> Option<HeaderValue> {
    headers.get(ORIGIN).cloned()
}

/// Lets the page at `origin` read the response.
pub(super) fn allow(response: &mut HeaderMap, origin: HeaderValue) {
    response.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin);
    response.insert(ACCESS_CONTROL_EXPOSE_HEADERS, EXPOSED);
    response.append(VARY, HeaderValue::from_static("Origin"));
}

/// What the answer to OPTIONS says; for a preflight also what the page may send.
pub(super) fn options(request: &HeaderMap, response: &mut HeaderMap) {
    response.insert(ALLOW, HeaderValue::from_static(METHODS));
    if !request.contains_key(ORIGIN) {
        return;
    }
    response.insert(
        ACCESS_CONTROL_ALLOW_METHODS,
        HeaderValue::from_static(METHODS),
    );
    // The origin is trusted with any header; which of them travel on is decided for each request.
    if let Some(wanted) = request.get(ACCESS_CONTROL_REQUEST_HEADERS) {
        response.insert(ACCESS_CONTROL_ALLOW_HEADERS, wanted.clone());
    }
    response.insert(ACCESS_CONTROL_MAX_AGE, MAX_AGE);
}
