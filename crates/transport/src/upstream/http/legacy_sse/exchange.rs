//! One request over HTTP+SSE: its POST until that is accepted, and what the stream brings for it.
//!
//! The answer may come before the POST has its own, so both are watched at once, and whichever
//! comes first begins the reply.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Context, Poll};

use shadowcat_mcp::fault::{Executed, Fault};

use super::super::client::Delivery;
use crate::upstream::{BoxFuture, Incoming, Item, Reply, Source};

/// The POST; what the client gets in place of the answer, if it is refused so.
pub(super) type Posted = BoxFuture<Result<Option<Reply>, Fault>>;

/// See the [module](self).
pub(super) struct Exchange {
    /// `None` once it was accepted.
    posting: Option<Posted>,
    delivery: Arc<Delivery>,
    /// What came while nothing was known of the POST.
    first: Option<Item>,
    /// `None` once there is nothing more to come.
    incoming: Option<Incoming>,
}

impl Exchange {
    pub(super) fn new(posting: Posted, delivery: Arc<Delivery>, incoming: Incoming) -> Self {
        Self {
            posting: Some(posting),
            delivery,
            first: None,
            incoming: Some(incoming),
        }
    }

    /// Waits until the POST is accepted or something comes.
    pub(super) async fn reply(mut self) -> Result<Reply, Fault> {
        match poll_fn(|cx| self.poll_begin(cx)).await? {
            Some(instead) => Ok(instead),
            None => Ok(Reply::Pipe(Incoming::new(self))),
        }
    }

    fn poll_begin(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Reply>, Fault>> {
        if let Poll::Ready(posted) = self.poll_posting(cx) {
            return Poll::Ready(posted);
        }
        match self.poll_incoming(cx) {
            Poll::Ready(Some(Ok(item))) => self.first = Some(item),
            Poll::Ready(Some(Err(fault))) => return Poll::Ready(Err(fault)),
            Poll::Ready(None) => {}
            Poll::Pending => return Poll::Pending,
        }
        Poll::Ready(Ok(None))
    }

    fn poll_posting(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Reply>, Fault>> {
        let Some(posting) = &mut self.posting else {
            return Poll::Pending;
        };
        let posted = posting.as_mut().poll(cx);
        if posted.is_ready() {
            self.posting = None;
        }
        posted
    }

    fn poll_incoming(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Item, Fault>>> {
        let Some(incoming) = &mut self.incoming else {
            return Poll::Ready(None);
        };
        match incoming.poll_next(cx) {
            Poll::Ready(Some(Err(fault))) => Poll::Ready(Some(Err(self.lost(fault)))),
            other => other,
        }
    }

    /// The stream is gone. A POST that has not left by now is taken back, and was not executed; nor
    /// was one that the server wants later, which it wants in no other session before.
    fn lost(&mut self, mut fault: Fault) -> Fault {
        self.incoming = None;
        if self.posting.take().is_some() && self.delivery.withdraw() {
            fault.executed = Executed::No;
            fault.retry_after = self.delivery.busy_for();
        }
        fault
    }
}

impl Source for Exchange {
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Item, Fault>>> {
        if let Some(first) = self.first.take() {
            return Poll::Ready(Some(Ok(first)));
        }
        // A challenge comes too late when the answer has begun; what is left of it is its end.
        if let Poll::Ready(Err(fault)) = self.poll_posting(cx) {
            self.incoming = None;
            return Poll::Ready(Some(Err(fault)));
        }
        self.poll_incoming(cx)
    }
}
