//! `initialize` over HTTP: how a session begins.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use http::{HeaderMap, StatusCode};
use shadowcat_mcp::classify;
use shadowcat_mcp::fault::{Executed, Fault, FaultKind, Rejection, Side};
use shadowcat_mcp::headers::{self, Fields, VersionHeader};
use shadowcat_mcp::inspect;
use shadowcat_mcp::message::{Message, RequestId};
use shadowcat_mcp::method::Method;
use shadowcat_mcp::version::Era;
use shadowcat_transport::downstream::HttpReply;
use tokio::time::timeout;

use super::gateway::HttpGateway;
use super::legacy::{body, fault_body, refused};
use super::registry::{ClientSession, Pending};
use crate::mismatch;
use crate::session::{Outgoing, Outgoings};

/// How long a handshake goes on whose client is gone, so that the server's session can be ended
/// in order.
const ABANDONED_PATIENCE: Duration = Duration::from_secs(30);

impl HttpGateway {
    /// A handshake, always answered by one JSON body. The session is listed only if it succeeds.
    pub(super) async fn initialize(
        self: Arc<Self>,
        headers: HeaderMap,
        version: VersionHeader,
        message: Message,
        id: RequestId,
    ) -> HttpReply {
        if let Err(rejection) = self.begins_a_session(&headers, version, &message) {
            return HttpReply::Rejected(rejection);
        }
        let Some((pending, client)) = self.registry.prepare() else {
            return HttpReply::Rejected(Rejection::TooManySessions);
        };
        let session = &client.session;
        let forwarded =
            headers::to_upstream(&headers, Era::Legacy, self.shared.config.forward_auth);
        if let Err(error) = session.begin_handshake(&message, &forwarded) {
            return body(StatusCode::OK, Fields::default(), &error.to_response(&id));
        }
        let request = message.clone();
        let mut handshaking =
            match session.request(message, id.clone(), Method::Initialize, forwarded, None) {
                Ok(outgoings) => Handshaking {
                    outgoings: Some(outgoings),
                    pending: Some(pending),
                },
                Err(fault) => return failed(&fault, &id),
            };
        while let Some(outgoing) = handshaking.next().await {
            match outgoing {
                Outgoing::StreamOpened { .. } => {}
                Outgoing::Message(message) => session.standalone_append(message).await,
                Outgoing::Refused { refusal, .. } => return refused(refusal),
                Outgoing::Response {
                    status,
                    headers,
                    message,
                } => {
                    if session.negotiated().is_some() {
                        return handshaking.succeeded(&client, headers, &message);
                    }
                    // A fault of ours has the status for its era; the upstream's is its leg's own.
                    let status = match inspect::is_own_fault(&message) {
                        true => status,
                        false => StatusCode::OK,
                    };
                    let explained = mismatch::explain_to_legacy(session, &request, message).await;
                    return body(status, headers, &explained);
                }
            }
        }
        let fault = Fault::new(Side::Upstream, FaultKind::StreamEnded, Executed::Unknown)
            .because("the server did not answer initialize");
        failed(&fault, &id)
    }

    /// Whether an `initialize` may open a session: its version channels agree, and it does not
    /// come in a session that exists.
    fn begins_a_session(
        &self,
        headers: &HeaderMap,
        version: VersionHeader,
        message: &Message,
    ) -> Result<(), Rejection> {
        if headers::client_session_id(headers)?.is_some() {
            self.client(headers, version)?;
            return Err(Rejection::InvalidRequest(
                "this session is initialized; send initialize without Mcp-Session-Id for another"
                    .to_owned(),
            ));
        }
        classify::check_initialize(version, message)
    }
}

/// What a handshake that comes to nothing is answered with.
fn failed(fault: &Fault, id: &RequestId) -> HttpReply {
    let status = fault.status_of(Era::Legacy, &Method::Initialize);
    fault_body(fault, status, id)
}

/// A handshake under way. If its client is gone before it ends, it goes on for a while.
struct Handshaking {
    outgoings: Option<Outgoings>,
    /// Dropping it ends the session.
    pending: Option<Pending>,
}

impl Handshaking {
    async fn next(&mut self) -> Option<Outgoing> {
        let outgoing = self.outgoings.as_mut()?.next().await;
        if outgoing.as_ref().is_none_or(Outgoing::is_last) {
            self.outgoings = None;
        }
        outgoing
    }

    fn succeeded(
        mut self,
        client: &ClientSession,
        headers: Fields,
        message: &Message,
    ) -> HttpReply {
        if let Some(pending) = self.pending.take() {
            pending.list();
        }
        let mut headers = HeaderMap::from(headers);
        headers::insert_session_id(&mut headers, &client.id);
        body(StatusCode::OK, headers.into(), message)
    }
}

impl Drop for Handshaking {
    fn drop(&mut self) {
        if let (Some(mut rest), Some(pending)) = (self.outgoings.take(), self.pending.take())
            && let Ok(runtime) = tokio::runtime::Handle::try_current()
        {
            runtime.spawn(async move {
                let finish = async { while rest.next().await.is_some() {} };
                let _ = timeout(ABANDONED_PATIENCE, finish).await;
                drop(pending);
            });
        }
    }
}
