//! Whose answer a message was that is too long to be kept.
//!
//! A reader that skips a line or an event over its limit still knows how it began and how it
//! ended. Servers write the few short members of a response before or after the long one, so that
//! these two ends tell which request waits in vain, and it can be answered with an error.

use crate::message::RequestId;

/// The id of a response of which only the beginning and the end are known; `None` if it may be
/// something else, or the id does not stand in them.
#[must_use]
pub fn response_id(start: &[u8], end: &[u8]) -> Option<RequestId> {
    let (before, long) = members(start)?;
    if !matches!(long.as_str(), "result" | "error") {
        return None;
    }
    before.or_else(|| id_at_end(end))
}

/// Reads the short members at the beginning of an object: the id, if it is among them, and the name
/// of the first member that is neither it nor the version.
fn members(start: &[u8]) -> Option<(Option<RequestId>, String)> {
    // The cut may have gone through a character.
    let text = String::from_utf8_lossy(start);
    let mut rest = text.trim_start().strip_prefix('{')?;
    let mut found = None;
    loop {
        let (name, value) = member(rest)?;
        match name {
            "id" | "jsonrpc" => {
                let (scalar, after) = scalar(value)?;
                if name == "id" {
                    found = RequestId::parse(scalar);
                }
                rest = after.trim_start().strip_prefix(',')?;
            }
            other => return Some((found, other.to_owned())),
        }
    }
}

/// `"name": value` at the beginning of a text.
fn member(text: &str) -> Option<(&str, &str)> {
    let (name, rest) = text.trim_start().strip_prefix('"')?.split_once('"')?;
    Some((name, rest.trim_start().strip_prefix(':')?.trim_start()))
}

/// A string or a number at the beginning of a text, and what follows it.
fn scalar(text: &str) -> Option<(&str, &str)> {
    let length = match text.strip_prefix('"') {
        // An id that holds a quote is not worth more.
        Some(rest) => rest.find('"')? + 2,
        None => text.find([',', '}'])?,
    };
    let (scalar, rest) = text.split_at(length);
    (!scalar.contains('\\')).then_some((scalar.trim_end(), rest))
}

/// The id, if nothing but it and the version stands between the long member and the last brace.
/// That brace closes the message itself, so what stands directly before it belongs to nothing else.
fn id_at_end(end: &[u8]) -> Option<RequestId> {
    let text = String::from_utf8_lossy(end);
    let at = text.rfind(r#""id""#)?;
    let comma = text[..at].trim_end().ends_with(',');
    let (_, value) = member(&text[at..])?;
    let (scalar, mut rest) = scalar(value)?;
    if let Some(version) = rest.trim_start().strip_prefix(',') {
        let (name, value) = member(version)?;
        (name == "jsonrpc").then_some(())?;
        rest = self::scalar(value)?.1;
    }
    (comma && rest.trim() == "}").then(|| RequestId::parse(scalar))?
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(start: &str, end: &str) -> Option<String> {
        response_id(start.as_bytes(), end.as_bytes()).map(|id| id.to_json())
    }

    #[test]
    fn the_id_stands_before_or_after_what_is_long() {
        let before = r#"{"jsonrpc":"2.0","id":5,"result":{"content":[{"ty"#;
        assert_eq!(id(before, "xx\"}]}}"), Some("5".into()));
        let spaced = r#" { "id" : "a b" , "jsonrpc" : "2.0" , "error" : {"message":"é"#;
        let cut = response_id(&spaced.as_bytes()[..spaced.len() - 1], b"");
        assert_eq!(cut, Some(RequestId::String("a b".into())));
        let after = r#"{"result":{"content":[{"te"#;
        for end in [
            r#"xx"}]},"jsonrpc":"2.0","id":7}"#,
            r#"xx"}]}, "id": 7, "jsonrpc": "2.0"} "#,
            r#"xx"}]},"id":7}"#,
        ] {
            assert_eq!(id(after, end), Some("7".into()), "{end}");
        }
    }

    #[test]
    fn what_may_be_something_else_is_nobody_s_answer() {
        let after = r#"{"result":{"content":[{"te"#;
        for (start, end) in [
            // A request and a notification of the server.
            (r#"{"jsonrpc":"2.0","id":5,"method":"x","params":{"#, "}}"),
            (
                r#"{"method":"x","params":{"#,
                r#"},"jsonrpc":"2.0","id":7}"#,
            ),
            // An id inside of the result, or inside of a string.
            (after, r#"{"name":"x","id":7}]}}"#),
            (after, r#"},"id":7,"name":"x"}"#),
            (after, r#"\"id\":7}"#),
            (after, r#"{"id":7}"#),
            (after, r#"},"id":{"a":1}}"#),
            (after, ""),
            (r#"{"id":1"#, ""),
            (r#"{"id":"a\"b","result":{"#, ""),
            (r#"{"id":null,"result":{"#, ""),
            ("[", "]"),
            ("noise", "noise"),
        ] {
            assert_eq!(id(start, end), None, "{start} {end}");
        }
    }
}
