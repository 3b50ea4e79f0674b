//! A server that does not come back: attempts are spaced, then rare, and requests are answered.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use shadowcat_mcp::fault::{Executed, Fault, FaultKind};
use shadowcat_proxy::config::Config;
use shadowcat_sse::reconnect::Policy;
use tokio::time::{Instant, sleep};

use crate::client::{Client, Proxy};
use crate::continuity::{CALL, LIST, crash};
use crate::fake::{Call, Habits, fault, session_lost};
use crate::json::text;

#[tokio::test(start_paused = true)]
async fn crashes_in_a_row_are_spaced_and_then_answered() {
    let habits = Habits {
        pipe: true,
        ..Habits::default()
    };
    let proxy = Proxy::new(habits, Config::default());
    let client = proxy.initialized().await;
    let mut pipe = proxy.server.standalone().await.stream();
    let started = Instant::now();
    // The first comes after something productive and does not count.
    for crashed in 0..=10 {
        pipe.fail(crash(Executed::Unknown)).await;
        if crashed == 10 {
            break;
        }
        pipe = loop {
            if let Ok(Call::Standalone(standalone)) =
                tokio::time::timeout(Duration::from_secs(40), proxy.server.call()).await
            {
                break standalone.stream();
            }
        };
    }
    let took = started.elapsed();
    assert!(
        took > Duration::from_secs(150) && took < Duration::from_secs(250),
        "{took:?}"
    );
    sleep(Duration::from_secs(1)).await;
    let starts = proxy
        .server
        .seen()
        .iter()
        .filter(|s| s.ends_with(" initialize"))
        .count();
    let asked = Instant::now();
    let body = client.post(LIST).await.body();
    assert!(
        body.contains(r#""kind":"child_exited","executed":"no","retry_safe":true,"retry_after""#),
        "{body}"
    );
    assert_eq!(asked.elapsed(), Duration::ZERO, "at once");
    assert_eq!(proxy.metrics.given_up.get(), 1);
    sleep(Duration::from_secs(75)).await;
    let probed = proxy
        .server
        .seen()
        .iter()
        .filter(|s| s.ends_with(" initialize"))
        .count();
    assert_eq!(probed, starts + 1, "one probe");
    let posting = client.posting(LIST);
    loop {
        match proxy.server.call().await {
            Call::Request(request) => break request.json("{}"),
            Call::Standalone(standalone) => drop(standalone.stream()),
            Call::Sent(sent) => panic!("got {}", text(&sent.message)),
        }
    }
    assert!(
        posting.await.unwrap().body().contains("result"),
        "the probe succeeded"
    );
}

#[tokio::test(start_paused = true)]
async fn a_server_that_does_not_come_back_is_an_error_and_a_request_probes_it() {
    let proxy = Proxy::new(Habits::default(), Config::default());
    let client = proxy.initialized().await;
    for leg in 1..40 {
        let down = fault(FaultKind::Connect, Executed::No);
        proxy.server.broken.lock().insert(leg, down);
    }
    let posting = client.posting(CALL);
    let asked = Instant::now();
    proxy.server.request().await.fail(session_lost());
    let body = posting.await.unwrap().response().await;
    assert!(
        body.contains(r#""kind":"connect","executed":"no""#),
        "{body}"
    );
    assert!(
        asked.elapsed() < Duration::from_secs(30),
        "{:?}",
        asked.elapsed()
    );
    sleep(Duration::from_secs(600)).await;
    proxy.server.broken.lock().clear();
    let posting = client.posting(CALL);
    let back = Instant::now();
    proxy.server.request().await.json("{}");
    assert!(posting.await.unwrap().body().contains("result"));
    assert_eq!(
        back.elapsed(),
        Duration::ZERO,
        "the request itself is the probe"
    );
}

/// The attempts to come back have their own deadlines, and there are many: a request waits for none
/// of them longer than its client would.
#[tokio::test(start_paused = true)]
async fn a_server_that_hangs_in_the_handshake_is_not_waited_for_longer_than_clients_wait() {
    let proxy = Proxy::new(Habits::default(), Config::default());
    let client = proxy.initialized().await;
    proxy.server.deaf.store(true, Ordering::SeqCst);
    let posting = client.posting(CALL);
    proxy.server.request().await.fail(session_lost());
    let first = Instant::now();
    sleep(Duration::from_secs(20)).await;
    let later = client.posting(CALL);
    for (asked, began) in [(posting, first), (later, Instant::now())] {
        let body = asked.await.unwrap().response().await;
        assert!(body.contains(r#""executed":"no""#), "{body}");
        let took = began.elapsed();
        assert!(took > Duration::from_secs(9), "{took:?}");
        assert!(took < Duration::from_secs(46), "{took:?}");
    }
}

/// A session whose first attempt to come back failed with `down`, which was the last one.
async fn given_up(down: &Fault) -> (Proxy, Client) {
    let config = Config {
        reconnect: Arc::new(Policy {
            max_attempts: 1,
            ..Policy::default()
        }),
        ..Config::default()
    };
    let proxy = Proxy::new(Habits::default(), config);
    let client = proxy.initialized().await;
    for leg in 1..40 {
        proxy.server.broken.lock().insert(leg, down.clone());
    }
    let posting = client.posting(CALL);
    proxy.server.request().await.fail(session_lost());
    let body = posting.await.unwrap().response().await;
    assert!(body.contains(r#""executed":"no""#), "{body}");
    assert_eq!(handshakes(&proxy), 2);
    (proxy, client)
}

fn handshakes(proxy: &Proxy) -> usize {
    let seen = proxy.server.seen();
    seen.iter().filter(|s| s.ends_with(" initialize")).count()
}

#[tokio::test(start_paused = true)]
async fn a_server_that_was_given_up_is_not_asked_before_it_wants_to_be() {
    let wait = Duration::from_secs(120);
    let busy = fault(FaultKind::RateLimited, Executed::No).after(Some(wait));
    let (proxy, client) = given_up(&busy).await;
    for _ in 0..11 {
        sleep(Duration::from_secs(10)).await;
        let body = client.post(LIST).await.response().await;
        assert!(body.contains(r#""kind":"rate_limited","executed":"no""#));
        assert_eq!(handshakes(&proxy), 2, "before its time");
    }
    sleep(Duration::from_secs(10)).await;
    proxy.server.broken.lock().clear();
    let posting = client.posting(LIST);
    proxy.server.request().await.json("{}");
    assert!(posting.await.unwrap().body().contains("result"));
    assert_eq!(handshakes(&proxy), 3);
}

#[tokio::test(start_paused = true)]
async fn two_requests_at_once_probe_a_server_once() {
    let (proxy, client) = given_up(&fault(FaultKind::Connect, Executed::No)).await;
    sleep(Duration::from_secs(5)).await;
    let asking = [client.posting(LIST), client.posting(CALL)];
    for asked in asking {
        let body = asked.await.unwrap().response().await;
        assert!(body.contains(r#""kind":"connect""#), "{body}");
    }
    sleep(Duration::from_secs(5)).await;
    assert_eq!(handshakes(&proxy), 3);
}

/// Sessions come back at a pace, and a request waits no longer for that than for anything else.
#[tokio::test(start_paused = true)]
async fn requests_of_a_thousand_lost_sessions_are_answered_in_time() {
    const SESSIONS: usize = 1000;
    let proxy = Proxy::new(Habits::default(), Config::default());
    let mut clients = Vec::new();
    for _ in 0..SESSIONS {
        clients.push(proxy.initialized().await);
    }
    let lost = Instant::now();
    let asking: Vec<_> = clients.iter().map(|client| client.posting(CALL)).collect();
    let mut calls = Vec::new();
    for _ in 0..SESSIONS {
        calls.push(proxy.server.request().await);
    }
    for call in calls {
        call.fail(session_lost());
    }
    let server = Arc::clone(&proxy.server);
    let serving = tokio::spawn(async move {
        loop {
            server.request().await.json("{}");
        }
    });
    let (mut served, mut refused) = (0, 0);
    for asked in asking {
        let body = asked.await.unwrap().response().await;
        match body.contains("result") {
            true => served += 1,
            false => refused += 1,
        }
    }
    let took = lost.elapsed();
    serving.abort();
    assert!(took < Duration::from_secs(11), "{took:?}");
    assert!(served > 400 && refused > 100, "{served} and {refused}");
}
