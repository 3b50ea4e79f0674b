//! The built-in MCP server, as a process of its own.
//!
//! A hidden first argument, like a child's launcher ([`crate::child`]): whoever wants to try the
//! proxy, or to test this binary, needs no other program.
//!
//! ```text
//! shadowcat reverse -- shadowcat __server stdio
//! shadowcat __server http --listen 127.0.0.1:3001
//! ```

use std::ffi::OsString;

use shadowcat_testkit::fixture;

use crate::failure::Failure;

/// The first argument that makes this process the built-in server.
const MARK: &str = "__server";

/// Runs the server, if the arguments (without the program's name) ask for it.
pub(crate) fn run_if_asked(arguments: &[OsString]) -> Option<Result<(), Failure>> {
    let (mark, rest) = arguments.split_first()?;
    if mark != MARK {
        return None;
    }
    let words: Vec<_> = rest
        .iter()
        .map(|word| word.to_string_lossy().into_owned())
        .collect();
    crate::open_files::raise();
    Some(crate::block_on(async move {
        let failed = |error| Failure::Usage(format!("{MARK}: {error}"));
        fixture::run(&words).await.map_err(failed)
    }))
}
