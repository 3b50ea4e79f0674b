//! The HTTP upstream against servers that follow a script, on in-memory connections and paused
//! time.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test's helpers may fail it"
)]

mod every_byte;
mod fallback;
mod json;
mod legacy_sse;
mod listen;
mod metrics;
mod modern;
mod pace;
mod recheck;
mod refusals;
mod resume;
mod retries;
mod server;
mod siblings;
mod standalone;
mod streams;
mod support;
