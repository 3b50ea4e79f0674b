//! A raw HTTP/1.1 client: it sends the bytes it is given and keeps those it gets.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::BytesMut;
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::soon;

/// A connection.
pub struct Client {
    stream: TcpStream,
    /// Received, not consumed yet.
    buffer: BytesMut,
}

/// A response, or its part until a stream begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Response {
    pub status: u16,
    /// From the status line to the empty line, as it came.
    pub head: String,
    /// Without its chunk frames; empty while it is a stream.
    pub body: String,
}

impl Response {
    /// A header's value. It must not be repeated.
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut values = self.head.lines().filter_map(|line| {
            let (key, value) = line.split_once(": ")?;
            key.eq_ignore_ascii_case(name).then_some(value)
        });
        let value = values.next();
        assert_eq!(values.next(), None, "{name} is repeated: {}", self.head);
        value
    }

    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    pub fn is_stream(&self) -> bool {
        self.header("content-type") == Some("text/event-stream")
    }
}

impl Client {
    pub async fn connect(address: SocketAddr) -> Self {
        let stream = soon("a connection", TcpStream::connect(address)).await;
        let stream = stream.unwrap();
        stream.set_nodelay(true).unwrap();
        let buffer = BytesMut::new();
        Self { stream, buffer }
    }

    pub async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.stream.write_all(bytes.as_ref()).await.unwrap();
    }

    /// Sends what may meet a closed connection.
    pub async fn try_send(&mut self, bytes: impl AsRef<[u8]>) -> std::io::Result<()> {
        self.stream.write_all(bytes.as_ref()).await
    }

    /// Ends the connection with a reset.
    pub fn reset(self) {
        self.stream.set_zero_linger().unwrap();
    }

    /// Says that nothing more will be sent.
    pub async fn finish(&mut self) {
        self.stream.shutdown().await.unwrap();
    }

    /// Reads more; false at the end.
    async fn more(&mut self) -> bool {
        self.buffer.reserve(64 * 1024);
        let read = soon(
            "bytes of a response",
            self.stream.read_buf(&mut self.buffer),
        )
        .await;
        read.is_ok_and(|bytes| bytes > 0)
    }

    fn position(&self, needle: &[u8]) -> Option<usize> {
        let found = |window: &[u8]| window == needle;
        self.buffer.windows(needle.len()).position(found)
    }

    fn take(&mut self, bytes: usize) -> String {
        let taken = self.buffer.split_to(bytes);
        String::from_utf8_lossy(&taken).into_owned()
    }

    /// The next response's head.
    pub async fn head(&mut self) -> Response {
        let end = loop {
            if let Some(position) = self.position(b"\r\n\r\n") {
                break position + 4;
            }
            let so_far = String::from_utf8_lossy(&self.buffer).into_owned();
            assert!(self.more().await, "the connection ended after {so_far:?}");
        };
        let head = self.take(end);
        let status = head
            .split(' ')
            .nth(1)
            .and_then(|status| status.parse().ok());
        let status = status.unwrap_or_else(|| panic!("no status line: {head}"));
        let body = String::new();
        Response { status, head, body }
    }

    /// The next response with its whole body.
    pub async fn response(&mut self) -> Response {
        let response = self.head().await;
        self.body(response).await
    }

    /// The whole body that follows a head.
    pub async fn body(&mut self, mut response: Response) -> Response {
        if response.header("transfer-encoding") == Some("chunked") {
            while let Some(chunk) = self.chunk().await {
                response.body.push_str(&chunk);
            }
        } else if let Some(length) = response.header("content-length") {
            let length = length.parse().unwrap();
            while self.buffer.len() < length {
                assert!(self.more().await, "the body broke off: {response:?}");
            }
            response.body = self.take(length);
        }
        response
    }

    /// The next chunk of a body, `None` at its end.
    pub async fn chunk(&mut self) -> Option<String> {
        match self.try_chunk().await {
            Ok(chunk) => chunk,
            Err(Broken) => panic!("the stream broke off"),
        }
    }

    /// The next chunk of a body, `None` at its end.
    pub async fn try_chunk(&mut self) -> Result<Option<String>, Broken> {
        let end = loop {
            if let Some(position) = self.position(b"\r\n") {
                break position;
            }
            if !self.more().await {
                return Err(Broken);
            }
        };
        let size = std::str::from_utf8(&self.buffer[..end]).unwrap();
        let size = usize::from_str_radix(size, 16).unwrap_or_else(|_| panic!("no chunk: {size}"));
        let whole = end + 2 + size + 2;
        while self.buffer.len() < whole {
            if !self.more().await {
                return Err(Broken);
            }
        }
        self.take(end + 2);
        let chunk = self.take(size);
        assert_eq!(self.take(2), "\r\n");
        Ok((size > 0).then_some(chunk))
    }

    /// Whether the peer closes now, sending nothing more.
    pub async fn closed(&mut self) -> bool {
        self.buffer.is_empty() && !self.more().await
    }

    /// Whether nothing at all comes for a while.
    pub async fn is_silent(&mut self, time: Duration) -> bool {
        let reading = self.stream.read_buf(&mut self.buffer);
        tokio::time::timeout(time, reading).await.is_err()
    }
}

/// The connection ended inside a body.
#[derive(Debug)]
pub struct Broken;

/// One event of a stream.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Event {
    pub id: Option<String>,
    pub retry: Option<u64>,
    pub data: String,
}

impl Event {
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.data).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }
}

/// Splits a stream into events. Comments are left out. It knows only the form that the proxy
/// writes: LF line ends, one space after the colon.
#[derive(Debug, Default)]
pub struct Events {
    text: String,
}

impl Events {
    pub fn push(&mut self, chunk: &str) {
        self.text.push_str(chunk);
    }

    pub fn next(&mut self) -> Option<Event> {
        loop {
            let end = self.text.find("\n\n")?;
            let block: String = self.text.drain(..end + 2).collect();
            if block.starts_with(':') {
                continue;
            }
            let mut event = Event::default();
            for line in block.lines().filter(|line| !line.is_empty()) {
                let (field, value) = line.split_once(':').unwrap_or((line, ""));
                let value = value.strip_prefix(' ').unwrap_or(value);
                match field {
                    "id" => event.id = Some(value.to_owned()),
                    "retry" => event.retry = Some(value.parse().unwrap()),
                    "data" => event.data.push_str(value),
                    "event" => assert_eq!(value, "message"),
                    _ => panic!("an unknown field: {line:?}"),
                }
            }
            return Some(event);
        }
    }

    /// What came after the last whole event.
    pub fn rest(&self) -> &str {
        &self.text
    }
}

impl Client {
    /// The next event of a stream, `None` at its end.
    pub async fn event(&mut self, events: &mut Events) -> Result<Option<Event>, Broken> {
        loop {
            if let Some(event) = events.next() {
                return Ok(Some(event));
            }
            match self.try_chunk().await? {
                Some(chunk) => events.push(&chunk),
                None => return Ok(None),
            }
        }
    }
}

/// A session over HTTP, as a well-behaved client keeps it.
#[derive(Debug, Clone)]
pub struct Session {
    pub address: SocketAddr,
    pub id: String,
    pub version: String,
}

const BOTH: &str =
    "accept: application/json, text/event-stream\r\ncontent-type: application/json\r\n";

/// `initialize` of this version.
pub fn initialize(version: &str) -> String {
    format!(
        r#"{{"jsonrpc":"2.0","id":0,"method":"initialize","params":{{"protocolVersion":"{version}","capabilities":{{}},"clientInfo":{{"name":"raw","version":"1"}}}}}}"#
    )
}

pub const INITIALIZED: &str = r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#;

/// The bytes of a POST with these header lines, each ended by CRLF.
pub fn post(headers: &str, body: &str) -> String {
    let length = body.len();
    format!(
        "POST /mcp HTTP/1.1\r\nhost: localhost\r\n{BOTH}{headers}content-length: {length}\r\n\r\n{body}"
    )
}

impl Session {
    /// The whole handshake.
    pub async fn open(address: SocketAddr, version: &str) -> Self {
        let mut client = Client::connect(address).await;
        client.send(post("", &initialize(version))).await;
        let response = client.response().await;
        assert_eq!(response.status, 200, "{response:?}");
        let json = response.json();
        let version = json["result"]["protocolVersion"].as_str();
        let version = version.unwrap_or_else(|| panic!("{json}")).to_owned();
        let id = response.header("mcp-session-id").unwrap().to_owned();
        let session = Self {
            address,
            id,
            version,
        };
        client.send(session.post(INITIALIZED)).await;
        assert_eq!(client.response().await.status, 202);
        session
    }

    /// The header lines of every request.
    pub fn headers(&self) -> String {
        let Self { id, version, .. } = self;
        format!("mcp-session-id: {id}\r\nmcp-protocol-version: {version}\r\n")
    }

    pub fn post(&self, body: &str) -> String {
        post(&self.headers(), body)
    }

    /// A GET, from a cursor if there is one.
    pub fn get(&self, last_event_id: Option<&str>) -> String {
        let cursor = last_event_id.map_or(String::new(), |id| format!("last-event-id: {id}\r\n"));
        format!(
            "GET /mcp HTTP/1.1\r\nhost: localhost\r\naccept: text/event-stream\r\n{}{cursor}\r\n",
            self.headers()
        )
    }

    pub fn delete(&self) -> String {
        format!(
            "DELETE /mcp HTTP/1.1\r\nhost: localhost\r\n{}\r\n",
            self.headers()
        )
    }

    /// Sends one message on a connection of its own and reads the whole answer.
    pub async fn exchange(&self, body: &str) -> Response {
        let mut client = Client::connect(self.address).await;
        client.send(self.post(body)).await;
        client.response().await
    }

    /// Ends it.
    pub async fn close(&self) -> Response {
        let mut client = Client::connect(self.address).await;
        client.send(self.delete()).await;
        client.response().await
    }
}
