//! Measures Shadowcat, in both modes, beside a direct connection, an empty pass-through (the floor), nginx where it is installed, and
//! any other proxy that is named; prints the figures and holds them against the marks.
//!
//! `cargo run --release -p shadowcat-bench` is the whole of it; `--quick` takes about a minute, `--check` fails when a mark
//! is missed. Linux only: memory and processor time are read from /proc.

mod cli;
mod client;
mod error;
mod floor;
mod hold;
mod load;
mod machine;
mod marks;
mod nginx;
mod procfs;
mod report;
mod results;
mod serve;
mod stats;
mod suite;
mod target;
mod upstream;
mod wire;

use std::io::Write;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::Duration;

use clap::Parser;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::runtime::{Builder, Runtime};
use tokio::signal::unix::{SignalKind, signal};

use crate::cli::{Cli, LoadArgs, Part, RunArgs};
use crate::client::Endpoint;
use crate::error::Error;
use crate::load::Load;
use crate::machine::Machine;
use crate::results::Results;
use crate::suite::{Settings, Suite};
use crate::target::{Launcher, Target};

/// Writes a line to standard error; if that is gone, nobody reads it.
fn say(line: &str) {
    let _ = writeln!(std::io::stderr(), "{line}");
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let ended = match cli.part {
        None => run(&cli.run),
        Some(Part::Upstream) => one_thread().and_then(|runtime| runtime.block_on(upstream::run())),
        Some(Part::Floor { upstream }) => serve_floor(upstream),
        Some(Part::Load(args)) => one_thread().and_then(|runtime| runtime.block_on(load(args))),
    };
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            say(&format!("shadowcat-bench: {error}"));
            ExitCode::FAILURE
        }
    }
}

fn one_thread() -> Result<Runtime, Error> {
    raise_open_files();
    Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(Error::io("starting a runtime"))
}

/// As many open files as are allowed: children inherit it.
fn raise_open_files() {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    // If it is refused, the sessions that cannot be opened say so.
    let _ = setrlimit(
        Resource::Nofile,
        Rlimit {
            current: maximum,
            maximum,
        },
    );
}

fn serve_floor(upstream: SocketAddr) -> Result<(), Error> {
    let runtime = Builder::new_multi_thread().enable_all().build();
    let runtime = runtime.map_err(Error::io("starting a runtime"))?;
    runtime.block_on(floor::run(upstream))
}

async fn load(args: LoadArgs) -> Result<(), Error> {
    let load = Load {
        tool: args.tool.into(),
        in_flight: args.in_flight,
        per_session: args.calls_per_session,
        warm_up: Duration::from_millis(200),
        window: args.window,
    };
    let endpoint = Endpoint {
        address: args.address,
        keeps_form: false,
    };
    let window = load::window(endpoint, load, &procfs::Processes::default()).await?;
    say(&format!(
        "p50 {:.0} us, p95 {:.0} us, {:.0} calls/s",
        window.latencies.percentile_us(50),
        window.latencies.percentile_us(95),
        window.completed as f64 / window.seconds
    ));
    Ok(())
}

fn run(args: &RunArgs) -> Result<(), Error> {
    if cfg!(debug_assertions) {
        say("warning: this is a debug build of the bench; its load generator is slow");
    }
    let nginx = nginx::find();
    let targets = args.targets(nginx.is_some());
    let bench = std::env::current_exe().map_err(Error::io("finding this program"))?;
    let shadowcat = if targets.iter().any(Target::is_shadowcat) {
        Some(shadowcat_binary(args.shadowcat.as_deref(), &bench)?)
    } else {
        None
    };
    let used_nginx = nginx
        .as_deref()
        .filter(|_| targets.contains(&Target::Nginx));
    let machine = Machine::look(shadowcat.as_deref(), used_nginx);
    let binary = shadowcat
        .as_deref()
        .map(std::fs::metadata)
        .and_then(Result::ok);
    let binary_bytes = binary.map(|metadata| metadata.len());
    let launcher = Launcher {
        bench,
        shadowcat: shadowcat.unwrap_or_default(),
        nginx,
        workers: args.settings().workers,
    };
    let results = one_thread()?.block_on(async {
        tokio::select! {
            results = measure(&launcher, &targets, args.settings(), machine, binary_bytes) => results,
            interrupted = interruption() => Err(interrupted),
        }
    })?;
    publish(args, &results)
}

/// The binary to measure: the one that was named, else one that is built now, so that it is never an old one.
fn shadowcat_binary(named: Option<&Path>, bench: &Path) -> Result<PathBuf, Error> {
    if let Some(path) = named {
        return match path.canonicalize() {
            Ok(path) => Ok(path),
            Err(_) => Err(Error::NoBinary(path.to_owned())),
        };
    }
    // TARGET/release/shadowcat-bench
    let target = bench.ancestors().nth(2).unwrap_or(Path::new("target"));
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let status = Command::new(&cargo)
        .args([
            "build",
            "--release",
            "--package",
            "shadowcat",
            "--manifest-path",
        ])
        .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("../Cargo.toml"))
        .arg("--target-dir")
        .arg(target)
        .status()
        .map_err(|source| Error::Spawn {
            program: cargo.into(),
            source,
        })?;
    if !status.success() {
        return Err(Error::Build(status));
    }
    Ok(target.join("release/shadowcat"))
}

async fn interruption() -> Error {
    let (Ok(mut terminate), Ok(mut interrupt)) = (
        signal(SignalKind::terminate()),
        signal(SignalKind::interrupt()),
    ) else {
        return std::future::pending().await;
    };
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    Error::Interrupted
}

async fn measure(
    launcher: &Launcher,
    targets: &[Target],
    settings: Settings,
    machine: Machine,
    binary_bytes: Option<u64>,
) -> Result<Results, Error> {
    let upstream = launcher.upstream().await?;
    let address = upstream.endpoint.address;
    let suite = Suite {
        launcher,
        targets,
        settings: &settings,
        upstream: address,
    };
    say("start to first answer");
    let starts = suite.starts().await?;
    say(&format!("memory with {} sessions", settings.sessions));
    let memory = suite.memory().await?;
    let calls = suite.calls().await?;
    upstream.stop().await;
    let modes: Vec<String> = targets
        .iter()
        .filter(|target| target.is_shadowcat())
        .map(Target::name)
        .collect();
    let marks = marks::judge(&modes, &calls, &starts, &memory, binary_bytes);
    Ok(Results {
        machine,
        settings,
        calls,
        starts,
        memory,
        binary_bytes,
        marks,
    })
}

/// Prints, writes, and fails if asked to and a mark is missed.
fn publish(args: &RunArgs, results: &Results) -> Result<(), Error> {
    std::io::stdout()
        .write_all(report::document(results).as_bytes())
        .map_err(Error::io("printing"))?;
    if let Some(path) = &args.json {
        let text = serde_json::to_string_pretty(results).map_err(Error::Encode)?;
        std::fs::write(path, text + "\n").map_err(Error::io("writing the JSON file"))?;
    }
    let missed = results.marks.iter().filter(|mark| !mark.met).count();
    if args.check && (missed > 0 || results.marks.is_empty()) {
        return Err(Error::Missed {
            missed,
            of: results.marks.len(),
        });
    }
    Ok(())
}
