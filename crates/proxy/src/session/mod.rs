//! One client's relation with one upstream.
//!
//! A session owns both legs. Toward the client it looks the same whatever becomes of the upstream:
//! requests become [exchanges](exchange) that always end in one outcome, notifications and responses keep
//! their order, and a lost upstream session is replaced where the rules allow it
//! ([`continuity`]).
//!
//! It does not know HTTP or stdio: the gateways pull what it produces.

mod continuity;
mod exchange;
mod flight;
mod handshake;
mod lane;
mod notify;
mod standalone;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::{Mutex, RwLock};
use shadowcat_mcp::version::{Era, LegVersion, ProtocolVersion};
use shadowcat_store::{EventLog, SessionKey};
use shadowcat_transport::metrics::Metrics;
use shadowcat_transport::upstream::{Leg, Upstream};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::config::Config;
use crate::entropy::Entropy;
use crate::mismatch::EraOfUpstream;
use flight::{Asks, Flights};
use handshake::Handshake;
use lane::Lane;

pub(crate) use exchange::{Outgoing, Outgoings};
pub(crate) use standalone::Standalone;

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
    /// What the server turned out to speak.
    pub(crate) era: EraOfUpstream,
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
            config,
            upstream,
            log,
            metrics,
            entropy,
            era: EraOfUpstream::default(),
        })
    }
}

/// See the [module](self).
pub struct Session {
    pub(crate) shared: Arc<Shared>,
    /// Its name in logs and in the event log; says nothing about `Mcp-Session-Id`.
    pub(crate) key: SessionKey,
    era: Era,
    version: Mutex<LegVersion>,
    link: RwLock<Link>,
    healing: tokio::sync::Mutex<()>,
    handshake: Mutex<Handshake>,
    lane: Arc<Lane>,
    flights: Flights,
    asks: Asks,
    pub(crate) standalone: Standalone,
    /// Cancelled when the session has ended, for whatever reason.
    ended: CancellationToken,
    activity: Activity,
}

/// The leg in use. Each replacement has a new generation, so that two who notice the same loss
/// replace it once.
struct Link {
    leg: Arc<dyn Leg>,
    generation: u64,
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
        Arc::new(Self {
            shared,
            key,
            era,
            version: Mutex::new(LegVersion::default()),
            link: RwLock::new(Link { leg, generation: 0 }),
            healing: tokio::sync::Mutex::new(()),
            handshake: Mutex::new(Handshake::default()),
            lane: Arc::new(Lane::default()),
            flights: Flights::default(),
            asks: Asks::default(),
            standalone: Standalone::default(),
            ended: CancellationToken::new(),
            activity: Activity {
                open: AtomicUsize::new(0),
                last: Mutex::new(Instant::now()),
            },
        })
    }

    /// The version settled in the handshake, once there is one.
    pub(crate) fn negotiated(&self) -> Option<ProtocolVersion> {
        self.version.lock().negotiated()
    }

    /// Whether replies of the current leg have heads; see [`Leg::has_response_heads`].
    pub(crate) fn has_response_heads(&self) -> bool {
        self.link.read().leg.has_response_heads()
    }

    fn leg(&self) -> (Arc<dyn Leg>, u64) {
        let link = self.link.read();
        (Arc::clone(&link.leg), link.generation)
    }

    /// Marks the session busy until the guard is dropped.
    pub(crate) fn busy(self: &Arc<Self>) -> Busy {
        self.activity.open.fetch_add(1, Ordering::SeqCst);
        Busy(Arc::clone(self))
    }

    /// Since when nothing has been open; `None` while something is.
    pub(crate) fn idle_since(&self) -> Option<Instant> {
        (self.activity.open.load(Ordering::SeqCst) == 0).then(|| *self.activity.last.lock())
    }

    /// How many requests of the client have no response yet.
    pub(crate) fn exchanges(&self) -> usize {
        self.flights.len()
    }

    pub(crate) fn era(&self) -> Era {
        self.era
    }

    /// Ends when the session has ended.
    pub(crate) async fn ended(&self) {
        self.ended.cancelled().await;
    }

    pub(crate) fn has_ended(&self) -> bool {
        self.ended.is_cancelled()
    }

    /// Ends the session: open requests are answered, the server's session is closed, the log is
    /// forgotten. Idempotent.
    pub(crate) async fn end(&self) {
        if self.has_ended() {
            return;
        }
        self.ended.cancel();
        let (leg, _) = self.leg();
        leg.close().await;
        self.shared.log.forget(self.key).await;
    }
}

/// Keeps a session from being idle; see [`Session::busy`].
pub(crate) struct Busy(Arc<Session>);

impl Drop for Busy {
    fn drop(&mut self) {
        *self.0.activity.last.lock() = Instant::now();
        self.0.activity.open.fetch_sub(1, Ordering::SeqCst);
    }
}
