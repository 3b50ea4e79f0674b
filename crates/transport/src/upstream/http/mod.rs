//! Servers reached over HTTP: Streamable HTTP of both eras, and HTTP+SSE (2024-11-05) where a
//! server turns out to speak nothing newer.
//!
//! - [`dial`](Dial) makes connections, and is what a simulation replaces;
//! - `reach` says when the server can no longer be reached, and when it can again;
//! - the `driver` obeys the reconnection engine: every message and every stream goes through one;
//! - `siblings` keeps the streams of a session from telling each other's messages;
//! - `answer` reads what a response head means;
//! - a leg per session (`auto`) finds out which transport the server speaks, and is then one of
//!   Streamable HTTP (`session`) or of HTTP+SSE (`legacy_sse`).
//!
//! MCP specification: "Transports, Streamable HTTP" (2025-03-26 to 2026-07-28) and "Transports,
//! HTTP with SSE" (2024-11-05).

mod answer;
mod auto;
mod body;
mod budget;
mod client;
mod config;
mod counters;
mod dial;
mod driver;
mod events;
mod examine;
mod faults;
mod legacy_sse;
mod listen;
mod modern;
mod one_way;
mod permits;
mod reach;
mod refusing;
mod reply;
mod session;
mod siblings;
mod standalone;
mod target;

use std::sync::Arc;

use http::header::{ACCEPT, CONTENT_LENGTH, CONTENT_TYPE, HOST};
use http::{HeaderMap, HeaderValue};
use parking_lot::Mutex;
use shadowcat_mcp::headers;
use shadowcat_mcp::version::Era;
use shadowcat_sse::reconnect::Origin;

use super::{BoxFuture, Leg, Upstream};
use crate::metrics::Metrics;
use auto::{AutoLeg, KnownTransport};
use budget::ReadBudget;
use client::Client;
pub use config::{HttpUpstreamConfig, Policy, Random, system_random};
use counters::Counters;
pub use dial::{CONNECT_TIMEOUT, Dial, DialError, NetDial, Wire};
pub use examine::{Examination, Resumption};
use modern::ModernLeg;
use permits::Connections;
use reach::Reach;
pub use target::UrlError;

/// Room in a POST's header fields for the session's own and one more: hyper makes room before it looks
/// whether it needs it.
const SPARE_FIELDS: usize = 4;

/// A server reached over HTTP.
pub struct HttpUpstream {
    shared: Arc<Shared>,
}

/// What all legs of one server share.
pub(crate) struct Shared {
    config: HttpUpstreamConfig,
    /// The URL without its query.
    name: String,
    client: Client,
    dial: Arc<dyn Dial>,
    /// `--max-connections`.
    connections: Connections,
    /// What the streams of the server share: pace, concurrent connects, breaker, herd.
    origin: Arc<Mutex<Origin>>,
    budget: ReadBudget,
    random: Random,
    counters: Counters,
    transport: KnownTransport,
    /// What every POST carries.
    post_headers: Arc<HeaderMap>,
}

impl HttpUpstream {
    /// An upstream that reaches its server through `dial`, takes its jitter from `random` and counts
    /// into `metrics`.
    ///
    /// # Errors
    /// When the URL cannot be a server's.
    pub fn new(
        config: HttpUpstreamConfig,
        dial: Arc<dyn Dial>,
        random: Random,
        metrics: Arc<Metrics>,
    ) -> Result<Self, UrlError> {
        target::check(&config.url)?;
        let mut post_headers = config.headers.clone();
        post_headers.insert(
            ACCEPT,
            HeaderValue::from_static("application/json, text/event-stream"),
        );
        post_headers.insert(CONTENT_TYPE, headers::JSON);
        // A place for what every POST writes there: a clone has no room for more fields.
        post_headers.insert(CONTENT_LENGTH, HeaderValue::from(0));
        post_headers.reserve(SPARE_FIELDS);
        if let Some(host) = client::host(&config.url) {
            post_headers.entry(HOST).or_insert(host);
        }
        if let Some(auth) = dial.proxy_authorization(&config.url) {
            post_headers.insert(http::header::PROXY_AUTHORIZATION, auth);
        }
        let origin = Arc::default();
        metrics.watch(&origin);
        let name = target::display_name(&config.url);
        let dial: Arc<dyn Dial> = Arc::new(Reach::new(dial, name.clone()));
        Ok(Self {
            shared: Arc::new(Shared {
                counters: Counters::new(&name, metrics),
                name,
                client: Client::new(Arc::clone(&dial)),
                dial,
                connections: Connections::new(config.max_connections),
                origin,
                budget: ReadBudget::new(config.max_message_size),
                random,
                transport: KnownTransport::default(),
                post_headers: Arc::new(post_headers),
                config,
            }),
        })
    }
}

impl Upstream for HttpUpstream {
    fn leg(&self, era: Era) -> Arc<dyn Leg> {
        let shared = Arc::clone(&self.shared);
        match era {
            Era::Legacy => Arc::new(AutoLeg::new(shared)),
            Era::Modern => Arc::new(ModernLeg::new(shared)),
        }
    }

    fn probe(&self) -> BoxFuture<Result<(), String>> {
        let dialling = self.shared.dial.dial(&self.shared.config.url);
        let name = self.shared.name.clone();
        Box::pin(async move {
            match dialling.await {
                Ok(_) => Ok(()),
                Err(error) => {
                    let advice = error.advice();
                    Err(format!("{name} cannot be reached: {error}; {advice}"))
                }
            }
        })
    }

    fn name(&self) -> &str {
        &self.shared.name
    }
}

/// Adds what a client sent under names that the leg does not use itself.
fn add_missing(headers: &mut HeaderMap, extra: &HeaderMap) {
    for name in extra.keys() {
        if !headers.contains_key(name) {
            for value in extra.get_all(name) {
                headers.append(name.clone(), value.clone());
            }
        }
    }
}
