//! A ready event-stream client over reqwest: a [`ReconnectingStream`] is a [`Stream`] of events that
//! survives broken connections (feature `client`, off by default).
//!
//! The [engine](crate::reconnect) decides, reqwest connects, tokio waits. What a program gets:
//!
//! - events, each once, in order, across drops, restarts, 503s and replays, as far as the server's
//!   event ids allow;
//! - waits that respect the server (`retry`, `Retry-After`) and that cannot be driven into a hot
//!   loop by it;
//! - an end with an [`Error`] that says why, when coming back makes no sense;
//! - [`state`](ReconnectingStream::state), [`health`](ReconnectingStream::health) and a stream of
//!   [`transitions`](ReconnectingStream::transitions), so that it can be seen what happens.
//!
//! ```no_run
//! use futures_util::StreamExt as _;
//! use shadowcat_sse::client::ReconnectingStream;
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let mut events = ReconnectingStream::get("https://stream.example/events")?;
//! while let Some(event) = events.next().await {
//!     let event = event?;
//!     println!("{}", String::from_utf8_lossy(&event.data));
//! }
//! # Ok(()) }
//! ```
//!
//! Asking for the next event is what says that the one before it was accepted: a stream that is
//! dropped or read no further has not committed it, and
//! [`last_event_id`](ReconnectingStream::last_event_id) is that of the one before.
//!
//! TLS is for the reqwest client to bring: enable one of reqwest's TLS features beside this crate.

mod builder;
mod error;
mod link;
mod observe;

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Instant;

use futures_core::Stream;
use tokio::time::Sleep;

use crate::reconnect::{
    Action, Cause, Counters, Engine, Finish, Health, Input, Opening, Origin, OriginPolicy, Parking,
    StateName, Trouble, Verdict,
};
use crate::{Event, Item};
pub use builder::Builder;
pub use error::{BuildError, Error};
use link::{Link, Requests, Troubled};
use observe::Observers;
pub use observe::{Transition, Transitions};

/// What the streams to one server share: its connection budget, its breaker, its holds. Cloning
/// shares it.
#[derive(Debug, Clone)]
pub struct SharedOrigin(Arc<Mutex<Origin>>);

impl SharedOrigin {
    /// An origin that nothing is known of.
    #[must_use]
    pub fn new(policy: OriginPolicy) -> Self {
        Self(Arc::new(Mutex::new(Origin::new(policy))))
    }

    fn with<T>(&self, use_it: impl FnOnce(&mut Origin) -> T) -> T {
        // The origin's state is valid between calls: a panic elsewhere does not spoil it.
        let mut origin = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        use_it(&mut origin)
    }
}

impl Default for SharedOrigin {
    fn default() -> Self {
        Self::new(OriginPolicy::default())
    }
}

/// See the [module](self).
///
/// It is pulled: nothing is read, awaited or reconnected while nobody polls it, which slows the
/// server by back-pressure. After an error or the end it gives `None`.
#[derive(Debug)]
pub struct ReconnectingStream {
    engine: Engine,
    origin: SharedOrigin,
    requests: Requests,
    link: Link,
    timer: Option<Pin<Box<Sleep>>>,
    /// When bytes came last.
    heard: Instant,
    observers: Observers,
    last: Option<Troubled>,
    last_event_id: Vec<u8>,
    /// The id of the event that was given last, until it is committed.
    given_id: Option<Vec<u8>>,
    keep_probing: bool,
    over: bool,
}

impl ReconnectingStream {
    /// Follows `url` with a client and a policy of default settings.
    ///
    /// # Errors
    /// When the URL is none, or no client can be made.
    pub fn get(url: &str) -> Result<Self, BuildError> {
        Self::builder(url)?.build()
    }

    /// A stream to be configured.
    ///
    /// # Errors
    /// When the URL is none.
    pub fn builder(url: &str) -> Result<Builder, BuildError> {
        Builder::new(url)
    }

    /// Where the stream is.
    #[must_use]
    pub fn state(&self) -> StateName {
        self.engine.state()
    }

    /// How the stream is doing now.
    #[must_use]
    pub fn health(&self) -> Health {
        self.engine.health(now())
    }

    /// What happened so far.
    #[must_use]
    pub fn counters(&self) -> Counters {
        self.engine.counters()
    }

    /// The id of the last event that was accepted, or of a block without data that came after it;
    /// empty without one. Another stream can [start there](Builder::last_event_id).
    #[must_use]
    pub fn last_event_id(&self) -> &[u8] {
        &self.last_event_id
    }

    /// The moves between states from now on. Observers that fall behind lose the oldest and are
    /// told how many.
    pub fn transitions(&mut self) -> Transitions {
        self.observers.add()
    }

    /// Do not wait any longer: something changed outside (the network is back).
    pub fn hurry(&mut self) {
        if matches!(self.state(), StateName::Backoff | StateName::Parked) {
            self.tell(Input::Hurry);
        }
    }

    /// Drops the connection and makes a new one as if the server had dropped it, without waiting.
    pub fn restart(&mut self) {
        if self.link.is_open() && self.state() == StateName::Open {
            self.fail(Troubled::new(Trouble::Reset, "a restart was asked for"));
        }
        self.hurry();
    }

    /// Ends the stream.
    pub fn close(&mut self) {
        self.accept_last();
        self.tell(Input::Close);
        self.end();
    }

    fn tell(&mut self, input: Input) {
        let handled = self
            .origin
            .with(|origin| self.engine.handle(now(), origin, input));
        debug_assert!(handled.is_ok(), "{handled:?}");
        self.observe();
    }

    fn observe(&mut self) {
        while let Some(transition) = self.engine.poll_transition() {
            let failed = matches!(transition.cause, Cause::Input(Input::Failed(_)));
            let last = self.last.as_ref().filter(|_| failed);
            let detail = last.map(|last| last.detail.as_str());
            self.observers.tell(transition, detail);
        }
    }

    fn end(&mut self) {
        self.link = Link::None;
        self.timer = None;
        self.over = true;
        self.observers.end();
    }

    fn fail(&mut self, troubled: Troubled) {
        self.link = Link::None;
        let trouble = troubled.trouble;
        self.last = Some(troubled);
        self.tell(Input::Failed(trouble));
    }

    /// The reader came back, so what it had is accepted.
    fn accept_last(&mut self) {
        self.engine.commit();
        if let Some(id) = self.given_id.take() {
            self.last_event_id = id;
        }
    }

    /// Nothing of this is for the reader but where it leaves the stream.
    fn note_id(&mut self, item: Item) {
        if let Item::IdOnly(id) | Item::Event(Event { id: Some(id), .. }) = item {
            self.last_event_id = id.to_vec();
        }
    }

    /// Does what the engine says; ready when the stream is open or over.
    fn poll_standing(&mut self, cx: &mut Context<'_>) -> Poll<Option<Error>> {
        loop {
            self.poll_attempt(cx);
            let action = self
                .origin
                .with(|origin| self.engine.poll(now(), origin, cx.waker()));
            self.observe();
            match action {
                Action::Connect(attempt) => {
                    // Only ever a GET in the engine's eyes: the stream stands by itself.
                    let cursor = match &attempt.opening {
                        Opening::Get(cursor) => cursor.as_ref(),
                        _ => None,
                    };
                    self.link = self.requests.open(cursor);
                }
                Action::AwaitHead(until) => ready!(self.poll_timer(until, cx)),
                Action::Wait(until) => {
                    self.link = Link::None;
                    if let Some(error) = self.parked() {
                        return Poll::Ready(Some(error));
                    }
                    if self.over {
                        return Poll::Ready(None);
                    }
                    ready!(self.poll_timer(until, cx));
                }
                Action::Read(_) if self.link.is_open() => return Poll::Ready(None),
                Action::Read(_) => self.fail(Troubled::new(Trouble::Reset, "it is gone")),
                Action::Finish(finish) => {
                    self.end();
                    let failed = match finish {
                        Finish::Failed(fault) => Some(Error::Failed(fault)),
                        Finish::Done | Finish::Closed => None,
                    };
                    return Poll::Ready(failed);
                }
            }
        }
    }

    /// The end that a parked stream comes to, unless it is to be probed.
    fn parked(&mut self) -> Option<Error> {
        let parking = self.engine.health(now()).parking?;
        if self.keep_probing && parking.is_probed() {
            return None;
        }
        let last = self.last.clone();
        self.end();
        // 204 is how a server says that there is nothing more (WHATWG).
        if last.as_ref().is_some_and(Troubled::is_no_content) && parking == Parking::Refused {
            return None;
        }
        Some(Error::GaveUp {
            why: parking,
            status: last.as_ref().and_then(Troubled::status),
            detail: last.map(|last| last.detail).unwrap_or_default(),
        })
    }

    /// Looks after the attempt under way.
    fn poll_attempt(&mut self, cx: &mut Context<'_>) {
        match self.link.poll_head(cx) {
            Poll::Pending => {}
            Poll::Ready(Ok(())) => {
                self.heard = now();
                self.tell(Input::Opened);
            }
            Poll::Ready(Err(troubled)) => self.fail(troubled),
        }
    }

    /// The next event of the open connection; `None` when it is not open any more.
    fn poll_event(&mut self, cx: &mut Context<'_>) -> Poll<Option<Event>> {
        loop {
            let Some(item) = self.link.next_item() else {
                return Poll::Ready(None);
            };
            match item {
                Ok(Some(item)) => match self.engine.item(self.heard, &item) {
                    Ok(Verdict::Deliver) => {
                        if let Item::Event(event) = item {
                            self.given_id = event.id.as_deref().map(<[u8]>::to_vec);
                            return Poll::Ready(Some(event));
                        }
                    }
                    Ok(Verdict::Noted) => self.note_id(item),
                    Ok(Verdict::Duplicate) => {}
                    Err(_) => self.link = Link::None,
                },
                Ok(None) => match self.link.poll_read(cx) {
                    Poll::Ready(Ok(())) => {
                        self.heard = now();
                        self.engine.received(self.heard);
                    }
                    Poll::Ready(Err(troubled)) => self.fail(troubled),
                    Poll::Pending => match self.engine.poll_open(now()) {
                        Some(until) => ready!(self.poll_timer(until, cx)),
                        // Silent for too long: the engine says what follows.
                        None => self.link = Link::None,
                    },
                },
                Err(limit) => self.fail(Troubled::new(Trouble::TooLarge, limit.to_string())),
            }
        }
    }

    /// Ready at `until`; without one never.
    fn poll_timer(&mut self, until: Option<Instant>, cx: &mut Context<'_>) -> Poll<()> {
        let Some(until) = until else {
            return Poll::Pending;
        };
        let until = tokio::time::Instant::from_std(until);
        let timer = self
            .timer
            .get_or_insert_with(|| Box::pin(tokio::time::sleep_until(until)));
        if timer.deadline() != until {
            timer.as_mut().reset(until);
        }
        timer.as_mut().poll(cx)
    }
}

impl Stream for ReconnectingStream {
    type Item = Result<Event, Error>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let stream = self.get_mut();
        stream.accept_last();
        loop {
            if stream.over {
                return Poll::Ready(None);
            }
            if stream.link.is_open() {
                if let Some(event) = ready!(stream.poll_event(cx)) {
                    return Poll::Ready(Some(Ok(event)));
                }
            } else if let Some(error) = ready!(stream.poll_standing(cx)) {
                return Poll::Ready(Some(Err(error)));
            }
        }
    }
}

/// The engine's clock; tokio's, so that a test can stop it.
fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}
