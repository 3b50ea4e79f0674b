//! One HTTP request's entry in the ledger.

use crate::ledger::{CallKey, Fate, Ledger, Visit};

/// More visits than any plan is good for.
const MOST_VISITS: u64 = 5000;

/// Where a [`Visit`] stands in the ledger.
#[derive(Debug, Clone)]
pub(super) enum Place {
    Post(CallKey),
    Get(CallKey),
    Standing(String),
    Handshake(usize),
    /// The stream of an HTTP+SSE session.
    Opening,
}

/// A visit under way.
pub(super) struct Ticket<'a> {
    ledger: &'a Ledger,
    place: Place,
    index: usize,
}

impl<'a> Ticket<'a> {
    pub(super) fn open(
        ledger: &'a Ledger,
        place: Place,
        session: &str,
        cursor: Option<&str>,
    ) -> Self {
        let mut visit = Visit {
            order: 0,
            at: ledger.now(),
            session: session.to_owned(),
            cursor: cursor.map(str::to_owned),
            fate: Fate::Pending,
            until: ledger.now(),
        };
        let (index, all) = ledger.with(|facts| {
            facts.visits += 1;
            visit.order = facts.visits;
            let visits = visits(facts, &place);
            visits.push(visit);
            (visits.len() - 1, facts.visits)
        });
        if all == MOST_VISITS {
            ledger.violation(format!("the server was visited {all} times"));
            ledger.overrun.cancel();
        }
        ledger.note(format_args!(
            "server   {place:?} #{index} session {session:?} cursor {cursor:?}"
        ));
        Self {
            ledger,
            place,
            index,
        }
    }

    /// What became of it, so far.
    pub(super) fn settle(&self, fate: Fate) {
        self.ledger.note(format_args!(
            "server   {:?} #{} {fate:?}",
            self.place, self.index
        ));
        let now = self.ledger.now();
        self.ledger.with(|facts| {
            if let Some(visit) = visits(facts, &self.place).get_mut(self.index) {
                visit.fate = fate;
                visit.until = now;
            }
        });
    }

    /// Changes the fate without a line in the trace.
    pub(super) fn update(&self, change: impl FnOnce(&mut Fate)) {
        let now = self.ledger.now();
        self.ledger.with(|facts| {
            if let Some(visit) = visits(facts, &self.place).get_mut(self.index) {
                change(&mut visit.fate);
                visit.until = now;
            }
        });
    }
}

fn visits<'a>(facts: &'a mut crate::ledger::Facts, place: &Place) -> &'a mut Vec<Visit> {
    match place {
        Place::Post(key) => &mut facts.calls.entry(*key).or_default().posts,
        Place::Get(key) => &mut facts.calls.entry(*key).or_default().gets,
        Place::Standing(session) => &mut facts.sessions.entry(session.clone()).or_default().gets,
        Place::Opening => &mut facts.openings,
        Place::Handshake(client) => facts.handshakes.entry(*client).or_default(),
    }
}
