//! Bytes to events: the WHATWG HTML standard, "Parsing an event stream" and "Interpreting an event
//! stream", exactly, at every chunking.
//!
//! Differences to the standard are additions: comments, reconnection times and blocks that carry
//! only an id come out as items of their own, the id that stands in an event's own block is told
//! apart from the persisted last event ID, and no line or event grows beyond its limit.
//!
//! A single-line event that lies in one chunk is a slice of that chunk: nothing is copied. The id
//! that persists from event to event is not kept here: it is the position of a
//! [cursor](crate::reconnect).

mod block;
mod chunk;

use std::fmt;
use std::time::Duration;

use block::{Block, Line};
use bytes::Bytes;
use chunk::{Chunk, Text, line_end};

const BOM: &[u8] = b"\xEF\xBB\xBF";

/// The most that is set aside for the rest of a line.
const MAX_AHEAD: usize = 256 * 1024;
/// The largest buffer that is kept while it is empty.
const MAX_KEPT: usize = 4 * 1024;

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
    /// What was pushed and not looked at.
    next: Bytes,
    chunk: Chunk,
    /// The part of a line that came in earlier chunks.
    partial: Vec<u8>,
    /// The last chunk ended with CR: a LF that comes next belongs to it.
    after_cr: bool,
    past_first_line: bool,
    block: Block,
    failed: Option<DecodeError>,
}

impl Decoder {
    /// A decoder for a new connection.
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        Self {
            block: Block::new(limits),
            ..Self::default()
        }
    }

    /// Adds the next bytes. Items of earlier bytes should have been taken: chunks that wait have
    /// to be copied together.
    #[inline]
    pub fn push(&mut self, chunk: Bytes) {
        self.next = if self.next.is_empty() {
            chunk
        } else {
            [&self.next[..], &chunk[..]].concat().into()
        };
    }

    /// Bytes held back for a line or an event that is not finished.
    #[must_use]
    pub fn held(&self) -> usize {
        self.partial.len() + self.block.held()
    }

    /// The next item, or `None` when more bytes are needed.
    ///
    /// # Errors
    /// [`DecodeError`] once a limit is passed, and at every call from then on.
    #[inline]
    pub fn next_item(&mut self) -> Result<Option<Item>, DecodeError> {
        // Most events are one line of data and a blank one, and short. What costs most in them is
        // to hand the item up from call to call: so it is made in place, inlined at the caller.
        if self.block.is_empty()
            && let Some(data) = self.chunk.pass_data(self.block.limits().event)
        {
            return Ok(Some(Item::Event(Event {
                data: self.chunk.slice(data),
                event_type: Bytes::new(),
                id: None,
            })));
        }
        self.advance()
    }

    /// The next item, whatever it is, line by line.
    #[inline(never)]
    fn advance(&mut self) -> Result<Option<Item>, DecodeError> {
        if let Some(error) = self.failed {
            return Err(error);
        }
        loop {
            if self.block.has_no_data()
                && let Some(data) = self.chunk.pass_data(self.block.limits().event)
            {
                return Ok(Some(self.block.event(self.chunk.slice(data))));
            }
            match self.next_line() {
                Ok(Line::Nothing) => {}
                Ok(Line::Comment) => return Ok(Some(Item::Comment)),
                Ok(Line::Retry(time)) => return Ok(Some(Item::Retry(time))),
                Ok(Line::Blank) => match self.block.finish() {
                    None => {}
                    item => return Ok(item),
                },
                Ok(Line::Unfinished) => return Ok(None),
                Err(error) => {
                    self.chunk = Chunk::default();
                    self.failed = Some(error);
                    return Err(error);
                }
            }
        }
    }

    /// Interprets the next whole line, or takes up the next chunk.
    fn next_line(&mut self) -> Result<Line, DecodeError> {
        if self.chunk.has_line() {
            if let Some(value) = self.chunk.data_line() {
                self.chunk.pass(value.end);
                self.block.add_data(self.chunk.text(value))?;
                return Ok(Line::Nothing);
            }
            let line = self.chunk.line();
            self.chunk.pass(line.end);
            return self.block.line(self.chunk.text(line));
        }
        if !self.chunk.is_empty() {
            let chunk = std::mem::take(&mut self.chunk);
            self.hold(chunk.rest())?;
        }
        if self.next.is_empty() {
            return Ok(Line::Unfinished);
        }
        self.open()
    }

    /// Takes up the next chunk. Its first bytes may end the line that is held.
    fn open(&mut self) -> Result<Line, DecodeError> {
        let bytes = std::mem::take(&mut self.next);
        let start = usize::from(self.after_cr && bytes.starts_with(b"\n"));
        self.after_cr = bytes.ends_with(b"\r");
        if self.partial.is_empty() {
            self.chunk = Chunk::new(bytes, start);
            if self.chunk.has_line() && !std::mem::replace(&mut self.past_first_line, true) {
                self.chunk.skip(BOM);
            }
            return Ok(Line::Nothing);
        }
        let rest = &bytes[start..];
        let Some(end) = line_end(rest) else {
            return self.hold(rest).map(|()| Line::Unfinished);
        };
        self.partial.extend_from_slice(&rest[..end]);
        self.chunk = Chunk::new(bytes, start + end);
        self.chunk.pass(start + end);
        self.held_line()
    }

    /// Interprets the line that was held.
    fn held_line(&mut self) -> Result<Line, DecodeError> {
        let bom = self.held_bom();
        self.past_first_line = true;
        if self.partial.capacity() <= MAX_KEPT {
            let line = self.block.line(Text::lent(&self.partial[bom..]));
            self.partial.clear();
            return line;
        }
        let line = taken(&mut self.partial).slice(bom..);
        self.block.line(Text::shared(&line))
    }

    /// Holds the beginning of a line, or more of it.
    fn hold(&mut self, part: &[u8]) -> Result<(), DecodeError> {
        // A line that was cut is likely to be long: to grow in large steps saves copies.
        if self.partial.capacity() - self.partial.len() < part.len() {
            let ahead = 8 * part.len().max(self.partial.len());
            self.partial.reserve(part.len() + ahead.min(MAX_AHEAD));
        }
        self.partial.extend_from_slice(part);
        self.block.check(&self.partial[self.held_bom()..])
    }

    /// Bytes of the BOM that the held line begins with.
    fn held_bom(&self) -> usize {
        let has_bom = !self.past_first_line && self.partial.starts_with(BOM);
        if has_bom { BOM.len() } else { 0 }
    }
}

/// What the buffer holds. A small buffer is kept for the next use.
fn taken(buffer: &mut Vec<u8>) -> Bytes {
    if buffer.capacity() > MAX_KEPT {
        return std::mem::take(buffer).into_boxed_slice().into();
    }
    let bytes = Bytes::copy_from_slice(buffer);
    buffer.clear();
    bytes
}

#[cfg(test)]
mod tests;
