//! Faults that are longer than a stream: servers that restart, forget, refuse, redirect or fall
//! silent. The client's session outlives them.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use serde_json::json;

use crate::script::{At, End, Fault, Script, Seen, call};
use crate::support::client::{Client, Events, Session};
use crate::support::process::Proxy;
use crate::support::upstream::{self, Answer, Request, Step, Upstream};
use crate::support::{MODES, until};
use crate::upstream_leg::{HEAD, OPTIONS, survives, survives_with};

fn echo(id: u32) -> String {
    json!({"jsonrpc": "2.0", "id": id, "method": "tools/call", "params": {"name": "echo"}})
        .to_string()
}

/// A server that knows one session at a time, the newest; restarting it forgets it.
#[derive(Default)]
struct Forgetful(AtomicUsize);

impl Forgetful {
    fn answer(&self, request: &Request) -> Answer {
        let known = format!("session-{}", self.0.load(Ordering::SeqCst));
        if request.rpc() == "initialize" {
            let number = self.0.fetch_add(1, Ordering::SeqCst) + 1;
            let result = json!({"protocolVersion": "2025-11-25", "capabilities": {"tools": {"listChanged": true}}, "serverInfo": {"name": "forgetful", "version": "1"}});
            let headers =
                format!("content-type: application/json\r\nmcp-session-id: session-{number}\r\n");
            let body = upstream::response(&request.id(), result).to_string();
            return Answer::whole("200 OK", &headers, &body);
        }
        if request.header("mcp-session-id") != Some(&known) {
            return Answer::whole("404 Not Found", "", "");
        }
        match request.tool().as_str() {
            "echo" => Answer::json(&upstream::text(&request.id(), &known)),
            _ => upstream::basics(request).unwrap_or_default(),
        }
    }
}

/// The server forgets its sessions: the next call goes into a new one, once, and the client's
/// session stays what it was.
#[tokio::test]
async fn a_session_that_the_server_forgot() {
    for mode in MODES {
        let server = Arc::new(Forgetful::default());
        let playing = Arc::clone(&server);
        let upstream = Upstream::start(move |request| playing.answer(request)).await;
        let proxy = Proxy::start(mode, &OPTIONS, &[&upstream.url()]).await;
        let session = Session::open(proxy.address, "2025-11-25").await;
        assert!(session.exchange(&echo(1)).await.body.contains("session-1"));
        server.0.fetch_add(10, Ordering::SeqCst);
        let answer = session.exchange(&echo(2)).await;
        assert!(answer.body.contains("session-12"), "{mode}: {answer:?}");
        assert!(
            session.exchange(&echo(3)).await.body.contains("session-12"),
            "{mode}"
        );
        assert_eq!(upstream.calls("initialize").len(), 2, "{mode}");
        assert_eq!(
            upstream.calls("notifications/initialized").len(),
            2,
            "{mode}"
        );
        let twice = upstream.calls("tools/call");
        let twice = twice.iter().filter(|call| call.id() == 2).count();
        assert_eq!(twice, 2, "{mode}: refused once, executed once");
    }
}

/// The server is gone for a while and comes back without its sessions.
#[tokio::test]
async fn a_server_that_is_away_for_a_while() {
    for mode in MODES {
        let server = Arc::new(Forgetful::default());
        let playing = Arc::clone(&server);
        let upstream = Upstream::start(move |request| playing.answer(request)).await;
        let proxy = Proxy::start(mode, &OPTIONS, &[&upstream.url()]).await;
        let session = Session::open(proxy.address, "2025-11-25").await;
        assert!(session.exchange(&echo(1)).await.body.contains("session-1"));
        upstream.stop().await;
        let waiting = {
            let session = session.clone();
            tokio::spawn(async move { session.exchange(&echo(2)).await })
        };
        tokio::time::sleep(Duration::from_secs(1)).await;
        server.0.fetch_add(10, Ordering::SeqCst);
        upstream.start_again().await;
        let answer = waiting.await.unwrap();
        assert!(answer.body.contains("session-12"), "{mode}: {answer:?}");
    }
}

/// A standalone stream that the server does not offer is asked for once.
#[tokio::test]
async fn a_stream_that_is_not_offered_is_not_asked_for_again() {
    for mode in MODES {
        for status in ["405 Method Not Allowed", "204 No Content"] {
            let upstream = Upstream::start(move |request| match request.method.as_str() {
                "GET" => Answer::whole(status, "", ""),
                _ => upstream::basics(request).unwrap_or_default(),
            })
            .await;
            let proxy = Proxy::start(mode, &OPTIONS, &[&upstream.url()]).await;
            let session = Session::open(proxy.address, "2025-11-25").await;
            let mut client = Client::connect(proxy.address).await;
            client.send(session.get(None)).await;
            assert!(client.head().await.is_stream(), "{mode} {status}");
            until("the server is asked", || upstream.count("GET") > 0).await;
            tokio::time::sleep(Duration::from_secs(1)).await;
            assert_eq!(upstream.count("GET"), 1, "{mode} {status}");
        }
    }
}

fn poll(retry: &str, times: usize) -> Vec<Fault> {
    let event = format!("id: up-0\nretry: {retry}\ndata:\n\n");
    let length = event.len();
    let answer = format!("{HEAD}{length:x}\r\n{event}\r\n0\r\n\r\n");
    vec![Fault::Instead(answer, End::Clean); times]
}

#[tokio::test]
async fn a_retry_of_zero_is_no_hot_loop() {
    let (resumed, took) = survives(|| Script::new(poll("0", 4))).await;
    assert_eq!(resumed, 4);
    assert!(took >= Duration::from_millis(4 * 250), "{took:?}");
}

#[tokio::test]
async fn a_retry_of_an_hour_is_clamped() {
    let options = [&OPTIONS[..], &["--retry-hint-max", "1s"]].concat();
    let (resumed, took) = survives_with(&options, || Script::new(poll("3600000", 2))).await;
    assert_eq!(resumed, 2);
    // Twice a second and a jitter of three tenths, on a machine that may be busy.
    let range = Duration::from_secs(2)..Duration::from_secs(8);
    assert!(range.contains(&took), "{took:?}");
}

fn cut() -> Fault {
    Fault::Cut(At::After(2), End::Reset)
}

#[tokio::test]
async fn the_wrong_type_in_answer_to_the_resume() {
    let html = "HTTP/1.1 200 OK\r\ncontent-type: text/html\r\ncontent-length: 4\r\n\r\n<p/>";
    let script = || Script::new([cut(), Fault::Instead(html.to_owned(), End::Clean)]);
    assert_eq!(survives(script).await.0, 2);
}

/// What the resume is refused for good is told to the client, and not tried again.
#[tokio::test]
async fn a_resume_that_is_refused_for_good() {
    for mode in MODES {
        for status in [
            "401 Unauthorized",
            "403 Forbidden",
            "405 Method Not Allowed",
            "410 Gone",
        ] {
            let refusal = format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\n\r\n");
            let script = Script::new([cut(), Fault::Instead(refusal, End::Clean)]);
            let upstream = Upstream::start(move |request| script.answer(request)).await;
            let proxy = Proxy::start(mode, &OPTIONS, &[&upstream.url()]).await;
            let session = Session::open(proxy.address, "2025-11-25").await;
            let response = session.exchange(&call()).await;
            let (_, last) = response.body.trim_end().rsplit_once("data: ").unwrap();
            let last: serde_json::Value = serde_json::from_str(last).unwrap();
            assert_eq!(last["id"], "long", "{mode} {status}: {last}");
            let fault = &last["error"]["data"]["shadowcat"];
            assert_eq!(fault["side"], "upstream", "{mode} {status}: {last}");
            assert_eq!(fault["executed"], "unknown", "{mode} {status}: {last}");
            assert_eq!(upstream.calls("tools/call").len(), 1, "{mode} {status}");
        }
    }
}

/// Nothing comes any more, but the connection stays: where there is a cursor, silence costs a
/// reconnect.
#[tokio::test]
async fn half_open_silence() {
    let options = [&OPTIONS[..], &["--idle-timeout", "500ms"]].concat();
    for mode in MODES {
        let script = Script::new([cut()]);
        let upstream = Upstream::start(move |request| {
            let mut answer = script.answer(request);
            if request.tool() == "long" {
                // In place of the reset.
                answer.0.truncate(2);
                answer.0.push(Step::Hang);
            }
            answer
        })
        .await;
        let proxy = Proxy::start(mode, &options, &[&upstream.url()]).await;
        let session = Session::open(proxy.address, "2025-11-25").await;
        let started = Instant::now();
        let mut client = Client::connect(proxy.address).await;
        client.send(session.post(&call())).await;
        client.head().await;
        let mut seen = Seen::default();
        seen.read(&mut client).await.unwrap();
        seen.check();
        assert!(started.elapsed() >= Duration::from_millis(500), "{mode}");
    }
}

/// The server's POST is redirected where it stays a POST, and nowhere else.
#[tokio::test]
async fn redirects() {
    for mode in MODES {
        let upstream = Upstream::start(move |request| {
            let tool = request.tool();
            if request.target == "/mcp" && tool.starts_with("30") {
                let headers = "location: /moved\r\n";
                return Answer::whole(&format!("{tool} Moved"), headers, "");
            }
            match tool.as_str() {
                "" => upstream::basics(request).unwrap_or_default(),
                _ => Answer::json(&upstream::text(&request.id(), &request.target)),
            }
        })
        .await;
        let proxy = Proxy::start(mode, &OPTIONS, &[&upstream.url()]).await;
        let session = Session::open(proxy.address, "2025-11-25").await;
        for (status, follows) in [
            (301, false),
            (302, false),
            (303, false),
            (307, true),
            (308, true),
        ] {
            let call = json!({"jsonrpc": "2.0", "id": status, "method": "tools/call", "params": {"name": status.to_string()}});
            let answer = session.exchange(&call.to_string()).await;
            assert_eq!(
                answer.body.contains(r#""/moved""#),
                follows,
                "{mode} {status}: {answer:?}"
            );
            let told = answer.body.contains(r#""kind":"redirect""#);
            assert_eq!(told, !follows, "{mode} {status}: {answer:?}");
        }
    }
}

/// An event of 4 MiB passes.
#[tokio::test]
async fn a_large_event() {
    for mode in MODES {
        let upstream = Upstream::start(move |request| match request.tool().as_str() {
            "large" => {
                let text = "x".repeat(4 * 1024 * 1024);
                Answer::events()
                    .data(&upstream::text(&request.id(), &text))
                    .end()
            }
            _ => upstream::basics(request).unwrap_or_default(),
        })
        .await;
        let proxy = Proxy::start(mode, &OPTIONS, &[&upstream.url()]).await;
        let session = Session::open(proxy.address, "2025-11-25").await;
        let call =
            json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "large"}});
        let answer = session.exchange(&call.to_string()).await;
        let length = answer.body.matches('x').count();
        assert!(length >= 4 * 1024 * 1024, "{mode}: {length}");
    }
}

/// 50 sessions lose their standalone streams in one instant; all of them get them back.
#[tokio::test]
async fn fifty_streams_dropped_at_once() {
    const SESSIONS: usize = 50;
    for mode in MODES {
        let opened = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&opened);
        let upstream = Upstream::start(move |request| {
            if request.method != "GET" {
                return upstream::basics(request).unwrap_or_default();
            }
            let number = counter.fetch_add(1, Ordering::SeqCst);
            let data = json!({"jsonrpc": "2.0", "method": "notifications/message", "params": {"level": "info", "data": number}});
            Answer::events().event(&format!("n-{number}"), &data).then(Step::Hang)
        })
        .await;
        let proxy = Proxy::start(mode, &OPTIONS, &[&upstream.url()]).await;
        let mut clients = Vec::new();
        for _ in 0..SESSIONS {
            let session = Session::open(proxy.address, "2025-06-18").await;
            let mut client = Client::connect(proxy.address).await;
            client.send(session.get(None)).await;
            assert!(client.head().await.is_stream());
            let mut events = Events::default();
            client.event(&mut events).await.unwrap().unwrap();
            clients.push((client, events));
        }
        upstream.stop().await;
        upstream.start_again().await;
        for (client, events) in &mut clients {
            let event = client.event(events).await.unwrap().unwrap();
            assert!(event.data.contains("notifications/"), "{mode}: {event:?}");
        }
        let opened = opened.load(Ordering::SeqCst);
        assert!(
            (2 * SESSIONS..=3 * SESSIONS).contains(&opened),
            "{mode}: {opened}"
        );
    }
}
