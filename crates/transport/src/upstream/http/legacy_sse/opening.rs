//! Opening the stream of an HTTP+SSE server, up to its `endpoint` event.
//!
//! Nothing of the client's is sent here, so whatever fails leaves nothing executed.

use std::fmt;
use std::future::poll_fn;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use http::header::{ACCEPT, CONTENT_LENGTH, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue, Method, StatusCode, Uri};
use shadowcat_mcp::fault::{Executed, Fault};
use shadowcat_sse::Event;
use shadowcat_sse::reconnect::{Kind, Opening, Trouble};
use tokio::time::timeout;

use super::super::client::Connected;
use super::super::driver::{self, Call, Driver, Failure, Opened, Opener};
use super::super::permits::EXCHANGE_WAIT;
use super::super::{Shared, add_missing, answer, faults, target};
use crate::upstream::{BoxFuture, Reply};

/// How long the `endpoint` event may take.
const ENDPOINT_TIMEOUT: Duration = Duration::from_secs(10);

/// A stream whose first event named the endpoint.
pub(crate) struct EndpointStream {
    /// Where messages go.
    pub(super) endpoint: Uri,
    pub(super) driver: Box<Driver>,
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
pub(crate) async fn open(
    shared: &Arc<Shared>,
    extra: &HeaderMap,
) -> Result<EndpointStream, NotOpened> {
    let permit = timeout(EXCHANGE_WAIT, shared.connections.standing()).await;
    let permit = permit
        .ok()
        .flatten()
        .ok_or_else(|| NotOpened::Failed(faults::overloaded()))?;
    let found = Arc::new(OnceLock::new());
    let opener = Box::new(Get {
        headers: Arc::new(stream_headers(shared, extra)),
        shared: Arc::clone(shared),
        found: Arc::clone(&found),
    });
    let driver = Driver::new(Arc::clone(shared), Kind::LegacySse, opener, Some(permit));
    let mut driver = Box::new(driver);
    let event = tokio::select! {
        // First: the time for the head ends together with ours, and says less.
        biased;
        () = tokio::time::sleep(ENDPOINT_TIMEOUT) => {
            return Err(NotOpened::NotOffered("no endpoint event came".into()));
        }
        event = first_event(&mut driver) => event?,
    };
    let url = found.get().unwrap_or(&shared.config.url);
    let endpoint = named(url, &event)?;
    Ok(EndpointStream { endpoint, driver })
}

/// The first event, if the first attempt to open the stream brings one.
async fn first_event(driver: &mut Driver) -> Result<Event, NotOpened> {
    driver.settled().await;
    if driver.is_open()
        && let Some(event) = poll_fn(|cx| driver.poll_connection(cx)).await
    {
        return Ok(event);
    }
    Err(match driver.take_failure() {
        Some(failure) => judged(*failure),
        None => NotOpened::NotOffered("no stream".into()),
    })
}

/// What a failure to open the stream says about the server.
fn judged(mut failure: Failure) -> NotOpened {
    if let Some(challenge) = failure.relay.take() {
        return NotOpened::Challenge(Box::new(challenge));
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
        Trouble::WrongType | Trouble::NoAnswer | Trouble::Ended | Trouble::TooLarge => false,
        _ => true,
    };
    if may_have_one {
        failed(faults::final_one(&failure))
    } else {
        NotOpened::NotOffered(failure.detail)
    }
}

/// The GET that opens the stream.
struct Get {
    shared: Arc<Shared>,
    headers: Arc<HeaderMap>,
    /// Where the stream was found, after redirects.
    found: Arc<OnceLock<Uri>>,
}

impl Opener for Get {
    fn open(&mut self, _opening: Opening, connected: Connected) -> BoxFuture<Opened> {
        let (shared, found) = (Arc::clone(&self.shared), Arc::clone(&self.found));
        let call = Call {
            method: Method::GET,
            elsewhere: None,
            headers: Arc::clone(&self.headers),
            body: None,
            connected,
        };
        Box::pin(async move {
            match driver::send(&shared, &call).await {
                Ok((led, response)) => {
                    if let Some(url) = led {
                        let _ = found.set(url);
                    }
                    answer::to_get(&shared, response, call.in_session()).await
                }
                Err(failure) => Opened::Failed(failure),
            }
        })
    }
}

fn stream_headers(shared: &Shared, extra: &HeaderMap) -> HeaderMap {
    let mut headers = HeaderMap::clone(&shared.post_headers);
    headers.remove(CONTENT_TYPE);
    headers.remove(CONTENT_LENGTH);
    headers.insert(ACCEPT, HeaderValue::from_static("text/event-stream"));
    add_missing(&mut headers, extra);
    headers
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
