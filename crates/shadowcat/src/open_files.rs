//! The limit of open files: raised for ourselves, kept for our children.
//!
//! Every event stream holds a descriptor and every child three; the usual soft limit of 1024 is
//! far below `--max-connections`. The soft limit may be raised up to the hard one without
//! privileges. Children get the old one back ([`crate::child`]): a program that uses `select(2)`
//! breaks on descriptors beyond 1023, which is why the soft limit is low in the first place.

use std::sync::OnceLock;

/// The soft limit before it was raised.
static INHERITED: OnceLock<u64> = OnceLock::new();

/// The soft limit that this process was started with, if it has been raised since.
pub(crate) fn inherited() -> Option<u64> {
    INHERITED.get().copied()
}

/// Raises the soft limit to the hard one; failing to is no reason not to start.
pub(crate) fn raise() {
    if let Some(before) = raise_soft_limit() {
        let _ = INHERITED.set(before);
    }
}

/// Returns the soft limit before, if it was raised.
#[cfg(unix)]
fn raise_soft_limit() -> Option<u64> {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let before = current?;
    if maximum.is_some_and(|maximum| before >= maximum) {
        return None;
    }
    let wanted = Rlimit {
        current: maximum,
        maximum,
    };
    setrlimit(Resource::Nofile, wanted).ok().map(|()| before)
}

/// There is no such limit here.
#[cfg(not(unix))]
fn raise_soft_limit() -> Option<u64> {
    None
}

/// Sets the soft limit; for a process that is about to become another program.
#[cfg(unix)]
pub(crate) fn set(soft: u64) {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let maximum = getrlimit(Resource::Nofile).maximum;
    let wanted = Rlimit {
        current: Some(soft),
        maximum,
    };
    // A limit that stays higher than it was does the child no harm that it could act on.
    let _ = setrlimit(Resource::Nofile, wanted);
}
