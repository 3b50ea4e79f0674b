//! What a process said on its stderr before it died, for the log line and the error that tell of
//! its death.
//!
//! An exit status alone says little; the line before it, as a rule, says all. Where more lines come
//! at once the last is often the least of them, a stack frame or the path of a log file: then it is
//! the last that sounds like a reason. The line is short, and what is known to be a secret is
//! masked: the values of the variables that the process was given, and bearer tokens. Much that is
//! none of a stranger's business is not known: [`Audience`](super::Audience) says whether clients
//! get the line.

use std::collections::VecDeque;
use std::time::Duration;

use parking_lot::Mutex;
use shadowcat_sse::said;
use tokio::time::Instant;

/// A line that was said longer before the death has nothing to do with it.
const RECENT: Duration = Duration::from_secs(2);
/// Lines that are looked at, and within what time the last of them were said.
const LINES: usize = 16;
const AT_ONCE: Duration = Duration::from_secs(1);
/// What a reason sounds like, in small letters.
const REASONS: [&str; 16] = [
    "error:",
    "exception:",
    "fatal:",
    "cannot",
    "can't",
    "could not",
    "couldn't",
    "unable to",
    "no such",
    "not found",
    "failed",
    "denied",
    "refused",
    "invalid",
    "missing",
    "required",
];

/// The last lines of one process.
#[derive(Debug)]
pub(super) struct LastLine {
    secrets: Vec<String>,
    lines: Mutex<VecDeque<(String, Instant)>>,
}

impl LastLine {
    /// Nothing was said yet. `environment`: what the process was given.
    pub(super) fn new(environment: &[(String, String)]) -> Self {
        let values = environment.iter().map(|(_, value)| value);
        let secrets = values.filter(|value| value.len() >= said::SHORTEST_SECRET);
        Self {
            secrets: secrets.cloned().collect(),
            lines: Mutex::default(),
        }
    }

    /// Keeps a line; one without a word says nothing.
    pub(super) fn said(&self, line: &str) {
        if line.chars().any(char::is_alphanumeric) {
            let mut lines = self.lines.lock();
            if lines.len() == LINES {
                lines.pop_front();
            }
            lines.push_back((said::in_short(line, &self.secrets), Instant::now()));
        }
    }

    /// The line that says most of a death that was noticed at `died`, if it was said just before
    /// or after.
    pub(super) fn about(&self, died: Instant) -> Option<String> {
        let lines = self.lines.lock();
        let (last, said) = lines.back()?;
        if died.saturating_duration_since(*said) >= RECENT {
            return None;
        }
        let at_once = lines
            .iter()
            .rev()
            .take_while(|(_, at)| *said - *at < AT_ONCE);
        let reason = at_once.map(|(line, _)| line).find(|line| is_reason(line));
        Some(reason.unwrap_or(last).clone())
    }
}

fn is_reason(line: &str) -> bool {
    let line = line.to_lowercase();
    REASONS.iter().any(|reason| line.contains(reason))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_last_line_is_told_while_it_is_new() {
        let last = LastLine::new(&[]);
        assert_eq!(last.about(Instant::now()), None);
        last.said("first");
        last.said("Error: no such\u{1b}[0m file  ");
        last.said("    ^^^^");
        assert_eq!(
            last.about(Instant::now()).unwrap(),
            "Error: no such[0m file"
        );
        let died = Instant::now() + RECENT;
        assert_eq!(last.about(died), None);
        // However late it is asked for.
        tokio::time::advance(RECENT * 2).await;
        assert_eq!(last.about(died), None);
        last.said("read after its death");
        assert_eq!(last.about(died).unwrap(), "read after its death");
    }

    #[tokio::test(start_paused = true)]
    async fn secrets_are_masked() {
        let given = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let last = LastLine::new(&[given("TOKEN", "s3cret"), given("LEVEL", "1")]);
        last.said("401 for s3cret: Authorization: Bearer abcdef is 1 day old");
        let line = last.about(Instant::now()).unwrap();
        assert_eq!(line, "401 for ***: Authorization: Bearer *** is 1 day old");
    }

    #[tokio::test(start_paused = true)]
    async fn secrets_within_and_across_each_other_are_masked_whole() {
        let given = |value: &str| ("NAME".to_owned(), value.to_owned());
        for secrets in [
            ["secret", "secret-and-more", "and-more-yet"],
            ["and-more-yet", "secret-and-more", "secret"],
        ] {
            let last = LastLine::new(&secrets.map(given));
            last.said("got secret, secret-and-more-yet, secretand-more-yet.");
            assert_eq!(last.about(Instant::now()).unwrap(), "got ***, ***, ******.");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_bearer_token_is_masked_however_it_is_set_off() {
        let last = LastLine::new(&[]);
        last.said("Authorization: Bearer  one\tbearer\ttwo Bearer");
        assert_eq!(
            last.about(Instant::now()).unwrap(),
            "Authorization: Bearer  *** bearer *** Bearer"
        );
    }

    async fn told(text: &str) -> String {
        let last = LastLine::new(&[]);
        text.lines().for_each(|line| last.said(line));
        last.about(Instant::now()).unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn of_many_lines_the_one_that_says_why_is_told() {
        let npm = "npm error code E404\n\
            npm error 404 Not Found - GET https://registry.npmjs.org/@scope%2fname\n\
            npm error 404\n\
            npm error 404  The requested resource '@scope/name@*' could not be found or you do not have permission to access it.\n\
            npm error 404\n\
            npm error 404 Note that you can also install from a\n\
            npm error 404 tarball, folder, http url, or git url.\n\
            npm error A complete log of this run can be found in: /home/me/.npm/_logs/debug-0.log";
        assert!(told(npm).await.contains("could not be found"));
        let node = "node:internal/modules/cjs/loader:1210\n  throw err;\n  ^\n\n\
            Error: Cannot find module '/srv/index.js'\n\
            \x20   at Module._resolveFilename (node:internal/modules/cjs/loader:1207:15)\n\
            \x20   at node:internal/main/run_main_module:28:49 {\n\
            \x20 code: 'MODULE_NOT_FOUND',\n  requireStack: []\n}\n\nNode.js v20.20.2";
        assert_eq!(
            told(node).await,
            "Error: Cannot find module '/srv/index.js'"
        );
        let python = "Traceback (most recent call last):\n  File \"s.py\", line 1, in <module>\n\
            KeyError: 'DATABASE'";
        assert_eq!(told(python).await, "KeyError: 'DATABASE'");
        assert_eq!(told("starting\nno database").await, "no database");
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_said_earlier_is_no_reason() {
        let last = LastLine::new(&[]);
        last.said("the cache could not be read");
        tokio::time::advance(AT_ONCE).await;
        last.said("listening");
        assert_eq!(last.about(Instant::now()).unwrap(), "listening");
        for _ in 0..LINES {
            last.said("x");
        }
        assert_eq!(last.lines.lock().len(), LINES);
    }

    #[tokio::test(start_paused = true)]
    async fn a_long_line_is_cut_between_characters() {
        let last = LastLine::new(&[]);
        last.said(&"ü".repeat(1000));
        let line = last.about(Instant::now()).unwrap();
        assert_eq!(line, format!("{}…", "ü".repeat(said::MOST / 2)));
    }
}
