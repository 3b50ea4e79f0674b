//! Moves between states, and those that nobody has asked for yet.

use std::collections::VecDeque;
use std::time::Instant;

use super::Engine;
use super::state::{Cause, State, Transition};

/// Moves kept for whoever observes the engine; the oldest go first.
const MAX_TRANSITIONS: usize = 64;

/// See the [module](self). Most moves are asked for one by one, so the first needs no allocation.
#[derive(Debug, Default)]
pub(super) struct Untold {
    /// `None` only if there is none at all.
    first: Option<Transition>,
    rest: VecDeque<Transition>,
}

impl Untold {
    pub(super) fn add(&mut self, transition: Transition) {
        if self.rest.len() + 1 == MAX_TRANSITIONS {
            self.take();
        }
        match self.first {
            None => self.first = Some(transition),
            Some(_) => self.rest.push_back(transition),
        }
    }

    /// The oldest.
    pub(super) fn take(&mut self) -> Option<Transition> {
        std::mem::replace(&mut self.first, self.rest.pop_front())
    }
}

impl Engine {
    /// The moves between states, oldest first, each told once. The last 64 are kept.
    pub fn poll_transition(&mut self) -> Option<Transition> {
        self.untold.take()
    }

    /// Moves to another state.
    pub(super) fn go(&mut self, now: Instant, to: State, cause: Cause) {
        self.untold.add(Transition {
            at: now,
            from: self.state.name(),
            to: to.name(),
            cause,
            unproductive: self.unproductive,
            until: match &to {
                State::Backoff { until } => Some(*until),
                State::Parked { probe_at, .. } => *probe_at,
                _ => None,
            },
            away: match &to {
                State::Open(_) => self
                    .lost_at
                    .map(|lost_at| now.saturating_duration_since(lost_at)),
                _ => None,
            },
            parking: match &to {
                State::Parked { why, .. } => Some(*why),
                _ => None,
            },
            fault: match &to {
                State::Failed(fault) => Some(*fault),
                _ => None,
            },
        });
        self.state = to;
    }
}
