//! The modern era: stateless, mirrored.

use std::time::Duration;

use http::{HeaderMap, StatusCode};
use shadowcat_mcp::fault::{Executed, FaultKind};
use shadowcat_mcp::version::Era;
use shadowcat_transport::upstream::{Reply, RequestContext, Upstream};

use crate::server::{Answer, Server, Step};
use crate::support::*;

fn modern(method: &str, params: &str) -> shadowcat_mcp::message::Message {
    message(format!(
        r#"{{"jsonrpc":"2.0","id":1,"method":"{method}","params":{{{params}"_meta":{{"io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientCapabilities":{{}}}}}}}}"#
    ))
}

#[tokio::test(start_paused = true)]
async fn headers_mirror_the_body_and_nothing_is_kept() {
    let server = Server::new(|_, _| with_header(json(result(1)), "mcp-session-id", "never"));
    let leg = upstream_with(config(), &server).leg(Era::Modern);
    let mut headers = HeaderMap::new();
    headers.insert("mcp-param-region", "eu".parse().unwrap());
    let call = modern("tools/call", r#""name":"caf\u00e9","#);
    let context = RequestContext {
        headers,
        ..RequestContext::default()
    };
    leg.request(call.clone(), context).await.unwrap();
    request(&leg, modern("tools/list", "")).await.unwrap();
    let seen = server.seen();
    assert_eq!(seen[0].header("mcp-method"), Some("tools/call"));
    assert_eq!(seen[0].header("mcp-name"), Some("=?base64?Y2Fmw6k=?="));
    assert_eq!(seen[0].header("mcp-protocol-version"), Some("2026-07-28"));
    assert_eq!(seen[0].header("mcp-param-region"), Some("eu"));
    assert_eq!(seen[0].body, text(&call));
    assert_eq!(seen[1].header("mcp-method"), Some("tools/list"));
    assert_eq!(seen[1].header("mcp-name"), None);
    assert_eq!(seen[1].header("mcp-session-id"), None);
    assert!(leg.standalone().await.is_none());
    leg.close().await;
    assert_eq!(server.seen().len(), 2, "no GET, no DELETE");
}

#[tokio::test(start_paused = true)]
async fn a_refusal_without_words_keeps_the_status_that_may_tell_the_era() {
    for (code, kept) in [
        (404, true),
        (405, true),
        (415, true),
        (403, false),
        (500, false),
    ] {
        let server = Server::new(move |_, _| status(code));
        let leg = upstream_with(config(), &server).leg(Era::Modern);
        match request(&leg, modern("tools/list", "")).await {
            Ok(Reply::Refused { status, fault, .. }) if kept => {
                assert_eq!(status, code);
                assert_eq!(fault.kind, FaultKind::Status);
            }
            Err(_) if !kept => {}
            other => panic!("{code}: {other:?}"),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_status_comes_with_its_error() {
    let body = r#"{"jsonrpc":"2.0","id":1,"error":{"code":-32601,"message":"no such method"}}"#;
    let server = Server::new(move |_, _| Answer::Http(http(404, "application/json", body)));
    let leg = upstream_with(config(), &server).leg(Era::Modern);
    let Ok(Reply::Json {
        status, message, ..
    }) = request(&leg, modern("x/y", "")).await
    else {
        panic!("the server's error is the answer");
    };
    assert_eq!(status, StatusCode::NOT_FOUND);
    assert_eq!(text(&message), body);
}

#[tokio::test(start_paused = true)]
async fn a_broken_stream_is_lost_even_with_ids() {
    let server = Server::new(|_, _| {
        events([
            event_id("1", progress(1)),
            Step::Sleep(Duration::from_millis(1)),
            Step::Abort,
        ])
    });
    let leg = upstream_with(config(), &server).leg(Era::Modern);
    let mut incoming = stream(request(&leg, modern("tools/call", r#""name":"t","#)).await);
    assert_eq!(next(&mut incoming).await, progress(1));
    let outcome = incoming.next().await.unwrap();
    assert_eq!(fault(outcome), (FaultKind::StreamEnded, Executed::Unknown));
    assert_eq!(server.seen().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn dropping_the_reply_or_the_request_closes_the_stream() {
    let server = Server::new(|_, n| match n {
        0 => events([event(progress(1)), Step::Hang]),
        _ => Answer::Silence,
    });
    let leg = upstream_with(config(), &server).leg(Era::Modern);
    let mut incoming = stream(request(&leg, modern("tools/call", r#""name":"t","#)).await);
    next(&mut incoming).await;
    assert_eq!(server.open(), 1);
    drop(incoming);
    tokio::time::sleep(Duration::from_millis(10)).await;
    assert_eq!(server.open(), 0);
    let pending = tokio::spawn(request_owned(leg, modern("tools/call", r#""name":"t","#)));
    tokio::time::sleep(Duration::from_millis(10)).await;
    assert_eq!(server.open(), 1);
    pending.abort();
    tokio::time::sleep(Duration::from_millis(10)).await;
    assert_eq!(server.open(), 0);
}
