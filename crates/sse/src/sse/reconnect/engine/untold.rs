//! The moves that nobody has asked for yet.

use std::collections::VecDeque;

use super::state::Transition;

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
