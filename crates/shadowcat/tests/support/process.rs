//! The binary as a process that ends with the test.

use std::ffi::OsStr;
use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use super::{PATIENCE, until};

/// The binary, without options from the environment of whoever runs the tests.
pub fn command(arguments: &[impl AsRef<OsStr>]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_shadowcat"));
    command.args(arguments);
    for (name, _) in std::env::vars_os() {
        let name = name.to_string_lossy();
        if name.starts_with("SHADOWCAT_") || name == "RUST_LOG" || name.ends_with("_proxy") {
            command.env_remove(&*name);
        }
    }
    command
}

/// A process whose stderr is collected; killed when dropped.
pub struct Process {
    pub child: Child,
    lines: Arc<Mutex<Vec<String>>>,
}

impl Process {
    /// Starts a command. Pipes that are not set here are the caller's choice.
    pub fn start(command: &mut Command) -> Self {
        let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
        let stderr = BufReader::new(child.stderr.take().unwrap());
        let lines = Arc::<Mutex<Vec<String>>>::default();
        let collected = Arc::clone(&lines);
        std::thread::spawn(move || {
            for line in stderr.split(b'\n').map_while(Result::ok) {
                let line = String::from_utf8_lossy(&line).into_owned();
                collected.lock().unwrap().push(line);
            }
        });
        Self { child, lines }
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// What it wrote to stderr so far.
    pub fn stderr(&self) -> Vec<String> {
        self.lines.lock().unwrap().clone()
    }

    /// Waits until it has written this to stderr.
    pub async fn says(&self, text: &str) {
        let said = || self.stderr().iter().any(|line| line.contains(text));
        until(&format!("{text:?} on stderr"), said).await;
    }

    pub fn signal(&self, signal: rustix::process::Signal) {
        let id = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(id, signal).unwrap();
    }

    /// Waits for its end.
    pub async fn ended(&mut self) -> ExitStatus {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            let stderr = self.stderr();
            assert!(Instant::now() < deadline, "still running: {stderr:#?}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("stderr of the proxy:\n{}", self.stderr().join("\n"));
        }
    }
}

/// A proxy that serves HTTP.
pub struct Proxy {
    pub process: Process,
    pub address: SocketAddr,
}

impl Proxy {
    /// Starts `mode` on a free port in front of `server`: a URL, or `--` and a command.
    pub async fn start(mode: &str, options: &[&str], server: &[&str]) -> Self {
        Self::start_command(&mut Self::command(mode, options, server)).await
    }

    /// The command that [`start`](Self::start) starts.
    pub fn command(mode: &str, options: &[&str], server: &[&str]) -> Command {
        let words = [&[mode, "--listen", "127.0.0.1:0"], options, server].concat();
        command(&words)
    }

    pub async fn start_command(command: &mut Command) -> Self {
        let process = Process::start(command.stdin(Stdio::null()).stdout(Stdio::null()));
        let listening = || {
            let lines = process.stderr();
            let line = lines.iter().find(|line| line.contains("listening on "))?;
            let (_, rest) = line.split_once("listening on http://")?;
            rest.split_once("/mcp")?.0.parse().ok()
        };
        until("the proxy listens", || listening().is_some()).await;
        let address = listening().unwrap();
        Self { process, address }
    }
}
