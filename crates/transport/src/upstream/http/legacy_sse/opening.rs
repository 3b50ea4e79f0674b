//! Opening the stream of an HTTP+SSE server, up to its `endpoint` event.
//!
//! Nothing of the client's is sent here, so whatever fails leaves nothing executed.

use std::fmt;
use std::future::poll_fn;
use std::sync::Arc;
use std::time::Duration;

use super::super::client::Incoming;
use http::header::{ACCEPT, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue, Method, Response, StatusCode, Uri};
use shadowcat_mcp::fault::{Executed, Fault};
use shadowcat_sse::reconnect::Trouble;
use shadowcat_sse::{Event, Item};
use tokio::time::timeout;

use super::super::client::Connected;
use super::super::driver::{self, Call, Failure, Opened as Stream};
use super::super::events::{BodyEnd, EventBody};
use super::super::permits::{EXCHANGE_WAIT, Permit};
use super::super::{Shared, add_missing, answer, faults, target};
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
    let call = Call {
        method: Method::GET,
        url: shared.config.url.clone(),
        headers: stream_headers(shared, extra),
        body: None,
        connected: Connected::default(),
    };
    match driver::send(shared, &call).await {
        Ok((url, response)) => judge(shared, response).await.map(|head| (url, head)),
        Err(failure) => Err(failed(faults::final_one(&failure))),
    }
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
    let mut failure = match answer::to_get(shared, response, false).await {
        Stream::Stream(response) => return Ok(response),
        Stream::Failed(failure) => failure,
        Stream::Whole(_) | Stream::Accepted => Failure::new(Trouble::NoAnswer, "no stream"),
    };
    if let Some(challenge) = failure.relay.take() {
        return Err(NotOpened::Challenge(Box::new(challenge)));
    }
    let may_have_one = match failure.trouble {
        Trouble::Refused(refusal) => {
            refusal.status.is_server_error()
                || matches!(
                    refusal.status,
                    StatusCode::TOO_MANY_REQUESTS
                        | StatusCode::UNAUTHORIZED
                        | StatusCode::FORBIDDEN
                )
        }
        Trouble::WrongType | Trouble::NoAnswer => false,
        _ => true,
    };
    Err(if may_have_one {
        failed(faults::final_one(&failure))
    } else {
        NotOpened::NotOffered(failure.detail)
    })
}

/// Reads up to the first event, which must name the endpoint.
async fn endpoint(url: &Uri, body: &mut EventBody) -> Result<Uri, NotOpened> {
    loop {
        match poll_fn(|cx| body.poll_item(cx)).await {
            Ok(Item::Event(event)) => return named(url, &event),
            Ok(Item::Comment | Item::Retry(_) | Item::IdOnly(_)) => {}
            Err(BodyEnd::Clean | BodyEnd::TooLarge(_)) => {
                return Err(NotOpened::NotOffered("the stream had no event".into()));
            }
            Err(BodyEnd::Broken(cause)) => {
                let detail = format!("the connection broke before the endpoint event: {cause}");
                let failure = Failure::new(Trouble::NoHead, detail);
                return Err(failed(faults::final_one(&failure)));
            }
            Err(BodyEnd::NoMemory) => {
                let failure = Failure::new(Trouble::NoMemory, "");
                return Err(failed(faults::final_one(&failure)));
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
        let detail = format!("the server's endpoint event is not followed: {error}");
        failed(faults::final_one(&Failure::new(
            Trouble::NoResponse,
            detail,
        )))
    })
}

fn failed(mut fault: Fault) -> NotOpened {
    fault.executed = Executed::No;
    NotOpened::Failed(fault)
}
