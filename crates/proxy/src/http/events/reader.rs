//! A GET: what the log has after a cursor, then what is still appended.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use shadowcat_store::{EventId, Page, ReadError, StreamNumber};
use shadowcat_transport::downstream::EventBytes;
use tokio::time::Instant;
use tokio_util::task::task_tracker::TaskTrackerToken;

use super::super::registry::ClientSession;
use super::feed::StreamState;
use super::keep_alive::{COMMENT, KeepAlive};
use super::{CHUNK, opening, write};
use crate::session::Busy;

/// The stream of an exchange after `cursor`; `None` if it is finished and nothing is left of it.
///
/// # Errors
/// When the cursor is unknown, or all that came after it was given up; who carries the stream
/// stays in charge then.
pub(in super::super) async fn replay(
    client: Arc<ClientSession>,
    cursor: EventId,
) -> Result<Option<EventBytes>, ReadError> {
    // Before the log is read: a stream that ends in between is one of which the log has the end.
    let state = client.stream(cursor.stream);
    let page = read(&client, cursor).await?;
    let metrics = &client.session.shared.metrics;
    if page.records.is_empty() && (page.finished || state.is_none()) {
        metrics.replay_missed.inc_by(page.missed);
        return match page.missed {
            0 => Ok(None),
            // There was more, the response too: not to be had any more, and no end in order.
            _ => Err(ReadError::Unknown),
        };
    }
    metrics.resumed_by_clients.inc();
    let place = match state {
        Some(state) => Place::Exchange {
            carrier: client.take_over(&state),
            state,
        },
        None => Place::Finished,
    };
    // A client that is cut off again before the next event must still know where it stands: clients
    // remember an id for as long as the stream lives that it came on.
    let start = page.records.is_empty().then(|| start_at(&client, cursor));
    let mut reader = Reader::new(client, place, cursor, Some(page));
    reader.opening = start.flatten();
    Ok(Some(reader.start().await))
}

/// The standalone stream, from `cursor` or from where the last reader left.
///
/// # Errors
/// When the cursor is unknown.
pub(in super::super) async fn standalone(
    client: Arc<ClientSession>,
    cursor: Option<EventId>,
) -> Result<EventBytes, ReadError> {
    let session = &client.session;
    let (log, now) = (&session.shared.log, Instant::now().into_std());
    log.open(session.key, StreamNumber::STANDALONE, now).await;
    let page = match cursor {
        Some(cursor) => Some(read(&client, cursor).await?),
        None => None,
    };
    if cursor.is_some() {
        session.shared.metrics.resumed_by_clients.inc();
    }
    session.open_standalone().await;
    let (reader, position) = session.standalone.attach();
    let cursor = cursor.unwrap_or(position);
    let start = start_at(&client, cursor);
    let mut reader = Reader::new(client, Place::Standalone { reader }, cursor, page);
    reader.opening = start;
    Ok(reader.start().await)
}

/// What a stream opens with that goes on at `cursor`, if the client's version knows that.
fn start_at(client: &ClientSession, cursor: EventId) -> Option<Bytes> {
    let mut start = BytesMut::new();
    opening(&mut start, &client.session, cursor);
    (!start.is_empty()).then(|| start.freeze())
}

async fn read(client: &ClientSession, cursor: EventId) -> Result<Page, ReadError> {
    let session = &client.session;
    let (log, now) = (&session.shared.log, Instant::now().into_std());
    log.read(session.key, cursor, CHUNK, now).await
}

/// A GET that reads from the log.
struct Reader {
    client: Arc<ClientSession>,
    place: Place,
    cursor: EventId,
    /// Read already, not sent yet.
    page: Option<Page>,
    opening: Option<Bytes>,
    keep_alive: KeepAlive,
    _busy: Busy,
    _carrying: TaskTrackerToken,
}

/// Which stream a [`Reader`] reads, and its claim on it.
enum Place {
    /// An exchange's that goes on.
    Exchange {
        state: Arc<StreamState>,
        carrier: u64,
    },
    /// An exchange's that has ended.
    Finished,
    /// The session's own.
    Standalone { reader: u64 },
}

impl Reader {
    fn new(client: Arc<ClientSession>, place: Place, cursor: EventId, page: Option<Page>) -> Self {
        Self {
            keep_alive: KeepAlive::new(&client.session.shared),
            _busy: client.session.busy(),
            _carrying: client.carriers.token(),
            place,
            cursor,
            page,
            opening: None,
            client,
        }
    }

    /// The number that the log knows this reader by; none where nothing is appended any more.
    fn number(&self) -> Option<u64> {
        match self.place {
            Place::Exchange { carrier, .. } => Some(carrier),
            Place::Standalone { reader } => Some(reader),
            Place::Finished => None,
        }
    }

    async fn start(self) -> EventBytes {
        let session = &self.client.session;
        if let Some(number) = self.number() {
            let log = &session.shared.log;
            log.attach(session.key, self.cursor.stream, number).await;
        }
        Box::pin(futures_util::stream::unfold(
            self,
            |mut reader| async move { reader.next().await.map(|bytes| (bytes, reader)) },
        ))
    }

    async fn next(&mut self) -> Option<Bytes> {
        let mut bytes = BytesMut::new();
        if let Some(opening) = self.opening.take() {
            bytes.extend_from_slice(&opening);
        }
        let client = Arc::clone(&self.client);
        let session = &client.session;
        let state = match &self.place {
            Place::Exchange { state, .. } => Some(Arc::clone(state)),
            Place::Finished | Place::Standalone { .. } => None,
        };
        let standalone = matches!(self.place, Place::Standalone { .. });
        loop {
            let changed = match &state {
                Some(state) => state.changed.notified(),
                None => session.standalone.changed.notified(),
            };
            let finished = !self.is_in_charge() || self.fill(&mut bytes).await;
            if !bytes.is_empty() {
                self.keep_alive.sent();
                return Some(bytes.freeze());
            }
            if finished || (standalone && session.has_ended()) {
                return None;
            }
            tokio::select! {
                biased;
                () = changed => {}
                // An exchange's stream still gets its last message.
                () = session.ended(), if standalone => {}
                () = self.keep_alive.due() => return Some(COMMENT),
            }
        }
    }

    /// Encodes what the log has; true at the stream's end.
    async fn fill(&mut self, bytes: &mut BytesMut) -> bool {
        let page = match self.page.take() {
            Some(page) => page,
            None => match read(&self.client, self.cursor).await {
                Ok(page) => page,
                Err(_) => return true,
            },
        };
        let session = &self.client.session;
        session.shared.metrics.replay_missed.inc_by(page.missed);
        for record in &page.records {
            write(bytes, Some(record.id), &record.payload);
        }
        self.cursor = page.position;
        if !page.records.is_empty() {
            match &self.place {
                Place::Exchange { state, .. } => state.read.notify_waiters(),
                Place::Standalone { reader } => session.standalone.took(*reader, self.cursor),
                Place::Finished => {}
            }
        }
        page.finished || matches!(self.place, Place::Finished) && page.records.is_empty()
    }

    fn is_in_charge(&self) -> bool {
        match &self.place {
            Place::Exchange { state, carrier } => state.is_carried_by(*carrier),
            Place::Finished => true,
            Place::Standalone { reader } => self.client.session.standalone.is_reader(*reader),
        }
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        let Some(number) = self.number() else { return };
        let session = Arc::clone(&self.client.session);
        let state = match &self.place {
            Place::Exchange { state, .. } => Some(Arc::clone(state)),
            _ => {
                session.close_standalone(number);
                None
            }
        };
        let stream = self.cursor.stream;
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move {
                let log = &session.shared.log;
                log.detach(session.key, stream, number).await;
                // Who waits for this reader does not have to any more.
                match state {
                    Some(state) => state.read.notify_waiters(),
                    None => session.standalone.read.notify_waiters(),
                }
            });
        }
    }
}
