//! HTTP+SSE (2024-11-05): one stream that brings everything.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use shadowcat_mcp::fault::{Executed, FaultKind};
use shadowcat_mcp::version::{Era, ProtocolVersion};
use shadowcat_transport::upstream::http::HttpUpstream;
use shadowcat_transport::upstream::{
    Dispatched, Incoming, Item, Leg, Reply, RequestContext, Upstream,
};
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};
use tokio::time::{Instant, timeout};

use crate::server::{Answer, Seen, Server, Step};
use crate::support::*;

/// The streams that the server holds open.
#[derive(Clone, Default)]
pub(crate) struct Feeds(Arc<Mutex<Vec<UnboundedSender<Step>>>>);

impl Feeds {
    /// A new stream that begins with the `endpoint` event.
    pub(crate) fn open(&self) -> Answer {
        let session = self.0.lock().len() + 1;
        self.open_at(&format!("/messages?session={session}"))
    }

    pub(crate) fn open_at(&self, uri: &str) -> Answer {
        let (sender, receiver) = unbounded_channel();
        self.0.lock().push(sender);
        events([endpoint(uri), Step::Feed(receiver)])
    }

    /// Sends on the newest stream.
    fn send(&self, step: Step) {
        let _ = self.0.lock().last().unwrap().send(step);
    }

    pub(crate) fn event(&self, data: impl AsRef<str>) {
        let data = data.as_ref();
        self.send(Step::Data(Bytes::from(format!(
            "event: message\ndata: {data}\n\n"
        ))));
    }

    /// Ends the newest stream in order.
    fn end(&self) {
        self.0.lock().pop();
    }
}

pub(crate) fn endpoint(uri: &str) -> Step {
    Step::Data(Bytes::from(format!("event: endpoint\ndata: {uri}\n\n")))
}

/// The answer to [`initialize`] on the stream.
pub(crate) const INITIALIZED: &str = r#"{"jsonrpc":"2.0","id":0,"result":{"protocolVersion":"2024-11-05","capabilities":{},"serverInfo":{"name":"s","version":"0"}}}"#;

/// An HTTP+SSE server at `/mcp`. What is POSTed there is answered 405; what is POSTed to the endpoint
/// is accepted, `initialize` answered and the rest left to `play`.
fn sse_server(
    play: impl Fn(&Seen, &Feeds) -> Answer + Send + Sync + 'static,
) -> (Arc<Server>, Feeds) {
    let feeds = Feeds::default();
    let streams = feeds.clone();
    let server = Server::new(move |seen, _| match (seen.method.as_str(), &*seen.path) {
        ("GET", _) => streams.open(),
        (_, "/mcp") => status(405),
        _ if seen.body.contains("initialize") => {
            streams.event(INITIALIZED);
            status(202)
        }
        _ => play(seen, &streams),
    });
    (server, feeds)
}

pub(crate) fn accepting() -> (Arc<Server>, Feeds) {
    sse_server(|_, _| status(202))
}

pub(crate) async fn start(upstream: &HttpUpstream) -> Arc<dyn Leg> {
    let leg = upstream.leg(Era::Legacy);
    assert_eq!(
        next(&mut pipe(request(&leg, initialize()).await)).await,
        INITIALIZED
    );
    leg.negotiated(ProtocolVersion::V2024_11_05);
    leg
}

/// A leg whose handshake is over.
pub(crate) async fn started(server: &Arc<Server>) -> Arc<dyn Leg> {
    start(&upstream_with(config(), server)).await
}

pub(crate) fn pipe(reply: Result<Reply, shadowcat_mcp::fault::Fault>) -> Incoming {
    match reply {
        Ok(Reply::Pipe(incoming)) => incoming,
        other => panic!("expected a pipe, got {other:?}"),
    }
}

pub(crate) fn requests(server: &Server) -> Vec<String> {
    let seen = server.seen();
    seen.iter()
        .map(|seen| format!("{} {}", seen.method, seen.path))
        .collect()
}

/// Lets everything run that can, without any time passing that a test would notice.
async fn settle() {
    tokio::time::sleep(Duration::from_millis(1)).await;
}

#[tokio::test(start_paused = true)]
async fn messages_find_their_way() {
    let (server, feeds) = sse_server(|seen, feeds| {
        if seen.body.contains("tools/call") {
            // All of it before the POST is accepted.
            feeds.event(progress(1));
            feeds.event(r#"{"jsonrpc":"2.0","id":"ask","method":"roots/list"}"#);
            feeds.event(result(77));
            feeds.event(result(1));
        }
        status(202)
    });
    let leg = started(&server).await;
    let mut standalone = leg.standalone().await.unwrap();
    let changed = r#"{"jsonrpc":"2.0","method":"notifications/tools/list_changed"}"#;
    feeds.event(changed);
    assert_eq!(next(&mut standalone).await, changed);
    let with_token = message(
        r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"t","_meta":{"progressToken":1}}}"#,
    );
    let mut incoming = pipe(request(&leg, with_token).await);
    assert_eq!(next(&mut incoming).await, progress(1));
    assert!(next(&mut incoming).await.contains("roots/list"));
    assert_eq!(next(&mut incoming).await, result(1));
    assert!(incoming.next().await.is_none());
    let answer = message(r#"{"jsonrpc":"2.0","id":"ask","result":{"roots":[]}}"#);
    send(&leg, answer.clone()).await.unwrap();
    assert_eq!(server.seen().last().unwrap().body, text(&answer));
}

#[tokio::test(start_paused = true)]
async fn an_answer_does_not_wait_for_its_post_to_be_accepted() {
    let (server, feeds) = sse_server(|_, _| Answer::Silence);
    let leg = started(&server).await;
    let reply = request(&leg, call(1));
    tokio::pin!(reply);
    let _ = timeout(Duration::from_secs(60), &mut reply)
        .await
        .unwrap_err();
    feeds.event(result(1));
    let mut incoming = pipe(reply.await);
    assert_eq!(next(&mut incoming).await, result(1));
    assert!(incoming.next().await.is_none());
}

#[tokio::test(start_paused = true)]
async fn a_request_tells_when_it_has_left() {
    let (server, _) = sse_server(|_, _| Answer::Silence);
    let leg = started(&server).await;
    let (dispatched, left) = Dispatched::new();
    let context = RequestContext {
        dispatched,
        ..RequestContext::default()
    };
    tokio::select! {
        left = left => left.unwrap(),
        reply = leg.request(call(1), context) => panic!("nothing was to come, but {reply:?}"),
    }
}

#[tokio::test(start_paused = true)]
async fn the_end_of_the_stream_is_the_end_of_the_session() {
    for end in [None, Some(Step::Abort)] {
        let (server, feeds) = accepting();
        let leg = started(&server).await;
        let mut standalone = leg.standalone().await.unwrap();
        let mut incoming = pipe(request(&leg, call(1)).await);
        let pending = timeout(Duration::from_millis(1), incoming.next()).await;
        assert!(pending.is_err());
        match end {
            Some(step) => feeds.send(step),
            None => feeds.end(),
        }
        let at = Instant::now();
        assert_eq!(
            fault(incoming.next().await.unwrap()),
            (FaultKind::SessionLost, Executed::Unknown)
        );
        assert!(incoming.next().await.is_none());
        assert_eq!(
            fault(standalone.next().await.unwrap()).0,
            FaultKind::SessionLost
        );
        assert!(standalone.next().await.is_none());
        let ended = (FaultKind::SessionLost, Executed::No);
        assert_eq!(fault(request(&leg, call(2)).await), ended);
        let note = message(r#"{"jsonrpc":"2.0","method":"notifications/x"}"#);
        assert_eq!(fault(send(&leg, note).await).0, FaultKind::SessionLost);
        assert!(at.elapsed() < Duration::from_millis(100));
    }
}

#[tokio::test(start_paused = true)]
async fn silence_means_something_only_where_comments_have_a_period() {
    let (server, feeds) = accepting();
    let leg = started(&server).await;
    let mut standalone = leg.standalone().await.unwrap();
    let day = timeout(Duration::from_secs(24 * 3600), standalone.next()).await;
    assert!(day.is_err(), "a silent call is not killed for being silent");
    for _ in 0..3 {
        feeds.send(Step::Data(Bytes::from_static(b": ping\n\n")));
        let quiet = timeout(Duration::from_secs(15), standalone.next()).await;
        assert!(quiet.is_err());
    }
    let at = Instant::now();
    let lost = standalone.next().await.unwrap();
    assert_eq!(fault(lost).0, FaultKind::SessionLost);
    assert_eq!(at.elapsed().as_secs(), 30, "three periods of 15 s");
}

#[tokio::test(start_paused = true)]
async fn a_request_that_has_not_left_when_the_stream_ends_was_not_executed() {
    let (server, feeds) = accepting();
    let leg = started(&server).await;
    tokio::time::sleep(Duration::from_secs(10)).await;
    server.refuse(usize::MAX);
    let reply = request(&leg, call(1));
    tokio::pin!(reply);
    let pending = timeout(Duration::from_secs(1), &mut reply).await;
    assert!(pending.is_err(), "a connection is still hoped for");
    feeds.end();
    assert_eq!(fault(reply.await), (FaultKind::SessionLost, Executed::No));
    server.refuse(0);
    tokio::time::sleep(Duration::from_secs(10)).await;
    assert_eq!(server.seen().len(), 3, "it was taken back");
}

/// What the server asked for outlives the session that it was asked in.
#[tokio::test(start_paused = true)]
async fn a_busy_server_is_given_its_time_though_the_stream_ends() {
    for status_code in [429, 503] {
        let (server, feeds) =
            sse_server(move |_, _| with_header(status(status_code), "retry-after", "7"));
        let leg = started(&server).await;
        let reply = request(&leg, call(1));
        tokio::pin!(reply);
        let pending = timeout(Duration::from_secs(2), &mut reply).await;
        assert!(pending.is_err(), "it waits to be sent again");
        feeds.end();
        let fault = reply.await.unwrap_err();
        assert_eq!(
            (fault.kind, fault.executed, fault.retry_after),
            (
                FaultKind::SessionLost,
                Executed::No,
                Some(Duration::from_secs(5))
            )
        );
        assert_eq!(server.seen().len(), 4, "it was taken back");
    }
}

/// A server that is known to speak HTTP+SSE is not asked by other ways in the time that it wants.
#[tokio::test(start_paused = true)]
async fn a_busy_server_is_given_its_time_before_the_next_stream() {
    let busy = Arc::new(Mutex::new(false));
    let feeds = Feeds::default();
    let (streams, is_busy) = (feeds.clone(), Arc::clone(&busy));
    let server = Server::new(move |seen, _| match (seen.method.as_str(), &*seen.path) {
        ("GET", _) if *is_busy.lock() => with_header(status(429), "retry-after", "7"),
        ("GET", _) => streams.open(),
        (_, "/mcp") => status(405),
        _ => {
            streams.event(INITIALIZED);
            status(202)
        }
    });
    let upstream = upstream_with(config(), &server);
    let _first = start(&upstream).await;
    *busy.lock() = true;
    let before = server.seen().len();
    let fault = request(&upstream.leg(Era::Legacy), initialize())
        .await
        .unwrap_err();
    assert_eq!(
        (fault.kind, fault.executed, fault.retry_after),
        (
            FaultKind::RateLimited,
            Executed::No,
            Some(Duration::from_secs(7))
        )
    );
    assert_eq!(server.seen().len(), before + 1);
}

#[tokio::test(start_paused = true)]
async fn a_refused_post_fails_its_request() {
    for (code, expected) in [
        (404, (FaultKind::SessionLost, Executed::No)),
        (400, (FaultKind::SessionLost, Executed::No)),
        (500, (FaultKind::Status, Executed::Unknown)),
    ] {
        let (server, _) = sse_server(move |_, _| {
            Answer::Http(http(code, "text/plain", "Could not find session"))
        });
        let leg = started(&server).await;
        assert_eq!(fault(request(&leg, call(1)).await), expected, "{code}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_challenge_to_a_post_is_relayed() {
    for forward_auth in [true, false] {
        let (server, _) = sse_server(|_, _| with_header(status(401), "www-authenticate", "Bearer"));
        let mut config = config();
        config.forward_auth = forward_auth;
        let leg = start(&upstream_with(config, &server)).await;
        match request(&leg, call(1)).await {
            Ok(Reply::Challenge {
                status, headers, ..
            }) if forward_auth => {
                assert_eq!(status, 401);
                let headers = http::HeaderMap::from(headers);
                assert_eq!(headers["www-authenticate"], "Bearer");
            }
            Err(fault) if !forward_auth => assert_eq!(fault.kind, FaultKind::Unauthorized),
            other => panic!("forward_auth {forward_auth}: {other:?}"),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_post_that_fails_after_the_answer_began_ends_it() {
    let (server, _) = sse_server(|_, feeds| {
        feeds.event(r#"{"jsonrpc":"2.0","id":"ask","method":"roots/list"}"#);
        Answer::Late(Duration::from_secs(1), http(500, "", ""))
    });
    let leg = started(&server).await;
    let mut incoming = pipe(request(&leg, call(1)).await);
    assert!(next(&mut incoming).await.contains("roots/list"));
    assert_eq!(fault(incoming.next().await.unwrap()).0, FaultKind::Status);
    assert!(incoming.next().await.is_none(), "nothing after the fault");
}

#[tokio::test(start_paused = true)]
async fn a_handshake_without_a_session_loses_none() {
    let server = Server::new(|seen, _| match seen.method.as_str() {
        "GET" => events([endpoint("/messages"), Step::Hang]),
        _ => status(404),
    });
    assert_eq!(
        fault(request(&fresh(&server), initialize()).await),
        (FaultKind::Status, Executed::No)
    );
}

#[tokio::test(start_paused = true)]
async fn a_response_is_sent_until_accepted_and_a_notification_once() {
    let (server, _) = sse_server(|_, _| status(500));
    let leg = started(&server).await;
    let note = message(r#"{"jsonrpc":"2.0","method":"notifications/x"}"#);
    assert_eq!(fault(send(&leg, note).await).0, FaultKind::Status);
    assert_eq!(server.seen().len(), 4);
    let response = message(r#"{"jsonrpc":"2.0","id":"ask","result":{}}"#);
    assert_eq!(fault(send(&leg, response).await).0, FaultKind::Status);
    assert_eq!(server.seen().len(), 14, "ten tries");
}

#[tokio::test(start_paused = true)]
async fn a_response_that_waits_to_be_sent_again_ends_with_the_session() {
    let (server, feeds) = sse_server(|_, _| status(500));
    let leg = started(&server).await;
    let response = message(r#"{"jsonrpc":"2.0","id":"ask","result":{}}"#);
    let sending = send(&leg, response);
    tokio::pin!(sending);
    assert!(
        timeout(Duration::from_millis(100), &mut sending)
            .await
            .is_err()
    );
    feeds.end();
    let at = Instant::now();
    assert_eq!(fault(sending.await).0, FaultKind::SessionLost);
    assert!(at.elapsed() < Duration::from_millis(100));
}

#[tokio::test(start_paused = true)]
async fn a_leg_that_is_closed_or_dropped_ends_its_stream() {
    for close in [true, false] {
        let (server, _) = accepting();
        let mut config = config();
        config.max_connections = 1;
        let upstream = upstream_with(config, &server);
        let leg = start(&upstream).await;
        tokio::time::sleep(Duration::from_secs(10)).await;
        assert_eq!(server.open(), 1, "the stream alone");
        let second = upstream.leg(Era::Legacy);
        let overloaded = (FaultKind::Overloaded, Executed::No);
        assert_eq!(fault(request(&second, initialize()).await), overloaded);
        if close {
            leg.close().await;
        } else {
            drop(leg);
        }
        settle().await;
        assert_eq!(server.open(), 0);
        start(&upstream).await;
    }
}

#[tokio::test(start_paused = true)]
async fn what_holds_no_message_is_skipped_and_a_batch_is_split() {
    let (server, feeds) = accepting();
    let leg = started(&server).await;
    let mut incoming = pipe(request(&leg, call(1)).await);
    feeds.event("not json");
    feeds.send(Step::Data(Bytes::from(format!(
        "event: ping\ndata: {}\n\n: comment\n\nid: 7\n\n",
        result(1)
    ))));
    feeds.event(format!("[{},{}]", progress(1), result(1)));
    match incoming.next().await {
        Some(Ok(Item::Message(first))) => assert_eq!(text(&first), result(1)),
        other => panic!("expected the response, got {other:?}"),
    }
    let mut standalone = leg.standalone().await.unwrap();
    assert_eq!(
        next(&mut standalone).await,
        progress(1),
        "a token that nobody gave"
    );
}

#[tokio::test(start_paused = true)]
async fn an_event_over_the_limit_ends_the_session() {
    let (server, feeds) = accepting();
    let leg = started(&server).await;
    let mut incoming = pipe(request(&leg, call(1)).await);
    feeds.event("x".repeat(70 * 1024));
    let outcome = incoming.next().await.unwrap().unwrap_err();
    assert_eq!(outcome.kind, FaultKind::SessionLost);
    assert!(outcome.detail.contains("larger than"), "{outcome}");
}
