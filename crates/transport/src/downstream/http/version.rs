//! Which HTTP a client speaks on a connection without TLS: HTTP/2 begins with a preface that no
//! HTTP/1.1 request begins with (RFC 9113, section 3.4).
//!
//! What was read to tell is read again, in one piece with what follows it: a reader that got the
//! first few bytes by themselves would double its buffer for the rest of the request, and keep it.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};

use crate::gather::{Space, gathered};

const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// The version of HTTP that a connection carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum HttpVersion {
    One,
    Two,
}

/// A connection whose first bytes were looked at.
pub(super) struct Begun<I> {
    io: I,
    first: [u8; PREFACE.len()],
    /// How many of the first bytes there are, and how many of them were read again.
    len: usize,
    read: usize,
    /// What went wrong behind bytes that were still good.
    failure: Option<io::Error>,
}

impl<I: AsyncRead + Unpin> Begun<I> {
    /// Waits for as many bytes as tell the version. A connection that ends before is HTTP/1.1 for
    /// what that is worth.
    pub(super) async fn new(mut io: I) -> io::Result<(Self, HttpVersion)> {
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
            io,
            first,
            len,
            read: 0,
            failure: None,
        };
        Ok((begun, version))
    }
}

impl<I: AsyncRead + Unpin> AsyncRead for Begun<I> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if let Some(failure) = this.failure.take() {
            return Poll::Ready(Err(failure));
        }
        let again = &this.first[this.read..this.len];
        if again.is_empty() {
            return Pin::new(&mut this.io).poll_read(cx, buf);
        }
        let again = &again[..again.len().min(buf.remaining())];
        buf.put_slice(again);
        this.read += again.len();
        if buf.remaining() > 0
            && let Poll::Ready(Err(failure)) = Pin::new(&mut this.io).poll_read(cx, buf)
        {
            this.failure = Some(failure);
        }
        Poll::Ready(Ok(()))
    }
}

impl<I: AsyncWrite + Unpin> AsyncWrite for Begun<I> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let io = Pin::new(&mut self.io);
        match gathered(bufs, &mut Space::new()) {
            Some(all) => io.poll_write(cx, all),
            None => io.poll_write_vectored(cx, bufs),
        }
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt;

    use super::*;

    async fn begun(pieces: &[&[u8]]) -> (Begun<tokio::io::DuplexStream>, HttpVersion) {
        let (mut client, server) = tokio::io::duplex(1024);
        let begun = tokio::spawn(Begun::new(server));
        for piece in pieces {
            client.write_all(piece).await.unwrap();
            tokio::task::yield_now().await;
        }
        drop(client);
        begun.await.unwrap().unwrap()
    }

    #[tokio::test]
    async fn a_request_is_read_in_one_piece() {
        let request = b"POST /mcp HTTP/1.1\r\nhost: localhost\r\n\r\n".as_slice();
        let (mut begun, version) = begun(&[request]).await;
        assert_eq!(version, HttpVersion::One);
        let mut buf = [0; 100];
        let read = begun.read(&mut buf).await.unwrap();
        assert_eq!(&buf[..read], request);
    }

    #[tokio::test]
    async fn the_version_is_told_however_the_bytes_come() {
        let preface = [&PREFACE[..], b"frames"].concat();
        for cut in 0..preface.len() {
            let (mut begun, version) = begun(&[&preface[..cut], &preface[cut..]]).await;
            assert_eq!(version, HttpVersion::Two, "{cut}");
            let mut all = Vec::new();
            begun.read_to_end(&mut all).await.unwrap();
            assert_eq!(all, preface, "{cut}");
        }
        for other in [&b""[..], b"PRI", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\rX", b"G"] {
            let (mut begun, version) = begun(&[other]).await;
            assert_eq!(version, HttpVersion::One);
            let mut all = Vec::new();
            begun.read_to_end(&mut all).await.unwrap();
            assert_eq!(all, other);
        }
    }
}
