//! How a server is found to speak HTTP+SSE (2024-11-05).

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use shadowcat_mcp::fault::{Executed, FaultKind};
use shadowcat_mcp::version::{Era, ProtocolVersion};
use shadowcat_transport::upstream::{Reply, RequestContext, Upstream};
use tokio::time::Instant;

use crate::legacy_sse::{Feeds, INITIALIZED, accepting, endpoint, pipe, requests, start, started};
use crate::server::{Answer, Server, Step};
use crate::support::*;

#[tokio::test(start_paused = true)]
async fn a_refused_initialize_leads_to_the_event_stream() {
    for code in [400, 404, 405] {
        let feeds = Feeds::default();
        let server = Server::new(move |seen, n| match n {
            0 => Answer::Http(http(code, "text/plain", "no session here")),
            _ if seen.method == "GET" => feeds.open(),
            _ if seen.body.contains("initialize") => {
                feeds.event(INITIALIZED);
                status(202)
            }
            _ => status(200),
        });
        let upstream = upstream_with(config(), &server);
        let leg = upstream.leg(Era::Legacy);
        assert!(leg.has_response_heads(), "until something else is known");
        let mut incoming = pipe(request(&leg, initialize()).await);
        assert_eq!(next(&mut incoming).await, INITIALIZED);
        assert!(incoming.next().await.is_none());
        assert!(!leg.has_response_heads());
        leg.negotiated(ProtocolVersion::V2025_06_18);
        let initialized = message(r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#);
        send(&leg, initialized).await.unwrap();
        assert_eq!(
            requests(&server),
            [
                "POST /mcp",
                "GET /mcp",
                "POST /messages?session=1",
                "POST /messages?session=1"
            ]
        );
        let seen = server.seen();
        assert_eq!(seen[1].header("accept"), Some("text/event-stream"));
        assert_eq!(seen[1].header("content-type"), None);
        assert_eq!(seen[2].header("content-type"), Some("application/json"));
        assert_eq!(seen[2].header("mcp-protocol-version"), None);
        assert_eq!(seen[2].body, text(&initialize()));
        assert_eq!(seen[3].header("mcp-protocol-version"), Some("2025-06-18"));
        assert_eq!(seen[3].header("mcp-session-id"), None);

        start(&upstream).await;
        assert_eq!(
            requests(&server)[4..],
            ["GET /mcp", "POST /messages?session=2"]
        );
    }
}

#[tokio::test(start_paused = true)]
async fn what_explains_itself_leads_nowhere_else() {
    let error =
        |code| format!(r#"{{"jsonrpc":"2.0","id":null,"error":{{"code":{code},"message":"no"}}}}"#);
    for (code, body) in [
        (400, error(-32000)),
        (400, error(-32022)),
        (404, error(-32601)),
        (405, error(-32020)),
        (401, String::new()),
        (406, String::new()),
        (500, String::new()),
    ] {
        let kind = if body.is_empty() {
            ""
        } else {
            "application/json"
        };
        let server = {
            let body = body.clone();
            Server::new(move |_, _| Answer::Http(http(code, kind, body.clone())))
        };
        request(&fresh(&server), initialize()).await.unwrap_err();
        assert_eq!(requests(&server), ["POST /mcp"], "{code} {body}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_server_without_the_stream_keeps_its_refusal() {
    let streams: [fn() -> Answer; 6] = [
        || status(405),
        || json("{}"),
        || events([]),
        || events([event(progress(1)), Step::Hang]),
        || events([Step::Data(Bytes::from_static(b": ping\n\n")), Step::Hang]),
        || Answer::Silence,
    ];
    for (n, stream) in streams.into_iter().enumerate() {
        let server = Server::new(move |seen, _| match seen.method.as_str() {
            "GET" => stream(),
            _ => status(404),
        });
        let started = Instant::now();
        let refused = request(&fresh(&server), initialize()).await;
        assert_eq!(fault(refused), (FaultKind::Status, Executed::No), "{n}");
        assert!(started.elapsed() <= Duration::from_secs(10), "{n}");
        assert_eq!(requests(&server), ["POST /mcp", "GET /mcp"], "{n}");
    }
}

#[tokio::test(start_paused = true)]
async fn where_nobody_is_found_the_path_is_asked_about() {
    for (code, hint) in [(404, true), (405, true), (400, false), (500, false)] {
        let server = Server::new(move |_, _| status(code));
        let fault = request(&fresh(&server), initialize()).await.unwrap_err();
        let detail = &fault.detail;
        assert!(detail.contains(&code.to_string()), "{detail}");
        assert_eq!(detail.contains("/mcp or /sse"), hint, "{detail}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_cannot_be_had_now_says_why() {
    let streams: [(fn() -> Answer, FaultKind); 4] = [
        (|| status(503), FaultKind::Status),
        (|| status(401), FaultKind::Unauthorized),
        (|| Answer::Reset, FaultKind::ConnectionLost),
        (
            || events([endpoint("http://elsewhere/messages"), Step::Hang]),
            FaultKind::BadResponse,
        ),
    ];
    for (stream, kind) in streams {
        let server = Server::new(move |seen, _| match seen.method.as_str() {
            "GET" => stream(),
            _ => status(405),
        });
        let failed = request(&fresh(&server), initialize()).await;
        assert_eq!(fault(failed), (kind, Executed::No));
        assert_eq!(requests(&server), ["POST /mcp", "GET /mcp"], "{kind:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn the_stream_s_challenge_is_relayed_and_its_redirect_followed() {
    let server = Server::new(|seen, _| match (seen.method.as_str(), &*seen.path) {
        ("GET", "/mcp") => with_header(status(307), "location", "/v1/sse"),
        ("GET", "/v1/sse") => with_header(status(401), "www-authenticate", "Bearer"),
        _ => status(405),
    });
    let mut config = config();
    config.forward_auth = true;
    let leg = upstream_with(config, &server).leg(Era::Legacy);
    let mut context = RequestContext::default();
    let bearer = "Bearer t".parse().unwrap();
    context.headers.insert("authorization", bearer);
    match leg.request(initialize(), context).await {
        Ok(Reply::Challenge {
            status, headers, ..
        }) => {
            assert_eq!(status, 401);
            let headers = http::HeaderMap::from(headers);
            assert_eq!(headers["www-authenticate"], "Bearer");
        }
        other => panic!("expected a challenge, got {other:?}"),
    }
    assert_eq!(requests(&server), ["POST /mcp", "GET /mcp", "GET /v1/sse"]);
    for seen in server.seen() {
        assert_eq!(seen.header("authorization"), Some("Bearer t"));
    }
}

#[tokio::test(start_paused = true)]
async fn the_endpoint_is_relative_to_where_the_stream_was_found() {
    let feeds = Feeds::default();
    let server = Server::new(move |seen, _| match (seen.method.as_str(), &*seen.path) {
        ("GET", "/mcp") => with_header(status(302), "location", "v1/sse"),
        ("GET", _) => feeds.open_at("messages/7"),
        (_, "/mcp") => status(404),
        _ => {
            feeds.event(INITIALIZED);
            status(202)
        }
    });
    started(&server).await;
    assert_eq!(requests(&server)[3], "POST /v1/messages/7");
}

#[tokio::test(start_paused = true)]
async fn an_upgraded_server_is_found_out() {
    let upgraded = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let feeds = Feeds::default();
    let server = {
        let upgraded = Arc::clone(&upgraded);
        Server::new(move |seen, _| {
            let upgraded = upgraded.load(std::sync::atomic::Ordering::SeqCst);
            match (seen.method.as_str(), &*seen.path) {
                ("GET", _) if upgraded => status(405),
                ("GET", _) => feeds.open(),
                ("POST", "/mcp") if upgraded => initialized(),
                ("POST", "/mcp") => status(405),
                _ => {
                    feeds.event(INITIALIZED);
                    status(202)
                }
            }
        })
    };
    let upstream = upstream_with(config(), &server);
    start(&upstream).await;
    upgraded.store(true, std::sync::atomic::Ordering::SeqCst);
    for _ in 0..2 {
        let leg = upstream.leg(Era::Legacy);
        json_text(request(&leg, initialize()).await);
        assert!(leg.has_response_heads());
    }
    assert_eq!(
        requests(&server)[3..],
        ["GET /mcp", "POST /mcp", "POST /mcp"],
        "asked again once, then remembered"
    );
}

#[tokio::test(start_paused = true)]
async fn what_was_found_out_is_checked_again_after_an_hour() {
    let (server, _) = accepting();
    let upstream = upstream_with(config(), &server);
    start(&upstream).await;
    tokio::time::sleep(Duration::from_secs(3601)).await;
    start(&upstream).await;
    assert_eq!(requests(&server)[3..5], ["POST /mcp", "GET /mcp"]);
}
