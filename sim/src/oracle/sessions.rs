//! What comes outside of calls: the notices of a session arrive once and in order, and its
//! subscription ends only where the server says so.

use std::collections::BTreeSet;

use super::{answers_are_read, arrives, pace};
use crate::ledger::{Facts, Fate, SessionFacts};
use crate::plan::Plan;

pub(super) struct JudgedSession<'a> {
    pub(super) plan: &'a Plan,
    pub(super) facts: &'a Facts,
    pub(super) name: &'a str,
    pub(super) session: &'a SessionFacts,
}

impl JudgedSession<'_> {
    pub(super) fn judge(&self, found: &mut Vec<String>) {
        self.judge_order(found);
        self.judge_end(found);
        if self.is_read() {
            self.judge_complete(found);
        }
    }

    /// What comes on one stream for everything goes to the client on several.
    fn is_one_way(&self) -> bool {
        !self.plan.server.transport.is_pipe() && !self.facts.one_log
    }

    fn judge_order(&self, found: &mut Vec<String>) {
        let mut got = self.session.got.clone();
        if !self.is_one_way() {
            got.sort_by_key(|(_, number)| *number);
        }
        for pair in got.windows(2) {
            let (before, after) = (pair[0].1, pair[1].1);
            if after <= before {
                let times = self.session.got.iter().filter(|(_, n)| *n == after);
                let what = match times.count() {
                    0 | 1 => "out of order",
                    _ => "twice",
                };
                found.push(format!("notice {after} of {} came {what}", self.name));
            }
        }
    }

    fn judge_end(&self, found: &mut Vec<String>) {
        let (name, gets) = (self.name, &self.session.gets);
        if self.session.ended.is_some() && !gets.last().is_some_and(|get| ends_it(&get.fate)) {
            found.push(format!("{name} was ended without need; gets {gets:?}"));
        }
    }

    /// Whether its client reads all that there is to read.
    fn is_read(&self) -> bool {
        let number = self.session.client;
        let Some(client) = self.plan.clients.get(number) else {
            return false;
        };
        client.listens
            && client.leaves_early.is_none()
            && !self.facts.blind.contains(&number)
            && (self.is_one_way() || answers_are_read(self.facts, number))
    }

    fn judge_complete(&self, found: &mut Vec<String>) {
        let got: BTreeSet<_> = self.session.got.iter().map(|(_, number)| *number).collect();
        let mut due = self.due_by_sending();
        due.extend(self.due_by_id());
        let missing: Vec<_> = due.difference(&got).collect();
        if !missing.is_empty() {
            found.push(format!(
                "notices {missing:?} of {} were lost; gets {:?}",
                self.name, self.session.gets
            ));
        }
    }

    /// What left the server and has to arrive.
    fn due_by_sending(&self) -> BTreeSet<u32> {
        let session = self.session;
        // What the session sent before it was lost drips in slowly; whoever learns of the loss from
        // another request meanwhile need not wait for it.
        let drips = session.lost.is_some() && !self.plan.upstream_wire[0].pace.is_zero();
        // The session ended before it was in use, and so did what it had to say.
        let unused = !self.is_one_way() && !session.initialized;
        if drips || unused {
            return BTreeSet::new();
        }
        let sent = session.notices_sent.iter().copied();
        sent.filter(|number| arrives(self.plan) || session.notices_with_id.contains(number))
            .collect()
    }

    /// What can be had again as long as there is the session.
    fn due_by_id(&self) -> impl Iterator<Item = u32> {
        let session = self.session;
        let lasts = session.lost.is_none()
            && !self.is_replaced()
            && !self.is_refused()
            && self.plan.server.standalone;
        let had = session.notices_with_id.iter().copied();
        had.filter(move |number| lasts && *number > session.missable)
    }

    /// A server without sessions has one stream for all, refused for all.
    fn is_refused(&self) -> bool {
        let sessions = self
            .facts
            .sessions
            .values()
            .filter(|other| std::ptr::eq(*other, self.session) || !self.plan.server.sessions);
        let mut gets = sessions.flat_map(|session| &session.gets);
        gets.any(|get| pace::is_final_for_standing(&get.fate))
    }

    /// The answer to a handshake may be lost: nobody ever hears of its session, and the next one
    /// takes its place.
    fn is_replaced(&self) -> bool {
        let session = self.session;
        let mut others = self.facts.sessions.values();
        self.plan.server.sessions
            && session.gets.is_empty()
            && others.any(|other| other.client == session.client && other.began > session.began)
    }
}

/// Whether the server says that a subscription cannot be had again, now or later.
fn ends_it(fate: &Fate) -> bool {
    pace::is_final_for_standing(fate) && !matches!(fate, Fate::Status(401 | 403 | 501 | 505))
}
