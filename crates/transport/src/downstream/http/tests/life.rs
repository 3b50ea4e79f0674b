//! Streams, connections, and their ends.

use super::*;

const GET: &str = "GET /mcp HTTP/1.1\r\nHost: localhost\r\nAccept: text/event-stream\r\n\r\n";

/// An event stream that the test writes to.
fn channel() -> (mpsc::UnboundedSender<Bytes>, EventBytes) {
    let (sender, receiver) = mpsc::unbounded_channel();
    let stream = futures_util::stream::unfold(receiver, |mut receiver| async move {
        receiver.recv().await.map(|bytes| (bytes, receiver))
    });
    (sender, stream.boxed())
}

/// A service whose every answer is the event stream given here.
fn one_stream(source: EventBytes) -> impl Fn(&str) -> BoxFuture<HttpReply> + Send + Sync {
    let source = std::sync::Mutex::new(Some(source));
    move |_: &str| {
        let source = source.lock().unwrap().take().unwrap();
        Box::pin(async { events(source) })
    }
}

#[tokio::test(start_paused = true)]
async fn ready_events_leave_together() {
    let (sender, source) = channel();
    let running = run(HttpEdgeConfig::default(), one_stream(source));
    let mut client = running.client();
    for event in ["data: 1\n\n", "data: 2\n\n", "data: 3\n\n"] {
        sender.send(Bytes::from(event)).unwrap();
    }
    client.send(post(JSON_HEADERS, PING)).await;
    let (head, _) = client.response().await;
    for field in [
        "http/1.1 200 ",
        "content-type: text/event-stream\r\n",
        "cache-control: no-cache\r\n",
        "x-accel-buffering: no\r\n",
    ] {
        assert!(head.contains(field), "{field}: {head}");
    }
    assert_eq!(client.chunk().await, "data: 1\n\ndata: 2\n\ndata: 3\n\n");
    sender.send(Bytes::from("data: 4\n\n")).unwrap();
    assert_eq!(client.chunk().await, "data: 4\n\n");
    let streams = |running: &Running| running.metrics.client_streams.get();
    assert_eq!(streams(&running), 1);
    drop(sender);
    assert_eq!(client.chunk().await, "");
    tokio::task::yield_now().await;
    assert_eq!(streams(&running), 0);
}

#[tokio::test(start_paused = true)]
async fn a_client_that_goes_away_drops_its_request() {
    let running = run(HttpEdgeConfig::default(), |_| {
        Box::pin(std::future::pending())
    });
    let mut client = running.client();
    client.send(post(JSON_HEADERS, PING)).await;
    sleep(Duration::from_millis(1)).await;
    assert_eq!(running.service.open.load(Ordering::SeqCst), 1);
    drop(client);
    sleep(Duration::from_millis(1)).await;
    assert_eq!(running.service.open.load(Ordering::SeqCst), 0);
}

#[tokio::test(start_paused = true)]
async fn a_connection_must_bring_a_request_in_time() {
    let running = run(HttpEdgeConfig::default(), always_json);
    for bytes in ["", "P", "POST /mcp HTTP/1.1\r\nHost: local"] {
        let start = Instant::now();
        let mut client = running.client();
        client.send(bytes).await;
        client.closed().await;
        let took = start.elapsed();
        assert!(
            (Duration::from_secs(15)..Duration::from_secs(17)).contains(&took),
            "{took:?}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn an_idle_connection_ends_but_an_open_stream_is_not_idle() {
    let (sender, source) = channel();
    let running = run(HttpEdgeConfig::default(), one_stream(source));
    let mut client = running.client();
    client.send(GET).await;
    client.response().await;
    sleep(Duration::from_secs(3600)).await;
    sender.send(Bytes::from("data: late\n\n")).unwrap();
    assert_eq!(client.chunk().await, "data: late\n\n");
    drop(sender);
    assert_eq!(client.chunk().await, "");
    let start = Instant::now();
    client.closed().await;
    let took = start.elapsed();
    assert!(
        (Duration::from_secs(120)..Duration::from_secs(242)).contains(&took),
        "{took:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_body_that_never_ends_is_given_up() {
    let running = run(HttpEdgeConfig::default(), always_json);
    let mut client = running.client();
    let start = Instant::now();
    client
        .send(format!(
            "POST /mcp HTTP/1.1\r\n{JSON_HEADERS}Content-Length: 10\r\n\r\n{{"
        ))
        .await;
    let (head, _) = client.response().await;
    assert!(head.starts_with("http/1.1 400 "), "{head}");
    assert_eq!(start.elapsed().as_secs(), 60);
}

#[tokio::test(start_paused = true)]
async fn beyond_the_limit_a_connection_is_told_to_come_back() {
    let config = HttpEdgeConfig {
        max_connections: 1,
        ..HttpEdgeConfig::default()
    };
    let running = run(config, always_json);
    let mut first = running.client();
    let mut second = running.client();
    for (client, status) in [(&mut second, 503), (&mut first, 200)] {
        client.send(post(JSON_HEADERS, PING)).await;
        let (head, body) = client.response().await;
        assert!(head.starts_with(&format!("http/1.1 {status} ")), "{head}");
        if status == 503 {
            assert!(head.contains("retry-after: 5\r\n"), "{head}");
            assert!(body.contains("too many connections"), "{body}");
        }
    }
    second.closed().await;
    drop(first);
    sleep(Duration::from_millis(1)).await;
    let mut third = running.client();
    third.send(post(JSON_HEADERS, PING)).await;
    assert!(third.response().await.0.starts_with("http/1.1 200 "));
}

#[tokio::test(start_paused = true)]
async fn a_drain_waits_for_exchanges_and_then_ends_subscriptions() {
    let running = run(HttpEdgeConfig::default(), |method: &str| {
        let get = method == "GET";
        Box::pin(async move {
            if get {
                return events(futures_util::stream::pending().boxed());
            }
            sleep(Duration::from_secs(3)).await;
            json()
        })
    });
    let (mut idle, mut busy, mut subscriber) =
        (running.client(), running.client(), running.client());
    subscriber.send(GET).await;
    subscriber.response().await;
    busy.send(post(JSON_HEADERS, PING)).await;
    sleep(Duration::from_millis(1)).await;
    let start = Instant::now();
    let deadline = start + Duration::from_secs(10);
    running.shutdown.send(deadline).unwrap();
    idle.closed().await;
    assert!(start.elapsed() < Duration::from_millis(10));
    assert!(running.connect.is_closed(), "still accepting");
    let (head, _) = busy.response().await;
    assert!(head.starts_with("http/1.1 200 "), "{head}");
    assert_eq!(subscriber.chunk().await, "");
    subscriber.closed().await;
    running.serving.await.unwrap();
    assert!(start.elapsed() < Duration::from_millis(3100));
}

#[tokio::test(start_paused = true)]
async fn a_drain_ends_in_time_whatever_is_open() {
    let running = run(HttpEdgeConfig::default(), |_| {
        Box::pin(std::future::pending())
    });
    let mut client = running.client();
    client.send(post(JSON_HEADERS, PING)).await;
    sleep(Duration::from_millis(1)).await;
    let start = Instant::now();
    let deadline = start + Duration::from_secs(10);
    running.shutdown.send(deadline).unwrap();
    running.serving.await.unwrap();
    assert_eq!(start.elapsed().as_secs(), 10);
    client.closed().await;
    assert_eq!(running.service.open.load(Ordering::SeqCst), 0);
    assert_eq!(running.metrics.client_connections.get(), 0);
}
