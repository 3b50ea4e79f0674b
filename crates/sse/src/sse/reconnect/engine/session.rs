//! What an engine tells and is told of the other streams of its session.
//!
//! The engine knows its own stream only. Its shell, which sees them all, asks for the key of what
//! was handed over, looks into the [`SessionWindow`](crate::reconnect::SessionWindow), and takes
//! back what is not for this stream.

use super::state::State;
use super::{Digests, Engine, EventKey};

impl Engine {
    /// Makes the keys of its events comparable with those of the session's other streams. To be
    /// called before anything came.
    pub fn digest_with(&mut self, digests: Digests) {
        self.digests = Some(digests);
    }

    /// What the item that was shown last is recognised by; `None` if it was a duplicate or has no
    /// id, and where nothing is remembered.
    #[must_use]
    pub fn key(&self) -> Option<EventKey> {
        self.shown.map(|shown| shown.key)
    }

    /// Whether the open connection was opened at a cursor, so that what it brings may be a replay.
    #[must_use]
    pub fn is_resumed(&self) -> bool {
        matches!(&self.state, State::Open(connection) if connection.resumed)
    }

    /// The event that was just handed over belongs to another stream, which brings it itself. It is
    /// as if it had not come: the position stays, and when it comes again it is new.
    pub fn leave(&mut self) {
        if self.counters.delivered == self.counters.committed {
            return;
        }
        if let State::Open(connection) = &mut self.state {
            connection.replays();
        }
        self.counters.delivered -= 1;
        self.position.discard();
        let Some(shown) = self.shown.take() else {
            return;
        };
        self.window.unsee();
        if let State::Open(connection) = &mut self.state {
            connection.directed = shown.directed_before;
        }
    }

    /// The event that was just handed over was delivered by another stream: a duplicate. What a
    /// first connection brings is this stream's own all the same, and moves its position.
    pub fn repeated(&mut self) {
        if self.is_resumed() {
            self.leave();
        } else {
            self.accepted(false);
        }
        self.counters.duplicates += 1;
    }
}
