//! The judge must find what is wrong: each rule with a ledger that breaks it, and one that does
//! not.

mod modern;
mod progress;
mod races;
mod silence;
mod sse;
mod stdio;

use std::time::Duration;

use super::violations;
use crate::fault::How;
use crate::ledger::{
    Call, CallKey, ErrorSeen, Facts, Fate, Outcome, SessionFacts, StreamFate, Visit,
};
use crate::plan::{Draw, Mode, Plan};
use crate::wire::Manner;

const KEY: CallKey = CallKey {
    client: 0,
    number: 0,
};

fn s(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// A calm plan of one client whose first call is a `tools/call`.
fn plan() -> Plan {
    let mut plan = Plan::draw(1, Draw::Calm);
    plan.mode = Mode::Reverse;
    plan.request_timeout = None;
    plan.clients.truncate(1);
    plan.clients[0].calls.truncate(1);
    plan.clients[0].calls[0].method = "tools/call";
    plan.clients[0].listens = true;
    plan.server.standalone = true;
    plan.upstream_wire = [Manner::PLAIN; 2];
    plan.client_wire = [Manner::PLAIN; 2];
    plan
}

fn visit(at: u64, fate: Fate) -> Visit {
    Visit {
        order: at,
        at: s(at),
        session: "s1".into(),
        cursor: None,
        fate,
        until: s(at),
    }
}

fn streamed(ids: bool, broke: Option<(u64, How)>, answered: bool) -> Fate {
    Fate::Stream(StreamFate {
        new_messages: 1,
        ids,
        new_ids: ids,
        opened: true,
        polled: false,
        broke: broke.map(|(at, how)| (s(at), how)),
        answered,
        answered_at: None,
    })
}

fn error(kind: &str, executed: &str) -> Outcome {
    Outcome::Error(ErrorSeen {
        code: -32603,
        text: String::new(),
        kind: Some(kind.into()),
        executed: Some(executed.into()),
        retry_safe: Some(executed == "no"),
    })
}

/// A call that its server has taken, and will answer on the session's stream or pipe.
fn accepted() -> Call {
    Call {
        posts: vec![visit(1, Fate::Accepted)],
        with_id: Vec::new(),
        ..well()
    }
}

/// A call that went well: two messages, then the result.
fn well() -> Call {
    Call {
        sent: Some(s(1)),
        posts: vec![visit(1, streamed(true, None, true))],
        executions: 1,
        sent_whole: vec![(1, 1), (1, 2)],
        with_id: vec![(1, 1), (1, 2)],
        got: vec![(s(1), (1, 1)), (s(2), (1, 2))],
        outcomes: vec![(s(3), Outcome::Result(1))],
        ..Call::default()
    }
}

fn judge_in(plan: &Plan, change: impl FnOnce(&mut Call)) -> Vec<String> {
    let mut found = judge_all(plan, change);
    // The times of these ledgers are whole seconds; lateness has a test of its own.
    found.retain(|one| !one.contains("was late"));
    found
}

fn judge_all(plan: &Plan, change: impl FnOnce(&mut Call)) -> Vec<String> {
    let mut call = well();
    change(&mut call);
    let mut facts = Facts::default();
    facts.calls.insert(KEY, call);
    violations(plan, &facts)
}

fn judge(change: impl FnOnce(&mut Call)) -> Vec<String> {
    judge_in(&plan(), change)
}

#[track_caller]
fn finds(words: &str, change: impl FnOnce(&mut Call)) {
    let found = judge(change);
    assert!(found.iter().any(|one| one.contains(words)), "{found:?}");
}

#[track_caller]
fn clean(change: impl FnOnce(&mut Call)) {
    assert_eq!(judge(change), Vec::<String>::new());
}

#[test]
fn nothing_is_wrong_with_a_call_that_went_well() {
    clean(|_| {});
}

#[test]
fn a_request_without_an_outcome_is_found() {
    finds("no outcome", |call| call.outcomes.clear());
    clean(|call| {
        call.outcomes.clear();
        call.cancelled = Some(s(2));
    });
}

#[test]
fn two_outcomes_are_found() {
    finds("2 outcomes", |call| {
        call.outcomes.push((s(4), Outcome::Result(1)));
    });
}

#[test]
fn a_call_that_is_executed_twice_is_found() {
    finds("executed 2 times", |call| call.executions = 2);
}

#[test]
fn a_request_that_is_sent_again_is_found_even_if_it_was_not_executed() {
    finds("sent again", |call| {
        call.posts.insert(0, visit(1, Fate::Status(503)));
    });
    finds("sent again", |call| {
        call.posts.insert(0, visit(1, Fate::NoHead));
    });
    for fate in [Fate::SessionLost, Fate::Redirected { good: true }] {
        clean(|call| call.posts.insert(0, visit(1, fate)));
    }
}

#[test]
fn a_safe_request_may_be_sent_once_more_and_not_twice() {
    let mut plan = plan();
    plan.clients[0].calls[0].method = "tools/list";
    let once = judge_in(&plan, |call| call.posts.insert(0, visit(1, Fate::NoHead)));
    assert_eq!(once, Vec::<String>::new());
    let twice = judge_in(&plan, |call| {
        call.posts.insert(0, visit(1, Fate::NoHead));
        call.posts.insert(0, visit(1, Fate::NoHead));
    });
    assert!(twice[0].contains("sent again"), "{twice:?}");
}

#[test]
fn messages_lost_repeated_or_out_of_order_are_found() {
    finds("lost messages", |call| {
        call.got.remove(0);
    });
    finds("twice", |call| call.got.push((s(2), (1, 2))));
    finds("twice", |call| call.got.push((s(2), (1, 1))));
    finds("out of order", |call| call.got.reverse());
}

#[test]
fn a_message_without_an_id_may_be_lost_only_if_it_did_not_leave() {
    finds("lost messages", |call| {
        call.with_id.pop();
        call.got.pop();
    });
    clean(|call| {
        call.with_id.pop();
        call.sent_whole.pop();
        call.got.pop();
    });
}

#[test]
fn two_messages_that_are_the_same_are_two() {
    clean(|call| (call.echoes_sent, call.echoes_got) = (2, 2));
    finds("1 of 2", |call| {
        (call.echoes_sent, call.echoes_got) = (2, 1)
    });
    finds("3 of 2", |call| {
        (call.echoes_sent, call.echoes_got) = (2, 3)
    });
}

#[test]
fn a_message_with_an_id_is_due_though_its_connection_broke() {
    finds("lost messages", |call| {
        call.posts = vec![visit(1, streamed(true, Some((2, How::Reset)), false))];
        call.gets = vec![visit(3, streamed(true, None, true))];
        call.sent_whole.pop();
        call.got.pop();
    });
}

#[test]
fn an_error_without_need_is_found() {
    finds("without need", |call| {
        call.outcomes = vec![(s(3), error("stream_ended", "unknown"))];
    });
    // It had an id, so it had to be resumed.
    finds("without need", |call| {
        call.posts = vec![visit(1, streamed(true, Some((2, How::End)), false))];
        call.outcomes = vec![(s(3), error("stream_ended", "unknown"))];
    });
    clean(|call| {
        call.posts = vec![visit(1, streamed(false, Some((2, How::End)), false))];
        call.outcomes = vec![(s(3), error("stream_ended", "unknown"))];
    });
}

#[test]
fn a_resume_that_is_refused_is_an_excuse_and_one_that_fails_is_none() {
    let resumed = |status| {
        judge(|call| {
            call.posts = vec![visit(1, streamed(true, Some((2, How::End)), false))];
            call.gets = vec![visit(3, Fate::Status(status))];
            call.outcomes = vec![(s(4), error("status", "unknown"))];
        })
    };
    assert!(resumed(502)[0].contains("without need"));
    assert!(resumed(429)[0].contains("without need"));
    for status in [400, 401, 405, 410, 501] {
        assert_eq!(resumed(status), Vec::<String>::new(), "{status}");
    }
}

#[test]
fn giving_up_before_the_budget_is_found() {
    let tried = |attempts: u64| {
        judge(|call| {
            call.posts = vec![visit(1, streamed(true, Some((2, How::End)), false))];
            call.gets = (0..attempts)
                .map(|n| visit(3 + 30 * n, Fate::Status(500)))
                .collect();
            call.outcomes = vec![(s(900), error("budget_exhausted", "unknown"))];
        })
    };
    assert!(tried(5)[0].contains("without need"));
    assert_eq!(tried(10), Vec::<String>::new());
}

#[test]
fn a_lie_about_execution_is_found() {
    finds("is said not to be", |call| {
        call.posts = vec![visit(1, Fate::NoHead)];
        call.outcomes = vec![(s(3), error("connection_lost", "no"))];
    });
    finds("retry_safe", |call| {
        call.posts = vec![visit(1, Fate::NoHead)];
        let mut wrong = error("connection_lost", "unknown");
        if let Outcome::Error(error) = &mut wrong {
            error.retry_safe = Some(true);
        }
        call.outcomes = vec![(s(3), wrong)];
    });
}

#[test]
fn an_error_that_nobody_made_is_found() {
    let bare = Outcome::Error(ErrorSeen {
        code: -32050,
        ..ErrorSeen::default()
    });
    finds("nobody made", |call| {
        call.outcomes = vec![(s(3), bare.clone())];
    });
    clean(|call| {
        call.posts = vec![visit(1, Fate::Status(500))];
        call.outcomes = vec![(s(3), bare)];
    });
}

#[test]
fn a_deadline_excuses_only_what_was_disturbed_and_late() {
    let mut timed = plan();
    timed.request_timeout = Some(s(100));
    let at = |seconds, fate: Fate| {
        judge_in(&timed, |call| {
            call.posts = vec![visit(1, fate)];
            call.outcomes = vec![(s(seconds), error("timeout", "unknown"))];
        })
    };
    assert_eq!(at(101, Fate::Hangs), Vec::<String>::new());
    assert!(at(50, Fate::Hangs)[0].contains("without need"));
    assert!(at(101, streamed(true, None, false))[0].contains("without need"));
}

#[test]
fn a_resume_after_the_response_is_found() {
    finds("though its response had been sent", |call| {
        call.gets = vec![visit(5, streamed(true, None, true))];
    });
}

#[test]
fn a_server_that_is_hurried_is_found() {
    finds("after a Retry-After", |call| {
        let busy = Fate::Busy {
            status: 503,
            seconds: Some(5),
        };
        call.posts = vec![visit(1, busy), visit(3, streamed(true, None, true))];
    });
    finds("after the one before", |call| {
        call.gets = vec![visit(3, Fate::Status(500)), visit(3, Fate::Status(500))];
        call.posts = vec![visit(1, streamed(true, Some((2, How::End)), false))];
    });
}

#[test]
fn a_stream_that_comes_back_late_is_found() {
    let mut plan = plan();
    plan.server.retry = None;
    plan.clients[0].calls[0].polls_after = None;
    let after = |ms| {
        judge_all(&plan, |call| {
            let broke = streamed(true, Some((2, How::Reset)), false);
            call.posts = vec![visit(1, broke)];
            call.gets = vec![visit(2, streamed(true, None, true))];
            call.gets[0].cursor = Some("s1:0/1".into());
            call.gets[0].at = s(2) + Duration::from_millis(ms);
            call.gets[0].until = s(3);
        })
    };
    assert_eq!(after(300), Vec::<String>::new());
    assert!(after(400)[0].contains("was late"));
}

#[test]
fn a_cursor_that_goes_back_is_found() {
    let get = |at, cursor: &str| Visit {
        cursor: Some(cursor.into()),
        ..visit(at, Fate::Status(500))
    };
    let resumed = |first: &str, second: &str| {
        judge(|call| {
            call.posts = vec![visit(1, streamed(true, Some((2, How::End)), false))];
            call.gets = vec![
                get(3, first),
                get(6, second),
                visit(9, streamed(true, None, true)),
            ];
            call.gets[2].cursor = Some("s1:0/12".into());
        })
    };
    assert_eq!(resumed("s1:0/9", "s1:0/10"), Vec::<String>::new());
    assert!(resumed("s1:0/10", "s1:0/9")[0].contains("went back"));
}

#[test]
fn a_status_toward_the_client_is_found() {
    finds("answered with status 502", |call| {
        call.outcomes = vec![(s(3), Outcome::Status(502))];
    });
}

fn session(change: impl FnOnce(&mut SessionFacts)) -> Vec<String> {
    let mut facts = Facts::default();
    let mut session = SessionFacts {
        notices: 3,
        notices_with_id: vec![1, 2, 3],
        notices_sent: vec![1, 2, 3],
        gets: vec![visit(1, streamed(true, None, false))],
        got: vec![(s(1), 1), (s(2), 2), (s(3), 3)],
        ..SessionFacts::default()
    };
    change(&mut session);
    facts.sessions.insert("s1".into(), session);
    violations(&plan(), &facts)
}

#[test]
fn notices_lost_or_repeated_are_found() {
    assert_eq!(session(|_| {}), Vec::<String>::new());
    let lost = session(|facts| {
        facts.got.pop();
    });
    assert!(lost[0].contains("[3] of s1 were lost"), "{lost:?}");
    let twice = session(|facts| facts.got.push((s(4), 3)));
    assert!(twice[0].contains("twice"), "{twice:?}");
    // One that never left whole is due as long as its session lives.
    let cut = |lost| {
        session(|facts| {
            facts.notices_sent.pop();
            facts.got.pop();
            facts.lost = lost;
        })
    };
    assert_eq!(cut(None).len(), 1);
    assert_eq!(cut(Some(s(4))), Vec::<String>::new());
}

#[test]
fn coming_back_to_a_server_that_said_no_is_found() {
    let found = session(|facts| {
        facts.gets = vec![visit(1, Fate::Status(405)), visit(70, Fate::Status(405))];
    });
    assert!(found[0].contains("came again"), "{found:?}");
}
