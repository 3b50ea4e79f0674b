//! The rules for a server that is a process: its session ends with it, and what it wrote is there.

use super::{KEY, accepted, error, plan, s, visit};
use crate::fault::How;
use crate::ledger::{Call, Facts, Fate, SessionFacts, StreamFate, Visit};
use crate::oracle::violations;
use crate::plan::{Plan, Transport};

/// The calm plan, with a server that is a process.
fn stdio() -> Plan {
    let mut plan = plan();
    plan.server.transport = Transport::Stdio;
    plan
}

/// A call that no process has read.
fn unread() -> Call {
    Call {
        posts: Vec::new(),
        executions: 0,
        sent_whole: Vec::new(),
        got: Vec::new(),
        outcomes: vec![(s(3), error("child_exited", "unknown"))],
        ..accepted()
    }
}

/// One client whose processes were lost at these times.
fn judge(call: Call, lost: &[u64]) -> Vec<String> {
    let mut facts = Facts::default();
    for (n, lost) in lost.iter().enumerate() {
        let name = format!("s{}", n + 1);
        let session = SessionFacts {
            lost: Some(s(*lost)),
            ..SessionFacts::default()
        };
        facts.sessions.insert(name.clone(), session);
        let handshake = Visit {
            session: name,
            ..visit(0, Fate::Accepted)
        };
        facts.handshakes.entry(0).or_default().push(handshake);
    }
    facts.calls.insert(KEY, call);
    violations(&stdio(), &facts)
}

#[test]
fn a_request_that_nobody_read_may_fail_with_the_process_that_was_to_read_it() {
    assert_eq!(judge(unread(), &[2]), Vec::<String>::new());
    assert!(judge(unread(), &[])[0].contains("without need"));
    assert!(judge(unread(), &[4])[0].contains("without need"));
}

#[test]
fn a_request_that_never_left_is_not_lost_with_one_process() {
    let kept = || Call {
        outcomes: vec![(s(3), error("child_exited", "no"))],
        ..unread()
    };
    assert!(judge(kept(), &[2])[0].contains("without need"));
    assert_eq!(judge(kept(), &[2, 3]), Vec::<String>::new());
}

#[test]
fn a_result_that_was_written_is_not_lost_with_its_process() {
    let failed = |results_sent| Call {
        results_sent,
        outcomes: vec![(s(3), error("child_exited", "unknown"))],
        ..accepted()
    };
    assert_eq!(judge(failed(0), &[2]), Vec::<String>::new());
    assert!(judge(failed(1), &[2])[0].contains("after its result was written"));
}

/// Starts at these milliseconds; each process ends when it has begun, the first excepted.
fn starts(at: &[u64]) -> Vec<String> {
    let ms = std::time::Duration::from_millis;
    let opening = |(n, at): (usize, &u64)| Visit {
        at: ms(*at),
        until: ms(*at),
        fate: Fate::Stream(StreamFate {
            opened: true,
            new_messages: u32::from(n == 0),
            broke: Some((ms(*at), How::Close)),
            ..StreamFate::default()
        }),
        ..visit(0, Fate::Pending)
    };
    let facts = Facts {
        openings: at.iter().enumerate().map(opening).collect(),
        ..Facts::default()
    };
    violations(&stdio(), &facts)
}

#[test]
fn starts_in_vain_are_ever_farther_apart() {
    assert_eq!(starts(&[0, 250, 1250, 3250, 7250]), Vec::<String>::new());
    assert!(starts(&[0, 100])[0].contains("0 in a row"));
    assert!(starts(&[0, 250, 1000])[0].contains("1 in a row"));
    assert!(starts(&[0, 250, 1250, 3000])[0].contains("2 in a row"));
}
