//! Room under the total bound: what goes for what comes, and in which order.
//!
//! See [`EventLog`](crate::EventLog), "Giving up".

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use super::Inner;
use super::stream::{GivenUp, Queue, Stream};
use crate::{Class, SessionKey, StreamNumber, Usage};

/// How long a finished stream whose records were all delivered rests before it may be given up
/// for room: the client may not have received what left last.
const DELIVERED_REST: Duration = Duration::from_secs(30);

/// What a stream costs besides its records, roughly: its map entries and its first ring block.
/// Counted toward the total, or many tiny streams would slip under it.
const STREAM_OVERHEAD: usize = 512;

type Name = (SessionKey, StreamNumber);
type ByArrival = BTreeSet<(u64, SessionKey, StreamNumber)>;

/// How far an append may go for its room.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Reach {
    /// What was delivered, and notifications.
    Spare,
    /// Finished streams that nobody has read to their end, too.
    Finished,
    /// What is kept in other streams, too.
    Everything,
}

/// Where a stream stands in the indexes by arrival.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Oldest {
    spare: Option<u64>,
    kept: Option<u64>,
}

impl Oldest {
    pub(super) fn of(stream: &Stream) -> Self {
        Self {
            spare: stream.spare(),
            kept: stream.kept(),
        }
    }

    /// Puts `after` in the place of this in the indexes.
    pub(super) fn replace(
        self,
        after: Self,
        name: Name,
        spare: &mut ByArrival,
        kept: &mut ByArrival,
    ) {
        for (before, after, index) in [
            (self.spare, after.spare, spare),
            (self.kept, after.kept, kept),
        ] {
            if before != after {
                before.map(|arrival| index.remove(&(arrival, name.0, name.1)));
                index.extend(after.map(|arrival| (arrival, name.0, name.1)));
            }
        }
    }
}

impl Usage {
    /// Notes what a record that is gone leaves behind.
    pub(super) fn give_up(&mut self, gone: &GivenUp) {
        self.bytes -= gone.bytes;
        let unread = u64::from(gone.unread);
        match gone.class {
            Class::Notification => self.notifications_given_up += unread,
            Class::Response => self.responses_given_up += unread,
            // Its owner asks: an open one wants an answer.
            Class::ServerRequest => {}
        }
    }
}

impl Inner {
    /// Memory held, overhead included.
    fn held(&self) -> usize {
        self.usage.bytes + self.overhead()
    }

    fn overhead(&self) -> usize {
        self.usage.streams * STREAM_OVERHEAD
    }

    /// Memory held when every record and finished stream is given up.
    fn least(&self) -> usize {
        (self.usage.streams - self.finished.len()) * STREAM_OVERHEAD
    }

    /// Makes room for `size` bytes under the total bound; false if there is none within reach.
    pub(super) fn make_room(
        &mut self,
        size: usize,
        total: usize,
        reach: Reach,
        now: Instant,
    ) -> bool {
        // What can have no room pushes nothing out.
        if size + self.least() > total {
            return false;
        }
        let bound = total - size;
        if self.held() > bound {
            self.shrink(bound, reach, now);
        }
        self.held() <= bound
    }

    /// Whether a record that is larger than the total bound may be held on top of it, alone.
    pub(super) fn may_stand_out(&self, size: usize, total: usize) -> bool {
        size + self.least() > total && self.held() <= total.max(self.overhead())
    }

    /// Brings the total under `bound` as far as it may.
    fn shrink(&mut self, bound: usize, reach: Reach, now: Instant) {
        self.give_up_delivered(bound, DELIVERED_REST, now);
        self.give_up_oldest(bound, Queue::Spare);
        self.give_up_delivered(bound, Duration::ZERO, now);
        if reach >= Reach::Finished {
            while self.held() > bound
                && let Some(&(_, session, stream)) = self.finished.first()
            {
                self.give_up_stream(session, stream);
            }
        }
        if reach >= Reach::Everything {
            self.give_up_oldest(bound, Queue::Kept);
        }
    }

    fn give_up_oldest(&mut self, bound: usize, queue: Queue) {
        let first = |inner: &Self| match queue {
            Queue::Spare => inner.spare.first().copied(),
            Queue::Kept => inner.kept.first().copied(),
        };
        while self.held() > bound
            && let Some((_, session, stream)) = first(self)
        {
            let given_up = self.change(session, stream, |stream, usage| {
                if let Some(gone) = stream.give_up_oldest(queue) {
                    usage.give_up(&gone);
                }
            });
            if given_up.is_none() {
                return;
            }
        }
    }

    fn give_up_delivered(&mut self, bound: usize, rest: Duration, now: Instant) {
        while self.held() > bound
            && let Some(&(at, session, stream)) = self.delivered.first()
            && now.saturating_duration_since(at) >= rest
        {
            self.give_up_stream(session, stream);
        }
    }

    fn give_up_stream(&mut self, session: SessionKey, stream: StreamNumber) {
        let _ = self.change(session, stream, |stream, usage| {
            for gone in stream.give_up_all() {
                usage.give_up(&gone);
            }
        });
        self.usage.streams_given_up += 1;
        self.remove(session, stream);
    }
}
