//! Chaos: connections that break in every way that has a name, against the running binary over real
//! sockets, in both modes.
//!
//! [`client_leg`] breaks what is between the client and the proxy, [`upstream_leg`] what is between
//! the proxy and the server, [`both_legs`] both at once. [`sessions`] and [`restarts`] are about what
//! outlives a stream, [`standalone`] is about the stream that belongs to no call, [`logs`] about what is told of it. Asserted is always the same: every message
//! once and in order, one response, and a call that the server saw once.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stderr,
    unreachable_pub,
    reason = "a test's failure is a panic that says why; its modules are its own"
)]

#[path = "../support/mod.rs"]
mod support;

mod both_legs;
mod client_leg;
mod logs;
mod restarts;
mod script;
mod sessions;
mod standalone;
mod upstream_leg;
