//! How long a server is waited for.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use http::StatusCode;
use shadowcat_mcp::build;
use shadowcat_mcp::fault::{Executed, Fault, FaultKind, Side};
use shadowcat_mcp::headers::Fields;
use shadowcat_mcp::message::{Kind, Message};
use shadowcat_mcp::method::Method;
use shadowcat_mcp::version::ProtocolVersion;
use shadowcat_transport::upstream::{BoxFuture, Incoming, Leg, Reply, RequestContext, SendContext};

use super::*;

/// A command that takes `start` before it answers anything, and speaks one era only.
#[derive(Clone)]
struct Slow {
    start: Duration,
    speaks: Era,
    unknown: Unknown,
    /// How often it was started.
    starts: Arc<AtomicUsize>,
}

/// What it does when it is asked what it does not know.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Unknown {
    Refuses,
    Ignores,
    Ends,
}

struct SlowLeg(Slow);

impl Upstream for Slow {
    fn leg(&self, _era: Era) -> Arc<dyn Leg> {
        self.starts.fetch_add(1, Ordering::SeqCst);
        Arc::new(SlowLeg(self.clone()))
    }

    fn probe(&self) -> BoxFuture<Result<(), String>> {
        Box::pin(std::future::ready(Ok(())))
    }

    fn name(&self) -> &str {
        "slow"
    }
}

impl Leg for SlowLeg {
    fn request(
        &self,
        message: Message,
        _context: RequestContext,
    ) -> BoxFuture<Result<Reply, Fault>> {
        let server = self.0.clone();
        Box::pin(async move {
            let Kind::Request { id, method } = message.kind() else {
                panic!("not asked for");
            };
            let result = match (method, server.speaks) {
                (Method::Initialize, Era::Legacy) => {
                    r#"{"protocolVersion":"2025-11-25","capabilities":{},"serverInfo":{"name":"s","version":"1"}}"#
                }
                (Method::Discover, Era::Modern) => {
                    r#"{"supportedVersions":["2026-07-28"],"capabilities":{}}"#
                }
                (Method::ToolsList, Era::Modern) => r#"{"tools":[]}"#,
                _ => "",
            };
            tokio::time::sleep(server.start).await;
            let message = match result {
                "" => match server.unknown {
                    Unknown::Refuses => build::error(Some(id), -32601, "no such method", None),
                    Unknown::Ignores => std::future::pending().await,
                    Unknown::Ends => {
                        let (side, kind) = (Side::Upstream, FaultKind::ChildExited);
                        return Err(Fault::new(side, kind, Executed::Unknown));
                    }
                },
                result => build::result(id, result),
            };
            Ok(Reply::Json {
                status: StatusCode::OK,
                headers: Fields::default(),
                message,
            })
        })
    }

    fn send(&self, _message: Message, _context: SendContext) -> BoxFuture<Result<(), Fault>> {
        Box::pin(std::future::ready(Ok(())))
    }

    fn negotiated(&self, _version: ProtocolVersion) {}

    fn standalone(&self) -> BoxFuture<Option<Incoming>> {
        Box::pin(std::future::ready(None))
    }

    fn has_response_heads(&self) -> bool {
        false
    }

    fn set_standalone_open(&self, _open: bool) {}

    fn close(&self) -> BoxFuture<()> {
        Box::pin(std::future::ready(()))
    }
}

async fn checked(server: &Slow, timeout: u64) -> (Result<Findings, String>, u64) {
    let start = Instant::now();
    let found = probe(server, None, Duration::from_secs(timeout)).await;
    (found, start.elapsed().as_secs())
}

fn slow(start: u64, speaks: Era, unknown: Unknown) -> Slow {
    Slow {
        start: Duration::from_secs(start),
        speaks,
        unknown,
        starts: Arc::default(),
    }
}

fn starts(server: &Slow) -> usize {
    server.starts.load(Ordering::SeqCst)
}

#[tokio::test(start_paused = true)]
async fn a_command_may_take_as_long_to_start_as_the_timeout_says() {
    for unknown in [Unknown::Refuses, Unknown::Ignores, Unknown::Ends] {
        let (found, _) = checked(&slow(20, Era::Legacy, unknown), 60).await;
        let found = found.unwrap();
        assert!(found.legacy.is_some() && found.modern.is_none());
    }
    let (found, _) = checked(&slow(20, Era::Modern, Unknown::Refuses), 60).await;
    let found = found.unwrap();
    assert!(found.legacy.is_none() && found.modern.is_some());
}

#[tokio::test(start_paused = true)]
async fn what_never_answers_takes_as_long_as_the_timeout_says() {
    for timeout in [1, 6, 30, 60] {
        let silent = slow(600, Era::Legacy, Unknown::Refuses);
        let (found, took) = checked(&silent, timeout).await;
        assert!(found.unwrap_err().contains("--timeout"));
        assert_eq!(took, timeout);
        assert_eq!(starts(&silent), 1);
    }
}

/// One process tells all of a legacy server, unless it ends over what it does not know.
#[tokio::test(start_paused = true)]
async fn a_legacy_command_is_started_once() {
    for (unknown, times) in [
        (Unknown::Refuses, 1),
        (Unknown::Ignores, 1),
        (Unknown::Ends, 2),
    ] {
        for start in [0, 5] {
            let server = slow(start, Era::Legacy, unknown);
            let (found, took) = checked(&server, 30).await;
            let found = found.unwrap();
            assert!(found.legacy.is_some() && found.modern.is_none());
            assert_eq!(starts(&server), times);
            assert!(took <= 3 * start + 3, "{took}");
        }
    }
}

/// One that answers `server/discover` is started again: only a fresh process shows whether it
/// takes `initialize`, too.
#[tokio::test(start_paused = true)]
async fn a_modern_command_is_started_again_for_the_other_era() {
    for unknown in [Unknown::Refuses, Unknown::Ignores] {
        for start in [1, 5] {
            let server = slow(start, Era::Modern, unknown);
            let (found, took) = checked(&server, 60).await;
            let found = found.unwrap();
            assert!(found.modern.is_some() && found.legacy.is_none());
            assert_eq!(starts(&server), 2);
            // Its list of tools takes as long as its start.
            assert!(took <= 5 * start + 3, "{took}");
        }
    }
}
