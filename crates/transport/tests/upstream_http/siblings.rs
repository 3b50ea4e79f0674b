//! Streams of one session on a server that replays all of the session's events into whichever
//! stream comes back, and on one whose streams count for themselves.

use std::sync::Arc;

use parking_lot::Mutex;
use shadowcat_transport::metrics::Metrics;
use shadowcat_transport::upstream::{Incoming, Item, Leg};
use tokio::time::timeout;

use crate::metrics::{assert_counts, counted};
use crate::server::{Answer, Seen, Server, Step};
use crate::support::*;

/// Whose an event is: a call's, or with 0 the standalone stream's.
type Owner = u32;

/// A session's events, oldest first: owner, id, data.
type Log = Vec<(Owner, &'static str, String)>;

fn call_with_token(id: u32) -> shadowcat_mcp::message::Message {
    message(format!(
        r#"{{"jsonrpc":"2.0","id":{id},"method":"tools/call","params":{{"name":"t","_meta":{{"progressToken":"t{id}"}}}}}}"#
    ))
}

fn progress_of(call: Owner, n: u32) -> String {
    format!(
        r#"{{"jsonrpc":"2.0","method":"notifications/progress","params":{{"progressToken":"t{call}","progress":{n}}}}}"#
    )
}

/// A message that names no request.
fn log(text: &str) -> String {
    format!(
        r#"{{"jsonrpc":"2.0","method":"notifications/message","params":{{"level":"info","data":"{text}"}}}}"#
    )
}

/// What opens: the call of a POST, or 0 for a GET without a cursor.
fn opened(seen: &Seen) -> Option<Owner> {
    match seen.header("last-event-id") {
        Some(_) => None,
        None if seen.method == "GET" => Some(0),
        None => {
            let id = seen.body.split(r#""id":"#).nth(1)?;
            id.split(',').next()?.parse().ok()
        }
    }
}

fn written((_, id, data): &(Owner, &str, String)) -> Step {
    event_id(id, data)
}

/// Every first connection brings what its stream has among the first `cut` events, then breaks;
/// what comes back gets everything after its cursor, whosever it is.
fn replaying(events_: &Log, cut: usize) -> impl Fn(&Seen, usize) -> Answer + Send + Sync + 'static {
    let log = events_.clone();
    move |seen, _| match opened(seen) {
        Some(owner) => {
            let own = log[..cut].iter().filter(|event| event.0 == owner);
            events(own.map(written).chain([pause(), Step::Abort]))
        }
        None => {
            let cursor = seen.header("last-event-id");
            let at = log.iter().position(|event| Some(event.1) == cursor);
            let rest = &log[at.unwrap() + 1..];
            events(rest.iter().map(written).chain([Step::Hang]))
        }
    }
}

/// What a stream brings until it is over, or says nothing for a minute.
async fn all(mut incoming: Incoming) -> Vec<String> {
    let mut messages = Vec::new();
    let minute = std::time::Duration::from_secs(60);
    while let Ok(Some(item)) = timeout(minute, incoming.next()).await {
        match item {
            Ok(Item::Message(message)) => messages.push(text(&message)),
            other => panic!("expected a message, got {other:?}"),
        }
    }
    messages
}

async fn two_calls_and_a_standalone_stream(
    leg: &Arc<dyn Leg>,
) -> (Vec<String>, Vec<String>, Vec<String>) {
    let one = stream(request(leg, call_with_token(1)).await);
    let two = stream(request(leg, call_with_token(2)).await);
    let standalone = leg.standalone().await.unwrap();
    tokio::join!(all(one), all(two), all(standalone))
}

#[tokio::test(start_paused = true)]
async fn a_replay_of_the_whole_session_tells_each_message_once() {
    let session: Log = vec![
        (1, "a", progress_of(1, 1)),
        (2, "b", progress_of(2, 1)),
        (0, "c", log("1")),
        (1, "d", log("of 1")),
        // Here all of them break.
        (2, "e", progress_of(2, 2)),
        (0, "f", log("2")),
        (1, "g", progress_of(1, 2)),
        (1, "h", result(1)),
        (2, "i", progress_of(2, 3)),
        (0, "j", log("3")),
        (2, "k", result(2)),
        (0, "l", log("4")),
    ];
    let play = replaying(&session, 4);
    let (_server, leg, metrics) = counted(config(), play).await;
    let (one, two, standalone) = two_calls_and_a_standalone_stream(&leg).await;
    let logs = |messages: &[String]| -> Vec<String> {
        let logs = messages.iter().filter(|text| text.contains("level"));
        logs.cloned().collect()
    };
    let of = |messages: &[String]| -> Vec<String> {
        let own = messages.iter().filter(|text| !text.contains("level"));
        own.cloned().collect()
    };
    assert_eq!(of(&one), [progress_of(1, 1), progress_of(1, 2), result(1)]);
    let expected = [1, 2, 3].map(|n| progress_of(2, n));
    assert_eq!(of(&two)[..3], expected);
    assert_eq!(of(&two)[3..], [result(2)]);
    assert!(of(&standalone).is_empty(), "{standalone:?}");
    let mut told = [logs(&one), logs(&two), logs(&standalone)].concat();
    told.sort();
    let mut expected = ["1", "2", "3", "4", "of 1"].map(log);
    expected.sort();
    assert_eq!(told, expected);
    for messages in [&one, &two, &standalone] {
        assert!(logs(messages).is_sorted(), "{messages:?}");
    }
    assert_eq!(metrics.stray_responses.get(), 0);
    assert!(metrics.duplicates_dropped.get() > 0);
    assert!(metrics.events_left.get() > 0);
}

/// A leg whose two calls and standalone stream are open, and what the server saw later.
async fn calls(
    play: impl Fn(&Seen, usize) -> Answer + Send + Sync + 'static,
) -> (Arc<Server>, Arc<Metrics>, Incoming, Incoming) {
    let (server, leg, metrics) = counted(config(), play).await;
    let one = stream(request(&leg, call_with_token(1)).await);
    let two = stream(request(&leg, call_with_token(2)).await);
    (server, metrics, one, two)
}

#[tokio::test(start_paused = true)]
async fn what_is_left_to_another_request_is_not_lost_to_it() {
    let session: Log = vec![
        (1, "a", progress_of(1, 1)),
        (2, "b", progress_of(2, 1)),
        (2, "c", progress_of(2, 2)),
        (2, "d", result(2)),
        (1, "e", result(1)),
    ];
    let (_server, metrics, one, two) = calls(replaying(&session, 2)).await;
    // One comes back and is done before the other has come back.
    assert_eq!(all(one).await, [progress_of(1, 1), result(1)]);
    assert_eq!(metrics.events_left.get(), 3);
    let expected = [progress_of(2, 1), progress_of(2, 2), result(2)];
    assert_eq!(all(two).await, expected);
    assert_eq!(metrics.stray_responses.get(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_first_connection_that_is_behind_a_replay_does_not_repeat_it() {
    let session: Log = vec![
        (1, "a", progress_of(1, 1)),
        (2, "b", log("of 2")),
        (1, "c", result(1)),
    ];
    let break_one = replaying(&session, 1);
    let (_server, _metrics, one, two) = calls(move |seen, n| match opened(seen) {
        Some(2) => events([
            event_id("b", log("of 2")),
            event_id("d", log("of 2")),
            event_id("e", result(2)),
        ]),
        _ => break_one(seen, n),
    })
    .await;
    assert_eq!(all(one).await, [progress_of(1, 1), log("of 2"), result(1)]);
    assert_eq!(all(two).await, [log("of 2"), result(2)]);
}

#[tokio::test(start_paused = true)]
async fn what_a_replay_was_ahead_with_moves_the_cursor_of_its_own_stream() {
    let session: Log = vec![
        (1, "a", progress_of(1, 1)),
        (0, "b", log("1")),
        (1, "c", result(1)),
        (0, "d", log("2")),
    ];
    let break_one = replaying(&session, 1);
    let (server, leg, _metrics) = counted(config(), move |seen, n| match opened(seen) {
        Some(0) => events([event_id("b", log("1")), pause(), Step::Abort]),
        _ => break_one(seen, n),
    })
    .await;
    let one = stream(request(&leg, call_with_token(1)).await);
    let standalone = leg.standalone().await.unwrap();
    assert_eq!(all(one).await, [progress_of(1, 1), log("1"), result(1)]);
    assert_eq!(all(standalone).await, [log("2")]);
    let cursors: Vec<_> = server.seen()[2..].iter().map(cursor_of).collect();
    assert_eq!(cursors, [None, Some("a".into()), Some("b".into())]);
}

fn cursor_of(seen: &Seen) -> Option<String> {
    cursor(seen).map(str::to_owned)
}

#[tokio::test(start_paused = true)]
async fn streams_that_count_for_themselves_lose_nothing_that_says_the_same() {
    let (_server, leg, metrics) = counted(config(), |seen, _| {
        let text = log("same");
        let result_of = |seen: &Seen| match seen.header("x-call") {
            Some("1") => result(1),
            _ => result(2),
        };
        match seen.header("last-event-id") {
            None => events([
                event_id("1", &text),
                event_id("2", &text),
                pause(),
                Step::Abort,
            ]),
            Some(cursor) => {
                assert_eq!(cursor, "2");
                let last = match seen.header("x-call") {
                    Some(_) => event_id("4", result_of(seen)),
                    None => event_id("4", &text),
                };
                events([event_id("3", &text), last, Step::Hang])
            }
        }
    })
    .await;
    let ask = |id: u32| {
        let mut context = shadowcat_transport::upstream::RequestContext::default();
        let name = http::HeaderName::from_static("x-call");
        context.headers.insert(name, id.into());
        leg.request(call_with_token(id), context)
    };
    let one = stream(ask(1).await);
    let two = stream(ask(2).await);
    let standalone = leg.standalone().await.unwrap();
    let (one, two, standalone) = tokio::join!(all(one), all(two), all(standalone));
    let same = || log("same");
    assert_eq!(one, [same(), same(), same(), result(1)]);
    assert_eq!(two, [same(), same(), same(), result(2)]);
    assert_eq!(standalone, [same(), same(), same(), same()]);
    assert_counts(&metrics, &[("duplicates_dropped_total", 0)]);
}

#[tokio::test(start_paused = true)]
async fn another_stream_s_events_do_not_move_the_cursor() {
    let session: Log = vec![
        (1, "a", progress_of(1, 1)),
        (2, "b", progress_of(2, 1)),
        (2, "c", "{}".to_owned()),
        (2, "d", progress_of(2, 2)),
        (2, "e", result(2)),
        (1, "f", result(1)),
    ];
    let cursors = Arc::new(Mutex::new(Vec::new()));
    let asked = Arc::clone(&cursors);
    let whole = replaying(&session, 2);
    let part = session.clone();
    let (_server, metrics, one, two) = calls(move |seen, n| {
        if let Some(cursor) = seen.header("last-event-id") {
            let mut asked = asked.lock();
            asked.push(cursor.to_owned());
            if asked.len() == 1 {
                let rest = part[1..5].iter().map(written);
                return events(rest.chain([pause(), Step::Abort]));
            }
        }
        whole(seen, n)
    })
    .await;
    assert_eq!(all(one).await, [progress_of(1, 1), result(1)]);
    assert_eq!(*cursors.lock(), ["a", "a"]);
    assert_eq!(all(two).await.len(), 3);
    assert_eq!(*cursors.lock(), ["a", "a", "b"]);
    assert_counts(
        &metrics,
        &[
            (r#"bad_messages_total{reason="empty object"}"#, 3),
            (r#"bad_messages_total{reason="payload"}"#, 0),
            ("id_reuses_total", 0),
        ],
    );
}

#[tokio::test(start_paused = true)]
async fn a_replayed_response_to_a_finished_request_is_a_duplicate() {
    let session: Log = vec![
        (1, "a", progress_of(1, 1)),
        (2, "b", progress_of(2, 1)),
        (2, "c", result(2)),
        (9, "d", result(9)),
        (1, "e", result(1)),
    ];
    let (_server, metrics, one, two) = calls(replaying(&session, 3)).await;
    assert_eq!(all(two).await, [progress_of(2, 1), result(2)]);
    assert_eq!(all(one).await, [progress_of(1, 1), result(1)]);
    assert_counts(
        &metrics,
        &[
            ("duplicates_dropped_total", 2),
            ("stray_responses_total", 1),
            ("events_left_total", 0),
        ],
    );
}

#[tokio::test(start_paused = true)]
async fn progress_of_a_request_that_failed_is_told_to_nobody() {
    let session: Log = vec![
        (1, "a", progress_of(1, 1)),
        (2, "b", progress_of(2, 1)),
        (3, "c", progress_of(3, 1)),
        (1, "d", result(1)),
    ];
    let play = replaying(&session, 1);
    let (_server, leg, metrics) = counted(config(), move |seen, n| match opened(seen) {
        Some(2) => Answer::Reset,
        Some(3) => json(result(3)),
        _ => play(seen, n),
    })
    .await;
    let one = stream(request(&leg, call_with_token(1)).await);
    assert!(request(&leg, call_with_token(2)).await.is_err());
    json_text(request(&leg, call_with_token(3)).await);
    // A request that was answered may have begun a task, whose progress goes on.
    let expected = [progress_of(1, 1), progress_of(3, 1), result(1)];
    assert_eq!(all(one).await, expected);
    let given_up = r#"messages_given_up_total{reason="progress of a failed request"}"#;
    assert_counts(&metrics, &[(given_up, 1)]);
}

#[tokio::test(start_paused = true)]
async fn the_window_ends_with_the_session() {
    let session: Log = vec![(1, "a", log("1")), (1, "b", log("2")), (1, "c", result(1))];
    let server = Server::new({
        let play = replaying(&session, 1);
        move |seen, n| match seen.body.contains("initialize") {
            true => initialized(),
            false => play(seen, n),
        }
    });
    for _ in 0..2 {
        let leg = in_session(&server).await;
        let one = stream(request(&leg, call_with_token(1)).await);
        assert_eq!(all(one).await, [log("1"), log("2"), result(1)]);
    }
}
