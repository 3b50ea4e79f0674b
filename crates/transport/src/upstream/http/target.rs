//! Where requests go: the server's URL, its origin, and the references that a server gives us
//! (`Location`, RFC 9110 section 10.2.2; the `endpoint` event of HTTP+SSE).
//!
//! A reference is followed only inside the origin: what is sent there (session id, configured
//! headers, messages) was meant for this server. That also rules out a step from `https` to `http`.

use http::Uri;
use http::uri::Scheme;
use iri_string::types::{UriAbsoluteStr, UriReferenceStr};
use shadowcat_sse::said;

/// Why a URL cannot be a server's.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum UrlError {
    /// Neither `http` nor `https`.
    #[error("the server's URL must begin with http:// or https://")]
    Scheme,
    /// No host.
    #[error("the server's URL names no host")]
    Host,
    /// Credentials in the URL would end up in logs.
    #[error("the server's URL must not hold credentials; give them with --header")]
    Credentials,
}

/// Why a server's reference is not followed.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub(crate) enum ReferenceError {
    #[error("it names no valid target")]
    Invalid,
    #[error("it leaves the server's origin")]
    OtherOrigin,
}

/// Checks a configured URL.
pub(crate) fn check(url: &Uri) -> Result<(), UrlError> {
    if !is_web(url) {
        return Err(UrlError::Scheme);
    }
    let authority = url.authority().ok_or(UrlError::Host)?;
    if authority.as_str().contains('@') {
        return Err(UrlError::Credentials);
    }
    if authority.host().is_empty() {
        return Err(UrlError::Host);
    }
    Ok(())
}

/// A URL without its query, which may hold a secret; for logs and errors.
pub(crate) fn display_name(url: &Uri) -> String {
    let scheme = url.scheme_str().unwrap_or_default();
    let authority = url.authority().map_or("", |authority| authority.as_str());
    format!("{scheme}://{authority}{}", url.path())
}

/// Resolves a reference against the URL it came from, inside that URL's origin.
pub(crate) fn resolve(base: &Uri, reference: &str) -> Result<Uri, ReferenceError> {
    let target = absolute(base, reference)?;
    if same_origin(base, &target) {
        Ok(target)
    } else {
        Err(ReferenceError::OtherOrigin)
    }
}

/// Where a reference leads, for people: without credentials and query, and in short, as a server
/// may write as much as a header section holds.
pub(crate) fn lead(base: &Uri, reference: &str) -> Option<String> {
    let target = absolute(base, reference).ok()?;
    let authority = target.authority()?.as_str();
    let host = authority.rsplit('@').next()?;
    let scheme = target.scheme_str()?;
    let told = format!("{scheme}://{host}{}", target.path());
    Some(said::in_short(&told, &[]))
}

fn absolute(base: &Uri, reference: &str) -> Result<Uri, ReferenceError> {
    let text = base.to_string();
    let base_uri = UriAbsoluteStr::new(&text).map_err(|_| ReferenceError::Invalid)?;
    let reference = UriReferenceStr::new(reference.trim()).map_err(|_| ReferenceError::Invalid)?;
    let resolved = reference.resolve_against(base_uri).to_string();
    let without_fragment = resolved.split('#').next().unwrap_or_default();
    without_fragment
        .parse()
        .map_err(|_| ReferenceError::Invalid)
}

/// Whether two URLs share scheme, host and port (RFC 6454).
pub(crate) fn same_origin(a: &Uri, b: &Uri) -> bool {
    is_web(a)
        && a.scheme() == b.scheme()
        && port(a) == port(b)
        && match (a.host(), b.host()) {
            (Some(a), Some(b)) => a.eq_ignore_ascii_case(b),
            _ => false,
        }
}

fn is_web(url: &Uri) -> bool {
    url.scheme() == Some(&Scheme::HTTP) || url.scheme() == Some(&Scheme::HTTPS)
}

fn port(url: &Uri) -> u16 {
    url.port_u16()
        .unwrap_or(if url.scheme() == Some(&Scheme::HTTPS) {
            443
        } else {
            80
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolved(base: &'static str, reference: &str) -> Result<String, ReferenceError> {
        resolve(&Uri::from_static(base), reference).map(|uri| uri.to_string())
    }

    #[test]
    fn references_resolve_as_rfc_3986_says() {
        for (base, reference, expected) in [
            ("http://h/sse", "/messages?s=1", "http://h/messages?s=1"),
            ("http://h/a/sse", "messages", "http://h/a/messages"),
            ("http://h/a/b/sse", "../m", "http://h/a/m"),
            ("http://h/sse?x=1", "?s=2", "http://h/sse?s=2"),
            ("http://h/mcp", "http://h/mcp/", "http://h/mcp/"),
            ("http://h/mcp", "//h/x", "http://h/x"),
            ("http://h:80/mcp", "http://H/x#part", "http://H/x"),
            ("https://h/mcp", "https://h:443/x", "https://h:443/x"),
            ("http://h/sse", " /padded ", "http://h/padded"),
        ] {
            assert_eq!(
                resolved(base, reference).as_deref(),
                Ok(expected),
                "{base} + {reference}"
            );
        }
    }

    #[test]
    fn references_stay_in_the_origin() {
        for (base, reference) in [
            ("http://h/mcp", "http://other/mcp"),
            ("http://h/mcp", "http://h:81/mcp"),
            ("https://h/mcp", "http://h/mcp"),
            ("http://h/mcp", "https://h/mcp"),
            ("http://h/mcp", "//other/mcp"),
        ] {
            assert_eq!(
                resolved(base, reference),
                Err(ReferenceError::OtherOrigin),
                "{base} + {reference}"
            );
        }
        assert_eq!(
            resolved("http://h/mcp", "http://h/a b"),
            Err(ReferenceError::Invalid)
        );
    }

    #[test]
    fn where_a_reference_leads_is_told_without_secrets() {
        let lead = |reference| lead(&Uri::from_static("http://h/mcp?key=s3cret"), reference);
        for (reference, expected) in [
            (
                "https://u:s3cret@other:8443/mcp?key=s3cret",
                "https://other:8443/mcp",
            ),
            ("/login?next=s3cret", "http://h/login"),
        ] {
            assert_eq!(lead(reference).as_deref(), Some(expected));
        }
        assert_eq!(lead("http://h/a b"), None);
    }

    #[test]
    fn where_a_reference_leads_is_told_in_short() {
        let long = format!("/{}", "a".repeat(60_000));
        let told = lead(&Uri::from_static("http://h/mcp"), &long).unwrap();
        assert!(told.starts_with("http://h/aaa") && told.ends_with('…'));
        assert_eq!(told.len(), said::MOST + '…'.len_utf8());
    }

    #[test]
    fn a_server_url_is_checked_and_named_without_secrets() {
        for (url, expected) in [
            ("ftp://h/", Err(UrlError::Scheme)),
            ("/mcp", Err(UrlError::Scheme)),
            ("http://u:p@h/", Err(UrlError::Credentials)),
            ("http://h:1/mcp?key=s3cret", Ok(())),
        ] {
            assert_eq!(check(&Uri::from_static(url)), expected, "{url}");
        }
        assert_eq!(
            display_name(&Uri::from_static("http://h:1/mcp?key=s3cret")),
            "http://h:1/mcp"
        );
    }
}
