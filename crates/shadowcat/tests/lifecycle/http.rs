//! Serving HTTP: the one line that says where, and the end by signals.

use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::support::client::{Client, Events, Session, initialize, post};
use crate::support::process::Proxy;
use crate::support::upstream::{self, Answer, Gate, Request, Step, Upstream};
use crate::support::{MODES, soon, until};

/// A server whose calls wait for the gate, as JSON or as a stream; one asks its client first, whose
/// answer opens it.
fn gated(gate: Gate) -> impl Fn(&Request) -> Answer + Send + Sync {
    move |request| {
        let text = upstream::text(&request.id(), "done");
        match (request.method.as_str(), request.tool().as_str()) {
            ("GET", _) => Answer::events().then(Step::Hang),
            (_, "stream") => Answer::events()
                .then(Step::Gate(gate.clone()))
                .data(&text)
                .end(),
            (_, "json") => {
                let mut steps = vec![Step::Gate(gate.clone())];
                steps.append(&mut Answer::json(&text).0);
                Answer(steps)
            }
            (_, "ask") => Answer::events()
                .data(&question())
                .then(Step::Gate(gate.clone()))
                .data(&text)
                .end(),
            (_, "never") => Answer::default().then(Step::Hang),
            _ if request.id() == question()["id"] => {
                gate.open();
                Answer::accepted()
            }
            _ => upstream::basics(request).unwrap_or_default(),
        }
    }
}

/// What the server asks its client in a call.
fn question() -> Value {
    json!({"jsonrpc": "2.0", "id": "q", "method": "elicitation/create",
           "params": {"message": "?", "requestedSchema": {"type": "object", "properties": {}}}})
}

fn call(id: u32, tool: &str) -> String {
    json!({"jsonrpc": "2.0", "id": id, "method": "tools/call", "params": {"name": tool}})
        .to_string()
}

#[tokio::test]
async fn one_line_says_where_it_listens_however_much_is_logged() {
    let upstream = Upstream::start(|request| upstream::basics(request).unwrap_or_default()).await;
    for mode in MODES {
        for options in [
            &["--log-level", "off"][..],
            &["--log-level", "error"],
            &["--log-level", "trace"],
            &["--log-format", "json", "--log-level", "warn"],
        ] {
            let mut proxy = Proxy::start(mode, options, &[&upstream.url()]).await;
            Session::open(proxy.address, "2025-11-25")
                .await
                .close()
                .await;
            proxy.process.signal(Signal::TERM);
            assert!(proxy.process.ended().await.success());
            let lines = proxy.process.stderr();
            let expected = format!("listening on http://{}/mcp", proxy.address);
            let count = lines
                .iter()
                .filter(|line| line.contains("listening on"))
                .count();
            assert_eq!(count, 1, "{mode} {options:?}: {lines:#?}");
            assert!(
                lines.iter().any(|line| line.contains(&expected)),
                "{lines:#?}"
            );
            if options[1] == "off" {
                assert_eq!(lines.len(), 1, "{mode}: {lines:#?}");
            }
        }
    }
}

/// Calls in flight are answered, streams are ended, the server's session is closed; then nobody
/// comes in any more and the process exits with 0, long before its drain time is over.
#[tokio::test]
async fn the_first_signal_lets_what_is_open_finish() {
    for mode in MODES {
        for signal in [Signal::TERM, Signal::INT] {
            let gate = Gate::default();
            let upstream = Upstream::start(gated(gate.clone())).await;
            let mut proxy = Proxy::start(mode, &[], &[&upstream.url()]).await;
            let session = Session::open(proxy.address, "2025-11-25").await;
            let (mut json, mut stream, mut standalone, mut idle) = (
                Client::connect(proxy.address).await,
                Client::connect(proxy.address).await,
                Client::connect(proxy.address).await,
                Client::connect(proxy.address).await,
            );
            json.send(session.post(&call(1, "json"))).await;
            stream.send(session.post(&call(2, "stream"))).await;
            let head = stream.head().await;
            standalone.send(session.get(None)).await;
            standalone.head().await;
            until("the calls are in flight", || {
                upstream.calls("tools/call").len() == 2
            })
            .await;
            proxy.process.signal(signal);
            proxy.process.says("finishing what is open").await;
            let asked = Instant::now();
            gate.open();
            assert!(idle.closed().await, "{mode}: an idle connection stays");
            let refused = || std::net::TcpStream::connect(proxy.address).is_err();
            until("nobody new comes in", refused).await;
            let answer = json.response().await;
            assert!(answer.body.contains("done"), "{mode}: {answer:?}");
            let answer = stream.body(head).await;
            assert!(answer.body.contains("done"), "{mode}: {answer:?}");
            let mut events = Events::default();
            while let Ok(Some(_)) = standalone.event(&mut events).await {}
            let status = proxy.process.ended().await;
            assert_eq!(status.code(), Some(0), "{mode}: {status}");
            assert!(
                asked.elapsed() < Duration::from_secs(9),
                "{mode}: {:?}",
                asked.elapsed()
            );
            assert_eq!(upstream.count("DELETE"), 1, "{mode}");
        }
    }
}

/// While what is open may finish, whoever has a part in it is served, on new connections too; what
/// would begin anew is refused.
#[tokio::test]
async fn a_drain_serves_what_is_open_and_refuses_what_is_new() {
    for mode in MODES {
        let upstream = Upstream::start(gated(Gate::default())).await;
        let options = ["--drain-timeout", "1h"];
        let mut proxy = Proxy::start(mode, &options, &[&upstream.url()]).await;
        let session = Session::open(proxy.address, "2025-11-25").await;
        let (mut calling, mut kept) = (
            Client::connect(proxy.address).await,
            Client::connect(proxy.address).await,
        );
        let mut events = Events::default();
        calling.send(session.post(&call(1, "ask"))).await;
        calling.head().await;
        let mut asked = calling.event(&mut events).await.unwrap().unwrap();
        if asked.data.is_empty() {
            asked = calling.event(&mut events).await.unwrap().unwrap();
        }
        assert_eq!(asked.json(), question(), "{mode}");
        proxy.process.signal(Signal::TERM);
        proxy.process.says("finishing what is open").await;

        // A request of a known session, on a new connection and on one that was kept.
        let refused = session.exchange(&call(2, "echo")).await;
        kept.send(session.post(&call(2, "echo"))).await;
        for refused in [refused, kept.response().await] {
            assert_eq!(refused.status, 200, "{mode}: {refused:?}");
            let answer = refused.json();
            let fault = &answer["error"]["data"]["shadowcat"];
            assert_eq!(fault["kind"], "shutting_down", "{mode}: {answer}");
            assert_eq!(fault["executed"], "no", "{mode}: {answer}");
            assert!(fault["retry_after"].is_number(), "{mode}: {answer}");
            let text = answer["error"]["message"].as_str().unwrap();
            assert!(
                text.contains("shadowcat: shutting down: "),
                "{mode}: {text}"
            );
        }
        // A new session; a modern request.
        let discover = json!({"jsonrpc": "2.0", "id": 3, "method": "server/discover", "params": {
            "_meta": {"io.modelcontextprotocol/protocolVersion": "2026-07-28",
                      "io.modelcontextprotocol/clientInfo": {"name": "raw", "version": "1"},
                      "io.modelcontextprotocol/clientCapabilities": {}}}});
        let modern = "mcp-protocol-version: 2026-07-28\r\nmcp-method: server/discover\r\n";
        for (headers, body) in [
            ("", initialize("2025-11-25")),
            (modern, discover.to_string()),
        ] {
            kept.send(post(headers, &body)).await;
            let refused = kept.response().await;
            assert_eq!(refused.status, 503, "{mode}: {refused:?}");
            assert!(
                refused.header("retry-after").is_some(),
                "{mode}: {refused:?}"
            );
            assert!(
                refused.body.contains("shadowcat: shutting down: "),
                "{mode}: {refused:?}"
            );
        }
        // The answer that the call waits for, on a new connection.
        let answer = json!({"jsonrpc": "2.0", "id": "q", "result": {"action": "decline"}});
        let accepted = session.exchange(&answer.to_string()).await;
        assert_eq!(accepted.status, 202, "{mode}: {accepted:?}");
        let done = calling.event(&mut events).await.unwrap().unwrap();
        assert!(done.data.contains("done"), "{mode}: {done:?}");
        assert!(proxy.process.ended().await.success(), "{mode}");
        assert_eq!(upstream.calls("tools/call").len(), 1, "{mode}");
    }
}

/// What does not finish in time gets an error that says why, and the process exits with 0 all the
/// same.
#[tokio::test]
async fn what_does_not_finish_in_time_is_cut() {
    for mode in MODES {
        let upstream = Upstream::start(gated(Gate::default())).await;
        let options = ["--drain-timeout", "300ms"];
        let mut proxy = Proxy::start(mode, &options, &[&upstream.url()]).await;
        let session = Session::open(proxy.address, "2025-11-25").await;
        let mut client = Client::connect(proxy.address).await;
        client.send(session.post(&call(1, "stream"))).await;
        client.head().await;
        until("the call is in flight", || {
            !upstream.calls("tools/call").is_empty()
        })
        .await;
        let asked = Instant::now();
        proxy.process.signal(Signal::TERM);
        let status = proxy.process.ended().await;
        assert_eq!(status.code(), Some(0), "{mode}: {status}");
        let took = asked.elapsed();
        assert!(took >= Duration::from_millis(300), "{mode}: {took:?}");
        let (mut events, mut last) = (Events::default(), String::new());
        while let Ok(Some(event)) = soon("the end", client.event(&mut events)).await {
            last = event.data;
        }
        assert!(
            last.contains(r#""kind":"shutting_down","executed":"unknown""#),
            "{mode}: {last}"
        );
        assert!(
            last.contains("shadowcat: shutting down: "),
            "{mode}: {last}"
        );
    }
}

#[tokio::test]
async fn the_second_signal_ends_at_once() {
    for mode in MODES {
        for (signal, code) in [(Signal::TERM, 143), (Signal::INT, 130)] {
            let upstream = Upstream::start(gated(Gate::default())).await;
            let options = ["--drain-timeout", "1h"];
            let mut proxy = Proxy::start(mode, &options, &[&upstream.url()]).await;
            let session = Session::open(proxy.address, "2025-11-25").await;
            let mut client = Client::connect(proxy.address).await;
            client.send(session.post(&call(1, "never"))).await;
            until("the call is in flight", || {
                !upstream.calls("tools/call").is_empty()
            })
            .await;
            proxy.process.signal(signal);
            proxy.process.says("a second signal").await;
            proxy.process.signal(signal);
            let status = proxy.process.ended().await;
            assert_eq!(status.code(), Some(code), "{mode}: {status}");
        }
    }
}
