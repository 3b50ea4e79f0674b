//! The faults of an HTTP upstream: what the engine concluded, in the words of the last failure.

use shadowcat_mcp::fault::{Executed, Fault, FaultKind, Side};
use shadowcat_sse::reconnect;
use shadowcat_sse::reconnect::fault as engine;
use shadowcat_sse::reconnect::{Decision, Facts, Leg, Trouble, classify};

use super::driver::Failure;

/// All event streams that `--max-connections` allows are open.
pub(crate) fn overloaded() -> Fault {
    Fault::new(Side::Shadowcat, FaultKind::Overloaded, Executed::No)
        .because("all event streams that --max-connections allows are in use")
}

/// A message that wants no reply was given where a request belongs: a mistake of the caller's.
pub(crate) fn not_a_request() -> Fault {
    Fault::new(Side::Shadowcat, FaultKind::BadResponse, Executed::No)
        .because("only a request has a reply")
}

/// What the engine gave up with, as the client reads it; `last` is what it gave up on.
pub(crate) fn concluded(fault: &reconnect::Fault, last: Option<&Failure>) -> Fault {
    let side = match fault.kind.side() {
        engine::Side::Local => Side::Shadowcat,
        engine::Side::Remote => Side::Upstream,
    };
    let executed = match fault.executed {
        reconnect::Executed::No => Executed::No,
        reconnect::Executed::Unknown => Executed::Unknown,
    };
    let error = last.and_then(|last| last.error.clone());
    let concluded = Fault::new(side, kind(fault.kind), executed)
        .because(words(fault, last))
        .after(fault.retry_after);
    match error.filter(|_| fault.kind == reconnect::FaultKind::Status) {
        Some(error) => concluded.relaying(error),
        None => concluded,
    }
}

/// The fault of a POST that failed so and is not sent again.
pub(crate) fn final_one(failure: &Failure) -> Fault {
    let (kind, executed) = match classify(&failure.trouble, Leg::Post, Facts::default()) {
        Decision::Fail(kind, executed) => (kind, executed),
        Decision::SendAgain { or, .. } => (or, reconnect::Executed::No),
        Decision::SessionLost => (reconnect::FaultKind::SessionLost, reconnect::Executed::No),
        // Not for a POST.
        Decision::Return { .. } | Decision::DropCursor | Decision::Park(_) => (
            reconnect::FaultKind::StreamEnded,
            reconnect::Executed::Unknown,
        ),
    };
    let mut fault = reconnect::Fault::new(kind, executed);
    if let Trouble::Refused(refusal) = failure.trouble {
        fault.status = Some(refusal.status);
        fault.retry_after = refusal.retry_after;
    }
    concluded(&fault, Some(failure))
}

fn kind(kind: reconnect::FaultKind) -> FaultKind {
    use reconnect::FaultKind as Engine;
    match kind {
        Engine::Connect => FaultKind::Connect,
        Engine::Tls => FaultKind::Tls,
        Engine::ConnectionLost => FaultKind::ConnectionLost,
        // Why there is no way back makes no difference to the client.
        Engine::StreamEnded | Engine::CursorRejected | Engine::NotResumable => {
            FaultKind::StreamEnded
        }
        Engine::RateLimited => FaultKind::RateLimited,
        Engine::Status => FaultKind::Status,
        Engine::Unauthorized => FaultKind::Unauthorized,
        Engine::SessionLost => FaultKind::SessionLost,
        Engine::ContentType => FaultKind::ContentType,
        Engine::BadResponse => FaultKind::BadResponse,
        Engine::TooLarge => FaultKind::TooLarge,
        Engine::Redirect => FaultKind::Redirect,
        Engine::Overloaded => FaultKind::Overloaded,
        Engine::BudgetExhausted => FaultKind::BudgetExhausted,
    }
}

fn words(fault: &reconnect::Fault, last: Option<&Failure>) -> String {
    use reconnect::FaultKind as Engine;
    let detail = last.map_or("", |last| last.detail.as_str());
    let status = fault.status.unwrap_or_default();
    match fault.kind {
        Engine::StreamEnded => {
            format!("the event stream ended without the response: {detail}")
        }
        Engine::CursorRejected => format!(
            "the event stream broke before the response, and the server refuses to resume it \
             ({status})"
        ),
        Engine::NotResumable => format!(
            "the event stream broke before the response, and the server cannot resume it ({status})"
        ),
        Engine::BudgetExhausted => format!(
            "the event stream broke before the response, and every attempt to resume it failed; \
             the last one: {detail}"
        ),
        Engine::SessionLost => {
            format!("the server answered {status}: it does not know the session any more")
        }
        Engine::Overloaded => {
            "too many large messages of the server are being read at once".to_owned()
        }
        Engine::Connect | Engine::Tls => match last.and_then(|last| last.advice) {
            Some(advice) => format!("{detail}; {advice}"),
            None => detail.to_owned(),
        },
        _ => detail.to_owned(),
    }
}
