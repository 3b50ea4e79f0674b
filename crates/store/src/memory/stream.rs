//! One stream's ring.
//!
//! What may be given up (notifications, settled server requests) and what is to be kept (responses,
//! open server requests) stand in two queues, so that the oldest of either is at its front; a read
//! merges them by sequence.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use bytes::Bytes;

use crate::{AppendError, Class, EventId, Page, Record};

#[derive(Debug, Default)]
pub(super) struct Stream {
    spare: VecDeque<Stored>,
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

/// A record that was given up.
pub(super) struct GivenUp {
    pub(super) class: Class,
    pub(super) bytes: usize,
    /// Whether nobody had read it.
    pub(super) unread: bool,
}

/// Which of the two queues.
#[derive(Debug, Clone, Copy)]
pub(super) enum Queue {
    /// Notifications and settled server requests.
    Spare,
    /// Responses and open server requests.
    Kept,
}

impl Stream {
    /// Whether a finished stream was delivered to its end.
    pub(super) fn is_delivered(&self) -> bool {
        self.finished.is_some() && self.delivered >= self.last
    }

    pub(super) fn has_unread(&self) -> bool {
        self.delivered < self.last
    }

    /// Whether a reader has read all there is, and waits for more.
    pub(super) fn is_awaited(&self) -> bool {
        self.reader.is_some() && !self.has_unread()
    }

    /// The arrival of the oldest kept record. Of a finished stream they go with it.
    pub(super) fn kept(&self) -> Option<u64> {
        let oldest = self.kept.front()?;
        self.finished.is_none().then_some(oldest.arrival)
    }

    /// The arrival of the oldest spare record that may go for others' sake: delivered, or without
    /// a reader.
    pub(super) fn spare(&self) -> Option<u64> {
        let oldest = self.spare.front()?;
        (self.reader.is_none() || oldest.sequence <= self.delivered).then_some(oldest.arrival)
    }

    pub(super) fn push(&mut self, record: Stored) {
        self.bytes += record.size;
        match record.class {
            Class::Notification => self.spare.push_back(record),
            Class::ServerRequest | Class::Response => self.kept.push_back(record),
        }
    }

    /// A server request needs to be kept no longer.
    pub(super) fn settle(&mut self, sequence: u64) {
        let place = self
            .kept
            .binary_search_by_key(&sequence, |record| record.sequence);
        let settled = place
            .ok()
            .filter(|place| self.kept[*place].class == Class::ServerRequest);
        if let Some(record) = settled.and_then(|place| self.kept.remove(place)) {
            let place = self
                .spare
                .partition_point(|other| other.sequence < sequence);
            self.spare.insert(place, record);
        }
    }

    /// Gives up the oldest record of a queue.
    pub(super) fn give_up_oldest(&mut self, queue: Queue) -> Option<GivenUp> {
        let oldest = match queue {
            Queue::Spare => self.spare.pop_front()?,
            Queue::Kept => self.kept.pop_front()?,
        };
        self.bytes -= oldest.size;
        Some(GivenUp {
            class: oldest.class,
            bytes: oldest.size,
            unread: oldest.sequence > self.delivered,
        })
    }

    /// Gives up everything.
    pub(super) fn give_up_all(&mut self) -> impl Iterator<Item = GivenUp> {
        std::iter::from_fn(|| {
            self.give_up_oldest(Queue::Spare)
                .or_else(|| self.give_up_oldest(Queue::Kept))
        })
    }

    /// Makes room for `incoming` bytes under `bound`, as far as the contract allows. `freed` is
    /// told of each record that goes.
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
            if self.reader.is_some() && self.has_unread() && self.spare.front().is_none_or(unread) {
                return Err(AppendError::Full);
            }
            match self.give_up_oldest(Queue::Spare) {
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
        found(&self.spare) || found(&self.kept)
    }

    /// Whether a record was given up unread.
    pub(super) fn lost(&self, sequence: u64) -> bool {
        (self.delivered + 1..=self.last).contains(&sequence) && !self.holds(sequence)
    }

    /// Drops what is older than `ttl`. Returns the bytes freed and how many records were unread.
    pub(super) fn expire(&mut self, now: Instant, ttl: Duration) -> (usize, u64) {
        let (mut freed, mut unread) = (0, 0);
        for queue in [&mut self.spare, &mut self.kept] {
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
        let mut spare = self.spare.range(after(&self.spare)..).peekable();
        let mut kept = self.kept.range(after(&self.kept)..).peekable();
        let mut records = Vec::new();
        let (mut bytes, mut position, mut missed) = (0, cursor.sequence, 0);
        let rest = loop {
            let queue = match (spare.peek(), kept.peek()) {
                (None, None) => break false,
                (Some(a), Some(b)) if a.sequence < b.sequence => &mut spare,
                (Some(_), None) => &mut spare,
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
