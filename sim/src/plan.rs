//! What a seed means: who takes part, what they want, and what goes wrong when.

mod draw;
mod modern;
mod sse;
mod stdio;

use std::time::Duration;

use crate::fault::{ChildPlan, Disaster, Fault};
use crate::ledger::CallKey;
use crate::wire::Manner;

pub use draw::Draw;

/// One scenario.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    pub(crate) seed: u64,
    pub(crate) mode: Mode,
    pub(crate) server: Personality,
    pub(crate) clients: Vec<ClientPlan>,
    /// What befalls the server's processes, one after the other.
    pub(crate) children: Vec<ChildPlan>,
    /// When what happens, from the start.
    pub(crate) disasters: Vec<(Duration, Disaster)>,
    pub(crate) request_timeout: Option<Duration>,
    pub(crate) idle_timeout: Duration,
    pub(crate) upstream_wire: [Manner; 2],
    pub(crate) client_wire: [Manner; 2],
}

/// The `retry` of streams that are polled, where the server has none of its own.
const POLL_RETRY: u64 = 500;

impl Plan {
    /// The `retry` in milliseconds that the streams of a call begin with, or the standalone ones.
    pub(crate) fn stream_retry(&self, call: Option<CallKey>) -> Option<u64> {
        let polled = call
            .and_then(|key| self.clients.get(key.client)?.calls.get(key.number))
            .and_then(|call| call.polls_after);
        self.server.retry.or(polled.map(|_| POLL_RETRY))
    }
}

impl Plan {
    /// What is special about its peers and wires, for the report.
    pub(crate) fn traits(&self) -> [(&'static str, bool); 23] {
        let (server, wires) = (&self.server, [self.upstream_wire, self.client_wire]);
        [
            ("mode: reverse", self.mode == Mode::Reverse),
            ("mode: forward", self.mode == Mode::Forward),
            ("server: HTTP+SSE", server.transport == Transport::Sse),
            ("server: stdio", server.transport == Transport::Stdio),
            ("server: modern", server.transport == Transport::Modern),
            ("server: no ids", server.ids == Ids::None),
            ("server: some ids", server.ids == Ids::Some),
            (
                "server: inclusive replay",
                server.replay == Replay::Inclusive,
            ),
            (
                "server: replay from zero",
                server.replay == Replay::FromZero,
            ),
            (
                "server: replay of the session",
                server.replay == Replay::Session,
            ),
            ("server: streams count for themselves", server.counts),
            ("server: priming", server.priming),
            ("server: silent on resumed streams", server.store_only),
            ("server: bodies of failures stall", server.stalls),
            ("server: no sessions", !server.sessions),
            ("server: byte order mark", server.bom),
            ("server: lines end in CR", server.line_end == "\r"),
            ("server: lines end in CRLF", server.line_end == "\r\n"),
            ("server: noise between events", server.noise),
            (
                "server: retry below the least",
                server.retry.is_some_and(|ms| ms < 250),
            ),
            ("server: retry of an hour", server.retry == Some(3_600_000)),
            (
                "wire: reads of one byte",
                wires.iter().any(|wire| wire[0].chunk == 1),
            ),
            (
                "wire: slow drip",
                wires.iter().any(|wire| !wire[0].pace.is_zero()),
            ),
        ]
    }
}

/// Which assembly runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    /// HTTP clients.
    Reverse,
    /// One client on a pair of pipes.
    Forward,
}

/// How the server is.
#[derive(Debug, Clone)]
pub(crate) struct Personality {
    pub(crate) transport: Transport,
    pub(crate) version: &'static str,
    /// Whether it hands out session ids.
    pub(crate) sessions: bool,
    pub(crate) ids: Ids,
    pub(crate) replay: Replay,
    /// Ids are unique on their streams only. Which stream a GET is for, a header of the client's
    /// tells.
    pub(crate) counts: bool,
    /// Whether streams begin with an event that has an id and empty data.
    pub(crate) priming: bool,
    /// Whether a GET without a cursor gets a stream; else 405.
    pub(crate) standalone: bool,
    pub(crate) framing: Framing,
    pub(crate) line_end: &'static str,
    pub(crate) bom: bool,
    /// Comments, unknown fields, foreign event types and broken payloads between the events.
    pub(crate) noise: bool,
    /// The `retry` that its streams begin with, in milliseconds.
    pub(crate) retry: Option<u64>,
    /// Whether a stream that a GET resumes brings what its log holds by then, and nothing more.
    pub(crate) store_only: bool,
    /// Whether the bodies of its failures end before they are whole, and their connections do not.
    pub(crate) stalls: bool,
    /// Comments on a quiet stream.
    pub(crate) comments: Option<Duration>,
}

/// What the server speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Transport {
    /// Streamable HTTP.
    Streamable,
    /// HTTP+SSE of 2024-11-05: one stream is the session and brings everything.
    Sse,
    /// Streamable HTTP of 2026-07-28: no sessions, no ids, and `subscriptions/listen`.
    Modern,
    /// A process for each session, with a message a line on its pipes.
    Stdio,
}

impl Transport {
    /// Whether one way brings everything, and is the session.
    pub(crate) fn is_pipe(self) -> bool {
        matches!(self, Self::Sse | Self::Stdio)
    }
}

/// Which events have ids.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ids {
    None,
    All,
    /// All but every third message; what has no id is in no log.
    Some,
}

/// What a GET with a cursor gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Replay {
    /// What came after it.
    Exclusive,
    /// Its event too.
    Inclusive,
    /// The whole stream again.
    FromZero,
    /// What came after it on any stream of the session, under the ids that it had.
    Session,
}

/// How the end of a streamed body is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Framing {
    Chunked,
    UntilClose,
}

/// One client's part.
#[derive(Debug, Clone)]
pub(crate) struct ClientPlan {
    pub(crate) calls: Vec<CallPlan>,
    /// Whether it opens the standalone stream.
    pub(crate) listens: bool,
    /// Notifications that the server sends outside of calls: when, from the session's start.
    pub(crate) notices: Vec<Duration>,
    /// What happens to the GETs of its standalone stream, one after the other.
    pub(crate) standing_faults: Vec<Fault>,
    /// What happens to its `initialize` requests.
    pub(crate) handshake_faults: Vec<Fault>,
    /// Bytes that it reads of its standalone connections before it breaks them.
    pub(crate) standing_cuts: Vec<ClientCut>,
    /// Whether it ends its session (DELETE, end of input) while calls are open.
    pub(crate) leaves_early: Option<Duration>,
}

/// One request.
#[derive(Debug, Clone)]
pub(crate) struct CallPlan {
    pub(crate) method: &'static str,
    /// From the start of the client's session.
    pub(crate) at: Duration,
    /// Notifications before the response.
    pub(crate) messages: u32,
    pub(crate) gap: Duration,
    /// Bytes of padding in each message.
    pub(crate) padding: usize,
    /// Whether the server asks the client something before this message.
    pub(crate) asks_before: Option<u32>,
    /// Whether it is answered by one JSON body.
    pub(crate) json: bool,
    /// Whether the server ends the connection in order after so many events, to be polled.
    pub(crate) polls_after: Option<u32>,
    /// What happens to its POSTs, one after the other.
    pub(crate) post_faults: Vec<Fault>,
    /// What happens to the GETs that resume it.
    pub(crate) get_faults: Vec<Fault>,
    pub(crate) client_cuts: Vec<ClientCut>,
    /// The client cancels it after so long.
    pub(crate) cancels_after: Option<Duration>,
}

impl CallPlan {
    /// Whether its messages fill buffers.
    pub(crate) fn is_heavy(&self) -> bool {
        self.messages as usize * self.padding > 32 * 1024
    }
}

/// The client's connection breaks.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ClientCut {
    /// After so many bytes of the response.
    pub(crate) after: usize,
    /// It comes back after so long, at least.
    pub(crate) away: Duration,
    /// The old connection stays, unread, when it comes back.
    pub(crate) takes_over: bool,
}
