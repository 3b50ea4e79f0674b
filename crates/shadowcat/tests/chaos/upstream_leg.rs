//! Faults between the proxy and the server. The client notices none of them.

use std::time::{Duration, Instant};

use crate::script::{At, End, Fault, Replay, Script, Seen, call};
use crate::support::MODES;
use crate::support::client::{Client, Session};
use crate::support::process::Proxy;
use crate::support::upstream::Upstream;

/// Fast reconnection, so that no test waits for what is not its subject.
pub const OPTIONS: [&str; 6] = [
    "--retry-initial",
    "20ms",
    "--retry-max",
    "200ms",
    "--log-level",
    "warn",
];

/// The head of an event stream.
pub const HEAD: &str =
    "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n";

/// Makes the call over a server that breaks as the script says, in both modes; returns how often
/// the stream was opened again, and how long the call took.
pub async fn survives(script: impl Fn() -> Script) -> (usize, Duration) {
    survives_with(&OPTIONS, script).await
}

pub async fn survives_with(options: &[&str], script: impl Fn() -> Script) -> (usize, Duration) {
    let mut last = None;
    for mode in MODES {
        let script = script();
        let faults = script.faults.clone();
        let upstream = Upstream::start(move |request| script.answer(request)).await;
        let proxy = Proxy::start(mode, options, &[&upstream.url()]).await;
        let session = Session::open(proxy.address, "2025-11-25").await;
        let started = Instant::now();
        let mut client = Client::connect(proxy.address).await;
        client.send(session.post(&call())).await;
        let head = client.head().await;
        assert!(head.is_stream(), "{mode}: {head:?}");
        let mut seen = Seen::default();
        seen.read(&mut client).await.unwrap();
        seen.check();
        assert!(
            faults.lock().unwrap().is_empty(),
            "{mode}: a fault was not met"
        );
        assert_eq!(upstream.calls("tools/call").len(), 1, "{mode}: sent again");
        let gets = upstream.by_method("GET");
        let resumed = gets
            .iter()
            .filter(|get| get.header("last-event-id").is_some());
        last = Some((resumed.count(), started.elapsed()));
    }
    last.unwrap()
}

macro_rules! cuts {
    ($($name:ident: $at:expr,)*) => {$(
        #[tokio::test]
        async fn $name() {
            for end in [End::Clean, End::Close, End::Reset] {
                for replay in [Replay::Exclusive, Replay::Inclusive, Replay::FromZero] {
                    let (resumed, _) = survives(|| Script {
                        replay,
                        ..Script::new([Fault::Cut($at, end)])
                    })
                    .await;
                    assert_eq!(resumed, 1, "{end:?} {replay:?}");
                }
            }
        }
    )*};
}

cuts! {
    after_the_priming_event: At::After(0),
    after_an_event: At::After(3),
    before_the_response: At::After(5),
    inside_an_event: At::Inside(3, 30),
    before_the_blank_line: At::Inside(3, 1),
    inside_a_utf8_character: At::Behind(3, "zw", 1),
    between_id_and_data: At::Behind(3, "id: up-3\n", 0),
    inside_an_id: At::Behind(3, "id: u", 0),
    inside_the_response: At::Inside(6, 20),
}

#[tokio::test]
async fn between_cr_and_lf() {
    for end in [End::Clean, End::Close, End::Reset] {
        let script = || Script {
            line_end: "\r\n",
            ..Script::new([
                Fault::Cut(At::Behind(2, "id: up-2\r", 0), end),
                Fault::Cut(At::Inside(4, 1), end),
            ])
        };
        // The second cut stands between the CR and the LF of the blank line: that event is whole.
        assert_eq!(survives(script).await.0, 2, "{end:?}");
    }
}

#[tokio::test]
async fn line_ends_of_one_cr() {
    let script = || Script {
        line_end: "\r",
        ..Script::new([Fault::Cut(At::After(2), End::Close)])
    };
    assert_eq!(survives(script).await.0, 1);
}

#[tokio::test]
async fn again_and_again() {
    let cuts = (0..6).map(|number| Fault::Cut(At::After(number), End::Reset));
    assert_eq!(survives(|| Script::new(cuts.clone())).await.0, 6);
}

#[tokio::test]
async fn a_slow_drip_of_single_bytes() {
    assert_eq!(survives(|| Script::new([Fault::Slowly(1)])).await.0, 0);
}

#[tokio::test]
async fn noise_before_the_events() {
    for noise in [
        "\u{feff}",
        ": comment\n\n",
        "unknown: field\n\n",
        "data: not JSON\n\n",
        "event: other\ndata: {}\n\n",
    ] {
        let script = || Script::new([Fault::First(noise.to_owned())]);
        assert_eq!(survives(script).await.0, 0, "{noise:?}");
    }
}

fn status(line: &str, headers: &str) -> Fault {
    Fault::Instead(
        format!("HTTP/1.1 {line}\r\n{headers}content-length: 0\r\n\r\n"),
        End::Clean,
    )
}

fn cut() -> Fault {
    Fault::Cut(At::After(2), End::Reset)
}

#[tokio::test]
async fn three_times_500_to_the_resume() {
    let fault = || status("500 Internal Server Error", "");
    let script = || Script::new([cut(), fault(), fault(), fault()]);
    assert_eq!(survives(script).await.0, 4);
}

#[tokio::test]
async fn a_reset_in_place_of_an_answer_to_the_resume() {
    let fault = || Fault::Instead(String::new(), End::Reset);
    assert_eq!(
        survives(|| Script::new([cut(), fault(), fault()])).await.0,
        3
    );
}

#[tokio::test]
async fn retry_after_in_seconds_is_waited_for() {
    for line in ["503 Service Unavailable", "429 Too Many Requests"] {
        let script = || Script::new([cut(), status(line, "retry-after: 1\r\n")]);
        let (resumed, took) = survives(script).await;
        assert_eq!(resumed, 2, "{line}");
        assert!(took >= Duration::from_secs(1), "{line}: {took:?}");
    }
}

/// The date is meant by the server's own clock, which its `Date` shows.
#[tokio::test]
async fn retry_after_as_a_date_is_waited_for() {
    for line in ["503 Service Unavailable", "429 Too Many Requests"] {
        let headers = "date: Sun, 06 Nov 1994 08:49:37 GMT\r\n\
                       retry-after: Sun, 06 Nov 1994 08:49:38 GMT\r\n";
        let script = || Script::new([cut(), status(line, headers)]);
        let (resumed, took) = survives(script).await;
        assert_eq!(resumed, 2, "{line}");
        let range = Duration::from_secs(1)..Duration::from_secs(6);
        assert!(range.contains(&took), "{line}: {took:?}");
    }
}

#[tokio::test]
async fn retry_after_to_the_post_sends_it_when_it_is_time() {
    for mode in MODES {
        let script = Script::new([status("503 Service Unavailable", "retry-after: 1\r\n")]);
        let upstream = Upstream::start(move |request| script.answer(request)).await;
        let proxy = Proxy::start(mode, &OPTIONS, &[&upstream.url()]).await;
        let session = Session::open(proxy.address, "2025-11-25").await;
        let started = Instant::now();
        let mut client = Client::connect(proxy.address).await;
        client.send(session.post(&call())).await;
        client.head().await;
        let mut seen = Seen::default();
        seen.read(&mut client).await.unwrap();
        seen.check();
        assert!(started.elapsed() >= Duration::from_secs(1), "{mode}");
        assert_eq!(upstream.calls("tools/call").len(), 2, "{mode}");
    }
}

/// A server that closes on purpose and says when to come back is polled: that is no failure,
/// however often, and its time is kept.
#[tokio::test]
async fn polling_is_no_failure() {
    let poll = || {
        let event = "id: up-0\nretry: 300\ndata:\n\n";
        Fault::Instead(
            format!("{HEAD}{:x}\r\n{event}\r\n0\r\n\r\n", event.len()),
            End::Clean,
        )
    };
    let script = || Script::new(std::iter::repeat_with(poll).take(5));
    let options = [&OPTIONS[..], &["--retry-max-attempts", "2"]].concat();
    let (resumed, took) = survives_with(&options, script).await;
    assert_eq!(resumed, 5);
    assert!(took >= Duration::from_millis(5 * 300), "{took:?}");
}

/// Some servers replay what their store holds when a stream is resumed, and then say nothing more on
/// it. The rest is there all the same for whoever asks again.
#[tokio::test]
async fn a_server_that_is_silent_on_a_resumed_stream_is_asked_again() {
    let script = || Script::new([cut(), Fault::Mute(2), Fault::Mute(3)]);
    let (resumed, took) = survives(script).await;
    assert_eq!(resumed, 3);
    let soon = Duration::from_secs(4)..Duration::from_secs(30);
    assert!(soon.contains(&took), "{took:?}");
}

/// What cannot be resumed is answered at once, and says that it may have been executed.
#[tokio::test]
async fn an_end_without_any_id_is_an_error_at_once() {
    for mode in MODES {
        for end in [End::Clean, End::Close, End::Reset] {
            let body = if end == End::Clean { "0\r\n\r\n" } else { "" };
            let script = Script::new([Fault::Instead(format!("{HEAD}{body}"), end)]);
            let upstream = Upstream::start(move |request| script.answer(request)).await;
            let proxy = Proxy::start(mode, &OPTIONS, &[&upstream.url()]).await;
            let session = Session::open(proxy.address, "2025-11-25").await;
            let started = Instant::now();
            let mut client = Client::connect(proxy.address).await;
            client.send(session.post(&call())).await;
            let response = client.response().await;
            assert!(started.elapsed() < Duration::from_secs(5), "{mode} {end:?}");
            assert_eq!(response.status, 200, "{mode} {end:?}");
            let body = &response.body;
            assert!(
                body.contains(r#""executed":"unknown""#),
                "{mode} {end:?}: {body}"
            );
            assert!(
                body.contains(r#""side":"upstream""#),
                "{mode} {end:?}: {body}"
            );
            assert!(body.contains(r#""id":"long""#), "{mode} {end:?}: {body}");
            assert_eq!(upstream.calls("tools/call").len(), 1, "{mode} {end:?}");
        }
    }
}
