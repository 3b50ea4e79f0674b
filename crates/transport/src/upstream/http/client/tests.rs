use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Uri};
use http_body_util::BodyExt as _;
use parking_lot::Mutex;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};

use super::*;
use crate::upstream::http::dial::Wire;
use crate::upstream::{BoxFuture, Dispatched};

mod http2;

/// A server behind in-memory pipes that answers each request with its connection's number.
struct Numbered {
    connections: AtomicUsize,
    /// It closes a connection after so many requests.
    requests_each: usize,
    open: Arc<AtomicUsize>,
    /// What the requests named, in their order.
    targets: Targets,
    /// Another field of its answers, and what comes after their bodies.
    field: &'static str,
    after: &'static str,
}

type Targets = Arc<Mutex<Vec<String>>>;

impl Numbered {
    fn new(requests_each: usize) -> Arc<Self> {
        Self::answering(requests_each, "", "")
    }

    fn answering(requests_each: usize, field: &'static str, after: &'static str) -> Arc<Self> {
        Arc::new(Self {
            field,
            after,
            connections: AtomicUsize::new(0),
            requests_each,
            open: Arc::default(),
            targets: Targets::default(),
        })
    }
}

impl Dial for Numbered {
    fn dial(&self, _uri: &Uri) -> BoxFuture<Result<Wire, DialError>> {
        let number = self.connections.fetch_add(1, Ordering::SeqCst);
        let (ours, theirs) = tokio::io::duplex(64 * 1024);
        let (requests, open) = (self.requests_each, Arc::clone(&self.open));
        let targets = Arc::clone(&self.targets);
        let (field, after) = (self.field, self.after);
        open.fetch_add(1, Ordering::SeqCst);
        tokio::spawn(async move {
            let answer =
                format!("HTTP/1.1 200 OK\r\ncontent-length: 1\r\n{field}\r\n{number}{after}");
            answer_all(theirs, &answer, requests, &targets).await;
            open.fetch_sub(1, Ordering::SeqCst);
        });
        Box::pin(std::future::ready(Ok(Wire::new(ours))))
    }
}

async fn answer_all(mut pipe: DuplexStream, answer: &str, requests: usize, targets: &Targets) {
    for _ in 0..requests {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let Ok(byte) = pipe.read_u8().await else {
                return;
            };
            head.push(byte);
        }
        let head = String::from_utf8(head).unwrap();
        let target = head
            .strip_prefix("GET ")
            .and_then(|rest| rest.split_once(" HTTP/1.1\r\n"));
        targets.lock().push(target.unwrap().0.to_owned());
        assert!(head.contains("host: server:8080\r\n"), "{head}");
        pipe.write_all(answer.as_bytes()).await.unwrap();
    }
}

fn get() -> Box<Request<RequestBody>> {
    let mut request = Box::new(Request::new(RequestBody::empty()));
    *request.method_mut() = Method::GET;
    request
}

fn url() -> Uri {
    Uri::from_static("http://server:8080/mcp")
}

#[tokio::test]
async fn each_request_on_a_connection_names_its_own_target() {
    let server = Numbered::new(5);
    let client = Client::new(server.clone());
    let paths = ["/mcp", "/mcp", "/messages?session=1", "/", "/mcp"];
    for path in paths {
        let url: Uri = format!("http://server:8080{path}").parse().unwrap();
        let response = client.send(get(), &url, &Connected::default()).await;
        let body = response.unwrap().into_body().collect().await.unwrap();
        assert_eq!(body.to_bytes(), "0", "the same connection");
    }
    assert_eq!(*server.targets.lock(), paths);
}

async fn body(client: &Client) -> Bytes {
    let response = client
        .send(get(), &url(), &Connected::default())
        .await
        .unwrap();
    response.into_body().collect().await.unwrap().to_bytes()
}

#[tokio::test(start_paused = true)]
async fn a_connection_serves_one_request_after_the_other() {
    let server = Numbered::new(10);
    let client = Client::new(server.clone());
    for _ in 0..5 {
        assert_eq!(body(&client).await, "0");
    }
    let connected = Connected::default();
    let url = url();
    let (one, other) = (
        client.send(get(), &url, &connected),
        client.send(get(), &url, &connected),
    );
    let (one, other) = tokio::join!(one, other);
    drop((one.unwrap(), other.unwrap()));
    assert_eq!(server.connections.load(Ordering::SeqCst), 2);
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_the_server_closed_is_replaced() {
    let server = Numbered::new(1);
    let client = Client::new(server.clone());
    for number in ["0", "1", "2"] {
        assert_eq!(body(&client).await, number);
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_is_of_no_more_use_is_replaced_at_once() {
    for (field, after) in [
        ("connection: close\r\n", ""),
        ("", "HTTP/1.1 200 Again\r\n\r\n"),
    ] {
        let server = Numbered::answering(10, field, after);
        let client = Client::new(server.clone());
        for number in ["0", "1", "2"] {
            assert_eq!(body(&client).await, number, "{field:?} {after:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_body_that_was_read_in_place_frees_its_connection() {
    let server = Numbered::new(10);
    let client = Client::new(server.clone());
    let url = url();
    let mut held = Vec::new();
    for _ in 0..2 {
        let connected = Connected::default();
        let mut response = client.send(get(), &url, &connected).await.unwrap();
        let read = response.body_mut().collect().await.unwrap().to_bytes();
        assert_eq!(read, "0", "the same connection");
        response.body_mut().release();
        held.push(response);
    }
}

#[tokio::test(start_paused = true)]
async fn an_unread_body_takes_its_connection_with_it() {
    let server = Numbered::new(10);
    let client = Client::new(server.clone());
    drop(
        client
            .send(get(), &url(), &Connected::default())
            .await
            .unwrap(),
    );
    assert_eq!(body(&client).await, "1");
}

#[tokio::test(start_paused = true)]
async fn idle_connections_are_closed_before_servers_do_it() {
    let server = Numbered::new(10);
    let client = Client::new(server.clone());
    assert_eq!(body(&client).await, "0");
    assert_eq!(server.open.load(Ordering::SeqCst), 1);
    tokio::time::sleep(Duration::from_millis(4100)).await;
    assert_eq!(server.open.load(Ordering::SeqCst), 0);
    assert_eq!(body(&client).await, "1");
}

#[tokio::test(start_paused = true)]
async fn nothing_of_a_message_is_sent_without_a_connection() {
    struct Nobody;
    impl Dial for Nobody {
        fn dial(&self, _uri: &Uri) -> BoxFuture<Result<Wire, DialError>> {
            let error = DialError::Unreachable("nobody there".to_owned());
            Box::pin(std::future::ready(Err(error)))
        }
    }
    let delivery = Delivery::new(Dispatched::default());
    let mut request = get();
    *request.body_mut() = RequestBody::new(Bytes::from_static(b"{}"), Arc::clone(&delivery));
    let error = Client::new(Arc::new(Nobody))
        .send(request, &url(), &Connected::default())
        .await;
    let error = error.map(|_| ()).unwrap_err();
    assert_eq!(error.trouble, Trouble::NoConnection);
    assert_eq!(error.cause, "nobody there");
    assert!(!delivery.started());
}
