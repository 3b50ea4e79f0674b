//! What a process said last on its stderr, for the log line and the error that tell of its death.
//!
//! An exit status alone says little; the line before it, as a rule, says all. It is short, and what
//! is known to be a secret is masked: the values of the variables that the process was given, and
//! bearer tokens. Much that is none of a stranger's business is not known:
//! [`Audience`](super::Audience) says whether clients get the line.

use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

/// Bytes of the line that are told.
const MOST: usize = 200;
/// A line of this age has nothing to do with the death.
const RECENT: Duration = Duration::from_secs(10);
/// Values shorter than this are no secrets, but parts of ordinary words.
const SHORTEST_SECRET: usize = 6;
const MASK: &str = "***";

/// The last line of one process.
#[derive(Debug)]
pub(super) struct LastLine {
    secrets: Vec<String>,
    line: Mutex<Option<(String, Instant)>>,
}

impl LastLine {
    /// Nothing was said yet. `environment`: what the process was given.
    pub(super) fn new(environment: &[(String, String)]) -> Self {
        let values = environment.iter().map(|(_, value)| value);
        let secrets = values.filter(|value| value.len() >= SHORTEST_SECRET);
        Self {
            secrets: secrets.cloned().collect(),
            line: Mutex::default(),
        }
    }

    /// Keeps a line; one without a word says nothing.
    pub(super) fn said(&self, line: &str) {
        if line.chars().any(char::is_alphanumeric) {
            *self.line.lock() = Some((self.masked(line), Instant::now()));
        }
    }

    /// The line, if it was said just now.
    pub(super) fn recent(&self) -> Option<String> {
        let line = self.line.lock();
        let recent = line.as_ref().filter(|(_, at)| at.elapsed() < RECENT);
        recent.map(|(line, _)| line.clone())
    }

    fn masked(&self, line: &str) -> String {
        let mut line = line.to_owned();
        for secret in &self.secrets {
            line = line.replace(secret, MASK);
        }
        let line = without_bearer(&line);
        let line: String = line.chars().filter(|c| !c.is_control()).collect();
        let line = line.trim();
        match line.char_indices().find(|(at, c)| at + c.len_utf8() > MOST) {
            Some((end, _)) => format!("{}…", &line[..end]),
            None => line.to_owned(),
        }
    }
}

/// A line with the word after each "Bearer" masked.
fn without_bearer(line: &str) -> String {
    let mut words = line.split(' ');
    let mut all = Vec::new();
    while let Some(word) = words.next() {
        all.push(word);
        if word.to_ascii_lowercase().ends_with("bearer") && words.next().is_some() {
            all.push(MASK);
        }
    }
    all.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_last_line_is_told_while_it_is_new() {
        let last = LastLine::new(&[]);
        assert_eq!(last.recent(), None);
        last.said("first");
        last.said("Error: no such\u{1b}[0m file  ");
        last.said("    ^^^^");
        assert_eq!(last.recent().unwrap(), "Error: no such[0m file");
        tokio::time::advance(RECENT).await;
        assert_eq!(last.recent(), None);
    }

    #[tokio::test(start_paused = true)]
    async fn secrets_are_masked() {
        let given = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let last = LastLine::new(&[given("TOKEN", "s3cret"), given("LEVEL", "1")]);
        last.said("401 for s3cret: Authorization: Bearer abcdef is 1 day old");
        let line = last.recent().unwrap();
        assert_eq!(line, "401 for ***: Authorization: Bearer *** is 1 day old");
    }

    #[tokio::test(start_paused = true)]
    async fn a_long_line_is_cut_between_characters() {
        let last = LastLine::new(&[]);
        last.said(&"ü".repeat(1000));
        let line = last.recent().unwrap();
        assert_eq!(line, format!("{}…", "ü".repeat(MOST / 2)));
    }
}
