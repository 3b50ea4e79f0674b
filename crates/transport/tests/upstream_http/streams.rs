//! Answers and standalone messages as event streams.

use std::time::Duration;

use bytes::Bytes;
use shadowcat_mcp::fault::{Executed, FaultKind};
use tokio::time::timeout;

use crate::server::{Server, Step};
use crate::support::*;

#[tokio::test(start_paused = true)]
async fn a_stream_ends_with_its_response() {
    let server = Server::new(|_, _| {
        events([
            Step::Data(Bytes::from_static(b": hello\nretry: 10\n\n")),
            event(progress(1)),
            event(result(9)),
            event(r#"{"jsonrpc":"2.0","id":7,"method":"roots/list"}"#),
            event(result(1)),
            event(progress(2)),
            Step::Hang,
        ])
    });
    let leg = fresh(&server);
    let mut incoming = stream(request(&leg, call(1)).await);
    assert_eq!(next(&mut incoming).await, progress(1));
    assert!(next(&mut incoming).await.contains("roots/list"));
    assert_eq!(next(&mut incoming).await, result(1));
    assert!(incoming.next().await.is_none());
    assert!(incoming.next().await.is_none());
}

#[tokio::test(start_paused = true)]
async fn an_error_without_an_id_answers_the_stream_s_request() {
    let server = Server::new(|_, _| {
        events([event(
            r#"{"jsonrpc":"2.0","id":null,"error":{"code":-32602,"message":"no"}}"#,
        )])
    });
    let mut incoming = stream(request(&fresh(&server), call(4)).await);
    assert_eq!(
        next(&mut incoming).await,
        r#"{"jsonrpc":"2.0","id":4,"error":{"code":-32602,"message":"no"}}"#
    );
}

#[tokio::test(start_paused = true)]
async fn what_holds_no_message_is_skipped() {
    let server = Server::new(|_, _| {
        events([
            event("not json"),
            Step::Data(Bytes::from(format!(
                "event: ping\ndata: {}\n\n",
                progress(1)
            ))),
            Step::Data(Bytes::from(format!(
                "event: message\ndata: {}\n\n",
                progress(2)
            ))),
            Step::Data(Bytes::from_static(b"id: 1\ndata:\n\n")),
            event(result(1)),
        ])
    });
    let mut incoming = stream(request(&fresh(&server), call(1)).await);
    assert_eq!(next(&mut incoming).await, progress(2));
    assert_eq!(next(&mut incoming).await, result(1));
}

#[tokio::test(start_paused = true)]
async fn a_batch_in_an_event_is_split() {
    let server = Server::new(|_, _| events([event(format!("[{},{}]", progress(1), result(1)))]));
    let mut incoming = stream(request(&fresh(&server), call(1)).await);
    assert_eq!(next(&mut incoming).await, progress(1));
    assert_eq!(next(&mut incoming).await, result(1));
    assert!(incoming.next().await.is_none());
}

#[tokio::test(start_paused = true)]
async fn the_session_id_is_adopted_with_a_streamed_result() {
    let server = Server::new(|_, n| match n {
        0 => {
            let stream = events([event(r#"{"jsonrpc":"2.0","id":0,"result":{}}"#)]);
            with_header(stream, "mcp-session-id", "s1")
        }
        _ => json(result(1)),
    });
    let leg = fresh(&server);
    let mut incoming = stream(request(&leg, initialize()).await);
    next(&mut incoming).await;
    request(&leg, call(1)).await.unwrap();
    assert_eq!(server.seen()[1].header("mcp-session-id"), Some("s1"));
}

#[tokio::test(start_paused = true)]
async fn a_connection_is_used_again_after_a_stream_that_the_server_ends_late() {
    let server = Server::new(|_, n| match n {
        0 => events([event(result(1)), Step::Sleep(Duration::from_millis(50))]),
        _ => json(result(2)),
    });
    let leg = fresh(&server);
    let mut incoming = stream(request(&leg, call(1)).await);
    next(&mut incoming).await;
    drop(incoming);
    tokio::time::sleep(Duration::from_millis(100)).await;
    request(&leg, call(2)).await.unwrap();
    assert_eq!(server.dials(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_stream_without_ids_that_ends_or_breaks_fails_at_once() {
    let pause = || Step::Sleep(Duration::from_millis(1));
    for end in [vec![], vec![pause(), Step::Abort]] {
        let mut steps = vec![event(progress(1))];
        steps.extend(end);
        let steps = parking_lot::Mutex::new(Some(steps));
        let server = Server::new(move |_, _| events(steps.lock().take().unwrap()));
        let mut incoming = stream(request(&fresh(&server), call(1)).await);
        assert_eq!(next(&mut incoming).await, progress(1));
        let outcome = incoming.next().await.unwrap();
        assert_eq!(fault(outcome), (FaultKind::StreamEnded, Executed::Unknown));
        assert!(incoming.next().await.is_none());
        assert_eq!(server.seen().len(), 1, "the POST is never sent again");
    }
}

#[tokio::test(start_paused = true)]
async fn an_event_over_the_limit_fails_the_request() {
    let server = Server::new(|_, _| events([event("x".repeat(70 * 1024)), event(result(1))]));
    let mut incoming = stream(request(&fresh(&server), call(1)).await);
    let outcome = incoming.next().await.unwrap();
    assert_eq!(fault(outcome), (FaultKind::TooLarge, Executed::Unknown));
}

#[tokio::test(start_paused = true)]
async fn the_standalone_stream_brings_messages_and_405_means_none() {
    let server = Server::new(|seen, n| match (seen.method.as_str(), n) {
        (_, 0) => initialized(),
        ("GET", 1) => events([event(progress(1)), Step::Hang]),
        _ => status(405),
    });
    let leg = in_session(&server).await;
    let mut incoming = leg.standalone().await.unwrap();
    assert_eq!(next(&mut incoming).await, progress(1));
    assert!(
        timeout(Duration::from_secs(1), incoming.next())
            .await
            .is_err()
    );
    let get = &server.seen()[1];
    assert_eq!(get.header("accept"), Some("text/event-stream"));
    assert_eq!(get.header("content-type"), None);
    assert_eq!(get.header("mcp-session-id"), Some("s1"));
    assert_eq!(get.header("mcp-protocol-version"), Some("2025-11-25"));
    assert!(leg.standalone().await.is_none());
    tokio::time::sleep(Duration::from_secs(600)).await;
    assert_eq!(server.seen().len(), 3, "a 405 is not tried again");
}
