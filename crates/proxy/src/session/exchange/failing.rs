//! What a fault does to a request: it is sent once more, or fails.
//!
//! Which requests may be sent again, and how often, is told in `docs/resilience.md`, "What is sent
//! again, and what never is".

use std::sync::Arc;

use shadowcat_mcp::fault::{Executed, Fault, FaultKind, Side};
use shadowcat_mcp::method::Method;
use shadowcat_sse::reconnect::backoff;
use shadowcat_transport::metrics::Outcome;
use shadowcat_transport::request_span::in_request;
use tokio::time::{Instant, sleep_until};
use tracing::{info, warn};

use super::{Exchange, Outgoing, Phase, Refusal, Session, Step};

impl Exchange {
    /// What a fault means: a second sending where that is safe, else the error.
    pub(super) async fn fault(&mut self, fault: Fault, generation: u64) -> Step {
        let flight = &self.bounds.flight;
        // Whatever becomes of the request: where it was sent to, it needs no cancel any more.
        flight.take_left();
        if flight.is_cancelled() {
            return Step::End;
        }
        // It ended with the session, which may know why.
        if fault.kind == FaultKind::SessionEnded
            && let Some(why) = self.bounds.session.epitaph.get()
        {
            let mut why = why.clone();
            why.executed = fault.executed;
            return self.fail(&why);
        }
        self.sent = false;
        if self.is_refused_again(&fault) {
            return self.fail(
                &Fault::new(Side::Upstream, FaultKind::Status, Executed::Unknown).because(format!(
                    "the request was refused in a new session, too: {}",
                    fault.detail
                )),
            );
        }
        self.in_doubt |= fault.executed == Executed::Unknown;
        let lost = fault.kind.is_session_loss();
        let once = if lost && fault.executed == Executed::No {
            &mut self.renewed
        } else {
            &mut self.repeated
        };
        let again = !std::mem::replace(once, true) && self.may_send_again(&fault);
        if lost && self.method != Method::Initialize {
            self.bounds.session.lost(generation, &fault);
        }
        let again = again && !(lost && self.bounds.session.has_ended());
        let told = self.tell_broken_answer(&fault, again);
        if !again {
            return self.fail_with(&fault, told);
        }
        if lost {
            let session = Arc::clone(&self.bounds.session);
            let now = Instant::now().into_std();
            let not_before =
                (fault.retry_after).map(|wait| Instant::from_std(backoff::after(now, wait)));
            let deadline = self.bounds.deadline.get();
            if not_before.is_some_and(|at| deadline.is_some_and(|deadline| deadline <= at)) {
                return self.fail(&fault);
            }
            let usable = async {
                if let Some(at) = not_before {
                    // The server wants it later, in whichever session.
                    sleep_until(at).await;
                }
                session.usable_leg().await
            };
            match self.bounds.unless_interrupted(usable).await {
                Err(interrupt) => return self.interrupt(interrupt),
                Ok(Err(later)) => return self.fail(&later),
                Ok(Ok(_)) => {}
            }
        }
        self.bounds.session.shared.metrics.requests_repeated.inc();
        self.phase = Phase::Start;
        Step::Again
    }

    /// Logs what the end of the stream that was to bring the answer means for the request; true if it
    /// did. What is told of other failures is for [`Session::log_failure`] to say, and of a
    /// subscription for its stream; a pipe is told of once, by its session, and not for each request.
    fn tell_broken_answer(&self, fault: &Fault, again: bool) -> bool {
        let session = &self.bounds.session;
        let had_stream = matches!(self.phase, Phase::Streaming { .. });
        let told = self.method == Method::Initialize || self.listening.is_some();
        if !had_stream || told || !session.has_response_heads() {
            return false;
        }
        let server = session.shared.upstream.name();
        in_request(|| match again {
            true => info!(server, %fault, "the answer broke off, sending the request once more"),
            false => warn!(server, %fault, "the answer broke off and is lost"),
        });
        true
    }

    /// Whether a server refuses a request in the session that was made for it as in the one before.
    /// What does that may mean the request: the session stays, and nothing is certain.
    fn is_refused_again(&self, fault: &Fault) -> bool {
        self.renewed
            && fault.kind == FaultKind::SessionLost
            && fault.executed == Executed::No
            // Without response heads the session may have ended with its stream.
            && self.bounds.session.has_response_heads()
    }

    /// Whether the rules allow a second sending.
    fn may_send_again(&self, fault: &Fault) -> bool {
        if self.method == Method::Initialize {
            return false;
        }
        if fault.kind.is_session_loss() && fault.executed == Executed::No {
            // The server refused it with its session, or never got it: whatever the method.
            return true;
        }
        let session = &self.bounds.session;
        fault.kind.is_transport_loss()
            && self.is_perhaps_repeated()
            && (self.method.is_safe() || session.is_repeatable_tool(&self.request))
    }

    /// Whether a request of its method may be sent once more after some of its answer has come. Of a
    /// call that depends on its tool, too.
    pub(super) fn is_perhaps_repeated(&self) -> bool {
        let config = &self.bounds.session.shared.config;
        self.method.is_safe() || self.method == Method::ToolsCall && config.retry_idempotent_tools
    }

    /// The error, or the status that says more where a lost session is passed on. `told`: the log knows.
    fn fail_with(&mut self, fault: &Fault, told: bool) -> Step {
        let passed_on = fault.kind.is_session_loss()
            && fault.executed == Executed::No
            && self.method != Method::Initialize
            && self.bounds.session.has_ended();
        if !passed_on {
            return match told {
                true => self.give_fault(fault),
                false => self.fail(fault),
            };
        }
        self.outcome = Outcome::Fault;
        self.finish();
        Step::Give(Outgoing::Refused {
            refusal: Refusal::SessionLost,
            message: fault.to_response(&self.id),
        })
    }

    /// What a fault of the last sending says of the request.
    pub(super) fn in_doubt(&self, fault: &Fault) -> Fault {
        let mut fault = fault.clone();
        if self.in_doubt {
            fault.executed = Executed::Unknown;
        }
        fault
    }

    pub(super) fn fail(&mut self, fault: &Fault) -> Step {
        Session::log_failure(&self.method, fault);
        self.give_fault(fault)
    }

    /// The error in the response's place.
    fn give_fault(&mut self, fault: &Fault) -> Step {
        let fault = self.in_doubt(fault);
        let message = fault.to_response(&self.id);
        let status = fault.status_of(self.bounds.session.era, &self.method);
        self.give_error(status, fault.headers(status).into(), message)
    }
}
