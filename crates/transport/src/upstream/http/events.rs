//! One event-stream body and its items.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use super::client::Incoming;
use http_body::Body as _;
use shadowcat_sse::{DecodeError, Decoder, Item, Limits};

use super::Shared;
use super::budget::Share;
use super::counters::OpenStream;
use super::dial::chain;

/// An open body with its decoder.
pub(crate) struct EventBody {
    body: Incoming,
    decoder: Decoder,
    ended: bool,
    shared: Arc<Shared>,
    /// The memory that an unfinished event holds.
    share: Share,
    starved: bool,
    _open: OpenStream,
}

/// What ended a body.
#[derive(Debug)]
pub(crate) enum BodyEnd {
    /// The server, in order.
    Clean,
    /// The connection broke.
    Broken(String),
    /// No memory came free for an unfinished event.
    NoMemory,
    /// A line or an event is over its limit.
    TooLarge(DecodeError),
}

impl fmt::Display for BodyEnd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Clean => f.write_str("the server closed it"),
            Self::Broken(cause) => f.write_str(cause),
            Self::NoMemory => f.write_str("too many large messages are being read at once"),
            Self::TooLarge(limit) => limit.fmt(f),
        }
    }
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
            starved: false,
            _open: shared.counters.stream_opened(),
            shared,
            decoder: Decoder::new(limits),
            ended: false,
        }
    }

    /// The next item of what has arrived; `None` when more has to be read.
    pub(crate) fn next_item(&mut self) -> Result<Option<Item>, DecodeError> {
        self.decoder.next_item()
    }

    /// Reads on.
    pub(crate) fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BodyEnd>> {
        if self.ended {
            return Poll::Ready(Err(BodyEnd::Clean));
        }
        self.starved = true;
        if ready!(self.share.poll_hold(cx, self.decoder.held())).is_err() {
            return Poll::Ready(Err(BodyEnd::NoMemory));
        }
        self.starved = false;
        loop {
            match ready!(Pin::new(&mut self.body).poll_frame(cx)) {
                None => {
                    self.ended = true;
                    return Poll::Ready(Err(BodyEnd::Clean));
                }
                Some(Err(error)) => {
                    self.ended = true;
                    return Poll::Ready(Err(BodyEnd::Broken(chain(&error))));
                }
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        let counters = &self.shared.counters;
                        counters.bytes_received.inc_by(data.len() as u64);
                        self.decoder.push(data);
                        return Poll::Ready(Ok(()));
                    }
                }
            }
        }
    }

    /// Whether the last bytes belong to an event whose rest is to come.
    pub(crate) fn holds_part(&self) -> bool {
        self.decoder.held() > 0
    }

    /// Whether reading waits for memory of ours, not for the server.
    pub(crate) fn is_starved(&self) -> bool {
        self.starved
    }

    /// What is left to read, for a connection that is to be used again.
    pub(crate) fn into_rest(self) -> Option<Incoming> {
        (!self.ended).then_some(self.body)
    }
}
