//! The leg of a session over HTTP+SSE (2024-11-05): one event stream that brings everything, and a
//! POST per message of the client.
//!
//! The stream is the session. It cannot be resumed: when it ends, what is in flight fails at once
//! and the leg is over ([`FaultKind::SessionLost`]); the pipeline makes a new one, with a new
//! stream. The stream stands for as long as the session, so it holds one of the permits for
//! standing streams; POSTs need none, for they are answered without a stream.
//!
//! MCP specification 2024-11-05, "Transports, HTTP with SSE".

use std::future::poll_fn;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, HeaderValue, Uri};
use parking_lot::RwLock;
use shadowcat_mcp::fault::{Executed, Fault, FaultKind, Side};
use shadowcat_mcp::headers;
use shadowcat_mcp::message::{Message, Payload};
use shadowcat_mcp::method::Method;
use shadowcat_mcp::version::ProtocolVersion;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_util::sync::{CancellationToken, DropGuard};
use tracing::{debug, info};

use super::answer::Expected;
use super::client::Delivery;
use super::driver::{Driver, Posting, Read, Reader};
use super::{Shared, add_missing, one_way};
use crate::upstream::pipe::{Clients, Router};
use crate::upstream::{
    BoxFuture, Deadline, Dispatched, Incoming, Leg, Reply, RequestContext, SendContext,
};

mod exchange;
mod opening;

use exchange::Exchange;
pub(crate) use opening::{EndpointStream, NotOpened, open};

/// See the [module](self).
pub(crate) struct LegacySseLeg {
    link: Arc<Link>,
    /// Ends the stream with the leg.
    _alive: DropGuard,
}

/// What the requests of one leg share.
struct Link {
    shared: Arc<Shared>,
    /// Where messages go.
    endpoint: Uri,
    /// The headers of the next POST.
    headers: RwLock<HeaderMap>,
    router: Router,
    closed: CancellationToken,
}

impl LegacySseLeg {
    /// A leg on an open stream, which is read from now on.
    pub(crate) fn new(shared: Arc<Shared>, opened: EndpointStream) -> Self {
        let EndpointStream { endpoint, driver } = opened;
        let closed = CancellationToken::new();
        let metrics = Arc::clone(&shared.counters.metrics);
        let undelivered = metrics.undelivered_messages.clone();
        let (refusals, refused) = mpsc::channel(REFUSALS);
        let router = Router::new(Clients::One, metrics, move |refusal| {
            if refusals.try_send(refusal).is_err() {
                undelivered.inc();
            }
        });
        let link = Arc::new(Link {
            headers: RwLock::new(HeaderMap::clone(&shared.post_headers)),
            router,
            closed: closed.clone(),
            endpoint,
            shared,
        });
        tokio::spawn(Arc::clone(&link).read(driver, refused));
        Self {
            link,
            _alive: closed.drop_guard(),
        }
    }
}

impl Leg for LegacySseLeg {
    fn request(
        &self,
        message: Message,
        context: RequestContext,
    ) -> BoxFuture<Result<Reply, Fault>> {
        let link = Arc::clone(&self.link);
        Box::pin(link.request(message, context))
    }

    fn send(&self, message: Message, context: SendContext) -> BoxFuture<Result<(), Fault>> {
        let link = Arc::clone(&self.link);
        Box::pin(async move {
            link.router.observe(&message);
            let opener = || link.posting(&message, &context.headers, Dispatched::default(), true);
            let sending = one_way::send(
                &link.shared,
                message.is_response(),
                context.deadline.clone(),
                opener,
            );
            tokio::select! {
                // What has nowhere to go is not tried.
                biased;
                () = link.closed.cancelled() => Err(stream_lost(CLOSED)),
                sent = sending => sent,
            }
        })
    }

    fn negotiated(&self, version: ProtocolVersion) {
        if version.has_version_header() {
            let value = HeaderValue::from_static(version.as_str());
            let mut headers = self.link.headers.write();
            headers.insert(headers::PROTOCOL_VERSION, value);
        }
    }

    fn standalone(&self) -> BoxFuture<Option<Incoming>> {
        let link = Arc::clone(&self.link);
        Box::pin(async move { Some(link.router.standalone()) })
    }

    fn has_response_heads(&self) -> bool {
        false
    }

    fn set_standalone_open(&self, open: bool) {
        self.link.router.set_standalone_open(open);
    }

    fn died(&self) -> BoxFuture<Fault> {
        let link = Arc::clone(&self.link);
        Box::pin(async move { link.router.died().await })
    }

    fn close(&self) -> BoxFuture<()> {
        self.link.closed.cancel();
        Box::pin(std::future::ready(()))
    }
}

impl Link {
    async fn request(
        self: Arc<Self>,
        message: Message,
        context: RequestContext,
    ) -> Result<Reply, Fault> {
        let begun = self.router.begin(&message)?;
        // Whether the POST has left is for the exchange to know.
        begun.mark.set_written();
        // In the handshake there is no session yet that could be lost.
        let known = message.method() != Some(&Method::Initialize);
        let RequestContext {
            headers,
            deadline,
            dispatched,
            ..
        } = context;
        let posting = Posting {
            expected: Expected::elsewhere(&begun.message),
            ..self.posting(&begun.message, &headers, dispatched, known)
        };
        let delivery = Arc::clone(&posting.delivery);
        let posting = async move { one_way::once(&self.shared, posting, deadline).await };
        let exchange = Exchange::new(Box::pin(posting), delivery, begun.incoming);
        exchange.reply().await
    }

    /// `known`: the message belongs to a session that the server may have forgotten.
    fn posting(
        &self,
        message: &Message,
        extra: &HeaderMap,
        dispatched: Dispatched,
        known: bool,
    ) -> Posting {
        let mut headers = self.headers.read().clone();
        add_missing(&mut headers, extra);
        Posting {
            delivery: Delivery::new(dispatched),
            in_session: known,
            ..Posting::one_way(
                &self.shared,
                Some(self.endpoint.clone()),
                headers,
                message.raw(),
            )
        }
    }

    /// Reads the stream until it ends, which is the end of the session.
    /// Meanwhile it writes what the router refuses by itself.
    async fn read(self: Arc<Self>, mut driver: Box<Driver>, mut refused: mpsc::Receiver<Message>) {
        let refuse = async {
            while let Some(refusal) = refused.recv().await {
                self.answer(&refusal).await;
            }
        };
        let cause = tokio::select! {
            biased;
            () = self.relay(&mut driver) => driver.take_failure().map(|failure| failure.detail),
            // The router, which is ours, could refuse more.
            () = refuse => None,
            () = self.closed.cancelled() => None,
        };
        drop(driver);
        let cause = cause.as_deref().unwrap_or(CLOSED);
        info!(server = %self.shared.name, cause, "the session's event stream is over");
        self.closed.cancel();
        self.router.end(stream_lost(cause));
    }

    /// Hands the stream's messages to the router until there are no more.
    async fn relay(&self, driver: &mut Driver) {
        let mut reader = Reader::default();
        while let Some(event) = poll_fn(|cx| driver.poll_connection(cx)).await {
            match reader.read(event, &self.shared) {
                Read::Nothing | Read::Unreadable => driver.skip(),
                Read::Messages(Payload::Single(message)) => self.deliver(message).await,
                Read::Messages(Payload::Batch(messages)) => {
                    for message in messages {
                        self.deliver(message).await;
                    }
                }
            }
        }
    }

    async fn deliver(&self, message: Message) {
        if let Some(answer) = self.router.deliver(message).await {
            self.answer(&answer).await;
        }
    }

    /// Answers a request of the server that no client can be asked.
    async fn answer(&self, answer: &Message) {
        let posting = self.posting(answer, &HeaderMap::new(), Dispatched::default(), true);
        let posting = one_way::once(&self.shared, posting, Deadline::default());
        if !matches!(timeout(ANSWER_TIMEOUT, posting).await, Ok(Ok(_))) {
            self.shared.counters.metrics.undelivered_messages.inc();
            debug!(server = %self.shared.name, "the server did not take the answer to its request");
        }
    }
}

/// Answers of ours that may wait to be written.
const REFUSALS: usize = 256;
/// How long the server may take to accept an answer of ours.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

const CLOSED: &str = "it was closed";

/// The stream is gone, and the session with it.
fn stream_lost(cause: &str) -> Fault {
    Fault::new(Side::Upstream, FaultKind::SessionLost, Executed::Unknown)
        .because(format!("the server's event stream ended: {cause}"))
}
