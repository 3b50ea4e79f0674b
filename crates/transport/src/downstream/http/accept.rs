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

/// Connections of a TCP listener, with Nagle's algorithm off: answers are small and each is waited
/// for.
#[derive(Debug)]
pub struct Tcp(pub TcpListener);

impl Accept for Tcp {
    type Io = TcpStream;

    async fn accept(&mut self) -> io::Result<TcpStream> {
        let (stream, _) = self.0.accept().await?;
        // Fails only for a peer that has gone already; reading will find that out.
        let _ = stream.set_nodelay(true);
        Ok(stream)
    }
}
