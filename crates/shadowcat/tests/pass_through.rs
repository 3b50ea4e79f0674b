//! What the proxy has no part in passes byte for byte, either way, whatever joins client and server.
//!
//! One conversation is played over every pair of edges: its lines are written with spaces, orders,
//! numbers and escapes that any reading and writing anew would change.
#![cfg(unix)]
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stderr,
    unreachable_pub,
    reason = "a test's failure is a panic that says why; its modules are its own"
)]

mod support;

use std::path::{Path, PathBuf};

use support::client::{Client, Events, Session};
use support::forward::Forward;
use support::process::Proxy;
use support::upstream::{self, Answer, Gate, Request, Step, Upstream};
use support::{MODES, until};

/// One request with what comes of it, as lines.
struct Exchange {
    request: &'static str,
    /// What the server asks meanwhile, and what the client answers.
    asked: Option<(&'static str, &'static str)>,
    response: &'static str,
}

const fn plain(request: &'static str, response: &'static str) -> Exchange {
    Exchange {
        request,
        asked: None,
        response,
    }
}

const CONVERSATION: [Exchange; 12] = [
    // A task (2025-11-25) from its creation to its end; the proxy has no part in it.
    plain(
        r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"slow","arguments":{ },"task":{"ttl":60000, "x":1e2}}}"#,
        r#"{"jsonrpc":"2.0","id":1,"result":{"task":{"taskId":"786512e2-9e0d","status":"working","createdAt":"2025-11-25T10:30:00Z","ttl":60000,"pollInterval":5000}}}"#,
    ),
    plain(
        r#"{"method":"tasks/get","id":2,"params":{"taskId":"786512e2-9e0d"},"jsonrpc":"2.0"}"#,
        r#"{"result":{"taskId":"786512e2-9e0d","status":"input_required","statusMessage":"z\u00f6gert","ttl":null},"id":2,"jsonrpc":"2.0"}"#,
    ),
    plain(
        r#"{"jsonrpc":"2.0","id":3,"method":"tasks/list","params":{"cursor":"p\/2=="}}"#,
        r#"{"jsonrpc":"2.0","id":3,"result":{"tasks":[],"nextCursor":"p\/3=="}}"#,
    ),
    plain(
        r#"{"jsonrpc":"2.0","id":4,"method":"tasks/result","params":{"taskId":"786512e2-9e0d"}}"#,
        r#"{"jsonrpc":"2.0","id":4,"result":{"content":[{"type":"text","text":"done"}],"isError":false,"_meta":{"io.modelcontextprotocol/related-task":{"taskId":"786512e2-9e0d"}}}}"#,
    ),
    plain(
        r#"{"jsonrpc":"2.0","id":5,"method":"tasks/cancel","params":{"taskId":"786512e2-9e0d"}}"#,
        r#"{"jsonrpc":"2.0","id":5,"error":{"code":-32602,"message":"Cannot cancel task: already in terminal status","data":{"status":"completed"}}}"#,
    ),
    // Pages: the cursors are the server's.
    plain(
        r#"{"jsonrpc":"2.0","id":"page 1","method":"tools/list"}"#,
        r#"{"jsonrpc":"2.0","id":"page 1","result":{"tools":[{"name":"a","inputSchema":{"type":"object"}}],"nextCursor":"\"{\u0000} ö/+="}}"#,
    ),
    plain(
        r#"{"jsonrpc":"2.0","id":"page 2","method":"tools/list","params":{"cursor":"\"{\u0000} ö/+="}}"#,
        r#"{"jsonrpc":"2.0","id":"page 2","result":{"tools":[{"name":"b","inputSchema":{"type":"object"}}]}}"#,
    ),
    // The server asks while it is asked.
    Exchange {
        request: r#"{"jsonrpc":"2.0","id":6,"method":"tools/call","params":{"name":"ask","arguments":{"n":1.50}}}"#,
        asked: Some((
            r#"{"jsonrpc":"2.0","id":"s-1","method":"sampling/createMessage","params":{"messages":[{"role":"user","content":{"type":"text","text":"W\u0069e geht's?"}}],"maxTokens":1E2,"x-unknown":null}}"#,
            r#"{"jsonrpc":"2.0","id":"s-1","result":{"role":"assistant","content":{"type":"text","text":"\u00df  gut"},"model":"m","stopReason":"endTurn","x-unknown":[ 1.0 ]}}"#,
        )),
        response: r#"{"jsonrpc":"2.0","id":6,"result":{"content":[ ],"isError":false}}"#,
    },
    Exchange {
        request: r#"{"jsonrpc":"2.0","id":7,"method":"tools/call","params":{"name":"ask","arguments":{}}}"#,
        asked: Some((
            r#"{"id":0,"method":"roots/list","jsonrpc":"2.0"}"#,
            r#"{"jsonrpc":"2.0","result":{"roots":[{"uri":"file:\/\/\/h%C3%B6me","name":"h\u00f6me"}]},"id":0}"#,
        )),
        response: r#"{"jsonrpc":"2.0","id":7,"result":{"content":[]}}"#,
    },
    // A refusal of the client's is passed as well.
    Exchange {
        request: r#"{"jsonrpc":"2.0","id":8,"method":"tools/call","params":{"name":"ask","arguments":{}}}"#,
        asked: Some((
            r#"{"jsonrpc":"2.0","id":9007199254740991,"method":"sampling/createMessage","params":{"messages":[],"maxTokens":1}}"#,
            r#"{"jsonrpc":"2.0","id":9007199254740991,"error":{"code":-1,"message":"User rejected sampling request","data":{"x":0.10}}}"#,
        )),
        response: r#"{"jsonrpc":"2.0","id":8,"result":{"content":[],"isError":true}}"#,
    },
    // What nobody has heard of.
    plain(
        r#"{"jsonrpc":"2.0","id":9,"x-top":{"a":[1, 2]},"method":"x/Unbekannt","params":{"n":123456789012345678901234567890.10,"e":1e400,"twice":1,"twice":2,"s":"\ud83d\ude00\/"}}"#,
        r#"{"x-top":[ ],"jsonrpc":"2.0","id":9,"result":{"n":-0.0,"big":18446744073709551616,"s":"\u003c"}}"#,
    ),
    plain(
        r#"{"jsonrpc":"2.0","id":10,"method":"x/other","params":{}}"#,
        r#"{"jsonrpc":"2.0","id":10,"error":{"code":-31999,"message":"nö","x":1,"data":[ null ]}}"#,
    ),
];

/// A notification of the client's that nobody knows.
const NOTIFICATION: &str = r#"{"jsonrpc":"2.0","method":"notifications/x/odd","params":{"n":1.0, "s":"\u0041"},"x-top":true}"#;

/// What the server reads after the handshake, if every line is there and none is changed.
fn expected() -> Vec<&'static str> {
    let lines = CONVERSATION.iter().flat_map(|exchange| {
        let reply = exchange.asked.map(|(_, reply)| reply);
        [Some(exchange.request), reply].into_iter().flatten()
    });
    [NOTIFICATION].into_iter().chain(lines).collect()
}

/// A server over HTTP: every other answer is a stream, as are all in which it asks.
async fn http_server() -> Upstream {
    let gates: Vec<_> = CONVERSATION.iter().map(|_| Gate::default()).collect();
    Upstream::start(move |request: &Request| {
        let place = |is: &dyn Fn(&Exchange) -> bool| CONVERSATION.iter().position(is);
        if let Some(place) = place(&|exchange| exchange.request == request.body) {
            let Exchange {
                asked, response, ..
            } = CONVERSATION[place];
            return match asked {
                Some((ask, _)) => Answer::events()
                    .chunk(format!("data: {ask}\n\n"))
                    .then(Step::Gate(gates[place].clone()))
                    .chunk(format!("data: {response}\n\n"))
                    .end(),
                None if place % 2 == 0 => Answer::events()
                    .chunk(format!("data: {response}\n\n"))
                    .end(),
                None => Answer::whole("200 OK", "content-type: application/json\r\n", response),
            };
        }
        let replied = |exchange: &Exchange| {
            exchange
                .asked
                .is_some_and(|(_, reply)| reply == request.body)
        };
        if let Some(place) = place(&replied) {
            gates[place].open();
        }
        upstream::basics(request)
            .unwrap_or_else(|| Answer::whole("400 Bad Request", "", "not in the conversation"))
    })
    .await
}

/// A server that keeps what it reads, and answers whatever has an id with its next line.
const SCRIPTED: &str = r#"exec 3<"$ANSWERS"
while IFS= read -r line; do
  printf '%s\n' "$line" >>"$LOG"
  case $line in *'"id":'*) IFS= read -r answer <&3; printf '%s\n' "$answer" ;; esac
done"#;

/// The files of a [`SCRIPTED`] server; removed in the end.
struct Files {
    answers: PathBuf,
    log: PathBuf,
}

impl Files {
    fn new(name: &str) -> Self {
        let path = |kind: &str| {
            let name = format!("pass-{name}-{kind}-{}", std::process::id());
            Path::new(env!("CARGO_TARGET_TMPDIR")).join(name)
        };
        let (answers, log) = (path("answers"), path("log"));
        let initialized = r#"{"jsonrpc":"2.0","id":0,"result":{"protocolVersion":"2025-11-25","capabilities":{},"serverInfo":{"name":"sh","version":"1"}}}"#;
        let lines = CONVERSATION.iter().flat_map(|exchange| {
            let ask = exchange.asked.map(|(ask, _)| ask);
            [ask, Some(exchange.response)].into_iter().flatten()
        });
        let lines: Vec<_> = [initialized].into_iter().chain(lines).collect();
        std::fs::write(&answers, lines.join("\n") + "\n").unwrap();
        std::fs::write(&log, "").unwrap();
        Self { answers, log }
    }

    fn options(&self) -> [String; 4] {
        let variable = |name: &str, path: &Path| format!("{name}={}", path.display());
        [
            "--env".to_owned(),
            variable("ANSWERS", &self.answers),
            "--env".to_owned(),
            variable("LOG", &self.log),
        ]
    }

    /// What the server read after the handshake.
    fn read(&self) -> Vec<String> {
        let log = std::fs::read_to_string(&self.log).unwrap();
        log.lines().skip(2).map(str::to_owned).collect()
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.answers);
        let _ = std::fs::remove_file(&self.log);
    }
}

/// The client's side of the conversation over HTTP.
async fn talk_http(proxy: &Proxy) {
    let session = Session::open(proxy.address, "2025-11-25").await;
    assert_eq!(session.exchange(NOTIFICATION).await.status, 202);
    for exchange in &CONVERSATION {
        let mut client = Client::connect(session.address).await;
        client.send(session.post(exchange.request)).await;
        let response = client.head().await;
        assert_eq!(response.status, 200, "{response:?}");
        if !response.is_stream() {
            assert!(exchange.asked.is_none(), "{response:?}");
            assert_eq!(client.body(response).await.body, exchange.response);
            continue;
        }
        let mut events = Events::default();
        if let Some((ask, reply)) = exchange.asked {
            assert_eq!(next(&mut client, &mut events).await.unwrap(), ask);
            assert_eq!(session.exchange(reply).await.status, 202);
        }
        let answer = next(&mut client, &mut events).await;
        assert_eq!(answer.as_deref(), Some(exchange.response));
        assert_eq!(next(&mut client, &mut events).await, None);
    }
}

/// The next message of a stream; an event without data only primes it.
async fn next(client: &mut Client, events: &mut Events) -> Option<String> {
    loop {
        let event = client.event(events).await.unwrap()?;
        if !event.data.is_empty() {
            return Some(event.data);
        }
    }
}

/// The client's side of the conversation over pipes.
async fn talk_stdio(forward: &mut Forward) {
    forward.initialize().await;
    forward.send(NOTIFICATION).await;
    for exchange in &CONVERSATION {
        forward.send(exchange.request).await;
        if let Some((ask, reply)) = exchange.asked {
            assert_eq!(forward.line().await.as_deref(), Some(ask));
            forward.send(reply).await;
        }
        assert_eq!(forward.line().await.as_deref(), Some(exchange.response));
    }
}

/// Waits until the server has read everything, and compares it. A notification and a request that
/// follows it may overtake each other, so the order is not compared.
async fn assert_read(read: impl Fn() -> Vec<String>) {
    let mut expected = expected();
    until("every message", || read().len() >= expected.len()).await;
    let mut read = read();
    read.sort();
    expected.sort_unstable();
    assert_eq!(read, expected);
}

/// The same for what was posted after the handshake.
async fn assert_posted(server: &Upstream) {
    assert_read(|| {
        let posts = server.by_method("POST").into_iter();
        let bodies = posts.map(|request| request.body);
        bodies.filter(|body| !body.contains("initialize")).collect()
    })
    .await;
}

#[tokio::test]
async fn http_client_and_http_server() {
    for mode in MODES {
        let server = http_server().await;
        let proxy = Proxy::start(mode, &[], &[&server.url()]).await;
        talk_http(&proxy).await;
        assert_posted(&server).await;
    }
}

#[tokio::test]
async fn stdio_client_and_http_server() {
    let server = http_server().await;
    let mut forward = Forward::start(&[], &[&server.url()]);
    talk_stdio(&mut forward).await;
    assert_posted(&server).await;
}

#[tokio::test]
async fn http_client_and_stdio_server() {
    for mode in MODES {
        let files = Files::new(mode);
        let options = files.options();
        let options: Vec<_> = options.iter().map(String::as_str).collect();
        let proxy = Proxy::start(mode, &options, &["--", "sh", "-c", SCRIPTED]).await;
        talk_http(&proxy).await;
        assert_read(|| files.read()).await;
    }
}

#[tokio::test]
async fn stdio_client_and_stdio_server() {
    let files = Files::new("stdio");
    let options = files.options();
    let options: Vec<_> = options.iter().map(String::as_str).collect();
    let mut forward = Forward::start(&options, &["--", "sh", "-c", SCRIPTED]);
    talk_stdio(&mut forward).await;
    assert_read(|| files.read()).await;
}
