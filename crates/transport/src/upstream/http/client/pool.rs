//! Which connection a request gets: one that is idle, the HTTP/2 connection that all share, or a
//! new one.

use std::collections::VecDeque;
use std::sync::{Arc, Weak};
use std::time::Duration;

use http::header::HOST;
use http::{HeaderValue, Request, Response, Uri, Version};
use hyper::client::conn::http2;
use hyper_util::client::legacy::connect::Connection as _;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use parking_lot::Mutex;
use tokio::time::Instant;

use super::Connected;
use super::exclusive::{Exclusive, Incoming};
use super::request::RequestBody;
use crate::upstream::http::dial::{Dial, DialError, Wire};

/// How long an unused connection is kept. Servers close theirs after five seconds by default
/// (Node.js, uvicorn); a POST written into a connection that is just being closed is lost with its
/// outcome unknown, so ours go first.
const IDLE_TIMEOUT: Duration = Duration::from_secs(4);
/// Unused connections kept at most; the oldest go first.
const MAX_IDLE: usize = 512;
/// A connection that carries HTTP/2 is pinged so often while streams are open, and is dead when no
/// answer came for [`HTTP2_PING_TIMEOUT`].
const HTTP2_PING_INTERVAL: Duration = Duration::from_secs(30);
const HTTP2_PING_TIMEOUT: Duration = Duration::from_secs(20);

/// The connections to one origin. Cheap to clone.
#[derive(Clone)]
pub(super) struct Pool(Arc<Shared>);

struct Shared {
    dial: Arc<dyn Dial>,
    idle: Mutex<Idle>,
    /// What HTTP/2 requests share.
    http2: Mutex<Option<http2::SendRequest<RequestBody>>>,
}

#[derive(Default)]
struct Idle {
    /// The one used last is at the back.
    connections: VecDeque<(Box<Exclusive>, Instant)>,
    /// Somebody closes those that are idle for too long.
    tended: bool,
}

/// Why a request has no response.
pub(super) enum Failed {
    /// There is no connection.
    Dial(DialError),
    /// There was one.
    Http(hyper::Error),
}

/// A connection that can take a request.
enum Ready {
    Exclusive(Box<Exclusive>),
    Shared {
        sender: http2::SendRequest<RequestBody>,
        reused: bool,
    },
}

/// How a request names what it wants (RFC 9112, section 3.2).
#[derive(Clone, Copy)]
pub(super) enum Target {
    /// Its path: the peer is the server.
    Origin,
    /// The whole URL: the peer is a proxy.
    Absolute,
}

impl Pool {
    pub(super) fn new(dial: Arc<dyn Dial>) -> Self {
        Self(Arc::new(Shared {
            dial,
            idle: Mutex::default(),
            http2: Mutex::default(),
        }))
    }

    /// Sends a request. One that found its connection closed, with nothing written, gets another.
    /// `connected` learns when it has one.
    pub(super) async fn send(
        &self,
        mut request: Box<Request<RequestBody>>,
        connected: &Connected,
    ) -> Result<Response<Incoming>, Failed> {
        let uri = request.uri().clone();
        loop {
            let ready = self.ready(&uri).await?;
            connected.set();
            let (result, reused) = match ready {
                Ready::Exclusive(exclusive) => {
                    let reused = exclusive.reused;
                    address(&mut request, &uri, exclusive.target);
                    (exclusive.send(request, self).await, reused)
                }
                Ready::Shared { mut sender, reused } => {
                    request.headers_mut().remove(HOST);
                    *request.uri_mut() = uri.clone();
                    *request.version_mut() = Version::HTTP_2;
                    let sent = sender.try_send_request(*request).await;
                    (sent.map(|response| response.map(Incoming::shared)), reused)
                }
            };
            let mut error = match result {
                Ok(response) => return Ok(response),
                Err(error) => error,
            };
            match error.take_message() {
                Some(unsent) if reused => request = Box::new(unsent),
                _ => return Err(Failed::Http(error.into_error())),
            }
        }
    }

    async fn ready(&self, uri: &Uri) -> Result<Ready, Failed> {
        let shared = self.0.http2.lock().clone();
        if let Some(mut sender) = shared {
            if sender.ready().await.is_ok() {
                return Ok(Ready::Shared {
                    sender,
                    reused: true,
                });
            }
            self.0.http2.lock().take_if(|sender| sender.is_closed());
        }
        if let Some(exclusive) = self.take() {
            return Ok(Ready::Exclusive(exclusive));
        }
        // What is rare is boxed: the future of every request is as large as its largest path.
        Box::pin(self.connect(uri)).await
    }

    async fn connect(&self, uri: &Uri) -> Result<Ready, Failed> {
        let wire = self.0.dial.dial(uri).await.map_err(Failed::Dial)?;
        let connected = wire.connected();
        if connected.is_negotiated_h2() {
            return self.connect_http2(wire).await;
        }
        let target = if connected.is_proxied() {
            Target::Absolute
        } else {
            Target::Origin
        };
        let exclusive = Exclusive::handshake(wire, target).await;
        let exclusive = exclusive.map_err(Failed::Http)?;
        Ok(Ready::Exclusive(exclusive))
    }

    async fn connect_http2(&self, wire: Wire) -> Result<Ready, Failed> {
        let (sender, connection) = http2::Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .keep_alive_interval(HTTP2_PING_INTERVAL)
            .keep_alive_timeout(HTTP2_PING_TIMEOUT)
            .handshake(wire)
            .await
            .map_err(Failed::Http)?;
        // Its errors reach the requests by hyper's own channels.
        tokio::spawn(async move {
            let _ = connection.await;
        });
        let mut shared = self.0.http2.lock();
        let sender = shared.get_or_insert(sender).clone();
        Ok(Ready::Shared {
            sender,
            reused: false,
        })
    }

    /// An idle connection. Whether the server has closed it meanwhile shows when it is polled, which
    /// sending does, before anything is written.
    fn take(&self) -> Option<Box<Exclusive>> {
        let (exclusive, since) = self.0.idle.lock().connections.pop_back()?;
        (since.elapsed() < IDLE_TIMEOUT).then_some(exclusive)
    }

    /// Takes a connection back.
    pub(super) fn put(&self, exclusive: Box<Exclusive>) {
        let mut idle = self.0.idle.lock();
        idle.connections.push_back((exclusive, Instant::now()));
        let oldest = (idle.connections.len() > MAX_IDLE).then(|| idle.connections.pop_front());
        let tend = !std::mem::replace(&mut idle.tended, true);
        drop(idle);
        drop(oldest);
        if tend && let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(tend_idle(Arc::downgrade(&self.0)));
        }
    }
}

/// Closes what is idle for too long, until nothing is idle.
async fn tend_idle(pool: Weak<Shared>) {
    loop {
        tokio::time::sleep(IDLE_TIMEOUT).await;
        let Some(pool) = pool.upgrade() else { return };
        let mut idle = pool.idle.lock();
        let fresh = |(_, since): &(Box<Exclusive>, Instant)| since.elapsed() < IDLE_TIMEOUT;
        let first = idle.connections.iter().position(fresh);
        let old = first.unwrap_or(idle.connections.len());
        let closed: Vec<_> = idle.connections.drain(..old).collect();
        idle.tended = !idle.connections.is_empty();
        let done = !idle.tended;
        drop(idle);
        drop(closed);
        if done {
            return;
        }
    }
}

/// Writes the request's target and `Host` as HTTP/1.1 wants them.
fn address(request: &mut Request<RequestBody>, uri: &Uri, target: Target) {
    *request.version_mut() = Version::HTTP_11;
    *request.uri_mut() = match (target, uri.path_and_query()) {
        (Target::Origin, Some(path)) => Uri::from(path.clone()),
        _ => uri.clone(),
    };
    if !request.headers().contains_key(HOST)
        && let Some(host) = host(uri)
    {
        request.headers_mut().insert(HOST, host);
    }
}

/// `Host` for a URL (RFC 9110, section 7.2).
pub(crate) fn host(uri: &Uri) -> Option<HeaderValue> {
    let default = match uri.scheme_str() {
        Some("https") => ":443",
        _ => ":80",
    };
    let authority = uri.authority()?.as_str();
    HeaderValue::from_str(authority.strip_suffix(default).unwrap_or(authority)).ok()
}
