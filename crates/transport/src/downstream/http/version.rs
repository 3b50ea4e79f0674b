//! Which HTTP a client speaks on a connection without TLS: HTTP/2 begins with a preface that no
//! HTTP/1.1 request begins with (RFC 9113, section 3.4).
//!
//! What was read to tell is read again, in one piece with what follows it: a reader that got the
//! first few bytes by themselves would double its buffer for the rest of the request, and keep it.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncReadExt, ReadBuf};

/// What an HTTP/2 client sends first.
pub(super) const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// The version of HTTP that a connection carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum HttpVersion {
    One,
    Two,
}

/// The first bytes of a connection, which were looked at.
pub(super) struct Begun {
    first: [u8; PREFACE.len()],
    /// How many of the first bytes there are, and how many of them were read again.
    len: usize,
    read: usize,
    /// What went wrong behind bytes that were still good.
    failure: Option<io::Error>,
}

impl Begun {
    /// Waits for as many bytes as tell the version. A connection that ends before is HTTP/1.1 for
    /// what that is worth.
    pub(super) async fn look(io: &mut (impl AsyncRead + Unpin)) -> io::Result<(Self, HttpVersion)> {
        let (mut first, mut len) = ([0; PREFACE.len()], 0);
        while len < PREFACE.len() && first[..len] == PREFACE[..len] {
            match io.read(&mut first[len..]).await? {
                0 => break,
                read => len += read,
            }
        }
        let version = if first == *PREFACE {
            HttpVersion::Two
        } else {
            HttpVersion::One
        };
        let begun = Self {
            first,
            len,
            read: 0,
            failure: None,
        };
        Ok((begun, version))
    }

    /// Reads them again, and what follows.
    pub(super) fn poll_read(
        &mut self,
        io: Pin<&mut impl AsyncRead>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if let Some(failure) = self.failure.take() {
            return Poll::Ready(Err(failure));
        }
        let again = &self.first[self.read..self.len];
        if again.is_empty() {
            return io.poll_read(cx, buf);
        }
        let again = &again[..again.len().min(buf.remaining())];
        buf.put_slice(again);
        self.read += again.len();
        if buf.remaining() > 0
            && let Poll::Ready(Err(failure)) = io.poll_read(cx, buf)
        {
            self.failure = Some(failure);
        }
        Poll::Ready(Ok(()))
    }
}
