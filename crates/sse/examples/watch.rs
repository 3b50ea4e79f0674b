//! Watches a stream come back: a server of its own that breaks after every second event and
//! repeats itself, its events each once, and every move of the stream between them.
//!
//! ```text
//! cargo run -p shadowcat-sse --features client --example watch
//! ```
#![allow(clippy::print_stdout, reason = "printing is what it is for")]

use std::time::Duration;

use futures_util::StreamExt as _;
use shadowcat_sse::client::ReconnectingStream;
use shadowcat_sse::reconnect::Policy;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let url = format!("http://{}/", listener.local_addr()?);
    tokio::spawn(serve(listener));
    let mut events = ReconnectingStream::builder(&url)?
        .policy(Policy {
            initial: Duration::from_millis(100),
            empty_data_primes: false,
            ..Policy::default()
        })
        .build()?;
    let mut transitions = events.transitions();
    tokio::spawn(async move {
        while let Some(transition) = transitions.next().await {
            let step = transition.step;
            let detail = transition.detail.unwrap_or_default();
            println!(
                "    {} -> {} ({}) {detail}",
                step.from,
                step.to,
                step.cause.as_str()
            );
        }
    });
    while let Some(event) = events.next().await {
        println!("{}", String::from_utf8_lossy(&event?.data));
    }
    let counters = events.counters();
    println!(
        "{} drops, {} duplicates",
        counters.drops, counters.duplicates
    );
    Ok(())
}

/// Events 1 to 6, two in each connection, beginning with the one that the client had last; then 204.
async fn serve(listener: TcpListener) {
    while let Ok((socket, _)) = listener.accept().await {
        tokio::spawn(async move {
            // A client that goes away needs no answer.
            let _ = answer(socket).await;
        });
    }
}

async fn answer(mut socket: TcpStream) -> std::io::Result<()> {
    let mut request = vec![0; 4096];
    let read = socket.read(&mut request).await?;
    let request = String::from_utf8_lossy(&request[..read]).to_lowercase();
    let last = request
        .lines()
        .find_map(|line| line.strip_prefix("last-event-id: "))
        .and_then(|id| id.parse::<u32>().ok())
        .unwrap_or(0);
    if last >= 6 {
        let nothing = b"HTTP/1.1 204 No Content\r\nconnection: close\r\n\r\n";
        return socket.write_all(nothing).await;
    }
    let head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n";
    socket.write_all(head).await?;
    for number in last.max(1)..=last + 2 {
        let event = format!("id: {number}\ndata: event {number}\n\n");
        socket.write_all(event.as_bytes()).await?;
    }
    Ok(())
}
