//! What can go wrong on purpose, by name.

use std::time::Duration;

/// What the server does with one request instead of answering it well.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Fault {
    /// The connection is closed in order when the request has been read; nothing was executed.
    CloseUnexecuted,
    /// The request is read and the connection reset; nothing was executed.
    ResetUnexecuted,
    /// The request is executed and the connection reset before the head.
    ResetExecuted,
    /// The request is executed and nothing is ever said about it.
    HangHead,
    /// A status and nothing executed; with a JSON-RPC error as its body or without.
    Status { status: u16, error: bool },
    /// 429 or 503, with `Retry-After` in seconds, as a date, or (429) without.
    Busy { status: u16, after: After },
    /// The server has forgotten the session, and says so: 404, or 400 with words about it.
    Forget { status: u16 },
    /// A redirect: to the same place by another path, or where it must not be followed. A 303 that a
    /// POST cannot follow comes after executing it.
    Redirect { status: u16, good: bool },
    /// 202 to a request.
    Accepted,
    /// 200 without a body.
    Empty,
    /// 200 of a foreign type, after executing the request.
    WrongType,
    /// A JSON answer that breaks off.
    Truncated,
    /// The stream breaks at an event of this connection, the head counted as event 0.
    Cut { how: How, event: u32, spot: Spot },
}

/// How long a busy server asks for.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum After {
    Absent,
    Seconds(u64),
    Date(u64),
}

/// How a stream breaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum How {
    /// In order: the body ends as if it were complete.
    End,
    /// The sender closes the connection; framing may show that something is missing.
    Close,
    /// Reset.
    Reset,
    /// Nothing comes any more and the connection stays.
    Silence,
}

/// Where in an event a stream breaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Spot {
    /// Before its first byte: the event is logged and not sent.
    Before,
    /// At this share of its bytes, in 1/256.
    Inside(u8),
    /// Inside a character of several bytes.
    Character,
    /// Between the line of its id and that of its data.
    IdData,
    /// Between a CR and its LF.
    CrLf,
    /// Before the blank line that ends it.
    Unfinished,
    /// After its last byte.
    After,
}

impl Fault {
    /// Whether a request is executed before it is answered so, or not at all.
    pub(crate) fn executes(&self) -> bool {
        matches!(
            self,
            Self::ResetExecuted
                | Self::HangHead
                | Self::WrongType
                | Self::Redirect {
                    status: 303,
                    good: false
                }
        )
    }

    /// The name in reports.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::CloseUnexecuted => "close: before execution",
            Self::ResetUnexecuted => "reset: before execution",
            Self::ResetExecuted => "reset: executed, no head",
            Self::HangHead => "hang: no head",
            Self::Status { status, .. } => match status {
                400 => "status 400",
                401 | 403 => "status 401/403",
                404 => "status 404 (no session)",
                405 => "status 405",
                408 => "status 408",
                409 => "status 409",
                204 => "status 204",
                500 => "status 500",
                502 | 504 => "status 502/504",
                503 => "status 503 bare",
                501 | 505 => "status 501/505",
                _ => "status other",
            },
            Self::Busy {
                status: 429,
                after: After::Absent,
            } => "429 bare",
            Self::Busy { status: 429, .. } => "429 Retry-After",
            Self::Busy {
                after: After::Date(_),
                ..
            } => "503 Retry-After date",
            Self::Busy { .. } => "503 Retry-After seconds",
            Self::Forget { status: 404 } => "session lost: 404",
            Self::Forget { .. } => "session lost: 400",
            Self::Redirect { good: true, .. } => "redirect",
            Self::Redirect { .. } => "redirect refused",
            Self::Accepted => "202 to a request",
            Self::Empty => "empty 200",
            Self::WrongType => "wrong content type",
            Self::Truncated => "truncated JSON",
            Self::Cut { how, .. } => match how {
                How::End => "stream: clean end",
                How::Close => "stream: connection closed",
                How::Reset => "stream: reset",
                How::Silence => "stream: silence",
            },
        }
    }
}

impl Spot {
    /// The name in reports.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Before => "cut: before an event",
            Self::Inside(_) => "cut: inside an event",
            Self::Character => "cut: inside a character",
            Self::IdData => "cut: between id and data",
            Self::CrLf => "cut: between CR and LF",
            Self::Unfinished => "cut: before the blank line",
            Self::After => "cut: after an event",
        }
    }

    /// The byte of `event` where the stream breaks, if it has such a place.
    pub(crate) fn find(self, event: &[u8]) -> Option<usize> {
        match self {
            Self::Before => Some(0),
            Self::After => Some(event.len()),
            Self::Inside(share) => Some(event.len() * usize::from(share) / 256),
            Self::Character => event
                .iter()
                .position(|byte| byte & 0b1100_0000 == 0b1000_0000),
            Self::IdData => event
                .windows(6)
                .position(|bytes| &bytes[1..] == b"data:" && matches!(bytes[0], b'\n' | b'\r'))
                .map(|at| at + 1),
            Self::CrLf => event
                .windows(2)
                .position(|pair| pair == b"\r\n")
                .map(|at| at + 1),
            Self::Unfinished => {
                event
                    .len()
                    .checked_sub(if event.ends_with(b"\r\n") { 2 } else { 1 })
            }
        }
    }
}

/// What befalls one process of a server on pipes.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct ChildPlan {
    pub(crate) start: Start,
    /// Where its output breaks off: in which line, at which of its bytes.
    pub(crate) cut: Option<(How, u32, Spot)>,
    pub(crate) stubborn: Stubborn,
}

impl ChildPlan {
    /// The name of its output's end in reports.
    pub(crate) fn name(how: How) -> &'static str {
        match how {
            How::End => "child: exits",
            How::Close => "child: closes its stdout",
            How::Reset => "child: crashes",
            How::Silence => "child: hangs",
        }
    }
}

/// How a process begins.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) enum Start {
    #[default]
    Well,
    /// The operating system does not start it.
    Refused,
    /// It does nothing for so long.
    Slow(Duration),
    /// It exits before it has read anything.
    Exits,
    /// It exits when it has read the `initialize`.
    ExitsInHandshake,
    /// It crashes in the middle of its answer to that.
    ExitsInAnswer,
}

impl Start {
    /// The name in reports, of a bad one.
    pub(crate) fn name(self) -> Option<&'static str> {
        match self {
            Self::Well => None,
            Self::Refused => Some("child: does not start"),
            Self::Slow(_) => Some("child: starts slowly"),
            Self::Exits => Some("child: exits at its start"),
            Self::ExitsInHandshake => Some("child: exits in the handshake"),
            Self::ExitsInAnswer => Some("child: crashes in its first answer"),
        }
    }
}

/// Whether a process ends when it is asked to.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) enum Stubborn {
    #[default]
    Never,
    /// Not when its stdin ends.
    Once,
    /// Nor by SIGTERM.
    Always,
}

impl Stubborn {
    /// The name in reports, when it was.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Never => "child: ends when asked",
            Self::Once => "child: ignores the end of its stdin",
            Self::Always => "child: must be killed",
        }
    }
}

/// Something that happens to everybody at once.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Disaster {
    /// New connections are refused for so long.
    Refuse(Duration),
    /// New connections are neither made nor refused for so long.
    HangDial(Duration),
    /// All connections are reset.
    ResetAll,
    /// All connections are reset, new ones refused for so long; then the server is back, with its
    /// sessions and logs or without.
    Restart { down: Duration, keeps_log: bool },
    /// The server forgets all sessions and keeps quiet about it.
    ForgetAll,
}

impl Disaster {
    /// The name in reports.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Refuse(_) => "upstream refuses",
            Self::HangDial(_) => "upstream hangs on connect",
            Self::ResetAll => "all connections reset",
            Self::Restart {
                keeps_log: true, ..
            } => "restart with log",
            Self::Restart { .. } => "restart without log",
            Self::ForgetAll => "all sessions forgotten",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spots_are_where_their_names_say() {
        let event = "id: 7\r\ndata: é\r\n\r\n".as_bytes();
        let cut = |spot: Spot| &event[..spot.find(event).unwrap()];
        assert_eq!(cut(Spot::IdData), b"id: 7\r\n");
        assert_eq!(cut(Spot::CrLf), b"id: 7\r");
        assert_eq!(cut(Spot::Character), b"id: 7\r\ndata: \xc3");
        assert_eq!(cut(Spot::Unfinished), "id: 7\r\ndata: é\r\n".as_bytes());
        assert_eq!(Spot::CrLf.find(b"data: x\n\n"), None);
    }
}
