//! The stream of messages that belong to no request.

use std::sync::atomic::Ordering;
use std::time::Duration;

use shadowcat_proxy::config::Config;
use shadowcat_store::{EventLog, Limits};
use shadowcat_transport::upstream::Item;
use tokio::time::sleep;

use crate::client::Proxy;
use crate::fake::Habits;

fn note(number: usize) -> String {
    format!(r#"{{"method":"notifications/message","params":{{"n":{number}}}}}"#)
}

const CHANGED: &str = r#"{"method":"notifications/tools/list_changed"}"#;

fn pipe() -> Habits {
    Habits {
        pipe: true,
        ..Habits::default()
    }
}

#[tokio::test(start_paused = true)]
async fn over_http_the_first_get_opens_it_and_on_a_pipe_the_handshake() {
    let proxy = Proxy::new(Habits::default(), Config::default());
    let client = proxy.initialized().await;
    assert!(proxy.server.is_quiet(Duration::from_secs(5)).await);
    let getting = client.getting(None);
    let feeder = proxy.server.standalone().await.stream();
    let mut events = getting.await.unwrap().stream();
    let priming = events.next().await.unwrap();
    assert_eq!(
        (priming.id.as_deref(), priming.retry.as_deref()),
        (Some("0-0"), Some("1000"))
    );
    feeder.message(CHANGED).await;
    let event = events.next().await.unwrap();
    assert_eq!(event.id.as_deref(), Some("0-1"));
    assert!(event.data.contains("list_changed"));

    let proxy = Proxy::new(pipe(), Config::default());
    let client = proxy.initialized().await;
    let _feeder = proxy.server.standalone().await.stream();
    assert!(!proxy.server.standalone_open.load(Ordering::SeqCst));
    let events = client.get(None).await.stream();
    assert!(proxy.server.standalone_open.load(Ordering::SeqCst));
    drop(events);
    assert!(!proxy.server.standalone_open.load(Ordering::SeqCst));
}

#[tokio::test(start_paused = true)]
async fn messages_wait_for_a_reader() {
    let proxy = Proxy::new(pipe(), Config::default());
    let client = proxy.initialized().await;
    let feeder = proxy.server.standalone().await.stream();
    for number in 1..=3 {
        feeder.message(&note(number)).await;
    }
    feeder.message(r#"{"id":4,"method":"roots/list"}"#).await;
    sleep(Duration::from_secs(1)).await;
    let mut events = client.get(None).await.stream();
    for number in 1..=3 {
        assert!(
            events
                .message()
                .await
                .unwrap()
                .contains(&format!(r#""n":{number}"#))
        );
    }
    assert!(events.message().await.unwrap().contains("roots/list"));
}

#[tokio::test(start_paused = true)]
async fn a_new_get_replaces_the_old_one_and_a_cursor_replays() {
    let proxy = Proxy::new(pipe(), Config::default());
    let client = proxy.initialized().await;
    let feeder = proxy.server.standalone().await.stream();
    let mut first = client.get(None).await.stream();
    feeder.message(&note(1)).await;
    assert!(first.message().await.unwrap().contains(r#""n":1"#));
    let mut second = client.get(None).await.stream();
    feeder.message(&note(2)).await;
    assert!(second.message().await.unwrap().contains(r#""n":2"#));
    assert_eq!(first.message().await, None, "replaced");
    drop(first);
    let mut third = client.get(Some("0-1")).await.stream();
    assert!(
        third.message().await.unwrap().contains(r#""n":2"#),
        "not seen after 0-1"
    );
    assert_eq!(second.message().await, None, "replaced");
    assert!(proxy.server.standalone_open.load(Ordering::SeqCst));
    assert_eq!(client.get(Some("0-9")).await.status(), 400);
}

/// A reader that was replaced says nothing any more, neither about what it read nor when it goes.
#[tokio::test(start_paused = true)]
async fn a_replaced_reader_does_not_take_from_the_new_one() {
    let limits = Limits {
        stream_bytes: 300,
        record_bytes: 0,
        ..Limits::default()
    };
    let proxy = Proxy::with_limits(pipe(), Config::default(), limits);
    let client = proxy.initialized().await;
    let feeder = proxy.server.standalone().await.stream();
    let mut old = client.get(None).await.stream();
    old.next().await;
    let mut new = client.get(None).await.stream();
    drop(old);
    sleep(Duration::from_millis(1)).await;
    let giving = tokio::spawn(async move {
        for number in 0..50 {
            feeder.message(&note(number)).await;
        }
        feeder
    });
    sleep(Duration::from_secs(1)).await;
    for number in 0..50 {
        let message = new.message().await.unwrap();
        assert!(
            message.contains(&format!(r#""n":{number}}}"#)),
            "{number}: {message}"
        );
    }
    assert_eq!(proxy.log.usage().notifications_given_up, 0);
    giving.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn notifications_that_say_the_same_are_kept_once_while_unread() {
    let proxy = Proxy::new(pipe(), Config::default());
    let client = proxy.initialized().await;
    let feeder = proxy.server.standalone().await.stream();
    for _ in 0..5 {
        feeder.message(CHANGED).await;
        feeder
            .message(r#"{"method":"notifications/resources/updated","params":{"uri":"a"}}"#)
            .await;
    }
    feeder.message(&note(1)).await;
    sleep(Duration::from_millis(1)).await;
    let mut events = client.get(None).await.stream();
    assert!(events.message().await.unwrap().contains("list_changed"));
    assert!(events.message().await.unwrap().contains("updated"));
    assert!(events.message().await.unwrap().contains(r#""n":1"#));
    assert_eq!(proxy.metrics.coalesced.get(), 8);
    feeder.message(CHANGED).await;
    assert!(
        events.message().await.unwrap().contains("list_changed"),
        "that one was read"
    );
}

/// A change that the log has given up must be told again when it comes again.
#[tokio::test(start_paused = true)]
async fn a_change_that_was_given_up_is_not_taken_for_waiting() {
    let limits = Limits {
        stream_bytes: 300,
        record_bytes: 0,
        ..Limits::default()
    };
    let proxy = Proxy::with_limits(pipe(), Config::default(), limits);
    let client = proxy.initialized().await;
    let feeder = proxy.server.standalone().await.stream();
    feeder.message(CHANGED).await;
    for number in 0..20 {
        feeder.message(&note(number)).await;
    }
    feeder.message(CHANGED).await;
    sleep(Duration::from_millis(1)).await;
    let mut events = client.get(None).await.stream();
    let mut last = String::new();
    while let Ok(Some(message)) =
        tokio::time::timeout(Duration::from_secs(1), events.message()).await
    {
        last = message;
    }
    assert!(last.contains("list_changed"), "{last}");

    // The same, given up because its time was over.
    let proxy = Proxy::new(pipe(), Config::default());
    let client = proxy.initialized().await;
    let feeder = proxy.server.standalone().await.stream();
    feeder.message(CHANGED).await;
    sleep(Duration::from_secs(320)).await;
    feeder.message(CHANGED).await;
    sleep(Duration::from_millis(1)).await;
    let mut events = client.get(None).await.stream();
    assert!(events.message().await.unwrap().contains("list_changed"));
}

#[tokio::test(start_paused = true)]
async fn a_full_log_without_a_reader_keeps_the_newest_and_counts() {
    let limits = Limits {
        stream_bytes: 1000,
        record_bytes: 0,
        ..Limits::default()
    };
    let proxy = Proxy::with_limits(pipe(), Config::default(), limits);
    let client = proxy.initialized().await;
    let feeder = proxy.server.standalone().await.stream();
    feeder.message(r#"{"id":4,"method":"roots/list"}"#).await;
    for number in 0..100 {
        feeder.message(&note(number)).await;
    }
    sleep(Duration::from_secs(11)).await;
    let given_up = proxy.log.usage().notifications_given_up;
    assert!(given_up > 80);
    let reason = shadowcat_transport::metrics::Reason::of("log full");
    let counted = proxy.metrics.messages_given_up.get_or_create(&reason).get();
    assert_eq!(counted, given_up, "the metrics say so");
    let mut events = client.get(None).await.stream();
    assert!(events.message().await.unwrap().contains("roots/list"));
    assert!(events.message().await.is_some());
    assert_eq!(proxy.metrics.replay_missed.get(), given_up);
}

#[tokio::test(start_paused = true)]
async fn a_gap_makes_the_client_refresh_now_and_then() {
    let proxy = Proxy::new(Habits::default(), Config::default());
    let client = proxy.initialized().await;
    let getting = client.getting(None);
    let feeder = proxy.server.standalone().await.stream();
    let mut events = getting.await.unwrap().stream();
    for away in [1, 6, 6] {
        feeder.item(Ok(Item::Gap(Duration::from_secs(away)))).await;
    }
    feeder.message(&note(1)).await;
    assert!(
        events
            .message()
            .await
            .unwrap()
            .contains("tools/list_changed")
    );
    assert!(
        events
            .message()
            .await
            .unwrap()
            .contains("resources/list_changed")
    );
    assert!(events.message().await.unwrap().contains(r#""n":1"#));
}

#[tokio::test(start_paused = true)]
async fn responses_have_no_place_here() {
    let proxy = Proxy::new(pipe(), Config::default());
    let client = proxy.initialized().await;
    let feeder = proxy.server.standalone().await.stream();
    feeder.message(r#"{"id":4,"result":{}}"#).await;
    feeder.message(&note(1)).await;
    let mut events = client.get(None).await.stream();
    assert!(events.message().await.unwrap().contains(r#""n":1"#));
    assert_eq!(proxy.metrics.stray_responses.get(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_server_that_asks_where_nobody_listens_gets_an_answer() {
    let proxy = Proxy::new(pipe(), Config::default());
    let client = proxy.initialized().await;
    let feeder = proxy.server.standalone().await.stream();
    feeder.message(r#"{"id":4,"method":"roots/list"}"#).await;
    sleep(Duration::from_secs(280)).await;
    feeder.message(r#"{"id":5,"method":"roots/list"}"#).await;
    assert!(proxy.server.is_quiet(Duration::from_secs(10)).await);
    let answer = proxy.server.sent().await;
    let text = crate::json::text(&answer.message);
    assert!(text.contains(r#""id":4,"error":{"code":-32603"#), "{text}");
    answer.accept();
    let mut events = client.get(None).await.stream();
    assert!(events.message().await.unwrap().contains(r#""id":5"#));
    sleep(Duration::from_secs(400)).await;
    assert!(
        proxy.server.is_quiet(Duration::from_secs(30)).await,
        "the client has it"
    );
}
