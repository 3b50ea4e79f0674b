//! Servers that are local commands: one JSON-RPC message a line on stdin and stdout.
//!
//! MCP specification, Transports, "stdio". A legacy session has a child of its own, started at its
//! first message; modern clients of one principal share one, their ids renumbered.
//!
//! - `command` says what is started and whether it can be; `spawn` starts it from a thread that
//!   lives as long as the process.
//! - `process` is what a process is to its owner, and what a simulation replaces.
//! - `child` is one running process: its pipes, how its death is noticed, how it is ended.
//! - `group` ends a process with its descendants.
//! - `name` is what a command is called, `last_line` what a process said before it died.
//! - `spare` keeps a process that was only asked what it speaks for whoever goes on with it.
//! - `crashes` decides when a command that keeps crashing is started again.
//! - `leg` is what the pipeline sees of it.
//!
//! What a lost child means for the client is the pipeline's decision: a dead child is a
//! [`FaultKind::ChildExited`](shadowcat_mcp::fault::FaultKind) on everything that waited for it.

mod child;
mod command;
mod crashes;
mod faults;
mod group;
mod last_line;
mod leg;
mod name;
mod output;
mod process;
mod spare;
mod spawn;

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use shadowcat_mcp::fault::Fault;
use shadowcat_mcp::version::Era;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout};

use super::pipe::Clients;
use super::{BoxFuture, Leg, Upstream};
use crate::metrics::Metrics;
use child::Child;
pub use command::{Audience, Launcher, StdioConfig};
use crashes::Crashes;
pub use group::Ask;
use leg::ChildLeg;
pub use process::{OsProcesses, Process, Processes, Started};
use spare::Spare;

/// How long a start waits for room when as many children run as may, and how much longer when one
/// of them is just ending.
const ROOM_PATIENCE: Duration = Duration::from_millis(500);
const ENDING_PATIENCE: Duration = Duration::from_secs(5);

/// A server that is a local command.
pub struct StdioUpstream {
    shared: Arc<Shared>,
}

/// What all children of one command share.
struct Shared {
    config: StdioConfig,
    /// What the server is called in logs and errors.
    name: String,
    processes: Arc<dyn Processes>,
    /// One permit per child that runs.
    room: Arc<Semaphore>,
    /// Children that run and are being ended.
    ending: AtomicUsize,
    crashes: Mutex<Crashes>,
    /// A process that waits for a leg.
    spare: Mutex<Option<Spare>>,
    /// No process is kept any more.
    over: AtomicBool,
    metrics: Arc<Metrics>,
}

impl StdioUpstream {
    /// An upstream that starts its command as `config` says and counts into `metrics`.
    #[must_use]
    pub fn new(config: StdioConfig, metrics: Arc<Metrics>) -> Self {
        Self::with_processes(config, Arc::new(OsProcesses), metrics)
    }

    /// The same with processes of another kind.
    #[must_use]
    pub fn with_processes(
        config: StdioConfig,
        processes: Arc<dyn Processes>,
        metrics: Arc<Metrics>,
    ) -> Self {
        Self {
            shared: Arc::new(Shared {
                name: config.display_name(),
                room: Arc::new(Semaphore::new(config.max_children)),
                ending: AtomicUsize::new(0),
                crashes: Mutex::new(Crashes::new(&config.reconnect)),
                spare: Mutex::default(),
                over: AtomicBool::new(false),
                processes,
                metrics,
                config,
            }),
        }
    }
}

impl Upstream for StdioUpstream {
    fn leg(&self, era: Era) -> Arc<dyn Leg> {
        Arc::new(ChildLeg::new(Arc::clone(&self.shared), era))
    }

    fn probe(&self) -> BoxFuture<Result<(), String>> {
        let shared = Arc::clone(&self.shared);
        Box::pin(async move {
            shared.config.find()?;
            let parked = shared.crashes.lock().parked(Instant::now());
            match parked {
                Some(_) => Err(format!(
                    "{} keeps ending before it answers anything",
                    shared.name
                )),
                None => Ok(()),
            }
        })
    }

    fn name(&self) -> &str {
        &self.shared.name
    }

    fn end(&self) -> BoxFuture<()> {
        let shared = Arc::clone(&self.shared);
        Box::pin(async move { shared.end_kept().await })
    }
}

impl Shared {
    /// A place for one more child.
    async fn room(&self) -> Option<OwnedSemaphorePermit> {
        let mut room = pin!(Arc::clone(&self.room).acquire_owned());
        if let Ok(room) = timeout(ROOM_PATIENCE, &mut room).await {
            return room.ok();
        }
        if self.ending.load(Ordering::SeqCst) == 0 {
            return None;
        }
        timeout(ENDING_PATIENCE, room).await.ok()?.ok()
    }

    /// The child that is kept for these clients; else starts one, if there is room for it and the
    /// command does not keep crashing.
    async fn start(self: &Arc<Self>, clients: Clients) -> Result<Arc<Child>, Fault> {
        if let Some(child) = self.take_kept(clients) {
            return Ok(child);
        }
        let room = self.room().await;
        let room = room.ok_or_else(|| faults::no_room(self.config.max_children))?;
        let now = Instant::now();
        let restart = self.crashes.lock().start(now);
        let restart = restart.map_err(|wait| faults::keeps_crashing(&self.name, wait))?;
        let child = Child::start(Arc::clone(self), clients, room).await?;
        self.metrics.child_starts.inc();
        if restart {
            self.metrics.child_restarts.inc();
        }
        Ok(Arc::new(child))
    }
}

#[cfg(test)]
mod tests;
