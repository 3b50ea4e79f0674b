//! How sessions begin, are found, and end.

use std::sync::Arc;
use std::time::Duration;

use http::HeaderValue;
use shadowcat_mcp::fault::{Executed, FaultKind};
use shadowcat_mcp::version::{ProtocolVersion, VersionPolicy};
use shadowcat_proxy::config::Config;
use shadowcat_store::EventLog;
use tokio::time::{Instant, sleep};

use crate::client::{Answer, Proxy, shut_down};
use crate::fake::{Habits, fault};

const CALL: &str = r#"{"id":1,"method":"tools/call","params":{"name":"t"}}"#;

#[tokio::test(start_paused = true)]
async fn ids_are_long_and_visible_ascii() {
    let proxy = Proxy::new(Habits::default(), Config::default());
    let one = proxy.initialized().await;
    let two = proxy.initialized().await;
    let id = one.headers["mcp-session-id"].to_str().unwrap();
    assert_eq!(id.len(), 64);
    assert_ne!(one.headers, two.headers);
}

#[tokio::test(start_paused = true)]
async fn requests_need_a_session_that_exists() {
    let proxy = Proxy::new(Habits::default(), Config::default());
    let mut client = proxy.client();
    assert_eq!(client.post(CALL).await.status(), 400);
    client
        .headers
        .insert("mcp-session-id", HeaderValue::from_static("nonsense"));
    assert_eq!(client.post(CALL).await.status(), 404);
    assert_eq!(client.get(None).await.status(), 404);
    assert_eq!(client.delete().await.status(), 404);
    let client = proxy.initialized().await;
    let mut near = client.clone();
    let id = client.headers["mcp-session-id"].to_str().unwrap();
    let changed = format!("{}{}", &id[..63], if id.ends_with('0') { '1' } else { '0' });
    near.headers
        .insert("mcp-session-id", changed.parse().unwrap());
    assert_eq!(near.post(CALL).await.status(), 404);
}

#[tokio::test(start_paused = true)]
async fn a_session_is_initialized_once() {
    let proxy = Proxy::new(Habits::default(), Config::default());
    let client = proxy.initialized().await;
    let initialize = r#"{"id":7,"method":"initialize","params":{"protocolVersion":"2025-11-25","capabilities":{}}}"#;
    let answer = client.post(initialize).await;
    assert_eq!(answer.status(), 400, "{answer:?}");
    assert_eq!(proxy.server.count("0 initialize"), 1);
}

#[tokio::test(start_paused = true)]
async fn a_request_id_is_open_once() {
    let proxy = Proxy::new(Habits::default(), Config::default());
    let client = proxy.initialized().await;
    let posting = client.posting(CALL);
    let request = proxy.server.request().await;
    let duplicate = client.post(CALL).await.body();
    assert!(
        duplicate.contains("-32600") && duplicate.contains("duplicate_id"),
        "{duplicate}"
    );
    request.json("{}");
    assert!(posting.await.unwrap().body().contains("result"));
}

#[tokio::test(start_paused = true)]
async fn a_version_that_is_not_taken_fails_the_handshake() {
    for (answered, policy) in [
        ("1999-01-01", VersionPolicy::default()),
        ("2026-07-28", VersionPolicy::default()),
        (
            "2025-03-26",
            VersionPolicy {
                min: Some(ProtocolVersion::V2025_06_18),
                pin: None,
            },
        ),
    ] {
        let habits = Habits {
            versions: vec![answered],
            ..Habits::default()
        };
        let config = Config {
            versions: policy,
            ..Config::default()
        };
        let proxy = Proxy::new(habits, config);
        let mut client = proxy.client();
        let body = client.initialize("2025-11-25").await;
        assert!(
            body.contains(r#""code":-32602"#) && body.contains(r#""supported":["#),
            "{body}"
        );
        assert!(body.contains(r#""requested":"2025-11-25""#), "{body}");
        assert!(!client.headers.contains_key("mcp-session-id"));
        sleep(Duration::from_secs(2)).await;
        assert_eq!(proxy.server.count("0 close"), 1, "torn down");
    }
}

#[tokio::test(start_paused = true)]
async fn a_handshake_whose_client_is_gone_is_ended_in_order() {
    let habits = Habits {
        by_hand: true,
        ..Habits::default()
    };
    let proxy = Proxy::new(habits, Config::default());
    let client = proxy.client();
    let initialize = r#"{"id":0,"method":"initialize","params":{"protocolVersion":"2025-11-25","capabilities":{}}}"#;
    let posting = client.posting(initialize);
    let request = proxy.server.request().await;
    posting.abort();
    sleep(Duration::from_secs(1)).await;
    assert_eq!(
        proxy.server.count("0 close"),
        0,
        "the server's session id is not known yet"
    );
    request.json(r#"{"protocolVersion":"2025-11-25","capabilities":{}}"#);
    sleep(Duration::from_secs(2)).await;
    assert_eq!(proxy.server.count("0 close"), 1);
    assert_eq!(proxy.metrics.sessions.get(), 0);
}

#[tokio::test(start_paused = true)]
async fn what_the_server_says_before_its_answer_to_initialize_is_kept() {
    let habits = Habits {
        by_hand: true,
        ..Habits::default()
    };
    let proxy = Proxy::new(habits, Config::default());
    let mut client = proxy.client();
    let server = Arc::clone(&proxy.server);
    tokio::spawn(async move {
        let feeder = server.request().await.stream(false);
        feeder
            .message(r#"{"method":"notifications/message","params":{"early":1}}"#)
            .await;
        feeder.message(r#"{"id":5,"method":"roots/list"}"#).await;
        feeder
            .respond(r#"{"protocolVersion":"2025-11-25","capabilities":{}}"#)
            .await;
        server.sent().await.accept();
        server.standalone().await.refuse();
    });
    let body = client.initialize("2025-11-25").await;
    assert!(body.contains("protocolVersion"), "one JSON body: {body}");
    client
        .post(r#"{"method":"notifications/initialized"}"#)
        .await;
    let mut events = client.get(None).await.stream();
    assert!(events.message().await.unwrap().contains("early"));
    assert!(events.message().await.unwrap().contains("roots/list"));
}

#[tokio::test(start_paused = true)]
async fn beyond_the_limit_there_are_no_more_sessions() {
    let config = Config {
        max_sessions: 2,
        ..Config::default()
    };
    let proxy = Proxy::new(Habits::default(), config);
    let _one = proxy.initialized().await;
    let two = proxy.initialized().await;
    let initialize = r#"{"id":0,"method":"initialize","params":{"protocolVersion":"2025-11-25","capabilities":{}}}"#;
    match proxy.client().post(initialize).await {
        Answer::Rejected(rejection) => {
            assert_eq!(rejection.status(), 503);
            assert_eq!(rejection.header().unwrap().0, "retry-after");
        }
        other => panic!("{other:?}"),
    }
    two.delete().await;
    proxy.initialized().await;
}

#[tokio::test(start_paused = true)]
async fn an_idle_session_expires_and_a_busy_one_does_not() {
    let config = Config {
        session_ttl: Duration::from_secs(60),
        ..Config::default()
    };
    let proxy = Proxy::new(Habits::default(), config);
    let idle = proxy.initialized().await;
    let calling = proxy.initialized().await;
    let listening = proxy.initialized().await;
    let posting = calling.posting(CALL);
    let request = proxy.server.request().await;
    let getting = listening.getting(None);
    proxy.server.standalone().await.refuse();
    let stream = getting.await.unwrap().stream();
    let feeder = request.stream(false);
    let events = posting.await.unwrap().stream();
    sleep(Duration::from_secs(90)).await;
    assert_eq!(idle.post(CALL).await.status(), 404);
    assert_eq!(proxy.server.count("0 close"), 1);
    assert_eq!(proxy.metrics.sessions.get(), 2);
    feeder.respond("{}").await;
    assert_eq!(events.rest().await.len(), 1);
    drop(stream);
    sleep(Duration::from_secs(90)).await;
    assert_eq!(proxy.metrics.sessions.get(), 0);
    assert_eq!((proxy.log.usage().bytes, proxy.log.usage().streams), (0, 0));
}

/// A short time to live is kept as well as a long one, also while the server of another session takes
/// its time to end.
#[tokio::test(start_paused = true)]
async fn a_session_expires_within_a_quarter_of_its_time_to_live() {
    let config = Config {
        session_ttl: Duration::from_secs(4),
        ..Config::default()
    };
    let habits = Habits {
        close: Duration::from_secs(5),
        ..Habits::default()
    };
    let proxy = Proxy::new(habits, config);
    let mut idle = Vec::new();
    for _ in 0..3 {
        idle.push((proxy.initialized().await, Instant::now()));
        sleep(Duration::from_secs(2)).await;
    }
    for (number, (client, since)) in idle.into_iter().enumerate() {
        let gone = since + Duration::from_millis(5100);
        tokio::time::sleep_until(gone).await;
        let left = 2 - number as i64;
        assert!(proxy.metrics.sessions.get() <= left, "{number}");
        assert_eq!(client.post(CALL).await.status(), 404, "{number}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_a_vanished_client_left_open_does_not_keep_its_session_for_ever() {
    let config = Config {
        session_ttl: Duration::from_secs(600),
        ..Config::default()
    };
    let proxy = Proxy::new(Habits::default(), config);
    let client = proxy.initialized().await;
    let posting = client.posting(CALL);
    let feeder = proxy.server.request().await.stream(false);
    drop(posting.await.unwrap().stream());
    sleep(Duration::from_secs(590)).await;
    assert_eq!(proxy.metrics.sessions.get(), 1);
    sleep(Duration::from_secs(30)).await;
    assert_eq!(proxy.metrics.sessions.get(), 0);
    feeder.closed().await;
}

#[tokio::test(start_paused = true)]
async fn the_end_of_a_session_answers_what_is_open() {
    let proxy = Proxy::new(Habits::default(), Config::default());
    let client = proxy.initialized().await;
    let posting = client.posting(CALL);
    let _feeder = proxy.server.request().await.stream(false);
    let events = posting.await.unwrap().stream();
    let body = client.posting(r#"{"id":2,"method":"tools/list"}"#);
    let _request = proxy.server.request().await;
    let resumed = client.posting(r#"{"id":3,"method":"tools/list"}"#);
    let _resumed = proxy.server.request().await.stream(false);
    let mut resumed = resumed.await.unwrap().stream();
    assert_eq!(resumed.next().await.unwrap().id.as_deref(), Some("2-0"));
    drop(resumed);
    let replay = client.get(Some("2-0")).await.stream();
    let (live, replayed) = (tokio::spawn(events.rest()), tokio::spawn(replay.rest()));
    sleep(Duration::from_millis(10)).await;
    let started = Instant::now();
    assert!(matches!(client.delete().await, Answer::Ended));
    assert!(started.elapsed() <= Duration::from_secs(1));
    for messages in [
        live.await.unwrap(),
        replayed.await.unwrap(),
        vec![body.await.unwrap().body()],
    ] {
        assert_eq!(messages.len(), 1, "{messages:?}");
        assert!(messages[0].contains("session_ended"), "{messages:?}");
    }
    assert_eq!(client.post(CALL).await.status(), 404);
    assert_eq!(proxy.server.count("0 close"), 1);
    assert_eq!((proxy.log.usage().bytes, proxy.log.usage().streams), (0, 0));
}

/// A process may take seconds to end; its client has said that it is done.
#[tokio::test(start_paused = true)]
async fn a_deleted_session_is_gone_at_once_whatever_its_server_does() {
    for pipe in [true, false] {
        let habits = Habits {
            pipe,
            close: Duration::from_secs(4),
            ..Habits::default()
        };
        let config = Config {
            max_sessions: 1,
            ..Config::default()
        };
        let proxy = Proxy::new(habits, config);
        let client = proxy.initialized().await;
        let started = Instant::now();
        assert!(matches!(client.delete().await, Answer::Ended));
        assert!(started.elapsed() < Duration::from_millis(100));
        assert_eq!(client.post(CALL).await.status(), 404);
        let next = proxy.initialized().await;
        assert_eq!(proxy.server.count("0 closed"), 0);
        // A second one in the same 4 s has to wait: there are no more of them than sessions.
        assert!(matches!(next.delete().await, Answer::Ended));
        assert!(started.elapsed() >= Duration::from_secs(4));
        assert_eq!(proxy.server.count("1 closed"), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn a_drain_waits_for_the_end_of_a_deleted_session() {
    for (pipe, most) in [(true, 4), (false, 1)] {
        let habits = Habits {
            pipe,
            close: Duration::from_secs(4),
            ..Habits::default()
        };
        let proxy = Proxy::new(habits, Config::default());
        let client = proxy.initialized().await;
        let started = Instant::now();
        client.delete().await;
        shut_down(&proxy.gateway).await;
        assert_eq!(started.elapsed().as_secs(), most, "pipe: {pipe}");
        let closed = proxy.server.count("0 closed");
        assert_eq!(closed, usize::from(pipe), "over HTTP it is a courtesy");
    }
}

#[tokio::test(start_paused = true)]
async fn a_drain_waits_for_what_is_open_and_then_answers_it() {
    for patient in [true, false] {
        let proxy = Proxy::new(Habits::default(), Config::default());
        let client = proxy.initialized().await;
        let posting = client.posting(CALL);
        let request = proxy.server.request().await;
        let gateway = Arc::clone(&proxy.gateway);
        let started = Instant::now();
        let draining = tokio::spawn(async move { shut_down(&gateway).await });
        sleep(Duration::from_secs(3)).await;
        if patient {
            request.json("{}");
            assert!(posting.await.unwrap().body().contains("result"));
            draining.await.unwrap();
            assert!(started.elapsed() < Duration::from_secs(4));
        } else {
            draining.await.unwrap();
            let messages = posting.await.unwrap().stream().rest().await;
            let fault = r#""kind":"shutting_down","executed":"unknown""#;
            assert!(messages[0].contains(fault), "{messages:?}");
            assert!(started.elapsed() < Duration::from_secs(12));
        }
        assert_eq!(proxy.server.count("0 close"), 1);
    }
}

/// It is listed nowhere yet, and its client waits all the same.
#[tokio::test(start_paused = true)]
async fn a_drain_answers_a_handshake_that_does_not_end() {
    let habits = Habits {
        by_hand: true,
        ..Habits::default()
    };
    let proxy = Proxy::new(habits, Config::default());
    let initialize = r#"{"id":0,"method":"initialize","params":{"protocolVersion":"2025-11-25","capabilities":{}}}"#;
    let posting = proxy.client().posting(initialize);
    let _request = proxy.server.request().await;
    let started = Instant::now();
    shut_down(&proxy.gateway).await;
    assert_eq!(started.elapsed().as_secs(), 10);
    let answer = posting.await.unwrap();
    assert_eq!(answer.status(), 503, "{answer:?}");
    let fault = r#""kind":"shutting_down","executed":"unknown""#;
    assert!(answer.body().contains(fault));
    // Nothing comes after the end, however late it is asked for.
    let refused = proxy.client().post(initialize).await;
    assert_eq!(refused.status(), 503, "{refused:?}");
    assert!(refused.body().contains(r#""executed":"no""#));
}

#[tokio::test(start_paused = true)]
async fn a_server_that_cannot_be_reached_fails_the_handshake_only() {
    let proxy = Proxy::new(Habits::default(), Config::default());
    proxy
        .server
        .broken
        .lock()
        .insert(0, fault(FaultKind::Connect, Executed::No));
    let body = proxy.client().initialize("2025-11-25").await;
    assert!(
        body.contains(r#""kind":"connect","executed":"no""#),
        "{body}"
    );
    proxy.initialized().await;
}

#[tokio::test(start_paused = true)]
async fn the_header_must_agree_with_the_negotiated_version() {
    let proxy = Proxy::new(Habits::default(), Config::default());
    let mut client = proxy.initialized().await;
    let header = |client: &mut crate::client::Client, version: &'static str| {
        client
            .headers
            .insert("mcp-protocol-version", HeaderValue::from_static(version));
    };
    for wrong in ["2025-06-18", "1999-01-01"] {
        header(&mut client, wrong);
        assert_eq!(client.post(CALL).await.status(), 400, "{wrong}");
    }
    header(&mut client, "2025-11-25");
    let posting = client.posting(CALL);
    proxy.server.request().await.json("{}");
    posting.await.unwrap();
}
