//! The Streamable HTTP client edge.
//!
//! MCP specification, Transports, "Streamable HTTP". One endpoint, [`PATH`]; hyper reads and writes
//! the wire. What one request shows by itself is judged here, in this order: Origin (403), Host
//! (421), path (404), method (405), Content-Type (415), Accept (406), size (413), JSON (400).
//! Everything else is the pipeline's.
//!
//! A refused request does not cost its client the connection: what is left of its body is read and
//! thrown away, within bounds.

mod accept;
mod body;
mod config;
mod cors;
mod heartbeat;
mod open;
mod serve;
mod stall;
mod version;

use std::sync::Arc;

use ::http::header::{CACHE_CONTROL, CONNECTION, CONTENT_TYPE, EXPECT};
use ::http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, uri};
use bytes::Bytes;
use http_body::Body;
use http_body_util::BodyExt;
use prometheus_client::metrics::counter::Counter;
use shadowcat_mcp::fault::Rejection;
use shadowcat_mcp::headers;
use shadowcat_mcp::message::{Kind, Payload, RequestId};
use tokio::time::timeout;
use tokio_util::sync::WaitForCancellationFutureOwned;

use super::{EventBytes, HttpReply, HttpService};
use crate::metrics::{ByteLabels, Metrics, StatusLabel};
use crate::timer::Timers;
pub use accept::{Accept, Tcp};
use body::{Content, EdgeBody, Events, Unread, whole};
pub use config::HttpEdgeConfig;
use heartbeat::Heartbeat;
use open::Open;

/// The path of the endpoint.
pub const PATH: &str = "/mcp";

/// Asks reverse proxies of the nginx kind not to hold events back.
const X_ACCEL_BUFFERING: HeaderName = HeaderName::from_static("x-accel-buffering");
/// When a client that found no free connection should come back, in seconds.
const CONNECTIONS_RETRY_AFTER: u64 = 5;

/// Bytes of a request's header section (431 beyond it); hyper also answers 431 beyond 100 fields.
const HEADER_BYTES: u16 = u16::MAX;

/// What a request's body is to this edge.
trait RequestBody: Body<Data = Bytes, Error: Into<BoxError> + Send> + Send + Unpin + 'static {}
impl<B: Body<Data = Bytes, Error: Into<BoxError> + Send> + Send + Unpin + 'static> RequestBody
    for B
{
}
type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// One Streamable HTTP endpoint; [`HttpEdge::serve`] runs it.
pub struct HttpEdge {
    config: HttpEdgeConfig,
    metrics: Arc<Metrics>,
    received: Counter,
    sent: Counter,
    heartbeat: Arc<Heartbeat>,
    /// For bodies that did not come with their heads.
    timers: Timers,
}

impl HttpEdge {
    /// An edge that is not serving yet.
    #[must_use]
    pub fn new(config: HttpEdgeConfig, metrics: Arc<Metrics>) -> Arc<Self> {
        let bytes = |direction| {
            let leg = "downstream";
            let labels = ByteLabels { leg, direction };
            metrics.bytes.get_or_create(&labels).clone()
        };
        Arc::new(Self {
            config,
            received: bytes("received"),
            sent: bytes("sent"),
            heartbeat: Arc::default(),
            timers: Timers::default(),
            metrics,
        })
    }

    /// Answers one request.
    async fn answer<S: HttpService>(
        &self,
        service: &Arc<S>,
        request: Request<impl RequestBody>,
        open: Open,
    ) -> Response<EdgeBody> {
        self.heartbeat.touch();
        let (parts, body) = request.into_parts();
        let headers = parts.headers;
        let access = &self.config.access;
        let authority = parts.uri.authority().map(uri::Authority::as_str);
        if section_bytes(&headers) > usize::from(HEADER_BYTES) {
            // As hyper answers one that is not over when that many bytes were read.
            let mut response = bare(Rejection::HeadersTooLarge.status(), open);
            let close = HeaderValue::from_static("close");
            response.headers_mut().insert(CONNECTION, close);
            return response;
        }
        let allowed = access
            .check_origin(&headers)
            .and_then(|()| access.check_host(authority, &headers));
        if let Err(rejection) = allowed {
            self.discard(&headers, body);
            return self.refuse(&rejection, None, open);
        }
        let origin = cors::origin(&headers);
        let mut response = match parts.method {
            _ if parts.uri.path() != PATH => {
                self.discard(&headers, body);
                self.refuse(&Rejection::NotFound, None, open)
            }
            Method::POST => self.post(service, headers, body, open).await,
            Method::GET => self.get(service, headers, open).await,
            Method::DELETE => self.reply(service.delete(headers).await, None, open),
            Method::OPTIONS => {
                let mut response = bare(StatusCode::NO_CONTENT, open);
                cors::options(&headers, response.headers_mut());
                response
            }
            _ => {
                let allow = cors::METHODS;
                self.discard(&headers, body);
                self.refuse(&Rejection::MethodNotAllowed { allow }, None, open)
            }
        };
        if let Some(origin) = origin {
            cors::allow(response.headers_mut(), origin);
        }
        response
    }

    async fn post<S: HttpService>(
        &self,
        service: &Arc<S>,
        headers: HeaderMap,
        body: impl RequestBody,
        open: Open,
    ) -> Response<EdgeBody> {
        let payload = match self.read(&headers, body).await {
            Ok(payload) => payload,
            Err(rejection) => return self.refuse(&rejection, None, open),
        };
        let id = match &payload {
            Payload::Single(message) => match message.kind() {
                Kind::Request { id, .. } => Some(id.clone()),
                _ => None,
            },
            Payload::Batch(_) => None,
        };
        let reply = service.post(headers, payload).await;
        self.reply(reply, id.as_ref(), open)
    }

    async fn get<S: HttpService>(
        &self,
        service: &Arc<S>,
        headers: HeaderMap,
        mut open: Open,
    ) -> Response<EdgeBody> {
        if !headers::accepts_events(&headers) {
            let needed = "text/event-stream";
            return self.refuse(&Rejection::NotAcceptable { needed }, None, open);
        }
        // A stream that is resumed may be an exchange's, which a drain waits for.
        let subscription = !headers.contains_key(headers::LAST_EVENT_ID);
        match service.get(headers).await {
            HttpReply::Events { headers, events } if subscription => {
                let cut = open.subscribe();
                self.stream(headers.into(), events, Some(cut), open)
            }
            reply => self.reply(reply, None, open),
        }
    }

    /// Reads and parses the body of a POST, within its bounds.
    async fn read(
        &self,
        headers: &HeaderMap,
        mut body: impl RequestBody,
    ) -> Result<Payload, Rejection> {
        if let Err(rejection) = self.check_head(headers, &body) {
            self.discard(headers, body);
            return Err(rejection);
        }
        let limit = self.config.max_message_size;
        let reading = whole(&mut body, limit);
        let reading = self.timers.timeout(self.config.body_timeout, reading);
        let bytes = match reading.await {
            Ok(Ok(bytes)) => bytes,
            Ok(Err(Unread::TooLarge)) => {
                self.discard(headers, body);
                return Err(Rejection::BodyTooLarge { limit });
            }
            Ok(Err(Unread::Broken)) => {
                let why = "the body broke off".to_owned();
                return Err(Rejection::InvalidRequest(why));
            }
            Err(_) => {
                let why = "the body did not arrive in time".to_owned();
                return Err(Rejection::InvalidRequest(why));
            }
        };
        self.received.inc_by(bytes.len() as u64);
        Payload::parse(bytes).map_err(Rejection::Parse)
    }

    /// What the head of a POST shows.
    fn check_head(&self, headers: &HeaderMap, body: &impl RequestBody) -> Result<(), Rejection> {
        if !headers::is_json(headers) {
            return Err(Rejection::UnsupportedMediaType);
        }
        if !headers::accepts_json_and_events(headers) {
            let needed = "both application/json and text/event-stream";
            return Err(Rejection::NotAcceptable { needed });
        }
        let limit = self.config.max_message_size;
        // `Content-Length`, where there is one.
        if body.size_hint().lower() > limit as u64 {
            return Err(Rejection::BodyTooLarge { limit });
        }
        Ok(())
    }

    /// Reads the rest of a refused request's body, so that the client, which may still be sending,
    /// sees the answer instead of a reset (RFC 9112, section 9.6). Bounded in size and time.
    fn discard(&self, headers: &HeaderMap, mut body: impl RequestBody) {
        // Whoever waits for 100 (Continue) has sent nothing yet and will not.
        if body.is_end_stream() || headers.contains_key(EXPECT) {
            return;
        }
        let (limit, patience) = (self.config.max_message_size, self.config.body_timeout);
        tokio::spawn(timeout(patience, async move {
            let mut read = 0;
            while let Some(Ok(frame)) = body.frame().await {
                read += frame.data_ref().map_or(0, Bytes::len);
                if read > limit {
                    return;
                }
            }
        }));
    }

    fn reply(&self, reply: HttpReply, id: Option<&RequestId>, open: Open) -> Response<EdgeBody> {
        match reply {
            HttpReply::Accepted => bare(StatusCode::ACCEPTED, open),
            HttpReply::Ended => bare(StatusCode::NO_CONTENT, open),
            HttpReply::Body {
                status,
                headers,
                body,
            } => self.whole(status, headers.into(), body, open),
            HttpReply::Events { headers, events } => {
                self.stream(headers.into(), events, None, open)
            }
            HttpReply::Rejected(rejection) => self.refuse(&rejection, id, open),
        }
    }

    fn refuse(
        &self,
        rejection: &Rejection,
        id: Option<&RequestId>,
        open: Open,
    ) -> Response<EdgeBody> {
        let status = rejection.status();
        let label = StatusLabel {
            status: status.as_u16(),
        };
        self.metrics.rejections.get_or_create(&label).inc();
        let mut headers = HeaderMap::new();
        if let Some((name, value)) = rejection.header()
            && let Ok(value) = HeaderValue::from_str(&value)
        {
            headers.insert(name, value);
        }
        let body = rejection.to_response(id).raw().clone();
        self.whole(status, headers, body, open)
    }

    /// The answer on a connection beyond the limit.
    fn turn_away(&self, open: Open) -> Response<EdgeBody> {
        let rejection = Rejection::Overloaded {
            what: "too many connections",
            retry_after: CONNECTIONS_RETRY_AFTER,
        };
        let mut response = self.refuse(&rejection, None, open);
        let close = HeaderValue::from_static("close");
        response.headers_mut().insert(CONNECTION, close);
        response
    }

    fn stream(
        &self,
        headers: HeaderMap,
        events: EventBytes,
        cut: Option<WaitForCancellationFutureOwned>,
        open: Open,
    ) -> Response<EdgeBody> {
        let (sent, streams) = (self.sent.clone(), self.metrics.client_streams.clone());
        let events = Events::new(open.source(events), cut, sent, streams);
        streaming(headers, events, open)
    }

    fn whole(
        &self,
        status: StatusCode,
        mut headers: HeaderMap,
        body: Bytes,
        open: Open,
    ) -> Response<EdgeBody> {
        self.sent.inc_by(body.len() as u64);
        headers.entry(CONTENT_TYPE).or_insert(headers::JSON);
        let mut response = Response::new(EdgeBody::new(Content::Whole(Some(body)), open));
        *response.status_mut() = status;
        *response.headers_mut() = headers;
        response
    }
}

/// The bytes of a header section as HTTP/1.1 writes its fields.
fn section_bytes(headers: &HeaderMap) -> usize {
    const AROUND: usize = ": \r\n".len();
    let field = |(name, value): (&HeaderName, &HeaderValue)| name.as_str().len() + value.len();
    headers.iter().map(field).sum::<usize>() + headers.len() * AROUND
}

fn bare(status: StatusCode, open: Open) -> Response<EdgeBody> {
    let mut response = Response::new(EdgeBody::new(Content::Whole(None), open));
    *response.status_mut() = status;
    response
}

fn streaming(mut headers: HeaderMap, events: Events, open: Open) -> Response<EdgeBody> {
    headers.insert(CONTENT_TYPE, headers::EVENT_STREAM);
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    headers.insert(X_ACCEL_BUFFERING, HeaderValue::from_static("no"));
    let mut response = Response::new(EdgeBody::new(Content::Events(Box::new(events)), open));
    *response.headers_mut() = headers;
    response
}

#[cfg(test)]
mod tests;
