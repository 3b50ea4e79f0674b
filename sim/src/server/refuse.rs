//! Answers that are none: what the server does to a request on which a fault falls.

use std::io;
use std::time::Duration;

use serde_json::Value;
use tokio::time::timeout;

use super::sse::endpoint;
use super::visit::Ticket;
use super::{Kept, Server, Session};
use crate::fault::{After, Fault};
use crate::http1::Conn;
use crate::ledger::Fate;
use crate::plan::Transport;

impl Server {
    /// Does to a GET or a subscription what the fault says, unless that is to break its stream:
    /// `None`, and nothing was done.
    pub(super) async fn refuse_stream(
        &self,
        conn: &mut Conn,
        session: &Session,
        ticket: &Ticket<'_>,
        fault: Option<&Fault>,
    ) -> Option<io::Result<Kept>> {
        let fault = fault.filter(|fault| !matches!(fault, Fault::Cut { .. }))?;
        self.ledger.hit(fault.name());
        Some(
            self.refuse(conn, session, ticket, fault, &Value::Null)
                .await,
        )
    }

    /// Does to a request what the fault says.
    pub(super) async fn refuse(
        &self,
        conn: &mut Conn,
        session: &Session,
        ticket: &Ticket<'_>,
        fault: &Fault,
        id: &Value,
    ) -> io::Result<Kept> {
        match *fault {
            Fault::CloseUnexecuted | Fault::Truncated | Fault::Cut { .. } => {
                ticket.settle(Fate::NoHead);
                Ok(false)
            }
            Fault::ResetUnexecuted | Fault::ResetExecuted => {
                ticket.settle(Fate::NoHead);
                conn.wire.cutter().reset();
                Ok(false)
            }
            Fault::HangHead => {
                ticket.settle(Fate::Hangs);
                conn.closed().await;
                Ok(false)
            }
            Fault::Status { status, error } => {
                let id = Some(id).filter(|id| error && !id.is_null());
                self.fail(conn, ticket, status, id).await
            }
            Fault::Busy { status, after } => busy(conn, ticket, status, after).await,
            Fault::Forget { status } => self.forget_and_say(conn, session, ticket, status).await,
            Fault::Redirect { status, good } => {
                ticket.settle(Fate::Redirected { good });
                let place = self.other_place(session, good);
                let redirect = response(status, &[("location", &place)], "");
                conn.write(&redirect).await?;
                Ok(true)
            }
            Fault::Accepted => {
                ticket.settle(Fate::NoAnswer);
                plain(conn, 202, "").await
            }
            Fault::Empty => {
                ticket.settle(Fate::NoAnswer);
                plain(conn, 200, "").await
            }
            Fault::WrongType => {
                ticket.settle(Fate::NoAnswer);
                let page = response(200, &[("content-type", "text/html")], "<p>hello</p>");
                conn.write(&page).await?;
                Ok(true)
            }
        }
    }

    /// Answers with a status that means failure; with a JSON-RPC error where there is an id for it.
    async fn fail(
        &self,
        conn: &mut Conn,
        ticket: &Ticket<'_>,
        status: u16,
        id: Option<&Value>,
    ) -> io::Result<Kept> {
        ticket.settle(Fate::Status(status));
        let (kind, body) = match id {
            Some(id) => {
                let body = format!(
                    r#"{{"jsonrpc":"2.0","id":{id},"error":{{"code":-32050,"message":"the server's own error, of a session with its database"}}}}"#
                );
                ("application/json", body)
            }
            None => ("text/plain", String::new()),
        };
        if self.plan.server.stalls && status != 204 {
            return stall(conn, ticket, status, kind, &body).await;
        }
        conn.write(&response(status, &[("content-type", kind)], &body))
            .await?;
        Ok(true)
    }

    /// Forgets the session and says so, where there is one to forget.
    async fn forget_and_say(
        &self,
        conn: &mut Conn,
        session: &Session,
        ticket: &Ticket<'_>,
        status: u16,
    ) -> io::Result<Kept> {
        let server = &self.plan.server;
        if !server.sessions || server.transport == Transport::Modern {
            ticket.settle(Fate::Status(status));
            return plain(conn, status, "").await;
        }
        ticket.settle(Fate::SessionLost);
        self.forget(session);
        if status == 404 {
            return plain(conn, 404, "").await;
        }
        self.unknown_session(conn, status).await
    }

    /// Where a redirect leads: to where the request is answered, or to where nobody may go.
    fn other_place(&self, session: &Session, good: bool) -> String {
        let is_sse = self.plan.server.transport == Transport::Sse;
        match good {
            true if is_sse && !session.name.is_empty() => endpoint(&session.name),
            true => "/mcp/moved".to_owned(),
            false => "ftp://elsewhere/mcp".to_owned(),
        }
    }
}

/// Answers that it has no time, and perhaps when it will have.
async fn busy(conn: &mut Conn, ticket: &Ticket<'_>, status: u16, after: After) -> io::Result<Kept> {
    let (seconds, fields) = match after {
        After::Absent => (None, String::new()),
        After::Seconds(n) => (Some(n), format!("retry-after: {n}\r\n")),
        After::Date(n) => {
            let (minute, second) = (n / 60, n % 60);
            let fields = format!(
                "date: Sun, 06 Nov 1994 08:00:00 GMT\r\n\
                 retry-after: Sun, 06 Nov 1994 08:{minute:02}:{second:02} GMT\r\n"
            );
            (Some(n), fields)
        }
    };
    ticket.settle(Fate::Busy { status, seconds });
    let head = format!("HTTP/1.1 {status} Busy\r\n{fields}content-length: 0\r\n\r\n");
    conn.write(head.as_bytes()).await?;
    Ok(true)
}

/// How long the peer waits for the rest of the body of a failure.
const REST: Duration = Duration::from_secs(1);

/// A response whose body lacks its last bytes, which never come.
async fn stall(
    conn: &mut Conn,
    ticket: &Ticket<'_>,
    status: u16,
    kind: &str,
    body: &str,
) -> io::Result<Kept> {
    const MISSING: &str = "\n\n";
    let whole = response(
        status,
        &[("content-type", kind)],
        &format!("{body}{MISSING}"),
    );
    conn.write(&whole[..whole.len() - MISSING.len()]).await?;
    if timeout(REST, conn.closed()).await.is_err() {
        // Only by now the peer goes by the status.
        ticket.settle(Fate::Status(status));
        conn.closed().await;
    }
    Ok(false)
}

pub(super) fn response(status: u16, fields: &[(&str, &str)], body: &str) -> Vec<u8> {
    use std::fmt::Write as _;
    let mut text = format!("HTTP/1.1 {status} Sim\r\n");
    for (name, value) in fields {
        let _ = write!(text, "{name}: {value}\r\n");
    }
    if status != 204 {
        let _ = write!(text, "content-length: {}\r\n", body.len());
    }
    let _ = write!(text, "\r\n{body}");
    text.into_bytes()
}

pub(super) async fn plain(conn: &mut Conn, status: u16, body: &str) -> io::Result<Kept> {
    conn.write(&response(status, &[("content-type", "text/plain")], body))
        .await?;
    Ok(true)
}

pub(super) async fn json_body(conn: &mut Conn, status: u16, body: &str) -> io::Result<Kept> {
    conn.write(&response(
        status,
        &[("content-type", "application/json")],
        body,
    ))
    .await?;
    Ok(true)
}
