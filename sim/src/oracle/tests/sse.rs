//! The rules for HTTP+SSE, where one stream is the session and brings everything.

use std::time::Duration;

use super::{KEY, accepted, error, plan, s, visit};
use crate::ledger::{Call, Facts, Fate, SessionFacts};
use crate::oracle::violations;
use crate::plan::{Plan, Transport};

/// The calm plan, with a server that speaks HTTP+SSE from afar.
fn sse() -> Plan {
    let mut plan = plan();
    plan.server.transport = Transport::Sse;
    for wire in &mut plan.upstream_wire {
        wire.latency = Duration::from_millis(30);
    }
    plan
}

fn judge_sse(lost: Option<Duration>, change: impl FnOnce(&mut Call)) -> Vec<String> {
    judge_facts(Facts::default(), lost, change)
}

fn judge_facts(
    mut facts: Facts,
    lost: Option<Duration>,
    change: impl FnOnce(&mut Call),
) -> Vec<String> {
    let mut call = accepted();
    change(&mut call);
    facts.calls.insert(KEY, call);
    let session = SessionFacts {
        lost,
        ..SessionFacts::default()
    };
    facts.sessions.insert("s1".into(), session);
    violations(&sse(), &facts)
}

#[test]
fn an_accepted_request_may_fail_only_with_its_session() {
    assert_eq!(judge_sse(None, |_| {}), Vec::<String>::new());
    let failed = |lost| {
        judge_sse(lost, |call| {
            call.outcomes = vec![(s(3), error("session_lost", "unknown"))];
        })
    };
    assert_eq!(failed(Some(s(2))), Vec::<String>::new());
    assert!(failed(None)[0].contains("without need"));
    assert!(failed(Some(s(4)))[0].contains("without need"));
}

#[test]
fn an_accepted_request_is_not_sent_again() {
    let again = |call: &mut Call| call.posts.push(visit(2, Fate::Accepted));
    assert!(judge_sse(Some(s(1)), again)[0].contains("sent again"));
    let unsure = |call: &mut Call| {
        call.outcomes = vec![(s(3), error("session_lost", "no"))];
    };
    assert!(judge_sse(Some(s(2)), unsure)[0].contains("is said not to be"));
}

#[test]
fn a_refusal_that_the_streams_end_overtook_is_an_excuse_for_no_longer_than_its_way() {
    let refused = |at| {
        judge_sse(None, |call| {
            call.executions = 0;
            (call.sent_whole, call.got) = Default::default();
            call.posts = vec![visit(2, Fate::SessionLost)];
            call.outcomes = vec![(at, error("session_lost", "unknown"))];
        })
    };
    assert_eq!(refused(s(2)), Vec::<String>::new());
    assert!(refused(s(3))[0].contains("without need"));
}

#[test]
fn a_new_session_that_is_put_off_for_long_is_an_excuse() {
    let put_off = |at, seconds| {
        let mut facts = Facts::default();
        let busy = Fate::Busy {
            status: 503,
            seconds: Some(seconds),
        };
        facts.openings.push(visit(at, busy));
        judge_facts(facts, None, |call| {
            call.executions = 0;
            (call.sent_whole, call.got) = Default::default();
            call.posts = vec![visit(2, Fate::SessionLost)];
            call.outcomes = vec![(s(4), error("rate_limited", "no"))];
        })
    };
    assert_eq!(put_off(3, 20), Vec::<String>::new());
    assert!(put_off(3, 5)[0].contains("without need"));
    assert!(put_off(1, 20)[0].contains("without need"));
    assert!(put_off(5, 20)[0].contains("without need"));
}

#[test]
fn on_one_stream_for_everything_each_run_of_a_call_is_in_order() {
    let got = |marks: [(u32, u32); 4]| {
        judge_sse(Some(s(2)), |call| {
            call.asks = vec![(1, 9)];
            call.got = marks.into_iter().map(|mark| (s(2), mark)).collect();
            call.outcomes = vec![(s(3), error("session_lost", "unknown"))];
        })
    };
    assert_eq!(got([(2, 1), (1, 9), (1, 1), (2, 2)]), Vec::<String>::new());
    assert!(got([(2, 2), (1, 1), (2, 1), (1, 9)])[0].contains("out of order"));
    assert!(got([(1, 1), (2, 1), (1, 1), (1, 9)])[0].contains("twice"));
}

#[test]
fn a_status_that_the_end_of_the_stream_overtook_is_a_lost_answer() {
    let judged = |method, lost| {
        let mut plan = sse();
        plan.clients[0].calls[0].method = method;
        let mut call = accepted();
        call.posts = vec![visit(1, Fate::Status(503)), visit(2, Fate::Accepted)];
        let mut facts = Facts::default();
        facts.calls.insert(KEY, call);
        let session = SessionFacts {
            lost: Some(lost),
            ..SessionFacts::default()
        };
        facts.sessions.insert("s1".into(), session);
        let found = violations(&plan, &facts);
        found.iter().any(|one| one.contains("sent again"))
    };
    let way = Duration::from_millis(60);
    assert!(!judged("tools/list", s(1)) && !judged("tools/list", s(1) + way));
    assert!(judged("tools/list", s(1) + 2 * way));
    assert!(judged("tools/call", s(1)));
}
