//! One module per command.

pub(crate) mod check;
pub(crate) mod demo;
pub(crate) mod proxy;
pub(crate) mod sse;
