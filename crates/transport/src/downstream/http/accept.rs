//! Where connections come from: a TCP listener, or whatever a simulation feeds in.

use std::io;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};

/// A source of client connections.
pub trait Accept: Send + 'static {
    /// A connection.
    type Io: AsyncRead + AsyncWrite + Send + Unpin + 'static;

    /// Waits for the next connection.
    ///
    /// # Errors
    /// One connection failed, or the system is out of descriptors; the caller waits a little and
    /// goes on.
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
        stream.set_nodelay(true)?;
        Ok(stream)
    }
}
