//! From a response head to what the server made of a request.
//!
//! A legacy server's errors are correlated by the exchange, not by their id (which servers leave
//! null or fill with words); whatever message ends up as the answer carries the request's id.
//!
//! What a failure means is not decided here: it is described ([`Failure`]) for the engine's table.

use std::time::SystemTime;

use super::client::Received;
use http::StatusCode;
use http::header::CONTENT_TYPE;
use shadowcat_mcp::fault;
use shadowcat_mcp::headers::{self, Content};
use shadowcat_mcp::inspect;
use shadowcat_mcp::message::{Kind, Message, RequestId};
use shadowcat_mcp::version::Era;
use shadowcat_sse::reconnect::{Refusal, Trouble};

use super::body::BodyError;
use super::driver::{Failure, Opened};
use super::{Shared, body, faults, refusing};
use crate::upstream::Reply;

/// How much of an error's body is read in search of words for a person.
const ERROR_TEXT_LIMIT: usize = 64 * 1024;

/// What a POST is to be answered with.
#[derive(Debug, Clone)]
pub(crate) enum Expected {
    /// A response to this request. A modern client gets the server's error with its status.
    Response(RequestId, Era),
    /// Any success.
    Acceptance,
    /// Any success: the response to this request comes another way. A challenge is the client's.
    Handover(RequestId),
}

impl Expected {
    /// What a server of this era owes a message.
    pub(crate) fn of(message: &Message, era: Era) -> Self {
        match message.kind() {
            Kind::Request { id, .. } => Self::Response(id.clone(), era),
            _ => Self::Acceptance,
        }
    }

    /// What a server owes a message whose response comes on another way.
    pub(crate) fn elsewhere(message: &Message) -> Self {
        match message.kind() {
            Kind::Request { id, .. } => Self::Handover(id.clone()),
            _ => Self::Acceptance,
        }
    }
}

/// What is being answered.
struct Question<'a> {
    id: &'a RequestId,
    era: Era,
    in_session: bool,
}

/// The answer to a POST; `in_session`: it was sent in a session of ours.
#[expect(
    clippy::manual_async_fn,
    reason = "an async fn has a second place for its argument, the response"
)]
pub(crate) fn to_post(
    shared: &Shared,
    mut response: Received,
    expected: &Expected,
    in_session: bool,
) -> impl Future<Output = Opened> {
    async move {
        let Expected::Response(id, era) = expected else {
            return Box::pin(to_one_way(shared, response, expected, in_session)).await;
        };
        let answer = match Shape::of(&response) {
            Shape::Stream => Ok(Opened::Stream(response)),
            Shape::Whole => whole(shared, &mut response, id).await.map(Opened::Whole),
            Shape::Failure => {
                let question = Question {
                    id,
                    era: *era,
                    in_session,
                };
                // Boxed: the future of every answer is as large as its largest path.
                Err(Box::pin(failure(shared, response, &question)).await)
            }
        };
        answer.unwrap_or_else(Opened::Failed)
    }
}

/// What the head of an answer to a request announces.
enum Shape {
    Stream,
    Whole,
    Failure,
}

impl Shape {
    fn of(response: &Received) -> Self {
        let status = response.status();
        if !status.is_success() {
            return Self::Failure;
        }
        match headers::content(response.headers()) {
            Content::EventStream if status == StatusCode::OK => Self::Stream,
            Content::Json => Self::Whole,
            _ => Self::Failure,
        }
    }
}

async fn to_one_way(
    shared: &Shared,
    response: Received,
    expected: &Expected,
    in_session: bool,
) -> Opened {
    let status = response.status();
    if status.is_success() {
        body::discard(response.into_body()).await;
        return Opened::Accepted;
    }
    let to_be_relayed = is_challenge(status) && shared.config.forward_auth;
    Opened::Failed(match expected {
        Expected::Handover(_) if to_be_relayed => challenge(shared, response, in_session).await,
        Expected::Handover(id) => refusal(shared, response, in_session, Some(id)).await.1,
        _ => refusal(shared, response, in_session, None).await.1,
    })
}

/// What is no answer to a request.
async fn failure(shared: &Shared, response: Received, question: &Question<'_>) -> Box<Failure> {
    let status = response.status();
    if is_challenge(status) && shared.config.forward_auth {
        challenge(shared, response, question.in_session).await
    } else if status.is_success() {
        no_events(shared, response, question.in_session).await
    } else {
        refused(shared, response, question).await
    }
}

/// The answer to a GET.
pub(crate) async fn to_get(shared: &Shared, response: Received, in_session: bool) -> Opened {
    let status = response.status();
    if status == StatusCode::OK && headers::is_event_stream(response.headers()) {
        return Opened::Stream(response);
    }
    Opened::Failed(if is_challenge(status) && shared.config.forward_auth {
        challenge(shared, response, in_session).await
    } else if status.is_success() {
        no_events(shared, response, in_session).await
    } else {
        refusal(shared, response, in_session, None).await.1
    })
}

async fn whole(
    shared: &Shared,
    response: &mut Received,
    id: &RequestId,
) -> Result<Reply, Box<Failure>> {
    let limit = shared.config.max_message_size;
    let patience = shared.config.reconnect.idle_timeout;
    let bytes = body::collect(response.body_mut(), limit, &shared.budget, patience)
        .await
        .map_err(|error| unread(&error, limit))?;
    shared.counters.bytes_received.inc_by(bytes.len() as u64);
    if bytes.is_empty() {
        return Err(empty(shared, response.status()));
    }
    let no_response = |why: &str| {
        let detail = format!("the server's answer is no response to the request: {why}");
        Failure::new(Trouble::NoResponse, detail)
    };
    let message = Message::parse(bytes).map_err(|error| no_response(&error.to_string()))?;
    let message =
        answering(message, id).ok_or_else(|| no_response("it has another request's id"))?;
    Ok(Reply::Json {
        status: response.status(),
        headers: headers::to_client(response.headers(), shared.config.forward_auth).into(),
        message,
    })
}

fn unread(error: &BodyError, limit: usize) -> Box<Failure> {
    match error {
        BodyError::TooLarge => Failure::new(
            Trouble::TooLarge,
            format!(
                "the server's answer is larger than {limit} bytes; \
                 --max-message-size sets the limit"
            ),
        ),
        BodyError::NoMemory => Failure::new(Trouble::NoMemory, ""),
        BodyError::Broken(cause) => Failure::new(
            Trouble::Truncated,
            format!("the connection broke before the answer was whole: {cause}"),
        ),
        BodyError::Silent(patience) => Failure::new(
            Trouble::Truncated,
            format!(
                "nothing came for {patience:?} before the answer was whole; \
                 --idle-timeout sets the limit"
            ),
        ),
    }
}

fn empty(shared: &Shared, status: StatusCode) -> Box<Failure> {
    let answered = refusing::answered(shared, status);
    let detail = format!("{answered} without a body that could be read");
    Failure::new(Trouble::NoAnswer, detail)
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

/// A success that is neither an event stream nor an answer.
async fn no_events(shared: &Shared, response: Received, in_session: bool) -> Box<Failure> {
    let status = response.status();
    if status == StatusCode::NO_CONTENT {
        return refusal(shared, response, in_session, None).await.1;
    }
    let kind = response.headers().get(CONTENT_TYPE);
    let kind = kind.map(|kind| String::from_utf8_lossy(kind.as_bytes()).into_owned());
    body::discard(response.into_body()).await;
    match kind {
        None => empty(shared, status),
        Some(kind) => {
            let answered = refusing::answered(shared, status);
            let detail = format!(
                "{answered} with content of type {kind:?}, neither JSON nor an event stream"
            );
            Failure::new(Trouble::WrongType, detail)
        }
    }
}

fn is_challenge(status: StatusCode) -> bool {
    status == StatusCode::UNAUTHORIZED || status == StatusCode::FORBIDDEN
}

/// 401 or 403, to be relayed.
async fn challenge(shared: &Shared, response: Received, in_session: bool) -> Box<Failure> {
    let (head, incoming) = response.into_parts();
    let refusal = in_our_session(
        Refusal::new(head.status, &head.headers, SystemTime::now()),
        in_session,
        false,
    );
    let body = body::collect_failure(incoming, ERROR_TEXT_LIMIT, &shared.budget).await;
    let mut headers = headers::to_client(&head.headers, true);
    if let Some(kind) = head.headers.get(CONTENT_TYPE) {
        headers.insert(CONTENT_TYPE, kind.clone());
    }
    let mut failure = Failure::new(
        Trouble::Refused(refusal),
        refusing::answered(shared, head.status),
    );
    failure.relay = Some(Reply::Challenge {
        status: head.status,
        headers: headers.into(),
        body,
    });
    failure
}

/// A status that means failure, to a request. To a modern client a refusal that explains itself is
/// the answer; one without words, of a status that servers of the other era give, keeps that status
/// beside our error, because it tells their era.
async fn refused(shared: &Shared, response: Received, question: &Question<'_>) -> Box<Failure> {
    let (head, mut failure) =
        refusal(shared, response, question.in_session, Some(question.id)).await;
    if question.era == Era::Legacy {
        return failure;
    }
    let status = head.status;
    let headers = headers::to_client(&head.headers, shared.config.forward_auth).into();
    failure.relay = match &failure.error {
        Some(error) => Some(Reply::Json {
            status,
            headers,
            message: error.with_id(question.id),
        }),
        None => fault::may_tell_era(status).then(|| Reply::Refused {
            status,
            headers,
            fault: Box::new(faults::final_one(&failure)),
        }),
    };
    failure
}

/// A status that means failure, and what the server says about it, as far as that can be read. An
/// error under the id of the request that was asked answers that request: it is not about the
/// session, which servers refuse without an id, with null or with words.
async fn refusal(
    shared: &Shared,
    response: Received,
    in_session: bool,
    asked: Option<&RequestId>,
) -> (http::response::Parts, Box<Failure>) {
    let (head, incoming) = response.into_parts();
    let limit = if headers::is_json(&head.headers) {
        shared.config.max_message_size
    } else {
        ERROR_TEXT_LIMIT
    };
    let body = body::collect_failure(incoming, limit, &shared.budget).await;
    let speaks_of_session = speaks_of_session(&body);
    let error = Message::parse(body.clone())
        .ok()
        .filter(|message| matches!(message.kind(), Kind::Error { .. }));
    let code = error.as_ref().and_then(inspect::error_code);
    let answers = error.as_ref().is_some_and(
        |error| matches!(error.kind(), Kind::Error { id: Some(id) } if asked == Some(id)),
    );
    let has_code = code.is_some_and(|code| SESSION_CODES.contains(&code));
    let about_session = !answers && (speaks_of_session || has_code);
    let refusal = Refusal::new(head.status, &head.headers, SystemTime::now());
    let trouble = Trouble::Refused(in_our_session(refusal, in_session, about_session));
    let words = refusing::words(shared, head.status, error.as_ref());
    let mut failure = Failure::new(trouble, words);
    failure.error = error;
    (head, failure)
}

fn in_our_session(refusal: Refusal, in_session: bool, about_session: bool) -> Refusal {
    if in_session {
        refusal.in_session(about_session)
    } else {
        refusal
    }
}

/// The JSON-RPC codes with which servers refuse a session.
const SESSION_CODES: [i64; 3] = [-32000, -32001, -32600];

fn speaks_of_session(body: &[u8]) -> bool {
    body.windows(b"session".len())
        .any(|word| word.eq_ignore_ascii_case(b"session"))
}
