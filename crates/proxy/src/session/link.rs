//! The leg in use, whether it works, and who waits for it.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use shadowcat_mcp::fault::{Executed, Fault, Side};
use shadowcat_mcp::version::{Era, ProtocolVersion};
use shadowcat_sse::reconnect::Input;
use shadowcat_transport::upstream::Leg;
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;
use tracing::Span;

use super::Session;
use super::recovery::ASKED_DISTANCE;

/// How long a request waits for the next attempt to replace a leg.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long it waits in all, attempts under way included: an attempt that hangs is survived, and it is
/// less than the minute for which official clients wait for an answer.
const LONGEST: Duration = Duration::from_secs(45);

/// The leg in use. Each replacement has a new generation, so that two who notice the same loss
/// replace it once.
pub(super) struct Link {
    leg: Arc<dyn Leg>,
    generation: u64,
    /// Cancelled when the leg was replaced.
    over: CancellationToken,
    health: Health,
}

/// Whether a leg can be used.
#[derive(Debug, Clone)]
pub(super) enum Health {
    /// It can.
    Up,
    /// It is to be replaced. Nothing was tried since `since`; the next attempt is due at `next`,
    /// as far as is known.
    Healing {
        since: Instant,
        next: Instant,
        last: Fault,
    },
    /// The attempt to replace it is under way.
    Trying { last: Fault },
    /// The attempts are used up: from now on they are rare, and before `ask_from` no request may
    /// ask for one.
    GivenUp {
        next: Instant,
        ask_from: Instant,
        last: Fault,
    },
}

impl Link {
    pub(super) fn new(leg: Arc<dyn Leg>) -> Self {
        Self {
            leg,
            generation: 0,
            over: CancellationToken::new(),
            health: Health::Up,
        }
    }

    pub(super) fn leg(&self) -> Arc<dyn Leg> {
        Arc::clone(&self.leg)
    }
}

/// A leg, and what tells it from its successors.
pub(super) struct Current {
    pub(super) leg: Arc<dyn Leg>,
    pub(super) generation: u64,
    pub(super) over: CancellationToken,
}

impl Session {
    /// Whether replies of the current leg have heads; see [`Leg::has_response_heads`].
    pub(crate) fn has_response_heads(&self) -> bool {
        self.link.read().leg.has_response_heads()
    }

    pub(super) fn current(&self) -> Current {
        let link = self.link.read();
        Current {
            leg: Arc::clone(&link.leg),
            generation: link.generation,
            over: link.over.clone(),
        }
    }

    pub(super) fn generation(&self) -> u64 {
        self.link.read().generation
    }

    /// The leg if it can be used now.
    pub(super) fn leg_if_up(&self) -> Option<(Arc<dyn Leg>, u64)> {
        let link = self.link.read();
        matches!(link.health, Health::Up).then(|| (Arc::clone(&link.leg), link.generation))
    }

    /// The leg, once it can be used: a request waits for a replacement that is under way or soon,
    /// but for [`PATIENCE`] at most until the next attempt begins, and for [`LONGEST`] in all.
    ///
    /// # Errors
    /// Why there is none, and when the next attempt is due. Nothing was executed.
    pub(super) async fn usable_leg(&self) -> Result<(Arc<dyn Leg>, u64), Fault> {
        let asked = Instant::now();
        loop {
            let changed = self.health_changed.notified();
            if let Some(up) = self.leg_if_up() {
                return Ok(up);
            }
            let health = self.link.read().health.clone();
            let now = Instant::now();
            let since = match health {
                Health::Healing { since, .. } => since.max(asked),
                _ => asked,
            };
            let patience = (since + PATIENCE).min(asked + LONGEST);
            match health {
                Health::Up => continue,
                Health::Trying { last } => {
                    if timeout_at(asked + LONGEST, changed).await.is_err() {
                        return Err(unavailable(&last, Duration::ZERO));
                    }
                    continue;
                }
                // The line of the sessions that come back may move more slowly than it seemed.
                Health::Healing { next, .. } if next <= patience && now < patience => {}
                // Over HTTP a request is as good a probe as any; a process is not started for it.
                Health::GivenUp { ask_from, .. }
                    if self.has_response_heads() && now >= ask_from && now < patience =>
                {
                    self.hurry.notify_one();
                }
                Health::Healing { next, last, .. } | Health::GivenUp { next, last, .. } => {
                    return Err(unavailable(&last, next.saturating_duration_since(now)));
                }
            }
            // Whoever waited too long sees that above.
            let _ = timeout_at(patience, changed).await;
        }
    }

    pub(super) fn set_health(&self, health: Health) {
        self.link.write().health = health;
        self.health_changed.notify_waiters();
    }

    /// An attempt to replace the leg begins. While a process is only probed, everything else is
    /// answered at once.
    pub(super) fn set_trying(&self) {
        let mut link = self.link.write();
        let last = match &link.health {
            Health::Healing { last, .. } => last,
            Health::GivenUp { last, .. } if link.leg.has_response_heads() => last,
            _ => return,
        };
        link.health = Health::Trying { last: last.clone() };
        drop(link);
        self.health_changed.notify_waiters();
    }

    /// Notes that the leg of this generation is lost; false if somebody noticed before.
    pub(super) fn note_loss(&self, generation: u64, fault: &Fault) -> bool {
        let mut link = self.link.write();
        if link.generation != generation || !matches!(link.health, Health::Up) {
            return false;
        }
        let productive = self.productive.load(Ordering::Relaxed);
        self.recovery.failed(&self.shared, fault, productive);
        let now = Instant::now();
        link.health = Health::Healing {
            since: now,
            next: now,
            last: fault.clone(),
        };
        drop(link);
        self.show_recovery();
        true
    }

    /// Puts a new leg in the place of the lost one, which it returns.
    ///
    /// # Errors
    /// The new leg, if the session has ended meanwhile.
    pub(super) fn replace_leg(&self, leg: Arc<dyn Leg>) -> Result<Arc<dyn Leg>, Arc<dyn Leg>> {
        let mut link = self.link.write();
        // Checked under the lock that `end` takes after it has said so: one of both closes it.
        if self.has_ended() {
            return Err(leg);
        }
        let old = std::mem::replace(&mut link.leg, leg);
        std::mem::take(&mut link.over).cancel();
        link.generation += 1;
        link.health = Health::Up;
        self.productive.store(false, Ordering::Relaxed);
        // Told before anybody can lose it again.
        match self.era {
            Era::Legacy => self.recovery.opened(&self.shared),
            // Nothing was said to the server yet, and nothing is started before that.
            Era::Modern => self.recovery.tell(&self.shared, Input::Connected),
        }
        drop(link);
        self.show_recovery();
        self.health_changed.notify_waiters();
        Ok(old)
    }

    /// The leg of this generation brought something for the client.
    pub(super) fn was_productive(&self, generation: u64) {
        if self.productive.load(Ordering::Relaxed) {
            return;
        }
        // Held until all is said: whoever loses or replaces the leg meanwhile comes after.
        let link = self.link.read();
        // A straggler of a lost leg says nothing about the one in use, or the one to come.
        if link.generation != generation || !matches!(link.health, Health::Up) {
            return;
        }
        self.productive.store(true, Ordering::Relaxed);
        // Without a handshake this is the first proof that there is a server.
        if self.era == Era::Modern {
            self.recovery.opened(&self.shared);
            drop(link);
            self.show_recovery();
        }
    }

    /// The server's session is in use.
    pub(super) fn set_open(&self) {
        self.recovery.opened(&self.shared);
        self.show_recovery();
    }

    /// Shows what moved, under the session's name.
    pub(super) fn show_recovery(&self) {
        match Span::current().is_none() {
            true => self.span.in_scope(|| self.recovery.show()),
            false => self.recovery.show(),
        }
    }

    pub(super) fn leg_negotiated(&self, version: ProtocolVersion) {
        self.link.read().leg.negotiated(version);
    }
}

fn unavailable(last: &Fault, wait: Duration) -> Fault {
    // The attempt may be due or under way: what comes of it is not known at once.
    let wait = wait.max(ASKED_DISTANCE);
    let after = last.retry_after.unwrap_or(Duration::ZERO).max(wait);
    Fault::new(Side::Upstream, last.kind, Executed::No)
        .because(format!(
            "the server's session is lost and could not be restored yet ({last})"
        ))
        .after(Some(after))
}
