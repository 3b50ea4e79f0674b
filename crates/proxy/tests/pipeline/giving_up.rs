//! A server that does not come back: attempts are spaced, then rare, and requests are answered.

use std::time::Duration;

use shadowcat_mcp::fault::{Executed, FaultKind};
use shadowcat_proxy::config::Config;
use tokio::time::{Instant, sleep};

use crate::client::Proxy;
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
