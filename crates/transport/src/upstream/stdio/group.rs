//! A process and its descendants, as far as they stayed in its process group.

#[cfg(unix)]
use rustix::process::{
    Pid, Signal, WaitOptions, kill_process_group, test_kill_process_group, waitpgid,
};

/// The process group of a child that was started as its leader. Killed when dropped, unless it was
/// seen to be empty.
#[derive(Debug)]
pub(super) struct Group {
    #[cfg(unix)]
    id: Option<Pid>,
}

/// How a process and its descendants are asked to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ask {
    /// They may refuse (SIGTERM).
    Terminate,
    /// They may not (SIGKILL).
    Kill,
}

impl Ask {
    /// What it is called.
    pub(super) fn signal(self) -> &'static str {
        match self {
            Self::Terminate => "SIGTERM",
            Self::Kill => "SIGKILL",
        }
    }
}

#[cfg(unix)]
impl Group {
    /// The group led by the process of this id, if it still has one.
    pub(super) fn led_by(id: Option<u32>) -> Self {
        let id = id.and_then(|id| i32::try_from(id).ok());
        Self {
            id: id.and_then(Pid::from_raw),
        }
    }

    /// Sends the signal to every member.
    pub(super) fn ask(&self, ask: Ask) {
        let signal = match ask {
            Ask::Terminate => Signal::TERM,
            Ask::Kill => Signal::KILL,
        };
        if let Some(id) = self.id {
            // A group without members is what was wanted.
            let _ = kill_process_group(id, signal);
        }
    }

    /// Whether no member is left. Only for a group whose leader has been waited for: it reaps
    /// orphans that came to us, as they do where we are the first process of a container.
    pub(super) fn is_empty(&mut self) -> bool {
        let Some(id) = self.id else { return true };
        while let Ok(Some(_)) = waitpgid(id, WaitOptions::NOHANG) {}
        if test_kill_process_group(id).is_ok() {
            return false;
        }
        // From now on the number may belong to others.
        self.id = None;
        true
    }
}

#[cfg(unix)]
impl Drop for Group {
    fn drop(&mut self) {
        self.ask(Ask::Kill);
    }
}

/// Elsewhere only the process itself is known, and killed by its handle.
#[cfg(not(unix))]
impl Group {
    pub(super) fn led_by(_: Option<u32>) -> Self {
        Self {}
    }

    pub(super) fn ask(&self, _: Ask) {}

    pub(super) fn is_empty(&mut self) -> bool {
        true
    }
}
