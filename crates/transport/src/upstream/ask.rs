//! One question, one answer: for whoever wants to know what a server is.

use shadowcat_mcp::fault::{Executed, Fault, FaultKind, Side};
use shadowcat_mcp::message::Message;

use tokio::time::Instant;

use super::{Deadline, Item, Leg, Reply, RequestContext};

/// Sends a request and reads to its response, past whatever comes before it. A wait that a busy
/// server asks for beyond `deadline` ends it at once; for the rest whoever asks looks at the time.
///
/// # Errors
/// The [`Fault`] that kept the response away.
pub async fn ask(leg: &dyn Leg, request: Message, deadline: Instant) -> Result<Message, Fault> {
    let context = RequestContext {
        deadline: Deadline::new(Some(deadline)),
        ..RequestContext::default()
    };
    let mut incoming = match leg.request(request, context).await? {
        Reply::Json { message, .. } => return Ok(message),
        Reply::Stream { incoming, .. } | Reply::Pipe(incoming) => incoming,
        Reply::Refused { fault, .. } => return Err(*fault),
        Reply::Challenge { status, .. } => {
            return Err(upstream(
                FaultKind::Unauthorized,
                format!("status {}", status.as_u16()),
            ));
        }
    };
    while let Some(item) = incoming.next().await {
        if let Item::Message(message) = item?
            && message.is_response()
        {
            return Ok(message);
        }
    }
    Err(upstream(
        FaultKind::StreamEnded,
        "the answer ended without a response",
    ))
}

fn upstream(kind: FaultKind, detail: impl Into<String>) -> Fault {
    Fault::new(Side::Upstream, kind, Executed::Unknown).because(detail)
}
