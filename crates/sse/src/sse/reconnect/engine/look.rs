//! What can be seen of a stream from outside.

use std::time::{Duration, Instant};

use super::connection::Connection;
use super::state::State;
use super::{Counters, Engine, Health, Kind, Liveness};

impl Engine {
    /// What happened so far.
    #[must_use]
    pub fn counters(&self) -> Counters {
        Counters {
            window_overflow: self.window.overflowed(),
            ..self.counters
        }
    }

    /// Bytes and entries held for the stream's position and for deduplication.
    #[must_use]
    pub fn held(&self) -> (usize, usize) {
        (self.position.held(), self.window.len())
    }

    /// What the stream looks like.
    #[must_use]
    pub fn health(&self, now: Instant) -> Health {
        let connection = match &self.state {
            State::Open(connection) => Some(connection),
            _ => None,
        };
        let patience = self.patience();
        let liveness = match connection {
            None => Liveness::Dead,
            Some(connection) => match patience {
                Some(limit) if connection.silence(now) >= limit => Liveness::Dead,
                Some(limit) if connection.silence(now) >= limit / 2 => Liveness::Degraded,
                _ => Liveness::Healthy,
            },
        };
        let since = |instant| now.saturating_duration_since(instant);
        Health {
            state: self.state(),
            liveness,
            open_for: connection.map(|connection| since(connection.opened)),
            last_byte_age: connection.map(|connection| since(connection.last_byte())),
            comment_period: connection.and_then(Connection::period),
            unproductive: self.unproductive,
            resumable: self.position.has_cursor(),
            parking: match self.state {
                State::Parked { why, .. } => Some(why),
                _ => None,
            },
        }
    }

    /// Whether the attempt that is in line or under way is a look at what was given up.
    #[must_use]
    pub fn is_probing(&self) -> bool {
        self.probing && matches!(self.state, State::Queued { .. } | State::Connecting { .. })
    }

    /// When the open stream will seem [degraded](Liveness::Degraded) if nothing comes; `None` where
    /// silence means nothing, or nobody waits for it now.
    #[must_use]
    pub fn degrades_at(&self) -> Option<Instant> {
        let State::Open(connection) = &self.state else {
            return None;
        };
        connection.dead_at(self.patience().map(|patience| patience / 2))
    }

    /// The silence that means death; `None` where silence means nothing.
    pub(super) fn patience(&self) -> Option<Duration> {
        let State::Open(connection) = &self.state else {
            return None;
        };
        let idle = match self.kind {
            Kind::Standalone | Kind::Listen => true,
            Kind::Response => self.position.has_cursor(),
            Kind::ModernResponse | Kind::LegacySse | Kind::Session => false,
        };
        let idle_timeout = self.policy.idle_timeout;
        connection.patience(idle_timeout, idle.then_some(idle_timeout))
    }
}
