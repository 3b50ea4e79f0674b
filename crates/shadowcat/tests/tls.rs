//! A server behind TLS: whom the proxy trusts, what it says when it does not, and HTTP/2.
//!
//! The platform's roots are named by `SSL_CERT_FILE`, which Linux and the BSDs read.
#![cfg(all(unix, not(target_vendor = "apple")))]
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stderr,
    unreachable_pub,
    reason = "a test's failure is a panic that says why; its modules are its own"
)]

mod support;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use h2::server::SendResponse;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use serde_json::{Value, json};
use support::client::{Client, Session, initialize, post};
use support::process::Proxy;
use support::upstream::{self, Answer, Request, Upstream};
use support::{MODES, soon, until};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Barrier;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

/// A certificate for this machine, signed by itself; its file is removed in the end.
struct Certificate {
    key: rcgen::CertifiedKey<rcgen::KeyPair>,
    file: PathBuf,
}

impl Certificate {
    fn new(name: &str) -> Self {
        let names = vec!["localhost".to_owned(), "127.0.0.1".to_owned()];
        let key = rcgen::generate_simple_self_signed(names).unwrap();
        let name = format!("tls-{name}-{}.pem", std::process::id());
        let file = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        std::fs::write(&file, key.cert.pem()).unwrap();
        Self { key, file }
    }

    fn acceptor(&self, protocol: &str) -> TlsAcceptor {
        let key = PrivatePkcs8KeyDer::from(self.key.signing_key.serialize_der());
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![self.key.cert.der().clone()], PrivateKeyDer::Pkcs8(key))
            .unwrap();
        config.alpn_protocols = vec![protocol.as_bytes().to_vec()];
        TlsAcceptor::from(Arc::new(config))
    }
}

impl Drop for Certificate {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.file);
    }
}

/// A proxy in front of `https://` at this address that trusts one certificate and no other.
async fn proxy(mode: &str, server: SocketAddr, trusted: &Certificate) -> Proxy {
    let url = format!("https://{server}/mcp");
    let mut command = Proxy::command(mode, &[], &[&url]);
    command
        .env("SSL_CERT_FILE", &trusted.file)
        .env_remove("SSL_CERT_DIR");
    Proxy::start_command(&mut command).await
}

/// Ends TLS before a server without it, and counts the connections that asked for it.
async fn terminate(acceptor: TlsAcceptor, server: SocketAddr) -> (SocketAddr, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let connections = Arc::<AtomicUsize>::default();
    let counted = Arc::clone(&connections);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            counted.fetch_add(1, Ordering::SeqCst);
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                let Ok(mut outside) = acceptor.accept(stream).await else {
                    return;
                };
                let mut inside = TcpStream::connect(server).await.unwrap();
                let _ = tokio::io::copy_bidirectional(&mut outside, &mut inside).await;
            });
        }
    });
    (address, connections)
}

fn play(request: &Request) -> Answer {
    match request.rpc().as_str() {
        "tools/call" => Answer::json(&upstream::text(&request.id(), "safe")),
        _ => upstream::basics(request).unwrap_or_default(),
    }
}

fn call(id: u32, tool: &str) -> String {
    format!(r#"{{"jsonrpc":"2.0","id":{id},"method":"tools/call","params":{{"name":"{tool}"}}}}"#)
}

#[tokio::test]
async fn an_untrusted_certificate_fails_the_request_at_once() {
    let (theirs, other) = (Certificate::new("theirs"), Certificate::new("other"));
    for mode in MODES {
        let server = Upstream::start(play).await;
        let (address, connections) = terminate(theirs.acceptor("http/1.1"), server.address).await;
        let proxy = proxy(mode, address, &other).await;
        let mut client = Client::connect(proxy.address).await;
        client.send(post("", &initialize("2025-11-25"))).await;
        let answer = client.response().await.json();
        let fault = &answer["error"]["data"]["shadowcat"];
        assert_eq!(fault["kind"], "tls", "{mode}: {answer}");
        assert_eq!(fault["side"], "upstream", "{mode}: {answer}");
        assert_eq!(fault["executed"], "no", "{mode}: {answer}");
        let message = answer["error"]["message"].as_str().unwrap();
        assert!(message.contains("signed by nobody"), "{mode}: {message}");
        assert!(message.contains("SSL_CERT_FILE"), "{mode}: {message}");
        // No second attempt: it would fail in the same way.
        assert_eq!(connections.load(Ordering::SeqCst), 1, "{mode}: {answer}");
        assert!(server.seen().is_empty(), "{mode}");
    }
}

#[tokio::test]
async fn a_trusted_certificate_is_enough() {
    let certificate = Certificate::new("trusted");
    for mode in MODES {
        let server = Upstream::start(play).await;
        let acceptor = certificate.acceptor("http/1.1");
        let (address, _) = terminate(acceptor, server.address).await;
        let proxy = proxy(mode, address, &certificate).await;
        let session = Session::open(proxy.address, "2025-11-25").await;
        let answer = session.exchange(&call(1, "t")).await.json();
        assert_eq!(answer["result"]["content"][0]["text"], "safe", "{mode}");
        let calls = server.calls("tools/call");
        assert_eq!(calls.len(), 1, "{mode}");
        assert_eq!(calls[0].header("host"), Some(&*address.to_string()));
    }
}

/// A server that speaks HTTP/2 only, as ALPN says.
#[derive(Clone)]
struct Http2 {
    address: SocketAddr,
    state: Arc<State>,
}

struct State {
    /// Each POST: the number of its connection, and its message.
    seen: Mutex<Vec<(usize, Value)>>,
    connections: AtomicUsize,
    /// The connections that are over.
    ended: Mutex<Vec<usize>>,
    /// Two calls of `together` meet here.
    meeting: Barrier,
}

impl Http2 {
    async fn start(acceptor: TlsAcceptor) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let server = Self {
            address: listener.local_addr().unwrap(),
            state: Arc::new(State {
                seen: Mutex::default(),
                connections: AtomicUsize::default(),
                ended: Mutex::default(),
                meeting: Barrier::new(2),
            }),
        };
        let accepting = server.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (acceptor, serving) = (acceptor.clone(), accepting.clone());
                tokio::spawn(async move {
                    let stream = acceptor.accept(stream).await.unwrap();
                    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
                    let state = &serving.state;
                    let number = state.connections.fetch_add(1, Ordering::SeqCst);
                    serving.serve(stream, number).await;
                    state.ended.lock().unwrap().push(number);
                });
            }
        });
        server
    }

    async fn serve(&self, stream: TlsStream<TcpStream>, number: usize) {
        let mut connection = h2::server::handshake(stream).await.unwrap();
        let (leave, mut leaving) = tokio::sync::mpsc::unbounded_channel::<()>();
        loop {
            let accepted = tokio::select! {
                accepted = connection.accept() => accepted,
                Some(()) = leaving.recv() => {
                    connection.graceful_shutdown();
                    continue;
                }
            };
            let Some(Ok((request, respond))) = accepted else {
                return;
            };
            let (server, leave) = (self.clone(), leave.clone());
            tokio::spawn(async move {
                if server.answer(request, respond, number).await {
                    leave.send(()).unwrap();
                }
            });
        }
    }

    /// Answers a request; true when the connection is to be left after it.
    async fn answer(
        &self,
        request: http::Request<h2::RecvStream>,
        mut respond: SendResponse<Bytes>,
        number: usize,
    ) -> bool {
        let response = http::Response::builder();
        if request.method() != http::Method::POST {
            let response = response.status(405).body(()).unwrap();
            respond.send_response(response, true).unwrap();
            return false;
        }
        let mut body = request.into_body();
        let mut bytes = Vec::new();
        while let Some(chunk) = body.data().await {
            let chunk = chunk.unwrap();
            body.flow_control().release_capacity(chunk.len()).unwrap();
            bytes.extend_from_slice(&chunk);
        }
        let message: Value = serde_json::from_slice(&bytes).unwrap();
        let again = {
            let mut seen = self.state.seen.lock().unwrap();
            let again = seen.iter().any(|(_, other)| *other == message);
            seen.push((number, message.clone()));
            again
        };
        let tool = message["params"]["name"].as_str().unwrap_or_default();
        match tool {
            "refused" if !again => {
                respond.send_reset(h2::Reason::REFUSED_STREAM);
                return false;
            }
            "together" => {
                soon("the other call", self.state.meeting.wait()).await;
            }
            _ => {}
        }
        if message["id"].is_null() {
            let response = response.status(202).body(()).unwrap();
            respond.send_response(response, true).unwrap();
            return false;
        }
        let result = match message["method"].as_str() {
            Some("initialize") => json!({
                "protocolVersion": "2025-11-25",
                "capabilities": {"tools": {}},
                "serverInfo": {"name": "h2", "version": "1"},
            }),
            _ => json!({"content": [{"type": "text", "text": tool}]}),
        };
        let response = response
            .header("content-type", "application/json")
            .body(())
            .unwrap();
        let text = upstream::response(&message["id"], result).to_string();
        let mut sending = respond.send_response(response, false).unwrap();
        sending.send_data(Bytes::from(text), true).unwrap();
        tool == "last"
    }

    /// The connections that carried calls of this tool, one number a call.
    fn calls(&self, tool: &str) -> Vec<usize> {
        let seen = self.state.seen.lock().unwrap();
        let calls = seen
            .iter()
            .filter(|(_, message)| message["params"]["name"] == tool);
        calls.map(|(number, _)| *number).collect()
    }
}

async fn http2(mode: &str, certificate: &Certificate) -> (Http2, Proxy, Session) {
    let server = Http2::start(certificate.acceptor("h2")).await;
    let proxy = proxy(mode, server.address, certificate).await;
    let session = Session::open(proxy.address, "2025-11-25").await;
    (server, proxy, session)
}

/// The text of a tool's answer.
async fn text(session: &Session, id: u32, tool: &str) -> Value {
    let answer = session.exchange(&call(id, tool)).await.json();
    assert_eq!(answer["id"], id, "{answer}");
    answer["result"]["content"][0]["text"].clone()
}

/// Neither call is answered before both are there: they share the connection at the same time.
#[tokio::test]
async fn calls_share_an_http2_connection() {
    let certificate = Certificate::new("h2");
    for mode in MODES {
        let (server, _proxy, session) = http2(mode, &certificate).await;
        let (one, two) = tokio::join!(text(&session, 1, "together"), text(&session, 2, "together"));
        assert_eq!((one, two), (json!("together"), json!("together")), "{mode}");
        let calls = server.calls("together");
        assert!(
            calls.len() == 2 && calls[0] == calls[1],
            "{mode}: {calls:?}"
        );
    }
}

/// `REFUSED_STREAM` says that nothing was processed (RFC 9113, section 8.7).
#[tokio::test]
async fn a_refused_stream_is_sent_again() {
    let certificate = Certificate::new("refused");
    for mode in MODES {
        let (server, _proxy, session) = http2(mode, &certificate).await;
        assert_eq!(text(&session, 1, "refused").await, "refused", "{mode}");
        assert_eq!(server.calls("refused").len(), 2, "{mode}");
    }
}

/// A connection that the server leaves (GOAWAY) is not used again; the session is not lost with it.
#[tokio::test]
async fn a_connection_that_goes_away_is_replaced() {
    let certificate = Certificate::new("goaway");
    for mode in MODES {
        let (server, _proxy, session) = http2(mode, &certificate).await;
        assert_eq!(text(&session, 1, "last").await, "last", "{mode}");
        let left = server.calls("last")[0];
        until("the connection ends", || {
            server.state.ended.lock().unwrap().contains(&left)
        })
        .await;
        assert_eq!(text(&session, 2, "next").await, "next", "{mode}");
        assert_ne!(server.calls("next"), [left], "{mode}");
    }
}
