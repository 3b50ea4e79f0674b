//! `shadowcat check` tells one server from another.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stderr,
    unreachable_pub,
    reason = "a test's failure is a panic that says why; its modules are its own"
)]

mod support;

use std::process::{Command, Output};

use serde_json::{Value, json};
use shadowcat_testkit::fixture::{Answers, Eras, Fixture, Options};
use support::upstream::{Answer, Upstream};

const BINARY: &str = env!("CARGO_BIN_EXE_shadowcat");

async fn check(arguments: &[&str]) -> Output {
    let mut command = Command::new(BINARY);
    command.arg("check").args(arguments);
    tokio::task::spawn_blocking(move || command.output().unwrap())
        .await
        .unwrap()
}

async fn findings(arguments: &[&str]) -> Value {
    let output = check(&[&["--json"], arguments].concat()).await;
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{arguments:?}: {stderr}");
    serde_json::from_slice(&output.stdout).unwrap()
}

async fn findings_of(options: Options) -> Value {
    let server = Fixture::start(options).await.unwrap();
    let found = findings(&[&server.url()]).await;
    assert_eq!(server.sessions(), 0, "a session was left behind");
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn a_resumable_server_is_told_from_one_that_is_not() {
    let streams = Options {
        answers: Answers::Stream,
        eras: Eras::Legacy,
        ..Options::default()
    };
    let found = findings_of(streams.clone()).await;
    for (key, value) in [
        ("usable", json!(true)),
        ("transport", json!("streamable-http")),
        ("session", json!(true)),
        ("standalone", json!(true)),
        ("resumable", json!(true)),
        ("modern", Value::Null),
    ] {
        assert_eq!(found[key], value, "{key}: {found}");
    }
    assert_eq!(found["legacy"]["versions"], json!(["2025-11-25"]));
    let without = findings_of(Options {
        ids: false,
        standalone: false,
        ..streams
    })
    .await;
    assert_eq!(without["resumable"], json!(false));
    assert_eq!(without["standalone"], json!(false));
    let silent = findings_of(Options::default()).await;
    assert_eq!(silent["resumable"], Value::Null);
}

#[tokio::test(flavor = "multi_thread")]
async fn eras_and_sessions_are_told() {
    let found = findings_of(Options::default()).await;
    assert_eq!(found["legacy"]["versions"], json!(["2025-11-25"]));
    assert_eq!(found["modern"]["versions"], json!(["2026-07-28"]));
    let found = findings_of(Options {
        eras: Eras::Modern,
        ..Options::default()
    })
    .await;
    assert_eq!(found["legacy"], Value::Null);
    assert_eq!(found["session"], Value::Null);
    let found = findings_of(Options {
        session: false,
        eras: Eras::Legacy,
        ..Options::default()
    })
    .await;
    assert_eq!(found["session"], json!(false));
}

#[tokio::test(flavor = "multi_thread")]
async fn tools_are_counted_over_all_pages() {
    let whole = findings_of(Options::default()).await;
    let paged = findings_of(Options {
        page: 3,
        ..Options::default()
    })
    .await;
    assert_eq!(paged["legacy"]["tools"], whole["legacy"]["tools"]);
    assert!(whole["legacy"]["tools"].as_u64().unwrap() > 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_is_checked_over_its_pipes() {
    for (eras, key) in [
        ("legacy", "legacy"),
        ("modern", "modern"),
        ("both", "legacy"),
    ] {
        let words = ["--", BINARY, "__server", "stdio", "--eras", eras];
        let found = findings(&words).await;
        assert_eq!(found["transport"], "stdio");
        assert!(found[key].is_object(), "{eras}: {found}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn people_get_sentences() {
    let server = Fixture::start(Options::default()).await.unwrap();
    let output = check(&[&server.url()]).await;
    let text = String::from_utf8(output.stdout).unwrap();
    for part in [
        "can be used",
        "Streamable HTTP",
        "2025-11-25, by initialize",
        "2026-07-28, by server/discover",
        "tools (",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
    assert!(output.stderr.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_used_gets_one_line_with_the_next_step() {
    let free = {
        let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        format!("http://{}/mcp", taken.local_addr().unwrap())
    };
    let plain = Fixture::start(Options::default()).await.unwrap();
    let plain = plain.url().replace("http:", "https:");
    for (arguments, hint) in [
        (&[&*free][..], "is it running"),
        (&[&*plain], "begins with http://"),
        (&["--", "no-such-command-here"], "no-such-command-here"),
        (&["--", "false"], "by hand"),
        (&["--timeout", "300ms", "--", "sleep", "60"], "--timeout"),
    ] {
        let output = check(arguments).await;
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{arguments:?}: {stderr}");
        assert!(output.stdout.is_empty());
        assert_eq!(stderr.lines().count(), 1, "{stderr}");
        assert!(stderr.contains(hint), "{arguments:?}: {stderr}");
    }
    let output = check(&["--json", &free]).await;
    let found: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(found["usable"], json!(false));
    assert_eq!(output.status.code(), Some(1));
}

/// What answers is no MCP server, or not in a state to be one.
#[tokio::test(flavor = "multi_thread")]
async fn a_status_that_is_no_answer_gets_the_next_step() {
    const PATH: &str = "is the URL's path right?";
    const OTHER: &str = "is this the URL of an MCP server?";
    const BEHIND: &str = "is the server behind it running?";
    const LATER: &str = "try again later";
    for (status, hint) in [
        ("404 Not Found", PATH),
        ("405 Method Not Allowed", PATH),
        ("410 Gone", PATH),
        ("501 Not Implemented", PATH),
        ("204 No Content", OTHER),
        ("400 Bad Request", OTHER),
        ("415 Unsupported Media Type", OTHER),
        ("421 Misdirected Request", OTHER),
        ("500 Internal Server Error", "its log"),
        ("502 Bad Gateway", BEHIND),
        ("504 Gateway Timeout", BEHIND),
        ("503 Service Unavailable", LATER),
        ("503 Busy\r\nretry-after: 90", LATER),
        ("429 Too Many Requests\r\nretry-after: 90", LATER),
        ("302 Found\r\nlocation: /login", "/login: give that URL"),
        ("401 Unauthorized", "--header"),
    ] {
        let server = Upstream::start(move |_| Answer::whole(status, "", "")).await;
        let output = check(&["--timeout", "60s", &server.url()]).await;
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{stderr}");
        assert_eq!(stderr.lines().count(), 1, "{stderr}");
        assert!(stderr.contains(&status[..3]), "{stderr}");
        assert_eq!(stderr.matches(hint).count(), 1, "{stderr}");
    }
}

/// A server that refuses `initialize` in words knows best.
#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_in_words_is_told() {
    let refusal = json!({
        "jsonrpc": "2.0", "id": null, "error": {"code": -32000, "message": "no such tenant"},
    })
    .to_string();
    for status in [
        "400 Bad Request",
        "404 Not Found",
        "500 Internal Server Error",
    ] {
        let refusal = refusal.clone();
        let server = Upstream::start(move |_| {
            Answer::whole(status, "content-type: application/json\r\n", &refusal)
        })
        .await;
        let output = check(&[&server.url()]).await;
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert!(stderr.contains("no such tenant"), "{stderr}");
        assert!(stderr.contains(&status[..3]), "{stderr}");
    }
}
