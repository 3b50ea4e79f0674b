//! The one table from what went wrong to what is done about it (`docs/resilience.md`).
//!
//! Rows are what happened ([`Trouble`]), columns are what it happened to ([`Leg`]), cells are
//! [`Decision`]s. What the table does not know: how often, how long and when. That is the policy's
//! business.

use std::time::{Duration, SystemTime};

use http::{HeaderMap, StatusCode};

use super::fault::{Executed, FaultKind};
use super::hint;
use super::policy::CONFLICT_FLOOR;

/// What went wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trouble {
    /// No connection (name, TCP, a timeout of those, a child that did not start): not a byte was
    /// written.
    NoConnection,
    /// TLS refused the peer: its certificate, or no common version.
    Tls,
    /// The server certainly did not process the request: HTTP/2 REFUSED_STREAM, or GOAWAY with a
    /// lower stream (RFC 9113, sections 8.7 and 6.8).
    NotProcessed,
    /// Reset or timeout before the response head.
    NoHead,
    /// A status other than 200, redirects that were followed excepted.
    Refused(Refusal),
    /// A redirect that must not be followed; see [`may_follow`].
    Redirected {
        /// It asks for the same request elsewhere: nothing was done with this one (307 and 308).
        keeps_method: bool,
    },
    /// 202, or a 200 without a body.
    NoAnswer,
    /// A success of a content type that is none of ours.
    WrongType,
    /// A JSON body that broke off.
    Truncated,
    /// A JSON body that is no response to the request.
    NoResponse,
    /// No session came of a handshake: the server answered it with a refusal, or with nonsense.
    NoSession {
        /// When it wants to be asked again, not clamped.
        retry_after: Option<Duration>,
    },
    /// The stream ended in order; a session was lost, or the child that carried it.
    Ended,
    /// The stream broke.
    Reset,
    /// Nothing came for too long.
    Silent,
    /// A line or an event is over its limit.
    TooLarge,
    /// The memory for unfinished events stayed used up.
    NoMemory,
}

impl Trouble {
    /// A redirect of this status that is not followed. 303 answers a request that was processed, of
    /// 301 and 302 it cannot be known (RFC 9110, section 15.4).
    #[must_use]
    pub fn redirected(status: StatusCode) -> Self {
        Self::Redirected {
            keeps_method: keeps_method(status),
        }
    }

    /// The name in metrics and logs.
    #[must_use]
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::NoConnection => "no_connection",
            Self::Tls => "tls",
            Self::NotProcessed => "not_processed",
            Self::NoHead => "no_head",
            Self::Refused(_) => "refused",
            Self::Redirected { .. } => "redirected",
            Self::NoAnswer => "no_answer",
            Self::WrongType => "wrong_type",
            Self::Truncated => "truncated",
            Self::NoResponse => "no_response",
            Self::NoSession { .. } => "no_session",
            Self::Ended => "ended",
            Self::Reset => "reset",
            Self::Silent => "silent",
            Self::TooLarge => "too_large",
            Self::NoMemory => "no_memory",
        }
    }
}

/// A status that means failure, with what decides about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refusal {
    /// The status.
    pub status: StatusCode,
    /// `Retry-After`, not clamped.
    pub retry_after: Option<Duration>,
    /// The request carried our session id.
    pub session_sent: bool,
    /// The body speaks of the session (MCP: the word, or one of the codes that servers use).
    pub about_session: bool,
}

impl Refusal {
    /// Reads a head; `wall` is the time that a date in `Retry-After` is measured against when the
    /// response has no `Date`. No session was sent.
    #[must_use]
    pub fn new(status: StatusCode, headers: &HeaderMap, wall: SystemTime) -> Self {
        Self {
            status,
            retry_after: hint::retry_after(headers, wall),
            session_sent: false,
            about_session: false,
        }
    }

    /// The same for a request that carried a session id.
    #[must_use]
    pub fn in_session(mut self, about_session: bool) -> Self {
        self.session_sent = true;
        self.about_session = about_session;
        self
    }

    /// The server has such a stream already.
    pub(crate) fn is_conflict(&self) -> bool {
        self.status == StatusCode::CONFLICT
    }

    /// The server does not know the session.
    fn session_lost(&self) -> bool {
        self.session_sent
            && (self.status == StatusCode::NOT_FOUND
                || self.status == StatusCode::BAD_REQUEST && self.about_session)
    }
}

/// What it happened to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Leg {
    /// The POST itself, its answer's stream included.
    Post,
    /// The GET that resumes the answer of a POST.
    Resume,
    /// A stream that stands by itself: standalone, listen, HTTP+SSE, a session.
    Standing,
}

/// What the table needs to know of the stream besides.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Facts {
    /// There is a committed cursor that may be used.
    pub cursor: bool,
    /// The attempt before failed in this same row.
    pub repeated: bool,
}

/// What is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// Wait, then come back: with the cursor where there is one, on a standing stream without one
    /// plainly.
    Return {
        /// At least so long.
        floor: Duration,
        /// What the server asked for.
        hint: Option<Hint>,
    },
    /// The POST was certainly not processed: send it again, if there is time.
    SendAgain {
        /// What the server asked for.
        hint: Option<Hint>,
        /// What the request fails with when there is no time.
        or: FaultKind,
    },
    /// Forget the cursor and come back once without.
    DropCursor,
    /// The stream is over.
    Fail(FaultKind, Executed),
    /// A standing stream rests, visibly.
    Park(Parking),
    /// The session is gone: a new one is needed, and this stream ends.
    SessionLost,
}

/// A server's wish for a wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hint {
    /// How long; not clamped.
    pub wait: Duration,
    /// Whether it holds for all streams of the origin (503) or for this one (429).
    pub origin_wide: bool,
}

/// Why a standing stream is parked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Parking {
    /// 405: the server has no such stream. Not an error; no probes.
    NotOffered,
    /// A status that will not change in this session; no probes.
    Refused,
    /// 401 or 403.
    Challenged,
    /// A certificate error, 501, 505 or a redirect that must not be followed.
    Unreachable,
    /// No event stream, twice in a row.
    WrongType,
    /// A line or an event over its limit. The cursor is dropped: a replay would bring it again.
    TooLarge,
    /// The retry budget is used up.
    OutOfBudget,
}

impl Parking {
    /// Whether the stream is probed from time to time, or waits for a new session.
    #[must_use]
    pub fn is_probed(self) -> bool {
        !matches!(self, Self::NotOffered | Self::Refused)
    }

    /// The name in metrics and logs.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NotOffered => "not_offered",
            Self::Refused => "refused",
            Self::Challenged => "challenged",
            Self::Unreachable => "unreachable",
            Self::WrongType => "wrong_type",
            Self::TooLarge => "too_large",
            Self::OutOfBudget => "out_of_budget",
        }
    }
}

/// Whether a redirect of this status may be followed at all. Where to is for the shell to check:
/// the same origin, never from https to http, at most [`MAX_REDIRECTS`].
#[must_use]
pub fn may_follow(status: StatusCode, leg: Leg) -> bool {
    match status.as_u16() {
        _ if keeps_method(status) => true,
        301..=303 => leg != Leg::Post,
        _ => false,
    }
}

/// Whether a redirect is of the request as it is (RFC 9110, sections 15.4.8 and 15.4.9).
fn keeps_method(status: StatusCode) -> bool {
    status == StatusCode::TEMPORARY_REDIRECT || status == StatusCode::PERMANENT_REDIRECT
}

/// How many redirects of one request are followed.
pub const MAX_REDIRECTS: u8 = 5;

/// Looks the table up.
#[must_use]
pub fn classify(trouble: &Trouble, leg: Leg, facts: Facts) -> Decision {
    let row = row(trouble, facts);
    match leg {
        Leg::Post => row.post,
        Leg::Resume => row.resume,
        Leg::Standing => row.standing,
    }
}

struct Row {
    post: Decision,
    resume: Decision,
    standing: Decision,
}

impl Row {
    fn new(post: Decision, resume: Decision, standing: Decision) -> Self {
        Self {
            post,
            resume,
            standing,
        }
    }
}

/// The executed-or-not of a resume GET's failure is that of its POST: unknown.
fn fail(kind: FaultKind) -> Decision {
    Decision::Fail(kind, Executed::Unknown)
}

/// Certainly not executed.
fn untouched(kind: FaultKind) -> Decision {
    Decision::Fail(kind, Executed::No)
}

fn back() -> Decision {
    Decision::Return {
        floor: Duration::ZERO,
        hint: None,
    }
}

fn row(trouble: &Trouble, facts: Facts) -> Row {
    use Decision::{Park, Return, SendAgain};
    use FaultKind as F;
    let resumed = |kind| if facts.cursor { back() } else { fail(kind) };
    let again = |or| SendAgain { hint: None, or };
    match trouble {
        Trouble::Ended | Trouble::Reset | Trouble::Silent => {
            Row::new(resumed(F::StreamEnded), resumed(F::StreamEnded), back())
        }
        Trouble::NoMemory => Row::new(resumed(F::Overloaded), resumed(F::Overloaded), back()),
        Trouble::NoConnection => Row::new(again(F::Connect), back(), back()),
        Trouble::NotProcessed => Row::new(again(F::ConnectionLost), back(), back()),
        Trouble::NoHead => Row::new(fail(F::ConnectionLost), back(), back()),
        Trouble::Tls => Row::new(untouched(F::Tls), fail(F::Tls), Park(Parking::Unreachable)),
        Trouble::Redirected { keeps_method } => Row::new(
            if *keeps_method {
                untouched(F::Redirect)
            } else {
                fail(F::Redirect)
            },
            fail(F::Redirect),
            Park(Parking::Unreachable),
        ),
        Trouble::WrongType => {
            let standing = if facts.repeated {
                Park(Parking::WrongType)
            } else {
                back()
            };
            Row::new(fail(F::ContentType), back(), standing)
        }
        Trouble::NoAnswer | Trouble::Truncated | Trouble::NoResponse => {
            let kind = match trouble {
                Trouble::NoAnswer => F::ContentType,
                Trouble::Truncated => F::ConnectionLost,
                _ => F::BadResponse,
            };
            let standing = if facts.repeated {
                Park(Parking::WrongType)
            } else {
                back()
            };
            Row::new(fail(kind), fail(kind), standing)
        }
        Trouble::NoSession { retry_after } => {
            let hint = retry_after.map(|wait| Hint {
                wait,
                origin_wide: false,
            });
            let again = Return {
                floor: Duration::ZERO,
                hint,
            };
            Row::new(fail(F::BadResponse), fail(F::BadResponse), again)
        }
        Trouble::TooLarge => Row::new(
            fail(F::TooLarge),
            fail(F::TooLarge),
            Park(Parking::TooLarge),
        ),
        Trouble::Refused(refusal) => refused(refusal, facts),
    }
}

fn refused(refusal: &Refusal, facts: Facts) -> Row {
    use Decision::{DropCursor, Park, Return, SendAgain, SessionLost};
    use FaultKind as F;
    if refusal.session_lost() {
        return Row::new(SessionLost, SessionLost, SessionLost);
    }
    let after = refusal.retry_after;
    let hint = after.map(|wait| Hint {
        wait,
        origin_wide: refusal.status == StatusCode::SERVICE_UNAVAILABLE,
    });
    let wait = Return {
        floor: Duration::ZERO,
        hint,
    };
    let busy = SendAgain {
        hint,
        or: F::RateLimited,
    };
    let conflict = Return {
        floor: CONFLICT_FLOOR,
        hint: None,
    };
    match refusal.status.as_u16() {
        429 => Row::new(busy, wait, wait),
        503 if after.is_some() => Row::new(busy, wait, wait),
        401 | 403 => Row::new(
            untouched(F::Unauthorized),
            fail(F::Unauthorized),
            Park(Parking::Challenged),
        ),
        400 if facts.cursor => Row::new(fail(F::Status), fail(F::CursorRejected), DropCursor),
        405 => Row::new(
            untouched(F::Status),
            fail(F::NotResumable),
            Park(Parking::NotOffered),
        ),
        409 => Row::new(fail(F::Status), conflict, conflict),
        501 | 505 => Row::new(fail(F::Status), fail(F::Status), Park(Parking::Unreachable)),
        408 | 425 | 500..=599 => Row::new(fail(F::Status), wait, wait),
        // Nobody there takes it, or nobody takes it as it is (RFC 9110, section 15.5; RFC 6585,
        // section 5): said before anything is done.
        404 | 410 | 413..=415 | 421 | 431 => Row::new(
            untouched(F::Status),
            fail(F::Status),
            Park(Parking::Refused),
        ),
        // 204 and everything else: it will not change in this session.
        _ => Row::new(fail(F::Status), fail(F::Status), Park(Parking::Refused)),
    }
}

#[cfg(test)]
mod tests;
