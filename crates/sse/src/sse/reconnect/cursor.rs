//! Where a stream stands: the last event id that was delivered, not merely parsed.

use std::fmt;
use std::marker::PhantomData;

use http::HeaderValue;

/// The longest id that becomes a cursor, in bytes. Servers bound the header fields that they
/// accept, commonly at 8 KiB for all of them.
pub const MAX_CURSOR: usize = 4096;

/// A `Last-Event-ID` that may be sent: never empty, and a valid field value (RFC 9110, 5.5).
///
/// `K` says which kind of stream it belongs to: [`Answer`] or [`Standing`]. The cursor of one
/// cannot be used on the other, and the engine takes none from outside except to start from
/// ([`Engine::starting_at`](super::Engine::starting_at)).
pub struct Cursor<K>(HeaderValue, PhantomData<fn() -> K>);

/// Marks the cursor of a POST's answer.
#[derive(Debug)]
pub enum Answer {}

/// Marks the cursor of a stream that stands by itself.
#[derive(Debug)]
pub enum Standing {}

impl<K> Cursor<K> {
    /// Reads a cursor; `None` for an empty id and for one that no header field can carry.
    #[must_use]
    pub fn parse(id: &[u8]) -> Option<Self> {
        if id.is_empty() || id.len() > MAX_CURSOR {
            return None;
        }
        let value = HeaderValue::from_bytes(id).ok()?;
        Some(Self(value, PhantomData))
    }

    /// The value of the `Last-Event-ID` field.
    #[must_use]
    pub fn header_value(&self) -> &HeaderValue {
        &self.0
    }

    /// The id's bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        self.0.as_bytes()
    }
}

impl<K> Clone for Cursor<K> {
    fn clone(&self) -> Self {
        Self(self.0.clone(), PhantomData)
    }
}

impl<K> PartialEq for Cursor<K> {
    fn eq(&self, other: &Self) -> bool {
        self.0 == other.0
    }
}

impl<K> Eq for Cursor<K> {}

impl<K> fmt::Debug for Cursor<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Cursor({:?})", self.0)
    }
}

/// The committed id of a stream, and the one that waits for its event to be accepted.
///
/// Ids are copied into buffers that are used again: a slice would keep its whole chunk alive.
#[derive(Debug, Default)]
pub(crate) struct Position {
    committed: Vec<u8>,
    tentative: Vec<u8>,
    pending: Pending,
    /// Events without an id were told after the committed one.
    is_passed: bool,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Pending {
    /// Nothing was handed over since the last commit.
    #[default]
    Nothing,
    /// Something without an id was.
    Same,
    /// The tentative id, or with an empty one none.
    Id,
}

/// What an event's id means for the position.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Move {
    /// The event has no id: the position stays (WHATWG: the last event ID persists).
    Stay,
    /// It goes there, or with an empty id nowhere.
    There,
    /// An id that cannot be sent. The older position stays: a replay from there loses nothing.
    Unusable,
}

impl Position {
    /// Notes what a handed-over event's id means.
    pub(crate) fn tentative(&mut self, id: Option<&[u8]>) -> Move {
        let moved = match id {
            None => Move::Stay,
            Some(id) if id.is_empty() || Cursor::<Answer>::parse(id).is_some() => Move::There,
            Some(_) => Move::Unusable,
        };
        match (moved, id) {
            (Move::There, Some(id)) => {
                self.tentative.clear();
                self.tentative.extend_from_slice(id);
                self.pending = Pending::Id;
            }
            _ if self.pending == Pending::Nothing => self.pending = Pending::Same,
            _ => {}
        }
        moved
    }

    /// What was handed over was accepted, and was told to somebody or not. Whether there was anything.
    pub(crate) fn commit(&mut self, told: bool) -> bool {
        let pending = std::mem::take(&mut self.pending);
        match pending {
            Pending::Nothing => {}
            Pending::Same => self.is_passed |= told,
            Pending::Id => {
                std::mem::swap(&mut self.committed, &mut self.tentative);
                self.is_passed = false;
            }
        }
        pending != Pending::Nothing
    }

    /// Something was handed over and not accepted yet.
    pub(crate) fn is_pending(&self) -> bool {
        self.pending != Pending::Nothing
    }

    /// The connection is gone: what was not accepted is not part of the position.
    pub(crate) fn discard(&mut self) {
        self.pending = Pending::Nothing;
    }

    /// Forgets everything.
    pub(crate) fn reset(&mut self) {
        self.discard();
        self.committed.clear();
        self.is_passed = false;
    }

    pub(crate) fn start_at<K>(&mut self, cursor: &Cursor<K>) {
        self.reset();
        self.committed.extend_from_slice(cursor.as_bytes());
    }

    /// Whether there is a cursor, and a replay from it repeats nothing that has no id to be
    /// recognised by.
    pub(crate) fn is_exact(&self) -> bool {
        self.has_cursor() && !self.is_passed
    }

    pub(crate) fn has_cursor(&self) -> bool {
        !self.committed.is_empty()
    }

    pub(crate) fn cursor<K>(&self) -> Option<Cursor<K>> {
        Cursor::parse(&self.committed)
    }

    /// Bytes held.
    pub(crate) fn held(&self) -> usize {
        self.committed.capacity() + self.tentative.capacity()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cursor(position: &Position) -> Option<Vec<u8>> {
        position
            .cursor::<Answer>()
            .map(|cursor| cursor.as_bytes().to_vec())
    }

    #[test]
    fn an_id_counts_only_once_committed() {
        let mut position = Position::default();
        assert_eq!(position.tentative(Some(b"1")), Move::There);
        assert_eq!(cursor(&position), None);
        assert!(position.commit(true));
        assert_eq!(cursor(&position).as_deref(), Some(&b"1"[..]));
        position.tentative(Some(b"2"));
        position.discard();
        assert!(!position.commit(true));
        assert_eq!(cursor(&position).as_deref(), Some(&b"1"[..]));
    }

    #[test]
    fn no_id_keeps_and_an_empty_id_resets() {
        let mut position = Position::default();
        position.tentative(Some(b"1"));
        position.commit(true);
        assert_eq!(position.tentative(None), Move::Stay);
        assert!(position.commit(true));
        assert!(position.has_cursor());
        position.tentative(Some(b""));
        assert!(position.has_cursor(), "not before the commit");
        position.commit(true);
        assert!(!position.has_cursor());
    }

    #[test]
    fn an_event_without_id_does_not_undo_a_tentative_one() {
        let mut position = Position::default();
        position.tentative(Some(b"1"));
        position.tentative(None);
        position.commit(true);
        assert_eq!(cursor(&position).as_deref(), Some(&b"1"[..]));
    }

    #[test]
    fn an_id_that_no_header_carries_leaves_the_position() {
        let mut position = Position::default();
        position.tentative(Some(b"1"));
        position.commit(true);
        assert_eq!(position.tentative(Some(b"a\x01b")), Move::Unusable);
        assert_eq!(
            position.tentative(Some(&[b'x'; MAX_CURSOR + 1])),
            Move::Unusable
        );
        position.commit(true);
        assert_eq!(cursor(&position).as_deref(), Some(&b"1"[..]));
        assert_eq!(position.tentative(Some("ß".as_bytes())), Move::There);
    }

    #[test]
    fn no_cursor_is_empty() {
        assert!(Cursor::<Standing>::parse(b"").is_none());
        assert!(Cursor::<Standing>::parse(b"x").is_some());
    }
}
