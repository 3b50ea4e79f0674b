//! The recognition of a mass drop.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// Half of the streams within this time are a herd.
const WITHIN: Duration = Duration::from_secs(1);
/// The grain in which drops are counted, so that their number does not cost memory.
const GRAIN: Duration = Duration::from_millis(50);

#[derive(Debug)]
pub(crate) struct Herd {
    least: usize,
    /// Drops by grain, the newest last.
    drops: VecDeque<(Instant, usize)>,
    /// The herd under way: its first drop, and how many there were.
    running: Option<(Instant, usize)>,
}

impl Herd {
    pub(crate) fn new(least: usize) -> Self {
        Self {
            least: least.max(1),
            drops: VecDeque::new(),
            running: None,
        }
    }

    /// One of `open` streams dropped.
    pub(crate) fn dropped(&mut self, now: Instant, open: usize) {
        while self.drops.front().is_some_and(|(at, _)| *at + WITHIN < now) {
            self.drops.pop_front();
        }
        match self.drops.back_mut() {
            Some((at, count)) if now < *at + GRAIN => *count += 1,
            _ => self.drops.push_back((now, 1)),
        }
        let Some((first, _)) = self.drops.front().copied() else {
            return;
        };
        let dropped: usize = self.drops.iter().map(|(_, count)| count).sum();
        // `open` still counts the one that drops now, but none of those before it.
        let open_before = open + dropped - 1;
        let since = self.running.map_or(first, |(since, _)| since.max(first));
        if dropped >= self.least && dropped * 2 >= open_before {
            self.running = Some((since, dropped));
        }
    }

    /// From when and over how long first tries are spread: `max(1 s, N / rate)`.
    #[allow(clippy::cast_precision_loss)]
    pub(crate) fn window(&mut self, now: Instant, rate: f64) -> Option<(Instant, Duration)> {
        let (since, count) = self.running?;
        let window = Duration::try_from_secs_f64(count as f64 / rate)
            .unwrap_or(WITHIN)
            .max(WITHIN);
        if since + window <= now {
            self.running = None;
            return None;
        }
        Some((since, window))
    }
}
