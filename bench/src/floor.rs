//! The floor: the least that any HTTP proxy built on hyper must do. Requests and answers pass untouched, bodies as they come,
//! over a pooled client, with TCP_NODELAY on both sides. It checks, parses and remembers nothing.

use std::net::SocketAddr;

use http::header::{CONNECTION, HOST};
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{Request, Uri};
use hyper::body::Incoming;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;

use crate::error::Error;
use crate::serve;

/// Passes everything to `upstream` until the process ends.
pub(crate) async fn run(upstream: SocketAddr) -> Result<(), Error> {
    // A socket address is a valid authority.
    let upstream = Authority::try_from(upstream.to_string());
    let upstream = upstream.unwrap_or(Authority::from_static("localhost"));
    let mut connector = HttpConnector::new();
    connector.set_nodelay(true);
    let client: Client<_, Incoming> = Client::builder(TokioExecutor::new()).build(connector);
    serve::run(move |mut request: Request<Incoming>| {
        redirect(&mut request, upstream.clone());
        client.request(request)
    })
    .await
}

fn redirect(request: &mut Request<Incoming>, upstream: Authority) {
    let mut parts = http::uri::Parts::default();
    parts.scheme = Some(Scheme::HTTP);
    parts.authority = Some(upstream);
    parts.path_and_query = request
        .uri()
        .path_and_query()
        .cloned()
        .or(Some(PathAndQuery::from_static("/")));
    // Scheme, authority and path are all there, so this cannot fail; a relative URI would be refused by the client.
    *request.uri_mut() = Uri::from_parts(parts).unwrap_or_default();
    request.headers_mut().remove(HOST);
    request.headers_mut().remove(CONNECTION);
}
