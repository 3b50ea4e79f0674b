//! What the clients did and got.

use serde_json::Value;
use shadowcat_testkit::client::Outcome;
use tokio::time::Instant;

use super::plan::{Break, Call, Tool};

/// One call and what became of it.
#[derive(Debug)]
pub(super) struct Played {
    pub(super) call: Call,
    /// `None`: nothing came in time.
    pub(super) outcome: Option<Outcome>,
    pub(super) begun: Instant,
    pub(super) ended: Instant,
}

impl Played {
    /// The result, if it has one.
    pub(super) fn result(&self) -> Option<&Value> {
        let answer = self.outcome.as_ref()?.answer.as_ref().ok()?;
        answer.get("result")
    }

    /// The JSON-RPC error, if it has one.
    pub(super) fn error(&self) -> Option<&Value> {
        let answer = self.outcome.as_ref()?.answer.as_ref().ok()?;
        answer.get("error")
    }
}

/// All calls, all messages of the standalone streams, all restarts.
#[derive(Debug, Default)]
pub(super) struct Books {
    pub(super) calls: Vec<Played>,
    /// By client.
    pub(super) standalone: Vec<(usize, Vec<Value>)>,
    pub(super) breaks: Vec<(Break, Instant)>,
}

impl Books {
    pub(super) fn played(&mut self, played: Played) {
        self.calls.push(played);
    }

    pub(super) fn broke(&mut self, broken: Break, at: Instant) {
        self.breaks.push((broken, at));
    }

    pub(super) fn standalone(&mut self, client: usize, messages: Vec<Value>) {
        self.standalone.push((client, messages));
    }

    /// How many announcements this client must have by now.
    pub(super) fn announced_to(&self, client: usize) -> usize {
        let announced = self
            .calls
            .iter()
            .filter_map(|played| match played.call.tool {
                Tool::Announce { count } if played.call.client == client => {
                    played.result().and(usize::try_from(count).ok())
                }
                _ => None,
            });
        announced.sum()
    }

    /// Whether the call was under way when the server forgot its sessions.
    pub(super) fn forgotten(&self, played: &Played) -> bool {
        self.breaks.iter().any(|(broken, at)| {
            *broken == Break::Restart && played.begun <= *at && *at <= played.ended
        })
    }
}

/// Whether a message is one of `announce`.
pub(super) fn is_announcement(message: &Value) -> bool {
    message["method"] == "notifications/message" && message["params"]["data"]["nonce"].is_string()
}
