//! Clients and servers of different eras, until a bridge joins them: a clear error.
//!
//! The first attempt follows the client's era. Where the server's answer does not fit that era,
//! it is asked what it speaks, and the client gets an error that names both
//! sides' versions. What is not evidence (401, 403, 429, 5xx, connect errors) stays as it is.

use std::time::Duration;

use http::StatusCode;
use parking_lot::Mutex;
use shadowcat_mcp::build;
use shadowcat_mcp::fault;
use shadowcat_mcp::handshake::{DiscoverResult, InitializeResult, Offer};
use shadowcat_mcp::inspect::{self, Claim};
use shadowcat_mcp::message::{Kind, Message, RequestId};
use shadowcat_mcp::version::{self, Era, ProtocolVersion};
use shadowcat_transport::upstream;
use tokio::sync::OnceCell;
use tokio::time::Instant;

use crate::session::{Session, Shared};

/// How long a server may take to say what it speaks.
const PATIENCE: Duration = Duration::from_secs(3);
/// How long a server that did not say is left alone.
const SILENCE: Duration = Duration::from_secs(60);

/// What an upstream turned out to speak.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Speaks {
    /// 2026-07-28 or later; the versions it told.
    Modern(Vec<String>),
    /// Sessions only; the version it answered `initialize` with.
    Legacy(String),
    /// It answered neither.
    Unknown,
}

/// What is known of the upstream's era. Asked by whoever needs it first, until there is an answer.
#[derive(Debug, Default)]
pub(crate) struct EraOfUpstream {
    known: OnceCell<Speaks>,
    /// A server that said nothing is not asked again before.
    silent_until: Mutex<Option<Instant>>,
}

impl EraOfUpstream {
    /// The server answered a modern request as a modern server does.
    fn saw_modern(&self) {
        let _ = self.known.set(Speaks::Modern(vec![
            ProtocolVersion::V2026_07_28.as_str().to_owned(),
        ]));
    }

    async fn ask(&self, shared: &Shared) -> &Speaks {
        let asked = self.known.get_or_try_init(|| async {
            if self
                .silent_until
                .lock()
                .is_some_and(|at| Instant::now() < at)
            {
                return Err(());
            }
            match probe(shared).await {
                Speaks::Unknown => {
                    *self.silent_until.lock() = Some(Instant::now() + SILENCE);
                    Err(())
                }
                known => Ok(known),
            }
        });
        asked.await.unwrap_or(&Speaks::Unknown)
    }
}

/// Before the first modern request on a pipe: a legacy server might execute it unnoticed, or say
/// nothing at all. `Some` is the error to answer with.
pub(crate) async fn check_pipe(shared: &Shared, request: &Message) -> Option<Message> {
    let id = request.id()?;
    match shared.era.ask(shared).await {
        Speaks::Legacy(version) => Some(modern_to_legacy(request, id, version)),
        Speaks::Modern(_) | Speaks::Unknown => None,
    }
}

/// The answer to a modern client's request, or the error that explains it.
pub(crate) async fn explain_to_modern(
    shared: &Shared,
    request: &Message,
    status: StatusCode,
    response: Message,
) -> (StatusCode, Message) {
    let Some(id) = request.id() else {
        return (status, response);
    };
    if inspect::is_modern_response(&response) {
        shared.era.saw_modern();
        return (status, response);
    }
    let may_tell = if shared.era.known.initialized() {
        is_error(&response)
    } else {
        fault::may_tell_era(status)
    };
    if may_tell && let Speaks::Legacy(version) = shared.era.ask(shared).await {
        let error = modern_to_legacy(request, id, version);
        return (StatusCode::BAD_REQUEST, error);
    }
    // A refusal without words: its status was for us, and the error beside it is ours.
    if fault::may_tell_era(status) && inspect::is_own_fault(&response) {
        return (StatusCode::BAD_GATEWAY, response);
    }
    (status, response)
}

/// The error that a legacy client gets in place of a modern server's refusal of `initialize`.
/// What the session itself refused stays as it is.
pub(crate) async fn explain_to_legacy(
    session: &Session,
    request: &Message,
    response: Message,
) -> Message {
    if session.has_ended() || !inspect::may_refuse_legacy(&response) {
        return response;
    }
    let shared = &session.shared;
    match shared.era.ask(shared).await {
        Speaks::Modern(supported) => {
            let offer = Offer::read(request).map(|offer| offer.version().to_owned());
            match (request.id(), offer) {
                (Some(id), Ok(client)) => {
                    version::legacy_client_modern_server(id, &client, supported)
                }
                _ => response,
            }
        }
        Speaks::Legacy(_) | Speaks::Unknown => response,
    }
}

fn modern_to_legacy(request: &Message, id: &RequestId, server: &str) -> Message {
    let client = match inspect::claim(request) {
        Claim::WellFormed { version } => version,
        _ => ProtocolVersion::V2026_07_28.to_string(),
    };
    version::modern_client_legacy_server(id, &client, server)
}

fn is_error(message: &Message) -> bool {
    matches!(message.kind(), Kind::Error { .. })
}

async fn probe(shared: &Shared) -> Speaks {
    if let Some(discovered) = ask(shared, Era::Modern, build::discover()).await
        && let Some(result) = DiscoverResult::read(&discovered)
    {
        return Speaks::Modern(result.versions);
    }
    let initialize = build::initialize(ProtocolVersion::V2025_11_25);
    match ask(shared, Era::Legacy, initialize).await {
        Some(response) => InitializeResult::read(&response).map_or(Speaks::Unknown, |result| {
            Speaks::Legacy(result.version().to_owned())
        }),
        None => Speaks::Unknown,
    }
}

/// One request on a leg of its own, which is closed afterwards.
async fn ask(shared: &Shared, era: Era, request: Message) -> Option<Message> {
    let leg = shared.upstream.leg(era);
    let deadline = Instant::now() + PATIENCE;
    let asking = upstream::ask(&*leg, request, deadline);
    let answer = tokio::time::timeout_at(deadline, asking).await;
    tokio::spawn(async move { leg.close().await });
    answer.ok()?.ok()
}

#[cfg(test)]
mod tests;
