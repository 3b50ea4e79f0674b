//! Event streams toward HTTP clients.
//!
//! Three kinds leave here:
//! - [`live`]: the answer to a legacy POST. Whoever carries the bytes pulls the exchange; each
//!   message is in the log before its bytes leave. If the carrier is dropped, a task takes the
//!   rest into the log.
//! - [`replay`]: what a GET with `Last-Event-ID` gets: the log after the cursor, then what is
//!   still appended, until the stream is finished.
//! - [`modern`]: the answer to a modern POST: no ids, no log; dropping it is the cancel.
//!
//! Ids, priming event and `retry` follow resilience section 7: from 2025-11-25 on a stream opens
//! with an event that has an id and empty data, so that a client cut before the first message can
//! come back.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::{FutureExt, StreamExt};
use shadowcat_mcp::message::{Kind, Message};
use shadowcat_mcp::version::ProtocolVersion;
use shadowcat_sse::encoder;
use shadowcat_store::{AppendError, Class, Delivery, EventId, Page, StreamNumber};
use shadowcat_transport::downstream::EventBytes;
use tokio::sync::Notify;
use tokio::time::{Instant, Sleep};

use super::detach::Detaching;
use super::registry::ClientSession;
use crate::session::{Busy, Outgoing, Outgoings, Shared};

/// Bytes that one item of an event stream gathers from what is ready.
const CHUNK: usize = 32 * 1024;

/// One exchange's stream as its carriers see it.
#[derive(Default)]
pub(super) struct StreamState {
    /// The carrier in charge; a newer one replaces it.
    carrier: AtomicU64,
    /// Told after an append, at the end, and when a carrier is replaced.
    changed: Notify,
    /// Told after a read.
    read: Notify,
}

impl StreamState {
    /// A new carrier takes over.
    fn take_over(&self) -> u64 {
        let carrier = self.carrier.fetch_add(1, Ordering::SeqCst) + 1;
        self.changed.notify_waiters();
        carrier
    }

    fn is_carried_by(&self, carrier: u64) -> bool {
        self.carrier.load(Ordering::SeqCst) == carrier
    }
}

/// The time for keep-alive comments on one connection.
struct KeepAlive {
    sleep: std::pin::Pin<Box<Sleep>>,
    period: Duration,
    last: Instant,
}

impl KeepAlive {
    /// Spread by 20 % around the mean, so that many streams do not speak at once.
    fn new(shared: &Shared) -> Self {
        let period = shared
            .config
            .keep_alive
            .mul_f64(0.8 + 0.4 * shared.entropy.fraction());
        Self {
            sleep: Box::pin(tokio::time::sleep(period)),
            period,
            last: Instant::now(),
        }
    }

    fn sent(&mut self) {
        self.last = Instant::now();
    }

    /// Ends when nothing was sent for a period.
    async fn due(&mut self) {
        loop {
            self.sleep.as_mut().await;
            let due = self.last + self.period;
            let now = Instant::now();
            self.sleep.as_mut().reset(
                due.max(now)
                    + if due <= now {
                        self.period
                    } else {
                        Duration::ZERO
                    },
            );
            if due <= now {
                self.last = now;
                return;
            }
        }
    }
}

const COMMENT: Bytes = Bytes::from_static(b": keep-alive\n\n");

fn class(message: &Message) -> Class {
    match message.kind() {
        Kind::Request { .. } => Class::ServerRequest,
        Kind::Notification { .. } => Class::Notification,
        Kind::Response { .. } | Kind::Error { .. } => Class::Response,
    }
}

/// One message as an event. Ids of ours cannot break a line, so this cannot fail.
fn write(out: &mut BytesMut, id: Option<EventId>, payload: &[u8]) {
    let id = id.map(|id| id.to_string());
    let _ = encoder::event(out, Some("message"), id.as_deref(), payload);
}

/// The start of a stream, where the client's version knows priming events.
fn opening(client: &ClientSession, start: EventId) -> Option<Bytes> {
    let primes = client
        .session
        .negotiated()
        .is_some_and(ProtocolVersion::has_priming_events);
    primes.then(|| {
        let mut bytes = BytesMut::new();
        let retry = client.session.shared.config.client_retry;
        let _ = encoder::priming(&mut bytes, &start.to_string(), retry);
        bytes.freeze()
    })
}

/// The answer to a legacy POST. `first` is an item that was already taken.
pub(super) async fn live(
    client: Arc<ClientSession>,
    outgoings: Outgoings,
    first: Option<Message>,
) -> EventBytes {
    let (number, state) = client.new_stream();
    let shared = Arc::clone(&client.session.shared);
    shared
        .log
        .open(client.session.key, number, Instant::now().into_std())
        .await;
    let carrier = state.take_over();
    let leftover = {
        let (client, state) = (Arc::clone(&client), Arc::clone(&state));
        move |outgoings| drain(client, number, state, outgoings)
    };
    let live = Live {
        opening: opening(&client, EventId::start(number)),
        keep_alive: KeepAlive::new(&shared),
        outgoings: Detaching::new(outgoings, leftover),
        pending: first,
        buffer: BytesMut::new(),
        client,
        number,
        state,
        carrier,
        over: false,
    };
    Box::pin(futures_util::stream::unfold(live, |mut live| async move {
        live.next().await.map(|bytes| (bytes, live))
    }))
}

struct Live<S> {
    client: Arc<ClientSession>,
    number: StreamNumber,
    state: Arc<StreamState>,
    carrier: u64,
    opening: Option<Bytes>,
    pending: Option<Message>,
    outgoings: S,
    keep_alive: KeepAlive,
    buffer: BytesMut,
    over: bool,
}

impl<S: futures_core::Stream<Item = Outgoing> + Unpin> Live<S> {
    async fn next(&mut self) -> Option<Bytes> {
        if let Some(opening) = self.opening.take() {
            self.buffer.extend_from_slice(&opening);
        }
        if let Some(message) = self.pending.take() {
            self.push(message).await;
        }
        // Whatever is ready leaves in one piece.
        while !self.over && self.buffer.len() < CHUNK && self.is_in_charge() {
            match self.outgoings.next().now_or_never() {
                Some(outgoing) => self.take(outgoing).await,
                None => break,
            }
        }
        // Not everything that an exchange produces has bytes.
        while self.buffer.is_empty() && !self.over {
            let replaced = self.state.changed.notified();
            if !self.is_in_charge() {
                return None;
            }
            tokio::select! {
                biased;
                outgoing = self.outgoings.next() => self.take(outgoing).await,
                () = replaced => return None,
                () = self.keep_alive.due() => return Some(COMMENT),
            }
        }
        self.keep_alive.sent();
        (!self.buffer.is_empty()).then(|| self.buffer.split().freeze())
    }

    async fn take(&mut self, outgoing: Option<Outgoing>) {
        match outgoing {
            Some(Outgoing::Message(message)) => self.push(message).await,
            Some(Outgoing::Response { message, .. }) => {
                self.push(message).await;
                self.finish().await;
            }
            Some(Outgoing::StreamOpened | Outgoing::Challenge { .. }) => {}
            None => self.finish().await,
        }
    }

    fn is_in_charge(&self) -> bool {
        self.state.is_carried_by(self.carrier)
    }

    /// First into the log, then into the bytes that leave.
    async fn push(&mut self, message: Message) {
        let payload = message.as_line();
        let appending = append(
            &self.client,
            self.number,
            &self.state,
            &message,
            Delivery::Live,
        );
        if let Some(id) = appending.await {
            write(&mut self.buffer, Some(id), &payload);
        }
    }

    async fn finish(&mut self) {
        self.over = true;
        let session = &self.client.session;
        session
            .shared
            .log
            .finish(session.key, self.number, Instant::now().into_std())
            .await;
        self.client.stream_finished(self.number);
        self.state.changed.notify_waiters();
    }
}

/// Puts a message into the log; waits for its reader to make room where that is what it takes.
/// `None` when the log has closed.
async fn append(
    client: &ClientSession,
    number: StreamNumber,
    state: &StreamState,
    message: &Message,
    delivery: Delivery,
) -> Option<EventId> {
    let session = &client.session;
    let (class, payload) = (class(message), message.as_line());
    loop {
        let progress = state.read.notified();
        let now = Instant::now().into_std();
        let log = &session.shared.log;
        let appending = log.append(session.key, number, class, payload.clone(), delivery, now);
        match appending.await {
            Ok(id) => return Some(id),
            Err(AppendError::Full) => progress.await,
            Err(AppendError::Closed) => return None,
        }
    }
}

/// Takes the rest of an exchange into the log for a client that may come back.
async fn drain(
    client: Arc<ClientSession>,
    number: StreamNumber,
    state: Arc<StreamState>,
    mut outgoings: Outgoings,
) {
    let session = &client.session;
    let log = &session.shared.log;
    while let Some(outgoing) = outgoings.next().await {
        let (Outgoing::Message(message) | Outgoing::Response { message, .. }) = outgoing else {
            continue;
        };
        let appending = append(&client, number, &state, &message, Delivery::Pending);
        if appending.await.is_none() {
            return;
        }
        state.changed.notify_waiters();
    }
    log.finish(session.key, number, Instant::now().into_std())
        .await;
    client.stream_finished(number);
    state.changed.notify_waiters();
}

/// The log after `cursor`, then what is still to come.
///
/// # Errors
/// When the cursor is unknown.
pub(super) async fn replay(
    client: Arc<ClientSession>,
    cursor: EventId,
) -> Result<EventBytes, shadowcat_store::ReadError> {
    let session = &client.session;
    let log = &session.shared.log;
    let state = client.stream(cursor.stream);
    let carrier = state.as_ref().map_or(0, |state| state.take_over());
    let page = log
        .read(session.key, cursor, CHUNK, Instant::now().into_std())
        .await?;
    log.set_reader(session.key, cursor.stream, true).await;
    session.shared.metrics.resumed_by_clients.inc();
    let reader = Reader {
        keep_alive: KeepAlive::new(&session.shared),
        busy: session.busy(),
        place: Place::Exchange { state, carrier },
        cursor,
        page: Some(page),
        opening: None,
        client,
    };
    Ok(reader.into_bytes())
}

/// The standalone stream, from `cursor` or from where the last reader left.
///
/// # Errors
/// When the cursor is unknown.
pub(super) async fn standalone(
    client: Arc<ClientSession>,
    cursor: Option<EventId>,
) -> Result<EventBytes, shadowcat_store::ReadError> {
    let session = &client.session;
    let log = &session.shared.log;
    log.open(
        session.key,
        StreamNumber::STANDALONE,
        Instant::now().into_std(),
    )
    .await;
    let page = match cursor {
        Some(cursor) => Some(
            log.read(session.key, cursor, CHUNK, Instant::now().into_std())
                .await?,
        ),
        None => None,
    };
    session.open_standalone().await;
    let (reader, position) = session.standalone.attach();
    log.set_reader(session.key, StreamNumber::STANDALONE, true)
        .await;
    let cursor = cursor.unwrap_or(position);
    let reader = Reader {
        keep_alive: KeepAlive::new(&session.shared),
        busy: session.busy(),
        place: Place::Standalone { reader },
        opening: opening(&client, cursor),
        cursor,
        page,
        client,
    };
    Ok(reader.into_bytes())
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
    #[expect(
        dead_code,
        reason = "held for its drop: the session is not idle meanwhile"
    )]
    busy: Busy,
}

/// Which stream a [`Reader`] reads, and its claim on it.
enum Place {
    /// An exchange's; without a state when the exchange has ended.
    Exchange {
        state: Option<Arc<StreamState>>,
        carrier: u64,
    },
    Standalone {
        reader: u64,
    },
}

impl Reader {
    fn into_bytes(self) -> EventBytes {
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
            Place::Exchange { state, .. } => state.clone(),
            Place::Standalone { .. } => None,
        };
        loop {
            let changed = match &self.place {
                Place::Exchange { .. } => state.as_ref().map(|state| state.changed.notified()),
                Place::Standalone { .. } => Some(session.standalone.changed.notified()),
            };
            let finished = self.fill(&mut bytes).await;
            if !bytes.is_empty() {
                self.keep_alive.sent();
                return Some(bytes.freeze());
            }
            if finished || !self.in_charge() {
                return None;
            }
            let changed = changed?;
            tokio::select! {
                biased;
                () = changed => {}
                () = session.ended() => return None,
                () = self.keep_alive.due() => return Some(COMMENT),
            }
        }
    }

    /// Encodes what the log has; true at the stream's end.
    async fn fill(&mut self, bytes: &mut BytesMut) -> bool {
        let session = Arc::clone(&self.client.session);
        let page = match self.page.take() {
            Some(page) => page,
            None => {
                let log = &session.shared.log;
                let now = Instant::now().into_std();
                match log.read(session.key, self.cursor, CHUNK, now).await {
                    Ok(page) => page,
                    Err(_) => return true,
                }
            }
        };
        session.shared.metrics.replay_missed.inc_by(page.missed);
        for record in &page.records {
            write(bytes, Some(record.id), &record.payload);
            self.cursor = record.id;
        }
        if !page.records.is_empty() {
            match &self.place {
                Place::Exchange { state, .. } => {
                    if let Some(state) = state {
                        state.read.notify_waiters();
                    }
                }
                Place::Standalone { .. } => session.standalone.took(self.cursor),
            }
        }
        page.finished
    }

    fn in_charge(&self) -> bool {
        match &self.place {
            Place::Exchange {
                state: Some(state),
                carrier,
            } => state.is_carried_by(*carrier),
            Place::Exchange { state: None, .. } => true,
            Place::Standalone { reader } => self.client.session.standalone.is_reader(*reader),
        }
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        if !self.in_charge() {
            return;
        }
        let session = Arc::clone(&self.client.session);
        if let Place::Standalone { reader } = self.place {
            session.close_standalone(reader);
        } else if let Place::Exchange {
            state: Some(state), ..
        } = &self.place
        {
            state.read.notify_waiters();
        }
        let stream = self.cursor.stream;
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move {
                session
                    .shared
                    .log
                    .set_reader(session.key, stream, false)
                    .await;
            });
        }
    }
}

/// The answer to a modern POST: dropping it drops the exchange, which is the cancel.
pub(super) fn modern(shared: &Shared, outgoings: Outgoings, first: Option<Outgoing>) -> EventBytes {
    let modern = Modern {
        keep_alive: KeepAlive::new(shared),
        outgoings,
        first,
        over: false,
    };
    Box::pin(futures_util::stream::unfold(
        modern,
        |mut modern| async move { modern.next().await.map(|bytes| (bytes, modern)) },
    ))
}

struct Modern {
    outgoings: Outgoings,
    first: Option<Outgoing>,
    keep_alive: KeepAlive,
    over: bool,
}

impl Modern {
    async fn next(&mut self) -> Option<Bytes> {
        let mut bytes = BytesMut::new();
        if let Some(first) = self.first.take() {
            self.encode(Some(first), &mut bytes);
        }
        while !self.over && bytes.len() < CHUNK {
            match self.outgoings.next().now_or_never() {
                Some(outgoing) => self.encode(outgoing, &mut bytes),
                None => break,
            }
        }
        while bytes.is_empty() && !self.over {
            tokio::select! {
                biased;
                outgoing = self.outgoings.next() => self.encode(outgoing, &mut bytes),
                () = self.keep_alive.due() => return Some(COMMENT),
            }
        }
        self.keep_alive.sent();
        (!bytes.is_empty()).then(|| bytes.freeze())
    }

    fn encode(&mut self, outgoing: Option<Outgoing>, bytes: &mut BytesMut) {
        match outgoing {
            Some(Outgoing::Message(message)) => {
                write(bytes, None, &message.as_line());
            }
            Some(Outgoing::Response { message, .. }) => {
                write(bytes, None, &message.as_line());
                self.over = true;
            }
            Some(Outgoing::StreamOpened | Outgoing::Challenge { .. }) => {}
            None => self.over = true,
        }
    }
}
