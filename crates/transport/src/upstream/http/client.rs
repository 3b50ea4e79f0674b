//! The HTTP client of an upstream: two connection pools over one [`Dial`], and one honest answer to
//! "may the server have seen it?".
//!
//! It knows nothing of MCP, sessions or event streams. A request that fails says whether it was
//! certainly not processed ([`SendError::NotSent`]); whether to send it again is the caller's rule
//! (resilience 3, "sent once").

use std::convert::Infallible;
use std::error::Error as _;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, Uri};
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use hyper_util::client::legacy;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use parking_lot::Mutex;
use tokio::sync::Semaphore;
use tower_service::Service;

use super::dial::{self, Dial, DialError, Wire};
use crate::upstream::{BoxFuture, Dispatched};

/// How long an unused connection is kept. Servers close theirs after five seconds by default
/// (Node.js, uvicorn); a POST written into a connection that is just being closed is lost with its
/// outcome unknown, so ours go first.
const POOL_IDLE_TIMEOUT: Duration = Duration::from_secs(4);
/// A connection that carries HTTP/2 is pinged so often while streams are open, and is dead when no
/// answer came for [`HTTP2_PING_TIMEOUT`].
const HTTP2_PING_INTERVAL: Duration = Duration::from_secs(30);
const HTTP2_PING_TIMEOUT: Duration = Duration::from_secs(20);
/// TCP and TLS handshakes that may run at once for event streams of one origin (resilience 4).
const CONCURRENT_CONNECTS: usize = 16;

/// A client for one server. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Client {
    messages: legacy::Client<Connector, RequestBody>,
    streams: legacy::Client<Connector, RequestBody>,
}

impl Client {
    pub(crate) fn new(dial: Arc<dyn Dial>) -> Self {
        let mut builder = legacy::Client::builder(TokioExecutor::new());
        builder
            .timer(TokioTimer::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(POOL_IDLE_TIMEOUT)
            .http2_keep_alive_interval(HTTP2_PING_INTERVAL)
            .http2_keep_alive_timeout(HTTP2_PING_TIMEOUT);
        Self {
            messages: builder.build(Connector {
                dial: Arc::clone(&dial),
                connects: None,
            }),
            streams: builder.build(Connector {
                dial,
                connects: Some(Arc::new(Semaphore::new(CONCURRENT_CONNECTS))),
            }),
        }
    }

    /// Sends a POST or DELETE; no other request's connect can hold it up.
    pub(crate) async fn message(
        &self,
        request: Request<RequestBody>,
    ) -> Result<Response<Incoming>, SendError> {
        let delivery = request.body().delivery.clone();
        self.messages
            .request(request)
            .await
            .map_err(|error| SendError::new(&error, delivery.as_deref()))
    }

    /// Opens an event stream by GET; its connect waits for one of the origin's few places.
    pub(crate) async fn stream(
        &self,
        request: Request<RequestBody>,
    ) -> Result<Response<Incoming>, SendError> {
        self.streams
            .request(request)
            .await
            .map_err(|error| SendError::new(&error, None))
    }
}

/// Why there is no response head.
#[derive(Debug)]
pub(crate) enum SendError {
    /// The request was certainly not processed: no connection, or nothing of the body was handed
    /// to one, or the server said so (HTTP/2 REFUSED_STREAM, GOAWAY below the stream).
    NotSent(NotSent),
    /// The connection broke after bytes may have left.
    Lost(String),
}

/// What kept a request from being sent.
#[derive(Debug)]
pub(crate) enum NotSent {
    /// May pass: the next try may find a server.
    Unreachable(String),
    /// Stays: certificates, TLS versions.
    Tls(String),
}

impl SendError {
    fn new(error: &legacy::Error, delivery: Option<&Delivery>) -> Self {
        if let Some(dial) = dial::find::<DialError>(error) {
            return Self::NotSent(match dial {
                DialError::Tls(_) => NotSent::Tls(dial.to_string()),
                _ => NotSent::Unreachable(dial.to_string()),
            });
        }
        let cause = error
            .source()
            .map_or_else(|| dial::chain(error), dial::chain);
        let untouched = delivery.is_some_and(|delivery| !delivery.started());
        if untouched || error.is_connect() || refused_by_http2(error) {
            return Self::NotSent(NotSent::Unreachable(cause));
        }
        Self::Lost(cause)
    }
}

/// Whether the server declared by HTTP/2's own means that it did not process the stream
/// (RFC 9113, sections 6.8 and 8.7).
fn refused_by_http2(error: &legacy::Error) -> bool {
    dial::find::<h2::Error>(error).is_some_and(|error| {
        error.is_remote()
            && (error.is_go_away() || error.reason() == Some(h2::Reason::REFUSED_STREAM))
    })
}

/// What happened to a request's body, shared with the connection that takes it.
pub(crate) struct Delivery {
    started: AtomicBool,
    dispatched: Mutex<Dispatched>,
}

impl Delivery {
    pub(crate) fn new(dispatched: Dispatched) -> Arc<Self> {
        Arc::new(Self {
            started: AtomicBool::new(false),
            dispatched: Mutex::new(dispatched),
        })
    }

    /// Whether a connection took the body, so that bytes of it may have left.
    pub(crate) fn started(&self) -> bool {
        self.started.load(Ordering::Acquire)
    }

    /// Forgets the try before: another one begins.
    pub(crate) fn reset(&self) {
        self.started.store(false, Ordering::Release);
    }

    fn start(&self) {
        if !self.started.swap(true, Ordering::AcqRel) {
            self.dispatched.lock().fire();
        }
    }
}

/// A request's body: one piece that tells when it is taken, or none.
pub(crate) struct RequestBody {
    data: Option<Bytes>,
    delivery: Option<Arc<Delivery>>,
}

impl RequestBody {
    pub(crate) fn empty() -> Self {
        Self {
            data: None,
            delivery: None,
        }
    }

    pub(crate) fn new(data: Bytes, delivery: Arc<Delivery>) -> Self {
        Self {
            data: Some(data),
            delivery: Some(delivery),
        }
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let data = self.data.take();
        if data.is_some()
            && let Some(delivery) = &self.delivery
        {
            delivery.start();
        }
        Poll::Ready(data.map(|data| Ok(Frame::data(data))))
    }

    fn is_end_stream(&self) -> bool {
        self.data.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.data.as_ref().map_or(0, |data| data.len() as u64))
    }
}

/// [`Dial`] as hyper's client wants it, with the origin's limit on concurrent connects.
#[derive(Clone)]
struct Connector {
    dial: Arc<dyn Dial>,
    connects: Option<Arc<Semaphore>>,
}

impl Service<Uri> for Connector {
    type Response = Wire;
    type Error = DialError;
    type Future = BoxFuture<Result<Wire, DialError>>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), DialError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let Some(connects) = self.connects.clone() else {
            return self.dial.dial(&uri);
        };
        let dial = Arc::clone(&self.dial);
        Box::pin(async move {
            // A closed semaphore cannot be: nobody closes it. If it were, the limit is what falls.
            let _place = connects.acquire_owned().await;
            dial.dial(&uri).await
        })
    }
}
