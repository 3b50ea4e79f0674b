//! The options that commands share, in groups. Their names, defaults and meanings are promises to
//! scripts; `tests/options.txt` lists them.
//!
//! Every option has an environment variable, `SHADOWCAT_` and its name: added in one place
//! ([`super::command`]), not here.

use std::time::Duration;

use clap::{ArgAction, Args};
use shadowcat_mcp::version::ProtocolVersion;

use super::values::{self, Listen, LogFormat, LogLevel, SessionLoss};

/// Everything that both proxy modes take, but the server itself and `--listen`.
#[derive(Debug, Clone, Args)]
pub struct ProxyOptions {
    /// See [`ProtocolOptions`].
    #[command(flatten)]
    pub protocol: ProtocolOptions,
    /// See [`RetryOptions`].
    #[command(flatten)]
    pub retry: RetryOptions,
    /// See [`ReplayOptions`].
    #[command(flatten)]
    pub replay: ReplayOptions,
    /// See [`LimitOptions`].
    #[command(flatten)]
    pub limits: LimitOptions,
    /// See [`AccessOptions`].
    #[command(flatten)]
    pub access: AccessOptions,
    /// See [`OperationOptions`].
    #[command(flatten)]
    pub operation: OperationOptions,
    /// See [`LogOptions`].
    #[command(flatten)]
    pub log: LogOptions,
}

/// Requests, versions and sessions.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Protocol")]
pub struct ProtocolOptions {
    /// Deadline per request, reset by its progress notifications [default: none]
    ///
    /// Without it, a request that is being worked on ends by the client's cancel, the session's
    /// end, or a detected transport death.
    #[arg(long, value_name = "DURATION", value_parser = values::positive_duration)]
    pub request_timeout: Option<Duration>,

    /// Send an answer that is later than this as a resumable event stream
    ///
    /// For servers whose answers have no head (stdio, HTTP+SSE). What is there earlier is one JSON
    /// body.
    #[arg(long, value_name = "DURATION", default_value = "50ms", value_parser = values::duration)]
    pub stream_after: Duration,

    /// Refuse protocol versions below this one, on either leg
    #[arg(long, value_name = "VERSION", value_parser = values::version())]
    pub min_version: Option<ProtocolVersion>,

    /// Refuse every protocol version but this one, on either leg
    #[arg(long, value_name = "VERSION", value_parser = values::version())]
    pub pin: Option<ProtocolVersion>,

    /// What the loss of the server's session means for the client
    #[arg(long, value_name = "WHAT", default_value = "heal")]
    pub on_session_loss: SessionLoss,

    /// Call tools annotated read-only or idempotent again when their answer was lost
    #[arg(
        long, value_name = "BOOL", default_value = "off", default_missing_value = "on",
        num_args = 0..=1, require_equals = true, hide_possible_values = true,
        action = ArgAction::Set, value_parser = values::switch()
    )]
    pub retry_idempotent_tools: bool,
}

/// How broken streams come back.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Reconnection")]
pub struct RetryOptions {
    /// First reconnect delay; it doubles with every failure in a row. Attempts begin 250ms apart at
    /// the least
    #[arg(long, value_name = "DURATION", default_value = "1s", value_parser = values::positive_duration)]
    pub retry_initial: Duration,

    /// Cap on our own delays
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = values::positive_duration)]
    pub retry_max: Duration,

    /// Cap on the server's `retry` and `Retry-After`
    #[arg(long, value_name = "DURATION", default_value = "5m", value_parser = values::positive_duration)]
    pub retry_hint_max: Duration,

    /// Added to each delay: random(0, delay × factor)
    #[arg(long, value_name = "FACTOR", default_value = "0.3", value_parser = values::jitter)]
    pub retry_jitter: f64,

    /// Consecutive failures before a stream is given up
    #[arg(long, value_name = "COUNT", default_value = "10", value_parser = values::attempts)]
    pub retry_max_attempts: u32,

    /// Treat an event stream, or a JSON answer that has begun, as dead after so long without a byte
    #[arg(long, value_name = "DURATION", default_value = "5m", value_parser = values::positive_duration)]
    pub idle_timeout: Duration,

    /// Event ids remembered per stream and per session, to drop what a server sends twice
    #[arg(long, value_name = "COUNT", default_value = "1000", value_parser = values::count)]
    pub dedup_window: usize,
}

/// What is kept for a client's return.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Replay to returning clients")]
pub struct ReplayOptions {
    /// How long a stream is kept for a client's return
    #[arg(long, value_name = "DURATION", default_value = "5m", value_parser = values::positive_duration)]
    pub replay_ttl: Duration,

    /// How much of a stream is kept, per stream
    #[arg(long, value_name = "SIZE", default_value = "1MiB", value_parser = values::size)]
    pub replay_buffer: usize,

    /// How much of all streams is kept, in all
    #[arg(long, value_name = "SIZE", default_value = "64MiB", value_parser = values::size)]
    pub replay_memory: usize,
}

/// Bounds.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Limits")]
pub struct LimitOptions {
    /// Open event streams per server, reconnects included
    ///
    /// Standalone streams hold at most 80 % of them. The open-file limit is raised at start.
    #[arg(long, value_name = "COUNT", default_value = "10000", value_parser = values::count)]
    pub max_connections: usize,

    /// Child processes of a stdio server
    ///
    /// Beyond it a client gets 503 with Retry-After (HTTP) or an error.
    #[arg(long, value_name = "COUNT", default_value = "100", value_parser = values::count)]
    pub max_children: usize,

    /// Largest message, either direction
    #[arg(long, value_name = "SIZE", default_value = "16MiB", value_parser = values::size)]
    pub max_message_size: usize,

    /// Sessions of HTTP clients
    #[arg(long, value_name = "COUNT", default_value = "10000", value_parser = values::count)]
    pub max_sessions: usize,

    /// End a session of an HTTP client that is idle for so long
    ///
    /// A session is not idle while its client is there for a stream or a call.
    #[arg(long, value_name = "DURATION", default_value = "1h", value_parser = values::positive_duration)]
    pub session_ttl: Duration,
}

/// Who may reach an HTTP client edge, and whose credentials pass.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Access")]
pub struct AccessOptions {
    /// Allow web pages of this origin, besides loopback ones (repeatable, or with commas)
    #[arg(long, value_name = "ORIGIN", value_delimiter = ',', value_parser = values::allowed_origin)]
    pub allow_origin: Vec<String>,

    /// Allow requests to this host name, besides loopback names (repeatable, or with commas)
    #[arg(long, value_name = "HOST", value_delimiter = ',', value_parser = values::allowed_host)]
    pub allow_host: Vec<String>,

    /// Allow --listen and --admin on addresses that other machines can reach
    #[arg(
        long, value_name = "BOOL", default_value = "off", default_missing_value = "on",
        num_args = 0..=1, require_equals = true, hide_possible_values = true,
        action = ArgAction::Set, value_parser = values::switch()
    )]
    pub allow_remote: bool,

    /// Pass the client's Authorization and Cookie upstream and the server's challenge back
    ///
    /// Without it, a server's 401 or 403 is an error that names --header and, where --header gives
    /// no credentials, this option.
    #[arg(
        long, value_name = "BOOL", default_value = "off", default_missing_value = "on",
        num_args = 0..=1, require_equals = true, hide_possible_values = true,
        action = ArgAction::Set, value_parser = values::switch()
    )]
    pub forward_auth: bool,
}

/// Running it.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Operation")]
pub struct OperationOptions {
    /// How long a shutdown waits for what is open
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = values::duration)]
    pub drain_timeout: Duration,

    /// Serve /healthz, /readyz and /metrics here [default: off]
    #[arg(long, value_name = "HOST:PORT")]
    pub admin: Option<Listen>,
}

/// What is logged, on stderr only.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Operation")]
pub struct LogOptions {
    /// How much is logged, on stderr; RUST_LOG is honoured
    #[arg(long, value_name = "LEVEL", default_value = "info")]
    pub log_level: LogLevel,

    /// How log lines are written
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    pub log_format: LogFormat,
}
