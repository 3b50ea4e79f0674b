//! What is kept for clients that are not there stays under the total bound.

use std::time::Duration;

use shadowcat_proxy::config::Config;
use shadowcat_store::{EventLog, Limits};
use shadowcat_transport::metrics::Reason;
use tokio::time::sleep;

use crate::client::Proxy;
use crate::fake::{Feeder, Habits};
use crate::json::text;

const TOTAL: usize = 20_000;

fn proxy(habits: Habits) -> Proxy {
    let limits = Limits {
        total_bytes: TOTAL,
        ..Limits::default()
    };
    Proxy::with_limits(habits, Config::default(), limits)
}

fn filling() -> String {
    "x".repeat(900)
}

/// A request of the server of more than 900 bytes.
async fn ask(feeder: &Feeder, id: usize) {
    let filling = filling();
    feeder
        .message(&format!(
            r#"{{"id":{id},"method":"sampling/createMessage","params":{{"text":"{filling}"}}}}"#
        ))
        .await;
}

fn given_up(proxy: &Proxy, reason: &'static str) -> u64 {
    let given_up = &proxy.metrics.messages_given_up;
    given_up.get_or_create(&Reason::of(reason)).get()
}

#[tokio::test(start_paused = true)]
async fn requests_of_the_server_that_nobody_reads_are_refused_when_there_is_no_room() {
    const ASKS: usize = 2000;
    for pipe in [false, true] {
        let habits = Habits {
            pipe,
            ..Habits::default()
        };
        let proxy = proxy(habits);
        let client = proxy.initialized().await;
        let getting = client.getting(None);
        let feeder = proxy.server.standalone().await.stream();
        drop(getting.await.unwrap().stream());
        let mut refused = 0;
        for id in 0..ASKS {
            ask(&feeder, id).await;
            sleep(Duration::from_millis(1)).await;
            assert!(proxy.log.usage().bytes <= TOTAL, "{id}");
            if proxy.server.count("0 answer") == refused {
                assert_eq!(refused, 0, "{id} was not answered");
                continue;
            }
            let answer = proxy.server.sent().await;
            let error = text(&answer.message);
            assert!(
                error.contains(&format!(r#""id":{id},"error":{{"code":-32603"#))
                    && error.contains("no room to keep"),
                "{error}"
            );
            answer.accept();
            refused += 1;
        }
        assert!(refused > ASKS * 9 / 10, "{refused}");
        assert_eq!(given_up(&proxy, "request without room"), refused as u64);
        let mut events = client.get(None).await.stream();
        for id in 0..ASKS - refused {
            let shown = events.message().await.unwrap();
            assert!(shown.contains(&format!(r#""id":{id},"#)), "{shown}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn what_was_answered_or_taken_back_makes_room() {
    let proxy = proxy(Habits {
        pipe: true,
        ..Habits::default()
    });
    let client = proxy.initialized().await;
    let feeder = proxy.server.standalone().await.stream();
    let mut events = client.get(None).await.stream();
    for id in 0..100 {
        ask(&feeder, id).await;
        while !events.message().await.unwrap().contains("createMessage") {}
        if id % 2 == 0 {
            let answer = format!(r#"{{"id":{id},"result":{{}}}}"#);
            client.post(&answer).await;
            proxy.server.sent().await.accept();
        } else {
            let cancelled =
                format!(r#"{{"method":"notifications/cancelled","params":{{"requestId":{id}}}}}"#);
            feeder.message(&cancelled).await;
        }
        assert!(proxy.log.usage().bytes <= TOTAL);
    }
    drop(events);
    ask(&feeder, 100).await;
    assert!(proxy.server.is_quiet(Duration::from_secs(1)).await);
    assert_eq!(given_up(&proxy, "request without room"), 0);
    let mut events = client.get(None).await.stream();
    while !events.message().await.unwrap().contains(r#""id":100,"#) {}
}

/// Of the responses that no client came for, the newest stay.
#[tokio::test(start_paused = true)]
async fn undelivered_responses_go_when_there_is_no_room_the_oldest_first() {
    const CALLS: usize = 60;
    let proxy = proxy(Habits::default());
    let client = proxy.initialized().await;
    for id in 1..=CALLS {
        let posting = client.posting(&format!(
            r#"{{"id":{id},"method":"tools/call","params":{{"name":"t"}}}}"#
        ));
        let feeder = proxy.server.request().await.stream(false);
        drop(posting.await.unwrap().stream());
        let filling = filling();
        feeder.respond(&format!(r#"{{"text":"{filling}"}}"#)).await;
        sleep(Duration::from_millis(1)).await;
        assert!(proxy.log.usage().bytes <= TOTAL, "{id}");
    }
    let mut kept = 0;
    for id in 1..=CALLS {
        let answer = client.get(Some(&format!("{id}-0"))).await;
        if answer.status() == 400 {
            assert_eq!(kept, 0, "{id} is younger than one that was kept");
            continue;
        }
        let messages = answer.stream().rest().await;
        assert!(
            messages[0].contains(&format!(r#""id":{id},"#)),
            "{messages:?}"
        );
        kept += 1;
    }
    assert!((8..20).contains(&kept), "{kept}");
    sleep(Duration::from_secs(11)).await;
    let counted = given_up(&proxy, "response without room");
    assert_eq!(counted, (CALLS - kept) as u64);
}

/// A question in a call whose client is gone is no better off than one outside of calls.
#[tokio::test(start_paused = true)]
async fn a_question_in_a_call_whose_client_is_gone_is_answered_in_the_end() {
    let proxy = proxy(Habits::default());
    let client = proxy.initialized().await;
    let posting = client.posting(r#"{"id":1,"method":"tools/call","params":{"name":"t"}}"#);
    let feeder = proxy.server.request().await.stream(false);
    drop(posting.await.unwrap().stream());
    let mut accepted = 0;
    for id in 0..100 {
        ask(&feeder, id).await;
        sleep(Duration::from_millis(1)).await;
        assert!(proxy.log.usage().bytes <= TOTAL);
        if proxy.server.count("0 answer") > accepted {
            proxy.server.sent().await.accept();
            accepted += 1;
        }
    }
    let refused = given_up(&proxy, "request without room");
    assert!((80..95).contains(&refused), "{refused}");
    assert!(proxy.server.is_quiet(Duration::from_secs(295)).await);
    for id in 0..100 - refused {
        let answer = proxy.server.sent().await;
        let error = text(&answer.message);
        let code = format!(r#""id":{id},"error":{{"code":-32603"#);
        assert!(
            error.contains(&code) && error.contains("does not answer"),
            "{id}: {error}"
        );
        answer.accept();
    }
    assert_eq!(given_up(&proxy, "request"), 100 - refused);
}
