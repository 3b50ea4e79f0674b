//! The leg of a legacy session over Streamable HTTP (2025-03-26 to 2025-11-25).
//!
//! It adopts the server's session id from a successful `InitializeResult` and from nothing else: a
//! server may put a dead id on a refusal. Once the server refuses that id, the leg is over
//! ([`FaultKind::SessionLost`](shadowcat_mcp::fault::FaultKind::SessionLost)); the pipeline makes
//! a new one.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use http::header::{ACCEPT, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue, Method as HttpMethod, Request};
use parking_lot::RwLock;
use shadowcat_mcp::fault::Fault;
use shadowcat_mcp::headers::{self, UpstreamSessionId};
use shadowcat_mcp::message::{Kind, Message};
use shadowcat_mcp::method::Method;
use shadowcat_mcp::version::ProtocolVersion;
use tokio::time::timeout;
use tracing::debug;

use super::answer::{self, Answer, Refusal};
use super::client::RequestBody;
use super::post::{Post, post};
use super::reply::ReplySource;
use super::{Shared, add_missing, body, faults, one_way, standalone};
use crate::upstream::{BoxFuture, Dispatched, Incoming, Leg, Reply, RequestContext, SendContext};

/// How long the DELETE that ends a session may take.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(3);

/// See the [module](self).
pub(crate) struct SessionLeg(Arc<Session>);

/// What the requests of one leg share.
pub(crate) struct Session {
    pub(crate) shared: Arc<Shared>,
    /// The headers of the next POST: the configured ones, and what the handshake settled.
    headers: RwLock<HeaderMap>,
    /// The server's session id.
    id: OnceLock<HeaderValue>,
}

impl SessionLeg {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Self(Arc::new(Session {
            headers: RwLock::new(shared.post_headers.clone()),
            id: OnceLock::new(),
            shared,
        }))
    }

    /// As [`Leg::request`], but a refusal is for the caller to judge.
    pub(crate) async fn ask(
        &self,
        message: Message,
        context: RequestContext,
    ) -> Result<Asked, Fault> {
        Arc::clone(&self.0).ask(message, context).await
    }
}

impl Leg for SessionLeg {
    fn request(
        &self,
        message: Message,
        context: RequestContext,
    ) -> BoxFuture<Result<Reply, Fault>> {
        let session = Arc::clone(&self.0);
        Box::pin(session.request(message, context))
    }

    fn send(&self, message: Message, context: SendContext) -> BoxFuture<Result<(), Fault>> {
        let session = Arc::clone(&self.0);
        Box::pin(async move { session.send(message, context).await })
    }

    fn negotiated(&self, version: ProtocolVersion) {
        if version.has_version_header() {
            let value = HeaderValue::from_static(version.as_str());
            self.0
                .headers
                .write()
                .insert(headers::PROTOCOL_VERSION, value);
        }
    }

    fn standalone(&self) -> BoxFuture<Option<Incoming>> {
        Box::pin(standalone::open(Arc::clone(&self.0)))
    }

    fn has_response_heads(&self) -> bool {
        true
    }

    fn set_standalone_open(&self, _open: bool) {}

    fn close(&self) -> BoxFuture<()> {
        let session = Arc::clone(&self.0);
        Box::pin(async move { session.close().await })
    }
}

/// What became of a request.
pub(crate) enum Asked {
    /// The answer, or the beginning of it.
    Reply(Reply),
    /// A status that means failure.
    Refused(Refusal),
}

impl Session {
    async fn request(
        self: Arc<Self>,
        message: Message,
        context: RequestContext,
    ) -> Result<Reply, Fault> {
        let known = self.id.get().is_some();
        match self.ask(message, context).await? {
            Asked::Reply(reply) => Ok(reply),
            Asked::Refused(refusal) => Err(refusal.into_fault(known)),
        }
    }

    /// Sends a request; a refusal is for the caller to judge.
    pub(crate) async fn ask(
        self: Arc<Self>,
        message: Message,
        context: RequestContext,
    ) -> Result<Asked, Fault> {
        let Kind::Request { id, method } = message.kind() else {
            return Err(faults::not_a_request());
        };
        let shared = &*self.shared;
        let permit = shared.connections.exchange().await;
        let permit = permit.ok_or_else(faults::overloaded)?;
        let response = self.post(
            &message,
            &context.headers,
            context.deadline,
            context.dispatched,
        );
        let response = response.await?;
        let adoption = match response.headers().get(headers::SESSION_ID) {
            Some(offered) if *method == Method::Initialize => Some(Adoption {
                session: Arc::clone(&self),
                offered: offered.clone(),
            }),
            _ => None,
        };
        match answer::read(shared, response, id).await? {
            Answer::Whole(reply) => {
                if let (Some(adoption), Reply::Json { message, .. }) = (adoption, &reply) {
                    adoption.settle(message);
                }
                Ok(Asked::Reply(reply))
            }
            Answer::Events(response) => {
                let (head, body) = response.into_parts();
                let shared = Arc::clone(&self.shared);
                Ok(Asked::Reply(Reply::Stream {
                    headers: headers::to_client(&head.headers, shared.config.forward_auth),
                    incoming: Incoming::new(ReplySource::new(
                        shared,
                        id.clone(),
                        adoption,
                        body,
                        permit,
                    )),
                }))
            }
            Answer::Refused(refusal) => Ok(Asked::Refused(refusal)),
        }
    }

    async fn send(&self, message: Message, context: SendContext) -> Result<(), Fault> {
        let post = || self.post(&message, &context.headers, None, Dispatched::default());
        let known = self.id.get().is_some();
        one_way::send(&self.shared, &message, known, post).await
    }

    async fn post(
        &self,
        message: &Message,
        extra: &HeaderMap,
        deadline: Option<tokio::time::Instant>,
        dispatched: Dispatched,
    ) -> Result<http::Response<hyper::body::Incoming>, Fault> {
        let what = Post {
            url: &self.shared.config.url,
            body: message.raw(),
            deadline,
            dispatched,
        };
        post(&self.shared, what, || self.post_headers(extra)).await
    }

    fn post_headers(&self, extra: &HeaderMap) -> HeaderMap {
        let mut headers = self.headers.read().clone();
        add_missing(&mut headers, extra);
        headers
    }

    /// The headers of a GET or a DELETE.
    pub(crate) fn plain_headers(&self) -> HeaderMap {
        let mut headers = self.headers.read().clone();
        headers.remove(CONTENT_TYPE);
        headers.insert(ACCEPT, HeaderValue::from_static("text/event-stream"));
        headers
    }

    async fn close(&self) {
        if self.id.get().is_none() {
            return;
        }
        let mut request = Request::new(RequestBody::empty());
        *request.method_mut() = HttpMethod::DELETE;
        *request.uri_mut() = self.shared.config.url.clone();
        *request.headers_mut() = self.plain_headers();
        let ending = async {
            match self.shared.client.message(request).await {
                Ok(response) => {
                    debug!(status = %response.status(), "ended the session with the server");
                    body::discard(response.into_body()).await;
                }
                Err(error) => debug!(?error, "could not end the session with the server"),
            }
        };
        let _ = timeout(CLOSE_TIMEOUT, ending).await;
    }
}

/// A session id that a server offers with its answer to `initialize`.
pub(crate) struct Adoption {
    session: Arc<Session>,
    offered: HeaderValue,
}

impl Adoption {
    /// Takes the id if the response is a success and the id is one that a header may hold.
    pub(crate) fn settle(self, response: &Message) {
        let succeeded = matches!(response.kind(), Kind::Response { .. });
        let well_formed = UpstreamSessionId::from_header(&self.offered).is_some();
        if succeeded && well_formed && self.session.id.set(self.offered.clone()).is_ok() {
            let mut id = self.offered;
            id.set_sensitive(true);
            self.session.headers.write().insert(headers::SESSION_ID, id);
        }
    }
}
