//! What the tests of the running binary share: the process, a raw HTTP client, a scripted server.
//!
//! All three speak bytes. Nothing here shares code with the proxy, so that a mistake in it cannot
//! hide itself.
#![allow(
    dead_code,
    unreachable_pub,
    reason = "each test binary uses its own part of it"
)]

pub mod client;
pub mod forward;
pub mod process;
pub mod upstream;

use std::time::Duration;

/// How long anything may take that should be there at once. Long, because the machine may be busy.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Both modes that serve HTTP, as the command line writes them.
pub const MODES: [&str; 2] = ["forward", "reverse"];

/// Waits for something that must come, and says what was missing if it does not.
pub async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(PATIENCE, future).await {
        Ok(value) => value,
        Err(_) => panic!("{what}: nothing for {PATIENCE:?}"),
    }
}

/// Waits until `holds` is true.
pub async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    soon(what, async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
}
