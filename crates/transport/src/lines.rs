//! Bounded lines of a pipe: what both stdio edges read, and what they write.

mod writer;

use std::io;

use bytes::{Buf, Bytes, BytesMut};
use memchr::memchr;
use tokio::io::{AsyncRead, AsyncReadExt};

pub(crate) use writer::{LineSender, LineWriter, Mark, writer};

/// Bytes of a bad line that a warning quotes.
const EXCERPT: usize = 80;
/// Bytes that one read asks for.
const READ: usize = 16 * 1024;

/// Splits a pipe into lines of at most `limit` bytes. A CR before the LF goes with it; blank lines
/// are skipped; the last line needs no LF.
pub(crate) struct Lines<R> {
    input: R,
    buffer: BytesMut,
    /// How much of the buffer is known to hold no LF.
    scanned: usize,
    limit: usize,
    /// Reading on to the end of a line that is too long; its last bytes so far.
    skipping: Option<BytesMut>,
    /// The end of a line that is too long, once it was told.
    skipped: Option<Bytes>,
    ended: bool,
}

/// One line.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Line {
    /// Without its end.
    Whole(Bytes),
    /// Over the limit; its first bytes. Told as soon as it is known.
    TooLong(Bytes),
    /// The end of the line that was too long has come; its last bytes.
    Skipped(Bytes),
}

impl<R: AsyncRead + Unpin> Lines<R> {
    pub(crate) fn new(input: R, limit: usize) -> Self {
        let buffer = BytesMut::new();
        Self {
            input,
            buffer,
            scanned: 0,
            limit,
            skipping: None,
            skipped: None,
            ended: false,
        }
    }

    /// The next line; `None` at the end.
    ///
    /// # Errors
    /// The pipe's.
    pub(crate) async fn next(&mut self) -> io::Result<Option<Line>> {
        loop {
            if let Some(line) = self.take_line() {
                return Ok(Some(line));
            }
            if self.ended {
                return Ok(None);
            }
            self.buffer.reserve(READ);
            if self.input.read_buf(&mut self.buffer).await? == 0 {
                self.ended = true;
            }
        }
    }

    fn take_line(&mut self) -> Option<Line> {
        if let Some(end) = self.skipped.take() {
            return Some(Line::Skipped(end));
        }
        loop {
            let found = memchr(b'\n', &self.buffer[self.scanned..]).map(|at| self.scanned + at);
            let Some(end) = found.or_else(|| self.last_line()) else {
                self.scanned = self.buffer.len();
                return self.too_long_already();
            };
            let mut line = self.split((end + 1).min(self.buffer.len()));
            self.scanned = 0;
            line.truncate(end);
            if line.last() == Some(&b'\r') {
                line.truncate(end - 1);
            }
            if let Some(mut end) = self.skipping.take() {
                end.extend_from_slice(last(&line));
                return Some(Line::Skipped(Bytes::copy_from_slice(last(&end))));
            }
            if line.iter().all(u8::is_ascii_whitespace) {
                continue;
            }
            if line.len() <= self.limit {
                return Some(Line::Whole(line));
            }
            self.skipped = Some(Bytes::copy_from_slice(last(&line)));
            return Some(Line::TooLong(line.slice(..EXCERPT.min(line.len()))));
        }
    }

    /// A short line gets its own memory: whoever keeps it must not keep its neighbours' too.
    fn split(&mut self, length: usize) -> Bytes {
        if length >= READ {
            return self.buffer.split_to(length).freeze();
        }
        let line = Bytes::copy_from_slice(&self.buffer[..length]);
        self.buffer.advance(length);
        line
    }

    /// At the end of the input, what is left is a line.
    fn last_line(&self) -> Option<usize> {
        (self.ended && !self.buffer.is_empty()).then_some(self.buffer.len())
    }

    fn too_long_already(&mut self) -> Option<Line> {
        if let Some(end) = &mut self.skipping {
            end.extend_from_slice(last(&self.buffer));
            end.advance(end.len().saturating_sub(EXCERPT));
            self.buffer.clear();
            self.scanned = 0;
            return None;
        }
        if self.buffer.len() <= self.limit {
            return None;
        }
        let start = Bytes::copy_from_slice(&self.buffer[..EXCERPT.min(self.buffer.len())]);
        self.skipping = Some(BytesMut::from(last(&self.buffer)));
        self.buffer = BytesMut::new();
        self.scanned = 0;
        Some(Line::TooLong(start))
    }
}

/// The last bytes of a line that is too long, as many as are kept of its first.
fn last(line: &[u8]) -> &[u8] {
    &line[line.len().saturating_sub(EXCERPT)..]
}

/// The first bytes of a bad line, for a field of a log line, which escapes it.
pub(crate) fn excerpt(line: &[u8]) -> String {
    let shown = String::from_utf8_lossy(&line[..EXCERPT.min(line.len())]);
    let dots = if line.len() > EXCERPT { "…" } else { "" };
    format!("{shown}{dots}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    async fn lines(input: &[u8], limit: usize) -> Vec<Line> {
        let mut lines = Lines::new(input, limit);
        let mut all = Vec::new();
        while let Some(line) = lines.next().await.unwrap() {
            all.push(line);
        }
        all
    }

    /// The log's own quotes are the only ones.
    #[test]
    fn an_excerpt_is_escaped_by_nobody_but_the_log() {
        assert_eq!(excerpt(br#"{"id":3}"#), r#"{"id":3}"#);
        assert_eq!(excerpt(&[b'x'; EXCERPT + 1]).chars().last(), Some('…'));
    }

    #[tokio::test]
    async fn ends_of_lines() {
        let whole = |text: &'static str| Line::Whole(Bytes::from_static(text.as_bytes()));
        assert_eq!(
            lines(b"a\r\nb\n\n \r\nc", 10).await,
            [whole("a"), whole("b"), whole("c")]
        );
        assert_eq!(lines(b"", 10).await, []);
    }

    #[tokio::test]
    async fn a_line_over_the_limit_is_told_once_and_dropped() {
        let bytes = |text: &str| Bytes::copy_from_slice(text.as_bytes());
        for length in [200, READ * 3, READ * 3 + 40] {
            let long = format!("{}{}end", "start".repeat(16), "x".repeat(length));
            let input = format!("{long}\r\n\nok\n");
            let expected = [
                Line::TooLong(bytes(&long[..EXCERPT])),
                Line::Skipped(bytes(&long[long.len() - EXCERPT..])),
                Line::Whole(bytes("ok")),
            ];
            let found = lines(input.as_bytes(), 100).await;
            let last = |line: &Line| matches!(line, Line::Skipped(end) if end.trim_ascii_end().ends_with(b"end"));
            assert_eq!(found.len(), 3);
            assert_eq!((&found[0], &found[2]), (&expected[0], &expected[2]));
            assert!(last(&found[1]), "{found:?}");
        }
        let short = [
            Line::TooLong(bytes("abcdef")),
            Line::Skipped(bytes("abcdef")),
        ];
        assert_eq!(lines(b"abcdef\n", 5).await, short);
    }

    proptest! {
        #[test]
        fn lines_are_what_split_finds(parts in proptest::collection::vec("[a-z]{0,9}", 0..20)) {
            let input = parts.join("\n");
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            let found = runtime.block_on(lines(input.as_bytes(), 9));
            let expected: Vec<_> = parts.iter().filter(|part| !part.is_empty()).collect();
            prop_assert_eq!(found.len(), expected.len());
            for (line, part) in found.iter().zip(expected) {
                prop_assert_eq!(line, &Line::Whole(Bytes::copy_from_slice(part.as_bytes())));
            }
        }
    }
}
