//! What Shadowcat must reach, in both modes, in the same run.

use serde::Serialize;

use crate::results::{Calls, MemoryUse, Start, TargetCalls};
use crate::stats::Spread;
use crate::wire::Tool;

/// Added p50 and p95 of a call, as a multiple of what the floor adds.
const ADDED_LATENCY: f64 = 1.5;
/// p95 of the 10 ms tool, as a multiple of the direct connection's.
const SLOW_TOOL_P95: f64 = 1.05;
/// Calls per second at [`MANY_IN_FLIGHT`], as a multiple of the floor's.
const CALLS_PER_SECOND: f64 = 0.7;
const MANY_IN_FLIGHT: usize = 64;
/// Microseconds per event of a burst, added over the direct connection (not over the floor: that would be easier).
const BURST_US_PER_EVENT: f64 = 5.0;
/// Resident megabytes with [`HELD_SESSIONS`] sessions.
const HELD_MB: f64 = 60.0;
const HELD_SESSIONS: usize = 1000;
/// Milliseconds from start to first answer.
const START_MS: f64 = 20.0;
/// Megabytes of the release binary.
const BINARY_MB: f64 = 15.0;

/// One mark and how it was met.
#[derive(Debug, Serialize)]
pub(crate) struct Mark {
    pub(crate) what: String,
    /// The mode, or `binary`.
    pub(crate) target: String,
    pub(crate) limit: Limit,
    /// Absent when it was not measured.
    pub(crate) value: Option<f64>,
    pub(crate) met: bool,
}

/// What a value is held against.
#[derive(Debug, Clone, Copy, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Limit {
    AtMost(f64),
    AtLeast(f64),
    Below(f64),
}

impl Limit {
    fn holds(self, value: f64) -> bool {
        match self {
            Self::AtMost(limit) => value <= limit,
            Self::AtLeast(limit) => value >= limit,
            Self::Below(limit) => value < limit,
        }
    }
}

impl Mark {
    /// What was not measured is not met.
    fn new(what: impl Into<String>, target: &str, limit: Limit, value: Option<f64>) -> Self {
        let met = value.is_some_and(|value| limit.holds(value));
        Self {
            what: what.into(),
            target: target.to_owned(),
            limit,
            value,
            met,
        }
    }
}

/// The marks for the modes `names`.
pub(crate) fn judge(
    names: &[String],
    calls: &[Calls],
    starts: &[Start],
    memory: &[MemoryUse],
    binary_bytes: Option<u64>,
) -> Vec<Mark> {
    let mut marks = Vec::new();
    for name in names {
        for scenario in calls {
            if let Some(of) = scenario.target(name) {
                of_calls(scenario, of, &mut marks);
            }
        }
        let start = starts
            .iter()
            .find(|start| start.target == *name)
            .and_then(Start::spread_ms);
        let start = start.map(|spread| spread.median);
        marks.push(Mark::new(
            "start to first answer, ms",
            name,
            Limit::Below(START_MS),
            start,
        ));
        let memory = memory
            .iter()
            .find(|memory| memory.target == *name && memory.sessions == HELD_SESSIONS)
            .map(|memory| memory.held_bytes as f64 / 1e6);
        let what = format!("memory with {HELD_SESSIONS} sessions, MB");
        marks.push(Mark::new(what, name, Limit::AtMost(HELD_MB), memory));
    }
    if !names.is_empty() {
        let megabytes = binary_bytes.map(|bytes| bytes as f64 / 1e6);
        marks.push(Mark::new(
            "size, MB",
            "binary",
            Limit::Below(BINARY_MB),
            megabytes,
        ));
    }
    marks
}

fn of_calls(scenario: &Calls, of: &TargetCalls, marks: &mut Vec<Mark>) {
    let name = &scenario.name;
    let median = |spread: Option<Spread>| spread.map(|spread| spread.median);
    let mut mark = |what: String, limit, value| {
        marks.push(Mark::new(what, &of.target, limit, value));
    };
    match scenario.tool {
        Tool::Json | Tool::Stream => {
            let over = of.over_floor;
            let added = Limit::AtMost(ADDED_LATENCY);
            let p50 = over.and_then(|over| median(over.added_p50_ratio));
            mark(format!("{name}: added p50 / floor's"), added, p50);
            let p95 = over.and_then(|over| median(over.added_p95_ratio));
            mark(format!("{name}: added p95 / floor's"), added, p95);
            if scenario.in_flight == MANY_IN_FLIGHT {
                let ratio = over.and_then(|over| median(over.per_second_ratio));
                let limit = Limit::AtLeast(CALLS_PER_SECOND);
                mark(format!("{name}: calls per second / floor's"), limit, ratio);
            }
        }
        Tool::Burst => {
            let limit = Limit::AtMost(BURST_US_PER_EVENT);
            mark(
                format!("{name}: us per event over direct"),
                limit,
                of.added_us_per_event(),
            );
        }
        Tool::Sleep10 => {
            let ratio = of.over_direct.map(|over| over.p95_ratio.median);
            mark(
                format!("{name}: p95 / direct's"),
                Limit::AtMost(SLOW_TOOL_P95),
                ratio,
            );
        }
        Tool::Session => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_include_or_exclude_their_bound() {
        assert!(Limit::AtMost(1.5).holds(1.5) && !Limit::AtMost(1.5).holds(1.51));
        assert!(Limit::AtLeast(0.7).holds(0.7) && !Limit::AtLeast(0.7).holds(0.69));
        assert!(!Limit::Below(20.0).holds(20.0) && Limit::Below(20.0).holds(19.9));
    }

    #[test]
    fn what_was_not_measured_is_missed() {
        let marks = judge(&["reverse".to_owned()], &[], &[], &[], None);
        assert_eq!(marks.len(), 3);
        assert!(marks.iter().all(|mark| !mark.met));
    }
}
