//! Follows an event stream and prints its events.
//!
//! ```text
//! cargo run -p shadowcat-sse --features client --example follow -- http://127.0.0.1:3000/events
//! ```
#![allow(clippy::print_stdout, reason = "printing is what it is for")]

use futures_util::StreamExt as _;
use shadowcat_sse::client::ReconnectingStream;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let url = std::env::args()
        .nth(1)
        .ok_or("the URL of a stream, please")?;
    let mut events = ReconnectingStream::get(&url)?;
    while let Some(event) = events.next().await {
        let event = event?;
        let id = event.id.unwrap_or_default();
        println!(
            "{} {}",
            String::from_utf8_lossy(&id),
            String::from_utf8_lossy(&event.data)
        );
    }
    println!("the server has nothing more");
    Ok(())
}
