//! One POST until its response head: redirects, and the second tries that are safe whatever the
//! method (resilience 3, "sent once", a).
//!
//! What comes back is the head of an answer that the server made of the request, or a fault that
//! says whether the request may have been executed. Nothing here sends a request again that the
//! server may have processed.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{LOCATION, RETRY_AFTER};
use http::{HeaderMap, Method, Request, Response, StatusCode, Uri};
use hyper::body::Incoming;
use shadowcat_mcp::fault::Fault;
use tokio::time::Instant;

use super::client::{Delivery, NotSent, RequestBody, SendError};
use super::target::{self, MAX_REDIRECTS};
use super::{Shared, body, faults};
use crate::upstream::Dispatched;

/// How long a request without a connection is tried again.
const CONNECT_PATIENCE: Duration = Duration::from_secs(10);
/// Bounds of the delays between those tries.
const CONNECT_DELAY_MIN: Duration = Duration::from_millis(100);
const CONNECT_DELAY_MAX: Duration = Duration::from_secs(2);

/// How often a request comes back to a server that asked it to wait.
const MAX_BUSY_TRIES: u32 = 10;

/// A message to be sent.
pub(crate) struct Post<'a> {
    pub(crate) url: &'a Uri,
    pub(crate) body: &'a Bytes,
    /// When the request has to be answered: no wait of ours goes beyond it.
    pub(crate) deadline: Option<Instant>,
    /// Told when the body is handed to a connection.
    pub(crate) dispatched: Dispatched,
}

/// Sends a message and returns the response head. `headers` makes the request's headers, anew for
/// each try.
pub(crate) async fn post(
    shared: &Shared,
    post: Post<'_>,
    headers: impl Fn() -> HeaderMap,
) -> Result<Response<Incoming>, Fault> {
    let delivery = Delivery::new(post.dispatched);
    shared.counters.bytes_sent.inc_by(post.body.len() as u64);
    let mut waits = Waits::new(shared, post.deadline);
    let mut redirected: Option<Uri> = None;
    let mut redirects = 0;
    loop {
        let url = redirected.as_ref().unwrap_or(post.url);
        let request = build(url, post.body.clone(), headers(), &delivery);
        let response = match shared.client.message(request).await {
            Ok(response) => response,
            Err(SendError::Lost(cause)) => return Err(faults::lost(&cause)),
            Err(SendError::NotSent(why)) => {
                let delay = waits
                    .after_no_connection(&why)
                    .ok_or_else(|| faults::not_sent(&shared.name, &why))?;
                tokio::time::sleep(delay).await;
                delivery.reset();
                continue;
            }
        };
        let status = response.status();
        if status.is_redirection() {
            redirects += 1;
            redirected = Some(follow(url, &response, redirects)?);
            body::discard(response.into_body()).await;
        } else if status == StatusCode::TOO_MANY_REQUESTS
            || status == StatusCode::SERVICE_UNAVAILABLE
                && response.headers().contains_key(RETRY_AFTER)
        {
            let hint = retry_after(response.headers());
            let delay = waits
                .after_busy(hint)
                .ok_or_else(|| faults::busy(status, hint))?;
            body::discard(response.into_body()).await;
            tokio::time::sleep(delay).await;
        } else {
            return Ok(response);
        }
        delivery.reset();
    }
}

fn build(
    url: &Uri,
    body: Bytes,
    headers: HeaderMap,
    delivery: &Arc<Delivery>,
) -> Request<RequestBody> {
    let mut request = Request::new(RequestBody::new(body, Arc::clone(delivery)));
    *request.method_mut() = Method::POST;
    *request.uri_mut() = url.clone();
    *request.headers_mut() = headers;
    request
}

/// Where a redirected POST goes. Only 307 and 308 keep the method and the body.
fn follow(from: &Uri, response: &Response<Incoming>, redirects: u8) -> Result<Uri, Fault> {
    let status = response.status();
    if !matches!(
        status,
        StatusCode::TEMPORARY_REDIRECT | StatusCode::PERMANENT_REDIRECT
    ) {
        return Err(faults::redirect(
            status,
            "it would turn the POST into a GET",
        ));
    }
    if redirects > MAX_REDIRECTS {
        return Err(faults::redirect(status, "too many of them"));
    }
    let location = response.headers().get(LOCATION);
    let reference = location
        .and_then(|location| location.to_str().ok())
        .ok_or_else(|| faults::redirect(status, "it has no readable Location"))?;
    target::resolve(from, reference).map_err(|error| faults::redirect(status, error))
}

/// What one request may still wait, and for what.
struct Waits<'a> {
    shared: &'a Shared,
    deadline: Option<Instant>,
    no_connection_since: Option<Instant>,
    connect_delay: Duration,
    busy: u32,
}

impl<'a> Waits<'a> {
    fn new(shared: &'a Shared, deadline: Option<Instant>) -> Self {
        Self {
            shared,
            deadline,
            no_connection_since: None,
            connect_delay: CONNECT_DELAY_MIN,
            busy: 0,
        }
    }

    fn after_no_connection(&mut self, why: &NotSent) -> Option<Duration> {
        if matches!(why, NotSent::Tls(_)) {
            return None;
        }
        let now = Instant::now();
        let since = *self.no_connection_since.get_or_insert(now);
        let delay = self.shared.jittered(self.connect_delay);
        self.connect_delay = (self.connect_delay * 2).min(CONNECT_DELAY_MAX);
        let fits = now + delay <= since + CONNECT_PATIENCE;
        (fits && self.in_time(delay)).then_some(delay)
    }

    fn after_busy(&mut self, hint: Option<Duration>) -> Option<Duration> {
        self.busy += 1;
        if self.busy > MAX_BUSY_TRIES {
            return None;
        }
        let delay = match hint {
            Some(hint) if hint > self.shared.config.retry_hint_max => return None,
            Some(hint) => hint,
            None => self.shared.backoff(self.busy),
        };
        self.in_time(delay).then_some(delay)
    }

    fn in_time(&self, delay: Duration) -> bool {
        self.deadline
            .is_none_or(|deadline| Instant::now() + delay < deadline)
    }
}

/// `Retry-After` (RFC 9110, section 10.2.3).
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let value = headers.get(RETRY_AFTER)?.to_str().ok()?;
    Some(Duration::from_secs(value.trim().parse().ok()?))
}
