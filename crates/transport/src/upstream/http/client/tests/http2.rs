//! Connections that many requests share.

use h2::server::SendResponse;
use http::Response;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::*;

/// A server that lets a connection have so many streams, and answers each with so many bytes once it
/// may.
struct Limited {
    streams: u32,
    bytes: usize,
    may_answer: Semaphore,
    connections: AtomicUsize,
    requests: AtomicUsize,
    open: AtomicUsize,
}

impl Limited {
    fn new(streams: u32, bytes: usize) -> Arc<Self> {
        Arc::new(Self {
            streams,
            bytes,
            may_answer: Semaphore::new(0),
            connections: AtomicUsize::default(),
            requests: AtomicUsize::default(),
            open: AtomicUsize::default(),
        })
    }

    async fn serve(self: Arc<Self>, pipe: DuplexStream) {
        let mut builder = h2::server::Builder::new();
        builder.max_concurrent_streams(self.streams);
        let mut connection = builder.handshake::<_, Bytes>(pipe).await.unwrap();
        while let Some(Ok((_, respond))) = connection.accept().await {
            self.requests.fetch_add(1, Ordering::SeqCst);
            tokio::spawn(Arc::clone(&self).answer(respond));
        }
    }

    async fn answer(self: Arc<Self>, mut respond: SendResponse<Bytes>) {
        self.may_answer.acquire().await.unwrap().forget();
        let mut sending = respond.send_response(Response::new(()), false).unwrap();
        // What the window has no room for waits in the server.
        sending
            .send_data(Bytes::from(vec![0; self.bytes]), true)
            .unwrap();
    }
}

/// Dials a [`Limited`].
struct Pipes(Arc<Limited>);

impl Dial for Pipes {
    fn dial(&self, _uri: &Uri) -> BoxFuture<Result<Wire, DialError>> {
        let server = Arc::clone(&self.0);
        server.connections.fetch_add(1, Ordering::SeqCst);
        server.open.fetch_add(1, Ordering::SeqCst);
        let (ours, theirs) = tokio::io::duplex(64 * 1024);
        tokio::spawn(async move {
            Arc::clone(&server).serve(theirs).await;
            server.open.fetch_sub(1, Ordering::SeqCst);
        });
        Box::pin(std::future::ready(Ok(Wire::new(ours).http2())))
    }
}

fn client(server: &Arc<Limited>) -> Client {
    Client::new(Arc::new(Pipes(Arc::clone(server))))
}

/// Lets everything happen that can happen now.
async fn settle() {
    tokio::time::sleep(Duration::from_millis(1)).await;
}

#[tokio::test(start_paused = true)]
async fn requests_share_a_connection_until_it_is_full_and_then_get_another() {
    let server = Limited::new(2, 1);
    let client = client(&server);
    server.may_answer.add_permits(1);
    assert_eq!(body(&client).await.len(), 1);
    let mut waiting = JoinSet::new();
    for (begun, connections) in [(1, 1), (2, 1), (3, 2), (4, 2), (5, 3)] {
        let client = client.clone();
        waiting.spawn(async move { body(&client).await });
        settle().await;
        assert_eq!(server.requests.load(Ordering::SeqCst), begun + 1);
        assert_eq!(server.connections.load(Ordering::SeqCst), connections);
    }
    server.may_answer.add_permits(5);
    assert!(waiting.join_all().await.iter().all(|body| body.len() == 1));
    // The connections beyond the first are closed when somebody looks.
    server.may_answer.add_permits(1);
    assert_eq!(body(&client).await.len(), 1);
    settle().await;
    assert_eq!(server.open.load(Ordering::SeqCst), 1);
    assert_eq!(server.connections.load(Ordering::SeqCst), 3);
}

#[tokio::test(start_paused = true)]
async fn a_request_that_is_given_up_leaves_its_place() {
    let server = Limited::new(1, 1);
    let client = client(&server);
    server.may_answer.add_permits(1);
    body(&client).await;
    for _ in 0..3 {
        let given_up = tokio::time::timeout(Duration::from_secs(1), body(&client)).await;
        assert!(given_up.is_err());
        settle().await;
    }
    assert_eq!(server.connections.load(Ordering::SeqCst), 1);
}

#[tokio::test(start_paused = true)]
async fn streams_that_nobody_reads_stop_no_other() {
    const UNREAD: usize = 40;
    let server = Limited::new(100, 4 * 1024 * 1024);
    let client = client(&server);
    server.may_answer.add_permits(UNREAD + 1);
    let mut unread = Vec::new();
    for _ in 0..UNREAD {
        let response = client.send(get(), &url(), &Connected::default()).await;
        unread.push(response.unwrap());
    }
    settle().await;
    let whole = tokio::time::timeout(Duration::from_secs(10), body(&client)).await;
    assert_eq!(whole.expect("it is not stopped").len(), server.bytes);
    assert_eq!(server.connections.load(Ordering::SeqCst), 1);
}
