//! A server's process starts as the server, and dies with the process that started it.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "a test's failure is a panic")]

use std::ffi::OsString;
use std::io::{BufRead as _, BufReader, Read as _};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use shadowcat::child;

fn words(parent: u32, soft_limit: &str) -> Vec<OsString> {
    let parent = parent.to_string();
    ["__child", &parent, soft_limit, "--"]
        .map(OsString::from)
        .to_vec()
}

fn started(command: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_shadowcat"))
        .args(words(std::process::id(), "-"))
        .args(command)
        .output()
        .unwrap()
}

#[test]
fn the_launcher_is_understood_by_the_binary() {
    let words = child::launcher(Some(256));
    assert_eq!(words[0], "/proc/self/exe");
    let output = Command::new(env!("CARGO_BIN_EXE_shadowcat"))
        .args(&words[1..])
        .args([
            "sh",
            "-c",
            "ulimit -Sn; echo $0 \"$@\"",
            "name",
            "a b",
            "--",
            "-x",
        ])
        .output()
        .unwrap();
    assert_eq!(
        String::from_utf8_lossy(&output.stdout),
        "256\nname a b -- -x\n"
    );
    assert!(output.status.success());
}

#[test]
fn the_command_s_exit_status_is_the_process_s() {
    assert_eq!(started(&["sh", "-c", "exit 7"]).status.code(), Some(7));
}

#[test]
fn a_command_that_cannot_run_says_so_in_one_line() {
    let output = started(&["no-such-command-here"]);
    assert_eq!(output.status.code(), Some(i32::from(child::NOT_FOUND)));
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(
        stderr,
        format!(
            "{}\"no-such-command-here\": no such command\n",
            child::COMPLAINT
        )
    );
    let output = started(&["/"]);
    assert_eq!(output.status.code(), Some(i32::from(child::NOT_EXECUTABLE)));
    assert!(output.stdout.is_empty());
}

#[test]
fn a_child_whose_parent_is_gone_does_not_start() {
    let output = Command::new(env!("CARGO_BIN_EXE_shadowcat"))
        .args(words(1, "-"))
        .args(["echo", "started"])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(i32::from(child::ORPHANED)));
    assert!(output.stdout.is_empty());
}

#[test]
fn a_child_dies_with_a_parent_that_was_killed() {
    // The shell stands for a proxy: it starts a server by the launcher and says its id.
    let script = format!(
        "'{}' __child $$ - -- sleep 60 & echo $!; wait",
        env!("CARGO_BIN_EXE_shadowcat")
    );
    let mut parent = Command::new("sh")
        .args(["-c", &script])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdout = BufReader::new(parent.stdout.take().unwrap());
    let mut line = String::new();
    stdout.read_line(&mut line).unwrap();
    let comm = format!("/proc/{}/comm", line.trim());
    let deadline = Instant::now() + Duration::from_secs(10);
    while std::fs::read_to_string(&comm).unwrap().trim() != "sleep" {
        assert!(Instant::now() < deadline, "the launcher became no server");
        std::thread::yield_now();
    }
    let killed = Instant::now();
    parent.kill().unwrap();
    parent.wait().unwrap();
    // The server holds the pipe's other end: its end is the server's.
    assert_eq!(stdout.read_to_string(&mut line).unwrap(), 0);
    assert!(
        killed.elapsed() < Duration::from_secs(30),
        "the server outlived its parent"
    );
}
