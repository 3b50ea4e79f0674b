//! The settings of an HTTP client edge.

use std::time::Duration;

use shadowcat_mcp::origin::Access;

/// Settings of one edge.
#[derive(Debug, Clone)]
pub struct HttpEdgeConfig {
    /// Which origins and hosts beyond loopback may reach it.
    pub access: Access,
    /// Largest body of a POST, in bytes.
    pub max_message_size: usize,
    /// Connections served at once; more wait to be accepted.
    pub max_connections: usize,
    /// How long a request's header section may take, and how long a connection may be idle.
    pub header_timeout: Duration,
    /// How long a request's body may take.
    pub body_timeout: Duration,
    /// How long connections may go on after the shutdown began.
    pub drain: Duration,
}

impl Default for HttpEdgeConfig {
    fn default() -> Self {
        Self {
            access: Access::default(),
            max_message_size: 16 * 1024 * 1024,
            max_connections: 20_000,
            header_timeout: Duration::from_secs(30),
            body_timeout: Duration::from_secs(60),
            drain: Duration::from_secs(10),
        }
    }
}
