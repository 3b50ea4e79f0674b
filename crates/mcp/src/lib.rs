//! The Model Context Protocol's wire rules, without I/O.
//!
//! - [`message`]: JSON-RPC messages as the bytes that arrived, with their routing fields read.
//! - [`method`]: the methods that a proxy must know by name.
//! - [`version`]: protocol versions as an ordered enum, the version state of a leg, negotiation.
//! - [`handshake`]: what `initialize` and `server/discover` say.
//! - [`subscription`]: what a `subscriptions/listen` is about.
//! - [`fault`]: what went wrong, whose fault it was, and what each client is told.
//! - [`headers`]: the header fields that MCP gives a meaning to, and which of them pass.
//! - [`classify`]: which era a message belongs to, and whether its version channels agree.
//! - [`origin`]: which `Origin` and `Host` may reach an edge.
//! - [`inspect`], [`build`]: reading single fields of, and making, whole messages.
//!
//! Nothing here knows a socket, a clock or a session.

pub mod build;
pub mod classify;
pub mod fault;
pub mod handshake;
pub mod headers;
mod id;
pub mod inspect;
mod json;
pub mod message;
pub mod method;
pub mod origin;
pub mod oversized;
pub mod subscription;
pub mod tool_params;
pub mod version;
