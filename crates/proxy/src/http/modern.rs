//! Modern clients over HTTP (2026-07-28): every request stands alone.
//!
//! The request goes to a modern upstream as it came; closing the stream is the cancel. A server
//! that turns out to be legacy gets named in the error, with both sides' versions.

use std::sync::Arc;

use futures_util::StreamExt;
use http::HeaderMap;
use shadowcat_mcp::classify::ModernRequest;
use shadowcat_mcp::fault::{Executed, Fault, FaultKind, Side};
use shadowcat_mcp::headers;
use shadowcat_mcp::message::Payload;
use shadowcat_mcp::method::Method;
use shadowcat_mcp::version::Era;
use shadowcat_transport::downstream::HttpReply;

use super::events;
use super::gateway::HttpGateway;
use super::legacy::{fault_body, refused};
use crate::mismatch;
use crate::session::Outgoing;

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
        let forwarded =
            headers::to_upstream(&headers, Era::Modern, self.shared.config.forward_auth);
        if !self.modern.has_response_heads()
            && let Some(error) = mismatch::check_pipe(&self.shared, &message).await
        {
            let status = http::StatusCode::BAD_REQUEST;
            return HttpReply::Body {
                status,
                headers: HeaderMap::new(),
                body: error.raw().clone(),
            };
        }
        if method == Method::ToolsCall && !self.modern.has_response_heads() {
            let params = &self.shared.tool_params;
            if let Err(rejection) = params.check(&self.modern, &headers, &message).await {
                return HttpReply::Rejected(rejection);
            }
        }
        let mut outgoings =
            self.modern
                .request_untracked(message.clone(), id.clone(), method, forwarded);
        let config = &self.shared.config;
        let patience = if self.modern.has_response_heads() {
            config.head_patience
        } else {
            config.stream_after
        };
        let timers = &self.modern.timers;
        let first = match timers.timeout(patience, outgoings.next()).await {
            Ok(Some(Outgoing::Response {
                status,
                headers,
                message: response,
            })) => {
                let response =
                    mismatch::explain_to_modern(&self.shared, &message, status, response);
                let (status, response) = response.await;
                return HttpReply::Body {
                    status,
                    headers,
                    body: response.raw().clone(),
                };
            }
            Ok(Some(Outgoing::Refused { refusal, .. })) => return refused(refusal),
            Ok(None) => {
                let fault = Fault::new(Side::Upstream, FaultKind::StreamEnded, Executed::Unknown)
                    .because("the server ended its answer without a response");
                return fault_body(&fault, fault.status(Era::Modern), &id);
            }
            Ok(Some(Outgoing::StreamOpened { headers })) => (headers, None),
            Err(_) => (HeaderMap::new(), None),
            Ok(first) => (HeaderMap::new(), first),
        };
        let (headers, first) = first;
        HttpReply::Events {
            headers,
            events: events::modern(&self.shared, outgoings, first),
        }
    }
}
