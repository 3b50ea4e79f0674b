//! One connection's event stream, and where it breaks.

use std::fmt::Write as _;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use super::log::{Entry, Log, What};
use super::modern;
use super::visit::Ticket;
use super::{Kept, Server, Session};
use crate::fault::{Fault, How, Spot};
use crate::http1::Conn;
use crate::ledger::{Fate, StreamFate};
use crate::plan::Framing;

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

/// How writing an event ended.
enum Written {
    Whole,
    Cut(How),
}

struct Writer<'a> {
    server: &'a Server,
    conn: &'a mut Conn,
    ticket: &'a Ticket<'a>,
    tag: Option<String>,
    cut: Option<(How, u32, Spot)>,
    /// Events so far; the head is event 0.
    count: u32,
    /// The reader closed the connection.
    left_by_reader: bool,
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
        let cut = match course.cut {
            Some(Fault::Cut { how, event, spot }) => Some((how, event, spot)),
            _ => None,
        };
        ticket.settle(Fate::Stream(StreamFate::default()));
        let mut writer = Writer {
            server: self,
            conn,
            ticket,
            tag: course.tag,
            cut,
            count: 0,
            left_by_reader: false,
        };
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
        let (written, whole) = writer.head(&opening).await?;
        ticket.update(|fate| {
            if let Fate::Stream(stream) = fate {
                stream.opened = matches!(written, Written::Whole);
                stream.new_messages += u32::from(course.greets && whole);
            }
        });
        if let Written::Cut(how) = written {
            self.fell_silent(session, how);
            return writer.part(how).await;
        }
        let mut position = course.from;
        let end = match course.store_only {
            true => log.len(),
            false => usize::MAX,
        };
        let mut sent = 0;
        let mut under_way = UnderWay::default();
        for (of, position, mut entry) in course.replayed {
            let own = std::ptr::eq(&*of, log);
            if !own && entry.what == What::Priming {
                // As the TypeScript SDK stores it.
                (entry.what, entry.payload) = (What::Greeting, "{}".to_owned());
            }
            let (written, whole) = writer.event(&entry).await?;
            if whole && own {
                let first = self.left(session, log, position, &entry, ticket, false);
                under_way.put(self.ledger.now(), position, &entry, first);
                sent += u32::from(first && entry.what != What::Priming);
            } else if whole {
                of.sent_elsewhere(position);
                self.ledger.hit("event of another stream");
            }
            if let Written::Cut(how) = written {
                return self
                    .cut_off(session, log, &mut writer, how, under_way)
                    .await;
            }
        }
        loop {
            let changed = log.changed.notified();
            let (entry, over) = match position < end {
                true => log.at(position),
                false => (None, false),
            };
            if let Some(entry) = entry {
                let repeated = position < course.new_from;
                // What has no id is in no log: it leaves once.
                if entry.id.is_some() || !repeated && !entry.sent {
                    let (written, whole) = writer.event(&entry).await?;
                    if whole {
                        let first = self.left(session, log, position, &entry, ticket, repeated);
                        under_way.put(self.ledger.now(), position, &entry, first);
                    }
                    if let Written::Cut(how) = written {
                        return self
                            .cut_off(session, log, &mut writer, how, under_way)
                            .await;
                    }
                }
                position += 1;
                sent += u32::from(entry.what != What::Priming && !repeated);
                continue;
            }
            if over {
                return writer.end().await;
            }
            if course.polls_after.is_some_and(|after| sent >= after) {
                ticket.update(|fate| {
                    if let Fate::Stream(stream) = fate {
                        stream.polled = true;
                    }
                });
                self.ledger.hit("polling close");
                return writer.end().await;
            }
            let quiet = self
                .plan
                .server
                .comments
                .unwrap_or(Duration::from_secs(86_400));
            tokio::select! {
                biased;
                () = changed => {}
                () = session.gone.cancelled() => {
                    ticket.update(|fate| broke(fate, self.ledger.now(), How::Close));
                    return Ok(false);
                }
                by_peer = writer.conn.closed() => {
                    if by_peer {
                        self.lost_under_way(session, log, ticket, under_way);
                    }
                    return Ok(false);
                }
                () = tokio::time::sleep(quiet) => writer.comment().await?,
            }
        }
    }

    /// An event has left whole.
    pub(super) fn left(
        &self,
        session: &Session,
        log: &Log,
        position: usize,
        entry: &Entry,
        ticket: &Ticket<'_>,
        repeated: bool,
    ) -> bool {
        let first = log.sent(position);
        ticket.update(|fate| {
            if let Fate::Stream(stream) = fate {
                stream.ids |= entry.id.is_some();
                stream.new_ids |= first && entry.id.is_some();
                if entry.what == What::Response {
                    stream.answered = true;
                    stream.answered_at = Some(self.ledger.now());
                }
                let message = !matches!(entry.what, What::Priming | What::Greeting);
                stream.new_messages += u32::from(first && message);
            }
        });
        if repeated {
            self.ledger.hit("repeated event");
        }
        if !first {
            return false;
        }
        match (entry.what, log.call) {
            (What::Message(key, mark), _) => {
                self.ledger.call(key, |call| call.sent_whole.push(mark));
            }
            (What::Result(key), _) => self.ledger.call(key, |call| call.results_sent += 1),
            (What::Echo, Some(key)) if entry.id.is_none() => {
                self.ledger.call(key, |call| call.echoes_sent += 1)
            }
            (What::Notice(number), _) => self.ledger.with(|facts| {
                let facts = facts.sessions.entry(session.name.clone()).or_default();
                facts.notices_sent.push(number);
            }),
            _ => {}
        }
        true
    }

    /// The wire breaks in the middle of an event, or goes silent until the reader leaves.
    async fn cut_off(
        &self,
        session: &Session,
        log: &Log,
        writer: &mut Writer<'_>,
        how: How,
        under_way: UnderWay,
    ) -> io::Result<Kept> {
        self.fell_silent(session, how);
        let kept = writer.part(how).await?;
        if writer.left_by_reader {
            self.lost_under_way(session, log, writer.ticket, under_way);
        }
        Ok(kept)
    }

    /// The reader closed the connection: what was still on its way to it has not left.
    fn lost_under_way(
        &self,
        session: &Session,
        log: &Log,
        ticket: &Ticket<'_>,
        under_way: UnderWay,
    ) {
        let [proxy, _] = self.plan.upstream_wire;
        let mut travel = 2 * proxy.latency;
        if !proxy.pace.is_zero() {
            travel += Duration::from_secs(2);
        }
        if travel.is_zero() {
            return;
        }
        let since = self.ledger.now().saturating_sub(travel);
        let ids = |sent: &Sent| sent.entry.id.is_some();
        let (arrived, lost): (Vec<_>, Vec<_>) =
            under_way.0.into_iter().partition(|sent| sent.at < since);
        for sent in &lost {
            ticket.update(|fate| {
                if let Fate::Stream(stream) = fate {
                    stream.answered &= sent.entry.what != What::Response;
                    stream.ids = arrived.iter().any(ids);
                    stream.new_ids = arrived.iter().any(|sent| sent.first && ids(sent));
                }
            });
            if !sent.first {
                continue;
            }
            log.unsent(sent.position);
            match (sent.entry.what, log.call) {
                (What::Message(key, mark), _) => {
                    self.ledger
                        .call(key, |call| call.sent_whole.retain(|one| *one != mark));
                }
                (What::Notice(number), _) => self.ledger.with(|facts| {
                    let facts = facts.sessions.entry(session.name.clone()).or_default();
                    facts.notices_sent.retain(|one| *one != number);
                }),
                _ => {}
            }
            ticket.update(|fate| {
                if let Fate::Stream(stream) = fate
                    && sent.entry.what != What::Priming
                {
                    stream.new_messages = stream.new_messages.saturating_sub(1);
                }
            });
        }
    }
}

/// What a connection has carried, to tell what was on its way when it ended.
#[derive(Default)]
struct UnderWay(Vec<Sent>);

struct Sent {
    at: Duration,
    position: usize,
    entry: Entry,
    first: bool,
}

impl UnderWay {
    fn put(&mut self, at: Duration, position: usize, entry: &Entry, first: bool) {
        let entry = Entry {
            payload: String::new(),
            ..entry.clone()
        };
        self.0.push(Sent {
            at,
            position,
            entry,
            first,
        });
    }
}

fn broke(fate: &mut Fate, at: Duration, how: How) {
    if let Fate::Stream(stream) = fate {
        stream.broke = Some((at, how));
    }
}

impl Writer<'_> {
    /// Writes the head and what opens the body. The second value tells whether the reader has the
    /// body's opening whole.
    async fn head(&mut self, opening: &str) -> io::Result<(Written, bool)> {
        let chunked = self.server.plan.server.framing == Framing::Chunked;
        let framing = if chunked {
            "transfer-encoding: chunked"
        } else {
            "connection: close"
        };
        let head =
            format!("HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n{framing}\r\n\r\n");
        let mut bytes = head.into_bytes();
        bytes.extend(self.framed(opening.as_bytes()));
        self.put(&bytes, false, None).await
    }

    async fn comment(&mut self) -> io::Result<()> {
        let end = self.server.plan.server.line_end;
        let bytes = self.framed(format!(": quiet{end}{end}").as_bytes());
        self.conn.write(&bytes).await
    }

    /// Writes an event. The second value tells whether the reader has it whole.
    async fn event(&mut self, entry: &Entry) -> io::Result<(Written, bool)> {
        let bytes = self.render(entry);
        self.put(&bytes, true, entry.id.as_deref()).await
    }

    async fn put(
        &mut self,
        bytes: &[u8],
        framed: bool,
        id: Option<&str>,
    ) -> io::Result<(Written, bool)> {
        let here = self.cut.filter(|(_, event, _)| *event == self.count);
        self.count += 1;
        let Some((how, _, spot)) = here else {
            let out = if framed {
                self.framed(bytes)
            } else {
                bytes.to_vec()
            };
            self.conn.write(&out).await?;
            return Ok((Written::Whole, true));
        };
        let (spot, at) = match spot.find(bytes) {
            Some(at) => (spot, at),
            None => (Spot::Inside(128), bytes.len() / 2),
        };
        // In order, a body cannot end before its head has.
        let at = if how == How::End && !framed {
            bytes.len()
        } else {
            at
        };
        let out = if framed {
            self.framed(&bytes[..at])
        } else {
            bytes[..at].to_vec()
        };
        self.conn.write(&out).await?;
        self.server.ledger.hit(
            Fault::Cut {
                how,
                event: 0,
                spot,
            }
            .name(),
        );
        self.server.ledger.hit(spot.name());
        self.server.ledger.note(format_args!(
            "server   stream {how:?} {spot:?} at byte {at} of {} of event {} {id:?}",
            bytes.len(),
            self.count - 1,
        ));
        // What follows an opening in its chunk is framing.
        let chunked = self.server.plan.server.framing == Framing::Chunked;
        let end = bytes.len() - if chunked && !framed { 2 } else { 0 };
        let whole = at > 0 && (at >= end || at + 1 == end && bytes[..end].ends_with(b"\r\n"));
        Ok((Written::Cut(how), whole))
    }

    /// In the framing of the response's body.
    fn framed(&self, bytes: &[u8]) -> Vec<u8> {
        if self.server.plan.server.framing == Framing::UntilClose || bytes.is_empty() {
            return bytes.to_vec();
        }
        let mut out = format!("{:x}\r\n", bytes.len()).into_bytes();
        out.extend_from_slice(bytes);
        out.extend_from_slice(b"\r\n");
        out
    }

    fn render(&self, entry: &Entry) -> Vec<u8> {
        let payload = match &self.tag {
            Some(tag) => &entry.payload.replace(modern::TAG, tag),
            None => &entry.payload,
        };
        let server = &self.server.plan.server;
        let end = server.line_end;
        let mut text = String::new();
        if server.noise {
            self.noise(&mut text);
        }
        if let Some(id) = &entry.id {
            let id = match id.rsplit_once('/') {
                Some((_, number)) if server.counts => number,
                _ => id,
            };
            let _ = write!(text, "id: {id}{end}");
        }
        if entry.what == What::Priming {
            let _ = write!(text, "data:{end}{end}");
            return text.into_bytes();
        }
        if self.count.is_multiple_of(2) {
            let _ = write!(text, "event: message{end}");
        }
        match payload.split_once(",\"pad\"") {
            Some((head, tail)) if server.noise => {
                let _ = write!(text, "data: {head},{end}data: \"pad\"{tail}{end}{end}");
            }
            _ => {
                let _ = write!(text, "data: {payload}{end}{end}");
            }
        }
        text.into_bytes()
    }

    fn noise(&self, text: &mut String) {
        let end = self.server.plan.server.line_end;
        let _ = match self.count % 5 {
            0 => write!(text, "event: ping{end}data: {{}}{end}{end}"),
            1 => write!(text, "data: this is no JSON{end}{end}"),
            2 => write!(text, "unknown: field{end}:{end}"),
            3 => write!(text, "event: message{end}{end}"),
            _ => Ok(()),
        };
    }

    /// The end of the body, in order.
    async fn end(&mut self) -> io::Result<Kept> {
        if self.server.plan.server.framing == Framing::UntilClose {
            return Ok(false);
        }
        self.conn.write(b"0\r\n\r\n").await?;
        Ok(true)
    }

    /// Breaks the stream.
    async fn part(&mut self, how: How) -> io::Result<Kept> {
        let now = self.server.ledger.now();
        self.ticket.update(|fate| broke(fate, now, how));
        match how {
            How::End => self.end().await,
            How::Close => Ok(false),
            How::Reset => {
                self.conn.wire.cutter().reset();
                Ok(false)
            }
            How::Silence => {
                self.left_by_reader = self.conn.closed().await;
                self.server
                    .ledger
                    .note(format_args!("server   silent stream was closed"));
                Ok(false)
            }
        }
    }
}
