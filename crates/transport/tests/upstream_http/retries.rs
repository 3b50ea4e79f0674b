//! What is sent again, what is not, and where redirects lead (`docs/resilience.md`).

use std::time::Duration;

use shadowcat_mcp::fault::{Executed, FaultKind};
use shadowcat_mcp::message::Message;
use shadowcat_mcp::version::Era;
use shadowcat_transport::upstream::{Deadline, RequestContext, Upstream as _};
use tokio::time::Instant;

use crate::server::{Answer, Server};
use crate::support::*;

fn notification() -> Message {
    message(r#"{"jsonrpc":"2.0","method":"notifications/x"}"#)
}

#[tokio::test(start_paused = true)]
async fn a_refused_connect_is_tried_again() {
    let server = Server::new(|_, _| json(result(1)));
    server.refuse(3);
    assert_eq!(
        json_text(request(&fresh(&server), call(1)).await),
        result(1)
    );
    assert_eq!(server.dials(), 4);
    assert_eq!(server.seen().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn refused_connects_end_after_ten_seconds() {
    let server = Server::new(|_, _| json(result(1)));
    server.refuse(usize::MAX);
    let started = Instant::now();
    let outcome = request(&fresh(&server), call(1)).await;
    assert_eq!(fault(outcome), (FaultKind::Connect, Executed::No));
    let took = started.elapsed();
    assert!(
        took > Duration::from_secs(7) && took <= Duration::from_secs(10),
        "{took:?}"
    );
    assert!(server.dials() < 20, "{} connects", server.dials());
}

/// A request that waits for a server does not sleep on when somebody else has found it again.
#[tokio::test(start_paused = true)]
async fn a_request_that_waits_for_a_server_goes_when_another_has_found_it() {
    let server = Server::new(|_, _| json(result(1)));
    server.refuse(usize::MAX);
    let upstream = upstream_with(config(), &server);
    let legs = [upstream.leg(Era::Legacy), upstream.leg(Era::Legacy)];
    let waiting = tokio::spawn(legs[0].request(call(1), RequestContext::default()));
    // Its tries are as far apart as they get.
    tokio::time::sleep(Duration::from_secs(5)).await;
    let dials = server.dials();
    while server.dials() == dials {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    tokio::time::sleep(Duration::from_millis(300)).await;
    server.refuse(0);
    json_text(request(&legs[1], call(1)).await);
    let back = Instant::now();
    json_text(waiting.await.unwrap());
    let took = back.elapsed();
    assert!(took <= Duration::from_millis(110), "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn waits_for_a_connection_end_with_the_request_s_deadline() {
    let server = Server::new(|_, _| json(result(1)));
    server.refuse(usize::MAX);
    let started = Instant::now();
    let context = RequestContext {
        deadline: Deadline::new(Some(started + Duration::from_secs(2))),
        ..RequestContext::default()
    };
    let outcome = fresh(&server).request(call(1), context).await;
    assert_eq!(fault(outcome), (FaultKind::Connect, Executed::No));
    assert!(started.elapsed() <= Duration::from_secs(2));
}

#[tokio::test(start_paused = true)]
async fn a_request_whose_bytes_left_is_not_sent_again() {
    let server = Server::new(|_, n| match n {
        0 => Answer::Reset,
        _ => json(result(1)),
    });
    assert_eq!(
        fault(request(&fresh(&server), call(1)).await),
        (FaultKind::ConnectionLost, Executed::Unknown)
    );
    assert_eq!(server.seen().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_server_that_asks_to_wait_is_waited_for() {
    for code in [429, 503] {
        let server = Server::new(move |_, n| match n {
            0 => with_header(status(code), "retry-after", "7"),
            _ => json(result(1)),
        });
        assert_eq!(
            json_text(request(&fresh(&server), call(1)).await),
            result(1)
        );
        let seen = server.seen();
        let waited = seen[1].at - seen[0].at;
        assert!(
            waited >= Duration::from_secs(7) && waited < Duration::from_secs(10),
            "{code}: {waited:?}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_wait_that_does_not_fit_is_a_fault_that_names_it() {
    for (hint, deadline) in [("3600", None), ("7", Some(Duration::from_secs(5)))] {
        let server = Server::new(move |_, _| with_header(status(429), "retry-after", hint));
        let started = Instant::now();
        let context = RequestContext {
            deadline: Deadline::new(deadline.map(|deadline| started + deadline)),
            ..RequestContext::default()
        };
        let fault = fresh(&server).request(call(1), context).await.unwrap_err();
        assert_eq!(
            (fault.kind, fault.executed),
            (FaultKind::RateLimited, Executed::No)
        );
        assert_eq!(
            fault.retry_after,
            Some(Duration::from_secs(hint.parse().unwrap()))
        );
        assert_eq!(started.elapsed(), Duration::ZERO);
        assert_eq!(server.seen().len(), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn a_server_that_never_stops_asking_is_given_up() {
    let server = Server::new(|_, _| with_header(status(429), "retry-after", "0"));
    let outcome = request(&fresh(&server), call(1)).await;
    assert_eq!(fault(outcome), (FaultKind::RateLimited, Executed::No));
    assert!(server.seen().len() <= 11);
}

#[tokio::test(start_paused = true)]
async fn a_response_is_sent_until_it_is_accepted() {
    let server = Server::new(|_, n| match n {
        0 => Answer::Reset,
        1 => status(500),
        2 => status(503),
        _ => status(202),
    });
    send(&fresh(&server), message(result(1))).await.unwrap();
    assert_eq!(server.seen().len(), 4);
}

#[tokio::test(start_paused = true)]
async fn a_response_that_is_refused_for_good_is_not_sent_again() {
    let server = Server::new(|_, _| status(400));
    let outcome = send(&fresh(&server), message(result(1))).await;
    assert_eq!(fault(outcome), (FaultKind::Status, Executed::Unknown));
    assert_eq!(server.seen().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_notification_is_sent_again_only_if_nothing_was_written() {
    let server = Server::new(|_, _| Answer::Reset);
    send(&fresh(&server), notification()).await.unwrap_err();
    assert_eq!(server.seen().len(), 1);

    let server = Server::new(|_, _| status(202));
    server.refuse(2);
    send(&fresh(&server), notification()).await.unwrap();
    assert_eq!((server.dials(), server.seen().len()), (3, 1));
}

#[tokio::test(start_paused = true)]
async fn a_server_that_accepts_nothing_holds_up_a_message_for_half_a_minute() {
    let patience = Duration::from_secs(30);
    let server = Server::new(|_, _| Answer::Silence);
    let started = Instant::now();
    let leg = fresh(&server);
    let outcome = tokio::time::timeout(2 * patience, send(&leg, notification()));
    let refused = outcome.await.unwrap().unwrap_err();
    assert_eq!(refused.kind, FaultKind::ConnectionLost);
    assert_eq!(refused.executed, Executed::Unknown);
    assert_eq!((started.elapsed(), server.seen().len()), (patience, 1));

    let server = Server::new(|_, n| match n {
        0 => Answer::Silence,
        _ => status(202),
    });
    let started = Instant::now();
    let leg = fresh(&server);
    let outcome = tokio::time::timeout(2 * patience, send(&leg, message(result(1))));
    outcome.await.unwrap().unwrap();
    assert!(started.elapsed() > patience);
    assert_eq!(server.seen().len(), 2);
}

#[tokio::test(start_paused = true)]
async fn redirects_that_keep_the_post_are_followed_inside_the_origin() {
    for code in [307, 308] {
        let server = Server::new(move |seen, _| match seen.path.as_str() {
            "/mcp" => with_header(status(code), "location", "/mcp/"),
            "/mcp/" => with_header(status(code), "location", "http://server/a?b=c"),
            _ => json(result(1)),
        });
        assert_eq!(
            json_text(request(&fresh(&server), call(1)).await),
            result(1)
        );
        let seen = server.seen();
        assert_eq!(seen[2].path, "/a?b=c");
        assert_eq!(seen[2].method, "POST");
        assert_eq!(seen[2].body, text(&call(1)));
    }
}

#[tokio::test(start_paused = true)]
async fn redirects_that_must_not_be_followed_are_not() {
    for (code, location, executed) in [
        (301, "/other", Executed::Unknown),
        (302, "/other", Executed::Unknown),
        (303, "/other", Executed::Unknown),
        (307, "http://elsewhere/mcp", Executed::No),
        (307, "https://server/mcp", Executed::No),
        (308, "/mcp", Executed::No),
    ] {
        let server = Server::new(move |_, _| with_header(status(code), "location", location));
        assert_eq!(
            fault(request(&fresh(&server), call(1)).await),
            (FaultKind::Redirect, executed),
            "{code} {location}"
        );
        assert!(server.seen().len() <= 6, "{code} {location}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_redirect_that_is_not_followed_says_where_it_leads() {
    for (code, location, why, to) in [
        (
            307,
            "https://me:s3cret@elsewhere/mcp?key=s3cret",
            "it leaves the server's origin",
            "https://elsewhere/mcp",
        ),
        (
            301,
            "/other",
            "it would turn the POST into a GET",
            "http://server/other",
        ),
    ] {
        let server = Server::new(move |_, _| with_header(status(code), "location", location));
        let detail = request(&fresh(&server), call(1)).await.unwrap_err().detail;
        let told =
            format!("is not followed: {why}; it leads to {to}: give that URL if you trust it");
        assert!(detail.ends_with(&told), "{detail}");
        assert!(!detail.contains("s3cret"), "{detail}");
    }
}
