//! Which connection a request gets: one that is idle, a place on one that many share (HTTP/2), or a
//! new one.

use std::collections::VecDeque;
use std::sync::{Arc, Weak};
use std::time::Duration;

use http::header::HOST;
use http::{HeaderValue, Request, Uri, Version};
use hyper_util::client::legacy::connect::Connection as _;
use parking_lot::Mutex;
use tokio::time::Instant;

use super::Connected;
use super::exclusive::{Exclusive, Received};
use super::request::RequestBody;
use super::shared::{Place, SharedConnections};
use crate::upstream::http::dial::{Dial, DialError};

/// How long an unused connection is kept. Servers close theirs after five seconds by default
/// (Node.js, uvicorn); a POST written into a connection that is just being closed is lost with its
/// outcome unknown, so ours go first.
const IDLE_TIMEOUT: Duration = Duration::from_secs(4);
/// Unused connections kept at most; the oldest go first.
const MAX_IDLE: usize = 512;

/// The connections to one origin. Cheap to clone.
#[derive(Clone)]
pub(super) struct Pool(Arc<Shared>);

struct Shared {
    dial: Arc<dyn Dial>,
    idle: Mutex<Idle>,
    http2: SharedConnections,
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
    Shared(Place),
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
            http2: SharedConnections::default(),
        }))
    }

    /// Sends a request to `uri`. One that found its connection closed, with nothing written, gets
    /// another. `connected` learns when it has one.
    pub(super) async fn send(
        &self,
        mut request: Box<Request<RequestBody>>,
        uri: &Uri,
        connected: &Connected,
    ) -> Result<Received, Failed> {
        loop {
            let ready = self.ready(uri).await?;
            connected.set();
            let (result, reused) = match ready {
                Ready::Exclusive(mut exclusive) => {
                    let reused = exclusive.reused;
                    address(&mut request, uri, exclusive.request_target(uri));
                    (exclusive.send(request, self).await, reused)
                }
                Ready::Shared(place) => {
                    request.headers_mut().remove(HOST);
                    *request.uri_mut() = uri.clone();
                    *request.version_mut() = Version::HTTP_2;
                    let reused = place.reused;
                    // Boxed, as in `ready`.
                    (Box::pin(place.send(*request)).await, reused)
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
        if let Some(place) = self.0.http2.place() {
            return Ok(Ready::Shared(place));
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
            let place = self.0.http2.connect(wire).await;
            return place.map(Ready::Shared).map_err(Failed::Http);
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
fn address(request: &mut Request<RequestBody>, uri: &Uri, target: Uri) {
    *request.version_mut() = Version::HTTP_11;
    *request.uri_mut() = target;
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
