//! The rules for 2026-07-28, where a subscription outlives its connections and nothing else does.

use std::time::Duration;

use super::{KEY, error, plan, s, streamed, visit, well};
use crate::fault::How;
use crate::ledger::{Facts, Fate, SessionFacts, StreamFate};
use crate::oracle::{recoveries, violations};
use crate::plan::{Plan, Transport};

fn modern() -> Plan {
    let mut plan = plan();
    plan.server.transport = Transport::Modern;
    plan.server.retry = None;
    plan
}

fn judge_subscription(change: impl FnOnce(&mut SessionFacts)) -> Vec<String> {
    let mut session = SessionFacts {
        notices: 2,
        notices_sent: vec![1, 2],
        gets: vec![visit(1, streamed(false, None, false))],
        got: vec![(s(1), 1), (s(2), 2)],
        ..SessionFacts::default()
    };
    change(&mut session);
    let mut facts = Facts::default();
    facts.sessions.insert("sub-0-1".into(), session);
    violations(&modern(), &facts)
}

#[test]
fn a_subscription_ends_only_where_the_server_says_no() {
    assert_eq!(judge_subscription(|_| {}), Vec::<String>::new());
    let ended = |fate: Fate| {
        judge_subscription(|session| {
            session.gets.push(visit(40, fate));
            session.ended = Some(s(41));
        })
    };
    for status in [400, 404, 405, 204] {
        assert_eq!(
            ended(Fate::Status(status)),
            Vec::<String>::new(),
            "{status}"
        );
    }
    for fate in [
        Fate::Status(500),
        Fate::Status(401),
        Fate::NoHead,
        streamed(false, Some((41, How::Reset)), false),
    ] {
        assert!(ended(fate)[0].contains("ended without need"));
    }
}

#[test]
fn what_a_subscription_was_sent_arrives_once() {
    let lost = judge_subscription(|session| {
        session.got.pop();
    });
    assert!(lost[0].contains("[2] of sub-0-1 were lost"), "{lost:?}");
    let twice = judge_subscription(|session| session.got.push((s(3), 2)));
    assert!(twice[0].contains("twice"), "{twice:?}");
}

#[test]
fn a_subscription_comes_back_like_a_stream_once_it_was_open() {
    let busy = Fate::Busy {
        status: 429,
        seconds: Some(0),
    };
    let broke = Fate::Stream(StreamFate {
        broke: Some((s(5), How::Reset)),
        new_messages: 1,
        opened: true,
        ..StreamFate::default()
    });
    let measured = |gets| {
        let mut facts = Facts::default();
        let session = SessionFacts {
            gets,
            ..SessionFacts::default()
        };
        facts.sessions.insert("sub-0-1".into(), session);
        recoveries(&modern(), &facts).len()
    };
    let back = visit(6, streamed(false, None, false));
    assert_eq!(measured(vec![visit(1, busy), back.clone()]), 0);
    assert_eq!(measured(vec![visit(4, broke), back]), 1);
}

/// There is nothing to come back to.
#[test]
fn a_broken_answer_is_an_excuse() {
    let mut call = well();
    call.with_id.clear();
    call.posts = vec![visit(1, streamed(false, Some((2, How::End)), false))];
    call.outcomes = vec![(
        s(2) + Duration::from_millis(1),
        error("stream_ended", "unknown"),
    )];
    let mut facts = Facts::default();
    facts.calls.insert(KEY, call);
    assert_eq!(violations(&modern(), &facts), Vec::<String>::new());
}
