//! Clients that take nothing of what is there for them.
//!
//! An answer is pulled by the connection that carries it. A client that stops reading, while its
//! connection stands, stops the pulling: nobody looks at the deadline of its request any more, nor
//! at the end of its session, and what it has open stays open. So after a while it is taken for
//! gone: its connection is closed ([`Taken`]), or over HTTP/2, where one connection carries the
//! streams of many, the stream that it does not read is ended ([`Watched`]). What goes on without it
//! is for whoever made the stream: dropping it says that the client has gone.
//!
//! A client that takes a little now and then is not cut, nor one for whom there is nothing.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Weak};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use prometheus_client::metrics::counter::Counter;
use tokio::time::{Instant, Sleep, sleep};
use tracing::info;

use super::super::EventBytes;

/// When a client is taken for gone, and where that is counted.
#[derive(Debug, Clone)]
pub(super) struct Patience {
    pub(super) limit: Duration,
    pub(super) stalled: Counter,
}

/// Whether the client of a connection takes what is written to it.
pub(super) struct Taken {
    patience: Patience,
    /// Set while a write waits.
    timer: Option<Pin<Box<Sleep>>>,
}

impl Taken {
    pub(super) fn new(patience: Patience) -> Self {
        Self {
            patience,
            timer: None,
        }
    }

    /// Fails a write that has waited for too long.
    pub(super) fn watch<T>(
        &mut self,
        cx: &mut Context<'_>,
        written: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if written.is_ready() {
            self.timer = None;
            return written;
        }
        let limit = self.patience.limit;
        let timer = self.timer.get_or_insert_with(|| Box::pin(sleep(limit)));
        ready!(timer.as_mut().poll(cx));
        self.timer = None;
        self.patience.stalled.inc();
        info!(
            ?limit,
            "closing a connection: its client took nothing for too long"
        );
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

/// Why a stream ended before its end: its client took nothing of it.
#[derive(Debug, thiserror::Error)]
#[error("the client took nothing for too long")]
pub(super) struct Stalled;

/// A stream that is ended from outside when its connection asks for nothing more of it.
pub(super) struct Watched(Mutex<State>);

struct State {
    /// None once it was ended.
    source: Option<EventBytes>,
    /// Since when the connection has not come back for more.
    given: Option<Instant>,
}

impl Watched {
    pub(super) fn poll_next(&self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>, Stalled>> {
        let mut state = self.0.lock();
        state.given = None;
        match &mut state.source {
            Some(source) => source.as_mut().poll_next(cx).map(Ok),
            None => Poll::Ready(Err(Stalled)),
        }
    }

    /// The connection was given something, and is to come back.
    pub(super) fn gave(&self) {
        self.0.lock().given = Some(Instant::now());
    }

    /// Ends it if that was too long ago.
    fn end_if_stalled(&self, limit: Duration) -> bool {
        // Who holds it is the connection, which is here then.
        let Some(mut state) = self.0.try_lock() else {
            return false;
        };
        let stalled = state.given.is_some_and(|given| given.elapsed() >= limit);
        let ended = state.source.take_if(|_| stalled);
        drop(state);
        ended.is_some()
    }
}

/// The streams of one connection that are watched.
#[derive(Default)]
pub(super) struct Watch(Mutex<Vec<Weak<Watched>>>);

impl Watch {
    pub(super) fn add(&self, source: EventBytes) -> Arc<Watched> {
        let (source, given) = (Some(source), None);
        let watched = Arc::new(Watched(Mutex::new(State { source, given })));
        self.0.lock().push(Arc::downgrade(&watched));
        watched
    }

    /// Ends streams that are not read, between once and one and a half times the limit after that
    /// began.
    pub(super) async fn run(&self, patience: &Patience) -> std::convert::Infallible {
        let limit = patience.limit;
        loop {
            sleep(limit / 2).await;
            let streams = {
                let mut all = self.0.lock();
                all.retain(|stream| stream.strong_count() > 0);
                all.clone()
            };
            for stream in streams.iter().filter_map(Weak::upgrade) {
                if stream.end_if_stalled(limit) {
                    patience.stalled.inc();
                    info!(
                        ?limit,
                        "ending a stream: its client took nothing of it for too long"
                    );
                }
            }
        }
    }
}
