//! The stdio gateway.

use std::sync::Arc;
use std::time::Duration;

use shadowcat_mcp::fault::{Executed, FaultKind};
use shadowcat_mcp::message::Message;
use shadowcat_proxy::config::{Config, OnSessionLoss};
use shadowcat_proxy::stdio::StdioGateway;
use shadowcat_store::Limits;
use shadowcat_transport::downstream::{LineSink, SinkClosed, StdioService};
use shadowcat_transport::upstream::BoxFuture;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, timeout};

use crate::client::shared;
use crate::fake::{Call, FakeServer, Feeder, Habits, MODERN, fault, session_lost};
use crate::json::{payload, text};

const INITIALIZE: &str =
    r#"{"id":0,"method":"initialize","params":{"protocolVersion":"2025-11-25","capabilities":{}}}"#;
const INITIALIZED: &str = r#"{"method":"notifications/initialized"}"#;
const ROOTS_CHANGED: &str = r#"{"method":"notifications/roots/list_changed"}"#;
const CALL: &str = r#"{"id":1,"method":"tools/call","params":{"name":"t"}}"#;
/// Not a tool's call, before which the tools are listed.
const MODERN_REQUEST: &str = r#"{"id":1,"method":"x/ask","params":{"_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientCapabilities":{}}}}"#;

struct Lines(mpsc::UnboundedSender<Message>);

impl LineSink for Lines {
    fn send(&self, message: Message) -> BoxFuture<Result<(), SinkClosed>> {
        let sent = self.0.send(message).map_err(|_| SinkClosed);
        Box::pin(async move { sent })
    }
}

pub struct Stdio {
    gateway: Arc<StdioGateway>,
    pub server: Arc<FakeServer>,
    lines: mpsc::UnboundedReceiver<Message>,
}

impl Stdio {
    fn new(habits: Habits, config: Config) -> Self {
        let (shared, server, _) = shared(habits, config, Limits::default());
        let (sender, lines) = mpsc::unbounded_channel();
        Self {
            gateway: StdioGateway::new(shared, Arc::new(Lines(sender))),
            server,
            lines,
        }
    }

    pub async fn initialized(habits: Habits, config: Config) -> (Self, Option<Feeder>) {
        let pipe = habits.pipe;
        let mut stdio = Self::new(habits, config);
        stdio.send(INITIALIZE).await;
        assert!(stdio.line().await.contains("protocolVersion"));
        stdio.send(INITIALIZED).await;
        let standalone = stdio.server.standalone().await;
        assert_eq!(stdio.server.is_pipe(), pipe);
        (stdio, Some(standalone.stream()))
    }

    pub async fn send(&self, json: &str) {
        Arc::clone(&self.gateway).message(payload(json)).await;
    }

    pub async fn line(&mut self) -> String {
        let line = timeout(Duration::from_secs(3600), self.lines.recv()).await;
        text(&line.expect("a line").expect("open"))
    }

    async fn is_silent(&mut self) -> bool {
        self.is_silent_for(Duration::from_secs(10)).await
    }

    async fn is_silent_for(&mut self, time: Duration) -> bool {
        timeout(time, self.lines.recv()).await.is_err()
    }
}

#[tokio::test(start_paused = true)]
async fn everything_may_come_in_one_go() {
    let habits = Habits {
        by_hand: true,
        ..Habits::default()
    };
    let mut stdio = Stdio::new(habits, Config::default());
    for message in [INITIALIZE, INITIALIZED, CALL] {
        stdio.send(message).await;
    }
    let initialize = stdio.server.request().await;
    assert!(stdio.server.is_quiet(Duration::from_secs(1)).await);
    initialize.json(r#"{"protocolVersion":"2025-11-25","capabilities":{}}"#);
    let initialized = stdio.server.sent().await;
    assert!(stdio.server.is_quiet(Duration::from_secs(1)).await);
    initialized.accept();
    stdio.server.standalone().await.refuse();
    stdio.server.request().await.json("{}");
    assert!(stdio.line().await.contains("protocolVersion"));
    assert!(stdio.line().await.contains(r#""id":1,"result""#));
}

#[tokio::test(start_paused = true)]
async fn what_follows_the_handshake_waits_for_the_standalone_stream_but_not_for_long() {
    for settled_after in [100, 5000].map(Duration::from_millis) {
        let mut stdio = Stdio::new(Habits::default(), Config::default());
        for message in [INITIALIZE, INITIALIZED, ROOTS_CHANGED, CALL] {
            stdio.send(message).await;
        }
        let begun = Instant::now();
        let standalone = stdio.server.standalone().await;
        let opening = async {
            sleep(settled_after).await;
            standalone.stream()
        };
        let following = async {
            // Not accepted: nothing waits for that.
            let mut unaccepted = Vec::new();
            let mut followed = Vec::new();
            for _ in 0..2 {
                match stdio.server.call().await {
                    Call::Request(request) => {
                        followed.push(("request", begun.elapsed().as_millis()));
                        request.json("{}");
                    }
                    Call::Sent(sent) => {
                        followed.push(("notification", begun.elapsed().as_millis()));
                        unaccepted.push(sent);
                    }
                    Call::Standalone(_) => panic!("one stream is enough"),
                }
            }
            followed.sort_unstable();
            followed
        };
        let (_stream, followed) = tokio::join!(opening, following);
        let waited = settled_after.as_millis().min(250);
        assert_eq!(followed, [("notification", waited), ("request", waited)]);
        assert!(stdio.line().await.contains("protocolVersion"));
        assert!(stdio.line().await.contains(r#""id":1,"result""#));
    }
}

#[tokio::test(start_paused = true)]
async fn requests_run_at_the_same_time_and_both_sides_may_ask() {
    let (mut stdio, standalone) = Stdio::initialized(Habits::default(), Config::default()).await;
    stdio.send(CALL).await;
    let slow = stdio.server.request().await.stream(false);
    stdio.send(r#"{"id":2,"method":"tools/list"}"#).await;
    stdio.server.request().await.json("{}");
    assert!(stdio.line().await.contains(r#""id":2"#));
    slow.message(r#"{"id":"q","method":"sampling/createMessage"}"#)
        .await;
    assert!(stdio.line().await.contains("sampling"));
    stdio.send(r#"{"id":"q","result":{}}"#).await;
    stdio.server.sent().await.accept();
    let standalone = standalone.unwrap();
    standalone
        .message(r#"{"method":"notifications/tools/list_changed"}"#)
        .await;
    assert!(stdio.line().await.contains("list_changed"));
    slow.respond("{}").await;
    assert!(stdio.line().await.contains(r#""id":1"#));
}

#[tokio::test(start_paused = true)]
async fn a_request_before_the_handshake_is_refused() {
    let mut stdio = Stdio::new(Habits::default(), Config::default());
    stdio.send(CALL).await;
    let line = stdio.line().await;
    assert!(
        line.contains("-32600") && line.contains("initialize"),
        "{line}"
    );
    assert!(stdio.server.is_quiet(Duration::from_secs(1)).await);
}

#[tokio::test(start_paused = true)]
async fn a_second_handshake_is_refused_and_a_failed_one_may_be_repeated() {
    let mut stdio = Stdio::new(Habits::default(), Config::default());
    let down = fault(FaultKind::ChildExited, Executed::Unknown);
    stdio.server.broken.lock().insert(0, down);
    stdio.send(INITIALIZE).await;
    assert!(stdio.line().await.contains("child_exited"));
    stdio.send(INITIALIZE).await;
    assert!(stdio.line().await.contains("protocolVersion"));
    assert_eq!(stdio.server.count("0 close"), 1);
    stdio.send(INITIALIZE).await;
    let line = stdio.line().await;
    assert!(line.contains("-32600"), "{line}");
    assert!(
        timeout(Duration::from_secs(1), stdio.gateway.lost())
            .await
            .is_err()
    );
}

#[tokio::test(start_paused = true)]
async fn a_version_that_is_not_taken_fails_the_handshake_but_not_the_connection() {
    let habits = Habits {
        versions: vec!["1999-01-01", "2025-11-25"],
        ..Habits::default()
    };
    let mut stdio = Stdio::new(habits, Config::default());
    stdio.send(INITIALIZE).await;
    let line = stdio.line().await;
    assert!(line.contains("-32602"), "{line}");
    sleep(Duration::from_secs(1)).await;
    assert_eq!(stdio.server.count("0 close"), 1);
    stdio.send(INITIALIZE).await;
    assert!(stdio.line().await.contains("protocolVersion"));
}

#[tokio::test(start_paused = true)]
async fn a_cancelled_request_is_silent() {
    let (mut stdio, _standalone) = Stdio::initialized(Habits::default(), Config::default()).await;
    stdio.send(CALL).await;
    let _request = stdio.server.request().await.stream(false);
    stdio
        .send(r#"{"method":"notifications/cancelled","params":{"requestId":1}}"#)
        .await;
    assert_eq!(
        stdio.server.sent().await.method(),
        "notifications/cancelled"
    );
    assert!(stdio.is_silent().await);
}

#[tokio::test(start_paused = true)]
async fn a_cancelled_request_does_not_hold_up_the_end() {
    let (stdio, _standalone) = Stdio::initialized(Habits::default(), Config::default()).await;
    stdio.send(CALL).await;
    let _request = stdio.server.request().await.stream(false);
    stdio
        .send(r#"{"method":"notifications/cancelled","params":{"requestId":1}}"#)
        .await;
    let _cancel = stdio.server.sent().await;
    let begun = Instant::now();
    shut_down(&stdio.gateway).await;
    assert!(begun.elapsed() < Duration::from_secs(1));
}

#[tokio::test(start_paused = true)]
async fn a_lost_session_is_healed_or_ends_the_process() {
    for policy in [OnSessionLoss::Heal, OnSessionLoss::Propagate] {
        let config = Config {
            on_session_loss: policy,
            ..Config::default()
        };
        let (mut stdio, _standalone) = Stdio::initialized(Habits::default(), config).await;
        stdio.send(CALL).await;
        stdio.server.request().await.fail(session_lost());
        let lost = timeout(Duration::from_secs(1), stdio.gateway.lost());
        if policy == OnSessionLoss::Propagate {
            assert!(lost.await.is_ok());
            assert!(stdio.line().await.contains("session_lost"));
            continue;
        }
        assert!(lost.await.is_err());
        for _ in 0..2 {
            match stdio.server.call().await {
                Call::Request(request) => request.json("{}"),
                Call::Standalone(standalone) => standalone.refuse(),
                Call::Sent(sent) => panic!("got {}", text(&sent.message)),
            }
        }
        let mut lines = Vec::new();
        for _ in 0..3 {
            lines.push(stdio.line().await);
        }
        let with = |text: &str| lines.iter().filter(|line| line.contains(text)).count();
        assert_eq!((with("list_changed"), with("result")), (2, 1), "{lines:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_restarted_server_of_another_version_ends_the_process() {
    let habits = Habits {
        versions: vec!["2025-11-25", "2025-06-18"],
        ..Habits::default()
    };
    let (mut stdio, _standalone) = Stdio::initialized(habits, Config::default()).await;
    stdio.send(CALL).await;
    stdio.server.request().await.fail(session_lost());
    let line = stdio.line().await;
    assert!(
        line.contains("2025-11-25") && line.contains("2025-06-18"),
        "{line}"
    );
    assert!(
        timeout(Duration::from_secs(1), stdio.gateway.lost())
            .await
            .is_ok()
    );
}

/// The end as the assembly brings it about.
async fn shut_down(gateway: &StdioGateway) {
    gateway.drain(Duration::from_secs(10)).await;
    gateway.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_drain_finishes_or_answers_what_is_open() {
    for patient in [true, false] {
        let (mut stdio, _standalone) =
            Stdio::initialized(Habits::default(), Config::default()).await;
        stdio.send(CALL).await;
        let request = stdio.server.request().await;
        let gateway = Arc::clone(&stdio.gateway);
        let draining = tokio::spawn(async move { shut_down(&gateway).await });
        sleep(Duration::from_secs(3)).await;
        if patient {
            request.json("{}");
        }
        draining.await.unwrap();
        let line = stdio.line().await;
        assert_eq!(line.contains("shutting_down"), !patient, "{line}");
        assert_eq!(stdio.server.count("0 close"), 1);
        let lost = timeout(Duration::from_secs(1), stdio.gateway.lost());
        assert!(lost.await.is_err(), "it was ended by us");
    }
}

/// Whether the request waits for the handshake already or comes after it.
#[tokio::test(start_paused = true)]
async fn after_a_failed_handshake_requests_hear_why_until_one_succeeds() {
    for waiting in [true, false] {
        let mut stdio = Stdio::new(Habits::default(), Config::default());
        let refused = fault(FaultKind::Status, Executed::Unknown).because("404, wrong path?");
        stdio.server.broken.lock().insert(0, refused);
        stdio.send(INITIALIZE).await;
        if waiting {
            stdio.send(CALL).await;
        }
        let mut lines = vec![stdio.line().await];
        if !waiting {
            stdio.send(CALL).await;
        }
        lines.push(stdio.line().await);
        lines.sort();
        assert!(lines[0].contains(r#""id":0"#) && lines[0].contains("404, wrong path?"));
        assert!(lines[1].contains("initialize failed"), "{lines:?}");
        assert!(lines[1].contains("404, wrong path?"), "{lines:?}");
        stdio.send(INITIALIZE).await;
        assert!(stdio.line().await.contains("protocolVersion"));
        stdio.send(CALL).await;
        stdio.server.request().await.json("{}");
        assert!(stdio.line().await.contains("result"));
    }
}

#[tokio::test(start_paused = true)]
async fn batches_belong_to_one_version() {
    let habits = Habits {
        versions: vec!["2025-03-26"],
        ..Habits::default()
    };
    let initialize = INITIALIZE.replace("2025-11-25", "2025-03-26");
    let mut stdio = Stdio::new(habits, Config::default());
    stdio.send(&initialize).await;
    stdio.line().await;
    stdio.send(INITIALIZED).await;
    stdio.server.standalone().await.refuse();
    let batch = r#"[{"jsonrpc":"2.0","id":1,"method":"tools/list"},{"jsonrpc":"2.0","id":2,"method":"tools/list"}]"#;
    stdio.send(batch).await;
    for _ in 0..2 {
        stdio.server.request().await.json("{}");
    }
    stdio.line().await;
    stdio.line().await;
    let (mut stdio, _standalone) = Stdio::initialized(Habits::default(), Config::default()).await;
    stdio.send(batch).await;
    assert!(stdio.line().await.contains("-32600"));
}

#[tokio::test(start_paused = true)]
async fn a_modern_client_s_ids_are_free_once_answered_and_its_cancel_closes() {
    let mut stdio = Stdio::new(Habits::default(), Config::default());
    for _ in 0..3 {
        stdio.send(MODERN_REQUEST).await;
        let request = stdio.server.request().await;
        assert_eq!(request.leg, MODERN);
        request.json(r#"{"resultType":"complete"}"#);
        assert!(stdio.line().await.contains("complete"));
    }
    stdio.send(MODERN_REQUEST).await;
    let feeder = stdio.server.request().await.stream(false);
    stdio
        .send(r#"{"method":"notifications/cancelled","params":{"requestId":1}}"#)
        .await;
    feeder.closed().await;
    assert!(stdio.is_silent().await);
    assert_eq!(stdio.server.count("1000 notifications/cancelled"), 0);
}

/// A server is asked for its era before the first request on its pipe, and for its tools before a
/// call over HTTP. The client is read on meanwhile, and may cancel.
#[tokio::test(start_paused = true)]
async fn what_a_request_waits_for_first_does_not_stop_reading() {
    for (pipe, first) in [(true, "server/discover"), (false, "tools/list")] {
        let habits = Habits {
            pipe,
            ..Habits::default()
        };
        let mut stdio = Stdio::new(habits, Config::default());
        let call = MODERN_REQUEST
            .replace("x/ask", "tools/call")
            .replace("{\"_meta\"", "{\"name\":\"t\",\"_meta\"");
        let read = timeout(Duration::from_secs(1), stdio.send(&call)).await;
        read.expect("the client is read on");
        let asked = stdio.server.request().await;
        assert_eq!(asked.method(), first);
        stdio
            .send(r#"{"method":"notifications/cancelled","params":{"requestId":1}}"#)
            .await;
        asked.json(r#"{"resultType":"complete","supportedVersions":["2026-07-28"],"capabilities":{},"tools":[]}"#);
        assert!(stdio.server.is_quiet(Duration::from_secs(10)).await);
        assert!(stdio.is_silent().await);
        // The id is free again.
        stdio.send(MODERN_REQUEST).await;
        stdio.server.request().await;
    }
}

/// A command may need seconds to start. Whoever discovers waits for that; of any other modern request
/// it is soon known that a silent server is of the other era.
#[tokio::test(start_paused = true)]
async fn a_client_that_discovers_waits_for_a_command_to_start() {
    let habits = Habits {
        pipe: true,
        ..Habits::default()
    };
    let mut stdio = Stdio::new(habits.clone(), Config::default());
    let discover = MODERN_REQUEST.replace("x/ask", "server/discover");
    stdio.send(&discover).await;
    let asked = stdio.server.request().await;
    assert!(stdio.is_silent_for(Duration::from_secs(5)).await);
    asked.json(r#"{"resultType":"complete","supportedVersions":["2026-07-28"],"capabilities":{}}"#);
    let relayed = stdio.server.request().await;
    assert_eq!(relayed.method(), "server/discover");
    assert_eq!(stdio.server.count("0 initialize"), 0);

    let mut stdio = Stdio::new(habits, Config::default());
    stdio.send(MODERN_REQUEST).await;
    let _silent = stdio.server.request().await;
    assert!(stdio.is_silent_for(Duration::from_secs(2)).await);
    let refused = stdio.line().await;
    assert!(refused.contains("-32022"), "{refused}");
}

#[tokio::test(start_paused = true)]
async fn a_modern_stream_that_ends_without_a_response_is_an_error() {
    let mut stdio = Stdio::new(Habits::default(), Config::default());
    stdio.send(MODERN_REQUEST).await;
    drop(stdio.server.request().await.stream(false));
    let line = stdio.line().await;
    assert!(line.contains("stream_ended"), "{line}");
}
