//! The HTTP client of an upstream: connections over one [`Dial`], and one honest answer to "may the
//! server have seen it?".
//!
//! It knows nothing of MCP, sessions or event streams, and paces nothing. What it says of a failure
//! is a [`Trouble`]; whether to send a request again is the engine's rule.
//!
//! - `request`: a request's body, which knows whether a connection took it;
//! - `exclusive`: an HTTP/1.1 connection that is driven by whoever reads from it, without a task of
//!   its own;
//! - `shared`: HTTP/2 connections, and how full they are;
//! - `pool`: which connection a request gets.

mod exclusive;
mod pool;
mod request;
mod shared;

use std::error::Error as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use http::{Request, Uri};
use shadowcat_sse::reconnect::Trouble;

use super::dial::{self, Dial, DialError};
pub(crate) use exclusive::{Incoming, Received};
pub(crate) use pool::host;
use pool::{Failed, Pool};
pub(crate) use request::{Delivery, RequestBody};

/// A client for one server. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Client(Pool);

impl Client {
    pub(crate) fn new(dial: Arc<dyn Dial>) -> Self {
        Self(Pool::new(dial))
    }

    /// Sends a request to `url`, whatever its own says. `connected` learns when it has its connection.
    /// The request is boxed, as it goes from hand to hand, and each would have a place for it.
    pub(crate) async fn send(
        &self,
        request: Box<Request<RequestBody>>,
        url: &Uri,
        connected: &Connected,
    ) -> Result<Received, SendError> {
        let delivery = request.body().delivery();
        let response = self.0.send(request, url, connected).await;
        response.map_err(|failed| SendError::new(failed, delivery.as_deref()))
    }
}

/// Whether a request has its connection; see [`Client::send`].
#[derive(Debug, Clone, Default)]
pub(crate) struct Connected(Arc<AtomicBool>);

impl Connected {
    fn set(&self) {
        self.0.store(true, Ordering::Release);
    }

    /// Whether it has.
    pub(crate) fn is_set(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}

/// Why there is no response head.
#[derive(Debug)]
pub(crate) struct SendError {
    /// [`NoConnection`](Trouble::NoConnection), [`Tls`](Trouble::Tls),
    /// [`NotProcessed`](Trouble::NotProcessed) or [`NoHead`](Trouble::NoHead): only after the last
    /// one may the server have seen the request.
    pub(crate) trouble: Trouble,
    /// The causes in one line.
    pub(crate) cause: String,
    /// What an operator is to look at, where there was no connection to be had.
    pub(crate) advice: Option<&'static str>,
}

impl SendError {
    fn new(failed: Failed, delivery: Option<&Delivery>) -> Self {
        let error = match failed {
            Failed::Dial(error) => {
                return Self {
                    trouble: match error {
                        DialError::Tls(_) => Trouble::Tls,
                        _ => Trouble::NoConnection,
                    },
                    cause: error.to_string(),
                    advice: Some(error.advice()),
                };
            }
            Failed::Http(error) => error,
        };
        let untouched = delivery.is_some_and(|delivery| !delivery.started());
        Self {
            trouble: if refused_by_http2(&error) {
                Trouble::NotProcessed
            } else if untouched {
                Trouble::NoConnection
            } else {
                Trouble::NoHead
            },
            cause: error
                .source()
                .map_or_else(|| dial::chain(&error), dial::chain),
            advice: None,
        }
    }
}

/// Whether the server declared by HTTP/2's own means that it did not process the stream
/// (RFC 9113, sections 6.8 and 8.7).
fn refused_by_http2(error: &hyper::Error) -> bool {
    dial::find::<h2::Error>(error).is_some_and(|error| {
        error.is_remote()
            && (error.is_go_away() || error.reason() == Some(h2::Reason::REFUSED_STREAM))
    })
}

#[cfg(test)]
mod tests;
