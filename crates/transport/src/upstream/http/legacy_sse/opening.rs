//! Opening the stream of an HTTP+SSE server, up to its `endpoint` event.
//!
//! Nothing of the client's is sent here, so whatever fails leaves nothing executed.

use std::fmt;
use std::future::poll_fn;
use std::sync::Arc;
use std::time::Duration;

use http::header::{ACCEPT, CONTENT_TYPE, LOCATION};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Uri};
use hyper::body::Incoming;
use shadowcat_mcp::fault::{Executed, Fault};
use shadowcat_mcp::headers;
use shadowcat_mcp::message::RequestId;
use shadowcat_sse::reconnect::{Leg, may_follow};
use shadowcat_sse::{Event, Item};
use tokio::time::timeout;

use super::super::answer::{self, Answer};
use super::super::client::{RequestBody, SendError};
use super::super::events::{EventBody, EventError};
use super::super::permits::{EXCHANGE_WAIT, Permit};
use super::super::target::{self, MAX_REDIRECTS};
use super::super::{Shared, add_missing, body, faults};
use crate::upstream::Reply;

/// How long the `endpoint` event may take.
const ENDPOINT_TIMEOUT: Duration = Duration::from_secs(10);

/// A stream whose first event named the endpoint.
pub(crate) struct Opened {
    /// Where messages go.
    pub(super) endpoint: Uri,
    pub(super) body: EventBody,
    pub(super) permit: Permit,
}

/// Why there is no stream.
pub(crate) enum NotOpened {
    /// The server has none at this URL.
    NotOffered(String),
    /// It wants credentials: to be relayed to the client.
    Challenge(Box<Reply>),
    /// It may have one, but it could not be had.
    Failed(Fault),
}

impl fmt::Display for NotOpened {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotOffered(why) => f.write_str(why),
            Self::Challenge(_) => f.write_str("the server wants credentials"),
            Self::Failed(fault) => fault.fmt(f),
        }
    }
}

/// Opens the stream. `extra`: what the client sent for the server to see.
pub(crate) async fn open(shared: &Arc<Shared>, extra: &HeaderMap) -> Result<Opened, NotOpened> {
    let permit = timeout(EXCHANGE_WAIT, shared.connections.standing()).await;
    let permit = permit
        .ok()
        .flatten()
        .ok_or_else(|| NotOpened::Failed(faults::overloaded()))?;
    let opening = async {
        let (url, response) = head(shared, extra).await?;
        let mut body = EventBody::new(response.into_body(), Arc::clone(shared));
        let endpoint = endpoint(&url, &mut body).await?;
        Ok(Opened {
            endpoint,
            body,
            permit,
        })
    };
    match timeout(ENDPOINT_TIMEOUT, opening).await {
        Ok(opened) => opened,
        Err(_) => Err(NotOpened::NotOffered("no endpoint event came".into())),
    }
}

/// The head of the event stream, and the URL that it has after redirects.
async fn head(
    shared: &Arc<Shared>,
    extra: &HeaderMap,
) -> Result<(Uri, Response<Incoming>), NotOpened> {
    let mut url = shared.config.url.clone();
    for _ in 0..=MAX_REDIRECTS {
        let mut request = Request::new(RequestBody::empty());
        *request.method_mut() = Method::GET;
        *request.uri_mut() = url.clone();
        *request.headers_mut() = stream_headers(shared, extra);
        let response = match shared.client.stream(request).await {
            Ok(response) => response,
            Err(SendError::NotSent(why)) => {
                return Err(failed(faults::not_sent(&shared.name, &why)));
            }
            Err(SendError::Lost(cause)) => return Err(failed(faults::lost(&cause))),
        };
        let status = response.status();
        if !may_follow(status, Leg::Standing) {
            return judge(shared, response).await.map(|head| (url, head));
        }
        let location = response.headers().get(LOCATION);
        let target = location
            .and_then(|location| location.to_str().ok())
            .ok_or_else(|| failed(faults::redirect(status, "it has no readable Location")))?;
        url = target::resolve(&url, target)
            .map_err(|error| failed(faults::redirect(status, error)))?;
        body::discard(response.into_body()).await;
    }
    let status = StatusCode::PERMANENT_REDIRECT;
    Err(failed(faults::redirect(status, "too many of them")))
}

fn stream_headers(shared: &Shared, extra: &HeaderMap) -> HeaderMap {
    let mut headers = shared.post_headers.clone();
    headers.remove(CONTENT_TYPE);
    headers.insert(ACCEPT, HeaderValue::from_static("text/event-stream"));
    add_missing(&mut headers, extra);
    headers
}

/// Lets only an event stream pass.
async fn judge(
    shared: &Shared,
    response: Response<Incoming>,
) -> Result<Response<Incoming>, NotOpened> {
    let status = response.status();
    if status == StatusCode::OK && headers::is_event_stream(response.headers()) {
        return Ok(response);
    }
    if status == StatusCode::UNAUTHORIZED || status == StatusCode::FORBIDDEN {
        // The id does not matter: a challenge carries none.
        let read = answer::read(shared, response, &RequestId::Integer(0)).await;
        return Err(match read {
            Ok(Answer::Whole(challenge)) => NotOpened::Challenge(Box::new(challenge)),
            Err(fault) => failed(fault),
            Ok(_) => failed(faults::unauthorized(status)),
        });
    }
    body::discard(response.into_body()).await;
    Err(
        if status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS {
            failed(faults::status(status, None))
        } else {
            NotOpened::NotOffered(format!(
                "a GET was answered {status} without an event stream"
            ))
        },
    )
}

/// Reads up to the first event, which must name the endpoint.
async fn endpoint(url: &Uri, body: &mut EventBody) -> Result<Uri, NotOpened> {
    loop {
        match poll_fn(|cx| body.poll_item(cx)).await {
            Some(Ok(Item::Event(event))) => return named(url, &event),
            Some(Ok(Item::Comment | Item::Retry(_) | Item::IdOnly(_))) => {}
            Some(Err(EventError::Broken(cause))) => return Err(failed(faults::lost(&cause))),
            Some(Err(EventError::NoMemory)) => return Err(failed(faults::no_memory())),
            Some(Err(EventError::Limit(_))) | None => {
                return Err(NotOpened::NotOffered("the stream had no event".into()));
            }
        }
    }
}

/// The endpoint that an event names: inside the origin, because messages and credentials go there.
fn named(url: &Uri, event: &Event) -> Result<Uri, NotOpened> {
    if event.event_type != b"endpoint"[..] {
        return Err(NotOpened::NotOffered(
            "the stream's first event is no endpoint event".into(),
        ));
    }
    let reference = String::from_utf8_lossy(&event.data);
    target::resolve(url, &reference).map_err(|error| {
        failed(faults::bad_response(format!(
            "its endpoint event is not followed: {error}"
        )))
    })
}

fn failed(mut fault: Fault) -> NotOpened {
    fault.executed = Executed::No;
    NotOpened::Failed(fault)
}
