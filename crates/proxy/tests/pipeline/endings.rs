//! What ends a request besides its answer: its deadline, a cancel; and what does not.

use std::time::Duration;

use shadowcat_proxy::config::Config;
use tokio::time::{Instant, sleep};

use crate::client::{Answer, Proxy};
use crate::exchanges::{CALL, data};
use crate::fake::Habits;

#[tokio::test(start_paused = true)]
async fn the_deadline_is_moved_by_its_own_progress_only() {
    let config = Config {
        request_timeout: Some(Duration::from_secs(10)),
        ..Config::default()
    };
    let proxy = Proxy::new(Habits::default(), config);
    let client = proxy.initialized().await;
    let call =
        r#"{"id":1,"method":"tools/call","params":{"name":"t","_meta":{"progressToken":"mine"}}}"#;
    let started = Instant::now();
    let posting = client.posting(call);
    let feeder = proxy.server.request().await.stream(false);
    let mut events = posting.await.unwrap().stream();
    let progress = |token: &str| {
        format!(
            r#"{{"method":"notifications/progress","params":{{"progressToken":"{token}","progress":1}}}}"#
        )
    };
    sleep(Duration::from_secs(8)).await;
    feeder.message(&progress("mine")).await;
    assert!(events.message().await.unwrap().contains("progress"));
    sleep(Duration::from_secs(8)).await;
    feeder.message(&progress("other")).await;
    assert!(events.message().await.unwrap().contains("progress"));
    let error = events.message().await.unwrap();
    assert!(error.contains(&data("timeout", "unknown")), "{error}");
    let took = started.elapsed().as_secs();
    assert_eq!(took, 18, "8 s, and 10 s from there");
    let cancel = proxy.server.sent().await;
    assert_eq!(
        cancel.method(),
        "notifications/cancelled",
        "the server is told"
    );
    cancel.accept();
    assert_eq!(events.message().await, None);
}

#[tokio::test(start_paused = true)]
async fn a_flood_does_not_outlive_the_deadline() {
    let config = Config {
        request_timeout: Some(Duration::from_secs(10)),
        ..Config::default()
    };
    let proxy = Proxy::new(Habits::default(), config);
    let client = proxy.initialized().await;
    let posting = client.posting(CALL);
    let feeder = proxy.server.request().await.stream(false);
    let events = posting.await.unwrap().stream();
    let flood = tokio::spawn(async move {
        while feeder.try_message(r#"{"method":"notifications/message"}"#) {
            sleep(Duration::from_millis(100)).await;
        }
    });
    let messages = events.rest().await;
    assert!(messages.last().unwrap().contains("timeout"));
    flood.abort();
}

/// Nobody looks at the deadline while the client's connection stands and takes nothing; whoever
/// takes the client for gone has that made up for.
#[tokio::test(start_paused = true)]
async fn a_deadline_is_kept_when_a_client_that_does_not_read_is_cut() {
    let config = Config {
        request_timeout: Some(Duration::from_secs(60)),
        ..Config::default()
    };
    let proxy = Proxy::new(Habits::default(), config);
    let client = proxy.initialized().await;
    let posting = client.posting(CALL);
    let _feeder = proxy.server.request().await.stream(false);
    let events = posting.await.unwrap().stream();
    sleep(Duration::from_secs(120)).await;
    drop(events);
    let cancel = proxy.server.sent().await;
    assert_eq!(cancel.method(), "notifications/cancelled");
    cancel.accept();
    let messages = client.get(Some("1-0")).await.stream().rest().await;
    assert!(
        messages[0].contains(&data("timeout", "unknown")),
        "{messages:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_cancelled_request_needs_no_answer() {
    let proxy = Proxy::new(Habits::default(), Config::default());
    let client = proxy.initialized().await;
    let posting = client.posting(CALL);
    let feeder = proxy.server.request().await.stream(false);
    let reading = tokio::spawn(posting.await.unwrap().stream().rest());
    let cancel = r#"{"method":"notifications/cancelled","params":{"requestId":1}}"#;
    assert!(matches!(client.post(cancel).await, Answer::Accepted));
    let sent = proxy.server.sent().await;
    assert_eq!(sent.method(), "notifications/cancelled");
    sent.accept();
    let cancelled = Instant::now();
    for _ in 0..3 {
        // What goes on does not keep it open for longer.
        sleep(Duration::from_secs(2)).await;
        let _ = feeder.try_message(r#"{"method":"notifications/message"}"#);
    }
    assert_eq!(reading.await.unwrap().len(), 2, "and then the end");
    assert!(cancelled.elapsed() < Duration::from_secs(7));
    let posting = client.posting(CALL);
    proxy.server.request().await.json("{}");
    assert!(
        posting.await.unwrap().body().contains("result"),
        "the id is free"
    );
}

#[tokio::test(start_paused = true)]
async fn a_cancelled_request_has_no_answer_when_its_session_ends() {
    let proxy = Proxy::new(Habits::default(), Config::default());
    let client = proxy.initialized().await;
    let posting = client.posting(CALL);
    let _feeder = proxy.server.request().await.stream(false);
    let reading = tokio::spawn(posting.await.unwrap().stream().rest());
    let cancel = r#"{"method":"notifications/cancelled","params":{"requestId":1}}"#;
    assert!(matches!(client.post(cancel).await, Answer::Accepted));
    proxy.server.sent().await.accept();
    client.delete().await;
    assert_eq!(reading.await.unwrap(), Vec::<String>::new());
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_crosses_a_cancel_still_arrives() {
    let proxy = Proxy::new(Habits::default(), Config::default());
    let client = proxy.initialized().await;
    let posting = client.posting(CALL);
    let request = proxy.server.request().await;
    let cancel = r#"{"method":"notifications/cancelled","params":{"requestId":1}}"#;
    client.post(cancel).await;
    sleep(Duration::from_secs(1)).await;
    request.json("{}");
    assert!(posting.await.unwrap().body().contains("result"));
}

#[tokio::test(start_paused = true)]
async fn a_client_that_vanishes_has_not_cancelled() {
    let proxy = Proxy::new(Habits::default(), Config::default());
    let client = proxy.initialized().await;
    let posting = client.posting(CALL);
    let request = proxy.server.request().await;
    posting.abort();
    assert!(
        proxy.server.is_quiet(Duration::from_secs(30)).await,
        "no cancel"
    );
    let duplicate = client.post(CALL).await.body();
    assert!(
        duplicate.contains("-32600"),
        "it is still open: {duplicate}"
    );
    request.json("{}");
    sleep(Duration::from_millis(1)).await;
    let posting = client.posting(CALL);
    proxy.server.request().await.json("{}");
    posting.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn what_the_server_asks_a_vanished_client_reaches_its_standalone_stream() {
    let proxy = Proxy::new(Habits::default(), Config::default());
    let client = proxy.initialized().await;
    let posting = client.posting(CALL);
    let request = proxy.server.request().await;
    posting.abort();
    sleep(Duration::from_millis(1)).await;
    let feeder = request.stream(false);
    feeder
        .message(r#"{"id":"q","method":"elicitation/create"}"#)
        .await;
    feeder
        .message(r#"{"method":"notifications/message"}"#)
        .await;
    feeder.respond("{}").await;
    let getting = client.getting(None);
    proxy.server.standalone().await.refuse();
    let mut events = getting.await.unwrap().stream();
    assert!(
        events
            .message()
            .await
            .unwrap()
            .contains("elicitation/create")
    );
}
