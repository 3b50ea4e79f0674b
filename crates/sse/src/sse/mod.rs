//! The modules of the engine; the crate's root re-exports them.

pub mod decoder;
pub mod encoder;
pub mod reconnect;

pub use decoder::{DecodeError, Decoder, Event, Item, Limits};
