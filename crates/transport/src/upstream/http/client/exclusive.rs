//! An HTTP/1.1 connection that belongs to one request at a time, and the body that comes over it.
//!
//! hyper's connection is a future that moves bytes; usually a task of its own polls it, and every
//! message and every piece of a body changes from one task to another. Here whoever waits for a
//! response or reads its body polls the connection itself: what has arrived is read in one go,
//! without a switch between tasks or threads, and a stream that nobody reads is not read from the
//! socket either.

use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use http::{Request, Response, Uri};
use http_body::{Body, Frame, SizeHint};
use hyper::client::conn::TrySendError;
use hyper::client::conn::http1;

use super::pool::{Pool, Target};
use super::request::RequestBody;
use super::shared::Stream;
use crate::repoll::Rounds;
use crate::upstream::http::dial::Wire;

/// Bytes that a connection reads ahead of whoever takes its body, and the bound of a response's
/// head. What waits for a slow client waits in the server.
const READ_AHEAD: usize = 64 * 1024;

/// Polls in a row before others get their turn.
const POLLS: u8 = 32;

/// A connection in the hands of one request, boxed, as it goes from hand to hand.
pub(super) struct Exclusive {
    sender: http1::SendRequest<RequestBody>,
    /// `None` once it has ended.
    connection: Option<Pin<Box<http1::Connection<Wire, RequestBody>>>>,
    rounds: Rounds,
    /// How requests on it name what they want.
    target: Target,
    /// What the last one named, in memory of its own.
    path: Uri,
    /// Whether it has served a request before.
    pub(super) reused: bool,
}

impl Exclusive {
    pub(super) async fn handshake(wire: Wire, target: Target) -> hyper::Result<Box<Self>> {
        let (sender, connection) = http1::Builder::new()
            .max_buf_size(READ_AHEAD)
            .handshake(wire)
            .await?;
        Ok(Box::new(Self {
            sender,
            connection: Some(Box::pin(connection)),
            rounds: Rounds::default(),
            target,
            path: Uri::default(),
            reused: false,
        }))
    }

    /// Sends a request; the response's body gives the connection back to `pool` at its end.
    pub(super) async fn send(
        mut self: Box<Self>,
        request: Box<Request<RequestBody>>,
        pool: &Pool,
    ) -> Result<Received, Unanswered> {
        let this = &mut *self;
        let mut response = std::pin::pin!(this.sender.try_send_request(*request));
        let mut response = std::future::poll_fn(|cx| {
            this.rounds.poll(cx, POLLS, |cx| {
                advance(&mut this.connection, cx);
                let answered = response.as_mut().poll(cx);
                let received = answered
                    .map_ok(|response| Box::new(response.map(|body| Incoming::new(body, None))));
                received.map_err(Box::new)
            })
        })
        .await?;
        self.reused = true;
        response.body_mut().home = Some((self, pool.clone()));
        Ok(response)
    }

    /// What a request on it has to name so that it gets to `uri`.
    pub(super) fn request_target(&mut self, uri: &Uri) -> Uri {
        let path = match self.target {
            Target::Origin => uri.path_and_query(),
            Target::Absolute => None,
        };
        let Some(path) = path else {
            return uri.clone();
        };
        // Clones of one URL are counted in one place, which all threads would write at every request.
        if self.path.path_and_query() != Some(path) {
            let own = path.as_str().parse().unwrap_or_else(|_| path.clone());
            self.path = Uri::from(own);
        }
        self.path.clone()
    }

    /// Whether it can take a request now. What comes later is seen by whoever uses it next.
    pub(super) fn is_ready(&mut self) -> bool {
        // Most often it went on to wait for a request when the last response was over.
        if !self.sender.is_ready() {
            advance(
                &mut self.connection,
                &mut Context::from_waker(Waker::noop()),
            );
        }
        self.connection.is_some() && self.sender.is_ready()
    }
}

/// Lets the connection move what it can. Its errors reach the request by hyper's own channels.
fn advance(
    connection: &mut Option<Pin<Box<http1::Connection<Wire, RequestBody>>>>,
    cx: &mut Context<'_>,
) {
    if let Some(open) = connection
        && open.as_mut().poll(cx).is_ready()
    {
        *connection = None;
    }
}

/// A response, boxed where it first shows, as it goes from hand to hand.
pub(crate) type Received = Box<Response<Incoming>>;

/// Why there is none, with the request if nothing of it was written.
pub(super) type Unanswered = Box<TrySendError<Request<RequestBody>>>;

/// A response's body, with the connection that brings it.
pub(crate) struct Incoming {
    body: hyper::body::Incoming,
    ended: bool,
    /// HTTP/1.1: the connection, and where it goes when the body has ended.
    home: Option<(Box<Exclusive>, Pool)>,
    /// HTTP/2: its place on the connection.
    stream: Option<Stream>,
}

impl Incoming {
    /// A body whose connection is driven elsewhere (HTTP/2), or will be given to it.
    pub(super) fn new(body: hyper::body::Incoming, stream: Option<Stream>) -> Self {
        Self {
            body,
            ended: false,
            home: None,
            stream,
        }
    }

    /// Gives the connection back, if the body is over: to be called where the body itself lives on.
    pub(crate) fn release(&mut self) {
        if !self.is_end_stream() {
            return;
        }
        self.stream = None;
        if let Some((mut exclusive, pool)) = self.home.take()
            && exclusive.is_ready()
        {
            pool.put(exclusive);
        }
    }
}

impl Body for Incoming {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let Self {
            body, ended, home, ..
        } = &mut *self;
        let mut body = Pin::new(body);
        let frame = match home {
            None => body.poll_frame(cx),
            Some((exclusive, _)) => exclusive.rounds.poll(cx, POLLS, |cx| {
                if let Poll::Ready(frame) = body.as_mut().poll_frame(cx) {
                    return Poll::Ready(frame);
                }
                advance(&mut exclusive.connection, cx);
                body.as_mut().poll_frame(cx)
            }),
        };
        *ended |= matches!(frame, Poll::Ready(None));
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.ended || self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for Incoming {
    fn drop(&mut self) {
        self.release();
    }
}
