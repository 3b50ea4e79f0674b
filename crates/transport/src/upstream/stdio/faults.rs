//! The faults of a stdio upstream, each worded once.

use std::process::ExitStatus;
use std::time::Duration;

use shadowcat_mcp::fault::{Executed, Fault, FaultKind, Side};

/// When a place among the children may be free again.
const ROOM_AFTER: Duration = Duration::from_secs(10);

/// How a process ended without being asked.
#[derive(Debug)]
pub(super) enum Death {
    /// It could not be run at all; in words.
    NotRun(String),
    /// It exited or was killed.
    Exited(ExitStatus),
    /// It runs, but closed the pipe that its answers come by.
    OutputClosed,
    /// It runs, but closed the pipe that it reads.
    InputClosed,
    /// What became of it cannot be told.
    Lost(std::io::Error),
}

impl Death {
    /// The name in metrics.
    pub(super) fn cause(&self) -> &'static str {
        match self {
            Self::NotRun(_) => "not_run",
            Self::Exited(status) if status.code().is_some() => "exit_status",
            Self::Exited(_) => "signal",
            Self::OutputClosed => "output_closed",
            Self::InputClosed => "input_closed",
            Self::Lost(_) => "lost",
        }
    }

    /// What everything gets that waited for the process. `last_line`: what it said about that, for
    /// those who may know. `productive`: it had sent a message before.
    pub(super) fn fault(&self, server: &str, last_line: Option<&str>, productive: bool) -> Fault {
        let kind = match self {
            Self::NotRun(_) => FaultKind::ChildNotStarted,
            _ => FaultKind::ChildExited,
        };
        let what = match self {
            Self::NotRun(why) => return upstream(kind, why.clone()),
            // "exit status: 3", "signal: 9 (SIGKILL)"
            Self::Exited(status) => format!("ended with {status}"),
            Self::OutputClosed => "closed its stdout".to_owned(),
            Self::InputClosed => "closed its stdin".to_owned(),
            Self::Lost(error) => format!("was lost: {error}"),
        };
        let said = last_line.map_or(String::new(), |line| {
            format!("; its last line on stderr: {line}")
        });
        let next = match productive {
            true => "",
            false => "; it had answered nothing: start the command by hand to see what it needs",
        };
        upstream(
            kind,
            format!("the server's process ({server}) {what}{said}{next}"),
        )
    }
}

fn upstream(kind: FaultKind, detail: impl Into<String>) -> Fault {
    Fault::new(Side::Upstream, kind, Executed::No).because(detail)
}

/// The operating system starts no process.
pub(super) fn not_started(server: &str, error: &std::io::Error) -> Fault {
    upstream(
        FaultKind::ChildNotStarted,
        format!("cannot start {server}: {error}"),
    )
}

/// The command crashed too often in a row.
pub(super) fn keeps_crashing(server: &str, wait: Duration) -> Fault {
    upstream(
        FaultKind::ChildNotStarted,
        format!(
            "{server} keeps ending before it answers anything; it will be started again in {} s",
            shadowcat_mcp::fault::seconds(wait)
        ),
    )
    .after(Some(wait))
}

/// As many children run as may.
pub(super) fn no_room(max_children: usize) -> Fault {
    Fault::new(Side::Shadowcat, FaultKind::Overloaded, Executed::No)
        .because(format!(
            "all {max_children} processes that --max-children allows are running"
        ))
        .after(Some(ROOM_AFTER))
}

/// An answer over the limit, which was not kept.
pub(super) fn too_large(limit: usize) -> Fault {
    Fault::new(Side::Upstream, FaultKind::TooLarge, Executed::Unknown).because(format!(
        "the server's answer is larger than {limit} bytes; --max-message-size sets the limit"
    ))
}

/// We ended the process, or were about to.
pub(super) fn closed() -> Fault {
    Fault::new(Side::Shadowcat, FaultKind::SessionEnded, Executed::No)
        .because("the session was ended")
}
