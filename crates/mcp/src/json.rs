//! Reading JSON text in place, without a tree.
//!
//! serde_json checks the grammar and finds the spans. What it leaves open is settled here: serde
//! would also read a struct from an array, by position; skipped values may nest without a bound;
//! and an array of tiny elements costs many times its bytes.

use std::borrow::Cow;
use std::fmt;
use std::ops::Range;

use serde::de::{Deserialize, Deserializer, Error, SeqAccess, Visitor};
use serde_json::value::RawValue;

/// Keeps `null` apart from absent.
pub(crate) fn present<'de: 'a, 'a, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<&'a RawValue>, D::Error> {
    <&RawValue>::deserialize(deserializer).map(Some)
}

/// Whether a text, if it is JSON, is an object.
pub(crate) fn is_object(text: &str) -> bool {
    text.trim_start_matches([' ', '\t', '\n', '\r'])
        .starts_with('{')
}

/// The members of an object; `None` for what is no object or does not fit.
pub(crate) fn object<'a, T: Deserialize<'a>>(text: &'a str) -> Option<T> {
    if !is_object(text) {
        return None;
    }
    serde_json::from_str(text).ok()
}

/// The characters of a JSON string; `None` for any other value, and for a string that is no
/// sequence of characters (a lone surrogate).
pub(crate) fn string(raw: &RawValue) -> Option<Cow<'_, str>> {
    let inner = raw.get().strip_prefix('"')?.strip_suffix('"')?;
    if memchr::memchr(b'\\', inner.as_bytes()).is_none() {
        return Some(Cow::Borrowed(inner));
    }
    serde_json::from_str(raw.get()).ok().map(Cow::Owned)
}

/// Where `part`, a slice of `whole`, stands in it.
pub(crate) fn span_in(whole: &str, part: &str) -> Range<usize> {
    let start = part.as_ptr() as usize - whole.as_ptr() as usize;
    start..start + part.len()
}

/// Whether valid JSON nests arrays and objects deeper than `limit`.
pub(crate) fn is_deeper_than(limit: usize, json: &str) -> bool {
    // Most messages hold fewer brackets than that in all, which is cheaper to find out.
    has_more_brackets_than(limit, json.as_bytes()) && depth_exceeds(limit, json.as_bytes())
}

fn has_more_brackets_than(limit: usize, json: &[u8]) -> bool {
    let mut brackets = 0;
    // Short chunks, so that a sum of bytes cannot overflow and the loop can be vectorised.
    json.chunks(255).any(|chunk| {
        // `[` and `{` differ in this bit only.
        let found: u8 = chunk.iter().map(|byte| u8::from(byte | 0x20 == b'{')).sum();
        brackets += usize::from(found);
        brackets > limit
    })
}

fn depth_exceeds(limit: usize, json: &[u8]) -> bool {
    let (mut depth, mut at) = (0_usize, 0);
    while let Some(byte) = json.get(at) {
        at += 1;
        match byte {
            b'{' | b'[' => {
                depth += 1;
                if depth > limit {
                    return true;
                }
            }
            b'}' | b']' => depth = depth.saturating_sub(1),
            b'"' => at = end_of_string(json, at),
            _ => {}
        }
    }
    false
}

/// The position after the closing quote of the string whose first character is at `at`.
fn end_of_string(json: &[u8], mut at: usize) -> usize {
    while let Some(found) = json
        .get(at..)
        .and_then(|rest| memchr::memchr2(b'"', b'\\', rest))
    {
        at += found;
        if json[at] == b'"' {
            return at + 1;
        }
        // The escaped character cannot end the string.
        at += 2;
    }
    json.len()
}

/// The elements of an array, or the news that there are more than `MAX`, found without reading them.
#[derive(Debug)]
pub(crate) enum Elements<'a, const MAX: usize> {
    Some(Vec<&'a RawValue>),
    TooMany,
}

impl<'a, const MAX: usize> Elements<'a, MAX> {
    /// Reads an array.
    ///
    /// # Errors
    /// When the text is not JSON, or no array.
    pub(crate) fn read(text: &'a str) -> Result<Self, serde_json::Error> {
        match serde_json::from_str::<Bounded<'_, MAX>>(text) {
            Ok(Bounded(elements)) => Ok(Self::Some(elements)),
            Err(error) if error.is_data() && text.trim_start().starts_with('[') => {
                Ok(Self::TooMany)
            }
            Err(error) => Err(error),
        }
    }
}

struct Bounded<'a, const MAX: usize>(Vec<&'a RawValue>);

impl<'de: 'a, 'a, const MAX: usize> Deserialize<'de> for Bounded<'a, MAX> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reader<const MAX: usize>;

        impl<'de, const MAX: usize> Visitor<'de> for Reader<MAX> {
            type Value = Vec<&'de RawValue>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "an array of at most {MAX} elements")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut array: A) -> Result<Self::Value, A::Error> {
                let mut elements = Vec::new();
                while let Some(element) = array.next_element()? {
                    if elements.len() == MAX {
                        return Err(A::Error::invalid_length(MAX + 1, &self));
                    }
                    elements.push(element);
                }
                Ok(elements)
            }
        }

        deserializer.deserialize_seq(Reader::<MAX>).map(Bounded)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_struct_is_read_from_an_object_only() {
        #[derive(serde::Deserialize, Debug, PartialEq)]
        struct Named {
            name: u8,
        }
        assert_eq!(object(" \n{\"name\":1}"), Some(Named { name: 1 }));
        assert_eq!(object::<Named>("[1]"), None);
        assert_eq!(object::<Named>("{\"name\":1,\"name\":1}"), None);
    }

    #[test]
    fn strings_are_decoded() {
        let read = |json: &str| {
            let raw: &RawValue = serde_json::from_str(json).unwrap();
            string(raw).map(Cow::into_owned)
        };
        assert_eq!(read(r#""a/b""#).as_deref(), Some("a/b"));
        assert_eq!(read(r#""a\/\u0062""#).as_deref(), Some("a/b"));
        assert_eq!(read(r#""""#).as_deref(), Some(""));
        for bad in [r#""\ud800""#, "1", "null", "{}"] {
            assert_eq!(read(bad), None, "{bad}");
        }
    }

    #[test]
    fn brackets_in_strings_do_not_nest() {
        let nested = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        assert!(!is_deeper_than(8, &nested(8)));
        assert!(is_deeper_than(8, &nested(9)));
        assert!(!is_deeper_than(8, &format!("[{}[]]", "{},".repeat(100))));
        assert!(!is_deeper_than(
            2,
            &format!(r#"["{}\"{{{{"]"#, "[".repeat(300))
        ));
        assert!(is_deeper_than(2, r#"["\\",[[]]]"#));
    }

    #[test]
    fn too_many_elements_are_not_read() {
        let read = Elements::<3>::read;
        assert!(matches!(read("[1, {}, []]"), Ok(Elements::Some(e)) if e.len() == 3));
        assert!(matches!(read(" [1,2,3,4"), Ok(Elements::TooMany)));
        assert!(matches!(read("[]"), Ok(Elements::Some(e)) if e.is_empty()));
        for bad in ["[1", "[1,]", "[1] 2", "{}", ""] {
            assert!(read(bad).is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn depth_agrees_with_a_tree(
            json in r#"[\[{]{0,6}("[\[\]{}\\"]{0,6}"|1)?[\]}]{0,6}"#, limit in 0_usize..8,
        ) {
            fn depth(value: &serde_json::Value) -> usize {
                match value {
                    serde_json::Value::Array(all) => 1 + all.iter().map(depth).max().unwrap_or(0),
                    serde_json::Value::Object(all) => 1 + all.values().map(depth).max().unwrap_or(0),
                    _ => 0,
                }
            }
            if let Ok(value) = serde_json::from_str(&json) {
                prop_assert_eq!(is_deeper_than(limit, &json), depth(&value) > limit, "{}", json);
            }
        }
    }
}
