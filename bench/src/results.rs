//! The figures of a run and what follows from them. Serialised, this is the JSON output.

use serde::Serialize;

use crate::machine::Machine;
use crate::marks::Mark;
use crate::stats::{Spread, median};
use crate::suite::{Scenario, Settings};
use crate::wire::{BURST_EVENTS, Tool};

/// Everything that a run found.
#[derive(Debug, Serialize)]
pub(crate) struct Results {
    pub(crate) machine: Machine,
    pub(crate) settings: Settings,
    pub(crate) calls: Vec<Calls>,
    pub(crate) starts: Vec<Start>,
    pub(crate) memory: Vec<MemoryUse>,
    /// Size of the `shadowcat` binary, if it took part.
    pub(crate) binary_bytes: Option<u64>,
    pub(crate) marks: Vec<Mark>,
}

/// One scenario at every target.
#[derive(Debug, Serialize)]
pub(crate) struct Calls {
    pub(crate) name: String,
    #[serde(skip)]
    pub(crate) tool: Tool,
    pub(crate) in_flight: usize,
    pub(crate) targets: Vec<TargetCalls>,
}

/// One scenario at one target. Latencies are microseconds.
#[derive(Debug, Serialize)]
pub(crate) struct TargetCalls {
    pub(crate) target: String,
    pub(crate) rounds: Vec<Round>,
    pub(crate) p50_us: f64,
    pub(crate) p95_us: f64,
    pub(crate) per_second: f64,
    /// Processor seconds of the target's own processes per 1000 calls; zero for a direct connection.
    pub(crate) cpu_seconds_per_1000: f64,
    /// Against the direct connection; absent on the direct connection itself.
    pub(crate) over_direct: Option<OverDirect>,
    /// Against the floor; absent on the direct connection and on the floor itself.
    pub(crate) over_floor: Option<OverFloor>,
}

/// One window.
#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) struct Round {
    pub(crate) p50_us: f64,
    pub(crate) p95_us: f64,
    pub(crate) calls: u64,
    pub(crate) per_second: f64,
    pub(crate) cpu_seconds: f64,
}

/// What a target adds to a direct connection.
#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) struct OverDirect {
    pub(crate) added_p50_us: Spread,
    pub(crate) added_p95_us: Spread,
    pub(crate) p95_ratio: Spread,
}

/// What a target adds in relation to what the floor adds.
#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) struct OverFloor {
    /// Added p50 by the floor's added p50; absent where the floor added nothing that could be measured.
    pub(crate) added_p50_ratio: Option<Spread>,
    /// The same for p95.
    pub(crate) added_p95_ratio: Option<Spread>,
    pub(crate) per_second_ratio: Option<Spread>,
}

/// Time from process start to the answer to `initialize`.
#[derive(Debug, Serialize)]
pub(crate) struct Start {
    pub(crate) target: String,
    pub(crate) rounds_ms: Vec<f64>,
}

impl Start {
    pub(crate) fn new(target: String) -> Self {
        Self {
            target,
            rounds_ms: Vec::new(),
        }
    }

    pub(crate) fn spread_ms(&self) -> Option<Spread> {
        Spread::of(self.rounds_ms.iter().copied())
    }
}

/// Resident memory of one target.
#[derive(Debug, Serialize)]
pub(crate) struct MemoryUse {
    pub(crate) target: String,
    pub(crate) threads: u64,
    /// After the first answer.
    pub(crate) idle_bytes: u64,
    pub(crate) sessions: usize,
    /// With that many sessions, each with a standalone stream that brought notifications.
    pub(crate) held_bytes: u64,
    /// How long it took until every stream had brought two.
    pub(crate) fed_after_seconds: f64,
}

impl TargetCalls {
    pub(crate) fn new(target: String) -> Self {
        Self {
            target,
            rounds: Vec::new(),
            p50_us: 0.0,
            p95_us: 0.0,
            per_second: 0.0,
            cpu_seconds_per_1000: 0.0,
            over_direct: None,
            over_floor: None,
        }
    }

    /// What this target adds per event of a burst, over the direct connection, in microseconds.
    pub(crate) fn added_us_per_event(&self) -> Option<f64> {
        self.over_direct
            .map(|over| over.added_p50_us.median / BURST_EVENTS as f64)
    }
}

impl Calls {
    pub(crate) fn new(scenario: Scenario, targets: Vec<TargetCalls>) -> Self {
        let Scenario { tool, in_flight } = scenario;
        let name = match tool {
            Tool::Json => format!("JSON answer, {in_flight} in flight"),
            Tool::Stream => format!("event-stream answer, {in_flight} in flight"),
            Tool::Burst => {
                format!("burst of {BURST_EVENTS} progress events, {in_flight} in flight")
            }
            Tool::Sleep10 => format!("10 ms tool, {in_flight} in flight"),
            Tool::Session => format!("session number, {in_flight} in flight"),
        };
        Self {
            name,
            tool,
            in_flight,
            targets,
        }
    }

    pub(crate) fn target(&self, name: &str) -> Option<&TargetCalls> {
        self.targets.iter().find(|of| of.target == name)
    }

    /// Fills in what follows from the rounds.
    pub(crate) fn summarise(&mut self) {
        let rounds = |name: &str| {
            self.target(name)
                .map(|of| of.rounds.clone())
                .unwrap_or_default()
        };
        let (direct, floor) = (rounds("direct"), rounds("floor"));
        for of in &mut self.targets {
            let of_rounds = |figure: fn(&Round) -> f64| median(of.rounds.iter().map(figure));
            let p50 = of_rounds(|round| round.p50_us);
            let p95 = of_rounds(|round| round.p95_us);
            let per_second = of_rounds(|round| round.per_second);
            (of.p50_us, of.p95_us) = (p50.unwrap_or_default(), p95.unwrap_or_default());
            of.per_second = per_second.unwrap_or_default();
            let calls: u64 = of.rounds.iter().map(|round| round.calls).sum();
            let cpu_seconds: f64 = of.rounds.iter().map(|round| round.cpu_seconds).sum();
            of.cpu_seconds_per_1000 = cpu_seconds / (calls.max(1) as f64 / 1000.0);
            if of.target != "direct" {
                of.over_direct = OverDirect::of(&of.rounds, &direct);
                if of.target != "floor" {
                    of.over_floor = Some(OverFloor::of(&of.rounds, &floor, &direct));
                }
            }
        }
    }
}

impl OverDirect {
    fn of(own: &[Round], direct: &[Round]) -> Option<Self> {
        let each = |figure: fn(&Round, &Round) -> f64| {
            Spread::of(
                own.iter()
                    .zip(direct)
                    .map(|(own, direct)| figure(own, direct)),
            )
        };
        Some(Self {
            added_p50_us: each(|own, direct| own.p50_us - direct.p50_us)?,
            added_p95_us: each(|own, direct| own.p95_us - direct.p95_us)?,
            p95_ratio: each(|own, direct| own.p95_us / direct.p95_us)?,
        })
    }
}

impl OverFloor {
    fn of(own: &[Round], floor: &[Round], direct: &[Round]) -> Self {
        let added = |figure: fn(&Round) -> f64| {
            let rounds = own.iter().zip(floor).zip(direct);
            Spread::of(rounds.filter_map(|((own, floor), direct)| {
                let of_floor = figure(floor) - figure(direct);
                (of_floor > 0.0).then(|| (figure(own) - figure(direct)) / of_floor)
            }))
        };
        let rounds = own.iter().zip(floor);
        Self {
            added_p50_ratio: added(|round| round.p50_us),
            added_p95_ratio: added(|round| round.p95_us),
            per_second_ratio: Spread::of(
                rounds.map(|(own, floor)| own.per_second / floor.per_second),
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn round(p50_us: f64, p95_us: f64, per_second: f64) -> Round {
        Round {
            p50_us,
            p95_us,
            calls: 500,
            per_second,
            cpu_seconds: 0.1,
        }
    }

    fn measured(target: &str, rounds: &[Round]) -> TargetCalls {
        TargetCalls {
            rounds: rounds.to_vec(),
            ..TargetCalls::new(target.to_owned())
        }
    }

    #[test]
    fn ratios_are_taken_within_a_round() {
        let targets = vec![
            measured(
                "direct",
                &[round(100.0, 200.0, 1000.0), round(200.0, 300.0, 500.0)],
            ),
            measured(
                "floor",
                &[round(150.0, 300.0, 800.0), round(300.0, 400.0, 400.0)],
            ),
            measured(
                "reverse",
                &[round(200.0, 350.0, 600.0), round(350.0, 600.0, 300.0)],
            ),
        ];
        let mut calls = Calls::new(
            Scenario {
                tool: Tool::Json,
                in_flight: 1,
            },
            targets,
        );
        calls.summarise();
        let reverse = calls.target("reverse").unwrap();
        let (direct, floor) = (reverse.over_direct.unwrap(), reverse.over_floor.unwrap());
        assert_eq!(reverse.p50_us, 275.0);
        assert_eq!(reverse.cpu_seconds_per_1000, 0.2);
        assert_eq!(
            direct.added_p50_us,
            Spread {
                median: 125.0,
                min: 100.0,
                max: 150.0
            }
        );
        assert_eq!(
            floor.added_p50_ratio,
            Some(Spread {
                median: 1.75,
                min: 1.5,
                max: 2.0
            })
        );
        assert_eq!(
            floor.added_p95_ratio,
            Some(Spread {
                median: 2.25,
                min: 1.5,
                max: 3.0
            })
        );
        assert_eq!(floor.per_second_ratio.unwrap().median, 0.75);
        assert!(calls.target("floor").unwrap().over_floor.is_none());
        assert!(calls.target("direct").unwrap().over_direct.is_none());
    }

    #[test]
    fn a_floor_that_adds_nothing_gives_no_ratio() {
        let rounds = [round(100.0, 200.0, 1000.0)];
        let over = OverFloor::of(&rounds, &rounds, &rounds);
        assert_eq!(over.added_p50_ratio, None);
        assert_eq!(over.added_p95_ratio, None);
    }
}
