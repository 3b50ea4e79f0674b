//! What a server is asked about each era, on whichever leg.

use std::time::Duration;

use serde_json::Value;
use shadowcat_mcp::build;
use shadowcat_mcp::fault::{Fault, FaultKind};
use shadowcat_mcp::handshake::{DiscoverResult, InitializeResult};
use shadowcat_mcp::inspect;
use shadowcat_mcp::message::Message;
use shadowcat_mcp::method::Method;
use shadowcat_mcp::version::ProtocolVersion;
use shadowcat_transport::upstream::{Leg, SendContext, ask};
use tokio::time::{Instant, timeout_at};

use super::findings::{EraFindings, Transport};

/// Pages of a list that are counted.
const PAGES: usize = 20;
/// A server of one era may say nothing at all to the other's question: how long it may think, once
/// it has had as long to start as it took before. A command that is downloaded first takes long.
pub(super) const SILENCE: Duration = Duration::from_secs(3);

/// What the server says as a legacy one, or why it cannot be used as one.
pub(super) type Legacy = Result<(EraFindings, Transport), String>;

/// How long one era's questions may take.
#[derive(Clone, Copy)]
pub(super) struct Patience {
    /// The answer to the first one must be here by then.
    pub(super) answer: Instant,
    /// And everything else by then, as far as there is time.
    pub(super) end: Instant,
}

/// What the server says as a modern one; `None` if it is none, or says nothing.
pub(super) async fn modern(leg: &dyn Leg, patience: Patience) -> Option<EraFindings> {
    let asking = ask(leg, build::discover(), patience.answer);
    let answer = timeout_at(patience.answer, asking).await;
    let response = answer.ok()?.ok()?;
    discovered(leg, &response, patience.end).await
}

/// Goes on from the answer to `server/discover`; `None` if a legacy server gave it.
pub(super) async fn discovered(
    leg: &dyn Leg,
    response: &Message,
    end: Instant,
) -> Option<EraFindings> {
    let result = DiscoverResult::read(response)?;
    let list = |_| build::modern_request("shadowcat-list", &Method::ToolsList);
    let tools = count_tools(leg, list, end).await;
    Some(EraFindings::new(result.versions, body(response), tools))
}

/// What the server says as a legacy one; `None` if it says nothing.
pub(super) async fn legacy(leg: &dyn Leg, http: bool, patience: Patience) -> Option<Legacy> {
    let answer = timeout_at(patience.answer, initialize(leg, patience.answer)).await;
    match answer.ok()? {
        Ok(response) => Some(shake_hands(leg, &response, http, patience.end).await),
        Err(fault) => Some(Err(explain(&fault))),
    }
}

/// The answer to `initialize`.
pub(super) async fn initialize(leg: &dyn Leg, deadline: Instant) -> Result<Message, Fault> {
    let request = build::initialize(ProtocolVersion::V2025_11_25);
    ask(leg, request, deadline).await
}

/// Goes on from the answer to `initialize`.
pub(super) async fn shake_hands(
    leg: &dyn Leg,
    response: &Message,
    http: bool,
    end: Instant,
) -> Legacy {
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
        let answer = timeout_at(end, ask(leg, list(cursor), end)).await;
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

/// What is wrong, and what to do next, as far as the fault does not say so itself.
pub(super) fn explain(fault: &Fault) -> String {
    if fault.relayed.is_some() {
        // It holds what the server says, which knows best.
        return fault.to_string();
    }
    let next = match fault.kind {
        FaultKind::ContentType | FaultKind::BadResponse => {
            "; something answers here that does not speak MCP"
        }
        FaultKind::RateLimited => "; try again later",
        FaultKind::ChildNotStarted => "; start the command by hand to see what it needs",
        _ => "",
    };
    format!("{fault}{next}")
}
