//! What is open: per connection, so that an idle one can be told; in all, so that a drain knows
//! what it waits for.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use http::Version;
use tokio::sync::Notify;
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

use super::super::EventBytes;
use super::body::Source;
use super::stall::Watch;

/// What is open on all connections of an edge.
#[derive(Default)]
pub(super) struct EdgeState {
    /// Requests without their complete response, subscriptions not counted.
    exchanges: AtomicUsize,
    none_left: Notify,
    cut: CancellationToken,
}

impl EdgeState {
    /// Ends when no exchange is open. Only exact once nothing new is accepted.
    pub(super) async fn finished(&self) {
        loop {
            let none_left = self.none_left.notified();
            if self.exchanges.load(Ordering::SeqCst) == 0 {
                return;
            }
            none_left.await;
        }
    }

    /// Ends the subscriptions: streams that never end by themselves.
    pub(super) fn end_subscriptions(&self) {
        self.cut.cancel();
    }
}

/// What is open on one connection.
pub(super) struct ConnectionState {
    edge: Arc<EdgeState>,
    open: AtomicUsize,
    /// Requests so far.
    requests: AtomicU64,
    /// Its event streams, where it carries several at a time.
    pub(super) watch: Watch,
}

impl ConnectionState {
    pub(super) fn new(edge: Arc<EdgeState>) -> Arc<Self> {
        Arc::new(Self {
            edge,
            open: AtomicUsize::new(0),
            requests: AtomicU64::new(0),
            watch: Watch::default(),
        })
    }

    /// A request begins, over this version of HTTP.
    pub(super) fn begin(self: &Arc<Self>, version: Version) -> Open {
        self.requests.fetch_add(1, Ordering::Relaxed);
        self.open.fetch_add(1, Ordering::Relaxed);
        self.edge.exchanges.fetch_add(1, Ordering::SeqCst);
        Open {
            connection: Arc::clone(self),
            subscription: false,
            shares: version == Version::HTTP_2,
        }
    }

    /// Requests so far, if none is open.
    pub(super) fn idle_since(&self) -> Option<u64> {
        (self.open.load(Ordering::Relaxed) == 0).then(|| self.requests.load(Ordering::Relaxed))
    }
}

/// One open request; dropping it says that its response is complete or given up.
pub(super) struct Open {
    connection: Arc<ConnectionState>,
    subscription: bool,
    /// Whether its connection carries other requests at the same time.
    shares: bool,
}

impl Open {
    /// An event stream as the response's body holds it.
    pub(super) fn source(&self, events: EventBytes) -> Source {
        match self.shares {
            true => Source::Watched(self.connection.watch.add(events)),
            false => Source::Own(events),
        }
    }

    /// Says that the response is a stream without an end of its own; returns what ends it.
    pub(super) fn subscribe(&mut self) -> WaitForCancellationFutureOwned {
        if !std::mem::replace(&mut self.subscription, true) {
            self.connection.edge.one_exchange_less();
        }
        self.connection.edge.cut.clone().cancelled_owned()
    }
}

impl EdgeState {
    fn one_exchange_less(&self) {
        if self.exchanges.fetch_sub(1, Ordering::SeqCst) == 1 {
            self.none_left.notify_waiters();
        }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.connection.open.fetch_sub(1, Ordering::Relaxed);
        if !self.subscription {
            self.connection.edge.one_exchange_less();
        }
    }
}
