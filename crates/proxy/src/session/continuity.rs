//! A lost upstream session, and a new one in its place.
//!
//! MCP specification, Streamable HTTP: a client whose session is gone starts a new one. Toward the
//! server the client is us, so the session initializes again with the client's own parameters and
//! restores what the client had set up; the client keeps its session and hears `list_changed`, so
//! that it refreshes what may have changed (`docs/resilience.md`, "Lost sessions").
//!
//! One task replaces the leg, whoever noticed the loss, and whether or not they still wait; who
//! wants to use the leg waits in [`Session::usable_leg`]. When an attempt is due, and when there
//! were too many and the server is only probed, while every request is answered with an error, is
//! for the engine to say ([`recovery`](super::recovery)). Here is done what it says.

use std::collections::HashSet;
use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Poll, ready};
use std::time::Duration;

use http::HeaderMap;
use shadowcat_mcp::build;
use shadowcat_mcp::fault::{Executed, Fault, FaultKind, Side};
use shadowcat_mcp::handshake::InitializeResult;
use shadowcat_mcp::inspect;
use shadowcat_mcp::message::{Kind, Message};
use shadowcat_mcp::version::{Era, ProtocolVersion};
use shadowcat_sse::reconnect::{Action, Finish};
use shadowcat_transport::metrics::Reason;
use shadowcat_transport::request_span::in_request;
use shadowcat_transport::upstream::{Deadline, Item, Leg, Reply, RequestContext, SendContext};
use tokio::time::Instant;
use tracing::{Instrument, Span, error, warn};

use super::Session;
use super::asks::Begun;
use super::link::Current;
use crate::config::OnSessionLoss;

/// How long the handshake of a replacement may take.
const HANDSHAKE_PATIENCE: Duration = Duration::from_secs(30);
/// Messages of a new upstream session that wait until it is in use.
const MAX_EARLY: usize = 256;

impl Session {
    /// Whether a lost upstream session may be replaced. The modern era has no session that could
    /// be lost to the client; a handshake that fails has nothing to repeat.
    pub(super) fn may_heal(&self) -> bool {
        match self.era {
            Era::Modern => !self.has_ended(),
            Era::Legacy => {
                self.shared.config.on_session_loss == OnSessionLoss::Heal
                    && !self.has_ended()
                    && self.handshake.lock().result.is_some()
            }
        }
    }

    /// The leg of this generation is lost: it is replaced, or the session ends with it.
    pub(super) fn lost(self: &Arc<Self>, generation: u64, fault: &Fault) {
        if !self.may_heal() {
            if self.generation() == generation {
                in_request(
                    || warn!(%fault, "the upstream session is lost, and the client's with it"),
                );
                self.end_soon(None);
            }
            return;
        }
        if !self.note_loss(generation, fault) {
            return;
        }
        let session = Arc::clone(self);
        let healing = async move { session.heal(generation).await };
        tokio::spawn(healing.instrument(Span::clone(&self.span)));
    }

    /// Where a loss ends the session, that of a pipe must not wait for a message to be noticed. The
    /// standalone stream notices it; this is for before there is one, which begins with
    /// `notifications/initialized`.
    pub(super) fn watch_pipe(self: &Arc<Self>) {
        let Current {
            leg, generation, ..
        } = self.current();
        let heals = self.shared.config.on_session_loss == OnSessionLoss::Heal;
        if heals || leg.has_response_heads() {
            return;
        }
        let session = Arc::clone(self);
        let watching = async move {
            tokio::select! {
                biased;
                () = session.ended() => {}
                fault = leg.died() => {
                    // The stream tells of it after what came before.
                    if !session.has_standalone() {
                        session.lost(generation, &fault);
                    }
                }
            }
        };
        tokio::spawn(watching.instrument(Span::clone(&self.span)));
    }

    /// Replaces the leg of this generation, trying until it works or the session ends.
    async fn heal(self: Arc<Self>, generation: u64) {
        self.withdraw_asks(generation + 1);
        while self.attempt_is_due().await {
            self.set_trying();
            let Err(fault) = self.try_to_heal(generation).await else {
                return;
            };
            if self.has_ended() {
                return;
            }
            self.shared.metrics.sessions_not_healed.inc();
            if fault.kind == FaultKind::VersionMismatch {
                warn!(%fault, "the upstream session cannot be restored");
                self.end_soon(Some(fault));
                return;
            }
            self.recovery.failed(&self.shared, &fault, false);
            self.show_recovery();
        }
    }

    /// Waits until an attempt is due; false if the session has ended.
    async fn attempt_is_due(self: &Arc<Self>) -> bool {
        loop {
            tokio::select! {
                biased;
                () = self.ended() => return false,
                due = self.wait_as_told() => return due,
                () = self.hurry.notified() => self.recovery.hurry(&self.shared),
            }
        }
    }

    /// Waits as the engine says until it wants an attempt.
    async fn wait_as_told(self: &Arc<Self>) -> bool {
        let mut timer = pin!(tokio::time::sleep(Duration::ZERO));
        poll_fn(|cx| {
            loop {
                let action = self.recovery.ask(&self.shared, cx.waker());
                self.show_recovery();
                let until = match action {
                    Action::Connect(_) => return Poll::Ready(true),
                    Action::Wait(Some(until)) => until,
                    Action::Finish(Finish::Closed) => return Poll::Ready(false),
                    other => {
                        error!(?other, "the engine of a session wants what it cannot want");
                        self.end_soon(None);
                        return Poll::Ready(false);
                    }
                };
                let quietly = !self.has_response_heads();
                if let Some(health) = self.recovery.waiting(&self.shared, until, quietly) {
                    self.set_health(health);
                }
                timer.as_mut().reset(Instant::from_std(until));
                ready!(timer.as_mut().poll(cx));
            }
        })
        .await
    }

    /// Nobody waits any more for what the lost session asked the client.
    fn withdraw_asks(self: &Arc<Self>, generation: u64) {
        let withdrawn = self.asks.reset(generation);
        let cancels = withdrawn
            .iter()
            .map(|id| build::cancelled(id, "the server's session was lost"));
        self.tell_client(cancels.collect());
    }

    /// Gives messages of ours to the client, without waiting for it; what says the same twice, once.
    fn tell_client(self: &Arc<Self>, mut messages: Vec<Message>) {
        let mut told = HashSet::new();
        messages.retain(|m| build::coalescing_key(m).is_none_or(|key| told.insert(key)));
        if messages.is_empty() {
            return;
        }
        let session = Arc::clone(self);
        let telling = async move {
            for message in messages {
                session.standalone_append(message).await;
            }
        };
        tokio::spawn(telling.instrument(Span::clone(&self.span)));
    }

    /// One attempt: the handshake with a new session of the server, what the client had set up in
    /// the old one, and news for the client.
    async fn try_to_heal(self: &Arc<Self>, generation: u64) -> Result<(), Fault> {
        let leg = self.shared.upstream.leg(self.era);
        let mut early = Early {
            session: self,
            generation: generation + 1,
            deadline: Instant::now() + HANDSHAKE_PATIENCE,
            messages: Vec::new(),
        };
        if self.era == Era::Legacy {
            let renewed = tokio::select! {
                biased;
                renewed = tokio::time::timeout_at(early.deadline, early.renew(&leg)) => renewed,
                () = self.ended() => Ok(Err(session_ended())),
            };
            let renewed = renewed.unwrap_or_else(|_| {
                Err(Fault::new(Side::Upstream, FaultKind::Timeout, Executed::No)
                    .because("the server did not finish the handshake of a new session"))
            });
            if let Err(fault) = renewed {
                self.asks.reset(generation + 1);
                leg.close().await;
                return Err(fault);
            }
        }
        let messages = early.messages;
        match self.replace_leg(leg) {
            Ok(old) => tokio::spawn(async move { old.close().await }),
            Err(unused) => {
                unused.close().await;
                return Err(session_ended());
            }
        };
        if self.era == Era::Legacy {
            self.tell_client(messages.into_iter().chain(self.refresh()).collect());
            self.start_standalone();
        }
        Ok(())
    }

    /// What makes the client look again at everything that may have changed with the session.
    fn refresh(&self) -> Vec<Message> {
        let handshake = self.handshake.lock();
        let lists = handshake
            .result
            .iter()
            .flat_map(InitializeResult::list_changes);
        let uris = handshake.subscriptions.keys();
        lists
            .chain(uris.map(|uri| build::resource_updated(uri)))
            .collect()
    }
}

/// A new upstream session before it is in use.
struct Early<'a> {
    session: &'a Arc<Session>,
    generation: u64,
    /// Until when its handshake must be over: no wait that the server asks for goes beyond it.
    deadline: Instant,
    /// What it has to say to the client already.
    messages: Vec<Message>,
}

impl Early<'_> {
    /// The handshake, and what the client had set up in the old session.
    async fn renew(&mut self, leg: &Arc<dyn Leg>) -> Result<(), Fault> {
        let session = self.session;
        let again = session.handshake.lock().again().ok_or_else(session_ended)?;
        let headers = again.headers;
        let response = self.call(leg, again.initialize, &headers).await?;
        if !matches!(response.kind(), Kind::Response { .. }) {
            let text = inspect::error_text(&response);
            return Err(
                Fault::new(Side::Upstream, FaultKind::BadResponse, Executed::No).because(format!(
                    "the server refused a new session: {}",
                    text.as_deref().unwrap_or("without a reason")
                )),
            );
        }
        let result = InitializeResult::read(&response).map_err(|error| {
            Fault::new(Side::Upstream, FaultKind::BadResponse, Executed::No)
                .because(error.to_string())
        })?;
        let negotiated = session.negotiated();
        if negotiated.map(ProtocolVersion::as_str) != Some(result.version()) {
            let why = format!(
                "the restarted server speaks {}, the session was negotiated at {}",
                result.version(),
                negotiated.map_or("no version", |version| version.as_str()),
            );
            let fault = Fault::new(Side::Upstream, FaultKind::VersionMismatch, Executed::No);
            return Err(fault.because(why));
        }
        if let Some(version) = negotiated {
            leg.negotiated(version);
        }
        let context = SendContext {
            headers: headers.clone(),
            deadline: Deadline::new(Some(self.deadline)),
        };
        leg.send(again.initialized, context).await?;
        for message in again.settings {
            let response = self.call(leg, message, &headers).await?;
            if !matches!(response.kind(), Kind::Response { .. }) {
                warn!("the new upstream session refused to restore a setting");
            }
        }
        session.handshake.lock().result = Some(result);
        Ok(())
    }

    /// One request of ours.
    async fn call(
        &mut self,
        leg: &Arc<dyn Leg>,
        request: Message,
        headers: &HeaderMap,
    ) -> Result<Message, Fault> {
        let context = RequestContext {
            headers: headers.clone(),
            deadline: Deadline::new(Some(self.deadline)),
            ..RequestContext::default()
        };
        let mut incoming = match leg.request(request, context).await? {
            Reply::Json { message, .. } => return Ok(message),
            Reply::Refused { fault, .. } => return Err(*fault),
            Reply::Challenge { .. } => {
                return Err(
                    Fault::new(Side::Upstream, FaultKind::Unauthorized, Executed::No)
                        .because("the server wants authorization for a new session"),
                );
            }
            Reply::Stream { incoming, .. } | Reply::Pipe(incoming) => incoming,
        };
        while let Some(item) = incoming.next().await {
            match item? {
                Item::Message(message) if message.is_response() => return Ok(message),
                Item::Message(message) => self.keep(message),
                Item::Gap(_) => {}
            }
        }
        Err(Fault::new(
            Side::Upstream,
            FaultKind::StreamEnded,
            Executed::Unknown,
        ))
    }

    /// A message that is not ours waits until the session is in use: an answer could not reach
    /// the server before.
    fn keep(&mut self, message: Message) {
        let asks = &self.session.asks;
        let message = match message.kind() {
            Kind::Request { .. } => match asks.begin(&message, self.generation) {
                Begun::Ask { message, .. } => message,
                Begun::Repeated => return,
            },
            _ => asks.observe(message),
        };
        if self.messages.len() < MAX_EARLY {
            self.messages.push(message);
        } else {
            let reason = Reason::of("early");
            let given_up = &self.session.shared.metrics.messages_given_up;
            given_up.get_or_create(&reason).inc();
        }
    }
}

fn session_ended() -> Fault {
    Fault::new(Side::Shadowcat, FaultKind::SessionEnded, Executed::No)
}
