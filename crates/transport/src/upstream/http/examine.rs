//! What a Streamable HTTP server shows only on the wire: session ids, event ids, resumption.
//!
//! A session's leg hides these, as it should. `shadowcat check` wants to see them, so here one
//! session is played by hand: `initialize`, a list, the standalone stream, a return with
//! `Last-Event-ID`, DELETE. Nothing here retries.
//!
//! MCP specification: "Transports, Streamable HTTP", "Resumability and Redelivery" (2025-11-25).

use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, CONTENT_LENGTH, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue, Method, Request, StatusCode};
use http_body_util::BodyExt as _;

use shadowcat_mcp::handshake::InitializeResult;
use shadowcat_mcp::message::Message;
use shadowcat_mcp::method::Method as McpMethod;
use shadowcat_mcp::version::ProtocolVersion;
use shadowcat_mcp::{build, headers};
use shadowcat_sse::{Decoder, Item, Limits};
use tokio::time::timeout;

use super::body::{collect, discard};
use super::client::{Connected, Delivery, Incoming, Received, RequestBody};
use super::{HttpUpstream, Shared};
use crate::upstream::Dispatched;

/// How long the standalone stream may take to bring a first event id.
const PRIMING: Duration = Duration::from_millis(500);
/// How long each step may take.
const STEP: Duration = Duration::from_secs(10);

/// What was seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Examination {
    /// Whether `initialize` brought a session id.
    pub session: bool,
    /// Whether a standalone stream was opened.
    pub standalone: bool,
    /// Whether broken streams can be resumed.
    pub resumption: Resumption,
}

/// Whether broken streams can be resumed, as far as it shows from outside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Resumption {
    /// Events carry ids, and a GET with `Last-Event-ID` was answered by a stream, or by 204 where
    /// nothing was left to replay.
    Offered,
    /// Events carry ids, but a GET with `Last-Event-ID` got this status.
    Refused(u16),
    /// There were events, none with an id.
    NoIds,
    /// No event came, so it cannot be told.
    NoEvents,
}

impl HttpUpstream {
    /// Plays one short legacy session with the server to see what it offers.
    ///
    /// # Errors
    /// In words, if the server does not get as far as the end of the handshake.
    pub async fn examine(&self) -> Result<Examination, String> {
        let mut probe = Probe {
            shared: &self.shared,
            headers: HeaderMap::clone(&self.shared.post_headers),
            seen: Seen::default(),
        };
        let session = probe.shake_hands().await?;
        // What a list brings does not matter; how it comes does.
        let _ = probe.post(&list()).await;
        let standalone = probe.open_standalone().await;
        let resumption = probe.resume().await;
        if session {
            let _ = probe.send(Method::DELETE, None, None).await;
        }
        Ok(Examination {
            session,
            standalone,
            resumption,
        })
    }
}

fn list() -> Message {
    build::request("shadowcat-list", &McpMethod::ToolsList, None)
}

/// Events so far.
#[derive(Debug, Default)]
struct Seen {
    events: bool,
    last_id: Option<Bytes>,
}

impl Seen {
    fn note(&mut self, item: &Item) {
        let id = match item {
            Item::Event(event) => {
                self.events = true;
                event.id.as_ref()
            }
            Item::IdOnly(id) => Some(id),
            Item::Retry(_) | Item::Comment => None,
        };
        if let Some(id) = id.filter(|id| !id.is_empty()) {
            self.last_id = Some(id.clone());
        }
    }
}

struct Probe<'a> {
    shared: &'a Shared,
    headers: HeaderMap,
    seen: Seen,
}

impl Probe<'_> {
    /// Whether there is a session now.
    async fn shake_hands(&mut self) -> Result<bool, String> {
        let initialize = build::initialize(ProtocolVersion::V2025_11_25);
        let response = self.send(Method::POST, Some(&initialize), None).await?;
        let status = response.status();
        if !status.is_success() {
            return Err(format!("initialize was answered with status {status}"));
        }
        let session = response.headers().get(headers::SESSION_ID).cloned();
        let answer = self.response(response).await?;
        let result = InitializeResult::read(&answer).map_err(|error| error.to_string())?;
        if let Ok(version) = HeaderValue::from_str(result.version()) {
            self.headers.insert(headers::PROTOCOL_VERSION, version);
        }
        let known = session.is_some();
        if let Some(mut session) = session {
            session.set_sensitive(true);
            self.headers.insert(headers::SESSION_ID, session);
        }
        let initialized = build::initialized();
        let accepted = self.send(Method::POST, Some(&initialized), None).await?;
        discard(accepted.into_body()).await;
        Ok(known)
    }

    async fn post(&mut self, message: &Message) -> Result<Message, String> {
        let response = self.send(Method::POST, Some(message), None).await?;
        self.response(response).await
    }

    async fn open_standalone(&mut self) -> bool {
        let Ok(response) = self.send(Method::GET, None, None).await else {
            return false;
        };
        if !is_stream(&response) {
            return false;
        }
        let mut body = response.into_body();
        let _ = timeout(
            PRIMING,
            self.read(&mut body, |seen, _| seen.last_id.is_some()),
        )
        .await;
        true
    }

    async fn resume(&mut self) -> Resumption {
        let Some(id) = self.seen.last_id.clone() else {
            return if self.seen.events {
                Resumption::NoIds
            } else {
                Resumption::NoEvents
            };
        };
        match self.send(Method::GET, None, Some(&id)).await {
            // 204: the stream was read to its end, and nothing is left of it.
            Ok(response) if is_stream(&response) || response.status() == StatusCode::NO_CONTENT => {
                Resumption::Offered
            }
            Ok(response) => Resumption::Refused(response.status().as_u16()),
            Err(_) => Resumption::Refused(0),
        }
    }

    /// The response in an answer of either kind.
    async fn response(&mut self, mut response: Received) -> Result<Message, String> {
        let limit = self.shared.config.max_message_size;
        let raw = if headers::is_event_stream(response.headers()) {
            let mut body = response.into_body();
            let is_response = |_: &Seen, data: &Bytes| {
                Message::parse(data.clone()).is_ok_and(|message| message.is_response())
            };
            let reading = timeout(STEP, self.read(&mut body, is_response)).await;
            reading.map_err(|_| "no response in time".to_owned())??
        } else {
            let budget = &self.shared.budget;
            let reading = collect(response.body_mut(), limit, budget, STEP);
            let body = timeout(STEP, reading).await;
            let body = body.map_err(|_| "no whole body in time".to_owned())?;
            body.map_err(|error| format!("{error:?}"))?
        };
        Message::parse(raw).map_err(|error| format!("the answer is no JSON-RPC: {error}"))
    }

    /// Reads to the event that `last` wants; its data.
    async fn read(
        &mut self,
        body: &mut Incoming,
        last: impl Fn(&Seen, &Bytes) -> bool,
    ) -> Result<Bytes, String> {
        let mut decoder = Decoder::new(Limits::default());
        loop {
            while let Some(item) = decoder.next_item().map_err(|error| error.to_string())? {
                self.seen.note(&item);
                let data = match item {
                    Item::Event(event) => event.data,
                    _ => Bytes::new(),
                };
                if last(&self.seen, &data) {
                    return Ok(data);
                }
            }
            match body.frame().await {
                Some(Ok(frame)) => decoder.push(frame.into_data().unwrap_or_default()),
                Some(Err(error)) => return Err(error.to_string()),
                None => return Err("the stream ended without a response".into()),
            }
        }
    }

    async fn send(
        &self,
        method: Method,
        message: Option<&Message>,
        cursor: Option<&Bytes>,
    ) -> Result<Received, String> {
        let body = message.map_or_else(RequestBody::empty, |message| {
            RequestBody::new(message.raw().clone(), Delivery::new(Dispatched::default()))
        });
        let mut request = Box::new(Request::new(body));
        let mut fields = self.headers.clone();
        fields.remove(CONTENT_LENGTH);
        if message.is_none() {
            fields.remove(CONTENT_TYPE);
            fields.insert(ACCEPT, HeaderValue::from_static("text/event-stream"));
        }
        if let Some(cursor) = cursor {
            let value = HeaderValue::from_bytes(cursor).map_err(|error| error.to_string())?;
            fields.insert(headers::LAST_EVENT_ID, value);
        }
        *request.headers_mut() = fields;
        *request.method_mut() = method;
        let (url, connected) = (&self.shared.config.url, Connected::default());
        let sending = self.shared.client.send(request, url, &connected);
        match timeout(STEP, sending).await {
            Ok(response) => response.map_err(|error| format!("{error:?}")),
            Err(_) => Err("no answer in time".into()),
        }
    }
}

fn is_stream(response: &Received) -> bool {
    response.status() == StatusCode::OK && headers::is_event_stream(response.headers())
}
