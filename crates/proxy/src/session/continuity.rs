//! A lost upstream session, and a new one in its place.
//!
//! MCP specification, Streamable HTTP: a client whose session is gone starts a new one. Toward the
//! server the client is us, so the session initializes again with the client's own parameters and
//! restores what the client had set up; the client keeps its session and hears `list_changed`, so
//! that it refreshes what may have changed (resilience, section 5).
//!
//! One task replaces the leg, whoever noticed the loss, and whether or not they still wait; who
//! wants to use the leg waits in [`Session::usable_leg`]. Losses in a row without anything
//! productive between them are spaced out, and after too many the server is only probed, while
//! every request is answered with an error. How long each wait is and how many are too many is for
//! the reconnection policy to say, as for a stream.

use std::sync::Arc;
use std::time::Duration;

use http::HeaderMap;
use shadowcat_mcp::build;
use shadowcat_mcp::fault::{Executed, Fault, FaultKind, Side};
use shadowcat_mcp::handshake::InitializeResult;
use shadowcat_mcp::inspect;
use shadowcat_mcp::message::{Kind, Message};
use shadowcat_mcp::version::{Era, ProtocolVersion};
use shadowcat_sse::reconnect::backoff;
use shadowcat_transport::metrics::Reason;
use shadowcat_transport::request_span::in_request;
use shadowcat_transport::upstream::{Item, Leg, Reply, RequestContext, SendContext};
use tokio::time::Instant;
use tracing::{Instrument, info, warn};

use super::Session;
use super::asks::Begun;
use super::link::Health;
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
        let Some(failures) = self.note_loss(generation, fault) else {
            return;
        };
        in_request(|| warn!(%fault, failures, "the upstream session is lost"));
        let session = Arc::clone(self);
        let cause = fault.clone();
        let healing = async move { session.heal(generation, failures, cause).await };
        tokio::spawn(healing.instrument(self.span.clone()));
    }

    /// Replaces the leg of this generation, trying until it works or the session ends. The first
    /// attempt after something productive is made at once.
    async fn heal(self: Arc<Self>, generation: u64, mut failures: u32, cause: Fault) {
        let started = Instant::now();
        self.withdraw_asks(generation + 1);
        if failures > 0 {
            self.schedule(failures, cause);
        }
        while self.pause(failures).await {
            let Err(fault) = self.try_to_heal(generation, failures).await else {
                self.shared.metrics.sessions_healed.inc();
                let took = started.elapsed();
                self.shared
                    .metrics
                    .time_to_recover
                    .observe(took.as_secs_f64());
                info!(?took, "upstream session restored");
                return;
            };
            if self.has_ended() {
                return;
            }
            self.shared.metrics.sessions_not_healed.inc();
            warn!(%fault, failures, "could not restore the upstream session");
            if fault.kind == FaultKind::VersionMismatch {
                self.end_soon(Some(fault));
                return;
            }
            // What is not temporary does not change by itself.
            let attempts = self.shared.config.reconnect.max_attempts;
            failures = match fault.is_temporary() {
                true => failures + 1,
                false => (failures + 1).max(attempts),
            };
            self.schedule(failures, fault);
        }
    }

    /// Nobody waits any more for what the lost session asked the client.
    fn withdraw_asks(self: &Arc<Self>, generation: u64) {
        let withdrawn = self.asks.reset(generation);
        let cancels = withdrawn
            .iter()
            .map(|id| build::cancelled(id, "the server's session was lost"));
        self.tell_client(cancels.collect());
    }

    /// Gives messages of ours to the client, without waiting for it.
    fn tell_client(self: &Arc<Self>, messages: Vec<Message>) {
        if messages.is_empty() {
            return;
        }
        let session = Arc::clone(self);
        let telling = async move {
            for message in messages {
                session.standalone_append(message).await;
            }
        };
        tokio::spawn(telling.instrument(self.span.clone()));
    }

    /// Says when the next attempt is due.
    fn schedule(&self, failures: u32, last: Fault) {
        let policy = &self.shared.config.reconnect;
        let now = Instant::now();
        let draw = self.shared.entropy.fraction();
        let asked = last.retry_after.map_or(Duration::ZERO, |hint| {
            backoff::asked(policy, hint, self.shared.entropy.fraction())
        });
        if policy.is_exhausted(failures) {
            self.shared.metrics.given_up.inc();
            let delay = backoff::probe(draw).max(asked);
            warn!(
                failures,
                ?delay,
                "the upstream session is given up; probing for it"
            );
            self.set_health(Health::GivenUp {
                next: now + delay,
                tried: now,
                last,
            });
            return;
        }
        let delay = backoff::delay(policy, failures, None, draw).max(asked);
        info!(failures, ?delay, "will try to restore the upstream session");
        self.set_health(Health::Healing {
            next: now + delay,
            last,
        });
    }

    /// Waits until an attempt is due; false if the session has ended.
    async fn pause(&self, failures: u32) -> bool {
        let Some((next, last)) = self.next_attempt() else {
            return false;
        };
        tokio::select! {
            biased;
            () = self.ended() => return false,
            () = tokio::time::sleep_until(next) => {}
            () = self.hurry.notified() => {}
        }
        // While a process is only probed, everything else is answered at once.
        let given_up = self.shared.config.reconnect.is_exhausted(failures);
        if !given_up || self.has_response_heads() {
            let next = Instant::now();
            self.set_health(Health::Healing { next, last });
        }
        true
    }

    /// One attempt: the handshake with a new session of the server, what the client had set up in
    /// the old one, and news for the client.
    async fn try_to_heal(self: &Arc<Self>, generation: u64, failures: u32) -> Result<(), Fault> {
        let leg = self.shared.upstream.leg(self.era);
        let mut early = Early {
            session: self,
            generation: generation + 1,
            messages: Vec::new(),
        };
        if self.era == Era::Legacy {
            let renewed = tokio::select! {
                renewed = tokio::time::timeout(HANDSHAKE_PATIENCE, early.renew(&leg)) => renewed,
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
        match self.replace_leg(leg, failures) {
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
            ..RequestContext::default()
        };
        let mut incoming = match leg.request(request, context).await? {
            Reply::Json { message, .. } => return Ok(message),
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
