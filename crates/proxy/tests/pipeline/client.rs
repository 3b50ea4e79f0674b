//! An HTTP client, at the level of the edge's trait: no sockets.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use http::{HeaderMap, HeaderValue, StatusCode};
use shadowcat_mcp::fault::Rejection;
use shadowcat_proxy::config::Config;
use shadowcat_proxy::entropy::SeededEntropy;
use shadowcat_proxy::http::HttpGateway;
use shadowcat_proxy::session::Shared;
use shadowcat_store::memory::MemoryLog;
use shadowcat_store::{EventLog, Limits};
use shadowcat_transport::downstream::{EventBytes, HttpReply, HttpService};
use shadowcat_transport::metrics::Metrics;
use tokio::task::JoinHandle;

use crate::fake::{FakeServer, FakeUpstream, Habits};
use crate::json::payload;

/// A pipeline before a fake server.
pub struct Proxy {
    pub server: Arc<FakeServer>,
    pub gateway: Arc<HttpGateway>,
    pub metrics: Arc<Metrics>,
    pub log: Arc<MemoryLog>,
}

impl Proxy {
    pub fn new(habits: Habits, config: Config) -> Self {
        Self::with_limits(habits, config, Limits::default())
    }

    pub fn with_limits(habits: Habits, config: Config, limits: Limits) -> Self {
        let (shared, server, log) = shared(habits, config, limits);
        Self {
            server,
            metrics: Arc::clone(&shared.metrics),
            gateway: HttpGateway::new(shared),
            log,
        }
    }

    pub fn client(&self) -> Client {
        Client {
            gateway: Arc::clone(&self.gateway),
            headers: HeaderMap::new(),
        }
    }

    /// A client that has been through its handshake.
    pub async fn initialized(&self) -> Client {
        self.initialized_at("2025-11-25").await
    }

    /// A client that has been through its handshake with an HTTP server, or a process.
    pub async fn over(pipe: bool) -> (Self, Client) {
        let habits = Habits {
            pipe,
            ..Habits::default()
        };
        let proxy = Self::new(habits, Config::default());
        let client = proxy.initialized().await;
        if pipe {
            proxy.server.standalone().await.refuse();
        }
        (proxy, client)
    }

    pub async fn initialized_at(&self, version: &str) -> Client {
        let mut client = self.client();
        client.initialize(version).await;
        let accepted = client
            .post(r#"{"method":"notifications/initialized"}"#)
            .await;
        assert!(matches!(accepted, Answer::Accepted), "{accepted:?}");
        client
    }
}

pub fn shared(
    habits: Habits,
    config: Config,
    limits: Limits,
) -> (Arc<Shared>, Arc<FakeServer>, Arc<MemoryLog>) {
    let server = FakeServer::new(habits);
    let log = Arc::new(MemoryLog::new(limits));
    let shared = Shared::new(
        config,
        Arc::new(FakeUpstream(Arc::clone(&server))),
        Arc::clone(&log) as Arc<dyn EventLog>,
        Arc::new(Metrics::default()),
        Arc::new(SeededEntropy::new(1)),
    );
    (shared, server, log)
}

/// The end as the assembly brings it about.
pub async fn shut_down(gateway: &HttpGateway) {
    gateway.drain(Duration::from_secs(10)).await;
    gateway.end().await;
}

#[derive(Clone)]
pub struct Client {
    pub gateway: Arc<HttpGateway>,
    pub headers: HeaderMap,
}

/// What a client got.
pub enum Answer {
    Accepted,
    Ended,
    Body {
        status: StatusCode,
        headers: HeaderMap,
        text: String,
    },
    Stream(Events),
    Rejected(Rejection),
}

impl std::fmt::Debug for Answer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Accepted => f.write_str("202"),
            Self::Ended => f.write_str("ended"),
            Self::Body { status, text, .. } => write!(f, "{status} {text}"),
            Self::Stream(_) => f.write_str("stream"),
            Self::Rejected(rejection) => write!(f, "{} {rejection}", rejection.status()),
        }
    }
}

impl From<HttpReply> for Answer {
    fn from(reply: HttpReply) -> Self {
        match reply {
            HttpReply::Accepted => Self::Accepted,
            HttpReply::Ended => Self::Ended,
            HttpReply::Body {
                status,
                headers,
                body,
            } => Self::Body {
                status,
                headers: headers.into(),
                text: String::from_utf8(body.to_vec()).expect("UTF-8"),
            },
            HttpReply::Events { events, .. } => Self::Stream(Events::new(events)),
            HttpReply::Rejected(rejection) => Self::Rejected(rejection),
        }
    }
}

impl Answer {
    pub fn body(self) -> String {
        match self {
            Self::Body { text, .. } => text,
            other => panic!("expected a body, got {other:?}"),
        }
    }

    /// The response, in whichever way it came.
    pub async fn response(self) -> String {
        match self {
            Self::Stream(events) => events.rest().await.pop().expect("a response"),
            other => other.body(),
        }
    }

    pub fn stream(self) -> Events {
        match self {
            Self::Stream(events) => events,
            other => panic!("expected a stream, got {other:?}"),
        }
    }

    pub fn status(&self) -> u16 {
        match self {
            Self::Accepted => 202,
            Self::Ended | Self::Stream(_) => 200,
            Self::Body { status, .. } => status.as_u16(),
            Self::Rejected(rejection) => rejection.status().as_u16(),
        }
    }
}

impl Client {
    pub async fn initialize(&mut self, version: &str) -> String {
        let initialize = format!(
            r#"{{"id":0,"method":"initialize","params":{{"protocolVersion":"{version}","capabilities":{{}},"clientInfo":{{"name":"test","version":"1"}}}}}}"#
        );
        match self.post(&initialize).await {
            Answer::Body { headers, text, .. } => {
                if let Some(id) = headers.get("mcp-session-id") {
                    self.headers.insert("mcp-session-id", id.clone());
                }
                text
            }
            other => panic!("initialize got {other:?}"),
        }
    }

    pub async fn post(&self, json: &str) -> Answer {
        let post = Arc::clone(&self.gateway).post(self.headers.clone(), payload(json));
        in_time(post).await.into()
    }

    /// A POST that is under way.
    pub fn posting(&self, json: &str) -> JoinHandle<Answer> {
        let (client, json) = (self.clone(), json.to_owned());
        tokio::spawn(async move { in_time(client.post(&json)).await })
    }

    pub async fn get(&self, last_event_id: Option<&str>) -> Answer {
        let mut headers = self.headers.clone();
        if let Some(id) = last_event_id {
            headers.insert("last-event-id", HeaderValue::from_str(id).expect("an id"));
        }
        Arc::clone(&self.gateway).get(headers).await.into()
    }

    pub fn getting(&self, last_event_id: Option<&str>) -> JoinHandle<Answer> {
        let (client, id) = (self.clone(), last_event_id.map(str::to_owned));
        tokio::spawn(async move { in_time(client.get(id.as_deref())).await })
    }

    pub async fn delete(&self) -> Answer {
        Arc::clone(&self.gateway)
            .delete(self.headers.clone())
            .await
            .into()
    }
}

/// Nothing of the pipeline may take this long: on paused time a hang would never end by itself.
async fn in_time<T>(answer: impl Future<Output = T>) -> T {
    let hour = Duration::from_secs(3600);
    tokio::time::timeout(hour, answer).await.expect("no answer")
}

/// One event as a client reads it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    pub id: Option<String>,
    pub data: String,
    pub retry: Option<String>,
}

/// An event stream as a client reads it.
pub struct Events {
    stream: EventBytes,
    text: String,
    pub comments: usize,
}

impl Events {
    fn new(stream: EventBytes) -> Self {
        Self {
            stream,
            text: String::new(),
            comments: 0,
        }
    }

    /// The next event, an empty one too; `None` at the end. Within ten minutes of test time.
    pub async fn next(&mut self) -> Option<Event> {
        loop {
            if let Some(end) = self.text.find("\n\n") {
                let block: String = self.text.drain(..end + 2).collect();
                if block.starts_with(':') {
                    self.comments += 1;
                    continue;
                }
                return Some(event(&block));
            }
            let more = tokio::time::timeout(Duration::from_secs(600), self.stream.next());
            let bytes = more.await.expect("an event")?;
            self.text
                .push_str(std::str::from_utf8(&bytes).expect("UTF-8"));
        }
    }

    /// The data of the next message: events without data are skipped.
    pub async fn message(&mut self) -> Option<String> {
        loop {
            let event = self.next().await?;
            if !event.data.is_empty() {
                return Some(event.data);
            }
        }
    }

    /// All messages until the end.
    pub async fn rest(mut self) -> Vec<String> {
        let mut all = Vec::new();
        while let Some(message) = self.message().await {
            all.push(message);
        }
        all
    }

    /// The ids and data of all messages until the end.
    pub async fn rest_with_ids(mut self) -> Vec<(String, String)> {
        let mut all = Vec::new();
        while let Some(event) = self.next().await {
            if !event.data.is_empty() {
                all.push((event.id.unwrap_or_default(), event.data));
            }
        }
        all
    }
}

fn event(block: &str) -> Event {
    let field = |name: &str| {
        let prefix = format!("{name}:");
        let mut lines = block.lines().filter_map(|line| line.strip_prefix(&prefix));
        lines.next().map(|value| value.trim_start().to_owned())
    };
    Event {
        id: field("id"),
        data: field("data").unwrap_or_default(),
        retry: field("retry"),
    }
}
