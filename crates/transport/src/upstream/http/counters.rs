//! What an HTTP upstream counts, with the labels looked up once.

use std::sync::{Arc, OnceLock};

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use shadowcat_sse::reconnect::{Kind, Liveness, StateName};
use tokio::time::Instant;

use crate::metrics::{ByteLabels, LivenessLabels, Metrics, Reason, StreamLabels};

/// The counters of one server.
pub(crate) struct Counters {
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) bytes_sent: Counter,
    pub(crate) bytes_received: Counter,
    /// Where the streams are, by kind and state.
    states: Gauges<{ StateName::Closed as usize + 1 }>,
    /// How alive they seem, by kind and liveness.
    livenesses: Gauges<{ Liveness::Dead as usize + 1 }>,
}

/// The gauges of a family with two labels, the first of them a stream's kind. A family hashes its
/// labels for every move of every stream.
struct Gauges<const N: usize>([[OnceLock<Gauge>; N]; Kind::Child as usize + 1]);

impl<const N: usize> Gauges<N> {
    fn new() -> Self {
        Self(std::array::from_fn(|_| {
            std::array::from_fn(|_| OnceLock::new())
        }))
    }
}

impl Counters {
    pub(crate) fn new(metrics: Arc<Metrics>) -> Self {
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
            states: Gauges::new(),
            livenesses: Gauges::new(),
            metrics,
        }
    }

    /// The streams of a kind that are in a state.
    pub(crate) fn streams_in(&self, kind: Kind, state: StateName) -> &Gauge {
        self.states.0[kind as usize][state as usize].get_or_init(|| {
            let labels = StreamLabels {
                kind: kind.as_str(),
                state: state.as_str(),
            };
            let family = &self.metrics.streams_by_state;
            family.get_or_create_owned(&labels)
        })
    }

    /// The streams of a kind that seem so alive.
    pub(crate) fn streams_seeming(&self, kind: Kind, liveness: Liveness) -> &Gauge {
        self.livenesses.0[kind as usize][liveness as usize].get_or_init(|| {
            let labels = LivenessLabels {
                kind: kind.as_str(),
                liveness: liveness.as_str(),
            };
            let family = &self.metrics.streams_by_liveness;
            family.get_or_create_owned(&labels)
        })
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
