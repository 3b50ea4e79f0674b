//! What is logged says whose it is.

use std::io;
use std::sync::Arc;

use parking_lot::Mutex;
use shadowcat_mcp::fault::{Executed, FaultKind};
use shadowcat_proxy::config::Config;
use tracing_subscriber::fmt::MakeWriter;

use crate::client::Proxy;
use crate::fake::{Habits, fault, session_lost};

#[derive(Clone, Default)]
struct Captured(Arc<Mutex<Vec<u8>>>);

impl io::Write for Captured {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Captured {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

#[tokio::test(start_paused = true)]
async fn every_line_names_its_session_and_request_at_any_level() {
    let captured = Captured::default();
    let subscriber = tracing_subscriber::fmt()
        .with_writer(captured.clone())
        .with_ansi(false)
        .with_max_level(tracing::Level::DEBUG)
        .finish();
    let _guard = tracing::subscriber::set_default(subscriber);
    let proxy = Proxy::new(Habits::default(), Config::default());
    let client = proxy.initialized().await;
    let posting = client.posting(r#"{"id":"abc","method":"tools/call","params":{"name":"t"}}"#);
    let lost = fault(FaultKind::ConnectionLost, Executed::Unknown);
    proxy.server.request().await.fail(lost);
    posting.await.unwrap();
    let posting = client.posting(r#"{"id":7,"method":"tools/list"}"#);
    proxy.server.request().await.fail(session_lost());
    proxy.server.request().await.json("{}");
    posting.await.unwrap();
    client.delete().await;
    let text = String::from_utf8(captured.0.lock().clone()).unwrap();
    let line = |part: &str| {
        let mut lines = text.lines();
        let found = lines.find(|line| line.contains(part));
        found.unwrap_or_else(|| panic!("no {part:?} in {text}"))
    };
    let failed = line("the request failed");
    let whose = r#"session{id=1}:request{id="abc" method=tools/call}"#;
    assert!(failed.contains(whose), "{failed}");
    let lost = line("the upstream session is lost");
    assert!(
        lost.contains("session{id=1}") && lost.contains("request{id=7"),
        "{lost}"
    );
    let restored = line("upstream session restored");
    assert!(restored.contains("session{id=1}"), "{restored}");
    let secret = client.headers["mcp-session-id"].to_str().unwrap();
    assert!(!text.contains(secret), "the session id is a secret");
}
