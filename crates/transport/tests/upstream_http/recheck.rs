//! Answers that are resumed on a stream that stays silent.

use std::time::Duration;

use tokio::sync::mpsc::unbounded_channel;
use tokio::time::Instant;

use crate::server::{Answer, Seen, Server, Step};
use crate::support::*;

/// When the server has what, from its start.
const PROGRESS: Duration = Duration::from_secs(20);
const RESULT: Duration = Duration::from_secs(45);

/// A server that replays what its store holds by then, and says nothing more.
fn replays(seen: &Seen) -> Answer {
    let age = seen.at - seen.born;
    let mut steps = vec![raw(": welcome\n\n")];
    if age >= PROGRESS && cursor(seen) == Some("1") {
        steps.push(event_id("2", progress(2)));
    }
    if age >= RESULT {
        steps.push(event_id("3", result(1)));
    }
    for _ in 0..100 {
        steps.push(Step::Sleep(Duration::from_secs(1)));
        steps.push(raw(": here\n\n"));
    }
    events(steps)
}

#[tokio::test(start_paused = true)]
async fn what_only_the_store_has_is_fetched_soon() {
    let server = Server::new(|seen, n| match n {
        0 => initialized(),
        1 => events([event_id("1", progress(1)), pause(), Step::Abort]),
        _ => replays(seen),
    });
    let started = Instant::now();
    let leg = in_session(&server).await;
    let mut incoming = stream(request(&leg, call(1)).await);
    assert_eq!(next(&mut incoming).await, progress(1));
    assert_eq!(next(&mut incoming).await, progress(2));
    let late = started.elapsed() - PROGRESS;
    assert!(late < Duration::from_secs(11), "{late:?}");
    assert_eq!(rest(&mut incoming).await, (vec![result(1)], None));
    let late = started.elapsed() - RESULT;
    assert!(late < Duration::from_secs(11), "{late:?}");
    let posts = server.seen();
    assert_eq!(posts.iter().filter(|seen| seen.method == "POST").count(), 2);
}

/// A server that goes on with a stream that it has resumed loses nothing, and is not asked all the
/// time.
#[tokio::test(start_paused = true)]
async fn a_server_that_speaks_on_a_resumed_stream_is_asked_rarely() {
    let (feed, steps) = unbounded_channel();
    let steps = parking_lot::Mutex::new(Some(steps));
    let server = Server::new(move |_, n| match n {
        0 => initialized(),
        1 => events([event_id("1", progress(1)), pause(), Step::Abort]),
        2 | 3 => events([raw(": here\n\n"), Step::Hang]),
        4 => events([raw(": here\n\n"), Step::Feed(steps.lock().take().unwrap())]),
        _ => events([raw(": here\n\n"), Step::Hang]),
    });
    let leg = in_session(&server).await;
    let mut incoming = stream(request(&leg, call(1)).await);
    assert_eq!(next(&mut incoming).await, progress(1));
    let speaks = async {
        // Within the eight seconds after two rechecks.
        tokio::time::sleep(Duration::from_secs(12)).await;
        for n in 2..=10 {
            feed.send(event_id(&n.to_string(), progress(n))).unwrap();
            tokio::time::sleep(Duration::from_secs(25)).await;
        }
        feed.send(event_id("r", result(1))).unwrap();
    };
    let reads = async { rest(&mut incoming).await };
    let ((), (messages, end)) = tokio::join!(speaks, reads);
    assert_eq!(messages.len(), 10);
    assert_eq!(end, None);
    assert_eq!(server.seen().len(), 5);
}

#[tokio::test(start_paused = true)]
async fn a_server_that_allows_one_reader_is_asked_when_it_has_none() {
    let server = Server::new(|_, n| match n {
        0 => initialized(),
        1 => events([event_id("1", progress(1)), pause(), Step::Abort]),
        2 => events([raw(": here\n\n"), Step::Hang]),
        3 => status(409),
        4 => events([
            raw(": here\n\n"),
            Step::Sleep(Duration::from_secs(25)),
            event_id("2", result(1)),
        ]),
        _ => status(500),
    });
    let leg = in_session(&server).await;
    let mut incoming = stream(request(&leg, call(1)).await);
    let (messages, end) = rest(&mut incoming).await;
    assert_eq!(messages, [progress(1), result(1)]);
    assert_eq!(end, None);
}
