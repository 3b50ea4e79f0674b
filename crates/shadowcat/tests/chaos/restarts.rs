//! A server that goes away in the middle of a call and comes back with its log, and servers that
//! break in ways that only time or a second look shows.

use std::time::{Duration, Instant};

use crate::script::{Script, Seen, call, message};
use crate::support::MODES;
use crate::support::client::{Client, Events, Session};
use crate::support::process::Proxy;
use crate::support::upstream::{self, Answer, Request, Step, Upstream};
use crate::upstream_leg::OPTIONS;

/// Runs a test in both modes at once; for those that have to wait.
async fn in_both_modes<F: Future<Output = ()> + Send + 'static>(test: fn(&'static str) -> F) {
    for mode in MODES.map(|mode| tokio::spawn(test(mode))) {
        mode.await.unwrap();
    }
}

/// The server says two messages of the call, is away for this long, and knows all of it afterwards.
async fn away(mode: &str, time: Duration) {
    let script = Script::new([]);
    let upstream = Upstream::start(move |request: &Request| {
        if request.tool() != "long" {
            return script.answer(request);
        }
        let primer = Answer::events().chunk("id: up-0\ndata:\n\n");
        let two = (1..=2).fold(primer, |answer, number| {
            answer.event(&format!("up-{number}"), &message(number))
        });
        two.then(Step::Hang)
    })
    .await;
    let options = ["--retry-initial", "100ms", "--retry-max", "400ms"];
    let proxy = Proxy::start(mode, &options, &[&upstream.url()]).await;
    let session = Session::open(proxy.address, "2025-11-25").await;
    let mut client = Client::connect(proxy.address).await;
    client.send(session.post(&call())).await;
    assert!(client.head().await.is_stream(), "{mode}");
    let mut seen = Seen::default();
    let mut events = Events::default();
    while seen.messages.len() < 2 {
        seen.take(&client.event(&mut events).await.unwrap().unwrap());
    }
    upstream.stop().await;
    tokio::time::sleep(time).await;
    upstream.start_again().await;
    let back = Instant::now();
    while let Some(event) = client.event(&mut events).await.unwrap() {
        seen.take(&event);
    }
    seen.check();
    let took = back.elapsed();
    assert!(took < Duration::from_secs(5), "{mode}: {took:?}");
    let cursors: Vec<_> = upstream.by_method("GET");
    let cursors: Vec<_> = cursors
        .iter()
        .filter_map(|get| get.header("last-event-id"))
        .collect();
    assert_eq!(cursors, ["up-2"], "{mode}");
    assert_eq!(upstream.calls("tools/call").len(), 1, "{mode}");
    assert_eq!(upstream.calls("initialize").len(), 1, "{mode}");
}

#[tokio::test]
async fn a_server_that_is_refused_for_two_seconds() {
    in_both_modes(|mode| away(mode, Duration::from_secs(2))).await;
}

#[tokio::test]
async fn a_restart_with_its_log() {
    in_both_modes(|mode| away(mode, Duration::ZERO)).await;
}

/// A server that counts its ids from the start again on every connection: what it repeats is
/// dropped, and what only has the id of something else is a message.
#[tokio::test]
async fn ids_that_are_used_again() {
    for mode in MODES {
        let upstream = Upstream::start(|request: &Request| {
            let [first, second] = [("POST", None), ("GET", Some("b"))];
            let asked = (request.method.as_str(), request.header("last-event-id"));
            let events = |events: &[(&str, u64)]| {
                events
                    .iter()
                    .fold(Answer::events(), |answer, (id, number)| {
                        answer.event(id, &message(*number))
                    })
            };
            if asked == first && request.tool() == "long" {
                events(&[("a", 1), ("a", 2), ("b", 3)]).then(Step::Close)
            } else if asked == second {
                events(&[("b", 3), ("a", 4), ("b", 5), ("c", 6)]).end()
            } else {
                upstream::basics(request).unwrap_or_default()
            }
        })
        .await;
        let proxy = Proxy::start(mode, &OPTIONS, &[&upstream.url()]).await;
        let session = Session::open(proxy.address, "2025-11-25").await;
        let mut client = Client::connect(proxy.address).await;
        client.send(session.post(&call())).await;
        assert!(client.head().await.is_stream(), "{mode}");
        let mut seen = Seen::default();
        seen.read(&mut client).await.unwrap();
        seen.check();
        assert_eq!(upstream.calls("tools/call").len(), 1, "{mode}");
    }
}

/// The server shows with comments that it lives, and then nothing more: dead after three of their
/// periods, but not before 5 s. Comments in the first second greet, and show no period.
#[tokio::test]
async fn comments_only_and_then_silence() {
    in_both_modes(|mode| async move {
        let script = Script::new([]);
        let upstream = Upstream::start(move |request: &Request| {
            if request.tool() != "long" {
                return script.answer(request);
            }
            let primer = Answer::events().chunk("id: up-0\ndata:\n\n");
            let comments = (0..6).fold(primer, |answer, _| {
                answer.wait(Duration::from_millis(300)).chunk(": here\n\n")
            });
            comments.then(Step::Hang)
        })
        .await;
        let proxy = Proxy::start(mode, &OPTIONS, &[&upstream.url()]).await;
        let session = Session::open(proxy.address, "2025-11-25").await;
        let started = Instant::now();
        let mut client = Client::connect(proxy.address).await;
        client.send(session.post(&call())).await;
        assert!(client.head().await.is_stream(), "{mode}");
        let mut seen = Seen::default();
        // The idle timeout would be five minutes.
        let reading = tokio::time::timeout(Duration::from_secs(20), seen.read(&mut client));
        reading.await.unwrap().unwrap();
        seen.check();
        let took = started.elapsed();
        assert!(took >= Duration::from_secs(5), "{mode}: {took:?}");
        assert_eq!(upstream.calls("tools/call").len(), 1, "{mode}");
    })
    .await;
}
