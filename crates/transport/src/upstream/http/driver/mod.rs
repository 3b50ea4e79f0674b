//! The shell around the engine: one stream's connections, made and dropped as the engine says.
//!
//! A [`Driver`] owns one [`Engine`] and at most one connection. It is pulled: polling it carries out
//! what the engine wants, tells the engine what became of it, and gives back the events that are
//! new. Polling it for the next event is what commits the one before it. There is no task behind it:
//! a stream that nobody polls stands still, which is the back-pressure that stops its server.
//!
//! What an attempt sends is for its [`Opener`] to know; what anything means is for the engine. An
//! event of an undisturbed connection takes no allocation of the driver's, and one lock if it has an
//! id: for a place in the window that the streams of its session share. Where a stream begins, ends
//! or is resumed there are more: those of the origin and of the session's open requests.

mod attempt;
mod messages;
mod obey;
mod posting;
mod taking;

use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Instant;

use http::StatusCode;
use shadowcat_mcp::fault::Fault;
use shadowcat_mcp::headers::Fields;
use shadowcat_mcp::message::Message;
use shadowcat_sse::Event;
use shadowcat_sse::reconnect::{self, Engine, Finish, Input, Kind, Opening, StateName, Trouble};

use super::client::Connected;
use super::events::EventBody;
use super::permits::Permit;
use super::siblings::Sibling;
use super::{Shared, body, faults};
use crate::streams::Telemetry;
use crate::timer::Timer;
use crate::upstream::{BoxFuture, Deadline, Reply};
pub(crate) use attempt::{Call, Failure, Opened, send};
pub(crate) use messages::{Messages, Read, Reader};
pub(crate) use posting::Posting;

/// Makes the requests of one stream.
pub(crate) trait Opener: Send + 'static {
    /// Begins an attempt.
    fn open(&mut self, opening: Opening, connected: Connected) -> BoxFuture<Opened>;
}

/// See the [module](self).
pub(crate) struct Driver {
    shared: Arc<Shared>,
    /// Boxed: two blocks of middling size are at hand in an allocator, a large one it has to look for.
    engine: Box<Engine>,
    opener: Box<dyn Opener>,
    /// The stream's place among those of its session.
    sibling: Option<Sibling>,
    link: Link,
    /// The right to hold a stream open. A stream keeps it while it is away: nothing else may take
    /// its place. A parked one gives it back.
    permit: Option<Permit>,
    permit_coming: Option<BoxFuture<Option<Permit>>>,
    timer: Option<Timer>,
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
enum Link {
    None,
    Opening {
        outcome: BoxFuture<Opened>,
        /// `None` once the engine knows; a redirect connects again.
        connected: Option<Connected>,
    },
    /// Boxed: most answers are no streams.
    Open(Box<EventBody>),
}

/// What answers a request, or another message.
pub(crate) enum Answered {
    /// An event stream, to be polled for events. What of its head is the client's.
    Stream(Fields),
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
        let policy = Arc::clone(&shared.config.reconnect);
        let engine = Box::new(Engine::new(kind, policy, (shared.random)()));
        Self {
            telemetry: Telemetry::new(&shared.counters.streams, kind),
            shared,
            engine,
            opener,
            sibling: None,
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

    /// It is a stream beside others of its session.
    pub(crate) fn set_sibling(&mut self, sibling: Sibling) {
        self.engine.digest_with(sibling.digests());
        self.sibling = Some(sibling);
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
            if let (Answered::Whole(_), Some(sibling)) = (&answered, &mut self.sibling) {
                sibling.answered();
            }
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
        let settled = poll_fn(|cx| {
            let standing = self.poll_standing(cx);
            match (standing, self.engine.state()) {
                (Poll::Ready(Standing::Parked), _) => Poll::Ready(false),
                (Poll::Ready(_), _) | (_, StateName::Backoff | StateName::Parked) => {
                    Poll::Ready(true)
                }
                _ => Poll::Pending,
            }
        })
        .await;
        // Nobody wants the head of a stream, and it is a piece of the buffer it was read into.
        self.answered
            .take_if(|answered| matches!(answered, Answered::Stream(_)));
        settled
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
            let _ = self.ask(now(), cx.waker());
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

    /// What all streams of its server share.
    pub(crate) fn shared(&self) -> &Shared {
        &self.shared
    }

    /// What the stream is.
    pub(crate) fn kind(&self) -> Kind {
        self.engine.kind()
    }

    /// The response was delivered: the stream is done. The server is about to end it too; reading
    /// that end lets the connection be used again.
    pub(crate) fn done(&mut self) {
        self.engine.commit();
        if let Some(sibling) = &mut self.sibling {
            sibling.answered();
        }
        if !self.engine.state().is_final() {
            self.tell(now(), Input::Answered);
        }
        let link = std::mem::replace(&mut self.link, Link::None);
        self.permit = None;
        if let Link::Open(open) = link
            && let Some(rest) = open.into_rest()
        {
            body::discard_soon(rest);
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
}

impl Drop for Driver {
    fn drop(&mut self) {
        if !self.engine.state().is_final() {
            self.tell(now(), Input::Close);
        }
    }
}

/// Whether the client gets the server's own answer in place of a fault of this kind.
fn is_relayed(kind: reconnect::FaultKind) -> bool {
    use reconnect::FaultKind;
    matches!(kind, FaultKind::Status | FaultKind::Unauthorized)
}
