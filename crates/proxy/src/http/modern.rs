//! Modern clients over HTTP (2026-07-28): every request stands alone.
//!
//! The request goes to a modern upstream as it came; closing the stream is the cancel. A server
//! that turns out to be legacy gets named in the error, with both sides' versions.

use std::sync::Arc;

use futures_util::StreamExt;
use http::{HeaderMap, StatusCode};
use shadowcat_mcp::classify::ModernRequest;
use shadowcat_mcp::fault::{Executed, Fault, FaultKind, Side};
use shadowcat_mcp::headers::{self, Fields};
use shadowcat_mcp::message::{Message, Payload, RequestId};
use shadowcat_mcp::method::Method;
use shadowcat_mcp::version::Era;
use shadowcat_transport::downstream::HttpReply;
use shadowcat_transport::request_span::RequestSpan;

use super::events;
use super::gateway::HttpGateway;
use super::legacy::{body, fault_body, refused};
use crate::mismatch::{self, Obstacle};
use crate::session::{Outgoing, Outgoings, Session};

impl HttpGateway {
    pub(super) async fn modern_post(
        self: Arc<Self>,
        headers: HeaderMap,
        payload: Payload,
        request: ModernRequest,
    ) -> HttpReply {
        let Payload::Single(message) = payload else {
            return HttpReply::Accepted;
        };
        // What a modern client notifies over HTTP is not defined: accepted, and dropped.
        let ModernRequest::Request { id, method } = request else {
            return HttpReply::Accepted;
        };
        if let Err(fault) = self.shared.admits() {
            return fault_body(&fault, fault.status(Era::Modern), &id);
        }
        // A drain waits for it: a process may be started that has to be ended in good order.
        let opening = self.modern.opening();
        if !self.modern.has_response_heads()
            && let Some(refused) = self.refuse_for_pipe(&headers, &message, &method).await
        {
            return refused;
        }
        let config = &self.shared.config;
        let forwarded = headers::to_upstream(&headers, Era::Modern, config.forward_auth);
        let outgoings =
            self.modern
                .request_untracked(message.clone(), id.clone(), method, forwarded);
        drop(opening);
        self.answer(&message, &id, outgoings).await
    }

    /// What a server that sees no headers, and may be of the other era, cannot refuse itself.
    async fn refuse_for_pipe(
        &self,
        headers: &HeaderMap,
        message: &Message,
        method: &Method,
    ) -> Option<HttpReply> {
        match mismatch::check_pipe(&self.shared, message).await {
            Some(Obstacle::Mismatch(error)) => {
                return Some(body(StatusCode::BAD_REQUEST, Fields::default(), &error));
            }
            Some(Obstacle::Fault(fault)) => {
                let id = message.id()?;
                let span = RequestSpan::new(&self.modern.span, id, method);
                let log = async { Session::log_failure(method, &fault) };
                span.scope(log).await;
                return Some(fault_body(&fault, fault.status(Era::Modern), id));
            }
            None => {}
        }
        if *method != Method::ToolsCall {
            return None;
        }
        let params = &self.shared.tool_params;
        let checked = params.check(&self.modern, headers, message).await;
        checked.err().map(HttpReply::Rejected)
    }

    /// One body if the response is the first that comes, and comes soon; an event stream otherwise.
    async fn answer(
        &self,
        message: &Message,
        id: &RequestId,
        mut outgoings: Outgoings,
    ) -> HttpReply {
        let config = &self.shared.config;
        let patience = if self.modern.has_response_heads() {
            config.head_patience
        } else {
            config.stream_after
        };
        let timers = &self.modern.timers;
        let (headers, first) = match timers.timeout(patience, outgoings.next()).await {
            Ok(Some(Outgoing::Response {
                status,
                headers,
                message: response,
            })) => {
                let response = mismatch::explain_to_modern(&self.shared, message, status, response);
                let (status, response) = response.await;
                return body(status, headers, &response);
            }
            Ok(Some(Outgoing::Refused { refusal, .. })) => return refused(refusal),
            Ok(None) => {
                let fault = Fault::new(Side::Upstream, FaultKind::StreamEnded, Executed::Unknown)
                    .because("the server ended its answer without a response");
                return fault_body(&fault, fault.status(Era::Modern), id);
            }
            Ok(Some(Outgoing::StreamOpened { headers })) => (headers, None),
            Err(_) => (Fields::default(), None),
            Ok(first) => (Fields::default(), first),
        };
        HttpReply::Events {
            headers,
            events: events::modern(&self.shared, outgoings, first),
        }
    }
}
