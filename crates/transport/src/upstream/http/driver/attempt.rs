//! One attempt: a request, the redirects that may be followed, and its response head.
//!
//! What comes back is the head, or a [`Failure`]: what the engine needs to decide, and what a
//! person wants to read. Nothing here waits or tries again.

use std::sync::Arc;

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, HOST, LOCATION};
use http::{HeaderMap, HeaderValue, Method, Request, StatusCode, Uri};
use shadowcat_mcp::headers;
use shadowcat_mcp::message::Message;
use shadowcat_sse::reconnect::classify::MAX_REDIRECTS;
use shadowcat_sse::reconnect::{Leg, Trouble, may_follow};

use super::super::client::{Connected, Delivery, Received, RequestBody, SendError};
use super::super::{Shared, body, target};
use crate::upstream::Reply;

/// What became of an attempt.
pub(crate) enum Opened {
    /// 200 with an event stream.
    Stream(Received),
    /// The whole answer.
    Whole(Reply),
    /// A message that wants no answer was accepted.
    Accepted,
    /// It failed.
    Failed(Box<Failure>),
}

/// Why an attempt or a stream failed.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) trouble: Trouble,
    /// What happened, for people; without secrets.
    pub(crate) detail: String,
    /// What an operator is to look at; said once, to whom it was in vain.
    pub(crate) advice: Option<&'static str>,
    /// The server's own JSON-RPC error.
    pub(crate) error: Option<Message>,
    /// What the client gets as it is, if the failure is final.
    pub(crate) relay: Option<Reply>,
}

impl Failure {
    pub(crate) fn new(trouble: Trouble, detail: impl Into<String>) -> Box<Self> {
        Box::new(Self {
            trouble,
            detail: detail.into(),
            advice: None,
            error: None,
            relay: None,
        })
    }
}

/// A request to the server's endpoint.
pub(crate) struct Call {
    pub(crate) method: Method,
    /// Where it goes, if not to the server's endpoint.
    pub(crate) elsewhere: Option<Uri>,
    /// What it carries, save the length of its body.
    pub(crate) headers: Arc<HeaderMap>,
    /// A POST's body, and who is told when it is taken.
    pub(crate) body: Option<(Bytes, Arc<Delivery>)>,
    pub(crate) connected: Connected,
}

impl Call {
    /// Whether it carries our session id.
    pub(crate) fn in_session(&self) -> bool {
        self.headers.contains_key(headers::SESSION_ID)
    }

    fn request(&self, shared: &Shared, url: &Uri) -> Box<Request<RequestBody>> {
        let body = match &self.body {
            None => RequestBody::empty(),
            Some((body, delivery)) => {
                delivery.reset();
                RequestBody::new(body.clone(), Arc::clone(delivery))
            }
        };
        let mut request = Box::new(Request::new(body));
        *request.method_mut() = self.method.clone();
        let mut headers = HeaderMap::clone(&self.headers);
        if let Some((body, _)) = &self.body {
            let length = HeaderValue::from(body.len());
            // Not `insert`, which makes room for one more before it looks.
            match headers.get_mut(CONTENT_LENGTH) {
                Some(place) => *place = length,
                None => drop(headers.insert(CONTENT_LENGTH, length)),
            }
        }
        if url.authority() != shared.config.url.authority() {
            headers.remove(HOST);
        }
        *request.headers_mut() = headers;
        request
    }

    /// The column of the engine's table that its redirects are looked up in.
    fn leg(&self) -> Leg {
        match self.method {
            Method::POST => Leg::Post,
            _ => Leg::Resume,
        }
    }
}

/// Sends a request and follows its redirects to a response head. Where they led comes with it.
pub(crate) async fn send(
    shared: &Shared,
    call: &Call,
) -> Result<(Option<Uri>, Received), Box<Failure>> {
    let first = call.elsewhere.as_ref().unwrap_or(&shared.config.url);
    let (mut led, mut redirects) = (None, 0);
    loop {
        let url = led.as_ref().unwrap_or(first);
        let request = call.request(shared, url);
        let leaving = Leaving { call, shared };
        let response = shared.client.send(request, url, &call.connected).await;
        drop(leaving);
        let response = response.map_err(|error| unsent(&shared.name, &error))?;
        if !response.status().is_redirection() {
            return Ok((led, response));
        }
        redirects += 1;
        led = Some(follow(url, &response, call.leg(), redirects)?);
        // Boxed: most requests are not redirected.
        Box::pin(body::discard(response.into_body())).await;
    }
}

/// Counts the bytes of a request's body if a connection took them, whatever becomes of the attempt.
struct Leaving<'a> {
    call: &'a Call,
    shared: &'a Shared,
}

impl Drop for Leaving<'_> {
    fn drop(&mut self) {
        if let Some((body, delivery)) = &self.call.body
            && delivery.started()
        {
            self.shared.counters.bytes_sent.inc_by(body.len() as u64);
        }
    }
}

fn unsent(server: &str, error: &SendError) -> Box<Failure> {
    let cause = &error.cause;
    let detail = match error.trouble {
        Trouble::NoConnection => format!("{server} cannot be reached: {cause}"),
        Trouble::Tls => format!("no secure connection to {server}: {cause}"),
        _ => format!("the connection broke before the answer was whole: {cause}"),
    };
    let mut failure = Failure::new(error.trouble, detail);
    failure.advice = error.advice;
    failure
}

/// Where a redirected request goes.
fn follow(from: &Uri, response: &Received, leg: Leg, redirects: u8) -> Result<Uri, Box<Failure>> {
    let status = response.status();
    let location = response.headers().get(LOCATION);
    let location = location.and_then(|location| location.to_str().ok());
    let led = |why: &str| {
        let to = location.and_then(|reference| target::lead(from, reference));
        match to {
            Some(to) => stays(
                status,
                &format!("{why}; it leads to {to}: give that URL if you trust it"),
            ),
            None => stays(status, why),
        }
    };
    if !may_follow(status, leg) {
        return Err(led("it would turn the POST into a GET"));
    }
    if redirects > MAX_REDIRECTS {
        return Err(stays(status, "too many of them"));
    }
    let reference = location.ok_or_else(|| stays(status, "it has no readable Location"))?;
    target::resolve(from, reference).map_err(|error| led(&error.to_string()))
}

/// A redirect that is not followed.
fn stays(status: StatusCode, why: &str) -> Box<Failure> {
    Failure::new(
        Trouble::redirected(status),
        format!("the server's redirect ({status}) is not followed: {why}"),
    )
}
