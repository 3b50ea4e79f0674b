//! Where HTTP requests enter: which era they belong to, and the life of the edge.

use std::sync::Arc;
use std::time::Duration;

use http::HeaderMap;
use shadowcat_mcp::classify::{self, Classified};
use shadowcat_mcp::message::Payload;
use shadowcat_mcp::version::Era;
use shadowcat_transport::downstream::{HttpReply, HttpService};
use shadowcat_transport::upstream::BoxFuture;

use super::registry::Registry;
use crate::session::{Session, Shared};
use shadowcat_store::SessionKey;
use tokio::time::{Instant, MissedTickBehavior};
use tracing::info;

/// How often idle sessions are looked for: four times in their time to live, but within these bounds.
const SWEEP: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(10));
/// How often a drain looks whether something is still open.
const DRAIN_LOOK: Duration = Duration::from_millis(20);

/// The pipeline behind a Streamable HTTP edge.
pub struct HttpGateway {
    pub(super) shared: Arc<Shared>,
    pub(super) registry: Arc<Registry>,
    /// Modern clients have no session of their own: all share this one, whose leg keeps their
    /// requests apart.
    pub(super) modern: Arc<Session>,
}

impl HttpGateway {
    /// A pipeline without sessions. Needs a tokio runtime; it sweeps for idle sessions until it is
    /// dropped.
    #[must_use]
    pub fn new(shared: Arc<Shared>) -> Arc<Self> {
        let gateway = Arc::new(Self {
            registry: Registry::new(Arc::clone(&shared)),
            modern: Session::new(Arc::clone(&shared), SessionKey(0), Era::Modern),
            shared,
        });
        let weak = Arc::downgrade(&gateway);
        let (shortest, longest) = SWEEP;
        let beat = (gateway.shared.config.session_ttl / 4).clamp(shortest, longest);
        tokio::spawn(async move {
            let mut sweep = tokio::time::interval(beat);
            sweep.set_missed_tick_behavior(MissedTickBehavior::Delay);
            loop {
                sweep.tick().await;
                let Some(gateway) = weak.upgrade() else {
                    return;
                };
                gateway.registry.sweep().await;
            }
        });
        gateway
    }

    /// Lets nothing begin any more and waits until nothing is in flight, at most for `patience`.
    pub async fn drain(&self, patience: Duration) {
        let deadline = Instant::now() + patience;
        self.shared.drain();
        let open = self.exchanges();
        if open > 0 {
            info!(open, "finishing what is open");
        }
        while self.exchanges() > 0 && Instant::now() < deadline {
            tokio::time::sleep(DRAIN_LOOK).await;
        }
    }

    /// Ends all sessions; what is in flight is answered with an error.
    pub async fn end(&self) {
        self.modern.say_shutting_down();
        let upstream = self.shared.upstream.end();
        tokio::join!(self.registry.end_all(), self.modern.end(), upstream);
    }

    /// How many requests have no response yet.
    fn exchanges(&self) -> usize {
        self.registry.exchanges() + self.modern.exchanges()
    }
}

/// A reply that nobody has to wait for.
pub(super) fn at_once(reply: HttpReply) -> BoxFuture<HttpReply> {
    Box::pin(std::future::ready(reply))
}

impl HttpService for HttpGateway {
    fn post(self: &Arc<Self>, headers: HeaderMap, payload: Payload) -> BoxFuture<HttpReply> {
        match classify::post(&headers, &payload, &self.shared.config.versions) {
            Classified::Legacy(version) => self.legacy_post(headers, version, payload),
            Classified::Modern(request) => {
                Box::pin(Arc::clone(self).modern_post(headers, payload, request))
            }
            Classified::Rejected(rejection) => at_once(HttpReply::Rejected(rejection)),
        }
    }

    fn get(self: &Arc<Self>, headers: HeaderMap) -> BoxFuture<HttpReply> {
        let gateway = Arc::clone(self);
        Box::pin(async move {
            match classify::bodiless(&headers) {
                Ok(version) => gateway.legacy_get(headers, version).await,
                Err(rejection) => HttpReply::Rejected(rejection),
            }
        })
    }

    fn delete(self: &Arc<Self>, headers: HeaderMap) -> BoxFuture<HttpReply> {
        let gateway = Arc::clone(self);
        Box::pin(async move {
            match classify::bodiless(&headers) {
                Ok(version) => gateway.legacy_delete(headers, version).await,
                Err(rejection) => HttpReply::Rejected(rejection),
            }
        })
    }
}
