//! The answer to a legacy POST as an event stream.

use std::future::poll_fn;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use futures_util::FutureExt;
use shadowcat_mcp::message::Message;
use shadowcat_store::{EventId, StreamNumber};
use shadowcat_transport::downstream::EventBytes;
use tokio::time::Instant;
use tokio_util::task::task_tracker::TaskTrackerToken;

use super::super::registry::ClientSession;
use super::feed::{Event, StreamState};
use super::keep_alive::{COMMENT, KeepAlive};
use super::{CHUNK, opening, write};
use crate::session::{Busy, Outgoings};

/// Carries an exchange. `first` is an item that was already taken.
pub(in super::super) fn live(
    client: Arc<ClientSession>,
    outgoings: Outgoings,
    first: Option<Message>,
) -> EventBytes {
    let (number, state) = client.feed(outgoings, first);
    let live = Live {
        keep_alive: KeepAlive::new(&client.session.shared),
        buffer: BytesMut::new(),
        _busy: client.session.busy(),
        _carrying: client.carriers.token(),
        client,
        number,
        state,
        opened: false,
        over: false,
    };
    Box::pin(futures_util::stream::unfold(live, |mut live| async move {
        live.next().await.map(|bytes| (bytes, live))
    }))
}

struct Live {
    client: Arc<ClientSession>,
    number: StreamNumber,
    state: Arc<StreamState>,
    keep_alive: KeepAlive,
    buffer: BytesMut,
    opened: bool,
    over: bool,
    _busy: Busy,
    _carrying: TaskTrackerToken,
}

impl Live {
    async fn next(&mut self) -> Option<Bytes> {
        if !self.opened {
            self.open().await;
        }
        // Whatever is ready leaves in one piece.
        while !self.over && self.buffer.len() < CHUNK {
            match poll_fn(|cx| self.state.poll_next(cx)).now_or_never() {
                Some(event) => self.take(event),
                None => break,
            }
        }
        while self.buffer.is_empty() && !self.over {
            let replaced = self.state.changed.notified();
            let state = &self.state;
            tokio::select! {
                biased;
                event = poll_fn(|cx| state.poll_next(cx)) => self.take(event),
                () = replaced => {}
                () = self.keep_alive.due() => return Some(COMMENT),
            }
        }
        self.keep_alive.sent();
        (!self.buffer.is_empty()).then(|| self.buffer.split().freeze())
    }

    /// A client that is cut before the first message can come back to the stream's start.
    async fn open(&mut self) {
        let session = &self.client.session;
        let (log, now) = (&session.shared.log, Instant::now().into_std());
        log.open(session.key, self.number, now).await;
        self.opened = true;
        opening(&mut self.buffer, session, EventId::start(self.number));
    }

    fn take(&mut self, event: Option<Event>) {
        match event {
            Some(Event { id, payload }) => write(&mut self.buffer, id, &payload),
            None => self.over = true,
        }
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        self.client.drain(&self.state);
    }
}
