//! SIGINT and SIGTERM: the first asks for an orderly end, a second one ends at once.

use tokio_util::sync::CancellationToken;
use tracing::info;

use crate::failure::Failure;

/// A token that the first signal cancels. The next signal ends the process at once, with 128 and
/// the signal's number, as a shell would report it; so does the first one after somebody else has
/// cancelled the token, because the orderly end has begun then.
///
/// # Errors
/// [`Failure::Runtime`] when signals cannot be received.
pub(crate) fn on_signals() -> Result<CancellationToken, Failure> {
    let mut signals = Signals::new()
        .map_err(|error| Failure::Runtime(format!("cannot receive signals: {error}")))?;
    let asked = CancellationToken::new();
    let token = asked.clone();
    tokio::spawn(async move {
        loop {
            let signal = signals.next().await;
            if asked.is_cancelled() {
                std::process::exit(128 + signal.number);
            }
            info!(
                signal = signal.name,
                "shutting down; a second signal ends at once"
            );
            asked.cancel();
        }
    });
    Ok(token)
}

struct Received {
    name: &'static str,
    number: i32,
}

const INTERRUPT: Received = Received {
    name: "SIGINT",
    number: 2,
};

#[cfg(unix)]
struct Signals {
    interrupt: tokio::signal::unix::Signal,
    terminate: tokio::signal::unix::Signal,
}

#[cfg(unix)]
impl Signals {
    fn new() -> std::io::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
        })
    }

    async fn next(&mut self) -> Received {
        const TERMINATE: Received = Received {
            name: "SIGTERM",
            number: 15,
        };
        tokio::select! {
            _ = self.interrupt.recv() => INTERRUPT,
            _ = self.terminate.recv() => TERMINATE,
        }
    }
}

#[cfg(not(unix))]
struct Signals;

#[cfg(not(unix))]
impl Signals {
    fn new() -> std::io::Result<Self> {
        Ok(Self)
    }

    async fn next(&mut self) -> Received {
        if tokio::signal::ctrl_c().await.is_err() {
            std::future::pending::<()>().await;
        }
        INTERRUPT
    }
}
