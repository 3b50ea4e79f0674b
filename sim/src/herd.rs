//! A mass drop: many sessions' standalone streams break in the same instant.
//!
//! However many there are, the server sees no more stream opens in any window than the origin's
//! budget allows, and every stream is back in the end.

use std::sync::Arc;
use std::time::Duration;

use crate::fault::Disaster;
use crate::ledger::{Facts, Fate, Ledger};
use crate::plan::Plan;
use crate::report::Report;
use crate::run::{in_paused_time, scenario};

/// Stream opens per second toward one origin, and how many may come at once.
const RATE: f64 = 50.0;
const BURST: f64 = 20.0;
/// When the streams drop.
const DROP: Duration = Duration::from_secs(60);

/// What a mass drop came to.
#[derive(Debug)]
pub struct Herd {
    /// The run, with what was wrong.
    pub report: Report,
    /// Streams that dropped.
    pub streams: usize,
    /// Attempts to come back.
    pub attempts: usize,
    /// From the drop to the first attempt, and to the last.
    pub spread: (Duration, Duration),
    /// The most attempts in any second.
    pub busiest_second: usize,
}

/// Drops so many streams at once.
#[must_use]
pub fn herd(seed: u64, streams: usize) -> Herd {
    let ran = in_paused_time(async {
        let ledger = Arc::new(Ledger::new(false));
        let mut plan = Plan::herd(seed, streams);
        plan.disasters = vec![(DROP, Disaster::ResetAll)];
        let report = scenario(&Arc::new(plan), &ledger).await;
        let (found, attempts) = ledger.with(|facts| judge(facts, streams));
        (report, found, attempts)
    });
    let broken = |error| (Report::broken(seed, error), Vec::new(), Vec::new());
    let (mut report, found, attempts) = ran.unwrap_or_else(broken);
    report.violations.extend(found);
    let after: Vec<_> = attempts.iter().filter(|at| **at >= DROP).collect();
    let spread = |at: Option<&&Duration>| at.map_or(Duration::ZERO, |at| **at - DROP);
    Herd {
        streams,
        attempts: after.len(),
        spread: (spread(after.first()), spread(after.last())),
        busiest_second: busiest(&attempts, Duration::from_secs(1)),
        report,
    }
}

fn busiest(times: &[Duration], window: Duration) -> usize {
    let within = |first: usize| times[first..].partition_point(|at| *at - times[first] < window);
    (0..times.len()).map(within).max().unwrap_or_default()
}

/// What is wrong, and when streams were opened.
fn judge(facts: &Facts, streams: usize) -> (Vec<String>, Vec<Duration>) {
    let mut found = Vec::new();
    let mut times: Vec<_> = facts
        .sessions
        .values()
        .flat_map(|s| &s.gets)
        .map(|get| get.at)
        .collect();
    times.sort_unstable();
    for (first, start) in times.iter().enumerate() {
        for (count, at) in times[first..].iter().enumerate() {
            let window = (*at - *start).as_secs_f64();
            // A clock of milliseconds may put the window's ends a tick too close.
            let allowed = BURST + RATE * (window + 0.002);
            if (count + 1) as f64 > allowed {
                found.push(format!(
                    "{} stream opens within {window} s of {start:?}",
                    count + 1
                ));
                return (found, times);
            }
        }
    }
    let back = |s: &&crate::ledger::SessionFacts| {
        s.gets
            .last()
            .is_some_and(|get| get.at >= DROP && matches!(get.fate, Fate::Stream(_)))
    };
    let returned = facts.sessions.values().filter(back).count();
    if returned != streams {
        found.push(format!("{returned} of {streams} streams came back"));
    }
    (found, times)
}
