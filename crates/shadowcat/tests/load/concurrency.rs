//! Every answer reaches its asker, none twice: many sessions with the same ids, all at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use serde_json::{Value, json};

use crate::procfs;
use crate::support::MODES;
use crate::support::client::{Client, Events, Response, Session};
use crate::support::process::Proxy;
use crate::support::upstream::{self, Answer, Gate, Request, Step, Upstream};

/// Ids of each session: from 1 to this.
const CALLS: usize = 20;

/// A number that looks random, the same in every run.
fn mixed(nonce: &str) -> u64 {
    let hash = nonce.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    hash ^ (hash >> 29)
}

/// Holds all calls until `all` of them are there, then answers them in random order: half of them
/// as JSON, half as a stream whose head and progress come first.
fn hold_all(all: usize) -> impl Fn(&Request) -> Answer + Send + Sync {
    let (there, gate) = (Arc::new(AtomicUsize::new(0)), Gate::default());
    move |request| {
        if let Some(answer) = upstream::basics(request) {
            return answer;
        }
        if there.fetch_add(1, Ordering::SeqCst) + 1 == all {
            gate.open();
        }
        let json = request.json();
        let arguments = &json["params"]["arguments"];
        let nonce = arguments["nonce"].as_str().unwrap();
        let delay = Step::Wait(Duration::from_millis(mixed(nonce) % 300));
        let answer = upstream::text(&json["id"], nonce);
        let held = |answer: Answer| answer.then(Step::Gate(gate.clone())).then(delay);
        if arguments["stream"] == true {
            let params = json!({"progressToken": json["id"], "progress": 1, "message": nonce});
            let progress =
                json!({"jsonrpc": "2.0", "method": "notifications/progress", "params": params});
            let opened = Answer::events().event(nonce, &progress);
            held(opened).data(&answer).end()
        } else {
            let mut answer = Answer::json(&answer).0;
            let mut steps = held(Answer::default()).0;
            steps.append(&mut answer);
            Answer(steps)
        }
    }
}

/// One call of one session, on a connection of its own; the messages of its answer.
async fn call(session: &Session, body: &Value) -> Vec<Value> {
    let mut client = Client::connect(session.address).await;
    client.send(session.post(&body.to_string())).await;
    let response = client.response().await;
    assert_eq!(response.status, 200, "{response:?}");
    messages(&response)
}

fn messages(response: &Response) -> Vec<Value> {
    if !response.is_stream() {
        return vec![response.json()];
    }
    let mut events = Events::default();
    events.push(&response.body);
    let mut messages = Vec::new();
    while let Some(event) = events.next() {
        // A priming event has no data.
        if !event.data.is_empty() {
            messages.push(event.json());
        }
    }
    messages
}

/// Makes all calls of all sessions at once and checks each answer.
async fn converse(
    proxy: &Proxy,
    sessions: usize,
    body: impl Fn(usize, &str) -> Value,
    check: impl Fn(&str, &[Value]),
) {
    let opening = (0..sessions).map(|number| {
        let version = ["2025-03-26", "2025-06-18", "2025-11-25"][number % 3];
        tokio::spawn(Session::open(proxy.address, version))
    });
    let mut calls = Vec::new();
    for (number, opening) in opening.collect::<Vec<_>>().into_iter().enumerate() {
        let session = opening.await.unwrap();
        for id in 1..=CALLS {
            let nonce = format!("{number}-{id}-{:x}", mixed(&format!("{number} {id}")));
            let (session, body) = (session.clone(), body(id, &nonce));
            calls.push(tokio::spawn(async move {
                (nonce, id, call(&session, &body).await)
            }));
        }
    }
    for call in calls {
        let (nonce, id, messages) = call.await.unwrap();
        let answers = messages.iter().filter(|message| !message["id"].is_null());
        let answers: Vec<_> = answers.collect();
        assert_eq!(answers.len(), 1, "{nonce}: {messages:?}");
        assert_eq!(answers[0]["id"], id, "{nonce}: {messages:?}");
        check(&nonce, &messages);
    }
}

async fn over_http(mode: &str) {
    const SESSIONS: usize = 200;
    procfs::raise_open_files(3 * (SESSIONS * CALLS) as u64);
    let upstream = Upstream::start(hold_all(SESSIONS * CALLS)).await;
    let proxy = Proxy::start(mode, &["--log-level", "warn"], &[&upstream.url()]).await;
    let body = |id: usize, nonce: &str| {
        let arguments = json!({"nonce": nonce, "stream": id.is_multiple_of(2)});
        let params =
            json!({"name": "echo", "arguments": arguments, "_meta": {"progressToken": id}});
        json!({"jsonrpc": "2.0", "id": id, "method": "tools/call", "params": params})
    };
    converse(&proxy, SESSIONS, body, |nonce, messages| {
        let answer = messages.last().unwrap();
        assert_eq!(answer["result"]["content"][0]["text"], nonce);
        let id = answer["id"].as_u64().unwrap();
        if id.is_multiple_of(2) {
            assert_eq!(messages.len(), 2, "{messages:?}");
            assert_eq!(messages[0]["params"]["message"], nonce);
        }
    })
    .await;
    assert_eq!(upstream.calls("tools/call").len(), SESSIONS * CALLS);
    assert_eq!(
        proxy.process.stderr().len(),
        1,
        "{:?}",
        proxy.process.stderr()
    );
}

async fn over_stdio(mode: &str) {
    const SESSIONS: usize = 20;
    let server = ["--", env!("CARGO_BIN_EXE_shadowcat"), "__server", "stdio"];
    let proxy = Proxy::start(mode, &["--log-level", "warn"], &server).await;
    let body = |id: usize, nonce: &str| {
        let arguments = json!({"nonce": nonce, "ms": 500 + mixed(nonce) % 300, "steps": 2});
        let mut params = json!({"name": "slow", "arguments": arguments});
        if id.is_multiple_of(2) {
            params["_meta"] = json!({"progressToken": id});
        }
        json!({"jsonrpc": "2.0", "id": id, "method": "tools/call", "params": params})
    };
    converse(&proxy, SESSIONS, body, |nonce, messages| {
        let answer = messages.last().unwrap();
        assert_eq!(answer["result"]["structuredContent"]["nonce"], nonce);
        let (progress, _) = messages.split_at(messages.len() - 1);
        let own = |message: &Value| message["params"]["progressToken"] == answer["id"];
        assert!(progress.iter().all(own), "{messages:?}");
        let even = answer["id"].as_u64().unwrap().is_multiple_of(2);
        assert_eq!(even, !progress.is_empty(), "{messages:?}");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_answer_reaches_its_asker_over_http() {
    for mode in MODES {
        over_http(mode).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_answer_reaches_its_asker_over_stdio() {
    for mode in MODES {
        over_stdio(mode).await;
    }
}
