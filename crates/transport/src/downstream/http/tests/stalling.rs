//! Clients that stop reading, or read slowly.

use super::*;

const GET: &str = "GET /mcp HTTP/1.1\r\nHost: localhost\r\nAccept: text/event-stream\r\n\r\n";

/// Says when it is dropped.
struct Guard(Option<oneshot::Sender<Instant>>);

impl Drop for Guard {
    fn drop(&mut self) {
        let _ = self.0.take().map(|dropped| dropped.send(Instant::now()));
    }
}

/// Events without end, `size` bytes each, and when their stream was dropped.
fn endless(size: usize) -> (EventBytes, oneshot::Receiver<Instant>) {
    let (sender, dropped) = oneshot::channel();
    let event = Bytes::from(format!("data: {}\n\n", "x".repeat(size)));
    let events = futures_util::stream::unfold(Guard(Some(sender)), move |guard| {
        std::future::ready(Some((event.clone(), guard)))
    });
    (events.boxed(), dropped)
}

/// An edge whose answers are these, each once.
fn edge(sources: Vec<EventBytes>) -> Running {
    let sources = std::sync::Mutex::new(sources);
    run(HttpEdgeConfig::default(), move |_| {
        let source = sources.lock().unwrap().remove(0);
        Box::pin(async { events(source) })
    })
}

impl Running {
    fn connect(&self) -> DuplexStream {
        let (ours, theirs) = tokio::io::duplex(4096);
        self.connect.send(theirs).unwrap();
        ours
    }
}

fn limit() -> Duration {
    HttpEdgeConfig::default().stall_timeout
}

#[tokio::test(start_paused = true)]
async fn a_client_that_takes_nothing_is_taken_for_gone() {
    let (source, mut dropped) = endless(1000);
    let running = edge(vec![source]);
    let mut io = running.connect();
    let start = Instant::now();
    io.write_all(GET.as_bytes()).await.unwrap();
    sleep(limit() - Duration::from_secs(1)).await;
    assert!(dropped.try_recv().is_err(), "it may still read");
    assert_eq!(dropped.await.unwrap() - start, limit());
    let mut rest = Vec::new();
    io.read_to_end(&mut rest).await.unwrap();
    assert!(!rest.is_empty() && rest.len() <= 4096);
    assert_eq!(running.metrics.clients_stalled.get(), 1);
    assert_eq!(running.metrics.client_streams.get(), 0);
    assert_eq!(running.metrics.client_connections.get(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_large_answer_that_is_not_taken_is_given_up() {
    let running = run(HttpEdgeConfig::default(), |_| {
        Box::pin(async {
            HttpReply::Body {
                status: StatusCode::OK,
                headers: Fields::default(),
                body: Bytes::from(vec![b' '; 100_000]),
            }
        })
    });
    let mut io = running.connect();
    io.write_all(post(JSON_HEADERS, PING).as_bytes())
        .await
        .unwrap();
    sleep(limit() + Duration::from_secs(1)).await;
    assert_eq!(running.metrics.client_connections.get(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_client_that_reads_slowly_is_never_cut() {
    let (source, mut dropped) = endless(1000);
    let running = edge(vec![source]);
    let mut io = running.connect();
    io.write_all(GET.as_bytes()).await.unwrap();
    for _ in 0..100 {
        sleep(limit() - Duration::from_secs(1)).await;
        assert!(io.read_u8().await.is_ok());
    }
    assert!(dropped.try_recv().is_err());
    assert_eq!(running.metrics.clients_stalled.get(), 0);
    drop(io);
    assert!(dropped.await.is_ok());
}

/// Requests of a client over HTTP/2 whose streams' windows hold `window` bytes.
async fn http2(running: &Running, window: u32) -> h2::client::SendRequest<Bytes> {
    let mut builder = h2::client::Builder::new();
    builder
        .initial_window_size(window)
        .initial_connection_window_size(1024 * 1024);
    let (requests, connection) = builder.handshake(running.connect()).await.unwrap();
    tokio::spawn(connection);
    requests
}

async fn get(requests: &mut h2::client::SendRequest<Bytes>) -> h2::RecvStream {
    let request = Request::get("http://localhost/mcp").header("accept", "text/event-stream");
    let request = request.body(()).unwrap();
    let (response, _) = requests.send_request(request, true).unwrap();
    response.await.unwrap().into_body()
}

/// Reads about so many bytes, and makes room for as many.
async fn take(body: &mut h2::RecvStream, bytes: usize) {
    let mut taken = 0;
    while taken < bytes {
        taken += body.data().await.unwrap().unwrap().len();
    }
    body.flow_control().release_capacity(taken).unwrap();
}

#[tokio::test(start_paused = true)]
async fn of_many_streams_on_a_connection_the_one_that_is_not_read_ends() {
    let (stuck, mut dropped) = endless(1000);
    let (idle, mut idle_dropped) = {
        let (sender, dropped) = oneshot::channel();
        let guard = Guard(Some(sender));
        let first = futures_util::stream::iter([Bytes::from_static(b"data: 1\n\n")]);
        let idle = first.chain(futures_util::stream::pending());
        let idle = idle.map(move |bytes| {
            let _ = &guard;
            bytes
        });
        (idle.boxed(), dropped)
    };
    let (read, mut read_dropped) = endless(1000);
    let running = edge(vec![stuck, idle, read]);
    let mut requests = http2(&running, 20_000).await;
    let start = Instant::now();
    let mut stuck = get(&mut requests).await;
    let mut idle = get(&mut requests).await;
    assert_eq!(idle.data().await.unwrap().unwrap(), "data: 1\n\n");
    let mut read = get(&mut requests).await;
    let reading = tokio::spawn(async move {
        loop {
            take(&mut read, 10_000).await;
            sleep(limit() / 2).await;
        }
    });
    sleep(limit() - Duration::from_secs(1)).await;
    assert!(dropped.try_recv().is_err(), "it may still read");
    let ended = dropped.await.unwrap() - start;
    assert!(ended <= limit() * 3 / 2, "{ended:?}");
    sleep(limit() * 10).await;
    assert!(idle_dropped.try_recv().is_err() && read_dropped.try_recv().is_err());
    assert_eq!(running.metrics.clients_stalled.get(), 1);
    // No end in order: what was not told is to be asked for.
    let mut last = None;
    while let Some(bytes) = stuck.data().await {
        match bytes {
            Ok(bytes) => stuck.flow_control().release_capacity(bytes.len()).unwrap(),
            Err(error) => {
                last = error.reason();
                break;
            }
        }
    }
    assert_eq!(last, Some(h2::Reason::INTERNAL_ERROR));
    reading.abort();
}

/// A message larger than the window is taken piece by piece, each a sign of life.
#[tokio::test(start_paused = true)]
async fn a_large_event_that_is_read_slowly_is_not_cut() {
    let event = Bytes::from(vec![b'x'; 1024 * 1024]);
    let source = futures_util::stream::iter([event.clone()]).boxed();
    let running = edge(vec![source]);
    let mut requests = http2(&running, 20_000).await;
    let mut body = get(&mut requests).await;
    for _ in 0..40 {
        take(&mut body, 10_000).await;
        sleep(limit() / 2).await;
    }
    assert_eq!(running.metrics.clients_stalled.get(), 0);
}
