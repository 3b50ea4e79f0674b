//! A client that does not read slows its server and costs next to nothing: 10,000 events wait for
//! it, outside of the proxy as far as they fill the pipes on the way, and none is lost.

use std::time::Duration;

use serde_json::json;

use crate::procfs;
use crate::support::client::{Client, Events, Session};
use crate::support::forward::Forward;
use crate::support::process::Proxy;
use crate::support::upstream::{self, Answer, Request, Upstream};
use crate::support::{MODES, soon, until};

const EVENTS: u64 = 10_000;
/// Bytes of an event's text. Large ones are together more than all socket buffers on the way hold;
/// of small ones it is the number that counts.
const SIZES: [usize; 2] = [1, 1024];
/// Streams at once, each of a session of its own.
const STREAMS: usize = 3;
/// How long nobody reads.
const PAUSE: Duration = Duration::from_secs(10);
/// What a stream may cost meanwhile, in bytes.
const MOST: u64 = 2 * 1024 * 1024;

/// A server that sends all events of a call at once.
enum Server {
    Http(Upstream),
    /// A command: a shell, and `awk` for the events.
    Child(Vec<String>),
}

impl Server {
    async fn http(size: usize) -> Self {
        Self::Http(Upstream::start(move |request| answer(request, size)).await)
    }

    fn child(size: usize) -> Self {
        let (before, after) = parts(size);
        let script = r#"
            while read -r line; do
                id=${line#*'"id":'}; id=${id%%[,\}]*}
                case $line in
                *'"method":"initialize"'*) result='{"protocolVersion":"2025-11-25","capabilities":{},"serverInfo":{"name":"awk","version":"1"}}' ;;
                *'"method":"tools/call"'*)
                    awk 'BEGIN { for (n = 1; n <= 10000; n++) print ENVIRON["BEFORE"] n ENVIRON["AFTER"] }'
                    result='{"content":[{"type":"text","text":"done"}]}' ;;
                *) continue ;;
                esac
                printf '{"jsonrpc":"2.0","id":%s,"result":%s}\n' "$id" "$result"
            done"#;
        let (before, after) = (format!("BEFORE={before}"), format!("AFTER={after}"));
        let words = ["--env", &before, "--env", &after, "--", "sh", "-c", script];
        Self::Child(words.map(str::to_owned).to_vec())
    }

    /// The server as the command line names it.
    fn words(&self) -> Vec<String> {
        match self {
            Self::Http(upstream) => vec![upstream.url()],
            Self::Child(words) => words.clone(),
        }
    }

    /// Whether nothing was asked for twice.
    fn assert_asked_once(&self, calls: usize) {
        if let Self::Http(upstream) = self {
            assert_eq!(upstream.calls("tools/call").len(), calls);
            let opened = upstream.by_method("GET").len();
            assert!(opened <= 1, "a stream was opened again: {opened}");
        }
    }
}

/// An event's bytes before and after its number.
fn parts(size: usize) -> (String, String) {
    let filling = "x".repeat(size);
    let before = r#"{"jsonrpc":"2.0","method":"notifications/progress","params":{"progressToken":1,"progress":"#;
    (before.to_owned(), format!(r#","message":"{filling}"}}}}"#))
}

fn answer(request: &Request, size: usize) -> Answer {
    if let Some(answer) = upstream::basics(request) {
        return answer;
    }
    let (before, after) = parts(size);
    let mut answer = Answer::events();
    // A few events a chunk, as a busy server writes them.
    for first in (1..=EVENTS).step_by(20) {
        let events = (first..first + 20)
            .map(|number| format!("id: {number}\ndata: {before}{number}{after}\n\n"));
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

/// The most that a process grows by while nobody reads.
async fn growth(process: u32, before: u64) -> u64 {
    let mut most = 0;
    let pause = tokio::time::Instant::now() + PAUSE;
    while tokio::time::Instant::now() < pause {
        most = most.max(procfs::memory(process).saturating_sub(before));
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    most
}

async fn over_http(mode: &'static str, server: Server, size: usize) {
    let words = server.words();
    let words: Vec<_> = words.iter().map(String::as_str).collect();
    let proxy = Proxy::start(mode, &["--log-level", "warn"], &words).await;
    let id = proxy.process.id();
    // One stream that is read at once shows what the process needs anyway.
    let mut sessions = vec![Session::open(proxy.address, "2025-11-25").await];
    let warm = sessions[0].exchange(&call(0)).await;
    assert!(warm.body.contains("done"));
    drop(warm);
    let before = procfs::memory(id);
    let mut clients = Vec::new();
    for number in 1..=STREAMS {
        let session = Session::open(proxy.address, "2025-11-25").await;
        let mut client = Client::connect(proxy.address).await;
        client.send(session.post(&call(number))).await;
        assert!(client.head().await.is_stream());
        sessions.push(session);
        clients.push(client);
    }
    let most = growth(id, before).await;
    assert!(
        most < MOST * STREAMS as u64,
        "{mode}, events of {size}: {} KiB more for {STREAMS} streams",
        most / 1024
    );
    let reading = clients.into_iter().enumerate().map(|(number, client)| {
        tokio::spawn(async move { read_all(client, number + 1, size).await })
    });
    for reading in reading.collect::<Vec<_>>() {
        soon("all events", reading).await.unwrap();
    }
    server.assert_asked_once(STREAMS + 1);
}

/// Every event in order, then the response, then the end.
async fn read_all(mut client: Client, id: usize, size: usize) {
    let (before, after) = parts(size);
    let mut events = Events::default();
    let mut next = 1;
    while let Some(event) = client.event(&mut events).await.unwrap() {
        if event.data.is_empty() {
            continue;
        }
        if next <= EVENTS {
            assert_eq!(event.data, format!("{before}{next}{after}"));
        } else {
            assert_eq!(event.json()["id"], id, "{event:?}");
        }
        next += 1;
    }
    assert_eq!(next, EVENTS + 2, "stream {id}");
}

/// The same for a client on the pipes of `forward`.
async fn over_stdio(server: Server, size: usize) {
    let words = server.words();
    let words: Vec<_> = words.iter().map(String::as_str).collect();
    let mut forward = Forward::start(&["--log-level", "warn"], &words);
    forward.initialize().await;
    let id = forward.process.id();
    forward.send(call(0)).await;
    for _ in 0..=EVENTS {
        forward.line().await.unwrap();
    }
    let before = procfs::memory(id);
    forward.send(call(1)).await;
    if let Server::Http(upstream) = &server {
        until("the call is in flight", || {
            upstream.calls("tools/call").len() == 2
        })
        .await;
    }
    let most = growth(id, before).await;
    assert!(most < MOST, "events of {size}: {} KiB more", most / 1024);
    let (before, after) = parts(size);
    for number in 1..=EVENTS {
        let expected = format!("{before}{number}{after}");
        assert_eq!(forward.line().await.unwrap(), expected);
    }
    assert_eq!(forward.message().await.unwrap()["id"], 1);
    server.assert_asked_once(2);
}

async fn all_edges(make: impl AsyncFn(usize) -> Server) {
    let mut running = Vec::new();
    for size in SIZES {
        for mode in MODES {
            running.push(tokio::spawn(over_http(mode, make(size).await, size)));
        }
        running.push(tokio::spawn(over_stdio(make(size).await, size)));
    }
    for edge in running {
        edge.await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_does_not_read_costs_next_to_nothing_with_an_http_server() {
    all_edges(Server::http).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_does_not_read_costs_next_to_nothing_with_a_command() {
    all_edges(async |size| Server::child(size)).await;
}
