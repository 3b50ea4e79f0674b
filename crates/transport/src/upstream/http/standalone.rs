//! The stream of messages that belong to no request: a GET on the endpoint.

use std::collections::VecDeque;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use http::{Method, Request, StatusCode};
use shadowcat_mcp::fault::Fault;
use shadowcat_mcp::headers;
use shadowcat_mcp::message::{Message, Payload};
use shadowcat_sse::Item as EventItem;
use tokio::time::timeout;
use tracing::{debug, info};

use super::client::RequestBody;
use super::events::{EventBody, Reader};
use super::permits::Permit;
use super::session::Session;
use crate::upstream::{Incoming, Item, Source};

/// How long the head of a GET may take.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);

/// Opens the stream; `None` where the server offers none.
pub(crate) async fn open(session: Arc<Session>) -> Option<Incoming> {
    let shared = Arc::clone(&session.shared);
    let permit = shared.connections.standing().await?;
    let mut request = Request::new(RequestBody::empty());
    *request.method_mut() = Method::GET;
    *request.uri_mut() = shared.config.url.clone();
    *request.headers_mut() = session.plain_headers();
    let head_timeout = HEAD_TIMEOUT.min(shared.config.idle_timeout);
    let response = match timeout(head_timeout, shared.client.stream(request)).await {
        Ok(Ok(response)) => response,
        Ok(Err(error)) => {
            info!(server = %shared.name, ?error, "no standalone stream");
            return None;
        }
        Err(_) => {
            info!(server = %shared.name, "no standalone stream: no answer in time");
            return None;
        }
    };
    if response.status() != StatusCode::OK || !headers::is_event_stream(response.headers()) {
        debug!(server = %shared.name, status = %response.status(), "no standalone stream");
        return None;
    }
    Some(Incoming::new(StandaloneSource {
        body: EventBody::new(response.into_body(), shared),
        session,
        reader: Reader::default(),
        pending: VecDeque::new(),
        _permit: permit,
    }))
}

struct StandaloneSource {
    session: Arc<Session>,
    body: EventBody,
    reader: Reader,
    pending: VecDeque<Message>,
    _permit: Permit,
}

impl Source for StandaloneSource {
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Item, Fault>>> {
        loop {
            if let Some(message) = self.pending.pop_front() {
                return Poll::Ready(Some(Ok(Item::Message(message))));
            }
            match ready!(self.body.poll_item(cx)) {
                Some(Ok(EventItem::Event(event))) => {
                    match self.reader.read(event, &self.session.shared) {
                        None => {}
                        Some(Payload::Single(message)) => self.pending.push_back(message),
                        Some(Payload::Batch(messages)) => self.pending.extend(messages),
                    }
                }
                Some(Ok(_)) => {}
                Some(Err(error)) => {
                    info!(server = %self.session.shared.name, ?error, "the standalone stream broke");
                    return Poll::Ready(None);
                }
                None => return Poll::Ready(None),
            }
        }
    }
}
