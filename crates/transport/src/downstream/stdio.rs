//! The stdio client edge: one JSON-RPC message a line.
//!
//! MCP specification, Transports, "stdio". Lines are bounded; one that is no message gets a
//! JSON-RPC error, and the connection goes on. All output goes through one writer, which writes
//! what is ready in one piece.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use shadowcat_mcp::build;
use shadowcat_mcp::fault::Rejection;
use shadowcat_mcp::message::{Message, Payload};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tracing::{debug, warn};

use super::{LineSink, SinkClosed, StdioService};
use crate::lines::{Line, Lines, excerpt};
use crate::upstream::BoxFuture;

/// Messages that wait for a slow reader before whoever produces them has to wait.
const QUEUE: usize = 64;
/// Bytes that one write gathers.
const GATHER: usize = 64 * 1024;

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
    let (lines, queue) = mpsc::channel(QUEUE);
    Writer {
        sink: Sink(lines),
        task: tokio::spawn(write(output, queue)),
    }
}

/// The writer of a pipe; see [`writer`].
pub struct Writer {
    sink: Sink,
    task: JoinHandle<()>,
}

impl Writer {
    /// Another way in.
    #[must_use]
    pub fn sink(&self) -> Sink {
        self.sink.clone()
    }

    /// Writes what is queued, flushes, and ends. Waits for other sinks to be dropped at most a
    /// second.
    pub async fn finish(self) {
        drop(self.sink);
        let _ = tokio::time::timeout(std::time::Duration::from_secs(1), self.task).await;
    }
}

/// A way to the one writer of a pipe.
#[derive(Debug, Clone)]
pub struct Sink(mpsc::Sender<Bytes>);

impl LineSink for Sink {
    fn send(&self, message: Message) -> BoxFuture<Result<(), SinkClosed>> {
        let lines = self.0.clone();
        Box::pin(async move { lines.send(message.as_line()).await.map_err(|_| SinkClosed) })
    }
}

async fn write(mut output: impl AsyncWrite + Unpin, mut queue: mpsc::Receiver<Bytes>) {
    let mut gathered = BytesMut::new();
    while let Some(line) = queue.recv().await {
        append(&mut gathered, &line);
        while gathered.len() < GATHER {
            match queue.try_recv() {
                Ok(line) => append(&mut gathered, &line),
                Err(_) => break,
            }
        }
        let written = async {
            output.write_all(&gathered).await?;
            output.flush().await
        };
        if let Err(error) = written.await {
            debug!(%error, "the client closed its end of the pipe");
            return;
        }
        gathered.clear();
    }
}

fn append(gathered: &mut BytesMut, line: &[u8]) {
    gathered.extend_from_slice(line);
    gathered.extend_from_slice(b"\n");
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use parking_lot::Mutex;
    use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};

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

        fn eof(self: Arc<Self>) -> BoxFuture<()> {
            Box::pin(async {})
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

    #[tokio::test(start_paused = true)]
    async fn a_client_that_does_not_read_slows_its_producers() {
        let (ours, theirs) = tokio::io::duplex(64);
        let writer = writer(ours);
        let sink = writer.sink();
        let message = build::initialized();
        let mut queued = 0;
        while let Ok(Ok(())) =
            tokio::time::timeout(Duration::from_millis(1), sink.send(message.clone())).await
        {
            queued += 1;
        }
        assert!((QUEUE..4 * QUEUE).contains(&queued), "{queued}");
        drop(sink);
        let mut lines = BufReader::new(theirs).lines();
        let reading = async {
            for _ in 0..queued {
                assert!(lines.next_line().await.unwrap().is_some());
            }
        };
        tokio::join!(reading, writer.finish());
    }
}
