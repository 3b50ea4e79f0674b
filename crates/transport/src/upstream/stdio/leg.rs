//! A leg: one process, started at the first message.
//!
//! A legacy session has it for itself. Modern clients share it, because a request needs nothing of
//! those before it (2026-07-28); there is no standalone stream then. When the process has died the
//! leg is over: what comes later is refused with `executed: no`, and the pipeline makes a new leg.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use shadowcat_mcp::fault::Fault;
use shadowcat_mcp::message::Message;
use shadowcat_mcp::version::{Era, ProtocolVersion};
use tokio::sync::OnceCell;
use tokio_util::sync::CancellationToken;

use super::child::Child;
use super::{Shared, faults};
use crate::upstream::pipe::Clients;
use crate::upstream::{BoxFuture, Incoming, Leg, Reply, RequestContext, SendContext};

/// See the [module](self).
pub(super) struct ChildLeg(Arc<Inner>);

struct Inner {
    shared: Arc<Shared>,
    clients: Clients,
    child: OnceCell<Child>,
    standalone_open: AtomicBool,
    closed: CancellationToken,
}

impl ChildLeg {
    pub(super) fn new(shared: Arc<Shared>, era: Era) -> Self {
        Self(Arc::new(Inner {
            shared,
            clients: match era {
                Era::Legacy => Clients::One,
                Era::Modern => Clients::Many,
            },
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
            let child = self.shared.start(self.clients).await?;
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

impl Leg for ChildLeg {
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
        let child = self.0.child.get();
        let child = child.filter(|_| self.0.clients == Clients::One);
        let incoming = child.map(Child::standalone);
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

    fn died(&self) -> BoxFuture<Fault> {
        let inner = Arc::clone(&self.0);
        Box::pin(async move {
            match inner.child.get() {
                Some(child) => child.died().await,
                None => std::future::pending().await,
            }
        })
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
