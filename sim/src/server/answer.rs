//! What the server makes of one HTTP request.

use std::io;
use std::sync::Arc;

use serde_json::Value;

use super::log::Log;
use super::refuse::{json_body, plain, response};
use super::stream::Course;
use super::visit::{Place, Ticket};
use super::{Kept, Server, Session, Subject};
use crate::fault::Fault;
use crate::http1::{Conn, Head};
use crate::ledger::{CallKey, Fate};
use crate::plan::Transport;

/// What a POST came to at the door.
pub(super) enum Entry<'a> {
    /// It is a call, in this session.
    Call(Arc<Session>, CallKey, Ticket<'a>),
    /// It was answered.
    Answered(Kept),
}

/// Which of the plan's calls a message is, if it is one.
pub(super) fn call_of(message: &Value) -> Option<CallKey> {
    let named = message["params"]["_meta"]["call"].as_str()?;
    let is_request = !message["id"].is_null() && message["method"].is_string();
    CallKey::parse(named).filter(|_| is_request)
}

impl Server {
    pub(super) async fn serve(self: Arc<Self>, mut conn: Conn, number: u32) {
        while let Ok(Some(head)) = conn.head().await {
            let length = head.get("content-length").and_then(|n| n.parse().ok());
            let Ok(body) = conn.exactly(length.unwrap_or(0)).await else {
                return;
            };
            match self.answer(&mut conn, &head, &body).await {
                Ok(true) => {}
                Ok(false) | Err(_) => {
                    self.ledger
                        .note(format_args!("server   connection {number} ends"));
                    return;
                }
            }
        }
    }

    async fn answer(
        self: &Arc<Self>,
        conn: &mut Conn,
        head: &Head,
        body: &[u8],
    ) -> io::Result<Kept> {
        match head.word(0) {
            "POST" if self.plan.server.transport == Transport::Sse => {
                let message: Value = serde_json::from_slice(body).unwrap_or_default();
                self.sse_post(conn, head, &message).await
            }
            "GET" if self.plan.server.transport == Transport::Sse => self.sse_open(conn).await,
            "POST" if self.plan.server.transport == Transport::Modern => {
                let message: Value = serde_json::from_slice(body).unwrap_or_default();
                self.modern_post(conn, head, &message).await
            }
            "POST" => {
                let message: Value = serde_json::from_slice(body).unwrap_or_default();
                self.post(conn, head, &message).await
            }
            "GET" if self.plan.server.transport != Transport::Modern => self.get(conn, head).await,
            "DELETE" if self.plan.server.transport != Transport::Modern => {
                self.delete(conn, head).await
            }
            other => {
                self.ledger.violation(format!("the server got a {other}"));
                plain(conn, 405, "").await
            }
        }
    }

    /// The session that a request names.
    pub(super) fn session(self: &Arc<Self>, head: &Head) -> Option<Arc<Session>> {
        if self.plan.server.sessions {
            let name = head.get("mcp-session-id")?;
            return self.state.lock().sessions.get(name).cloned();
        }
        let known = self.state.lock().sessions.values().next().cloned();
        Some(known.unwrap_or_else(|| self.begin_session(0)))
    }

    fn begin_session(self: &Arc<Self>, client: usize) -> Arc<Session> {
        let session = self.make_session();
        self.give_session(&session, client);
        session
    }

    /// A session that is nobody's yet.
    pub(super) fn make_session(&self) -> Arc<Session> {
        let mut state = self.state.lock();
        state.sessions_made += 1;
        let name = format!("s{}", state.sessions_made);
        let session = Arc::new(Session::new(name.clone(), None));
        if !self.plan.server.sessions {
            state.sessions.clear();
        }
        state.sessions.insert(name, Arc::clone(&session));
        session
    }

    pub(super) fn give_session(self: &Arc<Self>, session: &Arc<Session>, client: usize) {
        let _ = session.client.set(client);
        let began = self.ledger.now();
        self.ledger.with(|facts| {
            let facts = facts.sessions.entry(session.name.clone()).or_default();
            (facts.client, facts.began) = (client, began);
        });
        self.ledger.note(format_args!(
            "server   session {} of client {client}",
            session.name
        ));
        tokio::spawn(Arc::clone(self).give_notices(Arc::clone(session), client));
    }

    async fn give_notices(self: Arc<Self>, session: Arc<Session>, client: usize) {
        let mut times = self.plan.clients[client].notices.clone();
        times.sort_unstable();
        for at in times {
            let Some(wait) = at.checked_sub(self.ledger.now()) else {
                continue;
            };
            tokio::select! {
                biased;
                () = session.gone.cancelled() => return,
                () = tokio::time::sleep(wait) => self.notice(&session),
            }
        }
    }

    async fn post(
        self: &Arc<Self>,
        conn: &mut Conn,
        head: &Head,
        message: &Value,
    ) -> io::Result<Kept> {
        let method = message["method"].as_str().unwrap_or_default();
        if method == "initialize" {
            return self.initialize(conn, head, message).await;
        }
        let (session, key, ticket) = match self.let_in(conn, self.session(head), message).await? {
            Entry::Call(session, key, ticket) => (session, key, ticket),
            Entry::Answered(kept) => return Ok(kept),
        };
        self.execute(conn, &session, &ticket, key, &message["id"])
            .await
    }

    /// Looks at a message that names this session: what is no call is answered here.
    pub(super) async fn let_in<'a>(
        &'a self,
        conn: &mut Conn,
        session: Option<Arc<Session>>,
        message: &Value,
    ) -> io::Result<Entry<'a>> {
        let Some(key) = call_of(message) else {
            let Some(session) = session else {
                return self.unknown_session(conn, 404).await.map(Entry::Answered);
            };
            let method = message["method"].as_str().unwrap_or_default();
            self.one_way(&session, method, message);
            return plain(conn, 202, "").await.map(Entry::Answered);
        };
        let named = session.as_ref().map_or("", |session| &session.name);
        let ticket = Ticket::open(&self.ledger, Place::Post(key), named, None);
        let Some(session) = session else {
            ticket.settle(Fate::SessionLost);
            return self.unknown_session(conn, 404).await.map(Entry::Answered);
        };
        Ok(Entry::Call(session, key, ticket))
    }

    /// A request that was let in.
    pub(super) async fn execute(
        self: &Arc<Self>,
        conn: &mut Conn,
        session: &Arc<Session>,
        ticket: &Ticket<'_>,
        key: CallKey,
        id: &Value,
    ) -> io::Result<Kept> {
        let Some(plan) = self.call_plan(key) else {
            return plain(conn, 400, "").await;
        };
        let fault = self.next_fault(Subject::Post(key));
        if let Some(fault) = &fault
            && !matches!(fault, Fault::Cut { .. } | Fault::Truncated)
            && !fault.executes()
        {
            self.ledger.hit(fault.name());
            return self.refuse(conn, session, ticket, fault, id).await;
        }
        let exec = self.ledger.executes(key, &session.name);
        let log = self.start(session, key, exec, plan.clone(), id.clone());
        match fault {
            Some(fault) if fault.executes() => {
                self.ledger.hit(fault.name());
                self.refuse(conn, session, ticket, &fault, id).await
            }
            fault if plan.json => self.json(conn, session, &log, ticket, fault).await,
            fault => {
                let course = Course {
                    replayed: Vec::new(),
                    from: 0,
                    new_from: 0,
                    cut: fault,
                    store_only: false,
                    polls_after: plan.polls_after,
                    retry: self.plan.stream_retry(Some(key)),
                    greeting: None,
                    greets: false,
                    tag: None,
                };
                self.stream(conn, session, &log, ticket, course).await
            }
        }
    }

    /// A JSON answer: waits for the response.
    async fn json(
        &self,
        conn: &mut Conn,
        session: &Session,
        log: &Log,
        ticket: &Ticket<'_>,
        fault: Option<Fault>,
    ) -> io::Result<Kept> {
        let entry = loop {
            let changed = log.changed.notified();
            if let (Some(entry), _) = log.at(0) {
                break entry;
            }
            tokio::select! {
                biased;
                () = changed => {}
                () = session.gone.cancelled() => {
                    ticket.settle(Fate::NoHead);
                    return Ok(false);
                }
                _ = conn.closed() => return Ok(false),
            }
        };
        let mut bytes = response(200, &[("content-type", "application/json")], &entry.payload);
        let whole = fault.is_none();
        if let Some(fault) = fault {
            self.ledger.hit(fault.name());
            let at = bytes.len() - entry.payload.len() / 2;
            bytes.truncate(at);
        }
        conn.write(&bytes).await?;
        ticket.settle(Fate::Json { whole });
        Ok(whole)
    }

    /// A notification or a response of the client.
    pub(super) fn one_way(&self, session: &Session, method: &str, message: &Value) {
        self.ledger
            .note(format_args!("server   got {method:?} {}", message["id"]));
        if method == "notifications/initialized" {
            self.ledger.with(|facts| {
                let facts = facts.sessions.entry(session.name.clone()).or_default();
                facts.initialized = true;
            });
        }
        if method == "notifications/cancelled" {
            let id = message["params"]["requestId"].as_str().unwrap_or_default();
            if let Some(key) = CallKey::parse(id)
                && let Some(cancelled) = session.cancelled.lock().get(&key)
            {
                cancelled.cancel();
            }
        }
        if method.is_empty()
            && let Some(id) = message["id"].as_str()
        {
            *session.answers.lock().entry(id.to_owned()).or_default() += 1;
            session.answered.notify_waiters();
        }
    }

    async fn initialize(
        self: &Arc<Self>,
        conn: &mut Conn,
        head: &Head,
        message: &Value,
    ) -> io::Result<Kept> {
        let client = self.who(message);
        let Some(client) = client.filter(|_| head.get("mcp-session-id").is_none()) else {
            self.ledger
                .violation(format!("an initialize that is no client's own: {message}"));
            return plain(conn, 400, "").await;
        };
        let ticket = Ticket::open(&self.ledger, Place::Handshake(client), "", None);
        if let Some(fault) = self.next_fault(Subject::Handshake(client)) {
            self.ledger.hit("handshake fault");
            let nobody = Session::new(String::new(), None);
            return self
                .refuse(conn, &nobody, &ticket, &fault, &message["id"])
                .await;
        }
        let session = self.begin_session(client);
        let body = self.initialized(message);
        let mut fields = vec![("content-type", "application/json")];
        if self.plan.server.sessions {
            fields.push(("mcp-session-id", &session.name));
        }
        conn.write(&response(200, &fields, &body)).await?;
        ticket.settle(Fate::Json { whole: true });
        Ok(true)
    }

    /// Whose `initialize` this is.
    pub(super) fn who(&self, initialize: &Value) -> Option<usize> {
        let name = initialize["params"]["clientInfo"]["name"].as_str()?;
        let client = name.rsplit('-').next()?.parse().ok()?;
        (client < self.plan.clients.len()).then_some(client)
    }

    /// The result of an `initialize`.
    pub(super) fn initialized(&self, initialize: &Value) -> String {
        format!(
            r#"{{"jsonrpc":"2.0","id":{},"result":{{"protocolVersion":"{}","capabilities":{{"tools":{{"listChanged":true}},"logging":{{}},"resources":{{"subscribe":true,"listChanged":true}}}},"serverInfo":{{"name":"sim","version":"1"}}}}}}"#,
            initialize["id"], self.plan.server.version
        )
    }

    async fn delete(self: &Arc<Self>, conn: &mut Conn, head: &Head) -> io::Result<Kept> {
        let Some(session) = self.session(head).filter(|_| self.plan.server.sessions) else {
            return self.unknown_session(conn, 404).await;
        };
        let at = self.ledger.now();
        self.ledger
            .note(format_args!("server   DELETE {}", session.name));
        self.ledger.with(|facts| {
            facts
                .sessions
                .entry(session.name.clone())
                .or_default()
                .deleted = Some(at);
        });
        self.state.lock().sessions.remove(&session.name);
        session.gone.cancel();
        plain(conn, 200, "").await
    }

    pub(super) async fn unknown_session(&self, conn: &mut Conn, status: u16) -> io::Result<Kept> {
        let body =
            r#"{"jsonrpc":"2.0","id":null,"error":{"code":-32001,"message":"Session not found"}}"#;
        json_body(conn, status, body).await
    }
}
