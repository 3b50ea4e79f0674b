//! From what the command line says to the parts of a pipeline.

use std::sync::Arc;

use http::{HeaderMap, Uri};
use shadowcat_mcp::origin::Access;
use shadowcat_mcp::version::VersionPolicy;
use shadowcat_proxy::config::{Config, OnSessionLoss};
use shadowcat_proxy::entropy::OsEntropy;
use shadowcat_proxy::session::Shared;
use shadowcat_store::Limits;
use shadowcat_store::memory::MemoryLog;
use shadowcat_transport::downstream::http::HttpEdgeConfig;
use shadowcat_transport::metrics::Metrics;
use shadowcat_transport::upstream::Upstream;
use shadowcat_transport::upstream::http::{
    HttpUpstream, HttpUpstreamConfig, NetDial, Policy, system_random,
};
use shadowcat_transport::upstream::stdio::{Audience, Launcher, StdioConfig, StdioUpstream};

use crate::cli::Proxy;
use crate::cli::options::{AccessOptions, ProxyOptions, RetryOptions};
use crate::cli::server::{Server, ServerCommand};
use crate::cli::values::SessionLoss;
use crate::failure::Failure;
use crate::{child, open_files};

/// The pipeline between any client edge and the server of the command line.
///
/// # Errors
/// [`Failure`] when the server cannot be one.
pub(crate) fn pipeline(proxy: &Proxy) -> Result<Arc<Shared>, Failure> {
    pipeline_through(proxy, Arc::new(NetDial::from_env()))
}

/// The same, reaching HTTP servers through `dial`.
///
/// # Errors
/// As [`pipeline`].
pub(crate) fn pipeline_through(proxy: &Proxy, dial: Arc<NetDial>) -> Result<Arc<Shared>, Failure> {
    let metrics = Arc::new(Metrics::default());
    let upstream = upstream(proxy, dial, Arc::clone(&metrics))?;
    let replay = &proxy.options.replay;
    let log = MemoryLog::new(Limits {
        stream_bytes: replay.replay_buffer,
        total_bytes: replay.replay_memory,
        ttl: replay.replay_ttl,
        ..Limits::default()
    });
    let config = config(&proxy.options);
    Ok(Shared::new(
        config,
        upstream,
        Arc::new(log),
        metrics,
        Arc::new(OsEntropy),
    ))
}

/// The edge that HTTP clients reach.
pub(crate) fn http_edge(options: &ProxyOptions) -> HttpEdgeConfig {
    HttpEdgeConfig {
        access: access(&options.access),
        max_message_size: options.limits.max_message_size,
        ..HttpEdgeConfig::default()
    }
}

/// Who may reach an HTTP endpoint.
pub(crate) fn access(options: &AccessOptions) -> Access {
    Access {
        origins: options.allow_origin.clone(),
        hosts: options.allow_host.clone(),
    }
}

fn config(options: &ProxyOptions) -> Config {
    let ProxyOptions {
        protocol,
        retry,
        limits,
        access,
        ..
    } = options;
    Config {
        request_timeout: protocol.request_timeout,
        stream_after: protocol.stream_after,
        versions: VersionPolicy {
            min: protocol.min_version,
            pin: protocol.pin,
        },
        on_session_loss: match protocol.on_session_loss {
            SessionLoss::Heal => OnSessionLoss::Heal,
            SessionLoss::Propagate => OnSessionLoss::Propagate,
        },
        retry_idempotent_tools: protocol.retry_idempotent_tools,
        max_sessions: limits.max_sessions,
        session_ttl: limits.session_ttl,
        forward_auth: access.forward_auth,
        reconnect: Arc::new(reconnect(retry)),
        max_message_size: limits.max_message_size,
        ..Config::default()
    }
}

fn upstream(
    proxy: &Proxy,
    dial: Arc<NetDial>,
    metrics: Arc<Metrics>,
) -> Result<Arc<dyn Upstream>, Failure> {
    let options = &proxy.options;
    match &proxy.server {
        Server::Http { url, headers } => {
            let upstream: Arc<dyn Upstream> =
                http_upstream(url, headers, options, proxy.listen.is_some(), dial, metrics)?;
            Ok(upstream)
        }
        Server::Command(command) => {
            let upstream = stdio_upstream(command, proxy.audience, options, metrics);
            Ok(Arc::new(upstream))
        }
    }
}

/// A server that is reached over HTTP. `http_clients`: so are we, and by clients that may have
/// credentials of their own.
///
/// # Errors
/// [`Failure::Usage`] when the URL cannot be a server's.
pub(crate) fn http_upstream(
    url: &Uri,
    headers: &HeaderMap,
    options: &ProxyOptions,
    http_clients: bool,
    dial: Arc<NetDial>,
    metrics: Arc<Metrics>,
) -> Result<Arc<HttpUpstream>, Failure> {
    let ProxyOptions {
        retry,
        limits,
        access,
        ..
    } = options;
    let config = HttpUpstreamConfig {
        url: url.clone(),
        headers: headers.clone(),
        max_message_size: limits.max_message_size,
        reconnect: Arc::new(reconnect(retry)),
        forward_auth: access.forward_auth && http_clients,
        http_clients,
        max_connections: limits.max_connections,
    };
    let upstream = HttpUpstream::new(config, dial, system_random(), metrics)
        .map_err(|error| Failure::Usage(error.to_string()))?;
    Ok(Arc::new(upstream))
}

/// A server that is started here, for `audience`.
pub(crate) fn stdio_upstream(
    command: &ServerCommand,
    audience: Audience,
    options: &ProxyOptions,
    metrics: Arc<Metrics>,
) -> StdioUpstream {
    let config = StdioConfig {
        program: command.program.clone(),
        arguments: command.arguments.clone(),
        environment: command.environment.clone(),
        directory: command.directory.clone(),
        audience,
        launcher: Launcher {
            words: child::launcher(open_files::inherited()),
            complaint: child::COMPLAINT,
        },
        max_children: options.limits.max_children,
        reconnect: reconnect(&options.retry),
        max_message_size: options.limits.max_message_size,
    };
    StdioUpstream::new(config, metrics)
}

/// How broken streams, lost sessions and crashed children come back.
pub(crate) fn reconnect(retry: &RetryOptions) -> Policy {
    Policy {
        initial: retry.retry_initial,
        max: retry.retry_max,
        jitter: retry.retry_jitter,
        max_attempts: retry.retry_max_attempts,
        hint_max: retry.retry_hint_max,
        idle_timeout: retry.idle_timeout,
        dedup_window: retry.dedup_window,
        ..Policy::default()
    }
}
