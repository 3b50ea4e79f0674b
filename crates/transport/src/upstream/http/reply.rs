//! The event stream that answers one POST.

use std::collections::VecDeque;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use hyper::body::Incoming as Body;
use shadowcat_mcp::fault::Fault;
use shadowcat_mcp::message::{Message, Payload, RequestId};
use shadowcat_sse::Item as EventItem;
use tracing::debug;

use super::answer::answering;
use super::events::{EventBody, EventError, Reader};
use super::permits::Permit;
use super::session::Adoption;
use super::{Shared, body, faults};
use crate::upstream::{Item, Source};

/// See the [module](self).
pub(crate) struct ReplySource {
    shared: Arc<Shared>,
    /// The request that is being answered.
    id: RequestId,
    /// What to do with the response to `initialize`.
    adoption: Option<Adoption>,
    /// The open connection; `None` once the response was delivered or the stream has failed.
    body: Option<EventBody>,
    reader: Reader,
    /// The rest of a batch.
    pending: VecDeque<Message>,
    _permit: Permit,
}

impl ReplySource {
    pub(crate) fn new(
        shared: Arc<Shared>,
        id: RequestId,
        adoption: Option<Adoption>,
        body: Body,
        permit: Permit,
    ) -> Self {
        Self {
            body: Some(EventBody::new(body, Arc::clone(&shared))),
            shared,
            id,
            adoption,
            reader: Reader::default(),
            pending: VecDeque::new(),
            _permit: permit,
        }
    }

    /// What of a message is for the reader. The response ends the stream.
    fn accept(&mut self, message: Message) -> Option<Message> {
        if !message.is_response() {
            return Some(message);
        }
        let Some(response) = answering(message, &self.id) else {
            self.shared.counters.metrics.stray_responses.inc();
            debug!(id = %self.id, "dropped a response to another request");
            return None;
        };
        if let Some(adoption) = self.adoption.take() {
            adoption.settle(&response);
        }
        self.pending.clear();
        self.finish();
        Some(response)
    }

    /// Ends the stream. The server is about to end it too; reading that end lets the connection be
    /// used again.
    fn finish(&mut self) {
        let rest = self.body.take().and_then(EventBody::into_rest);
        if let Some(rest) = rest
            && let Ok(runtime) = tokio::runtime::Handle::try_current()
        {
            runtime.spawn(body::discard(rest));
        }
    }

    fn fail(&mut self, fault: Fault) -> Poll<Option<Result<Item, Fault>>> {
        self.body = None;
        Poll::Ready(Some(Err(fault)))
    }
}

impl Source for ReplySource {
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Item, Fault>>> {
        loop {
            while let Some(message) = self.pending.pop_front() {
                if let Some(message) = self.accept(message) {
                    return Poll::Ready(Some(Ok(Item::Message(message))));
                }
            }
            let Some(body) = &mut self.body else {
                return Poll::Ready(None);
            };
            let event = match ready!(body.poll_item(cx)) {
                None => return self.fail(faults::stream_ended("the server closed it")),
                Some(Err(EventError::Broken(cause))) => {
                    return self.fail(faults::stream_ended(&cause));
                }
                Some(Err(EventError::NoMemory)) => return self.fail(faults::no_memory()),
                Some(Err(EventError::Limit(limit))) => {
                    return self.fail(faults::too_large(limit));
                }
                Some(Ok(EventItem::Event(event))) => event,
                Some(Ok(EventItem::Comment | EventItem::IdOnly(_) | EventItem::Retry(_))) => {
                    continue;
                }
            };
            match self.reader.read(event, &self.shared) {
                None => {}
                Some(Payload::Single(message)) => self.pending.push_back(message),
                Some(Payload::Batch(messages)) => self.pending.extend(messages),
            }
        }
    }
}
