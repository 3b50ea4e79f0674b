//! A process without a session, kept for the leg that needs one next.
//!
//! Who asks a command what it speaks has started a process for that. What the server refused, or
//! answered without a session, binds it to nobody: the client that asked goes on with this process,
//! and the command is not started once more. One is kept, for a moment, for one leg. It runs, and so
//! has its place among those that may; a leg that cannot use it ends it before it starts its own.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::time::sleep;
use tracing::debug;

use super::Shared;
use super::child::Child;
use crate::upstream::pipe::Clients;

/// How long it is kept: whoever asked goes on at once.
pub(super) const PATIENCE: Duration = Duration::from_secs(10);

/// See the [module](self).
pub(super) struct Spare {
    child: Arc<Child>,
    /// Whose requests it may carry.
    clients: Clients,
}

impl Shared {
    /// Keeps a process for the next leg of these clients.
    pub(super) fn keep(self: &Arc<Self>, child: Arc<Child>, clients: Clients) {
        let kept = Arc::downgrade(&child);
        let shared = Arc::downgrade(self);
        {
            let mut spare = self.spare.lock();
            if self.over.load(Ordering::SeqCst) {
                return;
            }
            // What was kept before ends when it is dropped.
            *spare = Some(Spare { child, clients });
        }
        tokio::spawn(async move {
            sleep(PATIENCE).await;
            if let Some(shared) = shared.upgrade() {
                let is_kept = |spare: &mut Spare| Arc::as_ptr(&spare.child) == kept.as_ptr();
                shared.spare.lock().take_if(is_kept);
            }
        });
    }

    /// The process that is kept, if these clients can have it; one that they cannot have ends.
    pub(super) fn take_kept(&self, clients: Clients) -> Option<Arc<Child>> {
        let spare = self.spare.lock().take()?;
        if spare.clients != clients || !spare.child.pass_to(clients) {
            return None;
        }
        debug!(server = self.name, "goes on with a process that runs");
        Some(spare.child)
    }

    /// Ends the process that is kept, and waits for that. None is kept from now on.
    pub(super) async fn end_kept(&self) {
        let spare = {
            let mut spare = self.spare.lock();
            self.over.store(true, Ordering::SeqCst);
            spare.take()
        };
        if let Some(spare) = spare {
            spare.child.end().await;
        }
    }
}

#[cfg(test)]
mod tests;
