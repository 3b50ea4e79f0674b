//! What the pipeline can be told, as plain values. The command line is parsed elsewhere.

use std::sync::Arc;
use std::time::Duration;

use shadowcat_mcp::version::VersionPolicy;
use shadowcat_sse::reconnect::Policy;

/// What an upstream's lost session means for the client.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OnSessionLoss {
    /// A new upstream session is made; the client keeps its own.
    #[default]
    Heal,
    /// The client loses its session too: 404 over HTTP, the end of the process over stdio.
    Propagate,
}

/// Settings of one pipeline.
#[derive(Debug, Clone)]
pub struct Config {
    /// Deadline per request, reset by its progress notifications. `None`: no deadline.
    pub request_timeout: Option<Duration>,
    /// Upstreams without response heads: an answer later than this is sent as an event stream.
    pub stream_after: Duration,
    /// Upstreams with response heads: a head later than this turns the answer into an event
    /// stream.
    pub head_patience: Duration,
    /// Which protocol versions are accepted on either leg.
    pub versions: VersionPolicy,
    /// See [`OnSessionLoss`].
    pub on_session_loss: OnSessionLoss,
    /// Whether tools annotated read-only or idempotent may be called again when their answer was
    /// lost.
    pub retry_idempotent_tools: bool,
    /// Sessions of an HTTP client edge; beyond it `initialize` gets 503.
    pub max_sessions: usize,
    /// A session idle for so long is ended. It is not while its client is there for
    /// a stream or an exchange.
    pub session_ttl: Duration,
    /// Mean distance of keep-alive comments on our event streams.
    pub keep_alive: Duration,
    /// The reconnection time that our event streams tell clients.
    pub client_retry: Duration,
    /// Whether the client's credentials go to the upstream.
    pub forward_auth: bool,
    /// How a lost session comes back: the same delays and the same number of attempts as for a
    /// stream.
    pub reconnect: Arc<Policy>,
    /// Largest message, either direction, in bytes.
    pub max_message_size: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            request_timeout: None,
            stream_after: Duration::from_millis(50),
            head_patience: Duration::from_secs(5),
            versions: VersionPolicy::default(),
            on_session_loss: OnSessionLoss::Heal,
            retry_idempotent_tools: false,
            max_sessions: 10_000,
            session_ttl: Duration::from_secs(3600),
            keep_alive: Duration::from_secs(10),
            client_retry: Duration::from_secs(1),
            forward_auth: false,
            reconnect: Arc::default(),
            max_message_size: 16 * 1024 * 1024,
        }
    }
}
