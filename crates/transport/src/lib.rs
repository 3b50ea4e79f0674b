//! The tokio shell around the pure crates: sockets, child processes and clocks.
//!
//! Two halves meet the pipeline (`shadowcat-proxy`) at one trait each:
//!
//! - [`upstream`]: how a session reaches its server. [`upstream::Upstream`] makes a
//!   [`upstream::Leg`] per session; a leg carries requests, notifications and responses to the
//!   server and hands back what the server sends, already protected by the engine of
//!   `shadowcat-sse`.
//! - [`downstream`]: how clients reach the pipeline. The edges read bytes, enforce the limits of
//!   the wire, and call [`downstream::HttpService`] or [`downstream::StdioService`].
//!
//! Nothing here knows what a session means: correlation, versions, healing and retention belong
//! to the pipeline.

pub mod downstream;
mod gather;
mod lines;
pub mod metrics;
mod repoll;
pub mod request_span;
pub mod streams;
pub mod timer;
pub mod upstream;
