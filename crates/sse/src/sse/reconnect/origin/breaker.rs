//! The circuit breaker: an origin that accepts no connection sees one probe at a time.

use std::time::{Duration, Instant};

use super::super::policy::MIN_INTERVAL;

/// Connect failures in a row, with nothing open, that stop the reconnects.
const TRIP: u32 = 5;
/// A probe that nothing is heard of is given up after this time.
const PROBE_TIMEOUT: Duration = Duration::from_secs(10);

#[derive(Debug, Default)]
pub(crate) struct Breaker {
    failures: u32,
    open: bool,
    probing_since: Option<Instant>,
    last_probe: Option<Instant>,
}

/// What the breaker lets through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Gate {
    /// All.
    Open,
    /// The first in line.
    Probe,
    /// Nobody before then.
    Shut(Instant),
}

impl Breaker {
    pub(crate) fn failures(&self) -> u32 {
        self.failures
    }

    pub(crate) fn is_open(&self) -> bool {
        self.open
    }

    pub(crate) fn gate(&mut self, now: Instant) -> Gate {
        if !self.open {
            return Gate::Open;
        }
        if let Some(since) = self.probing_since
            && now < since + PROBE_TIMEOUT
        {
            return Gate::Shut(since + PROBE_TIMEOUT);
        }
        match self.last_probe {
            Some(last) if now < last + MIN_INTERVAL => Gate::Shut(last + MIN_INTERVAL),
            _ => Gate::Probe,
        }
    }

    /// A connect was admitted; with the breaker open that is the probe.
    pub(crate) fn admitted(&mut self, now: Instant) {
        if self.open {
            self.probing_since = Some(now);
            self.last_probe = Some(now);
        }
    }

    /// Whether this ends an outage.
    pub(crate) fn connected(&mut self) -> bool {
        self.failures = 0;
        self.probing_since = None;
        self.last_probe = None;
        std::mem::take(&mut self.open)
    }

    /// Whether the origin is taken for dead, and who waits shares the failure.
    pub(crate) fn connect_failed(&mut self, open_streams: usize) -> bool {
        self.failures = self.failures.saturating_add(1);
        self.probing_since = None;
        if self.failures >= TRIP && open_streams == 0 {
            self.open = true;
        }
        self.open
    }
}
