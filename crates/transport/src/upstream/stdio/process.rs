//! What a child is to its owner: three pipes, an exit, and a way to end it. The operating system's
//! is [`OsProcesses`]; a simulation has its own.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::process::{Command, ExitStatus};

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::process::Child;

use super::group::{Ask, Group};
use super::spawn::spawn;
use crate::upstream::BoxFuture;

/// Starts processes.
pub trait Processes: Send + Sync + 'static {
    /// Starts one, in a group of its own, with its pipes.
    ///
    /// # Errors
    /// The operating system's: nothing was started.
    fn start(&self, command: Command) -> BoxFuture<io::Result<Started>>;
}

/// A process that was started.
pub struct Started {
    /// What it reads. Dropping it closes the pipe.
    pub stdin: Box<dyn AsyncWrite + Send + Unpin>,
    /// What it writes.
    pub stdout: Box<dyn AsyncRead + Send + Unpin>,
    /// What it says to people.
    pub stderr: Box<dyn AsyncRead + Send + Unpin>,
    /// The process itself.
    pub process: Box<dyn Process>,
}

/// A running process and its descendants. They are killed when it is dropped.
pub trait Process: Send + Sync + 'static {
    /// Its number, for logs.
    fn id(&self) -> Option<u32>;

    /// Waits until the process has exited, whatever its descendants do. It may be dropped and
    /// called again, and says the same again.
    ///
    /// # Errors
    /// The operating system's: what became of it is not known.
    fn wait(&mut self) -> Pin<Box<dyn Future<Output = io::Result<ExitStatus>> + Send + '_>>;

    /// Asks it and its descendants to end.
    fn ask(&mut self, ask: Ask);

    /// Whether none of its descendants is left. Only for a process that has exited.
    fn is_alone(&mut self) -> bool;
}

/// The operating system's processes.
#[derive(Debug, Default, Clone, Copy)]
pub struct OsProcesses;

impl Processes for OsProcesses {
    fn start(&self, command: Command) -> BoxFuture<io::Result<Started>> {
        Box::pin(async {
            let mut child = spawn(command).await?;
            let pipes = (child.stdin.take(), child.stdout.take(), child.stderr.take());
            let (Some(stdin), Some(stdout), Some(stderr)) = pipes else {
                return Err(io::Error::other("it has no pipes"));
            };
            Ok(Started {
                stdin: Box::new(stdin),
                stdout: Box::new(stdout),
                stderr: Box::new(stderr),
                process: Box::new(OsProcess {
                    group: Group::led_by(child.id()),
                    child,
                }),
            })
        })
    }
}

struct OsProcess {
    child: Child,
    group: Group,
}

impl Process for OsProcess {
    fn id(&self) -> Option<u32> {
        self.child.id()
    }

    fn wait(&mut self) -> Pin<Box<dyn Future<Output = io::Result<ExitStatus>> + Send + '_>> {
        Box::pin(self.child.wait())
    }

    fn ask(&mut self, ask: Ask) {
        self.group.ask(ask);
        if ask == Ask::Kill {
            let _ = self.child.start_kill();
        }
    }

    fn is_alone(&mut self) -> bool {
        self.group.is_empty()
    }
}
