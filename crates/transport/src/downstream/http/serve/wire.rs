//! The bytes of one client connection, between its socket and hyper.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::super::stall::{Patience, Taken};
use super::super::version::{Begun, HttpVersion};
use crate::gather::{Space, gathered};

/// A connection whose first bytes were looked at, that writes small pieces as one, and that fails
/// when nothing could be written to it for too long.
pub(super) struct ClientWire<I> {
    io: I,
    begun: Begun,
    taken: Taken,
}

impl<I: AsyncRead + Unpin> ClientWire<I> {
    /// Waits until it shows which version the client speaks.
    pub(super) async fn begin(mut io: I, patience: Patience) -> io::Result<(Self, HttpVersion)> {
        let (begun, version) = Begun::look(&mut io).await?;
        let taken = Taken::new(patience);
        Ok((Self { io, begun, taken }, version))
    }
}

impl<I: AsyncRead + Unpin> AsyncRead for ClientWire<I> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        this.begun.poll_read(Pin::new(&mut this.io), cx, buf)
    }
}

impl<I: AsyncWrite + Unpin> AsyncWrite for ClientWire<I> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.io).poll_write(cx, buf);
        self.taken.watch(cx, written)
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
        let written = match gathered(bufs, &mut Space::new()) {
            Some(all) => io.poll_write(cx, all),
            None => io.poll_write_vectored(cx, bufs),
        };
        self.taken.watch(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use prometheus_client::metrics::counter::Counter;
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};

    use super::super::super::version::PREFACE;
    use super::*;

    async fn begun(pieces: &[&[u8]]) -> (ClientWire<DuplexStream>, HttpVersion) {
        let (mut client, server) = duplex(1024);
        let patience = Patience {
            limit: Duration::from_secs(1),
            stalled: Counter::default(),
        };
        let begun = tokio::spawn(ClientWire::begin(server, patience));
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
