//! The thread that all children are started from.
//!
//! The signal that makes a child die with us comes when the *thread* that started it ends
//! (prctl(2), `PR_SET_PDEATHSIG`), and a runtime's threads may end before the process does. So one
//! thread, which ends with the process, starts all of them.

use std::io;
use std::process::Command;
use std::sync::OnceLock;
use std::sync::mpsc;

use tokio::process::Child;
use tokio::runtime::Handle;
use tokio::sync::oneshot;

struct Job {
    command: Command,
    /// The runtime that the pipes and the exit are watched by.
    runtime: Handle,
    done: oneshot::Sender<io::Result<Child>>,
}

/// Starts a process. It is killed when the [`Child`] is dropped before its end.
///
/// # Errors
/// The operating system's.
pub(super) async fn spawn(command: Command) -> io::Result<Child> {
    static STARTER: OnceLock<mpsc::Sender<Job>> = OnceLock::new();
    let starter = STARTER.get_or_init(|| {
        let (jobs, queue) = mpsc::channel();
        // If there is no thread, the queue is dropped, and every start says so.
        let _ = std::thread::Builder::new()
            .name("start-children".into())
            .spawn(move || start_all(&queue));
        jobs
    });
    let (done, started) = oneshot::channel();
    let job = Job {
        command,
        runtime: Handle::current(),
        done,
    };
    let no_thread = || io::Error::other("there is no thread to start it from");
    starter.send(job).map_err(|_| no_thread())?;
    started.await.map_err(|_| no_thread())?
}

fn start_all(queue: &mpsc::Receiver<Job>) {
    while let Ok(Job {
        command,
        runtime,
        done,
    }) = queue.recv()
    {
        let _entered = runtime.enter();
        let started = tokio::process::Command::from(command)
            .kill_on_drop(true)
            .spawn();
        // If nobody waits any more, the child is dropped and so killed.
        let _ = done.send(started);
    }
}
