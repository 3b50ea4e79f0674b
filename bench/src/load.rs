//! The load generator: a closed loop of so many calls in flight, each on a keep-alive connection of its own, measured over a
//! window of time.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout};

use crate::client::{Connection, Endpoint, Session};
use crate::error::Error;
use crate::procfs::Processes;
use crate::stats::Latencies;
use crate::wire::Tool;

/// How long a window may overrun before its missing answer fails the run.
const PATIENCE: Duration = Duration::from_secs(10);

/// What is called, how often at once, for how long.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Load {
    pub(crate) tool: Tool,
    /// Calls in flight, at least 1.
    pub(crate) in_flight: usize,
    /// How many of them share one session, at least 1.
    pub(crate) per_session: usize,
    /// Calls before the window, unmeasured.
    pub(crate) warm_up: Duration,
    /// The window.
    pub(crate) window: Duration,
}

/// What was seen in one window.
#[derive(Debug)]
pub(crate) struct Window {
    /// Of the calls that began in the window.
    pub(crate) latencies: Latencies,
    /// Calls that ended in the window.
    pub(crate) completed: u64,
    /// Its length in seconds.
    pub(crate) seconds: f64,
    /// Processor seconds (user and system) that the observed processes spent in it.
    pub(crate) cpu_seconds: f64,
}

/// Runs one window of `load` at `endpoint`, watching the processor time of `observed`.
pub(crate) async fn window(
    endpoint: Endpoint,
    load: Load,
    observed: &Processes,
) -> Result<Window, Error> {
    let limit = load.warm_up + load.window + PATIENCE;
    timeout(limit, measure(endpoint, load, observed))
        .await
        .map_err(|_| Error::Silent(PATIENCE))?
}

async fn measure(endpoint: Endpoint, load: Load, observed: &Processes) -> Result<Window, Error> {
    let mut control = Connection::open(endpoint).await?;
    let mut sessions: Vec<Arc<Session>> = Vec::new();
    let mut lanes = Vec::new();
    for lane in 0..load.in_flight {
        let session = match sessions.last() {
            Some(session) if !lane.is_multiple_of(load.per_session) => Arc::clone(session),
            _ => Arc::new(Session::open(&mut control).await?),
        };
        if !sessions
            .last()
            .is_some_and(|last| Arc::ptr_eq(last, &session))
        {
            sessions.push(Arc::clone(&session));
        }
        lanes.push((Connection::open(endpoint).await?, session));
    }

    let begin = Instant::now() + load.warm_up;
    let end = begin + load.window;
    let mut tasks = JoinSet::new();
    for (connection, session) in lanes {
        tasks.spawn(lane(connection, session, load.tool, begin, end));
    }
    sleep_until(begin).await;
    let cpu_before = observed.cpu_seconds();
    sleep_until(end).await;
    let cpu_seconds = observed.cpu_seconds() - cpu_before;

    let mut nanoseconds = Vec::new();
    let mut completed = 0;
    while let Some(finished) = tasks.join_next().await {
        let lane = finished??;
        nanoseconds.extend(lane.nanoseconds);
        completed += lane.completed;
    }
    for session in sessions {
        session.close(&mut control).await?;
    }
    let seconds = load.window.as_secs_f64();
    Ok(Window {
        latencies: Latencies::new(nanoseconds),
        completed,
        seconds,
        cpu_seconds,
    })
}

/// One call after another until `end`.
async fn lane(
    mut connection: Connection,
    session: Arc<Session>,
    tool: Tool,
    begin: Instant,
    end: Instant,
) -> Result<Lane, Error> {
    let mut lane = Lane::default();
    loop {
        let started = Instant::now();
        if started >= end {
            return Ok(lane);
        }
        let (took, _) = session.call(&mut connection, tool).await?;
        let ended = Instant::now();
        if started >= begin {
            lane.nanoseconds
                .push(u64::try_from(took.as_nanos()).unwrap_or(u64::MAX));
        }
        if ended >= begin && ended < end {
            lane.completed += 1;
        }
    }
}

#[derive(Debug, Default)]
struct Lane {
    nanoseconds: Vec<u64>,
    completed: u64,
}
