//! Against servers that answer each era's request in their own way.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use shadowcat_mcp::fault::{Executed, Fault, FaultKind, Side};
use shadowcat_mcp::headers::Fields;
use shadowcat_mcp::method::Method;
use shadowcat_store::Limits;
use shadowcat_store::memory::MemoryLog;
use shadowcat_transport::upstream::{
    BoxFuture, Incoming, Leg, Reply, RequestContext, SendContext, Upstream,
};

use super::*;
use crate::config::Config;
use crate::entropy::OsEntropy;

type Answer = BoxFuture<Result<Reply, Fault>>;

/// A server that makes of a request what this does.
#[derive(Clone)]
struct Server(Arc<dyn Fn(Message) -> Answer + Send + Sync>);

impl Upstream for Server {
    fn leg(&self, _era: Era) -> Arc<dyn Leg> {
        Arc::new(self.clone())
    }

    fn probe(&self) -> BoxFuture<Result<(), String>> {
        Box::pin(async { Ok(()) })
    }

    fn name(&self) -> &str {
        "server"
    }
}

impl Leg for Server {
    fn request(&self, message: Message, _: RequestContext) -> Answer {
        (self.0)(message)
    }

    fn send(&self, _: Message, _: SendContext) -> BoxFuture<Result<(), Fault>> {
        Box::pin(async { Ok(()) })
    }

    fn negotiated(&self, _: ProtocolVersion) {}

    fn standalone(&self) -> BoxFuture<Option<Incoming>> {
        Box::pin(async { None })
    }

    fn has_response_heads(&self) -> bool {
        true
    }

    fn set_standalone_open(&self, _: bool) {}

    fn close(&self) -> BoxFuture<()> {
        Box::pin(async {})
    }
}

fn refusal() -> Fault {
    Fault::new(Side::Upstream, FaultKind::Status, Executed::Unknown)
}

/// Answers `initialize` if it has a version, and modern requests with this status.
fn refusing(legacy: Option<&'static str>, modern: StatusCode) -> Server {
    Server(Arc::new(move |message| {
        Box::pin(async move {
            let id = message.id().unwrap();
            let (status, message) = match (message.method(), legacy) {
                (Some(Method::Initialize), Some(version)) => {
                    let result = format!(
                        r#"{{"protocolVersion":"{version}","capabilities":{{}},"serverInfo":{{"name":"s","version":"0"}}}}"#
                    );
                    (StatusCode::OK, build::result(id, &result))
                }
                (Some(Method::Initialize), None) => return Err(refusal()),
                _ => (modern, refusal().to_response(id)),
            };
            Ok(Reply::Json {
                status,
                headers: Fields::default(),
                message,
            })
        })
    }))
}

/// A command that cannot be started, which takes a while; `starts` counts how often that was tried.
fn broken(starts: Arc<AtomicUsize>) -> Server {
    Server(Arc::new(move |_| {
        starts.fetch_add(1, Ordering::SeqCst);
        Box::pin(async {
            tokio::time::sleep(Duration::from_millis(500)).await;
            let kind = FaultKind::ChildNotStarted;
            Err(Fault::new(Side::Upstream, kind, Executed::No))
        })
    }))
}

/// A pipeline before this server.
fn shared(server: Server) -> Arc<Shared> {
    let limits = Limits {
        stream_bytes: 1024,
        total_bytes: 1024,
        record_bytes: 0,
        ttl: Duration::from_secs(1),
    };
    Shared::new(
        Config::default(),
        Arc::new(server),
        Arc::new(MemoryLog::new(limits)),
        Arc::default(),
        Arc::new(OsEntropy),
    )
}

/// What a modern client is told of a refusal without words.
async fn told(legacy: Option<&'static str>, modern: u16) -> (StatusCode, String) {
    let modern = StatusCode::from_u16(modern).unwrap();
    let shared = shared(refusing(legacy, modern));
    let request = build::discover();
    let response = refusal().to_response(request.id().unwrap());
    let (status, response) = explain_to_modern(&shared, &request, modern, response).await;
    let text = String::from_utf8(response.raw().to_vec()).unwrap();
    (status, text)
}

#[tokio::test(start_paused = true)]
async fn a_legacy_server_s_refusal_without_words_is_explained() {
    for code in [400, 404, 405, 406, 415] {
        let (status, text) = told(Some("2024-11-05"), code).await;
        assert_eq!(status, StatusCode::BAD_REQUEST);
        assert!(text.contains("2024-11-05"), "{code} {text}");
        assert!(text.contains("2026-07-28"), "{code} {text}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_refusal_that_stays_unexplained_is_a_bad_gateway() {
    let (status, text) = told(None, 405).await;
    assert_eq!(status, StatusCode::BAD_GATEWAY);
    assert!(text.contains("shadowcat"), "{text}");
}

#[tokio::test(start_paused = true)]
async fn what_says_nothing_about_eras_stays_as_it_is() {
    let (status, text) = told(Some("2024-11-05"), 502).await;
    assert_eq!(status, StatusCode::BAD_GATEWAY);
    assert!(!text.contains("2024-11-05"), "{text}");
}

#[tokio::test(start_paused = true)]
async fn who_waited_for_an_attempt_that_failed_makes_none_of_its_own() {
    let starts = Arc::new(AtomicUsize::new(0));
    let shared = shared(broken(Arc::clone(&starts)));
    let request = build::discover();
    let all = (0..20).map(|_| check_pipe(&shared, &request));
    for obstacle in futures_util::future::join_all(all).await {
        let Some(Obstacle::Fault(fault)) = obstacle else {
            panic!("no fault");
        };
        assert_eq!(fault.kind, FaultKind::ChildNotStarted);
    }
    assert_eq!(starts.load(Ordering::SeqCst), 1);
    tokio::time::sleep(FAILED).await;
    let _ = check_pipe(&shared, &request).await;
    assert_eq!(starts.load(Ordering::SeqCst), 2);
}
