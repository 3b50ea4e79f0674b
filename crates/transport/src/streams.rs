//! What is seen of everything that the reconnection engine runs: the streams of a server, and the
//! sessions with it.
//!
//! Whoever runs an engine shows each of its moves to a [`Telemetry`], and metrics, spans and log
//! lines are the same for all of them.

use std::sync::Arc;

use prometheus_client::metrics::gauge::Gauge;
use shadowcat_sse::reconnect::{Kind, Liveness, StateName};

use crate::metrics::{LivenessLabels, Metrics, StreamLabels, Table};

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

/// The gauges of a family whose first label is a stream's kind.
type Gauges<const N: usize> = Table<Gauge, { Kind::ALL.len() }, N>;

impl Streams {
    /// The streams of the server of this name.
    #[must_use]
    pub fn new(server: &str, metrics: Arc<Metrics>) -> Arc<Self> {
        Arc::new(Self {
            server: server.to_owned(),
            metrics,
            states: Gauges::default(),
            livenesses: Gauges::default(),
        })
    }

    /// The streams of a kind that are in a state.
    fn in_state(&self, kind: Kind, state: StateName) -> &Gauge {
        self.states.get(kind as usize, state as usize, || {
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
        self.livenesses.get(kind as usize, liveness as usize, || {
            let labels = LivenessLabels {
                kind: kind.as_str(),
                liveness: liveness.as_str(),
            };
            let family = &self.metrics.streams_by_liveness;
            family.get_or_create_owned(&labels)
        })
    }
}
