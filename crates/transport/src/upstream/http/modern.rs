//! The leg of modern clients (2026-07-28): every request stands alone.
//!
//! The body goes as it came. The routing headers and the version are made from it, so that what
//! the server checks against each other comes from one place. Nothing is kept between requests, a
//! broken stream is lost, and dropping a reply closes its HTTP stream, which is the cancel
//! (2026-07-28, "Cancellation").

use std::sync::Arc;

use http::{HeaderMap, HeaderValue};
use shadowcat_mcp::fault::{self, Fault};
use shadowcat_mcp::headers;
use shadowcat_mcp::inspect::{self, Claim};
use shadowcat_mcp::message::{Kind, Message, RequestId};
use shadowcat_mcp::version::ProtocolVersion;

use super::answer::{self, Answer, Refusal};
use super::post::{Post, post};
use super::reply::ReplySource;
use super::{Shared, add_missing, body, faults};
use crate::upstream::{BoxFuture, Dispatched, Incoming, Leg, Reply, RequestContext, SendContext};

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
            let what = Post {
                url: &shared.config.url,
                body: message.raw(),
                deadline: None,
                dispatched: Dispatched::default(),
            };
            let make_headers = || post_headers(&shared, &message, &context.headers);
            let response = post(&shared, what, make_headers).await?;
            if response.status().is_success() {
                body::discard(response.into_body()).await;
                return Ok(());
            }
            let refusal = answer::refusal(&shared, response).await;
            Err(faults::status(refusal.status, refusal.error))
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
    let Kind::Request { id, .. } = message.kind() else {
        return Err(faults::not_a_request());
    };
    let permit = shared.connections.exchange().await;
    let permit = permit.ok_or_else(faults::overloaded)?;
    let what = Post {
        url: &shared.config.url,
        body: message.raw(),
        deadline: context.deadline,
        dispatched: context.dispatched,
    };
    let make_headers = || post_headers(&shared, &message, &context.headers);
    let response = post(&shared, what, make_headers).await?;
    match answer::read(&shared, response, id).await? {
        Answer::Whole(reply) => Ok(reply),
        Answer::Events(response) => {
            let (head, body) = response.into_parts();
            let headers = headers::to_client(&head.headers, shared.config.forward_auth);
            let source = ReplySource::new(shared, id.clone(), None, body, permit);
            Ok(Reply::Stream {
                headers,
                incoming: Incoming::new(source),
            })
        }
        Answer::Refused(refusal) => refused(refusal, id),
    }
}

/// A refusal that explains itself is the answer. One without words, of a status that servers of the
/// other era give, keeps that status beside our error, because it tells their era.
fn refused(refusal: Refusal, id: &RequestId) -> Result<Reply, Fault> {
    let Refusal {
        status,
        headers,
        error,
        ..
    } = refusal;
    let message = match error {
        Some(error) => error.with_id(id),
        None if fault::may_tell_era(status) => faults::status(status, None).to_response(id),
        None => return Err(faults::status(status, None)),
    };
    Ok(Reply::Json {
        status,
        headers,
        message,
    })
}

/// The headers of one POST: ours, those that mirror the body, then the client's.
fn post_headers(shared: &Shared, message: &Message, extra: &HeaderMap) -> HeaderMap {
    let mut headers = shared.post_headers.clone();
    headers::insert_routing(&mut headers, message);
    if let Claim::WellFormed { version } = inspect::claim(message)
        && let Ok(version) = HeaderValue::from_str(&version)
    {
        headers.insert(headers::PROTOCOL_VERSION, version);
    }
    add_missing(&mut headers, extra);
    headers
}
