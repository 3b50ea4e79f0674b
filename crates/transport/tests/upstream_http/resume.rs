//! Answers that break and come back (resilience 2 to 4 and 6).

use std::time::Duration;

use bytes::Bytes;
use shadowcat_mcp::fault::{Executed, FaultKind};
use shadowcat_sse::reconnect::Policy;
use shadowcat_transport::upstream::{Deadline, Incoming, Item, RequestContext};
use tokio::time::Instant;

use crate::server::{Answer, Server, Step};
use crate::support::*;

/// The rest of a stream: its messages, and how it ended.
async fn rest(incoming: &mut Incoming) -> (Vec<String>, Option<(FaultKind, Executed)>) {
    let mut messages = Vec::new();
    loop {
        match incoming.next().await {
            Some(Ok(Item::Message(message))) => messages.push(text(&message)),
            Some(Ok(Item::Gap(_))) => panic!("an answer has no gaps"),
            Some(Err(fault)) => return (messages, Some((fault.kind, fault.executed))),
            None => return (messages, None),
        }
    }
}

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
async fn a_server_that_wants_to_be_polled_is_polled_at_its_pace_and_for_free() {
    let server = Server::new(|_, n| match n {
        0 => initialized(),
        1 => events([primer("0"), raw("retry: 2000\n\n")]),
        2..=30 => events([raw(format!("id: p{n}\ndata:\n\n"))]),
        _ => events([event_id("z", result(1))]),
    });
    let leg = in_session(&server).await;
    let mut incoming = stream(request(&leg, call(1)).await);
    assert_eq!(rest(&mut incoming).await, (vec![result(1)], None));
    let seen = server.seen();
    assert_eq!(seen.len(), 32, "thirty polls and no budget");
    let gaps: Vec<_> = seen[1..]
        .windows(2)
        .map(|two| two[1].at - two[0].at)
        .collect();
    for (poll, gap) in gaps.iter().enumerate() {
        let (least, most) = if poll < 10 {
            (2000, 2300)
        } else {
            (5000, 5300)
        };
        let range = Duration::from_millis(least)..Duration::from_millis(most);
        assert!(range.contains(gap), "poll {poll}: {gap:?}");
    }
    assert_eq!(cursor(&seen[31]), Some("p30"));
}

#[tokio::test(start_paused = true)]
async fn retry_is_honoured_and_clamped() {
    for (retry, least, most) in [
        (0, 250, 600),
        (700, 700, 1000),
        (3_600_000, 300_000, 301_000),
    ] {
        let server = Server::new(move |_, n| match n {
            0 => initialized(),
            1 => events([
                raw(format!("retry: {retry}\nid: 1\ndata: {}\n\n", progress(1))),
                pause(),
                Step::Abort,
            ]),
            _ => events([event_id("2", result(1))]),
        });
        let leg = in_session(&server).await;
        let mut incoming = stream(request(&leg, call(1)).await);
        rest(&mut incoming).await;
        let seen = server.seen();
        let waited = seen[2].at - seen[1].at;
        let range = Duration::from_millis(least)..Duration::from_millis(most);
        assert!(range.contains(&waited), "retry {retry}: {waited:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn retry_after_is_honoured_in_both_forms() {
    for code in [503, 429] {
        for after in ["7", "Sun, 06 Nov 1994 08:49:44 GMT"] {
            let server = Server::new(move |_, n| match n {
                0 => initialized(),
                1 => events([event_id("1", progress(1)), pause(), Step::Abort]),
                2 => with_header(
                    with_header(status(code), "retry-after", after),
                    "date",
                    "Sun, 06 Nov 1994 08:49:37 GMT",
                ),
                _ => events([event_id("2", result(1))]),
            });
            let leg = in_session(&server).await;
            let mut incoming = stream(request(&leg, call(1)).await);
            assert_eq!(rest(&mut incoming).await.1, None);
            let seen = server.seen();
            let waited = seen[3].at - seen[2].at;
            let range = Duration::from_secs(7)..Duration::from_millis(7_400);
            assert!(range.contains(&waited), "{code} {after}: {waited:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_resume_waits_no_longer_than_the_request_may() {
    let server = Server::new(|_, n| match n {
        0 => initialized(),
        1 => events([event_id("1", progress(1)), pause(), Step::Abort]),
        _ => with_header(status(503), "retry-after", "60"),
    });
    let leg = in_session(&server).await;
    let started = Instant::now();
    let context = RequestContext {
        deadline: Deadline::new(Some(started + Duration::from_secs(30))),
        ..RequestContext::default()
    };
    let mut incoming = stream(leg.request(call(1), context).await);
    let (_, end) = rest(&mut incoming).await;
    assert_eq!(end, Some((FaultKind::StreamEnded, Executed::Unknown)));
    assert!(started.elapsed() < Duration::from_secs(1), "known at once");
}

#[tokio::test(start_paused = true)]
async fn a_deadline_that_was_moved_gives_a_broken_request_more_time() {
    let server = Server::new(|_, n| match n {
        0 => initialized(),
        1 => events([
            Step::Sleep(Duration::from_secs(25)),
            event_id("1", progress(1)),
            pause(),
            Step::Abort,
        ]),
        2 => with_header(status(503), "retry-after", "20"),
        _ => events([event_id("2", result(1))]),
    });
    let leg = in_session(&server).await;
    let deadline = Deadline::new(Some(Instant::now() + Duration::from_secs(30)));
    let context = RequestContext {
        deadline: deadline.clone(),
        ..RequestContext::default()
    };
    let mut incoming = stream(leg.request(call(1), context).await);
    assert_eq!(next(&mut incoming).await, progress(1));
    deadline.set(Instant::now() + Duration::from_secs(30));
    assert_eq!(rest(&mut incoming).await, (vec![result(1)], None));
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
async fn a_refused_connection_is_tried_again_until_the_server_is_back() {
    let server = Server::new(|_, n| match n {
        0 => initialized(),
        1 => events([event_id("1", progress(1)), pause(), Step::Abort]),
        _ => events([event_id("2", result(1))]),
    });
    let leg = in_session(&server).await;
    let mut incoming = stream(request(&leg, call(1)).await);
    assert_eq!(next(&mut incoming).await, progress(1));
    server.refuse(3);
    let started = Instant::now();
    assert_eq!(rest(&mut incoming).await, (vec![result(1)], None));
    let took = started.elapsed();
    // At once, then after 1, 2 and 4 s, with jitter.
    let range = Duration::from_secs(7)..Duration::from_secs(10);
    assert!(range.contains(&took), "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn a_head_that_does_not_come_is_given_up_after_ten_seconds() {
    let server = Server::new(|_, n| match n {
        0 => initialized(),
        1 => events([event_id("1", progress(1)), pause(), Step::Abort]),
        2 => Answer::Silence,
        _ => events([event_id("2", result(1))]),
    });
    let leg = in_session(&server).await;
    let mut incoming = stream(request(&leg, call(1)).await);
    assert_eq!(rest(&mut incoming).await.1, None);
    let seen = server.seen();
    let waited = seen[3].at - seen[2].at;
    let range = Duration::from_secs(11)..Duration::from_millis(11_400);
    assert!(range.contains(&waited), "{waited:?}");
}

#[tokio::test(start_paused = true)]
async fn two_hundreds_that_bring_nothing_end_by_the_budget() {
    let server = Server::new(|_, n| match n {
        0 => initialized(),
        1 => events([event_id("1", progress(1)), pause(), Step::Abort]),
        _ => events([event_id("1", progress(1))]),
    });
    let leg = in_session(&server).await;
    let started = Instant::now();
    let mut incoming = stream(request(&leg, call(1)).await);
    let (messages, end) = rest(&mut incoming).await;
    assert_eq!(messages, [progress(1)]);
    assert_eq!(end, Some((FaultKind::BudgetExhausted, Executed::Unknown)));
    assert_eq!(server.seen().len(), 2 + 10);
    // 1 + 2 + 4 + 8 + 16 + 4 * 30 s, with jitter.
    let range = Duration::from_secs(150)..Duration::from_secs(200);
    assert!(
        range.contains(&started.elapsed()),
        "{:?}",
        started.elapsed()
    );
}

#[tokio::test(start_paused = true)]
async fn silence_is_death_only_where_a_reconnect_costs_nothing() {
    // With a cursor: after the idle timeout.
    let server = Server::new(|_, n| match n {
        0 => initialized(),
        1 => events([event_id("1", progress(1)), Step::Hang]),
        _ => events([event_id("2", result(1))]),
    });
    let leg = in_session(&server).await;
    let started = Instant::now();
    let mut incoming = stream(request(&leg, call(1)).await);
    assert_eq!(rest(&mut incoming).await.1, None);
    let range = Duration::from_secs(300)..Duration::from_secs(301);
    assert!(
        range.contains(&started.elapsed()),
        "{:?}",
        started.elapsed()
    );

    // Without one: a silent call is not killed for being silent.
    let server = Server::new(|_, n| match n {
        0 => initialized(),
        _ => events([
            event(progress(1)),
            Step::Sleep(Duration::from_secs(3600)),
            event(result(1)),
        ]),
    });
    let leg = in_session(&server).await;
    let mut incoming = stream(request(&leg, call(1)).await);
    assert_eq!(
        rest(&mut incoming).await,
        (vec![progress(1), result(1)], None)
    );
}

#[tokio::test(start_paused = true)]
async fn comments_that_stop_are_a_death() {
    let server = Server::new(|_, n| match n {
        0 => initialized(),
        1 => {
            let mut steps = vec![event_id("1", progress(1))];
            for _ in 0..4 {
                steps.extend([Step::Sleep(Duration::from_secs(10)), raw(": alive\n\n")]);
            }
            steps.push(Step::Hang);
            events(steps)
        }
        _ => events([event_id("2", result(1))]),
    });
    let leg = in_session(&server).await;
    let started = Instant::now();
    let mut incoming = stream(request(&leg, call(1)).await);
    assert_eq!(rest(&mut incoming).await.1, None);
    // The last comment after 40 s, then three periods.
    let range = Duration::from_secs(70)..Duration::from_secs(72);
    assert!(
        range.contains(&started.elapsed()),
        "{:?}",
        started.elapsed()
    );
}

#[tokio::test(start_paused = true)]
async fn a_slow_reader_is_no_silent_server() {
    let server = Server::new(|_, n| match n {
        0 => initialized(),
        _ => events([
            event_id("1", progress(1)),
            pause(),
            event_id("2", progress(2)),
            pause(),
            event_id("3", result(1)),
        ]),
    });
    let leg = in_session(&server).await;
    let mut incoming = stream(request(&leg, call(1)).await);
    for n in 1..=2 {
        assert_eq!(next(&mut incoming).await, progress(n));
        tokio::time::sleep(Duration::from_secs(1000)).await;
    }
    assert_eq!(rest(&mut incoming).await, (vec![result(1)], None));
    assert_eq!(server.seen().len(), 2);
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
        config.reconnect = Policy {
            initial: Duration::from_millis(500),
            max: Duration::from_millis(500),
            max_attempts: 3,
            dedup_window: 0,
            ..Policy::default()
        };
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
