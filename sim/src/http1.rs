//! HTTP/1.1 by hand: what the scripted peers read and write. It knows what the pipeline sends and
//! not much more; a peer that reads with its own eyes notices when framing is wrong.

use std::io;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::wire::Wire;

/// Bytes of a head before it is no head any more.
const HEAD_LIMIT: usize = 64 * 1024;

/// A start line and its fields, names in lower case.
#[derive(Debug)]
pub(crate) struct Head {
    pub(crate) line: String,
    fields: Vec<(String, String)>,
}

impl Head {
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.fields
            .iter()
            .find(|(field, _)| field == name)
            .map(|(_, value)| value.as_str())
    }

    /// The n-th word of the start line.
    pub(crate) fn word(&self, n: usize) -> &str {
        self.line.split(' ').nth(n).unwrap_or_default()
    }

    pub(crate) fn status(&self) -> u16 {
        self.word(1).parse().unwrap_or_default()
    }
}

/// One end of a connection that HTTP is spoken on.
pub(crate) struct Conn {
    pub(crate) wire: Wire,
    buffer: Vec<u8>,
    /// Bytes that may still be read before reading fails.
    allowance: Option<usize>,
}

/// How a response's body ends.
enum Framing {
    Length(usize),
    Chunked,
    UntilClose,
}

/// The body of a response.
pub(crate) struct Body {
    framing: Framing,
    done: bool,
}

fn broken(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

impl Conn {
    pub(crate) fn new(wire: Wire) -> Self {
        Self {
            wire,
            buffer: Vec::new(),
            allowance: None,
        }
    }

    /// Reading fails after so many bytes.
    pub(crate) fn allow(&mut self, bytes: Option<usize>) {
        self.allowance = bytes;
    }

    /// Whether this end has read all that it was allowed.
    pub(crate) fn is_cut(&self) -> bool {
        self.allowance == Some(0)
    }

    /// Reads more; false at the end.
    async fn more(&mut self) -> io::Result<bool> {
        let mut piece = [0; 8192];
        let most = self.allowance.unwrap_or(piece.len()).min(piece.len());
        if most == 0 {
            return Err(io::ErrorKind::ConnectionAborted.into());
        }
        let n = self.wire.read(&mut piece[..most]).await?;
        if let Some(allowance) = &mut self.allowance {
            *allowance -= n;
        }
        self.buffer.extend_from_slice(&piece[..n]);
        Ok(n > 0)
    }

    /// Waits for the connection's end; true if the peer closed it, false if it was reset. Whatever
    /// comes meanwhile is kept.
    pub(crate) async fn closed(&mut self) -> bool {
        loop {
            match self.more().await {
                Ok(true) => {}
                ended => return ended.is_ok(),
            }
        }
    }

    /// The next head; `None` if the peer ended before it began one.
    pub(crate) async fn head(&mut self) -> io::Result<Option<Head>> {
        let end = loop {
            if let Some(at) = self.buffer.windows(4).position(|four| four == b"\r\n\r\n") {
                break at;
            }
            if self.buffer.len() > HEAD_LIMIT {
                return Err(broken("no end of the head"));
            }
            if !self.more().await? {
                return if self.buffer.is_empty() {
                    Ok(None)
                } else {
                    Err(io::ErrorKind::UnexpectedEof.into())
                };
            }
        };
        let text = String::from_utf8_lossy(&self.buffer[..end]).into_owned();
        self.buffer.drain(..end + 4);
        let mut lines = text.split("\r\n");
        let line = lines.next().unwrap_or_default().to_owned();
        let fields = lines
            .filter_map(|line| line.split_once(':'))
            .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
            .collect();
        Ok(Some(Head { line, fields }))
    }

    /// A body of known length.
    pub(crate) async fn exactly(&mut self, length: usize) -> io::Result<Vec<u8>> {
        while self.buffer.len() < length {
            if !self.more().await? {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        Ok(self.buffer.drain(..length).collect())
    }

    pub(crate) async fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.wire.write_all(bytes).await
    }

    /// The body that follows a response's head.
    pub(crate) fn body(head: &Head) -> Body {
        let framing = if head.get("transfer-encoding").is_some() {
            Framing::Chunked
        } else if let Some(length) = head.get("content-length").and_then(|n| n.parse().ok()) {
            Framing::Length(length)
        } else if matches!(head.status(), 204 | 202 | 304) {
            Framing::Length(0)
        } else {
            Framing::UntilClose
        };
        Body {
            framing,
            done: false,
        }
    }

    /// The next bytes of a body; `None` at its end.
    pub(crate) async fn data(&mut self, body: &mut Body) -> io::Result<Option<Vec<u8>>> {
        if body.done {
            return Ok(None);
        }
        match body.framing {
            Framing::Length(length) => {
                body.done = true;
                let bytes = self.exactly(length).await?;
                Ok((!bytes.is_empty()).then_some(bytes))
            }
            Framing::UntilClose => {
                if self.buffer.is_empty() && !self.more().await? {
                    body.done = true;
                    return Ok(None);
                }
                Ok(Some(std::mem::take(&mut self.buffer)))
            }
            Framing::Chunked => {
                let line = self.line().await?;
                let size = usize::from_str_radix(line.trim(), 16)
                    .map_err(|_| broken("a chunk without a size"))?;
                let mut bytes = self.exactly(size + 2).await?;
                bytes.truncate(size);
                body.done = size == 0;
                Ok((size > 0).then_some(bytes))
            }
        }
    }

    async fn line(&mut self) -> io::Result<String> {
        loop {
            if let Some(at) = self.buffer.windows(2).position(|two| two == b"\r\n") {
                let line = String::from_utf8_lossy(&self.buffer[..at]).into_owned();
                self.buffer.drain(..at + 2);
                return Ok(line);
            }
            if !self.more().await? {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    }

    /// A whole body.
    pub(crate) async fn collect(&mut self, head: &Head) -> io::Result<Vec<u8>> {
        let mut body = Self::body(head);
        let mut whole = Vec::new();
        while let Some(bytes) = self.data(&mut body).await? {
            whole.extend_from_slice(&bytes);
        }
        Ok(whole)
    }
}

/// A request with its body.
pub(crate) fn request(method: &str, fields: &[(&str, &str)], body: &str) -> Vec<u8> {
    use std::fmt::Write as _;
    let mut text = format!("{method} /mcp HTTP/1.1\r\nhost: localhost\r\n");
    for (name, value) in fields {
        let _ = write!(text, "{name}: {value}\r\n");
    }
    if method == "POST" {
        let _ = write!(
            text,
            "content-type: application/json\r\ncontent-length: {}\r\n",
            body.len()
        );
    }
    text.push_str("\r\n");
    text.push_str(body);
    text.into_bytes()
}
