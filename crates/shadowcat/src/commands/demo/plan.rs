//! What is called and what breaks, as the seed says.

use std::time::Duration;

use serde_json::{Value, json};
use shadowcat_testkit::fixture::{Plan, Random};

/// Clients, each with a session of its own.
pub(super) const CLIENTS: usize = 4;
/// Calls in a round.
const CALLS: u64 = 48;
/// The calls of a round start within this time.
const SPREAD_MS: u64 = 400;
/// When in its round a server restarts.
pub(super) const BREAK_AFTER: Duration = Duration::from_millis(300);

/// A tool with its arguments.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Tool {
    Echo,
    Slow { ms: u64, steps: u64 },
    Burst { count: u64 },
    Log { count: u64 },
    Ask,
    Sample,
    Announce { count: u64 },
}

impl Tool {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Echo => "echo",
            Self::Slow { .. } => "slow",
            Self::Burst { .. } => "burst",
            Self::Log { .. } => "log",
            Self::Ask => "ask",
            Self::Sample => "sample",
            Self::Announce { .. } => "announce",
        }
    }

    fn draw(random: &mut Random, announces: bool) -> Self {
        match random.below(8) {
            0 => Self::Echo,
            1 | 2 => Self::Slow {
                ms: 50 + random.below(250),
                steps: 2 + random.below(6),
            },
            3 => Self::Burst {
                count: 10 + random.below(50),
            },
            4 => Self::Log {
                count: 3 + random.below(10),
            },
            5 => Self::Ask,
            6 => Self::Sample,
            _ if announces => Self::Announce {
                count: 1 + random.below(5),
            },
            _ => Self::Echo,
        }
    }
}

/// One call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Call {
    /// Who makes it.
    pub(super) client: usize,
    /// Its mark, by which all books know it.
    pub(super) nonce: String,
    pub(super) tool: Tool,
    /// When in its round it is made.
    pub(super) after: Duration,
}

impl Call {
    pub(super) fn arguments(&self) -> Value {
        let nonce = &self.nonce;
        match self.tool {
            Tool::Echo => json!({"nonce": nonce}),
            Tool::Slow { ms, steps } => json!({"nonce": nonce, "ms": ms, "steps": steps}),
            Tool::Burst { count } | Tool::Log { count } | Tool::Announce { count } => {
                json!({"nonce": nonce, "count": count})
            }
            Tool::Ask | Tool::Sample => json!({"nonce": nonce, "message": nonce}),
        }
    }
}

/// What a whole server does in the middle of a round.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Break {
    /// It restarts and knows no session any more.
    Restart,
    /// All connections break, and sessions and logs are still there.
    RestartWithLog,
}

/// Calls that are made together, and what goes wrong meanwhile.
#[derive(Debug, Clone)]
pub(super) struct Round {
    pub(super) title: &'static str,
    pub(super) calls: Vec<Call>,
    pub(super) faults: Option<Plan>,
    pub(super) breaks: Option<Break>,
}

/// The rounds of a demo.
pub(super) fn rounds(seed: u64) -> Vec<Round> {
    let none = Plan {
        seed,
        most: 2,
        cut_within: 1500,
        retry_after: 1,
        ..Plan::default()
    };
    let busy = Plan {
        busy: 250,
        bare_busy: 40,
        ..none
    };
    let cuts = Plan { cut: 450, ..none };
    let copies = Plan {
        cut: 300,
        repeat: 600,
        twice: 300,
        ..none
    };
    let all = Plan {
        cut: 300,
        busy: 80,
        bare_busy: 20,
        repeat: 400,
        twice: 200,
        ..none
    };
    [
        ("undisturbed", None, None),
        ("a busy server", Some(busy), None),
        ("broken streams", Some(cuts), None),
        ("broken streams and duplicates", Some(copies), None),
        ("every connection cut", None, Some(Break::RestartWithLog)),
        ("a restarted server", None, Some(Break::Restart)),
        ("everything at once", Some(all), Some(Break::RestartWithLog)),
    ]
    .into_iter()
    .enumerate()
    .map(|(number, (title, faults, breaks))| Round {
        title,
        // What a server has announced and forgets in its restart nobody can save.
        calls: calls(seed, number, breaks != Some(Break::Restart)),
        faults,
        breaks,
    })
    .collect()
}

fn calls(seed: u64, round: usize, announces: bool) -> Vec<Call> {
    let mut random = Random::named(seed, &format!("round {round}"));
    let call = |number| Call {
        client: usize::try_from(random.below(CLIENTS as u64)).unwrap_or(0),
        nonce: format!("r{round}-{number}"),
        tool: Tool::draw(&mut random, announces),
        after: Duration::from_millis(random.below(SPREAD_MS)),
    };
    (1..=CALLS).map(call).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(seed: u64) -> String {
        format!("{:?}", rounds(seed))
    }

    #[test]
    fn the_seed_alone_makes_the_plan() {
        assert_eq!(written(7), written(7));
        assert_ne!(written(7), written(8));
    }

    #[test]
    fn every_tool_is_called_and_every_mark_is_used_once() {
        let rounds = rounds(1);
        let calls: Vec<_> = rounds.iter().flat_map(|round| &round.calls).collect();
        for name in ["echo", "slow", "burst", "log", "ask", "sample", "announce"] {
            assert!(calls.iter().any(|call| call.tool.name() == name), "{name}");
        }
        let marks: std::collections::HashSet<_> = calls.iter().map(|call| &call.nonce).collect();
        assert_eq!(marks.len(), calls.len());
    }
}
