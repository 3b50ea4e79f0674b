//! A stdio client has no headers: what its calls must carry over HTTP is made from their arguments.
#![cfg(unix)]
#![allow(clippy::unwrap_used, reason = "a test's failure is a panic")]

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::sync::mpsc::{Sender, channel};
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(30);

/// Answers one request as a modern server; tells the head of a `tools/call`.
fn serve(mut socket: TcpStream, heads: &Sender<String>) {
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut reader = BufReader::new(socket.try_clone().unwrap());
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if reader.read_line(&mut head).unwrap() == 0 {
            return;
        }
    }
    let head = head.to_ascii_lowercase();
    let length = head
        .lines()
        .find_map(|line| line.strip_prefix("content-length: "));
    let mut body = vec![0; length.unwrap().parse().unwrap()];
    reader.read_exact(&mut body).unwrap();
    let body = String::from_utf8(body).unwrap();
    let id = body
        .split(r#""id":"#)
        .nth(1)
        .unwrap()
        .split(',')
        .next()
        .unwrap();
    let result = if head.contains("mcp-method: tools/list") {
        r#"{"resultType":"complete","tools":[{"name":"t","inputSchema":{"type":"object","properties":{"region":{"type":"string","x-mcp-header":"Region"}}}}]}"#
    } else {
        heads.send(head).unwrap();
        r#"{"resultType":"complete","content":[]}"#
    };
    let answer = format!(r#"{{"jsonrpc":"2.0","id":{id},"result":{result}}}"#);
    write!(
        socket,
        "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{answer}",
        answer.len()
    )
    .unwrap();
}

#[test]
fn a_call_carries_the_headers_that_its_tool_asks_for() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/mcp", listener.local_addr().unwrap());
    let (heads, calls) = channel();
    std::thread::spawn(move || {
        for socket in listener.incoming().flatten() {
            let heads = heads.clone();
            std::thread::spawn(move || serve(socket, &heads));
        }
    });
    let mut proxy = Command::new(env!("CARGO_BIN_EXE_shadowcat"))
        .args(["forward", &url])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut stdin = proxy.stdin.take().unwrap();
    let meta = r#""_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientCapabilities":{}}"#;
    writeln!(
        stdin,
        r#"{{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{{{meta},"name":"t","arguments":{{"region":"Köln"}}}}}}"#
    )
    .unwrap();
    let head = calls.recv_timeout(PATIENCE).unwrap();
    let mut lines = BufReader::new(proxy.stdout.take().unwrap()).lines();
    let answer = lines.next().unwrap().unwrap();
    drop(stdin);
    assert!(proxy.wait().unwrap().success());
    assert!(answer.contains(r#""id":1,"result""#), "{answer}");
    assert!(
        head.contains("mcp-param-region: =?base64?s8o2bg4=?="),
        "{head}"
    );
}
