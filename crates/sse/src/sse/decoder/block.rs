//! The block being read: the standard's buffers for data, event type and id.

use std::time::Duration;

use bytes::Bytes;

use super::chunk::Text;
use super::{DecodeError, Event, Item, Limits, taken};

/// What came next.
#[derive(Debug)]
pub(super) enum Line {
    /// Nothing that has to be told: a field of the block, or one that nobody knows.
    Nothing,
    Comment,
    Retry(Duration),
    /// The block is over.
    Blank,
    /// No whole line.
    Unfinished,
}

/// A block as far as it was read.
#[derive(Debug, Default)]
pub(super) struct Block {
    limits: Limits,
    lines: Lines,
    /// The data, while it is one line.
    line: Bytes,
    /// The data, once it is more than one line.
    joined: Vec<u8>,
    event_type: EventType,
    id: Option<Bytes>,
}

#[derive(Debug, Default)]
enum EventType {
    #[default]
    None,
    /// What nearly every event with a type has. It needs no share of the chunk.
    Message,
    Other(Bytes),
}

impl EventType {
    fn len(&self) -> usize {
        match self {
            Self::None => 0,
            Self::Message => b"message".len(),
            Self::Other(event_type) => event_type.len(),
        }
    }
}

impl From<EventType> for Bytes {
    fn from(event_type: EventType) -> Self {
        match event_type {
            EventType::None => Self::new(),
            EventType::Message => Self::from_static(b"message"),
            EventType::Other(event_type) => event_type,
        }
    }
}

/// How many lines of data there are.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Lines {
    #[default]
    None,
    One,
    Many,
}

impl Block {
    pub(super) fn new(limits: Limits) -> Self {
        Self {
            limits,
            ..Self::default()
        }
    }

    #[inline]
    pub(super) fn limits(&self) -> Limits {
        self.limits
    }

    /// Whether no line of it was read.
    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.has_no_data() && self.id.is_none() && matches!(self.event_type, EventType::None)
    }

    #[inline]
    pub(super) fn has_no_data(&self) -> bool {
        self.lines == Lines::None
    }

    fn data_len(&self) -> usize {
        self.line.len() + self.joined.len()
    }

    /// Bytes of its fields.
    pub(super) fn held(&self) -> usize {
        let id = self.id.as_ref().map_or(0, Bytes::len);
        self.data_len() + id + self.event_type.len()
    }

    /// Interprets a line.
    pub(super) fn line(&mut self, line: Text<'_>) -> Result<Line, DecodeError> {
        let Some(first) = line.raw().first() else {
            return Ok(Line::Blank);
        };
        self.check(line.raw())?;
        if *first == b':' {
            return Ok(Line::Comment);
        }
        if let Some(value) = line.value_of(b"data") {
            self.add_data(value)?;
        } else if let Some(value) = line.value_of(b"id") {
            if !value.raw().contains(&0) {
                self.id = Some(value.decode());
            }
        } else if let Some(value) = line.value_of(b"event") {
            self.event_type = match value.raw() {
                b"" => EventType::None,
                b"message" => EventType::Message,
                _ => EventType::Other(value.decode()),
            };
        } else if let Some(value) = line.value_of(b"retry")
            && let Some(time) = reconnection_time(value.raw())
        {
            return Ok(Line::Retry(time));
        }
        Ok(Line::Nothing)
    }

    /// Checks a line, or the beginning of one. A line of data counts toward its event, any other
    /// against the line limit.
    pub(super) fn check(&self, line: &[u8]) -> Result<(), DecodeError> {
        let Limits { event, line: limit } = self.limits;
        let is_data = line.starts_with(b"data:");
        if is_data && self.data_len() + line.len() > event + b"data: ".len() {
            Err(DecodeError::EventTooLarge { limit: event })
        } else if !is_data && line.len() > limit {
            Err(DecodeError::LineTooLarge { limit })
        } else {
            Ok(())
        }
    }

    /// Adds a line of data.
    pub(super) fn add_data(&mut self, value: Text<'_>) -> Result<(), DecodeError> {
        if self.lines == Lines::None {
            self.lines = Lines::One;
            self.line = value.decode();
        } else {
            if self.lines == Lines::One {
                self.lines = Lines::Many;
                self.joined.extend_from_slice(&self.line);
                self.line = Bytes::new();
            }
            self.joined.push(b'\n');
            value.decode_into(&mut self.joined);
        }
        if self.data_len() > self.limits.event {
            return Err(DecodeError::EventTooLarge {
                limit: self.limits.event,
            });
        }
        Ok(())
    }

    /// Ends the block.
    pub(super) fn finish(&mut self) -> Option<Item> {
        let data = match std::mem::take(&mut self.lines) {
            Lines::None => {
                self.event_type = EventType::None;
                return self.id.take().map(Item::IdOnly);
            }
            Lines::One => std::mem::take(&mut self.line),
            Lines::Many => taken(&mut self.joined),
        };
        Some(self.event(data))
    }

    /// Ends the block with this data.
    #[inline]
    pub(super) fn event(&mut self, data: Bytes) -> Item {
        Item::Event(Event {
            data,
            event_type: std::mem::take(&mut self.event_type).into(),
            id: self.id.take(),
        })
    }
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
