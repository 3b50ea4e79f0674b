//! What is known of an open connection: what it brought, and when it was last heard of.

use std::time::{Duration, Instant};

use super::super::origin::Slot;
use super::super::policy::{MIN_SILENCE, PRODUCTIVE_AFTER};

/// A comment so soon after the opening greets; it says nothing about a period.
const GREETING: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub(crate) struct Connection {
    pub(crate) opened: Instant,
    /// It was opened at a cursor: what it brings may be a replay.
    pub(crate) resumed: bool,
    /// New messages that were accepted.
    pub(crate) messages: u64,
    /// It brought a `retry` or a new id: its end in order is a poll, no failure.
    pub(crate) directed: bool,
    last_byte: Instant,
    /// Since when we wait to read. A slow reader of ours is no silent server.
    waiting: Option<Instant>,
    /// The bytes that are being read came while we waited for them.
    timely: bool,
    last_comment: Option<Instant>,
    period: Option<Duration>,
    _mark: Slot,
}

impl Connection {
    pub(crate) fn new(now: Instant, resumed: bool, mark: Slot) -> Self {
        Self {
            opened: now,
            resumed,
            messages: 0,
            directed: false,
            last_byte: now,
            waiting: None,
            timely: false,
            last_comment: None,
            period: None,
            _mark: mark,
        }
    }

    pub(crate) fn received(&mut self, now: Instant) {
        self.last_byte = now;
        self.timely = self.waiting.take().is_some();
    }

    /// The reader comes back for more: until now it was not we who waited.
    pub(crate) fn resumed_reading(&mut self) {
        self.waiting = None;
    }

    pub(crate) fn wait(&mut self, now: Instant) {
        self.waiting.get_or_insert(now);
    }

    pub(crate) fn comment(&mut self, now: Instant) {
        if now.saturating_duration_since(self.opened) < GREETING {
            return;
        }
        if !self.timely {
            self.last_comment = None;
            return;
        }
        let last = self.last_comment.replace(now);
        let interval = last.map(|last| now.saturating_duration_since(last));
        if let Some(interval) = interval.filter(|interval| !interval.is_zero()) {
            // The longest: a server may leave comments out while it sends events.
            self.period = self.period.max(Some(interval));
        }
    }

    pub(crate) fn is_productive(&self, now: Instant) -> bool {
        self.messages > 0 || now.saturating_duration_since(self.opened) >= PRODUCTIVE_AFTER
    }

    /// How long a silence may last; `idle` where no comments tell.
    pub(crate) fn patience(
        &self,
        idle_timeout: Duration,
        idle: Option<Duration>,
    ) -> Option<Duration> {
        match self.period {
            Some(period) => Some(
                (period.saturating_mul(3))
                    .max(MIN_SILENCE)
                    .min(idle_timeout),
            ),
            None => idle,
        }
    }

    /// How long we have been waiting in vain.
    pub(crate) fn silence(&self, now: Instant) -> Duration {
        self.waiting
            .map_or(Duration::ZERO, |since| now.saturating_duration_since(since))
    }

    pub(crate) fn dead_at(&self, patience: Option<Duration>) -> Option<Instant> {
        self.waiting?.checked_add(patience?)
    }

    pub(crate) fn last_byte(&self) -> Instant {
        self.last_byte
    }

    pub(crate) fn period(&self) -> Option<Duration> {
        self.period
    }
}
