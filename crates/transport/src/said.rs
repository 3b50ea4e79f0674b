//! What a peer said in its own words, in a form that logs and errors can repeat: one short line,
//! without what is known to be a secret.

use std::ops::Range;

/// Bytes that are repeated.
pub(crate) const MOST: usize = 200;
/// Values shorter than this are no secrets, but parts of ordinary words.
pub(crate) const SHORTEST_SECRET: usize = 6;
const MASK: &str = "***";

/// The beginning of a text in one line. Masked are these secrets and bearer tokens.
pub(crate) fn in_short(text: &str, secrets: &[String]) -> String {
    let line = without_bearer(&without(secrets, text));
    let line = line.replace(['\t', '\n', '\r'], " ");
    let line: String = line.chars().filter(|c| !c.is_control()).collect();
    let line = line.trim();
    match line.char_indices().find(|(at, c)| at + c.len_utf8() > MOST) {
        Some((end, _)) => format!("{}…", &line[..end]),
        None => line.to_owned(),
    }
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
