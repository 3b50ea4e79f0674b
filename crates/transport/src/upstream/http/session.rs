//! The leg of a legacy session over Streamable HTTP (2025-03-26 to 2025-11-25).
//!
//! It adopts the server's session id from a successful `InitializeResult` and from nothing else: a
//! server may put a dead id on a refusal. Once the server refuses that id, the leg is over
//! ([`FaultKind::SessionLost`](shadowcat_mcp::fault::FaultKind::SessionLost)); the pipeline makes
//! a new one.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use futures_util::TryFutureExt as _;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_LENGTH, CONTENT_TYPE, COOKIE};
use http::{HeaderMap, HeaderValue, Method as HttpMethod, Request, StatusCode};
use parking_lot::RwLock;
use shadowcat_mcp::fault::Fault;
use shadowcat_mcp::headers::{self, UpstreamSessionId};
use shadowcat_mcp::message::{Kind, Message};
use shadowcat_mcp::method::Method;
use shadowcat_mcp::version::{Era, ProtocolVersion};
use shadowcat_sse::reconnect::{Kind as StreamKind, Opening};
use tokio::time::timeout;
use tracing::debug;

use super::answer::{self, Expected};
use super::client::{Connected, Delivery, RequestBody};
use super::driver::{self, Answered, Call, Driver, Opened, Opener};
use super::reply::ReplySource;
use super::siblings::Siblings;
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
    headers: RwLock<Arc<HeaderMap>>,
    /// The server's session id.
    id: OnceLock<HeaderValue>,
    /// The client's credentials as it sent them last, with `--forward-auth`: what goes to the
    /// server on nobody's behalf in particular (the standalone stream, DELETE) needs them too.
    credentials: RwLock<HeaderMap>,
    pub(crate) siblings: Arc<Siblings>,
}

impl SessionLeg {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Self(Arc::new(Session {
            headers: RwLock::new(shared.post_headers.clone()),
            id: OnceLock::new(),
            credentials: RwLock::default(),
            siblings: Siblings::new(shared.config.reconnect.dedup_window, (shared.random)()),
            shared,
        }))
    }

    /// As [`Leg::request`], but tells the status of a refusal.
    pub(crate) async fn ask(
        &self,
        message: Message,
        context: RequestContext,
    ) -> Result<Reply, Refused> {
        Arc::clone(&self.0).ask(message, context).await
    }
}

impl Leg for SessionLeg {
    fn request(
        &self,
        message: Message,
        context: RequestContext,
    ) -> BoxFuture<Result<Reply, Fault>> {
        let asked = Arc::clone(&self.0).ask(message, context);
        Box::pin(asked.map_err(|refused| refused.fault))
    }

    fn send(&self, message: Message, context: SendContext) -> BoxFuture<Result<(), Fault>> {
        let session = Arc::clone(&self.0);
        Box::pin(session.send(message, context))
    }

    fn negotiated(&self, version: ProtocolVersion) {
        if version.has_version_header() {
            let value = HeaderValue::from_static(version.as_str());
            let mut headers = self.0.headers.write();
            Arc::make_mut(&mut headers).insert(headers::PROTOCOL_VERSION, value);
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

/// Why a request got no answer.
pub(crate) struct Refused {
    pub(crate) fault: Fault,
    /// The status that said so, where one did.
    pub(crate) status: Option<StatusCode>,
}

impl From<Fault> for Refused {
    fn from(fault: Fault) -> Self {
        Self {
            fault,
            status: None,
        }
    }
}

impl Session {
    async fn ask(
        self: Arc<Self>,
        message: Message,
        context: RequestContext,
    ) -> Result<Reply, Refused> {
        let Kind::Request { id, method } = message.kind() else {
            return Err(faults::not_a_request().into());
        };
        let id = id.clone();
        let adopting = (*method == Method::Initialize).then(|| Arc::clone(&self));
        let shared = Arc::clone(&self.shared);
        let permit = shared.connections.exchange().await;
        let permit = permit.ok_or_else(faults::overloaded)?;
        let sibling = self.siblings.join(Some(&message));
        let offered = adopting
            .is_some()
            .then(Arc::<OnceLock<HeaderValue>>::default);
        let opener = Box::new(Exchange {
            session: self,
            delivery: Delivery::new(context.dispatched),
            message,
            extra: context.headers,
            offered: offered.clone(),
        });
        let kind = StreamKind::Response;
        let mut driver = Box::new(Driver::new(shared, kind, opener, Some(permit)));
        driver.set_sibling(sibling);
        driver.set_deadline(context.deadline);
        let answered = driver.answer().await.map_err(|fault| Refused {
            fault,
            status: driver.last_status(),
        })?;
        let offered = offered.and_then(|offered| offered.get().cloned());
        let adoption = adopting
            .zip(offered)
            .map(|(session, offered)| Adoption { session, offered });
        match answered {
            Answered::Whole(reply) => {
                if let (Some(adoption), Reply::Json { message, .. }) = (adoption, &reply) {
                    adoption.settle(message);
                }
                Ok(reply)
            }
            Answered::Stream(headers) => Ok(Reply::Stream {
                headers,
                incoming: Incoming::new(ReplySource::new(id, driver).adopting(adoption)),
            }),
            Answered::Accepted => Err(faults::not_a_request().into()),
        }
    }

    async fn send(self: Arc<Self>, message: Message, context: SendContext) -> Result<(), Fault> {
        let opener = || Exchange {
            session: Arc::clone(&self),
            delivery: Delivery::new(Dispatched::default()),
            message: message.clone(),
            extra: context.headers.clone(),
            offered: None,
        };
        one_way::send(
            &self.shared,
            message.is_response(),
            context.deadline.clone(),
            opener,
        )
        .await
    }

    fn post(
        &self,
        message: &Message,
        extra: &HeaderMap,
        delivery: &Arc<Delivery>,
        connected: Connected,
    ) -> Call {
        if self.shared.config.forward_auth {
            self.note_credentials(extra);
        }
        Call {
            method: HttpMethod::POST,
            elsewhere: None,
            headers: with_extra(Arc::clone(&self.headers.read()), extra),
            body: Some((message.raw().clone(), Arc::clone(delivery))),
            connected,
        }
    }

    fn note_credentials(&self, extra: &HeaderMap) {
        for name in [AUTHORIZATION, COOKIE] {
            if let Some(value) = extra.get(&name)
                && self.credentials.read().get(&name) != Some(value)
            {
                self.credentials.write().insert(name, sensitive(value));
            }
        }
    }

    /// The headers of a GET or a DELETE.
    pub(crate) fn plain_headers(&self) -> HeaderMap {
        let mut headers = HeaderMap::clone(&self.headers.read());
        add_missing(&mut headers, &self.credentials.read());
        headers.remove(CONTENT_TYPE);
        headers.remove(CONTENT_LENGTH);
        headers.insert(ACCEPT, HeaderValue::from_static("text/event-stream"));
        headers
    }

    /// Opens or resumes an event stream.
    pub(crate) fn get(
        &self,
        mut headers: HeaderMap,
        cursor: Option<HeaderValue>,
        connected: Connected,
    ) -> BoxFuture<Opened> {
        if let Some(cursor) = cursor {
            headers.insert(headers::LAST_EVENT_ID, cursor);
        }
        let shared = Arc::clone(&self.shared);
        Box::pin(async move {
            let call = Call {
                method: HttpMethod::GET,
                elsewhere: None,
                headers: Arc::new(headers),
                body: None,
                connected,
            };
            match driver::send(&shared, &call).await {
                Ok((_, response)) => answer::to_get(&shared, response, call.in_session()).await,
                Err(failure) => Opened::Failed(failure),
            }
        })
    }

    async fn close(&self) {
        if self.id.get().is_none() {
            return;
        }
        let mut request = Box::new(Request::new(RequestBody::empty()));
        *request.method_mut() = HttpMethod::DELETE;
        *request.headers_mut() = self.plain_headers();
        let ending = async {
            let (url, connected) = (&self.shared.config.url, Connected::default());
            match self.shared.client.send(request, url, &connected).await {
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

/// These headers and what else the client sent, under other names.
fn with_extra(mut headers: Arc<HeaderMap>, extra: &HeaderMap) -> Arc<HeaderMap> {
    if !extra.is_empty() {
        add_missing(Arc::make_mut(&mut headers), extra);
    }
    headers
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
        let id = sensitive(&self.offered);
        if succeeded && well_formed && self.session.id.set(id.clone()).is_ok() {
            let mut headers = self.session.headers.write();
            Arc::make_mut(&mut headers).insert(headers::SESSION_ID, id);
        }
    }
}

/// Keeps a session id out of logs, and in memory of its own: as it came it is a piece of the buffer
/// that the response was read into.
fn sensitive(id: &HeaderValue) -> HeaderValue {
    let mut id = HeaderValue::from_bytes(id.as_bytes()).unwrap_or_else(|_| id.clone());
    id.set_sensitive(true);
    id
}

/// A message: a POST, then if it is a request GETs for the rest of its answer.
struct Exchange {
    session: Arc<Session>,
    message: Message,
    extra: HeaderMap,
    delivery: Arc<Delivery>,
    /// Where the session id goes that the server offers with its answer to `initialize`.
    offered: Option<Arc<OnceLock<HeaderValue>>>,
}

impl Opener for Exchange {
    fn open(&mut self, opening: Opening, connected: Connected) -> BoxFuture<Opened> {
        match opening {
            Opening::Resume(cursor) => self.resume(cursor.header_value().clone(), connected),
            _ => self.post(connected),
        }
    }
}

impl Exchange {
    fn post(&self, connected: Connected) -> BoxFuture<Opened> {
        let session = Arc::clone(&self.session);
        let call = (self.session).post(&self.message, &self.extra, &self.delivery, connected);
        let offered = self.offered.clone();
        let expected = Expected::of(&self.message, Era::Legacy);
        let in_session = session.id.get().is_some();
        Box::pin(async move {
            let shared = &session.shared;
            let response = match driver::send(shared, &call).await {
                Ok((_, response)) => response,
                Err(failure) => return Opened::Failed(failure),
            };
            if let Some(offered) = offered
                && let Some(id) = response.headers().get(headers::SESSION_ID)
            {
                let _ = offered.set(id.clone());
            }
            answer::to_post(shared, response, &expected, in_session).await
        })
    }

    fn resume(&self, cursor: HeaderValue, connected: Connected) -> BoxFuture<Opened> {
        let mut headers = self.session.plain_headers();
        add_missing(&mut headers, &self.extra);
        let offered = self.offered.as_ref().and_then(|offered| offered.get());
        if let (Some(offered), false) = (offered, headers.contains_key(headers::SESSION_ID)) {
            headers.insert(headers::SESSION_ID, sensitive(offered));
        }
        self.session.get(headers, Some(cursor), connected)
    }
}
