//! The corpora of the decoder's benches, and the four decoders under one face.
//!
//! A package of its own, so that the other crates stay out of what is published. Every decoder gets
//! the same chunks as they would come from a socket, and what it gives is counted, so that none
//! is fast by leaving something out (the tests compare).

use std::convert::Infallible;
use std::pin::pin;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use eventsource_stream::Eventsource as _;
use futures_util::Stream;
use futures_util::stream;
use shadowcat_sse::{Decoder, Item, Limits};

/// Bytes of one corpus.
const SIZE: usize = 1024 * 1024;

/// A stream of events of one form.
#[derive(Debug)]
pub struct Corpus {
    /// Its name in reports.
    pub name: &'static str,
    /// The whole.
    pub text: Bytes,
    /// How many events it holds.
    pub events: usize,
}

/// All corpora: 1 MiB each of short, middle, large and multi-line events.
#[must_use]
pub fn corpora() -> Vec<Corpus> {
    let json = |bytes: usize| {
        let text = "The quick brown fox — ünïcödé. ".repeat(bytes / 30 + 1);
        let cut = text
            .char_indices()
            .map(|(at, _)| at)
            .take_while(|at| *at <= bytes);
        text[..cut.last().unwrap_or(0)].to_owned()
    };
    let single = |bytes: usize| {
        let data = json(bytes);
        move |number: usize| format!("id: 1-{number}\nevent: message\ndata: {data}\n\n")
    };
    let lines = |number: usize| {
        format!(
            "id: {number}\n: comment\ndata: one line of several\ndata: another\ndata\ndata: x\n\n"
        )
    };
    vec![
        corpus("200 B", single(200)),
        corpus("40 B", |number| {
            format!("data: {{\"number\":{number:020}}}\n\n")
        }),
        corpus("64 KiB", single(64 * 1024)),
        corpus("multi-line", lines),
    ]
}

fn corpus(name: &'static str, event: impl Fn(usize) -> String) -> Corpus {
    let (mut text, mut events) = (String::new(), 0);
    while text.len() < SIZE {
        events += 1;
        text += &event(events);
    }
    Corpus {
        name,
        text: text.into(),
        events,
    }
}

/// The corpus in pieces of so many bytes.
#[must_use]
pub fn chunks(text: &Bytes, size: usize) -> Vec<Bytes> {
    (0..text.len())
        .step_by(size)
        .map(|start| text.slice(start..text.len().min(start + size)))
        .collect()
}

/// What a decoder gave: events, and bytes of data in all.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Given {
    /// Events.
    pub events: usize,
    /// Bytes of their data.
    pub data: usize,
}

impl Given {
    fn add(&mut self, data: usize) {
        self.events += 1;
        self.data += data;
    }
}

/// This project's decoder.
#[must_use]
pub fn shadowcat(chunks: &[Bytes]) -> Given {
    let mut given = Given::default();
    let mut decoder = Decoder::new(Limits::default());
    for chunk in chunks {
        decoder.push(chunk.clone());
        while let Ok(Some(item)) = decoder.next_item() {
            if let Item::Event(event) = item {
                given.add(event.data.len());
            }
        }
    }
    given
}

/// Crate `sse-stream`.
#[must_use]
pub fn sse_stream(chunks: &[Bytes]) -> Given {
    let events = sse_stream::SseByteStream::new(source(chunks));
    drain(events, |event| event.data.map(|data| data.len()))
}

/// Crate `sseer`.
#[must_use]
pub fn sseer(chunks: &[Bytes]) -> Given {
    let events = sseer::event_stream::EventStream::new(source(chunks));
    drain(events, |event| Some(event.data.len()))
}

/// Crate `eventsource-stream`.
#[must_use]
pub fn eventsource_stream(chunks: &[Bytes]) -> Given {
    drain(source(chunks).eventsource(), |event| Some(event.data.len()))
}

fn source(chunks: &[Bytes]) -> impl Stream<Item = Result<Bytes, Infallible>> + '_ {
    stream::iter(chunks.iter().cloned().map(Ok))
}

fn drain<T, E>(
    events: impl Stream<Item = Result<T, E>>,
    data: impl Fn(T) -> Option<usize>,
) -> Given {
    let mut given = Given::default();
    let mut events = pin!(events);
    let mut context = Context::from_waker(Waker::noop());
    while let Poll::Ready(Some(Ok(event))) = events.as_mut().poll_next(&mut context) {
        if let Some(bytes) = data(event) {
            given.add(bytes);
        }
    }
    given
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_decoders_give_the_same() {
        for corpus in corpora() {
            for size in [1400, 16 * 1024] {
                let chunks = chunks(&corpus.text, size);
                let ours = shadowcat(&chunks);
                assert_eq!(ours.events, corpus.events, "{}", corpus.name);
                let (name, others) = (corpus.name, [sse_stream, sseer, eventsource_stream]);
                for (number, other) in others.into_iter().enumerate() {
                    assert_eq!(other(&chunks), ours, "{name} in {size}: decoder {number}");
                }
            }
        }
    }

    #[test]
    fn a_single_line_event_in_one_chunk_costs_no_allocation() {
        for corpus in corpora()
            .iter()
            .filter(|corpus| corpus.name != "multi-line")
        {
            let chunk = [corpus.text.clone()];
            let allocated = allocation_counter::measure(|| {
                assert_eq!(shadowcat(&chunk).events, corpus.events);
            });
            let (count, events) = (allocated.count_total, corpus.events);
            assert!(count < 16, "{}: {count} for {events} events", corpus.name);
        }
    }
}
