//! The event stream that answers one POST.

use std::task::{Context, Poll, ready};

use shadowcat_mcp::fault::Fault;
use shadowcat_mcp::message::{Message, RequestId};
use tracing::debug;

use super::answer::answering;
use super::driver::{Driver, Messages};
use super::session::Adoption;
use crate::upstream::{Item, Source};

/// See the [module](self).
pub(crate) struct ReplySource {
    /// The request that is being answered.
    id: RequestId,
    messages: Messages,
    /// What to do with the response to `initialize`.
    adoption: Option<Adoption>,
}

impl ReplySource {
    /// The answer to the request `id`, whose stream is open.
    pub(crate) fn new(id: RequestId, driver: Box<Driver>) -> Self {
        Self {
            messages: Messages::new(driver),
            id,
            adoption: None,
        }
    }

    pub(crate) fn adopting(mut self, adoption: Option<Adoption>) -> Self {
        self.adoption = adoption;
        self
    }

    /// What of a message is for the reader. The response ends the stream.
    fn accept(&mut self, message: Message) -> Option<Message> {
        if !message.is_response() {
            return Some(message);
        }
        let Some(response) = answering(message, &self.id) else {
            let counters = &self.messages.shared().counters;
            counters.metrics.stray_responses.inc();
            debug!(id = %self.id, "dropped a response to another request");
            self.messages.reject();
            return None;
        };
        if let Some(adoption) = self.adoption.take() {
            adoption.settle(&response);
        }
        self.messages.done();
        Some(response)
    }
}

impl Source for ReplySource {
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Item, Fault>>> {
        loop {
            match ready!(self.messages.poll_next(cx)) {
                Some(Ok(Item::Message(message))) => {
                    if let Some(message) = self.accept(message) {
                        return Poll::Ready(Some(Ok(Item::Message(message))));
                    }
                }
                other => return Poll::Ready(other),
            }
        }
    }
}
