//! When a broken answer comes back, and when it is given up (`docs/resilience.md`, "Timing").

use std::time::Duration;

use shadowcat_mcp::fault::{Executed, FaultKind};
use shadowcat_transport::upstream::{Deadline, RequestContext};
use tokio::time::Instant;

use crate::server::{Answer, Server, Step};
use crate::support::*;

#[tokio::test(start_paused = true)]
async fn a_server_that_wants_to_be_polled_is_polled_at_its_pace_and_for_free() {
    let server = Server::new(|_, n| match n {
        0 => initialized(),
        1 => events([primer("0"), raw("retry: 2000\n\n")]),
        2..=30 => events([raw(format!("id: p{n}\ndata:\n\n"))]),
        _ => events([event_id("z", result(1))]),
    });
    let leg = in_session(&server).await;
    let mut incoming = stream(request(&leg, call(1)).await);
    assert_eq!(rest(&mut incoming).await, (vec![result(1)], None));
    let seen = server.seen();
    assert_eq!(seen.len(), 32, "thirty polls and no budget");
    let gaps: Vec<_> = seen[1..]
        .windows(2)
        .map(|two| two[1].at - two[0].at)
        .collect();
    for (poll, gap) in gaps.iter().enumerate() {
        let (least, most) = if poll < 10 {
            (2000, 2300)
        } else {
            (5000, 5300)
        };
        let range = Duration::from_millis(least)..Duration::from_millis(most);
        assert!(range.contains(gap), "poll {poll}: {gap:?}");
    }
    assert_eq!(cursor(&seen[31]), Some("p30"));
}

#[tokio::test(start_paused = true)]
async fn retry_is_honoured_and_clamped() {
    for (retry, least, most) in [
        (0, 250, 600),
        (700, 700, 1000),
        (3_600_000, 300_000, 301_000),
    ] {
        let server = Server::new(move |_, n| match n {
            0 => initialized(),
            1 => events([
                raw(format!("retry: {retry}\nid: 1\ndata: {}\n\n", progress(1))),
                pause(),
                Step::Abort,
            ]),
            _ => events([event_id("2", result(1))]),
        });
        let leg = in_session(&server).await;
        let mut incoming = stream(request(&leg, call(1)).await);
        rest(&mut incoming).await;
        let seen = server.seen();
        let waited = seen[2].at - seen[1].at;
        let range = Duration::from_millis(least)..Duration::from_millis(most);
        assert!(range.contains(&waited), "retry {retry}: {waited:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn retry_after_is_honoured_in_both_forms() {
    for code in [503, 429] {
        for after in ["7", "Sun, 06 Nov 1994 08:49:44 GMT"] {
            let server = Server::new(move |_, n| match n {
                0 => initialized(),
                1 => events([event_id("1", progress(1)), pause(), Step::Abort]),
                2 => with_header(
                    with_header(status(code), "retry-after", after),
                    "date",
                    "Sun, 06 Nov 1994 08:49:37 GMT",
                ),
                _ => events([event_id("2", result(1))]),
            });
            let leg = in_session(&server).await;
            let mut incoming = stream(request(&leg, call(1)).await);
            assert_eq!(rest(&mut incoming).await.1, None);
            let seen = server.seen();
            let waited = seen[3].at - seen[2].at;
            let range = Duration::from_secs(7)..Duration::from_millis(7_400);
            assert!(range.contains(&waited), "{code} {after}: {waited:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_resume_waits_no_longer_than_the_request_may() {
    let server = Server::new(|_, n| match n {
        0 => initialized(),
        1 => events([event_id("1", progress(1)), pause(), Step::Abort]),
        _ => with_header(status(503), "retry-after", "60"),
    });
    let leg = in_session(&server).await;
    let started = Instant::now();
    let context = RequestContext {
        deadline: Deadline::new(Some(started + Duration::from_secs(30))),
        ..RequestContext::default()
    };
    let mut incoming = stream(leg.request(call(1), context).await);
    let (_, end) = rest(&mut incoming).await;
    assert_eq!(end, Some((FaultKind::StreamEnded, Executed::Unknown)));
    assert!(started.elapsed() < Duration::from_secs(1), "known at once");
}

#[tokio::test(start_paused = true)]
async fn a_deadline_that_was_moved_gives_a_broken_request_more_time() {
    let server = Server::new(|_, n| match n {
        0 => initialized(),
        1 => events([
            Step::Sleep(Duration::from_secs(25)),
            event_id("1", progress(1)),
            pause(),
            Step::Abort,
        ]),
        2 => with_header(status(503), "retry-after", "20"),
        _ => events([event_id("2", result(1))]),
    });
    let leg = in_session(&server).await;
    let deadline = Deadline::new(Some(Instant::now() + Duration::from_secs(30)));
    let context = RequestContext {
        deadline: deadline.clone(),
        ..RequestContext::default()
    };
    let mut incoming = stream(leg.request(call(1), context).await);
    assert_eq!(next(&mut incoming).await, progress(1));
    deadline.set(Instant::now() + Duration::from_secs(30));
    assert_eq!(rest(&mut incoming).await, (vec![result(1)], None));
}

#[tokio::test(start_paused = true)]
async fn a_refused_connection_is_tried_again_until_the_server_is_back() {
    let server = Server::new(|_, n| match n {
        0 => initialized(),
        1 => events([event_id("1", progress(1)), pause(), Step::Abort]),
        _ => events([event_id("2", result(1))]),
    });
    let leg = in_session(&server).await;
    let mut incoming = stream(request(&leg, call(1)).await);
    assert_eq!(next(&mut incoming).await, progress(1));
    server.refuse(3);
    let started = Instant::now();
    assert_eq!(rest(&mut incoming).await, (vec![result(1)], None));
    let took = started.elapsed();
    // At once, then after 1, 2 and 4 s, with jitter.
    let range = Duration::from_secs(7)..Duration::from_secs(10);
    assert!(range.contains(&took), "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn a_head_that_does_not_come_is_given_up_after_ten_seconds() {
    let server = Server::new(|_, n| match n {
        0 => initialized(),
        1 => events([event_id("1", progress(1)), pause(), Step::Abort]),
        2 => Answer::Silence,
        _ => events([event_id("2", result(1))]),
    });
    let leg = in_session(&server).await;
    let mut incoming = stream(request(&leg, call(1)).await);
    assert_eq!(rest(&mut incoming).await.1, None);
    let seen = server.seen();
    let waited = seen[3].at - seen[2].at;
    let range = Duration::from_secs(11)..Duration::from_millis(11_400);
    assert!(range.contains(&waited), "{waited:?}");
}

#[tokio::test(start_paused = true)]
async fn two_hundreds_that_bring_nothing_end_by_the_budget() {
    let server = Server::new(|_, n| match n {
        0 => initialized(),
        1 => events([event_id("1", progress(1)), pause(), Step::Abort]),
        _ => events([event_id("1", progress(1))]),
    });
    let leg = in_session(&server).await;
    let started = Instant::now();
    let mut incoming = stream(request(&leg, call(1)).await);
    let (messages, end) = rest(&mut incoming).await;
    assert_eq!(messages, [progress(1)]);
    assert_eq!(end, Some((FaultKind::BudgetExhausted, Executed::Unknown)));
    assert_eq!(server.seen().len(), 2 + 10);
    // 1 + 2 + 4 + 8 + 16 + 4 * 30 s, with jitter.
    let range = Duration::from_secs(150)..Duration::from_secs(200);
    assert!(
        range.contains(&started.elapsed()),
        "{:?}",
        started.elapsed()
    );
}

#[tokio::test(start_paused = true)]
async fn silence_is_death_only_where_a_reconnect_costs_nothing() {
    // With a cursor: after the idle timeout.
    let server = Server::new(|_, n| match n {
        0 => initialized(),
        1 => events([event_id("1", progress(1)), Step::Hang]),
        _ => events([event_id("2", result(1))]),
    });
    let leg = in_session(&server).await;
    let started = Instant::now();
    let mut incoming = stream(request(&leg, call(1)).await);
    assert_eq!(rest(&mut incoming).await.1, None);
    let range = Duration::from_secs(300)..Duration::from_secs(301);
    assert!(
        range.contains(&started.elapsed()),
        "{:?}",
        started.elapsed()
    );

    // Without one: a silent call is not killed for being silent.
    let server = Server::new(|_, n| match n {
        0 => initialized(),
        _ => events([
            event(progress(1)),
            Step::Sleep(Duration::from_secs(3600)),
            event(result(1)),
        ]),
    });
    let leg = in_session(&server).await;
    let mut incoming = stream(request(&leg, call(1)).await);
    assert_eq!(
        rest(&mut incoming).await,
        (vec![progress(1), result(1)], None)
    );
}

#[tokio::test(start_paused = true)]
async fn comments_that_stop_are_a_death() {
    let server = Server::new(|_, n| match n {
        0 => initialized(),
        1 => {
            let mut steps = vec![event_id("1", progress(1))];
            for _ in 0..4 {
                steps.extend([Step::Sleep(Duration::from_secs(10)), raw(": alive\n\n")]);
            }
            steps.push(Step::Hang);
            events(steps)
        }
        _ => events([event_id("2", result(1))]),
    });
    let leg = in_session(&server).await;
    let started = Instant::now();
    let mut incoming = stream(request(&leg, call(1)).await);
    assert_eq!(rest(&mut incoming).await.1, None);
    // The last comment after 40 s, then three periods.
    let range = Duration::from_secs(70)..Duration::from_secs(72);
    assert!(
        range.contains(&started.elapsed()),
        "{:?}",
        started.elapsed()
    );
}

#[tokio::test(start_paused = true)]
async fn a_slow_reader_is_no_silent_server() {
    let server = Server::new(|_, n| match n {
        0 => initialized(),
        _ => events([
            event_id("1", progress(1)),
            pause(),
            event_id("2", progress(2)),
            pause(),
            event_id("3", result(1)),
        ]),
    });
    let leg = in_session(&server).await;
    let mut incoming = stream(request(&leg, call(1)).await);
    for n in 1..=2 {
        assert_eq!(next(&mut incoming).await, progress(n));
        tokio::time::sleep(Duration::from_secs(1000)).await;
    }
    assert_eq!(rest(&mut incoming).await, (vec![result(1)], None));
    assert_eq!(server.seen().len(), 2);
}
