//! One event-stream body: its items, and the messages in its events.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::Body as _;
use hyper::body::Incoming;
use shadowcat_mcp::message::{Message, Payload};
use shadowcat_sse::{DecodeError, Decoder, Event, Item, Limits};
use tracing::warn;

use super::Shared;
use super::budget::Share;
use super::counters::OpenStream;
use super::dial::chain;

/// How much of an unreadable event a warning quotes.
const QUOTED_BYTES: usize = 100;

/// An open body with its decoder.
pub(crate) struct EventBody {
    body: Incoming,
    decoder: Decoder,
    ended: bool,
    shared: Arc<Shared>,
    /// The memory that an unfinished event holds.
    share: Share,
    _open: OpenStream,
}

/// What ended a body early.
#[derive(Debug)]
pub(crate) enum EventError {
    /// The connection broke.
    Broken(String),
    /// No memory came free for an unfinished event.
    NoMemory,
    /// The decoder met a limit.
    Limit(DecodeError),
}

impl EventBody {
    pub(crate) fn new(body: Incoming, shared: Arc<Shared>) -> Self {
        let limits = Limits {
            event: shared.config.max_message_size,
            ..Limits::default()
        };
        Self {
            body,
            share: shared.budget.share(),
            _open: shared.counters.stream_opened(),
            shared,
            decoder: Decoder::new(limits),
            ended: false,
        }
    }

    /// The next item of the stream; `None` at its clean end.
    pub(crate) fn poll_item(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Item, EventError>>> {
        loop {
            match self.decoder.next_item() {
                Err(error) => return Poll::Ready(Some(Err(EventError::Limit(error)))),
                Ok(Some(item)) => return Poll::Ready(Some(Ok(item))),
                Ok(None) => {}
            }
            if self.ended {
                return Poll::Ready(None);
            }
            if ready!(self.share.poll_hold(cx, self.decoder.held())).is_err() {
                return Poll::Ready(Some(Err(EventError::NoMemory)));
            }
            match ready!(Pin::new(&mut self.body).poll_frame(cx)) {
                None => self.ended = true,
                Some(Err(error)) => {
                    self.ended = true;
                    return Poll::Ready(Some(Err(EventError::Broken(chain(&error)))));
                }
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        self.shared
                            .counters
                            .bytes_received
                            .inc_by(data.len() as u64);
                        self.decoder.push(data);
                    }
                }
            }
        }
    }

    /// What is left to read, for a connection that is to be used again.
    pub(crate) fn into_rest(self) -> Option<Incoming> {
        (!self.ended).then_some(self.body)
    }
}

/// Reads the messages of a stream's events: `message` events that hold JSON-RPC. Anything else is
/// skipped, and said once per stream.
#[derive(Debug, Default)]
pub(crate) struct Reader {
    warned: bool,
}

impl Reader {
    /// The message or messages of an event; `None` if it holds none.
    pub(crate) fn read(&mut self, event: Event, shared: &Shared) -> Option<Payload> {
        if event.data.is_empty() {
            return None;
        }
        if !event.event_type.is_empty() && event.event_type != b"message"[..] {
            self.skipped(
                shared,
                "event type",
                "an event of another type",
                &event.event_type,
            );
            return None;
        }
        match parse(event.data.clone()) {
            Ok(payload) => Some(payload),
            Err(error) => {
                self.skipped(shared, "payload", &error.to_string(), &event.data);
                None
            }
        }
    }

    fn skipped(&mut self, shared: &Shared, reason: &'static str, why: &str, bytes: &Bytes) {
        shared.counters.bad_message(reason);
        if !std::mem::replace(&mut self.warned, true) {
            let quoted = String::from_utf8_lossy(&bytes[..bytes.len().min(QUOTED_BYTES)]);
            warn!(server = %shared.name, why, %quoted, "skipped an event that holds no message");
        }
    }
}

/// A message, or the batch that a 2025-03-26 server may put into one event.
fn parse(data: Bytes) -> Result<Payload, shadowcat_mcp::message::ParseError> {
    if data.first() == Some(&b'{') {
        return Message::parse(data).map(Payload::Single);
    }
    Payload::parse(data)
}
