//! Legacy clients over HTTP: sessions, one exchange per POST, streams that can be resumed.

use std::sync::Arc;

use futures_util::StreamExt;
use http::{HeaderMap, StatusCode};
use shadowcat_mcp::classify;
use shadowcat_mcp::fault::{Executed, Fault, FaultKind, Rejection, Side};
use shadowcat_mcp::headers;
use shadowcat_mcp::inspect;
use shadowcat_mcp::message::{Kind, Message, Payload, RequestId};
use shadowcat_mcp::method::Method;
use shadowcat_mcp::version::{Era, ProtocolVersion};
use shadowcat_store::{EventId, StreamNumber};
use shadowcat_transport::downstream::HttpReply;
use tokio::time::timeout;
use tracing::{Instrument, info_span};

use super::detach::Detaching;
use super::events;
use super::gateway::HttpGateway;
use super::registry::ClientSession;
use crate::mismatch;
use crate::session::{Outgoing, Outgoings};

impl HttpGateway {
    pub(super) async fn legacy_post(
        self: Arc<Self>,
        headers: HeaderMap,
        payload: Payload,
    ) -> HttpReply {
        if let Payload::Single(message) = &payload
            && let Kind::Request {
                id,
                method: Method::Initialize,
            } = message.kind()
        {
            let id = id.clone();
            return self.initialize(headers, message.clone(), id).await;
        }
        let client = match self.client(&headers) {
            Ok(client) => client,
            Err(rejection) => return HttpReply::Rejected(rejection),
        };
        let span = info_span!("post", session = client.session.key.0);
        let forwarded =
            headers::to_upstream(&headers, Era::Legacy, self.shared.config.forward_auth);
        async move {
            match payload {
                Payload::Single(message) => post_one(client, message, forwarded).await,
                Payload::Batch(messages) => post_batch(client, messages, forwarded).await,
            }
        }
        .instrument(span)
        .await
    }

    /// The session that the headers name, with the version channels checked against it.
    fn client(&self, headers: &HeaderMap) -> Result<Arc<ClientSession>, Rejection> {
        let id = headers::client_session_id(headers)?.ok_or(Rejection::SessionRequired)?;
        let client = self.registry.find(&id).ok_or(Rejection::UnknownSession)?;
        classify::check_version(headers, client.session.negotiated())?;
        Ok(client)
    }

    /// A handshake, always answered by one JSON body. The session is listed only if it succeeds.
    async fn initialize(
        self: Arc<Self>,
        headers: HeaderMap,
        message: Message,
        id: RequestId,
    ) -> HttpReply {
        if !self.registry.has_room() {
            return HttpReply::Rejected(Rejection::TooManySessions);
        }
        if let Err(rejection) = classify::check_initialize(&headers, &message) {
            return HttpReply::Rejected(rejection);
        }
        let client = self.registry.prepare();
        let session = &client.session;
        if let Err(error) = session.begin_handshake(&message) {
            return body(StatusCode::OK, HeaderMap::new(), &error.to_response(&id));
        }
        let forwarded =
            headers::to_upstream(&headers, Era::Legacy, self.shared.config.forward_auth);
        let request = message.clone();
        let outgoings = match session.request(message, id.clone(), Method::Initialize, forwarded) {
            Ok(outgoings) => outgoings,
            Err(fault) => return fault_body(&fault, &id),
        };
        let abandoned = {
            let client = Arc::clone(&client);
            move |_outgoings| async move { client.session.end().await }
        };
        let mut outgoings = Detaching::new(outgoings, abandoned);
        while let Some(outgoing) = outgoings.next().await {
            match outgoing {
                Outgoing::StreamOpened => {}
                Outgoing::Message(message) => session.keep_for_standalone(message).await,
                Outgoing::Challenge {
                    status,
                    headers,
                    body,
                } => {
                    return HttpReply::Body {
                        status,
                        headers,
                        body,
                    };
                }
                Outgoing::Response {
                    status,
                    headers: mut extra,
                    message,
                } => {
                    let _ = outgoings.take();
                    // A fault of ours has the status for its era; the upstream's is its leg's own.
                    let status = if inspect::is_own_fault(&message) {
                        status
                    } else {
                        StatusCode::OK
                    };
                    let message = mismatch::explain_to_legacy(session, &request, message).await;
                    if session.negotiated().is_none() {
                        session.end().await;
                    } else if self.registry.list(&client) {
                        headers::insert_session_id(&mut extra, &client.id);
                    } else {
                        session.end().await;
                        return HttpReply::Rejected(Rejection::TooManySessions);
                    }
                    return body(status, extra, &message);
                }
            }
        }
        let fault = Fault::new(Side::Upstream, FaultKind::StreamEnded, Executed::Unknown)
            .because("the server did not answer initialize");
        fault_body(&fault, &id)
    }

    pub(super) async fn legacy_get(self: Arc<Self>, headers: HeaderMap) -> HttpReply {
        let client = match self.client(&headers) {
            Ok(client) => client,
            Err(rejection) => return HttpReply::Rejected(rejection),
        };
        let cursor = match headers::last_event_id(&headers).map(|id| id.parse::<EventId>()) {
            Some(Err(_)) => return HttpReply::Rejected(Rejection::UnknownEventId),
            Some(Ok(cursor)) => Some(cursor),
            None => None,
        };
        let events = match cursor {
            Some(cursor) if cursor.stream != StreamNumber::STANDALONE => {
                events::replay(client, cursor).await
            }
            cursor => events::standalone(client, cursor).await,
        };
        match events {
            Ok(events) => HttpReply::Events {
                headers: HeaderMap::new(),
                events,
            },
            Err(_) => HttpReply::Rejected(Rejection::UnknownEventId),
        }
    }

    pub(super) async fn legacy_delete(self: Arc<Self>, headers: HeaderMap) -> HttpReply {
        match self.client(&headers) {
            Ok(client) => {
                self.registry.end(&client).await;
                HttpReply::Ended
            }
            Err(rejection) => HttpReply::Rejected(rejection),
        }
    }
}

async fn post_one(client: Arc<ClientSession>, message: Message, headers: HeaderMap) -> HttpReply {
    let Kind::Request { id, method } = message.kind() else {
        client.session.tell(message, headers).await;
        return HttpReply::Accepted;
    };
    let (id, method) = (id.clone(), method.clone());
    match client.session.request(message, id.clone(), method, headers) {
        Ok(outgoings) => answer(client, outgoings, &id).await,
        Err(fault) => fault_body(&fault, &id),
    }
}

/// JSON or stream, as resilience section 7 decides: one JSON body if the response is the first
/// that the server sends and comes in time, else an event stream.
async fn answer(client: Arc<ClientSession>, outgoings: Outgoings, id: &RequestId) -> HttpReply {
    let config = &client.session.shared.config;
    let patience = if client.session.has_response_heads() {
        config.head_patience
    } else {
        config.stream_after
    };
    let vanished = |mut rest: Outgoings| async move { while rest.next().await.is_some() {} };
    let mut outgoings = Detaching::new(outgoings, vanished);
    let first = match timeout(patience, outgoings.next()).await {
        Ok(Some(Outgoing::Response {
            headers, message, ..
        })) => {
            return body(StatusCode::OK, headers, &message);
        }
        Ok(Some(Outgoing::Challenge {
            status,
            headers,
            body,
        })) => {
            return HttpReply::Body {
                status,
                headers,
                body,
            };
        }
        Ok(None) => {
            let fault = Fault::new(Side::Client, FaultKind::Cancelled, Executed::Unknown)
                .because("the client cancelled this request");
            return fault_body(&fault, id);
        }
        Ok(Some(Outgoing::Message(message))) => Some(message),
        Ok(Some(Outgoing::StreamOpened)) | Err(_) => None,
    };
    match outgoings.take() {
        Some(outgoings) => HttpReply::Events {
            headers: HeaderMap::new(),
            events: events::live(client, outgoings, first).await,
        },
        None => HttpReply::Accepted,
    }
}

/// A batch (2025-03-26 only): each request by itself, the answers on one stream.
async fn post_batch(
    client: Arc<ClientSession>,
    messages: Vec<Message>,
    headers: HeaderMap,
) -> HttpReply {
    if client.session.negotiated() != Some(ProtocolVersion::V2025_03_26) {
        return HttpReply::Rejected(Rejection::BatchNotAllowed);
    }
    let mut answers = Vec::new();
    for message in messages {
        let Kind::Request { id, method } = message.kind() else {
            client.session.tell(message, headers.clone()).await;
            continue;
        };
        let (id, method) = (id.clone(), method.clone());
        match client
            .session
            .request(message, id.clone(), method, headers.clone())
        {
            Ok(outgoings) => answers.push(outgoings),
            Err(fault) => {
                let response = Outgoing::Response {
                    status: StatusCode::OK,
                    headers: HeaderMap::new(),
                    message: fault.to_response(&id),
                };
                answers.push(Box::pin(futures_util::stream::iter([response])));
            }
        }
    }
    if answers.is_empty() {
        return HttpReply::Accepted;
    }
    // A response ends its own exchange but not the stream that carries the whole batch.
    let merged = futures_util::stream::select_all(answers).map(|outgoing| match outgoing {
        Outgoing::Response { message, .. } => Outgoing::Message(message),
        other => other,
    });
    HttpReply::Events {
        headers: HeaderMap::new(),
        events: events::live(client, Box::pin(merged), None).await,
    }
}

fn body(status: StatusCode, headers: HeaderMap, message: &Message) -> HttpReply {
    HttpReply::Body {
        status,
        headers,
        body: message.raw().clone(),
    }
}

fn fault_body(fault: &Fault, id: &RequestId) -> HttpReply {
    body(
        fault.status(Era::Legacy),
        HeaderMap::new(),
        &fault.to_response(id),
    )
}
