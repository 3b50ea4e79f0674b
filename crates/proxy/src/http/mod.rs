//! The pipeline behind a Streamable HTTP edge.
//!
//! Legacy clients get sessions ([`initialize`], [`registry`], [`legacy`]); modern clients get none
//! ([`modern`]).
//! Event streams toward legacy clients are logs that can be resumed ([`events`]).

mod detach;
mod events;
mod gateway;
mod initialize;
mod legacy;
mod modern;
mod registry;

pub use gateway::HttpGateway;
