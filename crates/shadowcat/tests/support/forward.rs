//! `forward` on the pipes of a client that is the test.

use std::process::Stdio;

use serde_json::Value;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines};
use tokio::process::{ChildStdin, ChildStdout};

use super::client::{INITIALIZED, initialize};
use super::process::{Process, command};
use super::soon;

/// A forward proxy, and its client's ends of the pipes.
pub struct Forward {
    pub process: Process,
    pub stdin: Option<ChildStdin>,
    pub stdout: Lines<BufReader<ChildStdout>>,
}

impl Forward {
    pub fn start(options: &[&str], server: &[&str]) -> Self {
        let words = [&["forward"], options, server].concat();
        let mut process =
            Process::start(command(&words).stdin(Stdio::piped()).stdout(Stdio::piped()));
        let stdin = process.child.stdin.take().unwrap();
        let stdout = process.child.stdout.take().unwrap();
        let stdout = ChildStdout::from_std(stdout).unwrap();
        Self {
            process,
            stdin: Some(ChildStdin::from_std(stdin).unwrap()),
            stdout: BufReader::new(stdout).lines(),
        }
    }

    pub async fn send(&mut self, line: impl AsRef<[u8]>) {
        let stdin = self.stdin.as_mut().unwrap();
        stdin.write_all(line.as_ref()).await.unwrap();
        stdin.write_all(b"\n").await.unwrap();
        stdin.flush().await.unwrap();
    }

    /// The next line of stdout; `None` at its end.
    pub async fn line(&mut self) -> Option<String> {
        soon("a line", self.stdout.next_line()).await.unwrap()
    }

    /// The next line of stdout, which must be a message; `None` at its end.
    pub async fn message(&mut self) -> Option<Value> {
        let line = self.line().await?;
        let message = serde_json::from_str::<Value>(&line);
        let message = message.unwrap_or_else(|error| panic!("{error}: {line}"));
        assert_eq!(message["jsonrpc"], "2.0", "{line}");
        Some(message)
    }

    pub async fn initialize(&mut self) {
        self.send(initialize("2025-11-25")).await;
        let answer = self.message().await.unwrap();
        assert_eq!(
            answer["result"]["protocolVersion"], "2025-11-25",
            "{answer}"
        );
        self.send(INITIALIZED).await;
    }
}
