//! What is logged says whose it is.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use shadowcat_mcp::fault::{Executed, FaultKind};
use shadowcat_proxy::config::{Config, OnSessionLoss};
use tokio::time::sleep;
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
async fn what_is_logged_is_true_and_names_its_session_and_request_at_any_level() {
    let captured = Captured::default();
    let subscriber = tracing_subscriber::fmt()
        .with_writer(captured.clone())
        .with_ansi(false)
        .with_env_filter("info")
        .with_filter_reloading();
    let level = subscriber.reload_handle();
    // For the whole process: with a subscriber of this thread's own, a line that another test's
    // thread came by first may count as wanted by nobody.
    tracing::subscriber::set_global_default(subscriber.finish()).unwrap();
    for filter in ["info", "debug"] {
        level.reload(filter).unwrap();
        captured.0.lock().clear();
        what_fails_is_told_of_its_request(&captured).await;
    }
    only_what_was_idle_expires(&captured).await;
}

async fn what_fails_is_told_of_its_request(captured: &Captured) {
    let proxy = Proxy::new(Habits::default(), Config::default());
    let client = proxy.initialized().await;
    let posting = client.posting(r#"{"id":"logged","method":"tools/call","params":{"name":"t"}}"#);
    let lost = fault(FaultKind::ConnectionLost, Executed::Unknown);
    proxy.server.request().await.fail(lost);
    posting.await.unwrap();
    let posting = client.posting(r#"{"id":7771,"method":"tools/list"}"#);
    proxy.server.request().await.fail(session_lost());
    proxy.server.request().await.json("{}");
    posting.await.unwrap();
    client.delete().await;
    let refused = fault(FaultKind::Status, Executed::Unknown).because("nobody here");
    proxy.server.broken.lock().insert(2, refused);
    proxy.client().initialize("2025-11-25").await;
    let text = String::from_utf8(captured.0.lock().clone()).unwrap();
    // Other tests' lines stand between these.
    let has = |parts: [&str; 2]| {
        let found = text
            .lines()
            .find(|line| parts.iter().all(|part| line.contains(part)));
        assert!(found.is_some(), "no line with {parts:?} in {text}");
    };
    let failed = r#"session{id=1}:request{id="logged" method=tools/call}"#;
    has(["the request failed", failed]);
    let lost = "session{id=1}:request{id=7771 method=tools/list}";
    has(["the upstream session is lost", lost]);
    has(["upstream session restored", "session{id=1}"]);
    let begun = "WARN session{id=2}:request{id=0 method=initialize}";
    has([
        begun,
        "initialize failed fault=upstream: status: nobody here",
    ]);
    let secret = client.headers["mcp-session-id"].to_str().unwrap();
    assert!(!text.contains(secret), "the session id is a secret");
}

/// A session that has ended by itself is swept up with those that were idle for too long.
async fn only_what_was_idle_expires(captured: &Captured) {
    let config = Config {
        session_ttl: Duration::from_secs(60),
        on_session_loss: OnSessionLoss::Propagate,
        ..Config::default()
    };
    let proxy = Proxy::new(Habits::default(), config);
    // Other tests' lines stand between these, of sessions with smaller numbers.
    for _ in 1..1000 {
        proxy.initialized().await.delete().await;
    }
    let ended = proxy.initialized().await;
    let posting = ended.posting(r#"{"id":1,"method":"tools/list"}"#);
    proxy.server.request().await.fail(session_lost());
    posting.await.unwrap();
    let _idle = proxy.initialized().await;
    sleep(Duration::from_secs(90)).await;
    assert_eq!(proxy.metrics.sessions.get(), 0);
    let text = String::from_utf8(captured.0.lock().clone()).unwrap();
    let expired = |id: u32| {
        let span = format!("session{{id={id}}}");
        let mut lines = text.lines();
        lines.any(|line| line.contains(&span) && line.ends_with("session expired"))
    };
    assert!(!expired(1000), "it had ended by itself");
    assert!(expired(1001), "it was idle");
}
