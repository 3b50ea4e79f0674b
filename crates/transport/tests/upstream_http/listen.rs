//! `subscriptions/listen`: one stream for the client, however many the server sees.

use std::sync::Arc;
use std::time::Duration;

use shadowcat_mcp::fault::{Executed, FaultKind};
use shadowcat_mcp::message::Message;
use shadowcat_mcp::version::Era;
use shadowcat_transport::upstream::{Incoming, Item, Leg, Reply, Upstream};
use tokio::time::Instant;

use crate::server::{Answer, Seen, Server, Step};
use crate::support::*;

const TAG: &str = "io.modelcontextprotocol/subscriptionId";

fn listen() -> Message {
    message(
        r#"{"jsonrpc":"2.0","id":7,"method":"subscriptions/listen","params":{"notifications":{"toolsListChanged":true},"_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28"}}}"#,
    )
}

/// The request's id as JSON.
fn id(seen: &Seen) -> String {
    let body: serde_json::Value = serde_json::from_str(&seen.body).unwrap();
    body["id"].to_string()
}

fn acknowledged(id: &str) -> String {
    format!(
        r#"{{"jsonrpc":"2.0","method":"notifications/subscriptions/acknowledged","params":{{"notifications":{{"toolsListChanged":true}},"_meta":{{"{TAG}":{id}}}}}}}"#
    )
}

fn changed(id: &str) -> String {
    format!(
        r#"{{"jsonrpc":"2.0","method":"notifications/tools/list_changed","params":{{"_meta":{{"{TAG}":{id}}}}}}}"#
    )
}

fn ended(id: &str) -> String {
    format!(r#"{{"jsonrpc":"2.0","id":{id},"result":{{"_meta":{{"{TAG}":{id}}}}}}}"#)
}

fn leg(server: &Arc<Server>) -> Arc<dyn Leg> {
    upstream_with(config(), server).leg(Era::Modern)
}

async fn gap(incoming: &mut Incoming) {
    let item = incoming.next().await;
    assert!(matches!(item, Some(Ok(Item::Gap(_)))), "{item:?}");
}

#[tokio::test(start_paused = true)]
async fn a_broken_subscription_is_issued_again_and_the_client_sees_one() {
    let server = Server::new(|seen, n| {
        let id = id(seen);
        match n {
            0 => events([
                event(acknowledged(&id)),
                event(changed(&id)),
                pause(),
                Step::Abort,
            ]),
            1 => events([event(acknowledged(&id)), event(changed(&id)), pause()]),
            2 => status(503),
            3 => Answer::Reset,
            _ => events([
                event(acknowledged(&id)),
                event(changed(&id)),
                event(ended(&id)),
            ]),
        }
    });
    let mut incoming = stream(request(&leg(&server), listen()).await);
    assert_eq!(next(&mut incoming).await, acknowledged("7"));
    assert_eq!(next(&mut incoming).await, changed("7"));
    gap(&mut incoming).await;
    assert_eq!(next(&mut incoming).await, changed("7"));
    gap(&mut incoming).await;
    assert_eq!(next(&mut incoming).await, changed("7"));
    assert_eq!(next(&mut incoming).await, ended("7"));
    assert!(incoming.next().await.is_none());
    let seen = server.seen();
    assert_eq!(id(&seen[0]), "7");
    let mut ids: Vec<_> = seen.iter().map(id).collect();
    assert!(
        seen.iter()
            .all(|seen| seen.method == "POST" && seen.header("last-event-id").is_none())
    );
    assert!(
        seen.iter()
            .all(|seen| seen.header("mcp-method") == Some("subscriptions/listen"))
    );
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), 5, "a new request has a new id");
    tokio::time::sleep(Duration::from_secs(600)).await;
    assert_eq!(server.seen().len(), 5, "nothing after the response");
}

#[tokio::test(start_paused = true)]
async fn a_subscription_that_cannot_be_had_is_an_answer_at_once() {
    let error = r#"{"jsonrpc":"2.0","id":7,"error":{"code":-32601,"message":"no"}}"#;
    let server = Server::new(move |_, _| Answer::Http(http(404, "application/json", error)));
    let reply = request(&leg(&server), listen()).await;
    let Ok(Reply::Json {
        status: code,
        message,
        ..
    }) = reply
    else {
        panic!("the server's error is the answer: {reply:?}");
    };
    assert_eq!((code.as_u16(), text(&message)), (404, error.to_owned()));

    let server = Server::new(|_, _| status(500));
    let started = Instant::now();
    let outcome = request(&leg(&server), listen()).await;
    assert_eq!(fault(outcome), (FaultKind::Status, Executed::Unknown));
    assert_eq!(started.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn an_answer_to_a_later_request_ends_the_subscription_under_the_client_s_id() {
    let server = Server::new(|seen, n| {
        let id = id(seen);
        match n {
            0 => events([event(acknowledged(&id)), pause(), Step::Abort]),
            _ => json(format!(
                r#"{{"jsonrpc":"2.0","id":{id},"error":{{"code":-32603,"message":"over"}}}}"#
            )),
        }
    });
    let mut incoming = stream(request(&leg(&server), listen()).await);
    assert_eq!(next(&mut incoming).await, acknowledged("7"));
    let last = next(&mut incoming).await;
    assert!(
        last.contains(r#""id":7,"#) && last.contains("over"),
        "{last}"
    );
    assert!(incoming.next().await.is_none());
}

#[tokio::test(start_paused = true)]
async fn a_later_request_that_is_refused_for_good_ends_the_subscription() {
    let server = Server::new(|seen, n| match n {
        0 => events([event(acknowledged(&id(seen))), pause(), Step::Abort]),
        _ => status(400),
    });
    let mut incoming = stream(request(&leg(&server), listen()).await);
    assert_eq!(next(&mut incoming).await, acknowledged("7"));
    let outcome = incoming.next().await.unwrap();
    assert_eq!(fault(outcome), (FaultKind::StreamEnded, Executed::Unknown));
    assert!(incoming.next().await.is_none());
    assert_eq!(server.seen().len(), 2);
}

#[tokio::test(start_paused = true)]
async fn an_outage_is_waited_out_by_probes() {
    let server = Server::new(|seen, n| match n {
        0 => events([event(acknowledged(&id(seen))), pause(), Step::Abort]),
        _ => events([
            event(acknowledged(&id(seen))),
            event(changed(&id(seen))),
            Step::Hang,
        ]),
    });
    let mut incoming = stream(request(&leg(&server), listen()).await);
    assert_eq!(next(&mut incoming).await, acknowledged("7"));
    server.refuse(20);
    gap(&mut incoming).await;
    assert_eq!(next(&mut incoming).await, changed("7"));
}

#[tokio::test(start_paused = true)]
async fn dropping_the_subscription_closes_it() {
    let server = Server::new(|seen, _| events([event(acknowledged(&id(seen))), Step::Hang]));
    let mut incoming = stream(request(&leg(&server), listen()).await);
    next(&mut incoming).await;
    assert_eq!(server.open(), 1);
    drop(incoming);
    tokio::time::sleep(Duration::from_millis(10)).await;
    assert_eq!(server.open(), 0);
    assert_eq!(server.seen().len(), 1);
}
