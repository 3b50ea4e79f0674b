//! Parity: one table of wire exchanges, played by raw sockets against the running binary as
//! `forward --listen` and as `reverse`. Both must answer with the bytes that the table says, and
//! with the same bytes as each other; and both must show the server the same requests.
//!
//! The tables are text, one file a subject; [`table`] says how they are written, [`play`] how they
//! are played. What does not fit a table of requests and responses has a test of its own:
//! connections ([`connections`]), HTTP/2 ([`http2`]), secrets ([`secrets`]).
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stderr,
    unreachable_pub,
    reason = "a test's failure is a panic that says why; its modules are its own"
)]

#[path = "../support/mod.rs"]
mod support;

mod connections;
mod http2;
mod play;
mod secrets;
mod server;
mod table;

/// A test that plays one file of the table, whose number of rows it knows: a row that the parser
/// overlooks is a failure.
macro_rules! tables {
    ($($(#[$about:meta])* $name:ident: $rows:literal,)*) => {$(
        $(#[$about])*
        #[tokio::test]
        async fn $name() {
            let text = include_str!(concat!("tables/", stringify!($name), ".txt"));
            let rows = play::table(&table::parse(text)).await;
            assert_eq!(rows, $rows, "rows of {}", stringify!($name));
        }
    )*};
}

tables! {
    /// What one request shows by itself: path, method, type, Accept, Origin, Host, sizes, JSON.
    requests: 22,
    /// Sessions: their ids, their handshakes, their ends.
    sessions: 16,
    /// The version channels of legacy clients, and batches.
    versions: 21,
    /// Modern clients.
    modern: 24,
    /// Event streams of each version, and returning to them.
    streams: 5,
    /// Header fields that pass, and those that do not.
    headers: 5,
    /// Credentials that pass because they may.
    forward_auth: 5,
    /// The lowest version that may be spoken.
    min_version: 2,
    /// The only version that may be spoken.
    pin: 2,
    /// The same, where it is a modern one.
    pin_modern: 2,
    /// A server that is a command.
    stdio: 19,
    /// More sessions than there may be.
    max_sessions: 1,
}
