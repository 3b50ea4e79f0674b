//! The end of the process, as requests see it.
//!
//! It comes in two steps. From the first on nothing begins: a request of a client is refused, while
//! whatever serves those that are open goes on (their answers, the client's answers to the server's
//! questions, cancels, streams that are resumed, the end of a session). In the second, what is still
//! open is answered with an error.

use std::sync::atomic::Ordering;
use std::time::Duration;

use shadowcat_mcp::fault::{Executed, Fault, FaultKind, Side};

use super::{Session, Shared};

/// When a client that was refused should come back: somebody may have started another Shadowcat.
const RETRY_AFTER: Duration = Duration::from_secs(5);

impl Shared {
    /// From now on nothing begins.
    pub(crate) fn drain(&self) {
        self.is_draining.store(true, Ordering::SeqCst);
        self.draining.cancel();
    }

    /// Whether a request of a client may begin.
    ///
    /// # Errors
    /// What it is answered with instead.
    pub(crate) fn admits(&self) -> Result<(), Fault> {
        if !self.is_draining.load(Ordering::SeqCst) {
            return Ok(());
        }
        Err(
            shutting_down(Executed::No, "nothing new is begun; try again later")
                .after(Some(RETRY_AFTER)),
        )
    }
}

impl Session {
    /// From now on what ends with the session is told that the process is ending.
    pub(crate) fn say_shutting_down(&self) {
        let _ = self.epitaph.set(shutting_down(
            Executed::Unknown,
            "the response did not come within --drain-timeout",
        ));
    }
}

fn shutting_down(executed: Executed, why: &str) -> Fault {
    Fault::new(Side::Shadowcat, FaultKind::ShuttingDown, executed).because(why)
}
