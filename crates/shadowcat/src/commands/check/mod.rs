//! `check`: what a server is, before anyone relies on it.
//!
//! It is asked as the proxy would ask it, on legs of the proxy's own upstream: `initialize` for the
//! legacy era, `server/discover` for the modern one. Over HTTP each has a leg of its own; how few
//! processes a command needs is for [`command`] to say. What only the wire shows (sessions, event
//! ids) is [`examined`](shadowcat_transport::upstream::http::Examination).

mod command;
mod eras;
mod findings;
mod report;

use std::sync::Arc;
use std::time::Duration;

use shadowcat_mcp::version::Era;
use shadowcat_transport::metrics::Metrics;
use shadowcat_transport::upstream::Upstream;
use shadowcat_transport::upstream::http::{HttpUpstream, NetDial};
use shadowcat_transport::upstream::stdio::Audience;
use tokio::time::{Instant, timeout_at};

use crate::cli::server::Server;
use crate::cli::{self, Check};
use crate::failure::Failure;
use crate::{assembly, print};
use eras::{Legacy, Patience, SILENCE};
use findings::{EraFindings, Findings, Transport};

/// Probes the server and says what it is.
///
/// # Errors
/// [`Failure::Runtime`] if it cannot be used, with what is wrong and what to do next.
pub(crate) async fn run(check: Check) -> Result<(), Failure> {
    let options = cli::default_options()?;
    let (dial, metrics) = (Arc::new(NetDial::from_env()), Arc::new(Metrics::default()));
    let (upstream, http): (Arc<dyn Upstream>, Option<Arc<HttpUpstream>>) = match &check.server {
        Server::Http { url, headers } => {
            let http = assembly::http_upstream(url, headers, &options, false, dial, metrics)?;
            (Arc::clone(&http) as Arc<dyn Upstream>, Some(http))
        }
        Server::Command(command) => {
            let audience = Audience::LocalUser;
            let stdio = assembly::stdio_upstream(command, audience, &options, metrics);
            (Arc::new(stdio), None)
        }
    };
    let name = upstream.name().to_owned();
    let found = probe(&*upstream, http.as_deref(), check.timeout).await;
    let text = match (&found, check.json) {
        (Ok(findings), false) => report::text(&name, findings),
        (Err(_), false) => String::new(),
        (found, true) => report::json(&name, found),
    };
    print(text.as_bytes())?;
    match found {
        Ok(_) => Ok(()),
        Err(problem) => Err(Failure::Runtime(format!(
            "{name} cannot be used: {problem}"
        ))),
    }
}

/// Takes no longer than `time`, and what the processes that it started take to end.
async fn probe(
    upstream: &dyn Upstream,
    http: Option<&HttpUpstream>,
    time: Duration,
) -> Result<Findings, String> {
    let started = Instant::now();
    let end = started + time;
    let reached = timeout_at(end, upstream.probe()).await;
    reached.unwrap_or_else(|_| Err(no_answer(time)))?;
    let (legacy, modern) = match http {
        Some(_) => over_http(upstream, end, time).await,
        None => command::probe(upstream, end).await,
    };
    let legacy = legacy.unwrap_or_else(|| Err(no_answer(time)));
    let (legacy, examination) = match legacy {
        Ok((findings, transport)) => {
            let examination = match (http, transport) {
                (Some(http), Transport::StreamableHttp) => {
                    timeout_at(end, http.examine()).await.ok()
                }
                _ => None,
            };
            (
                Some((findings, transport)),
                examination.and_then(Result::ok),
            )
        }
        Err(problem) if modern.is_none() => return Err(problem),
        Err(_) => (None, None),
    };
    let transport = match (&legacy, http) {
        (Some((_, transport)), _) => *transport,
        (None, Some(_)) => Transport::StreamableHttp,
        (None, None) => Transport::Stdio,
    };
    Ok(Findings {
        transport,
        legacy: legacy.map(|(findings, _)| findings),
        modern,
        examination,
    })
}

/// What an HTTP server says, asked for one era after the other.
async fn over_http(
    upstream: &dyn Upstream,
    end: Instant,
    time: Duration,
) -> (Option<Legacy>, Option<EraFindings>) {
    let asked = Instant::now();
    let answer = end - SILENCE.min(time / 2);
    let leg = upstream.leg(Era::Legacy);
    let legacy = eras::legacy(&*leg, true, Patience { answer, end }).await;
    leg.close().await;
    let answer = end.min(Instant::now() + asked.elapsed() + SILENCE);
    let leg = upstream.leg(Era::Modern);
    let modern = eras::modern(&*leg, Patience { answer, end }).await;
    leg.close().await;
    (legacy, modern)
}

fn no_answer(time: Duration) -> String {
    let time = humantime::format_duration(time);
    format!("no answer to initialize within {time}; is this an MCP server? --timeout waits longer")
}

#[cfg(test)]
mod tests;
