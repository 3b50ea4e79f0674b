//! A request's body, and whether a connection took it.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use parking_lot::Mutex;
use tokio::time::Instant;

use crate::upstream::Dispatched;

/// What happened to a request's body, shared with the connection that takes it.
pub(crate) struct Delivery {
    state: AtomicU8,
    dispatched: Mutex<Dispatched>,
    /// Until when the server does not want it again.
    busy_until: Mutex<Option<Instant>>,
}

/// No connection has the body.
const WAITING: u8 = 0;
/// A connection took the body, so that bytes of it may have left.
const STARTED: u8 = 1;
/// No connection gets the body any more.
const WITHDRAWN: u8 = 2;

impl Delivery {
    pub(crate) fn new(dispatched: Dispatched) -> Arc<Self> {
        Arc::new(Self {
            state: AtomicU8::new(WAITING),
            dispatched: Mutex::new(dispatched),
            busy_until: Mutex::default(),
        })
    }

    /// Whether a connection took the body, so that bytes of it may have left.
    pub(crate) fn started(&self) -> bool {
        self.state.load(Ordering::Acquire) == STARTED
    }

    /// Forgets the try before: another one begins.
    pub(crate) fn reset(&self) {
        self.step(STARTED, WAITING);
    }

    /// Takes the body back, also from tries to come; false if a connection may have it already.
    pub(crate) fn withdraw(&self) -> bool {
        self.step(WAITING, WITHDRAWN)
    }

    /// The server answered the try, and certainly did not process it. It may want it again only
    /// after a while.
    pub(crate) fn not_processed(&self, busy_until: Option<Instant>) {
        *self.busy_until.lock() = busy_until;
        self.reset();
    }

    /// How long the server does not want to see it again, if it said so.
    pub(crate) fn busy_for(&self) -> Option<Duration> {
        let until = *self.busy_until.lock();
        until
            .map(|until| until.saturating_duration_since(Instant::now()))
            .filter(|wait| !wait.is_zero())
    }

    fn start(&self) -> Result<(), Withdrawn> {
        if self.step(WAITING, STARTED) {
            self.dispatched.lock().fire();
            return Ok(());
        }
        Err(Withdrawn)
    }

    fn step(&self, from: u8, to: u8) -> bool {
        let (success, failure) = (Ordering::AcqRel, Ordering::Acquire);
        let stepped = self.state.compare_exchange(from, to, success, failure);
        stepped.is_ok()
    }
}

/// The body was taken back before a connection had it.
#[derive(Debug, thiserror::Error)]
#[error("the request was taken back")]
pub(crate) struct Withdrawn;

/// A request's body: one piece that tells when it is taken, or none.
pub(crate) struct RequestBody {
    data: Option<Bytes>,
    delivery: Option<Arc<Delivery>>,
}

impl RequestBody {
    pub(crate) fn empty() -> Self {
        Self {
            data: None,
            delivery: None,
        }
    }

    pub(crate) fn new(data: Bytes, delivery: Arc<Delivery>) -> Self {
        Self {
            data: Some(data),
            delivery: Some(delivery),
        }
    }

    pub(crate) fn delivery(&self) -> Option<Arc<Delivery>> {
        self.delivery.clone()
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = Withdrawn;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Withdrawn>>> {
        let Some(data) = self.data.take() else {
            return Poll::Ready(None);
        };
        if let Some(delivery) = &self.delivery
            && let Err(withdrawn) = delivery.start()
        {
            return Poll::Ready(Some(Err(withdrawn)));
        }
        Poll::Ready(Some(Ok(Frame::data(data))))
    }

    fn is_end_stream(&self) -> bool {
        self.data.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.data.as_ref().map_or(0, |data| data.len() as u64))
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt as _;

    use super::*;

    fn body(delivery: &Arc<Delivery>) -> RequestBody {
        delivery.reset();
        RequestBody::new(Bytes::from_static(b"{}"), Arc::clone(delivery))
    }

    #[tokio::test]
    async fn what_is_taken_back_goes_nowhere() {
        let (dispatched, left) = Dispatched::new();
        let delivery = Delivery::new(dispatched);
        assert!(delivery.withdraw());
        assert!(body(&delivery).collect().await.is_err());
        assert!(!delivery.started());
        drop(delivery);
        left.await.unwrap_err();
    }

    #[tokio::test]
    async fn what_a_connection_has_is_not_taken_back_before_the_next_try() {
        let delivery = Delivery::new(Dispatched::default());
        let sent = body(&delivery).collect().await.unwrap().to_bytes();
        assert_eq!(sent, "{}");
        assert!(delivery.started() && !delivery.withdraw());
        delivery.reset();
        assert!(delivery.withdraw());
    }
}
