//! The judge: what must be true of every run, whatever went wrong in it.
//!
//! It reads facts from the ledger and nothing else. Its rules are those that users were promised,
//! in the words of the peers; it shares no code with the engine, and does not know how the engine
//! decides.
//!
//! - A request has exactly one outcome. It is the result unless [`excuses`] finds a reason in what
//!   the server saw and did.
//! - What was sent whole arrives, once, in order. What has an id arrives even if its connection
//!   broke. Of a request that was executed twice, only progress beyond what was told need be told.
//! - A request is not executed twice, and an error that says "not executed" is right.
//! - The server is not hurried: it is visited again when it asked for, not sooner, and not at all
//!   where it said no.

mod excuses;
mod pace;
mod progress;
mod sessions;
mod silence;

use std::collections::BTreeSet;
use std::time::Duration;

use shadowcat_transport::metrics::Metrics;

use crate::ledger::{Call, CallKey, ErrorSeen, Facts, Fate, Ledger, Outcome};
use crate::plan::{CallPlan, Plan, Transport};

pub(crate) use pace::{Recovery, recoveries};

/// Judges a run; what is wrong goes into the ledger.
pub(crate) fn judge(plan: &Plan, ledger: &Ledger) {
    for violation in ledger.with(|facts| violations(plan, facts)) {
        ledger.violation(violation);
    }
}

/// Whether anything is left open after the end.
pub(crate) fn leaks(ledger: &Ledger, metrics: &Metrics) {
    let gauges = [
        ("sessions", metrics.sessions.get()),
        ("client streams", metrics.client_streams.get()),
        ("client connections", metrics.client_connections.get()),
        ("upstream streams", metrics.upstream_streams.get()),
        ("processes", metrics.children.get()),
    ];
    for (name, value) in gauges {
        if value != 0 {
            ledger.violation(format!("{value} {name} left open after the end"));
        }
    }
}

/// What is wrong with a run.
pub(crate) fn violations(plan: &Plan, facts: &Facts) -> Vec<String> {
    let mut found = Vec::new();
    for (key, call) in &facts.calls {
        let Some(wanted) = plan
            .clients
            .get(key.client)
            .and_then(|c| c.calls.get(key.number))
        else {
            found.push(format!("{key} is nobody's call"));
            continue;
        };
        let judged = JudgedCall {
            plan,
            facts,
            key: *key,
            wanted,
            call,
        };
        judged.judge(&mut found);
    }
    for (name, session) in &facts.sessions {
        let judged = sessions::JudgedSession {
            plan,
            facts,
            name,
            session,
        };
        judged.judge(&mut found);
    }
    pace::judge(plan, facts, &mut found);
    silence::judge(plan, facts, &mut found);
    found
}

struct JudgedCall<'a> {
    plan: &'a Plan,
    facts: &'a Facts,
    key: CallKey,
    wanted: &'a CallPlan,
    call: &'a Call,
}

impl JudgedCall<'_> {
    /// The client ended its session while calls may have been open.
    fn leaves(&self) -> bool {
        self.plan.clients[self.key.client].leaves_early.is_some()
            && self.facts.left.contains_key(&self.key.client)
    }

    /// The server has forgotten a session that this call was made in.
    fn lost_its_session(&self) -> bool {
        let of = |name: &String| self.facts.sessions.get(name);
        let mut sessions = self.call.posts.iter().filter_map(|post| of(&post.session));
        sessions.any(|session| session.lost.is_some())
    }

    fn is_safe(&self) -> bool {
        self.wanted.method != "tools/call"
    }

    fn judge(&self, found: &mut Vec<String>) {
        let key = self.key;
        if self.call.sent.is_none() {
            if !self.call.posts.is_empty() {
                found.push(format!("{key} reached the server and was never sent"));
            }
            return;
        }
        let most = if self.is_safe() { 2 } else { 1 };
        if self.call.executions > most {
            found.push(format!(
                "{key} {} was executed {} times",
                self.wanted.method, self.call.executions
            ));
        }
        self.judge_posts(found);
        self.judge_order(found);
        self.judge_progress(found);
        let free = self.call.cancelled.is_some() || self.leaves();
        match self.call.outcomes.as_slice() {
            [] if free => {}
            [] => found.push(format!("{key} has no outcome")),
            [(at, outcome)] => {
                self.judge_claims(outcome, found);
                if !free {
                    self.judge_outcome(*at, outcome, found);
                }
            }
            more => found.push(format!("{key} has {} outcomes: {more:?}", more.len())),
        }
    }

    /// A request is sent again only when it certainly was not processed, or may be repeated.
    fn judge_posts(&self, found: &mut Vec<String>) {
        let mut lost = 0;
        for pair in self.call.posts.windows(2) {
            let fate = &pair[0].fate;
            let again = if excuses::is_lost_answer(fate)
                || excuses::is_status_overtaken(self.plan, self.facts, &pair[0])
            {
                lost += 1;
                self.is_safe() && lost == 1
            } else {
                matches!(
                    fate,
                    Fate::Busy { .. } | Fate::SessionLost | Fate::Redirected { good: true }
                )
            };
            if !again {
                found.push(format!(
                    "{} was sent again after {:?}",
                    self.key, pair[0].fate
                ));
            }
        }
    }

    fn judge_order(&self, found: &mut Vec<String>) {
        let key = self.key;
        let mut got = self.call.got.clone();
        if self.plan.server.transport.is_pipe() || self.facts.one_log {
            // Two runs of a safe request are on one stream, each in order, and a question names no
            // request.
            got.retain(|(_, mark)| !self.call.asks.contains(mark));
            got.sort_by_key(|(_, (exec, _))| *exec);
        }
        for pair in got.windows(2) {
            let (before, after) = (pair[0].1, pair[1].1);
            if after == before {
                found.push(format!("{key} got message {after:?} twice"));
            } else if after < before {
                let known = self
                    .call
                    .got
                    .iter()
                    .filter(|(_, mark)| *mark == after)
                    .count();
                let what = if known > 1 { "twice" } else { "out of order" };
                found.push(format!(
                    "{key} got message {after:?} {what}, after {before:?}"
                ));
            }
        }
    }

    /// An error that says something about execution is right.
    fn judge_claims(&self, outcome: &Outcome, found: &mut Vec<String>) {
        let Outcome::Error(error) = outcome else {
            return;
        };
        let key = self.key;
        if error.kind.is_none() {
            let own = self
                .call
                .posts
                .iter()
                .any(|post| matches!(post.fate, Fate::Status(_)));
            if error.code != -32050 || !own {
                found.push(format!("{key} got an error that nobody made: {error:?}"));
            }
            return;
        }
        let no = error.executed.as_deref() == Some("no");
        if no && self.call.executions > 0 {
            found.push(format!(
                "{key} was executed and is said not to be: {error:?}"
            ));
        }
        if error.retry_safe != Some(no) {
            found.push(format!(
                "{key} got an error whose retry_safe is wrong: {error:?}"
            ));
        }
    }

    fn judge_outcome(&self, at: Duration, outcome: &Outcome, found: &mut Vec<String>) {
        let key = self.key;
        match outcome {
            Outcome::Result(exec) => {
                if self.call.executions < *exec || *exec == 0 {
                    found.push(format!(
                        "{key} got the result of execution {exec}, which was none"
                    ));
                }
                let once = self.call.posts.len() == 1;
                let mixed = self.plan.server.transport.is_pipe() || self.facts.one_log;
                if once || !mixed {
                    self.judge_complete(Some(*exec), found);
                }
            }
            Outcome::Error(error) => self.judge_error(at, error, found),
            Outcome::Abandoned if !self.wanted.client_cuts.is_empty() => {}
            Outcome::Abandoned => found.push(format!(
                "{key}'s stream toward the client ended without an id"
            )),
            Outcome::Status(status) => {
                found.push(format!("{key} was answered with status {status}"))
            }
        }
    }

    fn judge_error(&self, at: Duration, error: &ErrorSeen, found: &mut Vec<String>) {
        let key = self.key;
        // What a process has written is in the pipe, whatever becomes of the process.
        let late = error.kind.as_deref() == Some("timeout");
        if self.plan.server.transport == Transport::Stdio && self.call.results_sent > 0 && !late {
            found.push(format!(
                "{key} failed after its result was written: {error:?}"
            ));
        }
        let failed = excuses::Failed {
            plan: self.plan,
            facts: self.facts,
            client: key.client,
            wanted: self.wanted,
            call: self.call,
            at,
            error,
        };
        if failed.excuse().is_none() {
            found.push(format!(
                "{key} failed without need: {error:?}; posts {:?}; gets {:?}",
                self.call.posts, self.call.gets
            ));
        }
        // On a stream for everything the call's messages go on after its POST has failed.
        let over = self.plan.server.transport.is_pipe();
        if !late && !over {
            self.judge_complete(None, found);
        }
    }

    /// What was sent whole has arrived; of the execution that brought the result, also what has an
    /// id.
    fn judge_complete(&self, exec: Option<u32>, found: &mut Vec<String>) {
        let got: BTreeSet<_> = self.call.got.iter().map(|(_, mark)| *mark).collect();
        let mut due: BTreeSet<_> = self.call.sent_whole.iter().copied().collect();
        due.retain(|mark| arrives(self.plan) || self.call.with_id.contains(mark));
        if exec.is_none() && self.lost_its_session() {
            // Nobody could take the answer to a question that was still on its way.
            due.retain(|mark| !self.call.asks.contains(mark));
        }
        if let Some(exec) = exec {
            due.extend(self.call.with_id.iter().filter(|mark| mark.0 == exec));
            due.retain(|mark| mark.0 <= exec);
        }
        due.retain(|mark| !self.is_no_news(*mark));
        let (sent, arrived) = (self.call.echoes_sent, self.call.echoes_got);
        if arrived > sent || arrives(self.plan) && arrived < sent {
            found.push(format!(
                "{} got {arrived} of {sent} messages that are the same",
                self.key
            ));
        }
        let (made, same) = (self.call.same_made, self.call.same_got);
        let once = exec.is_some() && self.call.executions == 1;
        if same > made || once && same < made {
            found.push(format!(
                "{} got {same} of {made} messages that other calls have too",
                self.key
            ));
        }
        let missing: Vec<_> = due.difference(&got).collect();
        if !missing.is_empty() {
            found.push(format!(
                "{} lost messages {missing:?}; posts {:?}; gets {:?}",
                self.key, self.call.posts, self.call.gets
            ));
        }
    }
}

/// What leaves the server has arrived: nothing is under way when a connection is closed.
fn arrives(plan: &Plan) -> bool {
    let wires = plan.upstream_wire;
    wires
        .iter()
        .all(|wire| wire.latency.is_zero() && wire.pace.is_zero())
}

/// Whether the client has read the answers to all of its calls to their ends: what names no request
/// may come with them.
fn answers_are_read(facts: &Facts, client: usize) -> bool {
    let mut theirs = facts.calls.iter().filter(|(key, _)| key.client == client);
    theirs.all(|(_, call)| {
        let read = |(_, outcome): &(_, Outcome)| !matches!(outcome, Outcome::Abandoned);
        call.cancelled.is_none() && call.outcomes.iter().all(read)
    })
}

#[cfg(test)]
mod tests;
