//! The command line: what is measured, and how much of it.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::suite::Settings;
use crate::target::Target;
use crate::wire::Tool;

#[derive(Debug, Parser)]
#[command(
    name = "shadowcat-bench",
    about = "Measures Shadowcat beside a direct connection, an empty pass-through and nginx",
    after_help = "\
Examples:
  cargo run --release -p shadowcat-bench > docs/performance.md
  cargo run --release -p shadowcat-bench -- --quick --check --json figures.json
  cargo run --release -p shadowcat-bench -- --peer 'other-proxy --port {PORT} {UPSTREAM}'",
    args_conflicts_with_subcommands = true
)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) part: Option<Part>,
    #[command(flatten)]
    pub(crate) run: RunArgs,
}

/// The parts of a run, to be used by hand (under a profiler, say).
#[derive(Debug, Subcommand)]
pub(crate) enum Part {
    /// The scripted MCP server
    Upstream,
    /// The empty pass-through
    Floor {
        /// Where the server listens
        upstream: SocketAddr,
    },
    /// The load generator, at anything that serves MCP at /mcp
    Load(LoadArgs),
}

#[derive(Debug, Args)]
pub(crate) struct LoadArgs {
    /// Where it listens
    pub(crate) address: SocketAddr,
    /// What is called
    #[arg(long, value_enum, default_value = "json")]
    pub(crate) tool: LoadTool,
    /// Calls in flight
    #[arg(long, default_value_t = 64, value_parser = at_least_one)]
    pub(crate) in_flight: usize,
    /// Calls in flight that share one session
    #[arg(long, default_value_t = 8, value_parser = at_least_one)]
    pub(crate) calls_per_session: usize,
    /// For how long
    #[arg(long = "for", default_value = "10s", value_parser = humantime::parse_duration)]
    pub(crate) window: Duration,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum LoadTool {
    Json,
    Stream,
    Burst,
    Sleep10,
}

impl From<LoadTool> for Tool {
    fn from(tool: LoadTool) -> Self {
        match tool {
            LoadTool::Json => Self::Json,
            LoadTool::Stream => Self::Stream,
            LoadTool::Burst => Self::Burst,
            LoadTool::Sleep10 => Self::Sleep10,
        }
    }
}

#[derive(Debug, Args)]
pub(crate) struct RunArgs {
    /// Fewer rounds: about a minute
    #[arg(long)]
    pub(crate) quick: bool,
    /// Exit with 1 when a mark is missed
    #[arg(long)]
    pub(crate) check: bool,
    /// Also write the figures as JSON
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,
    /// What is measured beside direct and floor [default: reverse, forward, and nginx where installed]
    #[arg(long, value_enum, value_delimiter = ',', value_name = "LIST")]
    pub(crate) targets: Option<Vec<Contender>>,
    /// Another proxy: a command in which {UPSTREAM} stands for the server's URL and {PORT} for the port of 127.0.0.1 at which it
    /// must serve /mcp (repeatable)
    #[arg(long, value_name = "COMMAND")]
    pub(crate) peer: Vec<String>,
    /// The shadowcat binary [default: built from these sources in release mode]
    #[arg(long, value_name = "PATH")]
    pub(crate) shadowcat: Option<PathBuf>,
    /// Rounds of calls [default: 101, quick: 9]
    #[arg(long, value_parser = at_least_one)]
    pub(crate) rounds: Option<usize>,
    /// Length of one window of calls [default: 80ms]
    #[arg(long, value_parser = humantime::parse_duration)]
    pub(crate) window: Option<Duration>,
    /// Sessions held at once
    #[arg(long, default_value_t = 1000, value_parser = at_least_one)]
    pub(crate) sessions: usize,
    /// Calls in flight that share one session
    #[arg(long, default_value_t = 8, value_parser = at_least_one)]
    pub(crate) calls_per_session: usize,
    /// Worker threads of the floor, Shadowcat and nginx [default: one per core]
    #[arg(long, value_parser = at_least_one)]
    pub(crate) workers: Option<usize>,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum Contender {
    Reverse,
    Forward,
    Nginx,
}

impl RunArgs {
    /// Direct and floor, then the others.
    pub(crate) fn targets(&self, nginx_installed: bool) -> Vec<Target> {
        let mut targets = vec![Target::Direct, Target::Floor];
        match &self.targets {
            Some(chosen) => targets.extend(chosen.iter().map(|contender| match contender {
                Contender::Reverse => Target::Reverse,
                Contender::Forward => Target::Forward,
                Contender::Nginx => Target::Nginx,
            })),
            None => {
                targets.extend([Target::Reverse, Target::Forward]);
                targets.extend(nginx_installed.then_some(Target::Nginx));
            }
        }
        targets.extend(self.peer.iter().cloned().map(Target::Peer));
        targets
    }

    /// How much is to be measured.
    pub(crate) fn settings(&self) -> Settings {
        let quick = self.quick;
        let cores = || std::thread::available_parallelism().map_or(1, usize::from);
        Settings {
            rounds: self.rounds.unwrap_or(if quick { 9 } else { 101 }),
            window: self.window.unwrap_or(Duration::from_millis(80)),
            warm_up: Duration::from_millis(50),
            starts: if quick { 5 } else { 15 },
            sessions: self.sessions,
            per_session: self.calls_per_session,
            workers: self.workers.unwrap_or_else(cores),
        }
    }
}

fn at_least_one(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(0) | Err(_) => Err("a number from 1 on".to_owned()),
        Ok(number) => Ok(number),
    }
}
