//! What the streams of one session have delivered, to recognise it on another of them.
//!
//! A server keeps the events of a session's streams in a store, and some replay all that came after
//! the cursor, whichever stream it was, into the stream that comes back, under the ids that the
//! events had. Ids are unique: "The event IDs MUST be globally unique across all streams within
//! that session" (MCP specification, "Transports, Resumability and Redelivery", 2025-03-26 to
//! 2025-11-25). So an event is told once in a session, by the stream that comes first with it.
//!
//! **What is recorded.** What was delivered, and nothing else. What a stream leaves to another one,
//! or what nobody wants, is not: it would be lost when its own stream brings it.
//!
//! **Who is believed.** There are servers that break the rule: each of their streams counts from 1,
//! and two of them may well say the same. Therefore
//!
//! - only an event on a *resumed* connection can be a replay. What a first connection brings is new,
//!   unless a resumed one was ahead of it with the very event;
//! - an id that two first connections bring, or one that comes with two payloads, shows that ids are
//!   not unique here. From then on nothing is recognised in this session.
//!
//! Streams that count for themselves nearly always begin alike: the first id of the session is kept
//! for good, and the second stream to begin with it gives the server away.
//!
//! **What it costs.** As long as nothing is resumed, an event is a key at the end of a list. The
//! list becomes a table with the first event on a resumed connection. Both hold the last N events
//! of the session, and grow with what they hold. One lives as long as the session with the server:
//! a new session is a new window.
//!
//! Not for events without an id, which are never repeated.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, VecDeque};
use std::hash::BuildHasherDefault;

use super::dedup::{Digested, Digests, EventKey};

/// See the [module](self). Streams that share it make their keys with
/// [`Engine::digest_with`](super::Engine::digest_with).
#[derive(Debug)]
pub struct SessionWindow {
    limit: usize,
    digests: u64,
    /// The id of the session's first event.
    first: Option<u64>,
    state: State,
    overflowed: u64,
}

#[derive(Debug)]
enum State {
    /// Nothing was resumed yet: what first connections brought.
    Listed(VecDeque<EventKey>),
    Indexed(Index),
    /// Nothing is recognised: ids are not unique here, or nothing is to be remembered.
    Off,
}

#[derive(Debug, Default)]
struct Index {
    order: VecDeque<u64>,
    events: HashMap<u64, Told, BuildHasherDefault<Digested>>,
}

#[derive(Debug, Clone, Copy)]
struct Told {
    payload: u64,
    /// A resumed connection brought it.
    resumed: bool,
}

/// What an index says of an event.
enum Found {
    New,
    Repeated,
    /// The id belongs to another event.
    Reused,
}

impl SessionWindow {
    /// The window of a new session: the last `limit` events, none with 0. `key`: what the digests
    /// depend on, hard to guess.
    #[must_use]
    pub fn new(limit: usize, key: u64) -> Self {
        Self {
            limit,
            digests: key,
            first: None,
            state: match limit {
                0 => State::Off,
                _ => State::Listed(VecDeque::new()),
            },
            overflowed: 0,
        }
    }

    /// What makes the keys of the session's events.
    #[must_use]
    pub fn digests(&self) -> Digests {
        Digests::new(self.digests)
    }

    /// A stream is about to deliver an event that is new to it, from a connection that was
    /// [resumed](super::Engine::is_resumed) or not. Whether it may: false if it was delivered.
    #[must_use]
    pub fn claim(&mut self, key: EventKey, resumed: bool) -> bool {
        if resumed {
            self.index();
        }
        let found = match &mut self.state {
            State::Off => return true,
            State::Listed(_) if self.first == Some(key.id) => Found::Reused,
            State::Listed(list) => {
                self.first.get_or_insert(key.id);
                if list.len() == self.limit {
                    list.pop_front();
                }
                list.push_back(key);
                Found::New
            }
            State::Indexed(_) if !resumed && self.first == Some(key.id) => Found::Reused,
            State::Indexed(index) => {
                let found = index.claim(key, resumed);
                if index.order.len() > self.limit {
                    index.forget_oldest();
                    self.overflowed += 1;
                }
                found
            }
        };
        if let Found::Reused = found {
            self.state = State::Off;
        }
        !matches!(found, Found::Repeated)
    }

    /// Whether an event that a resumed connection brings was delivered. It is not claimed.
    #[must_use]
    pub fn knows(&mut self, key: EventKey) -> bool {
        self.index();
        match &self.state {
            State::Indexed(index) => {
                let told = index.events.get(&key.id);
                told.is_some_and(|told| told.payload == key.payload)
            }
            _ => false,
        }
    }

    /// Events that fell out of the window since something was resumed.
    #[must_use]
    pub fn overflowed(&self) -> u64 {
        self.overflowed
    }

    /// Events remembered.
    #[must_use]
    pub fn held(&self) -> usize {
        match &self.state {
            State::Listed(list) => list.len(),
            State::Indexed(index) => index.order.len(),
            State::Off => 0,
        }
    }

    /// Makes the list a table.
    fn index(&mut self) {
        let State::Listed(list) = &self.state else {
            return;
        };
        let mut index = Index::default();
        let unique = list
            .iter()
            .all(|key| matches!(index.claim(*key, false), Found::New));
        self.state = match unique {
            true => State::Indexed(index),
            false => State::Off,
        };
    }
}

impl Index {
    fn claim(&mut self, key: EventKey, resumed: bool) -> Found {
        match self.events.entry(key.id) {
            Entry::Vacant(place) => {
                let payload = key.payload;
                place.insert(Told { payload, resumed });
                self.order.push_back(key.id);
                Found::New
            }
            Entry::Occupied(told) => {
                let told = told.get();
                // Of two first connections neither can be a replay.
                match told.payload == key.payload && (resumed || told.resumed) {
                    true => Found::Repeated,
                    false => Found::Reused,
                }
            }
        }
    }

    fn forget_oldest(&mut self) {
        if let Some(oldest) = self.order.pop_front() {
            self.events.remove(&oldest);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const FIRST: bool = false;
    const RESUMED: bool = true;

    struct Session(SessionWindow);

    impl Session {
        fn new(limit: usize) -> Self {
            Self(SessionWindow::new(limit, 7))
        }

        fn key(&self, id: &str, payload: &str) -> EventKey {
            let digests = self.0.digests();
            digests.of(id.as_bytes(), payload.as_bytes())
        }

        fn claim(&mut self, id: &str, payload: &str, resumed: bool) -> bool {
            let key = self.key(id, payload);
            self.0.claim(key, resumed)
        }

        fn is_off(&self) -> bool {
            matches!(self.0.state, State::Off)
        }
    }

    #[test]
    fn what_one_stream_delivered_another_does_not_deliver_when_it_is_resumed() {
        let mut session = Session::new(10);
        assert!(session.claim("a1", "x", FIRST));
        assert!(session.claim("b1", "x", FIRST));
        assert!(!session.claim("a1", "x", RESUMED));
        assert!(!session.claim("b1", "x", RESUMED));
        assert!(session.claim("a2", "x", RESUMED));
        assert!(!session.claim("a2", "x", RESUMED));
    }

    #[test]
    fn a_first_connection_that_lags_behind_a_replay_does_not_repeat_it() {
        let mut session = Session::new(10);
        assert!(session.claim("a1", "x", FIRST));
        assert!(session.claim("b1", "x", RESUMED), "b's, replayed on a");
        assert!(!session.claim("b1", "x", FIRST));
        assert!(session.claim("b2", "x", FIRST));
        assert!(!session.is_off());
    }

    #[test]
    fn streams_that_count_for_themselves_lose_nothing() {
        let mut session = Session::new(10);
        assert!(session.claim("1", "same", FIRST), "a");
        assert!(session.claim("1", "same", FIRST), "b");
        assert!(session.is_off());
        for id in ["1", "2"] {
            assert!(session.claim(id, "same", RESUMED));
            assert!(session.claim(id, "same", FIRST));
        }
    }

    #[test]
    fn streams_that_count_are_found_out_whenever_the_second_begins() {
        let mut session = Session::new(3);
        for id in ["1", "2", "3", "4", "5", "6"] {
            assert!(session.claim(id, "same", FIRST), "a");
        }
        assert!(session.claim("7", "same", RESUMED), "a");
        for id in ["1", "2", "3", "4", "5", "6", "7"] {
            assert!(session.claim(id, "same", FIRST), "b: {id}");
        }
        assert!(session.is_off());
    }

    #[test]
    fn ids_that_met_before_anything_was_resumed_are_not_believed() {
        let mut session = Session::new(10);
        session.claim("a", "start", FIRST);
        for _ in 0..2 {
            assert!(session.claim("1", "same", FIRST));
        }
        assert!(session.claim("2", "x", RESUMED));
        assert!(session.is_off());
    }

    #[test]
    fn an_id_with_two_payloads_ends_the_trust() {
        for resumed in [FIRST, RESUMED] {
            let mut session = Session::new(10);
            session.claim("1", "a", FIRST);
            session.claim("2", "a", RESUMED);
            assert!(session.claim("2", "b", resumed));
            assert!(session.is_off());
            assert!(session.claim("1", "a", RESUMED));
            assert_eq!(session.0.held(), 0);
        }
    }

    #[test]
    fn what_is_only_looked_up_is_not_recorded() {
        let mut session = Session::new(10);
        session.claim("1", "a", FIRST);
        let (one, two) = (session.key("1", "a"), session.key("2", "a"));
        assert!(session.0.knows(one));
        assert!(!session.0.knows(two));
        assert!(session.claim("2", "a", RESUMED));
    }

    #[test]
    fn the_window_is_bounded_and_grows_with_what_it_holds() {
        for resumed in [FIRST, RESUMED] {
            let mut session = Session::new(100);
            if let State::Listed(list) = &session.0.state {
                assert_eq!(list.capacity(), 0);
            }
            for id in 0..1000 {
                assert!(session.claim(&id.to_string(), "x", resumed));
            }
            assert_eq!(session.0.held(), 100);
            let overflow = if resumed { 900 } else { 0 };
            assert_eq!(session.0.overflowed(), overflow);
            assert!(!session.claim("999", "x", RESUMED));
            assert!(session.claim("5", "x", RESUMED), "forgotten");
        }
    }

    #[test]
    fn a_window_of_nothing_recognises_nothing() {
        let mut session = Session::new(0);
        for _ in 0..2 {
            assert!(session.claim("1", "a", FIRST));
            assert!(session.claim("1", "a", RESUMED));
        }
    }

    proptest! {
        /// Several streams, each with its own ids out of one sequence, are cut at will; whichever
        /// comes back is shown everything after its cursor. Each event is told once.
        #[test]
        fn a_replay_of_the_whole_session_is_told_once(
            steps in proptest::collection::vec((0_usize..4, 0_u8..4), 0..120),
        ) {
            let mut session = Session::new(1000);
            // The events of the session by their stream, and how often each was told.
            let mut events: Vec<(usize, u32)> = Vec::new();
            // Of each stream: whether its connection is resumed, and where it stands; none: cut.
            let mut streams = [Some((FIRST, 0)); 4];
            let mut cursors = [0; 4];
            for (stream, step) in steps {
                match (step, streams[stream]) {
                    (0, Some(_)) => {
                        cursors[stream] = streams[stream].map_or(0, |(_, at)| at);
                        streams[stream] = None;
                    }
                    (0, None) => streams[stream] = Some((RESUMED, cursors[stream])),
                    (1 | 2, _) => events.push((stream, 0)),
                    (_, Some((resumed, from))) => {
                        for (at, (of, told)) in events.iter_mut().enumerate().skip(from) {
                            // A first connection brings its own.
                            if (resumed || *of == stream)
                                && session.claim(&format!("e{at}"), "x", resumed)
                            {
                                *told += 1;
                            }
                        }
                        streams[stream] = Some((resumed, events.len()));
                    }
                    (_, None) => {}
                }
            }
            prop_assert!(!session.is_off());
            for cursor in cursors {
                for (at, (_, told)) in events.iter_mut().enumerate().skip(cursor) {
                    *told += u32::from(session.claim(&format!("e{at}"), "x", RESUMED));
                }
            }
            prop_assert!(events.iter().all(|(_, told)| *told == 1), "{:?}", events);
        }

        /// Streams that count from 1, with payloads that are often the same, and replays of their
        /// own: nothing that is new to its stream is withheld.
        #[test]
        fn ids_per_stream_cost_nothing(
            steps in proptest::collection::vec((0_usize..3, 0_u8..5, 0_u8..2), 0..120),
        ) {
            let mut session = Session::new(1000);
            let mut lengths = [0; 3];
            let mut resumed = [FIRST; 3];
            for (stream, step, payload) in steps {
                // What has no cursor cannot be resumed.
                if step == 0 && lengths[stream] > 0 {
                    resumed[stream] = RESUMED;
                } else {
                    lengths[stream] += 1;
                    let id = lengths[stream].to_string();
                    let told = session.claim(&id, &payload.to_string(), resumed[stream]);
                    prop_assert!(told, "{id} of stream {stream}");
                }
            }
        }
    }
}
