//! The leg of a legacy session on a server of either HTTP transport.
//!
//! The specification's way to tell them apart ("Transports, Backwards Compatibility"): POST the
//! `initialize`; where that fails with 400, 404 or 405, GET the URL, and if the first event is an
//! `endpoint` event, the server speaks HTTP+SSE (2024-11-05). What was found out is remembered for
//! the sessions that follow; they go straight to the stream and ask again when there is none.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use http::StatusCode;
use parking_lot::Mutex;
use shadowcat_mcp::fault::{Fault, FaultKind};
use shadowcat_mcp::inspect;
use shadowcat_mcp::message::Message;
use shadowcat_mcp::method::Method;
use shadowcat_mcp::version::ProtocolVersion;
use tokio::time::Instant;
use tracing::{debug, info};

use super::Shared;
use super::legacy_sse::{self, EndpointStream, LegacySseLeg, NotOpened};
use super::session::{Refused, SessionLeg};
use crate::request_span::in_request;
use crate::upstream::{BoxFuture, Incoming, Leg, Reply, RequestContext, SendContext};

/// How long it is remembered that a server speaks HTTP+SSE: it may be upgraded.
const MEMORY: Duration = Duration::from_secs(3600);

/// What the sessions of one server remember about its transport.
#[derive(Debug, Default)]
pub(crate) struct KnownTransport {
    /// When it was last seen to speak HTTP+SSE.
    legacy_sse: Mutex<Option<Instant>>,
}

impl KnownTransport {
    fn is_legacy_sse(&self) -> bool {
        let seen = *self.legacy_sse.lock();
        seen.is_some_and(|seen| seen.elapsed() < MEMORY)
    }

    fn saw_legacy_sse(&self) {
        *self.legacy_sse.lock() = Some(Instant::now());
    }

    fn saw_streamable_http(&self) {
        *self.legacy_sse.lock() = None;
    }
}

/// See the [module](self).
pub(crate) struct AutoLeg(Arc<Auto>);

struct Auto {
    shared: Arc<Shared>,
    streamable: SessionLeg,
    /// Set once the server turned out to speak HTTP+SSE; from then on everything goes there.
    legacy_sse: OnceLock<LegacySseLeg>,
}

impl AutoLeg {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Self(Arc::new(Auto {
            streamable: SessionLeg::new(Arc::clone(&shared)),
            legacy_sse: OnceLock::new(),
            shared,
        }))
    }
}

impl Leg for AutoLeg {
    fn request(
        &self,
        message: Message,
        context: RequestContext,
    ) -> BoxFuture<Result<Reply, Fault>> {
        let undecided = self.0.legacy_sse.get().is_none();
        if undecided && message.method() == Some(&Method::Initialize) {
            let auto = Arc::clone(&self.0);
            return Box::pin(auto.initialize(message, context));
        }
        self.0.leg().request(message, context)
    }

    fn send(&self, message: Message, context: SendContext) -> BoxFuture<Result<(), Fault>> {
        self.0.leg().send(message, context)
    }

    fn negotiated(&self, version: ProtocolVersion) {
        self.0.leg().negotiated(version);
    }

    fn standalone(&self) -> BoxFuture<Option<Incoming>> {
        self.0.leg().standalone()
    }

    fn has_response_heads(&self) -> bool {
        self.0.leg().has_response_heads()
    }

    fn set_standalone_open(&self, open: bool) {
        self.0.leg().set_standalone_open(open);
    }

    fn died(&self) -> BoxFuture<Fault> {
        self.0.leg().died()
    }

    fn close(&self) -> BoxFuture<()> {
        self.0.leg().close()
    }
}

impl Auto {
    fn leg(&self) -> &dyn Leg {
        match self.legacy_sse.get() {
            Some(leg) => leg,
            None => &self.streamable,
        }
    }

    async fn initialize(
        self: Arc<Self>,
        message: Message,
        context: RequestContext,
    ) -> Result<Reply, Fault> {
        let shared = &self.shared;
        let (headers, deadline) = (context.headers.clone(), context.deadline.clone());
        if shared.transport.is_legacy_sse() {
            match legacy_sse::open(shared, &headers).await {
                Ok(opened) => return self.continue_on(opened, message, context).await,
                // It is there, and wants time.
                Err(NotOpened::Failed(fault)) if fault.retry_after.is_some() => return Err(fault),
                Err(why) => debug!(server = %shared.name, %why, "no event stream any more"),
            }
        }
        let refused = match self.streamable.ask(message.clone(), context).await {
            Ok(reply) => {
                shared.transport.saw_streamable_http();
                return Ok(reply);
            }
            Err(refused) => refused,
        };
        if !suggests_legacy_sse(&refused) {
            return Err(with_hint(refused));
        }
        match legacy_sse::open(shared, &headers).await {
            Ok(opened) => {
                in_request(
                    || info!(server = %shared.name, "the server speaks HTTP+SSE (2024-11-05)"),
                );
                shared.transport.saw_legacy_sse();
                let context = RequestContext {
                    headers,
                    deadline,
                    ..RequestContext::default()
                };
                self.continue_on(opened, message, context).await
            }
            Err(NotOpened::NotOffered(why)) => {
                debug!(server = %shared.name, why, "no HTTP+SSE either");
                Err(with_hint(refused))
            }
            Err(NotOpened::Challenge(reply)) => Ok(*reply),
            Err(NotOpened::Failed(fault)) => Err(fault),
        }
    }

    async fn continue_on(
        &self,
        opened: EndpointStream,
        message: Message,
        context: RequestContext,
    ) -> Result<Reply, Fault> {
        let new = || LegacySseLeg::new(Arc::clone(&self.shared), opened);
        self.legacy_sse
            .get_or_init(new)
            .request(message, context)
            .await
    }
}

/// Says what to do next, unless the server explained itself.
fn with_hint(refused: Refused) -> Fault {
    let fault = refused.fault;
    let unexplained = fault.kind == FaultKind::Status && fault.relayed.is_none();
    let status = refused.status.filter(|_| unexplained);
    match status.and_then(next_step) {
        Some(hint) => {
            let said = &fault.detail;
            let hint = format!("{said}; {hint}");
            fault.because(hint)
        }
        None => fault,
    }
}

/// What to look at after a status that no MCP server gives to a sound `initialize`.
fn next_step(status: StatusCode) -> Option<&'static str> {
    Some(match status {
        StatusCode::NOT_FOUND
        | StatusCode::METHOD_NOT_ALLOWED
        | StatusCode::GONE
        | StatusCode::NOT_IMPLEMENTED => {
            "is the URL's path right? Servers are often at /mcp or /sse"
        }
        StatusCode::BAD_GATEWAY | StatusCode::GATEWAY_TIMEOUT => {
            "a gateway says so: is the server behind it running?"
        }
        StatusCode::SERVICE_UNAVAILABLE => "it may be starting or overloaded; try again later",
        _ if status.is_server_error() => "its log may say why",
        _ if status.is_client_error() || status.is_success() => "is this the URL of an MCP server?",
        _ => return None,
    })
}

/// Whether the refusal of an `initialize` may come from a server that knows no Streamable HTTP. A
/// JSON-RPC error explains itself: whoever sends one has read the message. Only 405 says by itself
/// that no POST is wanted here.
fn suggests_legacy_sse(refused: &Refused) -> bool {
    match (refused.status, &refused.fault.relayed) {
        (Some(StatusCode::METHOD_NOT_ALLOWED), Some(error)) => !inspect::is_modern_response(error),
        (Some(StatusCode::METHOD_NOT_ALLOWED), None) => true,
        (Some(StatusCode::BAD_REQUEST | StatusCode::NOT_FOUND), error) => error.is_none(),
        _ => false,
    }
}
