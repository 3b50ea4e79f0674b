//! One request over HTTP+SSE: its POST until that is accepted, and what the stream brings for it.
//!
//! The answer may come before the POST has its own, so both are watched at once: whoever reads the
//! answer is also told if the POST fails.

use std::task::{Context, Poll};

use shadowcat_mcp::fault::{Executed, Fault};
use tokio::sync::oneshot;

use crate::upstream::{BoxFuture, Dispatched, Incoming, Item, Source};

/// See the [module](self).
pub(super) struct Exchange {
    /// `None` once it was accepted.
    posting: Option<BoxFuture<Result<(), Fault>>>,
    left: Left,
    /// `None` once there is nothing more to come.
    incoming: Option<Incoming>,
}

/// Whether the POST has left this machine.
enum Left {
    /// Not yet: the signal that it has, and the one to pass on.
    Not(oneshot::Receiver<()>, Dispatched),
    Yes,
    /// It never will.
    Never,
}

impl Left {
    fn poll(&mut self, cx: &mut Context<'_>) {
        if let Self::Not(left, dispatched) = self
            && let Poll::Ready(left) = std::pin::Pin::new(left).poll(cx)
        {
            *self = match left {
                Ok(()) => {
                    dispatched.fire();
                    Self::Yes
                }
                Err(_) => Self::Never,
            };
        }
    }
}

impl Exchange {
    /// `left` is fired when bytes of the POST may have left; `dispatched` is told so.
    pub(super) fn new(
        posting: BoxFuture<Result<(), Fault>>,
        left: oneshot::Receiver<()>,
        dispatched: Dispatched,
        incoming: Incoming,
    ) -> Self {
        Self {
            posting: Some(posting),
            left: Left::Not(left, dispatched),
            incoming: Some(incoming),
        }
    }

    fn fail(&mut self, fault: Fault) -> Poll<Option<Result<Item, Fault>>> {
        self.incoming = None;
        Poll::Ready(Some(Err(fault)))
    }

    /// The stream is gone. A POST that has not left by now is taken back, and was not executed.
    fn lost(
        &mut self,
        mut fault: Fault,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Item, Fault>>> {
        self.posting = None;
        self.left.poll(cx);
        if !matches!(self.left, Left::Yes) {
            fault.executed = Executed::No;
        }
        self.fail(fault)
    }
}

impl Source for Exchange {
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Item, Fault>>> {
        if let Some(posting) = &mut self.posting
            && let Poll::Ready(posted) = posting.as_mut().poll(cx)
        {
            self.posting = None;
            if let Err(fault) = posted {
                return self.fail(fault);
            }
        }
        self.left.poll(cx);
        let Some(incoming) = &mut self.incoming else {
            return Poll::Ready(None);
        };
        match incoming.poll_next(cx) {
            Poll::Ready(Some(Err(fault))) => self.lost(fault, cx),
            other => other,
        }
    }
}
