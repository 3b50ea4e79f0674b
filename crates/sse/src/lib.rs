//! A pure Server-Sent Events engine.
//!
//! Everything that a client of event streams needs except sockets and clocks: bytes, times and
//! random numbers come in as arguments, decisions come out as values.
//!
//! - [`decoder`]: bytes to events, exactly as the WHATWG HTML standard says, with limits.
//! - [`encoder`]: events to bytes, which cannot be made to inject fields.

mod sse;

pub use sse::*;
