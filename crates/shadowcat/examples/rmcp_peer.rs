//! An MCP server on rmcp that `tests/rmcp.rs` puts behind Shadowcat: `rmcp_peer stdio`, or
//! `rmcp_peer http`, which prints its URL and serves until it is killed.
//!
//! A cancelled call leaves a trace that another call can read, and a change of the tools is
//! announced when no call is open, so that only the standalone stream (or, from 2026-07-28 on, a
//! subscription) can carry it.

#![expect(
    clippy::print_stdout,
    reason = "the URL is for whoever started this program"
)]

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use rmcp::model::{
    CallToolRequestParams, CallToolResponse, CallToolResult, ContentBlock, ElicitRequest,
    ElicitRequestParams, ErrorData, InputRequest, InputRequests, InputRequiredResult,
    ListToolsResult, PaginatedRequestParams, ProgressNotificationParam, ProtocolVersion,
    ServerCapabilities, ServerConfig, SubscriptionFilter, Tool,
};
use rmcp::service::{RequestContext, RoleServer, SubscriptionContext};
use rmcp::transport::streamable_http_server::session::local::LocalSessionManager;
use rmcp::transport::streamable_http_server::{StreamableHttpServerConfig, StreamableHttpService};
use rmcp::{ServerHandler, ServiceExt};
use serde_json::{Value, json};
use tokio::sync::{Mutex, broadcast};

const TOOLS: [&str; 6] = [
    "echo",
    "count",
    "ask",
    "sleep",
    "was_cancelled",
    "change_tools_later",
];

#[derive(Clone)]
struct Peer {
    cancelled: Arc<Mutex<HashSet<String>>>,
    changes: broadcast::Sender<()>,
}

impl ServerHandler for Peer {
    fn get_info(&self) -> ServerConfig {
        let tools = ServerCapabilities::builder().enable_tools();
        ServerConfig::new(tools.enable_tool_list_changed().build())
    }

    async fn list_tools(
        &self,
        _: Option<PaginatedRequestParams>,
        _: RequestContext<RoleServer>,
    ) -> Result<ListToolsResult, ErrorData> {
        let schema = Arc::new(serde_json::Map::from_iter([(
            "type".to_owned(),
            "object".into(),
        )]));
        let tools = TOOLS.map(|name| Tool::new(name, "for the tests", Arc::clone(&schema)));
        Ok(ListToolsResult::with_all_items(tools.into()))
    }

    async fn call_tool(
        &self,
        request: CallToolRequestParams,
        context: RequestContext<RoleServer>,
    ) -> Result<CallToolResponse, ErrorData> {
        let arguments = request.arguments.clone().unwrap_or_default();
        let text = |name: &str| arguments.get(name).and_then(Value::as_str).unwrap_or("");
        match request.name.as_ref() {
            "echo" => Ok(said(&format!("Echo: {}", text("message")))),
            "count" => self.count(&context, 20).await,
            "ask" => self.ask(&request, &context).await,
            "sleep" => self.sleep(text("name"), &context).await,
            "was_cancelled" => {
                let known = self.cancelled.lock().await.contains(text("name"));
                Ok(said(if known { "yes" } else { "no" }))
            }
            "change_tools_later" => Ok(self.change_tools_later(&context)),
            other => Err(ErrorData::invalid_params(other.to_owned(), None)),
        }
    }

    fn accepted_subscription_filter(
        &self,
        requested: &SubscriptionFilter,
    ) -> Option<SubscriptionFilter> {
        Some(requested.supported_by(&self.get_info().capabilities))
    }

    async fn listen(&self, context: SubscriptionContext) -> Result<(), ErrorData> {
        let mut changes = self.changes.subscribe();
        loop {
            tokio::select! {
                () = context.cancelled() => return Ok(()),
                Ok(()) = changes.recv() => {
                    // A client that is gone is told nothing.
                    let _ = context.sink().notify_tool_list_changed().await;
                }
            }
        }
    }
}

impl Peer {
    fn new() -> Self {
        Self {
            cancelled: Arc::default(),
            changes: broadcast::channel(16).0,
        }
    }

    async fn count(
        &self,
        context: &RequestContext<RoleServer>,
        steps: u32,
    ) -> Result<CallToolResponse, ErrorData> {
        for step in 1..=steps {
            tokio::time::sleep(Duration::from_millis(20)).await;
            progress(context, step, steps).await;
        }
        Ok(said(&format!("counted to {steps}")))
    }

    /// Asks in the way of the request's era.
    async fn ask(
        &self,
        request: &CallToolRequestParams,
        context: &RequestContext<RoleServer>,
    ) -> Result<CallToolResponse, ErrorData> {
        let question = ElicitRequestParams::FormElicitationParams {
            meta: None,
            message: "Who is there?".to_owned(),
            requested_schema: serde_json::from_value(json!({
                "type": "object", "properties": {"name": {"type": "string"}}, "required": ["name"]
            }))
            .map_err(|error| ErrorData::internal_error(error.to_string(), None))?,
        };
        if context.protocol_version() < Some(ProtocolVersion::V_2026_07_28) {
            let answer = context.peer.create_elicitation(question).await;
            let answer =
                answer.map_err(|error| ErrorData::internal_error(error.to_string(), None))?;
            return Ok(said(&name_in(answer.content.as_ref())));
        }
        let answered = request.input_responses.as_ref();
        let Some(answer) = answered.and_then(|answers| answers.get("who")) else {
            let question = InputRequest::Elicitation(ElicitRequest::new(question));
            let questions = InputRequests::from_iter([("who".to_owned(), question)]);
            return Ok(InputRequiredResult::new(Some(questions), Some("asked".into())).into());
        };
        if request.request_state.as_deref() != Some("asked") {
            return Err(ErrorData::invalid_params("requestState is lost", None));
        }
        Ok(said(&name_in(answer.get("content"))))
    }

    async fn sleep(
        &self,
        name: &str,
        context: &RequestContext<RoleServer>,
    ) -> Result<CallToolResponse, ErrorData> {
        progress(context, 1, 2).await;
        tokio::select! {
            () = context.ct.cancelled() => {
                self.cancelled.lock().await.insert(name.to_owned());
                Err(ErrorData::internal_error("cancelled", None))
            }
            () = tokio::time::sleep(Duration::from_secs(60)) => Ok(said("slept")),
        }
    }

    fn change_tools_later(&self, context: &RequestContext<RoleServer>) -> CallToolResponse {
        let (peer, changes) = (context.peer.clone(), self.changes.clone());
        let legacy = context.protocol_version() < Some(ProtocolVersion::V_2026_07_28);
        tokio::spawn(async move {
            tokio::time::sleep(Duration::from_millis(300)).await;
            if legacy {
                let _ = peer.notify_tool_list_changed().await;
            } else {
                let _ = changes.send(());
            }
        });
        said("soon")
    }
}

fn said(text: &str) -> CallToolResponse {
    CallToolResult::success(vec![ContentBlock::text(text)]).into()
}

fn name_in(content: Option<&Value>) -> String {
    let name = content.and_then(|content| content["name"].as_str());
    format!("accept: {}", name.unwrap_or("nobody"))
}

async fn progress(context: &RequestContext<RoleServer>, step: u32, of: u32) {
    if let Some(token) = context.meta.get_progress_token() {
        let step = ProgressNotificationParam::new(token, f64::from(step));
        let _ = context
            .peer
            .notify_progress(step.with_total(of.into()))
            .await;
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    if std::env::args().nth(1).as_deref() == Some("stdio") {
        let service = Peer::new().serve(rmcp::transport::stdio()).await?;
        service.waiting().await?;
        return Ok(());
    }
    let peer = Peer::new();
    let service: StreamableHttpService<Peer, LocalSessionManager> = StreamableHttpService::new(
        move || Ok(peer.clone()),
        Arc::default(),
        StreamableHttpServerConfig::default(),
    );
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    println!("http://{}/mcp", listener.local_addr()?);
    axum::serve(listener, axum::Router::new().nest_service("/mcp", service)).await?;
    Ok(())
}
