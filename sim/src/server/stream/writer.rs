//! The bytes of one connection's event stream, up to where it is to break.

use std::fmt::Write as _;
use std::io;

use super::super::log::{Entry, What};
use super::super::visit::Ticket;
use super::super::{Kept, Server, modern};
use crate::fault::{Fault, How, Spot};
use crate::http1::Conn;
use crate::ledger::Fate;
use crate::plan::Framing;

/// How writing an event ended.
pub(super) enum Written {
    Whole,
    Cut(How),
}

pub(super) struct Writer<'a> {
    server: &'a Server,
    pub(super) conn: &'a mut Conn,
    ticket: &'a Ticket<'a>,
    tag: Option<String>,
    cut: Option<(How, u32, Spot)>,
    /// Events so far; the head is event 0.
    count: u32,
    /// The reader closed the connection.
    pub(super) left_by_reader: bool,
}

impl<'a> Writer<'a> {
    pub(super) fn new(
        server: &'a Server,
        conn: &'a mut Conn,
        ticket: &'a Ticket<'a>,
        tag: Option<String>,
        cut: Option<Fault>,
    ) -> Self {
        let cut = match cut {
            Some(Fault::Cut { how, event, spot }) => Some((how, event, spot)),
            _ => None,
        };
        Self {
            server,
            conn,
            ticket,
            tag,
            cut,
            count: 0,
            left_by_reader: false,
        }
    }

    /// Writes the head and what opens the body. The second value tells whether the reader has the
    /// body's opening whole.
    pub(super) async fn head(&mut self, opening: &str) -> io::Result<(Written, bool)> {
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

    pub(super) async fn comment(&mut self) -> io::Result<()> {
        let end = self.server.plan.server.line_end;
        let bytes = self.framed(format!(": quiet{end}{end}").as_bytes());
        self.conn.write(&bytes).await
    }

    /// Writes an event. The second value tells whether the reader has it whole.
    pub(super) async fn event(&mut self, entry: &Entry) -> io::Result<(Written, bool)> {
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
    pub(super) async fn end(&mut self) -> io::Result<Kept> {
        if self.server.plan.server.framing == Framing::UntilClose {
            return Ok(false);
        }
        self.conn.write(b"0\r\n\r\n").await?;
        Ok(true)
    }

    /// Notes that the stream breaks now.
    pub(super) fn broke(&self, how: How) {
        let now = self.server.ledger.now();
        self.ticket.update(|fate| {
            if let Fate::Stream(stream) = fate {
                stream.broke = Some((now, how));
            }
        });
    }

    /// Breaks the stream.
    pub(super) async fn part(&mut self, how: How) -> io::Result<Kept> {
        self.broke(how);
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
