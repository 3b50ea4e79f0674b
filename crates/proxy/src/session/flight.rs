//! Which requests are open: the client's toward the server, and the server's toward the client.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;
use shadowcat_mcp::message::RequestId;
use shadowcat_transport::upstream::Dispatched;
use tokio::sync::{Notify, oneshot};

/// How many answered server requests are remembered, so that a replay does not ask twice.
const ANSWERED: usize = 256;

/// A request of the client that has no response yet.
#[derive(Default)]
pub(crate) struct Flight {
    cancelled: AtomicBool,
    changed: Notify,
    left: Mutex<Option<oneshot::Receiver<()>>>,
}

impl Flight {
    /// The signal for the next attempt to send the request.
    pub(crate) fn dispatched(&self) -> Dispatched {
        let (dispatched, left) = Dispatched::new();
        *self.left.lock() = Some(left);
        dispatched
    }

    /// What a cancel waits for: `Ok` once the request has left, an error if it never will.
    pub(crate) fn take_left(&self) -> Option<oneshot::Receiver<()>> {
        self.left.lock().take()
    }

    /// The client no longer wants the answer.
    pub(crate) fn cancel(&self) {
        self.cancelled.store(true, Ordering::SeqCst);
        self.changed.notify_waiters();
    }

    pub(crate) fn is_cancelled(&self) -> bool {
        self.cancelled.load(Ordering::SeqCst)
    }

    /// Ends when the client has cancelled.
    pub(crate) async fn cancelled(&self) {
        let notified = self.changed.notified();
        if !self.is_cancelled() {
            notified.await;
        }
    }
}

/// The client's open requests by id.
#[derive(Default)]
pub(crate) struct Flights(Mutex<HashMap<RequestId, Arc<Flight>>>);

impl Flights {
    /// Registers a request; `None` if the id is in use.
    pub(crate) fn begin(&self, id: &RequestId) -> Option<Arc<Flight>> {
        let mut flights = self.0.lock();
        if flights.contains_key(id) {
            return None;
        }
        let flight = Arc::new(Flight::default());
        flights.insert(id.clone(), Arc::clone(&flight));
        Some(flight)
    }

    pub(crate) fn end(&self, id: &RequestId) {
        self.0.lock().remove(id);
    }

    pub(crate) fn get(&self, id: &RequestId) -> Option<Arc<Flight>> {
        self.0.lock().get(id).cloned()
    }

    pub(crate) fn len(&self) -> usize {
        self.0.lock().len()
    }
}

/// The server's open requests toward the client.
#[derive(Default)]
pub(crate) struct Asks(Mutex<AskTable>);

#[derive(Default)]
struct AskTable {
    open: HashSet<RequestId>,
    answered: VecDeque<RequestId>,
}

impl Asks {
    /// Registers a server request; false if the client has it already (a replay).
    pub(crate) fn begin(&self, id: &RequestId) -> bool {
        let mut table = self.0.lock();
        !table.answered.contains(id) && table.open.insert(id.clone())
    }

    /// The client answered; false if nobody is waiting for it any more.
    pub(crate) fn answer(&self, id: &RequestId) -> bool {
        let mut table = self.0.lock();
        if !table.open.remove(id) {
            return false;
        }
        if table.answered.len() == ANSWERED {
            table.answered.pop_front();
        }
        table.answered.push_back(id.clone());
        true
    }

    /// The server took its request back.
    pub(crate) fn withdraw(&self, id: &RequestId) {
        self.0.lock().open.remove(id);
    }

    /// The upstream session is gone: all open requests with it, and its ids may come again.
    pub(crate) fn reset(&self) -> Vec<RequestId> {
        let mut table = self.0.lock();
        table.answered.clear();
        table.open.drain().collect()
    }

    pub(crate) fn len(&self) -> usize {
        self.0.lock().open.len()
    }
}
