//! One request of the client and all that belongs to it, until its one outcome.
//!
//! An exchange is pulled: each [`Outgoing`] is asked for when the one before it has been taken, so
//! a slow client slows its server and nothing else. Its last item is always the response or an
//! error in its place; only a request that the client cancelled may end without one.

mod bounds;
mod failing;
mod listening;
mod outgoing;
mod progress;

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use http::{HeaderMap, StatusCode};
use shadowcat_mcp::fault::{Executed, Fault, FaultKind, Side, status_of_answer};
use shadowcat_mcp::headers::Fields;
use shadowcat_mcp::message::{Kind, Message, RequestId};
use shadowcat_mcp::method::Method;
use shadowcat_transport::metrics::Outcome;
use shadowcat_transport::request_span::RequestSpan;
use shadowcat_transport::upstream::{Deadline, Incoming, Item, Leg, Reply, RequestContext};
use tokio::time::Instant;
use tracing::debug;

use super::Session;
use super::flight::Flight;
use super::lane::Hold;
use bounds::{Bounds, Interrupt};
use listening::Listening;
pub(crate) use outgoing::{Outgoing, Outgoings, Preparation, Refusal};
use progress::Progress;

impl Session {
    /// Starts a request whose id can be cancelled by, and must be unique in the session. Nothing
    /// is sent before the first item is asked for, nor before the preparation, if there is one.
    ///
    /// # Errors
    /// A fault to answer with at once, when the id is in use or nothing is to begin any more.
    pub(crate) fn request(
        self: &Arc<Self>,
        request: Message,
        id: RequestId,
        method: Method,
        headers: HeaderMap,
        preparation: Option<Preparation>,
    ) -> Result<Outgoings, Fault> {
        self.shared.admits()?;
        let flight = self.flights.begin(&id).ok_or_else(|| {
            Fault::new(Side::Client, FaultKind::DuplicateId, Executed::No)
                .because("a request with this id is still open; use a new id")
        })?;
        let mut exchange = self.exchange(request, id, method, headers, flight, true);
        exchange.preparation = preparation;
        Ok(exchange.outgoings())
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
        let exchange = self.exchange(request, id, method, headers, Arc::default(), false);
        exchange.outgoings()
    }

    fn exchange(
        self: &Arc<Self>,
        request: Message,
        id: RequestId,
        method: Method,
        headers: HeaderMap,
        flight: Arc<Flight>,
        tracked: bool,
    ) -> Box<Exchange> {
        // A subscription never ends by itself: nobody waits for that.
        let counted = method != Method::SubscriptionsListen;
        let timeout = self.shared.config.request_timeout.filter(|_| counted);
        self.exchanges
            .fetch_add(usize::from(counted), Ordering::SeqCst);
        let span = RequestSpan::new(&self.span, &id, &method);
        let now = Instant::now();
        Box::new(Exchange {
            bounds: Bounds {
                deadline: Deadline::new(timeout.map(|timeout| now + timeout)),
                session: Arc::clone(self),
                flight,
            },
            progress: None,
            request,
            id,
            headers,
            preparation: None,
            tracked,
            phase: Phase::Start,
            repeated: false,
            renewed: false,
            sent: false,
            in_doubt: false,
            gate: (method == Method::Initialize).then(|| self.lane.hold()),
            listening: (method == Method::SubscriptionsListen).then(Box::default),
            method,
            span,
            started: now,
            outcome: Outcome::Cancelled,
            counted,
        })
    }
}

struct Exchange {
    bounds: Bounds,
    request: Message,
    id: RequestId,
    method: Method,
    headers: HeaderMap,
    preparation: Option<Preparation>,
    /// Looked at from the first notification on, where it matters.
    progress: Option<Box<Progress>>,
    /// Whether the session's table knows this request by its id.
    tracked: bool,
    phase: Phase,
    /// Sent once more because its answer was lost: allowed for what is safe.
    repeated: bool,
    /// Sent once more because the server refused it with its session: allowed for everything.
    renewed: bool,
    /// The server may have the request in its hands.
    sent: bool,
    /// An earlier sending may have been executed: what becomes of a later one does not change that.
    in_doubt: bool,
    /// Held by a handshake until its response is out: nothing of the client passes before.
    gate: Option<Hold>,
    /// Where the request is a subscription.
    listening: Option<Box<Listening>>,
    span: Arc<RequestSpan>,
    started: Instant,
    outcome: Outcome,
    /// Whether the session counts it among its open exchanges.
    counted: bool,
}

enum Phase {
    Start,
    Streaming { incoming: Incoming, generation: u64 },
    Done,
}

impl Exchange {
    fn outgoings(self: Box<Self>) -> Outgoings {
        Box::pin(futures_util::stream::unfold(
            self,
            |mut exchange| async move {
                let span = Arc::clone(&exchange.span);
                let outgoing = {
                    // Pinned here, so that only a pointer moves into the scope.
                    let next = pin!(exchange.next());
                    span.scope(next).await?
                };
                Some((outgoing, exchange))
            },
        ))
    }

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
                    self.finish();
                    return None;
                }
            }
        }
    }

    /// Nothing comes after this. The id is free before the client can know.
    fn finish(&mut self) {
        self.phase = Phase::Done;
        self.gate = None;
        if std::mem::take(&mut self.tracked) {
            self.bounds.session.flights.end(&self.id);
        }
    }

    /// Waits until the request may leave, and for the leg it leaves by.
    async fn leg(&mut self) -> Result<Result<(Arc<dyn Leg>, u64), Fault>, Interrupt> {
        let session = &self.bounds.session;
        let initializes = self.method == Method::Initialize;
        if (initializes || session.lane.is_passable())
            && let Some(up) = session.leg_if_up()
        {
            return Ok(Ok(up));
        }
        let ready = async {
            if !initializes {
                session.lane.passable().await;
            }
            session.usable_leg().await
        };
        Box::pin(self.bounds.unless_interrupted(ready)).await
    }

    /// Sends the request and waits for the shape of its answer.
    async fn start(&mut self) -> Step {
        if let Some(preparation) = self.preparation.take() {
            match self.bounds.unless_interrupted(preparation).await {
                Err(interrupt) => return self.interrupt(interrupt),
                Ok(Err((status, error))) => {
                    return self.give_error(status, Fields::default(), error);
                }
                Ok(Ok(headers)) => self.headers = headers,
            }
        }
        let (leg, generation) = match self.leg().await {
            Err(interrupt) => return self.interrupt(interrupt),
            Ok(Err(fault)) => return self.fail(&fault),
            Ok(Ok(up)) => up,
        };
        let session = Arc::clone(&self.bounds.session);
        if let Some(rejection) = session.before_handshake(&self.method) {
            let message = rejection.to_response(Some(&self.id));
            return self.give_error(rejection.status(), Fields::default(), message);
        }
        let Some(dispatched) = self.bounds.flight.dispatch() else {
            return Step::End;
        };
        self.sent = true;
        session.note_headers(&self.headers);
        let context = RequestContext {
            headers: self.headers.clone(),
            deadline: self.bounds.deadline.clone(),
            dispatched,
        };
        let reply = leg.request(self.request.clone(), context);
        match self.bounds.unless_interrupted(reply).await {
            Err(interrupt) => self.interrupt(interrupt),
            // Rare paths are boxed: the future of every exchange is as large as its largest path.
            Ok(Err(fault)) => Box::pin(self.fault(fault, generation)).await,
            Ok(Ok(reply)) => self.reply(reply, generation),
        }
    }

    fn reply(&mut self, reply: Reply, generation: u64) -> Step {
        let (incoming, step) = match reply {
            Reply::Json {
                status,
                headers,
                message,
            } => return self.respond(status, headers, message, generation),
            Reply::Refused {
                status,
                headers,
                fault,
            } => {
                let message = self.in_doubt(&fault).to_response(&self.id);
                return self.give_error(status, headers, message);
            }
            Reply::Challenge {
                status,
                headers,
                body,
            } => {
                self.outcome = Outcome::Fault;
                let message = outgoing::challenge(status).to_response(&self.id);
                self.finish();
                let refusal = Refusal::Challenge {
                    status,
                    headers,
                    body,
                };
                return Step::Give(Outgoing::Refused { refusal, message });
            }
            Reply::Stream { headers, incoming } => {
                (incoming, Step::Give(Outgoing::StreamOpened { headers }))
            }
            Reply::Pipe(incoming) => (incoming, Step::Again),
        };
        self.phase = Phase::Streaming {
            incoming,
            generation,
        };
        step
    }

    /// Takes the next item of the answer's stream.
    async fn stream(&mut self) -> Step {
        if let Some(news) = self
            .listening
            .as_mut()
            .and_then(|listening| listening.news())
        {
            return Step::Give(Outgoing::Message(news));
        }
        let Phase::Streaming {
            incoming,
            generation,
        } = &mut self.phase
        else {
            return Step::End;
        };
        let generation = *generation;
        if self.bounds.is_late() {
            return self.interrupt(Interrupt::Deadline);
        }
        match self.bounds.unless_interrupted(incoming.next()).await {
            Err(interrupt) => self.interrupt(interrupt),
            Ok(Some(Ok(Item::Message(message)))) => self.message(message, generation),
            Ok(Some(Ok(Item::Gap(away)))) => {
                if let Some(listening) = &mut self.listening {
                    listening.missed(&self.id, away);
                }
                Step::Again
            }
            Ok(Some(Err(fault))) => Box::pin(self.fault(fault, generation)).await,
            Ok(None) => {
                let fault = Fault::new(Side::Upstream, FaultKind::StreamEnded, Executed::Unknown)
                    .because("the stream ended without a response");
                Box::pin(self.fault(fault, generation)).await
            }
        }
    }

    fn message(&mut self, message: Message, generation: u64) -> Step {
        let session = &self.bounds.session;
        match message.kind() {
            Kind::Response { id } | Kind::Error { id: Some(id) } if *id == self.id => {
                let status = status_of_answer(session.era, &message);
                self.respond(status, Fields::default(), message, generation)
            }
            Kind::Response { .. } | Kind::Error { .. } => {
                session.shared.metrics.stray_responses.inc();
                debug!("dropped a response that answers no open request");
                Step::Again
            }
            Kind::Request { .. } => match session.asked(&message, generation) {
                Some(ask) => Step::Give(Outgoing::Message(ask)),
                None => Step::Again,
            },
            Kind::Notification { method } => {
                session.was_productive(generation);
                if let Some(listening) = &mut self.listening {
                    listening.observe(&message);
                }
                if *method == Method::Progress && !self.is_news(&message) {
                    return Step::Again;
                }
                let session = &self.bounds.session;
                Step::Give(Outgoing::Message(session.observe_server_message(message)))
            }
        }
    }

    fn respond(
        &mut self,
        status: StatusCode,
        headers: Fields,
        message: Message,
        generation: u64,
    ) -> Step {
        let session = &self.bounds.session;
        session.was_productive(generation);
        let message = session.observe_response(&self.method, &self.request, message);
        self.outcome = match message.kind() {
            Kind::Response { .. } => Outcome::Result,
            _ => Outcome::Error,
        };
        self.finish();
        Step::Give(Outgoing::Response {
            status,
            headers,
            message,
        })
    }

    fn give_error(&mut self, status: StatusCode, headers: Fields, message: Message) -> Step {
        self.outcome = Outcome::Fault;
        self.bounds.session.note_failure(&self.method, &message);
        self.finish();
        Step::Give(Outgoing::Response {
            status,
            headers,
            message,
        })
    }

    fn interrupt(&mut self, interrupt: Interrupt) -> Step {
        let session = &self.bounds.session;
        let mut fault = match interrupt {
            Interrupt::Cancelled => return Step::End,
            // The client no longer wants to know.
            _ if self.bounds.flight.is_cancelled() => return Step::End,
            Interrupt::SessionEnded => session.epitaph.get().cloned().unwrap_or_else(|| {
                Fault::new(Side::Shadowcat, FaultKind::SessionEnded, Executed::Unknown)
                    .because("the session ended before the response came")
            }),
            Interrupt::Deadline => {
                // A handshake must not be cancelled (MCP specification, "Cancellation").
                if self.method != Method::Initialize {
                    session.cancel_upstream(&self.id, &self.bounds.flight, "request timed out");
                }
                let timeout = session.shared.config.request_timeout.unwrap_or_default();
                Fault::new(Side::Upstream, FaultKind::Timeout, Executed::Unknown).because(format!(
                    "no response within {timeout:?} (--request-timeout)"
                ))
            }
        };
        fault.executed = match self.sent {
            true => Executed::Unknown,
            false => Executed::No,
        };
        self.fail(&fault)
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        self.finish();
        let session = &self.bounds.session;
        let counted = usize::from(self.counted);
        session.exchanges.fetch_sub(counted, Ordering::SeqCst);
        let metrics = &session.shared.metrics;
        metrics.request_ended(&self.method, self.outcome, self.started.elapsed());
    }
}

/// What one step of an exchange came to.
enum Step {
    Give(Outgoing),
    Again,
    End,
}
