//! How single values are written on the command line and in the environment.
//!
//! Every parser gives a value that needs no further check; its error completes the sentence
//! "invalid value '…' for '--option': …" and says what to write instead.

use std::ffi::OsStr;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use clap::ValueEnum;
use clap::builder::{BoolishValueParser, PossibleValue, PossibleValuesParser, TypedValueParser};
use http::Uri;
use shadowcat_mcp::origin;
use shadowcat_mcp::version::ProtocolVersion;
use shadowcat_transport::upstream::stdio::Audience;

/// A duration, possibly zero: `250ms`, `5s`, `1h30m`.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    humantime::parse_duration(text)
        .map_err(|_| "write a duration such as 250ms, 5s or 1h30m".into())
}

/// A duration longer than zero.
pub(crate) fn positive_duration(text: &str) -> Result<Duration, String> {
    match duration(text)? {
        Duration::ZERO => Err("must be longer than zero".into()),
        duration => Ok(duration),
    }
}

/// A size in bytes, at least 1: `4096`, `512KiB`, `16MiB`.
pub(crate) fn size(text: &str) -> Result<usize, String> {
    let digits = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let unit = match unit.trim_start() {
        "" | "B" => Some(1_usize),
        "KiB" => Some(1 << 10),
        "MiB" => Some(1 << 20),
        "GiB" => Some(1 << 30),
        _ => None,
    };
    let bytes = number
        .parse::<usize>()
        .ok()
        .zip(unit)
        .and_then(|(number, unit)| number.checked_mul(unit));
    match bytes {
        Some(0) => Err("must be at least 1 byte".into()),
        Some(bytes) => Ok(bytes),
        None => Err("write bytes, or a size such as 512KiB or 16MiB".into()),
    }
}

/// A number of things, at least 1.
pub(crate) fn count(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(0) => Err("must be at least 1".into()),
        Ok(count) => Ok(count),
        Err(_) => Err("write a whole number".into()),
    }
}

/// A number of attempts, at least 1.
pub(crate) fn attempts(text: &str) -> Result<u32, String> {
    u32::try_from(count(text)?).map_err(|_| format!("must be at most {}", u32::MAX))
}

/// A jitter factor, 0 to 1.
pub(crate) fn jitter(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(factor) if (0.0..=1.0).contains(&factor) => Ok(factor),
        _ => Err("write a factor from 0 to 1, such as 0.3".into()),
    }
}

/// On or off, in the usual spellings.
pub(crate) fn switch() -> impl TypedValueParser<Value = bool> {
    Switch(BoolishValueParser::new())
}

/// The library's parser, with an error that says what to write.
#[derive(Clone)]
struct Switch(BoolishValueParser);

impl TypedValueParser for Switch {
    type Value = bool;

    fn parse_ref(
        &self,
        command: &clap::Command,
        argument: Option<&clap::Arg>,
        value: &OsStr,
    ) -> Result<bool, clap::Error> {
        let parsed = self.0.parse_ref(command, argument, value);
        parsed.or_else(|_| {
            let wrong = |_: &str| Err::<bool, _>("write on or off, 1 or 0, yes or no");
            wrong.parse_ref(command, argument, value)
        })
    }

    fn possible_values(&self) -> Option<Box<dyn Iterator<Item = PossibleValue> + '_>> {
        self.0.possible_values()
    }
}

/// A protocol version. The known ones are in the help and in the shells' completions.
pub(crate) fn version() -> impl TypedValueParser<Value = ProtocolVersion> {
    let known = ProtocolVersion::ALL.map(ProtocolVersion::as_str);
    PossibleValuesParser::new(known).try_map(|text| text.parse::<ProtocolVersion>())
}

/// `scheme://host[:port]`, as a browser sends it.
pub(crate) fn allowed_origin(text: &str) -> Result<String, String> {
    let wrong =
        || "write an origin such as https://app.example or http://app.example:3000".to_owned();
    let uri: Uri = text.parse().map_err(|_| wrong())?;
    let complete = uri.scheme().is_some() && uri.authority().is_some();
    if complete && uri.path() == "/" && uri.query().is_none() {
        Ok(text.trim_end_matches('/').to_owned())
    } else {
        Err(wrong())
    }
}

/// `host[:port]`, as it stands in the `Host` header field.
pub(crate) fn allowed_host(text: &str) -> Result<String, String> {
    match text.parse::<http::uri::Authority>() {
        Ok(authority) if !text.contains('@') && !authority.host().is_empty() => Ok(text.to_owned()),
        _ => Err("write a host as clients name it, such as mcp.example or mcp.example:8443".into()),
    }
}

/// `HOST:PORT` to listen on; port 0 lets the system pick one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listen {
    /// A name, an IPv4 address, or an IPv6 address in brackets.
    host: String,
    port: u16,
}

impl Listen {
    /// Whether only this machine can reach it.
    #[must_use]
    pub fn is_loopback(&self) -> bool {
        origin::is_loopback(&self.host)
    }
}

/// Who the clients of `forward` are: the local user, unless other machines can reach it.
#[must_use]
pub fn forward_audience(listen: Option<&Listen>) -> Audience {
    match listen {
        Some(address) if !address.is_loopback() => Audience::Anyone,
        _ => Audience::LocalUser,
    }
}

impl FromStr for Listen {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong =
            || "write HOST:PORT, for example 127.0.0.1:8080, [::1]:8080 or localhost:0".to_owned();
        let (host, port) = text.rsplit_once(':').ok_or_else(wrong)?;
        let bracketed = host.starts_with('[') && host.ends_with(']');
        if host.is_empty() || (host.contains(':') && !bracketed) {
            return Err(wrong());
        }
        let port = port.parse().map_err(|_| wrong())?;
        Ok(Self {
            host: host.to_owned(),
            port,
        })
    }
}

impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}

/// How much is logged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogLevel {
    /// Nothing but the line that says where we listen.
    Off,
    /// What failed for good.
    Error,
    /// What an operator should look at.
    Warn,
    /// Sessions, drops, recoveries.
    Info,
    /// Every message's way, without its content.
    Debug,
    /// Everything.
    Trace,
}

/// How log lines are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// What an upstream's lost session means for the client.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum SessionLoss {
    /// A new session with the server is made; the client keeps its own.
    Heal,
    /// The client loses its session too: 404 over HTTP, the end of the process over stdio.
    Propagate,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        assert_eq!(duration("250ms"), Ok(Duration::from_millis(250)));
        assert_eq!(duration("1h30m"), Ok(Duration::from_secs(5400)));
        assert_eq!(duration("0s"), Ok(Duration::ZERO));
        for bad in ["5", "", "-1s", "5 parsecs", "s"] {
            assert!(duration(bad).is_err(), "{bad:?}");
        }
        assert!(positive_duration("0s").is_err());
    }

    #[test]
    fn sizes() {
        for (text, bytes) in [
            ("1", 1),
            ("64KiB", 65_536),
            ("16MiB", 16 << 20),
            ("1 GiB", 1 << 30),
            ("5B", 5),
        ] {
            assert_eq!(size(text), Ok(bytes), "{text}");
        }
        for bad in [
            "",
            "0",
            "0MiB",
            "KiB",
            "1.5MiB",
            "16MB",
            "-1",
            "99999999999999999999",
            "18446744073709551615KiB",
        ] {
            assert!(size(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn factors_and_counts() {
        assert_eq!(jitter("0.3"), Ok(0.3));
        for bad in ["1.1", "-0.1", "NaN", "inf", "x"] {
            assert!(jitter(bad).is_err(), "{bad:?}");
        }
        assert_eq!(count("7"), Ok(7));
        for bad in ["0", "-1", "1e3", ""] {
            assert!(count(bad).is_err(), "{bad:?}");
        }
        assert!(attempts("4294967296").is_err());
    }

    #[test]
    fn addresses_to_listen_on() {
        for (text, loopback) in [
            ("127.0.0.1:0", true),
            ("localhost:8080", true),
            ("[::1]:8080", true),
            ("0.0.0.0:8080", false),
            ("[::]:8080", false),
            ("mcp.example:80", false),
        ] {
            let listen: Listen = text.parse().unwrap();
            assert_eq!(listen.is_loopback(), loopback, "{text}");
            assert_eq!(listen.to_string(), text);
        }
        for bad in [
            "8080",
            ":8080",
            "localhost",
            "localhost:",
            "localhost:65536",
            "::1:8080",
            "http://x:1",
        ] {
            assert!(bad.parse::<Listen>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn who_may_come() {
        assert_eq!(
            allowed_origin("https://app.example/"),
            Ok("https://app.example".into())
        );
        for bad in ["app.example", "https://app.example/path", "*", ""] {
            assert!(allowed_origin(bad).is_err(), "{bad:?}");
        }
        assert_eq!(
            allowed_host("mcp.example:8443"),
            Ok("mcp.example:8443".into())
        );
        for bad in ["https://mcp.example", "user@mcp.example", "", "a b"] {
            assert!(allowed_host(bad).is_err(), "{bad:?}");
        }
    }
}
