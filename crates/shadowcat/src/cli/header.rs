//! `--header 'Name: value'`: header fields for the server, with `${ENV}` in their values.
//!
//! The values are secrets as a rule. They are marked sensitive, so that no `Debug` shows them, and
//! no error repeats them.

use std::fmt;

use http::{HeaderMap, HeaderName, HeaderValue};

/// Fields that are always ours, because they frame a message or are what the engine reconnects by.
const FRAMING: [&str; 13] = [
    "accept",
    "connection",
    "content-length",
    "content-type",
    "expect",
    "host",
    "keep-alive",
    "last-event-id",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "proxy-connection",
];
/// Fields that the proxy writes itself, because they carry the protocol's state.
const PROTOCOL: [&str; 4] = [
    "mcp-method",
    "mcp-name",
    "mcp-protocol-version",
    "mcp-session-id",
];

/// Why a `--header` cannot be sent. Never holds the value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HeaderError {
    /// No `Name: value`.
    Form,
    /// The name is no field name.
    Name(String),
    /// The field is written by the proxy.
    Ours(String),
    /// The value cannot stand in a header field.
    Value(String),
    /// `${` without `}`, or without a name.
    Expansion(String),
    /// The environment has no such variable.
    Unset {
        /// The field.
        field: String,
        /// The variable.
        variable: String,
    },
    /// The variable holds nothing, so the field would go out without its secret.
    Empty {
        /// The field.
        field: String,
        /// The variable.
        variable: String,
    },
}

impl fmt::Display for HeaderError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Form => f.write_str("--header: write 'Name: value', for example --header 'Authorization: Bearer ${TOKEN}'"),
            Self::Name(name) => write!(f, "--header: {name:?} is no header field name; write 'Name: value'"),
            Self::Ours(name) => write!(f, "--header: {name:?} is written by shadowcat itself; leave it out"),
            Self::Value(name) => write!(f, "--header: the value of {name:?} cannot stand in a header field; it must be one line of visible characters"),
            Self::Expansion(name) => write!(f, "--header: the value of {name:?} holds a \"${{\" without a variable's name and \"}}\"; write ${{NAME}}"),
            Self::Unset { field, variable } => write!(f, "--header: {field:?} names the environment variable {variable:?}, which is not set; set it or leave the header out"),
            Self::Empty { field, variable } => write!(f, "--header: {field:?} names the environment variable {variable:?}, which is empty; fill it or leave the header out"),
        }
    }
}

impl std::error::Error for HeaderError {}

/// Parses fields as given, one or more lines each; `variable` looks up the environment.
///
/// # Errors
/// The first field that cannot be sent.
pub fn parse(
    given: &[String],
    variable: impl Fn(&str) -> Option<String>,
) -> Result<HeaderMap, HeaderError> {
    let headers = parse_any(given, variable)?;
    match PROTOCOL
        .into_iter()
        .find(|name| headers.contains_key(*name))
    {
        Some(name) => Err(HeaderError::Ours(name.to_owned())),
        None => Ok(headers),
    }
}

/// The same for a stream that is followed without speaking MCP: the state of a session is the user's
/// to give, as any other field.
///
/// # Errors
/// As [`parse`].
pub fn parse_any(
    given: &[String],
    variable: impl Fn(&str) -> Option<String>,
) -> Result<HeaderMap, HeaderError> {
    let mut headers = HeaderMap::new();
    let lines = given.iter().flat_map(|value| value.lines());
    for line in lines.filter(|line| !line.trim().is_empty()) {
        let (name, value) = line.split_once(':').ok_or(HeaderError::Form)?;
        let name = name.trim();
        let field: HeaderName = name
            .parse()
            .map_err(|_| HeaderError::Name(name.to_owned()))?;
        if FRAMING.contains(&field.as_str()) {
            return Err(HeaderError::Ours(name.to_owned()));
        }
        let expanded = expand(name, value.trim(), &variable)?;
        let mut value = HeaderValue::from_str(expanded.trim())
            .map_err(|_| HeaderError::Value(name.to_owned()))?;
        value.set_sensitive(true);
        headers.append(field, value);
    }
    Ok(headers)
}

/// Puts the environment's values in the place of each `${NAME}`.
fn expand(
    field: &str,
    value: &str,
    variable: impl Fn(&str) -> Option<String>,
) -> Result<String, HeaderError> {
    let mut expanded = String::new();
    let mut rest = value;
    while let Some((before, after)) = rest.split_once("${") {
        let named = after.split_once('}').filter(|(name, _)| !name.is_empty());
        let (name, tail) = named.ok_or_else(|| HeaderError::Expansion(field.to_owned()))?;
        let text = variable(name).ok_or_else(|| HeaderError::Unset {
            field: field.to_owned(),
            variable: name.to_owned(),
        })?;
        if text.trim().is_empty() {
            return Err(HeaderError::Empty {
                field: field.to_owned(),
                variable: name.to_owned(),
            });
        }
        expanded.push_str(before);
        expanded.push_str(&text);
        rest = tail;
    }
    expanded.push_str(rest);
    Ok(expanded)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(given: &[&str]) -> Result<HeaderMap, HeaderError> {
        let given: Vec<_> = given.iter().map(|text| (*text).to_owned()).collect();
        parse(&given, |name| match name {
            "TOKEN" => Some("s3cret".into()),
            "FILE" => Some("from a file\n".into()),
            "LINES" => Some("a\nb".into()),
            "EMPTY" => Some(" \n".into()),
            _ => None,
        })
    }

    #[test]
    fn values_are_expanded_once() {
        let headers = parsed(&[
            "Authorization: Bearer ${TOKEN}",
            "X-A: a:b $TOKEN ${TOKEN}${TOKEN}",
        ])
        .unwrap();
        assert_eq!(headers["authorization"], "Bearer s3cret");
        assert_eq!(headers["x-a"], "a:b $TOKEN s3crets3cret");
    }

    #[test]
    fn one_variable_may_hold_several_fields() {
        let headers = parsed(&["X-A: 1\nX-B: 2\n", "X-A: 3"]).unwrap();
        assert_eq!(
            headers.get_all("x-a").iter().collect::<Vec<_>>(),
            ["1", "3"]
        );
        assert_eq!(headers["x-b"], "2");
    }

    #[test]
    fn a_trailing_line_end_of_a_secret_is_not_sent() {
        assert_eq!(parsed(&["X-A: ${FILE}"]).unwrap()["x-a"], "from a file");
    }

    #[test]
    fn the_state_of_a_session_is_the_user_s_only_outside_of_mcp() {
        let given = ["Mcp-Session-Id: s3cret".to_owned()];
        let ours = HeaderError::Ours("mcp-session-id".into());
        assert_eq!(parse(&given, |_| None), Err(ours));
        assert_eq!(
            parse_any(&given, |_| None).unwrap()["mcp-session-id"],
            "s3cret"
        );
        let given = ["Last-Event-ID: 1".to_owned()];
        assert!(parse_any(&given, |_| None).is_err());
    }

    #[test]
    fn values_are_not_shown() {
        let headers = parsed(&["Authorization: Bearer ${TOKEN}"]).unwrap();
        assert!(!format!("{headers:?}").contains("s3cret"));
    }

    #[test]
    fn errors_say_what_to_write_but_not_the_value() {
        for (given, error) in [
            ("s3cret", HeaderError::Form),
            ("X A: s3cret", HeaderError::Name("X A".into())),
            ("Host: s3cret", HeaderError::Ours("Host".into())),
            ("X-A: s3cret ${LINES}", HeaderError::Value("X-A".into())),
            ("X-A: s3cret ${TOKEN", HeaderError::Expansion("X-A".into())),
            ("X-A: s3cret ${}", HeaderError::Expansion("X-A".into())),
            (
                "X-A: s3cret ${NONE}",
                HeaderError::Unset {
                    field: "X-A".into(),
                    variable: "NONE".into(),
                },
            ),
            (
                "X-A: s3cret ${EMPTY}",
                HeaderError::Empty {
                    field: "X-A".into(),
                    variable: "EMPTY".into(),
                },
            ),
        ] {
            let found = parsed(&[given]).unwrap_err();
            assert_eq!(found, error);
            assert!(!found.to_string().contains("s3cret"), "{found}");
        }
    }
}
