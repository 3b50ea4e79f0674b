//! The bodies of our responses.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};
use http_body::{Body, Frame, SizeHint};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use tokio_util::sync::WaitForCancellationFutureOwned;

use super::super::EventBytes;
use super::open::Open;

/// How often a stream with bytes in hand lets other tasks run before it sends them, so that a
/// burst that arrives in several reads leaves in one write. Each time costs about a microsecond.
const PATIENCE: u8 = 2;
/// Bytes that leave at once, whatever follows.
const ENOUGH: usize = 64 * 1024;

/// What a response carries.
pub(super) enum Content {
    /// Nothing, or one piece.
    Whole(Option<Bytes>),
    /// An event stream.
    Events(Events),
}

/// A response's content, and the mark that its request is open.
pub(super) struct EdgeBody {
    content: Content,
    #[expect(dead_code, reason = "held for its drop")]
    open: Open,
}

impl EdgeBody {
    pub(super) fn new(content: Content, open: Open) -> Self {
        Self { content, open }
    }
}

/// An event stream; ready pieces leave together.
pub(super) struct Events {
    source: EventBytes,
    gathered: Gathered,
    patience: u8,
    over: bool,
    /// Ends a stream that a drain does not wait for.
    cut: Option<Pin<Box<WaitForCancellationFutureOwned>>>,
    sent: Counter,
    streams: Gauge,
}

impl Events {
    /// `cut`: when to end the stream from our side, if ever.
    pub(super) fn new(
        source: EventBytes,
        cut: Option<WaitForCancellationFutureOwned>,
        sent: Counter,
        streams: Gauge,
    ) -> Self {
        streams.inc();
        Self {
            source,
            gathered: Gathered::default(),
            patience: PATIENCE,
            over: false,
            cut: cut.map(Box::pin),
            sent,
            streams,
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Bytes>> {
        while !self.over && self.gathered.len() < ENOUGH {
            match self.source.as_mut().poll_next(cx) {
                Poll::Ready(Some(bytes)) => self.gathered.add(bytes),
                Poll::Ready(None) => self.over = true,
                Poll::Pending if self.gathered.len() == 0 => {
                    let cut = self.cut.as_mut().map(|cut| cut.as_mut().poll(cx));
                    if cut != Some(Poll::Ready(())) {
                        return Poll::Pending;
                    }
                    self.over = true;
                }
                Poll::Pending if self.patience > 0 => {
                    self.patience -= 1;
                    cx.waker().wake_by_ref();
                    return Poll::Pending;
                }
                Poll::Pending => break,
            }
        }
        self.patience = PATIENCE;
        let bytes = self.gathered.take();
        self.sent.inc_by(bytes.len() as u64);
        Poll::Ready((!bytes.is_empty()).then_some(bytes))
    }
}

impl Drop for Events {
    fn drop(&mut self) {
        self.streams.dec();
    }
}

/// Pieces in their order; a single piece is not copied.
#[derive(Default)]
struct Gathered {
    first: Bytes,
    all: BytesMut,
}

impl Gathered {
    fn len(&self) -> usize {
        self.first.len() + self.all.len()
    }

    fn add(&mut self, bytes: Bytes) {
        if self.len() == 0 {
            self.first = bytes;
            return;
        }
        let first = std::mem::take(&mut self.first);
        self.all.extend_from_slice(&first);
        self.all.extend_from_slice(&bytes);
    }

    fn take(&mut self) -> Bytes {
        if self.all.is_empty() {
            std::mem::take(&mut self.first)
        } else {
            self.all.split().freeze()
        }
    }
}

impl Body for EdgeBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let piece = match &mut self.content {
            Content::Whole(piece) => piece.take(),
            Content::Events(events) => std::task::ready!(events.poll(cx)),
        };
        Poll::Ready(piece.map(|piece| Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        match &self.content {
            Content::Whole(piece) => piece.is_none(),
            Content::Events(events) => events.over && events.gathered.len() == 0,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.content {
            Content::Whole(piece) => {
                SizeHint::with_exact(piece.as_ref().map_or(0, Bytes::len) as u64)
            }
            Content::Events(_) => SizeHint::default(),
        }
    }
}
