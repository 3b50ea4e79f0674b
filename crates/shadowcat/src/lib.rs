//! Shadowcat's command line, and the library behind it.
//!
//! [`main`] is the whole program: it reads the command line ([`cli`]), starts logging
//! ([`telemetry`]) and runs one command. Protocol and streams are the business of the crates below;
//! here are the parts that a process has and a library has not: arguments, environment, signals,
//! limits, exit statuses, stdin and stdout.

mod admin;
mod assembly;
mod builtin;
pub mod child;
pub mod cli;
mod commands;
pub mod failure;
mod listen;
mod open_files;
mod shutdown;
mod telemetry;

/// The pure protocol: messages, versions, rules.
pub use shadowcat_mcp as mcp;
/// The pipeline between a client edge and an upstream leg.
pub use shadowcat_proxy as proxy;
/// The event-stream engine.
pub use shadowcat_sse as sse;
/// What a client gets back when it returns to a stream.
pub use shadowcat_store as store;
/// Client edges and upstream legs.
pub use shadowcat_transport as transport;

use std::ffi::OsString;
use std::io::Write as _;
use std::process::ExitCode;

use tracing::warn;

use cli::Invocation;
use cli::options::LogOptions;
use failure::Failure;

/// Runs the program as the process's arguments say.
#[must_use]
pub fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args_os().skip(1).collect();
    if let Some(exit) = child::run_if_asked(&arguments) {
        return exit;
    }
    match builtin::run_if_asked(&arguments).unwrap_or_else(|| run(arguments)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            failure.report();
            failure.exit_code()
        }
    }
}

fn run(arguments: Vec<OsString>) -> Result<(), Failure> {
    let words = arguments.clone();
    let start = |log: &LogOptions, level_given| start(log, level_given, &words);
    match cli::parse(arguments)? {
        Invocation::Print(text) => print(text.as_bytes()),
        Invocation::Completions(shell) => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut cli::command(), "shadowcat", &mut script);
            print(&script)
        }
        Invocation::Check(check) => {
            start(&check.log, check.log_level_given);
            block_on(commands::check::run(*check))
        }
        Invocation::Sse(sse) => {
            start(&sse.log, sse.log_level_given);
            block_on(commands::sse::run(*sse))
        }
        Invocation::Demo(demo) => {
            start(&demo.log, demo.log_level_given);
            block_on(commands::demo::run(demo))
        }
        Invocation::Proxy(proxy) => {
            start(&proxy.options.log, proxy.log_level_given);
            block_on(commands::proxy::run(*proxy))
        }
    }
}

/// What every command that talks to a server needs first. `words` are the command line.
fn start(log: &LogOptions, level_given: bool, words: &[OsString]) {
    telemetry::start(log, level_given);
    for stranger in cli::environment::strangers(words) {
        let name = stranger.name;
        let meant = stranger.similar.map_or(String::new(), |similar| {
            format!("; a similar one is {similar}")
        });
        warn!(target: telemetry::STARTUP, "no option is set by {name}, which is ignored{meant}");
    }
    open_files::raise();
}

/// Runs a command to its end. What it leaves behind (a read of stdin that cannot be cancelled) does
/// not hold the process.
fn block_on(command: impl Future<Output = Result<(), Failure>>) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::Runtime(format!("cannot start threads: {error}")))?;
    let done = runtime.block_on(command);
    runtime.shutdown_background();
    done
}

/// Writes a command's result to stdout. A reader that has gone (`| head`) is no failure.
fn print(text: &[u8]) -> Result<(), Failure> {
    let mut stdout = std::io::stdout().lock();
    match stdout.write_all(text).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(Failure::Runtime(format!("cannot write to stdout: {error}")))
        }
        _ => Ok(()),
    }
}
