//! Streams toward a client that goes and comes back.

use std::time::Duration;

use shadowcat_proxy::config::Config;
use shadowcat_store::{EventLog, Limits};
use tokio::time::{Instant, sleep};

use crate::client::{Answer, Client, Events, Proxy};
use crate::fake::{Feeder, Habits};

const CALL: &str = r#"{"id":1,"method":"tools/call","params":{"name":"t"}}"#;

fn note(number: usize) -> String {
    format!(r#"{{"method":"notifications/message","params":{{"n":{number}}}}}"#)
}

/// A call that is answered by a stream.
async fn streaming(proxy: &Proxy) -> (Client, Events, Feeder) {
    let client = proxy.initialized().await;
    let posting = client.posting(CALL);
    let feeder = proxy.server.request().await.stream(false);
    let events = posting.await.unwrap().stream();
    (client, events, feeder)
}

#[tokio::test(start_paused = true)]
async fn ids_name_stream_and_place_and_priming_depends_on_the_version() {
    for (version, primes) in [
        ("2025-11-25", true),
        ("2025-06-18", false),
        ("2025-03-26", false),
    ] {
        let habits = Habits {
            versions: vec![version],
            ..Habits::default()
        };
        let proxy = Proxy::new(habits, Config::default());
        let client = proxy.initialized_at(version).await;
        for call in 1..=2 {
            let posting = client.posting(&CALL.replace("\"id\":1", &format!("\"id\":{call}")));
            let feeder = proxy.server.request().await.stream(false);
            let mut events = posting.await.unwrap().stream();
            if primes {
                let priming = events.next().await.unwrap();
                assert_eq!(priming.id, Some(format!("{call}-0")));
                assert_eq!(
                    (priming.data.as_str(), priming.retry.as_deref()),
                    ("", Some("1000"))
                );
            }
            let reading = tokio::spawn(events.rest_with_ids());
            feeder.message(&note(1)).await;
            feeder.respond("{}").await;
            let ids: Vec<_> = reading
                .await
                .unwrap()
                .into_iter()
                .map(|(id, _)| id)
                .collect();
            assert_eq!(ids, [format!("{call}-1"), format!("{call}-2")]);
        }
    }
}

/// Clients remember an id for as long as the stream lives that it came on: one that comes back and
/// is cut off again before anything happens would not know where it stands.
#[tokio::test(start_paused = true)]
async fn a_stream_that_goes_on_begins_with_its_cursor_if_nothing_else_is_there() {
    let proxy = Proxy::new(Habits::default(), Config::default());
    let (client, mut events, feeder) = streaming(&proxy).await;
    events.next().await.unwrap();
    feeder.message(&note(1)).await;
    events.next().await.unwrap();
    drop(events);
    for _ in 0..2 {
        let mut again = client.get(Some("1-1")).await.stream();
        let start = again.next().await.unwrap();
        assert_eq!(
            (start.id.as_deref(), start.data.as_str()),
            (Some("1-1"), "")
        );
    }
    feeder.message(&note(2)).await;
    sleep(Duration::from_millis(1)).await;
    let mut again = client.get(Some("1-1")).await.stream();
    assert_eq!(again.next().await.unwrap().id.as_deref(), Some("1-2"));
    feeder.respond("{}").await;
    assert_eq!(again.rest().await.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_replay_begins_after_its_cursor_and_can_be_repeated() {
    let proxy = Proxy::new(Habits::default(), Config::default());
    let (client, events, feeder) = streaming(&proxy).await;
    let reading = tokio::spawn(events.rest());
    for number in 1..=3 {
        feeder.message(&note(number)).await;
    }
    feeder.respond("{}").await;
    assert_eq!(reading.await.unwrap().len(), 4);
    for _ in 0..2 {
        for (cursor, left) in [("1-0", 4), ("1-2", 2)] {
            let events = client.get(Some(cursor)).await.stream();
            let ids: Vec<_> = events
                .rest_with_ids()
                .await
                .into_iter()
                .map(|(id, _)| id)
                .collect();
            assert_eq!(ids.len(), left);
            assert!(ids.first().is_some_and(|id| id.as_str() > cursor));
        }
        // Some clients come back even after the response; a stream without anything in it would
        // make them come again.
        assert!(matches!(client.get(Some("1-4")).await, Answer::Ended));
    }
    for unknown in ["1-5", "2-0", "9", "x-y", ""] {
        assert_eq!(client.get(Some(unknown)).await.status(), 400, "{unknown}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_client_that_vanishes_in_the_middle_gets_the_rest() {
    let proxy = Proxy::new(Habits::default(), Config::default());
    let (client, mut events, feeder) = streaming(&proxy).await;
    feeder.message(&note(1)).await;
    assert!(events.message().await.unwrap().contains(r#""n":1"#));
    drop(events);
    feeder.message(&note(2)).await;
    feeder.message(&note(3)).await;
    let mut events = client.get(Some("1-1")).await.stream();
    assert!(events.message().await.unwrap().contains(r#""n":2"#));
    assert!(events.message().await.unwrap().contains(r#""n":3"#));
    drop(events);
    feeder.respond("{}").await;
    let messages = client.get(Some("1-3")).await.stream().rest().await;
    assert_eq!(messages.len(), 1);
    assert!(messages[0].contains("result"));
    assert_eq!(proxy.metrics.resumed_by_clients.get(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_stream_nobody_has_read_from_is_not_lost() {
    let habits = Habits {
        pipe: true,
        ..Habits::default()
    };
    let proxy = Proxy::new(habits, Config::default());
    let client = proxy.initialized().await;
    proxy.server.standalone().await.refuse();
    let posting = client.posting(CALL);
    let feeder = proxy.server.request().await.stream(true);
    feeder
        .message(r#"{"id":1,"method":"elicitation/create"}"#)
        .await;
    // The head is made, the connection breaks before anything of the body.
    drop(posting.await.unwrap().stream());
    feeder.respond("{}").await;
    sleep(Duration::from_millis(1)).await;
    let messages = client.get(Some("1-0")).await.stream().rest().await;
    assert_eq!(messages.len(), 2, "{messages:?}");
    assert!(messages[0].contains("elicitation/create"));
}

/// The old connection looks open, nobody reads it and it never ends.
#[tokio::test(start_paused = true)]
async fn a_client_that_comes_back_takes_over_from_a_connection_that_hangs() {
    let proxy = Proxy::new(Habits::default(), Config::default());
    let (client, mut hanging, feeder) = streaming(&proxy).await;
    feeder.message(&note(1)).await;
    assert!(hanging.message().await.unwrap().contains(r#""n":1"#));
    feeder.message(&note(2)).await;
    let mut second = client.get(Some("1-1")).await.stream();
    assert!(second.message().await.unwrap().contains(r#""n":2"#));
    let mut third = client.get(Some("1-1")).await.stream();
    feeder.message(&note(3)).await;
    feeder.respond("{}").await;
    assert_eq!(second.message().await, None, "replaced");
    assert!(third.message().await.unwrap().contains(r#""n":2"#));
    assert_eq!(third.rest().await.len(), 2);
    assert_eq!(hanging.message().await, None, "replaced");
}

#[tokio::test(start_paused = true)]
async fn a_wrong_cursor_does_not_disturb_who_carries_the_stream() {
    let proxy = Proxy::new(Habits::default(), Config::default());
    let (client, events, feeder) = streaming(&proxy).await;
    let reading = tokio::spawn(events.rest());
    sleep(Duration::from_millis(1)).await;
    assert_eq!(client.get(Some("1-7")).await.status(), 400);
    feeder.respond("{}").await;
    assert_eq!(reading.await.unwrap().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn comments_keep_a_silent_stream_alive() {
    let proxy = Proxy::new(Habits::default(), Config::default());
    let (client, mut events, feeder) = streaming(&proxy).await;
    let silence = tokio::spawn(async move {
        sleep(Duration::from_secs(100)).await;
        feeder.respond("{}").await;
    });
    let started = Instant::now();
    assert!(events.message().await.unwrap().contains("result"));
    assert!(started.elapsed() >= Duration::from_secs(100));
    assert!((8..=12).contains(&events.comments), "{}", events.comments);
    silence.await.unwrap();
    let getting = client.getting(None);
    let feeder = proxy.server.standalone().await.stream();
    let mut events = getting.await.unwrap().stream();
    tokio::spawn(async move {
        sleep(Duration::from_secs(100)).await;
        feeder.message(&note(1)).await;
        sleep(Duration::from_secs(1)).await;
    });
    assert!(events.message().await.is_some());
    assert!((8..=12).contains(&events.comments), "{}", events.comments);
}

#[tokio::test(start_paused = true)]
async fn an_evicted_cursor_gets_what_is_left_and_the_gap_is_counted() {
    let limits = Limits {
        stream_bytes: 1000,
        record_bytes: 0,
        ..Limits::default()
    };
    let proxy = Proxy::with_limits(Habits::default(), Config::default(), limits);
    let (client, events, feeder) = streaming(&proxy).await;
    drop(events);
    feeder
        .message(r#"{"id":1,"method":"elicitation/create"}"#)
        .await;
    for number in 0..100 {
        feeder.message(&note(number)).await;
    }
    feeder.respond("{}").await;
    sleep(Duration::from_millis(1)).await;
    let events = client.get(Some("1-0")).await.stream().rest_with_ids().await;
    assert!(events.len() > 3 && events.len() < 20, "{events:?}");
    assert_eq!(events[0].0, "1-1", "a server request stays");
    assert_eq!(events.last().unwrap().0, "1-102", "so does the response");
    let missed = 102 - events.len() as u64;
    assert_eq!(proxy.metrics.replay_missed.get(), missed);
    assert_eq!(proxy.log.usage().notifications_given_up, missed);
}

#[tokio::test(start_paused = true)]
async fn a_slow_returned_client_slows_its_server_and_nothing_is_lost() {
    let limits = Limits {
        stream_bytes: 4000,
        record_bytes: 0,
        ..Limits::default()
    };
    let proxy = Proxy::with_limits(Habits::default(), Config::default(), limits);
    let (client, mut events, feeder) = streaming(&proxy).await;
    events.next().await;
    let back = client.get(Some("1-0")).await.stream();
    drop(events);
    let giving = tokio::spawn(async move {
        for number in 0..1000 {
            feeder.message(&note(number)).await;
        }
        feeder.respond("{}").await;
    });
    sleep(Duration::from_secs(10)).await;
    assert!(!giving.is_finished(), "nobody reads");
    assert!(proxy.log.usage().bytes <= 4000);
    let messages = back.rest().await;
    assert_eq!(messages.len(), 1001);
    giving.await.unwrap();
}

/// What waits for a reader goes on when the reader is gone instead of having read.
#[tokio::test(start_paused = true)]
async fn a_reader_that_leaves_a_full_log_does_not_stop_the_call() {
    let limits = Limits {
        stream_bytes: 400,
        record_bytes: 0,
        ..Limits::default()
    };
    let proxy = Proxy::with_limits(Habits::default(), Config::default(), limits);
    let (client, mut events, feeder) = streaming(&proxy).await;
    events.next().await;
    let back = client.get(Some("1-0")).await.stream();
    let giving = tokio::spawn(async move {
        for number in 0..100 {
            feeder.message(&note(number)).await;
        }
        feeder.respond("{}").await;
    });
    sleep(Duration::from_secs(1)).await;
    assert!(!giving.is_finished());
    drop(back);
    giving.await.unwrap();
    sleep(Duration::from_millis(1)).await;
    let left = client.get(Some("1-0")).await.stream().rest().await;
    assert!(left.last().unwrap().contains("result"));
}

#[tokio::test(start_paused = true)]
async fn what_is_kept_is_kept_for_its_time() {
    let proxy = Proxy::new(Habits::default(), Config::default());
    let (client, events, feeder) = streaming(&proxy).await;
    drop(events);
    feeder.respond("{}").await;
    sleep(Duration::from_secs(280)).await;
    let messages = client.get(Some("1-0")).await.stream().rest().await;
    assert_eq!(messages.len(), 1);
    sleep(Duration::from_secs(40)).await;
    assert!(matches!(client.get(Some("1-0")).await, Answer::Rejected(_)));
    assert_eq!(proxy.log.usage().streams, 0);
}
