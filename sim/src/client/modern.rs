//! What clients of 2026-07-28 say, and what they make of their subscription.

use serde_json::Value;

use crate::ledger::Ledger;
use crate::plan::{CallPlan, Plan, Transport};

/// The tag of a subscription's messages.
const TAG: &str = "io.modelcontextprotocol/subscriptionId";

pub(super) fn is_modern(plan: &Plan) -> bool {
    plan.server.transport == Transport::Modern
}

/// What each request says about itself.
pub(super) fn claim(plan: &Plan) -> &'static str {
    if is_modern(plan) {
        r#""io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientCapabilities":{},"#
    } else {
        ""
    }
}

/// The headers that repeat what the body says.
pub(super) fn routing(call: &CallPlan) -> Vec<(&'static str, &'static str)> {
    let name = match call.method {
        "tools/call" => Some("work"),
        "resources/read" => Some("sim://x"),
        "prompts/get" => Some("x"),
        _ => None,
    };
    let name = name.map(|name| ("mcp-name", name));
    [("mcp-method", call.method)]
        .into_iter()
        .chain(name)
        .collect()
}

/// One request for a subscription.
pub(super) struct Subscription {
    /// `LISTENER-CLIENT-NUMBER`.
    pub(super) id: String,
    pub(super) request: String,
    /// What the server calls it.
    session: String,
    acknowledged: bool,
}

impl Subscription {
    pub(super) fn new(plan: &Plan, client: usize, number: u32) -> Self {
        let (id, claim) = (format!("listen-{client}-{number}"), claim(plan));
        Self {
            request: format!(
                r#"{{"jsonrpc":"2.0","id":"{id}","method":"subscriptions/listen","params":{{"notifications":{{"toolsListChanged":true,"resourceSubscriptions":["sim://x"]}},"_meta":{{{claim}"listener":"{client}-{number}"}}}}}}"#
            ),
            id,
            session: format!("sub-{client}-{number}"),
            acknowledged: false,
        }
    }

    /// Looks at a notification or the response. True at the end.
    pub(super) fn see(&mut self, ledger: &Ledger, client: usize, message: &Value) -> bool {
        let method = message["method"].as_str().unwrap_or_default();
        if method.is_empty() {
            ledger.note(format_args!("client {} is over: {message}", self.id));
            let now = ledger.now();
            ledger.with(|facts| {
                if self.acknowledged && !facts.left.contains_key(&client) {
                    let facts = facts.sessions.entry(self.session.clone()).or_default();
                    facts.ended = Some(now);
                }
            });
            return true;
        }
        let tag = &message["params"]["_meta"][TAG];
        if *tag != self.id.as_str() {
            ledger.violation(format!("{} got what is tagged {tag}", self.id));
        }
        let acknowledges = method == "notifications/subscriptions/acknowledged";
        if acknowledges == self.acknowledged {
            ledger.violation(format!("{} got {method} out of order", self.id));
        }
        self.acknowledged = true;
        false
    }
}
