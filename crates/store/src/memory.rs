//! The memory backend: a ring per stream, bounded in bytes, gone with the process.
//!
//! One mutex guards everything: an append or a read holds it for well under a microsecond, and
//! the bound over all streams needs one place that sees them all.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::time::{Duration, Instant};

use bytes::Bytes;
use parking_lot::Mutex;

use crate::{
    AppendError, BoxFuture, Class, Delivery, EventId, EventLog, Limits, Page, ReadError, Record,
    SessionKey, StreamNumber, Usage,
};

/// How long a finished stream whose records were all delivered rests before it may be given up
/// for room: the client may not have received what left last.
const DELIVERED_REST: Duration = Duration::from_secs(30);

/// What a stream costs besides its payload, roughly: its map entries and its first ring block.
/// Counted toward the total, or many tiny streams would slip under it.
const STREAM_OVERHEAD: usize = 512;

/// An [`EventLog`] in memory.
#[derive(Debug)]
pub struct MemoryLog {
    limits: Limits,
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    sessions: HashMap<SessionKey, HashMap<StreamNumber, Stream>>,
    /// Finished streams by the time of their end, for giving up the oldest first.
    finished: BTreeSet<(Instant, SessionKey, StreamNumber)>,
    usage: Usage,
}

#[derive(Debug, Default)]
struct Stream {
    records: VecDeque<Stored>,
    bytes: usize,
    /// Sequence of the newest record ever appended.
    last: u64,
    /// Sequence up to which records were delivered to a reader.
    delivered: u64,
    reader: bool,
    finished: Option<Instant>,
}

#[derive(Debug)]
struct Stored {
    sequence: u64,
    class: Class,
    payload: Bytes,
    at: Instant,
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
}

impl Stream {
    /// Removes the oldest record that `may_go` allows. Returns its size.
    fn give_up_first(&mut self, may_go: impl Fn(&Stored) -> bool) -> Option<usize> {
        let index = self.records.iter().position(may_go)?;
        let size = self.records.remove(index)?.payload.len();
        self.bytes -= size;
        Some(size)
    }

    /// Makes room for `incoming` bytes under `bound`. Delivered records go first, then, without a
    /// reader, notifications. Returns the bytes freed and the unread notifications given up, or
    /// `Full` when only a reader's progress can help.
    fn make_room(&mut self, incoming: usize, bound: usize) -> Result<(usize, u64), AppendError> {
        let (mut freed, mut lost) = (0, 0);
        while self.bytes + incoming > bound && !self.records.is_empty() {
            let delivered = self.delivered;
            if let Some(size) =
                self.give_up_first(|r| r.sequence <= delivered && r.class == Class::Notification)
            {
                freed += size;
            } else if self.reader && self.delivered < self.last {
                return Err(AppendError::Full);
            } else if let Some(size) = self.give_up_first(|r| r.class == Class::Notification) {
                freed += size;
                lost += 1;
            } else {
                break;
            }
        }
        Ok((freed, lost))
    }
}

impl Inner {
    fn stream(&mut self, session: SessionKey, stream: StreamNumber) -> Option<&mut Stream> {
        self.sessions.get_mut(&session)?.get_mut(&stream)
    }

    fn open(&mut self, session: SessionKey, stream: StreamNumber) -> &mut Stream {
        let usage = &mut self.usage;
        self.sessions
            .entry(session)
            .or_default()
            .entry(stream)
            .or_insert_with(|| {
                usage.streams += 1;
                Stream::default()
            })
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
            }
        }
        if streams.is_empty() {
            self.sessions.remove(&session);
        }
    }

    /// Memory held, overhead included.
    fn held(&self) -> usize {
        self.usage.bytes + self.usage.streams * STREAM_OVERHEAD
    }

    /// Brings the total under `bound`: finished streams that were delivered first, the rested ones
    /// before the others, then notifications of streams that nobody reads.
    fn shrink(&mut self, bound: usize, now: Instant) {
        for rest in [DELIVERED_REST, Duration::ZERO] {
            while self.held() > bound {
                let Some((_, session, stream)) = self.oldest_delivered(rest, now) else {
                    break;
                };
                self.usage.streams_given_up += 1;
                self.remove(session, stream);
            }
        }
        if self.held() > bound {
            self.shrink_notifications(bound);
        }
    }

    fn oldest_delivered(
        &self,
        rest: Duration,
        now: Instant,
    ) -> Option<(Instant, SessionKey, StreamNumber)> {
        let rested = |at: Instant| now.saturating_duration_since(at) >= rest;
        let delivered = |session: &SessionKey, stream: &StreamNumber| {
            let found = self
                .sessions
                .get(session)
                .and_then(|streams| streams.get(stream));
            found.is_some_and(|stream: &Stream| stream.delivered >= stream.last)
        };
        let finished = self.finished.iter().take_while(|(at, ..)| rested(*at));
        finished
            .copied()
            .find(|(_, session, stream)| delivered(session, stream))
    }

    fn shrink_notifications(&mut self, bound: usize) {
        let Self {
            sessions, usage, ..
        } = self;
        for stream in sessions
            .values_mut()
            .flat_map(HashMap::values_mut)
            .filter(|s| !s.reader)
        {
            while usage.bytes > bound {
                let delivered = stream.delivered;
                let Some(record) = stream
                    .records
                    .iter()
                    .find(|r| r.class == Class::Notification)
                else {
                    break;
                };
                if record.sequence > delivered {
                    usage.notifications_given_up += 1;
                }
                let sequence = record.sequence;
                usage.bytes -= stream
                    .give_up_first(|r| r.sequence == sequence)
                    .unwrap_or(0);
            }
            if usage.bytes <= bound {
                return;
            }
        }
    }
}

impl EventLog for MemoryLog {
    fn open(&self, session: SessionKey, stream: StreamNumber, _now: Instant) -> BoxFuture<'_, ()> {
        self.inner.lock().open(session, stream);
        Box::pin(std::future::ready(()))
    }

    fn append(
        &self,
        session: SessionKey,
        stream: StreamNumber,
        class: Class,
        payload: Bytes,
        delivery: Delivery,
        now: Instant,
    ) -> BoxFuture<'_, Result<EventId, AppendError>> {
        let mut inner = self.inner.lock();
        let size = payload.len();
        let entry = inner.open(session, stream);
        let result = if entry.finished.is_some() {
            Err(AppendError::Closed)
        } else {
            entry
                .make_room(size, self.limits.stream_bytes)
                .map(|(freed, lost)| {
                    entry.last += 1;
                    entry.bytes += size;
                    if delivery == Delivery::Live {
                        entry.delivered = entry.last;
                    }
                    let sequence = entry.last;
                    entry.records.push_back(Stored {
                        sequence,
                        class,
                        payload,
                        at: now,
                    });
                    (EventId { stream, sequence }, freed, lost)
                })
        };
        let result = result.map(|(id, freed, lost)| {
            inner.usage.bytes = inner.usage.bytes + size - freed;
            inner.usage.notifications_given_up += lost;
            if inner.held() > self.limits.total_bytes {
                inner.shrink(self.limits.total_bytes, now);
            }
            id
        });
        drop(inner);
        Box::pin(std::future::ready(result))
    }

    fn read(
        &self,
        session: SessionKey,
        cursor: EventId,
        max_bytes: usize,
        _now: Instant,
    ) -> BoxFuture<'_, Result<Page, ReadError>> {
        let mut inner = self.inner.lock();
        let page = match inner.stream(session, cursor.stream) {
            Some(stream) if cursor.sequence <= stream.last => {
                Ok(page_after(stream, cursor, max_bytes))
            }
            _ => Err(ReadError::Unknown),
        };
        drop(inner);
        Box::pin(std::future::ready(page))
    }

    fn set_reader(
        &self,
        session: SessionKey,
        stream: StreamNumber,
        attached: bool,
    ) -> BoxFuture<'_, ()> {
        if let Some(stream) = self.inner.lock().stream(session, stream) {
            stream.reader = attached;
        }
        Box::pin(std::future::ready(()))
    }

    fn finish(&self, session: SessionKey, stream: StreamNumber, now: Instant) -> BoxFuture<'_, ()> {
        let mut inner = self.inner.lock();
        if let Some(entry) = inner.stream(session, stream)
            && entry.finished.is_none()
        {
            entry.finished = Some(now);
            inner.finished.insert((now, session, stream));
        }
        drop(inner);
        Box::pin(std::future::ready(()))
    }

    fn forget(&self, session: SessionKey) -> BoxFuture<'_, ()> {
        let mut inner = self.inner.lock();
        let streams: Vec<_> = inner
            .sessions
            .get(&session)
            .into_iter()
            .flat_map(HashMap::keys)
            .copied()
            .collect();
        for stream in streams {
            inner.remove(session, stream);
        }
        drop(inner);
        Box::pin(std::future::ready(()))
    }

    fn expire(&self, now: Instant) -> BoxFuture<'_, ()> {
        let ttl = self.limits.ttl;
        let old = |at: Instant| now.saturating_duration_since(at) >= ttl;
        let mut inner = self.inner.lock();
        let gone: Vec<_> = inner
            .finished
            .iter()
            .take_while(|(at, ..)| old(*at))
            .copied()
            .collect();
        for (_, session, stream) in gone {
            inner.remove(session, stream);
        }
        let Inner {
            sessions, usage, ..
        } = &mut *inner;
        for stream in sessions.values_mut().flat_map(HashMap::values_mut) {
            while stream.records.front().is_some_and(|record| old(record.at)) {
                let Some(record) = stream.records.pop_front() else {
                    break;
                };
                stream.bytes -= record.payload.len();
                usage.bytes -= record.payload.len();
                if record.sequence > stream.delivered && record.class == Class::Notification {
                    usage.notifications_given_up += 1;
                }
            }
        }
        drop(inner);
        Box::pin(std::future::ready(()))
    }

    fn usage(&self) -> Usage {
        self.inner.lock().usage
    }
}

/// The records after `cursor`, up to `max_bytes` but at least one; they count as delivered.
fn page_after(stream: &mut Stream, cursor: EventId, max_bytes: usize) -> Page {
    let mut records = Vec::new();
    let (mut bytes, mut position, mut missed) = (0, cursor.sequence, 0);
    let from = stream
        .records
        .partition_point(|record| record.sequence <= cursor.sequence);
    for stored in stream.records.iter().skip(from) {
        if !records.is_empty() && bytes + stored.payload.len() > max_bytes {
            break;
        }
        missed += stored.sequence - position - 1;
        position = stored.sequence;
        bytes += stored.payload.len();
        records.push(Record {
            id: EventId {
                stream: cursor.stream,
                sequence: stored.sequence,
            },
            class: stored.class,
            payload: stored.payload.clone(),
        });
    }
    if records.is_empty() {
        missed = stream.last - position;
        position = stream.last;
    }
    let reached_end = stream
        .records
        .back()
        .is_none_or(|newest| newest.sequence <= position);
    stream.delivered = stream.delivered.max(position);
    Page {
        records,
        missed,
        finished: stream.finished.is_some() && reached_end,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[tokio::test]
    async fn keeps_the_contract() {
        crate::contract::check(&|limits| Arc::new(MemoryLog::new(limits))).await;
    }

    #[tokio::test]
    async fn usage_returns_to_nothing() {
        let log = MemoryLog::new(Limits::default());
        let (session, now) = (SessionKey(1), Instant::now());
        for stream in 1..50 {
            let stream = StreamNumber(stream);
            let payload = Bytes::from_static(b"{}");
            let appended = log
                .append(
                    session,
                    stream,
                    Class::Response,
                    payload,
                    Delivery::Live,
                    now,
                )
                .await;
            assert!(appended.is_ok());
            log.finish(session, stream, now).await;
        }
        log.forget(session).await;
        let usage = log.usage();
        assert_eq!((usage.bytes, usage.streams), (0, 0));
        let inner = log.inner.lock();
        assert!(inner.sessions.is_empty() && inner.finished.is_empty());
    }
}
