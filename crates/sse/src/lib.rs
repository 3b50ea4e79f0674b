//! A pure Server-Sent Events engine.
//!
//! Everything that a client of event streams needs except sockets and clocks: bytes, times and
//! random numbers come in as arguments, decisions come out as values.
//!
//! - [`decoder`]: bytes to events, exactly as the WHATWG HTML standard says, with limits.
//! - [`encoder`]: events to bytes, which cannot be made to inject fields.
//! - [`reconnect`]: what to do when a stream breaks: cursor, deduplication, classification, backoff,
//!   budgets, and the machine that decides.
//!
//! With the feature `client` (off by default) there is a shell around it, the module `client`: a
//! stream of events over reqwest and tokio.

#[cfg(feature = "client")]
pub mod client;
/// For the crates above: no part of what this one promises.
#[doc(hidden)]
pub mod said;
mod sse;

pub use sse::*;
