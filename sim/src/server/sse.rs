//! HTTP+SSE (2024-11-05): a GET opens the stream that is the session, whose first event names where
//! the client's messages go; everything that the server says comes on that stream.

use std::io;
use std::sync::Arc;

use serde_json::Value;

use super::answer::Entry;
use super::log::What;
use super::refuse::plain;
use super::stream::Course;
use super::visit::{Place, Ticket};
use super::{Kept, Server, Session, Subject};
use crate::fault::{Fault, How};
use crate::http1::{Conn, Head};
use crate::ledger::Fate;

/// Where messages go; the session's name follows.
const ENDPOINT: &str = "/mcp/messages?session=";

/// Where a session's messages go.
pub(super) fn endpoint(session: &str) -> String {
    format!("{ENDPOINT}{session}")
}

impl Server {
    /// Opens a session's stream, and ends the session with it.
    pub(super) async fn sse_open(self: &Arc<Self>, conn: &mut Conn) -> io::Result<Kept> {
        let ticket = Ticket::open(&self.ledger, Place::Opening, "", None);
        let faults = (0..self.plan.clients.len()).map(Subject::Standing);
        let fault = faults.filter_map(|subject| self.next_fault(subject)).next();
        let nobody = Session::new(String::new(), None);
        if let Some(refused) = self
            .refuse_stream(conn, &nobody, &ticket, fault.as_ref())
            .await
        {
            return refused;
        }
        let session = self.make_session();
        let name = &session.name;
        self.ledger
            .note(format_args!("server   stream of session {name}"));
        let end = self.plan.server.line_end;
        let course = Course {
            replayed: Vec::new(),
            from: 0,
            new_from: 0,
            cut: fault,
            store_only: false,
            polls_after: None,
            retry: None,
            greeting: Some(format!(
                "event: endpoint{end}data: {}{end}{end}",
                endpoint(name)
            )),
            greets: false,
            tag: None,
        };
        let kept = self
            .stream(conn, &session, &session.standalone, &ticket, course)
            .await;
        self.ledger.hit("session's stream over");
        self.forget(&session);
        kept
    }

    /// A stream that says nothing any more, and stays.
    pub(super) fn fell_silent(&self, session: &Session, how: How) {
        if how == How::Silence && self.plan.server.transport.is_pipe() {
            let at = self.ledger.now();
            self.ledger.with(|facts| {
                let facts = facts.sessions.entry(session.name.clone()).or_default();
                facts.silent.get_or_insert(at);
            });
        }
    }

    pub(super) async fn sse_post(
        self: &Arc<Self>,
        conn: &mut Conn,
        head: &Head,
        message: &Value,
    ) -> io::Result<Kept> {
        let method = message["method"].as_str().unwrap_or_default();
        let Some(name) = head.word(1).strip_prefix(ENDPOINT) else {
            if method != "initialize" {
                self.ledger
                    .violation(format!("a message that is sent nowhere: {message}"));
            }
            return plain(conn, 405, "").await;
        };
        let session = self.state.lock().sessions.get(name).cloned();
        if method == "initialize" {
            return self.sse_initialize(conn, session, message).await;
        }
        let (session, key, ticket) = match self.let_in(conn, session, message).await? {
            Entry::Call(session, key, ticket) => (session, key, ticket),
            Entry::Answered(kept) => return Ok(kept),
        };
        let Some(plan) = self.call_plan(key) else {
            return plain(conn, 400, "").await;
        };
        let fault = self.next_fault(Subject::Post(key));
        if let Some(fault) = &fault {
            self.ledger.hit(fault.name());
        }
        let accepted = matches!(
            fault,
            None | Some(Fault::Accepted | Fault::Empty | Fault::WrongType)
        );
        if accepted || fault.as_ref().is_some_and(Fault::executes) {
            let exec = self.ledger.executes(key, name);
            self.start(&session, key, exec, plan.clone(), message["id"].clone());
        }
        match fault {
            // Any success accepts a message, whatever else it says.
            Some(Fault::Empty) => {
                ticket.settle(Fate::Accepted);
                plain(conn, 200, "").await
            }
            Some(fault) if !accepted => {
                self.refuse(conn, &session, &ticket, &fault, &message["id"])
                    .await
            }
            _ => {
                ticket.settle(Fate::Accepted);
                plain(conn, 202, "Accepted").await
            }
        }
    }

    async fn sse_initialize(
        self: &Arc<Self>,
        conn: &mut Conn,
        session: Option<Arc<Session>>,
        message: &Value,
    ) -> io::Result<Kept> {
        let Some(client) = self.who(message) else {
            self.ledger
                .violation(format!("an initialize that is no client's own: {message}"));
            return plain(conn, 400, "").await;
        };
        let ticket = Ticket::open(&self.ledger, Place::Handshake(client), "", None);
        let Some(session) = session else {
            ticket.settle(Fate::SessionLost);
            return self.unknown_session(conn, 404).await;
        };
        if let Some(fault) = self.next_fault(Subject::Handshake(client)) {
            self.ledger.hit("handshake fault");
            return self
                .refuse(conn, &session, &ticket, &fault, &message["id"])
                .await;
        }
        self.give_session(&session, client);
        session
            .standalone
            .append(self.initialized(message), What::Answer, false);
        ticket.settle(Fate::Accepted);
        plain(conn, 202, "Accepted").await
    }
}
