//! The queue of messages that belong to no request, bounded, never full.
//!
//! A pipe carries everything, so nothing here may stop it. What says the same twice waits once;
//! beyond the bound the oldest log goes, then the oldest progress, then the oldest other
//! notification, then the oldest change notification. A request of the server is never thrown
//! away: one that finds no room is answered with an error.

use std::collections::{HashSet, VecDeque};

use bytes::Bytes;
use shadowcat_mcp::build;
use shadowcat_mcp::message::{Kind, Message};
use shadowcat_mcp::method::Method;

/// Bytes that may wait. One longer message may wait alone.
const MAX_BYTES: usize = 1 << 20;
/// Messages that may wait.
const MAX_MESSAGES: usize = 1024;

/// See the [module](self).
#[derive(Debug, Default)]
pub(super) struct Waiting {
    messages: VecDeque<(Rank, Message)>,
    bytes: usize,
    /// The change notifications that wait, by what they say.
    changes: HashSet<Bytes>,
}

/// What became of a message.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Pushed {
    /// It waits. These were given up to make room.
    Kept(Vec<Rank>),
    /// An equal one waits already.
    Coalesced,
    /// There is no room for this request of the server.
    Refused(Message),
}

/// What is given up first stands first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Rank {
    Log,
    Progress,
    Notification,
    Change,
    Request,
}

impl Rank {
    fn of(message: &Message) -> Self {
        match message.kind() {
            Kind::Notification { method } => match method {
                Method::LogMessage => Self::Log,
                Method::Progress => Self::Progress,
                _ if build::is_coalescible(message) => Self::Change,
                _ => Self::Notification,
            },
            _ => Self::Request,
        }
    }

    /// The name in metrics.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Log => "log",
            Self::Progress => "progress",
            Self::Notification => "notification",
            Self::Change => "change",
            Self::Request => "request",
        }
    }
}

impl Waiting {
    pub(super) fn push(&mut self, message: Message) -> Pushed {
        let rank = Rank::of(&message);
        if let Some(key) = build::coalescing_key(&message)
            && !self.changes.insert(key)
        {
            return Pushed::Coalesced;
        }
        let mut given_up = Vec::new();
        while !self.has_room_for(&message) {
            if rank == Rank::Request {
                match self.give_up(Rank::Notification) {
                    Some(victim) => given_up.push(victim),
                    None => return Pushed::Refused(message),
                }
            } else if let Some(victim) = self.give_up(Rank::Change) {
                given_up.push(victim);
            } else {
                // Requests only: what cannot wait is the newcomer.
                self.forget_change(&message);
                given_up.push(rank);
                return Pushed::Kept(given_up);
            }
        }
        self.bytes += message.raw().len();
        self.messages.push_back((rank, message));
        Pushed::Kept(given_up)
    }

    pub(super) fn pop(&mut self) -> Option<Message> {
        self.remove(0)
    }

    fn has_room_for(&self, message: &Message) -> bool {
        self.messages.is_empty()
            || (self.messages.len() < MAX_MESSAGES && self.bytes + message.raw().len() <= MAX_BYTES)
    }

    /// Gives up the oldest message of the lowest rank up to `highest`.
    fn give_up(&mut self, highest: Rank) -> Option<Rank> {
        let ranks = self.messages.iter().map(|(rank, _)| *rank);
        // The first of the lowest rank: `min_by_key` keeps the first of equals.
        let (at, rank) = ranks.enumerate().min_by_key(|(_, rank)| *rank)?;
        if rank > highest {
            return None;
        }
        self.remove(at);
        Some(rank)
    }

    fn remove(&mut self, at: usize) -> Option<Message> {
        let (_, message) = self.messages.remove(at)?;
        self.bytes -= message.raw().len();
        self.forget_change(&message);
        Some(message)
    }

    fn forget_change(&mut self, message: &Message) {
        if let Some(key) = build::coalescing_key(message) {
            self.changes.remove(&key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use shadowcat_mcp::message::RequestId;

    fn message(json: String) -> Message {
        Message::parse(Bytes::from(json)).unwrap()
    }

    fn log(n: usize) -> Message {
        message(format!(
            r#"{{"jsonrpc":"2.0","method":"notifications/message","params":{{"data":{n}}}}}"#
        ))
    }

    fn other(n: usize) -> Message {
        message(format!(
            r#"{{"jsonrpc":"2.0","method":"x/y","params":{{"n":{n}}}}}"#
        ))
    }

    fn ask(id: i64) -> Message {
        message(format!(
            r#"{{"jsonrpc":"2.0","id":{id},"method":"roots/list"}}"#
        ))
    }

    fn progress() -> Message {
        let params = r#"{"progressToken":1,"progress":1}"#;
        build::notification(&Method::Progress, Some(params))
    }

    fn drained(waiting: &mut Waiting) -> Vec<Message> {
        std::iter::from_fn(|| waiting.pop()).collect()
    }

    #[test]
    fn equal_changes_wait_once_until_taken() {
        let mut waiting = Waiting::default();
        let tools = build::notification(&Method::ToolsListChanged, None);
        let (a, b) = (build::resource_updated("a"), build::resource_updated("b"));
        let same =
            message(r#"{"method":"notifications/tools/list_changed","jsonrpc":"2.0"}"#.to_owned());
        for message in [&tools, &a, &b] {
            assert_eq!(waiting.push(message.clone()), Pushed::Kept(vec![]));
            assert_eq!(waiting.push(message.clone()), Pushed::Coalesced);
        }
        assert_eq!(waiting.push(same), Pushed::Coalesced);
        assert_eq!(drained(&mut waiting), [tools.clone(), a, b]);
        assert_eq!(waiting.push(tools), Pushed::Kept(vec![]));
    }

    #[test]
    fn the_oldest_of_the_lowest_rank_makes_room() {
        let mut waiting = Waiting::default();
        let change = build::notification(&Method::ToolsListChanged, None);
        for message in [other(0), change.clone(), ask(0), progress(), log(1), log(2)] {
            assert_eq!(waiting.push(message), Pushed::Kept(vec![]));
        }
        for n in 6..MAX_MESSAGES {
            assert_eq!(waiting.push(ask(n as i64)), Pushed::Kept(vec![]));
        }
        for victim in [Rank::Log, Rank::Log, Rank::Progress, Rank::Notification] {
            assert_eq!(waiting.push(ask(9999)), Pushed::Kept(vec![victim]));
        }
        let Pushed::Refused(refused) = waiting.push(ask(7)) else {
            panic!("a request is not kept at the price of a change");
        };
        assert_eq!(refused.id(), Some(&RequestId::Integer(7)));
        assert_eq!(waiting.push(other(1)), Pushed::Kept(vec![Rank::Change]));
        assert_eq!(
            waiting.push(change.clone()),
            Pushed::Kept(vec![Rank::Notification])
        );
        assert_eq!(waiting.push(ask(1)), Pushed::Refused(ask(1)));
        let left = drained(&mut waiting);
        assert_eq!(left.len(), MAX_MESSAGES);
        assert_eq!(left.last(), Some(&change));
        assert!(waiting.messages.is_empty() && waiting.bytes == 0);
    }

    #[test]
    fn among_requests_only_a_newcomer_is_given_up() {
        let mut waiting = Waiting::default();
        for n in 0..MAX_MESSAGES {
            assert_eq!(waiting.push(ask(n as i64)), Pushed::Kept(vec![]));
        }
        let change = build::notification(&Method::ToolsListChanged, None);
        for _ in 0..2 {
            assert_eq!(
                waiting.push(change.clone()),
                Pushed::Kept(vec![Rank::Change])
            );
        }
        assert_eq!(waiting.push(log(1)), Pushed::Kept(vec![Rank::Log]));
        assert_eq!(waiting.messages.len(), MAX_MESSAGES);
    }

    #[test]
    fn bytes_are_bounded_and_one_long_message_waits_alone() {
        let mut waiting = Waiting::default();
        let long = |n: usize| {
            message(format!(
                r#"{{"jsonrpc":"2.0","method":"notifications/message","params":["{}"]}}"#,
                "x".repeat(n)
            ))
        };
        assert_eq!(waiting.push(log(1)), Pushed::Kept(vec![]));
        assert_eq!(
            waiting.push(long(2 * MAX_BYTES)),
            Pushed::Kept(vec![Rank::Log])
        );
        assert_eq!(waiting.push(log(2)), Pushed::Kept(vec![Rank::Log]));
        assert_eq!(drained(&mut waiting), [log(2)]);
    }

    #[test]
    fn every_rank_has_a_name() {
        let names = [
            Rank::Log,
            Rank::Progress,
            Rank::Notification,
            Rank::Change,
            Rank::Request,
        ]
        .map(Rank::as_str);
        assert_eq!(
            names,
            ["log", "progress", "notification", "change", "request"]
        );
    }
}
