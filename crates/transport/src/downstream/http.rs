//! The Streamable HTTP client edge.
//!
//! MCP specification, Transports, "Streamable HTTP". One endpoint, `/mcp`; hyper reads and writes
//! the wire. What one request shows by itself is judged here, in this order: Host, Origin, path,
//! method, Content-Type, Accept, size, JSON. Everything else is the pipeline's.

mod accept;
mod body;
mod config;
mod cors;
mod serve;

use std::sync::Arc;

use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use prometheus_client::metrics::counter::Counter;
use shadowcat_mcp::fault::Rejection;
use shadowcat_mcp::headers;
use shadowcat_mcp::message::{Kind, Payload, RequestId};

use super::{HttpReply, HttpService};
use crate::metrics::{ByteLabels, Metrics, StatusLabel};
pub use accept::{Accept, Tcp};
use body::EdgeBody;
pub use config::HttpEdgeConfig;

/// The path of the endpoint.
pub const PATH: &str = "/mcp";
const ALLOW: &str = "GET, POST, DELETE, OPTIONS";

/// One Streamable HTTP endpoint; [`HttpEdge::serve`] runs it.
pub struct HttpEdge {
    config: HttpEdgeConfig,
    metrics: Arc<Metrics>,
    received: Counter,
    sent: Counter,
}

impl HttpEdge {
    /// An edge that is not serving yet.
    #[must_use]
    pub fn new(config: HttpEdgeConfig, metrics: Arc<Metrics>) -> Arc<Self> {
        let bytes = |direction| {
            let labels = ByteLabels {
                leg: "downstream",
                direction,
            };
            metrics.bytes.get_or_create(&labels).clone()
        };
        Arc::new(Self {
            config,
            received: bytes("received"),
            sent: bytes("sent"),
            metrics,
        })
    }

    /// Answers one request.
    async fn answer<S, B>(&self, service: Arc<S>, request: Request<B>) -> Response<EdgeBody>
    where
        S: HttpService,
        B: http_body::Body<Data = Bytes> + Send,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let (parts, body) = request.into_parts();
        let access = &self.config.access;
        let authority = parts.uri.authority().map(http::uri::Authority::as_str);
        let allowed = access
            .check_host(authority, &parts.headers)
            .and_then(|()| access.check_origin(&parts.headers));
        if let Err(rejection) = allowed {
            return self.refuse(&rejection, None);
        }
        let origin = cors::origin(&parts.headers);
        let mut response = if parts.uri.path() != PATH {
            self.refuse(&Rejection::NotFound, None)
        } else {
            match parts.method {
                Method::POST => self.post(service, parts.headers, body).await,
                Method::GET if !headers::accepts_events(&parts.headers) => self.refuse(
                    &Rejection::NotAcceptable {
                        needed: "text/event-stream",
                    },
                    None,
                ),
                Method::GET => self.reply(service.get(parts.headers).await, None),
                Method::DELETE => self.reply(service.delete(parts.headers).await, None),
                Method::OPTIONS => cors::preflight(&parts.headers),
                _ => self.refuse(&Rejection::MethodNotAllowed { allow: ALLOW }, None),
            }
        };
        if let Some(origin) = origin {
            cors::allow(response.headers_mut(), origin);
        }
        response
    }

    async fn post<S, B>(&self, service: Arc<S>, headers: HeaderMap, body: B) -> Response<EdgeBody>
    where
        S: HttpService,
        B: http_body::Body<Data = Bytes> + Send,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let payload = match self.read(&headers, body).await {
            Ok(payload) => payload,
            Err(rejection) => return self.refuse(&rejection, None),
        };
        let id = match &payload {
            Payload::Single(message) => match message.kind() {
                Kind::Request { id, .. } => Some(id.clone()),
                _ => None,
            },
            Payload::Batch(_) => None,
        };
        let reply = service.post(headers, payload).await;
        self.reply(reply, id.as_ref())
    }

    /// Reads and parses the body, within its limit.
    async fn read<B>(&self, headers: &HeaderMap, body: B) -> Result<Payload, Rejection>
    where
        B: http_body::Body<Data = Bytes> + Send,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        if !headers::is_json(headers) {
            return Err(Rejection::UnsupportedMediaType);
        }
        if !headers::accepts_json_and_events(headers) {
            let needed = "both application/json and text/event-stream";
            return Err(Rejection::NotAcceptable { needed });
        }
        let limit = self.config.max_message_size;
        let too_large = Rejection::BodyTooLarge { limit };
        let declared = headers
            .get(CONTENT_LENGTH)
            .and_then(|length| length.to_str().ok());
        if declared
            .and_then(|length| length.parse().ok())
            .is_some_and(|length: usize| length > limit)
        {
            return Err(too_large);
        }
        let collected = Limited::new(body, limit).collect();
        let collected = match tokio::time::timeout(self.config.body_timeout, collected).await {
            Ok(Ok(collected)) => collected,
            Ok(Err(error)) if error.is::<LengthLimitError>() => return Err(too_large),
            Ok(Err(_)) => return Err(Rejection::InvalidRequest("the body broke off".to_owned())),
            Err(_) => {
                let why = "the body did not arrive in time".to_owned();
                return Err(Rejection::InvalidRequest(why));
            }
        };
        let bytes = collected.to_bytes();
        self.received.inc_by(bytes.len() as u64);
        Payload::parse(bytes).map_err(Rejection::Parse)
    }

    fn reply(&self, reply: HttpReply, id: Option<&RequestId>) -> Response<EdgeBody> {
        match reply {
            HttpReply::Accepted => bare(StatusCode::ACCEPTED),
            HttpReply::Ended => bare(StatusCode::NO_CONTENT),
            HttpReply::Body {
                status,
                headers,
                body,
            } => {
                self.sent.inc_by(body.len() as u64);
                let mut response = Response::new(EdgeBody::Whole(Some(body)));
                *response.status_mut() = status;
                *response.headers_mut() = headers;
                response
                    .headers_mut()
                    .entry(CONTENT_TYPE)
                    .or_insert(headers::JSON);
                response
            }
            HttpReply::Events { headers, events } => {
                let body = EdgeBody::events(events, self.sent.clone(), &self.metrics);
                let mut response = Response::new(body);
                *response.headers_mut() = headers;
                let fields = response.headers_mut();
                fields.insert(CONTENT_TYPE, headers::EVENT_STREAM);
                fields.insert(
                    CACHE_CONTROL,
                    HeaderValue::from_static("no-cache, no-transform"),
                );
                // Asks reverse proxies of the nginx kind not to hold events back.
                const UNBUFFERED: HeaderName = HeaderName::from_static("x-accel-buffering");
                fields.insert(UNBUFFERED, HeaderValue::from_static("no"));
                response
            }
            HttpReply::Rejected(rejection) => self.refuse(&rejection, id),
        }
    }

    fn refuse(&self, rejection: &Rejection, id: Option<&RequestId>) -> Response<EdgeBody> {
        let status = rejection.status();
        let label = StatusLabel {
            status: status.as_u16(),
        };
        self.metrics.rejections.get_or_create(&label).inc();
        let body = rejection.to_response(id).raw().clone();
        self.sent.inc_by(body.len() as u64);
        let mut response = Response::new(EdgeBody::Whole(Some(body)));
        *response.status_mut() = status;
        response.headers_mut().insert(CONTENT_TYPE, headers::JSON);
        if let Some((name, value)) = rejection.header()
            && let Ok(value) = HeaderValue::from_str(&value)
        {
            response.headers_mut().insert(name, value);
        }
        response
    }
}

fn bare(status: StatusCode) -> Response<EdgeBody> {
    let mut response = Response::new(EdgeBody::Whole(None));
    *response.status_mut() = status;
    response
}
