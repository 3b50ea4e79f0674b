//! Request ids.

use std::collections::HashMap;
use std::fmt;

use crate::message::json_string;

/// Above this, a double does not hold every integer, and peers that read numbers as doubles differ.
const EXACT_IN_A_DOUBLE: f64 = 9_007_199_254_740_992.0;

/// A request id: a string or a number. Progress tokens and subscription ids are the same.
///
/// `1` and `"1"` are different ids. `1` and `1.0` are the same, because peers whose numbers are
/// doubles send back `1` for either: a number with an integer value is kept as that integer, up to
/// the values that a double holds exactly, and in full up to `i64` where it is spelt as an integer.
/// Any other number is compared as spelt.
#[derive(Clone, PartialEq, Eq, Hash)]
pub enum RequestId {
    /// An integer.
    Integer(i64),
    /// A number that [`RequestId::Integer`] cannot hold, as spelt.
    Number(Box<str>),
    /// A string, decoded.
    String(Box<str>),
}

/// A table by request id. It hashes fast, with a key of the process, which is enough: ids of one peer
/// meet in a table, and nobody else's.
pub type IdTable<T> = HashMap<RequestId, T, rapidhash::fast::GlobalState>;

impl RequestId {
    /// Reads a string or any number; `None` for other JSON values.
    pub(crate) fn parse(raw: &str) -> Option<Self> {
        match raw.as_bytes().first()? {
            b'"' => serde_json::from_str::<Box<str>>(raw).ok().map(Self::String),
            b'-' | b'0'..=b'9' => Some(Self::number(raw)),
            _ => None,
        }
    }

    fn number(raw: &str) -> Self {
        if let Ok(integer) = raw.parse() {
            return Self::Integer(integer);
        }
        match raw.parse::<f64>() {
            // The cast is exact: the value is an integer of at most 53 bits.
            Ok(value) if value.fract() == 0.0 && value.abs() < EXACT_IN_A_DOUBLE => {
                Self::Integer(value as i64)
            }
            _ => Self::Number(raw.into()),
        }
    }

    /// Whether it may identify a request: a string, or a number with an integer value (MCP
    /// specification, "Requests": "MUST include a string or integer ID").
    pub(crate) fn is_string_or_integer(&self) -> bool {
        match self {
            Self::Integer(_) | Self::String(_) => true,
            Self::Number(number) => number
                .parse::<f64>()
                .is_ok_and(|value| value.fract() == 0.0),
        }
    }

    /// The id as JSON.
    #[must_use]
    pub fn to_json(&self) -> String {
        match self {
            Self::Integer(integer) => integer.to_string(),
            Self::Number(number) => number.to_string(),
            Self::String(string) => json_string(string),
        }
    }
}

impl fmt::Debug for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.to_json())
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.to_json())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(json: &str) -> RequestId {
        RequestId::parse(json).unwrap()
    }

    #[test]
    fn numbers_of_one_value_are_one_id() {
        for spelt in ["1", "1.0", "1e0", "10e-1", "0.1e1"] {
            assert_eq!(id(spelt), RequestId::Integer(1), "{spelt}");
        }
        assert_eq!(id("-0"), RequestId::Integer(0));
        assert_eq!(id("-0.0"), RequestId::Integer(0));
        assert_eq!(id("9223372036854775807"), RequestId::Integer(i64::MAX));
        assert_eq!(
            id("9007199254740991.0"),
            RequestId::Integer(9_007_199_254_740_991)
        );
    }

    #[test]
    fn strings_are_no_numbers_and_are_compared_decoded() {
        assert_ne!(id("1"), id("\"1\""));
        assert_eq!(id(r#""a""#), id(r#""\u0061""#));
        assert_eq!(id(r#""a\"b""#).to_json(), r#""a\"b""#);
    }

    #[test]
    fn what_no_integer_holds_is_kept_as_spelt() {
        for spelt in ["1.5", "9223372036854775808", "9007199254740993.0", "1e300"] {
            assert_eq!(id(spelt), RequestId::Number(spelt.into()));
            assert_eq!(id(spelt).to_json(), spelt);
        }
    }

    #[test]
    fn requests_have_strings_or_integers() {
        for good in ["1", "1.0", "\"\"", "18446744073709551615", "1e300"] {
            assert!(id(good).is_string_or_integer(), "{good}");
        }
        for bad in ["1.5", "1e-1", "1e999"] {
            assert!(!id(bad).is_string_or_integer(), "{bad}");
        }
        for no in ["null", "true", "{}", "[1]"] {
            assert_eq!(RequestId::parse(no), None, "{no}");
        }
    }
}
