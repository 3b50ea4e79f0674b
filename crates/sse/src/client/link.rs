//! One connection: a request on its way, then a body that is decoded.

use std::error::Error as _;
use std::fmt;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use futures_core::Stream;
use http::header::{ACCEPT, CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use reqwest::{RequestBuilder, Response, Url};

use crate::reconnect::cursor::Standing;
use crate::reconnect::{Cursor, Refusal, Trouble};
use crate::{DecodeError, Decoder, Item, Limits, said};

/// How long the body of a refusal is waited for.
const REFUSAL_TIME: Duration = Duration::from_secs(1);
const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");

/// What went wrong: for the engine, and for people.
#[derive(Debug, Clone)]
pub(super) struct Troubled {
    pub(super) trouble: Trouble,
    pub(super) detail: String,
}

impl Troubled {
    pub(super) fn new(trouble: Trouble, detail: impl Into<String>) -> Self {
        Self {
            trouble,
            detail: detail.into(),
        }
    }

    pub(super) fn status(&self) -> Option<StatusCode> {
        match self.trouble {
            Trouble::Refused(refusal) => Some(refusal.status),
            _ => None,
        }
    }

    pub(super) fn is_no_content(&self) -> bool {
        self.status() == Some(StatusCode::NO_CONTENT)
    }
}

/// Makes the requests of one stream.
#[derive(Debug)]
pub(super) struct Requests {
    pub(super) client: reqwest::Client,
    pub(super) url: Url,
    pub(super) method: Method,
    pub(super) headers: HeaderMap,
    pub(super) body: Option<Bytes>,
    pub(super) limits: Limits,
}

impl Requests {
    pub(super) fn open(&self, cursor: Option<&Cursor<Standing>>) -> Link {
        let mut headers = self.headers.clone();
        let own = [(ACCEPT, "text/event-stream"), (CACHE_CONTROL, "no-cache")];
        for (name, value) in own {
            let value = HeaderValue::from_static(value);
            headers.entry(name).or_insert(value);
        }
        if let Some(cursor) = cursor {
            headers.insert(LAST_EVENT_ID, cursor.header_value().clone());
        }
        let mut request = self
            .client
            .request(self.method.clone(), self.url.clone())
            .headers(headers);
        if let Some(body) = &self.body {
            request = request.body(body.clone());
        }
        let secrets = said::secrets(self.headers.values(), self.url.query());
        Link::Opening {
            head: Box::pin(open(request, secrets)),
            limits: self.limits,
        }
    }
}

/// The connection, if there is one.
pub(super) enum Link {
    None,
    Opening {
        head: Pin<Box<dyn Future<Output = Result<Response, Troubled>> + Send>>,
        limits: Limits,
    },
    Open {
        body: Pin<Box<dyn Stream<Item = reqwest::Result<Bytes>> + Send>>,
        decoder: Box<Decoder>,
    },
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::None => "None",
            Self::Opening { .. } => "Opening",
            Self::Open { .. } => "Open",
        })
    }
}

impl Link {
    pub(super) fn is_open(&self) -> bool {
        matches!(self, Self::Open { .. })
    }

    /// Ready once, when the head of an attempt is there. Pending where there is no attempt.
    pub(super) fn poll_head(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Troubled>> {
        let Self::Opening { head, limits } = self else {
            return Poll::Pending;
        };
        let response = match ready!(head.as_mut().poll(cx)) {
            Ok(response) => response,
            Err(troubled) => return Poll::Ready(Err(troubled)),
        };
        let decoder = Box::new(Decoder::new(*limits));
        let body = Box::pin(response.bytes_stream());
        *self = Self::Open { body, decoder };
        Poll::Ready(Ok(()))
    }

    /// The next item of what was read; the outer `None`: no connection.
    pub(super) fn next_item(&mut self) -> Option<Result<Option<Item>, DecodeError>> {
        match self {
            Self::Open { decoder, .. } => Some(decoder.next_item()),
            _ => None,
        }
    }

    /// Reads on; call it when there are no items left.
    pub(super) fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Troubled>> {
        let Self::Open { body, decoder } = self else {
            return Poll::Pending;
        };
        Poll::Ready(match ready!(body.as_mut().poll_next(cx)) {
            Some(Ok(bytes)) => {
                decoder.push(bytes);
                Ok(())
            }
            Some(Err(error)) => Err(Troubled::new(Trouble::Reset, chain(&error))),
            None => Err(Troubled::new(Trouble::Ended, "the server ended the stream")),
        })
    }
}

/// Sends a request; a refusal is told with what the server says about it.
async fn open(request: RequestBuilder, secrets: Vec<String>) -> Result<Response, Troubled> {
    let response = request.send().await.map_err(|error| unsent(&error))?;
    let Some(mut troubled) = refused(&response) else {
        return Ok(response);
    };
    let said = said::in_short(&text(response).await, &secrets);
    if !said.is_empty() {
        troubled.detail += &format!("; it says: {said}");
    }
    Err(troubled)
}

/// The beginning of a refusal's body, if people can read it and it comes in time.
async fn text(mut response: Response) -> String {
    let media = essence(&response).map(str::to_ascii_lowercase);
    let readable = |media: &String| media.starts_with("text/") || media.ends_with("json");
    let mut body = Vec::new();
    if response.status() != StatusCode::OK && media.as_ref().is_some_and(readable) {
        let reading = async {
            while body.len() < said::LOOKED_AT
                && let Ok(Some(piece)) = response.chunk().await
            {
                body.extend_from_slice(&piece);
            }
        };
        // Whatever ended it, what came is what there is.
        let _ = tokio::time::timeout(REFUSAL_TIME, reading).await;
    }
    said::beginning(&body)
}

/// The media type of a body, without parameters.
fn essence(response: &Response) -> Option<&str> {
    let media = response.headers().get(CONTENT_TYPE)?;
    let essence = media.to_str().ok()?.split(';').next()?;
    Some(essence.trim())
}

/// A URL without what may be secret in it.
fn name(url: &Url) -> String {
    let mut url = url.clone();
    url.set_query(None);
    url.set_fragment(None);
    // Neither fails for a URL with a host.
    let _ = url.set_username("");
    let _ = url.set_password(None);
    url.to_string()
}

/// What is wrong with a head.
fn refused(response: &Response) -> Option<Troubled> {
    let status = response.status();
    if status != StatusCode::OK {
        let trouble = if status.is_redirection() {
            Trouble::redirected(status)
        } else {
            Trouble::Refused(Refusal::new(status, response.headers(), wall()))
        };
        return Some(Troubled::new(
            trouble,
            format!("{} answered {status}", name(response.url())),
        ));
    }
    match essence(response) {
        Some(media) if media.eq_ignore_ascii_case("text/event-stream") => None,
        Some(other) => Some(Troubled::new(
            Trouble::WrongType,
            format!("the answer is {other:?}"),
        )),
        None => Some(Troubled::new(
            Trouble::WrongType,
            "the answer has no content type",
        )),
    }
}

/// Why there is no head.
fn unsent(error: &reqwest::Error) -> Troubled {
    let trouble = if error.is_redirect() {
        Trouble::Redirected {
            keeps_method: false,
        }
    } else if !error.is_connect() {
        Trouble::NoHead
    } else if is_tls(error) {
        Trouble::Tls
    } else {
        Trouble::NoConnection
    };
    let why = chain(error);
    let why = why.strip_prefix("client error (Connect): ").unwrap_or(&why);
    let detail = match error.url().filter(|_| error.is_connect()) {
        Some(url) => format!("{} cannot be reached: {why}", name(url)),
        None => why.to_owned(),
    };
    Troubled::new(trouble, detail)
}

/// Whether the peer was refused, not the connection: TLS streams report that as invalid data.
fn is_tls(error: &reqwest::Error) -> bool {
    let mut source = error.source();
    while let Some(error) = source {
        if error
            .downcast_ref::<io::Error>()
            .is_some_and(is_invalid_data)
        {
            return true;
        }
        source = error.source();
    }
    false
}

/// Such an error may be wrapped in another, which `source` would skip.
fn is_invalid_data(error: &io::Error) -> bool {
    let inner = error.get_ref();
    let inner = inner.and_then(|inner| inner.downcast_ref::<io::Error>());
    error.kind() == io::ErrorKind::InvalidData || inner.is_some_and(is_invalid_data)
}

/// An error with what caused it, without the URL: it may hold secrets.
fn chain(error: &reqwest::Error) -> String {
    let mut text = String::new();
    let mut source = error.source();
    while let Some(error) = source {
        let part = error.to_string();
        if !text.ends_with(&part) {
            if !text.is_empty() {
                text += ": ";
            }
            text += &part;
        }
        source = error.source();
    }
    if text.is_empty() {
        "the request failed".into()
    } else {
        text
    }
}

/// What a date in `Retry-After` is measured against.
#[allow(
    clippy::disallowed_methods,
    reason = "this module is the shell of the pure engine"
)]
fn wall() -> SystemTime {
    SystemTime::now()
}
