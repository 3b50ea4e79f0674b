//! The ledger: one answer of about 6 KB, cut all over, in every way a connection
//! can end, before servers that replay exactly, one event too many, or everything.

use std::sync::{Arc, LazyLock};
use std::time::Duration;

use bytes::Bytes;
use tokio::time::timeout;

use crate::server::{Server, Step};
use crate::support::*;

/// Messages before the response.
const MESSAGES: u32 = 12;

/// Cuts so near to an event's end meet every kind of replay; elsewhere, inside of long data, the
/// kinds take turns.
const NEAR: usize = 8;

/// How the first connection goes on after the cut.
#[derive(Debug, Clone, Copy)]
enum End {
    InOrder,
    Reset,
    Silence,
    /// A reset, and the first resume is put off.
    Unavailable,
    /// A reset, and the first resume gets a stream with nothing in it.
    Empty,
}

/// What a resume repeats.
#[derive(Debug, Clone, Copy)]
enum Replay {
    Exclusive,
    Inclusive,
    FromZero,
}

const REPLAYS: [Replay; 3] = [Replay::Exclusive, Replay::Inclusive, Replay::FromZero];

/// Message `n` from 1; the one after the last is the response.
fn numbered(n: u32) -> String {
    if n > MESSAGES {
        return result(1);
    }
    let filling = "zw\u{f6}lf ".repeat(52);
    format!(
        r#"{{"jsonrpc":"2.0","method":"notifications/progress","params":{{"progressToken":1,"progress":{n},"message":"{filling}"}}}}"#
    )
}

/// The event of message `n`; 0 primes.
fn numbered_event(n: u32) -> String {
    let data = if n == 0 { String::new() } else { numbered(n) };
    format!("id: {n}\ndata: {data}\n\n")
}

/// The events from `n` on. They are the same in tens of thousands of runs.
fn transcript(n: u32) -> Bytes {
    static ALL: LazyLock<Vec<Bytes>> = LazyLock::new(|| {
        let from = |n| (n..=MESSAGES + 1).map(numbered_event).collect::<String>();
        (0..=MESSAGES + 2).map(|n| Bytes::from(from(n))).collect()
    });
    ALL[n as usize].clone()
}

fn server(cut: usize, end: End, replay: Replay) -> Arc<Server> {
    let whole = transcript(0);
    Server::new(move |seen, n| match (seen.method.as_str(), n) {
        (_, 0) => initialized(),
        ("POST", _) => {
            let last = match end {
                End::InOrder => vec![],
                End::Silence => vec![Step::Hang],
                _ => vec![pause(), Step::Abort],
            };
            events([Step::Data(whole.slice(..cut))].into_iter().chain(last))
        }
        (_, 2) if matches!(end, End::Unavailable) => with_header(status(503), "retry-after", "3"),
        (_, 2) if matches!(end, End::Empty) => events([]),
        _ => {
            let cursor: u32 = cursor(seen).unwrap().parse().unwrap();
            events([Step::Data(transcript(match replay {
                Replay::Exclusive => cursor + 1,
                Replay::Inclusive => cursor,
                Replay::FromZero => 0,
            }))])
        }
    })
}

/// One cut: every message once and in order, one outcome, one POST, and no cursor but that of the
/// last whole event.
async fn survives(cut: usize, whole: u32, end: End, replay: Replay) {
    let what = format!("cut at {cut}, {end:?}, {replay:?}");
    let server = server(cut, end, replay);
    let leg = in_session(&server).await;
    let mut incoming = stream(request(&leg, call(1)).await);
    let reading = timeout(Duration::from_secs(3600), rest(&mut incoming));
    let (messages, fault) = reading.await.unwrap_or_else(|_| panic!("{what}: no end"));
    let seen = server.seen();
    let posts = seen.iter().filter(|seen| seen.body.contains("tools/call"));
    assert_eq!(posts.count(), 1, "{what}: POSTs");
    let gets = &seen[2..];
    // What came whole before the cut: the events of `0..whole`.
    static EXPECTED: LazyLock<Vec<String>> =
        LazyLock::new(|| (1..=MESSAGES + 1).map(numbered).collect());
    if whole == 0 {
        assert_eq!(messages, [] as [String; 0], "{what}");
        assert!(fault.is_some(), "{what}: nothing to resume from");
        assert!(gets.is_empty(), "{what}: {gets:?}");
        return;
    }
    assert_eq!(messages, *EXPECTED, "{what}");
    assert_eq!(fault, None, "{what}");
    let attempts = match end {
        _ if whole > MESSAGES + 1 => 0,
        End::Unavailable | End::Empty => 2,
        _ => 1,
    };
    assert_eq!(gets.len(), attempts, "{what}: attempts");
    let last = whole.saturating_sub(1).to_string();
    for get in gets {
        assert_eq!(cursor(get), Some(&*last), "{what}: cursor");
    }
}

/// Cuts at every byte. Before the first event's end nothing can be resumed; a silence there is
/// waited for, not ended, and left out.
async fn at_every_byte(end: End) {
    let ends: Vec<usize> = (0..=MESSAGES + 1)
        .scan(0, |end, n| {
            *end += numbered_event(n).len();
            Some(*end)
        })
        .collect();
    let length = transcript(0).len();
    assert!((5500..6500).contains(&length), "{length} bytes");
    for cut in 1..=length {
        let whole = ends.iter().filter(|end| **end <= cut).count();
        let whole = u32::try_from(whole).unwrap();
        if whole == 0 && matches!(end, End::Silence) {
            continue;
        }
        let near = ends.iter().any(|end| end.abs_diff(cut) <= NEAR);
        let replays = REPLAYS.iter().enumerate();
        for (_, replay) in replays.filter(|(turn, _)| near || cut % REPLAYS.len() == *turn) {
            survives(cut, whole, end, *replay).await;
        }
    }
}

// A test for each way to end, so that they share the machine's cores.

#[tokio::test(start_paused = true)]
async fn an_answer_survives_its_end_at_any_byte() {
    at_every_byte(End::InOrder).await;
}

#[tokio::test(start_paused = true)]
async fn an_answer_survives_a_reset_at_any_byte() {
    at_every_byte(End::Reset).await;
}

#[tokio::test(start_paused = true)]
async fn an_answer_survives_a_silence_at_any_byte() {
    at_every_byte(End::Silence).await;
}

#[tokio::test(start_paused = true)]
async fn an_answer_survives_an_unavailable_server_after_any_byte() {
    at_every_byte(End::Unavailable).await;
}

#[tokio::test(start_paused = true)]
async fn an_answer_survives_an_empty_resume_after_any_byte() {
    at_every_byte(End::Empty).await;
}
