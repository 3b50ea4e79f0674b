//! A leg: one process, started at the first message.
//!
//! A legacy session has it for itself. Modern clients share it, because a request needs nothing of
//! those before it (2026-07-28); there is no standalone stream then. When the process has died the
//! leg is over: what comes later is refused with `executed: no`, and the pipeline makes a new leg.
//!
//! Instead of a start it may get a process that another leg has handed on. Should that one die of the
//! handshake, one that was asked nothing before takes its place.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use parking_lot::Mutex;
use shadowcat_mcp::fault::{Fault, FaultKind};
use shadowcat_mcp::message::Message;
use shadowcat_mcp::method::Method;
use shadowcat_mcp::version::{Era, ProtocolVersion};
use tokio_util::sync::CancellationToken;

use super::child::Child;
use super::{Shared, faults};
use crate::upstream::pipe::Clients;
use crate::upstream::{BoxFuture, Incoming, Item, Leg, Reply, RequestContext, SendContext, Source};

/// See the [module](self).
pub(super) struct ChildLeg(Arc<Inner>);

struct Inner {
    shared: Arc<Shared>,
    clients: Clients,
    child: Mutex<Option<Arc<Child>>>,
    /// Held by who starts it.
    starting: tokio::sync::Mutex<()>,
    standalone_open: AtomicBool,
    closed: CancellationToken,
}

/// Whose requests a process of this era carries.
fn clients(era: Era) -> Clients {
    match era {
        Era::Legacy => Clients::One,
        Era::Modern => Clients::Many,
    }
}

impl ChildLeg {
    pub(super) fn new(shared: Arc<Shared>, era: Era) -> Self {
        Self(Arc::new(Inner {
            shared,
            clients: clients(era),
            child: Mutex::default(),
            starting: tokio::sync::Mutex::default(),
            standalone_open: AtomicBool::new(false),
            closed: CancellationToken::new(),
        }))
    }
}

impl Inner {
    /// The process; whoever comes first starts it.
    async fn child(&self) -> Result<Arc<Child>, Fault> {
        let started = async {
            if let Some(child) = self.started() {
                return Ok(child);
            }
            let _first = self.starting.lock().await;
            if let Some(child) = self.started() {
                return Ok(child);
            }
            let child = self.shared.start(self.clients).await?;
            child.set_standalone_open(self.standalone_open.load(Ordering::SeqCst));
            *self.child.lock() = Some(Arc::clone(&child));
            Ok(child)
        };
        tokio::select! {
            biased;
            () = self.closed.cancelled() => Err(faults::closed()),
            started = started => started,
        }
    }

    fn started(&self) -> Option<Arc<Child>> {
        self.child.lock().clone()
    }

    async fn request(&self, message: Message, context: RequestContext) -> Result<Reply, Fault> {
        let child = self.child().await?;
        if message.method() == Some(&Method::Initialize) && child.is_untried() {
            return Box::pin(self.initialize(child, message, context)).await;
        }
        child.request(&message, context).await
    }

    /// The handshake with a process that another leg has handed on. A server may end over what that
    /// leg asked although it has answered; then one that was asked nothing gets the handshake.
    async fn initialize(
        &self,
        child: Arc<Child>,
        message: Message,
        context: RequestContext,
    ) -> Result<Reply, Fault> {
        let ended = match child.request(&message, context).await {
            Ok(Reply::Pipe(mut rest)) => match rest.next().await {
                Some(Err(fault)) => fault,
                first => {
                    let incoming = Incoming::new(Begun {
                        first: Some(first),
                        rest,
                    });
                    return Ok(Reply::Pipe(incoming));
                }
            },
            Ok(other) => return Ok(other),
            Err(fault) => fault,
        };
        if ended.kind != FaultKind::ChildExited {
            return Err(ended);
        }
        self.child.lock().take();
        let child = self.child().await?;
        child.request(&message, RequestContext::default()).await
    }
}

/// What belongs to a request, its first item at hand.
struct Begun {
    first: Option<Option<Result<Item, Fault>>>,
    rest: Incoming,
}

impl Source for Begun {
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Item, Fault>>> {
        match self.first.take() {
            Some(first) => Poll::Ready(first),
            None => self.rest.poll_next(cx),
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
        Box::pin(async move { inner.request(message, context).await })
    }

    fn send(&self, message: Message, _context: SendContext) -> BoxFuture<Result<(), Fault>> {
        let inner = Arc::clone(&self.0);
        Box::pin(async move { inner.child().await?.send(&message).await })
    }

    fn negotiated(&self, _version: ProtocolVersion) {}

    fn standalone(&self) -> BoxFuture<Option<Incoming>> {
        let child = self.0.started();
        let child = child.filter(|_| self.0.clients == Clients::One);
        let incoming = child.map(|child| child.standalone());
        Box::pin(std::future::ready(incoming))
    }

    fn has_response_heads(&self) -> bool {
        false
    }

    fn set_standalone_open(&self, open: bool) {
        self.0.standalone_open.store(open, Ordering::SeqCst);
        if let Some(child) = self.0.started() {
            child.set_standalone_open(open);
        }
    }

    fn died(&self) -> BoxFuture<Fault> {
        let inner = Arc::clone(&self.0);
        Box::pin(async move {
            match inner.started() {
                Some(child) => child.died().await,
                None => std::future::pending().await,
            }
        })
    }

    fn close(&self) -> BoxFuture<()> {
        let inner = Arc::clone(&self.0);
        Box::pin(async move {
            inner.closed.cancel();
            if let Some(child) = inner.started() {
                child.end().await;
            }
        })
    }

    fn hand_on(&self, era: Era) -> BoxFuture<()> {
        self.0.closed.cancel();
        if let Some(child) = self.0.child.lock().take() {
            self.0.shared.keep(child, clients(era));
        }
        Box::pin(std::future::ready(()))
    }
}
