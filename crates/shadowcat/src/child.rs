//! How a server's process is started so that it dies with us.
//!
//! A stdio server must not outlive its proxy, not even when the proxy is killed with SIGKILL and
//! can clean up nothing. Linux can do this (`prctl(PR_SET_PDEATHSIG)`, prctl(2)), but only for the
//! calling process: it has to be said between fork and exec, where safe Rust has no foothold. So
//! the proxy starts *itself* again with a hidden first argument, says it there, and replaces itself
//! by the server:
//!
//! ```text
//! /proc/self/exe __child PARENT_PID SOFT_LIMIT|- -- COMMAND ARG...
//! ```
//!
//! [`launcher`] gives everything up to and including the `--`: whoever starts a server puts these
//! words before its command. The process id stays the same over the exec, and so do working
//! directory, environment, process group and pipes; set them on the started process as if it were
//! the server already.
//!
//! What whoever starts children must know:
//!
//! - **The signal comes when the *thread* that spawned the child ends**, not the process. Spawn
//!   from a thread that lives as long as the process, never from a pool that may shrink.
//! - The child is killed, not its descendants; these see the end of their stdin.
//! - Between fork and prctl the parent may die unseen. The parent's id is compared afterwards, and
//!   a child that was too late ends with [`ORPHANED`].
//! - A command that cannot be run ends with [`NOT_FOUND`] or [`NOT_EXECUTABLE`], like a shell's,
//!   after one line on stderr that begins with [`COMPLAINT`]. That line is ours, not the server's.
//! - The limit of open files is set back to what it was before we raised it
//!   ([`crate::open_files`]).
//!
//! Other Unix systems get all of this but the signal; elsewhere there is no launcher.

use std::ffi::OsString;
use std::process::ExitCode;

/// The first argument that makes this process a child's launcher.
const MARK: &str = "__child";

/// How the one line on stderr begins when a command cannot be run.
pub const COMPLAINT: &str = "shadowcat: cannot start ";

/// Exit status: the command does not exist.
pub const NOT_FOUND: u8 = 127;

/// Exit status: the command exists and cannot be executed.
pub const NOT_EXECUTABLE: u8 = 126;

/// Exit status: the parent was gone before the child could be tied to it.
pub const ORPHANED: u8 = 125;

/// The words to put before a server's command. `soft_limit` is the limit of open files that it
/// gets back. Empty where a process cannot replace itself by another.
#[must_use]
pub fn launcher(soft_limit: Option<u64>) -> Vec<OsString> {
    // The link is resolved in the forked process and leads to this very binary, even after an
    // update has removed its file.
    let this = if cfg!(target_os = "linux") {
        OsString::from("/proc/self/exe")
    } else if let Ok(path) = std::env::current_exe() {
        path.into_os_string()
    } else {
        return Vec::new();
    };
    if !cfg!(unix) {
        return Vec::new();
    }
    let soft_limit = soft_limit.map_or_else(|| "-".to_owned(), |limit| limit.to_string());
    vec![
        this,
        MARK.into(),
        std::process::id().to_string().into(),
        soft_limit.into(),
        "--".into(),
    ]
}

/// Becomes the command, if the arguments (without the program's name) are a launcher's. Returns
/// only if they are not, or if the command cannot be run.
#[cfg(unix)]
pub(crate) fn run_if_asked(arguments: &[OsString]) -> Option<ExitCode> {
    let [mark, parent, soft_limit, dashes, command, rest @ ..] = arguments else {
        return None;
    };
    if mark != MARK || dashes != "--" {
        return None;
    }
    let number = |text: &OsString| text.to_str().and_then(|text| text.parse::<u64>().ok());
    if let Some(soft_limit) = number(soft_limit) {
        crate::open_files::set(soft_limit);
    }
    if !tie_to_parent(number(parent)) {
        return Some(ExitCode::from(ORPHANED));
    }
    Some(become_command(command, rest))
}

#[cfg(not(unix))]
pub(crate) fn run_if_asked(_: &[OsString]) -> Option<ExitCode> {
    None
}

/// Asks to be killed when the parent ends; false if it has ended already.
#[cfg(unix)]
fn tie_to_parent(parent: Option<u64>) -> bool {
    use rustix::process::{Pid, getppid};
    #[cfg(target_os = "linux")]
    {
        use rustix::process::{Signal, set_parent_process_death_signal};
        // It cannot fail for a valid signal; a kernel that refuses it leaves the pipe's end.
        let _ = set_parent_process_death_signal(Some(Signal::KILL));
    }
    let now = getppid().map(Pid::as_raw_pid);
    now.and_then(|pid| u64::try_from(pid).ok()) == parent
}

/// Replaces this process; returns only on failure.
#[cfg(unix)]
#[allow(clippy::print_stderr, reason = "no logger exists in this process")]
fn become_command(command: &OsString, arguments: &[OsString]) -> ExitCode {
    use std::io::ErrorKind;
    use std::os::unix::process::CommandExt as _;
    let error = std::process::Command::new(command).args(arguments).exec();
    let name = command.to_string_lossy();
    let (what, status) = match error.kind() {
        ErrorKind::NotFound => ("no such command".to_owned(), NOT_FOUND),
        _ => (error.to_string(), NOT_EXECUTABLE),
    };
    eprintln!("{COMPLAINT}{name:?}: {what}");
    ExitCode::from(status)
}
