//! The engine behind a session's leg: when attempts are made, and what can be seen of them.

use std::time::Duration;

use shadowcat_mcp::fault::{Executed, Fault, FaultKind};
use shadowcat_proxy::config::Config;
use shadowcat_transport::metrics::StreamLabels;
use tokio::time::{Instant, sleep};

use crate::client::Proxy;
use crate::continuity::{CALL, LIST, crash};
use crate::fake::{Call, Habits, MODERN, fault, session_lost};
use crate::json::text;

const SECOND: Duration = Duration::from_secs(1);

/// The sessions that are in this state, as the gauges have it.
fn sessions_in(proxy: &Proxy, state: &'static str) -> i64 {
    let kind = "session";
    let labels = StreamLabels { kind, state };
    proxy.metrics.streams_by_state.get_or_create(&labels).get()
}

fn handshakes(proxy: &Proxy) -> usize {
    let seen = proxy.server.seen();
    let handshakes = seen.iter().filter(|seen| seen.ends_with(" initialize"));
    handshakes.count()
}

fn pipe() -> Habits {
    Habits {
        pipe: true,
        ..Habits::default()
    }
}

#[tokio::test(start_paused = true)]
async fn a_session_is_seen_like_any_stream() {
    let proxy = Proxy::new(Habits::default(), Config::default());
    let client = proxy.initialized().await;
    assert_eq!(sessions_in(&proxy, "open"), 1);
    let down = fault(FaultKind::Connect, Executed::No);
    proxy.server.broken.lock().insert(1, down);
    let posting = client.posting(CALL);
    proxy.server.request().await.fail(session_lost());
    sleep(SECOND).await;
    assert_eq!(
        (sessions_in(&proxy, "open"), sessions_in(&proxy, "backoff")),
        (0, 1)
    );
    proxy.server.request().await.json("{}");
    assert!(posting.await.unwrap().response().await.contains("result"));
    assert_eq!(sessions_in(&proxy, "open"), 1);
    let metrics = proxy.metrics.render();
    for line in [
        r#"stream_drops_total{reason="ended"} 1"#,
        r#"reconnect_attempts_total{reason="no_connection"} 1"#,
        r#"reconnect_attempts_total{reason="opened"} 1"#,
        r#"streams_by_liveness{kind="session",liveness="healthy"} 1"#,
        "time_to_recover_seconds_count 1",
        "sessions_healed_total 1",
        "sessions_not_healed_total 1",
        "given_up_total 0",
    ] {
        assert!(metrics.contains(line), "no {line} in {metrics}");
    }
    client.delete().await;
    sleep(SECOND).await;
    for state in ["open", "backoff", "queued", "connecting", "parked"] {
        assert_eq!(sessions_in(&proxy, state), 0, "{state}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_server_that_wants_time_before_a_new_session_gets_it() {
    for pipe in [false, true] {
        let (proxy, client) = Proxy::over(pipe).await;
        let wait = 7 * SECOND;
        let busy = fault(FaultKind::RateLimited, Executed::No).after(Some(wait));
        proxy.server.broken.lock().insert(1, busy);
        let posting = client.posting(CALL);
        proxy.server.request().await.fail(session_lost());
        let posting = tokio::spawn(async move { posting.await.unwrap().response().await });
        sleep(SECOND).await;
        assert_eq!(handshakes(&proxy), 2);
        sleep(wait - SECOND).await;
        assert_eq!(handshakes(&proxy), 2, "it asked for {wait:?}");
        sleep(SECOND).await;
        assert_eq!(handshakes(&proxy), 3);
        for _ in 0..=usize::from(pipe) {
            match proxy.server.call().await {
                Call::Request(request) => request.json("{}"),
                Call::Standalone(standalone) => standalone.refuse(),
                Call::Sent(sent) => panic!("got {}", text(&sent.message)),
            }
        }
        assert!(posting.await.unwrap().contains("result"));
    }
}

/// A request that a server wants later is not sent sooner because there is a new session.
#[tokio::test(start_paused = true)]
async fn a_request_that_the_server_wants_later_waits_in_the_new_session_too() {
    let proxy = Proxy::new(Habits::default(), Config::default());
    let client = proxy.initialized().await;
    let posting = client.posting(CALL);
    let lost = session_lost().after(Some(5 * SECOND));
    proxy.server.request().await.fail(lost);
    let posting = tokio::spawn(async move { posting.await.unwrap().response().await });
    assert!(proxy.server.is_quiet(4 * SECOND).await);
    assert_eq!(handshakes(&proxy), 2, "the session itself is not busy");
    let started = Instant::now();
    proxy.server.request().await.json("{}");
    assert!(started.elapsed() <= 2 * SECOND);
    assert!(posting.await.unwrap().contains("result"));

    let config = Config {
        request_timeout: Some(3 * SECOND),
        ..Config::default()
    };
    let proxy = Proxy::new(Habits::default(), config);
    let client = proxy.initialized().await;
    let posting = client.posting(CALL);
    let lost = session_lost().after(Some(5 * SECOND));
    proxy.server.request().await.fail(lost);
    let started = Instant::now();
    let body = posting.await.unwrap().response().await;
    assert!(body.contains(r#""executed":"no""#), "{body}");
    assert!(body.contains(r#""retry_after":5"#), "{body}");
    assert_eq!(started.elapsed(), Duration::ZERO, "there is no time for it");
}

/// What does not change by itself is not tried ten times.
#[tokio::test(start_paused = true)]
async fn what_is_not_temporary_is_given_up_at_once() {
    for kind in [FaultKind::Unauthorized, FaultKind::Tls] {
        let proxy = Proxy::new(pipe(), Config::default());
        let client = proxy.initialized().await;
        for leg in 1..5 {
            let refused = fault(kind, Executed::No);
            proxy.server.broken.lock().insert(leg, refused);
        }
        let down = crash(Executed::Unknown);
        proxy.server.standalone().await.stream().fail(down).await;
        sleep(SECOND).await;
        assert_eq!(proxy.metrics.given_up.get(), 1);
        assert_eq!(sessions_in(&proxy, "parked"), 1);
        let asked = Instant::now();
        let body = client.post(LIST).await.body();
        assert!(body.contains(kind.as_str()), "{body}");
        assert_eq!(asked.elapsed(), Duration::ZERO);
        sleep(75 * SECOND).await;
        assert_eq!(handshakes(&proxy), 3, "one more is a probe");
        assert_eq!(sessions_in(&proxy, "parked"), 1);
    }
}

/// What all have lost in one instant does not come back in one.
#[tokio::test(start_paused = true)]
async fn sessions_that_are_lost_together_are_spread_out() {
    const SESSIONS: usize = 120;
    let proxy = Proxy::new(pipe(), Config::default());
    let mut clients = Vec::new();
    let mut pipes = Vec::new();
    for _ in 0..SESSIONS {
        clients.push(proxy.initialized().await);
        pipes.push(proxy.server.standalone().await.stream());
    }
    for pipe in pipes {
        pipe.fail(crash(Executed::Unknown)).await;
    }
    let mut within = Vec::new();
    for _ in 0..10 {
        let before = handshakes(&proxy);
        sleep(SECOND).await;
        within.push(handshakes(&proxy) - before);
    }
    assert_eq!(within.iter().sum::<usize>(), SESSIONS, "{within:?}");
    assert!(within.iter().all(|n| *n <= 20 + 50), "{within:?}");
    assert_eq!(sessions_in(&proxy, "open"), SESSIONS as i64);
}

/// A modern process is started by the first message, and back when it answers.
#[tokio::test(start_paused = true)]
async fn a_modern_session_is_restored_when_something_came_of_it() {
    let proxy = Proxy::new(pipe(), Config::default());
    let client = crate::modern::client(&proxy, "tools/list");
    let list = |id| crate::modern::request(id, "tools/list");
    let posting = client.posting(&list(1));
    let discover = proxy.server.request().await;
    assert_eq!(discover.method(), "server/discover");
    discover.json(r#"{"supportedVersions":["2026-07-28"],"resultType":"complete"}"#);
    proxy
        .server
        .request()
        .await
        .json(r#"{"resultType":"complete"}"#);
    posting.await.unwrap().response().await;
    assert_eq!(sessions_in(&proxy, "open"), 1);
    let posting = client.posting(&list(2));
    let request = proxy.server.request().await;
    assert!(request.leg >= MODERN);
    request.fail(crash(Executed::No));
    let posting = tokio::spawn(async move { posting.await.unwrap().response().await });
    let again = proxy.server.request().await;
    sleep(5 * SECOND).await;
    assert_eq!(sessions_in(&proxy, "connecting"), 1, "nothing came yet");
    assert_eq!(proxy.metrics.sessions_healed.get(), 0);
    again.json(r#"{"resultType":"complete"}"#);
    assert!(posting.await.unwrap().contains("complete"));
    assert_eq!(sessions_in(&proxy, "open"), 1);
    assert_eq!(proxy.metrics.sessions_healed.get(), 1);
    // One that dies before it has answered anything has to wait.
    let (mut waits, mut died) = (Vec::new(), Instant::now());
    let posting = client.posting(&list(3));
    proxy.server.request().await.fail(crash(Executed::No));
    let dead: Fault = crash(Executed::Unknown);
    let answered = tokio::spawn(async move { posting.await.unwrap().response().await });
    for _ in 0..2 {
        proxy.server.request().await.fail(dead.clone());
        waits.push(died.elapsed());
        died = Instant::now();
    }
    assert!(waits[0] < SECOND && waits[1] >= SECOND, "{waits:?}");
    assert!(answered.await.unwrap().contains("child_exited"));
}

/// What a lost session brought, and the client takes only now, says nothing for the next one.
#[tokio::test(start_paused = true)]
async fn a_straggler_makes_no_new_session_productive() {
    let proxy = Proxy::new(pipe(), Config::default());
    let client = proxy.initialized().await;
    let standalone = proxy.server.standalone().await.stream();
    let posting = client.posting(CALL);
    let feeder = proxy.server.request().await.stream(true);
    let mut events = posting.await.unwrap().stream();
    feeder
        .message(r#"{"method":"notifications/message","params":{"level":"info","data":1}}"#)
        .await;
    standalone.fail(crash(Executed::Unknown)).await;
    let next = proxy.server.standalone().await.stream();
    assert!(
        events
            .message()
            .await
            .unwrap()
            .contains("notifications/message")
    );
    next.fail(crash(Executed::Unknown)).await;
    sleep(SECOND / 2).await;
    assert_eq!(handshakes(&proxy), 2, "it has to wait");
    sleep(SECOND).await;
    assert_eq!(handshakes(&proxy), 3);
}
