//! What a child writes: messages on stdout, words for people on stderr.

use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;
use shadowcat_mcp::message::{Message, Payload};
use shadowcat_mcp::oversized;
use tokio::io::AsyncRead;
use tokio::time::Instant;
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

/// Reads messages until the pipe ends. A line that is no message is quoted in a warning, counted
/// and skipped. `productive` is told at the first message.
pub(super) async fn messages(
    stdout: impl AsyncRead + Unpin,
    shared: Arc<Shared>,
    router: Router,
    answers: LineSender,
    productive: Arc<Mutex<bool>>,
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
        let line = match lines.next().await {
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
) {
    let own = shared.config.launcher.complaint;
    let mut lines = Lines::new(stderr, MAX_LOG_LINE);
    let started = Instant::now();
    loop {
        match lines.next().await {
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
