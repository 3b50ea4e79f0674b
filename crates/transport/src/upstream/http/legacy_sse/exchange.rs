//! One request over HTTP+SSE: its POST until that is accepted, and what the stream brings for it.
//!
//! The answer may come before the POST has its own, so both are watched at once: whoever reads the
//! answer is also told if the POST fails.

use std::sync::Arc;
use std::task::{Context, Poll};

use shadowcat_mcp::fault::{Executed, Fault};

use super::super::client::Delivery;
use crate::upstream::{BoxFuture, Incoming, Item, Source};

/// See the [module](self).
pub(super) struct Exchange {
    /// `None` once it was accepted.
    pub(super) posting: Option<BoxFuture<Result<(), Fault>>>,
    pub(super) delivery: Arc<Delivery>,
    /// `None` once there is nothing more to come.
    pub(super) incoming: Option<Incoming>,
}

impl Exchange {
    fn fail(&mut self, fault: Fault) -> Poll<Option<Result<Item, Fault>>> {
        self.incoming = None;
        Poll::Ready(Some(Err(fault)))
    }

    /// The stream is gone. A POST that has not left by now is taken back, and was not executed.
    fn lost(&mut self, mut fault: Fault) -> Poll<Option<Result<Item, Fault>>> {
        if self.posting.take().is_some() && self.delivery.withdraw() {
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
        let Some(incoming) = &mut self.incoming else {
            return Poll::Ready(None);
        };
        match incoming.poll_next(cx) {
            Poll::Ready(Some(Err(fault))) => self.lost(fault),
            other => other,
        }
    }
}
