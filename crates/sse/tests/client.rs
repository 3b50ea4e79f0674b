//! [`ReconnectingStream`] against a scripted server on real sockets.
#![allow(clippy::unwrap_used, reason = "a test's failure is a panic")]

use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::StreamExt as _;
use http::{Method, StatusCode};
use shadowcat_sse::client::{BuildError, Builder, Error, ReconnectingStream, SharedOrigin};
use shadowcat_sse::reconnect::{Parking, Policy, StateName};
use shadowcat_sse::{Event, Limits};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

/// What one connection gets, and how it ends.
#[derive(Clone)]
enum Answer {
    /// These bytes, then the end of the connection.
    Raw(String),
    /// These bytes, then nothing more.
    Stay(String),
}

const STREAM: &str = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n";

/// A stream that ends in order.
fn ends(events: &str) -> Answer {
    Answer::Raw(format!("{STREAM}connection: close\r\n\r\n{events}"))
}

/// A stream that breaks: its last chunk never comes.
fn breaks(events: &str) -> Answer {
    let size = events.len();
    Answer::Raw(format!(
        "{STREAM}transfer-encoding: chunked\r\n\r\n{size:x}\r\n{events}\r\n"
    ))
}

fn stays(events: &str) -> Answer {
    Answer::Stay(format!("{STREAM}\r\n{events}"))
}

fn status(line: &str) -> Answer {
    Answer::Raw(format!(
        "HTTP/1.1 {line}\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"
    ))
}

/// A server that answers its connections in this order, the last answer for ever.
struct Server {
    url: String,
    requests: Arc<Mutex<Vec<String>>>,
}

impl Server {
    async fn start(answers: Vec<Answer>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/events", listener.local_addr().unwrap());
        let requests = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&requests);
        tokio::spawn(async move {
            for number in 0.. {
                let (socket, _) = listener.accept().await.unwrap();
                let answer = answers[number.min(answers.len() - 1)].clone();
                tokio::spawn(serve(socket, answer, Arc::clone(&seen)));
            }
        });
        Self { url, requests }
    }

    fn builder(&self) -> Builder {
        let policy = Policy {
            initial: Duration::from_millis(10),
            empty_data_primes: false,
            max_attempts: 3,
            ..Policy::default()
        };
        builder(&self.url).policy(policy).seed(1)
    }

    fn requests(&self) -> Vec<String> {
        self.requests.lock().unwrap().clone()
    }

    /// The `Last-Event-ID` of each request.
    fn cursors(&self) -> Vec<Option<String>> {
        let cursor = |request: String| {
            let mut lines = request.lines();
            lines.find_map(|line| line.strip_prefix("last-event-id: ").map(str::to_owned))
        };
        self.requests().into_iter().map(cursor).collect()
    }
}

/// A builder, with a provider of cryptography for the client behind it. reqwest is built without
/// one where another crate of the workspace chooses its own.
fn builder(url: &str) -> Builder {
    let _ = rustls::crypto::ring::default_provider().install_default();
    ReconnectingStream::builder(url).unwrap()
}

async fn serve(mut socket: TcpStream, answer: Answer, seen: Arc<Mutex<Vec<String>>>) {
    let mut request = Vec::new();
    loop {
        let mut chunk = [0; 1024];
        let read = socket.read(&mut chunk).await.unwrap();
        request.extend_from_slice(&chunk[..read]);
        let text = String::from_utf8_lossy(&request).into_owned();
        let Some((head, body)) = text.split_once("\r\n\r\n") else {
            assert_ne!(read, 0);
            continue;
        };
        let length = head
            .lines()
            .find_map(|line| line.strip_prefix("content-length: "));
        if body.len() >= length.map_or(0, |length| length.parse().unwrap()) {
            break;
        }
    }
    seen.lock()
        .unwrap()
        .push(String::from_utf8(request).unwrap());
    match answer {
        Answer::Raw(text) => socket.write_all(text.as_bytes()).await.unwrap(),
        Answer::Stay(text) => {
            socket.write_all(text.as_bytes()).await.unwrap();
            // Until the client goes.
            while socket.read(&mut [0; 64]).await.is_ok_and(|read| read > 0) {}
        }
    }
}

async fn next(stream: &mut ReconnectingStream) -> Option<Result<Event, Error>> {
    timeout(Duration::from_secs(20), stream.next())
        .await
        .unwrap()
}

async fn data(stream: &mut ReconnectingStream) -> String {
    let event = next(stream).await.unwrap().unwrap();
    String::from_utf8(event.data.to_vec()).unwrap()
}

#[tokio::test]
async fn events_come_once_across_breaks_and_inclusive_replays() {
    let server = Server::start(vec![
        breaks("id: 1\ndata: one\n\nid: 2\ndata: two\n\nid: 3\ndata: thr"),
        ends("id: 2\ndata: two\n\nid: 3\ndata: three\n\n"),
        status("204 No Content"),
    ])
    .await;
    let mut stream = server.builder().build().unwrap();
    for expected in ["one", "two", "three"] {
        assert_eq!(data(&mut stream).await, expected);
    }
    // Not before the reader comes back is the last one accepted.
    assert_eq!(stream.last_event_id(), b"2");
    assert_eq!(next(&mut stream).await, None);
    assert_eq!(stream.last_event_id(), b"3");
    let some = |id: &str| Some(id.to_owned());
    assert_eq!(server.cursors(), [None, some("2"), some("3")]);
    assert_eq!(stream.counters().duplicates, 1);
    assert_eq!(next(&mut stream).await, None);
}

/// A block without data that has an id says where the stream stands, as an event does.
#[tokio::test]
async fn an_id_without_an_event_is_the_last_one() {
    for (moves, last) in [("id: 7", "7"), ("id", ""), ("retry: 250", "1")] {
        let text = format!("id: 1\ndata: one\n\n{moves}\n\ndata: two\n\n");
        let server = Server::start(vec![breaks(&text), status("204 No Content")]).await;
        let mut stream = server.builder().build().unwrap();
        assert_eq!(data(&mut stream).await, "one");
        assert_eq!(stream.last_event_id(), b"");
        assert_eq!(data(&mut stream).await, "two");
        assert_eq!(stream.last_event_id(), last.as_bytes(), "{moves}");
        assert_eq!(next(&mut stream).await, None);
        assert_eq!(stream.last_event_id(), last.as_bytes(), "{moves}");
        let resumed = server.cursors()[1].clone();
        assert_eq!(resumed.unwrap_or_default(), last, "{moves}");
    }
}

#[tokio::test]
async fn a_cut_right_after_an_event_that_was_not_asked_past_replays_it() {
    let server = Server::start(vec![stays("id: 1\ndata: one\n\nid: 2\ndata: two\n\n")]).await;
    let mut stream = server.builder().build().unwrap();
    assert_eq!(data(&mut stream).await, "one");
    assert_eq!(stream.last_event_id(), b"");
    assert_eq!(data(&mut stream).await, "two");
    let cursor = stream.last_event_id().to_vec();
    assert_eq!(cursor, b"1");
    drop(stream);
    let mut again = server.builder().last_event_id(cursor).build().unwrap();
    data(&mut again).await;
    assert_eq!(server.cursors()[1].as_deref(), Some("1"));
}

#[tokio::test]
async fn what_cannot_be_waited_out_ends_with_its_reason() {
    let html = "HTTP/1.1 200 OK\r\ncontent-type: text/html\r\nconnection: close\r\n\r\n";
    for (answer, why, code, requests) in [
        (
            status("405 Method Not Allowed"),
            Parking::NotOffered,
            Some(405),
            1,
        ),
        (status("404 Not Found"), Parking::Refused, Some(404), 1),
        (
            status("401 Unauthorized"),
            Parking::Challenged,
            Some(401),
            1,
        ),
        (Answer::Raw(html.into()), Parking::WrongType, None, 2),
        (
            status("500 Internal Server Error"),
            Parking::OutOfBudget,
            Some(500),
            3,
        ),
    ] {
        let server = Server::start(vec![answer]).await;
        let mut stream = server.builder().build().unwrap();
        let error = next(&mut stream).await.unwrap().unwrap_err();
        let Error::GaveUp {
            why: found, status, ..
        } = &error
        else {
            panic!("{error}");
        };
        assert_eq!(*found, why, "{error}");
        let code = code.map(|code| StatusCode::from_u16(code).unwrap());
        assert_eq!(*status, code, "{error}");
        assert_eq!(server.requests().len(), requests, "{error}");
        assert_eq!(next(&mut stream).await, None);
    }
}

#[tokio::test]
async fn retry_after_is_waited_for() {
    let server = Server::start(vec![
        Answer::Raw(
            "HTTP/1.1 503 Busy\r\nretry-after: 1\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"
                .into(),
        ),
        stays("data: here\n\n"),
    ])
    .await;
    let mut stream = server.builder().build().unwrap();
    let started = tokio::time::Instant::now();
    assert_eq!(data(&mut stream).await, "here");
    assert!(started.elapsed() >= Duration::from_secs(1));
}

#[tokio::test]
async fn every_move_can_be_watched_with_its_reason() {
    let server = Server::start(vec![breaks("data: a\n\n"), status("204 No Content")]).await;
    let mut stream = server.builder().build().unwrap();
    assert_eq!(stream.state(), StateName::Idle);
    let transitions = stream.transitions();
    assert_eq!(data(&mut stream).await, "a");
    assert_eq!(stream.state(), StateName::Open);
    assert_eq!(next(&mut stream).await, None);
    let moves: Vec<_> = transitions.collect().await;
    let states: Vec<_> = moves.iter().map(|it| it.step.to).collect();
    let expected = [
        StateName::Connecting,
        StateName::Open,
        StateName::Backoff,
        StateName::Connecting,
        StateName::Parked,
    ];
    let states: Vec<_> = states
        .into_iter()
        .filter(|it| *it != StateName::Queued)
        .collect();
    assert_eq!(states, expected);
    let broke = moves
        .iter()
        .find(|it| it.step.to == StateName::Backoff)
        .unwrap();
    assert!(broke.detail.is_some());
    assert!(
        moves
            .iter()
            .all(|it| it.step.to != StateName::Connecting || it.detail.is_none())
    );
    assert_eq!(
        moves.last().unwrap().detail.as_deref(),
        Some(&*format!("{} answered 204 No Content", server.url))
    );
}

#[tokio::test]
async fn a_body_is_sent_again_only_where_that_was_allowed() {
    let server = Server::start(vec![ends("data: a\n\n"), stays("data: b\n\n")]).await;
    let query = || {
        server
            .builder()
            .method(Method::POST)
            .body("question")
            .header("x-key", "k")
    };
    assert!(matches!(query().build(), Err(BuildError::NotRepeatable)));
    let mut stream = query().resend(true).build().unwrap();
    assert_eq!(data(&mut stream).await, "a");
    assert_eq!(data(&mut stream).await, "b");
    for request in server.requests() {
        assert!(request.starts_with("POST /events "), "{request}");
        assert!(request.ends_with("\r\n\r\nquestion"), "{request}");
        assert!(request.contains("x-key: k") && request.contains("accept: text/event-stream"));
    }
}

#[tokio::test]
async fn limits_and_wrong_settings_are_errors() {
    let server = Server::start(vec![stays("data: much too much\n\n")]).await;
    let limits = Limits {
        event: 8,
        ..Limits::default()
    };
    let mut stream = server.builder().limits(limits).build().unwrap();
    let error = next(&mut stream).await.unwrap().unwrap_err();
    assert!(
        matches!(
            error,
            Error::GaveUp {
                why: Parking::TooLarge,
                ..
            }
        ),
        "{error}"
    );
    assert!(matches!(
        ReconnectingStream::get("nonsense"),
        Err(BuildError::Url(_))
    ));
    assert!(matches!(
        ReconnectingStream::get("ftp://h/"),
        Err(BuildError::Url(_))
    ));
    let header = server.builder().header("a b", "c").build();
    assert!(matches!(header, Err(BuildError::Header(_))));
}

#[tokio::test]
async fn a_server_that_is_not_there_is_given_up_and_can_be_hurried_to() {
    let gone = {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        format!("http://{}/", listener.local_addr().unwrap())
    };
    let policy = Policy {
        initial: Duration::from_millis(10),
        max_attempts: 2,
        ..Policy::default()
    };
    let builder = builder(&gone).policy(policy);
    let mut stream = builder.build().unwrap();
    let error = next(&mut stream).await.unwrap().unwrap_err();
    assert!(
        matches!(
            error,
            Error::GaveUp {
                why: Parking::OutOfBudget,
                ..
            }
        ),
        "{error}"
    );
    assert!(error.to_string().contains("refused"), "{error}");
    // An hour's wait, cut short.
    let server = Server::start(vec![ends("retry: 3600000\n\n"), stays("data: back\n\n")]).await;
    let mut stream = server.builder().build().unwrap();
    let mut transitions = stream.transitions();
    let waits = async { while transitions.next().await.unwrap().step.to != StateName::Backoff {} };
    tokio::select! {
        event = stream.next() => panic!("{event:?}"),
        () = waits => {}
    }
    stream.hurry();
    assert_eq!(data(&mut stream).await, "back");
}

#[tokio::test]
async fn streams_share_an_origin_and_close_on_request() {
    let server = Server::start(vec![stays("data: a\n\n")]).await;
    let origin = SharedOrigin::default();
    let mut one = server.builder().origin(&origin).build().unwrap();
    let mut two = server.builder().origin(&origin).build().unwrap();
    assert_eq!(data(&mut one).await, "a");
    assert_eq!(data(&mut two).await, "a");
    one.close();
    assert_eq!(one.state(), StateName::Closed);
    assert_eq!(next(&mut one).await, None);
    assert_eq!(two.state(), StateName::Open);
}

#[tokio::test]
async fn a_restart_goes_on_at_the_cursor_at_once() {
    let server = Server::start(vec![stays("id: 1\ndata: a\n\n"), stays("data: b\n\n")]).await;
    let policy = Policy {
        initial: Duration::from_secs(3600),
        ..Policy::default()
    };
    let mut stream = server.builder().policy(policy).build().unwrap();
    assert_eq!(data(&mut stream).await, "a");
    // The reader comes back, and so has accepted what it had.
    assert!(
        timeout(Duration::from_millis(50), stream.next())
            .await
            .is_err()
    );
    stream.restart();
    assert_eq!(data(&mut stream).await, "b");
    assert_eq!(server.cursors(), [None, Some("1".to_owned())]);
}
