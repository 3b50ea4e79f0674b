//! The leg of a session: a process of its own, started at the first message.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use shadowcat_mcp::fault::Fault;
use shadowcat_mcp::message::Message;
use shadowcat_mcp::version::ProtocolVersion;
use tokio::sync::OnceCell;
use tokio_util::sync::CancellationToken;

use super::child::Child;
use super::{Shared, faults};
use crate::upstream::pipe::Clients;
use crate::upstream::{BoxFuture, Incoming, Leg, Reply, RequestContext, SendContext};

/// See the [module](self).
pub(super) struct SessionLeg(Arc<Inner>);

struct Inner {
    shared: Arc<Shared>,
    child: OnceCell<Child>,
    standalone_open: AtomicBool,
    closed: CancellationToken,
}

impl SessionLeg {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self(Arc::new(Inner {
            shared,
            child: OnceCell::new(),
            standalone_open: AtomicBool::new(false),
            closed: CancellationToken::new(),
        }))
    }
}

impl Inner {
    /// The process; whoever comes first starts it.
    async fn child(&self) -> Result<&Child, Fault> {
        let started = self.child.get_or_try_init(|| async {
            let child = self.shared.start(Clients::One).await?;
            child.set_standalone_open(self.standalone_open.load(Ordering::SeqCst));
            Ok(child)
        });
        tokio::select! {
            biased;
            () = self.closed.cancelled() => Err(faults::closed()),
            started = started => started,
        }
    }
}

impl Leg for SessionLeg {
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
        let incoming = self.0.child.get().map(Child::standalone);
        Box::pin(std::future::ready(incoming))
    }

    fn has_response_heads(&self) -> bool {
        false
    }

    fn set_standalone_open(&self, open: bool) {
        self.0.standalone_open.store(open, Ordering::SeqCst);
        if let Some(child) = self.0.child.get() {
            child.set_standalone_open(open);
        }
    }

    fn close(&self) -> BoxFuture<()> {
        let inner = Arc::clone(&self.0);
        Box::pin(async move {
            inner.closed.cancel();
            if let Some(child) = inner.child.get() {
                child.end().await;
            }
        })
    }
}
