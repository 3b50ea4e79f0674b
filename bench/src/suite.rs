//! The whole run: every measurement at every target, interleaved, so that whatever else the machine does strikes all of them.
//!
//! Each round visits each scenario, and in it every target once at a time, in an order that changes. Ratios are taken within a round
//! and scenario, where their sides were measured within a second or two; the medians are taken over rounds. Many rounds of
//! short windows say more than few of long ones: what disturbs one window is seldom there in most, and where the system puts
//! the processes beside each other, which decides a window more than the target does, changes from one to the next.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::time::sleep;

use crate::client;
use crate::error::Error;
use crate::hold::Held;
use crate::load::{self, Load};
use crate::results::{Calls, MemoryUse, Round, Start, TargetCalls};
use crate::say;
use crate::target::{Launcher, Running, Target};
use crate::wire::Tool;

/// A load with a name.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Scenario {
    pub(crate) tool: Tool,
    pub(crate) in_flight: usize,
}

impl Scenario {
    /// How often a round visits it.
    fn draws(self) -> usize {
        match (self.tool, self.in_flight) {
            (Tool::Json | Tool::Stream, 1) => DRAWS_OF_ONE,
            _ => 1,
        }
    }
}

/// What is measured with calls.
pub(crate) const SCENARIOS: [Scenario; 8] = [
    Scenario {
        tool: Tool::Json,
        in_flight: 1,
    },
    Scenario {
        tool: Tool::Json,
        in_flight: 16,
    },
    Scenario {
        tool: Tool::Json,
        in_flight: 64,
    },
    Scenario {
        tool: Tool::Stream,
        in_flight: 1,
    },
    Scenario {
        tool: Tool::Stream,
        in_flight: 16,
    },
    Scenario {
        tool: Tool::Stream,
        in_flight: 64,
    },
    Scenario {
        tool: Tool::Burst,
        in_flight: 1,
    },
    Scenario {
        tool: Tool::Sleep10,
        in_flight: 8,
    },
];

/// How often a round visits a scenario with one call in flight, where each process waits for the next one all the time: it is
/// decided by where the system puts them more than any other, and takes that many more draws to say as much.
pub(crate) const DRAWS_OF_ONE: usize = 3;

/// The 10 ms tool is measured for so many times the length of a window.
const SLOW_TOOL_WINDOWS: u32 = 3;

/// How much is measured.
#[derive(Debug, Clone, serde::Serialize)]
pub(crate) struct Settings {
    /// Rounds of calls.
    pub(crate) rounds: usize,
    /// Length of one window of calls.
    #[serde(serialize_with = "as_seconds")]
    pub(crate) window: Duration,
    /// Unmeasured calls before each window.
    #[serde(serialize_with = "as_seconds")]
    pub(crate) warm_up: Duration,
    /// Starts of each target.
    pub(crate) starts: usize,
    /// Sessions held at once.
    pub(crate) sessions: usize,
    /// Calls in flight that share one session.
    pub(crate) per_session: usize,
    /// Worker threads of each target.
    pub(crate) workers: usize,
}

fn as_seconds<S: serde::Serializer>(duration: &Duration, out: S) -> Result<S::Ok, S::Error> {
    out.serialize_f64(duration.as_secs_f64())
}

/// `targets`, numbered, in the order of round number `round`: each round another begins, each second round runs backward.
fn in_turn(targets: &[Target], round: usize) -> Vec<(usize, &Target)> {
    let mut order: Vec<_> = targets.iter().enumerate().collect();
    order.rotate_left((round / 2) % targets.len().max(1));
    if !round.is_multiple_of(2) {
        order.reverse();
    }
    order
}

/// Processes that stand before one upstream server.
pub(crate) struct Suite<'a> {
    pub(crate) launcher: &'a Launcher,
    pub(crate) targets: &'a [Target],
    pub(crate) settings: &'a Settings,
    pub(crate) upstream: SocketAddr,
}

impl Suite<'_> {
    fn proxies(&self) -> Vec<Target> {
        self.targets
            .iter()
            .filter(|target| **target != Target::Direct)
            .cloned()
            .collect()
    }

    async fn launch(&self, target: &Target) -> Result<Running, Error> {
        self.launcher.launch(target, self.upstream).await
    }

    /// From the start of a process to its first answer.
    pub(crate) async fn starts(&self) -> Result<Vec<Start>, Error> {
        let targets = self.proxies();
        let mut results: Vec<Start> = targets
            .iter()
            .map(|target| Start::new(target.name()))
            .collect();
        for round in 0..self.settings.starts {
            for (index, target) in in_turn(&targets, round) {
                let running = self.launch(target).await?;
                client::first_answer(running.endpoint)
                    .await
                    .map_err(|error| error.at(&running.name, "first answer"))?;
                let took = running.started.elapsed();
                if let Some(result) = results.get_mut(index) {
                    result.rounds_ms.push(took.as_secs_f64() * 1e3);
                }
                running.stop().await;
            }
        }
        Ok(results)
    }

    /// Memory of fresh processes, idle and with many sessions. All targets at once: nothing here is timed.
    pub(crate) async fn memory(&self) -> Result<Vec<MemoryUse>, Error> {
        let mut results = Vec::new();
        let mut held = Vec::new();
        for target in self.proxies() {
            let running = self.launch(&target).await?;
            client::first_answer(running.endpoint)
                .await
                .map_err(|error| error.at(&running.name, "first answer"))?;
            sleep(Duration::from_millis(500)).await;
            let processes = running.processes();
            let sessions = self.settings.sessions;
            results.push(MemoryUse {
                target: running.name.clone(),
                threads: processes.threads(),
                idle_bytes: processes.resident_bytes(),
                sessions,
                held_bytes: 0,
                fed_after_seconds: 0.0,
            });
            held.push((Held::open(running.endpoint, sessions), processes, running));
        }
        const WHAT: &str = "held sessions";
        for ((held, _, running), result) in held.iter_mut().zip(&mut results) {
            let fed = held
                .all_fed()
                .await
                .map_err(|error| error.at(&running.name, WHAT))?;
            result.fed_after_seconds = fed.as_secs_f64();
        }
        for _ in 0..4 {
            sleep(Duration::from_millis(500)).await;
            for ((held, processes, running), result) in held.iter_mut().zip(&mut results) {
                held.check()
                    .map_err(|error| error.at(&running.name, WHAT))?;
                result.held_bytes = result.held_bytes.max(processes.resident_bytes());
            }
        }
        for (held, _, running) in held {
            drop(held);
            running.stop().await;
        }
        Ok(results)
    }

    /// Every scenario at every target, round by round.
    pub(crate) async fn calls(&self) -> Result<Vec<Calls>, Error> {
        let mut running = Vec::new();
        for target in self.targets {
            running.push(self.launch(target).await?);
        }
        let names = || {
            self.targets
                .iter()
                .map(|target| TargetCalls::new(target.name()))
                .collect()
        };
        let mut results: Vec<Calls> = SCENARIOS
            .iter()
            .map(|scenario| Calls::new(*scenario, names()))
            .collect();
        for round in 0..self.settings.rounds {
            for result in &mut results {
                say(&format!(
                    "round {} of {}: {}",
                    round + 1,
                    self.settings.rounds,
                    result.name
                ));
                let scenario = Scenario {
                    tool: result.tool,
                    in_flight: result.in_flight,
                };
                let draws = scenario.draws();
                for draw in 0..draws {
                    for (index, _) in in_turn(self.targets, round * draws + draw) {
                        let (Some(running), Some(of)) =
                            (running.get(index), result.targets.get_mut(index))
                        else {
                            continue;
                        };
                        let measured = self.window(running, scenario).await;
                        let measured =
                            measured.map_err(|error| error.at(&running.name, &result.name))?;
                        of.rounds.push(measured);
                    }
                }
            }
        }
        for running in running {
            running.stop().await;
        }
        for result in &mut results {
            result.summarise();
        }
        Ok(results)
    }

    async fn window(&self, running: &Running, scenario: Scenario) -> Result<Round, Error> {
        let load = Load {
            tool: scenario.tool,
            in_flight: scenario.in_flight,
            per_session: self.settings.per_session,
            warm_up: self.settings.warm_up,
            window: match scenario.tool {
                // Some hundred calls a second: a percentile needs more time.
                Tool::Sleep10 => self.settings.window * SLOW_TOOL_WINDOWS,
                _ => self.settings.window,
            },
        };
        let window = load::window(running.endpoint, load, &running.processes()).await?;
        Ok(Round {
            p50_us: window.latencies.percentile_us(50),
            p95_us: window.latencies.percentile_us(95),
            calls: window.completed,
            per_second: window.completed as f64 / window.seconds,
            cpu_seconds: window.cpu_seconds,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_target_takes_each_place() {
        let targets = [Target::Direct, Target::Floor, Target::Nginx];
        let places = |index| {
            let rounds = (0..6).map(|round| in_turn(&targets, round));
            let mut places: Vec<_> = rounds
                .map(|order| order.iter().position(|(at, _)| *at == index))
                .collect();
            places.sort_unstable();
            places
        };
        for index in 0..targets.len() {
            assert_eq!(places(index), [0, 0, 1, 1, 2, 2].map(Some));
        }
    }
}
