//! Why there is no stream, or no more of it.

use std::fmt;

use http::StatusCode;

use crate::reconnect::{Fault, Parking};

/// Why a stream cannot be made.
#[derive(Debug)]
pub enum BuildError {
    /// The URL is none, or is no HTTP URL.
    Url(String),
    /// A header field's name or value is none.
    Header(String),
    /// The request has a body or a method that may change something, and would be sent again at
    /// each reconnect; see [`Builder::resend`](super::Builder::resend).
    NotRepeatable,
    /// reqwest cannot make a client.
    Client(reqwest::Error),
    /// The operating system gives no randomness.
    Randomness,
}

impl fmt::Display for BuildError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Url(why) => write!(f, "no URL of an event stream: {why}"),
            Self::Header(name) => write!(f, "no header field: {name}"),
            Self::NotRepeatable => f.write_str(
                "the request is no GET and would be sent again at each reconnect; allow that with \
                 Builder::resend if it is safe",
            ),
            Self::Client(error) => write!(f, "no HTTP client: {error}"),
            Self::Randomness => f.write_str("the operating system gives no randomness"),
        }
    }
}

impl std::error::Error for BuildError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Client(error) => Some(error),
            _ => None,
        }
    }
}

/// Why a stream is over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Error {
    /// Coming back makes no sense, or was tried often enough.
    GaveUp {
        /// What kind of end it is.
        why: Parking,
        /// The status that said so, where one did.
        status: Option<StatusCode>,
        /// What happened last, in words.
        detail: String,
    },
    /// The stream failed.
    Failed(Fault),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::GaveUp { why, detail, .. } => {
                let why = match why {
                    Parking::NotOffered => "the server offers no stream here",
                    Parking::Refused => "the server refuses the stream",
                    Parking::Challenged => "the server asks for credentials",
                    Parking::Unreachable => "the server cannot serve the stream",
                    Parking::WrongType => "the server answers with no event stream",
                    Parking::TooLarge => "an event is over its limit",
                    Parking::OutOfBudget => "gave up after too many failures in a row",
                };
                write!(f, "{why}: {detail}")
            }
            Self::Failed(fault) => fault.fmt(f),
        }
    }
}

impl std::error::Error for Error {}
