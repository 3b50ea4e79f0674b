//! Load: many sessions at once, sessions that come and go, clients that do not read.
//!
//! Everything runs against the real process, and what it holds is read from `/proc`.
#![cfg(target_os = "linux")]
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stderr,
    unreachable_pub,
    reason = "a test's failure is a panic that says why; its modules are its own"
)]

#[path = "../support/mod.rs"]
mod support;

mod concurrency;
mod leaks;
mod pressure;
mod procfs;
