//! How soon an answer is asked for again when the stream that was resumed for it stays silent.
//!
//! A server whose resumed streams bring nothing but what its store holds by then has the answer
//! all the same: it is to be fetched in seconds, and not by asking all the time.

use std::time::Duration;

use super::pace::{HOLDS, is_held_up};
use crate::ledger::{Call, CallKey, Facts, Fate, StreamFate, Visit};
use crate::plan::{Plan, Transport};
use crate::run::HINT_MAX;

/// The silence after which the first question comes, and the longest.
pub(super) const SOON: Duration = Duration::from_secs(2);
const RARE: Duration = Duration::from_secs(10);
/// The longest where the server said that it still holds the stream that it had (409).
const HELD: Duration = Duration::from_secs(30);
/// The shortest time from the end of the old connection to the question, and the jitter.
const PAUSE: Duration = Duration::from_millis(250);
const JITTER: Duration = Duration::from_millis(200);
/// Standing in line, and arithmetic.
const SLACK: Duration = Duration::from_millis(300);
/// The longest wait after a silence that counted as death.
const LONGEST_WAIT: Duration = Duration::from_secs(39);

pub(super) fn judge(plan: &Plan, facts: &Facts, found: &mut Vec<String>) {
    if plan.server.transport != Transport::Streamable {
        return;
    }
    for (key, call) in &facts.calls {
        let wanted = &plan.clients[key.client].calls[key.number];
        for (number, get) in call.gets.iter().enumerate() {
            if !stays_silent(get) || wanted.is_heavy() {
                continue;
            }
            let next = call.gets.get(number + 1);
            let came_back = wanted.client_cuts.is_empty();
            let ended = call.outcomes.first().filter(|_| came_back);
            let Some(until) = next.map(|get| get.at).or(ended.map(|(at, _)| *at)) else {
                continue;
            };
            if is_disturbed(plan, facts, get, until) {
                continue;
            }
            let silent = until - get.at;
            if next.is_some() && silent < SOON + PAUSE {
                found.push(format!(
                    "{key} was asked for again after {silent:?}: {get:?}"
                ));
            }
            let most = most(plan, *key, call);
            if plan.server.store_only && silent > most {
                found.push(format!(
                    "{key} was not asked for again for {silent:?}, more than {most:?}: {get:?}"
                ));
            }
        }
    }
}

/// A stream that was open, did not break, and did not bring the answer.
pub(super) fn stays_silent(get: &Visit) -> bool {
    matches!(
        get.fate,
        Fate::Stream(StreamFate {
            opened: true,
            broke: None,
            answered: false,
            polled: false,
            ..
        })
    )
}

/// Something else may have ended the stream, or kept the next one away.
fn is_disturbed(plan: &Plan, facts: &Facts, get: &Visit, until: Duration) -> bool {
    let before = get.at.saturating_sub(HOLDS);
    let failed = |at: &Duration| (before..=until).contains(at);
    let lost = facts
        .sessions
        .get(&get.session)
        .and_then(|session| session.lost);
    facts.dials_failed.iter().any(failed)
        || facts.resets.iter().any(failed)
        || lost.is_some_and(|lost| lost <= until)
        || is_held_up(plan, facts, get, (get.at, until))
}

/// Whether the answer on this stream and the proxy's end of it, because it was silent, met on the way.
pub(super) fn crossed(
    plan: &Plan,
    facts: &Facts,
    key: CallKey,
    answered: &Visit,
    next: &Visit,
) -> bool {
    let Fate::Stream(StreamFate {
        answered_at: Some(at),
        ..
    }) = answered.fate
    else {
        return false;
    };
    let far = !plan.upstream_wire[1].latency.is_zero();
    let silent = answered.cursor.is_some() && at >= answered.at + SOON - travel(plan);
    let mut refused = facts.dials_failed.iter();
    let in_time = next.at <= at + pause(plan, key) + 2 * travel(plan) + SLACK
        || refused.any(|when| (at..=next.at).contains(when));
    far && silent && in_time
}

/// How long after one question the next may come at most.
fn most(plan: &Plan, key: CallKey, call: &Call) -> Duration {
    let (pause, travel) = (pause(plan, key), travel(plan));
    let conflict = |get: &Visit| get.fate == Fate::Status(409);
    let pace = match call.gets.iter().any(conflict) {
        true => HELD,
        false => RARE,
    };
    // It is not to be away for more than a quarter of the time because of that.
    let pace = pace.max(3 * (pause + travel + SLACK));
    // Then the silence counts as death, and the way back is that of a broken stream.
    let dead = plan.idle_timeout + LONGEST_WAIT;
    let alive = pace + pause + 2 * travel + SLACK;
    if plan.idle_timeout <= pace {
        alive.max(dead)
    } else {
        alive
    }
}

/// From the end of one connection to the question that follows, at most.
fn pause(plan: &Plan, key: CallKey) -> Duration {
    let retry = plan.stream_retry(Some(key)).map(Duration::from_millis);
    retry.unwrap_or(PAUSE).clamp(PAUSE, HINT_MAX) + JITTER
}

/// What a connection and a request on it take.
fn travel(plan: &Plan) -> Duration {
    let [proxy, server] = plan.upstream_wire;
    2 * proxy.latency + 2 * server.latency
}
