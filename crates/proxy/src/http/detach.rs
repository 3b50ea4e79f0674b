//! Work that goes on when the one who asked for it is gone.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures_core::Stream;

use crate::session::{Busy, Outgoing, Outgoings, Session};

/// The items of an exchange, held by whoever answers the client.
///
/// A client that vanishes has not cancelled (MCP specification, Streamable HTTP: "Disconnection
/// SHOULD NOT be interpreted as the client cancelling its request"), so dropping this before the
/// exchange has ended leaves the rest to a task that takes it where `leftover` says. Until then no
/// task is needed: the items are pulled by the connection that carries them.
///
/// A session with an exchange that somebody waits for is not idle; what is left to a task no
/// longer keeps it.
pub(super) struct Detaching<F: FnOnce(Outgoings) -> R, R: Future<Output = ()> + Send + 'static> {
    outgoings: Option<Outgoings>,
    leftover: Option<F>,
    _busy: Busy,
}

impl<F: FnOnce(Outgoings) -> R, R: Future<Output = ()> + Send + 'static> Detaching<F, R> {
    pub(super) fn new(session: &Arc<Session>, outgoings: Outgoings, leftover: F) -> Self {
        Self {
            _busy: session.busy(),
            outgoings: Some(outgoings),
            leftover: Some(leftover),
        }
    }

    /// The exchange again, for another holder.
    pub(super) fn take(mut self) -> Option<Outgoings> {
        self.outgoings.take()
    }
}

impl<F, R> Stream for Detaching<F, R>
where
    F: FnOnce(Outgoings) -> R + Unpin,
    R: Future<Output = ()> + Send + 'static,
{
    type Item = Outgoing;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Outgoing>> {
        let Some(outgoings) = &mut self.outgoings else {
            return Poll::Ready(None);
        };
        let item = std::task::ready!(outgoings.as_mut().poll_next(cx));
        if item.as_ref().is_none_or(Outgoing::is_last) {
            self.outgoings = None;
        }
        Poll::Ready(item)
    }
}

impl<F: FnOnce(Outgoings) -> R, R: Future<Output = ()> + Send + 'static> Drop for Detaching<F, R> {
    fn drop(&mut self) {
        if let (Some(outgoings), Some(leftover)) = (self.outgoings.take(), self.leftover.take())
            && let Ok(runtime) = tokio::runtime::Handle::try_current()
        {
            runtime.spawn(leftover(outgoings));
        }
    }
}
