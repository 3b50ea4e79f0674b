//! `--admin`: whether the process lives, whether it can serve, and what it counts.
#![cfg(unix)]
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stderr,
    unreachable_pub,
    reason = "a test's failure is a panic that says why; its modules are its own"
)]

mod support;

use std::net::SocketAddr;

use serde_json::json;
use support::client::{Client, Response, Session};
use support::process::Proxy;
use support::upstream::{self, Answer, Gate, Request, Step, Upstream};
use support::{MODES, soon};

/// A proxy, and where its operator looks.
struct Watched {
    proxy: Proxy,
    admin: SocketAddr,
}

impl Watched {
    async fn start(mode: &str, server: &[&str]) -> Self {
        let options = ["--admin", "127.0.0.1:0", "--drain-timeout", "60s"];
        let proxy = Proxy::start(mode, &options, server).await;
        let log = proxy.process.stderr().join("\n");
        let place = log.split("health and metrics on http://").nth(1).unwrap();
        let admin = place.split('/').next().unwrap().parse().unwrap();
        Self { proxy, admin }
    }

    async fn get(&self, path: &str, host: &str) -> Response {
        let mut client = Client::connect(self.admin).await;
        let request = format!("GET {path} HTTP/1.1\r\nhost: {host}\r\n\r\n");
        client.send(request).await;
        client.response().await
    }

    /// The status and the text of `/readyz`.
    async fn readiness(&self) -> (u16, String) {
        let response = self.get("/readyz", "localhost").await;
        (response.status, response.body)
    }

    async fn metrics(&self) -> Metrics {
        let response = self.get("/metrics", "localhost").await;
        assert_eq!(response.status, 200, "{response:?}");
        assert!(
            response
                .header("content-type")
                .unwrap()
                .starts_with("application/openmetrics-text"),
            "{response:?}"
        );
        assert!(response.body.ends_with("# EOF\n"), "{response:?}");
        Metrics(response.body)
    }

    /// Waits until a counter or gauge has this value.
    async fn until(&self, name: &str, value: f64) {
        soon(&format!("{name} {value}"), async {
            while (self.metrics().await.value(name) - value).abs() > f64::EPSILON {
                tokio::time::sleep(std::time::Duration::from_millis(10)).await;
            }
        })
        .await;
    }
}

/// One scrape.
struct Metrics(String);

impl Metrics {
    /// A series by its name and labels as they are written; 0 for one that does not exist yet.
    fn value(&self, series: &str) -> f64 {
        let mut values = self.0.lines().filter_map(|line| {
            let (name, value) = line.rsplit_once(' ')?;
            (name == format!("shadowcat_{series}")).then(|| value.parse().unwrap())
        });
        let value = values.next().unwrap_or_default();
        assert_eq!(values.next(), None, "{series} is there twice: {}", self.0);
        value
    }

    fn requests(&self, method: &str, outcome: &str) -> f64 {
        let labels = format!(r#"{{method="{method}",outcome="{outcome}"}}"#);
        self.value(&format!("requests_total{labels}"))
    }

    fn bytes(&self, leg: &str, direction: &str) -> f64 {
        let labels = format!(r#"{{leg="{leg}",direction="{direction}"}}"#);
        self.value(&format!("bytes_total{labels}"))
    }
}

/// A server whose tools answer, refuse, vanish, or wait for the gate.
fn play(gate: &Gate) -> impl Fn(&Request) -> Answer + Send + Sync + 'static {
    let gate = gate.clone();
    move |request| {
        match (request.method.as_str(), request.tool().as_str()) {
        ("GET", _) => Answer::events().then(Step::Hang),
        ("POST", "echo") => Answer::json(&upstream::text(&request.id(), &"e".repeat(5000))),
        ("POST", "refuse") => Answer::json(&json!({
            "jsonrpc": "2.0", "id": request.id(), "error": {"code": -32602, "message": "no"},
        })),
        ("POST", "vanish") => Answer::default().then(Step::Reset),
        ("POST", "wait") => Answer::events()
            .then(Step::Gate(gate.clone()))
            .data(&upstream::text(&request.id(), "waited"))
            .end(),
        // A server that obeys a cancel ends the call's stream without a response.
        ("POST", "obey") => Answer::events().then(Step::Gate(gate.clone())).end(),
        ("POST", _) if request.rpc() == "notifications/cancelled" => {
            gate.open();
            Answer::accepted()
        }
        _ => upstream::basics(request).unwrap_or_else(|| {
            Answer::json(&json!({
                "jsonrpc": "2.0", "id": request.id(), "error": {"code": -32601, "message": "unknown"},
            }))
        }),
    }
    }
}

fn call(id: u32, tool: &str) -> String {
    format!(
        r#"{{"jsonrpc":"2.0","id":{id},"method":"tools/call","params":{{"name":"{tool}","arguments":{{"text":"{}"}}}}}}"#,
        "t".repeat(3000)
    )
}

#[tokio::test]
async fn health_is_the_process_and_readiness_is_its_server() {
    for mode in MODES {
        let upstream = Upstream::start(play(&Gate::default())).await;
        let watched = Watched::start(mode, &[&upstream.url()]).await;
        assert_eq!(watched.get("/healthz", "localhost").await.body, "ok\n");
        assert_eq!(watched.readiness().await, (200, "ready\n".to_owned()));

        upstream.stop().await;
        let (status, reason) = watched.readiness().await;
        assert_eq!(status, 503, "{mode}: {reason}");
        let address = upstream.address.to_string();
        assert!(
            reason.contains(&address) && reason.contains("cannot be reached"),
            "{mode}: {reason}"
        );
        assert_eq!(watched.get("/healthz", "localhost").await.status, 200);

        upstream.start_again().await;
        assert_eq!(watched.readiness().await.0, 200, "{mode}");
    }
}

#[tokio::test]
async fn who_drains_is_alive_but_not_ready() {
    for mode in MODES {
        let gate = Gate::default();
        let upstream = Upstream::start(play(&gate)).await;
        let mut watched = Watched::start(mode, &[&upstream.url()]).await;
        let session = Session::open(watched.proxy.address, "2025-11-25").await;
        let mut client = Client::connect(watched.proxy.address).await;
        client.send(session.post(&call(1, "wait"))).await;
        assert_eq!(client.head().await.status, 200);

        watched.proxy.process.signal(rustix::process::Signal::TERM);
        soon("readiness ends", async {
            while watched.readiness().await != (503, "shutting down\n".to_owned()) {
                tokio::time::sleep(std::time::Duration::from_millis(10)).await;
            }
        })
        .await;
        assert_eq!(watched.get("/healthz", "localhost").await.status, 200);
        let metrics = watched.metrics().await;
        assert!(metrics.value("sessions_opened_total") > 0.0, "{mode}");

        gate.open();
        let mut text = String::new();
        while let Ok(Some(chunk)) = client.try_chunk().await {
            text.push_str(&chunk);
        }
        assert!(text.contains("waited"), "{mode}: {text}");
        assert!(watched.proxy.process.ended().await.success(), "{mode}");
    }
}

#[tokio::test]
async fn what_happens_is_counted() {
    for mode in MODES {
        let upstream = Upstream::start(play(&Gate::default())).await;
        let watched = Watched::start(mode, &[&upstream.url()]).await;
        let before = watched.metrics().await;
        assert_eq!(before.value("sessions"), 0.0, "{mode}");
        assert_eq!(before.value("request_seconds_count"), 0.0, "{mode}");

        let session = Session::open(watched.proxy.address, "2025-11-25").await;
        let opened = watched.metrics().await;
        assert_eq!(opened.value("sessions"), 1.0, "{mode}");
        assert_eq!(opened.requests("initialize", "result"), 1.0, "{mode}");

        assert_eq!(session.exchange(&call(1, "echo")).await.status, 200);
        let called = watched.metrics().await;
        assert_eq!(called.requests("tools/call", "result"), 1.0, "{mode}");
        for (leg, direction, least) in [
            ("downstream", "received", 3000.0),
            ("downstream", "sent", 5000.0),
            ("upstream", "sent", 3000.0),
            ("upstream", "received", 5000.0),
        ] {
            let moved = called.bytes(leg, direction) - opened.bytes(leg, direction);
            let fits = moved >= least && moved < least + 1000.0;
            assert!(fits, "{mode}: {leg} {direction} {moved}");
        }

        session.exchange(&call(2, "refuse")).await;
        session.exchange(&call(3, "vanish")).await;
        let mut waiting = Client::connect(watched.proxy.address).await;
        waiting.send(session.post(&call(4, "obey"))).await;
        assert_eq!(waiting.head().await.status, 200);
        let cancel =
            r#"{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":4}}"#;
        assert_eq!(session.exchange(cancel).await.status, 202);
        let cancelled = r#"requests_total{method="tools/call",outcome="cancelled"}"#;
        watched.until(cancelled, 1.0).await;
        session
            .exchange(r#"{"jsonrpc":"2.0","id":5,"method":"x/peculiar"}"#)
            .await;
        let ended = watched.metrics().await;
        assert_eq!(ended.requests("tools/call", "result"), 1.0, "{mode}");
        assert_eq!(ended.requests("tools/call", "error"), 1.0, "{mode}");
        assert_eq!(ended.requests("tools/call", "fault"), 1.0, "{mode}");
        // A name that the peer chose makes no series of its own.
        assert_eq!(ended.requests("other", "error"), 1.0, "{mode}");
        assert!(!ended.0.contains("peculiar"), "{mode}: {}", ended.0);
        // initialize, four calls, and the unknown method.
        assert_eq!(ended.value("request_seconds_count"), 6.0, "{mode}");
        assert!(ended.value("request_seconds_sum") > 0.0, "{mode}");

        let mut stream = Client::connect(watched.proxy.address).await;
        stream.send(session.get(None)).await;
        assert_eq!(stream.head().await.status, 200);
        watched.until("client_streams", 1.0).await;
        watched.until("upstream_streams", 1.0).await;
        stream.reset();
        watched.until("client_streams", 0.0).await;

        assert_eq!(session.close().await.status, 204);
        watched.until("sessions", 0.0).await;
        watched.until("upstream_streams", 0.0).await;
        let last = watched.metrics().await;
        assert_eq!(last.value("sessions_opened_total"), 1.0, "{mode}");
    }
}

/// A child that ends by itself is replaced, and the replacement counted apart.
#[tokio::test]
async fn child_restarts_are_counted() {
    let server = include_str!("stdio_upstream/server.sh");
    for mode in MODES {
        let watched = Watched::start(mode, &["--", "sh", "-c", server]).await;
        assert_eq!(watched.readiness().await.0, 200, "{mode}");
        let session = Session::open(watched.proxy.address, "2025-06-18").await;
        assert_eq!(watched.metrics().await.value("children"), 1.0, "{mode}");
        let exit = r#"{"jsonrpc":"2.0","id":1,"method":"x/exit","params":{}}"#;
        let lost = session.exchange(exit).await;
        assert!(lost.body.contains("child_exited"), "{mode}: {lost:?}");
        let call = r#"{"jsonrpc":"2.0","id":2,"method":"tools/call","params":{"name":"t"}}"#;
        let answer = session.exchange(call).await;
        assert!(answer.body.contains(r#""content":[]"#), "{answer:?}");
        let metrics = watched.metrics().await;
        assert_eq!(metrics.value("child_starts_total"), 2.0, "{mode}");
        assert_eq!(metrics.value("child_restarts_total"), 1.0, "{mode}");
        assert_eq!(metrics.value("child_crashes_total"), 1.0, "{mode}");
    }
}

/// A web page whose name was made to point at this machine reads nothing.
#[tokio::test]
async fn a_foreign_host_is_refused() {
    let upstream = Upstream::start(play(&Gate::default())).await;
    let watched = Watched::start("reverse", &[&upstream.url()]).await;
    for path in ["/healthz", "/readyz", "/metrics"] {
        let refused = watched.get(path, "evil.example").await;
        assert_eq!(refused.status, 421, "{path}: {refused:?}");
        assert!(refused.body.contains("--allow-host"), "{refused:?}");
        assert_eq!(watched.get(path, "localhost").await.status, 200, "{path}");
    }
}
