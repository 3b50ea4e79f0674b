//! What is measured: the server itself, and everything that can stand before it.

use std::collections::VecDeque;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::net::TcpStream;
use tokio::process::{Child, ChildStderr, Command};
use tokio::sync::oneshot;
use tokio::time::{sleep, timeout};

use crate::client::Endpoint;
use crate::error::Error;
use crate::nginx;
use crate::procfs::Processes;

/// How long a program may take to get ready.
const PATIENCE: Duration = Duration::from_secs(20);
/// How long a program may take to end.
const GRACE: Duration = Duration::from_secs(3);
/// Lines of a program's standard error that are kept for an error message.
const KEPT_LINES: usize = 20;

/// One contender.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Target {
    /// No proxy.
    Direct,
    /// The empty pass-through.
    Floor,
    /// `shadowcat reverse`.
    Reverse,
    /// `shadowcat forward --listen`.
    Forward,
    /// nginx as a plain reverse proxy.
    Nginx,
    /// Another program, by its command with `{UPSTREAM}` and `{PORT}`.
    Peer(String),
}

impl Target {
    /// The name in tables and results.
    pub(crate) fn name(&self) -> String {
        match self {
            Self::Direct => "direct".to_owned(),
            Self::Floor => "floor".to_owned(),
            Self::Reverse => "reverse".to_owned(),
            Self::Forward => "forward".to_owned(),
            Self::Nginx => "nginx".to_owned(),
            Self::Peer(command) => {
                let program = command.split_ascii_whitespace().next().unwrap_or("peer");
                program.rsplit('/').next().unwrap_or(program).to_owned()
            }
        }
    }

    /// True for the two modes of Shadowcat.
    pub(crate) fn is_shadowcat(&self) -> bool {
        matches!(self, Self::Reverse | Self::Forward)
    }
}

/// Starts targets before one upstream.
#[derive(Debug)]
pub(crate) struct Launcher {
    /// This program.
    pub(crate) bench: PathBuf,
    pub(crate) shadowcat: PathBuf,
    pub(crate) nginx: Option<PathBuf>,
    /// Worker threads (processes, for nginx) of each target.
    pub(crate) workers: usize,
}

/// A running target. [`Running::stop`] ends it in order; dropped without that, it is killed with all that it started.
#[derive(Debug)]
pub(crate) struct Running {
    pub(crate) name: String,
    pub(crate) endpoint: Endpoint,
    /// When it was started.
    pub(crate) started: Instant,
    process: Option<Process>,
}

impl Running {
    /// What it consists of now; nothing for a direct connection.
    pub(crate) fn processes(&self) -> Processes {
        let pid = self.process.as_ref().and_then(|process| process.child.id());
        pid.map(Processes::tree).unwrap_or_default()
    }

    /// Asks it to end, waits for that, and kills what is left after a while.
    pub(crate) async fn stop(mut self) {
        let Some(process) = &mut self.process else {
            return;
        };
        if let Some(pid) = process.pid() {
            // Only the first process: whatever it started is for it to end and to wait for.
            let _ = kill_process(pid, Signal::TERM);
            let _ = timeout(GRACE, process.child.wait()).await;
        }
    }
}

/// A child in a process group of its own.
#[derive(Debug)]
struct Process {
    child: Child,
    /// Holds a generated configuration.
    directory: Option<PathBuf>,
}

impl Process {
    /// Of the process and its group; `None` once it was waited for.
    fn pid(&self) -> Option<Pid> {
        self.child
            .id()
            .and_then(|id| Pid::from_raw(id.cast_signed()))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let group = self
            .child
            .id()
            .and_then(|id| Pid::from_raw(id.cast_signed()));
        if let Some(group) = group {
            // It may be gone already.
            let _ = kill_process_group(group, Signal::KILL);
        }
        if let Some(directory) = &self.directory {
            let _ = fs::remove_dir_all(directory);
        }
    }
}

impl Launcher {
    /// Starts the scripted upstream server.
    pub(crate) async fn upstream(&self) -> Result<Running, Error> {
        let mut command = Command::new(&self.bench);
        command.arg("upstream");
        until_line("upstream".to_owned(), command).await
    }

    /// Starts `target` before the server at `upstream` and returns when it takes connections.
    pub(crate) async fn launch(
        &self,
        target: &Target,
        upstream: SocketAddr,
    ) -> Result<Running, Error> {
        let url = format!("http://{upstream}/mcp");
        let name = target.name();
        match target {
            Target::Direct => {
                let endpoint = Endpoint {
                    address: upstream,
                    keeps_form: true,
                };
                Ok(Running {
                    name,
                    endpoint,
                    started: Instant::now(),
                    process: None,
                })
            }
            Target::Floor => {
                let mut command = self.with_workers(&self.bench);
                command.args(["floor", &upstream.to_string()]);
                until_line(name, command).await
            }
            Target::Reverse | Target::Forward => {
                let mut command = self.with_workers(&self.shadowcat);
                command.args([&name, "--listen", "127.0.0.1:0", &url]);
                until_line(name, command).await
            }
            Target::Nginx => {
                let address = free_port()?;
                let directory = nginx::directory(upstream, address, self.workers)?;
                let program = self.nginx.as_deref().unwrap_or(Path::new("nginx"));
                let mut command = Command::new(program);
                command
                    .arg("-p")
                    .arg(&directory)
                    .args(["-e", "stderr", "-c", "nginx.conf"]);
                let mut running = until_port(name, command, address).await?;
                running.endpoint.keeps_form = true;
                if let Some(process) = &mut running.process {
                    process.directory = Some(directory);
                }
                Ok(running)
            }
            Target::Peer(command) => {
                let address = free_port()?;
                let port = address.port().to_string();
                let line = command.replace("{UPSTREAM}", &url).replace("{PORT}", &port);
                let mut command = self.with_workers(Path::new("sh"));
                command.args(["-c", &format!("exec {line}")]);
                until_port(name, command, address).await
            }
        }
    }

    /// Tokio's default runtime takes its number of workers from this variable.
    fn with_workers(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        command.env("TOKIO_WORKER_THREADS", self.workers.to_string());
        command
    }
}

/// The standard error of a child, followed to its end.
struct Log {
    lines: Arc<Mutex<VecDeque<String>>>,
    /// Resolves with the address of the `listening on http://HOST:PORT/mcp` line; fails when the output ends without it.
    listening: oneshot::Receiver<SocketAddr>,
}

impl Log {
    fn follow(stderr: ChildStderr) -> Self {
        let lines = Arc::new(Mutex::new(VecDeque::new()));
        let (found, listening) = oneshot::channel();
        let kept = Arc::clone(&lines);
        tokio::spawn(async move {
            let mut found = Some(found);
            let mut stderr = BufReader::new(stderr).lines();
            while let Ok(Some(line)) = stderr.next_line().await {
                if let Some(address) = listening_address(&line)
                    && let Some(found) = found.take()
                {
                    let _ = found.send(address);
                }
                let mut kept = kept.lock();
                if kept.len() == KEPT_LINES {
                    kept.pop_front();
                }
                kept.push_back(line);
            }
        });
        Self { lines, listening }
    }

    fn not_ready(&self, name: &str, reason: &'static str) -> Error {
        let printed = self
            .lines
            .lock()
            .iter()
            .map(|line| format!("  {line}\n"))
            .collect();
        Error::NotReady {
            name: name.to_owned(),
            reason,
            printed,
        }
    }
}

fn listening_address(line: &str) -> Option<SocketAddr> {
    let (_, after) = line.split_once("listening on http://")?;
    after.split_once("/mcp")?.0.parse().ok()
}

fn spawn(mut command: Command) -> Result<(Process, Log, Instant), Error> {
    let started = Instant::now();
    let mut child = command
        .process_group(0)
        .kill_on_drop(true)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|source| Error::Spawn {
            program: command.as_std().get_program().into(),
            source,
        })?;
    let log = match child.stderr.take() {
        Some(stderr) => Log::follow(stderr),
        None => {
            return Err(Error::io("piping standard error")(
                std::io::ErrorKind::BrokenPipe.into(),
            ));
        }
    };
    Ok((
        Process {
            child,
            directory: None,
        },
        log,
        started,
    ))
}

/// Ready when it says so on standard error.
async fn until_line(name: String, command: Command) -> Result<Running, Error> {
    let (process, mut log, started) = spawn(command)?;
    let address = match timeout(PATIENCE, &mut log.listening).await {
        Ok(Ok(address)) => address,
        Ok(Err(_)) => return Err(log.not_ready(&name, "it ended")),
        Err(_) => return Err(log.not_ready(&name, "it did not say where it listens")),
    };
    let endpoint = Endpoint {
        address,
        keeps_form: true,
    };
    Ok(Running {
        name,
        endpoint,
        started,
        process: Some(process),
    })
}

/// Ready when its port takes connections.
async fn until_port(name: String, command: Command, address: SocketAddr) -> Result<Running, Error> {
    let (mut process, log, started) = spawn(command)?;
    while TcpStream::connect(address).await.is_err() {
        if process
            .child
            .try_wait()
            .map_err(Error::io("waiting for a child"))?
            .is_some()
        {
            // Its last words may still be on their way.
            sleep(Duration::from_millis(100)).await;
            return Err(log.not_ready(&name, "it ended"));
        }
        if started.elapsed() > PATIENCE {
            return Err(log.not_ready(&name, "nothing listens at its port"));
        }
        sleep(Duration::from_micros(500)).await;
    }
    let endpoint = Endpoint {
        address,
        keeps_form: false,
    };
    Ok(Running {
        name,
        endpoint,
        started,
        process: Some(process),
    })
}

/// An address that nobody listened at a moment ago.
fn free_port() -> Result<SocketAddr, Error> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).map_err(Error::io("listening"))?;
    listener.local_addr().map_err(Error::io("listening"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ready_line_gives_the_address() {
        let line = "2026-01-01T00:00:00Z  INFO listening on http://127.0.0.1:4321/mcp (reverse)";
        assert_eq!(
            listening_address(line),
            Some(SocketAddr::from(([127, 0, 0, 1], 4321)))
        );
        assert_eq!(listening_address("listening on nothing"), None);
    }

    #[test]
    fn a_peer_is_named_after_its_program() {
        assert_eq!(
            Target::Peer("/opt/bin/agw -f {UPSTREAM} {PORT}".to_owned()).name(),
            "agw"
        );
    }
}
