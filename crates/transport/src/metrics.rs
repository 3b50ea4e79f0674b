//! What Shadowcat counts, as Prometheus text.
//!
//! One field per fact. Labels have few values: known methods and "other", fault kinds, sides; never
//! an id, a URL or a tool's name.

use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use parking_lot::Mutex;
use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue, LabelValueEncoder, text};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;
use shadowcat_mcp::method::Method;
use shadowcat_sse::reconnect::{Origin, OriginSummary};

macro_rules! outcomes {
    ($($(#[$doc:meta])* $variant:ident = $name:literal,)*) => {
        /// How an exchange ended.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum Outcome {
            $($(#[$doc])* $variant,)*
        }

        impl Outcome {
            const COUNT: usize = [$($name),*].len();

            fn as_str(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)*
                }
            }
        }
    };
}

outcomes! {
    /// With a result.
    Result = "result",
    /// With the server's error.
    Error = "error",
    /// With a fault of ours.
    Fault = "fault",
    /// Without a response: the client cancelled or a modern stream was closed.
    Cancelled = "cancelled",
}

impl EncodeLabelValue for Outcome {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> Result<(), std::fmt::Error> {
        EncodeLabelValue::encode(&self.as_str(), encoder)
    }
}

/// A method as a label.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct MethodLabel(Method);

impl From<&Method> for MethodLabel {
    fn from(method: &Method) -> Self {
        match method {
            // An unknown method's name is the peer's choice: it must not make a series.
            Method::Other(_) => Self(Method::Other("other".into())),
            known => Self(known.clone()),
        }
    }
}

impl EncodeLabelValue for MethodLabel {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> Result<(), std::fmt::Error> {
        EncodeLabelValue::encode(&self.0.as_str(), encoder)
    }
}

/// Labels of [`Metrics::requests`].
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct RequestLabels {
    /// The method.
    pub method: MethodLabel,
    /// The outcome.
    pub outcome: Outcome,
}

/// A label whose values are names from a fixed table, such as fault kinds.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Reason {
    /// The name.
    pub reason: &'static str,
}

impl Reason {
    /// The label for a name.
    #[must_use]
    pub fn of(reason: &'static str) -> Self {
        Self { reason }
    }
}

/// Which way bytes went.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct ByteLabels {
    /// `downstream` or `upstream`.
    pub leg: &'static str,
    /// `received` or `sent`.
    pub direction: &'static str,
}

/// Labels of [`Metrics::streams_by_state`].
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct StreamLabels {
    /// What the stream is: `standalone`, `response`, `listen`, `session` and so on.
    pub kind: &'static str,
    /// Where it is: `open`, `backoff`, `parked` and so on.
    pub state: &'static str,
}

/// Labels of [`Metrics::streams_by_liveness`].
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct LivenessLabels {
    /// What the stream is, as in [`StreamLabels`].
    pub kind: &'static str,
    /// `healthy`, `degraded` or `dead`.
    pub liveness: &'static str,
}

/// Labels of [`Metrics::upstreams`].
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct UpstreamLabels {
    /// `up`, `slow_start`, `held` or `down`.
    pub state: &'static str,
}

/// Labels of [`Metrics::rejections`].
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct StatusLabel {
    /// The HTTP status.
    pub status: u16,
}

/// The members of a family with two labels of few values, each looked up once: at every look-up a
/// family hashes its labels and takes a lock that all threads take.
#[derive(Debug)]
pub(crate) struct Table<M, const ROWS: usize, const COLUMNS: usize>([[OnceLock<M>; COLUMNS]; ROWS]);

impl<M, const ROWS: usize, const COLUMNS: usize> Default for Table<M, ROWS, COLUMNS> {
    fn default() -> Self {
        Self(std::array::from_fn(|_| {
            std::array::from_fn(|_| OnceLock::new())
        }))
    }
}

impl<M, const ROWS: usize, const COLUMNS: usize> Table<M, ROWS, COLUMNS> {
    /// The member at this place, `looked_up` the first time.
    pub(crate) fn get(&self, row: usize, column: usize, looked_up: impl FnOnce() -> M) -> &M {
        self.0[row][column].get_or_init(looked_up)
    }
}

macro_rules! metrics {
    ($($(#[doc = $doc:literal])+ $field:ident: $type:ty = $name:literal, $make:expr;)*) => {
        /// All counters of one process.
        #[derive(Debug)]
        pub struct Metrics {
            registry: Registry,
            /// Looked at when there is a scrape.
            origins: Mutex<Vec<Weak<Mutex<Origin>>>>,
            /// The counters of `requests`, by method and outcome.
            ended: Table<Counter, { Method::KNOWN.len() + 1 }, { Outcome::COUNT }>,
            $($(#[doc = $doc])+ pub $field: $type,)*
        }

        impl Metrics {
            /// Every family: its name, without the prefix and what its type adds, and what it is,
            /// without the full stop.
            pub const FAMILIES: &'static [(&'static str, &'static str)] = &[$(($name, explanation(concat!($($doc,)+)))),*];
        }

        impl Default for Metrics {
            fn default() -> Self {
                let mut registry = Registry::with_prefix("shadowcat");
                $(
                    let $field: $type = $make;
                    registry.register($name, explanation(concat!($($doc,)+)), $field.clone());
                )*
                Self { registry, origins: Mutex::default(), ended: Table::default(), $($field),* }
            }
        }
    };
}

/// A docstring of one sentence, without its full stop.
const fn explanation(doc: &'static str) -> &'static str {
    let doc = doc.trim_ascii();
    match doc.as_bytes() {
        [.., b'.'] => doc.split_at(doc.len() - 1).0,
        _ => doc,
    }
}

metrics! {
    /// Sessions of HTTP clients open now.
    sessions: Gauge = "sessions", Gauge::default();
    /// Sessions of HTTP clients opened.
    sessions_opened: Counter = "sessions_opened", Counter::default();
    /// Requests of clients by method and outcome.
    requests: Family<RequestLabels, Counter> = "requests", Family::default();
    /// Seconds from a request to its response.
    request_seconds: Histogram = "request_seconds", seconds();
    /// Messages refused before any server saw them, by HTTP status.
    rejections: Family<StatusLabel, Counter> = "rejections", Family::default();
    /// Event streams open toward clients.
    client_streams: Gauge = "client_streams", Gauge::default();
    /// Event streams open toward upstreams.
    upstream_streams: Gauge = "upstream_streams", Gauge::default();
    /// Streams that an upstream is asked for or gives, and sessions with it, by kind and state.
    streams_by_state: Family<StreamLabels, Gauge> = "streams_by_state", Family::default();
    /// Streams of an upstream and sessions with it that were open, by kind and how alive they seem; `dead` ones are away.
    streams_by_liveness: Family<LivenessLabels, Gauge> = "streams_by_liveness", Family::default();
    /// Upstreams reached over HTTP by state; `held` by a Retry-After, `down` when none of their connects succeeds.
    upstreams: Family<UpstreamLabels, Gauge> = "upstreams", Family::default();
    /// Event streams waiting in line to connect to their upstream.
    streams_waiting: Gauge = "streams_waiting", Gauge::default();
    /// Event streams connecting to their upstream.
    streams_connecting: Gauge = "streams_connecting", Gauge::default();
    /// Connects to upstreams that failed since the last that did not.
    connect_failures: Gauge = "connect_failures", Gauge::default();
    /// Bytes of messages and streams by leg and direction.
    bytes: Family<ByteLabels, Counter> = "bytes", Family::default();
    /// Connections of HTTP clients open now.
    client_connections: Gauge = "client_connections", Gauge::default();
    /// Connections of HTTP clients, and HTTP/2 streams, closed because their client took nothing for too long.
    clients_stalled: Counter = "clients_stalled", Counter::default();
    /// Child processes running.
    children: Gauge = "children", Gauge::default();
    /// Child processes started.
    child_starts: Counter = "child_starts", Counter::default();
    /// Child processes started after one had ended by itself.
    child_restarts: Counter = "child_restarts", Counter::default();
    /// Child processes that ended, by cause; `stopped` is our own doing.
    child_exits: Family<Reason, Counter> = "child_exits", Family::default();
    /// Child processes that ended by themselves.
    child_crashes: Counter = "child_crashes", Counter::default();
    /// Upstream event streams opened.
    stream_connects: Counter = "stream_connects", Counter::default();
    /// Upstream event streams that their server ended in order, after a `retry` or a new event id: polled, no drop.
    stream_polls: Counter = "stream_polls", Counter::default();
    /// Times that the silent stream of an open call was resumed anew to ask for more.
    stream_rechecks: Counter = "stream_rechecks", Counter::default();
    /// Upstream event streams and sessions that broke, by cause.
    stream_drops: Family<Reason, Counter> = "stream_drops", Family::default();
    /// Attempts to reconnect an upstream event stream or to replace a session, by outcome.
    reconnect_attempts: Family<Reason, Counter> = "reconnect_attempts", Family::default();
    /// Seconds from a drop or a lost session to its recovery.
    time_to_recover: Histogram = "time_to_recover_seconds", seconds();
    /// Upstream event streams resumed at their cursor.
    streams_resumed: Counter = "streams_resumed", Counter::default();
    /// Events dropped because they had been delivered before.
    duplicates_dropped: Counter = "duplicates_dropped", Counter::default();
    /// Events whose id was used before with another payload.
    id_reuses: Counter = "id_reuses", Counter::default();
    /// Ids that left a deduplication window, of a stream or of a session with resumed streams.
    dedup_overflows: Counter = "dedup_overflows", Counter::default();
    /// Streams and sessions given up: no attempt is made any more, or one a minute.
    given_up: Counter = "given_up", Counter::default();
    /// Streams and sessions whose retry budget was used up.
    budget_exhausted: Counter = "budget_exhausted", Counter::default();
    /// Seconds that an upstream event stream lived.
    stream_age: Histogram = "stream_age_seconds", seconds();
    /// Seconds of silence before an upstream event stream was taken for dead.
    silent_age: Histogram = "silent_age_seconds", seconds();
    /// Times that messages may have been missed because a stream had no cursor.
    gaps: Counter = "gaps", Counter::default();
    /// Upstream sessions replaced.
    sessions_healed: Counter = "sessions_healed", Counter::default();
    /// Attempts to replace an upstream session that failed.
    sessions_not_healed: Counter = "sessions_not_healed", Counter::default();
    /// Requests sent a second time where that is safe.
    requests_repeated: Counter = "requests_repeated", Counter::default();
    /// Streams that a client came back to.
    resumed_by_clients: Counter = "resumed_by_clients", Counter::default();
    /// Messages that a returning client could not be given any more.
    replay_missed: Counter = "replay_missed", Counter::default();
    /// Notifications merged with an equal one that waited already.
    coalesced: Counter = "coalesced", Counter::default();
    /// Messages given up: a queue was full, their client had vanished or been told already, by kind
    /// or reason.
    messages_given_up: Family<Reason, Counter> = "messages_given_up", Family::default();
    /// Settings of clients that a session could not remember, by kind.
    not_remembered: Family<Reason, Counter> = "not_remembered", Family::default();
    /// Messages of clients that the server did not take.
    undelivered_messages: Counter = "undelivered_messages", Counter::default();
    /// Events on a resumed stream left to the open request that they belong to.
    events_left: Counter = "events_left", Counter::default();
    /// Responses that answer no open request.
    stray_responses: Counter = "stray_responses", Counter::default();
    /// Events or lines that are no JSON-RPC message; `empty object` is harmless: what some event stores replay for a priming event.
    bad_messages: Family<Reason, Counter> = "bad_messages", Family::default();
}

/// 100 µs to about 100 s.
fn seconds() -> Histogram {
    Histogram::new((0..21).map(|power| 0.0001 * f64::from(1_u32 << power)))
}

impl Metrics {
    /// Counts the end of a request.
    pub fn request_ended(&self, method: &Method, outcome: Outcome, took: Duration) {
        let ended = self.ended.get(method.place(), outcome as usize, || {
            self.requests.get_or_create_owned(&RequestLabels {
                method: method.into(),
                outcome,
            })
        });
        ended.inc();
        self.request_seconds.observe(took.as_secs_f64());
    }

    /// Shows what the streams of an upstream share from now on, for as long as there is one.
    pub fn watch(&self, origin: &Arc<Mutex<Origin>>) {
        self.origins.lock().push(Arc::downgrade(origin));
    }

    /// Looks at all upstreams: their state is not worth a gauge that follows each step of it.
    fn look(&self) {
        let now = tokio::time::Instant::now().into_std();
        let mut origins = self.origins.lock();
        origins.retain(|origin| origin.strong_count() > 0);
        let mut states = ["up", "slow_start", "held", "down"].map(|state| (state, 0));
        let (mut waiting, mut connecting, mut failures) = (0, 0, 0);
        for origin in origins.iter().filter_map(Weak::upgrade) {
            let summary = origin.lock().summary(now);
            waiting += count(summary.waiting);
            connecting += count(summary.connecting);
            failures += i64::from(summary.connect_failures);
            let state = match summary {
                OriginSummary { down: true, .. } => "down",
                OriginSummary {
                    hold_until: Some(_),
                    ..
                } => "held",
                OriginSummary {
                    slow_start: true, ..
                } => "slow_start",
                _ => "up",
            };
            for (_, n) in states.iter_mut().filter(|(name, _)| *name == state) {
                *n += 1;
            }
        }
        for (state, n) in states {
            let labels = UpstreamLabels { state };
            self.upstreams.get_or_create(&labels).set(n);
        }
        self.streams_waiting.set(waiting);
        self.streams_connecting.set(connecting);
        self.connect_failures.set(failures);
    }

    /// The text for a scrape.
    #[must_use]
    pub fn render(&self) -> String {
        self.look();
        let mut out = String::new();
        // Writing to a string cannot fail.
        let _ = text::encode(&mut out, &self.registry);
        out
    }
}

fn count(n: usize) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scrape_names_methods_but_not_those_of_the_peer() {
        let metrics = Metrics::default();
        let took = Duration::from_millis(3);
        metrics.request_ended(&Method::ToolsCall, Outcome::Result, took);
        metrics.request_ended(&Method::Other("evil\"\n".into()), Outcome::Error, took);
        let text = metrics.render();
        assert!(
            text.contains(r#"shadowcat_requests_total{method="tools/call",outcome="result"} 1"#),
            "{text}"
        );
        assert!(
            text.contains(r#"method="other""#) && !text.contains("evil"),
            "{text}"
        );
        assert!(text.contains("shadowcat_request_seconds_count 2"), "{text}");
    }
}
