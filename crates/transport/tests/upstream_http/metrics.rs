//! What can be counted of streams.

use std::sync::Arc;
use std::time::Duration;

use shadowcat_mcp::fault::FaultKind;
use shadowcat_mcp::version::Era;
use shadowcat_transport::metrics::Metrics;
use shadowcat_transport::upstream::http::{HttpUpstream, HttpUpstreamConfig};
use shadowcat_transport::upstream::{Incoming, Item, Leg, RequestContext, Upstream};

use crate::server::{Answer, Pipes, Seen, Server, Step};
use crate::support::*;

/// A leg whose counters can be read.
pub(crate) async fn counted(
    config: HttpUpstreamConfig,
    play: impl Fn(&Seen, usize) -> Answer + Send + Sync + 'static,
) -> (Arc<Server>, Arc<dyn Leg>, Arc<Metrics>) {
    let server = Server::new(move |seen, n| match n {
        0 => initialized(),
        n => play(seen, n),
    });
    let metrics = Arc::new(Metrics::default());
    let dial = Arc::new(Pipes(Arc::clone(&server)));
    let random = Arc::new(|| u64::MAX / 2);
    let upstream = HttpUpstream::new(config, dial, random, Arc::clone(&metrics)).unwrap();
    let leg = upstream.leg(Era::Legacy);
    let handshake = leg.request(initialize(), RequestContext::default()).await;
    handshake.unwrap();
    (server, leg, metrics)
}

pub(crate) fn assert_counts(metrics: &Metrics, expected: &[(&str, u64)]) {
    let text = metrics.render();
    for (name, value) in expected {
        let line = format!("shadowcat_{name} {value}");
        let found = text.lines().any(|found| found == line);
        assert!(
            found || *value == 0 && !text.contains(&format!("shadowcat_{name} ")),
            "{line}\n{text}"
        );
    }
}

async fn messages(incoming: &mut Incoming) -> usize {
    let mut count = 0;
    while let Some(item) = incoming.next().await {
        count += usize::from(matches!(item, Ok(Item::Message(_))));
    }
    count
}

#[tokio::test(start_paused = true)]
async fn a_drop_and_its_recovery_are_counted() {
    let (_server, leg, metrics) = counted(config(), |_, n| match n {
        1 => events([
            event_id("1", progress(1)),
            event_id("2", progress(2)),
            event_id("2", progress(3)),
            pause(),
            Step::Abort,
        ]),
        2 | 3 => status(500),
        4 => Answer::Reset,
        _ => events([event_id("1", progress(1)), event_id("3", result(1))]),
    })
    .await;
    let mut incoming = stream(request(&leg, call(1)).await);
    assert_eq!(next(&mut incoming).await, progress(1));
    assert_counts(
        &metrics,
        &[
            (r#"streams_by_state{kind="response",state="open"}"#, 1),
            ("upstream_streams", 1),
        ],
    );
    assert_eq!(messages(&mut incoming).await, 3);
    assert_counts(
        &metrics,
        &[
            ("stream_connects_total", 2),
            (r#"stream_drops_total{reason="reset"}"#, 1),
            (r#"reconnect_attempts_total{reason="refused"}"#, 2),
            (r#"reconnect_attempts_total{reason="no_head"}"#, 1),
            (r#"reconnect_attempts_total{reason="opened"}"#, 1),
            ("time_to_recover_seconds_count", 1),
            ("streams_resumed_total", 1),
            ("duplicates_dropped_total", 1),
            ("id_reuses_total", 1),
            ("stream_age_seconds_count", 2),
            ("given_up_total", 0),
            ("gaps_total", 0),
            (r#"streams_by_state{kind="response",state="open"}"#, 0),
            (r#"streams_by_state{kind="response",state="backoff"}"#, 0),
            (r#"streams_by_state{kind="response",state="connecting"}"#, 0),
            ("upstream_streams", 0),
        ],
    );
}

#[tokio::test(start_paused = true)]
async fn a_poll_is_no_drop() {
    let (_server, leg, metrics) = counted(config(), |_, n| match n {
        1 => events([primer("0"), raw("retry: 1000\n\n")]),
        2 => events([primer("1")]),
        _ => events([event_id("2", result(1))]),
    })
    .await;
    let mut incoming = stream(request(&leg, call(1)).await);
    assert_eq!(messages(&mut incoming).await, 1);
    assert_counts(
        &metrics,
        &[
            ("stream_polls_total", 2),
            (r#"stream_drops_total{reason="ended"}"#, 0),
            ("time_to_recover_seconds_count", 0),
            ("given_up_total", 0),
        ],
    );
}

#[tokio::test(start_paused = true)]
async fn a_recheck_is_no_drop() {
    let (_server, leg, metrics) = counted(config(), |_, n| match n {
        1 => events([event_id("1", progress(1)), pause(), Step::Abort]),
        2 | 3 => events([raw(": here\n\n"), Step::Hang]),
        4 => status(503),
        _ => events([event_id("2", result(1))]),
    })
    .await;
    let mut incoming = stream(request(&leg, call(1)).await);
    assert_eq!(messages(&mut incoming).await, 2);
    assert_counts(
        &metrics,
        &[
            ("stream_rechecks_total", 2),
            (r#"stream_drops_total{reason="reset"}"#, 1),
            (r#"stream_drops_total{reason="silent"}"#, 0),
            ("silent_age_seconds_count", 0),
            ("streams_resumed_total", 2),
            ("time_to_recover_seconds_count", 2),
            ("given_up_total", 0),
        ],
    );
}

#[tokio::test(start_paused = true)]
async fn what_is_given_up_is_counted() {
    let (_server, leg, metrics) = counted(config(), |_, n| match n {
        1 => events([event_id("1", progress(1)), pause(), Step::Abort]),
        _ => status(503),
    })
    .await;
    let mut incoming = stream(request(&leg, call(1)).await);
    messages(&mut incoming).await;
    assert_counts(
        &metrics,
        &[
            ("given_up_total", 1),
            ("budget_exhausted_total", 1),
            ("streams_resumed_total", 0),
        ],
    );
}

/// A stream that goes with its session begins again with the next one.
#[tokio::test(start_paused = true)]
async fn a_stream_that_went_with_its_session_is_not_given_up() {
    let (_server, leg, metrics) = counted(config(), |_, n| match n {
        1 => events([event(progress(1)), pause(), Step::Abort]),
        _ => status(404),
    })
    .await;
    let mut incoming = leg.standalone().await.unwrap();
    next(&mut incoming).await;
    let (_, end) = rest(&mut incoming).await;
    assert_eq!(end.unwrap().0, FaultKind::SessionLost);
    assert_counts(
        &metrics,
        &[
            (r#"stream_drops_total{reason="reset"}"#, 1),
            ("given_up_total", 0),
        ],
    );
}

#[tokio::test(start_paused = true)]
async fn a_silent_standalone_stream_and_its_gap_are_counted() {
    let (_server, leg, metrics) =
        counted(config(), |_, _| events([event(progress(1)), Step::Hang])).await;
    let mut incoming = leg.standalone().await.unwrap();
    next(&mut incoming).await;
    assert!(matches!(incoming.next().await, Some(Ok(Item::Gap(_)))));
    assert_counts(
        &metrics,
        &[
            (r#"stream_drops_total{reason="silent"}"#, 1),
            ("silent_age_seconds_count", 1),
            ("gaps_total", 1),
            (r#"streams_by_state{kind="standalone",state="open"}"#, 1),
        ],
    );
    drop(incoming);
    assert_counts(
        &metrics,
        &[(r#"streams_by_state{kind="standalone",state="open"}"#, 0)],
    );
}

#[tokio::test(start_paused = true)]
async fn a_parked_stream_is_seen() {
    let (server, leg, metrics) = counted(config(), |_, _| status(401)).await;
    let mut incoming = leg.standalone().await.unwrap();
    // Each look in vain is not another one given up.
    let waited = tokio::time::timeout(Duration::from_secs(300), incoming.next()).await;
    assert!(waited.is_err());
    assert!(server.seen().len() > 4);
    assert_counts(
        &metrics,
        &[
            (r#"streams_by_state{kind="standalone",state="parked"}"#, 1),
            ("given_up_total", 1),
        ],
    );
}

#[tokio::test(start_paused = true)]
async fn ids_that_leave_the_window_are_counted() {
    let mut config = config();
    Arc::make_mut(&mut config.reconnect).dedup_window = 2;
    let (_server, leg, metrics) = counted(config, |_, _| {
        events([
            event_id("1", progress(1)),
            event_id("2", progress(2)),
            event_id("3", progress(3)),
            event_id("4", result(1)),
        ])
    })
    .await;
    let mut incoming = stream(request(&leg, call(1)).await);
    assert_eq!(messages(&mut incoming).await, 4);
    assert_counts(&metrics, &[("dedup_overflows_total", 2)]);
}

/// The ids of events that only prime a stream take places in the session's window.
#[tokio::test(start_paused = true)]
async fn ids_that_leave_the_session_s_window_are_counted_whatever_they_came_with() {
    let mut config = config();
    Arc::make_mut(&mut config.reconnect).dedup_window = 2;
    let (_server, leg, metrics) = counted(config, |_, n| match n {
        1 => events([event_id("1", progress(1)), pause(), Step::Abort]),
        2 => events([event_id("2", result(1))]),
        n => events([primer(&n.to_string()), event(result(n.try_into().unwrap()))]),
    })
    .await;
    let mut incoming = stream(request(&leg, call(1)).await);
    assert_eq!(messages(&mut incoming).await, 2);
    assert_counts(&metrics, &[("dedup_overflows_total", 0)]);
    for n in [3, 4] {
        let mut incoming = stream(request(&leg, call(n)).await);
        assert_eq!(messages(&mut incoming).await, 1);
    }
    assert_counts(&metrics, &[("dedup_overflows_total", 2)]);
}

#[tokio::test(start_paused = true)]
async fn bytes_are_counted_when_a_connection_has_them() {
    let server = Server::new(|seen, n| match (seen.path.as_str(), n) {
        ("/mcp", 0) => with_header(status(503), "retry-after", "1"),
        ("/mcp", 1) => with_header(status(307), "location", "/there"),
        _ => json(result(1)),
    });
    server.refuse(3);
    let metrics = Arc::new(Metrics::default());
    let dial = Arc::new(Pipes(Arc::clone(&server)));
    let random = Arc::new(|| u64::MAX / 2);
    let upstream = HttpUpstream::new(config(), dial, random, Arc::clone(&metrics)).unwrap();
    request(&upstream.leg(Era::Legacy), call(1)).await.unwrap();
    assert_eq!((server.dials() > 3, server.seen().len()), (true, 3));
    let sent = 3 * call(1).raw().len() as u64;
    assert_counts(
        &metrics,
        &[(r#"bytes_total{leg="upstream",direction="sent"}"#, sent)],
    );
}

#[tokio::test(start_paused = true)]
async fn how_alive_a_stream_seems_is_seen() {
    let alive =
        |liveness| format!(r#"streams_by_liveness{{kind="standalone",liveness="{liveness}"}}"#);
    let (healthy, degraded, dead) = (alive("healthy"), alive("degraded"), alive("dead"));
    let idle = config().reconnect.idle_timeout;
    let (_server, leg, metrics) = counted(config(), move |_, n| match n {
        1 => events([
            event(progress(1)),
            Step::Sleep(idle * 3 / 4),
            event(progress(2)),
            Step::Hang,
        ]),
        _ => status(500),
    })
    .await;
    let mut incoming = leg.standalone().await.unwrap();
    assert_counts(&metrics, &[(&healthy, 1), (&degraded, 0), (&dead, 0)]);
    next(&mut incoming).await;
    let waiting = tokio::spawn(async move {
        assert_eq!(next(&mut incoming).await, progress(2));
        let _ = incoming.next().await;
    });
    tokio::time::sleep(idle * 3 / 5).await;
    assert_counts(&metrics, &[(&healthy, 0), (&degraded, 1), (&dead, 0)]);
    tokio::time::sleep(idle / 5).await;
    assert_counts(&metrics, &[(&healthy, 1), (&degraded, 0), (&dead, 0)]);
    tokio::time::sleep(idle).await;
    assert_counts(&metrics, &[(&healthy, 0), (&degraded, 0), (&dead, 1)]);
    waiting.abort();
    let _ = waiting.await;
    assert_counts(&metrics, &[(&healthy, 0), (&degraded, 0), (&dead, 0)]);
}

#[tokio::test(start_paused = true)]
async fn the_state_of_an_upstream_is_seen_at_a_scrape() {
    let (server, leg, metrics) = counted(config(), |_, n| match n {
        1 => events([
            event(progress(1)),
            Step::Sleep(Duration::from_secs(1)),
            Step::Abort,
        ]),
        _ => with_header(status(503), "retry-after", "60"),
    })
    .await;
    let state = |state| format!(r#"upstreams{{state="{state}"}}"#);
    let (up, held) = (state("up"), state("held"));
    assert_counts(&metrics, &[(&up, 1), (&held, 0), ("streams_waiting", 0)]);
    let mut incoming = leg.standalone().await.unwrap();
    let reading = tokio::spawn(async move { while incoming.next().await.is_some() {} });
    tokio::time::sleep(Duration::from_secs(30)).await;
    assert_counts(&metrics, &[(&up, 0), (&held, 1), ("connect_failures", 0)]);
    reading.abort();
    let _ = reading.await;
    drop((leg, server));
    assert_counts(&metrics, &[(&up, 0), (&held, 0)]);
}
