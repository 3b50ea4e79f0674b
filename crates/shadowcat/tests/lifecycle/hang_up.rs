//! A terminal that is closed: the end is an orderly one, and a process that was started to outlive its
//! terminal does.

use std::process::Command;

use rustix::process::Signal;

use crate::support::MODES;
use crate::support::client::{Client, Session};
use crate::support::forward::Forward;
use crate::support::process::Proxy;
use crate::support::until;
use crate::support::upstream::{self, Answer, Gate, Request, Step, Upstream};

fn gated(gate: Gate) -> impl Fn(&Request) -> Answer + Send + Sync {
    move |request| match &*request.tool() {
        "slow" => {
            let mut steps = vec![Step::Gate(gate.clone())];
            steps.extend(Answer::json(&upstream::text(&request.id(), "done")).0);
            Answer(steps)
        }
        _ => upstream::basics(request).unwrap_or_default(),
    }
}

const CALL: &str = r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"slow"}}"#;

async fn in_flight(upstream: &Upstream) {
    let called = || !upstream.calls("tools/call").is_empty();
    until("the call is in flight", called).await;
}

/// `words` as they run under a shell that has SIGHUP ignored (nohup), or has not.
fn under_a_shell(words: &Command, ignored: bool) -> Command {
    let mut shell = Command::new("/bin/sh");
    let trap = if ignored { "trap '' HUP; " } else { "" };
    shell.arg("-c").arg(format!("{trap}exec \"$0\" \"$@\""));
    shell.arg(words.get_program()).args(words.get_args());
    for (name, value) in words.get_envs() {
        match value {
            Some(value) => shell.env(name, value),
            None => shell.env_remove(name),
        };
    }
    shell
}

/// Where the tests themselves run with SIGHUP ignored, so does what they start.
fn is_ignored_here() -> bool {
    let mut probe = Command::new("/bin/sh");
    probe.args(["-c", "kill -HUP $$"]);
    probe.status().unwrap().success()
}

/// A closed terminal hangs up more than once: its shell does, and the kernel when the shell is gone.
#[tokio::test]
async fn a_closed_terminal_lets_what_is_open_finish() {
    if is_ignored_here() {
        return;
    }
    for mode in MODES {
        let gate = Gate::default();
        let upstream = Upstream::start(gated(gate.clone())).await;
        let options = ["--drain-timeout", "1h"];
        let mut proxy = Proxy::start(mode, &options, &[&upstream.url()]).await;
        let session = Session::open(proxy.address, "2025-11-25").await;
        let mut client = Client::connect(proxy.address).await;
        client.send(session.post(CALL)).await;
        in_flight(&upstream).await;
        proxy.process.signal(Signal::HUP);
        proxy.process.says("finishing what is open").await;
        proxy.process.signal(Signal::HUP);
        gate.open();
        assert!(client.response().await.body.contains("done"), "{mode}");
        let status = proxy.process.ended().await;
        assert_eq!(status.code(), Some(0), "{mode}: {status}");
        assert_eq!(upstream.count("DELETE"), 1, "{mode}");
    }
}

/// The terminal's end is that of stdin, too, and comes before its signal or after.
#[tokio::test]
async fn stdin_may_end_with_the_terminal() {
    if is_ignored_here() {
        return;
    }
    for stdin_first in [true, false] {
        let gate = Gate::default();
        let upstream = Upstream::start(gated(gate.clone())).await;
        let mut forward = Forward::start(&["--drain-timeout", "1h"], &[&upstream.url()]);
        forward.initialize().await;
        forward.send(CALL).await;
        in_flight(&upstream).await;
        if stdin_first {
            forward.stdin = None;
            forward.process.says("finishing what is open").await;
            forward.process.signal(Signal::HUP);
        } else {
            forward.process.signal(Signal::HUP);
            forward.process.says("finishing what is open").await;
            forward.stdin = None;
        }
        gate.open();
        assert_eq!(forward.message().await.unwrap()["id"], 1);
        assert_eq!(forward.message().await, None);
        let status = forward.process.ended().await;
        assert_eq!(status.code(), Some(0), "{status}");
    }
}

/// Of the other signals the next one still counts as the second.
#[tokio::test]
async fn who_is_asked_by_another_signal_after_that_ends_at_once() {
    if is_ignored_here() {
        return;
    }
    let upstream = Upstream::start(gated(Gate::default())).await;
    let mut forward = Forward::start(&["--drain-timeout", "1h"], &[&upstream.url()]);
    forward.initialize().await;
    forward.send(CALL).await;
    in_flight(&upstream).await;
    forward.process.signal(Signal::HUP);
    forward.process.says("finishing what is open").await;
    forward.process.signal(Signal::TERM);
    let status = forward.process.ended().await;
    assert_eq!(status.code(), Some(143), "{status}");
}

/// `nohup` is a promise.
#[tokio::test]
async fn one_that_was_started_to_outlive_its_terminal_does() {
    for mode in MODES {
        let upstream = Upstream::start(gated(Gate::default())).await;
        let words = Proxy::command(mode, &[], &[&upstream.url()]);
        let mut proxy = Proxy::start_command(&mut under_a_shell(&words, true)).await;
        proxy.process.signal(Signal::HUP);
        let session = Session::open(proxy.address, "2025-11-25").await;
        session.close().await;
        proxy.process.signal(Signal::TERM);
        let status = proxy.process.ended().await;
        assert_eq!(status.code(), Some(0), "{mode}: {status}");
        let lines = proxy.process.stderr();
        let heard = lines.iter().any(|line| line.contains("SIGHUP"));
        assert!(!heard, "{mode}: {lines:#?}");
    }
}
