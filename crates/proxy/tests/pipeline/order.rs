//! What may not overtake what.

use std::time::Duration;

use shadowcat_proxy::config::Config;
use tokio::time::sleep;

use crate::client::Proxy;
use crate::fake::{Call, Habits};
use crate::json::text;

#[tokio::test(start_paused = true)]
async fn nothing_overtakes_the_handshake() {
    let habits = Habits {
        by_hand: true,
        ..Habits::default()
    };
    let proxy = Proxy::new(habits, Config::default());
    let mut client = proxy.client();
    let server = std::sync::Arc::clone(&proxy.server);
    let answering = tokio::spawn(async move {
        let initialize = server.request().await;
        initialize.json(r#"{"protocolVersion":"2025-11-25","capabilities":{}}"#);
    });
    client.initialize("2025-11-25").await;
    answering.await.unwrap();
    client
        .post(r#"{"method":"notifications/initialized"}"#)
        .await;
    let listing = client.posting(r#"{"id":1,"method":"tools/list"}"#);
    let getting = client.getting(None);
    let initialized = proxy.server.sent().await;
    assert_eq!(initialized.method(), "notifications/initialized");
    assert!(
        proxy.server.is_quiet(Duration::from_secs(3)).await,
        "not accepted yet"
    );
    initialized.accept();
    for _ in 0..2 {
        match proxy.server.call().await {
            Call::Request(request) => request.json("{}"),
            Call::Standalone(standalone) => standalone.refuse(),
            Call::Sent(sent) => panic!("got {}", text(&sent.message)),
        }
    }
    listing.await.unwrap();
    getting.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn notifications_and_answers_keep_their_order() {
    let proxy = Proxy::new(Habits::default(), Config::default());
    let client = proxy.initialized().await;
    for number in 0..20 {
        let message = format!(
            r#"{{"method":"notifications/progress","params":{{"progressToken":{number},"progress":1}}}}"#
        );
        client.post(&message).await;
    }
    for number in 0..20_u64 {
        let sent = proxy.server.sent().await;
        assert!(text(&sent.message).contains(&format!(r#""progressToken":{number},"#)));
        sleep(Duration::from_millis(20 - number)).await;
        sent.accept();
    }
}

#[tokio::test(start_paused = true)]
async fn a_cancel_never_overtakes_its_request() {
    let proxy = Proxy::new(Habits::default(), Config::default());
    let client = proxy.initialized().await;
    let _posting = client.posting(r#"{"id":1,"method":"tools/call","params":{"name":"t"}}"#);
    let mut request = proxy.server.request().await;
    client
        .post(r#"{"method":"notifications/cancelled","params":{"requestId":1}}"#)
        .await;
    assert!(
        proxy.server.is_quiet(Duration::from_secs(2)).await,
        "the request has not left"
    );
    request.leaves();
    assert_eq!(
        proxy.server.sent().await.method(),
        "notifications/cancelled"
    );
}

#[tokio::test(start_paused = true)]
async fn a_request_cancelled_before_it_left_never_leaves() {
    let habits = Habits {
        by_hand: true,
        ..Habits::default()
    };
    let proxy = Proxy::new(habits, Config::default());
    let mut client = proxy.client();
    let server = std::sync::Arc::clone(&proxy.server);
    tokio::spawn(async move {
        let initialize = server.request().await;
        initialize.json(r#"{"protocolVersion":"2025-11-25","capabilities":{}}"#);
    });
    client.initialize("2025-11-25").await;
    client
        .post(r#"{"method":"notifications/initialized"}"#)
        .await;
    let initialized = proxy.server.sent().await;
    let posting = client.posting(r#"{"id":1,"method":"tools/call","params":{"name":"t"}}"#);
    sleep(Duration::from_millis(1)).await;
    client
        .post(r#"{"method":"notifications/cancelled","params":{"requestId":1}}"#)
        .await;
    sleep(Duration::from_secs(1)).await;
    initialized.accept();
    assert!(
        proxy.server.is_quiet(Duration::from_secs(20)).await,
        "neither it nor its cancel"
    );
    assert!(posting.await.unwrap().body().contains("cancelled"));
}
