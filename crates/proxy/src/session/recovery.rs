//! What decides when a session's leg is replaced: the reconnection engine, and what it is told.
//!
//! To the engine a session is a stream of its own kind (`docs/resilience.md`, "Lost sessions"). It counts the
//! losses without anything productive between them, spaces the attempts, keeps to what the server
//! asked for and gives up after too many; what the sessions of one server share (pace, breaker,
//! herd) is an origin of their own, because a session is not one of the event streams that may be
//! open on its behalf. Here stands what goes in and out: faults become troubles, waits become the
//! [`Health`] that requests look at, and every move is shown as those of other streams are.

use std::task::Waker;
use std::time::Duration;

use http::StatusCode;
use parking_lot::Mutex;
use shadowcat_mcp::fault::{Executed, Fault, FaultKind};
use shadowcat_sse::reconnect::{
    Action, Engine, Input, Kind, Origin, OriginPolicy, Refusal, StateName, Trouble,
};
use shadowcat_transport::streams::Telemetry;
use tokio::time::Instant;
use tracing::{Span, error};

use super::Shared;
use super::link::Health;

/// Distance of the attempts that requests ask for once a server was given up.
pub(super) const ASKED_DISTANCE: Duration = Duration::from_secs(1);

/// What the sessions of one server share. How many handshakes may be under way is for the
/// upstream to say, which has permits for all that is sent.
pub(super) fn origin() -> Origin {
    Origin::new(OriginPolicy {
        connects: usize::MAX,
        ..OriginPolicy::default()
    })
}

/// See the [module](self).
pub(super) struct Recovery(Mutex<State>);

struct State {
    engine: Engine,
    telemetry: Telemetry,
    /// What went wrong last, and when.
    last: Option<Fault>,
    failed_at: Instant,
}

impl Recovery {
    /// Of a session that is not open yet, and logs in this span.
    pub(super) fn new(shared: &Shared, span: &Span) -> Self {
        let (policy, seed) = (shared.config.reconnect.clone(), shared.entropy.bits());
        Self(Mutex::new(State {
            engine: Engine::new(Kind::Session, policy, seed),
            telemetry: Telemetry::new(&shared.streams, Kind::Session).inside(span),
            last: None,
            failed_at: Instant::now(),
        }))
    }

    /// Tells the engine something. What it makes of that is shown by [`Recovery::show`], which
    /// needs no lock of the caller's.
    pub(super) fn tell(&self, shared: &Shared, input: Input) {
        self.0.lock().tell(shared, input);
    }

    /// The session is in use, if it is not known to be.
    pub(super) fn opened(&self, shared: &Shared) {
        let mut state = self.0.lock();
        let before = state.engine.state();
        if matches!(before, StateName::Idle | StateName::Connecting) {
            state.tell(shared, Input::Opened);
        }
        if before == StateName::Connecting {
            shared.metrics.sessions_healed.inc();
        }
    }

    /// The session was lost, or an attempt to replace it failed. `productive`: its leg had brought
    /// something.
    pub(super) fn failed(&self, shared: &Shared, fault: &Fault, productive: bool) {
        let mut state = self.0.lock();
        let trouble = match state.engine.state() {
            StateName::Open => Trouble::Ended,
            _ => trouble(fault),
        };
        if productive {
            state.engine.delivered();
        }
        state.last = Some(fault.clone());
        state.failed_at = Instant::now();
        state.tell(shared, Input::Failed(trouble));
    }

    /// Somebody wants a server tried that was given up. They may have wanted it before the last
    /// attempt failed.
    pub(super) fn hurry(&self, shared: &Shared) {
        let mut state = self.0.lock();
        let asked_in_time = Instant::now() >= state.ask_from(shared);
        if state.engine.state() == StateName::Parked && asked_in_time {
            state.tell(shared, Input::Hurry);
        }
    }

    /// What to do now.
    pub(super) fn ask(&self, shared: &Shared, waker: &Waker) -> Action {
        let now = Instant::now().into_std();
        let mut state = self.0.lock();
        state.engine.poll(now, &mut *shared.origin.lock(), waker)
    }

    /// What requests are to know while the engine waits until `until`. `None`: nothing new.
    /// `quietly`: they do not wait for a look at what was given up.
    pub(super) fn waiting(
        &self,
        shared: &Shared,
        until: std::time::Instant,
        quietly: bool,
    ) -> Option<Health> {
        let state = self.0.lock();
        let next = Instant::from_std(until);
        let last = state.last.clone()?;
        let given_up = match state.engine.state() {
            StateName::Backoff => false,
            StateName::Queued => quietly && state.engine.is_probing(),
            StateName::Parked => true,
            _ => return None,
        };
        Some(match given_up {
            true => Health::GivenUp {
                next,
                ask_from: state.ask_from(shared),
                last,
            },
            false => Health::Healing {
                since: state.failed_at,
                // In line, `until` is no more than when to look again at the latest: the turn comes
                // with whoever is before, and may come at any time.
                next: match state.engine.state() {
                    StateName::Queued => next.min(Instant::now()),
                    _ => next,
                },
                last,
            },
        })
    }

    /// Shows what has moved since the last time.
    pub(super) fn show(&self) {
        self.0.lock().show();
    }
}

impl State {
    fn tell(&mut self, shared: &Shared, input: Input) {
        // Whoever notices something may be overtaken by the end of the session.
        if self.engine.state().is_final() {
            return;
        }
        let now = Instant::now().into_std();
        let told = self.engine.handle(now, &mut *shared.origin.lock(), input);
        if let Err(unexpected) = told {
            error!(%unexpected, "a session is in a state that it cannot be in");
        }
    }

    /// From when on a request may have a server tried that was given up: it gets its rest, and
    /// the time that it asked for.
    fn ask_from(&self, shared: &Shared) -> Instant {
        let hint = self.last.as_ref().and_then(|last| last.retry_after);
        let asked = hint.map_or(Duration::ZERO, |hint| {
            shared.config.reconnect.clamp_hint(hint)
        });
        self.failed_at + asked.max(ASKED_DISTANCE)
    }

    fn show(&mut self) {
        let now = Instant::now().into_std();
        while let Some(transition) = self.engine.poll_transition() {
            let noticed = self.telemetry.noticed(&transition);
            let detail = match (noticed, &self.last) {
                (Some((_, detail)), _) => detail,
                (None, Some(fault)) => fault.to_string(),
                (None, None) => String::new(),
            };
            let counters = self.engine.counters();
            self.telemetry
                .transition(&transition, counters, now, &detail);
        }
        self.telemetry.count(self.engine.counters());
    }
}

/// A fault of a handshake in the engine's words.
fn trouble(fault: &Fault) -> Trouble {
    match fault.kind {
        FaultKind::Unauthorized => Trouble::Refused(Refusal {
            status: StatusCode::UNAUTHORIZED,
            retry_after: fault.retry_after,
            session_sent: false,
            about_session: false,
        }),
        FaultKind::Tls => Trouble::Tls,
        FaultKind::Redirect => Trouble::Redirected {
            keeps_method: fault.executed == Executed::No,
        },
        FaultKind::TooLarge => Trouble::TooLarge,
        _ if fault.retry_after.is_some() => Trouble::NoSession {
            retry_after: fault.retry_after,
        },
        FaultKind::Connect | FaultKind::ChildNotStarted => Trouble::NoConnection,
        FaultKind::ConnectionLost
        | FaultKind::StreamEnded
        | FaultKind::Timeout
        | FaultKind::SessionLost
        | FaultKind::ChildExited
        | FaultKind::BudgetExhausted => Trouble::NoHead,
        FaultKind::Status
        | FaultKind::RateLimited
        | FaultKind::ContentType
        | FaultKind::BadResponse
        | FaultKind::Overloaded
        | FaultKind::SessionEnded
        | FaultKind::ShuttingDown
        | FaultKind::Cancelled
        | FaultKind::DuplicateId
        | FaultKind::VersionMismatch => Trouble::NoSession { retry_after: None },
    }
}

#[cfg(test)]
mod tests {
    use shadowcat_mcp::fault::Side;
    use shadowcat_sse::reconnect::{Decision, Facts, Leg, classify};

    use super::*;

    fn decision(kind: FaultKind, retry_after: Option<Duration>) -> Decision {
        let fault = Fault::new(Side::Upstream, kind, Executed::No).after(retry_after);
        let repeated = Facts {
            repeated: true,
            ..Facts::default()
        };
        classify(&trouble(&fault), Leg::Standing, repeated)
    }

    /// What does not change by itself is given up at once.
    const LASTING: [FaultKind; 4] = [
        FaultKind::Unauthorized,
        FaultKind::Tls,
        FaultKind::Redirect,
        FaultKind::TooLarge,
    ];

    #[test]
    fn what_does_not_change_by_itself_is_given_up_at_once() {
        for kind in LASTING {
            for retry_after in [None, Some(Duration::from_secs(7))] {
                let decision = decision(kind, retry_after);
                assert!(matches!(decision, Decision::Park(_)), "{kind:?}");
            }
        }
    }

    #[test]
    fn what_may_pass_is_tried_again_and_when_the_server_says() {
        for &kind in FaultKind::ALL {
            if LASTING.contains(&kind) {
                continue;
            }
            let Decision::Return { hint: None, .. } = decision(kind, None) else {
                panic!("{kind:?} is not tried again");
            };
            let wait = Duration::from_secs(7);
            let Decision::Return { hint, .. } = decision(kind, Some(wait)) else {
                panic!("{kind:?} is not tried again");
            };
            assert_eq!(hint.map(|hint| hint.wait), Some(wait), "{kind:?}");
        }
    }
}
