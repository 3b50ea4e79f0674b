//! A scripted HTTP server that answers with bytes, and remembers what it was asked.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

/// One request as it arrived.
#[derive(Debug, Clone)]
pub struct Request {
    pub method: String,
    pub target: String,
    /// In their order, names in lower case.
    pub headers: Vec<(String, String)>,
    pub body: String,
    pub at: Instant,
    /// Its number among all requests, from 0.
    pub number: usize,
}

impl Request {
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut named = self.headers.iter().filter(|(key, _)| key == name);
        let value = named.next().map(|(_, value)| value.as_str());
        assert!(named.next().is_none(), "{name} is repeated: {self:?}");
        value
    }

    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or(Value::Null)
    }

    /// The JSON-RPC method, empty for a response.
    pub fn rpc(&self) -> String {
        self.json()["method"]
            .as_str()
            .unwrap_or_default()
            .to_owned()
    }

    /// The JSON-RPC id, as JSON.
    pub fn id(&self) -> Value {
        self.json()["id"].clone()
    }

    /// The name of the tool that is called.
    pub fn tool(&self) -> String {
        let json = self.json();
        json["params"]["name"]
            .as_str()
            .unwrap_or_default()
            .to_owned()
    }
}

/// One thing that an answer does.
#[derive(Debug)]
pub enum Step {
    Bytes(Vec<u8>),
    Wait(Duration),
    /// Waits until the gate is open.
    Gate(Gate),
    /// Writes what comes, each as a chunk, until the sender is gone.
    Feed(mpsc::UnboundedReceiver<String>),
    /// Ends the connection with a reset.
    Reset,
    /// Ends the connection.
    Close,
    /// Does nothing more and leaves the connection open.
    Hang,
}

/// What some answers wait for.
#[derive(Debug, Clone)]
pub struct Gate(Arc<watch::Sender<bool>>);

impl Default for Gate {
    fn default() -> Self {
        Self(Arc::new(watch::Sender::new(false)))
    }
}

impl Gate {
    pub fn open(&self) {
        self.0.send_replace(true);
    }

    async fn wait(&self) {
        let _ = self.0.subscribe().wait_for(|open| *open).await;
    }
}

/// What the server does with a request.
#[derive(Debug, Default)]
pub struct Answer(pub Vec<Step>);

impl Answer {
    pub fn raw(bytes: impl Into<Vec<u8>>) -> Self {
        Self(vec![Step::Bytes(bytes.into())])
    }

    /// A whole response; `headers` are lines ended by CRLF.
    pub fn whole(status: &str, headers: &str, body: &str) -> Self {
        let length = body.len();
        Self::raw(format!(
            "HTTP/1.1 {status}\r\n{headers}content-length: {length}\r\n\r\n{body}"
        ))
    }

    pub fn json(body: &Value) -> Self {
        Self::whole(
            "200 OK",
            "content-type: application/json\r\n",
            &body.to_string(),
        )
    }

    pub fn result(id: &Value, result: Value) -> Self {
        Self::json(&response(id, result))
    }

    pub fn accepted() -> Self {
        Self::whole("202 Accepted", "", "")
    }

    /// The head of an event stream that is sent in chunks.
    pub fn events() -> Self {
        Self::raw(
            "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n",
        )
    }

    pub fn then(mut self, step: Step) -> Self {
        self.0.push(step);
        self
    }

    pub fn wait(self, time: Duration) -> Self {
        self.then(Step::Wait(time))
    }

    /// Bytes of a stream, as one chunk.
    pub fn chunk(self, bytes: impl AsRef<[u8]>) -> Self {
        self.then(Step::Bytes(chunk(bytes.as_ref())))
    }

    /// An event without an id.
    pub fn data(self, data: &Value) -> Self {
        self.chunk(format!("data: {data}\n\n"))
    }

    /// An event with an id.
    pub fn event(self, id: &str, data: &Value) -> Self {
        self.chunk(format!("id: {id}\ndata: {data}\n\n"))
    }

    /// The end of a stream.
    pub fn end(self) -> Self {
        self.then(Step::Bytes(b"0\r\n\r\n".to_vec()))
    }
}

fn chunk(bytes: &[u8]) -> Vec<u8> {
    [format!("{:x}\r\n", bytes.len()).as_bytes(), bytes, b"\r\n"].concat()
}

pub fn response(id: &Value, result: Value) -> Value {
    json!({"jsonrpc": "2.0", "id": id, "result": result})
}

pub fn text(id: &Value, text: &str) -> Value {
    response(id, json!({"content": [{"type": "text", "text": text}]}))
}

type Play = dyn Fn(&Request) -> Answer + Send + Sync;

/// The server. It lives as long as the test's runtime.
#[derive(Clone)]
pub struct Upstream {
    pub address: SocketAddr,
    seen: Arc<Mutex<Vec<Request>>>,
    open: Arc<AtomicUsize>,
    play: Arc<Play>,
    /// The task that accepts connections, and those of the connections.
    tasks: Arc<Mutex<JoinSet<()>>>,
}

impl Upstream {
    /// A server that answers each request with `play(request)`.
    pub async fn start(play: impl Fn(&Request) -> Answer + Send + Sync + 'static) -> Self {
        Self::start_at(SocketAddr::from(([127, 0, 0, 1], 0)), play).await
    }

    /// The same, at an address that is free.
    pub async fn start_at(
        address: SocketAddr,
        play: impl Fn(&Request) -> Answer + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind(address).await.unwrap();
        let server = Self {
            address: listener.local_addr().unwrap(),
            seen: Arc::default(),
            open: Arc::default(),
            play: Arc::new(play),
            tasks: Arc::default(),
        };
        server.accept(listener);
        server
    }

    fn accept(&self, listener: TcpListener) {
        let server = self.clone();
        self.tasks.lock().unwrap().spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let _ = stream.set_nodelay(true);
                let serving = server.clone();
                server.tasks.lock().unwrap().spawn(async move {
                    serving.open.fetch_add(1, Ordering::SeqCst);
                    let _ = serving.serve(stream).await;
                    serving.open.fetch_sub(1, Ordering::SeqCst);
                });
            }
        });
    }

    /// Closes every connection and refuses new ones.
    pub async fn stop(&self) {
        let mut tasks = std::mem::take(&mut *self.tasks.lock().unwrap());
        tasks.shutdown().await;
        self.open.store(0, Ordering::SeqCst);
    }

    /// Listens again where it did before.
    pub async fn start_again(&self) {
        self.accept(TcpListener::bind(self.address).await.unwrap());
    }

    pub fn url(&self) -> String {
        format!("http://{}/mcp", self.address)
    }

    /// The requests so far.
    pub fn seen(&self) -> Vec<Request> {
        self.seen.lock().unwrap().clone()
    }

    /// The requests so far with this JSON-RPC method.
    pub fn calls(&self, rpc: &str) -> Vec<Request> {
        let mut seen = self.seen();
        seen.retain(|request| request.rpc() == rpc);
        seen
    }

    /// The requests so far with this HTTP method.
    pub fn by_method(&self, method: &str) -> Vec<Request> {
        let mut seen = self.seen();
        seen.retain(|request| request.method == method);
        seen
    }

    /// How many requests with this HTTP method there were.
    pub fn count(&self, method: &str) -> usize {
        let seen = self.seen.lock().unwrap();
        seen.iter()
            .filter(|request| request.method == method)
            .count()
    }

    /// How many connections are open.
    pub fn open(&self) -> usize {
        self.open.load(Ordering::SeqCst)
    }

    async fn serve(&self, mut stream: TcpStream) -> std::io::Result<()> {
        let mut buffer = Vec::new();
        while let Some(mut request) = read(&mut stream, &mut buffer).await? {
            {
                let mut seen = self.seen.lock().unwrap();
                request.number = seen.len();
                seen.push(request.clone());
            }
            for step in (self.play)(&request).0 {
                if !perform(&mut stream, step).await? {
                    return Ok(());
                }
            }
        }
        Ok(())
    }
}

/// Does one step; false when the connection is over. A peer that goes away ends every wait.
async fn perform(stream: &mut TcpStream, step: Step) -> std::io::Result<bool> {
    match step {
        Step::Bytes(bytes) => stream.write_all(&bytes).await?,
        Step::Wait(time) => {
            tokio::select! {
                () = tokio::time::sleep(time) => {}
                () = gone(stream) => return Ok(false),
            }
        }
        Step::Gate(gate) => {
            tokio::select! {
                () = gate.wait() => {}
                () = gone(stream) => return Ok(false),
            }
        }
        Step::Feed(mut feed) => loop {
            let text = tokio::select! {
                text = feed.recv() => text,
                () = gone(stream) => return Ok(false),
            };
            let Some(text) = text else { break };
            stream.write_all(&chunk(text.as_bytes())).await?;
        },
        Step::Reset => {
            stream.set_zero_linger()?;
            return Ok(false);
        }
        Step::Close => return Ok(false),
        Step::Hang => {
            gone(stream).await;
            return Ok(false);
        }
    }
    Ok(true)
}

/// Ends when the peer has closed. A client of HTTP/1.1 that waits for an answer sends nothing.
async fn gone(stream: &TcpStream) {
    let mut byte = [0];
    while let Ok(1) = stream.peek(&mut byte).await {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn read(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> std::io::Result<Option<Request>> {
    let end = loop {
        let position = buffer.windows(4).position(|window| window == b"\r\n\r\n");
        if let Some(position) = position {
            break position + 4;
        }
        if stream.read_buf(buffer).await? == 0 {
            return Ok(None);
        }
    };
    let head: Vec<_> = buffer.drain(..end).collect();
    let head = String::from_utf8_lossy(&head).into_owned();
    let mut lines = head.lines();
    let mut words = lines.next().unwrap_or_default().split(' ');
    let method = words.next().unwrap_or_default().to_owned();
    let target = words.next().unwrap_or_default().to_owned();
    let fields = lines.filter_map(|line| line.split_once(": "));
    let headers: Vec<_> = fields
        .map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()))
        .collect();
    let length = headers.iter().find(|(name, _)| name == "content-length");
    let length = length.map_or(0, |(_, value)| value.parse().unwrap());
    while buffer.len() < length {
        if stream.read_buf(buffer).await? == 0 {
            return Ok(None);
        }
    }
    let body: Vec<_> = buffer.drain(..length).collect();
    Ok(Some(Request {
        method,
        target,
        headers,
        body: String::from_utf8_lossy(&body).into_owned(),
        at: Instant::now(),
        number: 0,
    }))
}

/// The parts of a legacy server that every test needs: handshake, notifications, DELETE, and no
/// standalone stream. `None` for everything else.
pub fn basics(request: &Request) -> Option<Answer> {
    let json = request.json();
    Some(match (request.method.as_str(), request.rpc().as_str()) {
        ("POST", "initialize") => {
            let asked = json["params"]["protocolVersion"]
                .as_str()
                .unwrap_or_default();
            let known = ["2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25"];
            let version = if known.contains(&asked) {
                asked
            } else {
                "2025-11-25"
            };
            let body = response(
                &json["id"],
                json!({
                    "protocolVersion": version,
                    "capabilities": {"tools": {}},
                    "serverInfo": {"name": "scripted", "version": "1"},
                }),
            );
            Answer::whole(
                "200 OK",
                "content-type: application/json\r\nmcp-session-id: upstream-session\r\n",
                &body.to_string(),
            )
        }
        ("POST", rpc) if json["id"].is_null() || rpc.is_empty() => Answer::accepted(),
        ("POST", "ping") => Answer::result(&json["id"], json!({})),
        ("DELETE", _) => Answer::whole("200 OK", "", ""),
        ("GET", _) => Answer::whole("405 Method Not Allowed", "allow: POST, DELETE\r\n", ""),
        _ => return None,
    })
}
