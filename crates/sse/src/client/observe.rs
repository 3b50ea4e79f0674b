//! Watching a stream's moves from outside.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Poll, Waker};

use futures_core::Stream;

use crate::reconnect;

/// Moves that wait for an observer; the oldest go first.
const WAITING: usize = 256;

/// A move of a stream, with what led to it in words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Transition {
    /// The move.
    pub step: reconnect::Transition,
    /// Where a failure led to it: what went wrong, such as the connection's error or the status.
    /// No secrets.
    pub detail: Option<String>,
    /// Moves before this one that the observer was too slow for.
    pub missed: u64,
}

/// The moves of one stream: [`ReconnectingStream::transitions`](super::ReconnectingStream::transitions).
/// They end with the stream.
#[derive(Debug)]
pub struct Transitions(Arc<Mutex<Mailbox>>);

#[derive(Debug, Default)]
struct Mailbox {
    waiting: VecDeque<Transition>,
    missed: u64,
    ended: bool,
    waker: Option<Waker>,
}

fn lock(mailbox: &Mutex<Mailbox>) -> MutexGuard<'_, Mailbox> {
    mailbox.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Stream for Transitions {
    type Item = Transition;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Transition>> {
        let mut mailbox = lock(&self.0);
        if let Some(mut next) = mailbox.waiting.pop_front() {
            next.missed = std::mem::take(&mut mailbox.missed);
            return Poll::Ready(Some(next));
        }
        if mailbox.ended {
            return Poll::Ready(None);
        }
        mailbox.waker = Some(cx.waker().clone());
        Poll::Pending
    }
}

/// Who watches.
#[derive(Debug, Default)]
pub(super) struct Observers(Vec<Weak<Mutex<Mailbox>>>);

impl Observers {
    pub(super) fn add(&mut self) -> Transitions {
        let mailbox = Arc::default();
        self.0.retain(|other| other.strong_count() > 0);
        self.0.push(Arc::downgrade(&mailbox));
        Transitions(mailbox)
    }

    pub(super) fn tell(&self, step: reconnect::Transition, detail: Option<&str>) {
        self.each(|mailbox| {
            if mailbox.waiting.len() == WAITING {
                mailbox.waiting.pop_front();
                mailbox.missed += 1;
            }
            mailbox.waiting.push_back(Transition {
                step,
                detail: detail.map(str::to_owned),
                missed: 0,
            });
        });
    }

    pub(super) fn end(&self) {
        self.each(|mailbox| mailbox.ended = true);
    }

    fn each(&self, change: impl Fn(&mut Mailbox)) {
        for mailbox in self.0.iter().filter_map(Weak::upgrade) {
            let waker = {
                let mut mailbox = lock(&mailbox);
                change(&mut mailbox);
                mailbox.waker.take()
            };
            if let Some(waker) = waker {
                waker.wake();
            }
        }
    }
}

impl Drop for Observers {
    fn drop(&mut self) {
        self.end();
    }
}
