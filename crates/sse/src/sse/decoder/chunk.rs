//! The chunk being read. Lines are found in it by position: only what an item takes along becomes a
//! slice of its own, as each costs two updates of a shared counter.

use std::ops::Range;

use bytes::Bytes;
use memchr::{memchr2, memrchr2};

/// A chunk, and how far it was read.
#[derive(Debug, Default)]
pub(super) struct Chunk {
    bytes: Bytes,
    /// Where the next line begins.
    at: usize,
    /// Behind the last line that is whole.
    whole: usize,
    /// All lines from `at` to `whole` are UTF-8. One look at many lines costs far less than a look
    /// at each; in a chunk that is not, the values are looked at one by one.
    utf8: bool,
}

impl Chunk {
    /// `bytes` from `at` on, where a line begins or ends.
    pub(super) fn new(bytes: Bytes, at: usize) -> Self {
        let lines = memrchr2(b'\n', b'\r', &bytes[at..]).map_or(0, |end| end + 1);
        let whole = at + lines;
        let utf8 = is_utf8(&bytes[at..whole]);
        Self {
            bytes,
            at,
            whole,
            utf8,
        }
    }

    pub(super) fn has_line(&self) -> bool {
        self.at < self.whole
    }

    pub(super) fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Where the next line is, without its end.
    pub(super) fn line(&self) -> Range<usize> {
        let rest = &self.bytes[self.at..self.whole];
        // A blank line is frequent enough for a look of its own.
        let len = match rest.first() {
            Some(b'\n') => 0,
            _ => line_end(rest).unwrap_or(rest.len()),
        };
        self.at..self.at + len
    }

    /// Where the value is, if the next line is one of data.
    #[inline]
    pub(super) fn data_line(&self) -> Option<Range<usize>> {
        let value = self.bytes[self.at..self.whole].strip_prefix(b"data:")?;
        let value = value.strip_prefix(b" ").unwrap_or(value);
        let start = self.whole - value.len();
        Some(start..start + line_end(value)?)
    }

    /// Passes a line of at most `max` bytes of data and a blank one, if these come next and need no
    /// decoding. Says where the data is: it becomes a slice where the event is made.
    #[inline]
    pub(super) fn pass_data(&mut self, max: usize) -> Option<Range<usize>> {
        if !self.utf8 {
            return None;
        }
        let data = self.data_line()?;
        let rest = &self.bytes[data.end..self.whole];
        let blank = if rest.starts_with(b"\n\n") {
            2
        } else if rest.starts_with(b"\r\n\r\n") {
            4
        } else {
            return None;
        };
        if data.len() > max {
            return None;
        }
        self.at = data.end + blank;
        Some(data)
    }

    #[inline]
    pub(super) fn slice(&self, range: Range<usize>) -> Bytes {
        self.bytes.slice(range)
    }

    /// Goes behind the line that ends at `end`.
    pub(super) fn pass(&mut self, end: usize) {
        let rest = &self.bytes[end..self.whole];
        self.at = end + if rest.starts_with(b"\r\n") { 2 } else { 1 };
    }

    /// Goes behind `prefix`, if that comes next.
    pub(super) fn skip(&mut self, prefix: &[u8]) {
        if self.bytes[self.at..].starts_with(prefix) {
            self.at += prefix.len();
        }
    }

    pub(super) fn text(&self, range: Range<usize>) -> Text<'_> {
        Text {
            bytes: &self.bytes[range],
            source: Some(&self.bytes),
            utf8: self.utf8,
        }
    }

    /// What was not passed.
    pub(super) fn rest(&self) -> &[u8] {
        &self.bytes[self.at..]
    }
}

/// A part of a chunk, or of a line that was held.
#[derive(Clone, Copy)]
pub(super) struct Text<'a> {
    bytes: &'a [u8],
    /// What they are a part of, if they can be shared.
    source: Option<&'a Bytes>,
    /// Whether they are known to be UTF-8.
    utf8: bool,
}

impl<'a> Text<'a> {
    /// Bytes that are to be copied.
    pub(super) fn lent(bytes: &'a [u8]) -> Self {
        Self {
            bytes,
            source: None,
            utf8: false,
        }
    }

    /// Bytes of which parts can be kept.
    pub(super) fn shared(bytes: &'a Bytes) -> Self {
        Self {
            source: Some(bytes),
            ..Self::lent(bytes)
        }
    }

    /// The bytes as they came.
    pub(super) fn raw(self) -> &'a [u8] {
        self.bytes
    }

    /// The value, if it is the line of the field `name`.
    pub(super) fn value_of(self, name: &[u8]) -> Option<Self> {
        let bytes = match self.bytes.strip_prefix(name)? {
            [] => &[],
            [b':', b' ', value @ ..] | [b':', value @ ..] => value,
            _ => return None,
        };
        Some(Self { bytes, ..self })
    }

    /// UTF-8 with replacement. Decoding value by value is the same as decoding the stream: CR, LF
    /// and the colon never stand inside a sequence.
    pub(super) fn decode(self) -> Bytes {
        match self.source {
            _ if !self.is_utf8() => String::from_utf8_lossy(self.bytes).into_owned().into(),
            Some(source) => source.slice_ref(self.bytes),
            None => Bytes::copy_from_slice(self.bytes),
        }
    }

    fn is_utf8(self) -> bool {
        self.utf8 || is_utf8(self.bytes)
    }

    pub(super) fn decode_into(self, buffer: &mut Vec<u8>) {
        if self.is_utf8() {
            buffer.extend_from_slice(self.bytes);
        } else {
            buffer.extend_from_slice(String::from_utf8_lossy(self.bytes).as_bytes());
        }
    }
}

/// Where the first line ends.
#[inline]
pub(super) fn line_end(bytes: &[u8]) -> Option<usize> {
    memchr2(b'\n', b'\r', bytes)
}

fn is_utf8(bytes: &[u8]) -> bool {
    simdutf8::basic::from_utf8(bytes).is_ok()
}
