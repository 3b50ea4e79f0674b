//! A legacy MCP client that trusts nobody: every answer's status, type, id and nonce are checked.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::header::{ACCEPT, CONTENT_TYPE, HOST};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use crate::error::{Error, WrongAnswer, excerpt};
use crate::wire::{self, AnswerCheck, EventReader, Tool};

/// Where a target serves MCP (at `/mcp`) and what may be expected of it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Endpoint {
    pub(crate) address: SocketAddr,
    /// True when JSON must stay JSON and a stream a stream. Foreign peers may answer in another form.
    pub(crate) keeps_form: bool,
}

/// One keep-alive connection. It is reopened, at the caller's cost, when the peer closed it between two requests.
#[derive(Debug)]
pub(crate) struct Connection {
    endpoint: Endpoint,
    sender: SendRequest<Full<Bytes>>,
}

impl Connection {
    /// Connects.
    pub(crate) async fn open(endpoint: Endpoint) -> Result<Self, Error> {
        Ok(Self {
            endpoint,
            sender: connect(endpoint.address).await?,
        })
    }

    async fn send(
        &mut self,
        method: Method,
        headers: HeaderMap,
        body: impl Into<Bytes>,
    ) -> Result<Response<Incoming>, Error> {
        if self.sender.ready().await.is_err() {
            self.sender = connect(self.endpoint.address).await?;
        }
        let mut request = Request::new(Full::new(body.into()));
        *request.method_mut() = method;
        *request.uri_mut() = http::Uri::from_static("/mcp");
        *request.headers_mut() = headers;
        Ok(self.sender.send_request(request).await?)
    }
}

async fn connect(address: SocketAddr) -> Result<SendRequest<Full<Bytes>>, Error> {
    let stream = TcpStream::connect(address)
        .await
        .map_err(Error::io("connecting"))?;
    stream
        .set_nodelay(true)
        .map_err(Error::io("setting TCP_NODELAY"))?;
    let (sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    Ok(sender)
}

/// One MCP session, used over any number of connections.
#[derive(Debug)]
pub(crate) struct Session {
    /// Of every request in this session.
    headers: HeaderMap,
    next_id: AtomicU64,
    nonce_seed: u64,
}

impl Session {
    /// `initialize` and `notifications/initialized`.
    pub(crate) async fn open(connection: &mut Connection) -> Result<Self, Error> {
        let (headers, nonce_seed) = initialize(connection).await?;
        let session = Self {
            headers,
            next_id: AtomicU64::new(2),
            nonce_seed,
        };
        let headers = session.headers.clone();
        let answer = connection
            .send(Method::POST, headers, wire::INITIALIZED)
            .await?;
        expect(answer, StatusCode::ACCEPTED)
            .await?
            .collect()
            .await?;
        Ok(session)
    }

    /// One `tools/call`; the text of its answer, and how long the response took to arrive. The answer is read to its end.
    pub(crate) async fn call(
        &self,
        connection: &mut Connection,
        tool: Tool,
    ) -> Result<(Duration, String), Error> {
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        let nonce = match tool {
            Tool::Session => String::new(),
            _ => nonce(self.nonce_seed, id),
        };
        let mut check = AnswerCheck::new(id, tool, &nonce);
        let body = wire::tools_call(id, tool, &nonce);
        let headers = self.headers.clone();

        let started = Instant::now();
        let answer = connection.send(Method::POST, headers, body).await?;
        let answer = expect(answer, StatusCode::OK).await?;
        let streamed = is_stream(&answer, tool, connection.endpoint.keeps_form)?;
        let mut body = answer.into_body();
        let took = if streamed {
            read_stream(&mut body, &mut check, started).await?
        } else {
            check.message(&body.collect().await?.to_bytes())?;
            started.elapsed()
        };
        Ok((took, check.finish()?))
    }

    /// Opens the standalone stream.
    pub(crate) async fn listen(&self, connection: &mut Connection) -> Result<Incoming, Error> {
        let mut headers = self.headers.clone();
        headers.insert(ACCEPT, HeaderValue::from_static(wire::EVENT_STREAM));
        headers.remove(CONTENT_TYPE);
        let answer = connection.send(Method::GET, headers, Bytes::new()).await?;
        Ok(expect(answer, StatusCode::OK).await?.into_body())
    }

    /// Ends the session.
    pub(crate) async fn close(&self, connection: &mut Connection) -> Result<(), Error> {
        let headers = self.headers.clone();
        connection
            .send(Method::DELETE, headers, Bytes::new())
            .await?
            .collect()
            .await?;
        Ok(())
    }
}

/// The first exchange of a session: its headers from now on, and a seed for its nonces.
async fn initialize(connection: &mut Connection) -> Result<(HeaderMap, u64), Error> {
    let mut headers = HeaderMap::new();
    let host = connection.endpoint.address.to_string();
    // A socket address is a valid header value.
    headers.extend(HeaderValue::try_from(host).map(|host| (HOST, host)));
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(wire::JSON));
    let both = HeaderValue::from_static("application/json, text/event-stream");
    headers.insert(ACCEPT, both);
    let answer = connection
        .send(Method::POST, headers.clone(), wire::initialize(1))
        .await?;
    let answer = expect(answer, StatusCode::OK).await?;
    let key = answer
        .headers()
        .get(wire::SESSION_HEADER)
        .cloned()
        .ok_or(WrongAnswer::NoSession)?;
    headers.insert(wire::SESSION_HEADER, key);
    headers.insert(
        wire::VERSION_HEADER,
        HeaderValue::from_static(wire::PROTOCOL_VERSION),
    );
    answer.into_body().collect().await?;
    Ok((headers, getrandom::u64().unwrap_or_default()))
}

/// Opens a session on a connection of its own and returns when `initialize` was answered.
pub(crate) async fn first_answer(endpoint: Endpoint) -> Result<(), Error> {
    initialize(&mut Connection::open(endpoint).await?)
        .await
        .map(drop)
}

async fn expect(
    answer: Response<Incoming>,
    expected: StatusCode,
) -> Result<Response<Incoming>, Error> {
    let got = answer.status();
    if got == expected {
        return Ok(answer);
    }
    let body = answer.into_body().collect().await?.to_bytes();
    Err(WrongAnswer::Status {
        expected,
        got,
        body: excerpt(&body),
    }
    .into())
}

/// True for an event stream, false for JSON.
fn is_stream(
    answer: &Response<Incoming>,
    tool: Tool,
    keeps_form: bool,
) -> Result<bool, WrongAnswer> {
    let value = answer
        .headers()
        .get(CONTENT_TYPE)
        .map(HeaderValue::as_bytes)
        .unwrap_or_default();
    let is = |media_type: &str| value.starts_with(media_type.as_bytes());
    if is(tool.content_type()) || (!keeps_form && (is(wire::JSON) || is(wire::EVENT_STREAM))) {
        Ok(is(wire::EVENT_STREAM))
    } else {
        Err(WrongAnswer::ContentType(excerpt(value)))
    }
}

/// Reads an answer to its end; how long after `started` its response came.
async fn read_stream(
    body: &mut Incoming,
    check: &mut AnswerCheck<'_>,
    started: Instant,
) -> Result<Duration, Error> {
    let mut reader = EventReader::default();
    let mut took = None;
    while let Some(frame) = body.frame().await {
        if let Some(chunk) = frame?.data_ref() {
            reader.feed(chunk, |message| check.message(message))?;
        }
        if check.answered() && took.is_none() {
            took = Some(started.elapsed());
        }
    }
    Ok(took.ok_or(WrongAnswer::NoResponse)?)
}

/// A text that no other request of this run carries (splitmix64 of seed and id).
fn nonce(seed: u64, id: u64) -> String {
    let mut z = seed.wrapping_add(id.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    format!("{:016x}", z ^ (z >> 31))
}
