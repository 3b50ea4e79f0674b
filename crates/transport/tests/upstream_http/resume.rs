//! Answers that break and come back (`docs/resilience.md`).

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use shadowcat_mcp::fault::{Executed, FaultKind};
use shadowcat_sse::reconnect::Policy;
use tokio::time::Instant;

use crate::server::{Server, Step};
use crate::support::*;

#[tokio::test(start_paused = true)]
async fn a_broken_answer_is_resumed_by_get_from_what_was_delivered() {
    let cuts: Vec<(&str, Vec<Step>)> = vec![
        ("the end", vec![]),
        ("a reset", vec![pause(), Step::Abort]),
        (
            "inside an event",
            vec![raw("id: 2\ndata: {\"json"), pause(), Step::Abort],
        ),
        (
            "inside an event, in order",
            vec![raw("id: 2\ndata: {\"json")],
        ),
        (
            "inside a character",
            vec![
                Step::Data(Bytes::from_static(b"id: 2\ndata: {\"a\":\"\xC3")),
                pause(),
                Step::Abort,
            ],
        ),
        (
            "between id and data",
            vec![raw("id: 2\n"), pause(), Step::Abort],
        ),
        (
            "between CR and LF",
            vec![raw("id: 2\r"), pause(), Step::Abort],
        ),
        (
            "before the blank line",
            vec![
                raw(format!("id: 2\ndata: {}\n", progress(9))),
                pause(),
                Step::Abort,
            ],
        ),
    ];
    for (what, cut) in cuts {
        let cut = parking_lot::Mutex::new(cut);
        let server = Server::new(move |seen, n| match (seen.method.as_str(), n) {
            (_, 0) => initialized(),
            ("POST", 1) => {
                let mut steps = vec![primer("0"), event_id("1", progress(1))];
                steps.append(&mut cut.lock());
                events(steps)
            }
            ("GET", 2) => events([event_id("2", progress(2)), event_id("3", result(1))]),
            _ => status(500),
        });
        let leg = in_session(&server).await;
        let mut incoming = stream(request(&leg, call(1)).await);
        let (messages, end) = rest(&mut incoming).await;
        assert_eq!(messages, [progress(1), progress(2), result(1)], "{what}");
        assert_eq!(end, None, "{what}");
        let seen = server.seen();
        assert_eq!(seen.len(), 3, "{what}");
        assert_eq!(cursor(&seen[2]), Some("1"), "{what}");
        assert_eq!(seen[2].header("mcp-session-id"), Some("s1"));
        assert_eq!(seen[2].header("mcp-protocol-version"), Some("2025-11-25"));
        assert_eq!(seen[2].header("accept"), Some("text/event-stream"));
        assert_eq!(seen[2].header("content-type"), None);
        tokio::time::sleep(Duration::from_secs(600)).await;
        assert_eq!(server.seen().len(), 3, "{what}: nothing after the response");
    }
}

#[tokio::test(start_paused = true)]
async fn a_cut_after_the_priming_event_is_resumed_from_it() {
    let server = Server::new(|_, n| match n {
        0 => initialized(),
        1 => events([primer("p"), pause(), Step::Abort]),
        _ => events([event_id("q", result(1))]),
    });
    let leg = in_session(&server).await;
    let mut incoming = stream(request(&leg, call(1)).await);
    assert_eq!(rest(&mut incoming).await, (vec![result(1)], None));
    assert_eq!(cursor(&server.seen()[2]), Some("p"));
}

#[tokio::test(start_paused = true)]
async fn without_an_id_a_broken_answer_fails_at_once() {
    for end in [vec![], vec![pause(), Step::Abort]] {
        let end = parking_lot::Mutex::new(end);
        let server = Server::new(move |_, n| match n {
            0 => initialized(),
            _ => {
                let mut steps = vec![event(progress(1)), raw("id: 1\ndata: unfinished")];
                steps.append(&mut end.lock());
                events(steps)
            }
        });
        let leg = in_session(&server).await;
        let mut incoming = stream(request(&leg, call(1)).await);
        let started = Instant::now();
        let (messages, end) = rest(&mut incoming).await;
        assert_eq!(messages, [progress(1)]);
        assert_eq!(end, Some((FaultKind::StreamEnded, Executed::Unknown)));
        assert!(started.elapsed() < Duration::from_millis(10));
        assert_eq!(server.seen().len(), 2, "the POST is never sent again");
    }
}

#[tokio::test(start_paused = true)]
async fn the_cursor_moves_on_at_every_reconnect_and_a_foreign_answer_s_is_not_used() {
    let server = Server::new(|seen, n| match n {
        0 => initialized(),
        1 | 2 if seen.body.contains(r#""id":1"#) => {
            events([event_id("a1", progress(1)), pause(), Step::Abort])
        }
        1 | 2 => events([event(progress(9)), pause(), Step::Abort]),
        3 => events([event_id("a2", progress(2)), pause(), Step::Abort]),
        4 => events([event_id("a3", progress(3)), pause(), Step::Abort]),
        _ => events([event_id("a4", result(1))]),
    });
    let leg = in_session(&server).await;
    let mut first = stream(request(&leg, call(1)).await);
    let mut second = stream(request(&leg, call(2)).await);
    assert_eq!(
        rest(&mut second).await.1,
        Some((FaultKind::StreamEnded, Executed::Unknown))
    );
    let (messages, end) = rest(&mut first).await;
    assert_eq!(messages, [progress(1), progress(2), progress(3), result(1)]);
    assert_eq!(end, None);
    let cursors: Vec<_> = server.seen()[3..]
        .iter()
        .map(|seen| cursor(seen).map(str::to_owned))
        .collect();
    assert_eq!(
        cursors,
        [Some("a1".into()), Some("a2".into()), Some("a3".into())]
    );
}

#[tokio::test(start_paused = true)]
async fn an_event_that_the_reader_has_not_come_back_from_is_asked_for_again() {
    let server = Server::new(|_, n| match n {
        0 => initialized(),
        1 => events([
            event_id("1", progress(1)),
            event_id("2", progress(2)),
            pause(),
            Step::Abort,
        ]),
        _ => events([
            event_id("1", progress(1)),
            event_id("2", progress(2)),
            event_id("3", result(1)),
        ]),
    });
    let leg = in_session(&server).await;
    let mut incoming = stream(request(&leg, call(1)).await);
    assert_eq!(next(&mut incoming).await, progress(1));
    assert_eq!(next(&mut incoming).await, progress(2));
    assert_eq!(rest(&mut incoming).await, (vec![result(1)], None));
    assert_eq!(cursor(&server.seen()[2]), Some("2"));
}

#[tokio::test(start_paused = true)]
async fn replayed_events_are_dropped_and_reused_ids_are_not() {
    let server = Server::new(|_, n| match n {
        0 => initialized(),
        1 => events([
            event_id("1", progress(1)),
            event_id("2", progress(2)),
            pause(),
            Step::Abort,
        ]),
        // From zero; then an id that was used before, for another message.
        _ => events([
            event_id("1", progress(1)),
            event_id("2", progress(2)),
            event_id("1", progress(3)),
            event_id("3", result(1)),
        ]),
    });
    let leg = in_session(&server).await;
    let mut incoming = stream(request(&leg, call(1)).await);
    let (messages, end) = rest(&mut incoming).await;
    assert_eq!(messages, [progress(1), progress(2), progress(3), result(1)]);
    assert_eq!(end, None);
}

#[tokio::test(start_paused = true)]
async fn events_without_ids_are_never_taken_for_duplicates() {
    let server = Server::new(|_, n| match n {
        0 => initialized(),
        1 => events([
            event_id("1", progress(1)),
            event(progress(2)),
            event(progress(2)),
            pause(),
            Step::Abort,
        ]),
        _ => events([event(progress(2)), event(result(1))]),
    });
    let leg = in_session(&server).await;
    let mut incoming = stream(request(&leg, call(1)).await);
    let (messages, _) = rest(&mut incoming).await;
    let two = progress(2);
    assert_eq!(
        messages,
        [progress(1), two.clone(), two.clone(), two, result(1)]
    );
    assert_eq!(cursor(&server.seen()[2]), Some("1"), "the id persists");
}

#[tokio::test(start_paused = true)]
async fn an_empty_id_leaves_nothing_to_resume_from() {
    let server = Server::new(|_, n| match n {
        0 => initialized(),
        _ => events([
            event_id("1", progress(1)),
            raw("id\ndata: x\n\n"),
            pause(),
            Step::Abort,
        ]),
    });
    let leg = in_session(&server).await;
    let mut incoming = stream(request(&leg, call(1)).await);
    assert_eq!(
        rest(&mut incoming).await,
        (
            vec![progress(1)],
            Some((FaultKind::StreamEnded, Executed::Unknown))
        )
    );
    assert_eq!(server.seen().len(), 2);
}

#[tokio::test(start_paused = true)]
async fn what_a_resume_is_refused_with_ends_it_or_not() {
    use FaultKind::{Redirect, SessionLost, Status, StreamEnded, Unauthorized};
    for (code, expected) in [
        (204, Some(Status)),
        (400, Some(StreamEnded)),
        (401, Some(Unauthorized)),
        (403, Some(Unauthorized)),
        (404, Some(SessionLost)),
        (405, Some(StreamEnded)),
        (410, Some(Status)),
        (501, Some(Status)),
        (307, Some(Redirect)),
        (408, None),
        (409, None),
        (500, None),
        (502, None),
        (503, None),
        (504, None),
    ] {
        let server = Server::new(move |_, n| match n {
            0 => initialized(),
            1 => events([event_id("1", progress(1)), pause(), Step::Abort]),
            2 if code == 307 => with_header(status(307), "location", "http://elsewhere/"),
            2 => status(code),
            _ => events([event_id("2", result(1))]),
        });
        let leg = in_session(&server).await;
        let mut incoming = stream(request(&leg, call(1)).await);
        let (_, end) = rest(&mut incoming).await;
        assert_eq!(
            end,
            expected.map(|kind| (kind, Executed::Unknown)),
            "{code}"
        );
        let posts = server
            .seen()
            .iter()
            .filter(|seen| seen.method == "POST")
            .count();
        assert_eq!(posts, 2, "{code}: the POST is never sent again");
    }
}

#[tokio::test(start_paused = true)]
async fn a_resume_follows_a_redirect_inside_the_origin() {
    let server = Server::new(|seen, n| match (n, seen.path.as_str()) {
        (0, _) => initialized(),
        (1, _) => events([event_id("1", progress(1)), pause(), Step::Abort]),
        (_, "/mcp") => with_header(status(302), "location", "/other"),
        _ => events([event_id("2", result(1))]),
    });
    let leg = in_session(&server).await;
    let mut incoming = stream(request(&leg, call(1)).await);
    assert_eq!(rest(&mut incoming).await.1, None);
    let seen = server.seen();
    assert_eq!(
        (seen[3].path.as_str(), cursor(&seen[3])),
        ("/other", Some("1"))
    );
}

#[tokio::test(start_paused = true)]
async fn an_answer_to_initialize_is_resumed_in_the_session_that_it_offers() {
    let server = Server::new(|_, n| match n {
        0 => with_header(
            events([primer("0"), pause(), Step::Abort]),
            "mcp-session-id",
            "s1",
        ),
        1 => events([event_id("1", r#"{"jsonrpc":"2.0","id":0,"result":{}}"#)]),
        _ => json(result(1)),
    });
    let leg = fresh(&server);
    let mut incoming = stream(request(&leg, initialize()).await);
    assert_eq!(rest(&mut incoming).await.1, None);
    request(&leg, call(1)).await.unwrap();
    let seen = server.seen();
    assert_eq!(cursor(&seen[1]), Some("0"));
    assert_eq!(seen[1].header("mcp-session-id"), Some("s1"));
    assert_eq!(seen[2].header("mcp-session-id"), Some("s1"));
}

#[tokio::test(start_paused = true)]
async fn the_options_reach_the_engine() {
    let config = || {
        let mut config = config();
        config.reconnect = Arc::new(Policy {
            initial: Duration::from_millis(500),
            max: Duration::from_millis(500),
            max_attempts: 3,
            dedup_window: 0,
            ..Policy::default()
        });
        config
    };
    let server = Server::new(|_, n| match n {
        0 => initialized(),
        1 => events([event_id("1", progress(1)), pause(), Step::Abort]),
        _ => status(500),
    });
    let leg = in_session_with(config(), &server).await;
    let mut incoming = stream(request(&leg, call(1)).await);
    let (_, end) = rest(&mut incoming).await;
    assert_eq!(end, Some((FaultKind::BudgetExhausted, Executed::Unknown)));
    assert_eq!(server.seen().len(), 2 + 3);
}
