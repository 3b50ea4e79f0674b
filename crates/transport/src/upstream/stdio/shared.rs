//! The leg of modern clients (2026-07-28): one process for all requests, because a request needs
//! nothing of those before it. A process that died is replaced at the next request.

use std::sync::Arc;

use shadowcat_mcp::fault::Fault;
use shadowcat_mcp::message::Message;
use shadowcat_mcp::version::ProtocolVersion;
use tokio::sync::Mutex;
use tokio_util::sync::CancellationToken;

use super::child::Child;
use super::{Shared, faults};
use crate::upstream::pipe::Clients;
use crate::upstream::{BoxFuture, Incoming, Leg, Reply, RequestContext, SendContext};

/// See the [module](self).
pub(super) struct SharedLeg(Arc<Inner>);

struct Inner {
    shared: Arc<Shared>,
    current: Mutex<Option<Arc<Child>>>,
    closed: CancellationToken,
}

impl SharedLeg {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self(Arc::new(Inner {
            shared,
            current: Mutex::new(None),
            closed: CancellationToken::new(),
        }))
    }
}

impl Inner {
    /// The process; whoever comes first starts it, or starts it again.
    async fn child(&self) -> Result<Arc<Child>, Fault> {
        let mut current = self.current.lock().await;
        if self.closed.is_cancelled() {
            return Err(faults::closed());
        }
        if let Some(child) = current.as_ref().filter(|child| !child.is_dead()) {
            return Ok(Arc::clone(child));
        }
        let child = Arc::new(self.shared.start(Clients::Many).await?);
        *current = Some(Arc::clone(&child));
        Ok(child)
    }
}

impl Leg for SharedLeg {
    fn request(
        &self,
        message: Message,
        context: RequestContext,
    ) -> BoxFuture<Result<Reply, Fault>> {
        let inner = Arc::clone(&self.0);
        Box::pin(async move { inner.child().await?.request(&message, context).await })
    }

    fn send(&self, message: Message, _context: SendContext) -> BoxFuture<Result<(), Fault>> {
        let inner = Arc::clone(&self.0);
        Box::pin(async move { inner.child().await?.send(&message).await })
    }

    fn negotiated(&self, _version: ProtocolVersion) {}

    fn standalone(&self) -> BoxFuture<Option<Incoming>> {
        Box::pin(std::future::ready(None))
    }

    fn has_response_heads(&self) -> bool {
        false
    }

    fn set_standalone_open(&self, _open: bool) {}

    fn close(&self) -> BoxFuture<()> {
        let inner = Arc::clone(&self.0);
        Box::pin(async move {
            inner.closed.cancel();
            let child = inner.current.lock().await.take();
            if let Some(child) = child {
                child.end().await;
            }
        })
    }
}
