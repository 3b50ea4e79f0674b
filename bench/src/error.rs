//! What can end a run: an operating-system error, a peer that does not start, or an answer that is not the right one.

use std::io;
use std::path::PathBuf;
use std::process::ExitStatus;

use http::StatusCode;

/// Why a run ended early. Every variant ends the run: a figure beside a wrong answer is worth nothing.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The operating system refused something.
    #[error("{doing}: {source}")]
    Io {
        /// What was being done.
        doing: &'static str,
        /// The system's error.
        source: io::Error,
    },
    /// A program could not be started.
    #[error("cannot run {}: {source}", program.display())]
    Spawn {
        /// The program.
        program: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// A program ended or stayed silent instead of getting ready.
    #[error("{name} did not get ready: {reason}; it printed:\n{printed}")]
    NotReady {
        /// The target's name.
        name: String,
        /// What happened instead.
        reason: &'static str,
        /// The last lines of its standard error.
        printed: String,
    },
    /// `cargo build` of the `shadowcat` binary failed.
    #[error(
        "building shadowcat failed ({0}); give a binary with --shadowcat PATH or leave it out with --targets"
    )]
    Build(ExitStatus),
    /// A binary is missing.
    #[error("{}: no such file", .0.display())]
    NoBinary(PathBuf),
    /// A measurement failed at one target.
    #[error("{target}, {what}: {source}")]
    At {
        /// The target's name.
        target: String,
        /// The scenario's name.
        what: String,
        /// The failure.
        source: Box<Error>,
    },
    /// The connection failed.
    #[error("connection: {0}")]
    Http(#[from] hyper::Error),
    /// The answer was not the right one.
    #[error("wrong answer: {0}")]
    Answer(#[from] WrongAnswer),
    /// Nothing came within the time allowed.
    #[error("no answer within {0:?}")]
    Silent(std::time::Duration),
    /// A load task panicked.
    #[error("a load task failed: {0}")]
    Task(#[from] tokio::task::JoinError),
    /// SIGINT or SIGTERM.
    #[error("interrupted")]
    Interrupted,
    /// The run went well, its figures did not.
    #[error("{missed} of {of} marks missed")]
    Missed {
        /// Marks not met, or not measured.
        missed: usize,
        /// All marks; none when neither mode took part.
        of: usize,
    },
    /// The results could not be written as JSON.
    #[error("results as JSON: {0}")]
    Encode(serde_json::Error),
}

impl Error {
    /// An [`Error::Io`] builder for `map_err`.
    pub(crate) fn io(doing: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { doing, source }
    }

    /// Says at which target and in which measurement this happened.
    pub(crate) fn at(self, target: &str, what: &str) -> Self {
        Self::At {
            target: target.to_owned(),
            what: what.to_owned(),
            source: Box::new(self),
        }
    }
}

/// How an answer differed from the right one.
#[derive(Debug, thiserror::Error)]
pub(crate) enum WrongAnswer {
    /// Another status.
    #[error("status {got} instead of {expected}: {body}")]
    Status {
        /// The right status.
        expected: StatusCode,
        /// What came.
        got: StatusCode,
        /// The first bytes of the body.
        body: String,
    },
    /// `initialize` was answered without a session id.
    #[error("no Mcp-Session-Id on the InitializeResult")]
    NoSession,
    /// JSON where the server streams, a stream where it answers JSON, or neither.
    #[error("content type {0:?}, which is not what the server sent")]
    ContentType(String),
    /// Not a JSON-RPC message.
    #[error("no JSON-RPC message ({error}): {text}")]
    Json {
        /// The parser's error.
        error: serde_json::Error,
        /// The first bytes.
        text: String,
    },
    /// A JSON-RPC error.
    #[error("JSON-RPC error {0}")]
    Rpc(String),
    /// Somebody else's answer.
    #[error("id or nonce of another request: {0}")]
    Foreign(String),
    /// The answer ended without the response.
    #[error("the answer ended without the response")]
    NoResponse,
    /// A second message after the response.
    #[error("a message after the response: {0}")]
    AfterResponse(String),
    /// Progress lost, doubled or out of order.
    #[error("progress {got} where {expected} was due")]
    Progress {
        /// The next number.
        expected: u64,
        /// The number that came.
        got: u64,
    },
    /// A standalone stream carried another session's notification, or skipped or repeated one.
    #[error(
        "standalone stream of session {session}: notification {got_seq} of session {got_session} after {after}"
    )]
    Standalone {
        /// The session that the stream belongs to.
        session: u64,
        /// The session that the notification names.
        got_session: u64,
        /// The last number seen, 0 before the first.
        after: u64,
        /// The number that came.
        got_seq: u64,
    },
    /// A standalone stream ended while its session lived.
    #[error("the standalone stream of session {0} ended")]
    StandaloneEnded(u64),
}

/// The first bytes of `text`, for an error message.
pub(crate) fn excerpt(text: &[u8]) -> String {
    const LIMIT: usize = 200;
    String::from_utf8_lossy(text.get(..LIMIT).unwrap_or(text)).into_owned()
}
