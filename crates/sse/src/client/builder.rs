//! What can be chosen for a stream.

use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue, Method};
use reqwest::Url;

use super::link::{Link, Requests};
use super::observe::Observers;
use super::{BuildError, ReconnectingStream, SharedOrigin, now};
use crate::Limits;
use crate::reconnect::{Cursor, Engine, Kind, Policy};

/// How long a connection may take where the caller brings no client.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// A stream to be: [`ReconnectingStream::builder`].
#[derive(Debug)]
#[must_use]
pub struct Builder {
    url: Url,
    client: Option<reqwest::Client>,
    method: Method,
    headers: HeaderMap,
    bad_header: Option<String>,
    body: Option<Vec<u8>>,
    resend: bool,
    policy: Policy,
    limits: Limits,
    last_event_id: Vec<u8>,
    origin: Option<SharedOrigin>,
    keep_probing: bool,
    seed: Option<u64>,
}

impl Builder {
    pub(super) fn new(url: &str) -> Result<Self, BuildError> {
        let url = Url::parse(url).map_err(|error| BuildError::Url(error.to_string()))?;
        if !matches!(url.scheme(), "http" | "https") {
            return Err(BuildError::Url(format!("{url} is neither http nor https")));
        }
        Ok(Self {
            url,
            client: None,
            method: Method::GET,
            headers: HeaderMap::new(),
            bad_header: None,
            body: None,
            resend: false,
            policy: Policy {
                // A rule of MCP; elsewhere such an event is one.
                empty_data_primes: false,
                ..Policy::default()
            },
            limits: Limits::default(),
            last_event_id: Vec::new(),
            origin: None,
            keep_probing: false,
            seed: None,
        })
    }

    /// The client that makes the connections. Without one, a client of default settings that gives
    /// a connection five seconds. Do not set a total timeout on it: it would end every stream.
    pub fn client(mut self, client: reqwest::Client) -> Self {
        self.client = Some(client);
        self
    }

    /// Sends this header field with each request, besides `Accept`, `Cache-Control` and
    /// `Last-Event-ID`.
    pub fn header(mut self, name: &str, value: &str) -> Self {
        match (name.parse::<HeaderName>(), value.parse::<HeaderValue>()) {
            (Ok(name), Ok(value)) => {
                self.headers.append(name, value);
            }
            // The value may be a secret.
            _ => self.bad_header = Some(name.to_owned()),
        }
        self
    }

    /// Sends these header fields with each request.
    pub fn headers(mut self, headers: HeaderMap) -> Self {
        self.headers.extend(headers);
        self
    }

    /// The method, if it is not GET. Needs [`resend`](Self::resend).
    pub fn method(mut self, method: Method) -> Self {
        self.method = method;
        self
    }

    /// The body. Needs [`resend`](Self::resend).
    pub fn body(mut self, body: impl Into<Vec<u8>>) -> Self {
        self.body = Some(body.into());
        self
    }

    /// Sends method and body again at each reconnect. Only right where the request changes nothing,
    /// such as a query that is too long for a URL.
    pub fn resend(mut self, resend: bool) -> Self {
        self.resend = resend;
        self
    }

    /// Delays, budgets and windows.
    pub fn policy(mut self, policy: Policy) -> Self {
        self.policy = policy;
        self
    }

    /// The largest line and event.
    pub fn limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// Starts after the event with this id, as a `Last-Event-ID` of the first request.
    pub fn last_event_id(mut self, id: impl Into<Vec<u8>>) -> Self {
        self.last_event_id = id.into();
        self
    }

    /// Shares the server's budget with other streams to it.
    pub fn origin(mut self, origin: &SharedOrigin) -> Self {
        self.origin = Some(origin.clone());
        self
    }

    /// Instead of ending, looks from time to time (each minute or so) whether a stream that was
    /// given up can be had again. A server that says that there is none still ends it.
    pub fn keep_probing(mut self, keep: bool) -> Self {
        self.keep_probing = keep;
        self
    }

    /// Determines the jitter, for tests. Without one it is the operating system's.
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = Some(seed);
        self
    }

    /// The stream. Nothing is sent before it is polled.
    ///
    /// # Errors
    /// [`BuildError`]: what does not fit.
    pub fn build(self) -> Result<ReconnectingStream, BuildError> {
        if let Some(name) = self.bad_header {
            return Err(BuildError::Header(name));
        }
        let repeatable = self.method == Method::GET && self.body.is_none();
        if !repeatable && !self.resend {
            return Err(BuildError::NotRepeatable);
        }
        let seed = match self.seed {
            Some(seed) => seed,
            None => getrandom::u64().map_err(|_| BuildError::Randomness)?,
        };
        let client = match self.client {
            Some(client) => client,
            None => reqwest::Client::builder()
                .connect_timeout(CONNECT_TIMEOUT)
                .build()
                .map_err(BuildError::Client)?,
        };
        let engine = match Cursor::parse(&self.last_event_id) {
            Some(cursor) => Engine::starting_at(&cursor, self.policy, seed),
            None => Engine::new(Kind::Standalone, self.policy, seed),
        };
        Ok(ReconnectingStream {
            engine,
            origin: self.origin.unwrap_or_default(),
            requests: Requests {
                client,
                url: self.url,
                method: self.method,
                headers: self.headers,
                body: self.body.map(bytes::Bytes::from),
                limits: self.limits,
            },
            link: Link::None,
            timer: None,
            heard: now(),
            observers: Observers::default(),
            last: None,
            last_event_id: self.last_event_id,
            given_id: None,
            keep_probing: self.keep_probing,
            over: false,
        })
    }
}
