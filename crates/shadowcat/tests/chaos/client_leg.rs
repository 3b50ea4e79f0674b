//! Faults between the client and the proxy. The server notices none of them.

use std::time::Duration;

use serde_json::json;
use tokio::sync::mpsc;

use crate::script::{MESSAGES, Script, Seen, call, message};
use crate::support::client::{Client, Event, Events, Session, post};
use crate::support::process::Proxy;
use crate::support::upstream::{self, Answer, Request, Step, Upstream};
use crate::support::{MODES, until};
use crate::upstream_leg::OPTIONS;

/// A server whose one call, and whose standalone stream, say what the test says.
struct Live {
    _proxy: Proxy,
    upstream: Upstream,
    session: Session,
    /// Events of the call.
    feed: mpsc::UnboundedSender<String>,
    /// Events of the standalone stream.
    standalone: mpsc::UnboundedSender<String>,
}

impl Live {
    async fn start(mode: &str, version: &str) -> Self {
        let (feed, fed) = mpsc::unbounded_channel();
        let (standalone, standing) = mpsc::unbounded_channel();
        let (fed, standing) = (
            std::sync::Mutex::new(Some(fed)),
            std::sync::Mutex::new(Some(standing)),
        );
        let upstream = Upstream::start(move |request: &Request| {
            let source = match (request.method.as_str(), request.tool().as_str()) {
                ("POST", "long") => fed.lock().unwrap().take(),
                ("GET", _) => standing.lock().unwrap().take(),
                _ => None,
            };
            match source {
                Some(source) => Answer::events().then(Step::Feed(source)).end(),
                None => upstream::basics(request).unwrap_or_default(),
            }
        })
        .await;
        let proxy = Proxy::start(mode, &OPTIONS, &[&upstream.url()]).await;
        let session = Session::open(proxy.address, version).await;
        Self {
            _proxy: proxy,
            upstream,
            session,
            feed,
            standalone,
        }
    }

    /// The server says message `number` of the call.
    fn say(&self, number: u64) {
        let _ = self.feed.send(format!("data: {}\n\n", message(number)));
    }

    fn say_all(&self, numbers: std::ops::RangeInclusive<u64>) {
        numbers.for_each(|number| self.say(number));
    }

    /// Makes the call; the client of its stream.
    async fn call(&self) -> Client {
        let mut client = Client::connect(self.session.address).await;
        client.send(self.session.post(&call())).await;
        self.called().await;
        client
    }

    async fn called(&self) {
        let there = || !self.upstream.calls("tools/call").is_empty();
        until("the call is in flight", there).await;
    }

    /// The server saw one call and no cancel.
    fn check(&self, mode: &str) {
        assert_eq!(self.upstream.calls("tools/call").len(), 1, "{mode}");
        assert!(
            self.upstream.calls("notifications/cancelled").is_empty(),
            "{mode}"
        );
    }
}

/// The next `count` events of a stream.
async fn events(client: &mut Client, count: usize) -> Vec<Event> {
    let mut events = Events::default();
    let mut taken = Vec::new();
    while taken.len() < count {
        taken.push(client.event(&mut events).await.unwrap().unwrap());
    }
    taken
}

/// Reads `whole` events besides the priming event, then leaves by `leave`.
async fn cut_after(whole: usize, leave: fn(Client)) {
    for mode in MODES {
        let live = Live::start(mode, "2025-11-25").await;
        let mut client = live.call().await;
        live.say_all(1..=whole as u64);
        let head = client.head().await;
        assert!(head.is_stream(), "{mode}: {head:?}");
        let mut seen = Seen::default();
        for event in events(&mut client, whole + 1).await {
            seen.take(&event);
        }
        leave(client);
        live.say_all(whole as u64 + 1..=MESSAGES);
        tokio::time::sleep(Duration::from_millis(20)).await;
        live.say(MESSAGES + 1);
        seen.resume(&live.session).await;
        seen.check();
        live.check(mode);
    }
}

#[tokio::test]
async fn a_clean_end() {
    cut_after(2, drop).await;
}

#[tokio::test]
async fn a_reset() {
    cut_after(2, Client::reset).await;
}

#[tokio::test]
async fn after_the_priming_event() {
    cut_after(0, Client::reset).await;
}

#[tokio::test]
async fn before_the_response() {
    cut_after(MESSAGES as usize, Client::reset).await;
}

/// The response was written, but the client did not read it.
#[tokio::test]
async fn a_response_that_was_not_read_is_still_there() {
    for mode in MODES {
        let live = Live::start(mode, "2025-11-25").await;
        let mut client = live.call().await;
        let mut seen = Seen::default();
        client.head().await;
        for event in events(&mut client, 1).await {
            seen.take(&event);
        }
        live.say_all(1..=MESSAGES + 1);
        tokio::time::sleep(Duration::from_millis(100)).await;
        client.reset();
        // Twice: what was read once is not gone.
        for _ in 0..2 {
            let mut seen = Seen {
                cursor: seen.cursor.clone(),
                ..Seen::default()
            };
            seen.resume(&live.session).await;
            seen.check();
        }
        live.check(mode);
    }
}

/// The client got half of an event, or half of a character of it: for it that event never came.
#[tokio::test]
async fn inside_an_event_and_inside_a_character() {
    for mode in MODES {
        for needle in ["id: 1-", "zw\u{f6}lf", "\"progress\""] {
            let live = Live::start(mode, "2025-11-25").await;
            let mut client = live.call().await;
            live.say_all(1..=3);
            client.head().await;
            let mut text = String::new();
            while text.matches("\n\n").count() < 4 {
                text.push_str(&client.try_chunk().await.unwrap().unwrap());
            }
            client.reset();
            // What a parser makes of the bytes until the cut in the third event.
            let third = text.match_indices("event: message").nth(2).unwrap().0;
            let cut = third + text[third..].find(needle).unwrap() + needle.len() - 1;
            let mut known = Events::default();
            known.push(&String::from_utf8_lossy(&text.as_bytes()[..cut]));
            let mut seen = Seen::default();
            while let Some(event) = known.next() {
                seen.take(&event);
            }
            assert_eq!(seen.messages.len(), 2, "{mode}: {text}");
            live.say_all(4..=MESSAGES + 1);
            seen.resume(&live.session).await;
            seen.check();
            live.check(mode);
        }
    }
}

/// Cut three times, each time at the next message.
#[tokio::test]
async fn again_and_again() {
    for mode in MODES {
        let live = Live::start(mode, "2025-11-25").await;
        let mut client = live.call().await;
        client.head().await;
        let mut seen = Seen::default();
        seen.take(&events(&mut client, 1).await[0]);
        for number in 1..=MESSAGES {
            client.reset();
            live.say(number);
            client = Client::connect(live.session.address).await;
            client.send(live.session.get(seen.cursor.as_deref())).await;
            assert!(client.head().await.is_stream());
            seen.read_one(&mut client).await;
        }
        live.say(MESSAGES + 1);
        seen.read(&mut client).await.unwrap();
        seen.check();
        live.check(mode);
    }
}

/// A GET for a stream that is still carried by the POST, and then by a GET, takes it over.
#[tokio::test]
async fn a_live_stream_is_taken_over() {
    for mode in MODES {
        let live = Live::start(mode, "2025-11-25").await;
        let mut carrier = live.call().await;
        carrier.head().await;
        let mut seen = Seen::default();
        seen.take(&events(&mut carrier, 1).await[0]);
        live.say(1);
        seen.take(&events(&mut carrier, 1).await[0]);
        for number in 2..=3 {
            let mut next = Client::connect(live.session.address).await;
            next.send(live.session.get(seen.cursor.as_deref())).await;
            assert!(next.head().await.is_stream());
            let mut rest = Events::default();
            let ended = carrier.event(&mut rest).await;
            assert!(
                matches!(ended, Ok(None)),
                "{mode}: the replaced carrier got {ended:?}"
            );
            live.say(number);
            seen.read_one(&mut next).await;
            carrier = next;
        }
        live.say_all(4..=MESSAGES + 1);
        seen.read(&mut carrier).await.unwrap();
        seen.check();
        live.check(mode);
    }
}

/// Versions without priming events have ids all the same.
#[tokio::test]
async fn older_versions_can_come_back_too() {
    for mode in MODES {
        for version in ["2024-11-05", "2025-03-26", "2025-06-18"] {
            let live = Live::start(mode, version).await;
            let mut client = live.call().await;
            live.say(1);
            client.head().await;
            let mut seen = Seen::default();
            seen.take(&events(&mut client, 1).await[0]);
            client.reset();
            live.say_all(2..=MESSAGES + 1);
            seen.resume(&live.session).await;
            seen.check();
            live.check(mode);
        }
    }
}

/// A client that vanishes has not cancelled; one that says so has.
#[tokio::test]
async fn going_away_is_no_cancel() {
    for mode in MODES {
        let live = Live::start(mode, "2025-06-18").await;
        let client = live.call().await;
        client.reset();
        tokio::time::sleep(Duration::from_millis(100)).await;
        live.check(mode);
        assert!(!live.feed.is_closed(), "{mode}: the call was given up");
        let cancel =
            r#"{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":"long"}}"#;
        assert_eq!(live.session.exchange(cancel).await.status, 202);
        let told = || live.upstream.calls("notifications/cancelled").len() == 1;
        until("the server hears of the cancel", told).await;
    }
}

/// In the modern era closing the stream is the cancel.
#[tokio::test]
async fn going_away_cancels_a_modern_request() {
    const META: &str = r#""_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientCapabilities":{}}"#;
    for mode in MODES {
        let live = Live::start(mode, "2025-11-25").await;
        let headers =
            "mcp-protocol-version: 2026-07-28\r\nmcp-method: tools/call\r\nmcp-name: long\r\n";
        let body = format!(
            r#"{{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{{"name":"long",{META}}}}}"#
        );
        let mut client = Client::connect(live.session.address).await;
        client.send(post(headers, &body)).await;
        live.called().await;
        live.say(1);
        assert!(client.head().await.is_stream());
        assert!(!live.feed.is_closed(), "{mode}");
        client.reset();
        until("the server sees its stream closed", || {
            live.feed.is_closed()
        })
        .await;
    }
}

fn list_changed(number: u64) -> String {
    let params = json!({"level": "info", "data": number});
    let data = json!({"jsonrpc": "2.0", "method": "notifications/message", "params": params});
    format!("data: {data}\n\n")
}

/// The standalone stream: by cursor, without one, and taken over.
#[tokio::test]
async fn the_standalone_stream() {
    for mode in MODES {
        let live = Live::start(mode, "2025-11-25").await;
        let open = async |cursor: Option<&str>| {
            let mut client = Client::connect(live.session.address).await;
            client.send(live.session.get(cursor)).await;
            assert!(client.head().await.is_stream());
            client
        };
        let number = |event: &Event| event.json()["params"]["data"].as_u64().unwrap();
        let mut client = open(None).await;
        let priming = &events(&mut client, 1).await[0];
        assert_eq!(priming.data, "", "{mode}");
        (1..=2).for_each(|number| live.standalone.send(list_changed(number)).unwrap());
        let first = events(&mut client, 2).await;
        assert_eq!(
            first.iter().map(number).collect::<Vec<_>>(),
            [1, 2],
            "{mode}"
        );
        client.reset();
        tokio::time::sleep(Duration::from_millis(50)).await;
        (3..=4).for_each(|number| live.standalone.send(list_changed(number)).unwrap());
        // From its cursor, exclusively.
        let mut client = open(first[0].id.as_deref()).await;
        let again = events(&mut client, 4).await;
        let again: Vec<_> = again
            .iter()
            .filter(|event| !event.data.is_empty())
            .collect();
        assert_eq!(
            again.iter().map(|e| number(e)).collect::<Vec<_>>(),
            [2, 3, 4],
            "{mode}"
        );
        // Another GET takes over.
        let mut next = open(None).await;
        let mut rest = Events::default();
        assert!(matches!(client.event(&mut rest).await, Ok(None)), "{mode}");
        live.standalone.send(list_changed(5)).unwrap();
        let last = events(&mut next, 2).await;
        assert_eq!(number(&last[1]), 5, "{mode}");
    }
}

/// The server's answer begins later than the proxy waits for its head: the client's stream is open
/// by then, and stays open.
#[tokio::test]
async fn a_head_that_comes_late() {
    let late = MODES.map(|mode| {
        tokio::spawn(async move {
            let script = Script::new([]);
            let upstream = Upstream::start(move |request| {
                let answer = script.answer(request);
                if request.tool() != "long" {
                    return answer;
                }
                let mut steps = vec![Step::Wait(Duration::from_millis(5300))];
                steps.extend(answer.0);
                Answer(steps)
            })
            .await;
            let proxy = Proxy::start(mode, &OPTIONS, &[&upstream.url()]).await;
            let session = Session::open(proxy.address, "2025-06-18").await;
            let mut client = Client::connect(proxy.address).await;
            client.send(session.post(&call())).await;
            assert!(client.head().await.is_stream(), "{mode}");
            let mut seen = Seen::default();
            seen.read(&mut client).await.unwrap();
            seen.check();
        })
    });
    for mode in late {
        mode.await.unwrap();
    }
}
