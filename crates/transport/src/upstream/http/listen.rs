//! `subscriptions/listen` (2026-07-28, "Subscriptions"): one request whose stream stands for hours.
//!
//! A broken stream is opened again by a new request with a new id. The client sees one stream: what
//! the server tags with a later id is tagged with the client's, and that the server acknowledges
//! the subscription once more is not told.

use std::sync::Arc;
use std::task::{Context, Poll, ready};

use http::HeaderMap;
use parking_lot::Mutex;
use shadowcat_mcp::fault::Fault;
use shadowcat_mcp::inspect;
use shadowcat_mcp::message::{Kind, Message, RequestId};
use shadowcat_mcp::method::Method;
use shadowcat_mcp::version::Era;
use shadowcat_sse::reconnect::{Kind as StreamKind, Opening};
use tokio::time::timeout;
use tracing::debug;

use super::answer::{Expected, answering};
use super::client::{Connected, Delivery};
use super::driver::{Answered, Driver, Messages, Opened, Opener, Posting};
use super::permits::EXCHANGE_WAIT;
use super::{Shared, faults, modern};
use crate::upstream::{BoxFuture, Incoming, Item, Reply, RequestContext, Source};

/// Sends the request, and keeps its stream.
pub(crate) async fn open(
    shared: Arc<Shared>,
    message: Message,
    context: RequestContext,
) -> Result<Reply, Fault> {
    let Some(id) = message.id().cloned() else {
        return Err(faults::not_a_request());
    };
    let permit = timeout(EXCHANGE_WAIT, shared.connections.standing()).await;
    let permit = permit.ok().flatten().ok_or_else(faults::overloaded)?;
    let current = Arc::new(Mutex::new(Current::default()));
    let requests = Requests {
        shared: Arc::clone(&shared),
        delivery: Delivery::new(context.dispatched),
        message,
        extra: context.headers,
        current: Arc::clone(&current),
    };
    let kind = StreamKind::Listen;
    let driver = Driver::new(shared, kind, Box::new(requests), Some(permit));
    let mut driver = Box::new(driver);
    driver.set_deadline(context.deadline);
    match driver.answer().await? {
        Answered::Whole(reply) => Ok(reply),
        Answered::Stream(headers) => Ok(Reply::Stream {
            headers,
            incoming: Incoming::new(Listening {
                messages: Messages::new(driver),
                id,
                current,
                acknowledged: false,
            }),
        }),
        Answered::Accepted => Err(faults::not_a_request()),
    }
}

/// The request that is open.
#[derive(Debug, Default)]
struct Current {
    /// There was a stream: from now on each request is a new one.
    was_open: bool,
    /// How many new ones there were.
    again: u64,
    /// Its id, where that is not the client's.
    id: Option<RequestId>,
}

/// The requests, the first of which is the client's own.
struct Requests {
    shared: Arc<Shared>,
    message: Message,
    extra: HeaderMap,
    delivery: Arc<Delivery>,
    current: Arc<Mutex<Current>>,
}

impl Opener for Requests {
    fn open(&mut self, opening: Opening, connected: Connected) -> BoxFuture<Opened> {
        let mut message = self.message.clone();
        {
            let mut current = self.current.lock();
            if current.was_open {
                current.again += 1;
                let (number, again) = ((self.shared.random)(), current.again);
                let id = RequestId::String(format!("shadowcat-{number:016x}-{again}").into());
                message = message.with_id(&id);
                current.id = Some(id);
            }
        }
        let mut posting = Posting {
            shared: Arc::clone(&self.shared),
            elsewhere: None,
            headers: Arc::new(modern::post_headers(&self.shared, &message, &self.extra)),
            body: message.raw().clone(),
            delivery: Arc::clone(&self.delivery),
            expected: Expected::of(&message, Era::Modern),
            in_session: false,
        };
        let attempt = posting.open(opening, connected);
        let current = Arc::clone(&self.current);
        Box::pin(async move {
            let opened = attempt.await;
            if matches!(opened, Opened::Stream(_)) {
                current.lock().was_open = true;
            }
            opened
        })
    }
}

/// The one stream that the client sees.
struct Listening {
    messages: Messages,
    /// The client's request.
    id: RequestId,
    current: Arc<Mutex<Current>>,
    /// The client knows that it is subscribed.
    acknowledged: bool,
}

impl Listening {
    /// What of a message is for the client, as it is to see it.
    fn accept(&mut self, message: Message) -> Option<Message> {
        match message.kind() {
            Kind::Response { .. } | Kind::Error { .. } => return self.respond(message),
            Kind::Notification {
                method: Method::SubscriptionsAcknowledged,
            } if std::mem::replace(&mut self.acknowledged, true) => {
                let server = &self.messages.shared().name;
                debug!(%server, "the subscription is acknowledged again");
                return None;
            }
            _ => {}
        }
        Some(match self.current.lock().id {
            Some(_) => inspect::with_subscription_id(&message, &self.id),
            None => message,
        })
    }

    /// The response ends the subscription.
    fn respond(&mut self, message: Message) -> Option<Message> {
        let current = self.current.lock().id.clone();
        let Some(response) = answering(message, current.as_ref().unwrap_or(&self.id)) else {
            let counters = &self.messages.shared().counters;
            counters.metrics.stray_responses.inc();
            return None;
        };
        self.messages.done();
        Some(match current {
            Some(_) => inspect::with_subscription_id(&response, &self.id).with_id(&self.id),
            None => response,
        })
    }
}

impl Source for Listening {
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Item, Fault>>> {
        loop {
            match ready!(self.messages.poll_next(cx)) {
                Some(Ok(Item::Message(message))) => match self.accept(message) {
                    Some(message) => return Poll::Ready(Some(Ok(Item::Message(message)))),
                    None => self.messages.reject(),
                },
                other => return Poll::Ready(other),
            }
        }
    }
}
