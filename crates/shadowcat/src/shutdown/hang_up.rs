//! Whether SIGHUP is ours to take: not where whoever started us has it ignored (`nohup`), because a
//! handler would undo that.
//!
//! To ask for a signal's disposition takes a system call that safe code cannot make. The kernel tells
//! it in `/proc`; where there is no such thing a child, which inherits it, shows it.

use std::os::unix::process::ExitStatusExt as _;
use std::process::{Command, Stdio};

const NUMBER: i32 = 1;

/// Whether the process was started with SIGHUP ignored. For before anything handles it. Where nobody
/// can tell it is left as it is.
pub(super) fn is_ignored() -> bool {
    in_proc().or_else(of_a_child).unwrap_or(true)
}

fn in_proc() -> Option<bool> {
    is_ignored_in(&std::fs::read_to_string("/proc/self/status").ok()?)
}

/// See proc_pid_status(5): `SigIgn` is a mask in hex, whose lowest bit is signal 1.
fn is_ignored_in(status: &str) -> Option<bool> {
    let mask = status
        .lines()
        .find_map(|line| line.strip_prefix("SigIgn:"))?;
    let mask = u64::from_str_radix(mask.trim(), 16).ok()?;
    Some(mask & (1 << (NUMBER - 1)) != 0)
}

fn of_a_child() -> Option<bool> {
    let mut child = Command::new("/bin/sh");
    child.args(["-c", "kill -HUP $$"]);
    for stream in [Command::stdin, Command::stdout, Command::stderr] {
        stream(&mut child, Stdio::null());
    }
    let status = child.status().ok()?;
    match (status.signal(), status.success()) {
        (Some(NUMBER), _) => Some(false),
        (None, true) => Some(true),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lowest_bit_of_the_mask_decides() {
        let status = |mask: &str| format!("SigBlk:\t0001\nSigIgn:\t{mask}\nSigCgt:\t0001\n");
        for (mask, expected) in [
            ("0000000000000001", Some(true)),
            ("fffffffe7fffffff", Some(true)),
            ("0000000000001000", Some(false)),
            ("0000000000000002", Some(false)),
            ("", None),
        ] {
            assert_eq!(is_ignored_in(&status(mask)), expected, "{mask}");
        }
        assert_eq!(is_ignored_in("SigCgt:\t1\n"), None);
    }

    #[test]
    fn a_child_shows_the_same() {
        let shown = of_a_child();
        assert!(shown.is_some());
        if let Some(told) = in_proc() {
            assert_eq!(shown, Some(told));
        }
    }
}
