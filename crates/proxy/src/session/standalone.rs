//! The stream of messages that belong to no request.
//!
//! A pump takes them from the upstream leg and gives them to the client: over stdio straight to
//! its one pipe, over HTTP into the log of [`StreamNumber::STANDALONE`], where the client's GET
//! reads them, now or when it comes back. Between an HTTP client and an HTTP upstream the pump starts
//! with the client's first GET, as the server would see it without a proxy; where one side is a pipe
//! it starts with `notifications/initialized`: a stdio client has no GET, and what nobody takes from
//! an upstream's pipe would stop it.

use std::collections::HashMap;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use shadowcat_mcp::build;
use shadowcat_mcp::fault::Fault;
use shadowcat_mcp::handshake::InitializeResult;
use shadowcat_mcp::message::{Kind, Message};
use shadowcat_mcp::version::Era;
use shadowcat_store::{AppendError, Delivery, EventId, StreamNumber};
use shadowcat_transport::downstream::LineSink;
use shadowcat_transport::upstream::{Item, Leg};
use tokio::sync::Notify;
use tracing::{Instrument, Span, debug, warn};

use super::gap::Refreshes;
use super::link::Current;
use super::{Session, wait_for_room};

/// Unread notifications that are compared with what comes.
const MAX_COMPARED: usize = 1024;
/// How long a client's GET waits for the upstream's stream to be open.
const OPEN_PATIENCE: Duration = Duration::from_secs(5);
/// How long what follows the handshake waits for it. No longer, as a server may keep the head of its
/// response back until it has an event.
const OPEN_HOLD: Duration = Duration::from_millis(250);

/// The client's side of the standalone stream.
#[derive(Default)]
pub(crate) struct Standalone {
    /// The one pipe of a stdio client.
    pipe: OnceLock<Arc<dyn LineSink>>,
    state: Mutex<State>,
    /// Told after an append, and when a reader is replaced.
    pub(crate) changed: Notify,
    /// Told after a read, and after a reader is gone.
    pub(crate) read: Notify,
    /// Told when the upstream's stream is open, or known not to come.
    opened: Notify,
}

#[derive(Default)]
struct State {
    /// A client asked for the stream.
    wanted: bool,
    /// The leg generation that has a pump, and whether its stream is settled (open or refused).
    pump: Option<(u64, bool)>,
    /// The last event that a reader took.
    cursor: u64,
    /// The reader in charge; a newer one replaces it.
    reader: u64,
    attached: bool,
    /// Notifications that say the same twice are kept once while nobody has read them: where
    /// each stands in the log, by [`build::coalescing_key`].
    unread: HashMap<Bytes, EventId>,
    refreshes: Refreshes,
}

impl Standalone {
    /// Gives everything to this pipe instead of a log.
    pub(crate) fn use_pipe(&self, pipe: Arc<dyn LineSink>) {
        let _ = self.pipe.set(pipe);
        self.state.lock().wanted = true;
    }

    /// A reader takes charge of the stream. Returns its number and the position to read from.
    pub(crate) fn attach(&self) -> (u64, EventId) {
        let mut state = self.state.lock();
        state.reader += 1;
        state.attached = true;
        let position = EventId {
            stream: StreamNumber::STANDALONE,
            sequence: state.cursor,
        };
        let reader = state.reader;
        drop(state);
        self.changed.notify_waiters();
        (reader, position)
    }

    /// Whether this reader is still in charge.
    pub(crate) fn is_reader(&self, reader: u64) -> bool {
        self.state.lock().reader == reader
    }

    /// The reader took everything up to `position`.
    pub(crate) fn took(&self, reader: u64, position: EventId) {
        let mut state = self.state.lock();
        if state.reader == reader {
            state.cursor = state.cursor.max(position.sequence);
            let cursor = state.cursor;
            state.unread.retain(|_, id| id.sequence > cursor);
        }
        drop(state);
        self.read.notify_waiters();
    }

    /// Ends when the upstream's stream is open, or known not to come.
    async fn settled(&self) {
        loop {
            let opened = self.opened.notified();
            let pump = self.state.lock().pump;
            if pump.is_none_or(|(_, settled)| settled) {
                return;
            }
            opened.await;
        }
    }

    /// The reader is gone; true if it was the one in charge.
    pub(crate) fn detach(&self, reader: u64) -> bool {
        let mut state = self.state.lock();
        let in_charge = state.reader == reader;
        if in_charge {
            state.attached = false;
        }
        in_charge
    }
}

impl Session {
    /// Opens the upstream's standalone stream for a client that asked for it, and waits until it
    /// is open or known not to come.
    pub(crate) async fn open_standalone(self: &Arc<Self>) {
        self.standalone.state.lock().wanted = true;
        let settled = async {
            self.lane.passable().await;
            self.current().leg.set_standalone_open(true);
            if self.handshake.lock().initialized.is_none() {
                return;
            }
            self.start_standalone();
            self.standalone.settled().await;
        };
        let _ = tokio::time::timeout(OPEN_PATIENCE, settled).await;
    }

    /// The client's stream is gone.
    pub(crate) fn close_standalone(&self, reader: u64) {
        if self.standalone.detach(reader) {
            self.current().leg.set_standalone_open(false);
        }
    }

    /// Starts the pump of the current leg if somebody wants it and it has none.
    pub(super) fn start_standalone(self: &Arc<Self>) {
        if self.era == Era::Modern {
            return;
        }
        let Current {
            leg,
            generation,
            over,
        } = self.current();
        let mut state = self.standalone.state.lock();
        let running = state.pump.is_some_and(|(pumped, _)| pumped == generation);
        let wanted = state.wanted || !leg.has_response_heads();
        if running || !wanted {
            return;
        }
        leg.set_standalone_open(state.attached || self.standalone.pipe.get().is_some());
        state.pump = Some((generation, false));
        drop(state);
        let session = Arc::clone(self);
        let pumping = async move {
            // What ends a leg on purpose is no loss to be told of.
            tokio::select! {
                biased;
                () = session.ended() => {}
                () = over.cancelled() => {}
                () = session.pump(leg, generation) => {}
            }
        };
        tokio::spawn(pumping.instrument(Span::clone(&self.span)));
    }

    /// Starts the pump after the handshake, and waits for a short time until its stream is open or
    /// known not to come: servers drop what they have to ask while none is, and what the client sends
    /// next may be what makes them ask.
    pub(super) async fn begin_standalone(self: &Arc<Self>) {
        self.start_standalone();
        let _ = tokio::time::timeout(OPEN_HOLD, self.standalone.settled()).await;
    }

    /// Whether the upstream's stream is, or was, read for the current leg.
    pub(super) fn has_standalone(&self) -> bool {
        let generation = self.generation();
        let pump = self.standalone.state.lock().pump;
        pump.is_some_and(|(pumped, _)| pumped == generation)
    }

    async fn pump(self: &Arc<Self>, leg: Arc<dyn Leg>, generation: u64) {
        let incoming = leg.standalone().await;
        {
            let mut state = self.standalone.state.lock();
            if let Some(pump) = state.pump.as_mut().filter(|pump| pump.0 == generation) {
                pump.1 = true;
            }
        }
        self.standalone.opened.notify_waiters();
        let Some(mut incoming) = incoming else { return };
        while let Some(item) = incoming.next().await {
            match item {
                Ok(Item::Message(message)) => self.standalone_message(message, generation).await,
                Ok(Item::Gap(away)) => self.standalone_gap(away).await,
                Err(fault) => {
                    self.standalone_fault(&fault, generation);
                    return;
                }
            }
        }
    }

    fn standalone_fault(self: &Arc<Self>, fault: &Fault, generation: u64) {
        if fault.kind.is_session_loss() {
            self.lost(generation, fault);
        } else {
            warn!(%fault, "the standalone stream ended");
        }
    }

    async fn standalone_message(self: &Arc<Self>, message: Message, generation: u64) {
        let message = match message.kind() {
            Kind::Request { .. } => match self.asked(&message, generation) {
                Some(ask) => ask,
                None => return,
            },
            Kind::Response { .. } | Kind::Error { .. } => {
                self.shared.metrics.stray_responses.inc();
                debug!("dropped a response on the standalone stream that answers nothing");
                return;
            }
            Kind::Notification { .. } => {
                self.was_productive(generation);
                self.observe_server_message(message)
            }
        };
        self.standalone_append(message).await;
    }

    /// What a stream without a cursor may have missed is covered by asking the client to refresh.
    async fn standalone_gap(self: &Arc<Self>, away: Duration) {
        if !self.standalone.state.lock().refreshes.is_due(away) {
            return;
        }
        let lists: Vec<_> = {
            let handshake = self.handshake.lock();
            handshake
                .result
                .iter()
                .flat_map(InitializeResult::list_changes)
                .collect()
        };
        for message in lists {
            self.standalone_append(message).await;
        }
    }

    /// Gives a message to the client outside of any exchange: now, or when it has a stream for it.
    pub(crate) async fn standalone_append(self: &Arc<Self>, message: Message) {
        if let Some(pipe) = self.standalone.pipe.get() {
            let _ = pipe.send(message).await;
            return;
        }
        let payload = message.as_line();
        let compared = build::coalescing_key(&message);
        if let Some(key) = &compared
            && self.is_waiting(key).await
        {
            self.shared.metrics.coalesced.inc();
            return;
        }
        let id = loop {
            let progress = self.standalone.read.notified();
            let stream = StreamNumber::STANDALONE;
            let delivery = Delivery::Pending;
            let payload = payload.clone();
            match self.append(stream, &message, payload, delivery).await {
                Ok(id) => break id,
                Err(AppendError::Full) => tokio::select! {
                    // With room the message still has its place among the last words.
                    biased;
                    () = wait_for_room(progress) => {}
                    () = self.ended() => return,
                },
                Err(AppendError::NoRoom | AppendError::Closed) => return,
            }
        };
        if let Some(key) = compared {
            let mut state = self.standalone.state.lock();
            if id.sequence > state.cursor {
                if state.unread.len() >= MAX_COMPARED {
                    state.unread.clear();
                }
                state.unread.insert(key, id);
            }
        }
        self.standalone.changed.notify_waiters();
    }

    /// Whether an equal notification waits to be read. One that the log has given up does not.
    async fn is_waiting(&self, key: &Bytes) -> bool {
        let waiting = self.standalone.state.lock().unread.get(key).copied();
        match waiting {
            Some(id) => self.shared.log.holds(self.key, id).await,
            None => false,
        }
    }
}
