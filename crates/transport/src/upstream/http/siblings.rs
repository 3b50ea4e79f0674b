//! The streams of one upstream session beside each other.
//!
//! Some servers replay the events of all streams of a session into the one that comes back. What a
//! resumed connection brings is therefore looked at before it is taken:
//!
//! | what it is | what becomes of it there |
//! |---|---|
//! | this request's response, or progress by its token | delivered |
//! | another open request's response or progress | left: the stream of that request brings it, in its order |
//! | a response to no open request | dropped: a duplicate if it was delivered, else a stray response |
//! | progress of a request that ended without a response | dropped: its client was told of the end |
//! | anything else, on any stream of the session | whichever stream comes first with it delivers it, the others drop it |
//!
//! The last row is for messages that name no request: logs, questions of the server, news. Where two
//! streams were away, nothing in a replay tells whose they are.
//!
//! What was delivered is known by the [`SessionWindow`], which also says when a server's ids cannot
//! be trusted; then what names no request is delivered by every stream that brings it. What belongs
//! to an open request is told by the request, whatever the ids. A connection that was not resumed
//! takes nothing but a place in the window.
//!
//! MCP specification: "Transports, Resumability and Redelivery" (2025-03-26 to 2025-11-25).

use std::collections::VecDeque;
use std::sync::Arc;

use parking_lot::Mutex;
use shadowcat_mcp::inspect::{self, ProgressToken};
use shadowcat_mcp::message::{IdTable, Kind, Message, Payload, RequestId};
use shadowcat_mcp::method::Method;
use shadowcat_sse::reconnect::{Digests, EventKey, SessionWindow};

/// Progress tokens of failed and cancelled requests that are remembered; the oldest go first.
const ABANDONED: usize = 100;

/// What the streams of one session know of each other.
pub(crate) struct Siblings {
    window: Mutex<SessionWindow>,
    digests: Digests,
    requests: Mutex<Requests>,
}

#[derive(Default)]
struct Requests {
    /// Those that wait for their responses.
    open: IdTable<Token>,
    /// The tokens of those that ended without one.
    abandoned: VecDeque<ProgressToken>,
}

/// The progress token that an open request asks for. It is read when it matters first.
enum Token {
    Unread(Message),
    Read(Option<ProgressToken>),
}

impl Token {
    fn get(&mut self) -> Option<&ProgressToken> {
        if let Self::Unread(request) = self {
            *self = Self::Read(inspect::requested_progress_token(request));
        }
        match self {
            Self::Read(token) => token.as_ref(),
            Self::Unread(_) => None,
        }
    }

    fn into_read(mut self) -> Option<ProgressToken> {
        self.get().cloned()
    }
}

/// One stream's place among its siblings. A request is open for as long as it has one.
pub(crate) struct Sibling {
    siblings: Arc<Siblings>,
    /// The request that is being answered; none on the standalone stream.
    request: Option<RequestId>,
    answered: bool,
}

/// Whose an event is. Of several messages the first of these goes for all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Owner {
    /// The stream's own request.
    Own,
    /// Another request that is open.
    Other,
    /// It does not say.
    Unnamed,
    /// A response to no open request.
    Nobody,
    /// Progress of a request that ended without a response.
    Abandoned,
}

impl Siblings {
    /// The streams of a new session. `window` (`--dedup-window`) and `key`: as
    /// [`SessionWindow::new`] takes them.
    pub(crate) fn new(window: usize, key: u64) -> Arc<Self> {
        let window = SessionWindow::new(window, key);
        Arc::new(Self {
            digests: window.digests(),
            window: Mutex::new(window),
            requests: Mutex::default(),
        })
    }

    /// A place for the stream that is to answer a request, or for the standalone stream.
    pub(crate) fn join(self: &Arc<Self>, request: Option<&Message>) -> Sibling {
        let id = request.and_then(Message::id).cloned();
        if let (Some(id), Some(request)) = (&id, request) {
            let token = Token::Unread(request.clone());
            self.requests.lock().open.insert(id.clone(), token);
        }
        Sibling {
            siblings: Arc::clone(self),
            request: id,
            answered: false,
        }
    }
}

impl Sibling {
    /// What makes the keys of this session's events.
    pub(crate) fn digests(&self) -> Digests {
        self.siblings.digests.clone()
    }

    /// The request has its response. What belongs to a task that it began may go on.
    pub(crate) fn answered(&mut self) {
        self.answered = true;
    }

    /// Whose the messages of an event are.
    pub(crate) fn owner(&self, payload: &Payload) -> Owner {
        let messages = match payload {
            Payload::Single(message) => return self.owner_of(message),
            Payload::Batch(messages) => messages,
        };
        let owners = messages.iter().map(|message| self.owner_of(message));
        owners.min().unwrap_or(Owner::Nobody)
    }

    fn owner_of(&self, message: &Message) -> Owner {
        match message.kind() {
            Kind::Response { id } | Kind::Error { id: Some(id) } => match &self.request {
                Some(own) if own == id => Owner::Own,
                _ if self.siblings.requests.lock().open.contains_key(id) => Owner::Other,
                _ => Owner::Nobody,
            },
            Kind::Notification {
                method: Method::Progress,
            } => match inspect::progress_token(message) {
                Some(token) => self.owner_by(&token),
                None => Owner::Unnamed,
            },
            _ => Owner::Unnamed,
        }
    }

    fn owner_by(&self, token: &ProgressToken) -> Owner {
        let mut requests = self.siblings.requests.lock();
        let Requests { open, abandoned } = &mut *requests;
        let own = self.request.as_ref().and_then(|own| open.get_mut(own));
        if own.and_then(Token::get) == Some(token) {
            return Owner::Own;
        }
        if open.values_mut().any(|other| other.get() == Some(token)) {
            Owner::Other
        } else if abandoned.contains(token) {
            Owner::Abandoned
        } else {
            Owner::Unnamed
        }
    }

    /// The stream is about to deliver an event. Whether it may, and how many events the window has
    /// lost by it; see [`SessionWindow::claim`].
    pub(crate) fn claim(&self, key: EventKey, resumed: bool) -> (bool, u64) {
        let mut window = self.siblings.window.lock();
        let before = window.overflowed();
        let granted = window.claim(key, resumed);
        (granted, window.overflowed() - before)
    }

    /// Whether an event was delivered.
    pub(crate) fn knows(&self, key: EventKey) -> bool {
        self.siblings.window.lock().knows(key)
    }
}

impl Drop for Sibling {
    fn drop(&mut self) {
        let Some(request) = &self.request else { return };
        let mut requests = self.siblings.requests.lock();
        let ended = requests.open.remove(request);
        if self.answered {
            return;
        }
        if let Some(token) = ended.and_then(Token::into_read) {
            if requests.abandoned.len() == ABANDONED {
                requests.abandoned.pop_front();
            }
            requests.abandoned.push_back(token);
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn parse(text: &str) -> Payload {
        Payload::parse(Bytes::copy_from_slice(text.as_bytes())).unwrap()
    }

    fn call(id: &str, token: &str) -> Message {
        let text = format!(
            r#"{{"jsonrpc":"2.0","id":{id},"method":"tools/call","params":{{"name":"x","_meta":{{"progressToken":{token}}}}}}}"#
        );
        Message::parse(Bytes::from(text)).unwrap()
    }

    fn response(id: &str) -> String {
        format!(r#"{{"jsonrpc":"2.0","id":{id},"result":{{}}}}"#)
    }

    fn progress(token: &str) -> String {
        format!(
            r#"{{"jsonrpc":"2.0","method":"notifications/progress","params":{{"progressToken":{token},"progress":1}}}}"#
        )
    }

    const LOG: &str =
        r#"{"jsonrpc":"2.0","method":"notifications/message","params":{"level":"info"}}"#;

    #[test]
    fn a_response_and_progress_name_their_owner() {
        let siblings = Siblings::new(10, 1);
        let one = siblings.join(Some(&call("1", "\"a\"")));
        let mut two = siblings.join(Some(&call("2", "\"b\"")));
        let standalone = siblings.join(None);
        for (text, on_one, on_standalone) in [
            (response("1"), Owner::Own, Owner::Other),
            (response("2"), Owner::Other, Owner::Other),
            (response("3"), Owner::Nobody, Owner::Nobody),
            (response("\"1\""), Owner::Nobody, Owner::Nobody),
            (progress("\"a\""), Owner::Own, Owner::Other),
            (progress("\"b\""), Owner::Other, Owner::Other),
            (progress("\"c\""), Owner::Unnamed, Owner::Unnamed),
            (LOG.to_owned(), Owner::Unnamed, Owner::Unnamed),
        ] {
            assert_eq!(one.owner(&parse(&text)), on_one, "{text}");
            assert_eq!(standalone.owner(&parse(&text)), on_standalone, "{text}");
        }
        two.answered();
        drop(two);
        assert_eq!(one.owner(&parse(&response("2"))), Owner::Nobody);
        assert_eq!(one.owner(&parse(&progress("\"b\""))), Owner::Unnamed);
    }

    #[test]
    fn progress_of_a_request_that_failed_is_nobody_s() {
        let siblings = Siblings::new(10, 1);
        let one = siblings.join(Some(&call("1", "7")));
        let seven = parse(&progress("7"));
        let two = siblings.join(Some(&call("2", "8")));
        drop(one);
        assert_eq!(two.owner(&seven), Owner::Abandoned);
        let again = siblings.join(Some(&call("3", "7")));
        assert_eq!(two.owner(&seven), Owner::Other);
        assert_eq!(again.owner(&seven), Owner::Own);
        let mut more = siblings.join(Some(&call("4", "9")));
        more.answered();
        drop(more);
        let nine = parse(&progress("9"));
        assert_eq!(two.owner(&nine), Owner::Unnamed, "perhaps of a task");
        for id in 10..10 + ABANDONED {
            drop(siblings.join(Some(&call(&id.to_string(), &id.to_string()))));
        }
        assert_eq!(siblings.requests.lock().abandoned.len(), ABANDONED);
        assert_eq!(siblings.requests.lock().open.len(), 2);
    }

    #[test]
    fn two_requests_with_one_token_each_take_their_own() {
        let siblings = Siblings::new(10, 1);
        let one = siblings.join(Some(&call("1", "7")));
        let two = siblings.join(Some(&call("2", "7")));
        assert_eq!(one.owner(&parse(&progress("7"))), Owner::Own);
        assert_eq!(two.owner(&parse(&progress("7"))), Owner::Own);
    }

    #[test]
    fn a_batch_is_its_stream_s_own_first() {
        let siblings = Siblings::new(10, 1);
        let one = siblings.join(Some(&call("1", "7")));
        let _two = siblings.join(Some(&call("2", "8")));
        for (texts, owner) in [
            ([response("2"), response("1")], Owner::Own),
            ([response("2"), LOG.to_owned()], Owner::Other),
            ([response("3"), LOG.to_owned()], Owner::Unnamed),
            ([response("3"), response("4")], Owner::Nobody),
        ] {
            let batch = format!("[{}]", texts.join(","));
            assert_eq!(one.owner(&parse(&batch)), owner, "{batch}");
        }
    }
}
