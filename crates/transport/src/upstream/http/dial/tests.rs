use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::*;

/// A listener whose first connection is answered with `answer` once its first bytes came; gives
/// those bytes.
async fn listener(answer: &'static [u8]) -> (u16, tokio::task::JoinHandle<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let first = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut bytes = vec![0; 4096];
        let read = stream.read(&mut bytes).await.unwrap();
        stream.write_all(answer).await.unwrap();
        String::from_utf8_lossy(&bytes[..read]).into_owned()
    });
    (port, first)
}

fn uri(text: impl AsRef<str>) -> Uri {
    text.as_ref().parse().unwrap()
}

fn without_proxy() -> NetDial {
    NetDial::new(Matcher::builder().build())
}

async fn failure(dial: &NetDial, uri: &Uri) -> DialError {
    match dial.dial(uri).await {
        Ok(_) => panic!("no connection was expected"),
        Err(error) => error,
    }
}

#[tokio::test]
async fn a_refused_port_may_pass() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    drop(listener);
    let error = failure(&without_proxy(), &uri(format!("http://127.0.0.1:{port}/"))).await;
    assert!(matches!(error, DialError::Unreachable(_)), "{error}");
    assert!(error.to_string().contains("refused"), "{error}");
}

#[tokio::test]
async fn a_server_without_tls_is_a_tls_error() {
    let (port, _first) = listener(b"HTTP/1.1 400 Bad Request\r\n\r\n").await;
    let error = failure(&without_proxy(), &uri(format!("https://127.0.0.1:{port}/"))).await;
    assert!(matches!(error, DialError::Tls(_)), "{error}");
    assert!(error.advice().contains("http://"), "{}", error.advice());
}

/// The library's own words for it are the name of a variant.
#[test]
fn a_certificate_that_is_not_trusted_is_explained() {
    let invalid = |error| DialError::Tls(rustls::Error::InvalidCertificate(error));
    let own = io::Error::other("CaUsedAsEndEntity");
    let own = rustls::CertificateError::Other(rustls::OtherError(Arc::new(own)));
    for (error, words) in [
        (rustls::CertificateError::UnknownIssuer, "signed by nobody"),
        (rustls::CertificateError::BadSignature, "signed by nobody"),
        (own, "signed by itself"),
    ] {
        let error = invalid(error);
        assert!(error.to_string().contains(words), "{error}");
        assert!(error.advice().contains("SSL_CERT_FILE"), "{error}");
    }
    let expired = invalid(rustls::CertificateError::Expired).to_string();
    assert!(expired.contains("Expired"), "{expired}");
}

#[tokio::test]
async fn https_goes_through_the_proxy_s_tunnel() {
    let (port, first) = listener(b"HTTP/1.1 502 Bad Gateway\r\n\r\n").await;
    let proxy = format!("http://user:pw@127.0.0.1:{port}");
    let dial = NetDial::new(Matcher::builder().https(proxy).build());
    let error = failure(&dial, &uri("https://server.invalid/mcp")).await;
    assert!(matches!(error, DialError::Unreachable(_)), "{error}");
    let request = first.await.unwrap();
    assert!(
        request.starts_with("CONNECT server.invalid:443 HTTP/1.1\r\n"),
        "{request}"
    );
    assert!(
        request
            .to_ascii_lowercase()
            .contains("proxy-authorization: basic"),
        "{request}"
    );
}

#[tokio::test]
async fn http_is_sent_to_the_proxy_itself() {
    let (port, _first) = listener(b"").await;
    let proxy = format!("http://user:pw@127.0.0.1:{port}");
    let dial = NetDial::new(Matcher::builder().http(proxy).no("direct.invalid").build());
    let target = uri("http://server.invalid/mcp");
    let wire = dial.dial(&target).await.unwrap();
    assert!(wire.connected().is_proxied(), "requests name the whole URL");
    assert!(dial.proxy_authorization(&target).is_some());
    assert!(
        dial.proxy_authorization(&uri("http://direct.invalid/"))
            .is_none()
    );
    assert!(
        dial.proxy_authorization(&uri("https://server.invalid/"))
            .is_none()
    );
}

#[tokio::test]
async fn a_proxy_of_another_kind_is_named() {
    let dial = NetDial::new(Matcher::builder().all("socks5://127.0.0.1:1").build());
    let error = failure(&dial, &uri("http://server.invalid/")).await;
    assert!(error.to_string().contains("socks5"), "{error}");
}
