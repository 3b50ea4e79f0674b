//! What is known of an open connection: what it brought, and when it was last heard of.

use std::time::{Duration, Instant};

use super::super::origin::Slot;
use super::super::policy::{MIN_SILENCE, PRODUCTIVE_AFTER, REPLAYED_WITHIN};

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
    /// The same since the last new message, whatever else came.
    quiet_since: Option<Instant>,
    /// When bytes came of an event whose rest is not here.
    part_at: Option<Instant>,
    /// Bytes came by themselves: whatever the server had to replay was here before.
    past_replay: bool,
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
            quiet_since: None,
            part_at: None,
            past_replay: false,
            last_comment: None,
            period: None,
            _mark: mark,
        }
    }

    pub(crate) fn received(&mut self, now: Instant) {
        self.last_byte = now;
        let silence = self.silence(now);
        self.past_replay |= silence >= REPLAYED_WITHIN;
        self.timely = self.waiting.take().is_some();
    }

    /// The last bytes were part of an event.
    pub(crate) fn holds_part(&mut self) {
        self.part_at = Some(self.last_byte);
    }

    /// They were more than that.
    pub(crate) fn item(&mut self) {
        self.part_at = None;
    }

    /// An event came that was here before, or is another stream's: unless the server had paused,
    /// its replay goes on, and what is new may be behind.
    pub(crate) fn replays(&mut self) {
        if !self.past_replay {
            self.quiet_since = None;
        }
    }

    /// A new message was accepted.
    pub(crate) fn spoke(&mut self) {
        self.messages += 1;
        self.quiet_since = None;
    }

    /// The reader comes back for more: until now it was not we who waited.
    pub(crate) fn resumed_reading(&mut self) {
        self.waiting = None;
    }

    pub(crate) fn wait(&mut self, now: Instant) {
        self.waiting.get_or_insert(now);
        self.quiet_since.get_or_insert(now);
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

    pub(crate) fn quiet_since(&self) -> Option<Instant> {
        self.quiet_since
    }

    pub(crate) fn part_at(&self) -> Option<Instant> {
        self.part_at
    }

    /// Whether a message of now came by itself, not by replay.
    pub(crate) fn is_past_replay(&self) -> bool {
        self.past_replay
    }

    pub(crate) fn last_byte(&self) -> Instant {
        self.last_byte
    }

    pub(crate) fn period(&self) -> Option<Duration> {
        self.period
    }
}
