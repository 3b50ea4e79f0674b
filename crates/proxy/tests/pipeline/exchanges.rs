//! One outcome per request, always.

use std::time::Duration;

use shadowcat_mcp::fault::{Executed, FaultKind};
use shadowcat_mcp::headers::Fields;
use shadowcat_proxy::config::Config;
use tokio::time::{Instant, sleep};

use crate::client::{Answer, Proxy};
use crate::fake::{Call, Habits, fault};

pub const CALL: &str = r#"{"id":1,"method":"tools/call","params":{"name":"t"}}"#;
const LIST: &str = r#"{"id":1,"method":"tools/list"}"#;

pub fn data(kind: &str, executed: &str) -> String {
    let safe = executed == "no";
    format!(
        r#""data":{{"shadowcat":{{"side":"upstream","kind":"{kind}","executed":"{executed}","retry_safe":{safe}"#
    )
}

#[tokio::test(start_paused = true)]
async fn a_json_answer_stays_one_body() {
    let proxy = Proxy::new(Habits::default(), Config::default());
    let client = proxy.initialized().await;
    let posting = client.posting(CALL);
    proxy.server.request().await.json(r#"{"content":[]}"#);
    let answer = posting.await.unwrap();
    assert_eq!(
        answer.body(),
        r#"{"jsonrpc":"2.0","id":1,"result":{"content":[]}}"#
    );
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_ends_without_a_response_is_an_error() {
    let proxy = Proxy::new(Habits::default(), Config::default());
    let client = proxy.initialized().await;
    let posting = client.posting(CALL);
    let feeder = proxy.server.request().await.stream(false);
    let events = posting.await.unwrap().stream();
    feeder
        .message(r#"{"method":"notifications/message"}"#)
        .await;
    drop(feeder);
    let messages = events.rest().await;
    assert_eq!(messages.len(), 2, "{messages:?}");
    assert!(
        messages[1].contains(r#""id":1,"error":{"code":-32603"#),
        "{messages:?}"
    );
    assert!(
        messages[1].contains(&data("stream_ended", "unknown")),
        "{messages:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_safe_request_whose_answer_was_lost_is_sent_once_more() {
    let proxy = Proxy::new(Habits::default(), Config::default());
    let client = proxy.initialized().await;
    let posting = client.posting(LIST);
    for _ in 0..2 {
        let lost = fault(FaultKind::ConnectionLost, Executed::Unknown);
        proxy.server.request().await.fail(lost);
    }
    let body = posting.await.unwrap().body();
    assert!(body.contains(&data("connection_lost", "unknown")), "{body}");
    assert_eq!(proxy.server.count("0 tools/list"), 2);
}

#[tokio::test(start_paused = true)]
async fn a_second_sending_that_never_left_does_not_make_the_first_undone() {
    let proxy = Proxy::new(Habits::default(), Config::default());
    let client = proxy.initialized().await;
    let posting = client.posting(LIST);
    let lost = fault(FaultKind::ConnectionLost, Executed::Unknown);
    proxy.server.request().await.fail(lost);
    let refused = fault(FaultKind::Connect, Executed::No);
    proxy.server.request().await.fail(refused);
    let body = posting.await.unwrap().body();
    assert!(body.contains(&data("connect", "unknown")), "{body}");
}

#[tokio::test(start_paused = true)]
async fn a_call_whose_answer_was_lost_is_never_sent_again() {
    let proxy = Proxy::new(Habits::default(), Config::default());
    let client = proxy.initialized().await;
    let posting = client.posting(CALL);
    let lost = fault(FaultKind::ConnectionLost, Executed::Unknown);
    proxy.server.request().await.fail(lost);
    let body = posting.await.unwrap().body();
    assert!(body.contains(&data("connection_lost", "unknown")), "{body}");
    assert_eq!(proxy.server.count("0 tools/call"), 1);
}

#[tokio::test(start_paused = true)]
async fn a_tool_declared_harmless_may_be_called_again_if_the_user_says_so() {
    for allowed in [false, true] {
        let config = Config {
            retry_idempotent_tools: allowed,
            ..Config::default()
        };
        let proxy = Proxy::new(Habits::default(), config);
        let client = proxy.initialized().await;
        let posting = client.posting(LIST);
        let tools = r#"{"tools":[{"name":"t","annotations":{"readOnlyHint":true}}]}"#;
        proxy.server.request().await.json(tools);
        posting.await.unwrap();
        let posting = client.posting(CALL);
        proxy
            .server
            .request()
            .await
            .fail(fault(FaultKind::ConnectionLost, Executed::Unknown));
        if allowed {
            proxy.server.request().await.json("{}");
        }
        let body = posting.await.unwrap().body();
        assert_eq!(body.contains("result"), allowed, "{body}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_retry_hint_reaches_the_client() {
    let proxy = Proxy::new(Habits::default(), Config::default());
    let client = proxy.initialized().await;
    let posting = client.posting(CALL);
    let limited = fault(FaultKind::RateLimited, Executed::No).after(Some(Duration::from_secs(7)));
    proxy.server.request().await.fail(limited);
    let body = posting.await.unwrap().body();
    assert!(
        body.contains(r#""retry_safe":true,"retry_after":7}"#),
        "{body}"
    );
}

#[tokio::test(start_paused = true)]
async fn stray_and_repeated_messages_are_counted_not_shown() {
    let proxy = Proxy::new(Habits::default(), Config::default());
    let client = proxy.initialized().await;
    let posting = client.posting(CALL);
    let feeder = proxy.server.request().await.stream(false);
    let reading = tokio::spawn(posting.await.unwrap().stream().rest());
    for _ in 0..2 {
        feeder
            .message(r#"{"id":9,"method":"sampling/createMessage"}"#)
            .await;
    }
    feeder.message(r#"{"id":77,"result":{}}"#).await;
    feeder.respond("{}").await;
    let messages = reading.await.unwrap();
    assert_eq!(messages.len(), 2, "{messages:?}");
    assert_eq!(proxy.metrics.stray_responses.get(), 1);
    assert_eq!(proxy.metrics.duplicates_dropped.get(), 1);
    let stray = client.post(r#"{"id":55,"result":{}}"#).await;
    assert!(matches!(stray, Answer::Accepted));
    assert_eq!(proxy.metrics.stray_responses.get(), 2);
    assert!(proxy.server.is_quiet(Duration::from_secs(1)).await);
}

#[tokio::test(start_paused = true)]
async fn server_requests_go_both_ways() {
    for pipe in [false, true] {
        let (proxy, client) = Proxy::over(pipe).await;
        let posting = client.posting(CALL);
        let feeder = proxy.server.request().await.stream(pipe);
        feeder.message(r#"{"id":"a","method":"roots/list"}"#).await;
        let mut events = posting.await.unwrap().stream();
        let ask = events.message().await.unwrap();
        assert_eq!(ask, r#"{"jsonrpc":"2.0","id":"a","method":"roots/list"}"#);
        client.post(r#"{"id":"a","result":{"roots":[]}}"#).await;
        let answer = proxy.server.sent().await;
        assert!(crate::json::text(&answer.message).contains(r#""roots":[]"#));
        answer.accept();
        feeder.respond(r#"{"ok":1}"#).await;
        assert!(events.message().await.unwrap().contains(r#""ok":1"#));
        assert_eq!(events.message().await, None);
    }
}

#[tokio::test(start_paused = true)]
async fn a_slow_pipe_answers_by_a_stream_and_a_fast_one_by_a_body() {
    let habits = Habits {
        pipe: true,
        ..Habits::default()
    };
    let proxy = Proxy::new(habits, Config::default());
    let client = proxy.initialized().await;
    proxy.server.standalone().await.refuse();
    for (delay, streamed) in [(20, false), (80, true)] {
        let posting = client.posting(CALL);
        let feeder = proxy.server.request().await.stream(true);
        sleep(Duration::from_millis(delay)).await;
        feeder.respond("{}").await;
        let answer = posting.await.unwrap();
        assert_eq!(matches!(answer, Answer::Stream(_)), streamed);
        if let Answer::Stream(events) = answer {
            assert_eq!(events.rest().await.len(), 1);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_head_that_does_not_come_makes_the_answer_a_stream() {
    let proxy = Proxy::new(Habits::default(), Config::default());
    let client = proxy.initialized().await;
    let started = Instant::now();
    let posting = client.posting(CALL);
    let request = proxy.server.request().await;
    let mut events = posting.await.unwrap().stream();
    assert_eq!(started.elapsed(), Duration::from_secs(5));
    let priming = events.next().await.unwrap();
    assert_eq!(
        (priming.id.as_deref(), priming.data.as_str()),
        (Some("1-0"), "")
    );
    assert_eq!(priming.retry.as_deref(), Some("1000"));
    request.json(r#"{"late":1}"#);
    assert!(events.message().await.unwrap().contains("late"));
    assert_eq!(events.message().await, None);
}

/// A server that reads nothing is not asked for more by a client that reads nothing.
#[tokio::test(start_paused = true)]
async fn a_slow_client_slows_its_server_and_nothing_is_lost() {
    const EVENTS: usize = 10_000;
    let proxy = Proxy::new(Habits::default(), Config::default());
    let client = proxy.initialized().await;
    let posting = client.posting(CALL);
    let feeder = proxy.server.request().await.stream(false);
    let events = posting.await.unwrap().stream();
    let given = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let giving = tokio::spawn({
        let given = std::sync::Arc::clone(&given);
        async move {
            for number in 0..EVENTS {
                feeder
                    .message(&format!(
                        r#"{{"method":"notifications/message","params":{{"n":{number}}}}}"#
                    ))
                    .await;
                given.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
            }
            feeder.respond("{}").await;
        }
    });
    sleep(Duration::from_secs(10)).await;
    assert!(
        given.load(std::sync::atomic::Ordering::SeqCst) < 10,
        "nobody reads"
    );
    let messages = events.rest().await;
    giving.await.unwrap();
    assert_eq!(messages.len(), EVENTS + 1);
    for (number, message) in messages[..EVENTS].iter().enumerate() {
        assert!(
            message.contains(&format!(r#""n":{number}}}"#)),
            "{number}: {message}"
        );
    }
    use shadowcat_store::EventLog;
    assert!(proxy.log.usage().bytes <= 1024 * 1024 + 100);
}

#[tokio::test(start_paused = true)]
async fn a_challenge_is_relayed_or_told_in_words() {
    let challenge = || shadowcat_transport::upstream::Reply::Challenge {
        status: http::StatusCode::UNAUTHORIZED,
        headers: Fields::default(),
        body: bytes::Bytes::from_static(b"who are you"),
    };
    let proxy = Proxy::new(Habits::default(), Config::default());
    let client = proxy.initialized().await;
    let posting = client.posting(LIST);
    proxy.server.request().await.reply(challenge());
    let answer = posting.await.unwrap();
    assert_eq!(
        (answer.status(), answer.body().as_str()),
        (401, "who are you")
    );
    // The head is out: the error takes the place of the status.
    let posting = client.posting(LIST);
    let feeder = proxy.server.request().await.stream(false);
    let reading = tokio::spawn(posting.await.unwrap().stream().rest());
    drop(feeder);
    proxy.server.request().await.reply(challenge());
    let messages = reading.await.unwrap();
    assert!(
        messages[0].contains("unauthorized") && messages[0].contains("--forward-auth"),
        "{messages:?}"
    );
}

/// The second sending was refused; the first may have been executed.
#[tokio::test(start_paused = true)]
async fn a_refusal_of_the_second_sending_says_nothing_of_the_first() {
    let proxy = Proxy::new(Habits::default(), Config::default());
    let client = proxy.initialized().await;
    let refused = || shadowcat_transport::upstream::Reply::Refused {
        status: http::StatusCode::NOT_FOUND,
        headers: Fields::default(),
        fault: Box::new(fault(FaultKind::Status, Executed::No)),
    };
    let posting = client.posting(LIST);
    proxy.server.request().await.reply(refused());
    let body = posting.await.unwrap().body();
    assert!(body.contains(r#""executed":"no""#), "{body}");
    let posting = client.posting(LIST);
    drop(proxy.server.request().await.stream(false));
    let reading = tokio::spawn(posting.await.unwrap().stream().rest());
    proxy.server.request().await.reply(refused());
    let messages = reading.await.unwrap();
    assert!(
        messages[0].contains(r#""executed":"unknown""#),
        "{messages:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn batches_are_split_and_answered_on_one_stream() {
    let habits = Habits {
        versions: vec!["2025-03-26"],
        ..Habits::default()
    };
    let proxy = Proxy::new(habits, Config::default());
    let client = proxy.initialized_at("2025-03-26").await;
    let batch = r#"[{"jsonrpc":"2.0","id":1,"method":"tools/list"},
        {"jsonrpc":"2.0","method":"notifications/roots/list_changed"},
        {"jsonrpc":"2.0","id":2,"method":"tools/call","params":{"name":"t"}},
        {"jsonrpc":"2.0","id":2,"method":"tools/list"}]"#;
    let posting = client.posting(batch);
    let events = posting.await.unwrap().stream();
    let answers = tokio::spawn(events.rest());
    let (mut requests, mut others) = (0, 0);
    for _ in 0..3 {
        match proxy.server.call().await {
            Call::Request(request) if request.method() == "tools/list" => {
                requests += 1;
                request.json("{}");
            }
            Call::Request(request) => {
                requests += 1;
                let refusal = shadowcat_transport::upstream::Reply::Challenge {
                    status: http::StatusCode::UNAUTHORIZED,
                    headers: Fields::default(),
                    body: bytes::Bytes::new(),
                };
                request.reply(refusal);
            }
            Call::Sent(sent) => {
                others += 1;
                sent.accept();
            }
            Call::Standalone(_) => panic!("no stream was asked for"),
        }
    }
    assert_eq!((requests, others), (2, 1));
    let answers = answers.await.unwrap();
    assert_eq!(answers.len(), 3, "{answers:?}");
    let with = |text: &str| {
        answers
            .iter()
            .filter(|answer| answer.contains(text))
            .count()
    };
    assert_eq!(
        (with("result"), with("unauthorized"), with("-32600")),
        (1, 1, 1),
        "{answers:?}"
    );
    let only_notifications = r#"[{"jsonrpc":"2.0","method":"notifications/roots/list_changed"}]"#;
    let answer = client.post(only_notifications).await;
    assert!(matches!(answer, Answer::Accepted), "{answer:?}");
}

#[tokio::test(start_paused = true)]
async fn a_batch_of_another_version_is_refused() {
    let proxy = Proxy::new(Habits::default(), Config::default());
    let client = proxy.initialized().await;
    let answer = client
        .post(r#"[{"jsonrpc":"2.0","id":1,"method":"tools/list"}]"#)
        .await;
    assert_eq!(answer.status(), 400, "{answer:?}");
}

#[tokio::test(start_paused = true)]
async fn an_undisturbed_request_needs_no_task() {
    let proxy = Proxy::new(Habits::default(), Config::default());
    let client = proxy.initialized().await;
    sleep(Duration::from_millis(1)).await;
    let tasks = || {
        tokio::runtime::Handle::current()
            .metrics()
            .num_alive_tasks()
    };
    let before = tasks();
    let serve = async {
        let request = proxy.server.request().await;
        assert_eq!(tasks(), before);
        request.json("{}");
    };
    let (answer, ()) = tokio::join!(client.post(CALL), serve);
    answer.body();
    let serve = async { proxy.server.request().await.stream(false) };
    let (answer, feeder) = tokio::join!(client.post(CALL), serve);
    let give = async {
        feeder
            .message(r#"{"method":"notifications/message"}"#)
            .await;
        assert_eq!(tasks(), before);
        feeder.respond("{}").await;
    };
    let (messages, ()) = tokio::join!(answer.stream().rest(), give);
    assert_eq!((messages.len(), tasks()), (2, before));
}

#[tokio::test(start_paused = true)]
async fn what_never_left_was_not_executed() {
    let habits = Habits {
        by_hand: true,
        ..Habits::default()
    };
    let config = Config {
        request_timeout: Some(Duration::from_secs(1)),
        ..Config::default()
    };
    let proxy = Proxy::new(habits, config);
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
    let body = client.post(CALL).await.body();
    assert!(body.contains(&data("timeout", "no")), "{body}");
    let words = "no response within 1s (--request-timeout)";
    assert!(body.contains(words), "{body}");
    initialized.accept();
    let posting = client.posting(CALL);
    let _request = proxy.server.request().await;
    let body = posting.await.unwrap().body();
    assert!(body.contains(&data("timeout", "unknown")), "{body}");
}
