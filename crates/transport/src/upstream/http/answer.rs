//! From a response head to an answer: what the server made of one POST.
//!
//! A legacy server's errors are correlated by the exchange, not by their id (which servers leave
//! null or fill with words); whatever message ends up as the answer carries the request's id.

use http::header::CONTENT_TYPE;
use http::{HeaderMap, Response, StatusCode};
use hyper::body::Incoming;
use shadowcat_mcp::fault::Fault;
use shadowcat_mcp::message::{Kind, Message, RequestId};
use shadowcat_mcp::{headers, inspect};

use super::{Shared, body, faults};
use crate::upstream::Reply;

/// How much of an error's body is read in search of words for a person.
const ERROR_TEXT_LIMIT: usize = 64 * 1024;

/// What a response announces.
pub(crate) enum Answer {
    /// The whole answer.
    Whole(Reply),
    /// An event stream that holds the answer.
    Events(Response<Incoming>),
    /// A status that means failure.
    Refused(Refusal),
}

/// A status that means failure, with what the server said about it.
pub(crate) struct Refusal {
    pub(crate) status: StatusCode,
    /// Those that a client may see.
    pub(crate) headers: HeaderMap,
    /// The server's JSON-RPC error.
    pub(crate) error: Option<Message>,
    /// Whether the body speaks of a session (resilience 3, "session lost").
    pub(crate) about_session: bool,
}

impl Refusal {
    /// What it means to a message that was sent in a session of the server's (`known`) or in none.
    pub(crate) fn into_fault(self, known: bool) -> Fault {
        let status = self.status;
        match status {
            StatusCode::NOT_FOUND if known => faults::session_lost(status),
            StatusCode::BAD_REQUEST if known && self.about_session => faults::session_lost(status),
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => faults::unauthorized(status),
            _ => faults::status(status, self.error),
        }
    }
}

/// Reads the answer to the request `id`.
pub(crate) async fn read(
    shared: &Shared,
    response: Response<Incoming>,
    id: &RequestId,
) -> Result<Answer, Fault> {
    let status = response.status();
    if status.is_success() {
        return if status == StatusCode::OK && headers::is_event_stream(response.headers()) {
            Ok(Answer::Events(response))
        } else if headers::is_json(response.headers()) {
            whole(shared, response, id).await.map(Answer::Whole)
        } else {
            Err(no_answer(response).await)
        };
    }
    if status == StatusCode::UNAUTHORIZED || status == StatusCode::FORBIDDEN {
        return challenge(shared, response).await.map(Answer::Whole);
    }
    Ok(Answer::Refused(refusal(shared, response).await))
}

async fn whole(
    shared: &Shared,
    response: Response<Incoming>,
    id: &RequestId,
) -> Result<Reply, Fault> {
    let limit = shared.config.max_message_size;
    let (head, incoming) = response.into_parts();
    let bytes = body::collect(incoming, limit, &shared.budget)
        .await
        .map_err(|error| faults::body(&error, limit))?;
    shared.counters.bytes_received.inc_by(bytes.len() as u64);
    if bytes.is_empty() {
        return Err(faults::content_type(head.status, None));
    }
    let message = Message::parse(bytes).map_err(faults::bad_response)?;
    let message = answering(message, id)
        .ok_or_else(|| faults::bad_response("it has another request's id"))?;
    Ok(Reply::Json {
        status: head.status,
        headers: headers::to_client(&head.headers, shared.config.forward_auth),
        message,
    })
}

/// `message` as the answer to `id`, if it can be one: a result must carry the id, an error without
/// one is the exchange's.
pub(crate) fn answering(message: Message, id: &RequestId) -> Option<Message> {
    match message.kind() {
        Kind::Response { id: theirs } | Kind::Error { id: Some(theirs) } if theirs == id => {
            Some(message)
        }
        Kind::Error { id: None } => Some(message.with_id(id)),
        _ => None,
    }
}

/// A success that holds no answer.
async fn no_answer(response: Response<Incoming>) -> Fault {
    let status = response.status();
    let kind = response.headers().get(CONTENT_TYPE);
    let kind = kind.map(|kind| String::from_utf8_lossy(kind.as_bytes()).into_owned());
    body::discard(response.into_body()).await;
    faults::content_type(status, kind.as_deref())
}

async fn challenge(shared: &Shared, response: Response<Incoming>) -> Result<Reply, Fault> {
    let (head, incoming) = response.into_parts();
    if !shared.config.forward_auth {
        body::discard(incoming).await;
        return Err(faults::unauthorized(head.status));
    }
    let body = body::collect(incoming, ERROR_TEXT_LIMIT, &shared.budget)
        .await
        .unwrap_or_default();
    let mut headers = headers::to_client(&head.headers, true);
    if let Some(kind) = head.headers.get(CONTENT_TYPE) {
        headers.insert(CONTENT_TYPE, kind.clone());
    }
    Ok(Reply::Challenge {
        status: head.status,
        headers,
        body,
    })
}

/// Reads what the server says about a failure; a failure stays one when that cannot be read.
pub(crate) async fn refusal(shared: &Shared, response: Response<Incoming>) -> Refusal {
    let (head, incoming) = response.into_parts();
    let limit = if headers::is_json(&head.headers) {
        shared.config.max_message_size
    } else {
        ERROR_TEXT_LIMIT
    };
    let body = body::collect(incoming, limit, &shared.budget)
        .await
        .unwrap_or_default();
    let about_session = speaks_of_session(&body);
    let error = Message::parse(body)
        .ok()
        .filter(|message| matches!(message.kind(), Kind::Error { .. }));
    Refusal {
        status: head.status,
        headers: headers::to_client(&head.headers, shared.config.forward_auth),
        about_session: about_session
            || error
                .as_ref()
                .and_then(inspect::error_code)
                .is_some_and(|code| SESSION_CODES.contains(&code)),
        error,
    }
}

/// The JSON-RPC codes with which servers refuse a session (resilience 3).
const SESSION_CODES: [i64; 3] = [-32000, -32001, -32600];

fn speaks_of_session(body: &[u8]) -> bool {
    body.windows(b"session".len())
        .any(|word| word.eq_ignore_ascii_case(b"session"))
}
