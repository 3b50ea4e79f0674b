//! The corpora of the decoder's benches, and the four decoders under one face.
//!
//! A package of its own, so that the other crates stay out of what is published. What is done so
//! that the comparison is fair:
//!
//! - Every decoder is a `Stream` over the same stream of chunks. That is all that the others have;
//!   ours, which knows no streams, is wrapped in one, and pays for it.
//! - Chunks are parts of one buffer with a shared count, as a socket's reader gives them. To keep
//!   them is cheap for ours and `sseer`, and the others copy: that is their design.
//! - All check UTF-8, and all give the data, id and type of each event as values that the caller
//!   owns. Nothing is kept: to free an event is part of its price.
//! - What comes out is counted, and the tests compare: nobody is fast by leaving something out. Ours
//!   gives comments besides.
//! - `sse-stream` has its SIMD features on, which are its default.

use std::convert::Infallible;
use std::hint::black_box;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker, ready};
use std::time::{Duration, Instant};

use bytes::Bytes;
use eventsource_stream::Eventsource as _;
use futures_util::stream::{self, Stream, StreamExt as _};
use shadowcat_sse::{DecodeError, Decoder, Event, Item, Limits};

/// Bytes of one corpus.
const SIZE: usize = 256 * 1024;

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

/// All corpora: 256 KiB each of short, middle, large and multi-line events.
#[must_use]
pub fn corpora() -> Vec<Corpus> {
    const WORDS: &str = "The quick brown fox — ünïcödé. ";
    const ASCII: &str = "The quick brown fox -- unicode. ";
    let single = |bytes: usize, words: &str, end: &'static str| {
        let data = text(bytes, words);
        move |number: usize| format!("id: 1-{number}{end}event: message{end}data: {data}{end}{end}")
    };
    let short = |number: usize| format!("data: {{\"number\":{number:020}}}\n\n");
    let lines = |number: usize| {
        format!(
            "id: {number}\n: comment\ndata: one line of several\ndata: another\ndata\ndata: x\n\n"
        )
    };
    vec![
        corpus("200 B", single(200, WORDS, "\n")),
        corpus("200 B ASCII", single(200, ASCII, "\n")),
        corpus("200 B CRLF", single(200, WORDS, "\r\n")),
        corpus("40 B", short),
        corpus("64 KiB", single(64 * 1024, WORDS, "\n")),
        corpus("multi-line", lines),
    ]
}

/// At most so many bytes of the words, again and again.
fn text(bytes: usize, words: &str) -> String {
    let text = words.repeat(bytes / words.len() + 1);
    let ends = text.char_indices().map(|(at, _)| at);
    let end = ends.take_while(|at| *at <= bytes).last();
    text[..end.unwrap_or(0)].to_owned()
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

/// What a decoder gave: events, and bytes of their data and ids in all.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Given {
    /// Events.
    pub events: usize,
    /// Bytes of their data.
    pub data: usize,
    /// Bytes of their ids.
    pub ids: usize,
}

/// A decoder: the chunks in, what it gave out.
pub type Decode = fn(&[Bytes]) -> Given;

/// This project's decoder and the others, each under its crate's name.
pub const DECODERS: [(&str, Decode); 4] = [
    ("shadowcat-sse", shadowcat),
    ("sse-stream", sse_stream),
    ("sseer", sseer),
    ("eventsource-stream", eventsource_stream),
];

/// This project's decoder.
#[must_use]
pub fn shadowcat(chunks: &[Bytes]) -> Given {
    let events = Shadowcat {
        chunks: source(chunks),
        decoder: Decoder::new(Limits::default()),
    };
    drain(events, |event| {
        Some((event.data.len(), event.id.as_ref().map_or(0, Bytes::len)))
    })
}

/// Crate `sse-stream`.
#[must_use]
pub fn sse_stream(chunks: &[Bytes]) -> Given {
    let events = sse_stream::SseByteStream::new(source(chunks));
    drain(events, |event| {
        let data = event.data.as_ref()?.len();
        Some((data, event.id.as_ref().map_or(0, String::len)))
    })
}

/// Crate `sseer`.
#[must_use]
pub fn sseer(chunks: &[Bytes]) -> Given {
    let events = sseer::event_stream::EventStream::new(source(chunks));
    drain(events, |event| Some((event.data.len(), event.id.len())))
}

/// Crate `eventsource-stream`.
#[must_use]
pub fn eventsource_stream(chunks: &[Bytes]) -> Given {
    drain(source(chunks).eventsource(), |event| {
        Some((event.data.len(), event.id.len()))
    })
}

fn source(chunks: &[Bytes]) -> impl Stream<Item = Result<Bytes, Infallible>> + Unpin + '_ {
    stream::iter(chunks.iter().cloned().map(Ok))
}

/// Our decoder has no stream of its own; the others have nothing else.
struct Shadowcat<S> {
    chunks: S,
    decoder: Decoder,
}

impl<S: Stream<Item = Result<Bytes, Infallible>> + Unpin> Stream for Shadowcat<S> {
    type Item = Result<Event, DecodeError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            match self.decoder.next_item() {
                Ok(Some(Item::Event(event))) => return Poll::Ready(Some(Ok(event))),
                Ok(Some(_)) => {}
                Ok(None) => match ready!(self.chunks.poll_next_unpin(cx)) {
                    Some(Ok(chunk)) => self.decoder.push(chunk),
                    None => return Poll::Ready(None),
                },
                Err(error) => return Poll::Ready(Some(Err(error))),
            }
        }
    }
}

/// Takes every event, as a program would that keeps none.
fn drain<T, E>(
    events: impl Stream<Item = Result<T, E>>,
    sizes: impl Fn(&T) -> Option<(usize, usize)>,
) -> Given {
    let mut given = Given::default();
    let mut events = pin!(events);
    let mut context = Context::from_waker(Waker::noop());
    while let Poll::Ready(Some(Ok(event))) = events.as_mut().poll_next(&mut context) {
        if let Some((data, id)) = sizes(black_box(&event)) {
            given.events += 1;
            given.data += data;
            given.ids += id;
        }
    }
    given
}

/// Seconds of the fastest pass of a window: what else the machine does only ever adds.
pub fn fastest(window: Duration, mut pass: impl FnMut()) -> f64 {
    let began = Instant::now();
    let mut fastest = f64::INFINITY;
    while began.elapsed() < window {
        let before = Instant::now();
        pass();
        fastest = fastest.min(before.elapsed().as_secs_f64());
    }
    fastest
}

/// Whether this is `cargo bench`, and not a test that every target runs.
#[must_use]
pub fn is_bench() -> bool {
    std::env::args().any(|argument| argument == "--bench")
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
