//! Where a message of the server belongs, when all of them come through one pipe.
//!
//! A response goes to the exchange whose request it answers, progress goes by its token. What names
//! no request goes to the only exchange in flight, else to the standalone stream if the client has
//! it open, else to the newest exchange; with no exchange in flight it waits for the standalone
//! stream. A call that its client has cancelled counts no more: the server may never answer it.
//!
//! With [`Clients::Many`] the clients' ids may be equal, so every request gets an id of ours, which
//! is its progress token and subscription id too; messages of the server get the client's own back.

use std::collections::{BTreeMap, HashMap, VecDeque};

use shadowcat_mcp::inspect::{self, ProgressToken};
use shadowcat_mcp::message::{Kind, Message, RequestId};
use shadowcat_mcp::method::Method;

/// Server requests whose place is remembered, so that their `notifications/cancelled` follows them.
const ASKS: usize = 256;

/// Whose requests a pipe carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Clients {
    /// One session: everything passes unchanged.
    One,
    /// Many modern clients: ids, progress tokens and subscription ids are renumbered. There is no
    /// standalone stream, and no request of the server can be answered (2026-07-28).
    Many,
}

/// An exchange of this pipe; a later one has a greater key.
pub(super) type Key = i64;

/// Where one message goes.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Route {
    /// To this exchange, as its client is to see it. With `last` the exchange is over.
    Exchange {
        key: Key,
        message: Message,
        last: bool,
    },
    /// To the stream of what belongs to no request.
    Standalone(Message),
    /// It answers no open request.
    Stray,
    /// No client can be given it.
    Nobody(Message),
}

/// The exchanges in flight, and what is known about where messages go.
#[derive(Debug)]
pub(super) struct Table {
    clients: Clients,
    open: BTreeMap<Key, Exchange>,
    /// By the id that the server knows.
    by_id: HashMap<RequestId, Key>,
    /// By the token that the server knows.
    by_token: HashMap<ProgressToken, Key>,
    asks: VecDeque<(RequestId, Target)>,
    standalone_open: bool,
    newest: Key,
}

#[derive(Debug)]
struct Exchange {
    /// The id and the token that the client knows.
    client_id: RequestId,
    client_token: Option<ProgressToken>,
    /// The same for the server.
    server_id: RequestId,
    server_token: Option<ProgressToken>,
    /// Open for as long as the client likes, so not what an unnamed message belongs to.
    listens: bool,
    /// Nobody waits for it any more, so not what an unnamed message belongs to either.
    cancelled: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Target {
    Exchange(Key),
    Standalone,
}

/// Whether a message of the server says which request it belongs to.
pub(super) fn names_a_request(message: &Message) -> bool {
    match message.kind() {
        Kind::Request { .. } => false,
        Kind::Notification { method } => *method == Method::Progress,
        Kind::Response { .. } | Kind::Error { .. } => true,
    }
}

impl Table {
    pub(super) fn new(clients: Clients) -> Self {
        Self {
            clients,
            open: BTreeMap::new(),
            by_id: HashMap::new(),
            by_token: HashMap::new(),
            asks: VecDeque::new(),
            standalone_open: false,
            newest: 0,
        }
    }

    pub(super) fn clients(&self) -> Clients {
        self.clients
    }

    /// From now on it is for these clients.
    pub(super) fn pass_to(&mut self, clients: Clients) {
        self.clients = clients;
    }

    pub(super) fn set_standalone_open(&mut self, open: bool) {
        self.standalone_open = open;
    }

    /// Registers a request; returns it as the server is to see it. `None` if it is no request or
    /// its id is in use.
    pub(super) fn begin(&mut self, request: &Message) -> Option<(Key, Message)> {
        let Kind::Request { id, method } = request.kind() else {
            return None;
        };
        let key = self.newest + 1;
        let client_token = inspect::requested_progress_token(request);
        let (message, server_id, server_token) = match self.clients {
            Clients::One => (request.clone(), id.clone(), client_token.clone()),
            Clients::Many => {
                let id = RequestId::Integer(key);
                let token = ProgressToken::from_id(id.clone());
                let message = inspect::with_requested_progress_token(request, &token).with_id(&id);
                (message, id, client_token.as_ref().map(|_| token))
            }
        };
        if self.by_id.contains_key(&server_id) {
            return None;
        }
        self.newest = key;
        self.by_id.insert(server_id.clone(), key);
        if let Some(token) = &server_token {
            self.by_token.insert(token.clone(), key);
        }
        let exchange = Exchange {
            client_id: id.clone(),
            client_token,
            server_id,
            server_token,
            listens: *method == Method::SubscriptionsListen,
            cancelled: false,
        };
        self.open.insert(key, exchange);
        Some((key, message))
    }

    /// Notes that the client takes a request back, if this message says so.
    pub(super) fn cancel(&mut self, message: &Message) {
        let id = match message.kind() {
            Kind::Notification {
                method: Method::Cancelled,
            } => inspect::cancelled_id(message),
            _ => None,
        };
        let key = id.and_then(|id| self.by_id.get(&id));
        if let Some(exchange) = key.and_then(|key| self.open.get_mut(key)) {
            exchange.cancelled = true;
        }
    }

    /// Forgets an exchange; returns the id by which the server knows it, if it was open.
    pub(super) fn end(&mut self, key: Key) -> Option<RequestId> {
        let exchange = self.open.remove(&key)?;
        self.by_id.remove(&exchange.server_id);
        // A later request may have taken the token over.
        if let Some(token) = &exchange.server_token
            && self.by_token.get(token) == Some(&key)
        {
            self.by_token.remove(token);
        }
        Some(exchange.server_id)
    }

    /// Decides about one message of the server.
    pub(super) fn route(&mut self, message: Message) -> Route {
        match message.kind() {
            Kind::Response { id } | Kind::Error { id: Some(id) } => {
                match self.by_id.get(id).copied() {
                    Some(key) => self.last(key, message),
                    None => Route::Stray,
                }
            }
            Kind::Error { id: None } => Route::Stray,
            Kind::Request { id, .. } => self.ask(id.clone(), message),
            Kind::Notification { method } => match (method, self.clients) {
                (Method::Progress, _) => self.progress(message),
                (Method::Cancelled, Clients::One) => self.withdrawal(message),
                (Method::Cancelled, Clients::Many) => self.ended_by_server(message),
                (_, Clients::One) => self.unnamed(message),
                (_, Clients::Many) => self.tagged(message),
            },
        }
    }

    /// The message that ends an exchange.
    fn last(&mut self, key: Key, message: Message) -> Route {
        let message = match (self.clients, self.open.get(&key)) {
            (Clients::Many, Some(exchange)) => {
                let message = message.with_id(&exchange.client_id);
                if exchange.listens {
                    inspect::with_subscription_id(&message, &exchange.client_id)
                } else {
                    message
                }
            }
            _ => message,
        };
        self.end(key);
        Route::Exchange {
            key,
            message,
            last: true,
        }
    }

    /// A request of the server.
    fn ask(&mut self, id: RequestId, message: Message) -> Route {
        if self.clients == Clients::Many {
            return Route::Nobody(message);
        }
        let target = self.target_of_unnamed();
        if self.asks.len() == ASKS {
            self.asks.pop_front();
        }
        self.asks.push_back((id, target));
        Self::to(target, message)
    }

    /// A request of the server was not read where it went: it waits for the standalone stream now,
    /// and what takes it back must not come before it.
    pub(super) fn moved_to_standalone(&mut self, id: &RequestId) {
        let asked = self.asks.iter_mut().rev().find(|(ask, _)| ask == id);
        if let Some((_, target)) = asked {
            *target = Target::Standalone;
        }
    }

    /// The server takes a request of its own back: that follows the request.
    fn withdrawal(&mut self, message: Message) -> Route {
        let id = inspect::cancelled_id(&message);
        let asked = self
            .asks
            .iter()
            .rposition(|(ask, _)| Some(ask) == id.as_ref());
        match asked.and_then(|at| self.asks.remove(at)) {
            Some((_, Target::Exchange(key))) if !self.open.contains_key(&key) => {
                self.unnamed(message)
            }
            Some((_, target)) => Self::to(target, message),
            None => self.unnamed(message),
        }
    }

    /// A modern server ends a subscription of its own accord (2026-07-28, "Cancellation").
    fn ended_by_server(&mut self, message: Message) -> Route {
        let key = inspect::cancelled_id(&message).and_then(|id| self.by_id.get(&id).copied());
        let Some((key, exchange)) = key.and_then(|key| Some((key, self.open.get(&key)?))) else {
            return Route::Nobody(message);
        };
        let message = inspect::with_cancelled_id(&message, &exchange.client_id);
        self.end(key);
        Route::Exchange {
            key,
            message,
            last: true,
        }
    }

    fn progress(&mut self, message: Message) -> Route {
        let token = inspect::progress_token(&message);
        let key = token.and_then(|token| self.by_token.get(&token).copied());
        match (key, self.clients) {
            (Some(key), Clients::One) => Self::to(Target::Exchange(key), message),
            (Some(key), Clients::Many) => {
                let token = self
                    .open
                    .get(&key)
                    .and_then(|open| open.client_token.as_ref());
                let message = match token {
                    Some(token) => inspect::with_progress_token(&message, token),
                    None => message,
                };
                Self::to(Target::Exchange(key), message)
            }
            // A task goes on after its request was answered, and so does its token.
            (None, Clients::One) => Route::Standalone(message),
            (None, Clients::Many) => Route::Nobody(message),
        }
    }

    /// A notification of a modern server: a subscription's, or of a request that it does not name.
    fn tagged(&mut self, message: Message) -> Route {
        let Some(subscription) = inspect::subscription_id(&message) else {
            return self.unnamed(message);
        };
        let key = self.by_id.get(&subscription).copied();
        match key.and_then(|key| Some((key, self.open.get(&key)?))) {
            Some((key, exchange)) => {
                let message = inspect::with_subscription_id(&message, &exchange.client_id);
                Self::to(Target::Exchange(key), message)
            }
            None => Route::Nobody(message),
        }
    }

    fn unnamed(&mut self, message: Message) -> Route {
        match self.target_of_unnamed() {
            Target::Standalone if self.clients == Clients::Many => Route::Nobody(message),
            target => Self::to(target, message),
        }
    }

    fn target_of_unnamed(&self) -> Target {
        let awaited = |exchange: &Exchange| !exchange.listens && !exchange.cancelled;
        let mut calls = self.open.iter().filter(|(_, exchange)| awaited(exchange));
        let newest = calls.next_back().map(|(key, _)| *key);
        let only = calls.next_back().is_none();
        match newest {
            Some(key) if only || !self.standalone_open => Target::Exchange(key),
            _ => Target::Standalone,
        }
    }

    fn to(target: Target, message: Message) -> Route {
        match target {
            Target::Exchange(key) => Route::Exchange {
                key,
                message,
                last: false,
            },
            Target::Standalone => Route::Standalone(message),
        }
    }
}

#[cfg(test)]
mod tests;
