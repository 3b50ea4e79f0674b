//! The standalone stream: it comes back for as long as the session lives.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use shadowcat_mcp::fault::{Executed, FaultKind};
use shadowcat_transport::upstream::{Incoming, Item, Leg, RequestContext};
use tokio::time::{Instant, timeout};

use crate::server::{Answer, Server, Step};
use crate::support::*;

fn note(n: u32) -> String {
    format!(r#"{{"jsonrpc":"2.0","method":"notifications/x","params":{{"n":{n}}}}}"#)
}

/// A server whose request 0 is the `initialize`, and that answers its n-th GET (from 1) by `get`.
fn serving(get: impl Fn(usize) -> Answer + Send + Sync + 'static) -> Arc<Server> {
    Server::new(move |_, n| match n {
        0 => initialized(),
        n => get(n),
    })
}

async fn opened(server: &Arc<Server>) -> (Arc<dyn Leg>, Incoming) {
    let leg = in_session(server).await;
    let incoming = leg.standalone().await.unwrap();
    (leg, incoming)
}

async fn gap(incoming: &mut Incoming) -> Duration {
    match incoming.next().await {
        Some(Ok(Item::Gap(away))) => away,
        other => panic!("expected a gap, got {other:?}"),
    }
}

/// Whether nothing comes for so long.
async fn quiet(incoming: &mut Incoming, time: Duration) -> bool {
    timeout(time, incoming.next()).await.is_err()
}

#[tokio::test(start_paused = true)]
async fn it_comes_back_with_its_cursor_and_without_a_gap() {
    let server = serving(|n| match n {
        1 => events([event_id("a", note(1)), pause(), Step::Abort]),
        2 => events([event_id("a", note(1)), event_id("b", note(2)), pause()]),
        _ => events([event_id("c", note(3)), Step::Hang]),
    });
    let (_leg, mut incoming) = opened(&server).await;
    for n in 1..=3 {
        assert_eq!(next(&mut incoming).await, note(n));
    }
    let seen = server.seen();
    let cursors: Vec<_> = seen[1..].iter().map(|seen| cursor(seen)).collect();
    assert_eq!(cursors, [None, Some("a"), Some("b")]);
    assert_eq!(seen[3].header("mcp-session-id"), Some("s1"));
}

#[tokio::test(start_paused = true)]
async fn without_ids_it_comes_back_plainly_and_says_that_there_is_a_gap() {
    let server = serving(|n| match n {
        1 => events([event(note(1)), pause(), Step::Abort]),
        2..=4 => status(503),
        _ => events([event(note(2)), Step::Hang]),
    });
    let (_leg, mut incoming) = opened(&server).await;
    assert_eq!(next(&mut incoming).await, note(1));
    let away = gap(&mut incoming).await;
    // At once, then after 1, 2 and 4 s, with jitter.
    let range = Duration::from_secs(7)..Duration::from_secs(10);
    assert!(range.contains(&away), "{away:?}");
    assert_eq!(next(&mut incoming).await, note(2));
    assert!(server.seen()[1..].iter().all(|seen| cursor(seen).is_none()));
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_the_server_does_not_offer_is_none_and_not_asked_for_again() {
    for code in [405, 404 + 6, 204, 400] {
        let server = serving(move |_| status(code));
        let leg = in_session(&server).await;
        assert!(leg.standalone().await.is_none(), "{code}");
        tokio::time::sleep(Duration::from_secs(3600)).await;
        assert_eq!(server.seen().len(), 2, "{code}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_405_at_a_reconnect_ends_it() {
    let server = serving(|n| match n {
        1 => events([event_id("a", note(1)), pause(), Step::Abort]),
        _ => status(405),
    });
    let (_leg, mut incoming) = opened(&server).await;
    assert_eq!(next(&mut incoming).await, note(1));
    assert!(incoming.next().await.is_none());
    tokio::time::sleep(Duration::from_secs(3600)).await;
    assert_eq!(server.seen().len(), 3);
}

#[tokio::test(start_paused = true)]
async fn a_lost_session_is_told() {
    for at_the_opening in [true, false] {
        let server = serving(move |n| match n {
            1 if !at_the_opening => events([event_id("a", note(1)), pause(), Step::Abort]),
            _ if at_the_opening => status(404),
            _ => Answer::Http(http(400, "text/plain", "No valid session ID provided")),
        });
        let (_leg, mut incoming) = opened(&server).await;
        if !at_the_opening {
            assert_eq!(next(&mut incoming).await, note(1));
        }
        let outcome = incoming.next().await.unwrap();
        assert_eq!(fault(outcome), (FaultKind::SessionLost, Executed::Unknown));
        assert!(incoming.next().await.is_none());
    }
}

#[tokio::test(start_paused = true)]
async fn a_refused_cursor_is_dropped_once() {
    let server = serving(|n| match n {
        1 => events([event_id("a", note(1)), pause(), Step::Abort]),
        2 => Answer::Http(http(400, "text/plain", "unknown event id")),
        _ => events([event_id("b", note(2)), Step::Hang]),
    });
    let (_leg, mut incoming) = opened(&server).await;
    assert_eq!(next(&mut incoming).await, note(1));
    gap(&mut incoming).await;
    assert_eq!(next(&mut incoming).await, note(2));
    let seen = server.seen();
    assert_eq!((cursor(&seen[2]), cursor(&seen[3])), (Some("a"), None));
}

#[tokio::test(start_paused = true)]
async fn a_challenge_parks_it_and_probes_bring_it_back() {
    let server = serving(|n| match n {
        1 => events([event_id("a", note(1)), pause(), Step::Abort]),
        2 | 3 => status(401),
        _ => events([event_id("b", note(2)), Step::Hang]),
    });
    let (_leg, mut incoming) = opened(&server).await;
    assert_eq!(next(&mut incoming).await, note(1));
    assert_eq!(next(&mut incoming).await, note(2));
    let seen = server.seen();
    for probe in [3, 4] {
        let waited = seen[probe].at - seen[probe - 1].at;
        let range = Duration::from_secs(48)..Duration::from_secs(72);
        assert!(range.contains(&waited), "{waited:?}");
    }
    assert_eq!(cursor(&seen[4]), Some("a"));
}

#[tokio::test(start_paused = true)]
async fn an_outage_of_an_hour_is_survived_with_few_attempts() {
    let server = serving(|n| match n {
        1 => events([event_id("a", note(1)), pause(), Step::Abort]),
        _ => events([event_id("b", note(2)), Step::Hang]),
    });
    let (_leg, mut incoming) = opened(&server).await;
    assert_eq!(next(&mut incoming).await, note(1));
    server.refuse(usize::MAX);
    let before = server.dials();
    assert!(quiet(&mut incoming, Duration::from_secs(3600)).await);
    let attempts = server.dials() - before;
    assert!((10..100).contains(&attempts), "{attempts}");
    server.refuse(0);
    let back = timeout(Duration::from_secs(75), next(&mut incoming)).await;
    assert_eq!(back.unwrap(), note(2));
    assert_eq!(cursor(server.seen().last().unwrap()), Some("a"));
}

#[tokio::test(start_paused = true)]
async fn a_server_that_is_down_at_the_first_attempt_does_not_hold_up_the_opening() {
    let server = serving(|_| events([event_id("a", note(1)), Step::Hang]));
    let leg = in_session(&server).await;
    // The connection of the handshake is idle for too long to be used again.
    tokio::time::sleep(Duration::from_secs(5)).await;
    server.refuse(2);
    let started = Instant::now();
    let mut incoming = leg.standalone().await.unwrap();
    assert!(started.elapsed() < Duration::from_millis(100));
    assert_eq!(next(&mut incoming).await, note(1));
    let range = Duration::from_secs(3)..Duration::from_secs(4);
    assert!(
        range.contains(&started.elapsed()),
        "{:?}",
        started.elapsed()
    );
}

#[tokio::test(start_paused = true)]
async fn half_open_silence_is_found_by_the_idle_timeout() {
    let server = serving(|n| match n {
        1 => events([event(note(1)), Step::Hang]),
        _ => events([event(note(2)), Step::Hang]),
    });
    let (_leg, mut incoming) = opened(&server).await;
    assert_eq!(next(&mut incoming).await, note(1));
    let started = Instant::now();
    assert!(gap(&mut incoming).await < Duration::from_secs(1));
    assert_eq!(next(&mut incoming).await, note(2));
    let range = Duration::from_secs(300)..Duration::from_secs(301);
    assert!(
        range.contains(&started.elapsed()),
        "{:?}",
        started.elapsed()
    );
}

#[tokio::test(start_paused = true)]
async fn two_hundreds_that_end_at_once_are_no_hot_loop() {
    let server = serving(|n| match n {
        1 => events([event_id("a", note(1))]),
        _ => events([]),
    });
    let (_leg, mut incoming) = opened(&server).await;
    assert_eq!(next(&mut incoming).await, note(1));
    assert!(quiet(&mut incoming, Duration::from_secs(3600)).await);
    // Ten tries in two or three minutes, then a probe each minute.
    let attempts = server.seen().len();
    assert!((40..100).contains(&attempts), "{attempts}");
}

#[tokio::test(start_paused = true)]
async fn a_wrong_type_is_tried_once_more() {
    let server = serving(|_| Answer::Http(http(200, "text/html", "<p>")));
    let (_leg, mut incoming) = opened(&server).await;
    assert!(quiet(&mut incoming, Duration::from_secs(30)).await);
    assert_eq!(server.seen().len(), 3);
}

#[tokio::test(start_paused = true)]
async fn an_event_over_the_limit_parks_it_and_drops_its_cursor() {
    let server = serving(|n| match n {
        1 => events([event_id("a", note(1)), event_id("b", "x".repeat(70 * 1024))]),
        _ => events([event_id("c", note(2)), Step::Hang]),
    });
    let (_leg, mut incoming) = opened(&server).await;
    assert_eq!(next(&mut incoming).await, note(1));
    gap(&mut incoming).await;
    assert_eq!(next(&mut incoming).await, note(2));
    let seen = server.seen();
    assert_eq!(cursor(&seen[2]), None);
    assert!(seen[2].at - seen[1].at >= Duration::from_secs(48));
}

#[tokio::test(start_paused = true)]
async fn standing_streams_leave_a_fifth_of_the_connections_to_calls() {
    let server = Server::new(|seen, n| match (n, seen.method.as_str()) {
        (0, _) => initialized(),
        (_, "GET") => events([Step::Hang]),
        _ => json(result(1)),
    });
    let config = shadowcat_transport::upstream::http::HttpUpstreamConfig {
        max_connections: 5,
        ..config()
    };
    let leg = in_session_with(config, &server).await;
    let mut held = Vec::new();
    for _ in 0..4 {
        held.push(leg.standalone().await.unwrap());
    }
    let fifth = tokio::spawn({
        let leg = Arc::clone(&leg);
        async move { leg.standalone().await.is_some() }
    });
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert!(!fifth.is_finished());
    assert_eq!(json_text(request(&leg, call(1)).await), result(1));
    held.pop();
    assert!(
        timeout(Duration::from_secs(1), fifth)
            .await
            .unwrap()
            .unwrap()
    );
}

/// A stream that was given up leaves its place to others; to come back it waits for one as a new
/// stream does.
#[tokio::test(start_paused = true)]
async fn a_reconnect_waits_for_a_place_like_a_first_connection() {
    const TRIES: usize = 2;
    let resumes = AtomicUsize::new(0);
    let server = Server::new(move |seen, n| match n {
        0 => initialized(),
        1 => events([event_id("a", note(1)), pause(), Step::Abort]),
        _ if cursor(seen).is_none() => events([Step::Hang]),
        _ if resumes.fetch_add(1, Ordering::SeqCst) < TRIES => status(503),
        _ => events([event_id("b", note(2)), Step::Hang]),
    });
    let mut config = config();
    config.max_connections = 1;
    Arc::make_mut(&mut config.reconnect).max_attempts = TRIES as u32;
    let leg = in_session_with(config, &server).await;
    let mut incoming = leg.standalone().await.unwrap();
    assert_eq!(next(&mut incoming).await, note(1));
    let back = tokio::spawn(async move { next(&mut incoming).await });
    tokio::time::sleep(Duration::from_secs(20)).await;
    let tried = server.seen().len();
    assert_eq!(tried, 2 + TRIES, "it is given up, and probed for later");
    let other = timeout(Duration::from_secs(1), leg.standalone()).await;
    let other = other.expect("its place is free").unwrap();
    tokio::time::sleep(Duration::from_secs(600)).await;
    assert_eq!(server.seen().len(), tried + 1, "there is no place to probe");
    drop(other);
    let back = timeout(Duration::from_secs(1), back).await.unwrap();
    assert_eq!(back.unwrap(), note(2));
    assert_eq!(cursor(&server.seen()[tried + 1]), Some("a"));
}

#[tokio::test(start_paused = true)]
async fn a_mass_drop_is_spread_out_and_paced() {
    const STREAMS: usize = 300;
    let server = Server::new(|seen, n| match (n, seen.method.as_str()) {
        (0, _) => initialized(),
        (_, "GET") if seen.header("last-event-id").is_none() => events([
            event_id("a", note(1)),
            Step::Sleep(Duration::from_secs(60) - (seen.at - seen.born)),
            Step::Abort,
        ]),
        _ => events([event_id("b", note(2)), Step::Hang]),
    });
    let config = shadowcat_transport::upstream::http::HttpUpstreamConfig {
        max_connections: 1000,
        ..config()
    };
    let leg = in_session_with(config, &server).await;
    let mut reading = tokio::task::JoinSet::new();
    for _ in 0..STREAMS {
        let leg = Arc::clone(&leg);
        reading.spawn(async move {
            let mut incoming = leg.standalone().await.unwrap();
            assert_eq!(next(&mut incoming).await, note(1));
            assert_eq!(next(&mut incoming).await, note(2));
            incoming
        });
    }
    let all = timeout(Duration::from_secs(120), reading.join_all())
        .await
        .unwrap();
    assert_eq!(all.len(), STREAMS);
    let mut starts: Vec<_> = server.seen().iter().map(|seen| seen.at).collect();
    starts.sort_unstable();
    for (first, start) in starts.iter().enumerate() {
        let window = Duration::from_secs(1);
        let within = starts[first..]
            .iter()
            .take_while(|at| **at - *start <= window);
        assert!(
            within.count() <= 20 + 50 + 1,
            "more than burst + rate x window"
        );
    }
}

/// What the client sent last is what the server is to see from us, too.
#[tokio::test(start_paused = true)]
async fn it_carries_the_client_s_credentials_where_they_are_forwarded() {
    for forward_auth in [true, false] {
        let server = Server::new(|_, n| match n {
            0 => initialized(),
            1 => json(result(1)),
            _ => events([event_id("a", note(1)), Step::Hang]),
        });
        let mut config = config();
        config.forward_auth = forward_auth;
        let leg = in_session_with(config, &server).await;
        let mut context = RequestContext::default();
        let token = "Bearer client's".parse().unwrap();
        context.headers.insert("authorization", token);
        assert!(leg.request(call(1), context).await.is_ok());
        let mut incoming = leg.standalone().await.unwrap();
        next(&mut incoming).await;
        let seen = server.seen();
        let expected = forward_auth.then_some("Bearer client's");
        assert_eq!(seen[2].header("authorization"), expected);
        leg.close().await;
        assert_eq!(server.seen()[3].header("authorization"), expected);
    }
}
