//! The server's open requests toward the client.
//!
//! A request is shown to the client once, its answer goes to the server session that asked and to
//! no other. A server that was restarted counts its ids from the start again: an id that may still
//! be answered on behalf of the old session is replaced before the client sees it.
//!
//! The event log keeps a request while it is open; where it stands there is noted here, so that it
//! need not be kept for longer.

use std::collections::{HashMap, VecDeque};

use parking_lot::Mutex;
use shadowcat_mcp::inspect;
use shadowcat_mcp::message::{Kind, Message, RequestId};
use shadowcat_store::EventId;

/// How many settled requests are remembered, so that a replay does not ask twice.
const SETTLED: usize = 256;
/// How many may be open: beyond it the oldest is given up, as the least likely to be answered.
const MAX_OPEN: usize = 1024;

#[derive(Default)]
pub(crate) struct Asks(Mutex<Table>);

#[derive(Default)]
struct Table {
    /// The upstream session that the rest is about.
    generation: u64,
    /// By the id that the client sees.
    open: HashMap<RequestId, Open>,
    /// Ids of this session that were answered or taken back.
    settled: VecDeque<RequestId>,
    /// Ids that the client may still answer on behalf of a lost session.
    stale: VecDeque<RequestId>,
    /// Where requests stand in the event log that are not open any more.
    settled_places: Vec<EventId>,
    count: u64,
}

struct Open {
    /// The server's id.
    server: RequestId,
    /// Its place in their order.
    number: u64,
    /// Where it stands in the event log.
    place: Option<EventId>,
}

/// What becomes of a request of the server.
pub(crate) enum Begun {
    /// It goes to the client, as it is here.
    Ask {
        message: Message,
        /// The server's id of a request that is given up for this one.
        given_up: Option<RequestId>,
    },
    /// The client has it already, or its session is gone.
    Repeated,
}

/// An answer of the client on its way.
pub(crate) struct Answer {
    pub(crate) message: Message,
    /// The upstream session that asked.
    pub(crate) generation: u64,
}

impl Asks {
    /// Registers a request of the upstream session of this generation.
    pub(crate) fn begin(&self, message: &Message, generation: u64) -> Begun {
        let mut table = self.0.lock();
        let Some(id) = message.id() else {
            return Begun::Repeated;
        };
        let known =
            table.settled.contains(id) || table.open.values().any(|open| open.server == *id);
        if generation != table.generation || known {
            return Begun::Repeated;
        }
        table.count += 1;
        let number = table.count;
        let taken = table.stale.contains(id) || table.open.contains_key(id);
        let shown = if taken {
            RequestId::String(format!("{generation}.{number}").into())
        } else {
            id.clone()
        };
        let given_up = table.make_room();
        let server = id.clone();
        let message = if shown == *id {
            message.clone()
        } else {
            message.with_id(&shown)
        };
        let place = None;
        let open = Open {
            server,
            number,
            place,
        };
        table.open.insert(shown, open);
        Begun::Ask { message, given_up }
    }

    /// The client answered; `None` if nobody is waiting for it any more.
    pub(crate) fn answer(&self, message: Message) -> Option<Answer> {
        let mut table = self.0.lock();
        let open = table.open.remove(message.id()?)?;
        let message = if message.id() == Some(&open.server) {
            message
        } else {
            message.with_id(&open.server)
        };
        table.settle(&open);
        Some(Answer {
            message,
            generation: table.generation,
        })
    }

    /// The client will not answer; the server's id.
    pub(crate) fn give_up(&self, shown: &RequestId) -> Option<RequestId> {
        let mut table = self.0.lock();
        let open = table.open.remove(shown)?;
        table.settle(&open);
        Some(open.server)
    }

    /// A request stands in the event log.
    pub(crate) fn note_place(&self, shown: &RequestId, place: EventId) {
        let mut table = self.0.lock();
        match table.open.get_mut(shown) {
            Some(open) => open.place = Some(place),
            None => table.settled_places.push(place),
        }
    }

    /// Where the open requests stand in the event log, each stream's oldest first.
    pub(crate) fn places(&self) -> Vec<(RequestId, EventId)> {
        let table = self.0.lock();
        let placed = |(shown, open): (&RequestId, &Open)| Some((shown.clone(), open.place?));
        let mut places: Vec<_> = table.open.iter().filter_map(placed).collect();
        drop(table);
        places.sort_by_key(|(_, place)| *place);
        places
    }

    /// Where requests stand in the event log that were open when this was last asked.
    pub(crate) fn take_settled_places(&self) -> Vec<EventId> {
        std::mem::take(&mut self.0.lock().settled_places)
    }

    /// The server took a request back, or tells something else: what the client is to be told.
    pub(crate) fn observe(&self, notification: Message) -> Message {
        let Some(id) = inspect::cancelled_id(&notification) else {
            return notification;
        };
        let mut table = self.0.lock();
        let shown = table
            .open
            .iter()
            .find(|(_, open)| open.server == id)
            .map(|(shown, _)| shown.clone());
        let Some((shown, open)) = shown.and_then(|shown| table.open.remove_entry(&shown)) else {
            return notification;
        };
        table.settle(&open);
        if shown == id {
            notification
        } else {
            inspect::with_cancelled_id(&notification, &shown)
        }
    }

    /// The upstream session is gone, and its open requests with it: their ids as the client knows
    /// them. What comes next is of the session `generation`.
    pub(crate) fn reset(&self, generation: u64) -> Vec<RequestId> {
        let mut table = self.0.lock();
        table.generation = generation;
        table.settled.clear();
        let mut open: Vec<_> = table.open.drain().collect();
        open.sort_by_key(|(_, open)| open.number);
        let places = open.iter().filter_map(|(_, open)| open.place);
        table.settled_places.extend(places);
        let ids: Vec<_> = open.into_iter().map(|(shown, _)| shown).collect();
        for id in &ids {
            remember(&mut table.stale, id.clone());
        }
        ids
    }
}

impl Table {
    fn settle(&mut self, open: &Open) {
        remember(&mut self.settled, open.server.clone());
        self.settled_places.extend(open.place);
    }

    fn make_room(&mut self) -> Option<RequestId> {
        if self.open.len() < MAX_OPEN {
            return None;
        }
        let oldest = self.open.iter().min_by_key(|(_, open)| open.number);
        let shown = oldest.map(|(shown, _)| shown.clone())?;
        let open = self.open.remove(&shown)?;
        self.settle(&open);
        Some(open.server)
    }
}

fn remember(ids: &mut VecDeque<RequestId>, id: RequestId) {
    if ids.len() == SETTLED {
        ids.pop_front();
    }
    ids.push_back(id);
}

/// Whether a message answers a request, and which.
pub(super) fn answered(message: &Message) -> Option<&RequestId> {
    match message.kind() {
        Kind::Response { id } | Kind::Error { id: Some(id) } => Some(id),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use shadowcat_mcp::build;
    use shadowcat_store::StreamNumber;

    fn ask(id: &str) -> Message {
        let text = format!(r#"{{"jsonrpc":"2.0","id":{id},"method":"roots/list"}}"#);
        Message::parse(Bytes::from(text)).unwrap()
    }

    fn shown(asks: &Asks, id: &str, generation: u64) -> Option<RequestId> {
        match asks.begin(&ask(id), generation) {
            Begun::Ask { message, .. } => message.id().cloned(),
            Begun::Repeated => None,
        }
    }

    fn answer(id: &RequestId) -> Message {
        build::result(id, "{}")
    }

    #[test]
    fn a_request_is_shown_and_answered_once() {
        let asks = Asks::default();
        let one = RequestId::Integer(1);
        assert_eq!(shown(&asks, "1", 0), Some(one.clone()));
        assert_eq!(shown(&asks, "1", 0), None, "in flight");
        assert!(asks.answer(answer(&one)).is_some());
        assert!(asks.answer(answer(&one)).is_none());
        assert_eq!(shown(&asks, "1", 0), None, "answered");
    }

    #[test]
    fn what_the_server_took_back_is_not_shown_again() {
        let asks = Asks::default();
        let one = RequestId::Integer(1);
        assert!(shown(&asks, "1", 0).is_some());
        asks.observe(build::cancelled(&one, "no longer"));
        assert!(asks.answer(answer(&one)).is_none());
        assert_eq!(shown(&asks, "1", 0), None);
    }

    #[test]
    fn a_restarted_server_s_ids_are_told_from_the_lost_ones() {
        let asks = Asks::default();
        let one = RequestId::Integer(1);
        assert!(shown(&asks, "1", 0).is_some());
        assert_eq!(asks.reset(1), std::slice::from_ref(&one));
        assert_eq!(shown(&asks, "5", 0), None, "of the lost session");
        let renamed = shown(&asks, "1", 1).unwrap();
        assert_ne!(renamed, one);
        assert!(asks.answer(answer(&one)).is_none(), "a late answer");
        let taken = asks.answer(answer(&renamed)).unwrap();
        assert_eq!((taken.message.id(), taken.generation), (Some(&one), 1));
        assert_eq!(shown(&asks, "2", 1), Some(RequestId::Integer(2)));
    }

    #[test]
    fn a_renamed_request_is_taken_back_under_its_new_name() {
        let asks = Asks::default();
        let one = RequestId::Integer(1);
        assert!(shown(&asks, "1", 0).is_some());
        asks.reset(1);
        let renamed = shown(&asks, "1", 1).unwrap();
        let told = asks.observe(build::cancelled(&one, "no longer"));
        assert_eq!(inspect::cancelled_id(&told), Some(renamed));
    }

    #[test]
    fn the_oldest_gives_way() {
        let asks = Asks::default();
        for id in 0..MAX_OPEN {
            assert!(shown(&asks, &id.to_string(), 0).is_some());
        }
        let Begun::Ask { given_up, .. } = asks.begin(&ask("\"next\""), 0) else {
            panic!("refused")
        };
        assert_eq!(given_up, Some(RequestId::Integer(0)));
    }

    #[test]
    fn what_is_not_open_any_more_is_named_once_for_the_log() {
        let asks = Asks::default();
        let place = |sequence| EventId {
            stream: StreamNumber::STANDALONE,
            sequence,
        };
        for number in 1..=6 {
            let id = shown(&asks, &number.to_string(), 0).unwrap();
            if number < 6 {
                asks.note_place(&id, place(number));
            }
        }
        assert!(asks.take_settled_places().is_empty());
        let id = RequestId::Integer;
        asks.answer(answer(&id(1)));
        asks.observe(build::cancelled(&id(2), "no longer"));
        asks.give_up(&id(3));
        asks.give_up(&id(6));
        asks.note_place(&id(6), place(6));
        let settled = asks.take_settled_places();
        assert_eq!(settled, [1, 2, 3, 6].map(place));
        assert_eq!(asks.places().len(), 2);
        asks.reset(1);
        assert_eq!(asks.take_settled_places(), [4, 5].map(place));
        assert!(asks.places().is_empty() && asks.take_settled_places().is_empty());
    }
}
