//! The bodies of our responses.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};
use http_body::{Body, Frame, SizeHint};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;

use super::super::EventBytes;
use crate::metrics::Metrics;

/// Times that a stream with bytes in hand lets others run before it sends them: a burst that
/// arrives in several reads then leaves in one write. Each costs about a microsecond.
const PATIENCE: u8 = 2;
/// Bytes that leave at once, whatever follows.
const ENOUGH: usize = 64 * 1024;

/// What a response carries.
pub(super) enum EdgeBody {
    /// Nothing, or one piece.
    Whole(Option<Bytes>),
    /// An event stream.
    Events(EventsBody),
}

/// An event stream; ready pieces leave together.
pub(super) struct EventsBody {
    events: EventBytes,
    gathered: BytesMut,
    patience: u8,
    over: bool,
    sent: Counter,
    open: Gauge,
}

impl EdgeBody {
    pub(super) fn events(events: EventBytes, sent: Counter, metrics: &Metrics) -> Self {
        let open = metrics.client_streams.clone();
        open.inc();
        let gathered = BytesMut::new();
        Self::Events(EventsBody {
            events,
            gathered,
            patience: PATIENCE,
            over: false,
            sent,
            open,
        })
    }
}

impl Drop for EventsBody {
    fn drop(&mut self) {
        self.open.dec();
    }
}

impl EventsBody {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Bytes>> {
        while !self.over && self.gathered.len() < ENOUGH {
            match self.events.as_mut().poll_next(cx) {
                Poll::Ready(Some(bytes)) => self.gathered.extend_from_slice(&bytes),
                Poll::Ready(None) => self.over = true,
                Poll::Pending if self.gathered.is_empty() => return Poll::Pending,
                Poll::Pending if self.patience > 0 => {
                    self.patience -= 1;
                    cx.waker().wake_by_ref();
                    return Poll::Pending;
                }
                Poll::Pending => break,
            }
        }
        self.patience = PATIENCE;
        if self.gathered.is_empty() {
            return Poll::Ready(None);
        }
        self.sent.inc_by(self.gathered.len() as u64);
        Poll::Ready(Some(self.gathered.split().freeze()))
    }
}

impl Body for EdgeBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let piece = match &mut *self {
            Self::Whole(piece) => piece.take(),
            Self::Events(events) => std::task::ready!(events.poll(cx)),
        };
        Poll::Ready(piece.map(|piece| Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Whole(piece) => piece.is_none(),
            Self::Events(events) => events.over && events.gathered.is_empty(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole(piece) => SizeHint::with_exact(piece.as_ref().map_or(0, Bytes::len) as u64),
            Self::Events(_) => SizeHint::default(),
        }
    }
}
