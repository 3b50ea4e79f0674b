//! One connection's event stream, and where it breaks.
//!
//! [`writer`] writes its bytes; [`sent`] keeps the books of what has left.

mod sent;
mod writer;

use std::fmt::Write as _;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::futures::Notified;

use super::log::{Entry, Log, What};
use super::visit::Ticket;
use super::{Kept, Server, Session};
use crate::fault::{Fault, How};
use crate::http1::Conn;
use crate::ledger::{Fate, StreamFate};
use sent::UnderWay;
use writer::{Writer, Written};

/// What a stream does apart from sending its events.
pub(super) struct Course {
    /// What comes first, of any stream of the session.
    pub(super) replayed: Vec<(Arc<Log>, usize, Entry)>,
    pub(super) from: usize,
    /// Where new events begin: those before it are repeated.
    pub(super) new_from: usize,
    pub(super) cut: Option<Fault>,
    /// Only what there is already comes.
    pub(super) store_only: bool,
    /// Closes in order after so many events, to be polled.
    pub(super) polls_after: Option<u32>,
    /// `retry`, as the stream's first line.
    pub(super) retry: Option<u64>,
    /// The first event, where it is none of the log's.
    pub(super) greeting: Option<String>,
    /// Whether it is a message that is new to the client.
    pub(super) greets: bool,
    /// What the events of this connection are tagged with.
    pub(super) tag: Option<String>,
}

/// A stream on its connection.
struct Streaming<'a> {
    server: &'a Server,
    session: &'a Session,
    log: &'a Log,
    ticket: &'a Ticket<'a>,
    writer: Writer<'a>,
    under_way: UnderWay,
    /// Events that are new and no priming.
    sent: u32,
}

/// The part of a log that a connection brings as it grows.
struct Part {
    from: usize,
    new_from: usize,
    end: usize,
    polls_after: Option<u32>,
}

impl Server {
    /// Streams a log.
    pub(super) async fn stream(
        &self,
        conn: &mut Conn,
        session: &Session,
        log: &Log,
        ticket: &Ticket<'_>,
        course: Course,
    ) -> io::Result<Kept> {
        ticket.settle(Fate::Stream(StreamFate::default()));
        let opening = self.opening(&course);
        let mut streaming = Streaming {
            server: self,
            session,
            log,
            ticket,
            writer: Writer::new(self, conn, ticket, course.tag, course.cut),
            under_way: UnderWay::default(),
            sent: 0,
        };
        if let Some(kept) = streaming.open(&opening, course.greets).await? {
            return Ok(kept);
        }
        let part = Part {
            from: course.from,
            new_from: course.new_from,
            end: match course.store_only {
                true => log.len(),
                false => usize::MAX,
            },
            polls_after: course.polls_after,
        };
        if let Some(kept) = streaming.replay(course.replayed).await? {
            return Ok(kept);
        }
        streaming.follow(&part).await
    }

    /// What comes before the first event of the log.
    fn opening(&self, course: &Course) -> String {
        let mut opening = String::new();
        if self.plan.server.bom {
            opening.push('\u{FEFF}');
        }
        if let Some(retry) = course.retry {
            let end = self.plan.server.line_end;
            let _ = write!(opening, "retry: {retry}{end}{end}");
        }
        if let Some(greeting) = &course.greeting {
            opening.push_str(greeting);
        }
        opening
    }
}

/// Each step gives back whether the connection is kept, once the stream is over.
impl Streaming<'_> {
    async fn open(&mut self, opening: &str, greets: bool) -> io::Result<Option<Kept>> {
        let (written, whole) = self.writer.head(opening).await?;
        self.ticket.update(|fate| {
            if let Fate::Stream(stream) = fate {
                stream.opened = matches!(written, Written::Whole);
                stream.new_messages += u32::from(greets && whole);
            }
        });
        match written {
            Written::Whole => Ok(None),
            Written::Cut(how) => {
                self.server.fell_silent(self.session, how);
                self.writer.part(how).await.map(Some)
            }
        }
    }

    /// Repeats what any stream of the session has brought.
    async fn replay(
        &mut self,
        replayed: Vec<(Arc<Log>, usize, Entry)>,
    ) -> io::Result<Option<Kept>> {
        for (of, position, mut entry) in replayed {
            let own = std::ptr::eq(&*of, self.log);
            if !own && entry.what == What::Priming {
                // As the TypeScript SDK stores it.
                (entry.what, entry.payload) = (What::Greeting, "{}".to_owned());
            }
            let (written, whole) = self.writer.event(&entry).await?;
            if whole && own {
                let first = self.left(position, &entry, false);
                self.sent += u32::from(first && entry.what != What::Priming);
            } else if whole {
                of.sent_elsewhere(position);
                self.server.ledger.hit("event of another stream");
            }
            if let Written::Cut(how) = written {
                return self.cut_off(how).await.map(Some);
            }
        }
        Ok(None)
    }

    /// Brings what there is, and then what comes.
    async fn follow(&mut self, part: &Part) -> io::Result<Kept> {
        let mut position = part.from;
        loop {
            let log = self.log;
            let changed = log.changed.notified();
            let (entry, over) = match position < part.end {
                true => log.at(position),
                false => (None, false),
            };
            if let Some(entry) = entry {
                let repeated = position < part.new_from;
                if let Some(kept) = self.bring(position, &entry, repeated).await? {
                    return Ok(kept);
                }
                position += 1;
                self.sent += u32::from(entry.what != What::Priming && !repeated);
                continue;
            }
            if over {
                return self.writer.end().await;
            }
            if part.polls_after.is_some_and(|after| self.sent >= after) {
                return self.end_to_be_polled().await;
            }
            if let Some(kept) = self.wait(changed).await? {
                return Ok(kept);
            }
        }
    }

    async fn bring(
        &mut self,
        position: usize,
        entry: &Entry,
        repeated: bool,
    ) -> io::Result<Option<Kept>> {
        // What has no id is in no log: it leaves once.
        if entry.id.is_none() && (repeated || entry.sent) {
            return Ok(None);
        }
        let (written, whole) = self.writer.event(entry).await?;
        if whole {
            self.left(position, entry, repeated);
        }
        match written {
            Written::Whole => Ok(None),
            Written::Cut(how) => self.cut_off(how).await.map(Some),
        }
    }

    async fn end_to_be_polled(&mut self) -> io::Result<Kept> {
        self.ticket.update(|fate| {
            if let Fate::Stream(stream) = fate {
                stream.polled = true;
            }
        });
        self.server.ledger.hit("polling close");
        self.writer.end().await
    }

    /// Waits for news.
    async fn wait(&mut self, changed: Notified<'_>) -> io::Result<Option<Kept>> {
        let comments = self.server.plan.server.comments;
        let quiet = comments.unwrap_or(Duration::from_secs(86_400));
        tokio::select! {
            biased;
            () = changed => {}
            () = self.session.gone.cancelled() => {
                self.writer.broke(How::Close);
                return Ok(Some(false));
            }
            by_peer = self.writer.conn.closed() => {
                if by_peer {
                    self.lost_under_way();
                }
                return Ok(Some(false));
            }
            () = tokio::time::sleep(quiet) => self.writer.comment().await?,
        }
        Ok(None)
    }

    /// The wire breaks in the middle of an event, or goes silent until the reader leaves.
    async fn cut_off(&mut self, how: How) -> io::Result<Kept> {
        self.server.fell_silent(self.session, how);
        let kept = self.writer.part(how).await?;
        if self.writer.left_by_reader {
            self.lost_under_way();
        }
        Ok(kept)
    }

    /// An event has left whole; whether for the first time.
    fn left(&mut self, position: usize, entry: &Entry, repeated: bool) -> bool {
        let Self {
            server,
            session,
            log,
            ticket,
            ..
        } = *self;
        let first = server.left(session, log, position, entry, ticket, repeated);
        let now = server.ledger.now();
        self.under_way.put(now, position, entry, first);
        first
    }

    fn lost_under_way(&mut self) {
        let under_way = std::mem::take(&mut self.under_way);
        let Self {
            server,
            session,
            log,
            ticket,
            ..
        } = *self;
        server.lost_under_way(session, log, ticket, under_way);
    }
}
