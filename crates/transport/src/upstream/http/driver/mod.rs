//! The shell around the engine: one stream's connections, made and dropped as the engine says.
//!
//! A [`Driver`] owns one [`Engine`] and at most one connection. It is pulled: polling it carries out
//! what the engine wants, tells the engine what became of it, and gives back the events that are
//! new. Polling it for the next event is what commits the one before it. There is no task behind it:
//! a stream that nobody polls stands still, which is the back-pressure that stops its server.
//!
//! What an attempt sends is for its [`Opener`] to know; what anything means is for the engine. In
//! the undisturbed case an event takes no lock and no allocation of the driver's.

mod attempt;
mod messages;
mod posting;
mod telemetry;

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};
use std::time::Instant;

use http::StatusCode;
use http::response::Parts;
use shadowcat_mcp::fault::Fault;
use shadowcat_mcp::message::Message;
use shadowcat_sse::reconnect::{
    self, Action, Attempt, Engine, Finish, Input, Kind, Opening, StateName, Trouble, Verdict,
};
use shadowcat_sse::{Event, Item};
use tokio::time::Sleep;
use tracing::error;

use super::client::Connected;
use super::events::{BodyEnd, EventBody};
use super::permits::Permit;
use super::{Shared, body, faults};
use crate::upstream::{BoxFuture, Deadline, Reply};
pub(crate) use attempt::{Call, Failure, Opened, send};
pub(crate) use messages::{Messages, Reader};
pub(crate) use posting::Posting;
use telemetry::Telemetry;

/// Makes the requests of one stream.
pub(crate) trait Opener: Send + 'static {
    /// Begins an attempt.
    fn open(&mut self, opening: Opening, connected: Connected) -> BoxFuture<Opened>;
}

/// See the [module](self).
pub(crate) struct Driver {
    shared: Arc<Shared>,
    engine: Engine,
    opener: Box<dyn Opener>,
    link: Link,
    /// The right to hold a stream open. A stream keeps it while it is away: nothing else may take
    /// its place. A parked one gives it back.
    permit: Option<Permit>,
    permit_coming: Option<BoxFuture<Option<Permit>>>,
    /// The earliest deadline, perhaps earlier than that of now.
    timer: Option<Pin<Box<Sleep>>>,
    /// When a parked stream is to be probed.
    probe_at: Option<Instant>,
    /// When bytes came last.
    heard: Instant,
    /// Until when the answer is of use.
    deadline: Deadline,
    answered: Option<Answered>,
    last: Option<Box<Failure>>,
    telemetry: Telemetry,
}

/// The connection, if there is one.
#[expect(
    clippy::large_enum_variant,
    reason = "there is one in each driver, which is boxed"
)]
enum Link {
    None,
    Opening {
        outcome: BoxFuture<Opened>,
        /// `None` once the engine knows; a redirect connects again.
        connected: Option<Connected>,
    },
    Open(EventBody),
}

/// What answers a request, or another message.
pub(crate) enum Answered {
    /// An event stream, to be polled for events.
    Stream(Parts),
    /// The whole answer.
    Whole(Reply),
    /// The message was accepted.
    Accepted,
}

/// What a stream comes to.
#[derive(Debug)]
pub(crate) enum Next {
    /// An event that was not here before.
    Event(Event),
    /// The stream was away for so long without a cursor: messages may be missing.
    Gap(std::time::Duration),
    /// The attempt to open it again was answered without a stream.
    Answer(Message),
    /// It rests until there is a new session.
    Parked,
    /// It is over.
    Over(Finish),
}

/// Where a stream without an event stands.
enum Standing {
    Open,
    Answered,
    /// Until there is a new session.
    Parked,
    Over(Finish),
}

/// The engine's clock; tokio's, so that a test can stop it.
fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

impl Driver {
    /// A stream that is not begun. The answer of a POST comes with its permit; a stream that stands
    /// by itself waits for one.
    pub(crate) fn new(
        shared: Arc<Shared>,
        kind: Kind,
        opener: Box<dyn Opener>,
        permit: Option<Permit>,
    ) -> Self {
        let engine = Engine::new(kind, shared.config.reconnect.clone(), (shared.random)());
        Self {
            telemetry: Telemetry::new(&shared, kind),
            shared,
            engine,
            opener,
            link: Link::None,
            permit,
            permit_coming: None,
            timer: None,
            probe_at: None,
            heard: now(),
            deadline: Deadline::default(),
            answered: None,
            last: None,
        }
    }

    /// Until when the answer is of use.
    pub(crate) fn set_deadline(&mut self, deadline: Deadline) {
        self.deadline = deadline;
    }

    /// Sends the request and waits for what answers it.
    ///
    /// # Errors
    /// What [`Driver::fault`] says.
    pub(crate) async fn answer(&mut self) -> Result<Answered, Fault> {
        let standing = poll_fn(|cx| self.poll_standing(cx)).await;
        if let Some(answered) = self.answered.take() {
            return Ok(answered);
        }
        match standing {
            Standing::Over(Finish::Failed(fault)) => {
                let relay = self.last.as_mut().and_then(|last| last.relay.take());
                relay
                    .filter(|_| is_relayed(fault.kind))
                    .map(Answered::Whole)
                    .ok_or_else(|| self.fault(&fault))
            }
            _ => Err(self.parked_fault()),
        }
    }

    /// Waits until it is known what the first attempt to open the stream came to; false if the
    /// stream is not to be had in this session.
    pub(crate) async fn settled(&mut self) -> bool {
        poll_fn(|cx| {
            let standing = self.poll_standing(cx);
            match (standing, self.engine.state()) {
                (Poll::Ready(Standing::Parked), _) => Poll::Ready(false),
                (Poll::Ready(_), _) | (_, StateName::Backoff | StateName::Parked) => {
                    Poll::Ready(true)
                }
                _ => Poll::Pending,
            }
        })
        .await
    }

    /// The next event; commits the one before it.
    pub(crate) fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Next> {
        self.engine.commit();
        loop {
            if let Some(away) = self.engine.take_gap() {
                return Poll::Ready(Next::Gap(away));
            }
            if let Link::Open(_) = self.link {
                if let Some(event) = ready!(self.poll_event(cx)) {
                    return Poll::Ready(Next::Event(event));
                }
            } else {
                match ready!(self.poll_standing(cx)) {
                    Standing::Open => {}
                    Standing::Answered => match self.answered.take() {
                        Some(Answered::Whole(Reply::Json { message, .. })) => {
                            return Poll::Ready(Next::Answer(message));
                        }
                        Some(Answered::Whole(_)) => return Poll::Ready(Next::Over(Finish::Closed)),
                        Some(Answered::Stream(_) | Answered::Accepted) | None => {}
                    },
                    Standing::Parked => return Poll::Ready(Next::Parked),
                    Standing::Over(finish) => return Poll::Ready(Next::Over(finish)),
                }
            }
        }
    }

    /// The next event of the connection that is open; commits the one before it. `None` once the
    /// connection is over: for a stream whose reconnect would be another session.
    pub(crate) fn poll_connection(&mut self, cx: &mut Context<'_>) -> Poll<Option<Event>> {
        self.engine.commit();
        let event = ready!(self.poll_event(cx));
        if event.is_none() {
            // What the engine noticed by itself it tells when it is asked.
            let _ = self.ask(cx.waker());
        }
        Poll::Ready(event)
    }

    /// Whether a connection is open.
    pub(crate) fn is_open(&self) -> bool {
        matches!(self.link, Link::Open(_))
    }

    /// What failed last.
    pub(crate) fn take_failure(&mut self) -> Option<Box<Failure>> {
        self.last.take()
    }

    /// The event that was given last is nothing that anybody wants.
    pub(crate) fn skip(&mut self) {
        self.engine.skip();
    }

    /// The fault of a stream that rests and will not be had again.
    pub(crate) fn parked_fault(&self) -> Fault {
        let kind = reconnect::FaultKind::StreamEnded;
        self.fault(&reconnect::Fault::new(kind, reconnect::Executed::Unknown))
    }

    /// What the stream is.
    pub(crate) fn kind(&self) -> Kind {
        self.engine.kind()
    }

    /// The response was delivered: the stream is done. The server is about to end it too; reading
    /// that end lets the connection be used again.
    pub(crate) fn done(&mut self) {
        self.engine.commit();
        if !self.engine.state().is_final() {
            self.tell(Input::Answered);
        }
        let link = std::mem::replace(&mut self.link, Link::None);
        self.permit = None;
        if let Link::Open(open) = link
            && let Some(rest) = open.into_rest()
            && let Ok(runtime) = tokio::runtime::Handle::try_current()
        {
            runtime.spawn(body::discard(rest));
        }
    }

    /// The engine's fault in words.
    pub(crate) fn fault(&self, fault: &reconnect::Fault) -> Fault {
        faults::concluded(fault, self.last.as_deref())
    }

    /// What went wrong last.
    pub(crate) fn last_trouble(&self) -> Option<Trouble> {
        self.last.as_ref().map(|last| last.trouble)
    }

    /// The status of the last failure, where it was one.
    pub(crate) fn last_status(&self) -> Option<StatusCode> {
        match self.last_trouble()? {
            Trouble::Refused(refusal) => Some(refusal.status),
            _ => None,
        }
    }

    /// Reads the open connection; `None` when it is not open any more.
    fn poll_event(&mut self, cx: &mut Context<'_>) -> Poll<Option<Event>> {
        loop {
            let Link::Open(open) = &mut self.link else {
                return Poll::Ready(None);
            };
            match open.next_item() {
                Ok(Some(item)) => match self.engine.item(self.heard, &item) {
                    Ok(Verdict::Deliver) => {
                        if let Item::Event(event) = item {
                            return Poll::Ready(Some(event));
                        }
                    }
                    Ok(Verdict::Duplicate) => self.observe(),
                    Ok(Verdict::Noted) => {}
                    Err(unexpected) => self.confused(&unexpected),
                },
                Ok(None) => match open.poll_read(cx) {
                    Poll::Ready(Ok(())) => {
                        self.heard = now();
                        self.engine.received(self.heard);
                    }
                    Poll::Ready(Err(end)) => self.broke(&end),
                    Poll::Pending if open.is_starved() => return Poll::Pending,
                    Poll::Pending => match self.engine.poll_open(now()) {
                        Some(until) => ready!(self.poll_timer(until, cx)),
                        None => self.link = Link::None,
                    },
                },
                Err(limit) => self.broke(&BodyEnd::TooLarge(limit)),
            }
        }
    }

    fn broke(&mut self, end: &BodyEnd) {
        let trouble = match end {
            BodyEnd::Clean => Trouble::Ended,
            BodyEnd::Broken(_) => Trouble::Reset,
            BodyEnd::NoMemory => Trouble::NoMemory,
            BodyEnd::TooLarge(_) => Trouble::TooLarge,
        };
        self.fail(Failure::new(trouble, end.to_string()));
    }

    /// Does what the engine says until the stream is open or rests for good.
    fn poll_standing(&mut self, cx: &mut Context<'_>) -> Poll<Standing> {
        loop {
            ready!(self.poll_permit(cx));
            self.poll_attempt(cx);
            if self.answered.is_some() {
                return Poll::Ready(Standing::Answered);
            }
            match self.ask(cx.waker()) {
                Action::Connect(attempt) => self.begin(attempt),
                Action::AwaitHead(until) => ready!(self.poll_timer(until, cx)),
                Action::Wait(until) => {
                    self.link = Link::None;
                    if self.engine.state() == StateName::Parked {
                        self.permit = None;
                        self.probe_at = until;
                        if until.is_none() {
                            return Poll::Ready(Standing::Parked);
                        }
                    }
                    ready!(self.poll_timer(until, cx));
                }
                Action::Read(_) => match self.link {
                    Link::Open(_) => return Poll::Ready(Standing::Open),
                    _ => self.fail(Failure::new(Trouble::Reset, "it is gone")),
                },
                Action::Finish(finish) => {
                    self.link = Link::None;
                    self.permit = None;
                    return Poll::Ready(Standing::Over(finish));
                }
            }
        }
    }

    /// Waits for the permit of a stream that stands by itself, when it is about to connect.
    fn poll_permit(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let due = match self.engine.state() {
            StateName::Idle => true,
            StateName::Parked => self.probe_at.is_some_and(|at| at <= now()),
            _ => false,
        };
        if self.permit.is_some() || !due || !is_standing(self.engine.kind()) {
            return Poll::Ready(());
        }
        let shared = &self.shared;
        let coming = self.permit_coming.get_or_insert_with(|| {
            let shared = Arc::clone(shared);
            Box::pin(async move { shared.connections.standing().await })
        });
        self.permit = ready!(coming.as_mut().poll(cx));
        self.permit_coming = None;
        Poll::Ready(())
    }

    fn begin(&mut self, attempt: Attempt) {
        let connected = Connected::default();
        self.link = Link::Opening {
            outcome: self.opener.open(attempt.opening, connected.clone()),
            connected: Some(connected),
        };
    }

    /// Tells the engine how the attempt under way gets on.
    fn poll_attempt(&mut self, cx: &mut Context<'_>) {
        let Link::Opening { outcome, connected } = &mut self.link else {
            return;
        };
        let opened = outcome.as_mut().poll(cx);
        if connected.take_if(|connected| connected.is_set()).is_some() {
            self.tell(Input::Connected);
        }
        let Poll::Ready(opened) = opened else { return };
        self.link = Link::None;
        match opened {
            Opened::Stream(response) => {
                let (head, body) = response.into_parts();
                if !self.telemetry.was_open() {
                    self.answered = Some(Answered::Stream(head));
                }
                self.heard = now();
                self.link = Link::Open(EventBody::new(body, Arc::clone(&self.shared)));
                self.tell(Input::Opened);
            }
            Opened::Whole(reply) => self.settle(Answered::Whole(reply)),
            Opened::Accepted => self.settle(Answered::Accepted),
            Opened::Failed(failure) => self.fail(failure),
        }
    }

    fn settle(&mut self, answered: Answered) {
        self.answered = Some(answered);
        self.permit = None;
        self.tell(Input::Answered);
    }

    fn fail(&mut self, failure: Box<Failure>) {
        self.link = Link::None;
        let trouble = failure.trouble;
        self.last = Some(failure);
        self.share_deadline();
        self.tell(Input::Failed(trouble));
    }

    /// Tells the engine the deadline of now, before it decides about a wait.
    fn share_deadline(&mut self) {
        let deadline = self.deadline.get();
        self.engine
            .set_deadline(deadline.map(tokio::time::Instant::into_std));
    }

    fn ask(&mut self, waker: &Waker) -> Action {
        let now = now();
        self.share_deadline();
        let action = self.engine.poll(now, &mut self.shared.origin.lock(), waker);
        self.observe();
        action
    }

    fn tell(&mut self, input: Input) {
        let told = self
            .engine
            .handle(now(), &mut self.shared.origin.lock(), input);
        self.observe();
        if let Err(unexpected) = told {
            self.confused(&unexpected);
        }
    }

    /// A mistake of ours: the stream ends, whatever else.
    fn confused(&mut self, unexpected: &reconnect::Unexpected) {
        error!(server = %self.shared.name, %unexpected, "a stream is in a state that it cannot be in");
        self.link = Link::None;
        let closed = self
            .engine
            .handle(now(), &mut self.shared.origin.lock(), Input::Close);
        debug_assert!(closed.is_ok(), "a stream can be closed in any state");
        self.observe();
    }

    /// Waits until `until`, or a little less: what was armed for an earlier time stays armed.
    fn poll_timer(&mut self, until: Option<Instant>, cx: &mut Context<'_>) -> Poll<()> {
        let Some(until) = until.map(tokio::time::Instant::from_std) else {
            return Poll::Pending;
        };
        let timer = self
            .timer
            .get_or_insert_with(|| Box::pin(tokio::time::sleep_until(until)));
        if timer.deadline() > until || timer.is_elapsed() {
            timer.as_mut().reset(until);
        }
        timer.as_mut().poll(cx)
    }

    fn observe(&mut self) {
        while let Some(transition) = self.engine.poll_transition() {
            if let Some(failure) = self.telemetry.noticed(&transition) {
                self.last = Some(failure);
            }
            let last = self.last.as_deref().map(|last| last.detail.as_str());
            self.telemetry.transition(
                &transition,
                self.engine.counters(),
                self.heard,
                last.unwrap_or_default(),
            );
        }
        self.telemetry.count(self.engine.counters());
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        if !self.engine.state().is_final() {
            self.tell(Input::Close);
        }
    }
}

/// Whether a stream stands by itself, for as long as it may.
fn is_standing(kind: Kind) -> bool {
    matches!(kind, Kind::Standalone | Kind::Listen | Kind::LegacySse)
}

/// Whether the client gets the server's own answer in place of a fault of this kind.
fn is_relayed(kind: reconnect::FaultKind) -> bool {
    use reconnect::FaultKind;
    matches!(kind, FaultKind::Status | FaultKind::Unauthorized)
}
