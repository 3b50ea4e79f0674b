//! What a peer said in its own words, in a form that logs and errors can repeat: one short line,
//! without what is known to be a secret.

use std::ops::Range;

use http::HeaderValue;

/// Bytes that are repeated.
pub const MOST: usize = 200;
/// Values shorter than this are no secrets, but parts of ordinary words.
pub const SHORTEST_SECRET: usize = 6;
/// Bytes of a body that are looked at.
pub const LOOKED_AT: usize = 4096;
const MASK: &str = "***";

/// What a request holds that must not be repeated: the values of these fields, and of its query.
#[must_use]
pub fn secrets<'a>(
    fields: impl Iterator<Item = &'a HeaderValue>,
    query: Option<&str>,
) -> Vec<String> {
    let mut secrets: Vec<String> = Vec::new();
    for value in fields {
        let value = String::from_utf8_lossy(value.as_bytes()).into_owned();
        // "Basic dXNlcg==" is a secret, and so is what stands behind the scheme.
        secrets.extend(value.split_whitespace().last().map(str::to_owned));
        secrets.push(value);
    }
    let query = query.unwrap_or_default();
    secrets.push(query.to_owned());
    let values = query.split('&').filter_map(|pair| pair.split_once('='));
    secrets.extend(values.map(|(_, value)| value.to_owned()));
    secrets.retain(|secret| secret.len() >= SHORTEST_SECRET);
    secrets
}

/// The beginning of a body of text, its words one blank apart.
#[must_use]
pub fn beginning(body: &[u8]) -> String {
    let text = String::from_utf8_lossy(&body[..LOOKED_AT.min(body.len())]);
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// The beginning of a text in one line. Masked are these secrets and bearer tokens.
#[must_use]
pub fn in_short(text: &str, secrets: &[String]) -> String {
    let line = without_bearer(&without(secrets, text));
    let line = line.replace(['\t', '\n', '\r', '\u{2028}', '\u{2029}'], " ");
    let line: String = line.chars().filter(|c| !commands(*c)).collect();
    let line = line.trim();
    match line.char_indices().find(|(at, c)| at + c.len_utf8() > MOST) {
        Some((end, _)) => format!("{}…", &line[..end]),
        None => line.to_owned(),
    }
}

/// Whether a character is no part of a text, but tells whoever shows it what to do: the control
/// characters, and those that turn the direction of writing, after which a line reads as another.
fn commands(c: char) -> bool {
    c.is_control() || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// A text with each stretch masked that is made of secrets, which may overlap.
fn without(secrets: &[String], text: &str) -> String {
    let found = secrets.iter().flat_map(|secret| text.match_indices(secret));
    let mut found: Vec<Range<usize>> = found.map(|(at, secret)| at..at + secret.len()).collect();
    found.sort_unstable_by_key(|range| range.start);
    let (mut masked, mut end) = (String::new(), 0);
    for range in found {
        if range.start >= end {
            masked.push_str(&text[end..range.start]);
            masked.push_str(MASK);
        }
        end = end.max(range.end);
    }
    masked.push_str(&text[end..]);
    masked
}

/// A text with the word after each "Bearer" masked.
fn without_bearer(text: &str) -> String {
    let mut masked = String::new();
    let mut token = false;
    for piece in text.split_inclusive(char::is_whitespace) {
        let word = piece.trim_end();
        if word.is_empty() || !token {
            masked.push_str(piece);
        } else {
            masked.push_str(MASK);
            masked.push_str(&piece[word.len()..]);
        }
        if !word.is_empty() {
            token = word.to_ascii_lowercase().ends_with("bearer");
        }
    }
    masked
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_breaks_or_reorders_a_line_is_not_repeated() {
        for (text, short) in [
            ("a\tb\nc\rd", "a b c d"),
            ("a\u{2028}b\u{2029}c", "a b c"),
            ("\u{1b}[31ma\u{7f}\u{85}b", "[31mab"),
            ("\u{202a}a\u{202b}b\u{202c}c\u{202d}d\u{202e}e", "abcde"),
            ("\u{2066}a\u{2067}b\u{2068}c\u{2069}d", "abcd"),
            // Neighbours that do neither.
            (
                "a\u{2027}b\u{202f}c\u{2065}d\u{206a}",
                "a\u{2027}b\u{202f}c\u{2065}d\u{206a}",
            ),
        ] {
            assert_eq!(in_short(text, &[]), short, "{text:?}");
        }
    }
}
