//! Connections: kept, pipelined, closed.

use std::time::Duration;

use crate::server;
use crate::support::client::{Client, Session};
use crate::support::process::Proxy;
use crate::support::upstream::Upstream;
use crate::support::{MODES, client};

async fn session(mode: &str) -> (Proxy, Session) {
    let upstream = Upstream::start(server::answer).await;
    let proxy = Proxy::start(mode, &[], &[&upstream.url()]).await;
    let session = Session::open(proxy.address, "2025-11-25").await;
    (proxy, session)
}

fn call(id: u32, tool: &str) -> String {
    format!(r#"{{"jsonrpc":"2.0","id":{id},"method":"tools/call","params":{{"name":"{tool}"}}}}"#)
}

#[tokio::test]
async fn pipelined_requests_are_answered_in_order() {
    for mode in MODES {
        let (_proxy, session) = session(mode).await;
        let mut client = Client::connect(session.address).await;
        let requests: Vec<_> = (1..=10)
            .map(|id| match id % 3 {
                0 => session.post("nonsense"),
                1 => session.post(&call(id, "stream")),
                _ => session.post(&call(id, "echo")),
            })
            .collect();
        client.send(requests.concat()).await;
        for id in 1..=10 {
            let response = client.response().await;
            let named = format!(r#""id":{id},"#);
            match id % 3 {
                0 => assert_eq!(response.status, 400, "{mode}"),
                1 => assert!(
                    response.is_stream() && response.body.contains(&named),
                    "{mode}"
                ),
                _ => assert!(response.body.contains(&named), "{mode}: {response:?}"),
            }
        }
        assert!(client.is_silent(Duration::from_millis(50)).await, "{mode}");
    }
}

#[tokio::test]
async fn a_connection_serves_whatever_comes_for_as_long_as_it_comes() {
    for mode in MODES {
        let (_proxy, session) = session(mode).await;
        let mut client = Client::connect(session.address).await;
        for id in 0..200 {
            client.send(session.post(&call(id, "echo"))).await;
            assert_eq!(client.response().await.status, 200, "{mode}");
            client.send(session.post("{")).await;
            assert_eq!(client.response().await.status, 400, "{mode}");
        }
    }
}

#[tokio::test]
async fn a_client_that_asks_for_it_gets_its_connection_closed() {
    for mode in MODES {
        let (_proxy, session) = session(mode).await;
        let close = "connection: close\r\n";
        for headers in [session.headers() + close, close.to_owned()] {
            let mut client = Client::connect(session.address).await;
            client.send(client::post(&headers, &call(1, "echo"))).await;
            let response = client.response().await;
            assert_eq!(response.header("connection"), Some("close"), "{mode}");
            assert!(client.closed().await, "{mode}");
        }
        let mut client = Client::connect(session.address).await;
        client.send("this is no HTTP\r\n\r\n").await;
        assert_eq!(client.response().await.status, 400, "{mode}");
        assert!(client.closed().await, "{mode}");
    }
}
