//! What an HTTP upstream is told.

use std::sync::Arc;

use http::{HeaderMap, Uri};
pub use shadowcat_sse::reconnect::Policy;

/// One server reached over HTTP. The names are those of the command line, where defaults and
/// meanings are written down.
#[derive(Debug, Clone)]
pub struct HttpUpstreamConfig {
    /// The MCP endpoint, `http` or `https`, without credentials.
    pub url: Uri,
    /// `--header`: sent with every request, before anything that a client sent under the same name.
    pub headers: HeaderMap,
    /// `--max-message-size` in bytes: a JSON answer's body, one event.
    pub max_message_size: usize,
    /// `--retry-*`, `--idle-timeout` and `--dedup-window`.
    pub reconnect: Arc<Policy>,
    /// `--forward-auth`: a challenge of the server is relayed instead of explained.
    pub forward_auth: bool,
    /// Whether clients come over HTTP and may have credentials of their own: only then is
    /// `--forward-auth` something to advise.
    pub http_clients: bool,
    /// `--max-connections`: event streams open at once.
    pub max_connections: usize,
}

/// Random numbers for jitter, uniform over `u64`. A simulation injects a seeded source.
pub type Random = Arc<dyn Fn() -> u64 + Send + Sync>;

/// A generator of each thread's own, seeded by the operating system.
#[must_use]
pub fn system_random() -> Random {
    Arc::new(rand::random)
}
