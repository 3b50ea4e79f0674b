//! Secrets stay out of logs, metrics and error texts, however much is logged.

use std::process::Command;

use crate::server;
use crate::support::MODES;
use crate::support::client::{Client, Session, post};
use crate::support::process::Proxy;
use crate::support::upstream::Upstream;

/// What nobody may read: the operator's header and query, the client's credentials, both session ids.
const SECRETS: [&str; 6] = [
    "operator-secret",
    "query-secret",
    "client-secret",
    "cookie-secret",
    "argument-secret",
    "upstream-session",
];

async fn text_of(admin: std::net::SocketAddr, path: &str) -> String {
    let mut client = Client::connect(admin).await;
    client
        .send(format!("GET {path} HTTP/1.1\r\nhost: localhost\r\n\r\n"))
        .await;
    client.response().await.body
}

#[tokio::test]
async fn they_are_in_no_log_no_metric_and_no_error() {
    for mode in MODES {
        for options in [&["--log-format", "json", "--forward-auth"][..], &[]] {
            let upstream = Upstream::start(server::answer).await;
            let url = format!("{}?key=query-secret", upstream.url());
            let fixed = ["--log-level", "trace", "--admin", "127.0.0.1:0"];
            let header = ["--header", "X-Key: ${SECRET_FOR_THE_TEST}"];
            let options = [&fixed[..], &header, options].concat();
            let mut command: Command = Proxy::command(mode, &options, &[&url]);
            command.env("SECRET_FOR_THE_TEST", "operator-secret");
            let proxy = Proxy::start_command(&mut command).await;
            let session = Session::open(proxy.address, "2025-11-25").await;
            let headers = format!(
                "{}authorization: Bearer client-secret\r\ncookie: a=cookie-secret\r\n",
                session.headers()
            );
            let mut told = String::new();
            for tool in [
                "echo",
                "stream",
                "unauthorized",
                "forbidden",
                "broken",
                "not found",
            ] {
                let call = format!(
                    r#"{{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{{"name":"{tool}","arguments":{{"key":"argument-secret"}}}}}}"#
                );
                let mut client = Client::connect(proxy.address).await;
                client.send(post(&headers, &call)).await;
                let response = client.response().await;
                told.push_str(&response.head);
                told.push_str(&response.body);
            }
            // What is refused quotes what was wrong, but no secret.
            for (headers, body) in [
                (
                    &*headers,
                    r#"{"jsonrpc":"1.0","id":1,"method":"ping","params":"argument-secret"}"#,
                ),
                ("authorization: Bearer client-secret\r\n", "{}"),
            ] {
                let mut client = Client::connect(proxy.address).await;
                client.send(post(headers, body)).await;
                told.push_str(&client.response().await.body);
            }
            let asked = upstream.calls("tools/call");
            assert!(
                asked
                    .iter()
                    .all(|call| call.header("x-key") == Some("operator-secret"))
            );
            assert!(
                asked
                    .iter()
                    .all(|call| call.target == "/mcp?key=query-secret")
            );
            session.close().await;
            let log = proxy.process.stderr().join("\n");
            let admin = log.split("health and metrics on http://").nth(1).unwrap();
            let admin = admin.split('/').next().unwrap().parse().unwrap();
            told.push_str(&text_of(admin, "/metrics").await);
            told.push_str(&text_of(admin, "/readyz").await);
            told.push_str(&log);
            for secret in SECRETS.into_iter().chain([&*session.id]) {
                let found = told.find(secret).map(|at| {
                    let start = told[..at].rfind('\n').map_or(0, |newline| newline + 1);
                    told[start..].lines().next().unwrap_or_default()
                });
                assert_eq!(found, None, "{mode} {options:?}");
            }
        }
    }
}
