//! What Linux's /proc says about a process and its descendants: memory, processor time, threads.

use std::fs;

/// A process and its descendants, as they were when it was read.
#[derive(Debug, Default)]
pub(crate) struct Processes(Vec<u32>);

impl Processes {
    /// `root` and all its descendants.
    pub(crate) fn tree(root: u32) -> Self {
        let all: Vec<(u32, u32)> = fs::read_dir("/proc")
            .into_iter()
            .flatten()
            .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
            .filter_map(|pid| Some((pid, stat_field(pid, PARENT)?.try_into().ok()?)))
            .collect();
        let mut tree = vec![root];
        let mut next = 0;
        while let Some(&parent) = tree.get(next) {
            tree.extend(
                all.iter()
                    .filter(|(_, ppid)| *ppid == parent)
                    .map(|(pid, _)| pid),
            );
            next += 1;
        }
        Self(tree)
    }

    /// Processor time spent so far, user and system, in seconds. A process that is gone counts nothing.
    pub(crate) fn cpu_seconds(&self) -> f64 {
        let fields = [USER_TIME, SYSTEM_TIME];
        let ticks: u64 = self
            .0
            .iter()
            .flat_map(|pid| fields.map(|field| stat_field(*pid, field).unwrap_or(0)))
            .sum();
        ticks as f64 / rustix::param::clock_ticks_per_second() as f64
    }

    /// Resident memory in bytes. Pages that several of the processes share count once for each.
    pub(crate) fn resident_bytes(&self) -> u64 {
        self.0
            .iter()
            .filter_map(|pid| status_field(*pid, "VmRSS:"))
            .map(|kib| kib * 1024)
            .sum()
    }

    /// Threads.
    pub(crate) fn threads(&self) -> u64 {
        self.0
            .iter()
            .filter_map(|pid| status_field(*pid, "Threads:"))
            .sum()
    }
}

/// Positions in `/proc/PID/stat`, counted from the field after the command (proc(5) numbers that one 3).
const PARENT: usize = 1;
const USER_TIME: usize = 11;
const SYSTEM_TIME: usize = 12;

fn stat_field(pid: u32, field: usize) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The command stands in parentheses and may hold anything.
    let (_, after) = stat.rsplit_once(')')?;
    after.split_ascii_whitespace().nth(field)?.parse().ok()
}

fn status_field(pid: u32, name: &str) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_ascii_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::{Command, Stdio};

    #[test]
    fn a_tree_has_its_root_and_its_children() {
        let own = std::process::id();
        let mut child = Command::new("cat").stdin(Stdio::piped()).spawn().unwrap();
        let tree = Processes::tree(own);
        drop(child.stdin.take());
        child.wait().unwrap();
        assert!(tree.0.contains(&own));
        assert!(tree.0.contains(&child.id()));
        assert!(tree.resident_bytes() > 100_000);
        assert!(tree.threads() >= 2, "at least one each");
    }

    #[test]
    fn processor_time_grows_with_work() {
        let own = Processes(vec![std::process::id()]);
        let before = own.cpu_seconds();
        let started = std::time::Instant::now();
        while own.cpu_seconds() < before + 0.02 {
            assert!(started.elapsed().as_secs() < 60);
        }
    }
}
