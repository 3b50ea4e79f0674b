//! Any split of the bytes gives the same items, and the items are those that a straightforward
//! reading of the WHATWG HTML standard gives.
//!
//! Input: one byte for the sizes of the chunks, one for the limits, then the stream.

#![no_main]

use std::time::Duration;

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use shadowcat_sse::{DecodeError, Decoder, Event, Item, Limits};

fuzz_target!(|data: &[u8]| {
    let [sizes, limits, stream @ ..] = data else {
        return;
    };
    let limits = match limits % 4 {
        0 => Limits {
            event: 64,
            line: 64,
        },
        _ => Limits::default(),
    };
    let whole = decode([stream], limits);
    assert_eq!(decode(stream.chunks(1), limits), whole, "byte by byte");
    assert_eq!(decode(chunks(stream, *sizes), limits), whole, "in chunks");
    if let (items, None) = whole {
        assert_eq!(items, by_the_book(stream));
    }
});

type Decoded = (Vec<Item>, Option<DecodeError>);

fn decode<'a>(chunks: impl IntoIterator<Item = &'a [u8]>, limits: Limits) -> Decoded {
    let mut decoder = Decoder::new(limits);
    let mut items = Vec::new();
    for chunk in chunks {
        decoder.push(Bytes::copy_from_slice(chunk));
        loop {
            match decoder.next_item() {
                Ok(Some(item)) => items.push(item),
                Ok(None) => break,
                Err(error) => return (items, Some(error)),
            }
        }
        // An id and a type each come on a line, and are thrice that where it is no UTF-8.
        let held = decoder.held();
        assert!(
            held <= limits.event + 7 * limits.line + 16,
            "holds {held} bytes"
        );
    }
    (items, None)
}

/// Chunks of 1 to 16 bytes, a new size each.
fn chunks(stream: &[u8], mut sizes: u8) -> Vec<&[u8]> {
    let mut chunks = Vec::new();
    let mut rest = stream;
    while !rest.is_empty() {
        sizes = sizes.wrapping_mul(29).wrapping_add(17);
        let (chunk, tail) = rest.split_at(rest.len().min(1 + usize::from(sizes >> 4)));
        chunks.push(chunk);
        rest = tail;
    }
    chunks
}

/// "Parsing an event stream" and "Interpreting an event stream", without a thought for speed.
fn by_the_book(stream: &[u8]) -> Vec<Item> {
    let text = String::from_utf8_lossy(stream).into_owned();
    let text = text.strip_prefix('\u{FEFF}').unwrap_or(&text);
    let text = text.replace("\r\n", "\n").replace('\r', "\n");
    let mut lines: Vec<&str> = text.split('\n').collect();
    lines.pop();

    let mut items = Vec::new();
    let (mut data, mut event_type, mut id) = (None::<String>, String::new(), None::<String>);
    for line in lines {
        if line.is_empty() {
            let (data, event_type, id) = (data.take(), std::mem::take(&mut event_type), id.take());
            match (data, id) {
                (Some(data), id) => items.push(Item::Event(Event {
                    event_type: event_type.into(),
                    data: data.into(),
                    id: id.map(Into::into),
                })),
                (None, Some(id)) => items.push(Item::IdOnly(id.into())),
                (None, None) => {}
            }
            continue;
        }
        let (name, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match name {
            "" if line.starts_with(':') => items.push(Item::Comment),
            "data" => {
                data = Some(match data {
                    Some(before) => before + "\n" + value,
                    None => value.to_owned(),
                });
            }
            "event" => event_type = value.to_owned(),
            "id" if !value.contains('\0') => id = Some(value.to_owned()),
            "retry" if !value.is_empty() && value.bytes().all(|b| b.is_ascii_digit()) => {
                let millis = value.parse().unwrap_or(u64::MAX);
                items.push(Item::Retry(Duration::from_millis(millis)));
            }
            _ => {}
        }
    }
    items
}
