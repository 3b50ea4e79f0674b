//! The leg of modern clients (2026-07-28): every request stands alone.
//!
//! The body goes as it came. The routing headers and the version are made from it, so that what
//! the server checks against each other comes from one place. Nothing is kept between requests, a
//! broken stream is lost unless it is a subscription (`listen`), and dropping a reply closes its HTTP stream, which is the cancel
//! (2026-07-28, "Cancellation").

use std::sync::Arc;

use http::{HeaderMap, HeaderValue};
use shadowcat_mcp::fault::Fault;
use shadowcat_mcp::headers;
use shadowcat_mcp::inspect::{self, Claim};
use shadowcat_mcp::message::{Kind, Message};
use shadowcat_mcp::method::Method;
use shadowcat_mcp::version::{Era, ProtocolVersion};
use shadowcat_sse::reconnect::Kind as StreamKind;

use super::answer::Expected;
use super::client::Delivery;
use super::driver::{Answered, Driver, Posting};
use super::reply::ReplySource;
use super::{Shared, add_missing, faults, listen, one_way};
use crate::upstream::{BoxFuture, Incoming, Leg, Reply, RequestContext, SendContext};

/// See the [module](self).
pub(crate) struct ModernLeg(Arc<Shared>);

impl ModernLeg {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Self(shared)
    }
}

impl Leg for ModernLeg {
    fn request(
        &self,
        message: Message,
        context: RequestContext,
    ) -> BoxFuture<Result<Reply, Fault>> {
        Box::pin(request(Arc::clone(&self.0), message, context))
    }

    fn send(&self, message: Message, context: SendContext) -> BoxFuture<Result<(), Fault>> {
        let shared = Arc::clone(&self.0);
        Box::pin(async move {
            let opener = || {
                let headers = post_headers(&shared, &message, &context.headers);
                Posting::one_way(&shared, None, headers, message.raw())
            };
            one_way::send(
                &shared,
                message.is_response(),
                context.deadline.clone(),
                opener,
            )
            .await
        })
    }

    fn negotiated(&self, _version: ProtocolVersion) {}

    fn standalone(&self) -> BoxFuture<Option<Incoming>> {
        Box::pin(std::future::ready(None))
    }

    fn has_response_heads(&self) -> bool {
        true
    }

    fn set_standalone_open(&self, _open: bool) {}

    fn close(&self) -> BoxFuture<()> {
        Box::pin(std::future::ready(()))
    }
}

async fn request(
    shared: Arc<Shared>,
    message: Message,
    context: RequestContext,
) -> Result<Reply, Fault> {
    let Kind::Request { id, method } = message.kind() else {
        return Err(faults::not_a_request());
    };
    if *method == Method::SubscriptionsListen {
        return Box::pin(listen::open(shared, message, context)).await;
    }
    let id = id.clone();
    let permit = shared.connections.exchange().await;
    let permit = permit.ok_or_else(faults::overloaded)?;
    let opener = Box::new(Posting {
        shared: Arc::clone(&shared),
        elsewhere: None,
        headers: Arc::new(post_headers(&shared, &message, &context.headers)),
        body: message.raw().clone(),
        delivery: Delivery::new(context.dispatched),
        expected: Expected::of(&message, Era::Modern),
        in_session: false,
    });
    let kind = StreamKind::ModernResponse;
    let mut driver = Box::new(Driver::new(shared, kind, opener, Some(permit)));
    driver.set_deadline(context.deadline);
    match driver.answer().await? {
        Answered::Whole(reply) => Ok(reply),
        Answered::Stream(headers) => Ok(Reply::Stream {
            headers,
            incoming: Incoming::new(ReplySource::new(id, driver)),
        }),
        Answered::Accepted => Err(faults::not_a_request()),
    }
}

/// The headers of one POST: ours, those that mirror the body, then the client's.
pub(crate) fn post_headers(shared: &Shared, message: &Message, extra: &HeaderMap) -> HeaderMap {
    let mut headers = HeaderMap::clone(&shared.post_headers);
    headers::insert_routing(&mut headers, message);
    if let Claim::WellFormed { version } = inspect::claim(message)
        && let Ok(version) = HeaderValue::from_str(&version)
    {
        headers.insert(headers::PROTOCOL_VERSION, version);
    }
    add_missing(&mut headers, extra);
    headers
}
