//! What every upstream without response heads shares: one pipe that carries the messages of all
//! exchanges, and a [`Router`] that finds out where each belongs.
//!
//! Used by the stdio upstream and by HTTP+SSE (2024-11-05). The transport reads messages off its
//! pipe and gives each to [`Router::deliver`]; it writes what [`Router::begin`] returns and tells
//! the router when the pipe is dead ([`Router::end`]). The router knows no pipe, no process and no
//! socket.
//!
//! - `table` decides where a message goes, without clock or tokio.
//! - `waiting` is the bounded queue of messages that belong to no request.
//! - `mailbox` is the bounded queue of one exchange: the place where back-pressure happens.
//!
//! A full mailbox makes [`Router::deliver`] wait, so a slow exchange stops its own session's pipe
//! and nothing else. The standalone queue never stops the pipe.

mod mailbox;
mod router;
mod table;
mod waiting;

pub(crate) use router::Router;
pub(crate) use table::Clients;
