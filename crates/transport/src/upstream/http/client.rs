//! The HTTP client of an upstream: two connection pools over one [`Dial`], and one honest answer to
//! "may the server have seen it?".
//!
//! It knows nothing of MCP, sessions or event streams, and paces nothing. What it says of a failure
//! is a [`Trouble`]; whether to send a request again is the engine's rule (resilience 3, "sent
//! once").

use std::convert::Infallible;
use std::error::Error as _;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, Response, Uri};
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use hyper_util::client::legacy;
use hyper_util::client::legacy::connect::{CaptureConnection, capture_connection};
use hyper_util::rt::{TokioExecutor, TokioTimer};
use parking_lot::Mutex;
use shadowcat_sse::reconnect::Trouble;
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
            messages: builder.build(Connector(Arc::clone(&dial))),
            streams: builder.build(Connector(dial)),
        }
    }

    /// Sends a request: a GET on the connections for streams, anything else on those for messages,
    /// so that on HTTP/2 a stream that nobody reads cannot use up the window of an answer.
    /// `connected` learns when it has its connection.
    pub(crate) async fn send(
        &self,
        mut request: Request<RequestBody>,
        connected: &Connected,
    ) -> Result<Response<Incoming>, SendError> {
        let delivery = request.body().delivery.clone();
        let pool = match *request.method() {
            Method::GET => &self.streams,
            _ => &self.messages,
        };
        let captured = capture_connection(&mut request);
        let mut response = std::pin::pin!(pool.request(request));
        let response = tokio::select! {
            biased;
            response = &mut response => response,
            () = connection(captured) => {
                connected.0.store(true, Ordering::Release);
                response.await
            }
        };
        response.map_err(|error| SendError::new(&error, delivery.as_deref()))
    }
}

/// Ends when the request has its connection; never, if it gets none.
async fn connection(mut captured: CaptureConnection) {
    if captured.wait_for_connection_metadata().await.is_none() {
        std::future::pending().await
    }
}

/// Whether a request has its connection; see [`Client::send`].
#[derive(Debug, Clone, Default)]
pub(crate) struct Connected(Arc<AtomicBool>);

impl Connected {
    /// Whether it has.
    pub(crate) fn is_set(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}

/// Why there is no response head.
#[derive(Debug)]
pub(crate) struct SendError {
    /// [`NoConnection`](Trouble::NoConnection), [`Tls`](Trouble::Tls),
    /// [`NotProcessed`](Trouble::NotProcessed) or [`NoHead`](Trouble::NoHead): only after the last
    /// one may the server have seen the request.
    pub(crate) trouble: Trouble,
    /// The causes in one line.
    pub(crate) cause: String,
}

impl SendError {
    fn new(error: &legacy::Error, delivery: Option<&Delivery>) -> Self {
        if let Some(dial) = dial::find::<DialError>(error) {
            return Self {
                trouble: match dial {
                    DialError::Tls(_) => Trouble::Tls,
                    _ => Trouble::NoConnection,
                },
                cause: dial.to_string(),
            };
        }
        let untouched = delivery.is_some_and(|delivery| !delivery.started());
        Self {
            trouble: if refused_by_http2(error) {
                Trouble::NotProcessed
            } else if untouched || error.is_connect() {
                Trouble::NoConnection
            } else {
                Trouble::NoHead
            },
            cause: error
                .source()
                .map_or_else(|| dial::chain(error), dial::chain),
        }
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

/// [`Dial`] as hyper's client wants it.
#[derive(Clone)]
struct Connector(Arc<dyn Dial>);

impl Service<Uri> for Connector {
    type Response = Wire;
    type Error = DialError;
    type Future = BoxFuture<Result<Wire, DialError>>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), DialError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        self.0.dial(&uri)
    }
}
