//! Events to bytes.
//!
//! The inverse of the [`decoder`](super::decoder). A value that could end its own line (CR, LF) or
//! void the id (NUL) is refused where the format has no way to carry it; `data` is split over as
//! many fields as it has lines.

use std::fmt;
use std::time::Duration;

use bytes::{BufMut, BytesMut};
use memchr::memchr2;

/// Why an event cannot be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EncodeError {
    /// CR, LF or NUL in an id.
    Id,
    /// CR, LF or NUL in an event type.
    EventType,
}

impl fmt::Display for EncodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = match self {
            Self::Id => "an event id",
            Self::EventType => "an event type",
        };
        write!(f, "{what} must not contain CR, LF or NUL")
    }
}

impl std::error::Error for EncodeError {}

/// Writes one event. Nothing is written on an error.
///
/// # Errors
/// [`EncodeError`] when `id` or `event_type` holds CR, LF or NUL.
pub fn event(
    out: &mut BytesMut,
    event_type: Option<&str>,
    id: Option<&str>,
    data: &[u8],
) -> Result<(), EncodeError> {
    if event_type.is_some_and(breaks_out) {
        return Err(EncodeError::EventType);
    }
    if id.is_some_and(breaks_out) {
        return Err(EncodeError::Id);
    }
    out.reserve(data.len() + 48);
    if let Some(event_type) = event_type {
        field(out, b"event: ", event_type.as_bytes());
    }
    if let Some(id) = id {
        field(out, b"id: ", id.as_bytes());
    }
    let mut rest = data;
    while let Some(end) = memchr2(b'\n', b'\r', rest) {
        field(out, b"data: ", &rest[..end]);
        let crlf = rest[end] == b'\r' && rest.get(end + 1) == Some(&b'\n');
        rest = &rest[end + 1 + usize::from(crlf)..];
    }
    field(out, b"data: ", rest);
    out.put_u8(b'\n');
    Ok(())
}

/// Writes a comment line, which keeps a connection from looking dead. Line ends in `text` start
/// another comment line.
pub fn comment(out: &mut BytesMut, text: &str) {
    for line in text.split(['\n', '\r']) {
        field(out, b": ", line.as_bytes());
    }
    out.put_u8(b'\n');
}

/// Writes the opening of a stream that can be resumed before its first message: an event with an
/// id and empty data, and the reconnection time (MCP 2025-11-25, Streamable HTTP).
///
/// # Errors
/// [`EncodeError::Id`] as for [`event`].
pub fn priming(out: &mut BytesMut, id: &str, retry: Duration) -> Result<(), EncodeError> {
    if breaks_out(id) {
        return Err(EncodeError::Id);
    }
    // Room for a first event, too.
    out.reserve(256);
    field(out, b"id: ", id.as_bytes());
    field(out, b"retry: ", retry.as_millis().to_string().as_bytes());
    out.put_slice(b"data: \n\n");
    Ok(())
}

fn field(out: &mut BytesMut, name: &[u8], value: &[u8]) {
    out.put_slice(name);
    out.put_slice(value);
    out.put_u8(b'\n');
}

fn breaks_out(value: &str) -> bool {
    value.bytes().any(|byte| matches!(byte, b'\r' | b'\n' | 0))
}

#[cfg(test)]
mod tests {
    use super::super::decoder::{Decoder, Item, Limits};
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn an_id_or_a_type_cannot_inject() {
        let mut out = BytesMut::new();
        for bad in ["a\nb", "a\rb", "a\0b", "\n"] {
            assert_eq!(event(&mut out, None, Some(bad), b""), Err(EncodeError::Id));
            assert_eq!(
                event(&mut out, Some(bad), None, b""),
                Err(EncodeError::EventType)
            );
            assert_eq!(priming(&mut out, bad, Duration::ZERO), Err(EncodeError::Id));
        }
        assert!(out.is_empty());
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(
            id in proptest::option::of("[^\r\n\0]{1,9}"),
            event_type in proptest::option::of("[^\r\n\0]{1,9}"),
            data in ".{0,20}(\n.{0,20}){0,3}",
        ) {
            prop_assume!(!data.contains('\r'));
            let mut out = BytesMut::new();
            event(&mut out, event_type.as_deref(), id.as_deref(), data.as_bytes()).unwrap();
            let mut decoder = Decoder::new(Limits::default());
            decoder.push(out.freeze());
            let Some(Item::Event(read)) = decoder.next_item().unwrap() else { panic!("no event") };
            prop_assert_eq!(read.data.as_ref(), data.as_bytes());
            let read_id = read.id.as_ref().map(|id| id.as_ref().to_vec());
            prop_assert_eq!(read_id, id.map(String::into_bytes));
            let read_type = std::str::from_utf8(&read.event_type).unwrap().to_owned();
            prop_assert_eq!(read_type, event_type.unwrap_or_default());
        }

        #[test]
        fn a_comment_is_never_an_event(text: String) {
            let mut out = BytesMut::new();
            comment(&mut out, &text);
            let mut decoder = Decoder::new(Limits::default());
            decoder.push(out.freeze());
            while let Some(item) = decoder.next_item().unwrap() {
                prop_assert!(matches!(item, Item::Comment));
            }
        }
    }
}
