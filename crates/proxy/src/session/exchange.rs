//! One request of the client and all that belongs to it, until its one outcome.
//!
//! An exchange is pulled: each [`Outgoing`] is asked for when the one before it has been taken, so
//! a slow client slows its server and nothing else. Its last item is always the response or an
//! error in its place; only a request that the client cancelled may end without one.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_core::Stream;
use http::{HeaderMap, StatusCode};
use shadowcat_mcp::fault::{Executed, Fault, FaultKind, Side, status_of_answer};
use shadowcat_mcp::message::{Kind, Message, RequestId};
use shadowcat_mcp::method::Method;
use shadowcat_mcp::version::Era;
use shadowcat_transport::metrics::Outcome;
use shadowcat_transport::upstream::{Incoming, Item, Reply, RequestContext};
use tokio::time::Instant;
use tracing::debug;

use super::flight::Flight;
use super::lane::Hold;
use super::{Busy, Session};

/// How long the upstream may still answer a request that the client has cancelled.
const CANCEL_GRACE: Duration = Duration::from_secs(5);

/// What an exchange produces.
#[derive(Debug)]
pub(crate) enum Outgoing {
    /// The server answers with an event stream; no message yet.
    StreamOpened,
    /// A notification or a request of the server.
    Message(Message),
    /// The response, or the error in its place: the last item.
    Response {
        /// The upstream's status, of interest to modern clients.
        status: StatusCode,
        /// End-to-end response headers.
        headers: HeaderMap,
        /// The response.
        message: Message,
    },
    /// An authentication challenge to be relayed: the last item.
    Challenge {
        status: StatusCode,
        headers: HeaderMap,
        body: Bytes,
    },
}

impl Outgoing {
    /// Whether the exchange ends with this item.
    pub(crate) fn is_last(&self) -> bool {
        matches!(self, Self::Response { .. } | Self::Challenge { .. })
    }
}

/// The items of one exchange. Dropping it abandons the request.
pub(crate) type Outgoings = Pin<Box<dyn Stream<Item = Outgoing> + Send + 'static>>;

impl Session {
    /// Starts a request whose id can be cancelled by, and must be unique in the session.
    ///
    /// # Errors
    /// A fault to answer with at once, when the id is in use.
    pub(crate) fn request(
        self: &Arc<Self>,
        request: Message,
        id: RequestId,
        method: Method,
        headers: HeaderMap,
    ) -> Result<Outgoings, Fault> {
        let flight = self.flights.begin(&id).ok_or_else(|| {
            Fault::new(Side::Client, FaultKind::DuplicateId, Executed::No)
                .because("a request with this id is still open; use a new id")
        })?;
        Ok(self.exchange(request, id, method, headers, flight, true))
    }

    /// Starts a request of one of many clients that share this session (modern HTTP): ids of
    /// different clients may be equal, and dropping the exchange is its cancel.
    pub(crate) fn request_untracked(
        self: &Arc<Self>,
        request: Message,
        id: RequestId,
        method: Method,
        headers: HeaderMap,
    ) -> Outgoings {
        self.exchange(request, id, method, headers, Arc::default(), false)
    }

    fn exchange(
        self: &Arc<Self>,
        request: Message,
        id: RequestId,
        method: Method,
        headers: HeaderMap,
        flight: Arc<Flight>,
        tracked: bool,
    ) -> Outgoings {
        let timeout = self.shared.config.request_timeout;
        let deadline = timeout.map(|timeout| Instant::now() + timeout);
        let exchange = Exchange {
            bounds: Bounds {
                deadline,
                session: Arc::clone(self),
                flight,
            },
            busy: self.busy(),
            request,
            id,
            headers,
            tracked,
            phase: Phase::Start,
            sent_again: false,
            gate: (method == Method::Initialize).then(|| self.lane.hold()),
            method,
            started: Instant::now(),
            outcome: Outcome::Cancelled,
        };
        Box::pin(futures_util::stream::unfold(
            exchange,
            |mut exchange| async move { exchange.next().await.map(|outgoing| (outgoing, exchange)) },
        ))
    }
}

struct Exchange {
    bounds: Bounds,
    request: Message,
    id: RequestId,
    method: Method,
    headers: HeaderMap,
    /// Whether the session's table knows this request by its id.
    tracked: bool,
    phase: Phase,
    /// Whether the one second sending that the rules allow has been used.
    sent_again: bool,
    /// Held by a handshake until its response is out: nothing of the client passes before.
    gate: Option<Hold>,
    started: Instant,
    outcome: Outcome,
    #[expect(
        dead_code,
        reason = "held for its drop: the session is not idle meanwhile"
    )]
    busy: Busy,
}

enum Phase {
    Start,
    Streaming { incoming: Incoming, generation: u64 },
    Done,
}

/// What an exchange may wait for, and how long.
struct Bounds {
    session: Arc<Session>,
    flight: Arc<Flight>,
    deadline: Option<Instant>,
}

impl Bounds {
    /// Runs `work` unless the session ends, the deadline passes, or the client has cancelled.
    async fn unless_interrupted<T>(&self, work: impl Future<Output = T>) -> Result<T, Interrupt> {
        let deadline = async {
            match self.deadline {
                Some(deadline) => tokio::time::sleep_until(deadline).await,
                None => std::future::pending().await,
            }
        };
        let cancelled = async {
            self.flight.cancelled().await;
            if self.session.era == Era::Legacy {
                tokio::time::sleep(CANCEL_GRACE).await;
            }
        };
        tokio::select! {
            biased;
            done = work => Ok(done),
            () = self.session.ended() => Err(Interrupt::SessionEnded),
            () = cancelled => Err(Interrupt::Cancelled),
            () = deadline => Err(Interrupt::Deadline),
        }
    }
}

/// What ends an exchange from outside.
enum Interrupt {
    SessionEnded,
    Deadline,
    Cancelled,
}

impl Exchange {
    async fn next(&mut self) -> Option<Outgoing> {
        loop {
            let step = match self.phase {
                Phase::Start => self.start().await,
                Phase::Streaming { .. } => self.stream().await,
                Phase::Done => return None,
            };
            match step {
                Step::Give(outgoing) => return Some(outgoing),
                Step::Again => {}
                Step::End => {
                    self.phase = Phase::Done;
                    return None;
                }
            }
        }
    }

    /// Sends the request and waits for the shape of its answer.
    async fn start(&mut self) -> Step {
        let session = Arc::clone(&self.bounds.session);
        if self.method != Method::Initialize {
            let passable = session.lane.passable();
            if let Err(interrupt) = self.bounds.unless_interrupted(passable).await {
                return self.interrupt(interrupt);
            }
        }
        let (leg, generation) = session.leg();
        let context = RequestContext {
            headers: self.headers.clone(),
            deadline: self.bounds.deadline,
            progress_extends: session.shared.config.request_timeout,
            dispatched: self.bounds.flight.dispatched(),
        };
        let reply = leg.request(self.request.clone(), context);
        match self.bounds.unless_interrupted(reply).await {
            Err(interrupt) => self.interrupt(interrupt),
            Ok(Err(fault)) => self.fault(fault, generation).await,
            Ok(Ok(Reply::Json {
                status,
                headers,
                message,
            })) => self.respond(status, headers, message),
            Ok(Ok(Reply::Stream { incoming, .. })) => {
                self.phase = Phase::Streaming {
                    incoming,
                    generation,
                };
                Step::Give(Outgoing::StreamOpened)
            }
            Ok(Ok(Reply::Pipe(incoming))) => {
                self.phase = Phase::Streaming {
                    incoming,
                    generation,
                };
                Step::Again
            }
            Ok(Ok(Reply::Challenge {
                status,
                headers,
                body,
            })) => {
                self.phase = Phase::Done;
                Step::Give(Outgoing::Challenge {
                    status,
                    headers,
                    body,
                })
            }
        }
    }

    /// Takes the next item of the answer's stream.
    async fn stream(&mut self) -> Step {
        let Phase::Streaming {
            mut incoming,
            generation,
        } = std::mem::replace(&mut self.phase, Phase::Done)
        else {
            return Step::End;
        };
        let item = self.bounds.unless_interrupted(incoming.next()).await;
        self.phase = Phase::Streaming {
            incoming,
            generation,
        };
        match item {
            Err(interrupt) => self.interrupt(interrupt),
            Ok(Some(Ok(Item::Message(message)))) => self.message(message),
            Ok(Some(Ok(Item::Gap(_)))) => Step::Again,
            Ok(Some(Err(fault))) => self.fault(fault, generation).await,
            Ok(None) if self.bounds.session.era == Era::Modern => Step::End,
            Ok(None) => {
                let fault = Fault::new(Side::Upstream, FaultKind::StreamEnded, Executed::Unknown)
                    .because("the stream ended without a response");
                self.fault(fault, generation).await
            }
        }
    }

    fn message(&mut self, message: Message) -> Step {
        match message.kind() {
            Kind::Response { id } | Kind::Error { id: Some(id) } if *id == self.id => {
                let status = status_of_answer(self.bounds.session.era, &message);
                self.respond(status, HeaderMap::new(), message)
            }
            Kind::Response { .. } | Kind::Error { .. } => {
                self.bounds.session.shared.metrics.stray_responses.inc();
                debug!(method = %self.method, "dropped a response that answers no open request");
                Step::Again
            }
            Kind::Request { id, .. } if !self.bounds.session.asks.begin(id) => Step::Again,
            Kind::Notification {
                method: Method::Progress,
            } => {
                if let Some(timeout) = self.bounds.session.shared.config.request_timeout {
                    self.bounds.deadline = Some(Instant::now() + timeout);
                }
                Step::Give(Outgoing::Message(message))
            }
            _ => {
                self.bounds.session.observe_server_message(&message);
                Step::Give(Outgoing::Message(message))
            }
        }
    }

    fn respond(&mut self, status: StatusCode, headers: HeaderMap, message: Message) -> Step {
        self.phase = Phase::Done;
        let session = &self.bounds.session;
        let message = session.observe_response(&self.method, &self.request, message);
        self.outcome = match message.kind() {
            Kind::Response { .. } => Outcome::Result,
            _ => Outcome::Error,
        };
        self.gate = None;
        Step::Give(Outgoing::Response {
            status,
            headers,
            message,
        })
    }

    /// What a fault means: a second sending where that is safe, else the error.
    async fn fault(&mut self, fault: Fault, generation: u64) -> Step {
        if self.bounds.flight.is_cancelled() {
            return Step::End;
        }
        let lost = fault.kind.is_session_loss();
        let refused = lost && fault.executed == Executed::No;
        let again = !self.sent_again && (refused || self.may_repeat());
        if lost
            && self
                .bounds
                .session
                .may_heal(self.method == Method::Initialize)
        {
            if !again {
                self.bounds.session.heal_soon(generation);
                return self.fail(&fault);
            }
            let session = Arc::clone(&self.bounds.session);
            match self
                .bounds
                .unless_interrupted(session.heal(generation))
                .await
            {
                Err(interrupt) => return self.interrupt(interrupt),
                Ok(Err(fault)) => return self.fail(&fault),
                Ok(Ok(())) => {}
            }
        } else if !(again && fault.kind.is_transport_loss() && fault.executed == Executed::Unknown)
        {
            if lost {
                self.bounds.session.lose();
            }
            return self.fail(&fault);
        }
        self.sent_again = true;
        self.bounds.session.shared.metrics.requests_repeated.inc();
        self.phase = Phase::Start;
        Step::Again
    }

    /// Whether executing the request twice does no harm.
    fn may_repeat(&self) -> bool {
        self.method.is_safe()
            || self
                .bounds
                .session
                .is_repeatable_call(&self.method, &self.request)
    }

    fn fail(&mut self, fault: &Fault) -> Step {
        self.phase = Phase::Done;
        self.outcome = Outcome::Fault;
        self.gate = None;
        let message = fault.to_response(&self.id);
        let status = fault.status_of(self.bounds.session.era, &self.method);
        Step::Give(Outgoing::Response {
            status,
            headers: fault.headers(status),
            message,
        })
    }

    fn interrupt(&mut self, interrupt: Interrupt) -> Step {
        match interrupt {
            Interrupt::Cancelled => Step::End,
            Interrupt::SessionEnded => {
                let fault = Fault::new(Side::Shadowcat, FaultKind::SessionEnded, Executed::Unknown)
                    .because("the session ended before the response came");
                self.fail(&fault)
            }
            Interrupt::Deadline => {
                self.bounds.session.cancel_upstream(
                    &self.id,
                    &self.bounds.flight,
                    "request timed out",
                );
                let fault = Fault::new(Side::Upstream, FaultKind::Timeout, Executed::Unknown)
                    .because("no response within --request-timeout");
                self.fail(&fault)
            }
        }
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        if self.tracked {
            self.bounds.session.flights.end(&self.id);
        }
        let metrics = &self.bounds.session.shared.metrics;
        metrics.request_ended(&self.method, self.outcome, self.started.elapsed());
    }
}

/// What one step of an exchange came to.
#[expect(
    clippy::large_enum_variant,
    reason = "returned and taken apart at once, never stored"
)]
enum Step {
    Give(Outgoing),
    Again,
    End,
}
