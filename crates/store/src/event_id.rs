//! The ids that Shadowcat gives to events: `<stream>-<sequence>`.

use std::fmt::{self, Write as _};
use std::str::FromStr;

/// Numbers the streams of a session: 0 is the standalone stream, the others belong to one exchange
/// each. Never reused within a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StreamNumber(pub u64);

impl StreamNumber {
    /// The stream of messages that belong to no request.
    pub const STANDALONE: Self = Self(0);
}

/// A position in one stream of a session: after its `sequence`th record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct EventId {
    /// The stream.
    pub stream: StreamNumber,
    /// The record, counted from 1; 0 is the position before the first.
    pub sequence: u64,
}

impl EventId {
    /// The position before the stream's first record.
    #[must_use]
    pub fn start(stream: StreamNumber) -> Self {
        Self {
            stream,
            sequence: 0,
        }
    }
}

impl fmt::Display for EventId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut number = itoa::Buffer::new();
        f.write_str(number.format(self.stream.0))?;
        f.write_char('-')?;
        f.write_str(number.format(self.sequence))
    }
}

/// Not an id of ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not an event id of this proxy")]
pub struct ParseEventIdError;

impl FromStr for EventId {
    type Err = ParseEventIdError;

    /// Accepts exactly what [`fmt::Display`] prints, so that two spellings never mean one event.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (stream, sequence) = text.split_once('-').ok_or(ParseEventIdError)?;
        Ok(Self {
            stream: StreamNumber(number(stream)?),
            sequence: number(sequence)?,
        })
    }
}

fn number(digits: &str) -> Result<u64, ParseEventIdError> {
    let canonical = !digits.is_empty()
        && digits.bytes().all(|byte| byte.is_ascii_digit())
        && (digits.len() == 1 || !digits.starts_with('0'));
    if canonical {
        digits.parse().map_err(|_| ParseEventIdError)
    } else {
        Err(ParseEventIdError)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn only_the_canonical_spelling_is_read() {
        for bad in [
            "", "-", "1", "1-", "-1", "01-1", "1-01", "+1-1", "1-1 ", "1-1-1", "a-1",
        ] {
            assert_eq!(bad.parse::<EventId>(), Err(ParseEventIdError), "{bad}");
        }
        assert!("0-0".parse::<EventId>().is_ok());
    }

    proptest! {
        #[test]
        fn an_id_survives_its_spelling(stream: u64, sequence: u64) {
            let id = EventId { stream: StreamNumber(stream), sequence };
            prop_assert_eq!(id.to_string().parse::<EventId>(), Ok(id));
        }
    }
}
