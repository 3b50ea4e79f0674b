//! Legacy clients over HTTP: sessions, one exchange per POST, streams that can be resumed.

use std::sync::Arc;

use futures_util::StreamExt;
use http::{HeaderMap, StatusCode};
use shadowcat_mcp::classify;
use shadowcat_mcp::fault::{Executed, Fault, FaultKind, Rejection, Side};
use shadowcat_mcp::headers::{self, Fields, VersionHeader};
use shadowcat_mcp::message::{Kind, Message, Payload, RequestId};
use shadowcat_mcp::method::Method;
use shadowcat_mcp::version::{Era, ProtocolVersion};
use shadowcat_store::{EventId, StreamNumber};
use shadowcat_transport::downstream::HttpReply;
use shadowcat_transport::upstream::BoxFuture;

use super::detach::Detaching;
use super::events;
use super::gateway::{HttpGateway, at_once};
use super::registry::ClientSession;
use crate::session::{Outgoing, Outgoings, Refusal};

impl HttpGateway {
    /// Not `async`: what is known at once is done at once, and only what is left to wait for has
    /// its place in memory while the request is open.
    pub(super) fn legacy_post(
        self: &Arc<Self>,
        headers: HeaderMap,
        version: VersionHeader,
        payload: Payload,
    ) -> BoxFuture<HttpReply> {
        if let Payload::Single(message) = &payload
            && let Kind::Request {
                id,
                method: Method::Initialize,
            } = message.kind()
        {
            let (message, id) = (message.clone(), id.clone());
            return Box::pin(Arc::clone(self).initialize(headers, version, message, id));
        }
        let client = match self.client(&headers, version) {
            Ok(client) => client,
            Err(rejection) => return at_once(HttpReply::Rejected(rejection)),
        };
        let forwarded =
            headers::to_upstream(&headers, Era::Legacy, self.shared.config.forward_auth);
        match payload {
            Payload::Single(message) => post_one(client, message, forwarded),
            Payload::Batch(messages) => Box::pin(post_batch(client, messages, forwarded)),
        }
    }

    /// The session that the headers name, with the version channels checked against it.
    pub(super) fn client(
        &self,
        headers: &HeaderMap,
        version: VersionHeader,
    ) -> Result<Arc<ClientSession>, Rejection> {
        let id = headers::client_session_id(headers)?.ok_or(Rejection::SessionRequired)?;
        let client = self.registry.find(&id).ok_or(Rejection::UnknownSession)?;
        let version = classify::check_version(version, client.session.negotiated())?;
        client.session.validate(version);
        Ok(client)
    }

    pub(super) async fn legacy_get(
        self: Arc<Self>,
        headers: HeaderMap,
        version: VersionHeader,
    ) -> HttpReply {
        let client = match self.client(&headers, version) {
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
            cursor => events::standalone(client, cursor).await.map(Some),
        };
        match events {
            Ok(Some(events)) => HttpReply::Events {
                headers: Fields::default(),
                events,
            },
            // A stream without events would be asked for again; 204 says that there is no more
            // (WHATWG HTML, server-sent events, "Processing model").
            Ok(None) => HttpReply::Ended,
            Err(_) => HttpReply::Rejected(Rejection::UnknownEventId),
        }
    }

    pub(super) async fn legacy_delete(
        self: Arc<Self>,
        headers: HeaderMap,
        version: VersionHeader,
    ) -> HttpReply {
        match self.client(&headers, version) {
            Ok(client) => {
                self.registry.end(&client).await;
                HttpReply::Ended
            }
            Err(rejection) => HttpReply::Rejected(rejection),
        }
    }
}

fn post_one(
    client: Arc<ClientSession>,
    message: Message,
    headers: HeaderMap,
) -> BoxFuture<HttpReply> {
    let Kind::Request { id, method } = message.kind() else {
        return Box::pin(async move {
            client.session.tell(message, headers).await;
            HttpReply::Accepted
        });
    };
    let (id, method) = (id.clone(), method.clone());
    let session = &client.session;
    match session.request(message, id.clone(), method, headers, None) {
        Ok(outgoings) => Box::pin(answer(client, outgoings, id)),
        Err(fault) => at_once(fault_body(&fault, fault.status(Era::Legacy), &id)),
    }
}

/// JSON or stream: one JSON body if the response is the first
/// that the server sends and comes in time, else an event stream.
async fn answer(client: Arc<ClientSession>, outgoings: Outgoings, id: RequestId) -> HttpReply {
    let session = &client.session;
    let config = &session.shared.config;
    let patience = if session.has_response_heads() {
        config.head_patience
    } else {
        config.stream_after
    };
    let mut outgoings = Detaching::new(session, outgoings);
    let (headers, first) = match session.timers.timeout(patience, outgoings.next()).await {
        Ok(Some(Outgoing::Response {
            headers, message, ..
        })) => return body(StatusCode::OK, headers, &message),
        Ok(Some(Outgoing::Refused { refusal, .. })) => return refused(refusal),
        Ok(None) => {
            let fault = Fault::new(Side::Client, FaultKind::Cancelled, Executed::Unknown)
                .because("the client cancelled this request");
            return fault_body(&fault, fault.status(Era::Legacy), &id);
        }
        Ok(Some(Outgoing::Message(message))) => (Fields::default(), Some(message)),
        Ok(Some(Outgoing::StreamOpened { headers })) => (headers, None),
        Err(_) => (Fields::default(), None),
    };
    match outgoings.take() {
        Some(outgoings) => HttpReply::Events {
            headers,
            events: events::live(client, outgoings, first),
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
    let session = Arc::clone(&client.session);
    if !session
        .negotiated()
        .is_some_and(ProtocolVersion::has_batches)
    {
        return HttpReply::Rejected(Rejection::BatchNotAllowed);
    }
    let (mut answers, mut others) = (Vec::new(), Vec::new());
    for message in messages {
        let Kind::Request { id, method } = message.kind() else {
            others.push(message);
            continue;
        };
        let (id, method) = (id.clone(), method.clone());
        match session.request(message, id.clone(), method, headers.clone(), None) {
            Ok(outgoings) => answers.push(outgoings),
            Err(fault) => {
                let refusal = Outgoing::Message(fault.to_response(&id));
                answers.push(Box::pin(futures_util::stream::iter([refusal])));
            }
        }
    }
    let merged = (!answers.is_empty()).then(|| {
        // A response ends its own exchange but not the stream that carries the whole batch.
        let merged = futures_util::stream::select_all(answers).filter_map(|outgoing| {
            std::future::ready(outgoing.into_message().map(Outgoing::Message))
        });
        Detaching::new(&session, Box::pin(merged))
    });
    for message in others {
        session.tell(message, headers.clone()).await;
    }
    match merged.and_then(Detaching::take) {
        Some(outgoings) => HttpReply::Events {
            headers: Fields::default(),
            events: events::live(client, outgoings, None),
        },
        None => HttpReply::Accepted,
    }
}

/// The status that stands for a response.
pub(super) fn refused(refusal: Refusal) -> HttpReply {
    match refusal {
        Refusal::Challenge {
            status,
            headers,
            body,
        } => HttpReply::Body {
            status,
            headers,
            body,
        },
        Refusal::SessionLost => HttpReply::Rejected(Rejection::UnknownSession),
    }
}

pub(super) fn body(status: StatusCode, headers: Fields, message: &Message) -> HttpReply {
    HttpReply::Body {
        status,
        headers,
        body: message.raw().clone(),
    }
}

/// A fault in the place of a response, with the status that its era and method give it.
pub(super) fn fault_body(fault: &Fault, status: StatusCode, id: &RequestId) -> HttpReply {
    body(status, fault.headers(status).into(), &fault.to_response(id))
}
