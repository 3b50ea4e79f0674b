//! Clients and servers of different eras, until a bridge joins them: a clear error.
//!
//! The first attempt follows the client's era. Where the server's answer does not fit that era,
//! it is asked what it speaks, and the client gets an error that names both
//! sides' versions. What is not evidence (401, 403, 429, 5xx, connect errors) stays as it is.
//!
//! A command is started to be asked. Its process is handed on to the client where it can be, and no
//! other is started for what the client will do anyway: a client that discovers goes on with
//! `initialize` if that is refused or fails.

use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;
use parking_lot::Mutex;
use shadowcat_mcp::build;
use shadowcat_mcp::fault::{self, Executed, Fault, FaultKind};
use shadowcat_mcp::handshake::{DiscoverResult, InitializeResult, Offer};
use shadowcat_mcp::inspect::{self, Claim};
use shadowcat_mcp::message::{Kind, Message, RequestId};
use shadowcat_mcp::method::Method;
use shadowcat_mcp::version::{self, Era, ProtocolVersion};
use shadowcat_transport::upstream::{self, Leg};
use tokio::sync::OnceCell;
use tokio::time::Instant;

use crate::session::{Session, Shared};

/// How long a server may take to say what it speaks.
const PATIENCE: Duration = Duration::from_secs(3);
/// How long a client that discovers waits for a command that may be starting: it would wait without
/// us, too. Official clients give up after 10 s, and the server may be asked once more before that.
const STARTING_PATIENCE: Duration = Duration::from_secs(6);
/// How long a server that did not say is left alone.
const SILENCE: Duration = Duration::from_secs(60);
/// How long a failure to ask is the answer for all who want to know: those who waited for the
/// attempt would otherwise make theirs one after the other.
const FAILED: Duration = Duration::from_secs(1);
/// The errors with which a server may say that it does not know a method, or not before a handshake.
const UNKNOWN_METHOD: [i64; 3] = [-32601, -32602, -32600];

/// What an upstream turned out to speak.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Speaks {
    /// 2026-07-28 or later; the versions it told.
    Modern(Vec<String>),
    /// Sessions only; the version it answered `initialize` with.
    Legacy(String),
}

/// Why it is not known what a server speaks.
#[derive(Debug)]
enum Unsettled {
    /// It refused `server/discover`, and was not asked for more.
    Refused,
    /// It could not be asked, or ended when it was.
    Failed(Fault),
    /// It said nothing that tells.
    Silent,
}

/// What is known of the upstream's era. Asked by whoever needs it first, until there is an answer.
#[derive(Debug, Default)]
pub(crate) struct EraOfUpstream {
    known: OnceCell<Speaks>,
    doubts: Mutex<Doubts>,
}

#[derive(Debug, Default)]
struct Doubts {
    /// A server that said nothing is not asked again before.
    silent_until: Option<Instant>,
    /// Nor is one that refused `server/discover` asked for that.
    refused_until: Option<Instant>,
    /// Why it could not be asked, and until when that is known.
    failed: Option<(Fault, Instant)>,
}

impl EraOfUpstream {
    /// The server answered a modern request as a modern server does.
    fn saw_modern(&self) {
        let _ = self.known.set(Speaks::Modern(vec![
            ProtocolVersion::V2026_07_28.as_str().to_owned(),
        ]));
    }

    /// The server opened a session: one that refused `server/discover` before is a legacy server.
    pub(crate) fn saw_session(&self, version: ProtocolVersion) {
        let mut doubts = self.doubts.lock();
        // Whatever kept it from being asked is over.
        doubts.failed = None;
        if doubts.refused_until.is_some() {
            let _ = self.known.set(Speaks::Legacy(version.to_string()));
        }
    }

    fn refuses_discover(&self) -> bool {
        is_ahead(self.doubts.lock().refused_until)
    }

    fn failed(&self) -> Option<Fault> {
        let failed = &self.doubts.lock().failed;
        let (fault, until) = failed.as_ref()?;
        is_ahead(Some(*until)).then(|| fault.clone())
    }

    fn note_failed(&self, fault: Fault) -> Unsettled {
        self.doubts.lock().failed = Some((fault.clone(), Instant::now() + FAILED));
        Unsettled::Failed(fault)
    }

    /// What the server speaks; it is asked for all that tells.
    async fn ask(&self, shared: &Shared) -> Option<&Speaks> {
        self.settle(shared, None).await.ok()
    }

    /// What the server speaks, as far as it must be known before a client's request goes to it.
    async fn settle(
        &self,
        shared: &Shared,
        request: Option<&Method>,
    ) -> Result<&Speaks, Unsettled> {
        let discovers = request == Some(&Method::Discover);
        let asked = self.known.get_or_try_init(|| async {
            if is_ahead(self.doubts.lock().silent_until) {
                return Err(Unsettled::Silent);
            }
            if discovers && self.refuses_discover() {
                return Err(Unsettled::Refused);
            }
            if let Some(fault) = self.failed() {
                return Err(Unsettled::Failed(fault));
            }
            let patience = if discovers {
                STARTING_PATIENCE
            } else {
                PATIENCE
            };
            match discover(shared, patience).await {
                Ok(Discovered::Modern(versions)) => return Ok(Speaks::Modern(versions)),
                Ok(Discovered::Refused) if discovers => {
                    self.doubts.lock().refused_until = Some(Instant::now() + SILENCE);
                    return Err(Unsettled::Refused);
                }
                // Some legacy servers end over a request that is not `initialize`.
                Err(fault) if fault.kind == FaultKind::ChildExited && !discovers => {}
                Err(fault) if is_known(&fault) => return Err(self.note_failed(fault)),
                _ => {}
            }
            let why = match initialize(shared).await {
                Ok(Some(version)) => return Ok(Speaks::Legacy(version)),
                Err(fault) if is_known(&fault) => self.note_failed(fault),
                _ => Unsettled::Silent,
            };
            self.doubts.lock().silent_until = Some(Instant::now() + SILENCE);
            Err(why)
        });
        asked.await
    }
}

fn is_ahead(until: Option<Instant>) -> bool {
    until.is_some_and(|until| Instant::now() < until)
}

/// Whether it is known why a command could not be asked, so that trying it once more at once would
/// only start it once more.
fn is_known(fault: &Fault) -> bool {
    matches!(
        fault.kind,
        FaultKind::ChildExited | FaultKind::ChildNotStarted | FaultKind::Overloaded
    )
}

/// What keeps a request from its server.
pub(crate) enum Obstacle {
    /// The server is of the other era; the error that says so.
    Mismatch(Message),
    /// The server failed when it was asked what it is.
    Fault(Fault),
}

/// Before the first modern request on a pipe: a legacy server might execute it unnoticed, or say
/// nothing at all.
pub(crate) async fn check_pipe(shared: &Shared, request: &Message) -> Option<Obstacle> {
    let id = request.id()?;
    match shared.era.settle(shared, request.method()).await {
        Ok(Speaks::Legacy(version)) => {
            Some(Obstacle::Mismatch(modern_to_legacy(request, id, version)))
        }
        Err(Unsettled::Refused) => {
            let served = shared.config.versions.served(Era::Legacy);
            let error = version::modern_client_refused(id, &client_version(request), &served);
            Some(Obstacle::Mismatch(error))
        }
        Err(Unsettled::Failed(mut fault)) => {
            // What was asked was ours.
            fault.executed = Executed::No;
            Some(Obstacle::Fault(fault))
        }
        Ok(Speaks::Modern(_)) | Err(Unsettled::Silent) => None,
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
    // Ours: there is nothing more to learn before the client's own `initialize`.
    if request.method() == Some(&Method::Discover) && shared.era.refuses_discover() {
        return (status, response);
    }
    if inspect::is_modern_response(&response) {
        shared.era.saw_modern();
        return (status, response);
    }
    let may_tell = if shared.era.known.initialized() {
        is_error(&response)
    } else {
        fault::may_tell_era(status)
    };
    if may_tell && let Some(Speaks::Legacy(version)) = shared.era.ask(shared).await {
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
        Some(Speaks::Modern(supported)) => {
            let offer = Offer::read(request).map(|offer| offer.version().to_owned());
            match (request.id(), offer) {
                (Some(id), Ok(client)) => {
                    version::legacy_client_modern_server(id, &client, supported)
                }
                _ => response,
            }
        }
        Some(Speaks::Legacy(_)) | None => response,
    }
}

fn modern_to_legacy(request: &Message, id: &RequestId, server: &str) -> Message {
    version::modern_client_legacy_server(id, &client_version(request), server)
}

/// The version that a modern request claims.
fn client_version(request: &Message) -> String {
    match inspect::claim(request) {
        Claim::WellFormed { version } => version,
        _ => ProtocolVersion::V2026_07_28.to_string(),
    }
}

fn is_error(message: &Message) -> bool {
    matches!(message.kind(), Kind::Error { .. })
}

/// Whether a server refuses a method as one of the other era does. Its other errors may pass.
fn is_unknown_method(answer: &Message) -> bool {
    let code = inspect::error_code(answer);
    code.is_some_and(|code| UNKNOWN_METHOD.contains(&code))
        && !inspect::is_modern_response(answer)
        && !inspect::is_own_fault(answer)
}

/// What a server made of `server/discover`.
enum Discovered {
    /// A modern server told its versions.
    Modern(Vec<String>),
    /// An error that a legacy server may answer with.
    Refused,
    /// Nothing, or nothing that tells.
    Nothing,
}

async fn discover(shared: &Shared, patience: Duration) -> Result<Discovered, Fault> {
    let (leg, answer) = ask(shared, Era::Modern, build::discover(), patience).await;
    let discovered = match &answer {
        Ok(Some(answer)) => match DiscoverResult::read(answer) {
            Some(result) => Discovered::Modern(result.versions),
            None if is_unknown_method(answer) => Discovered::Refused,
            None => Discovered::Nothing,
        },
        _ => Discovered::Nothing,
    };
    // A handshake may follow what was refused, and anything what was answered.
    tokio::spawn(match discovered {
        Discovered::Modern(_) => leg.hand_on(Era::Modern),
        Discovered::Refused => leg.hand_on(Era::Legacy),
        Discovered::Nothing => leg.close(),
    });
    answer.map(|_| discovered)
}

/// The version that a server answers `initialize` with.
async fn initialize(shared: &Shared) -> Result<Option<String>, Fault> {
    let initialize = build::initialize(ProtocolVersion::V2025_11_25);
    let (leg, answer) = ask(shared, Era::Legacy, initialize, PATIENCE).await;
    // A session has begun on it, which is nobody's.
    tokio::spawn(leg.close());
    let result = answer?.and_then(|answer| InitializeResult::read(&answer).ok());
    Ok(result.map(|result| result.version().to_owned()))
}

/// One request on a leg of its own; `None` if there was no answer in time.
async fn ask(
    shared: &Shared,
    era: Era,
    request: Message,
    patience: Duration,
) -> (Arc<dyn Leg>, Result<Option<Message>, Fault>) {
    let leg = shared.upstream.leg(era);
    let deadline = Instant::now() + patience;
    let asking = upstream::ask(&*leg, request, deadline);
    let answer = tokio::time::timeout_at(deadline, asking).await;
    (leg, answer.ok().transpose())
}

#[cfg(test)]
mod tests;
