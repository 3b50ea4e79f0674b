//! The memory backend: a ring per stream, bounded in bytes, gone with the process.
//!
//! One mutex guards everything: an append or a read holds it for about a microsecond, and the
//! bound over all streams needs one place that sees them all. What may go first when that bound is
//! reached stands first in an index, so that giving up costs no search.

mod room;
mod stream;

use std::collections::{BTreeSet, HashMap};
use std::time::{Duration, Instant};

use bytes::Bytes;
use parking_lot::Mutex;

use crate::{
    AppendError, Class, Delivery, EventId, EventLog, Limits, LogFuture, Page, ReadError,
    SessionKey, StreamNumber, Usage,
};
use room::{Oldest, Reach};
use stream::{GivenUp, Stored, Stream};

/// Payloads up to this size are copied. As it arrives a payload is a piece of the buffer that it was
/// read into, 8 KiB or more, which a notification of 100 bytes must not keep.
const COPIED: usize = 64 * 1024;

/// An [`EventLog`] in memory.
#[derive(Debug)]
pub struct MemoryLog {
    limits: Limits,
    inner: Mutex<Inner>,
}

/// Every append looks its stream up, so these are quick. The keys are numbers of ours: nobody can
/// choose ones that collide.
type Map<K, V> = HashMap<K, V, rapidhash::fast::GlobalState>;

#[derive(Debug, Default)]
struct Inner {
    sessions: Map<SessionKey, Map<StreamNumber, Stream>>,
    /// Finished streams by the time of their end.
    finished: BTreeSet<(Instant, SessionKey, StreamNumber)>,
    /// Those of them that were delivered to the end.
    delivered: BTreeSet<(Instant, SessionKey, StreamNumber)>,
    /// Streams with a record that may go, by the arrival of the oldest.
    spare: BTreeSet<(u64, SessionKey, StreamNumber)>,
    /// Unfinished streams with a record that is kept, by the arrival of the oldest.
    kept: BTreeSet<(u64, SessionKey, StreamNumber)>,
    arrivals: u64,
    usage: Usage,
}

impl MemoryLog {
    /// An empty log.
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            inner: Mutex::default(),
        }
    }

    /// Whether something holds of the event with this id; of an unknown stream's nothing does.
    fn is_true_of(&self, session: SessionKey, id: EventId, test: fn(&Stream, u64) -> bool) -> bool {
        let inner = self.inner.lock();
        let streams = inner.sessions.get(&session);
        let stream = streams.and_then(|streams| streams.get(&id.stream));
        stream.is_some_and(|stream| test(stream, id.sequence))
    }
}

impl Inner {
    fn open(&mut self, session: SessionKey, stream: StreamNumber) {
        let usage = &mut self.usage;
        self.sessions
            .entry(session)
            .or_default()
            .entry(stream)
            .or_insert_with(|| {
                usage.streams += 1;
                Stream::default()
            });
    }

    /// Changes a stream and keeps the indexes true. `None` if it is unknown.
    fn change<T>(
        &mut self,
        session: SessionKey,
        stream: StreamNumber,
        change: impl FnOnce(&mut Stream, &mut Usage) -> T,
    ) -> Option<T> {
        let entry = self.sessions.get_mut(&session)?.get_mut(&stream)?;
        let before = (Oldest::of(entry), entry.finished, entry.is_delivered());
        let result = change(entry, &mut self.usage);
        let after = (Oldest::of(entry), entry.finished, entry.is_delivered());
        let name = (session, stream);
        before
            .0
            .replace(after.0, name, &mut self.spare, &mut self.kept);
        if let Some(at) = after.1 {
            if before.1.is_none() {
                self.finished.insert((at, session, stream));
            }
            if after.2 && !before.2 {
                self.delivered.insert((at, session, stream));
            }
        }
        Some(result)
    }

    fn remove(&mut self, session: SessionKey, stream: StreamNumber) {
        let Some(streams) = self.sessions.get_mut(&session) else {
            return;
        };
        if let Some(gone) = streams.remove(&stream) {
            self.usage.bytes -= gone.bytes;
            self.usage.streams -= 1;
            if let Some(at) = gone.finished {
                self.finished.remove(&(at, session, stream));
                self.delivered.remove(&(at, session, stream));
            }
            let (name, gone) = ((session, stream), Oldest::of(&gone));
            gone.replace(Oldest::default(), name, &mut self.spare, &mut self.kept);
        }
        if streams.is_empty() {
            self.sessions.remove(&session);
        }
    }

    fn append(
        &mut self,
        limits: &Limits,
        id: (SessionKey, StreamNumber),
        record: (Class, Bytes, Delivery),
        now: Instant,
    ) -> Result<EventId, AppendError> {
        let ((session, stream), (class, payload, delivery)) = (id, record);
        let size = payload.len() + limits.record_bytes;
        self.open(session, stream);
        let room = self.change(session, stream, |stream, usage| {
            if stream.finished.is_some() {
                return Err(AppendError::Closed);
            }
            stream.make_room(size, limits.stream_bytes, |gone| usage.give_up(&gone))?;
            Ok(stream.is_awaited())
        });
        let awaited = room.unwrap_or(Err(AppendError::Closed))?;
        let reach = match (class, delivery) {
            (Class::Response, Delivery::Live) => Reach::Finished,
            (Class::Response, Delivery::Pending) => Reach::Everything,
            (_, Delivery::Pending) if awaited => Reach::Everything,
            _ => Reach::Spare,
        };
        let has_room = self.make_room(size, limits.total_bytes, reach, now)
            || awaited && self.may_stand_out(size, limits.total_bytes);
        self.arrivals += 1;
        let arrival = self.arrivals;
        let appended = self.change(session, stream, |entry, usage| {
            let unsaved = !has_room && delivery == Delivery::Pending;
            if unsaved && entry.reader.is_some() {
                return Err(AppendError::Full);
            }
            if unsaved && class == Class::ServerRequest {
                return Err(AppendError::NoRoom);
            }
            entry.last += 1;
            if delivery == Delivery::Live {
                entry.delivered = entry.last;
            }
            let sequence = entry.last;
            if has_room {
                usage.bytes += size;
                entry.push(Stored {
                    sequence,
                    arrival,
                    class,
                    payload,
                    size,
                    at: now,
                });
            } else {
                // Given up at once.
                usage.give_up(&GivenUp {
                    class,
                    bytes: 0,
                    unread: unsaved,
                });
            }
            Ok(EventId { stream, sequence })
        });
        appended.unwrap_or(Err(AppendError::Closed))
    }

    fn expire(&mut self, now: Instant, ttl: Duration) {
        while let Some(&(at, session, stream)) = self.finished.first()
            && now.saturating_duration_since(at) >= ttl
        {
            let _ = self.change(session, stream, |stream, usage| {
                let (freed, unread) = stream.expire(now, ttl);
                usage.bytes -= freed;
                usage.expired_unread += unread;
            });
            self.remove(session, stream);
        }
        let Self {
            sessions,
            spare,
            kept,
            usage,
            ..
        } = self;
        for (session, streams) in sessions {
            for (number, stream) in streams {
                let before = Oldest::of(stream);
                let (freed, unread) = stream.expire(now, ttl);
                usage.bytes -= freed;
                usage.expired_unread += unread;
                before.replace(Oldest::of(stream), (*session, *number), spare, kept);
            }
        }
    }
}

impl EventLog for MemoryLog {
    fn open(&self, session: SessionKey, stream: StreamNumber, _now: Instant) -> LogFuture<'_, ()> {
        self.inner.lock().open(session, stream);
        LogFuture::ready(())
    }

    fn append(
        &self,
        session: SessionKey,
        stream: StreamNumber,
        class: Class,
        payload: Bytes,
        delivery: Delivery,
        now: Instant,
    ) -> LogFuture<'_, Result<EventId, AppendError>> {
        let payload = if payload.len() <= COPIED {
            Bytes::copy_from_slice(&payload)
        } else {
            payload
        };
        let record = (class, payload, delivery);
        let appended = self
            .inner
            .lock()
            .append(&self.limits, (session, stream), record, now);
        LogFuture::ready(appended)
    }

    fn read(
        &self,
        session: SessionKey,
        cursor: EventId,
        max_bytes: usize,
        _now: Instant,
    ) -> LogFuture<'_, Result<Page, ReadError>> {
        let page = self
            .inner
            .lock()
            .change(session, cursor.stream, |stream, _| {
                (cursor.sequence <= stream.last).then(|| stream.page_after(cursor, max_bytes))
            });
        LogFuture::ready(page.flatten().ok_or(ReadError::Unknown))
    }

    fn attach(&self, session: SessionKey, stream: StreamNumber, reader: u64) -> LogFuture<'_, ()> {
        let _ = self.inner.lock().change(session, stream, |stream, _| {
            if reader > stream.highest_reader {
                stream.highest_reader = reader;
                stream.reader = Some(reader);
            }
        });
        LogFuture::ready(())
    }

    fn detach(&self, session: SessionKey, stream: StreamNumber, reader: u64) -> LogFuture<'_, ()> {
        let _ = self.inner.lock().change(session, stream, |stream, _| {
            if stream.reader == Some(reader) {
                stream.reader = None;
            }
        });
        LogFuture::ready(())
    }

    fn holds(&self, session: SessionKey, id: EventId) -> LogFuture<'_, bool> {
        LogFuture::ready(self.is_true_of(session, id, Stream::holds))
    }

    fn lost(&self, session: SessionKey, id: EventId) -> LogFuture<'_, bool> {
        LogFuture::ready(self.is_true_of(session, id, Stream::lost))
    }

    fn settle(&self, session: SessionKey, id: EventId) -> LogFuture<'_, ()> {
        let _ = self.inner.lock().change(session, id.stream, |stream, _| {
            stream.settle(id.sequence);
        });
        LogFuture::ready(())
    }

    fn finish(&self, session: SessionKey, stream: StreamNumber, now: Instant) -> LogFuture<'_, ()> {
        let _ = self.inner.lock().change(session, stream, |stream, _| {
            stream.finished.get_or_insert(now);
        });
        LogFuture::ready(())
    }

    fn forget(&self, session: SessionKey) -> LogFuture<'_, ()> {
        let mut inner = self.inner.lock();
        let streams: Vec<_> = inner
            .sessions
            .get(&session)
            .into_iter()
            .flat_map(Map::keys)
            .copied()
            .collect();
        for stream in streams {
            inner.remove(session, stream);
        }
        drop(inner);
        LogFuture::ready(())
    }

    fn expire(&self, now: Instant) -> LogFuture<'_, ()> {
        self.inner.lock().expire(now, self.limits.ttl);
        LogFuture::ready(())
    }

    fn usage(&self) -> Usage {
        self.inner.lock().usage
    }
}

#[cfg(test)]
mod tests;
