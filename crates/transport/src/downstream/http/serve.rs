//! Accepting and serving connections, and ending them in order.

mod wire;

use std::convert::Infallible;
use std::future::poll_fn;
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use http::Version;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulConnection;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, sleep, sleep_until, timeout, timeout_at};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{debug, warn};

use super::super::HttpService;
use super::open::{ConnectionState, EdgeState};
use super::stall::Patience;
use super::version::HttpVersion;
use super::{Accept, HEADER_BYTES, HttpEdge};
use crate::repoll::{OnWake, Rounds};
use wire::ClientWire;

/// Connections beyond the limit that may be told so at the same time; more wait to be accepted.
const MAX_REFUSALS: usize = 64;
/// How long accepting pauses when the system is out of descriptors or memory.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// How long a connection may take to end once it has nothing open any more.
const END_PATIENCE: Duration = Duration::from_secs(1);
/// Polls of a connection in a row; one that wakes itself more often waits for its turn.
const POLLS: u8 = 4;
/// Distance of HTTP/2 PING frames on a connection with open streams.
const PING_INTERVAL: Duration = Duration::from_secs(30);
/// Requests that one HTTP/2 connection may have open.
const MAX_STREAMS: u32 = 1000;

impl HttpEdge {
    /// Serves until `shutdown` completes and says by when all has to be over. Then nothing is
    /// accepted any more, idle connections are closed and open exchanges may finish; after the last
    /// of them the subscriptions end, which would never end by themselves. What is left at that
    /// time is cut.
    pub async fn serve<S: HttpService>(
        self: Arc<Self>,
        listener: impl Accept,
        service: Arc<S>,
        shutdown: impl Future<Output = Instant> + Send,
    ) {
        let state = Arc::new(EdgeState::default());
        let connections = TaskTracker::new();
        let heartbeat = tokio::spawn(Arc::clone(&self.heartbeat).run());
        let (stop, cut) = (CancellationToken::new(), CancellationToken::new());
        let accepting = self.accept_all(listener, |io, seat| {
            let connection = Connection {
                edge: Arc::clone(&self),
                service: Arc::clone(&service),
                state: ConnectionState::new(Arc::clone(&state)),
                seat,
                wakes: OnWake::default(),
            };
            // A child token of its own keeps connections from contending for one lock.
            let (stop, cut) = (stop.child_token(), cut.child_token());
            connections.spawn(connection.serve(io, End { stop, cut }));
        });
        let deadline = tokio::select! {
            // Who came before the end is let in.
            biased;
            never = accepting => match never {},
            deadline = shutdown => deadline,
        };
        stop.cancel();
        connections.close();
        let drained = async {
            state.finished().await;
            state.end_subscriptions();
            let _ = timeout(END_PATIENCE, connections.wait()).await;
        };
        if timeout_at(deadline, drained).await.is_err() {
            warn!(
                open = connections.len(),
                "cutting connections that did not end in time"
            );
        }
        cut.cancel();
        heartbeat.abort();
        connections.wait().await;
    }

    async fn accept_all<A: Accept>(
        &self,
        mut listener: A,
        mut start: impl FnMut(A::Io, Seat),
    ) -> Infallible {
        let seats = Arc::new(Semaphore::new(self.config.max_connections));
        let refusals = Arc::new(Semaphore::new(MAX_REFUSALS));
        loop {
            let io = match listener.accept().await {
                Ok(io) => io,
                Err(error) if is_of_one_connection(&error) => {
                    debug!(%error, "a connection ended before it was accepted");
                    continue;
                }
                Err(error) => {
                    warn!(%error, "cannot accept connections for now");
                    sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            if let Ok(permit) = Arc::clone(&seats).try_acquire_owned() {
                start(io, Seat::Served { _permit: permit });
            } else if let Ok(permit) = Arc::clone(&refusals).acquire_owned().await {
                start(io, Seat::Refused { _permit: permit });
            }
        }
    }
}

/// Whether an accept failed because of its one peer, so that the next may be tried at once.
fn is_of_one_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionRefused
            | io::ErrorKind::Interrupted
    )
}

/// A connection's place within the limits.
enum Seat {
    Served { _permit: OwnedSemaphorePermit },
    Refused { _permit: OwnedSemaphorePermit },
}

/// When a connection ends by our will.
struct End {
    /// What is open may finish.
    stop: CancellationToken,
    /// At once. Only after `stop`.
    cut: CancellationToken,
}

struct Connection<S> {
    edge: Arc<HttpEdge>,
    service: Arc<S>,
    state: Arc<ConnectionState>,
    seat: Seat,
    /// Whether the answer that an HTTP/1.1 connection waits for was woken: it waits for one at a time,
    /// and what knows the waker of the last one need not be told another.
    wakes: OnWake,
}

impl<S: HttpService> Connection<S> {
    async fn serve(
        self,
        io: impl tokio::io::AsyncRead + tokio::io::AsyncWrite + Send + Unpin + 'static,
        end: End,
    ) {
        let open = self.edge.metrics.client_connections.clone();
        open.inc();
        let _closed = OnDrop(|| {
            open.dec();
        });
        let refused = matches!(self.seat, Seat::Refused { .. });
        // The edge and the service are everybody's. What a request counts references to is its
        // connection, which is seldom in two threads' hands.
        let this = Arc::new(self);
        let connection = Arc::clone(&this);
        let answer = service_fn(move |request| {
            let this = Arc::clone(&connection);
            let version = request.version();
            let open = this.state.begin(version);
            async move {
                let response = if refused {
                    this.edge.turn_away(open)
                } else {
                    let mut answer = pin!(this.edge.answer(&this.service, request, open));
                    let own = (version == Version::HTTP_2).then(OnWake::default);
                    let wakes = own.as_ref().unwrap_or(&this.wakes);
                    wakes.begin();
                    poll_fn(|cx| wakes.poll(cx, |cx| answer.as_mut().poll(cx))).await
                };
                Ok::<_, Infallible>(response)
            }
        });
        let patience = Patience {
            limit: this.edge.config.stall_timeout,
            stalled: this.edge.metrics.clients_stalled.clone(),
        };
        let mut abandoned = pin!(this.abandoned());
        let begun = tokio::select! {
            biased;
            begun = ClientWire::begin(io, patience.clone()) => begun,
            () = end.stop.cancelled() => return,
            () = abandoned.as_mut() => return,
        };
        let served = match begun {
            Ok((io, HttpVersion::One)) => {
                let connection = http1_builder(refused).serve_connection(TokioIo::new(io), answer);
                drive(pin!(connection), end, abandoned).await
            }
            Ok((io, HttpVersion::Two)) => {
                let connection = http2_builder().serve_connection(TokioIo::new(io), answer);
                let watching = this.state.watch.run(&patience);
                let abandoned = async {
                    tokio::select! {
                        () = abandoned => {}
                        never = watching => match never {},
                    }
                };
                // Boxed: every connection has room for its largest path, and most speak the other.
                Box::pin(async { drive(pin!(connection), end, pin!(abandoned)).await }).await
            }
            Err(error) => {
                debug!(%error, "a client connection ended before it was told what it speaks");
                return;
            }
        };
        if let Err(error) = served {
            debug!(%error, "a client connection ended early");
        }
    }

    /// Ends when the connection brought no first request in time, or none for too long.
    async fn abandoned(&self) {
        let config = &self.edge.config;
        let mut seen = Some(0);
        let mut deadline = Instant::now() + config.header_timeout;
        loop {
            sleep_until(deadline).await;
            let now = self.state.idle_since();
            if now.is_some() && now == seen {
                return;
            }
            seen = now;
            deadline += config.idle_timeout;
        }
    }
}

/// Lets the connection go on until it ends, we end, or nothing comes over it.
async fn drive(
    mut connection: Pin<&mut impl GracefulConnection<Error = hyper::Error>>,
    end: End,
    abandoned: Pin<&mut impl Future<Output = ()>>,
) -> hyper::Result<()> {
    let mut rounds = Rounds::default();
    let mut ending = pin!(async {
        tokio::select! {
            biased;
            () = end.stop.cancelled() => false,
            () = abandoned => true,
        }
    });
    // Looked at when one of them has come: the connection is polled several times for each request.
    let ends = OnWake::default();
    let served_or_ending = poll_fn(|cx| {
        let served = rounds.poll(cx, POLLS, |cx| connection.as_mut().poll(cx));
        if let Poll::Ready(served) = served {
            return Poll::Ready(Err(served));
        }
        ends.poll(cx, |cx| ending.as_mut().poll(cx)).map(Ok)
    });
    let is_abandoned = match served_or_ending.await {
        Ok(is_abandoned) => is_abandoned,
        Err(served) => return served,
    };
    connection.as_mut().graceful_shutdown();
    let patience = async {
        match is_abandoned {
            true => sleep(END_PATIENCE).await,
            false => std::future::pending().await,
        }
    };
    // Through the same rounds: what was given a waker of theirs still holds it.
    let serve = poll_fn(|cx| rounds.poll(cx, POLLS, |cx| connection.as_mut().poll(cx)));
    tokio::select! {
        biased;
        served = serve => served,
        () = end.cut.cancelled() => Ok(()),
        () = patience => Ok(()),
    }
}

fn http1_builder(refused: bool) -> http1::Builder {
    let mut builder = http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        // Both header timeouts are the watch's: hyper's would arm a timer for every request.
        .header_read_timeout(None)
        .max_buf_size(usize::from(HEADER_BYTES))
        .keep_alive(!refused);
    builder
}

fn http2_builder() -> http2::Builder<TokioExecutor> {
    let mut builder = http2::Builder::new(TokioExecutor::new());
    builder
        .timer(TokioTimer::new())
        .keep_alive_interval(PING_INTERVAL)
        .max_header_list_size(u32::from(HEADER_BYTES))
        .max_concurrent_streams(MAX_STREAMS);
    builder
}

/// Runs a closure when dropped.
struct OnDrop<F: FnMut()>(F);

impl<F: FnMut()> Drop for OnDrop<F> {
    fn drop(&mut self) {
        (self.0)();
    }
}
