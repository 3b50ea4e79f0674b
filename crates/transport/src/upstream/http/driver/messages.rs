//! The messages in a stream's events.

use std::collections::VecDeque;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use shadowcat_mcp::fault::Fault;
use shadowcat_mcp::message::{Message, Payload};
use shadowcat_sse::Event;
use shadowcat_sse::reconnect::{Finish, Kind};
use tracing::{debug, warn};

use super::super::Shared;
use super::{Driver, Next};
use crate::request_span::in_request;
use crate::upstream::{Item, Source};

/// How much of an unreadable event a warning quotes.
const QUOTED_BYTES: usize = 100;

/// A stream as a [`Source`] of messages.
pub(crate) struct Messages {
    driver: Box<Driver>,
    reader: Reader,
    /// The rest of a batch.
    pending: VecDeque<Message>,
    /// Whether somebody wanted a message of the event that is being given, and whether that was so
    /// before its last one.
    wanted: bool,
    wanted_before: bool,
    over: bool,
}

impl Messages {
    pub(crate) fn new(driver: Box<Driver>) -> Self {
        Self {
            driver,
            reader: Reader::default(),
            pending: VecDeque::new(),
            wanted: true,
            wanted_before: true,
            over: false,
        }
    }

    /// What all streams of the server share.
    pub(crate) fn shared(&self) -> &Shared {
        self.driver.shared()
    }

    /// The message that was given last is none that anybody wants: it does not make a connection
    /// productive.
    pub(crate) fn reject(&mut self) {
        self.wanted = self.wanted_before;
    }

    fn give(&mut self, message: Message) -> Poll<Option<Result<Item, Fault>>> {
        self.wanted_before = std::mem::replace(&mut self.wanted, true);
        Poll::Ready(Some(Ok(Item::Message(message))))
    }

    /// What the stream was for was given: nothing more comes, and nothing reconnects.
    pub(crate) fn done(&mut self) {
        self.pending.clear();
        self.over = true;
        self.driver.done();
    }
}

impl Source for Messages {
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Item, Fault>>> {
        loop {
            if let Some(message) = self.pending.pop_front() {
                return self.give(message);
            }
            if self.over {
                return Poll::Ready(None);
            }
            if !std::mem::replace(&mut self.wanted, true) {
                self.driver.skip();
            }
            match ready!(self.driver.poll_next(cx)) {
                Next::Event(event) => {
                    self.wanted = false;
                    match self.reader.read(event, self.driver.shared()) {
                        Read::Nothing => self.driver.take_nothing(),
                        Read::Unreadable => {}
                        Read::Messages(payload) if !self.driver.takes(&payload) => {}
                        Read::Messages(Payload::Single(message)) => return self.give(message),
                        Read::Messages(Payload::Batch(messages)) => self.pending.extend(messages),
                    }
                }
                Next::Gap(away) => return Poll::Ready(Some(Ok(Item::Gap(away)))),
                Next::Over(Finish::Failed(fault)) => {
                    self.over = true;
                    return Poll::Ready(Some(Err(self.driver.fault(&fault))));
                }
                // A subscription is a request: somebody waits for its end.
                Next::Parked if self.driver.kind() == Kind::Listen => {
                    self.over = true;
                    return Poll::Ready(Some(Err(self.driver.parked_fault())));
                }
                Next::Answer(message) => return self.give(message),
                Next::Over(_) | Next::Parked => self.over = true,
            }
        }
    }
}

/// What an event holds.
#[derive(Debug)]
pub(crate) enum Read {
    /// JSON-RPC.
    Messages(Payload),
    /// Nothing, and on purpose: its data is empty, or `{}`, which is what the TypeScript SDK stores
    /// for a priming event and its event stores replay.
    Nothing,
    /// Nothing that can be read.
    Unreadable,
}

/// Reads the messages of a stream's events: `message` events that hold JSON-RPC. Anything else is
/// skipped, and said once per stream if it looks like a mistake.
#[derive(Debug, Default)]
pub(crate) struct Reader {
    warned: bool,
}

impl Reader {
    /// What an event holds.
    pub(crate) fn read(&mut self, event: Event, shared: &Shared) -> Read {
        if event.data.is_empty() {
            return Read::Nothing;
        }
        if !event.event_type.is_empty() && event.event_type != b"message"[..] {
            self.skipped(
                shared,
                "event type",
                "an event of another type",
                &event.event_type,
            );
            return Read::Unreadable;
        }
        if event.data == b"{}"[..] {
            shared.counters.bad_message("empty object");
            debug!(server = %shared.name, "skipped an event that holds an empty object");
            return Read::Nothing;
        }
        match parse(event.data.clone()) {
            Ok(payload) => Read::Messages(payload),
            Err(error) => {
                self.skipped(shared, "payload", &error.to_string(), &event.data);
                Read::Unreadable
            }
        }
    }

    fn skipped(&mut self, shared: &Shared, reason: &'static str, why: &str, bytes: &Bytes) {
        shared.counters.bad_message(reason);
        if !std::mem::replace(&mut self.warned, true) {
            let quoted = String::from_utf8_lossy(&bytes[..bytes.len().min(QUOTED_BYTES)]);
            in_request(|| {
                warn!(server = %shared.name, why, %quoted, "skipped an event that holds no message");
            });
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
