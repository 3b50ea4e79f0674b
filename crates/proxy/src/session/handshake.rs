//! What a session learned in its handshake and must be able to say again.
//!
//! A lost upstream session is replaced by repeating what the client said (resilience, "session
//! continuity"): its `initialize`, `notifications/initialized`, its last `logging/setLevel` and
//! its resource subscriptions. This module keeps those messages and judges the answer to
//! `initialize` (version negotiation and downgrade prevention). What a client may add to without
//! end is bounded; what does not fit is not said again, which is counted and logged.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use http::HeaderMap;
use shadowcat_mcp::build;
use shadowcat_mcp::fault::{Executed, Fault, FaultKind, Rejection, Side};
use shadowcat_mcp::handshake::{InitializeResult, Offer};
use shadowcat_mcp::headers::detached;
use shadowcat_mcp::inspect;
use shadowcat_mcp::message::{Kind, Message, RequestId};
use shadowcat_mcp::method::Method;
use shadowcat_mcp::version::{Era, ProtocolVersion, VersionError};
use shadowcat_transport::metrics::Reason;
use shadowcat_transport::request_span::in_request;
use tracing::{debug, info, warn};

use super::Session;

/// Bytes of the subscriptions that a session remembers, and of the names of tools: some thousand.
const ROOM: usize = 256 * 1024;
/// What each of them costs besides its bytes.
const ENTRY: usize = 128;

/// See the [module](self).
#[derive(Default)]
pub(super) struct Handshake {
    initialize: Option<Message>,
    /// The client's headers that the server saw last, where they may hold credentials.
    headers: HeaderMap,
    pub(super) initialized: Option<Message>,
    pub(super) result: Option<InitializeResult>,
    /// Why the last one failed, before there was one that did not.
    failed: Option<String>,
    log_level: Option<Message>,
    pub(super) subscriptions: BTreeMap<String, Message>,
    repeatable_tools: HashSet<String>,
    /// Bytes that `subscriptions` and `repeatable_tools` hold.
    subscription_bytes: usize,
    tool_bytes: usize,
    /// Whether something did not fit, and was logged.
    overflowed: bool,
}

/// What is said to a new session of the server.
pub(super) struct Again {
    pub(super) initialize: Message,
    pub(super) headers: HeaderMap,
    pub(super) initialized: Message,
    /// The log level and the subscriptions.
    pub(super) settings: Vec<Message>,
}

impl Handshake {
    /// `None` before there was a handshake.
    pub(super) fn again(&self) -> Option<Again> {
        let settings = self.log_level.iter().chain(self.subscriptions.values());
        Some(Again {
            initialize: self.initialize.clone()?,
            headers: self.headers.clone(),
            initialized: self.initialized.clone().unwrap_or_else(build::initialized),
            settings: settings.cloned().collect(),
        })
    }

    /// Remembers a subscription; false if it does not fit.
    fn subscribed(&mut self, uri: String, request: &Message) -> bool {
        self.unsubscribed(&uri);
        let bytes = subscription_bytes(&uri, request);
        if self.subscription_bytes + bytes > ROOM {
            return false;
        }
        self.subscription_bytes += bytes;
        self.subscriptions.insert(uri, request.detached());
        true
    }

    fn unsubscribed(&mut self, uri: &str) {
        if let Some(request) = self.subscriptions.remove(uri) {
            self.subscription_bytes -= subscription_bytes(uri, &request);
        }
    }

    /// Remembers a tool that may be called again; false if it does not fit.
    fn may_repeat(&mut self, tool: String) -> bool {
        if self.repeatable_tools.contains(&tool) {
            return true;
        }
        let bytes = tool.len() + ENTRY;
        if self.tool_bytes + bytes > ROOM {
            return false;
        }
        self.tool_bytes += bytes;
        self.repeatable_tools.insert(tool)
    }
}

fn subscription_bytes(uri: &str, request: &Message) -> usize {
    uri.len() + request.raw().len() + ENTRY
}

impl Session {
    /// The client's `initialize`: settles what the client asked for.
    ///
    /// # Errors
    /// When there was a handshake before or the message is malformed.
    pub(crate) fn begin_handshake(
        &self,
        initialize: &Message,
        headers: &HeaderMap,
    ) -> Result<(), VersionError> {
        let offer = Offer::read(initialize)?;
        self.version.lock().request(offer.version())?;
        let mut handshake = self.handshake.lock();
        handshake.initialize = Some(initialize.detached());
        handshake.headers = detached(headers);
        Ok(())
    }

    /// The client's headers, which a new session of the server is opened with. Only where they may
    /// hold credentials do they change from request to request.
    pub(super) fn note_headers(&self, headers: &HeaderMap) {
        if self.shared.config.forward_auth {
            let mut handshake = self.handshake.lock();
            if handshake.headers != *headers {
                handshake.headers = detached(headers);
            }
        }
    }

    /// What is wrong with a request that comes before the handshake that has to precede it.
    pub(super) fn before_handshake(&self, method: &Method) -> Option<Rejection> {
        let early = self.era == Era::Legacy
            && !matches!(method, Method::Initialize | Method::Ping)
            && self.negotiated().is_none();
        early.then(|| {
            let text = match &self.handshake.lock().failed {
                Some(why) => format!("initialize failed ({why}); send it again"),
                None => "the session has no version yet; send initialize first".to_owned(),
            };
            Rejection::InvalidRequest(text)
        })
    }

    /// An error that the client gets: if it is the answer to `initialize`, it is the last that
    /// anybody hears of the server.
    pub(super) fn note_failure(&self, method: &Method, error: &Message) {
        if *method != Method::Initialize || self.has_ended() {
            return;
        }
        let why =
            inspect::error_text(error).unwrap_or_else(|| "an error without a text".to_owned());
        let fault = Fault::new(Side::Shadowcat, FaultKind::SessionEnded, Executed::No);
        let _ = self
            .epitaph
            .set(fault.because(format!("initialize failed: {why}")));
        self.say_handshake_failed(why);
    }

    /// A request of the client's has failed. Only of a failed handshake is this all that is heard; and
    /// of a server that cannot be reached, or whose process ended, the log has been told.
    /// Called where the request is worked on, which is what the lines name it by.
    pub(crate) fn log_failure(method: &Method, fault: &Fault) {
        let told = matches!(
            fault.kind,
            FaultKind::Connect
                | FaultKind::ChildExited
                | FaultKind::SessionEnded
                | FaultKind::ShuttingDown
        );
        match (method, told) {
            (Method::Initialize, false) => in_request(|| warn!(%fault, "initialize failed")),
            (_, false) => in_request(|| info!(%fault, "the request failed")),
            (_, true) => debug!(%fault, "the request failed"),
        }
    }

    /// From now on a request before the handshake hears why the last one failed.
    pub(crate) fn say_handshake_failed(&self, why: String) {
        self.handshake.lock().failed = Some(why);
    }

    /// Looks at a response on its way to the client, remembers what continuity needs, and puts an
    /// error in its place where the session must not accept it.
    pub(super) fn observe_response(
        self: &Arc<Self>,
        method: &Method,
        request: &Message,
        response: Message,
    ) -> Message {
        if !matches!(response.kind(), Kind::Response { .. }) {
            if *method == Method::Initialize {
                let error = inspect::error_text(&response);
                in_request(|| warn!(error, "the server refused initialize"));
            }
            self.note_failure(method, &response);
            return response;
        }
        match method {
            Method::Initialize => {
                return match request.id() {
                    Some(id) => self.accept(id, response),
                    None => response,
                };
            }
            Method::LoggingSetLevel => {
                self.handshake.lock().log_level = Some(request.detached());
            }
            Method::ResourcesSubscribe => {
                if let Some(uri) = inspect::resource_uri(request) {
                    let mut handshake = self.handshake.lock();
                    if !handshake.subscribed(uri, request) {
                        self.not_remembered(&mut handshake, "subscription", 1);
                    }
                }
            }
            Method::ResourcesUnsubscribe => {
                if let Some(uri) = inspect::resource_uri(request) {
                    self.handshake.lock().unsubscribed(&uri);
                }
            }
            Method::ToolsList if self.shared.config.retry_idempotent_tools => {
                let mut handshake = self.handshake.lock();
                let tools = inspect::repeatable_tools(&response).into_iter();
                let left_out = tools.filter(|tool| !handshake.may_repeat(tool.clone()));
                let left_out = left_out.count();
                if left_out > 0 {
                    self.not_remembered(&mut handshake, "tool", left_out);
                }
            }
            _ => {}
        }
        response
    }

    fn not_remembered(&self, handshake: &mut Handshake, kind: &'static str, count: usize) {
        let metric = &self.shared.metrics.not_remembered;
        metric.get_or_create(&Reason::of(kind)).inc_by(count as u64);
        if !std::mem::replace(&mut handshake.overflowed, true) {
            in_request(|| {
                warn!(
                    kind,
                    "the client has set up more than a session remembers; after a loss of the \
                     server's session the rest is not restored"
                );
            });
        }
    }

    /// Accepts or refuses the server's answer to `initialize`.
    fn accept(self: &Arc<Self>, id: &RequestId, response: Message) -> Message {
        match self.judge(&response) {
            Ok((version, result)) => {
                self.leg_negotiated(version);
                self.shared.era.saw_session(version);
                in_request(|| info!(%version, "session initialized"));
                self.set_open();
                self.watch_pipe();
                self.handshake.lock().result = Some(result);
                response
            }
            Err(refusal) => {
                in_request(|| warn!(%refusal, "refused the server's answer to initialize"));
                self.end_soon(None);
                refusal.to_response(id)
            }
        }
    }

    fn judge(
        &self,
        response: &Message,
    ) -> Result<(ProtocolVersion, InitializeResult), VersionError> {
        let result = InitializeResult::read(response)?;
        let policy = &self.shared.config.versions;
        let version = self.version.lock().negotiate(result.version(), policy)?;
        let _ = self.negotiated.set(version);
        Ok((version, result))
    }

    /// Whether this call is of a tool that the server declared harmless to repeat.
    pub(super) fn is_repeatable_tool(&self, call: &Message) -> bool {
        inspect::tool_name(call)
            .is_some_and(|name| self.handshake.lock().repeatable_tools.contains(&name))
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn subscribe(uri: &str) -> Message {
        let json = format!(
            r#"{{"jsonrpc":"2.0","id":1,"method":"resources/subscribe","params":{{"uri":"{uri}"}}}}"#
        );
        Message::parse(Bytes::from(json)).unwrap()
    }

    #[test]
    fn subscriptions_are_bounded_and_make_room_when_they_end() {
        let mut handshake = Handshake::default();
        let uri = |number: usize| format!("file:///{number:01000}");
        let mut add = |number: usize| {
            let uri = uri(number);
            let request = subscribe(&uri);
            handshake.subscribed(uri, &request)
        };
        let taken = (0..1000).take_while(|number| add(*number)).count();
        assert!((100..200).contains(&taken), "{taken}");
        assert!(add(0), "one that is known needs no more room");
        assert!(!add(taken));
        handshake.unsubscribed(&uri(7));
        let request = subscribe(&uri(taken));
        assert!(handshake.subscribed(uri(taken), &request));
        for number in 0..=taken {
            handshake.unsubscribed(&uri(number));
        }
        assert_eq!(handshake.subscription_bytes, 0);
    }

    #[test]
    fn tools_are_bounded() {
        let mut handshake = Handshake::default();
        let tool = |number: usize| format!("{number:0900}");
        let taken = (0..1000).take_while(|number| handshake.may_repeat(tool(*number)));
        let taken = taken.count();
        assert!((200..300).contains(&taken), "{taken}");
        assert!(handshake.may_repeat(tool(0)) && !handshake.may_repeat(tool(taken)));
    }
}
