//! What an HTTP upstream counts, with the labels looked up once.

use std::sync::Arc;

use prometheus_client::metrics::counter::Counter;
use tokio::time::Instant;

use crate::metrics::{ByteLabels, Metrics, Reason};
use crate::streams::Streams;

/// The counters of one server.
pub(crate) struct Counters {
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) bytes_sent: Counter,
    pub(crate) bytes_received: Counter,
    pub(crate) streams: Arc<Streams>,
}

impl Counters {
    pub(crate) fn new(server: &str, metrics: Arc<Metrics>) -> Self {
        let bytes = |direction| {
            let labels = ByteLabels {
                leg: "upstream",
                direction,
            };
            metrics.bytes.get_or_create(&labels).clone()
        };
        Self {
            bytes_sent: bytes("sent"),
            bytes_received: bytes("received"),
            streams: Streams::new(server, Arc::clone(&metrics)),
            metrics,
        }
    }

    /// An event that holds no message.
    pub(crate) fn bad_message(&self, reason: &'static str) {
        let reason = Reason::of(reason);
        self.metrics.bad_messages.get_or_create(&reason).inc();
    }

    /// An event stream opened; the guard counts it as open until it is dropped.
    pub(crate) fn stream_opened(&self) -> OpenStream {
        self.metrics.stream_connects.inc();
        self.metrics.upstream_streams.inc();
        OpenStream {
            metrics: Arc::clone(&self.metrics),
            since: Instant::now(),
        }
    }
}

/// One open event stream.
pub(crate) struct OpenStream {
    metrics: Arc<Metrics>,
    since: Instant,
}

impl Drop for OpenStream {
    fn drop(&mut self) {
        self.metrics.upstream_streams.dec();
        let age = self.since.elapsed();
        self.metrics.stream_age.observe(age.as_secs_f64());
    }
}
