//! Servers that are local commands, behind the real binary: who lives, who dies, and who is told.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "a test's failure is a panic")]
#![allow(clippy::panic, reason = "a test's failure is a panic")]

mod death;
mod eras;
mod limits;
mod messages;
mod modern;
mod support;
