//! What the server cannot see: each excuse, and how far it goes.

use std::time::Duration;

use super::{KEY, error, plan, s, streamed, visit, well};
use crate::fault::How;
use crate::ledger::{Facts, Fate, SessionFacts, Visit};
use crate::oracle::violations;
use crate::plan::Plan;

#[test]
fn a_request_that_a_reset_met_on_its_way_may_fail_and_no_other() {
    let ms = Duration::from_millis;
    let mut far = plan();
    for wire in &mut far.upstream_wire {
        wire.latency = ms(30);
    }
    let failed = |plan: &Plan, kind: &str, reset: Option<Duration>, at: Duration| {
        let mut call = well();
        call.posts = vec![visit(2, Fate::SessionLost)];
        (call.sent_whole, call.with_id, call.got) = Default::default();
        call.executions = 0;
        call.outcomes = vec![(at, error(kind, "unknown"))];
        let mut facts = Facts::default();
        facts.calls.insert(KEY, call);
        facts.resets.extend(reset);
        violations(plan, &facts)
    };
    let reset = s(2) + ms(170);
    let soon = reset + ms(30);
    let lost = "connection_lost";
    assert_eq!(failed(&far, lost, Some(reset), soon), Vec::<String>::new());
    for (plan, kind, reset, at) in [
        (&far, lost, None, soon),
        (&far, lost, Some(reset), soon + ms(100)),
        (&far, lost, Some(s(1)), soon),
        (&far, "session_lost", Some(reset), soon),
        (&plan(), lost, Some(reset), soon),
    ] {
        let found = failed(plan, kind, reset, at);
        assert!(
            found.len() == 1 && found[0].contains("without need"),
            "{found:?}"
        );
    }
}

#[test]
fn a_safe_request_that_a_reset_met_on_its_way_has_been_sent_once() {
    let mut far = plan();
    far.clients[0].calls[0].method = "tools/list";
    far.upstream_wire[1].latency = Duration::from_millis(30);
    let broken = |reset| {
        let mut call = well();
        call.posts = vec![visit(3, streamed(false, Some((3, How::End)), false))];
        call.outcomes = vec![(s(4), error("stream_ended", "unknown"))];
        let mut facts = Facts::default();
        facts.calls.insert(KEY, call);
        facts.resets.push(reset);
        violations(&far, &facts)
    };
    assert_eq!(broken(s(2)), Vec::<String>::new());
    assert!(broken(s(4))[0].contains("without need"));
}

#[test]
fn a_question_may_be_lost_with_its_session_and_only_then() {
    let asked = |lost| {
        let mut call = well();
        call.asks = vec![(1, 2)];
        call.got.pop();
        call.posts = vec![visit(1, streamed(true, Some((2, How::End)), false))];
        call.gets = vec![visit(3, Fate::Status(400))];
        call.outcomes = vec![(s(4), error("status", "unknown"))];
        let session = SessionFacts {
            lost,
            ..SessionFacts::default()
        };
        let mut facts = Facts::default();
        facts.calls.insert(KEY, call);
        facts.sessions.insert("s1".into(), session);
        violations(&plan(), &facts)
    };
    assert_eq!(asked(Some(s(2))), Vec::<String>::new());
    assert!(asked(None)[0].contains("lost messages"));
}

#[test]
fn a_session_that_nobody_heard_of_owes_nothing() {
    let replaced = |gets: Vec<Visit>| {
        let mut facts = Facts::default();
        let unheard = SessionFacts {
            notices: 1,
            notices_with_id: vec![1],
            gets,
            ..SessionFacts::default()
        };
        let next = SessionFacts {
            began: s(5),
            ..SessionFacts::default()
        };
        facts.sessions.insert("s1".into(), unheard);
        facts.sessions.insert("s2".into(), next);
        violations(&plan(), &facts).len()
    };
    assert_eq!(replaced(Vec::new()), 0);
    assert_eq!(replaced(vec![visit(1, streamed(true, None, false))]), 1);
}
