//! Sessions that come and go leave nothing behind: no child, no descriptor, no memory.

use crate::procfs;
use crate::support::client::{Client, INITIALIZED, Session};
use crate::support::process::Proxy;
use crate::support::upstream::{self, Answer, Request, Step, Upstream};
use crate::support::{MODES, soon, until};

/// A server with a tool that takes long and a standalone stream that stays open.
fn answer(request: &Request) -> Answer {
    match (request.method.as_str(), request.tool().as_str()) {
        ("GET", _) => Answer::events().then(Step::Hang),
        (_, "hang") => Answer::default().then(Step::Hang),
        (_, "stream and hang") => Answer::events().chunk("id: 1\ndata:\n\n").then(Step::Hang),
        (_, "echo") => Answer::json(&upstream::text(&request.id(), "echo")),
        _ => upstream::basics(request).unwrap_or_default(),
    }
}

fn call(tool: &str) -> String {
    format!(
        r#"{{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{{"name":"{tool}","arguments":{{"ms":60000}}}}}}"#
    )
}

/// A session's life: what it opened, whether its client said goodbye. Those that did not are ended
/// by their idle time.
async fn live(number: usize, session: Session, slow: &str) {
    let mut client = Client::connect(session.address).await;
    match number % 5 {
        // Leaves in the middle of a call.
        0 => client.send(session.post(&call(slow))).await,
        // Leaves in the middle of the standalone stream.
        1 => {
            client.send(session.get(None)).await;
            client.head().await;
        }
        // Ends while a call is in flight and the stream is open.
        2 => {
            client.send(session.post(&call(slow))).await;
            let opened = client.head().await;
            assert!(opened.is_stream(), "{opened:?}");
            let mut stream = Client::connect(session.address).await;
            stream.send(session.get(None)).await;
            stream.head().await;
            assert_eq!(session.close().await.status, 204);
            let answer = client.body(opened).await.body;
            assert!(answer.contains("session_ended"), "{answer}");
        }
        // Comes, calls, goes.
        _ => {
            assert_eq!(session.exchange(&call("echo")).await.status, 200);
            assert_eq!(session.exchange(INITIALIZED).await.status, 202);
            assert_eq!(session.close().await.status, 204);
        }
    }
}

/// Opens and ends `sessions`, some at a time.
async fn round(proxy: &Proxy, sessions: usize, slow: &'static str) {
    let address = proxy.address;
    for first in (0..sessions).step_by(25) {
        let lives = (first..sessions.min(first + 25)).map(|number| {
            tokio::spawn(async move {
                let session = Session::open(address, "2025-11-25").await;
                live(number, session, slow).await;
            })
        });
        for life in lives.collect::<Vec<_>>() {
            soon("a session's life", life).await.unwrap();
        }
    }
}

/// Sessions of a round, of two rounds in all.
const SESSIONS: usize = 500;
/// What the second round may leave behind, in bytes: less than 8 KiB a session.
const MORE: u64 = 4 * 1024 * 1024;

/// A call that nobody waits for ends by its deadline, its session by its idle time, which is looked
/// at every 10 s.
const OPTIONS: [&str; 6] = [
    "--session-ttl",
    "1s",
    "--request-timeout",
    "5s",
    "--log-level",
    "error",
];

async fn over_http(mode: &str) {
    let upstream = Upstream::start(answer).await;
    let proxy = Proxy::start(mode, &OPTIONS, &[&upstream.url()]).await;
    let id = proxy.process.id();
    let before = procfs::descriptors(id);
    let mut held = Vec::new();
    for number in 1..=2 {
        round(&proxy, SESSIONS, "stream and hang").await;
        until("the sessions end", || {
            upstream.count("DELETE") == number * SESSIONS
        })
        .await;
        // Connections to the server are kept for some seconds.
        until("what was open is closed", || {
            procfs::descriptors(id) <= before
        })
        .await;
        held.push(procfs::memory(id));
    }
    assert!(held[1] < held[0] + MORE, "{mode}: memory {held:?}");
    assert!(procfs::children(id).is_empty(), "{mode}");
}

/// Every session has a process of its own.
async fn over_stdio(mode: &str) {
    const SESSIONS: usize = 50;
    let server = ["--", env!("CARGO_BIN_EXE_shadowcat"), "__server", "stdio"];
    let proxy = Proxy::start(mode, &OPTIONS, &server).await;
    let id = proxy.process.id();
    let before = procfs::descriptors(id);
    let mut held = Vec::new();
    for _ in 1..=2 {
        round(&proxy, SESSIONS, "slow").await;
        until("the processes end", || procfs::children(id).is_empty()).await;
        until("their pipes are closed", || {
            procfs::descriptors(id) <= before
        })
        .await;
        held.push(procfs::memory(id));
    }
    assert!(held[1] < held[0] + MORE, "{mode}: memory {held:?}");
}

async fn in_both_modes<F: Future<Output = ()> + Send + 'static>(run: fn(&'static str) -> F) {
    let running = MODES.map(|mode| tokio::spawn(run(mode)));
    for mode in running {
        mode.await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_sessions_over_http_leave_nothing_behind() {
    in_both_modes(over_http).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_sessions_over_stdio_leave_nothing_behind() {
    in_both_modes(over_stdio).await;
}
