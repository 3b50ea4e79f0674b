//! Logs: to stderr only, whatever the mode.
//!
//! Library crates emit `tracing` events with session and request ids as fields; here they get their
//! filter and their form. `--log-level` sets the level of Shadowcat's own events and leaves those of
//! the libraries below it at warnings: at debug they would print header fields, and these hold
//! secrets. `RUST_LOG` sets any filter and is followed as it is; only `--log-level` on the command
//! line itself outranks it. It is often there for other programs, so one that cannot be read is
//! warned of and no reason not to start.

use std::io::IsTerminal as _;

use tracing::warn;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt;

use crate::cli::options::LogOptions;
use crate::cli::values::{LogFormat, LogLevel};

/// The target of events that must be seen at every level: where we listen, and what of the settings
/// is not heard.
pub(crate) const STARTUP: &str = "shadowcat::startup";

/// Starts logging.
pub(crate) fn start(options: &LogOptions, level_given: bool) {
    let rust_log = std::env::var("RUST_LOG")
        .ok()
        .filter(|filter| !filter.is_empty() && !level_given);
    let parsed = rust_log.map(|filter| EnvFilter::builder().parse(filter));
    let (filter, unreadable) = match parsed.transpose() {
        Ok(filter) => (filter, None),
        Err(error) => (None, Some(error)),
    };
    let filter = filter.unwrap_or_else(|| EnvFilter::new(directives(options.log_level)));
    let filter = match format!("{STARTUP}=info").parse() {
        Ok(directive) => filter.add_directive(directive),
        Err(_) => filter,
    };
    let lines = fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        // A closed stderr must not end the proxy, which reporting the failure there would.
        .log_internal_errors(false);
    match options.log_format {
        LogFormat::Text => lines.with_target(false).init(),
        LogFormat::Json => lines.json().flatten_event(true).init(),
    }
    if let Some(error) = unreadable {
        warn!(
            target: STARTUP,
            "RUST_LOG is ignored: {error}; write a filter such as info or shadowcat=debug"
        );
    }
}

fn directives(level: LogLevel) -> &'static str {
    match level {
        LogLevel::Off => "off",
        // What a server writes to stderr passes at every level but off: its words are not ours.
        // What the verifier of certificates logs as an error, the fault says in words.
        LogLevel::Error => "error,shadowcat::server=info,rustls_platform_verifier=off",
        LogLevel::Warn => "warn,shadowcat::server=info,rustls_platform_verifier=off",
        LogLevel::Info => "warn,shadowcat=info,rustls_platform_verifier=off",
        LogLevel::Debug => "warn,shadowcat=debug",
        LogLevel::Trace => "warn,shadowcat=trace",
    }
}
