//! How long a server is waited for.

use std::sync::Arc;

use http::{HeaderMap, StatusCode};
use shadowcat_mcp::message::Kind;
use shadowcat_transport::upstream::{BoxFuture, Incoming, Reply, RequestContext};

use super::*;

/// A command that takes `start` before it answers anything, and speaks one era only.
#[derive(Clone, Copy)]
struct Slow {
    start: Duration,
    speaks: Era,
    /// Whether it answers what it does not know.
    refuses: bool,
}

struct SlowLeg(Slow);

impl Upstream for Slow {
    fn leg(&self, _era: Era) -> Arc<dyn Leg> {
        Arc::new(SlowLeg(*self))
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
        let server = self.0;
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
                "" if server.refuses => build::error(Some(id), -32601, "no such method", None),
                "" => std::future::pending().await,
                result => build::result(id, result),
            };
            Ok(Reply::Json {
                status: StatusCode::OK,
                headers: HeaderMap::new(),
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

async fn checked(server: Slow, timeout: u64) -> (Result<Findings, String>, u64) {
    let start = Instant::now();
    let found = probe(&server, None, Duration::from_secs(timeout)).await;
    (found, start.elapsed().as_secs())
}

fn slow(start: u64, speaks: Era, refuses: bool) -> Slow {
    Slow {
        start: Duration::from_secs(start),
        speaks,
        refuses,
    }
}

#[tokio::test(start_paused = true)]
async fn a_command_may_take_as_long_to_start_as_the_timeout_says() {
    for refuses in [true, false] {
        let (found, _) = checked(slow(20, Era::Legacy, refuses), 60).await;
        let found = found.unwrap();
        assert!(found.legacy.is_some() && found.modern.is_none());
    }
    let (found, _) = checked(slow(20, Era::Modern, true), 60).await;
    let found = found.unwrap();
    assert!(found.legacy.is_none() && found.modern.is_some());
}

#[tokio::test(start_paused = true)]
async fn what_never_answers_takes_no_longer_than_the_timeout() {
    for timeout in [1, 30, 60] {
        let (found, took) = checked(slow(0, Era::Legacy, false), timeout).await;
        assert!(found.is_ok() && took <= 3, "{took}");
        let (found, took) = checked(slow(600, Era::Legacy, true), timeout).await;
        assert!(found.unwrap_err().contains("--timeout"));
        assert_eq!(took, timeout);
    }
    // One that is silent about `initialize` has some time left for its own era.
    let (found, took) = checked(slow(1, Era::Modern, false), 30).await;
    assert!(found.unwrap().modern.is_some());
    assert_eq!(took, 29);
}
