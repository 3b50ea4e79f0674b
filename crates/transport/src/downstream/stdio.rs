//! The stdio client edge: one JSON-RPC message a line.
//!
//! MCP specification, Transports, "stdio". Lines are bounded; one that is no message gets a
//! JSON-RPC error, and the connection goes on. All output goes through one writer, which writes
//! what is ready in one piece.

mod standard;

use std::sync::Arc;
use std::time::Duration;

use shadowcat_mcp::build;
use shadowcat_mcp::fault::Rejection;
use shadowcat_mcp::message::{Message, Payload};
use tokio::io::{AsyncRead, AsyncWrite};
use tracing::{debug, warn};

use super::{LineSink, SinkClosed, StdioService};
use crate::lines::{self, Line, LineSender, LineWriter, Lines, excerpt};
use crate::upstream::BoxFuture;
pub use standard::{StandardInput, StandardOutput, standard_input, standard_output};

/// How long a client that is to get the last lines may not read at all.
const FINISH_PATIENCE: Duration = Duration::from_secs(1);

/// The bounds of a stdio edge.
#[derive(Debug, Clone, Copy)]
pub struct StdioLimits {
    /// Largest message, in bytes.
    pub max_message_size: usize,
}

/// Reads messages until the end of the input, handing each to `service` in order.
pub async fn read<S: StdioService>(
    input: impl AsyncRead + Send + Unpin,
    service: Arc<S>,
    sink: Sink,
    limits: StdioLimits,
) {
    let mut lines = Lines::new(input, limits.max_message_size);
    loop {
        let rejection = match lines.next().await {
            Ok(Some(Line::Whole(line))) => match Payload::parse(line.clone()) {
                Ok(payload) => {
                    Arc::clone(&service).message(payload).await;
                    continue;
                }
                Err(error) => {
                    warn!(%error, line = excerpt(&line), "the client sent a line that is no message");
                    Rejection::Parse(error).to_response(None)
                }
            },
            Ok(Some(Line::TooLong(start))) => {
                let limit = limits.max_message_size;
                warn!(
                    limit,
                    line = excerpt(&start),
                    "the client sent a line that is too long"
                );
                let rejection = Rejection::BodyTooLarge { limit };
                build::error(None, rejection.code(), &rejection.to_string(), None)
            }
            Ok(Some(Line::Skipped(_))) => continue,
            Ok(None) => break,
            Err(error) => {
                debug!(%error, "the client's pipe failed");
                break;
            }
        };
        if sink.send(rejection).await.is_err() {
            break;
        }
    }
}

/// Starts the one writer of `output`.
pub fn writer(output: impl AsyncWrite + Send + Unpin + 'static) -> Writer {
    Writer(lines::writer(output, |_| {}))
}

/// The writer of a pipe; see [`writer`].
pub struct Writer(LineWriter);

impl Writer {
    /// Another way in.
    #[must_use]
    pub fn sink(&self) -> Sink {
        Sink(self.0.sender())
    }

    /// Takes no more messages, writes what is queued, flushes, and ends. Gives up on a client that
    /// reads nothing for a second.
    pub async fn finish(self) {
        if let Err(error) = self.0.finish(FINISH_PATIENCE).await {
            debug!(%error, "the client did not read to the end");
        }
    }
}

/// A way to the one writer of a pipe.
#[derive(Debug, Clone)]
pub struct Sink(LineSender);

impl LineSink for Sink {
    fn send(&self, message: Message) -> BoxFuture<Result<(), SinkClosed>> {
        let lines = self.0.clone();
        Box::pin(async move {
            let sent = lines.send(message.as_line(), None).await;
            sent.map_err(|_| SinkClosed)
        })
    }
}

#[cfg(test)]
mod tests {
    use parking_lot::Mutex;
    use tokio::io::{AsyncReadExt, BufReader};

    use super::*;

    /// Answers every request with its own method; notes what came.
    struct Echo {
        sink: Sink,
        seen: Mutex<Vec<String>>,
    }

    impl StdioService for Echo {
        fn message(self: Arc<Self>, payload: Payload) -> BoxFuture<()> {
            Box::pin(async move {
                let Payload::Single(message) = payload else {
                    return;
                };
                if let Some(id) = message.id() {
                    let _ = self.sink.send(build::result(id, "{}")).await;
                }
                self.seen
                    .lock()
                    .push(message.method().map_or("-".into(), ToString::to_string));
            })
        }
    }

    async fn converse(input: &[u8], max_message_size: usize) -> (Vec<String>, Vec<String>) {
        let (ours, theirs) = tokio::io::duplex(1024);
        let writer = writer(ours);
        let service = Arc::new(Echo {
            sink: writer.sink(),
            seen: Mutex::default(),
        });
        let reading = tokio::spawn(async move {
            let mut text = String::new();
            BufReader::new(theirs)
                .read_to_string(&mut text)
                .await
                .unwrap();
            text
        });
        read(
            input,
            Arc::clone(&service),
            writer.sink(),
            StdioLimits { max_message_size },
        )
        .await;
        let seen = service.seen.lock().clone();
        drop(service);
        writer.finish().await;
        let answers = reading.await.unwrap().lines().map(str::to_owned).collect();
        (seen, answers)
    }

    #[tokio::test(start_paused = true)]
    async fn bad_lines_get_errors_and_the_connection_goes_on() {
        let input = b"nonsense\n\n{\"jsonrpc\":\"2.0\"}\r\n\xff\n{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"ping\"}\r\n";
        let (seen, answers) = converse(input, 1000).await;
        assert_eq!(seen, ["ping"]);
        let codes: Vec<_> = answers
            .iter()
            .map(|a| a.contains("-32700") || a.contains("-32600"))
            .collect();
        assert_eq!(codes, [true, true, true, false], "{answers:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_long_line_is_refused_without_being_kept() {
        let mut input = vec![b'x'; 5000];
        input.extend_from_slice(b"\n{\"jsonrpc\":\"2.0\",\"method\":\"a\"}");
        let (seen, answers) = converse(&input, 100).await;
        assert_eq!(seen, ["a"], "the last line needs no newline");
        assert!(answers[0].contains("--max-message-size"), "{answers:?}");
    }
}
