//! One stream's ring.
//!
//! What may be given up (notifications) and what may not (responses, server requests) stand in two
//! queues, so that the oldest of either is at its front; a read merges them by sequence.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use bytes::Bytes;

use crate::{AppendError, Class, EventId, Page, Record};

#[derive(Debug, Default)]
pub(super) struct Stream {
    notifications: VecDeque<Stored>,
    kept: VecDeque<Stored>,
    /// What the records of both count.
    pub(super) bytes: usize,
    /// Sequence of the newest record ever appended.
    pub(super) last: u64,
    /// Sequence up to which records were delivered to a reader.
    pub(super) delivered: u64,
    /// The reader in charge, and the highest number that ever was.
    pub(super) reader: Option<u64>,
    pub(super) highest_reader: u64,
    pub(super) finished: Option<Instant>,
}

#[derive(Debug)]
pub(super) struct Stored {
    pub(super) sequence: u64,
    /// Its place in the order of all records of all streams.
    pub(super) arrival: u64,
    pub(super) class: Class,
    pub(super) payload: Bytes,
    /// What it counts toward the bounds.
    pub(super) size: usize,
    pub(super) at: Instant,
}

/// A notification that was given up.
pub(super) struct GivenUp {
    pub(super) bytes: usize,
    /// Whether nobody had read it.
    pub(super) unread: bool,
}

impl Stream {
    /// Whether a finished stream was delivered to its end.
    pub(super) fn is_delivered(&self) -> bool {
        self.finished.is_some() && self.delivered >= self.last
    }

    pub(super) fn has_unread(&self) -> bool {
        self.delivered < self.last
    }

    /// The arrival of the oldest notification that may go for others' sake: delivered, or without
    /// a reader.
    pub(super) fn spare(&self) -> Option<u64> {
        let oldest = self.notifications.front()?;
        (self.reader.is_none() || oldest.sequence <= self.delivered).then_some(oldest.arrival)
    }

    pub(super) fn push(&mut self, record: Stored) {
        self.bytes += record.size;
        match record.class {
            Class::Notification => self.notifications.push_back(record),
            Class::ServerRequest | Class::Response => self.kept.push_back(record),
        }
    }

    /// Gives up the oldest notification.
    pub(super) fn give_up_oldest(&mut self) -> Option<GivenUp> {
        let oldest = self.notifications.pop_front()?;
        let bytes = oldest.size;
        self.bytes -= bytes;
        Some(GivenUp {
            bytes,
            unread: oldest.sequence > self.delivered,
        })
    }

    /// Makes room for `incoming` bytes under `bound`, as far as the contract allows. `freed` is
    /// told of each notification that goes.
    ///
    /// # Errors
    /// [`AppendError::Full`] when only a reader's progress can help.
    pub(super) fn make_room(
        &mut self,
        incoming: usize,
        bound: usize,
        mut freed: impl FnMut(GivenUp),
    ) -> Result<(), AppendError> {
        while self.bytes + incoming > bound && self.bytes > 0 {
            let unread = |oldest: &Stored| oldest.sequence > self.delivered;
            if self.reader.is_some()
                && self.has_unread()
                && self.notifications.front().is_none_or(unread)
            {
                return Err(AppendError::Full);
            }
            match self.give_up_oldest() {
                Some(gone) => freed(gone),
                None => break,
            }
        }
        Ok(())
    }

    pub(super) fn holds(&self, sequence: u64) -> bool {
        let found = |queue: &VecDeque<Stored>| {
            queue
                .binary_search_by_key(&sequence, |record| record.sequence)
                .is_ok()
        };
        found(&self.notifications) || found(&self.kept)
    }

    /// Drops what is older than `ttl`. Returns the bytes freed and how many records were unread.
    pub(super) fn expire(&mut self, now: Instant, ttl: Duration) -> (usize, u64) {
        let (mut freed, mut unread) = (0, 0);
        for queue in [&mut self.notifications, &mut self.kept] {
            while let Some(oldest) = queue.front() {
                if now.saturating_duration_since(oldest.at) < ttl {
                    break;
                }
                freed += oldest.size;
                unread += u64::from(oldest.sequence > self.delivered);
                queue.pop_front();
            }
        }
        self.bytes -= freed;
        (freed, unread)
    }

    /// The records after `cursor`, up to `max_bytes` but at least one; they count as delivered.
    pub(super) fn page_after(&mut self, cursor: EventId, max_bytes: usize) -> Page {
        let after = |queue: &VecDeque<Stored>| {
            queue.partition_point(|record| record.sequence <= cursor.sequence)
        };
        let mut notifications = self
            .notifications
            .range(after(&self.notifications)..)
            .peekable();
        let mut kept = self.kept.range(after(&self.kept)..).peekable();
        let mut records = Vec::new();
        let (mut bytes, mut position, mut missed) = (0, cursor.sequence, 0);
        let rest = loop {
            let queue = match (notifications.peek(), kept.peek()) {
                (None, None) => break false,
                (Some(a), Some(b)) if a.sequence < b.sequence => &mut notifications,
                (Some(_), None) => &mut notifications,
                (_, Some(_)) => &mut kept,
            };
            let full =
                |next: &&Stored| !records.is_empty() && bytes + next.payload.len() > max_bytes;
            if queue.peek().is_none_or(full) {
                break true;
            }
            let Some(next) = queue.next() else {
                break false;
            };
            missed += next.sequence - position - 1;
            position = next.sequence;
            bytes += next.payload.len();
            records.push(Record {
                id: EventId {
                    stream: cursor.stream,
                    sequence: next.sequence,
                },
                class: next.class,
                payload: next.payload.clone(),
            });
        };
        if !rest {
            missed += self.last - position;
            position = self.last;
        }
        self.delivered = self.delivered.max(position);
        Page {
            records,
            missed,
            position: EventId {
                stream: cursor.stream,
                sequence: position,
            },
            finished: self.finished.is_some() && !rest,
        }
    }
}
