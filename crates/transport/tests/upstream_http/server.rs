//! A server that answers by a script, on in-memory connections, so that waits cost no time.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response, Uri};
use http_body::{Body, Frame};
use http_body_util::BodyExt as _;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use parking_lot::Mutex;
use shadowcat_transport::upstream::BoxFuture;
use shadowcat_transport::upstream::http::{Dial, DialError, Wire};
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::time::{Instant, Sleep};

/// One request as the server saw it.
#[derive(Debug, Clone)]
pub(crate) struct Seen {
    pub(crate) method: Method,
    pub(crate) path: String,
    pub(crate) headers: HeaderMap,
    pub(crate) body: String,
    pub(crate) at: Instant,
    /// When the server was made.
    pub(crate) born: Instant,
}

impl Seen {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }
}

/// What the script says to do with a request.
pub(crate) enum Answer {
    /// A response.
    Http(Response<Script>),
    /// A response after a while.
    Late(Duration, Response<Script>),
    /// The connection ends without a response head.
    Reset,
    /// No response head ever.
    Silence,
}

type Play = dyn Fn(&Seen, usize) -> Answer + Send + Sync;

/// The server; it is also the [`Dial`] that reaches it.
pub(crate) struct Server {
    play: Box<Play>,
    seen: Mutex<Vec<Seen>>,
    dials: AtomicUsize,
    refusals: AtomicUsize,
    open: AtomicUsize,
    born: Instant,
}

impl Server {
    /// A server that answers its n-th request (from 0) with `play(request, n)`.
    pub(crate) fn new(play: impl Fn(&Seen, usize) -> Answer + Send + Sync + 'static) -> Arc<Self> {
        Arc::new(Self {
            play: Box::new(play),
            seen: Mutex::default(),
            dials: AtomicUsize::new(0),
            refusals: AtomicUsize::new(0),
            open: AtomicUsize::new(0),
            born: Instant::now(),
        })
    }

    /// Refuses the next `n` connections.
    pub(crate) fn refuse(&self, n: usize) {
        self.refusals.store(n, Ordering::SeqCst);
    }

    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.seen.lock().clone()
    }

    /// How often a connection was asked for.
    pub(crate) fn dials(&self) -> usize {
        self.dials.load(Ordering::SeqCst)
    }

    /// How many connections are open.
    pub(crate) fn open(&self) -> usize {
        self.open.load(Ordering::SeqCst)
    }

    async fn serve(
        self: Arc<Self>,
        request: Request<hyper::body::Incoming>,
    ) -> Result<Response<Script>, Gone> {
        let (head, body) = request.into_parts();
        let body = body.collect().await.map_err(|_| Gone)?.to_bytes();
        let seen = Seen {
            method: head.method,
            path: head
                .uri
                .path_and_query()
                .map(ToString::to_string)
                .unwrap_or_default(),
            headers: head.headers,
            body: String::from_utf8_lossy(&body).into_owned(),
            at: Instant::now(),
            born: self.born,
        };
        let n = {
            let mut log = self.seen.lock();
            log.push(seen.clone());
            log.len() - 1
        };
        match (self.play)(&seen, n) {
            Answer::Http(response) => Ok(response),
            Answer::Late(after, response) => {
                tokio::time::sleep(after).await;
                Ok(response)
            }
            Answer::Reset => Err(Gone),
            Answer::Silence => std::future::pending().await,
        }
    }
}

#[derive(Debug, thiserror::Error)]
#[error("the script ends the connection")]
pub(crate) struct Gone;

/// [`Server`] as a way to make connections.
pub(crate) struct Pipes(pub(crate) Arc<Server>);

impl Dial for Pipes {
    fn dial(&self, _uri: &Uri) -> BoxFuture<Result<Wire, DialError>> {
        let server = Arc::clone(&self.0);
        Box::pin(async move {
            server.dials.fetch_add(1, Ordering::SeqCst);
            let refused = server
                .refusals
                .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| {
                    left.checked_sub(1)
                })
                .is_ok();
            if refused {
                return Err(DialError::Unreachable("refused by the script".into()));
            }
            let (near, far) = tokio::io::duplex(64 * 1024);
            server.open.fetch_add(1, Ordering::SeqCst);
            tokio::spawn(async move {
                let serving = Arc::clone(&server);
                let service = service_fn(move |request| Arc::clone(&serving).serve(request));
                let _ = http1::Builder::new()
                    .timer(TokioTimer::new())
                    .serve_connection(TokioIo::new(far), service)
                    .await;
                server.open.fetch_sub(1, Ordering::SeqCst);
            });
            Ok(Wire::new(near))
        })
    }
}

/// One thing that a scripted body does.
pub(crate) enum Step {
    Data(Bytes),
    Sleep(Duration),
    /// The connection breaks.
    Abort,
    /// Nothing comes any more, and the connection stays.
    Hang,
    /// What is sent here, until the sender is gone.
    Feed(UnboundedReceiver<Step>),
}

/// A body that follows its steps, then ends.
pub(crate) struct Script {
    steps: VecDeque<Step>,
    sleep: Option<Pin<Box<Sleep>>>,
}

impl Script {
    pub(crate) fn new(steps: impl IntoIterator<Item = Step>) -> Self {
        Self {
            steps: steps.into_iter().collect(),
            sleep: None,
        }
    }
}

impl Body for Script {
    type Data = Bytes;
    type Error = Gone;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Gone>>> {
        loop {
            if let Some(sleep) = &mut self.sleep {
                std::task::ready!(sleep.as_mut().poll(cx));
                self.sleep = None;
            }
            match self.steps.pop_front() {
                None => return Poll::Ready(None),
                Some(Step::Data(data)) => return Poll::Ready(Some(Ok(Frame::data(data)))),
                Some(Step::Sleep(time)) => self.sleep = Some(Box::pin(tokio::time::sleep(time))),
                Some(Step::Abort) => return Poll::Ready(Some(Err(Gone))),
                Some(Step::Hang) => {
                    self.steps.push_front(Step::Hang);
                    return Poll::Pending;
                }
                Some(Step::Feed(mut feed)) => {
                    let fed = feed.poll_recv(cx);
                    if !matches!(fed, Poll::Ready(None)) {
                        self.steps.push_front(Step::Feed(feed));
                    }
                    if let Some(step) = std::task::ready!(fed) {
                        self.steps.push_front(step);
                    }
                }
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.steps.is_empty() && self.sleep.is_none()
    }
}
