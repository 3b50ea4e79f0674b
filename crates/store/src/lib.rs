//! Event logs: what a client gets back when it returns to a stream.
//!
//! Every server-to-client stream of a session is a log. The pipeline appends to it before any
//! byte of a message leaves; a client that comes back with `Last-Event-ID` reads on from there
//! (MCP specification, Streamable HTTP, "Resumability and Redelivery").
//!
//! This crate holds the [`EventLog`] contract, the [`memory`] backend, and a [`contract`] test
//! suite that every backend passes. It does not know HTTP, does not wake readers, and keeps no
//! clock: the time comes in as an argument.

pub mod contract;
mod event_id;
pub mod memory;

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;

pub use event_id::{EventId, StreamNumber};

/// What an operation of a log comes to: at once where all is in memory, which every message passes
/// by without an allocation, or later.
#[must_use = "an operation may not have happened before it is awaited"]
pub enum LogFuture<'a, T> {
    /// It is done.
    Ready(std::future::Ready<T>),
    /// It is under way.
    Later(Pin<Box<dyn Future<Output = T> + Send + 'a>>),
}

impl<T> LogFuture<'_, T> {
    /// The outcome of an operation that is done.
    pub fn ready(outcome: T) -> Self {
        Self::Ready(std::future::ready(outcome))
    }
}

impl<T> Future for LogFuture<'_, T> {
    type Output = T;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<T> {
        match self.get_mut() {
            Self::Ready(ready) => Pin::new(ready).poll(cx),
            Self::Later(later) => later.as_mut().poll(cx),
        }
    }
}

/// Names a session inside a log. Never leaves the process; not the `Mcp-Session-Id`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SessionKey(pub u64);

/// What kind of message a record is; decides what may be given up when a log is full.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// A notification: the oldest may go when nobody reads the stream.
    Notification,
    /// A request of the server: kept until it is [settled](EventLog::settle) or its time to live is
    /// over.
    ServerRequest,
    /// The response of an exchange: kept until its time to live is over.
    Response,
}

/// Whether the record's bytes leave with the append or wait for a reader.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Delivery {
    /// The appender itself writes the bytes to the client: nothing is unread.
    Live,
    /// A reader, now or later, will fetch the record.
    Pending,
}

/// One stored message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Its id, unique in the session.
    pub id: EventId,
    /// Its class.
    pub class: Class,
    /// The JSON-RPC message.
    pub payload: Bytes,
}

/// What a reader gets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    /// The records after the cursor, in order; empty when there is nothing new.
    pub records: Vec<Record>,
    /// How many records between the cursor and [`Page::position`] had been given up.
    pub missed: u64,
    /// Where to read on from. Reading from there again never tells of the same gap twice.
    pub position: EventId,
    /// Whether the stream is finished and `records` reaches its end.
    pub finished: bool,
}

/// Why a record was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AppendError {
    /// A bound is reached and a reader is attached: try again when it has read, or after a while.
    #[error("the replay memory is full and a reader is attached")]
    Full,
    /// A request of the server that nobody reads: the total bound is reached, and it may push out
    /// nothing.
    #[error("the replay memory is full of what must be kept")]
    NoRoom,
    /// The stream was finished, or the session forgotten.
    #[error("the stream is closed")]
    Closed,
}

/// Why a cursor cannot be read from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// The log never issued this id, or has forgotten the whole stream.
    #[error("unknown event id")]
    Unknown,
}

/// What a record of the memory backend costs besides its payload, roughly: its place in the ring,
/// which grows by doubling, and two allocations.
const RECORD_BYTES: usize = 160;

/// The bounds of an [`EventLog`].
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Bytes of one stream.
    pub stream_bytes: usize,
    /// Bytes of all streams.
    pub total_bytes: usize,
    /// What a record counts besides its payload: in memory a tiny one costs more than it holds.
    pub record_bytes: usize,
    /// How long a record is kept.
    pub ttl: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            stream_bytes: 1024 * 1024,
            total_bytes: 64 * 1024 * 1024,
            record_bytes: RECORD_BYTES,
            ttl: Duration::from_secs(300),
        }
    }
}

/// The logs of all sessions.
///
/// # Contract
/// - **Ids.** [`append`](EventLog::append) returns the record's id before any byte of it leaves.
///   Ids of one stream are consecutive from 1; an id never repeats in a session. Sequence 0 is the
///   position before the first record: a priming event carries it.
/// - **Order.** A read returns records in append order, exclusively after the cursor, each once.
/// - **Bounds.** A record counts its payload and [`Limits::record_bytes`]. A stream holds at most
///   its bound, except that one larger record is kept alone, and that responses and open server
///   requests are taken beyond it. All streams together hold at most the total bound, whatever they
///   hold; a record that is larger than all of it is held, one at a time, only for a reader that
///   waits for it.
/// - **Giving up.** In a full stream the delivered notifications go first, the oldest before the
///   others; then an append waits for an attached reader ([`AppendError::Full`]); without a reader
///   the oldest unread notifications go. When the total is reached: finished streams whose records
///   were all delivered, after a short rest, oldest first; then, over all streams, the oldest
///   notifications that were delivered or have no reader; then delivered finished streams without
///   their rest. For a response, and for a record whose reader has read everything else, then
///   finished streams that were not delivered, oldest first; and then, unless it is under way
///   already, responses and server requests of the other streams, oldest first. What finds no room even so leaves unsaved if its bytes are
///   under way ([`Delivery::Live`]), waits for an attached reader ([`AppendError::Full`]), is refused
///   if it is a server request ([`AppendError::NoRoom`]), or is given up at once. What is given up
///   unread is counted. Before the total is reached, a response that was not delivered and an open
///   server request are given up only when their time to live is over, or their session is
///   forgotten.
/// - **Settled requests.** A server request that waits for no answer any more may go like a
///   notification.
/// - **Evicted cursor.** A reader whose cursor points at given-up records gets what is left, and
///   [`Page::missed`] says how many are gone.
/// - **Readers.** Readers of a stream are numbered by their owner; the highest number attached so
///   far is in charge, and what a replaced one says later has no effect.
/// - **Nothing before the first event.** A stream costs nothing before it is opened or appended to.
pub trait EventLog: Send + Sync + 'static {
    /// Makes a stream known, so that sequence 0 of it can be read from. Idempotent.
    fn open(&self, session: SessionKey, stream: StreamNumber, now: Instant) -> LogFuture<'_, ()>;

    /// Appends one message.
    ///
    /// # Errors
    /// [`AppendError::Full`] when a reader is attached and behind; [`AppendError::Closed`] after
    /// [`finish`](EventLog::finish).
    fn append(
        &self,
        session: SessionKey,
        stream: StreamNumber,
        class: Class,
        payload: Bytes,
        delivery: Delivery,
        now: Instant,
    ) -> LogFuture<'_, Result<EventId, AppendError>>;

    /// Reads what follows `cursor`, at most about `max_bytes` of payload (at least one record),
    /// and takes it as delivered.
    ///
    /// # Errors
    /// [`ReadError::Unknown`] when the cursor was never issued or its stream is gone.
    fn read(
        &self,
        session: SessionKey,
        cursor: EventId,
        max_bytes: usize,
        now: Instant,
    ) -> LogFuture<'_, Result<Page, ReadError>>;

    /// A reader is in charge of the stream from now on: while it is, an append waits rather than
    /// giving up what was not read. No effect on an unknown stream, or after a higher number.
    fn attach(&self, session: SessionKey, stream: StreamNumber, reader: u64) -> LogFuture<'_, ()>;

    /// The reader is gone. No effect if another one is in charge.
    fn detach(&self, session: SessionKey, stream: StreamNumber, reader: u64) -> LogFuture<'_, ()>;

    /// Whether the record of this id is still held.
    fn holds(&self, session: SessionKey, id: EventId) -> LogFuture<'_, bool>;

    /// Whether the record of this id was given up before anybody read it. Not told of a stream that
    /// is gone.
    fn lost(&self, session: SessionKey, id: EventId) -> LogFuture<'_, bool>;

    /// The server request of this id waits for no answer any more. No effect on any other record.
    fn settle(&self, session: SessionKey, id: EventId) -> LogFuture<'_, ()>;

    /// No more appends will come.
    fn finish(&self, session: SessionKey, stream: StreamNumber, now: Instant) -> LogFuture<'_, ()>;

    /// Drops everything of a session.
    fn forget(&self, session: SessionKey) -> LogFuture<'_, ()>;

    /// Drops what is older than its time to live. To be called every now and then.
    fn expire(&self, now: Instant) -> LogFuture<'_, ()>;

    /// Counters and levels, for metrics and tests.
    fn usage(&self) -> Usage;
}

/// What a log holds and what it has given up.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// Bytes held now, as the bounds count them.
    pub bytes: usize,
    /// Streams held now.
    pub streams: usize,
    /// Unread notifications given up for want of room, since the start.
    pub notifications_given_up: u64,
    /// Unread responses given up for want of room, since the start.
    pub responses_given_up: u64,
    /// Finished streams given up before their time to live was over, since the start.
    pub streams_given_up: u64,
    /// Records whose time to live was over before anybody read them, since the start.
    pub expired_unread: u64,
}
