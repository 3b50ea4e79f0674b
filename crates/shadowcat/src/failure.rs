//! Why a command ends otherwise than well, and with which exit status.

use std::fmt;
use std::io::{self, Write as _};
use std::process::ExitCode;

/// The end of a command that did not do what it was asked to. One line that says what and what to
/// do next; never a secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Failure {
    /// The command line (or the environment in its place) cannot be followed: exit status 2.
    Usage(String),
    /// Something outside refused: a port, a command, a server: exit status 1.
    Runtime(String),
}

impl Failure {
    /// The process's exit status.
    #[must_use]
    pub fn exit_code(&self) -> ExitCode {
        match self {
            Self::Usage(_) => ExitCode::from(2),
            Self::Runtime(_) => ExitCode::from(1),
        }
    }

    /// Writes the one line to stderr, past the logger: a failure may come before there is one, and
    /// outranks its level. Whoever read it may be gone; the exit status says enough then.
    pub fn report(&self) {
        let _ = writeln!(io::stderr(), "{self}");
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (Self::Usage(text) | Self::Runtime(text)) = self;
        // What a peer or the environment put in must not make a second line.
        let line = text.split(['\n', '\r']).map(str::trim).collect::<Vec<_>>();
        write!(f, "shadowcat: {}", line.join(" "))
    }
}

impl std::error::Error for Failure {}
