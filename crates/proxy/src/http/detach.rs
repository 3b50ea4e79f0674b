//! Work that goes on when the one who asked for it is gone.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures_core::Stream;
use futures_util::StreamExt;
use shadowcat_mcp::message::Kind;
use shadowcat_transport::metrics::Reason;

use crate::session::{Busy, Outgoing, Outgoings, Session};

/// The items of an exchange, held by whoever answers the client.
///
/// A client that vanishes has not cancelled (MCP specification, Streamable HTTP: "Disconnection
/// SHOULD NOT be interpreted as the client cancelling its request"), so dropping this before the
/// exchange has ended leaves the rest to a task. Until then no task is needed: the items are pulled
/// by the connection that carries them.
///
/// A session with an exchange that somebody waits for is not idle; what is left to a task no
/// longer keeps it.
pub(super) struct Detaching {
    outgoings: Option<Outgoings>,
    busy: Busy,
}

impl Detaching {
    pub(super) fn new(session: &Arc<Session>, outgoings: Outgoings) -> Self {
        Self {
            busy: session.busy(),
            outgoings: Some(outgoings),
        }
    }

    /// The exchange again, for another holder.
    pub(super) fn take(mut self) -> Option<Outgoings> {
        self.outgoings.take()
    }
}

impl Stream for Detaching {
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

impl Drop for Detaching {
    fn drop(&mut self) {
        if let Some(outgoings) = self.outgoings.take()
            && let Ok(runtime) = tokio::runtime::Handle::try_current()
        {
            runtime.spawn(leave(Arc::clone(self.busy.session()), outgoings));
        }
    }
}

/// The rest of an exchange whose client went away before it had an id to come back with. The call
/// goes on; what the server asks meanwhile may still be answered by the standalone stream.
async fn leave(session: Arc<Session>, mut rest: Outgoings) {
    while let Some(outgoing) = rest.next().await {
        let Some(message) = outgoing.into_message() else {
            continue;
        };
        if matches!(message.kind(), Kind::Request { .. }) {
            session.standalone_append(message).await;
        } else {
            let given_up = &session.shared.metrics.messages_given_up;
            given_up.get_or_create(&Reason::of("client vanished")).inc();
        }
    }
}
