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
    /// Reading on to the end of a line that is too long.
    skipping: bool,
    ended: bool,
}

/// One line.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Line {
    /// Without its end.
    Whole(Bytes),
    /// Over the limit; its first bytes.
    TooLong(Bytes),
}

impl<R: AsyncRead + Unpin> Lines<R> {
    pub(crate) fn new(input: R, limit: usize) -> Self {
        let buffer = BytesMut::new();
        Self {
            input,
            buffer,
            scanned: 0,
            limit,
            skipping: false,
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
            if std::mem::take(&mut self.skipping) || line.iter().all(u8::is_ascii_whitespace) {
                continue;
            }
            return Some(if line.len() > self.limit {
                Line::TooLong(line.slice(..EXCERPT.min(line.len())))
            } else {
                Line::Whole(line)
            });
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
        if self.skipping {
            self.buffer.clear();
            self.scanned = 0;
            return None;
        }
        if self.buffer.len() <= self.limit {
            return None;
        }
        let start = Bytes::copy_from_slice(&self.buffer[..EXCERPT.min(self.buffer.len())]);
        self.buffer = BytesMut::new();
        self.scanned = 0;
        self.skipping = true;
        Some(Line::TooLong(start))
    }
}

/// The first bytes of a bad line, fit for a log.
pub(crate) fn excerpt(line: &[u8]) -> String {
    let shown = String::from_utf8_lossy(&line[..EXCERPT.min(line.len())]);
    let dots = if line.len() > EXCERPT { "…" } else { "" };
    format!("{}{dots}", shown.escape_debug())
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
        let mut input = vec![b'x'; READ * 3];
        input.extend_from_slice(b"\nok\n");
        let found = lines(&input, 100).await;
        assert!(matches!(&found[0], Line::TooLong(start) if start.len() == EXCERPT));
        assert_eq!(found[1..], [Line::Whole(Bytes::from_static(b"ok"))]);
        assert!(matches!(lines(b"abcdef", 5).await[0], Line::TooLong(_)));
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
