//! The binary is its own test server.
#![allow(clippy::unwrap_used, reason = "a test's failure is a panic")]

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::process::{Command, Stdio};

fn shadowcat(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_shadowcat"));
    command.args(arguments);
    command
}

#[test]
fn over_stdio_it_answers_and_ends_with_its_input() {
    let mut server = shadowcat(&["__server", "stdio"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = server.stdin.take().unwrap();
    stdin
        .write_all(b"{\"jsonrpc\":\"2.0\",\"id\":5,\"method\":\"ping\"}\n")
        .unwrap();
    let mut stdout = BufReader::new(server.stdout.take().unwrap());
    let mut line = String::new();
    stdout.read_line(&mut line).unwrap();
    assert_eq!(line, "{\"jsonrpc\":\"2.0\",\"id\":5,\"result\":{}}\n");
    drop(stdin);
    assert!(server.wait().unwrap().success());
}

#[test]
fn over_http_it_says_where_it_listens() {
    let mut server = shadowcat(&["__server", "http"])
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(server.stderr.take().unwrap())
        .read_line(&mut line)
        .unwrap();
    let address = line
        .strip_prefix("listening on http://")
        .and_then(|rest| rest.trim().strip_suffix("/mcp"))
        .unwrap();
    let mut socket = std::net::TcpStream::connect(address).unwrap();
    socket
        .write_all(b"PUT /mcp HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
        .unwrap();
    let mut answer = String::new();
    socket.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 405 "), "{answer}");
    server.kill().unwrap();
    server.wait().unwrap();
}

#[test]
fn what_it_is_not_told_right_is_a_usage_error() {
    for arguments in [
        &["__server"][..],
        &["__server", "carrier-pigeon"],
        &["__server", "http", "--answers", "loudly"],
    ] {
        let output = shadowcat(arguments).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert!(stderr.starts_with("shadowcat: __server: "), "{stderr}");
    }
}
