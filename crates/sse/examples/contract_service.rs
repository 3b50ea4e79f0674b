//! The test service that LaunchDarkly's `sse-contract-tests` drives, with this crate's client in it.
//!
//! The protocol is documented in that repository (`docs/service_spec.md`). To run the tests:
//!
//! ```text
//! cargo run -p shadowcat-sse --features client --example contract_service -- 8111
//! sse-contract-tests --url http://localhost:8111
//! ```
//!
//! The capability "comments" is not claimed: the client does not show comments. Version 2.31.0 of
//! the tests skips its one test of them and passes all others.
#![allow(clippy::print_stderr, reason = "a service says where it is")]

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::extract::{Path, State};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, post};
use futures_util::StreamExt as _;
use http::header::{CONTENT_TYPE, LOCATION};
use http::{Method, StatusCode};
use serde_json::{Value, json};
use shadowcat_sse::Event;
use shadowcat_sse::client::{ReconnectingStream, Transition};
use shadowcat_sse::reconnect::{Cause, Policy, StateName};
use tokio::net::TcpListener;
use tokio::sync::{Notify, mpsc};

const CAPABILITIES: [&str; 8] = [
    "bom",
    "headers",
    "last-event-id",
    "post",
    "read-timeout",
    "report",
    "restart",
    "server-directed-shutdown-request",
];

/// The streams, by number: how to tell each what to do. One whose sender is gone ends.
#[derive(Default)]
struct Streams {
    open: Mutex<HashMap<u64, mpsc::UnboundedSender<()>>>,
    made: AtomicU64,
    stop: Notify,
}

type Shared = Arc<Streams>;

impl Streams {
    fn open(&self) -> std::sync::MutexGuard<'_, HashMap<u64, mpsc::UnboundedSender<()>>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let port = std::env::args().nth(1).unwrap_or_else(|| "8111".into());
    let listener = TcpListener::bind(format!("127.0.0.1:{port}")).await?;
    eprintln!("listening on http://{}/", listener.local_addr()?);
    let streams = Shared::default();
    let router = Router::new()
        .route("/", get(status).post(create).delete(stop))
        .route("/streams/{number}", post(command).delete(close))
        .with_state(Arc::clone(&streams));
    let serving = axum::serve(listener, router);
    tokio::select! {
        served = async { serving.await } => served?,
        () = streams.stop.notified() => {}
    }
    Ok(())
}

async fn status() -> Response {
    let body = json!({"name": "shadowcat-sse", "capabilities": CAPABILITIES});
    ([(CONTENT_TYPE, "application/json")], body.to_string()).into_response()
}

async fn stop(State(streams): State<Shared>) -> StatusCode {
    streams.stop.notify_one();
    StatusCode::NO_CONTENT
}

async fn create(State(streams): State<Shared>, body: String) -> Response {
    let made = serde_json::from_str(&body)
        .map_err(|error: serde_json::Error| error.to_string())
        .and_then(|wanted: Value| {
            let callback = text(&wanted, "callbackUrl").ok_or("no callbackUrl")?;
            Ok((open(&wanted)?, callback.to_owned()))
        });
    let (stream, callback) = match made {
        Ok(made) => made,
        Err(why) => return (StatusCode::BAD_REQUEST, why).into_response(),
    };
    let number = streams.made.fetch_add(1, Ordering::Relaxed) + 1;
    let (restart, restarts) = mpsc::unbounded_channel();
    streams.open().insert(number, restart);
    tokio::spawn(follow(stream, Callback::new(callback), restarts));
    (
        StatusCode::CREATED,
        [(LOCATION, format!("/streams/{number}"))],
    )
        .into_response()
}

async fn command(
    State(streams): State<Shared>,
    Path(number): Path<u64>,
    body: String,
) -> StatusCode {
    let command: Value = serde_json::from_str(&body).unwrap_or_default();
    match (streams.open().get(&number), text(&command, "command")) {
        (None, _) => StatusCode::NOT_FOUND,
        (Some(stream), Some("restart")) if stream.send(()).is_ok() => StatusCode::ACCEPTED,
        _ => StatusCode::BAD_REQUEST,
    }
}

async fn close(State(streams): State<Shared>, Path(number): Path<u64>) -> StatusCode {
    match streams.open().remove(&number) {
        Some(_) => StatusCode::NO_CONTENT,
        None => StatusCode::NOT_FOUND,
    }
}

fn text<'a>(value: &'a Value, name: &str) -> Option<&'a str> {
    value.get(name)?.as_str().filter(|text| !text.is_empty())
}

/// The stream that the harness wants.
fn open(wanted: &Value) -> Result<ReconnectingStream, String> {
    let millis = |name: &str| wanted[name].as_u64().map(Duration::from_millis);
    let defaults = Policy::default();
    let policy = Policy {
        initial: millis("initialDelayMs").unwrap_or(defaults.initial),
        idle_timeout: millis("readTimeoutMs").unwrap_or(defaults.idle_timeout),
        empty_data_primes: false,
        ..defaults
    };
    let url = text(wanted, "streamUrl").ok_or("no streamUrl")?;
    let mut builder = ReconnectingStream::builder(url)
        .map_err(|error| error.to_string())?
        .policy(policy);
    for (name, value) in wanted["headers"].as_object().into_iter().flatten() {
        builder = builder.header(name, value.as_str().unwrap_or_default());
    }
    if let Some(id) = text(wanted, "lastEventId") {
        builder = builder.last_event_id(id);
    }
    if let Some(method) = text(wanted, "method") {
        let method = Method::from_bytes(method.as_bytes()).map_err(|error| error.to_string())?;
        builder = builder.method(method).resend(true);
    }
    if let Some(body) = text(wanted, "body") {
        builder = builder.body(body).resend(true);
    }
    builder.build().map_err(|error| error.to_string())
}

/// Reports what the stream brings until the harness is done with it.
async fn follow(
    mut stream: ReconnectingStream,
    mut callback: Callback,
    mut restarts: mpsc::UnboundedReceiver<()>,
) {
    let mut transitions = stream.transitions();
    // What `EventSource` calls the last event ID: it stays until an event brings another.
    let mut id = stream.last_event_id().to_vec();
    loop {
        tokio::select! {
            event = stream.next() => match event {
                Some(Ok(event)) => callback.event(&event, &mut id).await,
                Some(Err(error)) => callback.error(&error.to_string()).await,
                None => return,
            },
            Some(transition) = transitions.next() => if is_timeout(&transition) {
                callback.error("nothing came for too long").await;
            },
            command = restarts.recv() => match command {
                Some(()) => stream.restart(),
                None => return,
            },
        }
    }
}

/// A read timeout. That a connection dropped is no error to report: the stream comes back.
fn is_timeout(transition: &Transition) -> bool {
    let step = &transition.step;
    step.from == StateName::Open && step.cause == Cause::Due
}

/// Where the harness hears of a stream, message by numbered message.
struct Callback {
    client: reqwest::Client,
    url: String,
    number: u64,
}

impl Callback {
    fn new(url: String) -> Self {
        Self {
            client: reqwest::Client::new(),
            url,
            number: 0,
        }
    }

    async fn event(&mut self, event: &Event, id: &mut Vec<u8>) {
        if let Some(new) = &event.id {
            *id = new.to_vec();
        }
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let kind = match &*event.event_type {
            b"" => "message".to_owned(),
            kind => text(kind),
        };
        let event = json!({"type": kind, "data": text(&event.data), "id": text(id)});
        self.send(&json!({"kind": "event", "event": event})).await;
    }

    async fn error(&mut self, error: &str) {
        self.send(&json!({"kind": "error", "error": error, "comment": error}))
            .await;
    }

    async fn send(&mut self, message: &Value) {
        self.number += 1;
        let url = format!("{}/{}", self.url, self.number);
        let request = self.client.post(url).body(message.to_string());
        // A harness that does not listen any more is done with the stream.
        let _ = request.send().await;
    }
}
