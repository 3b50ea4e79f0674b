//! The edge's time limits on real sockets and a real clock; what they decide in each case is tested
//! on paused time. Only lower bounds are exact: a loaded machine is late.

#![allow(clippy::unwrap_used, reason = "a test's failure is a panic")]

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::StreamExt as _;
use http::{HeaderMap, StatusCode};
use shadowcat_mcp::headers::Fields;
use shadowcat_mcp::message::Payload;
use shadowcat_transport::downstream::http::{HttpEdge, HttpEdgeConfig, Tcp};
use shadowcat_transport::downstream::{HttpReply, HttpService};
use shadowcat_transport::metrics::Metrics;
use shadowcat_transport::upstream::BoxFuture;
use tokio::net::TcpListener;
use tokio::runtime::Runtime;

const LIMIT: Duration = Duration::from_millis(300);
/// How long a client may take nothing.
const STALL: Duration = Duration::from_secs(1);
/// Bytes of a slow client come at this distance.
const DRIP: Duration = Duration::from_millis(20);
/// No limit takes this long.
const NEVER: Duration = Duration::from_secs(20);

/// Answers a POST at once, and a GET by an event now and one long after the limits; a GET with a
/// cursor by events without end.
struct Service;

impl HttpService for Service {
    fn post(self: &Arc<Self>, _: HeaderMap, _: Payload) -> BoxFuture<HttpReply> {
        Box::pin(async {
            HttpReply::Body {
                status: StatusCode::OK,
                headers: Fields::default(),
                body: Bytes::from_static(b"{}"),
            }
        })
    }

    fn get(self: &Arc<Self>, headers: HeaderMap) -> BoxFuture<HttpReply> {
        if headers.contains_key("last-event-id") {
            let event = Bytes::from(format!("data: {}\n\n", "x".repeat(8192)));
            let events = futures_util::stream::repeat(event).boxed();
            let headers = Fields::default();
            return Box::pin(async { HttpReply::Events { headers, events } });
        }
        let late = futures_util::stream::once(async {
            tokio::time::sleep(4 * LIMIT).await;
            Bytes::from_static(b"data: late\n\n")
        });
        let first = futures_util::stream::iter([Bytes::from_static(b"data: first\n\n")]);
        let events = first.chain(late).boxed();
        let headers = Fields::default();
        Box::pin(async { HttpReply::Events { headers, events } })
    }

    fn delete(self: &Arc<Self>, _: HeaderMap) -> BoxFuture<HttpReply> {
        Box::pin(async { HttpReply::Ended })
    }
}

/// An edge with short limits; it ends with the runtime.
fn serve() -> (Runtime, SocketAddr) {
    let (runtime, address, _) = serve_with_metrics();
    (runtime, address)
}

fn serve_with_metrics() -> (Runtime, SocketAddr, Arc<Metrics>) {
    let runtime = Runtime::new().unwrap();
    let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
    let address = listener.local_addr().unwrap();
    let config = HttpEdgeConfig {
        header_timeout: LIMIT,
        idle_timeout: LIMIT,
        body_timeout: LIMIT,
        stall_timeout: STALL,
        ..HttpEdgeConfig::default()
    };
    let metrics = Arc::new(Metrics::default());
    let edge = HttpEdge::new(config, Arc::clone(&metrics));
    runtime.spawn(async {
        let never = std::future::pending();
        edge.serve(Tcp(listener), Arc::new(Service), never).await;
    });
    (runtime, address, metrics)
}

struct Client {
    socket: TcpStream,
    connected: Instant,
}

impl Client {
    fn connect(address: SocketAddr) -> Self {
        let socket = TcpStream::connect(address).unwrap();
        socket.set_nodelay(true).unwrap();
        socket.set_read_timeout(Some(NEVER)).unwrap();
        Self {
            socket,
            connected: Instant::now(),
        }
    }

    fn send(&mut self, text: &str) {
        self.socket.write_all(text.as_bytes()).unwrap();
    }

    /// Sends a byte now and then until the other side does not want them any more.
    fn drip(&mut self, byte: u8) {
        while self.connected.elapsed() < NEVER && self.socket.write_all(&[byte]).is_ok() {
            std::thread::sleep(DRIP);
            self.socket.set_nonblocking(true).unwrap();
            let end = self.socket.peek(&mut [0]);
            self.socket.set_nonblocking(false).unwrap();
            if !end.is_err_and(|error| error.kind() == ErrorKind::WouldBlock) {
                return;
            }
        }
    }

    /// What comes until the end of the connection, and how long that took since it began.
    fn rest(mut self) -> (String, Duration) {
        let mut rest = Vec::new();
        match self.socket.read_to_end(&mut rest) {
            Ok(_) => {}
            Err(error) => assert_eq!(error.kind(), ErrorKind::ConnectionReset, "{error}"),
        }
        let text = String::from_utf8(rest).unwrap().to_ascii_lowercase();
        (text, self.connected.elapsed())
    }
}

const POST: &str = "POST /mcp HTTP/1.1\r\nHost: localhost\r\n\
    Content-Type: application/json\r\nAccept: application/json, text/event-stream\r\n";

#[test]
fn a_client_that_drips_its_header_section_is_cut() {
    let (_runtime, address) = serve();
    for start in ["", "POST /mcp HTTP/1.1\r\nHost: localhost\r\nX: "] {
        let mut client = Client::connect(address);
        client.send(start);
        client.drip(b'x');
        let (_, took) = client.rest();
        assert!(took >= LIMIT && took < NEVER, "{took:?}");
    }
}

#[test]
fn a_client_that_drips_its_body_is_told_so() {
    let (_runtime, address) = serve();
    let mut client = Client::connect(address);
    client.send(&format!("{POST}Content-Length: 100000\r\n\r\n"));
    client.drip(b' ');
    let (answer, took) = client.rest();
    assert!(answer.starts_with("http/1.1 400 "), "{answer}");
    assert!(took >= LIMIT && took < NEVER, "{took:?}");
}

#[test]
fn a_connection_without_requests_is_ended_and_one_with_an_open_stream_is_not() {
    let (_runtime, address) = serve();
    let mut idle = Client::connect(address);
    idle.send(&format!(
        "{POST}Content-Length: 40\r\n\r\n{{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"ping\"}}"
    ));
    let (answer, took) = idle.rest();
    assert!(answer.starts_with("http/1.1 200 "), "{answer}");
    assert!(took >= LIMIT && took < NEVER, "{took:?}");

    let mut streaming = Client::connect(address);
    streaming.send("GET /mcp HTTP/1.1\r\nHost: localhost\r\nAccept: text/event-stream\r\n\r\n");
    let (events, took) = streaming.rest();
    assert!(events.contains("data: late"), "{events}");
    assert!(took >= 5 * LIMIT && took < NEVER, "{took:?}");
}

const ENDLESS: &str = "GET /mcp HTTP/1.1\r\nHost: localhost\r\nAccept: text/event-stream\r\nLast-Event-ID: 0-0\r\n\r\n";

/// What the system holds for a client must not hide that it reads.
#[test]
fn a_client_that_reads_slowly_is_served_and_one_that_does_not_read_is_cut() {
    let (_runtime, address, metrics) = serve_with_metrics();
    let mut slow = Client::connect(address);
    slow.send(ENDLESS);
    while slow.connected.elapsed() < 4 * STALL {
        std::thread::sleep(DRIP);
        slow.socket.read_exact(&mut [0; 8192]).unwrap();
    }
    assert_eq!(metrics.clients_stalled.get(), 0);
    drop(slow);

    let mut stuck = Client::connect(address);
    stuck.send(ENDLESS);
    while metrics.clients_stalled.get() == 0 {
        assert!(stuck.connected.elapsed() < NEVER);
        std::thread::sleep(DRIP);
    }
    assert!(stuck.connected.elapsed() >= STALL);
}
