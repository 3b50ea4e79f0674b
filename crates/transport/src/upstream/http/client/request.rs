//! A request's body, and whether a connection took it.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use parking_lot::Mutex;

use crate::upstream::Dispatched;

/// What happened to a request's body, shared with the connection that takes it.
pub(crate) struct Delivery {
    started: AtomicBool,
    dispatched: Mutex<Dispatched>,
}

impl Delivery {
    pub(crate) fn new(dispatched: Dispatched) -> Arc<Self> {
        Arc::new(Self {
            started: AtomicBool::new(false),
            dispatched: Mutex::new(dispatched),
        })
    }

    /// Whether a connection took the body, so that bytes of it may have left.
    pub(crate) fn started(&self) -> bool {
        self.started.load(Ordering::Acquire)
    }

    /// Forgets the try before: another one begins.
    pub(crate) fn reset(&self) {
        self.started.store(false, Ordering::Release);
    }

    fn start(&self) {
        if !self.started.swap(true, Ordering::AcqRel) {
            self.dispatched.lock().fire();
        }
    }
}

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
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let data = self.data.take();
        if data.is_some()
            && let Some(delivery) = &self.delivery
        {
            delivery.start();
        }
        Poll::Ready(data.map(|data| Ok(Frame::data(data))))
    }

    fn is_end_stream(&self) -> bool {
        self.data.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.data.as_ref().map_or(0, |data| data.len() as u64))
    }
}
