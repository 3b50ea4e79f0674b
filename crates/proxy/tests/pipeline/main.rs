//! The pipeline between a scripted server and clients without sockets, on paused time.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    unreachable_pub
)]

mod bounds;
mod client;
mod fake;
mod json;

mod client_leg;
mod continuity;
mod endings;
mod exchanges;
mod giving_up;
mod logs;
mod modern;
mod order;
mod progress;
mod recovery;
mod sessions;
mod standalone;
mod stdio;
