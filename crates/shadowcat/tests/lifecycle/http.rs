//! Serving HTTP: the one line that says where, and the end by signals.

use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::json;

use crate::support::client::{Client, Events, Session};
use crate::support::process::Proxy;
use crate::support::upstream::{self, Answer, Gate, Request, Step, Upstream};
use crate::support::{MODES, soon, until};

/// A server whose calls wait for the gate, as JSON or as a stream.
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
            (_, "never") => Answer::default().then(Step::Hang),
            _ => upstream::basics(request).unwrap_or_default(),
        }
    }
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

/// Calls in flight are answered, streams are ended, the server's session is closed, and nobody new
/// comes in; then the process exits with 0, long before its drain time is over.
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
            assert!(idle.closed().await, "{mode}: an idle connection stays");
            let refused = || std::net::TcpStream::connect(proxy.address).is_err();
            until("nobody new comes in", refused).await;
            let asked = Instant::now();
            gate.open();
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

/// What does not finish in time gets an error or is cut, and the process exits with 0 all the same.
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
        let mut events = Events::default();
        while let Ok(Some(_)) = soon("the end", client.event(&mut events)).await {}
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
            let said = || {
                proxy
                    .process
                    .stderr()
                    .join("\n")
                    .contains("a second signal")
            };
            until("the proxy says what a second signal does", said).await;
            proxy.process.signal(signal);
            let status = proxy.process.ended().await;
            assert_eq!(status.code(), Some(code), "{mode}: {status}");
        }
    }
}
