//! `forward` on a client's pipes: what is on stdout, what a bad line costs, how it ends.

use std::fs::File;
use std::io::Read as _;
use std::os::fd::OwnedFd;
use std::process::Stdio;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::json;
use tokio::io::AsyncWriteExt as _;

use crate::support::client::{INITIALIZED, initialize};
use crate::support::forward::Forward;
use crate::support::process::{Process, command};
use crate::support::until;
use crate::support::upstream::{self, Answer, Gate, Request, Step, Upstream};

async fn echo(forward: &mut Forward, id: u32) {
    forward.send(call(id, "echo")).await;
    let answer = forward.message().await.unwrap();
    assert_eq!(answer["id"], id, "{answer}");
    assert!(answer["result"].is_object(), "{answer}");
}

fn call(id: u32, tool: &str) -> String {
    json!({"jsonrpc": "2.0", "id": id, "method": "tools/call", "params": {"name": tool}})
        .to_string()
}

fn gated(gate: Gate) -> impl Fn(&Request) -> Answer + Send + Sync {
    move |request| {
        let text = Answer::json(&upstream::text(&request.id(), "done"));
        match request.tool().as_str() {
            "slow" => {
                let mut steps = vec![Step::Gate(gate.clone())];
                steps.extend(text.0);
                Answer(steps)
            }
            "never" => Answer::default().then(Step::Hang),
            "echo" => text,
            _ => upstream::basics(request).unwrap_or_default(),
        }
    }
}

async fn start(options: &[&str]) -> (Forward, Upstream, Gate) {
    let gate = Gate::default();
    let upstream = Upstream::start(gated(gate.clone())).await;
    let mut forward = Forward::start(options, &[&upstream.url()]);
    forward.initialize().await;
    (forward, upstream, gate)
}

#[tokio::test]
async fn a_bad_line_is_answered_and_the_connection_goes_on() {
    let (mut forward, upstream, _) = start(&["--max-message-size", "1KiB"]).await;
    let long = format!(
        r#"{{"jsonrpc":"2.0","id":9,"method":"{}"}}"#,
        "x".repeat(2000)
    );
    for (number, (line, code, quoted)) in [
        (&b"nonsense"[..], -32700, "nonsense"),
        (b"{\"jsonrpc\":\"2.0\",\"id\":1,", -32700, "jsonrpc"),
        (b"\xff\xfe{}", -32700, ""),
        (b"{\"id\":1,\"method\":\"ping\"}", -32600, "ping"),
        (b"[]", -32600, "[]"),
        (long.as_bytes(), -32600, "xxxx"),
    ]
    .into_iter()
    .enumerate()
    {
        forward.send(line).await;
        let answer = forward.message().await.unwrap();
        assert_eq!(answer["error"]["code"], code, "{answer}");
        let warned = || {
            let lines = forward.process.stderr();
            let warnings: Vec<_> = lines.iter().filter(|line| line.contains("WARN")).collect();
            warnings.len() == number + 1 && warnings[number].contains(quoted)
        };
        until("a warning that quotes the line", warned).await;
        echo(&mut forward, 100 + number as u32).await;
    }
    // Blank lines are no messages and no errors.
    forward.send("").await;
    forward.send("\r").await;
    echo(&mut forward, 200).await;
    assert_eq!(upstream.calls("tools/call").len(), 7);
}

/// A pseudo-terminal: the end that a user's terminal program holds, and the one that a program is
/// started on.
fn terminal() -> (OwnedFd, File) {
    use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
    let held = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
    grantpt(&held).unwrap();
    unlockpt(&held).unwrap();
    let name = ptsname(&held, Vec::new()).unwrap();
    let started_on = File::open(name.to_str().unwrap());
    (held, started_on.unwrap())
}

/// Started by hand it would look dead: nothing comes before a client's first message.
#[tokio::test]
async fn on_a_terminal_it_says_what_it_waits_for() {
    const WAITS: &str = "waiting for an MCP client on stdin and stdout";
    let upstream = Upstream::start(gated(Gate::default())).await;
    let (_held, stdin) = terminal();
    let mut command = command(&["forward", &upstream.url()]);
    let mut process = Process::start(command.stdin(stdin).stdout(Stdio::piped()));
    process.says(WAITS).await;
    process.signal(Signal::TERM);
    let status = process.ended().await;
    assert_eq!(status.code(), Some(0), "{status}");
    let mut written = String::new();
    let mut stdout = process.child.stdout.take().unwrap();
    stdout.read_to_string(&mut written).unwrap();
    assert_eq!(written, "");

    let (mut forward, _, _) = start(&[]).await;
    echo(&mut forward, 1).await;
    let lines = forward.process.stderr();
    assert!(!lines.iter().any(|line| line.contains(WAITS)), "{lines:#?}");
}

/// What is written before stdin ends is answered, and the server's session is closed.
#[tokio::test]
async fn the_end_of_stdin_lets_what_is_open_finish() {
    let (mut forward, upstream, gate) = start(&[]).await;
    forward.send(call(1, "slow")).await;
    until("the call is in flight", || {
        !upstream.calls("tools/call").is_empty()
    })
    .await;
    forward.stdin = None;
    forward.process.says("the client closed stdin").await;
    forward.process.says("finishing what is open").await;
    gate.open();
    assert_eq!(forward.message().await.unwrap()["id"], 1);
    assert_eq!(forward.message().await, None);
    let status = forward.process.ended().await;
    assert_eq!(status.code(), Some(0), "{status}");
    assert_eq!(upstream.count("DELETE"), 1);
}

/// A last line needs no newline.
#[tokio::test]
async fn all_in_one_write_and_the_end_is_a_session_too() {
    let upstream = Upstream::start(gated(Gate::default())).await;
    let mut forward = Forward::start(&[], &[&upstream.url()]);
    let lines = [&*initialize("2025-06-18"), INITIALIZED, &call(7, "echo")].join("\n");
    let mut stdin = forward.stdin.take().unwrap();
    stdin.write_all(lines.as_bytes()).await.unwrap();
    drop(stdin);
    assert_eq!(forward.message().await.unwrap()["id"], 0);
    assert_eq!(forward.message().await.unwrap()["id"], 7);
    assert_eq!(forward.message().await, None);
    assert!(forward.process.ended().await.success());
    let asked = upstream.by_method("POST");
    let asked: Vec<_> = asked.iter().map(Request::rpc).collect();
    assert_eq!(
        asked,
        ["initialize", "notifications/initialized", "tools/call"]
    );
    assert_eq!(upstream.count("DELETE"), 1);
}

#[tokio::test]
async fn what_does_not_finish_in_time_gets_an_error() {
    for end in [None, Some(Signal::TERM), Some(Signal::INT)] {
        let (mut forward, upstream, _) = start(&["--drain-timeout", "200ms"]).await;
        forward.send(call(1, "never")).await;
        until("the call is in flight", || {
            !upstream.calls("tools/call").is_empty()
        })
        .await;
        match end {
            Some(signal) => forward.process.signal(signal),
            None => forward.stdin = None,
        }
        let answer = forward.message().await.unwrap();
        assert_eq!(answer["id"], 1, "{end:?}: {answer}");
        let fault = &answer["error"]["data"]["shadowcat"];
        assert_eq!(fault["kind"], "shutting_down", "{end:?}: {answer}");
        assert_eq!(forward.message().await, None, "{end:?}");
        let status = forward.process.ended().await;
        assert_eq!(status.code(), Some(0), "{end:?}: {status}");
    }
}

/// After a signal the client is still heard: what a call waits for passes, what would begin anew is
/// refused.
#[tokio::test]
async fn a_drain_serves_what_is_open_and_refuses_what_is_new() {
    let asked = Gate::default();
    let answered = asked.clone();
    let upstream = Upstream::start(move |request| match &*request.tool() {
        "ask" => Answer::events()
            .data(&json!({"jsonrpc": "2.0", "id": "q", "method": "roots/list"}))
            .then(Step::Gate(asked.clone()))
            .data(&upstream::text(&request.id(), "done"))
            .end(),
        _ if request.id() == "q" => {
            answered.open();
            Answer::accepted()
        }
        _ => upstream::basics(request).unwrap_or_default(),
    })
    .await;
    let mut forward = Forward::start(&["--drain-timeout", "1h"], &[&upstream.url()]);
    forward.initialize().await;
    forward.send(call(1, "ask")).await;
    assert_eq!(forward.message().await.unwrap()["id"], "q");
    forward.process.signal(Signal::TERM);
    forward.process.says("finishing what is open").await;
    forward.send(call(2, "echo")).await;
    let refused = forward.message().await.unwrap();
    assert_eq!(refused["id"], 2, "{refused}");
    let fault = &refused["error"]["data"]["shadowcat"];
    assert_eq!(fault["kind"], "shutting_down", "{refused}");
    assert_eq!(fault["executed"], "no", "{refused}");
    forward
        .send(r#"{"jsonrpc":"2.0","id":"q","result":{"roots":[]}}"#)
        .await;
    let answer = forward.message().await.unwrap();
    assert!(answer["result"].is_object(), "{answer}");
    assert_eq!(forward.message().await, None);
    assert!(forward.process.ended().await.success());
    assert_eq!(upstream.calls("tools/call").len(), 1);
}

/// A server that takes the end of its session but does not answer holds the process for a second.
#[tokio::test]
async fn a_server_that_is_busy_hardly_delays_the_end() {
    let upstream = Upstream::start(|request| match &*request.method {
        "DELETE" => Answer::default().then(Step::Hang),
        _ => gated(Gate::default())(request),
    })
    .await;
    let mut forward = Forward::start(&["--drain-timeout", "300ms"], &[&upstream.url()]);
    forward.initialize().await;
    forward.send(call(1, "never")).await;
    until("the call is in flight", || {
        !upstream.calls("tools/call").is_empty()
    })
    .await;
    let asked = Instant::now();
    forward.stdin = None;
    assert!(forward.process.ended().await.success());
    assert!(
        asked.elapsed() < Duration::from_millis(2500),
        "{:?}",
        asked.elapsed()
    );
    assert_eq!(upstream.count("DELETE"), 1);
}

#[tokio::test]
async fn the_second_signal_ends_at_once() {
    let (mut forward, upstream, _) = start(&["--drain-timeout", "1h"]).await;
    forward.send(call(1, "never")).await;
    until("the call is in flight", || {
        !upstream.calls("tools/call").is_empty()
    })
    .await;
    forward.process.signal(Signal::TERM);
    forward.process.says("a second signal").await;
    forward.process.signal(Signal::TERM);
    let status = forward.process.ended().await;
    assert_eq!(status.code(), Some(143), "{status}");
}

/// The end of stdin is the first request to end; a signal while what is open may still finish is the
/// second.
#[tokio::test]
async fn a_signal_after_the_end_of_stdin_ends_at_once() {
    for (signal, code) in [(Signal::TERM, 143), (Signal::INT, 130)] {
        let (mut forward, upstream, _) = start(&["--drain-timeout", "1h"]).await;
        forward.send(call(1, "never")).await;
        until("the call is in flight", || {
            !upstream.calls("tools/call").is_empty()
        })
        .await;
        forward.stdin = None;
        forward.process.says("finishing what is open").await;
        forward.process.signal(signal);
        let status = forward.process.ended().await;
        assert_eq!(status.code(), Some(code), "{status}");
    }
}

/// A client that reads nothing any more does not hold the process.
#[tokio::test]
async fn a_client_that_is_gone_ends_it() {
    let (mut forward, _, _) = start(&[]).await;
    let (stdin, stdout) = (forward.stdin.take(), forward.stdout);
    drop(stdout);
    drop(stdin);
    let status = forward.process.ended().await;
    assert_eq!(status.code(), Some(0), "{status}");
}

/// A server that cannot be reached is no startup error: it may come later. Each request is told, the
/// log is told once, and once more when the server is there.
#[tokio::test]
async fn a_server_that_is_not_there_is_told_to_each_request_and_once_to_the_log() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    drop(taken);
    let options = ["--request-timeout", "500ms"];
    let mut forward = Forward::start(&options, &[&format!("http://{address}/mcp")]);
    for _ in 0..2 {
        forward.send(initialize("2025-11-25")).await;
        let answer = forward.message().await.unwrap();
        assert_eq!(answer["error"]["code"], -32603, "{answer}");
        assert_eq!(
            answer["error"]["data"]["shadowcat"]["side"], "upstream",
            "{answer}"
        );
        let text = answer["error"]["message"].as_str().unwrap();
        let known = text.contains(&format!("http://{address}/mcp cannot be reached"));
        assert!(known && text.contains("is it running"), "{text}");
    }
    let about_reach = |forward: &Forward| {
        let lines = forward.process.stderr().into_iter();
        let lines = lines.filter(|line| line.contains("reached"));
        lines.collect::<Vec<_>>()
    };
    until("the log is told", || !about_reach(&forward).is_empty()).await;
    let told = about_reach(&forward);
    assert_eq!(told.len(), 1, "{told:#?}");
    assert!(
        told[0].contains("WARN") && told[0].contains("is it running"),
        "{told:#?}"
    );
    let _upstream = Upstream::start_at(address, gated(Gate::default())).await;
    forward.initialize().await;
    echo(&mut forward, 1).await;
    until("the log is told", || about_reach(&forward).len() > 1).await;
    let told = about_reach(&forward);
    assert_eq!(told.len(), 2, "{told:#?}");
    assert!(
        told[1].contains("INFO") && told[1].contains("again"),
        "{told:#?}"
    );
    forward.stdin = None;
    assert!(forward.process.ended().await.success());
}

/// A handshake that failed leaves nothing behind: the client may try another one.
#[tokio::test]
async fn a_refused_handshake_may_be_tried_again() {
    let upstream = Upstream::start(gated(Gate::default())).await;
    let mut forward = Forward::start(&["--min-version", "2025-11-25"], &[&upstream.url()]);
    for _ in 0..2 {
        forward.send(initialize("2025-06-18")).await;
        let answer = forward.message().await.unwrap();
        assert_eq!(answer["error"]["code"], -32602, "{answer}");
        let data = &answer["error"]["data"];
        assert_eq!(data["supported"], json!(["2025-11-25"]), "{answer}");
        assert_eq!(data["requested"], "2025-06-18", "{answer}");
    }
    forward.initialize().await;
    echo(&mut forward, 1).await;
    // Inside a session there is no second handshake.
    forward.send(initialize("2025-11-25")).await;
    let answer = forward.message().await.unwrap();
    assert_eq!(answer["error"]["code"], -32600, "{answer}");
    echo(&mut forward, 2).await;
    forward.stdin = None;
    assert!(forward.process.ended().await.success());
}
