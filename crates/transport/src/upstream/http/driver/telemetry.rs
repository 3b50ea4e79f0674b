//! What can be seen of a stream: metrics, a span with an event per move, and a line for a person
//! when a stream drops, comes back or is given up.

use std::sync::Arc;
use std::time::{Duration, Instant};

use prometheus_client::metrics::counter::Counter;
use shadowcat_sse::reconnect::{
    Cause, Counters, Input, Kind, Parking, StateName, Transition, Trouble,
};
use tracing::{Span, debug, info, warn};

use super::super::Shared;
use super::attempt::Failure;
use crate::metrics::{Reason, StreamLabels};

/// See the [module](self).
pub(crate) struct Telemetry {
    shared: Arc<Shared>,
    kind: Kind,
    span: Option<Span>,
    counted: Counters,
    /// The stream was open once.
    was_open: bool,
    /// It dropped, and is not back yet.
    lost: bool,
}

impl Telemetry {
    pub(crate) fn new(shared: &Arc<Shared>, kind: Kind) -> Self {
        Self {
            shared: Arc::clone(shared),
            kind,
            span: None,
            counted: Counters::default(),
            was_open: false,
            lost: false,
        }
    }

    pub(crate) fn was_open(&self) -> bool {
        self.was_open
    }

    /// What the engine noticed by itself, in words.
    pub(crate) fn noticed(&self, transition: &Transition) -> Option<Box<Failure>> {
        let left = matches!(
            transition.to,
            StateName::Backoff | StateName::Parked | StateName::Failed
        );
        match (transition.from, transition.cause) {
            _ if !left => None,
            (StateName::Open, Cause::Due) => Some(Failure::new(
                Trouble::Silent,
                "nothing came for too long, not even a comment",
            )),
            (StateName::Connecting, Cause::Due) => Some(Failure::new(
                Trouble::NoHead,
                format!("{} did not answer in time", self.shared.name),
            )),
            (_, Cause::OriginDown) => Some(Failure::new(
                Trouble::NoConnection,
                format!("{} accepts no connections", self.shared.name),
            )),
            _ => None,
        }
    }

    /// A move from state to state. `heard`: when bytes came last. `detail`: what went wrong last.
    pub(crate) fn transition(
        &mut self,
        transition: &Transition,
        counters: Counters,
        heard: Instant,
        detail: &str,
    ) {
        let Transition {
            from,
            to,
            cause,
            unproductive,
            ..
        } = *transition;
        let span = self.span.get_or_insert_with(|| {
            tracing::debug_span!("stream", server = %self.shared.name, kind = self.kind.as_str())
        });
        debug!(parent: &*span, %from, %to, cause = cause.as_str(), unproductive, "moved");
        self.moved(from, to);
        if from == StateName::Connecting && self.was_open {
            let outcome = match to {
                StateName::Open => "opened",
                _ => cause.as_str(),
            };
            let attempts = &self.shared.counters.metrics.reconnect_attempts;
            attempts.get_or_create(&Reason::of(outcome)).inc();
        }
        match (from, to) {
            (_, StateName::Open) => self.opened(transition),
            (StateName::Open, StateName::Backoff | StateName::Parked | StateName::Failed) => {
                self.left(transition, counters, heard, detail);
            }
            _ => {}
        }
        match to {
            StateName::Parked => self.parked(transition, detail),
            StateName::Failed if self.was_open => self.failed(detail),
            _ => {}
        }
    }

    /// Keeps the gauges of states. Streams that are over are in none.
    fn moved(&self, from: StateName, to: StateName) {
        let states = &self.shared.counters.metrics.streams_by_state;
        let labels = |state: StateName| StreamLabels {
            kind: self.kind.as_str(),
            state: state.as_str(),
        };
        if from != StateName::Idle {
            states.get_or_create(&labels(from)).dec();
        }
        if !to.is_final() {
            states.get_or_create(&labels(to)).inc();
        }
    }

    fn opened(&mut self, transition: &Transition) {
        let (server, kind) = (&self.shared.name, self.kind.as_str());
        if let Some(away) = transition.away.filter(|_| self.lost) {
            let metrics = &self.shared.counters.metrics;
            metrics.time_to_recover.observe(away.as_secs_f64());
            info!(%server, kind, away = ?rounded(away), "the stream is back");
        }
        self.was_open = true;
        self.lost = false;
    }

    /// An open connection is gone: it dropped, or the server ended it in order to be polled.
    fn left(&mut self, transition: &Transition, counters: Counters, heard: Instant, detail: &str) {
        if counters.polls > self.counted.polls {
            self.shared.counters.metrics.stream_polls.inc();
            return;
        }
        self.lost = true;
        let metrics = &self.shared.counters.metrics;
        let cause = match transition.cause {
            Cause::Input(Input::Failed(trouble)) => trouble,
            _ => Trouble::Silent,
        };
        let reason = Reason::of(cause.as_str());
        metrics.stream_drops.get_or_create(&reason).inc();
        if cause == Trouble::Silent {
            let silence = transition.at.saturating_duration_since(heard);
            metrics.silent_age.observe(silence.as_secs_f64());
        }
        // The end of an HTTP+SSE stream is that of its session, which its owner tells.
        if let (StateName::Backoff, Some(until)) = (transition.to, transition.until)
            && self.kind != Kind::LegacySse
        {
            let (server, kind) = (&self.shared.name, self.kind.as_str());
            let wait = rounded(until.saturating_duration_since(transition.at));
            info!(%server, kind, detail, ?wait, "the stream dropped, reconnecting");
        }
    }

    fn parked(&mut self, transition: &Transition, detail: &str) {
        let (server, kind) = (&self.shared.name, self.kind.as_str());
        let why = transition.parking.map_or("", Parking::as_str);
        // HTTP+SSE is tried for, and whoever tried says what became of it.
        if self.kind == Kind::LegacySse || transition.parking == Some(Parking::NotOffered) {
            debug!(%server, kind, why, detail, "the server offers no such stream");
        } else {
            self.shared.counters.metrics.given_up.inc();
            warn!(%server, kind, why, detail, "the stream rests");
        }
    }

    fn failed(&mut self, detail: &str) {
        let (server, kind) = (&self.shared.name, self.kind.as_str());
        self.shared.counters.metrics.given_up.inc();
        warn!(%server, kind, detail, "the stream is lost");
    }

    /// Brings the metrics up to what the engine counted.
    pub(crate) fn count(&mut self, now: Counters) {
        if now == self.counted {
            return;
        }
        let before = std::mem::replace(&mut self.counted, now);
        let metrics = &self.shared.counters.metrics;
        let add = |counter: &Counter, now: u64, before: u64| {
            counter.inc_by(now.saturating_sub(before));
        };
        add(&metrics.streams_resumed, now.resumed, before.resumed);
        add(&metrics.gaps, now.gaps, before.gaps);
        add(
            &metrics.duplicates_dropped,
            now.duplicates,
            before.duplicates,
        );
        add(&metrics.id_reuses, now.reused_ids, before.reused_ids);
        add(
            &metrics.dedup_overflows,
            now.window_overflow,
            before.window_overflow,
        );
        add(&metrics.budget_exhausted, now.exhausted, before.exhausted);
    }
}

/// For logs.
fn rounded(duration: Duration) -> Duration {
    Duration::from_millis(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX))
}
