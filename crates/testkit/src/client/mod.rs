//! A small MCP client over Streamable HTTP (2025-11-25) that believes nothing.
//!
//! It posts, reads JSON or an event stream, comes back with `Last-Event-ID` when a stream breaks
//! before its response, answers what it is asked, follows the standalone stream, and keeps every
//! message it got in the order it got it. What is missing or double is for its user to see.

mod events;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, CONTENT_TYPE};
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper_util::client::legacy::Client as Pool;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::sync::Notify;
use tokio::task::JoinHandle;

use events::Events;

const VERSION: &str = "2025-11-25";
/// Returns to a stream that bring nothing new, in a row.
const RETURNS: u32 = 10;
const PAUSE: Duration = Duration::from_millis(100);

/// Why there is no answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Lost {
    /// A status other than success.
    Refused(u16, String),
    /// The connection or the stream broke and there was no way back.
    Broken(String),
}

impl std::fmt::Display for Lost {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Refused(status, body) => write!(f, "status {status}: {body}"),
            Self::Broken(what) => f.write_str(what),
        }
    }
}

/// What a request brought.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// Every message of its stream before the response, in order.
    pub messages: Vec<Value>,
    /// The response.
    pub answer: Result<Value, Lost>,
    /// Whether it came as an event stream.
    pub streamed: bool,
}

/// One session. Dropping it leaves the session open at the server; [`Client::close`] ends it.
#[derive(Debug, Clone)]
pub struct Client {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    pool: Pool<HttpConnector, Full<Bytes>>,
    url: String,
    session: Option<String>,
    ids: AtomicU64,
    standalone: Mutex<Vec<Value>>,
    standalone_changed: Notify,
}

impl Client {
    /// Shakes hands: `initialize`, then `notifications/initialized`.
    ///
    /// # Errors
    /// When the server does not do its part.
    pub async fn connect(url: &str) -> Result<Self, Lost> {
        let mut inner = Inner {
            pool: Pool::builder(TokioExecutor::new()).build_http(),
            url: url.to_owned(),
            session: None,
            ids: AtomicU64::new(0),
            standalone: Mutex::default(),
            standalone_changed: Notify::new(),
        };
        let params = json!({
            "protocolVersion": VERSION,
            "capabilities": {"elicitation": {}, "sampling": {}},
            "clientInfo": {"name": "shadowcat-testkit", "version": env!("CARGO_PKG_VERSION")},
        });
        let message = json!({"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": params});
        let response = inner.post(&message).await?;
        let session = response.headers().get("mcp-session-id");
        let session = session.and_then(|it| it.to_str().ok()).map(str::to_owned);
        let outcome = inner.outcome(response, &json!(0)).await;
        let answer = outcome.answer?;
        if answer["result"]["protocolVersion"] != VERSION {
            return Err(Lost::Broken(format!("initialize was answered {answer}")));
        }
        inner.session = session;
        let client = Self {
            inner: Arc::new(inner),
        };
        client
            .send(&json!({"jsonrpc": "2.0", "method": "notifications/initialized"}))
            .await?;
        Ok(client)
    }

    /// Sends a request and reads to its response, across broken connections.
    pub async fn request(&self, method: &str, params: Value) -> Outcome {
        let id = json!(self.inner.ids.fetch_add(1, Ordering::Relaxed) + 1);
        let message = json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params});
        match self.inner.post(&message).await {
            Ok(response) => self.inner.outcome(response, &id).await,
            Err(lost) => Outcome {
                messages: Vec::new(),
                answer: Err(lost),
                streamed: false,
            },
        }
    }

    /// Calls a tool, with a progress token.
    pub async fn call(&self, tool: &str, arguments: &Value, token: &str) -> Outcome {
        let meta = json!({"progressToken": token});
        let params = json!({"name": tool, "arguments": arguments, "_meta": meta});
        self.request("tools/call", params).await
    }

    /// Sends a notification or a response.
    ///
    /// # Errors
    /// When it is not accepted.
    pub async fn send(&self, message: &Value) -> Result<(), Lost> {
        self.inner.post(message).await.map(drop)
    }

    /// Follows the standalone stream until the task is aborted or the stream refused.
    #[must_use]
    pub fn listen(&self) -> JoinHandle<Lost> {
        let inner = Arc::clone(&self.inner);
        tokio::spawn(async move {
            let mut cursor = None;
            loop {
                let response = match inner.get(cursor.as_deref()).await {
                    Ok(response) => response,
                    Err(refused @ Lost::Refused(..)) => return refused,
                    Err(Lost::Broken(_)) => {
                        tokio::time::sleep(PAUSE).await;
                        continue;
                    }
                };
                let keep = |message: Value| {
                    inner.standalone.lock().push(message);
                    inner.standalone_changed.notify_waiters();
                };
                let retry = inner.follow(response, &mut cursor, keep, |_| false).await;
                tokio::time::sleep(retry).await;
            }
        })
    }

    /// What the standalone stream brought so far.
    #[must_use]
    pub fn standalone(&self) -> Vec<Value> {
        self.inner.standalone.lock().clone()
    }

    /// Waits until what the standalone stream brought satisfies this.
    pub async fn standalone_until(&self, enough: impl Fn(&[Value]) -> bool) {
        loop {
            let mut changed = std::pin::pin!(self.inner.standalone_changed.notified());
            changed.as_mut().enable();
            if enough(&self.inner.standalone.lock()) {
                return;
            }
            changed.await;
        }
    }

    /// Ends the session.
    ///
    /// # Errors
    /// When the server does not let it.
    pub async fn close(&self) -> Result<(), Lost> {
        self.inner
            .send(Method::DELETE, None, Bytes::new())
            .await
            .map(drop)
    }
}

impl Inner {
    async fn post(&self, message: &Value) -> Result<Response<Incoming>, Lost> {
        let body = Bytes::from(message.to_string());
        self.send(Method::POST, None, body).await
    }

    async fn get(&self, cursor: Option<&str>) -> Result<Response<Incoming>, Lost> {
        self.send(Method::GET, cursor, Bytes::new()).await
    }

    async fn send(
        &self,
        method: Method,
        cursor: Option<&str>,
        body: Bytes,
    ) -> Result<Response<Incoming>, Lost> {
        let accept = match method {
            Method::GET => "text/event-stream",
            _ => "application/json, text/event-stream",
        };
        let mut request = Request::builder()
            .method(method)
            .uri(&self.url)
            .header(ACCEPT, accept)
            .header(CONTENT_TYPE, "application/json");
        if let Some(session) = &self.session {
            request = request.header("mcp-session-id", session);
            request = request.header("mcp-protocol-version", VERSION);
        }
        if let Some(cursor) = cursor {
            request = request.header("last-event-id", cursor);
        }
        let broken = |error: &dyn std::fmt::Display| Lost::Broken(error.to_string());
        let request = request
            .body(Full::new(body))
            .map_err(|error| broken(&error))?;
        let response = self.pool.request(request).await;
        let response = response.map_err(|error| broken(&error))?;
        if response.status().is_success() {
            return Ok(response);
        }
        Err(refused(response).await)
    }

    /// Reads to the response with this id.
    async fn outcome(&self, response: Response<Incoming>, id: &Value) -> Outcome {
        let media = response.headers().get(CONTENT_TYPE);
        let streamed = media.is_some_and(|it| it.as_bytes().starts_with(b"text/event-stream"));
        let mut messages = Vec::new();
        let answer = if streamed {
            self.streamed(response, id, &mut messages).await
        } else {
            let body = response.into_body().collect().await;
            let body = body.map_err(|error| Lost::Broken(format!("the answer broke: {error}")));
            body.and_then(|body| {
                let answer = serde_json::from_slice::<Value>(&body.to_bytes());
                answer.map_err(|error| Lost::Broken(format!("the answer is no JSON: {error}")))
            })
        };
        let answer = answer.and_then(|answer| {
            if answer["id"] == *id {
                Ok(answer)
            } else {
                Err(Lost::Broken(format!("the answer is another's: {answer}")))
            }
        });
        Outcome {
            messages,
            answer,
            streamed,
        }
    }

    async fn streamed(
        &self,
        mut response: Response<Incoming>,
        id: &Value,
        messages: &mut Vec<Value>,
    ) -> Result<Value, Lost> {
        let mut cursor = None;
        let mut idle = 0;
        loop {
            let before = (messages.len(), cursor.clone());
            let is_answer = |message: &Value| message["id"] == *id && message["method"].is_null();
            let keep = |message| messages.push(message);
            let retry = self.follow(response, &mut cursor, keep, is_answer).await;
            if messages.last().is_some_and(is_answer) {
                return Ok(messages.pop().unwrap_or_default());
            }
            idle = if before == (messages.len(), cursor.clone()) {
                idle + 1
            } else {
                0
            };
            if cursor.is_none() || idle > RETURNS {
                return Err(Lost::Broken("the stream ended without a response".into()));
            }
            loop {
                tokio::time::sleep(retry).await;
                match self.get(cursor.as_deref()).await {
                    Ok(again) => {
                        response = again;
                        break;
                    }
                    Err(Lost::Broken(_)) if idle < RETURNS => idle += 1,
                    Err(lost) => return Err(lost),
                }
            }
        }
    }

    /// Reads a stream to its end, its break or the message that `last` wants; answers what it is
    /// asked. How long to wait before coming back.
    async fn follow(
        &self,
        response: Response<Incoming>,
        cursor: &mut Option<String>,
        mut keep: impl FnMut(Value),
        last: impl Fn(&Value) -> bool,
    ) -> Duration {
        let mut body = response.into_body();
        let mut events = Events::default();
        while let Some(Ok(frame)) = body.frame().await {
            let Ok(bytes) = frame.into_data() else {
                continue;
            };
            events.push(&bytes);
            while let Some(event) = events.next() {
                if let Some(id) = event.id {
                    *cursor = Some(id).filter(|id| !id.is_empty());
                }
                let Ok(message) = serde_json::from_str::<Value>(&event.data) else {
                    continue;
                };
                let done = last(&message);
                if let Some(answer) = answer(&message) {
                    // The server waits for it: what goes wrong here shows in the call.
                    let _ = self.post(&answer).await;
                }
                keep(message);
                if done {
                    return Duration::ZERO;
                }
            }
        }
        events.retry.map_or(PAUSE, Duration::from_millis)
    }
}

/// The answer to a request of the server.
fn answer(message: &Value) -> Option<Value> {
    let (id, method) = (message.get("id")?, message.get("method")?.as_str()?);
    let asked = &message["params"]["message"];
    let result = match method {
        "ping" => json!({}),
        "elicitation/create" => json!({"action": "accept", "content": {"answer": asked}}),
        "sampling/createMessage" => json!({
            "role": "assistant", "model": "none", "content": {"type": "text", "text": "said"},
        }),
        _ => {
            let error = json!({"code": -32601, "message": "not here"});
            return Some(json!({"jsonrpc": "2.0", "id": id, "error": error}));
        }
    };
    Some(json!({"jsonrpc": "2.0", "id": id, "result": result}))
}

async fn refused(response: Response<Incoming>) -> Lost {
    let status: StatusCode = response.status();
    let body = response.into_body().collect().await;
    let body = body
        .map(http_body_util::Collected::to_bytes)
        .unwrap_or_default();
    Lost::Refused(status.as_u16(), String::from_utf8_lossy(&body).into_owned())
}
