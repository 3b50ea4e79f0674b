//! A lost upstream session, and a new one in its place.
//!
//! MCP specification, Streamable HTTP: a client whose session is gone starts a new one. Toward the
//! server the client is us, so the session initializes again with the client's own parameters and
//! restores what the client had set up; the client keeps its session and hears `list_changed`, so
//! that it refreshes what may have changed. One replacement at a time; whoever notices the same
//! loss waits for it.

use std::sync::Arc;
use std::time::Duration;

use shadowcat_mcp::build;
use shadowcat_mcp::fault::{Executed, Fault, FaultKind, Side};
use shadowcat_mcp::handshake::InitializeResult;
use shadowcat_mcp::message::{Kind, Message};
use shadowcat_mcp::version::{Era, ProtocolVersion};
use shadowcat_transport::upstream::{Item, Leg, Reply, RequestContext, SendContext};
use tokio::time::Instant;
use tracing::{info, warn};

use super::Session;
use crate::config::OnSessionLoss;

/// How long the handshake of a replacement may take.
const HANDSHAKE_PATIENCE: Duration = Duration::from_secs(30);
/// How often a session that could not be restored is tried again, and how far that is spread
/// either way (resilience, section 4, "Parked").
const PROBE_PERIOD: Duration = Duration::from_secs(60);
const PROBE_SPREAD: f64 = 0.2;

impl Session {
    /// Whether a lost upstream session may be replaced. `initializing`: noticed by the handshake
    /// itself, which has nothing to repeat.
    pub(super) fn may_heal(&self, initializing: bool) -> bool {
        self.shared.config.on_session_loss == OnSessionLoss::Heal
            && !initializing
            && !self.has_ended()
            && (self.era == Era::Modern || self.handshake.lock().result.is_some())
    }

    /// The client loses its session with the upstream's.
    pub(super) fn lose(self: &Arc<Self>) {
        warn!(session = self.key.0, "the upstream session is lost");
        let session = Arc::clone(self);
        tokio::spawn(async move { session.end().await });
    }

    /// Replaces the lost leg in the background.
    pub(super) fn heal_soon(self: &Arc<Self>, generation: u64) {
        let session = Arc::clone(self);
        tokio::spawn(async move { session.heal_persistently(generation).await });
    }

    /// Replaces the lost leg, trying until it works, the session ends, or the server refuses for
    /// good. When the attempts are used up, one a minute follows.
    pub(super) async fn heal_persistently(self: &Arc<Self>, generation: u64) -> bool {
        let backoff = self.shared.config.heal_backoff;
        let mut delay = backoff.initial;
        let mut attempt = 0_u32;
        loop {
            attempt = attempt.saturating_add(1);
            match self.heal(generation).await {
                Ok(()) => return true,
                Err(fault) if !fault.is_temporary() => return false,
                Err(_) => {}
            }
            let jitter = if attempt < backoff.attempts {
                delay.mul_f64(backoff.jitter * self.shared.entropy.fraction())
            } else {
                if attempt == backoff.attempts {
                    self.shared.metrics.given_up.inc();
                    warn!(
                        session = self.key.0,
                        "the upstream session cannot be restored; trying once a minute"
                    );
                }
                delay = PROBE_PERIOD.mul_f64(1.0 - PROBE_SPREAD);
                PROBE_PERIOD.mul_f64(2.0 * PROBE_SPREAD * self.shared.entropy.fraction())
            };
            info!(session = self.key.0, attempt, delay = ?(delay + jitter), "will try again to restore the upstream session");
            tokio::select! {
                () = tokio::time::sleep(delay + jitter) => {}
                () = self.ended() => return false,
            }
            delay = (delay * 2).min(backoff.max);
        }
    }

    /// Replaces the leg of this generation, once for all who ask.
    ///
    /// # Errors
    /// Why there is no new upstream session; nothing of the client's was executed.
    pub(super) async fn heal(self: &Arc<Self>, generation: u64) -> Result<(), Fault> {
        let _one_at_a_time = self.healing.lock().await;
        let (old, current) = self.leg();
        if current != generation {
            return Ok(());
        }
        let started = Instant::now();
        let leg = self.shared.upstream.leg(self.era);
        if self.era == Era::Legacy {
            let renewed = tokio::time::timeout(HANDSHAKE_PATIENCE, self.renew(&leg)).await;
            let renewed = renewed.unwrap_or_else(|_| {
                Err(Fault::new(Side::Upstream, FaultKind::Timeout, Executed::No)
                    .because("the server did not finish the handshake of a new session"))
            });
            if let Err(fault) = renewed {
                leg.close().await;
                self.shared.metrics.sessions_not_healed.inc();
                warn!(session = self.key.0, %fault, "could not restore the upstream session");
                return Err(fault);
            }
        }
        {
            let mut link = self.link.write();
            link.leg = leg;
            link.generation += 1;
        }
        tokio::spawn(async move { old.close().await });
        self.shared.metrics.sessions_healed.inc();
        self.shared
            .metrics
            .time_to_recover
            .observe(started.elapsed().as_secs_f64());
        info!(session = self.key.0, took = ?started.elapsed(), "upstream session restored");
        if self.era == Era::Legacy {
            self.start_standalone();
            self.refresh_client().await;
        }
        Ok(())
    }

    /// The handshake with the server's new session, and what the client had set up in the old one.
    async fn renew(self: &Arc<Self>, leg: &Arc<dyn Leg>) -> Result<(), Fault> {
        let (initialize, initialized, level, subscriptions) = {
            let handshake = self.handshake.lock();
            let Some(initialize) = handshake.initialize.clone() else {
                return Err(Fault::new(
                    Side::Client,
                    FaultKind::SessionLost,
                    Executed::No,
                ));
            };
            let initialized = handshake
                .initialized
                .clone()
                .unwrap_or_else(build::initialized);
            let subscriptions: Vec<_> = handshake.subscriptions.values().cloned().collect();
            (
                initialize,
                initialized,
                handshake.log_level.clone(),
                subscriptions,
            )
        };
        let response = call(leg, initialize).await?;
        let result = InitializeResult::read(&response).map_err(|error| {
            Fault::new(Side::Upstream, FaultKind::VersionMismatch, Executed::No)
                .because(error.to_string())
        })?;
        let negotiated = self.negotiated();
        if negotiated.map(ProtocolVersion::as_str) != Some(result.version()) {
            return Err(
                Fault::new(Side::Upstream, FaultKind::VersionMismatch, Executed::No).because(
                    format!(
                        "the restarted server speaks {}, the session was negotiated at {}",
                        result.version(),
                        negotiated.map_or("no version", |version| version.as_str()),
                    ),
                ),
            );
        }
        if let Some(version) = negotiated {
            leg.negotiated(version);
        }
        leg.send(initialized, SendContext::default()).await?;
        for message in level.into_iter().chain(subscriptions) {
            let response = call(leg, message).await?;
            if !matches!(response.kind(), Kind::Response { .. }) {
                warn!(
                    session = self.key.0,
                    "the new upstream session refused to restore a setting"
                );
            }
        }
        self.handshake.lock().result = Some(result);
        Ok(())
    }

    /// Tells the client what may have changed with the server's session.
    async fn refresh_client(self: &Arc<Self>) {
        for id in self.asks.reset() {
            let message = build::cancelled(&id, "the server's session was lost");
            self.standalone_append(message).await;
        }
        let messages = {
            let handshake = self.handshake.lock();
            let lists = handshake
                .result
                .iter()
                .flat_map(InitializeResult::list_changes);
            let uris = handshake.subscriptions.keys();
            lists
                .chain(uris.map(|uri| build::resource_updated(uri)))
                .collect::<Vec<_>>()
        };
        for message in messages {
            self.standalone_append(message).await;
        }
    }
}

/// One request of ours on a leg that is not in use yet; other messages of the server meanwhile are
/// not for the client.
async fn call(leg: &Arc<dyn Leg>, request: Message) -> Result<Message, Fault> {
    let mut incoming = match leg.request(request, RequestContext::default()).await? {
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
        if let Item::Message(message) = item?
            && matches!(message.kind(), Kind::Response { .. } | Kind::Error { .. })
        {
            return Ok(message);
        }
    }
    Err(Fault::new(
        Side::Upstream,
        FaultKind::StreamEnded,
        Executed::Unknown,
    ))
}
