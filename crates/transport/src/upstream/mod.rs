//! The upstream edge: how a session reaches its server.
//!
//! An [`Upstream`] is one configured server (a URL or a command). It makes a [`Leg`] for every
//! session. A leg is pulled, never pushed: whoever reads a reply or the standalone stream asks for
//! the next item, and asking for the next item is what commits the one before it (resilience,
//! "commit after downstream accepted"). A reader that stops asking stops the server by
//! back-pressure.
//!
//! A leg does not judge messages. It knows its own transport's session (`Mcp-Session-Id`, child
//! process, event-stream connection) and resumes broken streams; what a lost session means for the
//! client is the pipeline's decision.

mod ask;
pub mod http;
mod pipe;
pub mod stdio;

pub use ask::ask;

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use ::http::{HeaderMap, StatusCode};
use bytes::Bytes;
use parking_lot::Mutex;
use shadowcat_mcp::fault::Fault;
use shadowcat_mcp::headers::Fields;
use shadowcat_mcp::message::Message;
use shadowcat_mcp::version::{Era, ProtocolVersion};
use tokio::time::Instant;

/// A boxed future that owns what it needs.
pub type BoxFuture<T> = Pin<Box<dyn Future<Output = T> + Send + 'static>>;

/// One configured server: a URL or a command.
pub trait Upstream: Send + Sync + 'static {
    /// A leg for a new session (legacy) or a new principal (modern). Nothing is sent and nothing
    /// is started before the leg's first message.
    fn leg(&self, era: Era) -> Arc<dyn Leg>;

    /// Whether the server can be reached now (a TCP connection, or a command that can be found).
    /// The error says what is wrong in words for an operator.
    fn probe(&self) -> BoxFuture<Result<(), String>>;

    /// The server's name in logs and errors, without secrets: a URL without credentials and
    /// query, or a command's file name.
    fn name(&self) -> &str;

    /// Ends what was handed on ([`Leg::hand_on`]) and taken by no leg. Bounded by a few seconds.
    fn end(&self) -> BoxFuture<()> {
        Box::pin(std::future::ready(()))
    }
}

/// One session's relation with its server.
///
/// Every method may be called concurrently. Order between messages is the caller's business: a
/// call that must follow another is made after the other's future has finished (or, for a cancel,
/// after [`RequestContext::dispatched`] has fired).
pub trait Leg: Send + Sync + 'static {
    /// Sends a request. The future ends when the shape of the answer is known.
    ///
    /// Dropping the future or the reply abandons the request: on a modern leg that *is* the cancel
    /// (HTTP closes the stream; a pipe sends `notifications/cancelled`), on a legacy leg the
    /// answer is merely no longer read.
    ///
    /// # Errors
    /// A [`Fault`] that says whether the request may have been executed.
    /// `FaultKind::SessionLost` and `FaultKind::ChildExited` end this leg: the pipeline makes a
    /// new one or gives up.
    fn request(&self, message: Message, context: RequestContext)
    -> BoxFuture<Result<Reply, Fault>>;

    /// Sends a notification or a response. The future ends when the server accepted it (a 2xx, or
    /// the bytes are in the pipe). A response is sent again until accepted; a notification only if
    /// nothing of it was written.
    ///
    /// # Errors
    /// A [`Fault`] as for [`Leg::request`].
    fn send(&self, message: Message, context: SendContext) -> BoxFuture<Result<(), Fault>>;

    /// Tells the leg what the handshake settled, once the pipeline has accepted it. From then on
    /// the leg sends `MCP-Protocol-Version` where that version wants it.
    fn negotiated(&self, version: ProtocolVersion);

    /// Opens the stream of messages that belong to no request. `None`: this leg offers none now
    /// (a 405, a modern leg). Call it once, after `notifications/initialized` was accepted. On a
    /// pipe it is the rest of the pipe.
    fn standalone(&self) -> BoxFuture<Option<Incoming>>;

    /// Whether replies have a head that tells JSON from a stream before the first message (HTTP),
    /// or not (a pipe: stdio, HTTP+SSE).
    fn has_response_heads(&self) -> bool;

    /// On a pipe: tells the router whether the client has its standalone stream open, which
    /// decides where a message that names no request goes. No effect on HTTP.
    fn set_standalone_open(&self, open: bool);

    /// On a pipe: ends when it is over, with the fault that it died of, even while nobody takes what
    /// comes out of it. Over HTTP there is nothing that could die: never.
    fn died(&self) -> BoxFuture<Fault> {
        Box::pin(std::future::pending())
    }

    /// Ends the session with the server: DELETE, or the child's end. Idempotent; bounded by a few
    /// seconds.
    fn close(&self) -> BoxFuture<()>;

    /// Nobody uses this leg any more, and nothing that was asked by it is open or binds the server
    /// to a session: from the call on, what the leg has is for the leg of `era` that needs it next.
    /// One takes it; it ends if none does soon. What cannot be handed on is closed.
    fn hand_on(&self, era: Era) -> BoxFuture<()> {
        let _ = era;
        self.close()
    }
}

/// What goes with a request.
#[derive(Debug, Default)]
pub struct RequestContext {
    /// End-to-end request headers of the client that the server is to see, already filtered.
    pub headers: HeaderMap,
    /// When the request has to be answered; bounds the leg's own waits (Retry-After, permits).
    pub deadline: Deadline,
    /// Fired once the request has been written as far as this machine is concerned, or will never
    /// be. A cancel of this request waits for it.
    pub dispatched: Dispatched,
}

/// When a request has to be answered, if at all. Clones share it: whoever made the request may move
/// it while the leg works, as progress does.
#[derive(Debug, Clone, Default)]
pub struct Deadline(Option<Arc<Mutex<Instant>>>);

impl Deadline {
    /// A deadline at `at`, or none.
    #[must_use]
    pub fn new(at: Option<Instant>) -> Self {
        Self(at.map(|at| Arc::new(Mutex::new(at))))
    }

    /// When it is now.
    #[must_use]
    pub fn get(&self) -> Option<Instant> {
        self.0.as_ref().map(|at| *at.lock())
    }

    /// Moves it; a request without one stays without.
    pub fn set(&self, to: Instant) {
        if let Some(at) = &self.0 {
            *at.lock() = to;
        }
    }
}

/// What goes with a notification or a response.
#[derive(Debug, Default, Clone)]
pub struct SendContext {
    /// As in [`RequestContext::headers`].
    pub headers: HeaderMap,
    /// When the server has to have accepted it; bounds the leg's own waits (Retry-After).
    pub deadline: Deadline,
}

/// The signal that a request has left; see [`RequestContext::dispatched`]. Dropping it fires it.
#[derive(Debug, Default)]
pub struct Dispatched(Option<tokio::sync::oneshot::Sender<()>>);

impl Dispatched {
    /// A signal and what waits for it.
    #[must_use]
    pub fn new() -> (Self, tokio::sync::oneshot::Receiver<()>) {
        let (sender, receiver) = tokio::sync::oneshot::channel();
        (Self(Some(sender)), receiver)
    }

    /// Says that the request has left.
    pub fn fire(&mut self) {
        if let Some(sender) = self.0.take() {
            let _ = sender.send(());
        }
    }
}

/// The server's answer to a request, as far as its shape is known.
#[derive(Debug)]
pub enum Reply {
    /// One JSON body. `status` matters to modern clients only.
    Json {
        /// The server's status.
        status: StatusCode,
        /// End-to-end response headers that the client may see.
        headers: Fields,
        /// The response message.
        message: Message,
    },
    /// An event stream: messages until the response.
    Stream {
        /// End-to-end response headers that the client may see.
        headers: Fields,
        /// The messages.
        incoming: Incoming,
    },
    /// A pipe: nothing is known before the first message.
    Pipe(Incoming),
    /// A status without words that tells a modern client the server's era: it keeps that status,
    /// beside our error.
    Refused {
        /// The server's status.
        status: StatusCode,
        /// End-to-end response headers that the client may see.
        headers: Fields,
        /// What the status says of this sending alone; an earlier one may have been executed.
        fault: Box<Fault>,
    },
    /// 401 or 403 with `--forward-auth`: to be relayed to an HTTP client as it is.
    Challenge {
        /// 401 or 403.
        status: StatusCode,
        /// With `WWW-Authenticate`.
        headers: Fields,
        /// The body as it came.
        body: Bytes,
    },
}

/// A sequence of messages from the server that survives broken connections.
pub struct Incoming(Box<dyn Source>);

impl Incoming {
    /// Wraps a source.
    pub fn new(source: impl Source) -> Self {
        Self(Box::new(source))
    }

    /// The next item; commits the one before it. `None` is the clean end (for a reply: after its
    /// response, or because a modern stream was closed by the server).
    pub async fn next(&mut self) -> Option<Result<Item, Fault>> {
        std::future::poll_fn(|cx| self.0.poll_next(cx)).await
    }

    /// Poll form of [`Incoming::next`].
    pub fn poll_next(
        &mut self,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<Item, Fault>>> {
        self.0.poll_next(cx)
    }
}

impl std::fmt::Debug for Incoming {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Incoming")
    }
}

/// What stands behind an [`Incoming`].
pub trait Source: Send + 'static {
    /// See [`Incoming::next`].
    fn poll_next(
        &mut self,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<Item, Fault>>>;
}

/// One thing a stream brought.
#[derive(Debug)]
pub enum Item {
    /// A message.
    Message(Message),
    /// Messages may be missing here: the stream was away for this long without a cursor.
    Gap(Duration),
}
