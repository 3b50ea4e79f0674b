//! The standalone stream, broken between the proxy and the server.

use std::sync::Mutex;
use std::time::Duration;

use serde_json::json;
use tokio::sync::mpsc::{self, UnboundedReceiver, UnboundedSender};

use crate::support::client::{Client, Event, Events, Session};
use crate::support::process::Proxy;
use crate::support::upstream::{self, Answer, Request, Step, Upstream};
use crate::support::{MODES, until};
use crate::upstream_leg::OPTIONS;

/// A server whose n-th standalone stream says what the test feeds it, and ends when the test drops
/// the feed; further ones are refused with 401.
struct Standing {
    _proxy: Proxy,
    upstream: Upstream,
    session: Session,
    feeds: Vec<UnboundedSender<String>>,
}

fn initialized(request: &Request) -> Answer {
    let result = json!({"protocolVersion": "2025-06-18", "capabilities": {"tools": {"listChanged": true}}, "serverInfo": {"name": "standing", "version": "1"}});
    Answer::result(&request.id(), result)
}

impl Standing {
    async fn start(mode: &str, streams: usize) -> Self {
        let (feeds, fed): (Vec<_>, Vec<UnboundedReceiver<_>>) =
            (0..streams).map(|_| mpsc::unbounded_channel()).unzip();
        let fed = Mutex::new(fed.into_iter());
        let upstream = Upstream::start(move |request: &Request| {
            match (request.method.as_str(), request.rpc().as_str()) {
                ("GET", _) => match fed.lock().unwrap().next() {
                    Some(feed) => Answer::events().then(Step::Feed(feed)).end(),
                    None => Answer::whole("401 Unauthorized", "", ""),
                },
                (_, "initialize") => initialized(request),
                (_, "tools/call") => Answer::json(&upstream::text(&request.id(), "called")),
                _ => upstream::basics(request).unwrap_or_default(),
            }
        })
        .await;
        let proxy = Proxy::start(mode, &OPTIONS, &[&upstream.url()]).await;
        let session = Session::open(proxy.address, "2025-06-18").await;
        Self {
            _proxy: proxy,
            upstream,
            session,
            feeds,
        }
    }

    async fn listen(&self) -> Client {
        let mut client = Client::connect(self.session.address).await;
        client.send(self.session.get(None)).await;
        assert!(client.head().await.is_stream());
        client
    }
}

/// A log message, in an event without an id.
fn log(number: u64) -> String {
    let params = json!({"level": "info", "data": number});
    let data = json!({"jsonrpc": "2.0", "method": "notifications/message", "params": params});
    format!("data: {data}\n\n")
}

fn number(event: &Event) -> Option<u64> {
    event.json()["params"]["data"].as_u64()
}

/// Without ids nothing can be resumed: the stream is opened again at once without a cursor. What
/// is said from then on arrives, and no list is said to have changed for a gap this short.
#[tokio::test]
async fn a_stream_without_ids() {
    for mode in MODES {
        let mut standing = Standing::start(mode, 3).await;
        let mut client = standing.listen().await;
        let mut events = Events::default();
        for (stream, feed) in std::mem::take(&mut standing.feeds).into_iter().enumerate() {
            let asked = || standing.upstream.count("GET") > stream;
            until("the stream is there", asked).await;
            let first = stream as u64 * 2;
            for wanted in first..first + 2 {
                feed.send(log(wanted)).unwrap();
                let event = client.event(&mut events).await.unwrap().unwrap();
                assert_eq!(number(&event), Some(wanted), "{mode}: {event:?}");
            }
        }
        for get in standing.upstream.by_method("GET") {
            assert_eq!(get.header("last-event-id"), None, "{mode}");
        }
    }
}

/// The server lets nobody listen any more: it is not asked again and again, the client's stream
/// stays open, and calls go on.
#[tokio::test]
async fn a_401_in_the_middle_of_a_session() {
    for mode in MODES {
        let mut standing = Standing::start(mode, 1).await;
        let mut client = standing.listen().await;
        let mut events = Events::default();
        standing.feeds[0].send(log(1)).unwrap();
        let event = client.event(&mut events).await.unwrap().unwrap();
        assert_eq!(number(&event), Some(1), "{mode}");
        standing.feeds.clear();
        let asked = || standing.upstream.count("GET") == 2;
        until("the stream is opened again", asked).await;
        for id in 1..=2 {
            let call = json!({"jsonrpc": "2.0", "id": id, "method": "tools/call", "params": {"name": "any"}});
            let answer = standing.session.exchange(&call.to_string()).await;
            assert!(answer.body.contains("called"), "{mode}: {answer:?}");
        }
        // Many times what a stream that is not parked would wait.
        assert!(client.is_silent(Duration::from_secs(1)).await, "{mode}");
        assert_eq!(standing.upstream.count("GET"), 2, "{mode}");
        assert_eq!(standing.upstream.calls("initialize").len(), 1, "{mode}");
    }
}
