//! The bounded queue of one exchange: the pipe's reader waits for room in it.

use std::collections::VecDeque;
use std::task::{Context, Poll, Waker};

use parking_lot::Mutex;
use shadowcat_mcp::fault::Fault;
use shadowcat_mcp::message::Message;
use tokio::sync::Notify;

use crate::upstream::Item;

/// Bytes that may wait before the pipe has to. One longer message may wait alone.
const MAX_BYTES: usize = 64 * 1024;

/// See the [module](self).
#[derive(Debug, Default)]
pub(super) struct Mailbox {
    state: Mutex<State>,
    /// Told after a message was taken, and at the end.
    room: Notify,
}

#[derive(Debug, Default)]
struct State {
    messages: VecDeque<Message>,
    bytes: usize,
    /// No more messages come.
    end: Option<End>,
    reader: Option<Waker>,
}

#[derive(Debug)]
enum End {
    /// With the last message that was put in, or because the reader is gone.
    Clean,
    Fault(Box<Fault>),
}

impl Mailbox {
    /// Waits until there is room, or nobody to read.
    pub(super) async fn room(&self) {
        loop {
            let room = self.room.notified();
            if self.has_room() {
                return;
            }
            room.await;
        }
    }

    /// Puts a message in, whether there is room or not. With `last` the exchange is over. What comes
    /// after the end is given back: the reader has what it waited for, or is gone.
    pub(super) fn push(&self, message: Message, last: bool) -> Option<Message> {
        let mut state = self.state.lock();
        if state.end.is_some() {
            return Some(message);
        }
        state.bytes += message.raw().len();
        state.messages.push_back(message);
        if last {
            state.end = Some(End::Clean);
        }
        let reader = state.reader.take();
        drop(state);
        if let Some(reader) = reader {
            reader.wake();
        }
        None
    }

    /// Ends the exchange with a fault, after the messages that are in; nothing if it has ended.
    pub(super) fn fail(&self, fault: Fault) {
        self.end(End::Fault(Box::new(fault)), |_| ());
    }

    /// The reader is gone. Returns what it has not read.
    pub(super) fn close(&self) -> VecDeque<Message> {
        self.end(End::Clean, |state| {
            state.bytes = 0;
            std::mem::take(&mut state.messages)
        })
    }

    fn end<T>(&self, end: End, take: impl FnOnce(&mut State) -> T) -> T {
        let mut state = self.state.lock();
        let taken = take(&mut state);
        state.end.get_or_insert(end);
        let reader = state.reader.take();
        drop(state);
        self.room.notify_waiters();
        if let Some(reader) = reader {
            reader.wake();
        }
        taken
    }

    /// Bytes that wait.
    pub(super) fn bytes(&self) -> usize {
        self.state.lock().bytes
    }

    fn has_room(&self) -> bool {
        let state = self.state.lock();
        state.end.is_some() || state.bytes < MAX_BYTES
    }

    /// The next item, for the one reader.
    pub(super) fn poll_next(&self, cx: &mut Context<'_>) -> Poll<Option<Result<Item, Fault>>> {
        let mut state = self.state.lock();
        if let Some(message) = state.messages.pop_front() {
            state.bytes -= message.raw().len();
            let room = state.bytes < MAX_BYTES;
            drop(state);
            if room {
                self.room.notify_waiters();
            }
            return Poll::Ready(Some(Ok(Item::Message(message))));
        }
        match state.end.take() {
            Some(end) => {
                state.end = Some(End::Clean);
                Poll::Ready(match end {
                    End::Clean => None,
                    End::Fault(fault) => Some(Err(*fault)),
                })
            }
            None => {
                state.reader = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }
}
