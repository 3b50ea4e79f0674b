//! Shadowcat in a bottle.
//!
//! The pipeline of the binary (session actor, driver, store, codecs, both assemblies) runs between
//! a scripted MCP server and scripted clients, on in-memory connections, a clock that jumps to the
//! next thing that happens, and randomness from a seed. The seed also decides what goes wrong:
//! streams break at any byte, servers refuse, hang, restart, forget; clients vanish and come back.
//!
//! Peers write what they saw and did into a ledger; the oracle judges it by rules of its own. Two
//! runs of one seed are the same run, so a failing seed is a test case:
//! `cargo run --release -p shadowcat-sim -- --seed N`.

mod client;
mod fault;
mod herd;
mod http1;
mod ledger;
mod oracle;
mod plan;
mod report;
mod rng;
mod run;
mod server;
mod watch;
mod wire;

pub use herd::{Herd, herd};
pub use plan::Draw;
pub use report::{Report, Summary};
pub use run::run;
pub use watch::{MoveCounter, SimulatedTime};
