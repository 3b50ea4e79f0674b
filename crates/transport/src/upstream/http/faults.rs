//! The faults of an HTTP upstream, each worded once.

use std::fmt::Display;
use std::time::Duration;

use http::StatusCode;
use shadowcat_mcp::fault::{Executed, Fault, FaultKind, Side};
use shadowcat_mcp::message::Message;

use super::body::BodyError;
use super::client::NotSent;

fn upstream(kind: FaultKind, executed: Executed, detail: impl Into<String>) -> Fault {
    Fault::new(Side::Upstream, kind, executed).because(detail)
}

/// No connection: nothing was sent.
pub(crate) fn not_sent(server: &str, why: &NotSent) -> Fault {
    match why {
        NotSent::Unreachable(cause) => upstream(
            FaultKind::Connect,
            Executed::No,
            format!("{server} cannot be reached: {cause}"),
        ),
        NotSent::Tls(cause) => upstream(
            FaultKind::Tls,
            Executed::No,
            format!("no secure connection to {server}: {cause}"),
        ),
    }
}

/// The connection broke before there was an answer.
pub(crate) fn lost(cause: &str) -> Fault {
    upstream(
        FaultKind::ConnectionLost,
        Executed::Unknown,
        format!("the connection broke before the answer was whole: {cause}"),
    )
}

/// The stream of an answer ended or broke without the response, and there is no way back to it.
pub(crate) fn stream_ended(cause: &str) -> Fault {
    upstream(
        FaultKind::StreamEnded,
        Executed::Unknown,
        format!("the event stream ended without the response: {cause}"),
    )
}

/// All event streams that `--max-connections` allows are open.
pub(crate) fn overloaded() -> Fault {
    Fault::new(Side::Shadowcat, FaultKind::Overloaded, Executed::No)
        .because("all event streams that --max-connections allows are in use")
}

/// 429, or 503 with Retry-After, for longer than this request may wait.
pub(crate) fn busy(status: StatusCode, retry_after: Option<Duration>) -> Fault {
    upstream(
        FaultKind::RateLimited,
        Executed::No,
        format!("the server answered {status}"),
    )
    .after(retry_after)
}

/// The server does not know our session (any more), so it executed nothing.
pub(crate) fn session_lost(status: StatusCode) -> Fault {
    upstream(
        FaultKind::SessionLost,
        Executed::No,
        format!("the server answered {status}: it does not know the session any more"),
    )
}

/// 401 or 403, not to be relayed.
pub(crate) fn unauthorized(status: StatusCode) -> Fault {
    upstream(
        FaultKind::Unauthorized,
        Executed::No,
        format!(
            "the server answered {status}: give it credentials with --header \
             'Authorization: Bearer ${{TOKEN}}', or pass the client's own with --forward-auth"
        ),
    )
}

/// A status that means failure; the server's own error takes the place of ours.
pub(crate) fn status(status: StatusCode, error: Option<Message>) -> Fault {
    let fault = upstream(
        FaultKind::Status,
        Executed::Unknown,
        format!("the server answered {status}"),
    );
    match error {
        Some(error) => fault.relaying(error),
        None => fault,
    }
}

/// A success without an answer, or of another content type.
pub(crate) fn content_type(status: StatusCode, content_type: Option<&str>) -> Fault {
    let detail = match content_type {
        None => format!("the server answered {status} without a body that could be read"),
        Some(kind) => format!(
            "the server answered {status} with content of type {kind:?}, \
             neither JSON nor an event stream"
        ),
    };
    upstream(FaultKind::ContentType, Executed::Unknown, detail)
}

/// A body that is no JSON-RPC response to the request.
pub(crate) fn bad_response(why: impl Display) -> Fault {
    upstream(
        FaultKind::BadResponse,
        Executed::Unknown,
        format!("the server's answer is no response to the request: {why}"),
    )
}

/// A message over `--max-message-size`, or another bound of the reader.
pub(crate) fn too_large(what: impl Display) -> Fault {
    upstream(FaultKind::TooLarge, Executed::Unknown, what.to_string())
}

/// Unfinished messages of this server hold all the memory that they may.
pub(crate) fn no_memory() -> Fault {
    Fault::new(Side::Shadowcat, FaultKind::Overloaded, Executed::Unknown)
        .because("too many large messages of the server are being read at once")
}

/// A body that could not be read whole.
pub(crate) fn body(error: &BodyError, limit: usize) -> Fault {
    match error {
        BodyError::TooLarge => too_large(format!(
            "the server's answer is larger than {limit} bytes; --max-message-size sets the limit"
        )),
        BodyError::NoMemory => no_memory(),
        BodyError::Broken(cause) => lost(cause),
    }
}

/// A redirect that is not followed; the server processed nothing.
pub(crate) fn redirect(status: StatusCode, why: impl Display) -> Fault {
    upstream(
        FaultKind::Redirect,
        Executed::No,
        format!("the server's redirect ({status}) is not followed: {why}"),
    )
}

/// A message that wants no reply was given where a request belongs: a mistake of the caller's.
pub(crate) fn not_a_request() -> Fault {
    Fault::new(Side::Shadowcat, FaultKind::BadResponse, Executed::No)
        .because("only a request has a reply")
}
