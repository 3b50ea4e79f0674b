//! What can be seen of a stream: metrics, a span with an event per move, and a line for a person
//! when a stream drops, comes back or is given up.

use std::sync::Arc;
use std::time::{Duration, Instant};

use prometheus_client::metrics::counter::Counter;
use shadowcat_sse::reconnect::{
    Cause, Counters, FaultKind, Health, Input, Kind, Liveness, Parking, StateName, Transition,
    Trouble,
};
use tracing::{Span, debug, info, warn};

use super::Streams;
use crate::metrics::Reason;
use crate::request_span::in_request;

/// See the [module](self). The engine's shell shows it every [`Transition`], in order.
pub struct Telemetry {
    streams: Arc<Streams>,
    kind: Kind,
    span: Option<Span>,
    counted: Counters,
    /// The stream was open once.
    was_open: bool,
    /// How alive it seems, as the gauges have it; `None` before it was open and when it is over.
    liveness: Option<Liveness>,
    /// The server was known to send comments when they stayed away.
    missed_comments: bool,
    lost: Lost,
    /// It was given up since it was open, and looked for in vain since.
    given_up: bool,
    /// It was told that the stream is silent since it is back.
    told_silent: bool,
}

/// What a person reads when a stream drops, comes back, or does not.
struct Words {
    dropped: &'static str,
    not_back: &'static str,
    back: &'static str,
    rests: &'static str,
    lost: &'static str,
}

impl Words {
    fn of(kind: Kind) -> &'static Self {
        match kind {
            Kind::Session => &Self {
                dropped: "the upstream session is lost, making a new one",
                not_back: "could not restore the upstream session",
                back: "upstream session restored",
                rests: "the upstream session is given up; probing for it",
                lost: "the upstream session is over",
            },
            _ => &Self {
                dropped: "the stream dropped, reconnecting",
                not_back: "the stream is not back yet",
                back: "the stream is back",
                rests: "the stream rests",
                lost: "the stream is lost",
            },
        }
    }
}

/// Whether the stream dropped and is not back yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Lost {
    No,
    /// We closed what was idle, to be sure of it: no news unless it does not come back.
    Quietly,
    Told,
}

impl Telemetry {
    /// Of a stream that was not begun yet.
    #[must_use]
    pub fn new(streams: &Arc<Streams>, kind: Kind) -> Self {
        Self {
            streams: Arc::clone(streams),
            kind,
            span: None,
            counted: Counters::default(),
            was_open: false,
            liveness: None,
            missed_comments: false,
            lost: Lost::No,
            given_up: false,
            told_silent: false,
        }
    }

    /// The same with its moves told inside this span, whoever makes them.
    #[must_use]
    pub fn inside(mut self, span: &Span) -> Self {
        let (server, kind) = (&self.streams.server, self.kind.as_str());
        self.span = Some(tracing::debug_span!(parent: span, "stream", %server, kind));
        self
    }

    pub(crate) fn was_open(&self) -> bool {
        self.was_open
    }

    /// Bytes came.
    pub(crate) fn heard(&mut self) {
        if self.is_degraded() {
            self.seems(Some(Liveness::Healthy));
            self.missed_comments = false;
        }
    }

    /// Whether the open stream was found degraded.
    pub(crate) fn is_degraded(&self) -> bool {
        self.liveness == Some(Liveness::Degraded)
    }

    /// The open stream was found degraded. A stream without comments may well be idle.
    pub(crate) fn degraded(&mut self, health: &Health) {
        self.seems(Some(Liveness::Degraded));
        self.missed_comments = health.comment_period.is_some();
        let (server, kind) = (&self.streams.server, self.kind.as_str());
        let silent = rounded(health.last_byte_age.unwrap_or_default());
        if let Some(period) = health.comment_period.map(rounded) {
            in_request(
                || info!(%server, kind, ?silent, ?period, "the server's comments stay away"),
            );
        } else {
            debug!(%server, kind, ?silent, "the stream is silent");
        }
    }

    /// Keeps the gauges of liveness.
    fn seems(&mut self, now: Option<Liveness>) {
        let before = std::mem::replace(&mut self.liveness, now);
        if before == now {
            return;
        }
        let streams = |liveness| self.streams.seeming(self.kind, liveness);
        if let Some(before) = before {
            streams(before).dec();
        }
        if let Some(now) = now {
            streams(now).inc();
        }
    }

    /// What the engine noticed by itself, and that in words.
    #[must_use]
    pub fn noticed(&self, transition: &Transition) -> Option<(Trouble, String)> {
        let left = matches!(
            transition.to,
            StateName::Backoff | StateName::Parked | StateName::Failed
        );
        let server = &self.streams.server;
        match (transition.from, transition.cause) {
            _ if !left => None,
            (StateName::Open, Cause::Due) => Some((
                Trouble::Silent,
                "nothing came for too long, not even a comment".to_owned(),
            )),
            (StateName::Connecting, Cause::Due) => {
                Some((Trouble::NoHead, format!("{server} did not answer in time")))
            }
            (_, Cause::OriginDown) => Some((
                Trouble::NoConnection,
                format!("{server} accepts no connections"),
            )),
            _ => None,
        }
    }

    /// A move from state to state. `heard`: when bytes came last. `detail`: what went wrong last.
    pub fn transition(
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
            tracing::debug_span!("stream", server = %self.streams.server, kind = self.kind.as_str())
        });
        debug!(parent: &*span, %from, %to, cause = cause.as_str(), unproductive, "moved");
        self.moved(from, to);
        if from == StateName::Connecting && self.was_open {
            let outcome = match to {
                StateName::Open => "opened",
                _ => cause.as_str(),
            };
            let attempts = &self.streams.metrics.reconnect_attempts;
            attempts.get_or_create(&Reason::of(outcome)).inc();
        }
        match (from, to) {
            (_, StateName::Open) => self.opened(transition),
            (StateName::Open, StateName::Backoff | StateName::Parked | StateName::Failed) => {
                self.left(transition, counters, heard, detail);
            }
            (StateName::Connecting, StateName::Backoff) if self.lost == Lost::Quietly => {
                self.tell_drop(transition, detail);
            }
            // A session that was lost before anything had come of it.
            (StateName::Idle, StateName::Backoff | StateName::Parked) => {
                self.tell_drop(transition, detail)
            }
            (StateName::Connecting, StateName::Backoff) if self.kind == Kind::Session => {
                let (words, server) = (Words::of(self.kind), &self.streams.server);
                let wait = transition.until.map(|until| rounded(until - transition.at));
                let wait = wait.map(tracing::field::debug);
                warn!(%server, detail, wait, unproductive, "{}", words.not_back);
            }
            _ => {}
        }
        self.seems(match to {
            StateName::Open => Some(Liveness::Healthy),
            _ if to.is_final() || !self.was_open => None,
            _ => Some(Liveness::Dead),
        });
        match to {
            StateName::Parked => self.parked(transition, detail),
            StateName::Failed if self.was_open => self.failed(transition, detail),
            _ => {}
        }
    }

    /// Keeps the gauges of states. Streams that are over are in none.
    fn moved(&self, from: StateName, to: StateName) {
        let streams = |state| self.streams.in_state(self.kind, state);
        if from != StateName::Idle {
            streams(from).dec();
        }
        if !to.is_final() {
            streams(to).inc();
        }
    }

    fn opened(&mut self, transition: &Transition) {
        let (server, kind) = (&self.streams.server, self.kind.as_str());
        if let Some(away) = transition.away.filter(|_| self.lost != Lost::No) {
            let metrics = &self.streams.metrics;
            metrics.time_to_recover.observe(away.as_secs_f64());
            if self.lost == Lost::Told {
                let back = Words::of(self.kind).back;
                in_request(|| info!(%server, kind, away = ?rounded(away), "{back}"));
            }
        }
        self.was_open = true;
        self.missed_comments = false;
        self.lost = Lost::No;
        self.given_up = false;
    }

    /// An open connection is gone: it dropped, or the server ended it in order to be polled.
    fn left(&mut self, transition: &Transition, counters: Counters, heard: Instant, detail: &str) {
        if counters.polls > self.counted.polls {
            self.streams.metrics.stream_polls.inc();
            return;
        }
        if transition.cause == Cause::Recheck {
            return self.rechecked(transition, heard);
        }
        let metrics = &self.streams.metrics;
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
        if cause == Trouble::Silent && !self.missed_comments {
            let (server, kind) = (&self.streams.server, self.kind.as_str());
            debug!(%server, kind, "the stream was idle, connecting anew");
            self.lost = Lost::Quietly;
        } else {
            self.tell_drop(transition, detail);
        }
    }

    /// A resumed answer is silent and asked for anew: worth a line once, no drop.
    fn rechecked(&mut self, transition: &Transition, heard: Instant) {
        self.streams.metrics.stream_rechecks.inc();
        self.lost = Lost::Quietly;
        let (server, kind) = (&self.streams.server, self.kind.as_str());
        let silent = rounded(transition.at.saturating_duration_since(heard));
        if std::mem::replace(&mut self.told_silent, true) {
            debug!(%server, kind, ?silent, "the stream is still silent, resuming it anew");
        } else {
            in_request(|| {
                info!(%server, kind, ?silent, "the stream is silent since it is back, resuming it anew from time to time");
            });
        }
    }

    fn tell_drop(&mut self, transition: &Transition, detail: &str) {
        self.lost = Lost::Told;
        self.told_silent = false;
        // The end of an HTTP+SSE stream is that of its session, which its owner tells.
        if let (StateName::Backoff, Some(until)) = (transition.to, transition.until)
            && self.kind != Kind::LegacySse
        {
            let (server, kind) = (&self.streams.server, self.kind.as_str());
            let wait = rounded(until.saturating_duration_since(transition.at));
            let dropped = Words::of(self.kind).dropped;
            in_request(|| match self.kind {
                // Much is lost with a session.
                Kind::Session => warn!(%server, detail, ?wait, "{dropped}"),
                _ => info!(%server, kind, detail, ?wait, "{dropped}"),
            });
        }
    }

    fn parked(&mut self, transition: &Transition, detail: &str) {
        let (server, kind) = (&self.streams.server, self.kind.as_str());
        let why = transition.parking.map_or("", Parking::as_str);
        // HTTP+SSE is tried for, and whoever tried says what became of it.
        if self.kind == Kind::LegacySse || transition.parking == Some(Parking::NotOffered) {
            debug!(%server, kind, why, detail, "the server offers no such stream");
        } else if std::mem::replace(&mut self.given_up, true) {
            debug!(%server, kind, why, detail, "looked for it in vain");
        } else {
            self.streams.metrics.given_up.inc();
            let rests = Words::of(self.kind).rests;
            in_request(|| warn!(%server, kind, why, detail, "{rests}"));
        }
    }

    fn failed(&mut self, transition: &Transition, detail: &str) {
        let (server, kind) = (&self.streams.server, self.kind.as_str());
        let with_session = transition
            .fault
            .is_some_and(|fault| fault.kind == FaultKind::SessionLost);
        if with_session && matches!(self.kind, Kind::Standalone | Kind::Listen) {
            // It begins again in the next session, and what becomes of that is told.
            debug!(%server, kind, detail, "the stream is over with its session");
            return;
        }
        self.streams.metrics.given_up.inc();
        let lost = Words::of(self.kind).lost;
        if self.kind.is_answer() {
            // Whoever made the request tells what becomes of it: perhaps it is sent once more.
            debug!(%server, kind, detail, "{lost}");
        } else {
            in_request(|| warn!(%server, kind, detail, "{lost}"));
        }
    }

    /// Brings the metrics up to what the engine counted.
    pub fn count(&mut self, now: Counters) {
        if now == self.counted {
            return;
        }
        let before = std::mem::replace(&mut self.counted, now);
        let metrics = &self.streams.metrics;
        let add = |counter: &Counter, now: u64, before: u64| {
            // All threads share a counter, and adding nothing is a write, too.
            if now > before {
                counter.inc_by(now - before);
            }
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
