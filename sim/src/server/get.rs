//! GETs of Streamable HTTP: the standalone stream, and what resumes a stream.

use std::io;
use std::sync::Arc;

use super::log::{Entry, Log};
use super::modern::Subscribed;
use super::refuse::plain;
use super::stream::Course;
use super::visit::{Place, Ticket};
use super::{Kept, Server, Session, Subject};
use crate::http1::{Conn, Head};
use crate::ledger::{CallKey, Fate};
use crate::plan::Replay;

/// Which call's stream a GET is for, where its client can say so.
const CALL: &str = "x-call";

/// Where a GET with a cursor begins.
#[derive(Clone, Copy)]
pub(super) struct From<'a> {
    cursor: &'a str,
    at: usize,
    order: u64,
}

/// See [`Server::replay`].
struct Replayed {
    events: Vec<(Arc<Log>, usize, Entry)>,
    from: usize,
    new_from: usize,
}

impl Server {
    pub(super) async fn get(self: &Arc<Self>, conn: &mut Conn, head: &Head) -> io::Result<Kept> {
        let call = head.get(CALL).and_then(CallKey::parse);
        let cursor = head.get("last-event-id");
        let Some(session) = self.session(head) else {
            let named = head.get("mcp-session-id").unwrap_or_default().to_owned();
            // Whose stream it was: the name of a stream begins with that of its session.
            let place = self.place_of(&named, cursor, call);
            let ticket = Ticket::open(&self.ledger, place, &named, cursor);
            ticket.settle(Fate::SessionLost);
            return self.unknown_session(conn, 404).await;
        };
        let streams: Vec<_> = {
            let streams = session.streams.lock();
            streams
                .iter()
                .chain([&session.standalone])
                .cloned()
                .collect()
        };
        let of_call = |log: &&Arc<Log>| call.is_some() && log.call == call;
        let meant = streams.iter().rev().find(of_call);
        let full = cursor.map(|cursor| match (self.plan.server.counts, call, meant) {
            (false, ..) => cursor.to_owned(),
            (true, _, Some(log)) => format!("{}/{cursor}", log.name),
            (true, None, None) => format!("{}/{cursor}", session.standalone.name),
            // The stream is gone with its session.
            (true, Some(_), None) => format!("/{cursor}"),
        });
        let cursor = full.as_deref();
        let found = cursor.and_then(|cursor| {
            streams.iter().find_map(|log| {
                log.find(cursor)
                    .map(|(at, entry)| (Arc::clone(log), at, entry))
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
                let place = self.place_of(&session.name, Some(cursor), call);
                let ticket = Ticket::open(&self.ledger, place, &session.name, Some(cursor));
                ticket.settle(Fate::Status(400));
                plain(conn, 400, "no such event").await
            }
            (Some(cursor), Some((log, at, entry))) => {
                // After a server forgot all, a cursor of before may name an event of now.
                let ambiguous = self.plan.server.counts && self.state.lock().forgot;
                if !entry.written && !entry.sent_elsewhere && !ambiguous {
                    self.ledger.violation(format!(
                        "cursor {cursor:?} is of an event that never left whole"
                    ));
                }
                // A stream that brought what names no call may stand at another one's event.
                let log = match self.plan.server.replay {
                    Replay::Session => meant.cloned().unwrap_or(log),
                    _ => log,
                };
                let from = From {
                    cursor,
                    at,
                    order: entry.order,
                };
                match log.call {
                    None => self.standing(conn, &session, Some(from), None).await,
                    Some(key) => self.resume(conn, &session, &log, key, from).await,
                }
            }
        }
    }

    /// The ledger's place for a GET whose session or stream is not there any more.
    fn place_of(&self, session: &str, cursor: Option<&str>, call: Option<CallKey>) -> Place {
        let stream = cursor
            .and_then(|cursor| cursor.rsplit_once('/'))
            .map(|(stream, _)| stream);
        let known =
            stream.and_then(|stream| self.ledger.with(|facts| facts.streams.get(stream).copied()));
        let key = call.filter(|_| cursor.is_some()).or(known);
        key.map_or(Place::Standing(session.to_owned()), Place::Get)
    }

    /// What a connection brings before the stream goes on, from where that is, and where what is new
    /// begins.
    fn replay(&self, session: &Session, log: &Arc<Log>, from: From<'_>) -> Replayed {
        let (events, from, new_from) = match self.plan.server.replay {
            Replay::Exclusive => (Vec::new(), from.at + 1, from.at + 1),
            Replay::Inclusive => (Vec::new(), from.at, from.at + 1),
            Replay::FromZero => (Vec::new(), log.base().min(from.at), from.at + 1),
            Replay::Session => {
                let streams = session.streams.lock();
                let mut events = Vec::new();
                for one in streams.iter().chain([&session.standalone]) {
                    let theirs = one.after(from.order).into_iter();
                    events.extend(theirs.map(|(at, entry)| (Arc::clone(one), at, entry)));
                }
                events.sort_by_key(|(_, _, entry)| entry.order);
                (events, log.len(), 0)
            }
        };
        Replayed {
            events,
            from,
            new_from,
        }
    }

    pub(super) async fn standing(
        &self,
        conn: &mut Conn,
        session: &Session,
        cursor: Option<From<'_>>,
        subscribed: Option<Subscribed>,
    ) -> io::Result<Kept> {
        let place = Place::Standing(session.name.clone());
        let ticket = Ticket::open(&self.ledger, place, &session.name, cursor.map(|c| c.cursor));
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
        let Replayed {
            events: replayed,
            from,
            new_from,
        } = match cursor {
            Some(from) => self.replay(session, log, from),
            None => {
                let opened = gets.iter().any(|get| matches!(get.fate, Fate::Stream(_)));
                let live = log.begin(!opened);
                Replayed {
                    events: Vec::new(),
                    from: live,
                    new_from: live,
                }
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
            replayed,
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
        log: &Arc<Log>,
        key: CallKey,
        from: From<'_>,
    ) -> io::Result<Kept> {
        let place = Place::Get(key);
        let ticket = Ticket::open(&self.ledger, place, &session.name, Some(from.cursor));
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
        let Replayed {
            events: replayed,
            from,
            new_from,
        } = self.replay(session, log, from);
        let polls_after = self.call_plan(key).and_then(|plan| plan.polls_after);
        let retry = self.plan.stream_retry(Some(key));
        let course = Course {
            replayed,
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
