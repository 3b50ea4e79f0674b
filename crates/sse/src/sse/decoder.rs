//! Bytes to events: the WHATWG HTML standard, "Parsing an event stream" and "Interpreting an event
//! stream", exactly, at every chunking.
//!
//! Differences to the standard are additions: comments, reconnection times and blocks that carry
//! only an id come out as items of their own, the id that stands in an event's own block is told
//! apart from the persisted last event ID, and no line or event grows beyond its limit.
//!
//! A single-line event that lies in one chunk is a slice of that chunk: nothing is copied.

use std::fmt;
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use memchr::{memchr, memchr2};

const BOM: &[u8] = b"\xEF\xBB\xBF";

/// How large things may get.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of one event's data.
    pub event: usize,
    /// Bytes of one line of any field but `data`, comments included.
    pub line: usize,
}

impl Default for Limits {
    /// 16 MiB an event, 1 MiB a line.
    fn default() -> Self {
        Self {
            event: 16 * 1024 * 1024,
            line: 1024 * 1024,
        }
    }
}

/// A dispatched event.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Event {
    /// The `event` field; empty means `message`.
    pub event_type: Bytes,
    /// The `data` fields, joined by LF.
    pub data: Bytes,
    /// The `id` field of this very block: `None` without one, `Some("")` for one that resets.
    pub id: Option<Bytes>,
}

/// What a stream brought.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Item {
    /// An event. One with empty data and an id is how MCP servers prime a stream.
    Event(Event),
    /// A block that set the id and dispatched nothing.
    IdOnly(Bytes),
    /// A reconnection time.
    Retry(Duration),
    /// A comment line.
    Comment,
}

/// A limit was passed. The decoder gives nothing more after it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DecodeError {
    /// An event's data is over [`Limits::event`].
    EventTooLarge {
        /// The limit in bytes.
        limit: usize,
    },
    /// A line is over [`Limits::line`].
    LineTooLarge {
        /// The limit in bytes.
        limit: usize,
    },
}

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::EventTooLarge { limit } => write!(f, "an event is larger than {limit} bytes"),
            Self::LineTooLarge { limit } => write!(f, "a line is longer than {limit} bytes"),
        }
    }
}

impl std::error::Error for DecodeError {}

/// Decodes one connection's bytes.
///
/// Feed it with [`push`](Self::push), then take items with [`next_item`](Self::next_item) until
/// there is none. At the end of the input drop it: what is unfinished is discarded, its id
/// included (WHATWG: "discard any incomplete event").
#[derive(Debug, Default)]
pub struct Decoder {
    limits: Limits,
    input: Bytes,
    /// The part of a line that came in earlier chunks.
    partial: BytesMut,
    /// The last line ended with CR: a LF that comes next belongs to it.
    after_cr: bool,
    past_first_line: bool,
    block: Block,
    last_event_id: Bytes,
    failed: Option<DecodeError>,
}

/// The block being read.
#[derive(Debug, Default)]
struct Block {
    data: Data,
    event_type: Bytes,
    id: Option<Bytes>,
}

#[derive(Debug, Default)]
enum Data {
    #[default]
    None,
    One(Bytes),
    Many(BytesMut),
}

impl Data {
    fn len(&self) -> usize {
        match self {
            Self::None => 0,
            Self::One(line) => line.len(),
            Self::Many(lines) => lines.len(),
        }
    }

    fn add(&mut self, line: Bytes) {
        *self = match std::mem::take(self) {
            Self::None => Self::One(line),
            Self::One(first) => {
                let mut lines = BytesMut::with_capacity(first.len() + line.len() + 64);
                lines.extend_from_slice(&first);
                Self::joined(lines, &line)
            }
            Self::Many(lines) => Self::joined(lines, &line),
        };
    }

    fn joined(mut lines: BytesMut, line: &[u8]) -> Self {
        lines.extend_from_slice(b"\n");
        lines.extend_from_slice(line);
        Self::Many(lines)
    }
}

impl Decoder {
    /// A decoder for a new connection.
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            ..Self::default()
        }
    }

    /// A decoder for a connection that continues an earlier one: the last event ID persists.
    #[must_use]
    pub fn resumed(limits: Limits, last_event_id: Bytes) -> Self {
        Self {
            limits,
            last_event_id,
            ..Self::default()
        }
    }

    /// Adds the next bytes. Items of earlier bytes should have been taken: what is left of them
    /// has to be copied together with the new.
    pub fn push(&mut self, chunk: Bytes) {
        if self.input.is_empty() {
            self.input = chunk;
        } else {
            let mut joined = BytesMut::with_capacity(self.input.len() + chunk.len());
            joined.extend_from_slice(&self.input);
            joined.extend_from_slice(&chunk);
            self.input = joined.freeze();
        }
    }

    /// The last event ID: what the last finished block left it at.
    #[must_use]
    pub fn last_event_id(&self) -> &Bytes {
        &self.last_event_id
    }

    /// Bytes held back for a line or an event that is not finished.
    #[must_use]
    pub fn held(&self) -> usize {
        self.partial.len() + self.block.data.len()
    }

    /// The next item, or `None` when more bytes are needed.
    ///
    /// # Errors
    /// [`DecodeError`] once a limit is passed, and at every call from then on.
    pub fn next_item(&mut self) -> Result<Option<Item>, DecodeError> {
        if let Some(error) = self.failed {
            return Err(error);
        }
        let next = self.advance();
        self.failed = next.as_ref().err().copied();
        next
    }

    fn advance(&mut self) -> Result<Option<Item>, DecodeError> {
        while let Some(line) = self.next_line()? {
            if let Some(item) = self.interpret(line)? {
                return Ok(Some(item));
            }
        }
        Ok(None)
    }

    /// The next whole line, without its end. A CR ends it at once; the LF that may belong to it is
    /// skipped when it comes.
    fn next_line(&mut self) -> Result<Option<Bytes>, DecodeError> {
        if self.after_cr && !self.input.is_empty() {
            self.after_cr = false;
            if self.input[0] == b'\n' {
                self.input.advance(1);
            }
        }
        let Some(end) = memchr2(b'\n', b'\r', &self.input) else {
            self.partial.extend_from_slice(&self.input);
            self.input = Bytes::new();
            return self.check_line(&self.partial).map(|()| None);
        };
        let mut line = self.input.split_to(end);
        self.after_cr = self.input[0] == b'\r';
        self.input.advance(1);
        if !self.partial.is_empty() {
            self.partial.extend_from_slice(&line);
            line = std::mem::take(&mut self.partial).freeze();
        }
        self.check_line(&line)?;
        if !std::mem::replace(&mut self.past_first_line, true) && line.starts_with(BOM) {
            line.advance(BOM.len());
        }
        Ok(Some(line))
    }

    /// A line of data counts toward its event, any other against the line limit.
    fn check_line(&self, line: &[u8]) -> Result<(), DecodeError> {
        let is_data = line.starts_with(b"data:") || line.starts_with(b"\xEF\xBB\xBFdata:");
        let Limits { event, line: limit } = self.limits;
        if is_data && self.block.data.len() + line.len() > event + b"data: ".len() {
            Err(DecodeError::EventTooLarge { limit: event })
        } else if !is_data && line.len() > limit {
            Err(DecodeError::LineTooLarge { limit })
        } else {
            Ok(())
        }
    }

    fn interpret(&mut self, mut line: Bytes) -> Result<Option<Item>, DecodeError> {
        if line.is_empty() {
            return Ok(self.dispatch());
        }
        let name = match memchr(b':', &line) {
            Some(0) => return Ok(Some(Item::Comment)),
            Some(colon) => {
                let name = line.split_to(colon);
                line.advance(if line.get(1) == Some(&b' ') { 2 } else { 1 });
                name
            }
            None => std::mem::take(&mut line),
        };
        match name.as_ref() {
            b"data" => {
                self.block.data.add(decoded(line));
                if self.block.data.len() > self.limits.event {
                    return Err(DecodeError::EventTooLarge {
                        limit: self.limits.event,
                    });
                }
            }
            b"event" => self.block.event_type = decoded(line),
            b"id" if memchr(0, &line).is_none() => self.block.id = Some(decoded(line)),
            b"retry" => return Ok(reconnection_time(&line).map(Item::Retry)),
            _ => {}
        }
        Ok(None)
    }

    /// A blank line: the block is over.
    fn dispatch(&mut self) -> Option<Item> {
        let block = std::mem::take(&mut self.block);
        if let Some(id) = &block.id {
            self.last_event_id = id.clone();
        }
        let data = match block.data {
            Data::None => return block.id.map(Item::IdOnly),
            Data::One(line) => line,
            Data::Many(lines) => lines.freeze(),
        };
        Some(Item::Event(Event {
            event_type: block.event_type,
            data,
            id: block.id,
        }))
    }
}

/// UTF-8 with replacement. Decoding line by line is the same as decoding the stream: CR and LF
/// never stand inside a sequence.
fn decoded(value: Bytes) -> Bytes {
    if simdutf8::basic::from_utf8(&value).is_ok() {
        return value;
    }
    Bytes::from(String::from_utf8_lossy(&value).into_owned())
}

/// Only ASCII digits, at least one; saturating.
fn reconnection_time(value: &[u8]) -> Option<Duration> {
    if value.is_empty() || !value.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let millis = value.iter().fold(0_u64, |millis, digit| {
        millis
            .saturating_mul(10)
            .saturating_add(u64::from(digit - b'0'))
    });
    Some(Duration::from_millis(millis))
}

#[cfg(test)]
mod tests;
