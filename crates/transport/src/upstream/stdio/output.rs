//! What a child writes: messages on stdout, words for people on stderr.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use shadowcat_mcp::message::{Message, Payload};
use shadowcat_mcp::oversized;
use tokio::io::AsyncRead;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;
use tracing::{debug, info, warn};

use super::last_line::LastLine;
use super::{Shared, faults};
use crate::lines::{Line, LineSender, Lines, excerpt};
use crate::metrics::{ByteLabels, Reason};
use crate::upstream::pipe::Router;

/// Bytes of a line on stderr that are relayed.
const MAX_LOG_LINE: usize = 8 * 1024;
/// The target of relayed lines.
const TARGET: &str = "shadowcat::server";

/// The question to a pipe's reader whether the pipe is empty: of a dead process everything is in it,
/// but it has no end while a descendant holds it open. Clones are the same question.
#[derive(Debug, Clone, Default)]
pub(super) struct Emptied {
    asked: CancellationToken,
    answered: CancellationToken,
}

impl Emptied {
    /// Waits until the reader finds nothing more in the pipe and has handled what it found.
    pub(super) async fn wait(&self) {
        self.asked.cancel();
        self.answered.cancelled().await;
    }

    /// The next line of the pipe.
    async fn next<R: AsyncRead + Unpin>(&self, lines: &mut Lines<R>) -> io::Result<Option<Line>> {
        tokio::select! {
            // Only a pipe that has nothing to read lets the question come to its turn.
            biased;
            line = lines.next() => return line,
            () = self.asked.cancelled() => self.answered.cancel(),
        }
        lines.next().await
    }
}

/// Waits until a dead process's pipe is read to its end, or as far as the process has written:
/// a descendant may hold it open.
pub(super) async fn rest(
    reader: &mut AbortOnDropHandle<()>,
    emptied: &Emptied,
    patience: Duration,
) {
    if !reader.is_finished() {
        let read = async {
            tokio::select! {
                biased;
                _ = reader => {}
                () = emptied.wait() => {}
            }
        };
        let _ = timeout(patience, read).await;
    }
}

/// Reads messages until the pipe ends. A line that is no message is quoted in a warning, counted
/// and skipped. `productive` is told at the first message.
pub(super) async fn messages(
    stdout: impl AsyncRead + Unpin,
    shared: Arc<Shared>,
    router: Router,
    answers: LineSender,
    productive: Arc<Mutex<bool>>,
    emptied: Emptied,
) {
    let labels = ByteLabels {
        leg: "upstream",
        direction: "received",
    };
    let bytes = shared.metrics.bytes.get_or_create(&labels).clone();
    let limit = shared.config.max_message_size;
    let mut lines = Lines::new(stdout, limit);
    let mut too_long = Bytes::new();
    loop {
        let line = match emptied.next(&mut lines).await {
            Ok(Some(Line::Whole(line))) => line,
            Ok(Some(Line::TooLong(start))) => {
                warn!(
                    server = shared.name,
                    limit,
                    line = excerpt(&start),
                    "the server sent a line that is too long"
                );
                bad(&shared, "too_large");
                too_long = start;
                continue;
            }
            Ok(Some(Line::Skipped(end))) => {
                if let Some(id) = oversized::response_id(&too_long, &end) {
                    router
                        .deliver(faults::too_large(limit).to_response(&id))
                        .await;
                }
                continue;
            }
            Ok(None) => return,
            Err(error) => {
                debug!(server = shared.name, %error, "the server's stdout failed");
                return;
            }
        };
        bytes.inc_by(line.len() as u64 + 1);
        let payload = match Payload::parse(line.clone()) {
            Ok(payload) => payload,
            Err(error) => {
                warn!(server = shared.name, %error, line = excerpt(&line), "the server sent a line that is no message");
                bad(&shared, "not_a_message");
                continue;
            }
        };
        note_productive(&shared, &productive);
        match payload {
            Payload::Single(message) => deliver(&shared, &router, &answers, message).await,
            Payload::Batch(messages) => {
                for message in messages {
                    deliver(&shared, &router, &answers, message).await;
                }
            }
        }
    }
}

async fn deliver(shared: &Shared, router: &Router, answers: &LineSender, message: Message) {
    if let Some(answer) = router.deliver(message).await
        // Waiting here for a server that does not read would wait for ever if it waits for us to
        // read.
        && !answers.try_send(answer.as_line())
    {
        shared.metrics.undelivered_messages.inc();
        warn!(
            server = shared.name,
            "the server does not read; dropped the refusal of its request"
        );
    }
}

fn bad(shared: &Shared, reason: &'static str) {
    let reason = Reason::of(reason);
    shared.metrics.bad_messages.get_or_create(&reason).inc();
}

fn note_productive(shared: &Shared, productive: &Mutex<bool>) {
    if !std::mem::replace(&mut *productive.lock(), true) {
        shared.crashes.lock().productive();
    }
}

/// Relays stderr to the log, line by line; `last` hears the same. The launcher's complaint goes to
/// `complaint` instead.
pub(super) async fn relay(
    stderr: impl AsyncRead + Unpin,
    shared: Arc<Shared>,
    complaint: Arc<Mutex<Option<String>>>,
    last: Arc<LastLine>,
    emptied: Emptied,
) {
    let own = shared.config.launcher.complaint;
    let mut lines = Lines::new(stderr, MAX_LOG_LINE);
    let started = Instant::now();
    loop {
        match emptied.next(&mut lines).await {
            Ok(Some(Line::Whole(line))) => {
                let text = String::from_utf8_lossy(&line);
                match text.strip_prefix(own).filter(|_| !own.is_empty()) {
                    Some(why) => *complaint.lock() = Some(format!("cannot start {why}")),
                    None => {
                        last.said(&text);
                        info!(target: TARGET, "{}: {text}", shared.name);
                    }
                }
            }
            Ok(Some(Line::TooLong(start))) => {
                let start = String::from_utf8_lossy(&start);
                last.said(&start);
                info!(target: TARGET, "{}: {start}… (the start of a line over {MAX_LOG_LINE} bytes)", shared.name);
            }
            Ok(Some(Line::Skipped(_))) => {}
            Ok(None) | Err(_) => {
                debug!(server = shared.name, after = ?started.elapsed(), "the server's stderr ended");
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::AsyncWriteExt as _;

    /// A descendant holds the pipe open: what is in it is read, and nobody waits for its end.
    #[tokio::test(start_paused = true)]
    async fn a_pipe_without_end_is_over_when_it_is_empty() {
        let (mut pipe, read) = tokio::io::duplex(1024);
        let (emptied, seen) = (Emptied::default(), Arc::<Mutex<usize>>::default());
        let (asked, count) = (emptied.clone(), Arc::clone(&seen));
        let mut reader = AbortOnDropHandle::new(tokio::spawn(async move {
            let mut lines = Lines::new(read, 100);
            while let Ok(Some(_)) = asked.next(&mut lines).await {
                *count.lock() += 1;
            }
        }));
        pipe.write_all(&b"a line\n".repeat(100)).await.unwrap();
        let started = Instant::now();
        rest(&mut reader, &emptied, Duration::from_secs(1)).await;
        assert_eq!((*seen.lock(), started.elapsed()), (100, Duration::ZERO));
        // It reads on.
        pipe.write_all(b"another\n").await.unwrap();
        drop(pipe);
        reader.await.unwrap();
        assert_eq!(*seen.lock(), 101);
    }

    #[tokio::test(start_paused = true)]
    async fn a_reader_that_does_not_come_to_its_turn_is_not_waited_for_long() {
        let mut reader = AbortOnDropHandle::new(tokio::spawn(std::future::pending()));
        let started = Instant::now();
        rest(&mut reader, &Emptied::default(), Duration::from_secs(1)).await;
        assert_eq!(started.elapsed(), Duration::from_secs(1));
    }
}
