//! Modern clients over HTTP (2026-07-28): every request stands alone.

use std::time::Duration;

use http::HeaderValue;
use shadowcat_mcp::fault::{Executed, FaultKind};
use shadowcat_proxy::config::{Config, OnSessionLoss};
use shadowcat_transport::upstream::Item;
use tokio::time::sleep;

use crate::client::{Client, Proxy, shut_down};
use crate::fake::{Habits, MODERN, fault};

pub fn request(id: u64, method: &str) -> String {
    format!(
        r#"{{"id":{id},"method":"{method}","params":{{"_meta":{{"io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientCapabilities":{{}}}}}}}}"#
    )
}

pub fn client(proxy: &Proxy, method: &'static str) -> Client {
    let mut client = proxy.client();
    for (name, value) in [
        ("mcp-protocol-version", "2026-07-28"),
        ("mcp-method", method),
    ] {
        client.headers.insert(name, HeaderValue::from_static(value));
    }
    client
}

#[tokio::test(start_paused = true)]
async fn equal_ids_of_different_clients_do_not_meet() {
    let proxy = Proxy::new(Habits::default(), Config::default());
    let client = client(&proxy, "tools/list");
    let one = client.posting(&request(1, "tools/list"));
    let first = proxy.server.request().await;
    let two = client.posting(&request(1, "tools/list"));
    let second = proxy.server.request().await;
    assert_eq!((first.leg, second.leg), (MODERN, MODERN));
    second.json(r#"{"n":2,"resultType":"complete"}"#);
    first.json(r#"{"n":1,"resultType":"complete"}"#);
    assert!(one.await.unwrap().body().contains(r#""n":1"#));
    assert!(two.await.unwrap().body().contains(r#""n":2"#));
    assert_eq!(proxy.server.count("1000 initialize"), 0);
}

#[tokio::test(start_paused = true)]
async fn closing_the_stream_is_the_cancel() {
    let proxy = Proxy::new(Habits::default(), Config::default());
    let client = client(&proxy, "tools/list");
    let posting = client.posting(&request(1, "tools/list"));
    let feeder = proxy.server.request().await.stream(false);
    let mut events = posting.await.unwrap().stream();
    feeder
        .message(r#"{"method":"notifications/message"}"#)
        .await;
    let event = events.next().await.unwrap();
    assert_eq!(
        event.id, None,
        "nothing to come back to, and no priming event"
    );
    assert!(event.data.contains("notifications/message"));
    drop(events);
    feeder.closed().await;
}

#[tokio::test(start_paused = true)]
async fn a_client_that_vanishes_before_the_head_has_cancelled_too() {
    let proxy = Proxy::new(Habits::default(), Config::default());
    let client = client(&proxy, "tools/list");
    let posting = client.posting(&request(1, "tools/list"));
    let feeder = proxy.server.request().await;
    posting.abort();
    sleep(Duration::from_millis(1)).await;
    feeder.stream(false).closed().await;
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_ends_without_a_response_is_an_error() {
    let proxy = Proxy::new(Habits::default(), Config::default());
    let client = client(&proxy, "subscriptions/listen");
    let posting = client.posting(&request(1, "subscriptions/listen"));
    let feeder = proxy.server.request().await.stream(false);
    let events = posting.await.unwrap().stream();
    drop(feeder);
    let messages = events.rest().await;
    assert!(messages[0].contains("stream_ended"), "{messages:?}");
}

/// There is no session that could be lost to the client.
#[tokio::test(start_paused = true)]
async fn a_crash_is_healed_whatever_a_lost_session_means() {
    let habits = Habits {
        pipe: true,
        ..Habits::default()
    };
    let config = Config {
        on_session_loss: OnSessionLoss::Propagate,
        ..Config::default()
    };
    let proxy = Proxy::new(habits, config);
    let client = client(&proxy, "tools/list");
    let posting = client.posting(&request(1, "tools/list"));
    // It is asked for its era first.
    let discover = proxy.server.request().await;
    assert_eq!(discover.method(), "server/discover");
    discover.json(r#"{"supportedVersions":["2026-07-28"],"resultType":"complete"}"#);
    let list = proxy.server.request().await;
    list.fail(fault(FaultKind::ChildExited, Executed::Unknown));
    let posting = tokio::spawn(async move { posting.await.unwrap().response().await });
    let again = proxy.server.request().await;
    assert_eq!(again.method(), "tools/list");
    again.json(r#"{"resultType":"complete"}"#);
    assert!(posting.await.unwrap().contains("complete"));
}

#[tokio::test(start_paused = true)]
async fn what_listens_does_not_hold_up_a_drain() {
    let proxy = Proxy::new(Habits::default(), Config::default());
    let client = client(&proxy, "subscriptions/listen");
    let posting = client.posting(&request(1, "subscriptions/listen"));
    let _feeder = proxy.server.request().await.stream(false);
    let events = posting.await.unwrap().stream();
    let reading = tokio::spawn(events.rest());
    let started = tokio::time::Instant::now();
    shut_down(&proxy.gateway).await;
    assert!(
        started.elapsed() < Duration::from_secs(1),
        "{:?}",
        started.elapsed()
    );
    let messages = reading.await.unwrap();
    assert!(messages[0].contains("shutting_down"), "{messages:?}");
}

/// What may have changed while its stream was away, a subscriber is told on that stream: after more
/// than 5 s, at most once in 10 min.
#[tokio::test(start_paused = true)]
async fn a_subscriber_is_told_to_look_again_after_a_gap() {
    let proxy = Proxy::new(Habits::default(), Config::default());
    let client = client(&proxy, "subscriptions/listen");
    let posting = client.posting(&request(7, "subscriptions/listen"));
    let feeder = proxy.server.request().await.stream(false);
    let mut events = posting.await.unwrap().stream();
    let gap = |away| Ok(Item::Gap(Duration::from_secs(away)));
    let feeding = tokio::spawn(async move {
        // Nothing is acknowledged yet.
        feeder.item(gap(3600)).await;
        feeder
            .message(r#"{"method":"notifications/subscriptions/acknowledged","params":{"notifications":{"toolsListChanged":true,"resourceSubscriptions":["file:///a"]}}}"#)
            .await;
        for away in [4, 6, 7] {
            feeder.item(gap(away)).await;
        }
        feeder
            .message(r#"{"method":"notifications/tools/list_changed","params":{"own":1}}"#)
            .await;
        feeder
    });
    assert!(events.message().await.unwrap().contains("acknowledged"));
    let tag = r#""_meta":{"io.modelcontextprotocol/subscriptionId":7}"#;
    let expected = [
        format!(
            r#"{{"jsonrpc":"2.0","method":"notifications/tools/list_changed","params":{{{tag}}}}}"#
        ),
        format!(
            r#"{{"jsonrpc":"2.0","method":"notifications/resources/updated","params":{{"uri":"file:///a",{tag}}}}}"#
        ),
    ];
    for expected in expected {
        assert_eq!(events.message().await, Some(expected));
    }
    assert!(events.message().await.unwrap().contains(r#""own":1"#));
    drop(feeding.await);
}
