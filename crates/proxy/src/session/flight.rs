//! The client's open requests toward the server.

use std::collections::hash_map::Entry;
use std::sync::{Arc, OnceLock};

use parking_lot::Mutex;
use shadowcat_mcp::message::{IdTable, RequestId};
use shadowcat_transport::upstream::Dispatched;
use tokio::sync::{Notify, oneshot};
use tokio::time::Instant;

/// A request of the client that has no response yet.
#[derive(Default)]
pub(crate) struct Flight {
    cancelled: OnceLock<Instant>,
    changed: Notify,
    left: Mutex<Option<oneshot::Receiver<()>>>,
}

impl Flight {
    /// The signal for the next attempt to send the request; `None` if it is not to be sent any
    /// more.
    pub(crate) fn dispatch(&self) -> Option<Dispatched> {
        let (dispatched, left) = Dispatched::new();
        *self.left.lock() = Some(left);
        // Looked at after the signal is in its place: a cancel that comes later finds it there.
        (!self.is_cancelled()).then_some(dispatched)
    }

    /// What a cancel waits for: `Ok` once the request has left, an error if it never will.
    pub(crate) fn take_left(&self) -> Option<oneshot::Receiver<()>> {
        self.left.lock().take()
    }

    /// The client no longer wants the answer.
    pub(crate) fn cancel(&self) {
        let _ = self.cancelled.set(Instant::now());
        self.changed.notify_waiters();
    }

    pub(crate) fn is_cancelled(&self) -> bool {
        self.cancelled.get().is_some()
    }

    /// Ends when the client has cancelled; returns when that was.
    pub(crate) async fn cancelled(&self) -> Instant {
        loop {
            let changed = self.changed.notified();
            if let Some(at) = self.cancelled.get() {
                return *at;
            }
            changed.await;
        }
    }
}

/// The client's open requests by id.
#[derive(Default)]
pub(crate) struct Flights(Mutex<IdTable<Arc<Flight>>>);

impl Flights {
    /// Registers a request; `None` if the id is in use.
    pub(crate) fn begin(&self, id: &RequestId) -> Option<Arc<Flight>> {
        match self.0.lock().entry(id.clone()) {
            Entry::Occupied(_) => None,
            Entry::Vacant(free) => Some(Arc::clone(free.insert(Arc::default()))),
        }
    }

    pub(crate) fn end(&self, id: &RequestId) {
        self.0.lock().remove(id);
    }

    pub(crate) fn get(&self, id: &RequestId) -> Option<Arc<Flight>> {
        self.0.lock().get(id).cloned()
    }
}
