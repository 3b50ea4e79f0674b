//! Messages that want no answer: a notification is sent once, a response until it is accepted
//! (`docs/resilience.md`, "What is sent again, and what never is").

use std::sync::Arc;
use std::time::Duration;

use shadowcat_mcp::fault::Fault;
use shadowcat_sse::reconnect::backoff::{self, Draws};
use shadowcat_sse::reconnect::{Decision, Facts, Kind, Leg, Opening, Trouble, classify};
use tokio::time::timeout;
use tracing::debug;

use super::Shared;
use super::client::Connected;
use super::driver::{Answered, Driver, Failure, Opened, Opener};
use crate::upstream::{BoxFuture, Deadline, Reply};

/// How long one attempt may take, from the connect to the status that accepts the message. What the
/// client sends after it waits for it, and for further attempts where there are any: what is no
/// request behind each such message, requests behind `notifications/initialized` only.
const ACCEPTANCE_TIMEOUT: Duration = Duration::from_secs(30);

/// Sends a message by the attempts that `opener` makes, waiting for no attempt beyond `deadline`;
/// `repeatable`: a response.
pub(crate) async fn send<O: Opener>(
    shared: &Arc<Shared>,
    repeatable: bool,
    deadline: Deadline,
    opener: impl Fn() -> O,
) -> Result<(), Fault> {
    let policy = &shared.config.reconnect;
    let mut draws = Draws::new((shared.random)());
    let mut attempt = 0;
    loop {
        let (fault, trouble) = match tried(shared, InTime(opener()), deadline.clone()).await {
            Ok(_) => return Ok(()),
            Err(failed) => failed,
        };
        attempt += 1;
        // Repeating a response does no harm, like a GET: what that waits for, it waits for.
        let decision = trouble.map(|trouble| classify(&trouble, Leg::Resume, Facts::default()));
        let floor = match decision {
            Some(Decision::Return { floor, hint: None }) if repeatable => floor,
            _ => return Err(fault),
        };
        if policy.is_exhausted(attempt) {
            return Err(fault);
        }
        debug!(%fault, attempt, "a response was not accepted, sending it again");
        let delay = backoff::delay(policy, attempt, None, draws.draw());
        tokio::time::sleep(delay.max(floor)).await;
    }
}

/// Attempts that fail when the server has not accepted the message in time.
struct InTime<O>(O);

impl<O: Opener> Opener for InTime<O> {
    fn open(&mut self, opening: Opening, connected: Connected) -> BoxFuture<Opened> {
        let attempt = timeout(ACCEPTANCE_TIMEOUT, self.0.open(opening, connected));
        Box::pin(async move {
            attempt.await.unwrap_or_else(|_| {
                let patience = ACCEPTANCE_TIMEOUT.as_secs();
                let why = format!("the server did not accept the message within {patience} s");
                Opened::Failed(Failure::new(Trouble::NoHead, why))
            })
        })
    }
}

/// Sends a message until `deadline`, again only where it was certainly not processed. `Some`: what
/// the client gets in place of the answer.
pub(crate) async fn once(
    shared: &Arc<Shared>,
    opener: impl Opener,
    deadline: Deadline,
) -> Result<Option<Reply>, Fault> {
    let tried = tried(shared, opener, deadline).await;
    tried.map_err(|(fault, _)| fault)
}

async fn tried(
    shared: &Arc<Shared>,
    opener: impl Opener,
    deadline: Deadline,
) -> Result<Option<Reply>, (Fault, Option<Trouble>)> {
    let opener = Box::new(opener);
    let mut driver = Box::new(Driver::new(
        Arc::clone(shared),
        Kind::Response,
        opener,
        None,
    ));
    driver.set_deadline(deadline);
    match driver.answer().await {
        Ok(Answered::Whole(reply)) => Ok(Some(reply)),
        Ok(Answered::Accepted | Answered::Stream(_)) => Ok(None),
        Err(fault) => Err((fault, driver.last_trouble())),
    }
}
