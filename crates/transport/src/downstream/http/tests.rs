use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::StreamExt;
use shadowcat_mcp::headers::Fields;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, ReadHalf, WriteHalf, split};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};

use super::super::EventBytes;
use super::*;
use crate::upstream::BoxFuture;

/// Connections that a test feeds in.
struct Fed(mpsc::UnboundedReceiver<DuplexStream>);

impl Accept for Fed {
    type Io = DuplexStream;

    async fn accept(&mut self) -> io::Result<DuplexStream> {
        match self.0.recv().await {
            Some(io) => Ok(io),
            None => std::future::pending().await,
        }
    }
}

type Answers = Box<dyn Fn(&str) -> BoxFuture<HttpReply> + Send + Sync>;

/// Answers by a function of the HTTP method; counts the requests that are open.
struct Scripted {
    answers: Answers,
    open: AtomicUsize,
}

struct OpenNow(Arc<Scripted>);

impl Drop for OpenNow {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Scripted {
    fn answer(self: Arc<Self>, method: &str) -> BoxFuture<HttpReply> {
        let answer = (self.answers)(method);
        self.open.fetch_add(1, Ordering::SeqCst);
        let now = OpenNow(self);
        Box::pin(async move {
            let reply = answer.await;
            drop(now);
            reply
        })
    }
}

impl HttpService for Scripted {
    fn post(self: &Arc<Self>, _: HeaderMap, _: Payload) -> BoxFuture<HttpReply> {
        Arc::clone(self).answer("POST")
    }
    fn get(self: &Arc<Self>, _: HeaderMap) -> BoxFuture<HttpReply> {
        Arc::clone(self).answer("GET")
    }
    fn delete(self: &Arc<Self>, _: HeaderMap) -> BoxFuture<HttpReply> {
        Arc::clone(self).answer("DELETE")
    }
}

struct Running {
    connect: mpsc::UnboundedSender<DuplexStream>,
    service: Arc<Scripted>,
    metrics: Arc<Metrics>,
    shutdown: oneshot::Sender<Instant>,
    serving: JoinHandle<()>,
}

fn run(
    config: HttpEdgeConfig,
    answers: impl Fn(&str) -> BoxFuture<HttpReply> + Send + Sync + 'static,
) -> Running {
    let service = Arc::new(Scripted {
        answers: Box::new(answers),
        open: AtomicUsize::new(0),
    });
    let (connect, connections) = mpsc::unbounded_channel();
    let (shutdown, stop) = oneshot::channel();
    let metrics = Arc::new(Metrics::default());
    let edge = HttpEdge::new(config, Arc::clone(&metrics));
    let serving = tokio::spawn(edge.serve(Fed(connections), Arc::clone(&service), async {
        stop.await.unwrap()
    }));
    Running {
        connect,
        service,
        metrics,
        shutdown,
        serving,
    }
}

impl Running {
    fn client(&self) -> Client {
        let (ours, theirs) = tokio::io::duplex(256 * 1024);
        self.connect.send(theirs).unwrap();
        let (read, write) = split(ours);
        Client {
            read,
            write,
            buffer: Vec::new(),
        }
    }
}

/// A raw HTTP/1.1 connection.
struct Client {
    read: ReadHalf<DuplexStream>,
    write: WriteHalf<DuplexStream>,
    buffer: Vec<u8>,
}

const JSON_HEADERS: &str = "Host: localhost:8080\r\nContent-Type: application/json\r\nAccept: application/json, text/event-stream\r\n";
const PING: &str = r#"{"jsonrpc":"2.0","id":1,"method":"ping"}"#;

fn post(headers: &str, body: &str) -> String {
    format!(
        "POST /mcp HTTP/1.1\r\n{headers}Content-Length: {}\r\n\r\n{body}",
        body.len()
    )
}

impl Client {
    async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.write.write_all(bytes.as_ref()).await.unwrap();
    }

    /// Bytes up to and including `end`.
    async fn until(&mut self, end: &str) -> String {
        loop {
            let found = self
                .buffer
                .windows(end.len())
                .position(|w| w == end.as_bytes());
            if let Some(at) = found {
                let rest = self.buffer.split_off(at + end.len());
                return String::from_utf8(std::mem::replace(&mut self.buffer, rest)).unwrap();
            }
            let read = self.read.read_buf(&mut self.buffer).await.unwrap();
            let so_far = String::from_utf8_lossy(&self.buffer);
            assert!(read > 0, "closed before {end:?}; got {so_far:?}");
        }
    }

    /// A head in lower case, and a body of a declared length.
    async fn response(&mut self) -> (String, String) {
        let head = self.until("\r\n\r\n").await.to_ascii_lowercase();
        let length = head
            .lines()
            .find_map(|line| line.strip_prefix("content-length: "));
        let length = length.map_or(0, |n| n.trim().parse().unwrap());
        while self.buffer.len() < length {
            assert!(self.read.read_buf(&mut self.buffer).await.unwrap() > 0);
        }
        let rest = self.buffer.split_off(length);
        let body = std::mem::replace(&mut self.buffer, rest);
        (head, String::from_utf8(body).unwrap())
    }

    /// One chunk of a chunked body.
    async fn chunk(&mut self) -> String {
        let size = self.until("\r\n").await;
        let size = usize::from_str_radix(size.trim(), 16).unwrap();
        while self.buffer.len() < size + 2 {
            assert!(self.read.read_buf(&mut self.buffer).await.unwrap() > 0);
        }
        let rest = self.buffer.split_off(size + 2);
        let mut chunk = std::mem::replace(&mut self.buffer, rest);
        chunk.truncate(size);
        String::from_utf8(chunk).unwrap()
    }

    /// Waits for the end of the connection.
    async fn closed(&mut self) {
        let mut rest = Vec::new();
        let _ = self.read.read_to_end(&mut rest).await;
        assert_eq!(String::from_utf8_lossy(&rest), "");
    }
}

fn json() -> HttpReply {
    HttpReply::Body {
        status: StatusCode::OK,
        headers: Fields::default(),
        body: Bytes::from_static(b"{\"ok\":1}"),
    }
}

fn events(source: EventBytes) -> HttpReply {
    HttpReply::Events {
        headers: Fields::default(),
        events: source,
    }
}

fn always_json(_: &str) -> BoxFuture<HttpReply> {
    Box::pin(async { json() })
}

mod judging;
mod life;
mod stalling;
