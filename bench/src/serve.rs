//! Accepting HTTP/1.1 connections, shared by the scripted server and the pass-through.

use std::error::Error as StdError;
use std::future::Future;

use http::{Request, Response};
use hyper::body::{Body, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;

use crate::error::Error;
use crate::say;

/// Serves `handle` at a free port of 127.0.0.1 until the process ends. When connections are accepted, one line
/// `listening on http://HOST:PORT/mcp` goes to standard error.
pub(crate) async fn run<H, F, B, E>(handle: H) -> Result<(), Error>
where
    H: Fn(Request<Incoming>) -> F + Clone + Send + 'static,
    F: Future<Output = Result<Response<B>, E>> + Send,
    B: Body<Data: Send, Error: Into<Box<dyn StdError + Send + Sync>>> + Send + 'static,
    E: Into<Box<dyn StdError + Send + Sync>>,
{
    let listener = TcpListener::bind("127.0.0.1:0")
        .await
        .map_err(Error::io("listening"))?;
    let address = listener.local_addr().map_err(Error::io("listening"))?;
    say(&format!("listening on http://{address}/mcp"));
    loop {
        let (stream, _) = listener.accept().await.map_err(Error::io("accepting"))?;
        stream
            .set_nodelay(true)
            .map_err(Error::io("setting TCP_NODELAY"))?;
        let service = service_fn(handle.clone());
        // A connection that breaks is its peer's to report: the load generator counts every answer.
        tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service));
    }
}
