//! What a session learned in its handshake and must be able to say again.
//!
//! A lost upstream session is replaced by repeating what the client said (resilience, "session
//! continuity"): its `initialize`, `notifications/initialized`, its last `logging/setLevel` and
//! its resource subscriptions. This module keeps those messages and judges the answer to
//! `initialize` (version negotiation and downgrade prevention).

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use http::HeaderMap;
use shadowcat_mcp::build;
use shadowcat_mcp::handshake::{InitializeResult, Offer};
use shadowcat_mcp::headers::detached;
use shadowcat_mcp::inspect;
use shadowcat_mcp::message::{Kind, Message, RequestId};
use shadowcat_mcp::method::Method;
use shadowcat_mcp::version::{Era, ProtocolVersion, VersionError};
use tracing::{info, warn};

use super::Session;

/// See the [module](self).
#[derive(Default)]
pub(super) struct Handshake {
    initialize: Option<Message>,
    /// The client's headers that the server saw last, where they may hold credentials.
    headers: HeaderMap,
    pub(super) initialized: Option<Message>,
    pub(super) result: Option<InitializeResult>,
    log_level: Option<Message>,
    pub(super) subscriptions: BTreeMap<String, Message>,
    repeatable_tools: HashSet<String>,
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

    /// Whether a request came before the handshake that has to precede it.
    pub(super) fn is_before_handshake(&self, method: &Method) -> bool {
        self.era == Era::Legacy
            && !matches!(method, Method::Initialize | Method::Ping)
            && self.negotiated().is_none()
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
            return response;
        }
        let mut handshake = self.handshake.lock();
        match method {
            Method::Initialize => {
                drop(handshake);
                return match request.id() {
                    Some(id) => self.accept(id, response),
                    None => response,
                };
            }
            Method::LoggingSetLevel => handshake.log_level = Some(request.detached()),
            Method::ResourcesSubscribe => {
                if let Some(uri) = inspect::resource_uri(request) {
                    handshake.subscriptions.insert(uri, request.detached());
                }
            }
            Method::ResourcesUnsubscribe => {
                if let Some(uri) = inspect::resource_uri(request) {
                    handshake.subscriptions.remove(&uri);
                }
            }
            Method::ToolsList if self.shared.config.retry_idempotent_tools => {
                handshake
                    .repeatable_tools
                    .extend(inspect::repeatable_tools(&response));
            }
            _ => {}
        }
        response
    }

    /// Accepts or refuses the server's answer to `initialize`.
    fn accept(self: &Arc<Self>, id: &RequestId, response: Message) -> Message {
        match self.judge(&response) {
            Ok((version, result)) => {
                self.leg_negotiated(version);
                info!(%version, "session initialized");
                self.handshake.lock().result = Some(result);
                response
            }
            Err(refusal) => {
                warn!(%refusal, "refused the server's answer to initialize");
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
        Ok((version, result))
    }

    /// Whether this is a call of a tool that the server declared harmless to repeat, and the user
    /// allowed repeating those.
    pub(super) fn is_repeatable_call(&self, method: &Method, request: &Message) -> bool {
        *method == Method::ToolsCall
            && self.shared.config.retry_idempotent_tools
            && inspect::tool_name(request)
                .is_some_and(|name| self.handshake.lock().repeatable_tools.contains(&name))
    }
}
