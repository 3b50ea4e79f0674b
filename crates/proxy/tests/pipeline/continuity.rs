//! A lost upstream session, and what the client notices of it.

use std::sync::Arc;
use std::time::Duration;

use shadowcat_mcp::fault::{Executed, Fault, FaultKind};
use shadowcat_proxy::config::{Config, OnSessionLoss};
use tokio::task::JoinHandle;
use tokio::time::sleep;

use crate::client::{Answer, Client, Proxy};
use crate::fake::{Call, FakeServer, Habits, fault, session_lost};
use crate::json::text;

pub const CALL: &str = r#"{"id":1,"method":"tools/call","params":{"name":"t"}}"#;
pub const LIST: &str = r#"{"id":2,"method":"tools/list"}"#;

pub fn crash(executed: Executed) -> Fault {
    fault(FaultKind::ChildExited, executed)
}

/// A client with a log level, a subscription and an open standalone stream.
async fn set_up(proxy: &Proxy) -> (Client, crate::client::Events, crate::fake::Feeder) {
    let client = proxy.initialized().await;
    let opened = match proxy.server.is_pipe() {
        true => Some(proxy.server.standalone().await.stream()),
        false => None,
    };
    for setting in [
        r#"{"id":10,"method":"logging/setLevel","params":{"level":"debug"}}"#,
        r#"{"id":11,"method":"resources/subscribe","params":{"uri":"file:///a"}}"#,
        r#"{"id":12,"method":"resources/subscribe","params":{"uri":"file:///b"}}"#,
        r#"{"id":13,"method":"resources/unsubscribe","params":{"uri":"file:///b"}}"#,
    ] {
        let posting = client.posting(setting);
        proxy.server.request().await.json("{}");
        posting.await.unwrap();
    }
    let getting = client.getting(None);
    let feeder = match opened {
        Some(feeder) => feeder,
        None => proxy.server.standalone().await.stream(),
    };
    let events = getting.await.unwrap().stream();
    (client, events, feeder)
}

/// Answers what a new session is set up with.
async fn restore(server: &FakeServer, leg: usize) {
    for method in ["logging/setLevel", "resources/subscribe"] {
        let request = server.request().await;
        assert_eq!((request.leg, request.method()), (leg, method));
        request.json("{}");
    }
}

/// A server may say by itself what we say for it.
#[tokio::test(start_paused = true)]
async fn each_change_is_told_once_after_a_restart() {
    let proxy = Proxy::new(Habits::default(), Config::default());
    let (client, mut events, feeder) = set_up(&proxy).await;
    feeder.fail(session_lost()).await;
    let early = proxy.server.request().await.stream(false);
    early
        .message(r#"{"method":"notifications/tools/list_changed","params":{}}"#)
        .await;
    early.respond("{}").await;
    proxy.server.request().await.json("{}");
    proxy.server.standalone().await.refuse();
    let mut news = Vec::new();
    for _ in 0..3 {
        news.push(events.message().await.unwrap());
    }
    for once in ["tools/list_changed", "resources/list_changed", "file:///a"] {
        let told = news.iter().filter(|message| message.contains(once));
        assert_eq!(told.count(), 1, "{news:?}");
    }
    client.delete().await;
    assert_eq!(events.message().await, None);
}

#[tokio::test(start_paused = true)]
async fn a_refused_request_goes_once_into_the_new_session_whatever_its_method() {
    let proxy = Proxy::new(Habits::default(), Config::default());
    let (client, mut events, _feeder) = set_up(&proxy).await;
    let posting = client.posting(CALL);
    proxy.server.request().await.fail(session_lost());
    restore(&proxy.server, 1).await;
    let mut answered = false;
    for _ in 0..2 {
        match proxy.server.call().await {
            Call::Request(request) => {
                assert_eq!((request.leg, request.method()), (1, "tools/call"));
                request.json(r#"{"again":1}"#);
                answered = true;
            }
            Call::Standalone(standalone) => {
                assert_eq!(standalone.leg, 1);
                standalone.refuse();
            }
            Call::Sent(sent) => panic!("got {}", text(&sent.message)),
        }
    }
    assert!(answered && posting.await.unwrap().body().contains("again"));
    let mut news = Vec::new();
    for _ in 0..3 {
        news.push(events.message().await.unwrap());
    }
    let told = |what: &str| news.iter().any(|message| message.contains(what));
    assert!(
        told("tools/list_changed") && told("resources/list_changed"),
        "{news:?}"
    );
    assert!(told(r#""uri":"file:///a""#), "{news:?}");
    let seen = proxy.server.seen();
    let of_the_new: Vec<_> = seen.iter().filter(|seen| seen.starts_with("1 ")).collect();
    assert_eq!(
        of_the_new[..5],
        [
            "1 initialize",
            "1 = 2025-11-25",
            "1 notifications/initialized",
            "1 logging/setLevel",
            "1 resources/subscribe",
        ]
    );
    assert_eq!(proxy.server.count("0 close"), 1);
    assert_eq!(proxy.metrics.sessions_healed.get(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_request_is_refused_twice_at_most() {
    let proxy = Proxy::new(Habits::default(), Config::default());
    let client = proxy.initialized().await;
    let posting = client.posting(CALL);
    for _ in 0..2 {
        proxy.server.request().await.fail(session_lost());
    }
    let body = posting.await.unwrap().body();
    assert!(
        body.contains(r#""kind":"status","executed":"unknown""#),
        "{body}"
    );
}

/// What refuses it in a session that was just made may mean the request.
#[tokio::test(start_paused = true)]
async fn no_session_is_thrown_away_by_a_request_that_another_one_was_lost_by() {
    let proxy = Proxy::new(Habits::default(), Config::default());
    let client = proxy.initialized().await;
    let posting = client.posting(CALL);
    for _ in 0..2 {
        proxy.server.request().await.fail(session_lost());
    }
    posting.await.unwrap();
    let posting = client.posting(LIST);
    let request = proxy.server.request().await;
    assert_eq!((request.leg, request.method()), (1, "tools/list"));
    // By another request it may be lost.
    request.fail(session_lost());
    let request = proxy.server.request().await;
    assert_eq!((request.leg, request.method()), (2, "tools/list"));
    request.json("{}");
    assert!(posting.await.unwrap().body().contains("result"));
}

#[tokio::test(start_paused = true)]
async fn a_restart_in_the_middle_of_a_safe_request_is_survived() {
    let proxy = Proxy::new(Habits::default(), Config::default());
    let client = proxy.initialized().await;
    let posting = client.posting(LIST);
    let lost = fault(FaultKind::ConnectionLost, Executed::Unknown);
    proxy.server.request().await.fail(lost);
    proxy.server.request().await.fail(session_lost());
    let request = proxy.server.request().await;
    assert_eq!(request.leg, 1);
    request.json("{}");
    assert!(posting.await.unwrap().body().contains("result"));
}

#[tokio::test(start_paused = true)]
async fn a_crash_is_healed_once_for_all_who_notice() {
    for pipe in [false, true] {
        let (proxy, client) = Proxy::over(pipe).await;
        let mut calls = Vec::new();
        for id in 100..104 {
            let call = format!(r#"{{"id":{id},"method":"tools/call","params":{{"name":"t"}}}}"#);
            calls.push((client.posting(&call), proxy.server.request().await));
        }
        let listing = client.posting(LIST);
        let list = proxy.server.request().await;
        let unsent = client.posting(r#"{"id":3,"method":"tools/call","params":{"name":"u"}}"#);
        let never_arrived = proxy.server.request().await;
        let (answers, requests): (Vec<_>, Vec<_>) = calls.into_iter().unzip();
        // Whoever reads no further holds up the rest.
        let read = |answer: JoinHandle<Answer>| {
            tokio::spawn(async move { answer.await.unwrap().response().await })
        };
        let answers: Vec<_> = answers.into_iter().map(read).collect();
        let (listing, unsent) = (read(listing), read(unsent));
        for request in requests {
            request.fail(crash(Executed::Unknown));
        }
        list.fail(crash(Executed::Unknown));
        never_arrived.fail(crash(Executed::No));
        for _ in 0..if pipe { 3 } else { 2 } {
            match proxy.server.call().await {
                Call::Request(request) => {
                    assert_eq!(request.leg, 1);
                    request.json("{}");
                }
                Call::Standalone(standalone) => standalone.refuse(),
                Call::Sent(sent) => panic!("got {}", text(&sent.message)),
            }
        }
        for answer in answers {
            let body = answer.await.unwrap();
            assert!(
                body.contains(r#""kind":"child_exited","executed":"unknown""#),
                "{body}"
            );
        }
        assert!(listing.await.unwrap().contains("result"));
        assert!(unsent.await.unwrap().contains("result"));
        assert_eq!(proxy.server.count("1 initialize"), 1);
        assert_eq!(proxy.server.count("2 initialize"), 0);
    }
}

#[tokio::test(start_paused = true)]
async fn requests_and_notifications_wait_for_the_new_session() {
    let habits = Habits {
        by_hand: true,
        ..Habits::default()
    };
    let proxy = Proxy::new(habits, Config::default());
    let mut client = proxy.client();
    let server = Arc::clone(&proxy.server);
    tokio::spawn(async move {
        let initialize = server.request().await;
        initialize.json(r#"{"protocolVersion":"2025-11-25","capabilities":{}}"#);
    });
    client.initialize("2025-11-25").await;
    client
        .post(r#"{"method":"notifications/initialized"}"#)
        .await;
    proxy.server.sent().await.accept();
    let posting = client.posting(CALL);
    proxy.server.request().await.fail(session_lost());
    let initialize = proxy.server.request().await;
    assert_eq!(initialize.method(), "initialize");
    let listing = client.posting(LIST);
    client
        .post(r#"{"method":"notifications/roots/list_changed"}"#)
        .await;
    assert!(proxy.server.is_quiet(Duration::from_secs(1)).await);
    initialize.json(r#"{"protocolVersion":"2025-11-25","capabilities":{}}"#);
    let initialized = proxy.server.sent().await;
    assert_eq!(
        (initialized.leg, initialized.method()),
        (1, "notifications/initialized")
    );
    assert!(proxy.server.is_quiet(Duration::from_secs(1)).await);
    initialized.accept();
    for _ in 0..3 {
        match proxy.server.call().await {
            Call::Request(request) => {
                assert_eq!(request.leg, 1);
                request.json("{}");
            }
            Call::Sent(sent) => {
                assert_eq!(
                    (sent.leg, sent.method()),
                    (1, "notifications/roots/list_changed")
                );
                sent.accept();
            }
            Call::Standalone(_) => panic!("nobody asked for it"),
        }
    }
    posting.await.unwrap();
    listing.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn whoever_notices_may_go_and_the_session_is_still_restored() {
    let habits = Habits {
        by_hand: true,
        ..Habits::default()
    };
    let config = Config {
        request_timeout: Some(Duration::from_secs(2)),
        ..Config::default()
    };
    let proxy = Proxy::new(habits, config);
    let mut client = proxy.client();
    let server = Arc::clone(&proxy.server);
    tokio::spawn(async move {
        let initialize = server.request().await;
        initialize.json(r#"{"protocolVersion":"2025-11-25","capabilities":{}}"#);
    });
    client.initialize("2025-11-25").await;
    client
        .post(r#"{"method":"notifications/initialized"}"#)
        .await;
    proxy.server.sent().await.accept();
    let posting = client.posting(CALL);
    proxy.server.request().await.fail(session_lost());
    let initialize = proxy.server.request().await;
    assert!(posting.await.unwrap().body().contains("timeout"));
    initialize.json(r#"{"protocolVersion":"2025-11-25","capabilities":{}}"#);
    proxy.server.sent().await.accept();
    let posting = client.posting(LIST);
    let list = proxy.server.request().await;
    assert_eq!(list.leg, 1, "one handshake was enough");
    list.json("{}");
    posting.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn open_server_requests_are_taken_back_and_late_answers_dropped() {
    let proxy = Proxy::new(Habits::default(), Config::default());
    let (client, mut events, feeder) = set_up(&proxy).await;
    feeder
        .message(r#"{"id":0,"method":"elicitation/create"}"#)
        .await;
    assert!(
        events
            .message()
            .await
            .unwrap()
            .contains("elicitation/create")
    );
    feeder.fail(session_lost()).await;
    restore(&proxy.server, 1).await;
    let feeder = proxy.server.standalone().await.stream();
    feeder.message(r#"{"id":0,"method":"roots/list"}"#).await;
    let mut ask = String::new();
    let mut cancelled = false;
    for _ in 0..5 {
        let message = events.message().await.unwrap();
        cancelled |=
            message.contains("notifications/cancelled") && message.contains(r#""requestId":0"#);
        if message.contains("roots/list") {
            ask = message;
        }
    }
    assert!(cancelled);
    client
        .post(r#"{"id":0,"result":{"action":"accept"}}"#)
        .await;
    assert!(
        proxy.server.is_quiet(Duration::from_secs(1)).await,
        "a late answer"
    );
    let ask = crate::json::parse(&ask);
    let id = ask.id().unwrap().to_json();
    assert_ne!(id, "0", "the client cannot take it for the lost one");
    client
        .post(&format!(r#"{{"id":{id},"result":{{"roots":[]}}}}"#))
        .await;
    let answer = proxy.server.sent().await;
    assert_eq!(
        text(&answer.message),
        r#"{"jsonrpc":"2.0","id":0,"result":{"roots":[]}}"#
    );
}

#[tokio::test(start_paused = true)]
async fn what_a_new_session_asks_at_once_reaches_the_client() {
    let habits = Habits {
        pipe: true,
        ..Habits::default()
    };
    let proxy = Proxy::new(habits, Config::default());
    let (client, mut events, feeder) = set_up(&proxy).await;
    feeder.fail(crash(Executed::Unknown)).await;
    let level = proxy.server.request().await;
    assert_eq!(level.method(), "logging/setLevel");
    let pipe = level.stream(true);
    pipe.message(r#"{"id":3,"method":"roots/list"}"#).await;
    pipe.respond("{}").await;
    proxy.server.request().await.json("{}");
    proxy.server.standalone().await.refuse();
    assert!(events.message().await.unwrap().contains("roots/list"));
    client.post(r#"{"id":3,"result":{"roots":[]}}"#).await;
    assert_eq!(proxy.server.sent().await.leg, 1);
}

#[tokio::test(start_paused = true)]
async fn another_version_ends_the_session_and_names_both() {
    let habits = Habits {
        versions: vec!["2025-11-25", "2025-03-26"],
        ..Habits::default()
    };
    let proxy = Proxy::new(habits, Config::default());
    let client = proxy.initialized().await;
    let posting = client.posting(CALL);
    proxy.server.request().await.fail(session_lost());
    let body = posting.await.unwrap().body();
    assert!(
        body.contains("2025-11-25") && body.contains("2025-03-26"),
        "{body}"
    );
    assert_eq!(client.post(LIST).await.status(), 404);
    assert_eq!(proxy.server.count("1 close"), 1);
}

#[tokio::test(start_paused = true)]
async fn a_loss_that_is_passed_on_is_a_404() {
    let config = Config {
        on_session_loss: OnSessionLoss::Propagate,
        ..Config::default()
    };
    let proxy = Proxy::new(Habits::default(), config.clone());
    let client = proxy.initialized().await;
    let posting = client.posting(CALL);
    proxy.server.request().await.fail(session_lost());
    assert_eq!(posting.await.unwrap().status(), 404, "it was not executed");
    assert_eq!(client.post(LIST).await.status(), 404);
    assert_eq!(proxy.server.count("1 initialize"), 0);

    let proxy = Proxy::new(Habits::default(), config);
    let client = proxy.initialized().await;
    let posting = client.posting(CALL);
    proxy.server.request().await.fail(crash(Executed::Unknown));
    let body = posting.await.unwrap().body();
    assert!(
        body.contains(r#""executed":"unknown""#),
        "it may have been: {body}"
    );
    assert_eq!(client.post(LIST).await.status(), 404);
}

#[tokio::test(start_paused = true)]
async fn a_session_that_ends_while_it_is_restored_leaves_nothing_open() {
    let habits = Habits {
        by_hand: true,
        ..Habits::default()
    };
    let proxy = Proxy::new(habits, Config::default());
    let mut client = proxy.client();
    let server = Arc::clone(&proxy.server);
    tokio::spawn(async move {
        let initialize = server.request().await;
        initialize.json(r#"{"protocolVersion":"2025-11-25","capabilities":{}}"#);
    });
    client.initialize("2025-11-25").await;
    client
        .post(r#"{"method":"notifications/initialized"}"#)
        .await;
    proxy.server.sent().await.accept();
    let posting = client.posting(CALL);
    proxy.server.request().await.fail(session_lost());
    let _initialize = proxy.server.request().await;
    assert!(matches!(client.delete().await, Answer::Ended));
    assert!(posting.await.unwrap().body().contains("session_ended"));
    sleep(Duration::from_secs(5)).await;
    assert_eq!(
        proxy.server.count("0 close") + proxy.server.count("1 close"),
        2
    );
}

#[tokio::test(start_paused = true)]
async fn a_client_that_reads_nothing_does_not_hold_up_the_others_request() {
    let proxy = Proxy::new(Habits::default(), Config::default());
    let (client, _events, feeder) = set_up(&proxy).await;
    feeder.fail(session_lost()).await;
    restore(&proxy.server, 1).await;
    let posting = client.posting(LIST);
    loop {
        match proxy.server.call().await {
            Call::Request(request) => break request.json("{}"),
            Call::Standalone(standalone) => standalone.refuse(),
            Call::Sent(sent) => panic!("got {}", text(&sent.message)),
        }
    }
    posting.await.unwrap();
}
