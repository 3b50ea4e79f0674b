//! The event stream that answers one POST.

use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use shadowcat_mcp::fault::Fault;
use shadowcat_mcp::message::{Kind, Message, RequestId};
use shadowcat_mcp::method::Method;
use tokio::time::Instant;
use tracing::debug;

use super::Shared;
use super::answer::answering;
use super::driver::{Driver, Messages};
use super::session::Adoption;
use crate::upstream::{Item, Source};

/// See the [module](self).
pub(crate) struct ReplySource {
    shared: Arc<Shared>,
    /// The request that is being answered.
    id: RequestId,
    messages: Messages,
    /// What to do with the response to `initialize`.
    adoption: Option<Adoption>,
    /// Each progress notification gives the request so much more time.
    progress_extends: Option<Duration>,
}

impl ReplySource {
    /// The answer to the request `id`, whose stream is open.
    pub(crate) fn new(shared: Arc<Shared>, id: RequestId, driver: Box<Driver>) -> Self {
        Self {
            messages: Messages::new(Arc::clone(&shared), driver),
            shared,
            id,
            adoption: None,
            progress_extends: None,
        }
    }

    pub(crate) fn adopting(mut self, adoption: Option<Adoption>) -> Self {
        self.adoption = adoption;
        self
    }

    pub(crate) fn extended_by_progress(mut self, by: Option<Duration>) -> Self {
        self.progress_extends = by;
        self
    }

    /// What of a message is for the reader. The response ends the stream.
    fn accept(&mut self, message: Message) -> Option<Message> {
        match message.kind() {
            Kind::Response { .. } | Kind::Error { .. } => {}
            Kind::Notification {
                method: Method::Progress,
            } => {
                if let Some(by) = self.progress_extends {
                    self.messages.set_deadline(Instant::now() + by);
                }
                return Some(message);
            }
            _ => return Some(message),
        }
        let Some(response) = answering(message, &self.id) else {
            self.shared.counters.metrics.stray_responses.inc();
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
