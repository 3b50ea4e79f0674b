//! SIGINT, SIGTERM and SIGHUP: the first asks for an orderly end, a second one ends at once.
//!
//! SIGHUP is never the second. It is what a closed terminal sends, together with the end of stdin
//! and twice: from its shell, and from the kernel once the shell is gone.

#[cfg(unix)]
mod hang_up;

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
            match signal.status {
                Some(status) if asked.is_cancelled() => std::process::exit(status),
                None if asked.is_cancelled() => continue,
                _ => {}
            }
            info!(
                signal = signal.name,
                "shutting down; a second signal, SIGINT or SIGTERM, ends at once"
            );
            asked.cancel();
        }
    });
    Ok(token)
}

struct Received {
    name: &'static str,
    /// With which exit status it ends the process as a second signal; `None` where it does not.
    status: Option<i32>,
}

const INTERRUPT: Received = Received {
    name: "SIGINT",
    status: Some(128 + 2),
};

#[cfg(unix)]
struct Signals {
    interrupt: tokio::signal::unix::Signal,
    terminate: tokio::signal::unix::Signal,
    /// Unless it is ignored.
    hang_up: Option<tokio::signal::unix::Signal>,
}

#[cfg(unix)]
impl Signals {
    fn new() -> std::io::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        let hang_up = match hang_up::is_ignored() {
            true => None,
            false => Some(signal(SignalKind::hangup())?),
        };
        Ok(Self {
            hang_up,
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
        })
    }

    async fn next(&mut self) -> Received {
        const TERMINATE: Received = Received {
            name: "SIGTERM",
            status: Some(128 + 15),
        };
        const HANG_UP: Received = Received {
            name: "SIGHUP",
            status: None,
        };
        let hang_up = async {
            match &mut self.hang_up {
                Some(signal) => signal.recv().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            _ = self.interrupt.recv() => INTERRUPT,
            _ = self.terminate.recv() => TERMINATE,
            _ = hang_up => HANG_UP,
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
