//! HTTP/2 with prior knowledge: the same endpoint, many requests on one connection.

use h2::client::SendRequest;
use http::{HeaderMap, Method, Request};
use serde_json::Value;
use tokio::net::TcpStream;

use crate::server;
use crate::support::client::Session;
use crate::support::process::Proxy;
use crate::support::upstream::Upstream;
use crate::support::{MODES, soon};

type Sender = SendRequest<std::io::Cursor<Vec<u8>>>;

async fn connect(proxy: &Proxy) -> Sender {
    let stream = TcpStream::connect(proxy.address).await.unwrap();
    let handshake = h2::client::Builder::new().handshake(stream);
    let (sender, connection) = soon("a handshake", handshake).await.unwrap();
    tokio::spawn(connection);
    sender
}

async fn exchange(sender: &Sender, session: &Session, body: String) -> (u16, HeaderMap, String) {
    let request = Request::builder()
        .method(Method::POST)
        .uri("http://localhost/mcp")
        .header("accept", "application/json, text/event-stream")
        .header("content-type", "application/json")
        .header("mcp-session-id", &session.id)
        .header("mcp-protocol-version", &session.version);
    let mut sender = soon("a place", sender.clone().ready()).await.unwrap();
    let request = request.body(()).unwrap();
    let (response, mut sending) = sender.send_request(request, false).unwrap();
    let body = std::io::Cursor::new(body.into_bytes());
    sending.send_data(body, true).unwrap();
    let (head, mut body) = soon("a response", response).await.unwrap().into_parts();
    let mut bytes = Vec::new();
    while let Some(chunk) = soon("data", body.data()).await {
        let chunk = chunk.unwrap();
        body.flow_control().release_capacity(chunk.len()).unwrap();
        bytes.extend_from_slice(&chunk);
    }
    (
        head.status.as_u16(),
        head.headers,
        String::from_utf8(bytes).unwrap(),
    )
}

#[tokio::test]
async fn many_requests_share_a_connection() {
    for mode in MODES {
        let upstream = Upstream::start(server::answer).await;
        let proxy = Proxy::start(mode, &[], &[&upstream.url()]).await;
        let session = Session::open(proxy.address, "2025-06-18").await;
        let sender = connect(&proxy).await;
        let calls = (0..100).map(|id| {
            let (sender, session) = (sender.clone(), session.clone());
            tokio::spawn(async move {
                let tool = if id % 2 == 0 { "echo" } else { "stream" };
                let call = format!(
                    r#"{{"jsonrpc":"2.0","id":{id},"method":"tools/call","params":{{"name":"{tool}"}}}}"#
                );
                let (status, headers, body) = exchange(&sender, &session, call).await;
                assert_eq!(status, 200, "{body}");
                if tool == "echo" {
                    assert_eq!(headers["content-type"], "application/json");
                    let body: Value = serde_json::from_str(&body).unwrap();
                    assert_eq!(body["id"], id);
                } else {
                    assert_eq!(headers["content-type"], "text/event-stream");
                    assert!(body.contains(&format!(r#""id":{id},"#)), "{body}");
                }
            })
        });
        for call in calls.collect::<Vec<_>>() {
            call.await.unwrap();
        }
        let (status, _, body) = exchange(&sender, &session, "nonsense".to_owned()).await;
        assert_eq!(status, 400, "{mode}: {body}");
        assert!(body.contains("-32700"), "{mode}: {body}");
    }
}

/// Origin, Host and path are judged as over HTTP/1.1; the host is the `:authority`.
#[tokio::test]
async fn who_may_come_is_the_same() {
    for mode in MODES {
        let upstream = Upstream::start(server::answer).await;
        let proxy = Proxy::start(mode, &[], &[&upstream.url()]).await;
        let sender = connect(&proxy).await;
        for (uri, origin, status) in [
            ("http://localhost/mcp", "http://localhost", 400),
            ("http://localhost/mcp", "https://evil.example", 403),
            ("http://evil.example/mcp", "http://localhost", 421),
            ("http://localhost/other", "http://localhost", 404),
        ] {
            let request = Request::builder()
                .method(Method::GET)
                .uri(uri)
                .header("accept", "text/event-stream")
                .header("origin", origin);
            let mut sender = soon("a place", sender.clone().ready()).await.unwrap();
            let (response, _) = sender
                .send_request(request.body(()).unwrap(), true)
                .unwrap();
            let response = soon("a response", response).await.unwrap();
            assert_eq!(response.status(), status, "{mode} {uri} {origin}");
        }
    }
}
