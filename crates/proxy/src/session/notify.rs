//! Notifications and responses of the client, and what the session must know of the server's.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use http::HeaderMap;
use shadowcat_mcp::build;
use shadowcat_mcp::fault::{Executed, Fault, FaultKind, Side};
use shadowcat_mcp::inspect;
use shadowcat_mcp::message::{Kind, Message, RequestId};
use shadowcat_mcp::method::Method;
use shadowcat_mcp::version::Era;
use shadowcat_transport::metrics::Reason;
use shadowcat_transport::upstream::{BoxFuture, SendContext};
use tokio::sync::oneshot;
use tracing::{Instrument, Span, debug, warn};

use super::Session;
use super::asks::{Answer, Begun, answered};
use super::flight::Flight;

/// How long a cancel waits for its request to have left.
const CANCEL_PATIENCE: Duration = Duration::from_secs(5);

/// Why a request of the server was not put to the client.
struct Unasked {
    side: Side,
    why: &'static str,
    /// As the metrics call it.
    reason: &'static str,
}

const NOT_ANSWERED: Unasked = Unasked {
    side: Side::Client,
    why: "the client does not answer the server's requests",
    reason: "request",
};
const NO_ROOM: Unasked = Unasked {
    side: Side::Shadowcat,
    why: "the client does not read the server's requests, and Shadowcat has no room to keep more of them",
    reason: "request without room",
};

impl Session {
    /// Takes a notification or a response of the client; it keeps its place in their order.
    /// Returns at once unless the lane is full.
    pub(crate) async fn tell(self: &Arc<Self>, message: Message, headers: HeaderMap) {
        self.touch();
        self.lane.room().await;
        if answered(&message).is_some() {
            let Some(Answer {
                message,
                generation,
            }) = self.asks.answer(message)
            else {
                self.shared.metrics.stray_responses.inc();
                debug!("dropped an answer to a request that the server is not waiting for");
                return;
            };
            return self.push_forward(message, headers, Some(generation));
        }
        match message.method() {
            Some(Method::Initialized) => self.initialized(message, headers),
            Some(Method::Cancelled) => self.cancel(message, headers),
            _ => self.push_forward(message, headers, None),
        }
    }

    /// `notifications/initialized`: what comes after it waits until the server has accepted it, and has
    /// somewhere to put what it asks.
    fn initialized(self: &Arc<Self>, message: Message, headers: HeaderMap) {
        let session = Arc::clone(self);
        let job = async move {
            if session.negotiated().is_none() {
                debug!("dropped notifications/initialized: there was no handshake");
                return;
            }
            session.handshake.lock().initialized = Some(message.detached());
            session.forward(message, headers, None).await;
            session.begin_standalone().await;
        };
        self.lane.push_barrier(self.job(job));
    }

    /// Something of the session's for its lane, which does not outlive it.
    fn job(self: &Arc<Self>, work: impl Future<Output = ()> + Send + 'static) -> BoxFuture<()> {
        let session = Arc::clone(self);
        let bounded = async move {
            tokio::select! {
                // What has not begun when the session ends does not begin.
                biased;
                () = session.ended() => {}
                () = work => {}
            }
        };
        Box::pin(bounded.instrument(Span::clone(&self.span)))
    }

    fn push_forward(
        self: &Arc<Self>,
        message: Message,
        headers: HeaderMap,
        generation: Option<u64>,
    ) {
        let session = Arc::clone(self);
        let job = async move { session.forward(message, headers, generation).await };
        self.lane.push(self.job(job));
    }

    /// Sends one message to the server; a notification into a new session if the old one is lost.
    /// What answers a request goes to the session that asked (`generation`) or nowhere.
    async fn forward(
        self: &Arc<Self>,
        message: Message,
        headers: HeaderMap,
        generation: Option<u64>,
    ) {
        let opens = message.method() == Some(&Method::Initialized);
        let mut fault = None;
        for _ in 0..2 {
            let (leg, current) = match self.usable_leg().await {
                Ok(up) => up,
                Err(why) => {
                    fault = Some(why);
                    break;
                }
            };
            if generation.is_some_and(|asked| asked != current) {
                self.shared.metrics.stray_responses.inc();
                debug!("dropped an answer to a lost session of the server");
                return;
            }
            if fault.is_some() && opens {
                // The new session was opened with it.
                return;
            }
            let context = SendContext {
                headers: headers.clone(),
                ..SendContext::default()
            };
            let Err(why) = leg.send(message.clone(), context).await else {
                return;
            };
            if why.kind.is_session_loss() {
                self.lost(current, &why);
            }
            let refused = why.kind.is_session_loss() && why.executed == Executed::No;
            fault = Some(why);
            if !refused || self.has_ended() {
                break;
            }
        }
        self.shared.metrics.undelivered_messages.inc();
        if let Some(fault) = fault {
            warn!(%fault, "the server did not take a message of the client");
        }
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
        if self.era == Era::Legacy {
            self.push_cancel(message, headers, flight.take_left());
        }
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
        let Some(left) = left else { return };
        let session = Arc::clone(self);
        let job = async move {
            if let Ok(Ok(())) = tokio::time::timeout(CANCEL_PATIENCE, left).await {
                session.forward(message, headers, None).await;
            }
        };
        self.lane.push(self.job(job));
    }

    /// Tells the server that its request will not be answered.
    fn refuse_ask(self: &Arc<Self>, id: &RequestId, unasked: &Unasked) {
        let given_up = &self.shared.metrics.messages_given_up;
        given_up.get_or_create(&Reason::of(unasked.reason)).inc();
        if self.lane.has_room() {
            let fault = Fault::new(unasked.side, FaultKind::Overloaded, Executed::No);
            let response = fault.because(unasked.why).to_response(id);
            self.push_forward(response, HeaderMap::new(), Some(self.generation()));
        }
    }

    /// Answers a request of the server that the event log has no room for.
    pub(super) async fn refuse_for_room(self: &Arc<Self>, ask: &RequestId) {
        let Some(server) = self.asks.give_up(ask) else {
            return;
        };
        // A server that asks faster than it takes answers is not read meanwhile.
        tokio::select! {
            biased;
            () = self.ended() => return,
            () = self.lane.room() => {}
        }
        if !self.shared.short_of_room.swap(true, Ordering::Relaxed) {
            warn!(
                "requests of the server are refused: nobody reads them, and --replay-memory is full"
            );
        }
        self.refuse_ask(&server, &NO_ROOM);
    }

    /// Answers the requests of the server that no client came for while the log kept them.
    pub(crate) async fn refuse_lost_asks(self: &Arc<Self>) {
        self.settle_asks().await;
        for (ask, place) in self.asks.places() {
            if self.shared.log.lost(self.key, place).await
                && let Some(server) = self.asks.give_up(&ask)
            {
                self.refuse_ask(&server, &NOT_ANSWERED);
            }
        }
    }

    /// What waits for no answer any more need not be kept.
    pub(super) async fn settle_asks(&self) {
        for place in self.asks.take_settled_places() {
            self.shared.log.settle(self.key, place).await;
        }
    }

    /// Looks at a notification of the server on its way to the client.
    pub(super) fn observe_server_message(&self, message: Message) -> Message {
        match message.kind() {
            Kind::Notification {
                method: Method::Cancelled,
            } => self.asks.observe(message),
            _ => message,
        }
    }

    /// A request of the server on its way to the client; `None` if the client is not to see it.
    pub(super) fn asked(self: &Arc<Self>, message: &Message, generation: u64) -> Option<Message> {
        self.was_productive(generation);
        match self.asks.begin(message, generation) {
            Begun::Ask { message, given_up } => {
                if let Some(id) = given_up {
                    self.refuse_ask(&id, &NOT_ANSWERED);
                }
                Some(message)
            }
            Begun::Repeated => {
                self.shared.metrics.duplicates_dropped.inc();
                None
            }
        }
    }
}
