//! 2026-07-28: every request stands alone, and what belongs to none comes on the stream of a
//! `subscriptions/listen`, tagged with that request's id.

use std::io;
use std::sync::Arc;

use serde_json::Value;

use super::answer::call_of;
use super::refuse::json_body;
use super::visit::{Place, Ticket};
use super::{Kept, Server, Session};
use crate::http1::{Conn, Head};

/// In an event: the id of the request on whose stream it leaves.
pub(super) const TAG: &str = "@subscription@";

/// A subscription's request, and the event that acknowledges it.
pub(super) struct Subscribed {
    /// As JSON.
    pub(super) id: String,
    pub(super) greeting: String,
}

/// A notification for a subscriber.
pub(super) fn news(listener: &str, number: u32) -> String {
    format!(
        r#"{{"jsonrpc":"2.0","method":"notifications/resources/updated","params":{{"uri":"sim://x","_meta":{{"io.modelcontextprotocol/subscriptionId":{TAG},"session":"{listener}","notice":{number}}},"pad":"é"}}}}"#
    )
}

impl Server {
    pub(super) async fn modern_post(
        self: &Arc<Self>,
        conn: &mut Conn,
        head: &Head,
        message: &Value,
    ) -> io::Result<Kept> {
        let method = message["method"].as_str().unwrap_or_default();
        self.check_headers(head, message, method);
        let meta = &message["params"]["_meta"];
        match method {
            "server/discover" => {
                let body = format!(
                    r#"{{"jsonrpc":"2.0","id":{},"result":{{"resultType":"complete","supportedVersions":["2026-07-28"],"capabilities":{{"tools":{{}}}},"ttlMs":0,"cacheScope":"private"}}}}"#,
                    message["id"]
                );
                json_body(conn, 200, &body).await
            }
            // Which of a tool's arguments go into headers, the proxy has to know itself.
            "tools/list" if meta["call"].is_null() => {
                let body = format!(
                    r#"{{"jsonrpc":"2.0","id":{},"result":{{"resultType":"complete","tools":[{{"name":"work","inputSchema":{{"type":"object"}}}}],"ttlMs":0,"cacheScope":"private"}}}}"#,
                    message["id"]
                );
                json_body(conn, 200, &body).await
            }
            "subscriptions/listen" => {
                let listener = meta["listener"].as_str().unwrap_or_default();
                self.listen(conn, listener, &message["id"]).await
            }
            _ => {
                let Some(key) = call_of(message) else {
                    self.ledger
                        .violation(format!("a modern server got {message}"));
                    return json_body(conn, 400, "{}").await;
                };
                let ticket = Ticket::open(&self.ledger, Place::Post(key), "", None);
                let session = Arc::new(Session::new(format!("{key}"), None));
                let done = self
                    .execute(conn, &session, &ticket, key, &message["id"])
                    .await;
                // Whoever closes the stream has cancelled, and a broken one is lost.
                session.gone.cancel();
                done
            }
        }
    }

    /// What the headers say is what the body says.
    fn check_headers(&self, head: &Head, message: &Value, method: &str) {
        let version = &message["params"]["_meta"]["io.modelcontextprotocol/protocolVersion"];
        let right = head.get("mcp-method") == Some(method)
            && head.get("mcp-protocol-version") == Some("2026-07-28")
            && version == "2026-07-28"
            && head.get("mcp-session-id").is_none()
            && head.get("last-event-id").is_none();
        if !right {
            self.ledger.violation(format!(
                "the headers of a {method} do not fit its body {message}: {head:?}"
            ));
        }
    }

    async fn listen(
        self: &Arc<Self>,
        conn: &mut Conn,
        listener: &str,
        id: &Value,
    ) -> io::Result<Kept> {
        let known = self.state.lock().listeners.get(listener).cloned();
        let session = match known {
            Some(session) => {
                self.ledger.hit("subscription issued again");
                session
            }
            None => {
                let client = listener.split('-').next().and_then(|n| n.parse().ok());
                let Some(client) = client.filter(|n| *n < self.plan.clients.len()) else {
                    self.ledger
                        .violation(format!("a subscription of nobody: {listener:?}"));
                    return json_body(conn, 400, "{}").await;
                };
                let session = Arc::new(Session::new(format!("sub-{listener}"), None));
                let mut state = self.state.lock();
                state
                    .listeners
                    .insert(listener.to_owned(), Arc::clone(&session));
                drop(state);
                self.give_session(&session, client);
                session
            }
        };
        let end = self.plan.server.line_end;
        let id = id.to_string();
        let greeting = format!(
            r#"data: {{"jsonrpc":"2.0","method":"notifications/subscriptions/acknowledged","params":{{"notifications":{{"toolsListChanged":true,"resourceSubscriptions":["sim://x"]}},"_meta":{{"io.modelcontextprotocol/subscriptionId":{id}}}}}}}{end}{end}"#
        );
        let subscribed = Subscribed { id, greeting };
        self.standing(conn, &session, None, Some(subscribed)).await
    }
}
