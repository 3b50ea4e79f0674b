//! An exchange on its way into the log, and who carries it.
//!
//! The feed of a stream puts each message into the log and hands it on. It stands in a shared
//! place, so that a client that comes back while its old connection still looks open (nobody
//! reads, nobody says so) can go on where that one stands: the carrier that was replaced need not
//! do anything for it.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll};

use bytes::Bytes;
use futures_core::Stream;
use futures_util::StreamExt;
use parking_lot::Mutex;
use shadowcat_mcp::message::Message;
use shadowcat_store::{AppendError, Delivery, EventId, StreamNumber};
use tokio::sync::Notify;
use tokio::time::Instant;
use tracing::{Instrument, Span};

use super::super::registry::ClientSession;
use crate::session::{Outgoing, Outgoings, wait_for_room};

/// One exchange's stream as its carriers see it.
pub(in super::super) struct StreamState {
    /// The reader in charge; a newer one replaces it. 0: the connection that the exchange began on.
    carrier: AtomicU64,
    /// Whether the messages leave as they come, not only into the log.
    carried: AtomicBool,
    feed: Mutex<Feed>,
    /// Told after an append, at the end, and when a carrier is replaced.
    pub(super) changed: Notify,
    /// Told after a read, and after a reader is gone.
    pub(super) read: Notify,
}

/// Who pulls the exchange.
enum Feed {
    /// A connection that carries the messages itself.
    Carried(Logged),
    /// A task, into the log only.
    Draining,
    /// Nobody: it is at its end.
    Over,
}

type Logged = Pin<Box<dyn Stream<Item = Event> + Send>>;

/// A message with its place in the log. It has none if its session is over.
pub(super) struct Event {
    pub(super) id: Option<EventId>,
    pub(super) payload: Bytes,
}

impl StreamState {
    fn new() -> Self {
        Self {
            carrier: AtomicU64::new(0),
            carried: AtomicBool::new(true),
            feed: Mutex::new(Feed::Over),
            changed: Notify::new(),
            read: Notify::new(),
        }
    }

    /// Tells everybody who waits for something of this stream to look again.
    pub(in super::super) fn wake(&self) {
        self.changed.notify_waiters();
        self.read.notify_waiters();
    }

    pub(super) fn is_carried_by(&self, carrier: u64) -> bool {
        self.carrier.load(Ordering::SeqCst) == carrier
    }

    /// The next message, for the connection that carries the exchange. `None` at its end, and when
    /// another one has taken over.
    pub(super) fn poll_next(&self, cx: &mut Context<'_>) -> Poll<Option<Event>> {
        let mut feed = self.feed.lock();
        let Feed::Carried(logged) = &mut *feed else {
            return Poll::Ready(None);
        };
        let event = std::task::ready!(logged.as_mut().poll_next(cx));
        if event.is_none() {
            *feed = Feed::Over;
        }
        Poll::Ready(event)
    }
}

impl ClientSession {
    /// A new stream for an exchange. `first` is an item that was already taken.
    pub(super) fn feed(
        self: &Arc<Self>,
        outgoings: Outgoings,
        first: Option<Message>,
    ) -> (StreamNumber, Arc<StreamState>) {
        let state = Arc::new(StreamState::new());
        let number = self.add_stream(&state);
        let feeding = Feeding {
            client: Arc::clone(self),
            number,
            state: Arc::downgrade(&state),
            outgoings,
            first,
            over: false,
        };
        let logged = futures_util::stream::unfold(feeding, |mut feeding| async move {
            feeding.next().await.map(|event| (event, feeding))
        });
        *state.feed.lock() = Feed::Carried(Box::pin(logged));
        (number, state)
    }

    /// A carrier that reads from the log takes over; a task fills the log from now on.
    pub(super) fn take_over(self: &Arc<Self>, state: &Arc<StreamState>) -> u64 {
        let carrier = state.carrier.fetch_add(1, Ordering::SeqCst) + 1;
        self.drain(state);
        state.changed.notify_waiters();
        carrier
    }

    /// Leaves what is still to come to a task, for a client that may come back. Once is enough.
    pub(super) fn drain(self: &Arc<Self>, state: &Arc<StreamState>) {
        let Ok(runtime) = tokio::runtime::Handle::try_current() else {
            return;
        };
        let mut feed = state.feed.lock();
        if !matches!(*feed, Feed::Carried(_)) {
            return;
        }
        let Feed::Carried(mut logged) = std::mem::replace(&mut *feed, Feed::Draining) else {
            return;
        };
        state.carried.store(false, Ordering::SeqCst);
        let (state, carrying) = (Arc::clone(state), self.carriers.token());
        let draining = async move {
            while logged.next().await.is_some() {
                state.changed.notify_waiters();
            }
            *state.feed.lock() = Feed::Over;
            state.changed.notify_waiters();
            drop(carrying);
        };
        runtime.spawn(draining.instrument(Span::clone(&self.session.span)));
    }
}

/// Takes one message after the other from the exchange into the log.
struct Feeding {
    client: Arc<ClientSession>,
    number: StreamNumber,
    /// Weak: the state holds the feed.
    state: std::sync::Weak<StreamState>,
    outgoings: Outgoings,
    first: Option<Message>,
    over: bool,
}

impl Feeding {
    async fn next(&mut self) -> Option<Event> {
        while !self.over {
            let message = match self.first.take() {
                Some(message) => message,
                None => match self.outgoings.next().await {
                    Some(outgoing) => {
                        self.over = outgoing.is_last();
                        match Outgoing::into_message(outgoing) {
                            Some(message) => message,
                            None => continue,
                        }
                    }
                    None => break,
                },
            };
            let event = self.append(message).await;
            if self.over {
                self.finish().await;
            }
            return Some(event);
        }
        if !self.over {
            self.over = true;
            self.finish().await;
        }
        None
    }

    async fn append(&mut self, message: Message) -> Event {
        let (session, payload) = (&self.client.session, message.as_line());
        loop {
            let state = self.state.upgrade();
            let carried = state
                .as_ref()
                .is_some_and(|state| state.carried.load(Ordering::SeqCst));
            let delivery = match carried {
                true => Delivery::Live,
                false => Delivery::Pending,
            };
            let progress = state.as_ref().map(|state| state.read.notified());
            let appended = session.append(self.number, &message, payload.clone(), delivery);
            let id = match (appended.await, progress) {
                (Ok(id), _) => Some(id),
                (Err(AppendError::Full), Some(progress)) => {
                    wait_for_room(progress).await;
                    continue;
                }
                (Err(_), _) => None,
            };
            return Event { id, payload };
        }
    }

    async fn finish(&mut self) {
        let session = &self.client.session;
        let (log, now) = (&session.shared.log, Instant::now().into_std());
        log.finish(session.key, self.number, now).await;
        self.client.stream_finished(self.number);
    }
}
