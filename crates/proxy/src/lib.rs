//! The pipeline between a client edge and an upstream leg.
//!
//! One [`session::Session`] joins one client with one upstream and owns both legs: versions,
//! correlation, order, continuity after a lost upstream session. The two kinds of client edge
//! reach it through [`http::HttpGateway`] and [`stdio::StdioGateway`]; [`forward`] and [`reverse`]
//! only assemble.
//!
//! The pipeline never names an HTTP library or a socket. It sees transports through the traits of
//! `shadowcat-transport`, time through tokio's clock (which tests pause), and randomness through
//! [`entropy::Entropy`].

pub mod config;
pub mod entropy;
pub mod forward;
pub mod http;
mod mismatch;
pub mod reverse;
pub mod session;
pub mod stdio;
mod tool_params;
