//! What Shadowcat is tested against, and what `shadowcat demo` runs.
//!
//! Nothing here uses Shadowcat's own protocol or engine code: a fixture must not share a bug with
//! what it tests.

pub mod client;
pub mod fixture;
