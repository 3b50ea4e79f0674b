//! The settings of an HTTP client edge.

use std::time::Duration;

use shadowcat_mcp::origin::Access;

/// Settings of one edge.
#[derive(Debug, Clone)]
pub struct HttpEdgeConfig {
    /// Which origins and hosts beyond loopback may reach it.
    pub access: Access,
    /// Largest body of a POST, in bytes; beyond it 413.
    pub max_message_size: usize,
    /// Connections served at once; beyond it 503 with `Retry-After`.
    pub max_connections: usize,
    /// How long a new connection may take to bring its first header section.
    pub header_timeout: Duration,
    /// How long a connection may be without a request. It ends between once and twice this time
    /// after its last one, which also bounds a later header section that never ends.
    pub idle_timeout: Duration,
    /// How long a request's body may take.
    pub body_timeout: Duration,
    /// How long a client may take nothing of what is there for it before it is taken for gone. A
    /// machine that sleeps or a client that is held in a debugger is no worse off for it than after
    /// any other end of its connection.
    pub stall_timeout: Duration,
}

impl Default for HttpEdgeConfig {
    fn default() -> Self {
        Self {
            access: Access::default(),
            max_message_size: 16 * 1024 * 1024,
            max_connections: 20_000,
            header_timeout: Duration::from_secs(15),
            idle_timeout: Duration::from_secs(120),
            body_timeout: Duration::from_secs(60),
            stall_timeout: Duration::from_secs(120),
        }
    }
}
