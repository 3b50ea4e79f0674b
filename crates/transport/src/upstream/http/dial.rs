//! How a connection to the server is made.
//!
//! [`Dial`] is the one door to the network of the HTTP upstream: everything above it sees a
//! [`Wire`]. [`NetDial`] opens real sockets (TCP, TLS with the platform's roots, proxies from the
//! environment); a simulation puts in-memory pipes in its place and runs the same legs.
//!
//! Pooling, HTTP framing and retries are not its business.

use std::error::Error;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};
use std::time::Duration;

use http::uri::Scheme;
use http::{HeaderValue, Uri};
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_rustls::{ConfigBuilderExt, HttpsConnector};
use hyper_util::client::legacy::connect::proxy::Tunnel;
use hyper_util::client::legacy::connect::{Connected, Connection, HttpConnector};
use hyper_util::client::proxy::matcher::Matcher;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tower_service::Service;

use crate::gather::{Space, gathered};
use crate::upstream::BoxFuture;

/// How long name resolution, TCP, a proxy's CONNECT and TLS may take together.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// How long a TCP connection is silent before the kernel asks whether the peer is still there. It
/// is what finds a dead peer below a call that may be silent for as long as it likes.
const TCP_KEEP_ALIVE: Duration = Duration::from_secs(30);
/// Time between the kernel's questions, and how many stay unanswered before the connection is dead.
const TCP_KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(10);
const TCP_KEEP_ALIVE_PROBES: u32 = 3;

/// Opens connections.
pub trait Dial: Send + Sync + 'static {
    /// A connection to the origin of `uri`, ready for HTTP.
    ///
    /// # Errors
    /// A [`DialError`]; nothing of a request was written then.
    fn dial(&self, uri: &Uri) -> BoxFuture<Result<Wire, DialError>>;

    /// `Proxy-Authorization` for requests to `uri` that a plain HTTP proxy forwards.
    fn proxy_authorization(&self, _uri: &Uri) -> Option<HeaderValue> {
        None
    }
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DialError {
    /// The name does not resolve, the port refuses, the proxy fails. May pass.
    #[error("{0}")]
    Unreachable(String),
    /// [`CONNECT_TIMEOUT`] is over. May pass.
    #[error("no connection within {} s", CONNECT_TIMEOUT.as_secs())]
    Timeout,
    /// The two sides do not agree on TLS: an unknown certificate, no common version. Stays until
    /// somebody changes a configuration.
    #[error("TLS: {}", tls_words(.0))]
    Tls(rustls::Error),
}

impl DialError {
    /// What an operator is to look at.
    #[must_use]
    pub fn advice(&self) -> &'static str {
        match self {
            Self::Unreachable(_) => "is it running, and are host and port right?",
            Self::Timeout => "is its host up, and does a firewall let us through?",
            // Something answers, and not in TLS.
            Self::Tls(rustls::Error::InvalidMessage(_)) => {
                "does it speak plain http at this port? Then its URL begins with http://"
            }
            Self::Tls(error) if is_unknown_issuer(error) => {
                "if you trust it, add its issuer's certificate to those of this machine, or name \
                 the PEM file in SSL_CERT_FILE (Linux, BSD)"
            }
            Self::Tls(error) if is_authority_s_own(error) => {
                "give the server a certificate of its own (basicConstraints CA:FALSE), and name \
                 the PEM file of its issuer in SSL_CERT_FILE (Linux, BSD)"
            }
            Self::Tls(_) => "is its certificate one that this machine trusts?",
        }
    }
}

/// What is wrong, in words where the library has a name only.
fn tls_words(error: &rustls::Error) -> String {
    if is_unknown_issuer(error) {
        "the server's certificate is signed by nobody that this machine trusts".to_owned()
    } else if is_authority_s_own(error) {
        "the server's certificate is that of a certificate authority, signed by itself".to_owned()
    } else {
        error.to_string()
    }
}

/// Also of an issuer that has the name of a known one and another key.
fn is_unknown_issuer(error: &rustls::Error) -> bool {
    use rustls::CertificateError::{BadSignature, UnknownIssuer};
    matches!(
        error,
        rustls::Error::InvalidCertificate(UnknownIssuer | BadSignature)
    )
}

/// What `openssl req -x509` makes when it is told nothing else.
fn is_authority_s_own(error: &rustls::Error) -> bool {
    match error {
        rustls::Error::InvalidCertificate(rustls::CertificateError::Other(other)) => {
            other.0.to_string() == "CaUsedAsEndEntity"
        }
        _ => false,
    }
}

/// A connection that HTTP can be spoken on.
pub struct Wire {
    io: Box<dyn Io>,
    http2: bool,
    proxied: bool,
}

trait Io: Read + Write + Unpin + Send {}
impl<T: Read + Write + Unpin + Send> Io for T {}

impl Wire {
    /// Wraps any byte stream; HTTP/1.1 is spoken on it.
    pub fn new(io: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) -> Self {
        Self {
            io: Box::new(TokioIo::new(io)),
            http2: false,
            proxied: false,
        }
    }

    /// Says that the peer expects HTTP/2 (what ALPN settles on TLS).
    #[must_use]
    pub fn http2(mut self) -> Self {
        self.http2 = true;
        self
    }
}

impl Connection for Wire {
    fn connected(&self) -> Connected {
        let connected = Connected::new().proxy(self.proxied);
        if self.http2 {
            connected.negotiated_h2()
        } else {
            connected
        }
    }
}

impl Read for Wire {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(cx, buf)
    }
}

impl Write for Wire {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let io = Pin::new(&mut self.io);
        match gathered(bufs, &mut Space::new()) {
            Some(all) => io.poll_write(cx, all),
            None => io.poll_write_vectored(cx, bufs),
        }
    }
}

/// Real sockets: TCP without delay, TLS by the platform's roots, HTTP/2 where ALPN offers it, and
/// the proxies that `HTTP_PROXY`, `HTTPS_PROXY`, `ALL_PROXY` and `NO_PROXY` name.
pub struct NetDial {
    tcp: HttpConnector,
    /// Made at the first `https` connection: reading the platform's roots takes milliseconds that a
    /// start with a plain URL need not spend.
    tls: OnceLock<Result<Arc<rustls::ClientConfig>, rustls::Error>>,
    proxies: Matcher,
}

impl NetDial {
    /// A dialler by the environment's proxy variables, which are read now.
    #[must_use]
    pub fn from_env() -> Self {
        Self::new(Matcher::from_env())
    }

    /// A dialler that uses no proxy, whatever the environment says.
    #[must_use]
    pub fn direct() -> Self {
        Self::new(Matcher::builder().build())
    }

    fn new(proxies: Matcher) -> Self {
        let mut tcp = HttpConnector::new();
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        tcp.set_keepalive(Some(TCP_KEEP_ALIVE));
        tcp.set_keepalive_interval(Some(TCP_KEEP_ALIVE_INTERVAL));
        tcp.set_keepalive_retries(Some(TCP_KEEP_ALIVE_PROBES));
        Self {
            tcp,
            tls: OnceLock::new(),
            proxies,
        }
    }

    fn open(&self, uri: &Uri) -> BoxFuture<Result<Wire, DialError>> {
        let proxy = self.proxies.intercept(uri);
        if let Some(proxy) = &proxy
            && proxy.uri().scheme() != Some(&Scheme::HTTP)
        {
            return fails(DialError::Unreachable(format!(
                "the environment names a proxy of the scheme {:?}; only http is supported",
                proxy.uri().scheme_str().unwrap_or_default(),
            )));
        }
        if uri.scheme() != Some(&Scheme::HTTPS) {
            let Some(proxy) = proxy else {
                return wire(self.tcp.clone().call(uri.clone()), false);
            };
            return wire(self.tcp.clone().call(proxy.uri().clone()), true);
        }
        let tls = match self.tls.get_or_init(tls_config) {
            Ok(tls) => Arc::clone(tls),
            Err(error) => return fails(DialError::Tls(error.clone())),
        };
        let Some(proxy) = proxy else {
            let mut connector = HttpsConnector::from((self.tcp.clone(), tls));
            return wire(connector.call(uri.clone()), false);
        };
        let mut tunnel = Tunnel::new(proxy.uri().clone(), self.tcp.clone());
        if let Some(auth) = proxy.basic_auth() {
            tunnel = tunnel.with_auth(auth.clone());
        }
        wire(HttpsConnector::from((tunnel, tls)).call(uri.clone()), false)
    }
}

impl Dial for NetDial {
    fn dial(&self, uri: &Uri) -> BoxFuture<Result<Wire, DialError>> {
        let opening = self.open(uri);
        Box::pin(async move {
            tokio::time::timeout(CONNECT_TIMEOUT, opening)
                .await
                .unwrap_or(Err(DialError::Timeout))
        })
    }

    fn proxy_authorization(&self, uri: &Uri) -> Option<HeaderValue> {
        if uri.scheme() != Some(&Scheme::HTTP) {
            return None;
        }
        self.proxies.intercept(uri)?.basic_auth().cloned()
    }
}

fn tls_config() -> Result<Arc<rustls::ClientConfig>, rustls::Error> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .try_with_platform_verifier()?
        .with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

fn fails(error: DialError) -> BoxFuture<Result<Wire, DialError>> {
    Box::pin(std::future::ready(Err(error)))
}

fn wire<F, T, E>(connecting: F, proxied: bool) -> BoxFuture<Result<Wire, DialError>>
where
    F: Future<Output = Result<T, E>> + Send + 'static,
    T: Io + Connection + 'static,
    E: Into<Box<dyn Error + Send + Sync>>,
{
    Box::pin(async move {
        match connecting.await {
            Ok(io) => Ok(Wire {
                http2: io.connected().is_negotiated_h2(),
                io: Box::new(io),
                proxied,
            }),
            Err(error) => {
                let error = error.into();
                Err(match find::<rustls::Error>(error.as_ref()) {
                    Some(tls) => DialError::Tls(tls.clone()),
                    None => DialError::Unreachable(chain(error.as_ref())),
                })
            }
        }
    })
}

/// The first error of type `T` in a chain of causes, also inside an [`io::Error`], whose `source`
/// skips what it wraps.
pub(crate) fn find<'a, T: Error + 'static>(error: &'a (dyn Error + 'static)) -> Option<&'a T> {
    let mut current = Some(error);
    while let Some(error) = current {
        if let Some(found) = error.downcast_ref::<T>() {
            return Some(found);
        }
        current = match error.downcast_ref::<io::Error>() {
            Some(io) => io.get_ref().map(|inner| inner as &(dyn Error + 'static)),
            None => error.source(),
        };
    }
    None
}

/// An error with its causes in one line, each said once.
pub(crate) fn chain(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut current = error.source();
    while let Some(cause) = current {
        let more = cause.to_string();
        if !text.ends_with(&more) {
            text.push_str(": ");
            text.push_str(&more);
        }
        current = cause.source();
    }
    text
}

#[cfg(test)]
mod tests;
