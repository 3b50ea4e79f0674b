//! What an undisturbed stream pays for the reconnection engine, as a table: each event arrives in
//! a chunk of its own, once through the decoder alone and once through decoder and engine, with all
//! that the engine is told and asked on the way: the bytes, the item, that it was accepted, and how
//! long the silence may last.

use std::error::Error;
use std::hint::black_box;
use std::io::{self, Write};
use std::task::Waker;
use std::time::{Duration, Instant};

use bytes::Bytes;
use shadowcat_benches::{corpora, fastest, is_bench};
use shadowcat_sse::reconnect::{Engine, Input, Kind, Origin, Policy, Unexpected, Verdict};
use shadowcat_sse::{Decoder, Item, Limits};

const WINDOW: Duration = Duration::from_millis(500);

fn main() -> Result<(), Box<dyn Error>> {
    if !is_bench() {
        return Ok(());
    }
    let mut out = io::stdout().lock();
    writeln!(
        out,
        "| events | added by the engine, ns | decoder alone, ns | both, ns | both, slowest of 100, ns |"
    )?;
    writeln!(out, "|---|---|---|---|---|")?;
    for corpus in corpora() {
        let size = corpus.text.len() / corpus.events;
        let events: Vec<Bytes> = split(&corpus.text);
        let per_event = |seconds: f64| seconds * 1e9 / events.len() as f64;
        let alone = per_event(fastest(WINDOW, || decode(&events)));
        let mut failed = None;
        let both = per_event(fastest(WINDOW, || {
            failed = follow(&events, |_| {}).err().or(failed.take());
        }));
        let mut times = Vec::new();
        while times.len() < 20_000 {
            follow(&events, |time| times.push(time))?;
        }
        if let Some(failed) = failed {
            return Err(failed.into());
        }
        times.sort_unstable();
        let slow = times[times.len() * 99 / 100].as_nanos();
        writeln!(
            out,
            "| {} ({size} B) | {:.0} | {alone:.0} | {both:.0} | {slow} |",
            corpus.name,
            both - alone
        )?;
    }
    Ok(())
}

/// Each event as it would arrive: alone.
fn split(text: &Bytes) -> Vec<Bytes> {
    let crlf = text.windows(4).any(|bytes| bytes == b"\r\n\r\n");
    let blank: &[u8] = if crlf { b"\r\n\r\n" } else { b"\n\n" };
    let ends = text.windows(blank.len()).enumerate();
    let ends = ends.filter(|(_, bytes)| *bytes == blank);
    let mut start = 0;
    ends.map(|(at, _)| {
        let end = at + blank.len();
        text.slice(std::mem::replace(&mut start, end)..end)
    })
    .collect()
}

fn decode(events: &[Bytes]) {
    let mut decoder = Decoder::new(Limits::default());
    for event in events {
        decoder.push(event.clone());
        while let Ok(Some(item)) = decoder.next_item() {
            black_box(item);
        }
    }
}

/// Reads a stream as a driver does. `took` gets the time of each event.
fn follow(events: &[Bytes], mut took: impl FnMut(Duration)) -> Result<(), Unexpected> {
    let now = Instant::now();
    let mut origin = Origin::default();
    let mut engine = Engine::new(Kind::Standalone, Policy::default(), 7);
    engine.poll(now, &mut origin, Waker::noop());
    engine.handle(now, &mut origin, Input::Opened)?;
    let mut decoder = Decoder::new(Limits::default());
    for event in events {
        let now = Instant::now();
        engine.received(now);
        decoder.push(event.clone());
        while let Ok(Some(item)) = decoder.next_item() {
            let verdict = engine.item(now, &item)?;
            if let (Verdict::Deliver, Item::Event(event)) = (verdict, item) {
                black_box(event);
                engine.commit();
            }
        }
        black_box(engine.poll_open(now));
        took(now.elapsed());
    }
    Ok(())
}
