//! The scripted MCP server behind every target: a legacy (2025-11-25) Streamable HTTP server with sessions, just strict enough that a
//! proxy which loses a header, an id or a session is found out.
//!
//! One thread: what is measured is what stands before it.

use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream;
use http::header::{ACCEPT, ALLOW, CONTENT_TYPE};
use http::{HeaderMap, Method, Request, Response, StatusCode};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Empty, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use parking_lot::Mutex;
use serde_json::value::RawValue;
use tokio::time::{Instant, Interval, interval_at};

use crate::error::Error;
use crate::serve;
use crate::wire::{self, CallParams, ClientMessage, Tool};

/// How often the standalone stream of a session carries a notification.
const STANDALONE_PERIOD: Duration = Duration::from_secs(1);

type Answer = Response<UnsyncBoxBody<Bytes, Infallible>>;

#[derive(Debug)]
struct Session {
    /// Counts from 1 in the order of the handshakes.
    number: u64,
    streaming: AtomicBool,
}

#[derive(Debug, Default)]
struct State {
    sessions: Mutex<HashMap<String, Arc<Session>>>,
    opened: AtomicU64,
}

/// Serves until the process ends; says where on standard error.
pub(crate) async fn run() -> Result<(), Error> {
    let state = Arc::new(State::default());
    serve::run(move |request| {
        let state = Arc::clone(&state);
        async move { Ok::<_, Infallible>(handle(&state, request).await) }
    })
    .await
}

async fn handle(state: &State, request: Request<Incoming>) -> Answer {
    let answer = match *request.method() {
        Method::POST => post(state, request).await,
        Method::GET => get(state, request.headers()),
        Method::DELETE => delete(state, request.headers()),
        _ => Err(Refusal::Method),
    };
    answer.unwrap_or_else(Refusal::into_answer)
}

/// Why a request is refused.
#[derive(Debug, Clone, Copy)]
enum Refusal {
    Method,
    Accept,
    Version,
    NoSession,
    UnknownSession,
    SecondStream,
    Malformed,
    UnknownMethod,
}

impl Refusal {
    fn into_answer(self) -> Answer {
        let (status, code, message) = match self {
            Self::Method => (
                StatusCode::METHOD_NOT_ALLOWED,
                -32000,
                "GET, POST or DELETE",
            ),
            Self::Accept => (
                StatusCode::NOT_ACCEPTABLE,
                -32000,
                "both types must be acceptable",
            ),
            Self::Version => (
                StatusCode::BAD_REQUEST,
                -32000,
                "not the negotiated version",
            ),
            Self::NoSession => (StatusCode::BAD_REQUEST, -32000, "no session id"),
            Self::UnknownSession => (StatusCode::NOT_FOUND, -32001, "no such session"),
            Self::SecondStream => (StatusCode::CONFLICT, -32000, "one stream per session"),
            Self::Malformed => (StatusCode::BAD_REQUEST, -32700, "not understood"),
            Self::UnknownMethod => (StatusCode::OK, -32601, "no such method"),
        };
        let mut answer = json(status, wire::error("null", code, message));
        if matches!(self, Self::Method) {
            answer
                .headers_mut()
                .insert(ALLOW, http::HeaderValue::from_static("GET, POST, DELETE"));
        }
        answer
    }
}

async fn post(state: &State, request: Request<Incoming>) -> Result<Answer, Refusal> {
    let (head, body) = request.into_parts();
    let accept = text(&head.headers, ACCEPT.as_str()).unwrap_or_default();
    if !(accept.contains(wire::JSON) && accept.contains(wire::EVENT_STREAM)) {
        return Err(Refusal::Accept);
    }
    let body = body
        .collect()
        .await
        .map_err(|_| Refusal::Malformed)?
        .to_bytes();
    let message: ClientMessage<'_> =
        serde_json::from_slice(&body).map_err(|_| Refusal::Malformed)?;
    if message.method == "initialize" {
        return open(state, message.id.ok_or(Refusal::Malformed)?);
    }
    let session = session(state, &head.headers)?;
    let Some(id) = message.id else {
        return Ok(empty(StatusCode::ACCEPTED));
    };
    if message.method != "tools/call" {
        return Err(Refusal::UnknownMethod);
    }
    let params = message.params.map_or("null", RawValue::get);
    call(
        &session,
        id,
        serde_json::from_str(params).map_err(|_| Refusal::Malformed)?,
    )
    .await
}

fn open(state: &State, id: &RawValue) -> Result<Answer, Refusal> {
    let mut key = [0_u8; 16];
    getrandom::fill(&mut key).map_err(|_| Refusal::Malformed)?;
    let key = format!("{:032x}", u128::from_ne_bytes(key));
    let value = key.parse().map_err(|_| Refusal::Malformed)?;
    let number = state.opened.fetch_add(1, Ordering::Relaxed) + 1;
    let session = Session {
        number,
        streaming: AtomicBool::new(false),
    };
    state.sessions.lock().insert(key, Arc::new(session));
    let mut answer = json(StatusCode::OK, wire::initialize_result(id));
    answer.headers_mut().insert(wire::SESSION_HEADER, value);
    Ok(answer)
}

async fn call(session: &Session, id: &RawValue, call: CallParams<'_>) -> Result<Answer, Refusal> {
    let nonce = &call.arguments.nonce;
    Ok(match call.name {
        Tool::Json => json(StatusCode::OK, wire::tool_result(id, nonce)),
        Tool::Sleep10 => {
            tokio::time::sleep(Duration::from_millis(10)).await;
            json(StatusCode::OK, wire::tool_result(id, nonce))
        }
        Tool::Session => json(
            StatusCode::OK,
            wire::tool_result(id, &session.number.to_string()),
        ),
        Tool::Stream => events(vec![wire::event(&wire::tool_result(id, nonce))]),
        Tool::Burst => {
            let token = call
                .meta
                .and_then(|meta| meta.progress_token)
                .ok_or(Refusal::Malformed)?;
            let progress = (1..=wire::BURST_EVENTS).map(|n| wire::event(&wire::progress(token, n)));
            let response = wire::event(&wire::tool_result(id, nonce));
            events(progress.chain([response]).collect())
        }
    })
}

/// The standalone stream of one session; one at a time.
struct Standalone {
    session: Arc<Session>,
    tick: Interval,
    seq: u64,
}

impl Drop for Standalone {
    fn drop(&mut self) {
        self.session.streaming.store(false, Ordering::Relaxed);
    }
}

fn get(state: &State, headers: &HeaderMap) -> Result<Answer, Refusal> {
    if !text(headers, ACCEPT.as_str()).is_some_and(|accept| accept.contains(wire::EVENT_STREAM)) {
        return Err(Refusal::Accept);
    }
    let session = session(state, headers)?;
    if session.streaming.swap(true, Ordering::Relaxed) {
        return Err(Refusal::SecondStream);
    }
    let tick = interval_at(Instant::now() + STANDALONE_PERIOD, STANDALONE_PERIOD);
    let standalone = Standalone {
        session,
        tick,
        seq: 0,
    };
    let frames = stream::unfold(standalone, |mut standalone| async {
        standalone.tick.tick().await;
        standalone.seq += 1;
        let message = wire::standalone(standalone.session.number, standalone.seq);
        Some((
            Ok(Frame::data(Bytes::from(wire::event(&message)))),
            standalone,
        ))
    });
    Ok(event_stream(StreamBody::new(frames).boxed_unsync()))
}

fn delete(state: &State, headers: &HeaderMap) -> Result<Answer, Refusal> {
    session(state, headers)?;
    text(headers, wire::SESSION_HEADER).and_then(|key| state.sessions.lock().remove(key));
    Ok(empty(StatusCode::OK))
}

fn session(state: &State, headers: &HeaderMap) -> Result<Arc<Session>, Refusal> {
    let key = text(headers, wire::SESSION_HEADER).ok_or(Refusal::NoSession)?;
    let session = state
        .sessions
        .lock()
        .get(key)
        .cloned()
        .ok_or(Refusal::UnknownSession)?;
    if text(headers, wire::VERSION_HEADER) != Some(wire::PROTOCOL_VERSION) {
        return Err(Refusal::Version);
    }
    Ok(session)
}

fn text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}

fn json(status: StatusCode, body: String) -> Answer {
    let mut answer = Response::new(Full::new(Bytes::from(body)).boxed_unsync());
    *answer.status_mut() = status;
    answer
        .headers_mut()
        .insert(CONTENT_TYPE, http::HeaderValue::from_static(wire::JSON));
    answer
}

fn empty(status: StatusCode) -> Answer {
    let mut answer = Response::new(Empty::new().boxed_unsync());
    *answer.status_mut() = status;
    answer
}

/// An answer of `events`, each in an own chunk, as a server writes them that sends each when it has it.
fn events(events: Vec<String>) -> Answer {
    let frames = events
        .into_iter()
        .map(|event| Ok(Frame::data(Bytes::from(event))));
    event_stream(StreamBody::new(stream::iter(frames)).boxed_unsync())
}

fn event_stream(body: UnsyncBoxBody<Bytes, Infallible>) -> Answer {
    let mut answer = Response::new(body);
    let headers = answer.headers_mut();
    headers.insert(
        CONTENT_TYPE,
        http::HeaderValue::from_static(wire::EVENT_STREAM),
    );
    headers.insert(
        http::header::CACHE_CONTROL,
        http::HeaderValue::from_static("no-cache"),
    );
    answer
}
