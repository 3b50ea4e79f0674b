//! The client edges: how clients reach the pipeline.
//!
//! An edge owns the wire: it bounds what comes in, answers what is malformed, and turns the rest
//! into calls of [`HttpService`] or [`StdioService`]. It keeps no session state and makes no
//! protocol decision beyond what one HTTP request or one line shows by itself.

pub mod http;
pub mod stdio;

use std::pin::Pin;
use std::sync::Arc;

use ::http::{HeaderMap, StatusCode};
use bytes::Bytes;
use futures_core::Stream;
use shadowcat_mcp::fault::Rejection;
use shadowcat_mcp::headers::Fields;
use shadowcat_mcp::message::{Message, Payload};

use crate::upstream::BoxFuture;

/// The pipeline as a Streamable HTTP edge sees it.
///
/// The edge has already checked: path, method, Origin, Host, sizes, `Content-Type`, `Accept`, and
/// that the body is JSON-RPC (one [`Payload`]). A dropped future means that the client went away.
pub trait HttpService: Send + Sync + 'static {
    /// A POST with its parsed body.
    fn post(self: &Arc<Self>, headers: HeaderMap, payload: Payload) -> BoxFuture<HttpReply>;
    /// A GET: opens the standalone stream or, with `Last-Event-ID`, resumes a stream.
    fn get(self: &Arc<Self>, headers: HeaderMap) -> BoxFuture<HttpReply>;
    /// A DELETE: ends the session.
    fn delete(self: &Arc<Self>, headers: HeaderMap) -> BoxFuture<HttpReply>;
}

/// An event stream's bytes, already encoded. Every item is whole events or comments; dropping it
/// means that the client went away.
pub type EventBytes = Pin<Box<dyn Stream<Item = Bytes> + Send + 'static>>;

/// What the pipeline answers.
pub enum HttpReply {
    /// 202 without a body.
    Accepted,
    /// 204 without a body: the session has ended (DELETE), or the stream is finished and nothing is
    /// left of it (GET).
    Ended,
    /// One body with its status (`application/json`, or as `headers` say).
    Body {
        /// The status.
        status: StatusCode,
        /// Headers beyond `Content-Type` and `Content-Length`.
        headers: Fields,
        /// The bytes.
        body: Bytes,
    },
    /// 200 with `text/event-stream`.
    Events {
        /// Headers beyond `Content-Type`, `Cache-Control` and `X-Accel-Buffering`.
        headers: Fields,
        /// The stream.
        events: EventBytes,
    },
    /// Refused, with the status and error of the one table.
    Rejected(Rejection),
}

/// The pipeline as a stdio edge sees it.
pub trait StdioService: Send + Sync + 'static {
    /// One message of the client, in the order of arrival. Returns once the message has its place
    /// in the session's order; waiting here is what slows a client that floods.
    fn message(self: Arc<Self>, payload: Payload) -> BoxFuture<()>;
}

/// Where a stdio service writes: one message a line, one writer, bounded.
pub trait LineSink: Send + Sync + 'static {
    /// Queues one message; waits while the queue is full.
    fn send(&self, message: Message) -> BoxFuture<Result<(), SinkClosed>>;
}

/// The client's end of the pipe is gone.
#[derive(Debug, Clone, Copy, thiserror::Error)]
#[error("the client closed its end of the pipe")]
pub struct SinkClosed;
