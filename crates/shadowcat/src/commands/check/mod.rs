//! `check`: what a server is, before anyone relies on it.
//!
//! It is asked as the proxy would ask it, on legs of the proxy's own upstream: `initialize` for the
//! legacy era, `server/discover` for the modern one, each on a leg (a stdio server: a process) of
//! its own, because a server may hold a connection to what it spoke first. What only the wire
//! shows (sessions, event ids) is [`examined`](shadowcat_transport::upstream::http::Examination).

mod findings;
mod report;

use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use shadowcat_mcp::build;
use shadowcat_mcp::fault::{Fault, FaultKind};
use shadowcat_mcp::handshake::{DiscoverResult, InitializeResult};
use shadowcat_mcp::inspect;
use shadowcat_mcp::message::Message;
use shadowcat_mcp::method::Method;
use shadowcat_mcp::version::{Era, ProtocolVersion};
use shadowcat_transport::metrics::Metrics;
use shadowcat_transport::upstream::http::{HttpUpstream, NetDial};
use shadowcat_transport::upstream::stdio::Audience;
use shadowcat_transport::upstream::{Leg, SendContext, Upstream, ask};
use tokio::time::{Instant, timeout_at};

use crate::cli::server::Server;
use crate::cli::{self, Check};
use crate::failure::Failure;
use crate::{assembly, print};
use findings::{EraFindings, Findings, Transport};

/// Pages of a list that are counted.
const PAGES: usize = 20;
/// A server of one era may say nothing at all to the other's question: how long it may think, once
/// it has had as long to start as it took before. A command that is downloaded first takes long.
const SILENCE: Duration = Duration::from_secs(3);

/// Probes the server and says what it is.
///
/// # Errors
/// [`Failure::Runtime`] if it cannot be used, with what is wrong and what to do next.
pub(crate) async fn run(check: Check) -> Result<(), Failure> {
    let options = cli::default_options()?;
    let (dial, metrics) = (Arc::new(NetDial::from_env()), Arc::new(Metrics::default()));
    let (upstream, http): (Arc<dyn Upstream>, Option<Arc<HttpUpstream>>) = match &check.server {
        Server::Http { url, headers } => {
            let http = assembly::http_upstream(url, headers, &options, dial, metrics)?;
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
    let asked = Instant::now();
    let patience = Patience {
        answer: end - SILENCE.min(time / 2),
        end,
    };
    let legacy = legacy(upstream, http, patience).await;
    let legacy = legacy.unwrap_or_else(|| Err(no_answer(time)));
    let patience = Patience {
        answer: end.min(Instant::now() + asked.elapsed() + SILENCE),
        end,
    };
    let modern = modern(upstream, patience).await;
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

fn no_answer(time: Duration) -> String {
    let time = humantime::format_duration(time);
    format!("no answer to initialize within {time}; is this an MCP server? --timeout waits longer")
}

/// How long one era's questions may take.
#[derive(Clone, Copy)]
struct Patience {
    /// The answer to the first one must be here by then.
    answer: Instant,
    /// And everything else by then, as far as there is time.
    end: Instant,
}

/// What the server says as a modern one; `None` if it is none, or says nothing.
async fn modern(upstream: &dyn Upstream, patience: Patience) -> Option<EraFindings> {
    let leg = upstream.leg(Era::Modern);
    let found = discover(&*leg, patience).await;
    leg.close().await;
    found
}

async fn discover(leg: &dyn Leg, patience: Patience) -> Option<EraFindings> {
    let answer = timeout_at(patience.answer, ask(leg, build::discover())).await;
    let response = answer.ok()?.ok()?;
    let result = DiscoverResult::read(&response)?;
    let list = |_| build::modern_request("shadowcat-list", &Method::ToolsList);
    let tools = count_tools(leg, list, patience.end).await;
    Some(EraFindings::new(result.versions, body(&response), tools))
}

/// What the server says as a legacy one; `None` if it says nothing.
async fn legacy(
    upstream: &dyn Upstream,
    http: Option<&HttpUpstream>,
    patience: Patience,
) -> Option<Result<(EraFindings, Transport), String>> {
    let leg = upstream.leg(Era::Legacy);
    let initialize = build::initialize(ProtocolVersion::V2025_11_25);
    let found = match timeout_at(patience.answer, ask(&*leg, initialize)).await {
        Ok(Ok(response)) => {
            let found = shake_hands(&*leg, &response, http.is_some(), patience.end);
            Some(found.await)
        }
        Ok(Err(fault)) => Some(Err(explain(&fault))),
        Err(_) => None,
    };
    leg.close().await;
    found
}

/// Goes on from the answer to `initialize`.
async fn shake_hands(
    leg: &dyn Leg,
    response: &Message,
    http: bool,
    end: Instant,
) -> Result<(EraFindings, Transport), String> {
    let result = InitializeResult::read(response).map_err(|error| {
        let said = inspect::error_text(response);
        said.map_or_else(
            || error.to_string(),
            |said| format!("it refuses initialize: {said}"),
        )
    })?;
    let version: ProtocolVersion = result.version().parse().map_err(|_| {
        format!(
            "it answers initialize with version {:?}, which shadowcat does not know",
            result.version()
        )
    })?;
    leg.negotiated(version);
    let initialized = leg.send(build::initialized(), SendContext::default());
    match timeout_at(end, initialized).await {
        Ok(sent) => sent.map_err(|fault| explain(&fault))?,
        Err(_) => return Err("it does not take notifications/initialized".to_owned()),
    }
    let list = |cursor: Option<Value>| {
        let params = cursor.map(|cursor| format!(r#"{{"cursor":{cursor}}}"#));
        build::request("shadowcat-list", &Method::ToolsList, params.as_deref())
    };
    let body = body(response);
    let tools = match body["capabilities"]["tools"] {
        Value::Null => None,
        _ => count_tools(leg, list, end).await,
    };
    let transport = match (http, leg.has_response_heads()) {
        (false, _) => Transport::Stdio,
        (true, true) => Transport::StreamableHttp,
        (true, false) => Transport::HttpSse,
    };
    let versions = vec![result.version().to_owned()];
    Ok((EraFindings::new(versions, body, tools), transport))
}

/// How many tools there are; a modern list is counted to the end of its first page.
async fn count_tools(
    leg: &dyn Leg,
    list: impl Fn(Option<Value>) -> Message,
    end: Instant,
) -> Option<usize> {
    let (mut count, mut cursor) = (0, None);
    for _ in 0..PAGES {
        let answer = timeout_at(end, ask(leg, list(cursor))).await;
        let response = answer.ok()?.ok()?;
        let body = body(&response);
        count += body["tools"].as_array()?.len();
        cursor = Some(body["nextCursor"].clone()).filter(Value::is_string);
        if cursor.is_none() {
            break;
        }
    }
    Some(count)
}

fn body(response: &Message) -> Value {
    let body = response.body().unwrap_or_default();
    serde_json::from_str(body).unwrap_or_default()
}

/// What is wrong, and what to do next.
fn explain(fault: &Fault) -> String {
    let next = match fault.kind {
        FaultKind::Unauthorized => {
            "; give it credentials: --header 'Authorization: Bearer ${TOKEN}'"
        }
        FaultKind::Connect => "; is it running, and are host and port right?",
        FaultKind::Tls => "; is its certificate one that this machine trusts?",
        FaultKind::ContentType | FaultKind::BadResponse => {
            "; something answers here that does not speak MCP"
        }
        FaultKind::ChildExited | FaultKind::ChildNotStarted => {
            "; start the command by hand to see what it needs"
        }
        _ => "",
    };
    format!("{fault}{next}")
}

#[cfg(test)]
mod tests;
