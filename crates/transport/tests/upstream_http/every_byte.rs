//! The ledger (resilience 8): one answer of about 6 KB, cut all over, in every way a connection
//! can end, before servers that replay exactly, one event too many, or everything.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::timeout;

use crate::server::{Server, Step};
use crate::support::*;

/// Messages before the response.
const MESSAGES: u32 = 12;

/// Cuts so near to an event's end are all made.
const NEAR: usize = 8;

/// The step from cut to cut elsewhere: it meets every byte of the repeated filling, also inside its
/// characters.
const STRIDE: usize = 41;

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

const ENDS: [End; 5] = [
    End::InOrder,
    End::Reset,
    End::Silence,
    End::Unavailable,
    End::Empty,
];
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

/// The events from `n` on.
fn transcript(n: u32) -> String {
    (n..=MESSAGES + 1).map(numbered_event).collect()
}

fn server(cut: usize, end: End, replay: Replay) -> Arc<Server> {
    let whole = Bytes::from(transcript(0));
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
            events([raw(transcript(match replay {
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
    let expected: Vec<_> = (1..=MESSAGES + 1).map(numbered).collect();
    if whole == 0 {
        assert_eq!(messages, [] as [String; 0], "{what}");
        assert!(fault.is_some(), "{what}: nothing to resume from");
        assert!(gets.is_empty(), "{what}: {gets:?}");
        return;
    }
    assert_eq!(messages, expected, "{what}");
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

/// Every byte within [`NEAR`] of an event's end, and every [`STRIDE`]-th of the rest, which is the
/// inside of long data. Before the first event's end nothing can be resumed; a silence there is
/// waited for, not ended, and left out.
#[tokio::test(start_paused = true)]
async fn an_answer_survives_a_cut_at_any_byte() {
    let ends: Vec<usize> = (0..=MESSAGES + 1)
        .scan(0, |end, n| {
            *end += numbered_event(n).len();
            Some(*end)
        })
        .collect();
    let length = transcript(0).len();
    assert!((5500..6500).contains(&length), "{length} bytes");
    for cut in 1..=length {
        let near = ends.iter().any(|end| end.abs_diff(cut) <= NEAR);
        if !near && cut % STRIDE != 0 {
            continue;
        }
        let whole = ends.iter().filter(|end| **end <= cut).count();
        let whole = u32::try_from(whole).unwrap();
        for end in ENDS {
            if whole == 0 && matches!(end, End::Silence) {
                continue;
            }
            for replay in REPLAYS {
                survives(cut, whole, end, replay).await;
            }
        }
    }
}
