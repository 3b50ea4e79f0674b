//! What every test here needs.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Response, StatusCode, Uri};
use shadowcat_mcp::fault::{Executed, Fault, FaultKind};
use shadowcat_mcp::message::Message;
use shadowcat_mcp::version::{Era, ProtocolVersion};
use shadowcat_transport::upstream::http::{HttpUpstream, HttpUpstreamConfig};
use shadowcat_transport::upstream::{
    Incoming, Item, Leg, Reply, RequestContext, SendContext, Upstream,
};

use crate::server::{Answer, Pipes, Script, Seen, Server, Step};

pub(crate) fn config() -> HttpUpstreamConfig {
    HttpUpstreamConfig {
        url: Uri::from_static("http://server/mcp"),
        headers: HeaderMap::new(),
        max_message_size: 64 * 1024,
        reconnect: Arc::default(),
        forward_auth: false,
        http_clients: true,
        max_connections: 100,
    }
}

pub(crate) fn upstream_with(config: HttpUpstreamConfig, server: &Arc<Server>) -> HttpUpstream {
    let dial = Arc::new(Pipes(Arc::clone(server)));
    HttpUpstream::new(config, dial, Arc::new(|| u64::MAX / 2), Arc::default()).unwrap()
}

/// A legacy leg before its handshake.
pub(crate) fn fresh(server: &Arc<Server>) -> Arc<dyn Leg> {
    upstream_with(config(), server).leg(Era::Legacy)
}

/// A legacy leg with the session `s1`, made by a server whose request 0 is the `initialize`.
pub(crate) async fn in_session_with(
    config: HttpUpstreamConfig,
    server: &Arc<Server>,
) -> Arc<dyn Leg> {
    let leg = upstream_with(config, server).leg(Era::Legacy);
    let reply = leg.request(initialize(), RequestContext::default()).await;
    assert!(matches!(reply, Ok(Reply::Json { .. })), "{reply:?}");
    leg.negotiated(ProtocolVersion::V2025_11_25);
    leg
}

pub(crate) async fn in_session(server: &Arc<Server>) -> Arc<dyn Leg> {
    in_session_with(config(), server).await
}

pub(crate) fn message(text: impl Into<String>) -> Message {
    Message::parse(Bytes::from(text.into())).unwrap()
}

pub(crate) fn initialize() -> Message {
    message(
        r#"{"jsonrpc":"2.0","id":0,"method":"initialize","params":{"protocolVersion":"2025-11-25","capabilities":{},"clientInfo":{"name":"t","version":"0"}}}"#,
    )
}

/// A `tools/call` with this id.
pub(crate) fn call(id: u32) -> Message {
    message(format!(
        r#"{{"jsonrpc":"2.0","id":{id},"method":"tools/call","params":{{"name":"t"}}}}"#
    ))
}

/// A response to the id.
pub(crate) fn result(id: u32) -> String {
    format!(r#"{{"jsonrpc":"2.0","id":{id},"result":{{"n":{id}}}}}"#)
}

pub(crate) fn progress(n: u32) -> String {
    format!(
        r#"{{"jsonrpc":"2.0","method":"notifications/progress","params":{{"progressToken":1,"progress":{n}}}}}"#
    )
}

pub(crate) fn http(status: u16, content_type: &str, body: impl Into<String>) -> Response<Script> {
    let mut response = Response::new(Script::new([Step::Data(Bytes::from(body.into()))]));
    *response.status_mut() = StatusCode::from_u16(status).unwrap();
    if !content_type.is_empty() {
        response
            .headers_mut()
            .insert("content-type", content_type.parse().unwrap());
    }
    response
}

pub(crate) fn json(body: impl Into<String>) -> Answer {
    Answer::Http(http(200, "application/json", body))
}

pub(crate) fn status(status: u16) -> Answer {
    let mut response = Response::new(Script::new([]));
    *response.status_mut() = StatusCode::from_u16(status).unwrap();
    Answer::Http(response)
}

pub(crate) fn with_header(answer: Answer, name: &'static str, value: &str) -> Answer {
    match answer {
        Answer::Http(mut response) => {
            response.headers_mut().insert(name, value.parse().unwrap());
            Answer::Http(response)
        }
        other => other,
    }
}

/// The answer to [`initialize`], with the session id `s1`.
pub(crate) fn initialized() -> Answer {
    let body = r#"{"jsonrpc":"2.0","id":0,"result":{"protocolVersion":"2025-11-25","capabilities":{},"serverInfo":{"name":"s","version":"0"}}}"#;
    with_header(json(body), "mcp-session-id", "s1")
}

/// An event stream with these steps.
pub(crate) fn events(steps: impl IntoIterator<Item = Step>) -> Answer {
    let mut response = Response::new(Script::new(steps));
    response
        .headers_mut()
        .insert("content-type", "text/event-stream".parse().unwrap());
    Answer::Http(response)
}

/// Bytes of an event stream.
pub(crate) fn raw(text: impl Into<String>) -> Step {
    Step::Data(Bytes::from(text.into()))
}

/// What arrives arrives before what comes next.
pub(crate) fn pause() -> Step {
    Step::Sleep(Duration::from_millis(1))
}

/// An empty event with an id, as servers prime their streams (2025-11-25).
pub(crate) fn primer(id: &str) -> Step {
    raw(format!("id: {id}\ndata:\n\n"))
}

/// The cursor that a GET sent.
pub(crate) fn cursor(seen: &Seen) -> Option<&str> {
    assert_eq!(seen.method, "GET");
    seen.header("last-event-id")
}

/// An event without an id.
pub(crate) fn event(data: impl AsRef<str>) -> Step {
    Step::Data(Bytes::from(format!("data: {}\n\n", data.as_ref())))
}

/// An event with an id.
pub(crate) fn event_id(id: &str, data: impl AsRef<str>) -> Step {
    Step::Data(Bytes::from(format!(
        "id: {id}\ndata: {}\n\n",
        data.as_ref()
    )))
}

pub(crate) async fn request(leg: &Arc<dyn Leg>, message: Message) -> Result<Reply, Fault> {
    leg.request(message, RequestContext::default()).await
}

pub(crate) async fn send(leg: &Arc<dyn Leg>, message: Message) -> Result<(), Fault> {
    leg.send(message, SendContext::default()).await
}

/// The JSON answer's text.
pub(crate) fn json_text(reply: Result<Reply, Fault>) -> String {
    match reply {
        Ok(Reply::Json { message, .. }) => text(&message),
        other => panic!("expected a JSON answer, got {other:?}"),
    }
}

pub(crate) fn text(message: &Message) -> String {
    String::from_utf8(message.raw().to_vec()).unwrap()
}

pub(crate) fn stream(reply: Result<Reply, Fault>) -> Incoming {
    match reply {
        Ok(Reply::Stream { incoming, .. }) => incoming,
        other => panic!("expected an event stream, got {other:?}"),
    }
}

/// The next item's message.
pub(crate) async fn next(incoming: &mut Incoming) -> String {
    match incoming.next().await {
        Some(Ok(Item::Message(message))) => text(&message),
        other => panic!("expected a message, got {other:?}"),
    }
}

/// What a fault says, without its words.
pub(crate) fn fault<T: std::fmt::Debug>(result: Result<T, Fault>) -> (FaultKind, Executed) {
    let fault = result.unwrap_err();
    (fault.kind, fault.executed)
}

pub(crate) async fn request_owned(leg: Arc<dyn Leg>, message: Message) -> Result<Reply, Fault> {
    request(&leg, message).await
}

/// The rest of a stream: its messages, and how it ended.
pub(crate) async fn rest(incoming: &mut Incoming) -> (Vec<String>, Option<(FaultKind, Executed)>) {
    let mut messages = Vec::new();
    loop {
        match incoming.next().await {
            Some(Ok(Item::Message(message))) => messages.push(text(&message)),
            Some(Ok(Item::Gap(_))) => panic!("an answer has no gaps"),
            Some(Err(fault)) => return (messages, Some((fault.kind, fault.executed))),
            None => return (messages, None),
        }
    }
}
