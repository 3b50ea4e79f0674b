//! The tokio shell around the routing table: queues, wakers and the pipe's death.

use std::collections::HashMap;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use parking_lot::Mutex;
use shadowcat_mcp::build;
use shadowcat_mcp::fault::{Executed, Fault, FaultKind, Side};
use shadowcat_mcp::message::{Kind, Message};
use shadowcat_mcp::method::Method;
use shadowcat_sse::said;
use tokio_util::sync::CancellationToken;
use tracing::field::display;
use tracing::{debug, warn};

use super::mailbox::Mailbox;
use super::table::{self, Clients, Key, Route, Table};
use super::waiting::{Pushed, Waiting};
use crate::lines::Mark;
use crate::metrics::{Metrics, Reason};
use crate::request_span::{self, RequestSpan, in_span_of};
use crate::upstream::{Incoming, Item, Source};

/// How long one of many clients may stop the pipe that it shares before its exchange is given up.
const SHARED_PATIENCE: Duration = Duration::from_secs(5);
/// Bytes that one exchange may be given of what is left in a dead pipe: more than a pipe holds.
const MAX_REST: usize = 4 << 20;

/// Joins one pipe and the exchanges on it. A handle: clones are the same router.
///
/// The transport that owns the pipe
/// 1. calls [`Router::begin`] for a request, writes the message that it gets back, and hands the
///    [`Incoming`] on as `Reply::Pipe`;
/// 2. reads messages and awaits [`Router::deliver`] for each, one after the other, which is what
///    makes a slow exchange stop the pipe;
/// 3. calls [`Router::end`] when the pipe is dead, which ends every waiting exchange at once.
#[derive(Clone)]
pub(crate) struct Router(Arc<Inner>);

struct Inner {
    state: Mutex<State>,
    metrics: Arc<Metrics>,
    write: Box<dyn Fn(Message) + Send + Sync>,
    /// Deliver without waiting for room.
    hurry: CancellationToken,
    /// Cancelled when the pipe is dead.
    over: CancellationToken,
}

struct State {
    table: Table,
    open: HashMap<Key, Open>,
    waiting: Waiting,
    /// The server has said something besides its answers.
    said_more: bool,
    standalone_reader: Option<Waker>,
    /// The pipe is dead.
    end: Option<Fault>,
}

/// An exchange that waits for its response.
struct Open {
    mailbox: Arc<Mailbox>,
    mark: Mark,
    /// Whose it is in the log, where it may be given up.
    span: Option<Arc<RequestSpan>>,
}

/// A registered request; see [`Router::begin`].
#[derive(Debug)]
pub(crate) struct Begun {
    /// The request as it must be written.
    pub(crate) message: Message,
    /// How far it has come: give it to the line writer, or call [`Mark::set_written`] before the
    /// first byte leaves. Decides what the router says about an execution when the pipe dies.
    pub(crate) mark: Mark,
    /// What belongs to the request, its response last. Dropping it abandons the exchange.
    pub(crate) incoming: Incoming,
}

impl Router {
    /// A router without exchanges. `write` must write a message without waiting, and count one that
    /// it cannot. It is called when a client abandons a request: with a `notifications/cancelled` if
    /// it is one of [`Clients::Many`] and the request was written (2026-07-28, "Cancellation"); an
    /// abandoned request of [`Clients::One`] is merely no longer read. And with the error for a
    /// question of the server that was left unread and for which there is no other room.
    pub(crate) fn new(
        clients: Clients,
        metrics: Arc<Metrics>,
        write: impl Fn(Message) + Send + Sync + 'static,
    ) -> Self {
        Self(Arc::new(Inner {
            state: Mutex::new(State {
                table: Table::new(clients),
                open: HashMap::new(),
                waiting: Waiting::default(),
                said_more: false,
                standalone_reader: None,
                end: None,
            }),
            metrics,
            write: Box::new(write),
            hurry: CancellationToken::new(),
            over: CancellationToken::new(),
        }))
    }

    /// Registers a request before it is written.
    ///
    /// # Errors
    /// The pipe's death, with `executed: no`; or an id that is in use.
    pub(crate) fn begin(&self, request: &Message) -> Result<Begun, Fault> {
        let mut state = self.0.state.lock();
        if let Some(fault) = &state.end {
            return Err(with_executed(fault.clone(), Executed::No));
        }
        let (key, message) = state.table.begin(request).ok_or_else(|| {
            Fault::new(Side::Client, FaultKind::DuplicateId, Executed::No)
                .because("a request with this id is still open; use a new id")
        })?;
        let mailbox = Arc::new(Mailbox::default());
        let mark = Mark::default();
        let open = Open {
            mailbox: Arc::clone(&mailbox),
            mark: mark.clone(),
            span: match state.table.clients() {
                Clients::One => None,
                Clients::Many => request_span::current(),
            },
        };
        state.open.insert(key, open);
        let incoming = Incoming::new(ReplySource {
            router: self.clone(),
            key,
            mailbox,
        });
        Ok(Begun {
            message,
            mark,
            incoming,
        })
    }

    /// Takes one message of the server to where it belongs; waits while the exchange it belongs to
    /// has no room. What it returns is to be written to the server: the error for a request that
    /// nobody can be asked.
    ///
    /// What comes after the pipe's end is dropped: everybody has been told that it ended.
    ///
    /// Not cancel safe: a dropped future may take its message with it. To stop waiting, call
    /// [`Router::hurry`].
    pub(crate) async fn deliver(&self, message: Message) -> Option<Message> {
        let (key, mailbox, message, last) = {
            let mut state = self.0.state.lock();
            if state.end.is_some() {
                return None;
            }
            match state.table.route(message) {
                Route::Exchange { key, message, last } => {
                    state.said_more |= !last;
                    let open = state.open.get(&key).map(|open| Arc::clone(&open.mailbox));
                    (key, open?, message, last)
                }
                Route::Standalone(message) => return self.wait_for_standalone(&mut state, message),
                Route::Stray => {
                    state.said_more = true;
                    self.0.metrics.stray_responses.inc();
                    debug!("dropped a response that answers no open request");
                    return None;
                }
                Route::Nobody(message) => {
                    state.said_more = true;
                    return self.nobody(&message);
                }
            }
        };
        if self.room(&mailbox).await {
            let unread = mailbox.push(message, last);
            // Not before: if this future is dropped while it waits, the pipe's end is all that can
            // end the exchange.
            if last {
                self.0.state.lock().open.remove(&key);
            }
            return unread.and_then(|message| self.keep_unnamed(&mut self.0.state.lock(), message));
        } else {
            self.give_up(key, &mailbox);
        }
        None
    }

    /// Looks at a notification or response of the client before it is written: what it cancels is
    /// no place for other messages any more.
    pub(crate) fn observe(&self, message: &Message) {
        self.0.state.lock().table.cancel(message);
    }

    /// From now on nothing waits for room: the pipe is dead or about to be, and what is still in it
    /// is little.
    pub(crate) fn hurry(&self) {
        self.0.hurry.cancel();
    }

    /// The pipe is dead: every waiting exchange ends with this fault after what it has got already,
    /// and so does the standalone stream. Whether a request may have been executed is told by its
    /// mark, not by `fault`. The first call counts.
    pub(crate) fn end(&self, fault: Fault) {
        let mut state = self.0.state.lock();
        if state.end.is_some() {
            return;
        }
        state.end = Some(fault.clone());
        let mut open: Vec<_> = state.open.drain().collect();
        // In the order in which they came.
        open.sort_by_key(|(key, _)| *key);
        for (key, _) in &open {
            state.table.end(*key);
        }
        let reader = state.standalone_reader.take();
        drop(state);
        self.hurry();
        self.0.over.cancel();
        for (_, Open { mailbox, mark, .. }) in open {
            // What could be taken back was not written.
            let executed = if mark.withdraw() {
                Executed::No
            } else {
                Executed::Unknown
            };
            mailbox.fail(with_executed(fault.clone(), executed));
        }
        if let Some(reader) = reader {
            reader.wake();
        }
    }

    /// Puts other clients in the place of those that have nothing open any more. False if it cannot
    /// be: the pipe is dead, something is open, or the others might have wanted what it said.
    pub(crate) fn pass_to(&self, clients: Clients) -> bool {
        let mut state = self.0.state.lock();
        let free = state.end.is_none() && state.open.is_empty() && !state.said_more;
        if free {
            state.table.pass_to(clients);
        }
        free
    }

    /// The fault that the pipe died of.
    pub(crate) fn ended(&self) -> Option<Fault> {
        self.0.state.lock().end.clone()
    }

    /// Waits until the pipe is dead; the fault that it died of.
    pub(crate) async fn died(&self) -> Fault {
        self.0.over.cancelled().await;
        match self.ended() {
            Some(fault) => fault,
            None => std::future::pending().await,
        }
    }

    /// What belongs to no request. For one reader; what comes before it exists waits, within bounds.
    pub(crate) fn standalone(&self) -> Incoming {
        Incoming::new(StandaloneSource {
            router: self.clone(),
            told: false,
        })
    }

    /// See [`crate::upstream::Leg::set_standalone_open`].
    pub(crate) fn set_standalone_open(&self, open: bool) {
        self.0.state.lock().table.set_standalone_open(open);
    }

    /// Whether there is room now. One of many clients does not stop the others for long.
    async fn room(&self, mailbox: &Mailbox) -> bool {
        let clients = self.0.state.lock().table.clients();
        let patience = async {
            match clients {
                Clients::One => std::future::pending().await,
                Clients::Many => tokio::time::sleep(SHARED_PATIENCE).await,
            }
        };
        tokio::select! {
            biased;
            () = mailbox.room() => true,
            () = self.0.hurry.cancelled() => mailbox.bytes() < MAX_REST,
            () = patience => false,
        }
    }

    fn give_up(&self, key: Key, mailbox: &Mailbox) {
        let fault = Fault::new(Side::Client, FaultKind::Overloaded, Executed::Unknown)
            .because("the client did not read its answer while others waited for the same server");
        mailbox.fail(fault);
        let span = {
            let state = self.0.state.lock();
            state.open.get(&key).and_then(|open| open.span.clone())
        };
        in_span_of(span.as_deref(), || {
            warn!("gave up a request whose client does not read");
        });
        self.count_given_up("answer");
        self.abandon(key, None);
    }

    fn wait_for_standalone(&self, state: &mut State, message: Message) -> Option<Message> {
        match state.waiting.push(message) {
            Pushed::Kept(given_up) => {
                for rank in given_up {
                    self.count_given_up(rank.as_str());
                }
                if let Some(reader) = state.standalone_reader.take() {
                    reader.wake();
                }
                None
            }
            Pushed::Coalesced => {
                self.0.metrics.coalesced.inc();
                None
            }
            Pushed::Refused(request) => {
                self.count_given_up("request");
                let fault = Fault::new(Side::Client, FaultKind::Overloaded, Executed::No)
                    .because("the client does not take the server's messages");
                request.id().map(|id| fault.to_response(id))
            }
        }
    }

    fn nobody(&self, message: &Message) -> Option<Message> {
        self.count_given_up("unaddressed");
        // The server's own word: it must not make a second line of this one.
        let method = |name: &Method| display(said::in_short(name.as_str(), &[]));
        debug!(
            method = message.method().map(method),
            "dropped a message that names no open request"
        );
        let Kind::Request { id, .. } = message.kind() else {
            return None;
        };
        let text = "clients of protocol version 2026-07-28 take no requests";
        Some(build::error(Some(id), -32601, text, None))
    }

    fn count_given_up(&self, reason: &'static str) {
        let reason = Reason::of(reason);
        self.0
            .metrics
            .messages_given_up
            .get_or_create(&reason)
            .inc();
    }

    /// An exchange is over that has not read a message: one that names no request had merely come
    /// with it, and belongs to the standalone stream now.
    fn keep_unnamed(&self, state: &mut State, message: Message) -> Option<Message> {
        if state.table.clients() == Clients::Many || table::names_a_request(&message) {
            return None;
        }
        if let Kind::Request { id, .. } = message.kind() {
            state.table.moved_to_standalone(id);
        }
        self.wait_for_standalone(state, message)
    }

    /// Nobody waits for this exchange any more, or nobody shall. What was left unread is kept where it
    /// belongs before anything newer can be: the reader of the pipe waits for the lock meanwhile.
    fn abandon(&self, key: Key, left: Option<&Mailbox>) {
        let (refusals, open, cancelled) = {
            let mut state = self.0.state.lock();
            let left = left.map(Mailbox::close).unwrap_or_default();
            let refusals = left.into_iter();
            let refusals = refusals.filter_map(|message| self.keep_unnamed(&mut state, message));
            let refusals: Vec<_> = refusals.collect();
            let open = state.open.remove(&key);
            let id = open.as_ref().and_then(|_| state.table.end(key));
            let cancelled = id.filter(|_| state.table.clients() == Clients::Many);
            (refusals, open, cancelled)
        };
        for refusal in refusals {
            (self.0.write)(refusal);
        }
        if let (Some(open), Some(id)) = (open, cancelled)
            && !open.mark.withdraw()
        {
            (self.0.write)(build::cancelled(&id, "the client no longer waits"));
        }
    }
}

fn with_executed(mut fault: Fault, executed: Executed) -> Fault {
    fault.executed = executed;
    fault
}

/// The messages of one exchange.
struct ReplySource {
    router: Router,
    key: Key,
    mailbox: Arc<Mailbox>,
}

impl Source for ReplySource {
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Item, Fault>>> {
        self.mailbox.poll_next(cx)
    }
}

impl Drop for ReplySource {
    fn drop(&mut self) {
        self.router.abandon(self.key, Some(&self.mailbox));
    }
}

/// The messages of no exchange.
struct StandaloneSource {
    router: Router,
    /// The end has been told.
    told: bool,
}

impl Source for StandaloneSource {
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Item, Fault>>> {
        let mut state = self.router.0.state.lock();
        if let Some(message) = state.waiting.pop() {
            return Poll::Ready(Some(Ok(Item::Message(message))));
        }
        match &state.end {
            // That we closed the pipe is no news to us.
            Some(fault) if self.told || fault.kind == FaultKind::SessionEnded => Poll::Ready(None),
            Some(fault) => {
                self.told = true;
                Poll::Ready(Some(Err(fault.clone())))
            }
            None => {
                state.standalone_reader = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }
}

#[cfg(test)]
mod tests;
