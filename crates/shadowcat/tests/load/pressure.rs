//! A client that does not read slows its server and costs next to nothing: 10,000 events wait for
//! it, outside of the proxy, and none is lost.

use std::time::Duration;

use serde_json::json;

use crate::procfs;
use crate::support::client::{Client, Events, Session};
use crate::support::process::Proxy;
use crate::support::upstream::{self, Answer, Request, Upstream};
use crate::support::{MODES, soon, until};

const EVENTS: u64 = 10_000;
/// Bytes of an event: together more than all socket buffers on the way hold.
const SIZE: usize = 1024;
/// Streams at once.
const STREAMS: usize = 3;
/// How long nobody reads.
const PAUSE: Duration = Duration::from_secs(3);
/// What a stream may cost meanwhile, in bytes.
const MOST: u64 = 2 * 1024 * 1024;

fn notification(number: u64) -> String {
    let filling = "x".repeat(SIZE);
    format!(
        r#"{{"jsonrpc":"2.0","method":"notifications/progress","params":{{"progressToken":1,"progress":{number},"message":"{filling}"}}}}"#
    )
}

fn answer(request: &Request) -> Answer {
    if let Some(answer) = upstream::basics(request) {
        return answer;
    }
    let mut answer = Answer::events();
    // A few events a chunk, as a busy server writes them.
    for first in (1..=EVENTS).step_by(20) {
        let events = (first..first + 20).map(|number| {
            let data = notification(number);
            format!("id: {number}\ndata: {data}\n\n")
        });
        answer = answer.chunk(events.collect::<String>());
    }
    answer.data(&upstream::text(&request.id(), "done")).end()
}

fn call(id: usize) -> String {
    json!({
        "jsonrpc": "2.0", "id": id, "method": "tools/call",
        "params": {"name": "burst", "_meta": {"progressToken": 1}},
    })
    .to_string()
}

async fn over_http(mode: &str) {
    let upstream = Upstream::start(answer).await;
    let proxy = Proxy::start(mode, &["--log-level", "warn"], &[&upstream.url()]).await;
    let id = proxy.process.id();
    // One stream that is read at once shows what the process needs anyway.
    let session = Session::open(proxy.address, "2025-11-25").await;
    let warm = session.exchange(&call(0)).await;
    assert!(warm.body.contains("done"));
    drop(warm);
    let before = procfs::memory(id);
    let mut clients = Vec::new();
    for number in 1..=STREAMS {
        let mut client = Client::connect(proxy.address).await;
        client.send(session.post(&call(number))).await;
        assert!(client.head().await.is_stream());
        clients.push(client);
    }
    let mut most = 0;
    let pause = tokio::time::Instant::now() + PAUSE;
    while tokio::time::Instant::now() < pause {
        most = most.max(procfs::memory(id).saturating_sub(before));
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(
        most < MOST * STREAMS as u64,
        "{mode}: {} KiB more for {STREAMS} streams",
        most / 1024
    );
    let reading = clients
        .into_iter()
        .enumerate()
        .map(|(number, client)| tokio::spawn(async move { read_all(client, number + 1).await }));
    for reading in reading.collect::<Vec<_>>() {
        soon("all events", reading).await.unwrap();
    }
    assert_eq!(upstream.calls("tools/call").len(), STREAMS + 1, "{mode}");
    assert!(
        upstream.by_method("GET").len() <= 1,
        "{mode}: a stream was opened again"
    );
}

/// Every event in order, then the response, then the end.
async fn read_all(mut client: Client, id: usize) {
    let mut events = Events::default();
    let mut next = 1;
    while let Some(event) = client.event(&mut events).await.unwrap() {
        if event.data.is_empty() {
            continue;
        }
        if next <= EVENTS {
            assert_eq!(event.data, notification(next));
        } else {
            assert_eq!(event.json()["id"], id, "{event:?}");
        }
        next += 1;
    }
    assert_eq!(next, EVENTS + 2, "stream {id}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_does_not_read_costs_next_to_nothing_over_http() {
    let running = MODES.map(|mode| tokio::spawn(over_http(mode)));
    for mode in running {
        mode.await.unwrap();
    }
}

/// The same for a client on the pipes of `forward`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_does_not_read_costs_next_to_nothing_over_stdio() {
    use crate::support::forward::Forward;

    let upstream = Upstream::start(answer).await;
    let mut forward = Forward::start(&["--log-level", "warn"], &[&upstream.url()]);
    forward.initialize().await;
    let id = forward.process.id();
    forward.send(call(0)).await;
    for _ in 0..=EVENTS {
        forward.line().await.unwrap();
    }
    let before = procfs::memory(id);
    forward.send(call(1)).await;
    until("the call is in flight", || {
        upstream.calls("tools/call").len() == 2
    })
    .await;
    let mut most = 0;
    let pause = tokio::time::Instant::now() + PAUSE;
    while tokio::time::Instant::now() < pause {
        most = most.max(procfs::memory(id).saturating_sub(before));
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(most < MOST, "{} KiB more", most / 1024);
    for number in 1..=EVENTS {
        assert_eq!(forward.line().await.unwrap(), notification(number));
    }
    assert_eq!(forward.message().await.unwrap()["id"], 1);
}
