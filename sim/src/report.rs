//! What came of the runs.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::ledger::{Ledger, Outcome};
use crate::oracle::{self};
use crate::plan::Plan;
use crate::watch;

/// What a report must have hits of, so that nothing is called proved that did not happen.
const EXPECTED: &[&str] = &[
    "202 to a request",
    "429 Retry-After",
    "429 bare",
    "503 Retry-After date",
    "503 Retry-After seconds",
    "all connections reset",
    "all sessions forgotten",
    "child: closes its stdout",
    "child: crashes",
    "child: crashes in its first answer",
    "child: does not start",
    "child: exits",
    "child: exits at its start",
    "child: exits in the handshake",
    "child: hangs",
    "child: ignores the end of its stdin",
    "child: must be killed",
    "child: starts slowly",
    "client connection reset",
    "client resumes",
    "client stops reading and comes back",
    "close: before execution",
    "cut: after an event",
    "cut: before an event",
    "cut: before the blank line",
    "cut: between CR and LF",
    "cut: between id and data",
    "cut: inside a character",
    "cut: inside an event",
    "empty 200",
    "handshake fault",
    "hang: no head",
    "mode: forward",
    "mode: reverse",
    "outcome: client had no way back",
    "outcome: error",
    "outcome: result",
    "polling close",
    "redirect",
    "redirect refused",
    "repeated event",
    "reset: before execution",
    "reset: executed, no head",
    "restart with log",
    "restart without log",
    "resume",
    "resume that stays silent",
    "server: HTTP+SSE",
    "server: stdio",
    "server: modern",
    "subscription issued again",
    "server: byte order mark",
    "server: inclusive replay",
    "server: lines end in CR",
    "server: lines end in CRLF",
    "server: no ids",
    "server: no sessions",
    "server: noise between events",
    "server: priming",
    "server: replay from zero",
    "server: replay of the session",
    "server: streams count for themselves",
    "event of another stream",
    "server: retry below the least",
    "server: retry of an hour",
    "server: silent on resumed streams",
    "server: some ids",
    "session's stream over",
    "session lost: 400",
    "session lost: 404",
    "status 204",
    "status 400",
    "status 401/403",
    "status 405",
    "status 408",
    "status 409",
    "status 500",
    "status 501/505",
    "status 502/504",
    "status 503 bare",
    "stream: clean end",
    "stream: connection closed",
    "stream: reset",
    "stream: silence",
    "truncated JSON",
    "upstream hangs on connect",
    "upstream refuses",
    "wire: reads of one byte",
    "wire: slow drip",
    "wrong content type",
];

/// The result of one seed.
#[derive(Debug, Clone)]
pub struct Report {
    /// The seed.
    pub seed: u64,
    /// What was wrong; empty is well.
    pub violations: Vec<String>,
    /// Faults that were reached, and other facts, by name.
    pub hits: BTreeMap<&'static str, u64>,
    /// Moves of the engine's state machine, where they are watched.
    pub moves: BTreeMap<String, u64>,
    /// The same for the same seed, always.
    pub digest: u64,
    /// How long recoveries took beyond what the policy may ask for.
    pub late: Vec<Duration>,
    /// Simulated time.
    pub simulated: Duration,
}

impl Report {
    pub(crate) fn broken(seed: u64, why: String) -> Self {
        Self {
            seed,
            violations: vec![why],
            hits: BTreeMap::new(),
            moves: BTreeMap::new(),
            digest: 0,
            late: Vec::new(),
            simulated: Duration::ZERO,
        }
    }

    pub(crate) fn of(plan: &Plan, ledger: &Ledger) -> Self {
        let digest = ledger.digest();
        let simulated = ledger.now();
        ledger.with(|facts| {
            let mut hits = std::mem::take(&mut facts.hits);
            let mut count = |name, by: u64| *hits.entry(name).or_default() += by;
            for (name, is_so) in plan.traits() {
                count(name, u64::from(is_so));
            }
            for call in facts.calls.values() {
                count("calls", u64::from(call.sent.is_some()));
                for (_, outcome) in &call.outcomes {
                    let name = match outcome {
                        Outcome::Result(_) => "outcome: result",
                        Outcome::Error(_) => "outcome: error",
                        Outcome::Abandoned => "outcome: client had no way back",
                        Outcome::Status(_) => "outcome: status",
                    };
                    count(name, 1);
                }
                count("messages", call.got.len() as u64);
            }
            let late = oracle::recoveries(plan, facts)
                .iter()
                .map(oracle::Recovery::late)
                .collect();
            Self {
                seed: plan.seed,
                violations: std::mem::take(&mut facts.violations),
                hits,
                moves: watch::moves(),
                digest,
                late,
                simulated,
            }
        })
    }
}

/// All reports of one invocation.
#[derive(Debug, Default)]
pub struct Summary {
    /// Seeds that ran.
    pub seeds: u64,
    /// Seeds that failed, with what was wrong.
    pub failed: BTreeMap<u64, Vec<String>>,
    /// Hits by name.
    pub hits: BTreeMap<&'static str, u64>,
    /// Moves of the engine's state machine.
    pub moves: BTreeMap<String, u64>,
    /// All digests in one number, whatever the order of the runs.
    pub digest: u64,
    late: Vec<Duration>,
    simulated: Duration,
}

impl Summary {
    /// Adds a report.
    pub fn add(&mut self, report: Report) {
        self.seeds += 1;
        for (name, count) in report.hits {
            *self.hits.entry(name).or_default() += count;
        }
        for (name, count) in report.moves {
            *self.moves.entry(name).or_default() += count;
        }
        self.digest ^= report.digest.rotate_left((report.seed % 64) as u32);
        self.late.extend(report.late);
        self.simulated += report.simulated;
        if !report.violations.is_empty() {
            self.failed.insert(report.seed, report.violations);
        }
    }

    /// What was hit less often than `least` times.
    #[must_use]
    pub fn rare(&self, least: u64) -> Vec<(&'static str, u64)> {
        let hits = EXPECTED
            .iter()
            .map(|name| (*name, self.hits.get(name).copied().unwrap_or_default()));
        hits.filter(|(_, count)| *count < least).collect()
    }

    /// The hours that the clocks of all runs went.
    #[must_use]
    pub fn simulated(&self) -> Duration {
        self.simulated
    }

    /// How much later than the policy allows streams came back: the share's quantile.
    #[must_use]
    pub fn late(&self, share: f64) -> Duration {
        let mut late = self.late.clone();
        late.sort_unstable();
        let index = (late.len() as f64 * share) as usize;
        late.get(index.min(late.len().saturating_sub(1)))
            .copied()
            .unwrap_or_default()
    }

    /// How many recoveries were measured.
    #[must_use]
    pub fn recoveries(&self) -> usize {
        self.late.len()
    }
}
