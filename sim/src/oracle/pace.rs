//! How often and how soon the server is visited again.

use std::time::Duration;

use super::silence;
use crate::fault::How;
use crate::ledger::{CallKey, Facts, Fate, StreamFate, Visit};
use crate::plan::{Framing, Plan, Transport};
use crate::run::HINT_MAX;

/// The shortest time between two attempts of one stream, unless it was open for a second.
const MIN_INTERVAL: Duration = Duration::from_millis(250);
/// What arithmetic with milliseconds may be off by.
pub(super) const TICK: Duration = Duration::from_millis(5);

/// How much later than its policy asks for a stream may be back.
const LATE: Duration = Duration::from_millis(50);

pub(super) fn judge(plan: &Plan, facts: &Facts, found: &mut Vec<String>) {
    for recovery in recoveries(plan, facts) {
        if recovery.waited + TICK < recovery.least {
            let (before, after) = recovery.visits;
            found.push(format!(
                "the visit at {after:?} that followed that at {before:?} was early: {recovery:?}"
            ));
        }
        if recovery.late() > LATE {
            let (before, after) = recovery.visits;
            found.push(format!(
                "the visit at {after:?} that followed that at {before:?} was late: {recovery:?}"
            ));
        }
    }
    starts(plan, facts, found);
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
                .filter(|get| !silence::crossed(plan, facts, *key, answered, get))
        {
            found.push(format!(
                "{key} was resumed at {:?} though its response had been sent",
                after.at
            ));
        }
        stream(plan, &format!("{key}'s GET"), &call.gets, found);
    }
    for (name, session) in &facts.sessions {
        let what = format!("the GET of {name}");
        stream(plan, &what, &session.gets, found);
        for pair in session.gets.windows(2) {
            if matches!(pair[0].fate, Fate::Status(405 | 204)) {
                found.push(format!("{what} came again after {:?}", pair[0].fate));
            }
        }
    }
}

/// A process that ends again and again without having been of use is started ever later. Whose a
/// process is that ends before it is spoken to is known where there is one client only, and from
/// then on when it has its session.
fn starts(plan: &Plan, facts: &Facts, found: &mut Vec<String>) {
    if plan.server.transport != Transport::Stdio || plan.clients.len() > 1 {
        return;
    }
    let opened = |visit: &Visit| matches!(&visit.fate, Fate::Stream(stream) if stream.opened);
    let Some(first) = facts.openings.iter().position(opened) else {
        return;
    };
    let mut in_vain = 0;
    for (n, pair) in facts.openings[first..].windows(2).enumerate() {
        let (before, after) = (&pair[0], &pair[1]);
        let (ended, useful) = match &before.fate {
            Fate::Stream(stream) => match stream.broke {
                Some((ended, _)) => {
                    let long = ended >= before.at + Duration::from_secs(30);
                    (ended, stream.new_messages > 0 || long)
                }
                // It was ended; since when nothing was hoped of it is not known.
                None => (before.at, true),
            },
            _ => (before.until, false),
        };
        // What the first one answered to the handshake went to the client.
        in_vain = if useful || n == 0 { 0 } else { in_vain + 1 };
        let short = ended < before.at + Duration::from_secs(1);
        let spaced = before.at + if short { MIN_INTERVAL } else { Duration::ZERO };
        let least = (ended + own_delay(in_vain)).max(spaced);
        if after.at + TICK < least {
            found.push(format!(
                "the process started at {:?} followed that of {:?}, which ended at {ended:?}, \
                 {in_vain} in a row without use",
                after.at, before.at
            ));
        }
    }
}

/// What the policy waits at least after so many attempts in vain.
fn own_delay(in_vain: u32) -> Duration {
    match in_vain {
        0 => Duration::ZERO,
        n => Duration::from_secs(1 << (n - 1).min(5)).min(Duration::from_secs(30)),
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

/// The stream and the number in an id of the server's.
fn position(visit: &Visit) -> Option<(&str, u64)> {
    let (stream, number) = visit.cursor.as_deref()?.rsplit_once('/')?;
    Some((stream, number.parse().ok()?))
}

/// Whether `after` asks for less of the same stream than `before` had.
fn went_back(before: &Visit, after: &Visit) -> bool {
    match (position(before), position(after)) {
        (Some((one, had)), Some((other, asks))) => one == other && asks < had,
        _ => false,
    }
}

fn stream(plan: &Plan, what: &str, gets: &[Visit], found: &mut Vec<String>) {
    // An attempt on a connection that is open already arrives sooner than one that makes its own.
    let least = MIN_INTERVAL.saturating_sub(2 * plan.upstream_wire[0].latency + TICK);
    // When the attempt began; what follows a redirect belongs to it.
    let mut began = None;
    for pair in gets.windows(2) {
        let redirected = matches!(pair[0].fate, Fate::Redirected { .. });
        let first = *began.get_or_insert(pair[0].at);
        if went_back(&pair[0], &pair[1]) {
            let (before, after) = (&pair[0].cursor, &pair[1].cursor);
            found.push(format!("{what} went back from {before:?} to {after:?}"));
        }
        hinted(what, &pair[0], &pair[1], found);
        let settled = pair[0].until >= pair[0].at + Duration::from_secs(1);
        if !settled && !redirected && pair[1].at < first + least {
            found.push(format!(
                "{what} came {:?} after the one before",
                pair[1].at - pair[0].at
            ));
        }
        if !redirected {
            began = None;
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
    /// When the visit before was made, and the one that came back.
    pub(crate) visits: (Duration, Duration),
    /// From the break, or the failed attempt, to the next visit.
    pub(crate) waited: Duration,
    /// The same without what the way to the server takes.
    pub(crate) took: Duration,
    /// What the policy asks for at least.
    pub(crate) least: Duration,
    /// What it may have asked for at most.
    pub(crate) policy: Duration,
}

impl Recovery {
    /// How much later than the policy asks for.
    pub(crate) fn late(&self) -> Duration {
        self.took.saturating_sub(self.policy)
    }
}

/// How soon streams were back: each return to a server that could be reached, and that was held up
/// by nothing but the policy of its own stream.
pub(crate) fn recoveries(plan: &Plan, facts: &Facts) -> Vec<Recovery> {
    let mut all = Vec::new();
    if facts.one_log {
        // Which stream was the first with an event that names no call, only the proxy knows.
        return all;
    }
    let calls = facts.calls.iter().map(|(key, call)| {
        let mut visits: Vec<_> = call.posts.iter().chain(&call.gets).collect();
        visits.sort_by_key(|visit| visit.order);
        (Subject::to(plan, *key), visits)
    });
    let mut sessions: Vec<Vec<_>> = facts
        .sessions
        .values()
        .map(|session| session.gets.iter().collect())
        .collect();
    if !plan.server.sessions {
        // Without sessions there is one stream, whatever the server has forgotten meanwhile.
        let mut visits = sessions.concat();
        visits.sort_by_key(|visit: &&Visit| visit.order);
        sessions = vec![visits];
    }
    let sessions = sessions
        .into_iter()
        .map(|visits| (Subject::standing(plan), visits));
    for (subject, mut visits) in calls.chain(sessions) {
        if plan.server.transport == Transport::Modern && !subject.is_answer {
            // Until it has been opened a subscription is a request like others.
            let opened =
                |visit: &&Visit| matches!(&visit.fate, Fate::Stream(stream) if stream.opened);
            let first = visits.iter().position(opened).unwrap_or(visits.len());
            visits.drain(..first);
        }
        let mut known = Known::default();
        for pair in visits.windows(2) {
            // A POST begins anew.
            let is_post = |visit: &Visit| visit.cursor.is_none() && subject.is_answer;
            if is_post(pair[0]) {
                known = Known::default();
            }
            if is_post(pair[1]) {
                continue;
            }
            let step = Step {
                plan,
                facts,
                asked: subject.retry,
                is_answer: subject.is_answer,
                before: pair[0],
                after: pair[1],
            };
            step.count(&mut known);
            // Attempts that did not reach the server count too, but whose they were is not known.
            let since = known.productive_at;
            let failed = |at: &Duration| *at + Duration::from_secs(1) >= since && *at <= pair[1].at;
            let far = plan
                .upstream_wire
                .iter()
                .any(|wire| !wire.latency.is_zero());
            let unseen =
                facts.dials_failed.iter().any(failed) || far && facts.resets.iter().any(failed);
            if !subject.heavy && !unseen {
                all.extend(step.recovery(&known));
            }
        }
    }
    all
}

/// What kind of stream it is.
struct Subject {
    is_answer: bool,
    /// It brings more than its way to the client holds, so that it may have to wait there.
    heavy: bool,
    retry: Option<u64>,
}

impl Subject {
    fn to(plan: &Plan, key: CallKey) -> Self {
        let call = &plan.clients[key.client].calls[key.number];
        let far = plan.client_wire.iter().any(|wire| !wire.latency.is_zero());
        Self {
            is_answer: true,
            heavy: call.is_heavy() && (far || call.client_cuts.iter().any(|cut| cut.takes_over)),
            retry: plan.stream_retry(Some(key)),
        }
    }

    fn standing(plan: &Plan) -> Self {
        Self {
            is_answer: false,
            heavy: false,
            retry: plan.stream_retry(None),
        }
    }
}

/// What a stream's policy knows by now.
#[derive(Default)]
struct Known {
    /// Unproductive connections in a row, at least and at most.
    least: u32,
    most: u32,
    /// The last connection that was productive.
    productive_at: Duration,
    /// The last connection was ended by the server in order, to be polled.
    polled: bool,
    /// The server's `retry`, if it may have come, and if it certainly has.
    retry: Option<Duration>,
    sure_retry: Option<Duration>,
}

struct Step<'a> {
    plan: &'a Plan,
    facts: &'a Facts,
    /// The server's `retry` on this stream.
    asked: Option<u64>,
    is_answer: bool,
    before: &'a Visit,
    after: &'a Visit,
}

impl Step<'_> {
    fn count(&self, known: &mut Known) {
        known.polled = false;
        match &self.before.fate {
            Fate::Stream(stream) => {
                let asked = self
                    .asked
                    .map(|ms| Duration::from_millis(ms).clamp(MIN_INTERVAL, HINT_MAX));
                known.retry = asked.or(known.retry);
                if stream.opened {
                    known.sure_retry = asked.or(known.sure_retry);
                }
                self.count_stream(known, stream, asked.is_some());
            }
            Fate::Redirected { .. } => {}
            _ => {
                known.least += 1;
                known.most += 1;
            }
        }
    }

    fn count_stream(&self, known: &mut Known, stream: &StreamFate, hinted: bool) {
        let long = Duration::from_secs(30);
        let (how, productive) = match stream.broke {
            Some((at, how)) if how != How::Silence => (Some(how), at >= self.before.at + long),
            // The proxy closed it itself, when is not known.
            _ => (None, false),
        };
        if productive || stream.new_messages > 0 {
            (known.least, known.most) = (0, 0);
            known.productive_at = self.before.at;
        }
        let in_order = match how {
            Some(How::End) => true,
            Some(How::Close) => self.plan.server.framing == Framing::UntilClose,
            _ => false,
        };
        // Where nothing can be resumed, no end is a server's wish to be polled.
        let pollable = self.plan.server.transport != Transport::Modern;
        let polled = |directed| stream.polled || directed && in_order && pollable;
        known.polled = polled(stream.new_ids || hinted);
        if productive || stream.new_messages > 0 {
            return;
        }
        match how {
            None => {
                let reset = |at: &Duration| (self.before.at..=self.after.at).contains(at);
                let reset = self.facts.resets.iter().any(reset);
                known.most += u32::from(!stream.opened || reset);
                if self.after.at >= self.before.at + long {
                    known.least = 0;
                }
            }
            Some(_) => {
                known.least += u32::from(!known.polled);
                known.most += u32::from(!polled(stream.new_ids || hinted && stream.opened));
            }
        }
    }

    fn recovery(&self, known: &Known) -> Option<Recovery> {
        let (from, floor) = match &self.before.fate {
            Fate::Stream(stream) => match stream.broke? {
                (_, How::Silence) => return None,
                // Perhaps the proxy had closed it by then, because it was silent.
                (at, _) if self.may_be_closed(at) => return None,
                (at, _) => (at, Duration::ZERO),
            },
            Fate::NoHead => (self.before.until, Duration::ZERO),
            fate if is_final_for_standing(fate) => return None,
            Fate::Status(409) => (self.before.until, Duration::from_secs(5)),
            Fate::Status(_) => (self.before.until, Duration::ZERO),
            Fate::Busy { seconds, .. } => {
                let asked = Duration::from_secs(seconds.unwrap_or(0)).min(HINT_MAX);
                (self.before.until, asked + Duration::from_millis(300))
            }
            _ => return None,
        };
        if is_held_up(self.plan, self.facts, self.before, (from, self.after.at)) {
            return None;
        }
        let delay = own_delay(known.most).max(known.retry.unwrap_or_default());
        let jitter = match known.most {
            0 if known.retry.is_none() => Duration::from_millis(300),
            0 => Duration::from_millis(200),
            _ => delay.mul_f64(0.3),
        };
        let least = own_delay(if known.polled { 0 } else { known.least });
        Some(Recovery {
            visits: (self.before.at, self.after.at),
            waited: self.after.at - from,
            took: (self.after.at - from).saturating_sub(self.travel()),
            least: least.max(known.sure_retry.unwrap_or_default()),
            policy: (delay + jitter).max(MIN_INTERVAL).max(floor),
        })
    }

    /// Whether the news of a break at `at` may have met the proxy's own close on its way.
    fn may_be_closed(&self, at: Duration) -> bool {
        let way = self.plan.upstream_wire[0].latency + self.plan.upstream_wire[1].latency;
        let patience = match self.before.cursor {
            Some(_) if self.is_answer => silence::SOON.min(self.plan.idle_timeout),
            _ => self.plan.idle_timeout,
        };
        !way.is_zero() && at + way >= self.before.at + patience
    }

    /// What the way to the server and back takes: the break must become known, a connection be
    /// made, the request arrive, in small pieces perhaps.
    fn travel(&self) -> Duration {
        let [proxy, server] = self.plan.upstream_wire;
        2 * proxy.latency + 2 * server.latency
    }
}

/// How long what held everything up may be felt.
pub(super) const HOLDS: Duration = Duration::from_secs(1);

/// Something besides the stream's own policy kept it away after this visit: the server asked the
/// whole proxy to wait, or everything dropped at once; or a break could not be noticed, because what
/// came before was still being read.
pub(super) fn is_held_up(
    plan: &Plan,
    facts: &Facts,
    before: &Visit,
    (from, to): (Duration, Duration),
) -> bool {
    let sessions = || facts.sessions.values();
    let forgotten = sessions().filter_map(|session| session.lost);
    let mut drops = facts.resets.iter().copied().chain(forgotten);
    let herd = drops.any(|at| at + HOLDS >= from && at <= to);
    let calls = facts.calls.values();
    let gets = calls.flat_map(|call| call.posts.iter().chain(&call.gets));
    let handshakes = facts.handshakes.values().flatten();
    let standing = sessions().flat_map(|session| &session.gets);
    let mut others = gets.chain(handshakes).chain(standing);
    let held = others.any(|visit| match visit.fate {
        Fate::Busy {
            status: 503,
            seconds: Some(seconds),
        } => {
            let until = visit.until + Duration::from_secs(seconds).min(HINT_MAX);
            !std::ptr::eq(visit, before) && visit.until <= to && until + HOLDS >= from
        }
        _ => false,
    });
    let wires = plan.client_wire.iter().chain(&plan.upstream_wire);
    let slow = wires.into_iter().any(|manner| !manner.pace.is_zero());
    herd || held || slow || to < from
}
