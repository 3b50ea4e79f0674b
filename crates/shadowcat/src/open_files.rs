//! The limit of open files: raised for ourselves, kept for our children.
//!
//! Every event stream holds a descriptor and every child three; the usual soft limit of 1024 is
//! far below `--max-connections`. The soft limit may be raised up to the hard one without
//! privileges. Children get the old one back ([`crate::child`]): a program that uses `select(2)`
//! breaks on descriptors beyond 1023, which is why the soft limit is low in the first place.

/// Raises the soft limit to the hard one. Returns the soft limit before, if it was raised; failing
/// to raise it is no reason not to start.
#[cfg(unix)]
pub(crate) fn raise() -> Option<u64> {
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
pub(crate) fn raise() -> Option<u64> {
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
