//! What a client is told of the progress of a request that was sent twice.

use shadowcat_mcp::fault::{Executed, FaultKind};
use shadowcat_proxy::config::Config;
use shadowcat_transport::metrics::{Metrics, Reason};

use crate::client::{Client, Proxy};
use crate::fake::{FakeServer, Feeder, Habits, fault};
use crate::stdio::Stdio;

const LIST: &str = r#"{"id":1,"method":"tools/list"}"#;
const TOOLS: &str = r#"{"tools":[{"name":"t","annotations":{"readOnlyHint":true}}]}"#;
const CALL: &str =
    r#"{"id":2,"method":"tools/call","params":{"name":"t","_meta":{"progressToken":"p"}}}"#;
/// Safe by its method.
const READ: &str =
    r#"{"id":2,"method":"resources/read","params":{"uri":"x:","_meta":{"progressToken":"p"}}}"#;

fn allowed() -> Config {
    Config {
        retry_idempotent_tools: true,
        ..Config::default()
    }
}

async fn tell(feeder: &Feeder, token: &str, values: &[&str]) {
    for value in values {
        let params = format!(r#"{{"progressToken":"{token}","progress":{value}}}"#);
        let json = format!(r#"{{"method":"notifications/progress","params":{params}}}"#);
        feeder.message(&json).await;
    }
}

/// What a message tells: a value of progress, or that it is the answer.
fn told(message: &str) -> &str {
    match message.split_once(r#""progress":"#) {
        Some((_, rest)) => rest.trim_end_matches('}'),
        None if message.contains("result") => "result",
        None => message,
    }
}

fn dropped(metrics: &Metrics) -> u64 {
    let reason = Reason::of("progress told before");
    metrics.messages_given_up.get_or_create(&reason).get()
}

/// The first sending tells 1 and 2.5 and is lost, the second begins anew.
async fn serve_twice(server: &FakeServer, pipe: bool) {
    let first = server.request().await.stream(pipe);
    tell(&first, "p", &["1", "2.5"]).await;
    let lost = fault(FaultKind::ConnectionLost, Executed::Unknown);
    first.fail(lost).await;
    let second = server.request().await.stream(pipe);
    tell(&second, "p", &["1", "2", "2.50", "2.6"]).await;
    tell(&second, "other", &["1"]).await;
    tell(&second, "p", &["2.6", "3e0"]).await;
    second.respond("{}").await;
}

const TOLD: [&str; 6] = ["1", "2.5", "2.6", "1", "3e0", "result"];

async fn learn_tools(server: &FakeServer, client: &Client) {
    let posting = client.posting(LIST);
    server.request().await.json(TOOLS);
    posting.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn progress_of_a_second_sending_does_not_begin_anew_for_an_http_client() {
    for (request, pipe) in [(CALL, false), (CALL, true), (READ, false), (READ, true)] {
        let habits = Habits {
            pipe,
            ..Habits::default()
        };
        let proxy = Proxy::new(habits, allowed());
        let client = proxy.initialized().await;
        if pipe {
            proxy.server.standalone().await.refuse();
        }
        learn_tools(&proxy.server, &client).await;
        let posting = client.posting(request);
        let serving = serve_twice(&proxy.server, pipe);
        let answered = async { posting.await.unwrap().stream().rest().await };
        let ((), messages) = tokio::join!(serving, answered);
        let messages: Vec<_> = messages.iter().map(|message| told(message)).collect();
        assert_eq!(messages, TOLD, "{request} over a pipe: {pipe}");
        assert_eq!(dropped(&proxy.metrics), 4);
    }
}

#[tokio::test(start_paused = true)]
async fn progress_of_a_second_sending_does_not_begin_anew_for_a_stdio_client() {
    for pipe in [false, true] {
        let habits = Habits {
            pipe,
            ..Habits::default()
        };
        let (mut stdio, _standalone) = Stdio::initialized(habits, allowed()).await;
        stdio.send(LIST).await;
        stdio.server.request().await.json(TOOLS);
        stdio.line().await;
        stdio.send(CALL).await;
        serve_twice(&stdio.server, pipe).await;
        for expected in TOLD {
            assert_eq!(told(&stdio.line().await), expected);
        }
    }
}

/// What a server tells of one sending is its own affair.
#[tokio::test(start_paused = true)]
async fn progress_of_a_first_sending_passes_as_it_is() {
    for request in [CALL, READ] {
        let proxy = Proxy::new(Habits::default(), allowed());
        let client = proxy.initialized().await;
        let posting = client.posting(request);
        let serving = async {
            let feeder = proxy.server.request().await.stream(false);
            tell(&feeder, "p", &["2", "1", "1", "\"no number\""]).await;
            feeder.respond("{}").await;
        };
        let answered = async { posting.await.unwrap().stream().rest().await };
        let ((), messages) = tokio::join!(serving, answered);
        let messages: Vec<_> = messages.iter().map(|message| told(message)).collect();
        assert_eq!(messages, ["2", "1", "1", "\"no number\"", "result"]);
        assert_eq!(dropped(&proxy.metrics), 0);
    }
}
