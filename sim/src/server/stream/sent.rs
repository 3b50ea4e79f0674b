//! What has left on a connection, and what was still on its way when its reader left.

use std::time::Duration;

use super::super::log::{Entry, Log, What};
use super::super::visit::Ticket;
use super::super::{Server, Session};
use crate::ledger::Fate;

impl Server {
    /// An event has left whole.
    pub(in super::super) fn left(
        &self,
        session: &Session,
        log: &Log,
        position: usize,
        entry: &Entry,
        ticket: &Ticket<'_>,
        repeated: bool,
    ) -> bool {
        let first = log.sent(position);
        ticket.update(|fate| {
            if let Fate::Stream(stream) = fate {
                stream.ids |= entry.id.is_some();
                stream.new_ids |= first && entry.id.is_some();
                if entry.what == What::Response {
                    stream.answered = true;
                    stream.answered_at = Some(self.ledger.now());
                }
                let message = !matches!(entry.what, What::Priming | What::Greeting);
                stream.new_messages += u32::from(first && message);
            }
        });
        if repeated {
            self.ledger.hit("repeated event");
        }
        if !first {
            return false;
        }
        match (entry.what, log.call) {
            (What::Message(key, mark), _) => {
                self.ledger.call(key, |call| call.sent_whole.push(mark));
            }
            (What::Result(key), _) => self.ledger.call(key, |call| call.results_sent += 1),
            (What::Echo, Some(key)) if entry.id.is_none() => {
                self.ledger.call(key, |call| call.echoes_sent += 1)
            }
            (What::Notice(number), _) => self.ledger.with(|facts| {
                let facts = facts.sessions.entry(session.name.clone()).or_default();
                facts.notices_sent.push(number);
            }),
            _ => {}
        }
        true
    }

    /// The reader closed the connection: what was still on its way to it has not left.
    pub(super) fn lost_under_way(
        &self,
        session: &Session,
        log: &Log,
        ticket: &Ticket<'_>,
        under_way: UnderWay,
    ) {
        let [proxy, _] = self.plan.upstream_wire;
        let mut travel = 2 * proxy.latency;
        if !proxy.pace.is_zero() {
            travel += Duration::from_secs(2);
        }
        if travel.is_zero() {
            return;
        }
        let since = self.ledger.now().saturating_sub(travel);
        let ids = |sent: &Sent| sent.entry.id.is_some();
        let (arrived, lost): (Vec<_>, Vec<_>) =
            under_way.0.into_iter().partition(|sent| sent.at < since);
        for sent in &lost {
            ticket.update(|fate| {
                if let Fate::Stream(stream) = fate {
                    stream.answered &= sent.entry.what != What::Response;
                    stream.ids = arrived.iter().any(ids);
                    stream.new_ids = arrived.iter().any(|sent| sent.first && ids(sent));
                }
            });
            if !sent.first {
                continue;
            }
            log.unsent(sent.position);
            match (sent.entry.what, log.call) {
                (What::Message(key, mark), _) => {
                    self.ledger
                        .call(key, |call| call.sent_whole.retain(|one| *one != mark));
                }
                (What::Notice(number), _) => self.ledger.with(|facts| {
                    let facts = facts.sessions.entry(session.name.clone()).or_default();
                    facts.notices_sent.retain(|one| *one != number);
                }),
                _ => {}
            }
            ticket.update(|fate| {
                if let Fate::Stream(stream) = fate
                    && sent.entry.what != What::Priming
                {
                    stream.new_messages = stream.new_messages.saturating_sub(1);
                }
            });
        }
    }
}

/// What a connection has carried, to tell what was on its way when it ended.
#[derive(Default)]
pub(super) struct UnderWay(Vec<Sent>);

struct Sent {
    at: Duration,
    position: usize,
    entry: Entry,
    first: bool,
}

impl UnderWay {
    pub(super) fn put(&mut self, at: Duration, position: usize, entry: &Entry, first: bool) {
        let entry = Entry {
            payload: String::new(),
            ..entry.clone()
        };
        self.0.push(Sent {
            at,
            position,
            entry,
            first,
        });
    }
}
