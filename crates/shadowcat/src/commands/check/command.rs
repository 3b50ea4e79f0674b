//! A command, which is started once where one process can tell everything.
//!
//! `server/discover` comes first, because it is what a legacy server refuses and then forgets: the
//! same process takes `initialize` after it. A second process is needed only after a server that
//! answered it, as a modern one may hold its connection to that, and after one that ended over it.

use std::pin::pin;
use std::time::Duration;

use shadowcat_mcp::build;
use shadowcat_mcp::fault::{Fault, FaultKind};
use shadowcat_mcp::handshake::DiscoverResult;
use shadowcat_mcp::message::Message;
use shadowcat_mcp::version::Era;
use shadowcat_transport::upstream::{Leg, Upstream, ask};
use tokio::time::{Instant, sleep_until, timeout_at};

use super::eras::{self, Legacy, Patience, SILENCE};
use super::findings::EraFindings;

/// How much later than `initialize` a server may still answer `server/discover`.
const LATE: Duration = Duration::from_millis(500);

/// What a command says in both eras. No legacy findings: it said nothing until `end`.
pub(super) async fn probe(
    upstream: &dyn Upstream,
    end: Instant,
) -> (Option<Legacy>, Option<EraFindings>) {
    let asked = Instant::now();
    let leg = upstream.leg(Era::Legacy);
    let first = first_process(&*leg, end).await;
    leg.close().await;
    let modern = match first {
        First::All(legacy) => return (legacy, None),
        First::Modern(modern) => Some(modern),
        First::Ended => None,
    };
    let answer = match &modern {
        // It may say nothing to `initialize`, once it has started.
        Some(_) => end.min(Instant::now() + asked.elapsed() + SILENCE),
        None => end,
    };
    let leg = upstream.leg(Era::Legacy);
    let legacy = eras::legacy(&*leg, false, Patience { answer, end }).await;
    leg.close().await;
    (legacy, modern)
}

/// What the first process told.
enum First {
    /// That it is not modern, and what it says as a legacy server.
    All(Option<Legacy>),
    /// That it is modern, but not whether it is legacy, too.
    Modern(EraFindings),
    /// Nothing: it ended, perhaps over a question that it does not know.
    Ended,
}

async fn first_process(leg: &dyn Leg, end: Instant) -> First {
    let (discovered, initialized) = questions(leg, end).await;
    if let Some(Ok(response)) = &discovered
        && let Some(modern) = eras::discovered(leg, response, end).await
    {
        return First::Modern(modern);
    }
    match (discovered, initialized) {
        (Some(Err(fault)), _) | (_, Some(Err(fault))) => match fault.kind {
            // It would not be otherwise a second time.
            FaultKind::ChildNotStarted => First::All(Some(Err(eras::explain(&fault)))),
            _ => First::Ended,
        },
        (_, Some(Ok(response))) => {
            First::All(Some(eras::shake_hands(leg, &response, false, end).await))
        }
        (_, None) => First::All(None),
    }
}

type Answer = Result<Message, Fault>;

/// The answers to `server/discover` and to `initialize`, as far as they came. What answers the
/// first as a modern server, or fails, is not asked the second, unless it took its time: it may be
/// starting still, or be a legacy server that ignores what it does not know.
async fn questions(leg: &dyn Leg, end: Instant) -> (Option<Answer>, Option<Answer>) {
    let now = Instant::now();
    let soon = now + SILENCE.min(end.saturating_duration_since(now) / 2);
    let mut discover = pin!(ask(leg, build::discover(), end));
    let mut discovered = timeout_at(soon, &mut discover).await.ok();
    if discovered.as_ref().is_some_and(says_enough) {
        return (discovered, None);
    }
    let mut initialize = pin!(eras::initialize(leg, end));
    loop {
        tokio::select! {
            biased;
            answer = &mut discover, if discovered.is_none() => {
                if says_enough(&answer) {
                    return (Some(answer), None);
                }
                discovered = Some(answer);
            }
            answer = &mut initialize => {
                if discovered.is_none() {
                    let late = end.min(Instant::now() + LATE);
                    discovered = timeout_at(late, discover).await.ok();
                }
                return (discovered, Some(answer));
            }
            () = sleep_until(end) => return (discovered, None),
        }
    }
}

/// Whether `initialize` need not be asked after this answer to `server/discover`.
fn says_enough(discovered: &Answer) -> bool {
    match discovered {
        Ok(response) => DiscoverResult::read(response).is_some(),
        Err(_) => true,
    }
}
