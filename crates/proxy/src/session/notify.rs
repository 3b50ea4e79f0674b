//! Notifications and responses of the client, and what the session must know of the server's.

use std::sync::Arc;
use std::time::Duration;

use http::HeaderMap;
use shadowcat_mcp::build;
use shadowcat_mcp::fault::Executed;
use shadowcat_mcp::inspect;
use shadowcat_mcp::message::{Kind, Message, RequestId};
use shadowcat_mcp::method::Method;
use shadowcat_mcp::version::Era;
use shadowcat_transport::upstream::SendContext;
use tokio::sync::oneshot;
use tracing::{debug, warn};

use super::Session;
use super::flight::Flight;

/// How long a cancel waits for its request to have left.
const CANCEL_PATIENCE: Duration = Duration::from_secs(5);

impl Session {
    /// Takes a notification or a response of the client; it keeps its place in their order.
    /// Returns at once unless the lane is full.
    pub(crate) async fn tell(self: &Arc<Self>, message: Message, headers: HeaderMap) {
        self.lane.room().await;
        match message.kind() {
            Kind::Notification {
                method: Method::Initialized,
            } => {
                self.handshake.lock().initialized = Some(message.clone());
                let session = Arc::clone(self);
                self.lane.push_barrier(Box::pin(async move {
                    session.forward(message, headers).await;
                    session.start_standalone();
                }));
            }
            Kind::Notification {
                method: Method::Cancelled,
            } => self.cancel(message, headers),
            Kind::Response { id } | Kind::Error { id: Some(id) } => {
                if self.asks.answer(id) {
                    self.push_forward(message, headers);
                } else {
                    self.shared.metrics.stray_responses.inc();
                    debug!("dropped an answer to a request that the server is not waiting for");
                }
            }
            _ => self.push_forward(message, headers),
        }
    }

    fn push_forward(self: &Arc<Self>, message: Message, headers: HeaderMap) {
        let session = Arc::clone(self);
        self.lane.push(Box::pin(
            async move { session.forward(message, headers).await },
        ));
    }

    /// Sends one message to the server; into a new session if the old one is lost.
    async fn forward(self: &Arc<Self>, message: Message, headers: HeaderMap) {
        let context = SendContext { headers };
        let (leg, generation) = self.leg();
        let Err(fault) = leg.send(message.clone(), context.clone()).await else {
            return;
        };
        let refused = fault.kind.is_session_loss() && fault.executed == Executed::No;
        // An answer belongs to a request of the lost session: nobody waits for it any more.
        let notification = matches!(message.kind(), Kind::Notification { .. });
        if refused && notification && self.may_heal(false) {
            if self.heal(generation).await.is_ok()
                && self.leg().0.send(message, context).await.is_ok()
            {
                return;
            }
        } else if refused && !self.may_heal(false) {
            self.lose();
        }
        self.shared.metrics.undelivered_messages.inc();
        warn!(session = self.key.0, %fault, "the server did not take a message of the client");
    }

    /// A cancel follows its request, never overtakes it, and goes nowhere if the request never
    /// left.
    fn cancel(self: &Arc<Self>, message: Message, headers: HeaderMap) {
        let flight = inspect::cancelled_id(&message).and_then(|id| self.flights.get(&id));
        let Some(flight) = flight else {
            debug!("ignored a cancel of a request that is not open");
            return;
        };
        flight.cancel();
        if self.era == Era::Modern {
            return;
        }
        self.push_cancel(message, headers, flight.take_left());
    }

    /// Cancels a request on our own behalf.
    pub(super) fn cancel_upstream(self: &Arc<Self>, id: &RequestId, flight: &Flight, why: &str) {
        if self.era == Era::Legacy {
            let message = build::cancelled(id, why);
            self.push_cancel(message, HeaderMap::new(), flight.take_left());
        }
    }

    fn push_cancel(
        self: &Arc<Self>,
        message: Message,
        headers: HeaderMap,
        left: Option<oneshot::Receiver<()>>,
    ) {
        let session = Arc::clone(self);
        self.lane.push(Box::pin(async move {
            let Some(left) = left else { return };
            if let Ok(Ok(())) = tokio::time::timeout(CANCEL_PATIENCE, left).await {
                session.forward(message, headers).await;
            }
        }));
    }

    /// Looks at a notification or request of the server on its way to the client.
    pub(super) fn observe_server_message(&self, message: &Message) {
        if let Kind::Notification {
            method: Method::Cancelled,
        } = message.kind()
            && let Some(id) = inspect::cancelled_id(message)
        {
            self.asks.withdraw(&id);
        }
    }
}
