//! What the engine says about itself while it is being judged by others.
//!
//! The driver tells each move of a stream's state machine as a `tracing` event. [`MoveCounter`]
//! counts them, so that a report can say which states and inputs the seeds have reached. Nothing
//! is judged by it.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::fmt;

use tokio::time::Instant;
use tracing::field::{Field, Visit};
use tracing::{Event, Metadata, Subscriber};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::FormatTime;
use tracing_subscriber::layer::{Context, Layer};

/// What the driver calls such an event.
const MOVED: &str = "moved";

thread_local! {
    static MOVES: RefCell<BTreeMap<String, u64>> = const { RefCell::new(BTreeMap::new()) };
    static START: Cell<Option<Instant>> = const { Cell::new(None) };
}

/// A run begins on this thread.
pub(crate) fn begin() {
    MOVES.with_borrow_mut(BTreeMap::clear);
    START.set(Some(Instant::now()));
}

/// The moves of this thread's run.
pub(crate) fn moves() -> BTreeMap<String, u64> {
    MOVES.take()
}

/// Counts the moves of every stream's state machine by state, input and next state.
#[derive(Debug, Default, Clone, Copy)]
pub struct MoveCounter;

impl MoveCounter {
    /// Whether an event may be a move.
    #[must_use]
    pub fn wants(metadata: &Metadata<'_>) -> bool {
        metadata.target().ends_with("::streams::telemetry")
    }
}

impl<S: Subscriber> Layer<S> for MoveCounter {
    fn on_event(&self, event: &Event<'_>, _context: Context<'_, S>) {
        let mut moved = Move::default();
        event.record(&mut moved);
        if moved.message == MOVED {
            let name = format!("{} --{}--> {}", moved.from, moved.cause, moved.to);
            MOVES.with_borrow_mut(|moves| *moves.entry(name).or_default() += 1);
        }
    }
}

#[derive(Default)]
struct Move {
    message: String,
    from: String,
    to: String,
    cause: String,
}

impl Move {
    fn put(&mut self, field: &Field, value: String) {
        match field.name() {
            "message" => self.message = value,
            "from" => self.from = value,
            "to" => self.to = value,
            "cause" => self.cause = value,
            _ => {}
        }
    }
}

impl Visit for Move {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.put(field, value.to_owned());
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.put(field, format!("{value:?}"));
    }
}

/// The time of the run, in milliseconds, for traces.
#[derive(Debug, Default, Clone, Copy)]
pub struct SimulatedTime;

impl FormatTime for SimulatedTime {
    fn format_time(&self, out: &mut Writer<'_>) -> fmt::Result {
        let elapsed = START.get().map(|start| start.elapsed()).unwrap_or_default();
        write!(out, "{:>12.3} ", elapsed.as_secs_f64() * 1000.0)
    }
}
