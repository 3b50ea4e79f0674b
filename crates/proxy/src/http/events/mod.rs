//! Event streams toward HTTP clients.
//!
//! - [`live()`]: the answer to a legacy POST. Whoever carries the bytes pulls the exchange; each
//!   message is in the log before its bytes leave ([`feed`]). If the carrier is gone or replaced, a
//!   task takes the rest into the log.
//! - [`reader`]: what a GET gets: the log after a cursor, then what is still appended, until the
//!   stream is finished; and the standalone stream.
//! - [`modern()`]: the answer to a modern POST: no ids, no log; dropping it is the cancel.
//!
//! From 2025-11-25 on a stream opens with an event that has an id, `retry` and empty data, so that a
//! client cut before the first message can come back.

mod feed;
mod keep_alive;
mod live;
mod modern;
mod reader;

use bytes::BytesMut;
use shadowcat_mcp::version::ProtocolVersion;
use shadowcat_sse::encoder;
use shadowcat_store::EventId;

use crate::session::Session;

pub(super) use feed::StreamState;
pub(super) use live::live;
pub(super) use modern::modern;
pub(super) use reader::{replay, standalone};

/// Bytes that one item of an event stream gathers from what is ready.
const CHUNK: usize = 32 * 1024;

/// One message as an event. Ids of ours cannot break a line, so this cannot fail.
fn write(out: &mut BytesMut, id: Option<EventId>, payload: &[u8]) {
    let id = id.map(|id| id.to_string());
    let _ = encoder::event(out, Some("message"), id.as_deref(), payload);
}

/// The start of a stream, where the client's version knows priming events.
fn opening(out: &mut BytesMut, session: &Session, start: EventId) {
    let primes = session
        .negotiated()
        .is_some_and(ProtocolVersion::has_priming_events);
    if primes {
        let retry = session.shared.config.client_retry;
        let _ = encoder::priming(out, &start.to_string(), retry);
    }
}
