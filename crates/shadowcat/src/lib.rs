//! Shadowcat's command line, and the library behind it.
//!
//! [`main`] is the whole program.

pub mod child;
pub mod open_files;

use std::process::ExitCode;

/// Runs the program as the process's arguments say.
#[must_use]
pub fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args_os().skip(1).collect();
    if let Some(exit) = child::run_if_asked(&arguments) {
        return exit;
    }
    open_files::raise();
    ExitCode::SUCCESS
}
