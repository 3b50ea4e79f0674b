//! What is seen of everything that the reconnection engine runs: the streams of a server, and the
//! sessions with it.
//!
//! Whoever runs an engine shows each of its moves to a [`Telemetry`], and metrics, spans and log
//! lines are the same for all of them.

use std::sync::{Arc, OnceLock};

use prometheus_client::metrics::gauge::Gauge;
use shadowcat_sse::reconnect::{Kind, Liveness, StateName};

use crate::metrics::{LivenessLabels, Metrics, StreamLabels};

mod telemetry;

pub use telemetry::Telemetry;

/// What the streams of one server are counted by, with the labels looked up once.
pub struct Streams {
    /// The server's name in logs.
    server: String,
    metrics: Arc<Metrics>,
    /// Where the streams are, by kind and state.
    states: Gauges<{ StateName::ALL.len() }>,
    /// How alive they seem, by kind and liveness.
    livenesses: Gauges<{ Liveness::ALL.len() }>,
}

/// The gauges of a family with two labels, the first of them a stream's kind. A family hashes its
/// labels for every move of every stream.
struct Gauges<const N: usize>([[OnceLock<Gauge>; N]; Kind::ALL.len()]);

impl<const N: usize> Gauges<N> {
    fn new() -> Self {
        Self(std::array::from_fn(|_| {
            std::array::from_fn(|_| OnceLock::new())
        }))
    }
}

impl Streams {
    /// The streams of the server of this name.
    #[must_use]
    pub fn new(server: &str, metrics: Arc<Metrics>) -> Arc<Self> {
        Arc::new(Self {
            server: server.to_owned(),
            metrics,
            states: Gauges::new(),
            livenesses: Gauges::new(),
        })
    }

    /// The streams of a kind that are in a state.
    fn in_state(&self, kind: Kind, state: StateName) -> &Gauge {
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
    fn seeming(&self, kind: Kind, liveness: Liveness) -> &Gauge {
        self.livenesses.0[kind as usize][liveness as usize].get_or_init(|| {
            let labels = LivenessLabels {
                kind: kind.as_str(),
                liveness: liveness.as_str(),
            };
            let family = &self.metrics.streams_by_liveness;
            family.get_or_create_owned(&labels)
        })
    }
}
