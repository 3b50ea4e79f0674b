//! HTTP/2 connections, each of which carries the requests of many.
//!
//! A server says how many streams it lets a connection have (RFC 9113, section 5.1.2). hyper keeps
//! a request beyond that waiting, for as long as it takes, and everything behind it; so a request
//! never goes to a connection that is full: there is another one, or a new one is made. How many
//! streams there are at all is bounded elsewhere (`--max-connections`).

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use http::Request;
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use parking_lot::Mutex;

use super::exclusive::{Incoming, Received, Unanswered};
use super::request::RequestBody;
use crate::upstream::http::dial::Wire;

/// A connection is pinged so often while streams are open, and is dead when no answer came for
/// [`PING_TIMEOUT`].
const PING_INTERVAL: Duration = Duration::from_secs(30);
const PING_TIMEOUT: Duration = Duration::from_secs(20);

/// Bytes that one stream may bring before its client takes them; what waits beyond that waits in
/// the server.
const STREAM_WINDOW: u32 = 256 * 1024;
/// Bytes that all streams of a connection may bring: the most there can be (RFC 9113, section
/// 6.9.1), so that streams which nobody reads stop no other. What they hold is bounded by their own
/// windows.
const CONNECTION_WINDOW: u32 = (1 << 31) - 1;

/// The HTTP/2 connections to one origin.
#[derive(Default)]
pub(super) struct SharedConnections {
    all: Mutex<Vec<Shared>>,
    /// Whether there ever was one: every request looks here first.
    any: AtomicBool,
}

struct Shared {
    sender: http2::SendRequest<RequestBody>,
    /// One reference for the list, one for each open stream.
    streams: Arc<()>,
    /// How many the server lets it have, as far as it has said.
    limit: Arc<AtomicUsize>,
}

/// A place for one stream on a connection.
pub(super) struct Place {
    sender: http2::SendRequest<RequestBody>,
    stream: Stream,
    /// Whether the connection has served a request before.
    pub(super) reused: bool,
}

/// An open stream: its connection is fuller by one for as long as this lives.
pub(super) struct Stream(#[expect(dead_code, reason = "it is counted")] Arc<()>);

impl Shared {
    fn open_streams(&self) -> usize {
        Arc::strong_count(&self.streams) - 1
    }

    fn has_room(&self) -> bool {
        self.open_streams() < self.limit.load(Ordering::Relaxed)
    }

    fn place(&self, reused: bool) -> Place {
        Place {
            sender: self.sender.clone(),
            stream: Stream(Arc::clone(&self.streams)),
            reused,
        }
    }
}

impl SharedConnections {
    /// A place on the first connection that has one. Of those behind it the idle ones are closed:
    /// they were made for more than there is now.
    pub(super) fn place(&self) -> Option<Place> {
        if !self.any.load(Ordering::Acquire) {
            return None;
        }
        let mut connections = self.all.lock();
        connections.retain(|shared| !shared.sender.is_closed());
        let first = connections.iter().position(Shared::has_room)?;
        let place = connections[first].place(true);
        let mut behind = 0..;
        connections.retain(|shared| {
            behind.next().is_some_and(|at| at <= first) || shared.open_streams() > 0
        });
        Some(place)
    }

    /// Speaks HTTP/2 on a new connection. If another one got room meanwhile, that is used, and the
    /// new one is closed.
    pub(super) async fn connect(&self, wire: Wire) -> hyper::Result<Place> {
        let (sender, connection) = http2::Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .keep_alive_interval(PING_INTERVAL)
            .keep_alive_timeout(PING_TIMEOUT)
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .handshake(wire)
            .await?;
        let limit = Arc::new(AtomicUsize::new(connection.current_max_send_streams()));
        tokio::spawn(drive(connection, Arc::clone(&limit)));
        if let Some(place) = self.place() {
            return Ok(place);
        }
        let shared = Shared {
            sender,
            streams: Arc::default(),
            limit,
        };
        let place = shared.place(false);
        self.all.lock().push(shared);
        self.any.store(true, Ordering::Release);
        Ok(place)
    }
}

/// Lets a connection move what it can until it is over, and notes what its server allows. Its errors
/// reach the requests by hyper's own channels.
async fn drive(
    mut connection: http2::Connection<Wire, RequestBody, TokioExecutor>,
    limit: Arc<AtomicUsize>,
) {
    let _ = poll_fn(|cx| {
        let over = Pin::new(&mut connection).poll(cx);
        limit.store(connection.current_max_send_streams(), Ordering::Relaxed);
        over
    })
    .await;
}

impl Place {
    /// Sends a request; its stream is open until the response's body is dropped.
    pub(super) async fn send(
        mut self,
        request: Request<RequestBody>,
    ) -> Result<Received, Unanswered> {
        let response = self.sender.try_send_request(request).await;
        let response = response.map_err(Box::new)?;
        let incoming = |body| Incoming::new(body, Some(self.stream));
        Ok(Box::new(response.map(incoming)))
    }
}
