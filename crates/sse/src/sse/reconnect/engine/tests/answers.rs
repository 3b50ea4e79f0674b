//! Answers of POSTs: resumed by GET or not at all.

use super::*;

#[test]
fn a_post_does_not_wait_in_line() {
    let mut run = Run::new(Kind::Response);
    let Action::Connect(attempt) = run.poll() else {
        panic!()
    };
    assert_eq!(attempt.opening, Opening::Post);
    assert_eq!(run.origin.summary(run.now).connecting, 0);
}

#[test]
fn a_broken_answer_is_resumed_by_get_from_its_cursor() {
    for trouble in [Trouble::Ended, Trouble::Reset] {
        let mut run = Run::open(Kind::Response);
        run.event(Some("7"), "progress");
        run.fail(trouble);
        let (_, attempt) = run.attempt();
        assert!(matches!(&attempt.opening, Opening::Resume(at) if at.as_bytes() == b"7"));
        run.tell(Input::Opened);
        assert_eq!(run.engine.counters().resumed, 1);
        run.tell(Input::Answered);
        assert_eq!(run.poll(), Action::Finish(Finish::Done));
    }
}

#[test]
fn a_broken_answer_without_cursor_fails_at_once() {
    let mut run = Run::open(Kind::Response);
    run.event(None, "progress");
    run.fail(Trouble::Ended);
    let fault = run.fault();
    assert_eq!(fault.kind, FaultKind::StreamEnded);
    assert_eq!(fault.executed, Executed::Unknown);
}

#[test]
fn a_modern_answer_is_never_resumed() {
    let mut run = Run::open(Kind::ModernResponse);
    run.event(Some("7"), "progress");
    run.fail(Trouble::Reset);
    assert_eq!(run.fault().kind, FaultKind::StreamEnded);
}

#[test]
fn an_answer_whose_cursor_was_reset_is_not_resumed() {
    let mut run = Run::open(Kind::Response);
    run.event(Some("7"), "progress");
    run.fail(Trouble::Reset);
    run.reconnect();
    run.event(Some(""), "reset");
    run.fail(Trouble::Reset);
    assert_eq!(run.fault().kind, FaultKind::StreamEnded);
}

#[test]
fn the_post_is_never_sent_again_once_it_was_answered() {
    let mut run = Run::open(Kind::Response);
    run.event(Some("7"), "progress");
    run.fail(Trouble::Reset);
    for trouble in [
        Trouble::NoConnection,
        refused(500),
        Trouble::NoHead,
        busy(429, 1),
    ] {
        let (_, attempt) = run.attempt();
        assert!(matches!(attempt.opening, Opening::Resume(_)));
        run.fail(trouble);
    }
}

#[test]
fn an_unreachable_server_is_tried_for_ten_seconds() {
    let mut run = Run::new(Kind::Response);
    let mut tries = 0;
    while run.engine.state() != StateName::Failed {
        let (_, attempt) = run.attempt();
        assert_eq!(attempt.opening, Opening::Post);
        run.fail(Trouble::NoConnection);
        tries += 1;
    }
    let fault = run.fault();
    assert_eq!(
        (fault.kind, fault.executed),
        (FaultKind::Connect, Executed::No)
    );
    let took = run.now - run.start;
    assert!(took <= 10 * SECOND && took > 7 * SECOND, "{took:?}");
    assert!((6..20).contains(&tries), "{tries}");
}

#[test]
fn a_post_that_was_refused_before_processing_is_sent_again() {
    let mut run = Run::new(Kind::ModernResponse);
    run.refuse(Trouble::NotProcessed);
    let (_, attempt) = run.attempt();
    assert_eq!(attempt.opening, Opening::Post);
}

#[test]
fn a_busy_server_gets_its_wait() {
    for code in [429, 503] {
        let mut run = Run::new(Kind::Response);
        run.refuse(busy(code, 3));
        let (waited, attempt) = run.attempt();
        assert_eq!(waited, 3 * SECOND);
        assert_eq!(attempt.opening, Opening::Post);
    }
}

#[test]
fn a_wait_beyond_the_deadline_fails_with_the_hint() {
    let mut run = Run::new(Kind::Response);
    run.engine.set_deadline(Some(run.now + 2 * SECOND));
    run.refuse(busy(429, 3));
    let fault = run.fault();
    assert_eq!(fault.kind, FaultKind::RateLimited);
    assert_eq!(fault.executed, Executed::No);
    assert_eq!(fault.retry_after, Some(3 * SECOND));
    assert_eq!(fault.status, Some(StatusCode::TOO_MANY_REQUESTS));
}

#[test]
fn a_wait_beyond_what_we_honour_fails_with_the_hint() {
    let mut run = Run::new(Kind::Response);
    run.refuse(busy(503, 301));
    assert_eq!(run.fault().retry_after, Some(301 * SECOND));
}

#[test]
fn a_server_that_stays_busy_is_given_up() {
    let mut run = Run::new(Kind::Response);
    for _ in 0..10 {
        run.refuse(busy(429, 0));
    }
    run.refuse(busy(429, 0));
    assert_eq!(run.fault().kind, FaultKind::RateLimited);
}

#[test]
fn a_bare_503_is_not_sent_again() {
    let mut run = Run::new(Kind::Response);
    run.refuse(refused(503));
    let fault = run.fault();
    assert_eq!(
        (fault.kind, fault.executed),
        (FaultKind::Status, Executed::Unknown)
    );
}

#[test]
fn a_lost_session_says_what_was_not_executed() {
    let mut run = Run::new(Kind::Response);
    run.refuse(lost_session());
    let fault = run.fault();
    assert_eq!(
        (fault.kind, fault.executed),
        (FaultKind::SessionLost, Executed::No)
    );
    let mut run = Run::open(Kind::Response);
    run.event(Some("1"), "x");
    run.fail(Trouble::Reset);
    run.refuse(lost_session());
    let fault = run.fault();
    assert_eq!(
        (fault.kind, fault.executed),
        (FaultKind::SessionLost, Executed::Unknown)
    );
}

#[test]
fn a_resume_that_brings_nothing_new_ends_by_the_budget() {
    let mut run = Run::open(Kind::Response);
    run.event(Some("1"), "x");
    run.fail(Trouble::Reset);
    let mut tries = 0;
    while run.engine.state() == StateName::Backoff {
        run.reconnect();
        assert_eq!(run.event(Some("1"), "x"), Verdict::Duplicate);
        run.fail(Trouble::Ended);
        tries += 1;
    }
    assert_eq!(tries, 10);
    assert_eq!(run.fault().kind, FaultKind::BudgetExhausted);
    assert_eq!(run.engine.counters().exhausted, 1);
}

#[test]
fn a_resume_beyond_the_deadline_fails_at_once() {
    let mut run = Run::open(Kind::Response);
    run.engine.set_deadline(Some(run.now + SECOND));
    run.event(Some("1"), "x");
    run.item(&Item::Retry(5 * SECOND));
    run.fail(Trouble::Reset);
    assert_eq!(run.fault().kind, FaultKind::StreamEnded);
}

#[test]
fn a_rejected_or_impossible_resume_fails() {
    for (code, kind) in [
        (400, FaultKind::CursorRejected),
        (405, FaultKind::NotResumable),
        (204, FaultKind::Status),
        (401, FaultKind::Unauthorized),
    ] {
        let mut run = Run::open(Kind::Response);
        run.event(Some("1"), "x");
        run.fail(Trouble::Reset);
        run.refuse(refused(code));
        let fault = run.fault();
        assert_eq!((fault.kind, fault.executed), (kind, Executed::Unknown));
    }
}

/// Whoever waits for a server that is away need not wait on when another has found it.
#[test]
fn a_post_without_a_connection_goes_when_another_has_one() {
    let mut run = Run::new(Kind::Response);
    for _ in 0..6 {
        run.refuse(Trouble::NoConnection);
    }
    let Action::Wait(Some(until)) = run.poll() else {
        panic!("no wait");
    };
    assert!(until - run.now >= 2 * SECOND);
    run.pass(SECOND);
    run.origin.note_connected(run.now);
    let waited = run.refuse(Trouble::NoConnection);
    assert!(waited <= 100 * MS, "{waited:?}");
    // That one counts once, and only for who waited then.
    let Action::Wait(Some(until)) = run.poll() else {
        panic!("no wait");
    };
    assert!(until - run.now >= 2 * SECOND);
    // However often others come through, tries keep their distance.
    for _ in 0..3 {
        run.origin.note_connected(run.now);
        let waited = run.refuse(Trouble::NoConnection);
        assert!((250 * MS..400 * MS).contains(&waited), "{waited:?}");
    }
}

/// A wait that the server asked for is not cut short.
#[test]
fn a_post_that_is_to_wait_waits_whoever_comes_through() {
    let mut run = Run::new(Kind::Response);
    run.refuse(busy(503, 7));
    run.origin.note_connected(run.now);
    let (waited, _) = run.attempt();
    assert!(waited >= 7 * SECOND, "{waited:?}");
}
