//! The bodies of requests, read whole, and those of our responses.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt as _;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use tokio_util::sync::WaitForCancellationFutureOwned;

use super::super::EventBytes;
use super::RequestBody;
use super::open::Open;
use super::stall::{Stalled, Watched};

/// How often a stream with bytes in hand lets other tasks run before it sends them, so that a
/// burst that arrives in several reads leaves in one write. Each time costs about a microsecond.
const PATIENCE: u8 = 2;
/// Bytes that leave at once, whatever follows.
const ENOUGH: usize = 64 * 1024;

/// Bytes that leave at a time on a connection that carries other streams, too: what a slow client
/// takes of them shows that it reads.
const PIECE: usize = 4 * 1024;

/// Why a request's body is not here.
pub(super) enum Unread {
    /// It is larger than the limit.
    TooLarge,
    /// The connection broke, or the framing was wrong.
    Broken,
}

/// The whole body of a request, at most `limit` bytes.
pub(super) async fn whole(body: &mut impl RequestBody, limit: usize) -> Result<Bytes, Unread> {
    let announced = usize::try_from(body.size_hint().lower()).unwrap_or(limit);
    let mut pieces = Gathered::default();
    while !body.is_end_stream() {
        let Some(frame) = body.frame().await else {
            break;
        };
        // Trailers say nothing that anybody here wants.
        let Ok(data) = frame.map_err(|_| Unread::Broken)?.into_data() else {
            continue;
        };
        if data.len() > limit - pieces.len() {
            return Err(Unread::TooLarge);
        }
        if pieces.len() > 0 {
            pieces.make_room(announced.min(limit));
        }
        pieces.add(data);
    }
    Ok(pieces.take())
}

/// What a response carries.
pub(super) enum Content {
    /// Nothing, or one piece.
    Whole(Option<Bytes>),
    /// An event stream. Boxed: most responses are none, and a response goes from hand to hand.
    Events(Box<Events>),
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

/// Where the bytes of an event stream come from.
pub(super) enum Source {
    /// From a stream that has its connection to itself.
    Own(EventBytes),
    /// From one that shares its connection.
    Watched(Arc<Watched>),
}

impl Source {
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>, Stalled>> {
        match self {
            Self::Own(source) => source.as_mut().poll_next(cx).map(Ok),
            Self::Watched(source) => source.poll_next(cx),
        }
    }
}

/// An event stream; ready pieces leave together.
pub(super) struct Events {
    source: Source,
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
        source: Source,
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

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>, Stalled>> {
        while !self.over && self.gathered.len() < ENOUGH {
            match self.source.poll_next(cx)? {
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
        let bytes = match &self.source {
            Source::Own(_) => self.gathered.take(),
            Source::Watched(watched) => {
                watched.gave();
                self.gathered.take_some(PIECE)
            }
        };
        if self.gathered.len() == 0 {
            self.patience = PATIENCE;
        }
        self.sent.inc_by(bytes.len() as u64);
        Poll::Ready(Ok((!bytes.is_empty()).then_some(bytes)))
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

    /// Room for so many bytes in all, for what comes in several pieces.
    fn make_room(&mut self, all: usize) {
        self.all.reserve(all.saturating_sub(self.all.len()));
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

    /// At most so many bytes.
    fn take_some(&mut self, most: usize) -> Bytes {
        let mut all = self.take();
        if all.len() <= most {
            return all;
        }
        let some = all.split_to(most);
        self.first = all;
        some
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
    type Error = Stalled;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Stalled>>> {
        let piece = match &mut self.content {
            Content::Whole(piece) => piece.take(),
            Content::Events(events) => match std::task::ready!(events.poll(cx)) {
                Ok(piece) => piece,
                Err(stalled) => return Poll::Ready(Some(Err(stalled))),
            },
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
