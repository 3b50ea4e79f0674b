//! How a driver does what the engine says, and tells it what became of it.

use std::ops::DerefMut;
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};
use std::time::Instant;

use parking_lot::Mutex;
use shadowcat_mcp::headers;
use shadowcat_sse::reconnect::{
    self, Action, Attempt, Input, Kind, Lend, Origin, StateName, Trouble, Verdict,
};
use shadowcat_sse::{Event, Item};
use tracing::error;

use super::super::client::Connected;
use super::super::events::{BodyEnd, EventBody};
use super::{Answered, Driver, Failure, Link, Opened, Standing, now};
use crate::request_span::in_request;
use crate::timer::Timer;

impl Driver {
    /// Reads the open connection; `None` when it is not open any more.
    pub(super) fn poll_event(&mut self, cx: &mut Context<'_>) -> Poll<Option<Event>> {
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
                    Ok(Verdict::Noted) => self.note_id(),
                    Err(unexpected) => self.confused(&unexpected),
                },
                Ok(None) => match open.poll_read(cx) {
                    Poll::Ready(Ok(())) => {
                        self.heard = now();
                        self.engine.received(self.heard);
                        self.telemetry.heard();
                    }
                    Poll::Ready(Err(end)) => self.broke(&end),
                    Poll::Pending if open.is_starved() => return Poll::Pending,
                    Poll::Pending => {
                        if open.holds_part() {
                            self.engine.holds_part();
                        }
                        let now = now();
                        match self.engine.poll_open(now) {
                            Some(until) => {
                                let until = [self.watch(now), until].into_iter().flatten().min();
                                ready!(self.poll_timer(until, cx));
                            }
                            None => self.link = Link::None,
                        }
                    }
                },
                Err(limit) => self.broke(&BodyEnd::TooLarge(limit)),
            }
        }
    }

    /// When the open stream is to be looked at because it may seem degraded then.
    fn watch(&mut self, now: Instant) -> Option<Instant> {
        if self.telemetry.is_degraded() {
            return None;
        }
        let at = self.engine.degrades_at()?;
        if now < at {
            return Some(at);
        }
        self.telemetry.degraded(&self.engine.health(now));
        None
    }

    fn broke(&mut self, end: &BodyEnd) {
        let trouble = match end {
            BodyEnd::Clean => Trouble::Ended,
            BodyEnd::Broken(_) => Trouble::Reset,
            BodyEnd::NoMemory => Trouble::NoMemory,
            BodyEnd::TooLarge(_) => Trouble::TooLarge,
        };
        self.fail(now(), Failure::new(trouble, end.to_string()));
    }

    /// Does what the engine says until the stream is open or rests for good.
    pub(super) fn poll_standing(&mut self, cx: &mut Context<'_>) -> Poll<Standing> {
        loop {
            ready!(self.poll_permit(cx));
            let now = now();
            self.poll_attempt(cx, now);
            if self.answered.is_some() {
                return Poll::Ready(Standing::Answered);
            }
            match self.ask(now, cx.waker()) {
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
                    _ => self.fail(now, Failure::new(Trouble::Reset, "it is gone")),
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
    fn poll_attempt(&mut self, cx: &mut Context<'_>, now: Instant) {
        let Link::Opening { outcome, connected } = &mut self.link else {
            return;
        };
        let opened = outcome.as_mut().poll(cx);
        if connected.take_if(|connected| connected.is_set()).is_some() {
            self.tell(now, Input::Connected);
        }
        let Poll::Ready(opened) = opened else { return };
        self.link = Link::None;
        match opened {
            Opened::Stream(response) => {
                let (head, body) = response.into_parts();
                if !self.telemetry.was_open() {
                    let forward_auth = self.shared.config.forward_auth;
                    let passing = headers::to_client(&head.headers, forward_auth);
                    self.answered = Some(Answered::Stream(passing.into()));
                }
                self.heard = now;
                self.link = Link::Open(Box::new(EventBody::new(body, Arc::clone(&self.shared))));
                self.tell(now, Input::Opened);
            }
            Opened::Whole(reply) => self.settle(now, Answered::Whole(reply)),
            Opened::Accepted => self.settle(now, Answered::Accepted),
            Opened::Failed(failure) => self.fail(now, failure),
        }
    }

    fn settle(&mut self, now: Instant, answered: Answered) {
        self.answered = Some(answered);
        self.permit = None;
        self.tell(now, Input::Answered);
    }

    fn fail(&mut self, now: Instant, failure: Box<Failure>) {
        self.link = Link::None;
        let trouble = failure.trouble;
        self.last = Some(failure);
        self.share_deadline();
        self.tell(now, Input::Failed(trouble));
    }

    /// Tells the engine the deadline of now, before it decides about a wait.
    pub(super) fn share_deadline(&mut self) {
        let deadline = self.deadline.get();
        self.engine
            .set_deadline(deadline.map(tokio::time::Instant::into_std));
    }

    pub(super) fn ask(&mut self, now: Instant, waker: &Waker) -> Action {
        self.share_deadline();
        let origin = &mut Locked(&self.shared.origin);
        let action = self.engine.poll(now, origin, waker);
        self.observe();
        action
    }

    pub(super) fn tell(&mut self, now: Instant, input: Input) {
        let origin = &mut Locked(&self.shared.origin);
        let told = self.engine.handle(now, origin, input);
        self.observe();
        if let Err(unexpected) = told {
            self.confused(&unexpected);
        }
    }

    /// A mistake of ours: the stream ends, whatever else.
    fn confused(&mut self, unexpected: &reconnect::Unexpected) {
        in_request(|| {
            error!(server = %self.shared.name, %unexpected, "a stream is in a state that it cannot be in");
        });
        self.link = Link::None;
        let origin = &mut Locked(&self.shared.origin);
        let closed = self.engine.handle(now(), origin, Input::Close);
        debug_assert!(closed.is_ok(), "a stream can be closed in any state");
        self.observe();
    }

    fn poll_timer(&mut self, until: Option<Instant>, cx: &mut Context<'_>) -> Poll<()> {
        let Some(until) = until.map(tokio::time::Instant::from_std) else {
            return Poll::Pending;
        };
        let timer = self.timer.get_or_insert_with(|| Timer::new(until));
        timer.poll(until, cx)
    }

    pub(super) fn observe(&mut self) {
        while let Some(transition) = self.engine.poll_transition() {
            if let Some((trouble, detail)) = self.telemetry.noticed(&transition) {
                self.last = Some(Failure::new(trouble, detail));
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

/// What all streams of a server share, locked while the engine has use for it.
struct Locked<'a>(&'a Mutex<Origin>);

impl Lend for Locked<'_> {
    fn lend(&mut self) -> impl DerefMut<Target = Origin> {
        self.0.lock()
    }
}

/// Whether a stream stands by itself, for as long as it may.
fn is_standing(kind: Kind) -> bool {
    matches!(kind, Kind::Standalone | Kind::Listen | Kind::LegacySse)
}
