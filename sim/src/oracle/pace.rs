//! How often and how soon the server is visited again.

use std::time::Duration;

use crate::fault::How;
use crate::ledger::{Facts, Fate, Visit};
use crate::plan::Plan;
use crate::run::HINT_MAX;

/// The shortest time between two attempts of one stream, unless it was open for a second.
const MIN_INTERVAL: Duration = Duration::from_millis(250);
/// What arithmetic with milliseconds may be off by.
const TICK: Duration = Duration::from_millis(5);

pub(super) fn judge(plan: &Plan, facts: &Facts, found: &mut Vec<String>) {
    for (key, call) in &facts.calls {
        for pair in call.posts.windows(2) {
            hinted(&format!("{key}'s POST"), &pair[0], &pair[1], found);
        }
        // The answer is on the POST's stream or on one of its successors.
        let visits: Vec<_> = call.posts.iter().chain(&call.gets).collect();
        if let Some(answered) = visits.iter().find(|visit| is_answered(visit))
            && let Some(after) = call
                .gets
                .iter()
                .find(|get| get.at > answered.until + plan.upstream_wire[0].latency)
        {
            found.push(format!(
                "{key} was resumed at {:?} though its response had been sent",
                after.at
            ));
        }
        stream(&format!("{key}'s GET"), &call.gets, found);
    }
    for (name, session) in &facts.sessions {
        let what = format!("the GET of {name}");
        stream(&what, &session.gets, found);
        for pair in session.gets.windows(2) {
            if matches!(pair[0].fate, Fate::Status(405 | 204)) {
                found.push(format!("{what} came again after {:?}", pair[0].fate));
            }
        }
    }
}

/// Nothing more can be expected of a standalone stream in this session.
pub(super) fn is_final_for_standing(fate: &Fate) -> bool {
    match fate {
        Fate::Status(status) => !matches!(status, 408 | 409 | 425 | 429 | 500 | 502 | 503 | 504),
        Fate::Redirected { good } => !good,
        _ => false,
    }
}

fn is_answered(visit: &Visit) -> bool {
    matches!(&visit.fate, Fate::Stream(stream) if stream.answered)
}

/// The number in an id of the server's.
fn position(visit: &Visit) -> Option<u64> {
    visit.cursor.as_deref()?.rsplit_once('/')?.1.parse().ok()
}

fn stream(what: &str, gets: &[Visit], found: &mut Vec<String>) {
    for pair in gets.windows(2) {
        if pair[0].session == pair[1].session && position(&pair[1]) < position(&pair[0]) {
            let (before, after) = (&pair[0].cursor, &pair[1].cursor);
            found.push(format!("{what} went back from {before:?} to {after:?}"));
        }
        hinted(what, &pair[0], &pair[1], found);
        let settled = pair[0].until >= pair[0].at + Duration::from_secs(1);
        let followed = matches!(pair[0].fate, Fate::Redirected { .. });
        if !settled && !followed && pair[1].at + TICK < pair[0].at + MIN_INTERVAL {
            found.push(format!(
                "{what} came {:?} after the one before",
                pair[1].at - pair[0].at
            ));
        }
    }
}

/// A server that asked for time gets it.
fn hinted(what: &str, before: &Visit, after: &Visit, found: &mut Vec<String>) {
    if let Fate::Busy {
        seconds: Some(seconds),
        ..
    } = before.fate
    {
        let asked = Duration::from_secs(seconds).min(HINT_MAX);
        if after.at + TICK < before.until + asked {
            found.push(format!(
                "{what} came {:?} after a Retry-After of {seconds} s",
                after.at - before.until
            ));
        }
    }
}

/// One return of a stream.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Recovery {
    /// From the break to the next visit.
    pub(crate) took: Duration,
    /// What the policy may have asked for at most.
    pub(crate) policy: Duration,
}

/// How long streams were away that broke once and found the server there.
pub(crate) fn recoveries(plan: &Plan, facts: &Facts) -> Vec<Recovery> {
    let mut all = Vec::new();
    let calls = facts.calls.values().map(|call| {
        let last = call.posts.last().into_iter();
        last.chain(&call.gets).collect::<Vec<_>>()
    });
    let sessions = facts
        .sessions
        .values()
        .map(|session| session.gets.iter().collect::<Vec<_>>());
    for visits in calls.chain(sessions) {
        for pair in visits.windows(2) {
            all.extend(recovery(plan, facts, pair[0], pair[1]));
        }
    }
    all
}

fn recovery(plan: &Plan, facts: &Facts, before: &Visit, after: &Visit) -> Option<Recovery> {
    let Fate::Stream(stream) = &before.fate else {
        return None;
    };
    let (broke, how) = stream.broke?;
    let productive = stream.new_messages > 0;
    let waits = plan.client_wire[0].pace + plan.upstream_wire[0].pace;
    let away = facts
        .dials_failed
        .iter()
        .any(|at| (broke..=after.at).contains(at));
    if how == How::Silence || !productive || away || !waits.is_zero() || after.at < broke {
        return None;
    }
    let initial = Duration::from_millis(300);
    let asked = plan.server.retry.map(|ms| {
        Duration::from_millis(ms).clamp(MIN_INTERVAL, HINT_MAX) + Duration::from_millis(200)
    });
    Some(Recovery {
        took: (after.at - broke).saturating_sub(3 * plan.upstream_wire[0].latency),
        policy: asked.unwrap_or(initial).max(MIN_INTERVAL),
    })
}
