//! Runs seeds and says what came of them.

use std::io::Write as _;
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc;
use std::time::Instant;

use clap::Parser;
use shadowcat_sim::{Draw, Herd, MoveCounter, Report, SimulatedTime, Summary, herd, run};
use tracing_subscriber::filter::{LevelFilter, filter_fn};
use tracing_subscriber::prelude::*;

/// Runs the pipeline on a simulated network, clock and randomness.
#[derive(Debug, Parser)]
struct Arguments {
    /// How many seeds to run.
    #[arg(long, default_value_t = 1000)]
    seeds: u64,
    /// The first of them.
    #[arg(long, default_value_t = 0)]
    from: u64,
    /// Runs this one alone and prints everything that happens in it.
    #[arg(long)]
    seed: Option<u64>,
    /// Threads.
    #[arg(long, default_value_t = 2)]
    jobs: u64,
    /// Nothing goes wrong.
    #[arg(long)]
    calm: bool,
    /// Runs each seed twice and compares.
    #[arg(long)]
    twice: bool,
    /// Streams that drop in one instant, in a run of its own; 0 leaves it out.
    #[arg(long, default_value_t = 500)]
    herd: usize,
    /// Fails when a kind of fault was reached less often.
    #[arg(long, default_value_t = 0)]
    least_hits: u64,
    /// Prints the summary as JSON.
    #[arg(long)]
    json: bool,
    /// Stops at the first seed that fails.
    #[arg(long)]
    fail_fast: bool,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let draw = if arguments.calm {
        Draw::Calm
    } else {
        Draw::All
    };
    let summary = match arguments.seed {
        Some(seed) => {
            let _ = tracing_subscriber::fmt()
                .with_max_level(tracing::Level::DEBUG)
                .with_writer(std::io::stderr)
                .with_timer(SimulatedTime)
                .with_ansi(false)
                .try_init();
            let mut summary = Summary::default();
            summary.add(run(seed, draw, true));
            summary
        }
        None => {
            let _ = tracing_subscriber::registry()
                .with(LevelFilter::DEBUG)
                .with(MoveCounter.with_filter(filter_fn(MoveCounter::wants)))
                .try_init();
            run_all(&arguments, draw)
        }
    };
    let dropped = (arguments.seed.is_none() && arguments.herd > 0).then(|| herd(1, arguments.herd));
    let herd_ok = dropped
        .as_ref()
        .is_none_or(|herd| herd.report.violations.is_empty());
    let rare = summary.rare(arguments.least_hits);
    for (name, count) in &rare {
        say(&format!("{name:?} was hit {count} times only"));
    }
    let ok = summary.failed.is_empty() && herd_ok && rare.is_empty();
    print(&summary, dropped.as_ref(), arguments.json);
    if ok {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

fn run_all(arguments: &Arguments, draw: Draw) -> Summary {
    let next = AtomicU64::new(arguments.from);
    let end = arguments.from + arguments.seeds;
    let started = Instant::now();
    let mut summary = Summary::default();
    std::thread::scope(|scope| {
        let (sender, receiver) = mpsc::channel::<Report>();
        for _ in 0..arguments.jobs.max(1) {
            let (sender, next) = (sender.clone(), &next);
            scope.spawn(move || {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= end {
                        return;
                    }
                    let mut report = run(seed, draw, false);
                    if arguments.twice && run(seed, draw, false).digest != report.digest {
                        report
                            .violations
                            .push("two runs of this seed differ".to_owned());
                    }
                    if sender.send(report).is_err() {
                        return;
                    }
                }
            });
        }
        drop(sender);
        for report in receiver {
            if !report.violations.is_empty() {
                say(&format!(
                    "seed {} failed:\n  {}",
                    report.seed,
                    report.violations.join("\n  ")
                ));
                if arguments.fail_fast {
                    // Not waiting for the other threads, whose seeds may be long.
                    std::process::exit(1);
                }
            }
            summary.add(report);
        }
    });
    say(&format!(
        "{} seeds in {:.1} s",
        summary.seeds,
        started.elapsed().as_secs_f64()
    ));
    summary
}

fn say(line: &str) {
    let _ = writeln!(std::io::stderr(), "{line}");
}

fn print(summary: &Summary, herd: Option<&Herd>, json: bool) {
    let mut out = std::io::stdout().lock();
    let seconds = summary.simulated().as_secs();
    let failed: Vec<_> = summary.failed.keys().copied().collect();
    let (median, late) = (summary.late(0.5), summary.late(1.0));
    if json {
        let value = serde_json::json!({
            "seeds": summary.seeds,
            "failed": failed,
            "hits": summary.hits,
            "moves": summary.moves,
            "digest": format!("{:016x}", summary.digest),
            "simulated_hours": seconds / 3600,
            "recoveries": summary.recoveries(),
            "recovery_beyond_policy_ms": { "median": median.as_millis(), "max": late.as_millis() },
            "herd": herd.map(|herd| serde_json::json!({
                "streams": herd.streams,
                "attempts": herd.attempts,
                "first_ms": herd.spread.0.as_millis(),
                "last_ms": herd.spread.1.as_millis(),
                "busiest_second": herd.busiest_second,
                "violations": herd.report.violations,
            })),
        });
        let _ = writeln!(out, "{value:#}");
        return;
    }
    for (name, count) in &summary.hits {
        let _ = writeln!(out, "{count:>10}  {name}");
    }
    for (name, count) in &summary.moves {
        let _ = writeln!(out, "{count:>10}  {name}");
    }
    let _ = writeln!(
        out,
        "{} seeds, {} failed, {} h simulated, {} recoveries, at most {late:?} beyond the policy's delay, digest {:016x}",
        summary.seeds,
        failed.len(),
        seconds / 3600,
        summary.recoveries(),
        summary.digest
    );
    if let Some(herd) = herd {
        let _ = writeln!(
            out,
            "{} streams dropped at once: {} attempts, the first after {:?}, the last after {:?}, at most {} in a second",
            herd.streams, herd.attempts, herd.spread.0, herd.spread.1, herd.busiest_second
        );
        for violation in &herd.report.violations {
            let _ = writeln!(out, "the herd: {violation}");
        }
    }
    if let Some(seed) = failed.first() {
        let _ = writeln!(
            out,
            "replay the first: cargo run --release -p shadowcat-sim -- --seed {seed}"
        );
    }
}
