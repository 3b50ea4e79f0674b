//! The server's streams: numbered events in memory.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::ledger::{CallKey, Mark};

/// One stream.
pub(super) struct Log {
    /// Its name, the first part of its ids.
    pub(super) name: String,
    /// The call that it answers; none for the standalone stream.
    pub(super) call: Option<CallKey>,
    /// Events of the session so far.
    clock: Arc<AtomicU64>,
    state: Mutex<State>,
    pub(super) changed: Notify,
}

#[derive(Default)]
struct State {
    events: Vec<Entry>,
    finished: bool,
    /// Where the last connection without a cursor began. What was before it is never repeated.
    base: usize,
    /// Whether any id of this stream was sent with a whole event.
    id_sent: bool,
}

/// One event.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    pub(super) id: Option<String>,
    pub(super) payload: String,
    pub(super) what: What,
    /// It left whole at least once.
    pub(super) sent: bool,
    /// The same, or its reader may have left before it arrived.
    pub(super) written: bool,
    /// So it did on a connection of another stream.
    pub(super) sent_elsewhere: bool,
    /// Its place in the session.
    pub(super) order: u64,
}

/// What an event is to the ledger.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum What {
    Priming,
    /// The answer to the `initialize` of a process.
    Greeting,
    Message(CallKey, Mark),
    /// One of several messages of a call that are the same, and have no id.
    Echo,
    Notice(u32),
    /// What ends the stream.
    Response,
    /// A response on a stream that goes on.
    Answer,
    /// The same to a call.
    Result(CallKey),
    /// The error of a process to a call, which stands for this status.
    Refusal(CallKey, u16),
}

impl Log {
    pub(super) fn new(name: String, call: Option<CallKey>, clock: &Arc<AtomicU64>) -> Self {
        Self {
            name,
            call,
            clock: Arc::clone(clock),
            state: Mutex::default(),
            changed: Notify::new(),
        }
    }

    pub(super) fn append(&self, payload: String, what: What, with_id: bool) {
        let mut state = self.state.lock();
        let id = with_id.then(|| format!("{}/{}", self.name, state.events.len()));
        state.events.push(Entry {
            id,
            payload,
            what,
            sent: false,
            written: false,
            sent_elsewhere: false,
            order: self.clock.fetch_add(1, Ordering::Relaxed),
        });
        state.finished |= what == What::Response;
        drop(state);
        self.changed.notify_waiters();
    }

    /// The event at a position; whether there will be none any more.
    pub(super) fn at(&self, position: usize) -> (Option<Entry>, bool) {
        let state = self.state.lock();
        let over = state.finished && position >= state.events.len();
        (state.events.get(position).cloned(), over)
    }

    /// An event left whole; true if it is the first time.
    pub(super) fn sent(&self, position: usize) -> bool {
        let mut state = self.state.lock();
        let Some(entry) = state.events.get_mut(position) else {
            return false;
        };
        let first = !std::mem::replace(&mut entry.sent, true);
        entry.written = true;
        state.id_sent |= state.events[position].id.is_some();
        first
    }

    /// An event was under way when its reader left.
    pub(super) fn unsent(&self, position: usize) {
        let mut state = self.state.lock();
        if let Some(entry) = state.events.get_mut(position) {
            entry.sent = false;
        }
        state.id_sent = state.events.iter().any(|e| e.sent && e.id.is_some());
    }

    /// Where an id stands, and its event.
    pub(super) fn find(&self, id: &str) -> Option<(usize, Entry)> {
        let state = self.state.lock();
        let position = state
            .events
            .iter()
            .position(|e| e.id.as_deref() == Some(id))?;
        Some((position, state.events[position].clone()))
    }

    /// An event left whole on a connection of another stream.
    pub(super) fn sent_elsewhere(&self, position: usize) {
        if let Some(entry) = self.state.lock().events.get_mut(position) {
            entry.sent_elsewhere = true;
        }
    }

    /// Events with an id that came after this place in the session, with their positions.
    pub(super) fn after(&self, order: u64) -> Vec<(usize, Entry)> {
        let state = self.state.lock();
        let events = state.events.iter().enumerate();
        events
            .filter(|(_, e)| e.order > order && e.id.is_some())
            .map(|(position, e)| (position, e.clone()))
            .collect()
    }

    /// Whether an id of this stream has left.
    pub(super) fn id_sent(&self) -> bool {
        self.state.lock().id_sent
    }

    pub(super) fn len(&self) -> usize {
        self.state.lock().events.len()
    }

    /// Where a connection without a cursor begins: the first at the start, others at the end.
    pub(super) fn begin(&self, first: bool) -> usize {
        let mut state = self.state.lock();
        state.base = if first { 0 } else { state.events.len() };
        state.base
    }

    /// Where a replay of everything begins.
    pub(super) fn base(&self) -> usize {
        self.state.lock().base
    }
}
