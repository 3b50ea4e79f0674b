//! `shadowcat sse` follows a stream across its breaks.
#![allow(clippy::unwrap_used, reason = "a test's failure is a panic")]

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpListener;
use std::process::{Command, Stdio};
use std::thread;

const STREAM: &str =
    "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n";
const NO_MORE: &str = "HTTP/1.1 204 No Content\r\nconnection: close\r\n\r\n";

/// A server that answers so many connections; the thread gives their requests back. The last one
/// stays open until the client goes.
fn serve(answers: Vec<String>) -> (String, thread::JoinHandle<Vec<String>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/events", listener.local_addr().unwrap());
    let serving = thread::spawn(move || {
        let mut requests = Vec::new();
        let last = answers.len() - 1;
        for (number, answer) in answers.into_iter().enumerate() {
            let (mut socket, _) = listener.accept().unwrap();
            let mut reader = BufReader::new(socket.try_clone().unwrap());
            let mut request = String::new();
            while !request.ends_with("\r\n\r\n") {
                assert_ne!(reader.read_line(&mut request).unwrap(), 0);
            }
            requests.push(request);
            socket.write_all(answer.as_bytes()).unwrap();
            if number == last {
                let _ = reader.read(&mut [0]);
            }
        }
        requests
    });
    (url, serving)
}

/// A server that answers one connection, whatever comes.
fn serve_raw(answer: &'static str) -> (String, thread::JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    let serving = thread::spawn(move || {
        let (mut socket, _) = listener.accept().unwrap();
        let _ = socket.read(&mut [0; 1024]);
        socket.write_all(answer.as_bytes()).unwrap();
    });
    (url, serving)
}

fn follow(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_shadowcat"));
    command
        .args(["sse", "--retry-initial", "50ms"])
        .args(arguments);
    for (name, _) in std::env::vars().filter(|(name, _)| name.to_lowercase().ends_with("_proxy")) {
        command.env_remove(name);
    }
    command
}

#[test]
fn each_event_is_a_line_and_a_break_is_a_sentence() {
    let (url, serving) = serve(vec![
        format!("{STREAM}id: 1\ndata: one\n\nid: 2\nevent: tick\ndata: t\ndata: wo\n\nid: 3\ndat"),
        format!("{STREAM}id: 2\nevent: tick\ndata: t\ndata: wo\n\nid: 3\ndata: three\n\n"),
        NO_MORE.into(),
    ]);
    let headers = ["--header", "X-Key: k", "--header", "Mcp-Session-Id: s"];
    let output = follow(&headers).arg(&url).output().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{stderr}");
    let stdout = String::from_utf8(output.stdout).unwrap();
    assert_eq!(
        stdout,
        "1\tmessage\tone\n2\ttick\tt\\nwo\n3\tmessage\tthree\n"
    );
    assert!(stderr.contains("connected\n"), "{stderr}");
    assert!(stderr.contains("coming back in"), "{stderr}");
    assert!(stderr.contains("connected again after"), "{stderr}");
    let requests = serving.join().unwrap();
    assert!(requests[0].contains("x-key: k\r\n"), "{}", requests[0]);
    assert!(
        requests[1].contains("mcp-session-id: s\r\n"),
        "{}",
        requests[1]
    );
    assert!(
        requests[1].contains("last-event-id: 2\r\n"),
        "{}",
        requests[1]
    );
}

#[test]
fn it_goes_on_where_it_is_told_and_prints_json() {
    let (url, serving) = serve(vec![format!("{STREAM}id: 43\ndata: x\n\n"), NO_MORE.into()]);
    let output = follow(&["--json", "--last-event-id", "42", &url])
        .output()
        .unwrap();
    assert!(output.status.success());
    let event: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(
        event,
        serde_json::json!({"id": "43", "event": "message", "data": "x"})
    );
    assert!(serving.join().unwrap()[0].contains("last-event-id: 42\r\n"));
}

#[test]
fn a_stream_that_cannot_be_had_is_a_runtime_error_in_one_line() {
    let refusal = "HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
    let (url, serving) = serve(vec![refusal.into()]);
    let output = follow(&[&url]).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(output.stdout.is_empty());
    let stderr = String::from_utf8(output.stderr).unwrap();
    let last = stderr.lines().last().unwrap();
    assert!(
        last.starts_with("shadowcat: ") && last.contains("404"),
        "{stderr}"
    );
    serving.join().unwrap();
}

#[test]
fn a_refusal_says_who_refuses_and_why() {
    let refusal = "HTTP/1.1 400 Bad Request\r\ncontent-type: application/json\r\n\
        content-length: 42\r\nconnection: close\r\n\r\n{\"error\":\n \"no session, header-secret??\" }";
    let (url, serving) = serve(vec![refusal.into()]);
    let with_query = format!("{url}?key=query-secret");
    let output = follow(&["--header", "X-Key: header-secret", &with_query])
        .output()
        .unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    let said = r#"it says: {"error": "no session, ***??" }"#;
    let line = format!("the server refuses the stream: {url} answered 400 Bad Request; {said}\n");
    assert!(stderr.ends_with(&line), "{stderr}");
    assert!(!stderr.contains("secret"), "{stderr}");
    serving.join().unwrap();
}

#[test]
fn a_server_that_is_not_there_is_named() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/events", taken.local_addr().unwrap());
    drop(taken);
    let output = follow(&["--retry-max-attempts", "1", &format!("{url}?key=s3cret")])
        .output()
        .unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(
        stderr.contains(&format!("{url} cannot be reached: ")),
        "{stderr}"
    );
    assert!(!stderr.contains("s3cret"), "{stderr}");
}

#[test]
fn a_server_that_speaks_no_tls_is_not_asked_again() {
    let (url, serving) = serve_raw("HTTP/1.1 400 Bad Request\r\n\r\n");
    let url = url.replace("http://", "https://");
    let output = follow(&[&url]).output().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    assert_eq!(stderr.lines().count(), 1, "{stderr}");
    serving.join().unwrap();
}

#[cfg(unix)]
#[test]
fn a_signal_ends_it_well() {
    let (url, serving) = serve(vec![format!("{STREAM}data: x\n\n")]);
    let mut child = follow(&[&url])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap())
        .read_line(&mut line)
        .unwrap();
    assert_eq!(line, "\tmessage\tx\n");
    let killed = Command::new("kill")
        .args(["-INT", &child.id().to_string()])
        .status();
    assert!(killed.unwrap().success());
    assert_eq!(child.wait().unwrap().code(), Some(0));
    serving.join().unwrap();
}
