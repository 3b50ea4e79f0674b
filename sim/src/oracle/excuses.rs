//! When a request may fail: the rules of recovery, read from what the server saw and did.

use std::time::Duration;

use super::answers_are_read;
use super::pace::TICK;
use super::silence;
use crate::fault::How;
use crate::ledger::{Call, ErrorSeen, Facts, Fate, SessionFacts, StreamFate, Visit};
use crate::plan::{CallPlan, Plan, Transport};
use crate::run::HINT_MAX;

/// How long a session that cannot be had is not tried again.
const LONGEST_PROBE: Duration = Duration::from_secs(75);

/// How long a request waits for the next attempt to restore its session.
const SESSION_PATIENCE: Duration = Duration::from_secs(10);

/// How long it waits for its session in all.
const LONGEST_PATIENCE: Duration = Duration::from_secs(45);

/// Failed attempts in a row after which a stream may be given up.
const BUDGET: usize = 10;

/// The longest wait that the policy knows, jitter included.
const LONGEST_WAIT: Duration = Duration::from_secs(40);

/// A request that failed.
pub(super) struct Failed<'a> {
    pub(super) plan: &'a Plan,
    pub(super) facts: &'a Facts,
    pub(super) client: usize,
    pub(super) wanted: &'a CallPlan,
    pub(super) call: &'a Call,
    pub(super) at: Duration,
    pub(super) error: &'a ErrorSeen,
}

type Excuse = Option<&'static str>;

impl Failed<'_> {
    /// Why this error is in order; `None` if the request should have succeeded.
    pub(super) fn excuse(&self) -> Excuse {
        if self.error.kind.as_deref() == Some("timeout") {
            let excuse = self.by_its_deadline();
            // Else it was the deadline of a handshake that it waited for.
            let waited = self.call.posts.is_empty() && self.is_said_not_to_be_executed();
            if excuse.is_some() || !waited {
                return excuse;
            }
        }
        self.by_its_process()
            .or_else(|| self.by_its_patience())
            .or_else(|| match self.call.posts.last() {
                None => self.by_never_arriving(),
                Some(last) => self
                    .on_the_way(last)
                    .or_else(|| self.by_its_last_visit(last)),
            })
    }

    fn sent(&self) -> Duration {
        self.call.sent.unwrap_or_default()
    }

    /// Whether it was while the request was open.
    fn is_meanwhile(&self, when: Duration) -> bool {
        (self.sent()..=self.at).contains(&when)
    }

    fn failed_dials(&self) -> usize {
        let dials = self.facts.dials_failed.iter();
        dials.filter(|when| self.is_meanwhile(**when)).count()
    }

    /// All connections were reset meanwhile.
    fn was_reset(&self) -> bool {
        let mut resets = self.facts.resets.iter();
        resets.any(|when| self.is_meanwhile(*when))
    }

    fn is_said_not_to_be_executed(&self) -> bool {
        self.error.executed.as_deref() == Some("no")
    }

    fn is_safe(&self) -> bool {
        self.wanted.method != "tools/call"
    }

    fn by_its_deadline(&self) -> Excuse {
        let Self {
            plan,
            facts,
            client,
            wanted,
            call,
            at,
            ..
        } = *self;
        let disturbed = self.failed_dials() > 0
            || !is_undisturbed(call)
            || lost_since(plan, facts, call, at)
            || is_silent(facts, call)
            || its_process_hung(plan, facts, client, self.sent(), at)
            || asks_elsewhere(plan, facts, wanted, client);
        let late = plan
            .request_timeout
            .is_some_and(|limit| at >= self.sent() + limit);
        (disturbed && late).then_some("the request's deadline")
    }

    /// Its session took too long to come back.
    fn by_its_patience(&self) -> Excuse {
        let waits_since = (self.call.posts.last()).map_or(self.sent(), |last| last.until);
        (self.is_said_not_to_be_executed() && self.at + TICK >= waits_since + LONGEST_PATIENCE)
            .then_some("its session did not come back while a request waits")
    }

    fn by_its_process(&self) -> Excuse {
        if self.plan.server.transport != Transport::Stdio {
            return None;
        }
        let ended = processes_ended(self.facts, self.client, self.sent(), self.at);
        let unread = !self.is_safe() && self.error.executed.as_deref() == Some("unknown");
        (ended > 1 || unread && ended > 0)
            .then_some("its process ended, perhaps before it had read it")
    }

    /// The server has never seen it.
    fn by_never_arriving(&self) -> Excuse {
        let (sent, at) = (self.sent(), self.at);
        // The session may have to be restored first, which takes a handshake.
        let mut handshakes = self.facts.handshakes.values().flatten();
        let broken = handshakes.any(|visit| visit.at <= at && visit.until >= sent);
        let unopened = self.facts.openings.iter().any(|opening| {
            let opened = matches!(&opening.fate, Fate::Stream(stream) if stream.opened);
            !opened && opening.at <= at && opening.until + LONGEST_PROBE >= sent
        });
        (self.failed_dials() > 0 || self.was_reset() || broken || unopened)
            .then_some("it never reached the server")
    }

    /// What happened to it, or would have, after its last visit.
    fn on_the_way(&self, last: &Visit) -> Excuse {
        let Self {
            plan,
            facts,
            wanted,
            call,
            at,
            error,
            ..
        } = *self;
        if last.until >= at && self.was_reset() {
            return Some("its connection was reset on the way to the server");
        }
        // No wait goes beyond the deadline.
        if error.kind.as_deref() == Some("stream_ended")
            && is_resumable(call)
            && plan
                .request_timeout
                .is_some_and(|limit| at + LONGEST_WAIT >= self.sent() + limit)
        {
            return Some("the next attempt would come after the request's deadline");
        }
        if lost_since(plan, facts, call, at) {
            return Some("its session was lost");
        }
        if self.failed_dials() > 0 && last.fate != Fate::Pending && !is_resumable(call) {
            return Some("the upstream could not be reached");
        }
        if was_on_its_way(plan, facts, wanted, last, at, error) && !is_resumable(call) {
            return Some("it was on its way once more when all connections were reset");
        }
        None
    }

    /// What the server did when it saw the request last.
    fn by_its_last_visit(&self, last: &Visit) -> Excuse {
        match &last.fate {
            Fate::Pending | Fate::Hangs => self.was_reset().then_some("all connections were reset"),
            Fate::NoHead | Fate::Json { whole: false } => {
                self.is_spent().then_some("its answer was lost")
            }
            Fate::Status(_) => Some("the server's status"),
            Fate::Busy { seconds, .. } => self.by_a_busy_server(*seconds),
            Fate::SessionLost => self.by_a_lost_session(last),
            Fate::Redirected { good } => (!good).then_some("a redirect that must not be followed"),
            Fate::NoAnswer => Some("the server gave no answer"),
            Fate::Json { whole: true } | Fate::Accepted => None,
            Fate::Stream(_) => stream(self.facts, self.call, last, self.at, self.is_spent()),
        }
    }

    /// A safe request is sent once more before it fails.
    fn is_spent(&self) -> bool {
        let Self {
            plan, facts, call, ..
        } = *self;
        let lost = call
            .posts
            .iter()
            .filter(|post| is_lost_answer(&post.fate) || is_overtaken(plan, post))
            .count()
            + unseen(plan, facts, call);
        !self.is_safe() || lost > 1
    }

    fn by_a_busy_server(&self, seconds: Option<u64>) -> Excuse {
        let long = seconds.is_some_and(|seconds| Duration::from_secs(seconds) > HINT_MAX);
        let posts = self.call.posts.iter();
        let busy = posts
            .filter(|post| matches!(post.fate, Fate::Busy { .. }))
            .count();
        let again = self.at + Duration::from_secs(seconds.unwrap_or(30));
        let late = self
            .plan
            .request_timeout
            .is_some_and(|limit| again >= self.sent() + limit);
        (long || late || busy >= BUDGET).then_some("the server stays busy")
    }

    fn by_a_lost_session(&self, last: &Visit) -> Excuse {
        if is_overtaken(self.plan, last)
            && self.error.kind.as_deref() == Some("session_lost")
            && is_heard_by(self.plan, self.wanted, last.until, self.at)
        {
            return Some("its session's stream ended meanwhile");
        }
        let posts = self.call.posts.iter();
        let refused = posts.filter(|post| post.fate == Fate::SessionLost).count();
        (refused > 1 || self.failed_dials() > 0 || is_put_off(self.facts, last, self.at))
            .then_some("no session could be had")
    }
}

/// The sessions that this client has shaken hands for.
fn sessions_of(facts: &Facts, client: usize) -> impl Iterator<Item = &SessionFacts> {
    let handshakes = facts.handshakes.get(&client).into_iter().flatten();
    handshakes.filter_map(|visit| facts.sessions.get(&visit.session))
}

/// The client's processes that ended while it waited.
fn processes_ended(facts: &Facts, client: usize, sent: Duration, at: Duration) -> usize {
    sessions_of(facts, client)
        .filter_map(|session| session.lost)
        .filter(|lost| (sent..=at).contains(lost))
        .count()
}

/// The client's process did nothing any more while it waited, not even read.
fn its_process_hung(
    plan: &Plan,
    facts: &Facts,
    client: usize,
    sent: Duration,
    at: Duration,
) -> bool {
    plan.server.transport == Transport::Stdio
        && sessions_of(facts, client).any(|session| {
            session.silent.is_some_and(|silent| silent <= at)
                && session.lost.is_none_or(|lost| lost >= sent)
        })
}

/// Whether the request, sent again after `last` was settled, was lost on its way to the server: all
/// connections were reset at a moment when the server could not have seen it yet. Whoever sent it
/// cannot know that.
fn was_on_its_way(
    plan: &Plan,
    facts: &Facts,
    wanted: &CallPlan,
    last: &Visit,
    at: Duration,
    error: &ErrorSeen,
) -> bool {
    let settled = match &last.fate {
        Fate::NoHead | Fate::Json { whole: false } | Fate::Busy { .. } | Fate::SessionLost => true,
        Fate::Redirected { good } => *good,
        Fate::Stream(stream) => stream.broke.is_some(),
        _ => false,
    };
    let hit = |reset: &Duration| {
        *reset > last.until && *reset <= at && is_heard_by(plan, wanted, *reset, at)
    };
    settled
        && !plan.upstream_wire[1].latency.is_zero()
        && error.kind.as_deref() == Some("connection_lost")
        && facts.resets.iter().any(hit)
}

/// A refusal that the end of the session's stream may have overtaken: to whoever sent the request its
/// answer is lost.
fn is_overtaken(plan: &Plan, post: &Visit) -> bool {
    let far = !plan.upstream_wire[1].latency.is_zero();
    plan.server.transport == Transport::Sse && far && post.fate == Fate::SessionLost
}

/// A status that the end of the session's stream may have overtaken on its way.
pub(super) fn is_status_overtaken(plan: &Plan, facts: &Facts, post: &Visit) -> bool {
    let way = plan.upstream_wire[0].latency + plan.upstream_wire[1].latency;
    let session = facts.sessions.get(&post.session);
    let lost = session.and_then(|session| session.lost);
    plan.server.transport == Transport::Sse
        && matches!(post.fate, Fate::Status(_))
        && lost.is_some_and(|lost| lost <= post.until + way && post.until <= lost + way)
        && !way.is_zero()
}

/// The stream of a new session was refused for longer than a request waits for it.
fn is_put_off(facts: &Facts, refused: &Visit, at: Duration) -> bool {
    let between = |opening: &&Visit| opening.at >= refused.until && opening.until <= at;
    facts.openings.iter().filter(between).any(|opening| {
        matches!(opening.fate, Fate::Busy { seconds: Some(seconds), .. }
            if Duration::from_secs(seconds) > SESSION_PATIENCE)
    })
}

/// Whether `at` is no later than the client can have heard of what the server did at `done`.
fn is_heard_by(plan: &Plan, wanted: &CallPlan, done: Duration, at: Duration) -> bool {
    let slow = !wanted.client_cuts.is_empty() || plan.client_wire.iter().any(|w| !w.pace.is_zero());
    let ways = plan.upstream_wire[0].latency + plan.client_wire[0].latency;
    slow || at <= done + ways + TICK
}

/// Attempts before one that the server saw that were reset on their way to it.
fn unseen(plan: &Plan, facts: &Facts, call: &Call) -> usize {
    if plan.upstream_wire[1].latency.is_zero() {
        return 0;
    }
    let sent = call.sent.unwrap_or_default();
    let before = std::iter::once(sent).chain(call.posts.iter().map(|post| post.until));
    before
        .zip(&call.posts)
        .filter(|(before, post)| {
            let on_its_way = |reset: &Duration| before < reset && *reset < post.at;
            facts.resets.iter().any(on_its_way)
        })
        .count()
}

/// The answer's stream broke.
fn stream(
    facts: &Facts,
    call: &Call,
    post: &Visit,
    at: Duration,
    spent: bool,
) -> Option<&'static str> {
    let later: Vec<_> = call.gets.iter().filter(|get| get.at >= post.at).collect();
    let resumable = has_id(&post.fate) || later.iter().any(|get| has_id(&get.fate));
    if !resumable {
        return spent.then_some("its stream broke before it had an id");
    }
    if let Some(last) = later.last()
        && refuses_resume(&last.fate)
    {
        return Some("the server refused to go on with its stream");
    }
    let since = later
        .iter()
        .rev()
        .filter(|get| !(silence::stays_silent(get) && facts.resets.is_empty()))
        .take_while(|get| {
            !matches!(
                &get.fate,
                Fate::Stream(StreamFate {
                    new_messages: 1..,
                    ..
                })
            )
        })
        .count();
    let first_break = post.until;
    let dials = facts
        .dials_failed
        .iter()
        .filter(|when| (first_break..=at).contains(when))
        .count();
    (since + dials + 1 >= BUDGET).then_some("its budget was used up")
}

/// The server says that it will not go on with the stream.
fn refuses_resume(fate: &Fate) -> bool {
    match fate {
        Fate::Status(status) => !matches!(status, 408 | 409 | 425 | 429 | 500 | 502 | 503 | 504),
        Fate::NoAnswer => true,
        Fate::Redirected { good } => !good,
        Fate::SessionLost => true,
        _ => false,
    }
}

fn is_resumable(call: &Call) -> bool {
    call.posts
        .iter()
        .chain(&call.gets)
        .any(|visit| has_id(&visit.fate))
}

fn has_id(fate: &Fate) -> bool {
    matches!(fate, Fate::Stream(StreamFate { ids: true, .. }))
}

pub(super) fn is_lost_answer(fate: &Fate) -> bool {
    matches!(
        fate,
        Fate::NoHead
            | Fate::Json { whole: false }
            | Fate::Pending
            | Fate::Hangs
            | Fate::Stream(_)
            | Fate::Accepted
    )
}

/// A session that this call was in is lost.
fn lost_since(plan: &Plan, facts: &Facts, call: &Call, at: Duration) -> bool {
    // A stream that the proxy closes has ended for the server when that arrives there.
    let at = match plan.server.transport {
        Transport::Streamable | Transport::Modern | Transport::Stdio => at,
        Transport::Sse => at + plan.upstream_wire[1].latency + TICK,
    };
    call.posts
        .iter()
        .filter(|post| post.fate != Fate::SessionLost)
        .any(|post| {
            facts
                .sessions
                .get(&post.session)
                .and_then(|session| session.lost)
                .is_some_and(|lost| lost <= at && lost >= post.at)
        })
}

/// Its question came with another call's answer, which the client did not read to its end.
fn asks_elsewhere(plan: &Plan, facts: &Facts, wanted: &CallPlan, client: usize) -> bool {
    let shared = plan.server.transport.is_pipe();
    shared && wanted.asks_before.is_some() && !answers_are_read(facts, client)
}

/// The stream that is to bring the answer says nothing any more.
fn is_silent(facts: &Facts, call: &Call) -> bool {
    let of = |post: &Visit| facts.sessions.get(&post.session)?.silent;
    call.posts.iter().any(|post| of(post).is_some())
}

/// Nothing went wrong with this call as far as the server saw.
fn is_undisturbed(call: &Call) -> bool {
    call.gets.is_empty()
        && call.posts.iter().all(|post| match &post.fate {
            Fate::Stream(stream) => stream.broke.is_none(),
            Fate::Json { whole } => *whole,
            Fate::Accepted => true,
            Fate::Hangs => false,
            _ => false,
        })
        && !call.posts.iter().any(|post| {
            matches!(
                &post.fate,
                Fate::Stream(StreamFate {
                    broke: Some((_, How::Silence)),
                    ..
                })
            )
        })
}
