//! Scripted MCP clients: one over HTTP that comes back with `Last-Event-ID`, one over a pair of
//! pipes. What they get goes into the ledger.

mod events;
mod http;
mod modern;
mod stdio;

use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;

use crate::ledger::{CallKey, ErrorSeen, Ledger, Outcome};
use crate::plan::{CallPlan, Plan};

pub(crate) use http::{Edge, HttpClient};
pub(crate) use stdio::StdioClient;

/// How long a client waits for the outcome of one call, in the simulation's time. Nothing may take
/// so long.
const PATIENCE: Duration = Duration::from_secs(1800);

/// What a client does with a message.
enum Received {
    /// A request of the server's: this is the answer.
    Ask(String),
    /// The outcome of this call.
    Outcome(CallKey),
    Other,
}

/// Enters a message of the server's into the ledger. `on`: the call whose stream brought it, over
/// HTTP.
fn receive(ledger: &Ledger, client: usize, on: Option<CallKey>, message: &Value) -> Received {
    let now = ledger.now();
    if message["method"].is_string() {
        return receive_message(ledger, client, on, message);
    }
    let Some(key) = message["id"].as_str().and_then(CallKey::parse) else {
        ledger.violation(format!(
            "client {client} got a response to nothing: {message}"
        ));
        return Received::Other;
    };
    if on.is_some_and(|on| on != key) || key.client != client {
        ledger.violation(format!(
            "client {client} got the response to {key} on another stream"
        ));
    }
    let outcome = outcome(message);
    ledger.note(format_args!("client {client} {key} outcome {outcome:?}"));
    ledger.call(key, |call| call.outcomes.push((now, outcome)));
    Received::Outcome(key)
}

fn receive_message(
    ledger: &Ledger,
    client: usize,
    on: Option<CallKey>,
    message: &Value,
) -> Received {
    let now = ledger.now();
    let params = &message["params"];
    let meta = &params["_meta"];
    if let Some(key) = meta["call"].as_str().and_then(CallKey::parse) {
        let number = |field: &str| meta[field].as_u64().unwrap_or_default() as u32;
        let mark = (number("exec"), number("n"));
        ledger.note(format_args!("client {client} {key} message {mark:?}"));
        if on.is_some_and(|on| on != key) || key.client != client {
            ledger.violation(format!(
                "client {client} got a message of {key} on another stream"
            ));
        }
        if meta["echo"] == true {
            ledger.call(key, |call| call.echoes_got += 1);
            return Received::Other;
        }
        ledger.call(key, |call| call.got.push((now, mark)));
        if let Some(id) = message["id"].as_str() {
            return Received::Ask(format!(
                r#"{{"jsonrpc":"2.0","id":"{id}","result":{{"action":"accept","content":{{}}}}}}"#
            ));
        }
        return Received::Other;
    }
    if let (true, Some(key)) = (meta["same"] == true, on) {
        ledger.note(format_args!("client {client} {key} the same"));
        ledger.call(key, |call| call.same_got += 1);
        return Received::Other;
    }
    let news = if meta["notice"].is_u64() {
        meta
    } else {
        &params["data"]
    };
    if let Some(number) = news["notice"].as_u64() {
        let session = news["session"].as_str().unwrap_or_default();
        ledger.note(format_args!("client {client} notice {number} of {session}"));
        ledger.with(|facts| {
            let facts = facts.sessions.entry(session.to_owned()).or_default();
            facts.got.push((now, number as u32));
        });
        return Received::Other;
    }
    ledger.note(format_args!("client {client} got {}", message["method"]));
    Received::Other
}

fn outcome(message: &Value) -> Outcome {
    let error = &message["error"];
    if error.is_null() {
        let exec = message["result"]["_meta"]["exec"]
            .as_u64()
            .unwrap_or_default();
        return Outcome::Result(exec as u32);
    }
    let data = &error["data"]["shadowcat"];
    let text = |field: &str| data[field].as_str().map(str::to_owned);
    Outcome::Error(ErrorSeen {
        code: error["code"].as_i64().unwrap_or_default(),
        text: error["message"].as_str().unwrap_or_default().to_owned(),
        kind: text("kind"),
        executed: text("executed"),
        retry_safe: data["retry_safe"].as_bool(),
    })
}

fn initialize(plan: &Plan, client: usize, attempt: u32) -> String {
    format!(
        r#"{{"jsonrpc":"2.0","id":"init-{attempt}","method":"initialize","params":{{"protocolVersion":"{}","capabilities":{{"elicitation":{{}}}},"clientInfo":{{"name":"client-{client}","version":"1"}}}}}}"#,
        plan.server.version
    )
}

const INITIALIZED: &str = r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#;

fn request(plan: &Plan, key: CallKey, call: &CallPlan) -> String {
    let claim = modern::claim(plan);
    let arguments = match call.method {
        "tools/call" => r#""name":"work","arguments":{},"#,
        "resources/read" => r#""uri":"sim://x","#,
        "prompts/get" => r#""name":"x","#,
        _ => "",
    };
    format!(
        r#"{{"jsonrpc":"2.0","id":"{key}","method":"{}","params":{{{arguments}"_meta":{{{claim}"call":"{key}","progressToken":"{key}"}}}}}}"#,
        call.method
    )
}

fn cancelled(key: CallKey) -> String {
    format!(
        r#"{{"jsonrpc":"2.0","method":"notifications/cancelled","params":{{"requestId":"{key}","reason":"no longer"}}}}"#
    )
}

fn left(ledger: &Arc<Ledger>, client: usize) {
    let now = ledger.now();
    ledger.note(format_args!("client {client} leaves"));
    ledger.with(|facts| {
        facts.left.entry(client).or_insert(now);
    });
}
