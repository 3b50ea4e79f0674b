//! What a stream has brought already.
//!
//! The key of an event is the id that stands in its own block together with its payload, each as a
//! digest of 64 bits. Never the persisted id: it would make every event without an id a duplicate.
//!
//! The digests are fast rather than cryptographic: every byte of a stream goes through them. Their
//! key is drawn for each stream, so nobody can prepare payloads that collide; a server that learns
//! to make some all the same must also repeat the id, and loses nothing but its own event. Between
//! events with different ids both digests would have to agree, 128 bits. The window bounds what
//! ids that fall into one place of the table can cost.
//!
//! Streams of one session share their key: what one of them brought, another can recognise
//! ([`SessionWindow`](super::SessionWindow)).

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet, VecDeque};
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::Arc;

use rapidhash::v3::{RapidSecrets, rapidhash_v3_seeded};

/// What the window says of an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Seen {
    /// The same id with the same payload was here.
    Duplicate,
    /// The same id with another payload was here: the server reuses ids.
    Reused,
    /// The id is new.
    New,
}

/// What an event is recognised by: digests of its id and its payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct EventKey {
    pub(crate) id: u64,
    pub(crate) payload: u64,
}

/// Makes keys. Keys of different makers are not comparable; a clone is the same maker.
#[derive(Debug, Clone)]
pub struct Digests(Arc<RapidSecrets>);

impl Digests {
    /// `key`: what the digests depend on, hard to guess.
    #[must_use]
    pub fn new(key: u64) -> Self {
        Self(Arc::new(RapidSecrets::seed(key)))
    }

    pub(crate) fn of(&self, id: &[u8], payload: &[u8]) -> EventKey {
        EventKey {
            id: rapidhash_v3_seeded(id, &self.0),
            payload: rapidhash_v3_seeded(payload, &self.0),
        }
    }
}

/// The last N events that had an id. It grows with what it holds, which is nothing for most answers;
/// each look-up is O(1).
#[derive(Debug)]
pub(crate) struct Window {
    limit: usize,
    held: Option<Box<Held>>,
}

#[derive(Debug, Default)]
struct Held {
    order: VecDeque<EventKey>,
    events: HashSet<EventKey, BuildHasherDefault<Digested>>,
    /// How many remembered events have this id.
    ids: HashMap<u64, u32, BuildHasherDefault<Digested>>,
    /// What the newest event drove out.
    driven_out: Option<EventKey>,
    overflowed: u64,
}

impl Window {
    pub(crate) fn new(limit: usize) -> Self {
        Self { limit, held: None }
    }

    /// Whether it remembers anything at all.
    pub(crate) fn is_on(&self) -> bool {
        self.limit > 0
    }

    /// Looks an event up and remembers it.
    pub(crate) fn see(&mut self, key: EventKey) -> Seen {
        if self.limit == 0 {
            return Seen::New;
        }
        self.held.get_or_insert_default().see(key, self.limit)
    }

    /// The event that was seen last, which was no duplicate, is as if it had not come.
    pub(crate) fn unsee(&mut self) {
        if let Some(held) = &mut self.held {
            held.unsee();
        }
    }

    /// Events that fell out of the window.
    pub(crate) fn overflowed(&self) -> u64 {
        self.held.as_ref().map_or(0, |held| held.overflowed)
    }

    /// Events remembered.
    pub(crate) fn len(&self) -> usize {
        self.held.as_ref().map_or(0, |held| held.order.len())
    }

    /// Forgets all of them.
    pub(crate) fn clear(&mut self) {
        if let Some(held) = &mut self.held {
            **held = Held {
                overflowed: held.overflowed,
                ..Held::default()
            };
        }
    }
}

impl Held {
    fn see(&mut self, key: EventKey, limit: usize) -> Seen {
        if !self.events.insert(key) {
            return Seen::Duplicate;
        }
        let count = self.ids.entry(key.id).or_default();
        *count += 1;
        let seen = if *count > 1 { Seen::Reused } else { Seen::New };
        self.driven_out = None;
        if self.order.len() == limit
            && let Some(oldest) = self.order.pop_front()
        {
            self.forget(oldest);
            self.driven_out = Some(oldest);
            self.overflowed += 1;
        }
        self.order.push_back(key);
        seen
    }

    fn unsee(&mut self) {
        if let Some(newest) = self.order.pop_back() {
            self.forget(newest);
        }
        if let Some(oldest) = self.driven_out.take() {
            self.overflowed -= 1;
            self.order.push_front(oldest);
            self.events.insert(oldest);
            *self.ids.entry(oldest.id).or_default() += 1;
        }
    }

    fn forget(&mut self, key: EventKey) {
        self.events.remove(&key);
        if let Entry::Occupied(mut count) = self.ids.entry(key.id) {
            *count.get_mut() -= 1;
            if *count.get() == 0 {
                count.remove();
            }
        }
    }
}

/// The keys are digests already.
#[derive(Default)]
pub(crate) struct Digested(u64);

impl Hasher for Digested {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(*byte);
        }
    }

    fn write_u64(&mut self, digest: u64) {
        self.0 = self.0.rotate_left(8).wrapping_add(digest);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A window and what makes its keys.
    struct Pair(Window, Digests);

    impl Pair {
        fn see(&mut self, id: &[u8], payload: &[u8]) -> Seen {
            self.0.see(self.1.of(id, payload))
        }
    }

    impl std::ops::Deref for Pair {
        type Target = Window;

        fn deref(&self) -> &Window {
            &self.0
        }
    }

    fn window(limit: usize) -> Pair {
        Pair(Window::new(limit), Digests::new(1))
    }

    #[test]
    fn the_same_id_and_payload_is_a_duplicate() {
        let mut window = window(10);
        assert_eq!(window.see(b"1", b"a"), Seen::New);
        assert_eq!(window.see(b"1", b"a"), Seen::Duplicate);
        assert_eq!(window.see(b"2", b"a"), Seen::New);
    }

    #[test]
    fn the_same_id_with_another_payload_is_a_reuse() {
        let mut window = window(10);
        window.see(b"1", b"a");
        assert_eq!(window.see(b"1", b"b"), Seen::Reused);
        assert_eq!(window.see(b"1", b"a"), Seen::Duplicate);
        assert_eq!(window.see(b"1", b"b"), Seen::Duplicate);
    }

    #[test]
    fn the_oldest_is_forgotten_and_counted() {
        let mut window = window(2);
        window.see(b"1", b"a");
        window.see(b"2", b"a");
        assert_eq!(window.overflowed(), 0);
        window.see(b"3", b"a");
        assert_eq!(window.overflowed(), 1);
        assert_eq!(window.see(b"2", b"a"), Seen::Duplicate);
        assert_eq!(window.see(b"1", b"a"), Seen::New);
    }

    #[test]
    fn a_forgotten_id_is_no_reuse() {
        let mut window = window(1);
        window.see(b"1", b"a");
        window.see(b"2", b"a");
        assert_eq!(window.see(b"1", b"b"), Seen::New);
    }

    #[test]
    fn what_is_taken_back_was_never_here() {
        let mut window = window(2);
        window.see(b"1", b"a");
        window.see(b"2", b"a");
        for _ in 0..3 {
            assert_eq!(window.see(b"3", b"a"), Seen::New);
            window.0.unsee();
        }
        assert_eq!((window.len(), window.overflowed()), (2, 0));
        assert_eq!(window.see(b"1", b"a"), Seen::Duplicate);
        assert_eq!(window.see(b"2", b"b"), Seen::Reused);
        window.0.unsee();
        assert_eq!(window.see(b"2", b"a"), Seen::Duplicate);
    }

    #[test]
    fn a_window_of_nothing_sees_nothing() {
        let mut window = window(0);
        assert_eq!(window.see(b"1", b"a"), Seen::New);
        assert_eq!(window.see(b"1", b"a"), Seen::New);
        assert_eq!(window.len(), 0);
    }

    #[test]
    fn nothing_is_held_before_the_first_event() {
        let window = window(1000);
        assert!(window.held.is_none());
    }

    #[test]
    fn an_id_and_a_payload_do_not_run_into_each_other() {
        let mut window = window(10);
        window.see(b"1", b"2a");
        assert_eq!(window.see(b"12", b"a"), Seen::New);
    }

    #[test]
    fn digests_depend_on_the_key() {
        let digest = |key| Digests::new(key).of(b"1", b"a");
        assert_eq!(digest(1), digest(1));
        assert_ne!(digest(1).id, digest(2).id);
        assert_ne!(digest(1).payload, digest(2).payload);
    }

    #[test]
    fn equal_payloads_under_different_ids_are_told_apart() {
        let mut window = window(10);
        window.see(b"1", b"1");
        for id in [b"2", b"3"] {
            assert_eq!(window.see(id, b"1"), Seen::New);
            assert_eq!(window.see(id, b"1"), Seen::Duplicate);
        }
    }

    #[test]
    fn one_byte_of_a_long_payload_makes_another() {
        let mut window = window(1000);
        let mut payload = vec![b'x'; 70_000];
        assert_eq!(window.see(b"1", &payload), Seen::New);
        for at in (0..payload.len()).step_by(997) {
            payload[at] = b'y';
            assert_eq!(window.see(b"1", &payload), Seen::Reused);
            payload[at] = b'x';
            assert_eq!(window.see(b"1", &payload), Seen::Duplicate);
        }
    }

    proptest! {
        /// Against the plain list that the window stands for.
        #[test]
        fn it_is_a_list_of_the_last_n(
            limit in 1_usize..8,
            events in proptest::collection::vec((0_u8..6, 0_u8..3, proptest::bool::weighted(0.3)), 0..60),
        ) {
            let mut window = window(limit);
            let mut list: VecDeque<(u8, u8)> = VecDeque::new();
            for (id, payload, taken_back) in events {
                let expected = if list.contains(&(id, payload)) {
                    Seen::Duplicate
                } else if list.iter().any(|(known, _)| *known == id) {
                    Seen::Reused
                } else {
                    Seen::New
                };
                let overflowed = window.overflowed();
                prop_assert_eq!(window.see(&[id], &[payload]), expected);
                if taken_back && expected != Seen::Duplicate {
                    window.0.unsee();
                    prop_assert_eq!(window.overflowed(), overflowed);
                } else if expected != Seen::Duplicate {
                    if list.len() == limit {
                        list.pop_front();
                    }
                    list.push_back((id, payload));
                }
                prop_assert_eq!(window.len(), list.len());
                let held = window.held.as_ref();
                prop_assert!(held.is_none_or(|held| held.ids.len() <= limit));
                prop_assert_eq!(held.map_or(0, |held| held.events.len()), list.len());
            }
        }
    }
}
