//! Rechecks: a resumed answer that stays silent is asked for again.
//!
//! MCP has a server that is asked to resume a stream replay what was missed and go on with the
//! stream. Some replay what their event store holds and then say nothing more on that connection:
//! the response goes into the store only. So while an answer is awaited on a connection that
//! resumed it, and nothing new comes, the connection is closed and its stream resumed anew from
//! the cursor, soon at first and then ever more rarely.
//!
//! Silence is the absence of new messages. A comment, a priming event or a repeated event shows
//! that the connection stands, not that the server will use it for the answer: servers send
//! comments on any stream. The rest of an event that has begun is waited for, and so is the end of
//! a replay, which goes on as long as old events come without a pause.
//!
//! Nothing is lost by it: what was not committed is replayed, and what comes twice is dropped. Where
//! events without an id came after the cursor that could not be told, and nothing is rechecked. The
//! old connection is closed before the new one is asked for, because a server may refuse a second
//! reader of a stream (409) or end it at once; it has a moment to notice. A server that has shown
//! that it speaks on a resumed stream is asked rarely, one that is slow to be asked too.

use std::time::{Duration, Instant};

use super::super::backoff;
use super::super::policy::{
    MIN_INTERVAL, MIN_SILENCE, RECHECK_AFTER, RECHECK_MAX, RECHECK_SHARE, RECHECK_SPEAKING,
};
use super::state::{Cause, State};
use super::{Engine, Kind};

/// What decides about the next recheck.
#[derive(Debug, Default)]
pub(super) struct Recheck {
    /// How many there were since the last new message.
    in_vain: u32,
    /// The server has shown that it speaks on a resumed stream.
    speaks: bool,
    /// The attempt that is coming or under way is one.
    pub(super) under_way: bool,
    /// When the attempt that is coming or under way was due, and how long the last one that
    /// succeeded took from then on.
    pub(super) due: Option<Instant>,
    pub(super) took: Duration,
}

impl Recheck {
    /// A new message was accepted: from the server's store, or one that came by itself.
    pub(super) fn heard(&mut self, by_itself: bool) {
        self.in_vain = 0;
        self.speaks = by_itself;
    }

    /// An attempt is due: now it may have to stand in line.
    pub(super) fn due(&mut self, now: Instant) {
        self.due = Some(now);
    }

    /// The attempt opened.
    pub(super) fn opened(&mut self, now: Instant) {
        self.under_way = false;
        let due = self.due.take();
        self.took = due.map_or(Duration::ZERO, |due| now.saturating_duration_since(due));
    }

    /// The attempt failed. Whether it was a recheck: until now nothing had broken.
    pub(super) fn failed(&mut self, conflict: bool) -> bool {
        let was = std::mem::take(&mut self.under_way);
        // The server still holds the stream that was closed: it would have spoken there.
        self.speaks |= was && conflict;
        was
    }
}

impl Engine {
    /// When the open connection is to be rechecked, if nothing new comes.
    pub(super) fn recheck_at(&self) -> Option<Instant> {
        let State::Open(connection) = &self.state else {
            return None;
        };
        if !self.resuming || self.kind != Kind::Response || !self.position.is_exact() {
            return None;
        }
        let quiet_since = connection.quiet_since()?;
        let wait = self.recheck_wait(1.0);
        let cost = self.recheck.took.saturating_add(wait);
        let pace = match self.recheck.speaks {
            true => RECHECK_SPEAKING,
            false => {
                let n = self.recheck.in_vain.saturating_add(1);
                backoff::exponential(RECHECK_AFTER, RECHECK_MAX, n)
            }
        };
        let pace = pace.max(cost.saturating_mul(RECHECK_SHARE));
        let part_at = connection.part_at().map(|at| at + MIN_SILENCE);
        let at = quiet_since
            .checked_add(pace)?
            .max(part_at.unwrap_or(quiet_since));
        // Where the answer would come too late it is better to stay.
        match self.deadline {
            Some(deadline) if at < deadline && deadline <= at + wait => Some(deadline),
            _ => Some(at),
        }
    }

    /// Closes the connection, to resume the stream anew.
    pub(super) fn recheck(&mut self, now: Instant) {
        self.credit(now);
        self.position.discard();
        self.counters.committed = self.counters.delivered;
        self.counters.rechecks += 1;
        self.recheck.in_vain = self.recheck.in_vain.saturating_add(1);
        self.recheck.under_way = true;
        let draw = self.draws.draw();
        let until = now + self.recheck_wait(draw);
        self.go(now, State::Backoff { until }, Cause::Recheck);
    }

    /// How long the connection is closed before the new one is asked for: the server's `retry`, or
    /// the time in which it should have noticed.
    fn recheck_wait(&self, draw: backoff::Draw) -> Duration {
        let asked = self.retry.unwrap_or(MIN_INTERVAL);
        backoff::delay(&self.policy, 0, Some(asked), draw)
    }
}
