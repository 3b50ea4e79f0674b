//! Answers without a stream: sessions, statuses, bodies, and what is sent with a request.

use std::time::Duration;

use http::{HeaderMap, StatusCode};
use shadowcat_mcp::fault::{Executed, FaultKind};
use shadowcat_mcp::message::RequestId;
use shadowcat_mcp::version::Era;
use shadowcat_transport::upstream::{Dispatched, Reply, RequestContext, Upstream as _};
use tokio::time::{Instant, timeout};

use crate::server::{Answer, Script, Server, Step};
use crate::support::*;

#[tokio::test(start_paused = true)]
async fn a_session_carries_its_id_and_version_once_they_are_settled() {
    let server = Server::new(|_, n| match n {
        0 => initialized(),
        n => json(result(u32::try_from(n).unwrap())),
    });
    let leg = in_session(&server).await;
    assert_eq!(json_text(request(&leg, call(1)).await), result(1));
    let seen = server.seen();
    assert_eq!(seen[0].header("mcp-session-id"), None);
    assert_eq!(seen[0].header("mcp-protocol-version"), None);
    assert_eq!(
        seen[0].header("accept"),
        Some("application/json, text/event-stream")
    );
    assert_eq!(seen[0].header("content-type"), Some("application/json"));
    assert_eq!(seen[1].header("mcp-session-id"), Some("s1"));
    assert_eq!(seen[1].header("mcp-protocol-version"), Some("2025-11-25"));
    assert_eq!(seen[1].body, text(&call(1)), "bytes pass through");
    assert_eq!(server.dials(), 1, "the connection is used again");
    leg.close().await;
    let seen = server.seen();
    assert_eq!(seen[2].method, "DELETE");
    assert_eq!(seen[2].header("mcp-session-id"), Some("s1"));
}

#[tokio::test(start_paused = true)]
async fn a_session_id_on_a_refusal_is_not_adopted() {
    let server = Server::new(|_, n| match n {
        0 => {
            let body =
                r#"{"jsonrpc":"2.0","id":"server-error","error":{"code":-32602,"message":"no"}}"#;
            with_header(
                Answer::Http(http(400, "application/json", body)),
                "mcp-session-id",
                "dead",
            )
        }
        1 => with_header(
            json(r#"{"jsonrpc":"2.0","id":0,"error":{"code":-32602,"message":"no"}}"#),
            "mcp-session-id",
            "dead",
        ),
        _ => initialized(),
    });
    let leg = fresh(&server);
    let fault = request(&leg, initialize()).await.unwrap_err();
    let response = fault.to_response(&RequestId::Integer(0));
    assert_eq!(
        text(&response),
        r#"{"jsonrpc":"2.0","id":0,"error":{"code":-32602,"message":"no"}}"#,
        "the server's own error under the request's id"
    );
    request(&leg, initialize()).await.unwrap();
    request(&leg, initialize()).await.unwrap();
    request(&leg, call(1)).await.unwrap_err();
    let ids: Vec<_> = server
        .seen()
        .iter()
        .map(|seen| seen.header("mcp-session-id").map(str::to_owned))
        .collect();
    assert_eq!(ids, [None, None, None, Some("s1".to_owned())]);
}

#[tokio::test(start_paused = true)]
async fn a_refused_session_is_lost_and_nothing_was_executed() {
    let bodies = [
        (404, "text/plain", "Not Found"),
        (
            400,
            "text/plain",
            "Bad Request: No valid Session ID provided",
        ),
        (
            400,
            "application/json",
            r#"{"jsonrpc":"2.0","id":null,"error":{"code":-32000,"message":"Bad Request"}}"#,
        ),
        (
            400,
            "application/json",
            r#"{"jsonrpc":"2.0","id":null,"error":{"code":-32600,"message":"Bad Request"}}"#,
        ),
        (
            400,
            "application/json",
            r#"{"jsonrpc":"2.0","error":{"code":-32000,"message":"No valid session ID"}}"#,
        ),
        (
            400,
            "application/json",
            r#"{"jsonrpc":"2.0","id":"server-error","error":{"code":-32600,"message":"Session"}}"#,
        ),
    ];
    for (code, kind, body) in bodies {
        let server = Server::new(move |_, n| match n {
            0 => initialized(),
            _ => Answer::Http(http(code, kind, body)),
        });
        let leg = in_session(&server).await;
        assert_eq!(
            fault(request(&leg, call(1)).await),
            (FaultKind::SessionLost, Executed::No),
            "{code} {body}"
        );
        let ping = message(r#"{"jsonrpc":"2.0","method":"notifications/x"}"#);
        assert_eq!(
            fault(send(&leg, ping).await),
            (FaultKind::SessionLost, Executed::No)
        );
    }
}

/// What carries the id of the request answers it, whatever words and codes it has.
#[tokio::test(start_paused = true)]
async fn an_error_under_the_request_s_own_id_says_nothing_of_the_session() {
    for code in [-32000, -32001, -32600, -32603] {
        let theirs = format!(
            r#"{{"jsonrpc":"2.0","id":1,"error":{{"code":{code},"message":"database session expired"}}}}"#
        );
        let body = theirs.clone();
        let server = Server::new(move |_, n| match n {
            0 => initialized(),
            _ => Answer::Http(http(400, "application/json", body.clone())),
        });
        let fault = request(&in_session(&server).await, call(1)).await;
        let fault = fault.unwrap_err();
        assert_eq!(
            (fault.kind, fault.executed),
            (FaultKind::Status, Executed::Unknown),
            "{code}"
        );
        assert_eq!(text(&fault.to_response(&RequestId::Integer(1))), theirs);
    }
}

#[tokio::test(start_paused = true)]
async fn without_a_session_a_404_is_a_status() {
    let server = Server::new(|_, _| Answer::Http(http(404, "text/plain", "session? nothing here")));
    let leg = fresh(&server);
    assert_eq!(
        fault(request(&leg, call(1)).await),
        (FaultKind::Status, Executed::No)
    );
}

#[tokio::test(start_paused = true)]
async fn statuses_that_are_no_answer_fail_at_once() {
    for code in [400, 405, 408, 409, 425, 500, 501, 502, 503, 504] {
        let server = Server::new(move |_, n| match n {
            0 => initialized(),
            _ => Answer::Http(http(code, "text/plain", "no")),
        });
        let leg = in_session(&server).await;
        let started = Instant::now();
        let executed = match code {
            405 => Executed::No,
            _ => Executed::Unknown,
        };
        assert_eq!(
            fault(request(&leg, call(1)).await),
            (FaultKind::Status, executed),
            "{code}"
        );
        assert_eq!(started.elapsed(), Duration::ZERO, "{code}");
        assert_eq!(server.seen().len(), 2, "{code}: sent once");
    }
}

/// An answer whose body begins with `begun` and is never whole.
fn stalling(code: u16, kind: &str, begun: &str) -> Answer {
    let mut response = http(code, kind, "");
    *response.body_mut() = Script::new([raw(begun), Step::Hang]);
    with_header(Answer::Http(response), "content-length", "1000")
}

#[tokio::test(start_paused = true)]
async fn a_failure_whose_body_stalls_is_told_within_a_second() {
    let theirs = r#"{"jsonrpc":"2.0","id":1,"error":{"code":-32099,"message":"theirs"}}"#;
    let cases = [
        (502, "text/html", "<html>Bad ", FaultKind::Status),
        (500, "application/json", theirs, FaultKind::Status),
        (403, "text/plain", "who", FaultKind::Unauthorized),
        (404, "text/plain", "Session", FaultKind::SessionLost),
        (400, "text/plain", "Session not", FaultKind::SessionLost),
    ];
    for (code, kind, begun, expected) in cases {
        let server = Server::new(move |_, n| match n {
            0 => initialized(),
            _ => stalling(code, kind, begun),
        });
        let leg = in_session(&server).await;
        let started = Instant::now();
        let answer = timeout(Duration::from_secs(60), request(&leg, call(1)));
        let fault = answer.await.expect("an answer").unwrap_err();
        assert_eq!(fault.kind, expected, "{code} {begun}");
        assert_eq!(fault.relayed.is_some(), begun == theirs, "{code} {begun}");
        let took = started.elapsed();
        assert!(took <= Duration::from_secs(1), "{code} {begun}: {took:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_challenge_whose_body_stalls_is_relayed_with_what_came() {
    let server = Server::new(|_, _| stalling(401, "text/plain", "who"));
    let mut relaying = config();
    relaying.forward_auth = true;
    let leg = upstream_with(relaying, &server).leg(Era::Legacy);
    let answer = timeout(Duration::from_secs(60), request(&leg, call(1)));
    let Ok(Reply::Challenge { body, .. }) = answer.await.expect("an answer") else {
        panic!("the challenge is to be relayed");
    };
    assert_eq!(body, "who");
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_falls_silent_within_its_body_ends_by_the_idle_timeout() {
    let begun = r#"{"jsonrpc":"2.0","id":1,"resu"#;
    let server = Server::new(move |_, _| stalling(200, "application/json", begun));
    let started = Instant::now();
    let leg = fresh(&server);
    let answer = timeout(Duration::from_secs(3600), request(&leg, call(1)));
    assert_eq!(
        fault(answer.await.expect("an answer")),
        (FaultKind::ConnectionLost, Executed::Unknown)
    );
    assert_eq!(started.elapsed(), config().reconnect.idle_timeout);
    assert_eq!(server.seen().len(), 1, "sent once");
}

/// As long as nothing of its body has come, a call is at work, like one without a head.
#[tokio::test(start_paused = true)]
async fn an_answer_whose_body_has_not_begun_is_waited_for() {
    let server = Server::new(move |_, _| {
        let mut response = http(200, "application/json", "");
        let hour = Step::Sleep(Duration::from_secs(3600));
        *response.body_mut() = Script::new([hour, raw(result(1))]);
        Answer::Http(response)
    });
    let answer = request(&fresh(&server), call(1)).await;
    assert_eq!(json_text(answer), result(1));
}

#[tokio::test(start_paused = true)]
async fn an_error_of_the_server_s_own_is_relayed_under_the_request_s_id() {
    let server = Server::new(|_, _| {
        let body = r#"{"jsonrpc":"2.0","id":null,"error":{"code":-32099,"message":"theirs"}}"#;
        Answer::Http(http(500, "application/json", body))
    });
    let fault = request(&fresh(&server), call(7)).await.unwrap_err();
    assert!(fault.relayed.is_some());
    assert_eq!(
        text(&fault.to_response(&RequestId::Integer(7))),
        r#"{"jsonrpc":"2.0","id":7,"error":{"code":-32099,"message":"theirs"}}"#
    );
}

#[tokio::test(start_paused = true)]
async fn a_success_that_answers_nothing_is_a_fault() {
    let cases = [
        (202, "", "", FaultKind::ContentType),
        (204, "", "", FaultKind::Status),
        (200, "", "", FaultKind::ContentType),
        (200, "application/json", "", FaultKind::ContentType),
        (200, "text/html", "<p>Sign in", FaultKind::ContentType),
        (
            200,
            "application/json",
            r#"{"jsonrpc":"2.0","id":1,"resu"#,
            FaultKind::BadResponse,
        ),
        (
            200,
            "application/json",
            r#"{"jsonrpc":"2.0","id":2,"result":{}}"#,
            FaultKind::BadResponse,
        ),
        (
            200,
            "application/json",
            r#"{"jsonrpc":"2.0","id":1,"method":"ping"}"#,
            FaultKind::BadResponse,
        ),
    ];
    for (code, kind, body, expected) in cases {
        let server = Server::new(move |_, _| Answer::Http(http(code, kind, body)));
        let leg = fresh(&server);
        assert_eq!(
            fault(request(&leg, call(1)).await),
            (expected, Executed::Unknown),
            "{code} {kind} {body}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_body_over_the_limit_is_refused() {
    let big = "x".repeat(70 * 1024);
    let server = Server::new(move |_, _| {
        json(format!(
            r#"{{"jsonrpc":"2.0","id":1,"result":{{"x":"{big}"}}}}"#
        ))
    });
    assert_eq!(
        fault(request(&fresh(&server), call(1)).await),
        (FaultKind::TooLarge, Executed::Unknown)
    );
}

#[tokio::test(start_paused = true)]
async fn a_challenge_is_explained_or_relayed() {
    for code in [401, 403] {
        let server = Server::new(move |_, _| {
            with_header(
                Answer::Http(http(code, "text/plain", "who?")),
                "www-authenticate",
                "Bearer realm=x",
            )
        });
        let explained = request(&fresh(&server), call(1)).await.unwrap_err();
        assert_eq!(
            (explained.kind, explained.executed),
            (FaultKind::Unauthorized, Executed::No)
        );
        assert!(
            explained.detail.contains("--header") && explained.detail.contains("--forward-auth")
        );

        let mut relaying = config();
        relaying.forward_auth = true;
        let leg = upstream_with(relaying, &server).leg(Era::Legacy);
        let Ok(Reply::Challenge {
            status,
            headers,
            body,
        }) = request(&leg, call(1)).await
        else {
            panic!("the challenge is to be relayed");
        };
        assert_eq!(status, StatusCode::from_u16(code).unwrap());
        let headers = HeaderMap::from(headers);
        assert_eq!(headers["www-authenticate"], "Bearer realm=x");
        assert_eq!(headers["content-type"], "text/plain");
        assert_eq!(body, "who?");
    }
}

#[tokio::test(start_paused = true)]
async fn headers_of_the_client_come_after_ours() {
    let server = Server::new(|_, _| json(result(1)));
    let mut configured = config();
    configured
        .headers
        .insert("authorization", "Bearer ours".parse().unwrap());
    let leg = upstream_with(configured, &server).leg(Era::Legacy);
    let mut headers = HeaderMap::new();
    headers.insert("authorization", "Bearer theirs".parse().unwrap());
    headers.append("x-many", "1".parse().unwrap());
    headers.append("x-many", "2".parse().unwrap());
    let context = RequestContext {
        headers,
        ..RequestContext::default()
    };
    leg.request(call(1), context).await.unwrap();
    let seen = &server.seen()[0];
    assert_eq!(
        seen.headers
            .get_all("authorization")
            .iter()
            .collect::<Vec<_>>(),
        ["Bearer ours"]
    );
    assert_eq!(
        seen.headers.get_all("x-many").iter().collect::<Vec<_>>(),
        ["1", "2"]
    );
}

#[tokio::test(start_paused = true)]
async fn notifications_and_responses_are_accepted_with_any_success() {
    let server = Server::new(|_, n| if n == 0 { status(202) } else { json("{}") });
    let leg = fresh(&server);
    send(
        &leg,
        message(r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#),
    )
    .await
    .unwrap();
    send(&leg, message(result(1))).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn dispatched_fires_when_the_request_is_written_not_when_it_is_answered() {
    let server = Server::new(|_, _| Answer::Silence);
    let leg = fresh(&server);
    let (dispatched, fired) = Dispatched::new();
    let context = RequestContext {
        dispatched,
        ..RequestContext::default()
    };
    let pending = tokio::spawn(leg.request(call(1), context));
    timeout(Duration::from_secs(1), fired)
        .await
        .unwrap()
        .unwrap();
    assert!(!pending.is_finished());
    pending.abort();
}

#[tokio::test(start_paused = true)]
async fn dispatched_waits_through_failed_connects() {
    let server = Server::new(|_, _| json(result(1)));
    server.refuse(1000);
    let leg = fresh(&server);
    let (dispatched, fired) = Dispatched::new();
    let context = RequestContext {
        dispatched,
        ..RequestContext::default()
    };
    let pending = tokio::spawn(leg.request(call(1), context));
    let mut fired = Box::pin(fired);
    assert!(timeout(Duration::from_secs(5), &mut fired).await.is_err());
    server.refuse(0);
    timeout(Duration::from_secs(5), fired)
        .await
        .unwrap()
        .unwrap();
    pending.await.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_body_in_many_pieces_arrives_whole() {
    let text = format!(
        r#"{{"jsonrpc":"2.0","id":1,"result":{{"x":"{}"}}}}"#,
        "y".repeat(60 * 1024)
    );
    let pieces = text.clone();
    let server = Server::new(move |_, _| {
        let steps = pieces.as_bytes().chunks(1000).flat_map(|piece| {
            [
                Step::Data(bytes::Bytes::copy_from_slice(piece)),
                Step::Sleep(Duration::from_millis(1)),
            ]
        });
        let mut response = ::http::Response::new(Script::new(steps));
        response.headers_mut().insert(
            "content-type",
            "application/json; charset=utf-8".parse().unwrap(),
        );
        Answer::Http(response)
    });
    assert_eq!(json_text(request(&fresh(&server), call(1)).await), text);
}
