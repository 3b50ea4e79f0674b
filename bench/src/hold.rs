//! Many sessions at once, each with a standalone stream that its own upstream stream feeds.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use http_body_util::BodyExt;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use crate::client::{Connection, Endpoint, Session};
use crate::error::{Error, WrongAnswer};
use crate::wire::{EventReader, StandaloneCheck, Tool};

/// Handshakes at once.
const OPENING: usize = 16;
/// Notifications that each stream must have brought before it counts as fed.
const PROOF: u64 = 2;
/// How long all streams together may take to be fed. A proxy may pace its stream opens; Shadowcat opens 50 a second.
const PATIENCE: Duration = Duration::from_secs(90);

/// Sessions with their open standalone streams; dropped, they all end.
#[derive(Debug)]
pub(crate) struct Held {
    tasks: JoinSet<Result<(), Error>>,
    fed: Arc<AtomicUsize>,
    sessions: usize,
    started: Instant,
}

impl Held {
    /// Starts to open `sessions` sessions at `endpoint`.
    pub(crate) fn open(endpoint: Endpoint, sessions: usize) -> Self {
        let fed = Arc::new(AtomicUsize::new(0));
        let turn = Arc::new(Semaphore::new(OPENING));
        let mut tasks = JoinSet::new();
        for _ in 0..sessions {
            tasks.spawn(hold(endpoint, Arc::clone(&turn), Arc::clone(&fed)));
        }
        Self {
            tasks,
            fed,
            sessions,
            started: Instant::now(),
        }
    }

    /// Waits until every stream brought its own notifications; how long that took.
    pub(crate) async fn all_fed(&mut self) -> Result<Duration, Error> {
        while self.fed.load(Ordering::Relaxed) < self.sessions {
            self.check()?;
            if self.started.elapsed() > PATIENCE {
                return Err(Error::Silent(PATIENCE));
            }
            sleep(Duration::from_millis(50)).await;
        }
        Ok(self.started.elapsed())
    }

    /// An error if any of the streams ended or carried what it should not.
    pub(crate) fn check(&mut self) -> Result<(), Error> {
        match self.tasks.try_join_next() {
            None => Ok(()),
            Some(ended) => ended?,
        }
    }
}

async fn hold(
    endpoint: Endpoint,
    turn: Arc<Semaphore>,
    fed: Arc<AtomicUsize>,
) -> Result<(), Error> {
    // The semaphore is never closed; were it, all would open at once.
    let permit = turn.acquire_owned().await.ok();
    let mut connection = Connection::open(endpoint).await?;
    let session = Session::open(&mut connection).await?;
    let (_, number) = session.call(&mut connection, Tool::Session).await?;
    let number = number.parse().map_err(|_| WrongAnswer::Foreign(number))?;
    let mut stream = session.listen(&mut connection).await?;
    drop(permit);

    let mut check = StandaloneCheck::new(number);
    let mut reader = EventReader::default();
    let mut seen = 0;
    while let Some(frame) = stream.frame().await {
        if let Some(chunk) = frame?.data_ref() {
            reader.feed(chunk, |message| {
                seen += 1;
                if seen == PROOF {
                    fed.fetch_add(1, Ordering::Relaxed);
                }
                check.message(message)
            })?;
        }
    }
    Err(WrongAnswer::StandaloneEnded(number).into())
}
