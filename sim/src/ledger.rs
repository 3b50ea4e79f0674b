//! What everybody saw and did. Peers write it while they run; the oracle reads it afterwards.
//!
//! The ledger holds facts only, in the peers' terms. It shares nothing with Shadowcat.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::fault::How;

/// A call by its client and its number there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct CallKey {
    pub(crate) client: usize,
    pub(crate) number: usize,
}

impl fmt::Display for CallKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.client, self.number)
    }
}

impl CallKey {
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let (client, number) = text.split_once('-')?;
        Some(Self {
            client: client.parse().ok()?,
            number: number.parse().ok()?,
        })
    }
}

/// What became of one HTTP request at the server.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Fate {
    /// Not answered yet.
    Pending,
    /// The connection was reset before a head; what was executed is in the call's executions.
    NoHead,
    /// Never answered.
    Hangs,
    /// A status; nothing was executed.
    Status(u16),
    /// Asked to come back later.
    Busy { status: u16, seconds: Option<u64> },
    /// The session is not known.
    SessionLost,
    /// A redirect that is to be followed, or not.
    Redirected { good: bool },
    /// A success without an answer.
    NoAnswer,
    /// A JSON body, whole or not.
    Json { whole: bool },
    /// An event stream.
    Stream(StreamFate),
    /// 202: the answer is to come on the session's stream (HTTP+SSE).
    Accepted,
}

/// What became of one connection's event stream.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct StreamFate {
    /// Whole events on this connection that are messages, repeated ones not counted.
    pub(crate) new_messages: u32,
    /// An id was sent with a whole event.
    pub(crate) ids: bool,
    /// One of them for the first time.
    pub(crate) new_ids: bool,
    /// The head was sent whole, and the `retry` behind it.
    pub(crate) opened: bool,
    /// It was closed on purpose, after a `retry` or a new id.
    pub(crate) polled: bool,
    /// How it broke and when.
    pub(crate) broke: Option<(Duration, How)>,
    /// The response was sent whole.
    pub(crate) answered: bool,
    /// When.
    pub(crate) answered_at: Option<Duration>,
}

/// One HTTP request at the server.
#[derive(Debug, Clone)]
pub(crate) struct Visit {
    /// In the order of all visits.
    pub(crate) order: u64,
    pub(crate) at: Duration,
    pub(crate) session: String,
    /// `Last-Event-ID`.
    pub(crate) cursor: Option<String>,
    pub(crate) fate: Fate,
    /// When the fate was settled.
    pub(crate) until: Duration,
}

/// A message of the server's, by the execution that made it and its number there.
pub(crate) type Mark = (u32, u32);

/// How a client's request ended.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Outcome {
    /// A result, made by this execution.
    Result(u32),
    /// An error.
    Error(ErrorSeen),
    /// The client had no way back: its connection broke before it had an id.
    Abandoned,
    /// The HTTP edge answered with a status.
    Status(u16),
}

/// A JSON-RPC error as the client saw it.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct ErrorSeen {
    pub(crate) code: i64,
    pub(crate) text: String,
    /// `data.shadowcat`, if it has one.
    pub(crate) kind: Option<String>,
    pub(crate) executed: Option<String>,
    pub(crate) retry_safe: Option<bool>,
}

/// One request from the client to its outcome.
#[derive(Debug, Clone, Default)]
pub(crate) struct Call {
    pub(crate) sent: Option<Duration>,
    pub(crate) cancelled: Option<Duration>,
    pub(crate) posts: Vec<Visit>,
    pub(crate) gets: Vec<Visit>,
    pub(crate) executions: u32,
    /// Messages that were sent whole at least once.
    pub(crate) sent_whole: Vec<Mark>,
    /// Results that were sent whole on a stream for everything.
    pub(crate) results_sent: u32,
    /// Messages with an id of their own.
    pub(crate) with_id: Vec<Mark>,
    /// What the client got: messages with their times.
    pub(crate) got: Vec<(Duration, Mark)>,
    /// Messages that tell how far it has come.
    pub(crate) progress: BTreeMap<Mark, u32>,
    /// Messages that are requests of the server's.
    pub(crate) asks: Vec<Mark>,
    /// Messages that are all the same and have no id: sent whole, and got.
    pub(crate) echoes_sent: u32,
    pub(crate) echoes_got: u32,
    /// Messages that other calls have too, under the same id: made, and got.
    pub(crate) same_made: u32,
    pub(crate) same_got: u32,
    pub(crate) outcomes: Vec<(Duration, Outcome)>,
}

/// One session of the server's.
#[derive(Debug, Clone, Default)]
pub(crate) struct SessionFacts {
    pub(crate) client: usize,
    pub(crate) began: Duration,
    /// When the server forgot it.
    pub(crate) lost: Option<Duration>,
    /// The handshake was completed.
    pub(crate) initialized: bool,
    /// When its stream fell silent (HTTP+SSE).
    pub(crate) silent: Option<Duration>,
    /// When its client was told that it is over (a subscription of 2026-07-28 that was acknowledged).
    pub(crate) ended: Option<Duration>,
    /// When it was ended by DELETE.
    pub(crate) deleted: Option<Duration>,
    /// Notifications outside of calls: how many were made, which were sent whole.
    pub(crate) notices: u32,
    pub(crate) notices_with_id: Vec<u32>,
    pub(crate) notices_sent: Vec<u32>,
    /// Up to which notice a GET without a cursor passed over what it had not seen.
    pub(crate) missable: u32,
    /// GETs of the standalone stream.
    pub(crate) gets: Vec<Visit>,
    /// What the client got of them.
    pub(crate) got: Vec<(Duration, u32)>,
}

/// See the [module](self).
#[derive(Default)]
pub(crate) struct Facts {
    /// The server replays the events of all of a session's streams.
    pub(crate) one_log: bool,
    pub(crate) calls: BTreeMap<CallKey, Call>,
    pub(crate) sessions: BTreeMap<String, SessionFacts>,
    /// Which call each stream of the server's answers.
    pub(crate) streams: BTreeMap<String, CallKey>,
    /// Visits so far.
    pub(crate) visits: u64,
    /// `initialize` requests at the server, by client.
    pub(crate) handshakes: BTreeMap<usize, Vec<Visit>>,
    /// GETs that were to open the stream of an HTTP+SSE session.
    pub(crate) openings: Vec<Visit>,
    /// Connections that were refused or hung.
    pub(crate) dials_failed: Vec<Duration>,
    /// When all connections were reset.
    pub(crate) resets: Vec<Duration>,
    /// When a client ended its session or its input, or the proxy began to drain.
    pub(crate) left: BTreeMap<usize, Duration>,
    /// Clients whose standalone stream broke before it had brought an id.
    pub(crate) blind: BTreeSet<usize>,
    /// Faults that were reached, by name.
    pub(crate) hits: BTreeMap<&'static str, u64>,
    /// What a peer saw that must never be.
    pub(crate) violations: Vec<String>,
}

/// The ledger of one run.
pub(crate) struct Ledger {
    start: Instant,
    trace: bool,
    /// Cancelled when the run goes round in circles.
    pub(crate) overrun: CancellationToken,
    facts: Mutex<Facts>,
    digest: Mutex<u64>,
}

impl Ledger {
    pub(crate) fn new(trace: bool) -> Self {
        Self {
            start: Instant::now(),
            trace,
            overrun: CancellationToken::new(),
            facts: Mutex::default(),
            digest: Mutex::new(0xcbf2_9ce4_8422_2325),
        }
    }

    /// The time of the run.
    pub(crate) fn now(&self) -> Duration {
        self.start.elapsed()
    }

    /// Reads or writes the facts.
    pub(crate) fn with<T>(&self, f: impl FnOnce(&mut Facts) -> T) -> T {
        f(&mut self.facts.lock())
    }

    pub(crate) fn call<T>(&self, key: CallKey, f: impl FnOnce(&mut Call) -> T) -> T {
        f(self.facts.lock().calls.entry(key).or_default())
    }

    /// The server executes a call; how often it has by now.
    pub(crate) fn executes(&self, key: CallKey, session: &str) -> u32 {
        let execution = self.call(key, |call| {
            call.executions += 1;
            call.executions
        });
        self.note(format_args!(
            "server   executes {key} #{execution} in {session}"
        ));
        execution
    }

    pub(crate) fn hit(&self, name: &'static str) {
        *self.facts.lock().hits.entry(name).or_default() += 1;
    }

    pub(crate) fn violation(&self, what: impl Into<String>) {
        let what = what.into();
        self.note(format_args!("VIOLATION {what}"));
        self.facts.lock().violations.push(what);
    }

    /// One line of the trace. It is part of what two runs of a seed must have in common.
    pub(crate) fn note(&self, what: fmt::Arguments<'_>) {
        let line = format!("{:>12.3}  {what}", self.now().as_secs_f64() * 1000.0);
        let mut digest = self.digest.lock();
        for byte in line.bytes() {
            *digest = (*digest ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
        if self.trace {
            use std::io::Write as _;
            let _ = writeln!(std::io::stderr(), "{line}");
        }
    }

    /// A number that differs when anything in the trace differs.
    pub(crate) fn digest(&self) -> u64 {
        *self.digest.lock()
    }
}
