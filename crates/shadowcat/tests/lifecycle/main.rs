//! How the process begins and ends: what it says, what it waits for, how it exits.
#![cfg(unix)]
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stderr,
    unreachable_pub,
    reason = "a test's failure is a panic that says why; its modules are its own"
)]

#[path = "../support/mod.rs"]
mod support;

mod hang_up;
mod http;
mod stdio;
