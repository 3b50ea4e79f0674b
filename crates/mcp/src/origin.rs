//! Which `Origin` and `Host` may reach an edge.
//!
//! MCP specification, Streamable HTTP, "Security Warning": a web page must not reach a local server
//! through its visitor's browser, neither across origins nor by DNS rebinding. Loopback names are
//! always allowed, with any port; others by name.

use http::HeaderMap;
use http::header::{HOST, ORIGIN};

use crate::fault::Rejection;

/// The allow lists beyond loopback names.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Access {
    /// Origins as `scheme://host[:port]`, compared without regard to case; an absent port is the
    /// scheme's own. `null` is an origin only if it is listed here.
    pub origins: Vec<String>,
    /// Hosts, with or without a port; without one any port matches.
    pub hosts: Vec<String>,
}

impl Access {
    /// Checks `Origin`. Its absence is fine: only browsers send it.
    ///
    /// # Errors
    /// [`Rejection::OriginNotAllowed`].
    pub fn check_origin(&self, headers: &HeaderMap) -> Result<(), Rejection> {
        for value in headers.get_all(ORIGIN) {
            let origin = String::from_utf8_lossy(value.as_bytes());
            let allowed = is_loopback_origin(&origin)
                || self.origins.iter().any(|known| {
                    let known = known.trim_end_matches('/');
                    without_default_port(known).eq_ignore_ascii_case(without_default_port(&origin))
                });
            if !allowed {
                return Err(Rejection::OriginNotAllowed {
                    origin: origin.into_owned(),
                });
            }
        }
        Ok(())
    }

    /// Checks `Host` (or `:authority`, which the caller passes as `authority`).
    ///
    /// # Errors
    /// [`Rejection::HostNotAllowed`], also when there is none or more than one.
    pub fn check_host(
        &self,
        authority: Option<&str>,
        headers: &HeaderMap,
    ) -> Result<(), Rejection> {
        let mut values = headers.get_all(HOST).iter();
        let header = values
            .next()
            .map(|value| String::from_utf8_lossy(value.as_bytes()));
        let host = match (authority, &header) {
            (Some(authority), _) => authority,
            (None, Some(header)) => header,
            (None, None) => "",
        };
        let allowed = values.next().is_none()
            && (is_loopback(name_of(host)) || self.hosts.iter().any(|known| matches(known, host)));
        if allowed {
            Ok(())
        } else {
            Err(Rejection::HostNotAllowed {
                host: host.to_owned(),
            })
        }
    }
}

fn matches(known: &str, host: &str) -> bool {
    known.eq_ignore_ascii_case(host) || known.eq_ignore_ascii_case(name_of(host))
}

/// A host without its port; an IPv6 literal keeps its brackets.
fn name_of(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port))
            if port.bytes().all(|b| b.is_ascii_digit())
                && (!name.contains(':') || name.ends_with(']')) =>
        {
            name
        }
        _ => host,
    }
}

/// `localhost`, 127.0.0.0/8 and `[::1]`.
#[must_use]
pub fn is_loopback(name: &str) -> bool {
    let address = name
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'));
    if let Some(address) = address {
        return address
            .parse::<std::net::Ipv6Addr>()
            .is_ok_and(|a| a.is_loopback());
    }
    // The usual ones first: parsing costs more.
    name == "127.0.0.1"
        || name.eq_ignore_ascii_case("localhost")
        || name
            .parse::<std::net::Ipv4Addr>()
            .is_ok_and(|address| address.is_loopback())
}

/// An origin without the port that its scheme implies, as browsers send it.
fn without_default_port(origin: &str) -> &str {
    let scheme = origin.split_once("://").map_or("", |(scheme, _)| scheme);
    let default = if scheme.eq_ignore_ascii_case("https") {
        ":443"
    } else if scheme.eq_ignore_ascii_case("http") {
        ":80"
    } else {
        return origin;
    };
    origin.strip_suffix(default).unwrap_or(origin)
}

fn is_loopback_origin(origin: &str) -> bool {
    let host = origin
        .strip_prefix("http://")
        .or_else(|| origin.strip_prefix("https://"));
    host.is_some_and(|host| is_loopback(name_of(host)))
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn access() -> Access {
        Access {
            origins: vec!["https://app.example".into()],
            hosts: vec!["mcp.example".into(), "other.example:81".into()],
        }
    }

    #[test]
    fn origins() {
        for (origin, allowed) in [
            ("http://localhost:3000", true),
            ("https://127.0.0.1", true),
            ("http://[::1]:8080", true),
            ("https://app.example", true),
            ("HTTPS://APP.example", true),
            ("http://app.example", false),
            ("https://app.example:443", true),
            ("https://app.example:444", false),
            ("https://app.example:80", false),
            ("https://app.example.evil.example", false),
            ("http://evil.example", false),
            ("http://localhost.evil.example", false),
            ("http://127.0.0.1.evil.example", false),
            ("http://evil.example:80@localhost", false),
            ("null", false),
            ("", false),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(ORIGIN, HeaderValue::from_static(origin));
            assert_eq!(access().check_origin(&headers).is_ok(), allowed, "{origin}");
        }
        assert!(access().check_origin(&HeaderMap::new()).is_ok());
    }

    #[test]
    fn listed_origins_are_compared_as_origins() {
        for (known, origin) in [
            ("https://app.example:443/", "https://app.example"),
            ("http://app.example", "http://APP.example:80"),
            ("null", "null"),
        ] {
            let access = Access {
                origins: vec![known.into()],
                hosts: Vec::new(),
            };
            let mut headers = HeaderMap::new();
            headers.insert(ORIGIN, HeaderValue::from_static(origin));
            assert!(access.check_origin(&headers).is_ok(), "{known} {origin}");
            headers.append(ORIGIN, HeaderValue::from_static("http://evil.example"));
            assert!(access.check_origin(&headers).is_err(), "each value counts");
        }
    }

    #[test]
    fn hosts() {
        for (host, allowed) in [
            ("localhost", true),
            ("LOCALHOST:8080", true),
            ("127.1.2.3:80", true),
            ("[::1]", true),
            ("[::1]:8080", true),
            ("mcp.example", true),
            ("mcp.example:8443", true),
            ("other.example:81", true),
            ("other.example:82", false),
            ("evil.example", false),
            ("localhost.evil.example:80", false),
            ("128.0.0.1", false),
            ("", false),
        ] {
            assert_eq!(
                access().check_host(Some(host), &HeaderMap::new()).is_ok(),
                allowed,
                "{host}"
            );
        }
        assert!(access().check_host(None, &HeaderMap::new()).is_err());
    }
}
