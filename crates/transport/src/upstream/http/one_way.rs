//! Messages that want no answer: a notification is sent once, a response until it is accepted.

use http::{Response, StatusCode};
use hyper::body::Incoming;
use shadowcat_mcp::fault::{Fault, FaultKind};
use shadowcat_mcp::message::Message;
use tracing::debug;

use super::answer::{self, Refusal};
use super::{Shared, body};

/// How often a response is sent at most.
const MAX_RESPONSE_TRIES: u32 = 10;

/// Why a message was not accepted.
pub(crate) enum NotAccepted {
    /// There was no answer.
    Failed(Fault),
    /// The server refused it.
    Refused(Refusal),
}

/// Calls `post` until the message is accepted, with a backoff between the tries. `known`: it is sent
/// in a session of the server's.
pub(crate) async fn send<P>(
    shared: &Shared,
    message: &Message,
    known: bool,
    post: impl Fn() -> P,
) -> Result<(), Fault>
where
    P: Future<Output = Result<Response<Incoming>, Fault>>,
{
    for attempt in 1.. {
        let (fault, again) = match once(shared, post().await).await {
            Ok(()) => break,
            Err(NotAccepted::Failed(fault)) => {
                let again = fault.kind == FaultKind::ConnectionLost;
                (fault, again)
            }
            Err(NotAccepted::Refused(refusal)) => {
                let again = may_pass(refusal.status);
                (refusal.into_fault(known), again)
            }
        };
        if !(again && message.is_response() && attempt < MAX_RESPONSE_TRIES) {
            return Err(fault);
        }
        debug!(%fault, attempt, "a response was not accepted, sending it again");
        tokio::time::sleep(shared.backoff(attempt)).await;
    }
    Ok(())
}

/// What became of one POST.
pub(crate) async fn once(
    shared: &Shared,
    posted: Result<Response<Incoming>, Fault>,
) -> Result<(), NotAccepted> {
    let response = posted.map_err(NotAccepted::Failed)?;
    if response.status().is_success() {
        body::discard(response.into_body()).await;
        return Ok(());
    }
    Err(NotAccepted::Refused(
        answer::refusal(shared, response).await,
    ))
}

/// Whether sending a response once more may help: the server is in trouble. What it refuses for
/// good it refuses again.
fn may_pass(status: StatusCode) -> bool {
    status.is_server_error()
        || status == StatusCode::REQUEST_TIMEOUT
        || status == StatusCode::TOO_EARLY
}
