//! rmcp's client and rmcp's server with the running binary between them: in both modes, over both
//! transports on both sides, in both eras.
//!
//! rmcp is the official Rust SDK, so a peer that this project did not write. Its server is a program
//! of its own, `examples/rmcp_peer.rs`.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stderr,
    reason = "a test's failure is a panic, and it says what it can"
)]
#![allow(clippy::large_futures, reason = "rmcp's futures, once per test")]

mod support;

use std::path::PathBuf;
use std::process::Stdio;
use std::sync::{Arc, Mutex};

use rmcp::model::{
    CallToolRequest, CallToolRequestParams, ClientCapabilities, ClientConfig, ClientRequest,
    ElicitRequestParams, ElicitResult, ElicitationAction, ErrorData, Implementation, JsonObject,
    ProgressNotificationParam, ProtocolVersion, SubscriptionFilter,
};
use rmcp::service::{
    ClientServiceExt, NotificationContext, PeerRequestOptions, RequestContext, RunningService,
};
use rmcp::transport::{StreamableHttpClientTransport, TokioChildProcess};
use rmcp::{ClientHandler, ClientLifecycleMode, RoleClient};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};
use tokio::sync::Notify;

use support::process::Proxy;
use support::{soon, until};

const SHADOWCAT: &str = env!("CARGO_BIN_EXE_shadowcat");

/// A step and of how many.
type Step = (f64, Option<f64>);

/// What the client was told outside of results.
#[derive(Clone, Default)]
struct Heard {
    progress: Arc<Mutex<Vec<Step>>>,
    questions: Arc<Mutex<Vec<String>>>,
    tools_changed: Arc<Notify>,
}

impl ClientHandler for Heard {
    fn get_info(&self) -> ClientConfig {
        let capabilities = ClientCapabilities::builder().enable_elicitation().build();
        ClientConfig::new(capabilities, Implementation::new("rmcp-test", "1.0.0"))
    }

    async fn create_elicitation(
        &self,
        request: ElicitRequestParams,
        _: RequestContext<RoleClient>,
    ) -> Result<ElicitResult, ErrorData> {
        if let ElicitRequestParams::FormElicitationParams { message, .. } = request {
            self.questions.lock().unwrap().push(message);
        }
        let answer = ElicitResult::new(ElicitationAction::Accept);
        Ok(answer.with_content(json!({"name": "Ada"})))
    }

    async fn on_progress(
        &self,
        params: ProgressNotificationParam,
        _: NotificationContext<RoleClient>,
    ) {
        self.progress
            .lock()
            .unwrap()
            .push((params.progress, params.total));
    }

    async fn on_tool_list_changed(&self, _: NotificationContext<RoleClient>) {
        self.tools_changed.notify_one();
    }
}

type Client = RunningService<RoleClient, Heard>;

/// Which side of Shadowcat the client is on, and how it talks to it.
#[derive(Clone, Copy)]
enum Mode {
    Http(&'static str),
    Stdio,
}

const REVERSE: Mode = Mode::Http("reverse");
const FORWARD_HTTP: Mode = Mode::Http("forward");

/// The peers on both sides, for as long as a test runs.
struct Setup {
    client: Client,
    modern: bool,
    _proxy: Option<Proxy>,
    _server: Option<Child>,
}

/// The program of `examples/rmcp_peer.rs`, which cargo builds for the tests of this package.
fn peer() -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let place = test.parent().unwrap().with_file_name("examples");
    let program = place.join(format!("rmcp_peer{}", std::env::consts::EXE_SUFFIX));
    assert!(program.is_file(), "run: cargo build --example rmcp_peer");
    program
}

/// Starts the server, if Shadowcat is not to; says how Shadowcat reaches it.
async fn server(over_stdio: bool) -> (Option<Child>, Vec<String>) {
    let program = peer();
    if over_stdio {
        let words = ["--", program.to_str().unwrap(), "stdio"];
        return (None, words.map(str::to_owned).into());
    }
    let mut server = Command::new(program);
    server
        .arg("http")
        .stdin(Stdio::null())
        .stdout(Stdio::piped());
    let mut server = server.kill_on_drop(true).spawn().unwrap();
    let mut lines = BufReader::new(server.stdout.take().unwrap()).lines();
    let url = soon("the server's URL", lines.next_line()).await.unwrap();
    (Some(server), vec![url.unwrap()])
}

impl Setup {
    async fn start(mode: Mode, over_stdio: bool, modern: bool) -> Self {
        let (server, address) = server(over_stdio).await;
        let address: Vec<&str> = address.iter().map(String::as_str).collect();
        let lifecycle = if modern {
            ClientLifecycleMode::Discover {
                preferred_versions: vec![ProtocolVersion::V_2026_07_28],
            }
        } else {
            ClientLifecycleMode::Initialize
        };
        let heard = Heard::default();
        let (client, proxy) = match mode {
            Mode::Http(mode) => {
                let proxy = Proxy::start(mode, &[], &address).await;
                let url = format!("http://{}/mcp", proxy.address);
                // The peer's HTTP client wants to know who does its cryptography, though it does none.
                let _ = rustls::crypto::ring::default_provider().install_default();
                let transport = StreamableHttpClientTransport::from_uri(url);
                let connecting = heard.serve_with_lifecycle(transport, lifecycle);
                (soon("the handshake", connecting).await, Some(proxy))
            }
            Mode::Stdio => {
                let mut command = Command::new(SHADOWCAT);
                command.arg("forward").args(&address);
                let transport = TokioChildProcess::new(command).unwrap();
                let connecting = heard.serve_with_lifecycle(transport, lifecycle);
                (soon("the handshake", connecting).await, None)
            }
        };
        Self {
            client: client.unwrap(),
            modern,
            _proxy: proxy,
            _server: server,
        }
    }

    fn heard(&self) -> &Heard {
        self.client.service()
    }

    async fn call(&self, tool: &'static str, arguments: Value) -> String {
        let call = self.client.call_tool(request(tool, arguments));
        let result = soon(tool, call).await.unwrap();
        assert_ne!(result.is_error, Some(true), "{tool}: {result:?}");
        text(&result.content)
    }

    async fn lists_and_calls(&self) {
        let tools = soon("tools/list", self.client.list_all_tools())
            .await
            .unwrap();
        let names: Vec<_> = tools.iter().map(|tool| tool.name.as_ref()).collect();
        let wanted = [
            "echo",
            "count",
            "ask",
            "sleep",
            "was_cancelled",
            "change_tools_later",
        ];
        assert_eq!(names, wanted);
        let echoed = self.call("echo", json!({"message": "hello"})).await;
        assert_eq!(echoed, "Echo: hello");
    }

    async fn gets_progress(&self) {
        self.heard().progress.lock().unwrap().clear();
        assert_eq!(self.call("count", json!({})).await, "counted to 20");
        let steps: Vec<_> = (1..=20).map(|step| (f64::from(step), Some(20.0))).collect();
        // rmcp handles notifications beside the response, so the last ones may come after it.
        until("all progress", || {
            self.heard().progress.lock().unwrap().len() >= 20
        })
        .await;
        let mut heard = self.heard().progress.lock().unwrap().clone();
        heard.sort_by(|a, b| a.0.total_cmp(&b.0));
        assert_eq!(heard, steps);
    }

    async fn answers_an_elicitation(&self) {
        assert_eq!(self.call("ask", json!({})).await, "accept: Ada");
        assert_eq!(*self.heard().questions.lock().unwrap(), ["Who is there?"]);
    }

    async fn cancels(&self) {
        self.heard().progress.lock().unwrap().clear();
        let call = CallToolRequest::new(request("sleep", json!({"name": "a"})));
        let call = ClientRequest::CallToolRequest(call);
        let options = PeerRequestOptions::no_options();
        let sending = self.client.send_cancellable_request(call, options);
        let handle = soon("the call", sending).await.unwrap();
        until("progress", || {
            !self.heard().progress.lock().unwrap().is_empty()
        })
        .await;
        soon("the cancel", handle.cancel(Some("enough".into())))
            .await
            .unwrap();
        // The next call may overtake the cancel.
        let seen = async {
            while self.call("was_cancelled", json!({"name": "a"})).await != "yes" {
                tokio::time::sleep(std::time::Duration::from_millis(20)).await;
            }
        };
        soon("the server to see the cancel", seen).await;
    }

    async fn hears_of_changes(&self) {
        if !self.modern {
            assert_eq!(self.call("change_tools_later", json!({})).await, "soon");
            return soon("list_changed", self.heard().tools_changed.notified()).await;
        }
        let filter = SubscriptionFilter::builder().tools_list_changed().build();
        let mut subscription = soon("listen", self.client.listen(filter)).await.unwrap();
        assert_eq!(self.call("change_tools_later", json!({})).await, "soon");
        let change = soon("list_changed", subscription.next()).await.unwrap();
        assert!(change.is_some());
        soon("the end of listening", subscription.cancel())
            .await
            .unwrap();
    }
}

fn request(tool: &'static str, arguments: Value) -> CallToolRequestParams {
    let arguments: JsonObject = serde_json::from_value(arguments).unwrap();
    CallToolRequestParams::new(tool).with_arguments(arguments)
}

fn text(content: &[rmcp::model::ContentBlock]) -> String {
    let blocks = content.iter().filter_map(|block| block.as_text());
    blocks.map(|block| block.text.as_str()).collect()
}

async fn everything(mode: Mode, over_stdio: bool, modern: bool) {
    let setup = Setup::start(mode, over_stdio, modern).await;
    setup.lists_and_calls().await;
    setup.gets_progress().await;
    setup.answers_an_elicitation().await;
    setup.cancels().await;
    setup.hears_of_changes().await;
    let Setup { client, .. } = setup;
    soon("leaving", client.cancel()).await.unwrap();
}

macro_rules! pairs {
    ($($name:ident: $mode:expr, $over_stdio:literal, $modern:literal;)*) => {
        $(
            #[tokio::test]
            async fn $name() {
                everything($mode, $over_stdio, $modern).await;
            }
        )*
    };
}

pairs! {
    legacy_through_reverse_to_http: REVERSE, false, false;
    legacy_through_reverse_to_stdio: REVERSE, true, false;
    legacy_through_forward_http_to_http: FORWARD_HTTP, false, false;
    legacy_through_forward_http_to_stdio: FORWARD_HTTP, true, false;
    legacy_through_forward_stdio_to_http: Mode::Stdio, false, false;
    legacy_through_forward_stdio_to_stdio: Mode::Stdio, true, false;
    modern_through_reverse_to_http: REVERSE, false, true;
    modern_through_reverse_to_stdio: REVERSE, true, true;
    modern_through_forward_http_to_http: FORWARD_HTTP, false, true;
    modern_through_forward_http_to_stdio: FORWARD_HTTP, true, true;
    modern_through_forward_stdio_to_http: Mode::Stdio, false, true;
    modern_through_forward_stdio_to_stdio: Mode::Stdio, true, true;
}
