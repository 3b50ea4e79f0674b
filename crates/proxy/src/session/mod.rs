//! One client's relation with one upstream.
//!
//! A session owns both legs. Toward the client it looks the same whatever becomes of the upstream:
//! requests become [exchanges](exchange) that always end in one outcome, notifications and responses keep
//! their order, and a lost upstream session is replaced where the rules allow it
//! ([`continuity`]).
//!
//! It does not know HTTP or stdio: the gateways pull what it produces.

mod asks;
mod continuity;
mod draining;
mod exchange;
mod flight;
mod gap;
mod handshake;
mod lane;
mod link;
mod notify;
mod recovery;
mod standalone;

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::{Mutex, RwLock};
use shadowcat_mcp::fault::Fault;
use shadowcat_mcp::message::{Kind, Message};
use shadowcat_mcp::version::{Era, LegVersion, ProtocolVersion};
use shadowcat_sse::reconnect::{Input, Origin};
use shadowcat_store::{AppendError, Class, Delivery, EventId, EventLog, SessionKey, StreamNumber};
use shadowcat_transport::metrics::Metrics;
use shadowcat_transport::streams::Streams;
use shadowcat_transport::timer::Timers;
use shadowcat_transport::upstream::Upstream;
use tokio::sync::{Notify, OnceCell};
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use tracing::Span;

use crate::config::Config;
use crate::entropy::Entropy;
use crate::mismatch::EraOfUpstream;
use crate::tool_params::ToolParams;
use asks::Asks;
use flight::Flights;
use handshake::Handshake;
use lane::Lane;
use link::Link;
use recovery::Recovery;

pub(crate) use exchange::{Outgoing, Outgoings, Preparation, Refusal};
pub(crate) use standalone::Standalone;

/// How long a shutdown waits, beyond its drain, for a server to end its session.
const COURTESY: Duration = Duration::from_secs(1);

/// What all sessions of one pipeline share.
pub struct Shared {
    /// The settings.
    pub config: Config,
    /// The server.
    pub upstream: Arc<dyn Upstream>,
    /// The event logs.
    pub log: Arc<dyn EventLog>,
    /// Counters.
    pub metrics: Arc<Metrics>,
    /// Randomness.
    pub entropy: Arc<dyn Entropy>,
    /// What the sessions share when they come back.
    pub(crate) origin: Mutex<Origin>,
    /// What is seen of them.
    pub(crate) streams: Arc<Streams>,
    /// What the server turned out to speak.
    pub(crate) era: EraOfUpstream,
    /// Which arguments of its tools are headers, too.
    pub(crate) tool_params: ToolParams,
    /// Whether it was said, since there was room the last time, that there is none in the log.
    pub(crate) short_of_room: AtomicBool,
    /// Cancelled when the process is about to end; see [`draining`].
    pub(crate) draining: CancellationToken,
    /// The same for those who only look: a token locks for that.
    is_draining: AtomicBool,
}

impl Shared {
    /// The parts of one pipeline.
    #[must_use]
    pub fn new(
        config: Config,
        upstream: Arc<dyn Upstream>,
        log: Arc<dyn EventLog>,
        metrics: Arc<Metrics>,
        entropy: Arc<dyn Entropy>,
    ) -> Arc<Self> {
        Arc::new(Self {
            origin: Mutex::new(recovery::origin()),
            streams: Streams::new(upstream.name(), Arc::clone(&metrics)),
            config,
            upstream,
            log,
            metrics,
            entropy,
            era: EraOfUpstream::default(),
            tool_params: ToolParams::default(),
            short_of_room: AtomicBool::new(false),
            draining: CancellationToken::new(),
            is_draining: AtomicBool::new(false),
        })
    }
}

/// See the [module](self).
pub struct Session {
    pub(crate) shared: Arc<Shared>,
    /// Its name in logs and in the event log; says nothing about `Mcp-Session-Id`.
    pub(crate) key: SessionKey,
    /// What is logged on the session's behalf stands in this span or a child of it.
    pub(crate) span: Arc<Span>,
    era: Era,
    version: Mutex<LegVersion>,
    /// What it has settled on, which never changes again, for those who only look.
    negotiated: OnceLock<ProtocolVersion>,
    /// Whether it needs no more validation.
    validated: AtomicBool,
    link: RwLock<Link>,
    /// When a lost leg is replaced.
    recovery: Recovery,
    /// Told after every change of the link's health.
    health_changed: Notify,
    /// Told when a request wants a server that was given up to be tried now.
    hurry: Notify,
    /// Whether the leg in use has brought anything.
    productive: AtomicBool,
    handshake: Mutex<Handshake>,
    lane: Arc<Lane>,
    flights: Flights,
    /// Exchanges that have not ended.
    exchanges: AtomicUsize,
    asks: Asks,
    pub(crate) standalone: Standalone,
    /// Cancelled when the session has ended, for whatever reason.
    ended: CancellationToken,
    /// Why it has ended, where its requests are to be told more than that.
    epitaph: OnceLock<Fault>,
    closed: OnceCell<()>,
    /// Whether the event log has forgotten the session.
    forgotten: AtomicBool,
    activity: Activity,
    /// For waits of its exchanges.
    pub(crate) timers: Timers,
}

/// What keeps a session from being idle.
struct Activity {
    open: AtomicUsize,
    last: Mutex<Instant>,
}

impl Session {
    /// A session whose upstream leg is not open yet.
    pub(crate) fn new(shared: Arc<Shared>, key: SessionKey, era: Era) -> Arc<Self> {
        let leg = shared.upstream.leg(era);
        let span = tracing::error_span!(parent: None, "session", id = key.0);
        Arc::new(Self {
            recovery: Recovery::new(&shared, &span),
            shared,
            key,
            span: Arc::new(span),
            era,
            version: Mutex::new(LegVersion::default()),
            negotiated: OnceLock::new(),
            validated: AtomicBool::new(false),
            link: RwLock::new(Link::new(leg)),
            health_changed: Notify::new(),
            hurry: Notify::new(),
            productive: AtomicBool::new(false),
            handshake: Mutex::new(Handshake::default()),
            lane: Arc::new(Lane::default()),
            flights: Flights::default(),
            exchanges: AtomicUsize::new(0),
            asks: Asks::default(),
            standalone: Standalone::default(),
            ended: CancellationToken::new(),
            epitaph: OnceLock::new(),
            closed: OnceCell::new(),
            forgotten: AtomicBool::new(false),
            activity: Activity {
                open: AtomicUsize::new(0),
                last: Mutex::new(Instant::now()),
            },
            timers: Timers::default(),
        })
    }

    /// The version settled in the handshake, once there is one.
    pub(crate) fn negotiated(&self) -> Option<ProtocolVersion> {
        self.negotiated.get().copied()
    }

    /// A message of the client came by a transport that named this version, or none.
    pub(crate) fn validate(&self, named: Option<ProtocolVersion>) {
        if self.validated.load(Ordering::Relaxed) {
            return;
        }
        let mut version = self.version.lock();
        if !matches!(*version, LegVersion::Validated { .. }) {
            // What disagrees was refused before it came here.
            let _ = version.validate(named);
        }
        let validated = matches!(*version, LegVersion::Validated { .. });
        self.validated.store(validated, Ordering::Relaxed);
    }

    /// Marks the session busy until the guard is dropped.
    pub(crate) fn busy(self: &Arc<Self>) -> Busy {
        self.activity.open.fetch_add(1, Ordering::SeqCst);
        Busy(Arc::clone(self))
    }

    /// The client gave a sign of life.
    pub(crate) fn touch(&self) {
        *self.activity.last.lock() = Instant::now();
    }

    /// Since when nothing has been open; `None` while something is.
    pub(crate) fn idle_since(&self) -> Option<Instant> {
        (self.activity.open.load(Ordering::SeqCst) == 0).then(|| *self.activity.last.lock())
    }

    /// How many requests of the client have no response yet.
    pub(crate) fn exchanges(&self) -> usize {
        self.exchanges.load(Ordering::SeqCst)
    }

    pub(crate) fn era(&self) -> Era {
        self.era
    }

    /// Counts as an exchange that has not ended, for as long as it lives.
    pub(crate) fn opening(self: &Arc<Self>) -> ExchangeOpening {
        self.exchanges.fetch_add(1, Ordering::SeqCst);
        ExchangeOpening(Arc::clone(self))
    }

    /// Ends when the session has ended.
    pub(crate) async fn ended(&self) {
        self.ended.cancelled().await;
    }

    pub(crate) fn has_ended(&self) -> bool {
        self.ended.is_cancelled()
    }

    /// Ends the session: open requests are answered, the server's session is closed. Whoever calls
    /// it waits until that is done, which happens once.
    pub(crate) async fn end(&self) {
        self.ended.cancel();
        self.closed
            .get_or_init(|| async {
                let leg = self.link.read().leg();
                // Over HTTP the end is a courtesy; a process has to be gone.
                let enough = async {
                    if !leg.has_response_heads() {
                        std::future::pending().await
                    }
                    self.shared.draining.cancelled().await;
                    sleep(COURTESY).await;
                };
                tokio::select! {
                    biased;
                    () = leg.close() => {}
                    () = enough => {}
                }
                self.recovery.tell(&self.shared, Input::Close);
                self.show_recovery();
            })
            .await;
    }

    /// Ends the session for the open requests at once, and with the server in the background.
    fn end_soon(self: &Arc<Self>, why: Option<Fault>) {
        if let Some(why) = why {
            let _ = self.epitaph.set(why);
        }
        self.ended.cancel();
        let session = Arc::clone(self);
        tokio::spawn(async move { session.end().await });
    }

    /// Appends to a stream of this session in the event log. A request of the server that has no
    /// room there is answered with an error.
    ///
    /// # Errors
    /// As [`EventLog::append`]; [`AppendError::Closed`] also once the session was forgotten.
    pub(crate) async fn append(
        self: &Arc<Self>,
        stream: StreamNumber,
        message: &Message,
        payload: Bytes,
        delivery: Delivery,
    ) -> Result<EventId, AppendError> {
        if self.forgotten.load(Ordering::SeqCst) {
            return Err(AppendError::Closed);
        }
        self.settle_asks().await;
        let (log, now) = (&self.shared.log, Instant::now().into_std());
        let appended = log
            .append(self.key, stream, class(message), payload, delivery, now)
            .await;
        // Forgotten meanwhile: what came after that would stay for good.
        if self.forgotten.load(Ordering::SeqCst) {
            log.forget(self.key).await;
        }
        if let Kind::Request { id, .. } = message.kind() {
            match appended {
                Ok(place) => self.asks.note_place(id, place),
                Err(AppendError::NoRoom) => Box::pin(self.refuse_for_room(id)).await,
                Err(AppendError::Full | AppendError::Closed) => {}
            }
        }
        appended
    }

    /// Drops everything that the event log holds for this session.
    pub(crate) async fn forget(&self) {
        self.forgotten.store(true, Ordering::SeqCst);
        self.shared.log.forget(self.key).await;
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        // Of one that was never ended.
        self.recovery.tell(&self.shared, Input::Close);
        self.show_recovery();
    }
}

/// How long an append that found a log full waits at most before it looks again: what makes room
/// may be another stream.
const ROOM_LOOK: Duration = Duration::from_secs(1);

/// Waits before an append to a stream is tried again. `progress` is told of its reader's.
pub(crate) async fn wait_for_room(progress: impl Future<Output = ()>) {
    // Rare, and boxed for that: every stream has a place for what it may wait for.
    let _ = Box::pin(tokio::time::timeout(ROOM_LOOK, progress)).await;
}

fn class(message: &Message) -> Class {
    match message.kind() {
        Kind::Request { .. } => Class::ServerRequest,
        Kind::Notification { .. } => Class::Notification,
        Kind::Response { .. } | Kind::Error { .. } => Class::Response,
    }
}

/// What comes before an exchange is open like one; see [`Session::opening`].
pub(crate) struct ExchangeOpening(Arc<Session>);

impl Drop for ExchangeOpening {
    fn drop(&mut self) {
        self.0.exchanges.fetch_sub(1, Ordering::SeqCst);
    }
}

/// Keeps a session from being idle; see [`Session::busy`].
pub(crate) struct Busy(Arc<Session>);

impl Busy {
    /// The session that is busy.
    pub(crate) fn session(&self) -> &Arc<Session> {
        &self.0
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.touch();
        self.0.activity.open.fetch_sub(1, Ordering::SeqCst);
    }
}
