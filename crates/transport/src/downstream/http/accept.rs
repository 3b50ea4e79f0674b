//! Where connections come from: a TCP listener, or whatever a simulation feeds in.

use std::io;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};

/// A source of client connections.
pub trait Accept: Send + 'static {
    /// A connection.
    type Io: AsyncRead + AsyncWrite + Send + Unpin + 'static;

    /// Waits for the next connection. Dropping the future loses none.
    ///
    /// # Errors
    /// One connection failed before it was ours ([`io::ErrorKind::ConnectionAborted`] and its
    /// kind), or nothing can be accepted for now (out of descriptors); the caller waits a little
    /// after the latter.
    fn accept(&mut self) -> impl Future<Output = io::Result<Self::Io>> + Send;
}

/// Bytes that the system holds of a connection without having sent them. It asks for more when half
/// of them are left; of its own it would hold megabytes, and take nothing while a slow client reads
/// the first third of them.
#[cfg(any(target_os = "linux", target_os = "android"))]
const UNSENT: u32 = 128 * 1024;

/// Connections of a TCP listener, with Nagle's algorithm off: answers are small and each is waited
/// for. Little is queued in the system, so that it shows soon whether a client reads.
#[derive(Debug)]
pub struct Tcp(pub TcpListener);

impl Accept for Tcp {
    type Io = TcpStream;

    async fn accept(&mut self) -> io::Result<TcpStream> {
        let (stream, _) = self.0.accept().await?;
        // Fails only for a peer that has gone already; reading will find that out.
        let _ = stream.set_nodelay(true);
        #[cfg(any(target_os = "linux", target_os = "android"))]
        let _ = socket2::SockRef::from(&stream).set_tcp_notsent_lowat(UNSENT);
        Ok(stream)
    }
}
