//! GETs of Streamable HTTP: the standalone stream, and what resumes a stream.

use std::io;
use std::sync::Arc;

use super::log::Log;
use super::modern::Subscribed;
use super::refuse::plain;
use super::stream::Course;
use super::visit::{Place, Ticket};
use super::{Kept, Server, Session, Subject};
use crate::http1::{Conn, Head};
use crate::ledger::{CallKey, Fate};
use crate::plan::Replay;

impl Server {
    pub(super) async fn get(self: &Arc<Self>, conn: &mut Conn, head: &Head) -> io::Result<Kept> {
        let cursor = head.get("last-event-id");
        let Some(session) = self.session(head) else {
            let named = head.get("mcp-session-id").unwrap_or_default().to_owned();
            // Whose stream it was: the name of a stream begins with that of its session.
            let place = self.place_of(&named, cursor);
            let ticket = Ticket::open(&self.ledger, place, &named, cursor);
            ticket.settle(Fate::SessionLost);
            return self.unknown_session(conn, 404).await;
        };
        let streams = session.streams.lock().clone();
        let found = cursor.and_then(|cursor| {
            streams.iter().chain([&session.standalone]).find_map(|log| {
                log.find(cursor)
                    .map(|(at, sent)| (Arc::clone(log), at, sent))
            })
        });
        match (cursor, found) {
            (None, _) => self.standing(conn, &session, None, None).await,
            (Some(cursor), None) => {
                if !self.state.lock().forgot {
                    self.ledger.violation(format!(
                        "cursor {cursor:?} is none of session {}",
                        session.name
                    ));
                }
                let place = self.place_of(&session.name, Some(cursor));
                let ticket = Ticket::open(&self.ledger, place, &session.name, Some(cursor));
                ticket.settle(Fate::Status(400));
                plain(conn, 400, "no such event").await
            }
            (Some(cursor), Some((log, at, sent))) => {
                if !sent {
                    self.ledger.violation(format!(
                        "cursor {cursor:?} is of an event that never left whole"
                    ));
                }
                match log.call {
                    None => {
                        self.standing(conn, &session, Some((cursor, at)), None)
                            .await
                    }
                    Some(key) => self.resume(conn, &session, &log, key, cursor, at).await,
                }
            }
        }
    }

    /// The ledger's place for a GET whose session or stream is not there any more.
    fn place_of(&self, session: &str, cursor: Option<&str>) -> Place {
        let stream = cursor
            .and_then(|cursor| cursor.rsplit_once('/'))
            .map(|(stream, _)| stream);
        let key =
            stream.and_then(|stream| self.ledger.with(|facts| facts.streams.get(stream).copied()));
        key.map_or(Place::Standing(session.to_owned()), Place::Get)
    }

    /// From where a stream goes on, and where what is new begins.
    fn replay(&self, log: &Log, at: usize) -> (usize, usize) {
        match self.plan.server.replay {
            Replay::Exclusive => (at + 1, at + 1),
            Replay::Inclusive => (at, at + 1),
            Replay::FromZero => (log.base().min(at), at + 1),
        }
    }

    pub(super) async fn standing(
        &self,
        conn: &mut Conn,
        session: &Session,
        cursor: Option<(&str, usize)>,
        subscribed: Option<Subscribed>,
    ) -> io::Result<Kept> {
        let place = Place::Standing(session.name.clone());
        let ticket = Ticket::open(&self.ledger, place, &session.name, cursor.map(|c| c.0));
        if !self.plan.server.standalone {
            ticket.settle(Fate::Status(405));
            return plain(conn, 405, "").await;
        }
        let log = &session.standalone;
        let gets = self.ledger.with(|facts| {
            facts
                .sessions
                .entry(session.name.clone())
                .or_default()
                .gets
                .clone()
        });
        if cursor.is_none()
            && log.id_sent()
            && !gets.iter().any(|get| get.fate == Fate::Status(400))
        {
            self.ledger.violation(format!(
                "a GET without the cursor that session {} has",
                session.name
            ));
        }
        let fault = self.next_fault(Subject::Standing(
            session.client.get().copied().unwrap_or_default(),
        ));
        if let Some(refused) = self
            .refuse_stream(conn, session, &ticket, fault.as_ref())
            .await
        {
            return refused;
        }
        let (from, new_from) = match cursor {
            Some((_, at)) => self.replay(log, at),
            None => {
                let opened = gets.iter().any(|get| matches!(get.fate, Fate::Stream(_)));
                let live = log.begin(!opened);
                (live, live)
            }
        };
        let lost = from.min(log.len());
        if cursor.is_none() {
            self.ledger.with(|facts| {
                let facts = facts.sessions.entry(session.name.clone()).or_default();
                facts.missable = facts.missable.max(lost as u32);
            });
        }
        let retry = self.plan.stream_retry(None);
        // Of several acknowledgements the client gets the first.
        let greeted = gets
            .iter()
            .any(|get| matches!(&get.fate, Fate::Stream(stream) if stream.new_messages > 0));
        let course = Course {
            from,
            new_from,
            cut: fault,
            store_only: false,
            polls_after: None,
            retry,
            greets: subscribed.is_some() && !greeted,
            greeting: subscribed.as_ref().map(|one| one.greeting.clone()),
            tag: subscribed.map(|one| one.id),
        };
        self.stream(conn, session, log, &ticket, course).await
    }

    async fn resume(
        &self,
        conn: &mut Conn,
        session: &Session,
        log: &Log,
        key: CallKey,
        cursor: &str,
        at: usize,
    ) -> io::Result<Kept> {
        let ticket = Ticket::open(&self.ledger, Place::Get(key), &session.name, Some(cursor));
        let fault = self.next_fault(Subject::Get(key));
        if let Some(refused) = self
            .refuse_stream(conn, session, &ticket, fault.as_ref())
            .await
        {
            return refused;
        }
        self.ledger.hit("resume");
        if self.plan.server.store_only {
            self.ledger.hit("resume that stays silent");
        }
        let (from, new_from) = self.replay(log, at);
        let polls_after = self.call_plan(key).and_then(|plan| plan.polls_after);
        let retry = self.plan.stream_retry(Some(key));
        let course = Course {
            from,
            new_from,
            cut: fault,
            store_only: self.plan.server.store_only,
            polls_after,
            retry,
            greeting: None,
            greets: false,
            tag: None,
        };
        self.stream(conn, session, log, &ticket, course).await
    }
}
