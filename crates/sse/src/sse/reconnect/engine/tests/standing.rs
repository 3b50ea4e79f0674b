//! Streams that stand by themselves: they park, and are probed.

use super::*;

#[test]
fn a_stream_out_of_budget_is_parked_and_probed() {
    let mut run = Run::new(Kind::Standalone);
    for _ in 0..10 {
        run.refuse(refused(500));
    }
    assert_eq!(run.parking(), Some(Parking::OutOfBudget));
    for _ in 0..5 {
        let waited = run.refuse(refused(500));
        assert!((48 * SECOND..=72 * SECOND).contains(&waited), "{waited:?}");
        assert_eq!(run.parking(), Some(Parking::OutOfBudget));
    }
    assert_eq!(run.engine.counters().exhausted, 1, "it was used up once");
    run.reconnect();
    assert_eq!(run.engine.state(), StateName::Open);
}

#[test]
fn a_budget_is_used_up_again_only_after_it_was_full() {
    for new_session in [false, true] {
        let mut run = Run::new(Kind::Standalone);
        for _ in 0..12 {
            run.refuse(refused(500));
        }
        run.reconnect();
        run.fail(Trouble::Reset);
        assert_eq!(run.engine.counters().exhausted, 1);
        if new_session {
            run.tell(Input::NewSession);
        } else {
            run.reconnect();
            run.event(None, "news");
            run.fail(Trouble::Reset);
        }
        for _ in 0..12 {
            run.refuse(refused(500));
        }
        assert_eq!(run.engine.counters().exhausted, 2);
    }
}

#[test]
fn a_probe_that_opens_and_breaks_parks_again() {
    let mut run = Run::new(Kind::Standalone);
    for _ in 0..10 {
        run.refuse(refused(500));
    }
    run.reconnect();
    run.fail(Trouble::Reset);
    assert_eq!(run.parking(), Some(Parking::OutOfBudget));
    run.reconnect();
    run.event(None, "news");
    run.fail(Trouble::Reset);
    assert_eq!(run.engine.state(), StateName::Backoff);
}

#[test]
fn what_is_not_offered_or_refused_is_not_probed() {
    for (code, why) in [
        (405, Parking::NotOffered),
        (204, Parking::Refused),
        (404, Parking::Refused),
        (418, Parking::Refused),
    ] {
        let mut run = Run::new(Kind::Standalone);
        run.refuse(refused(code));
        assert_eq!(run.parking(), Some(why));
        assert_eq!(run.poll(), Action::Wait(None), "{code}");
        run.pass(3600 * SECOND);
        assert_eq!(run.poll(), Action::Wait(None), "{code}");
    }
}

#[test]
fn a_challenge_is_parked_and_probed() {
    let mut run = Run::new(Kind::Standalone);
    run.refuse(refused(401));
    assert_eq!(run.parking(), Some(Parking::Challenged));
    let (waited, _) = run.attempt();
    assert!(waited >= 48 * SECOND);
}

#[test]
fn a_rejected_cursor_is_dropped_once() {
    let mut run = Run::open(Kind::Standalone);
    run.event(Some("1"), "x");
    run.fail(Trouble::Reset);
    assert_eq!(run.next_cursor().as_deref(), Some("1"));
    run.fail(refused(400));
    assert_eq!(run.next_cursor(), None);
    run.tell(Input::Opened);
    assert!(run.engine.take_gap().is_some());
    assert_eq!(run.engine.take_gap(), None, "told once");
    run.fail(Trouble::Reset);
    run.refuse(refused(400));
    assert_eq!(run.parking(), Some(Parking::Refused));
}

#[test]
fn a_return_without_cursor_is_a_gap() {
    let mut run = Run::open(Kind::Standalone);
    assert_eq!(run.engine.take_gap(), None, "not the first time");
    run.event(None, "x");
    run.fail(Trouble::Reset);
    let away = run.reconnect();
    assert_eq!(run.engine.take_gap(), Some(away));
    assert_eq!(run.engine.counters().gaps, 1);
}

#[test]
fn a_wrong_type_is_parked_the_second_time() {
    let mut run = Run::new(Kind::Standalone);
    run.refuse(Trouble::WrongType);
    assert_eq!(run.engine.state(), StateName::Backoff);
    run.refuse(Trouble::NoConnection);
    run.refuse(Trouble::WrongType);
    assert_eq!(run.engine.state(), StateName::Backoff, "not in a row");
    run.refuse(Trouble::WrongType);
    assert_eq!(run.parking(), Some(Parking::WrongType));
}

#[test]
fn an_oversized_event_parks_and_drops_the_cursor() {
    let mut run = Run::open(Kind::Standalone);
    run.event(Some("1"), "x");
    run.fail(Trouble::TooLarge);
    assert_eq!(run.parking(), Some(Parking::TooLarge));
    assert_eq!(run.next_cursor(), None);
}

#[test]
fn a_conflict_waits_five_seconds() {
    let mut run = Run::new(Kind::Standalone);
    run.refuse(refused(409));
    let (waited, _) = run.attempt();
    assert!(waited >= 5 * SECOND);
}

#[test]
fn a_new_session_starts_afresh() {
    let mut run = Run::open(Kind::Standalone);
    run.event(Some("1"), "x");
    run.fail(Trouble::Reset);
    run.refuse(lost_session());
    assert_eq!(run.fault().kind, FaultKind::SessionLost);
    run.tell(Input::NewSession);
    let (waited, attempt) = run.attempt();
    assert_eq!(waited, Duration::ZERO);
    assert_eq!((cursor(&attempt), attempt.number), (None, 1));
    run.tell(Input::Opened);
    assert_eq!(
        run.event(Some("1"), "x"),
        Verdict::Deliver,
        "the window ended"
    );
}

#[test]
fn a_new_session_frees_a_refused_stream() {
    let mut run = Run::open(Kind::Listen);
    run.fail(Trouble::Reset);
    run.refuse(refused(405));
    assert_eq!(run.parking(), Some(Parking::NotOffered));
    run.tell(Input::NewSession);
    let (waited, attempt) = run.attempt();
    assert_eq!((waited, attempt.opening), (Duration::ZERO, Opening::Listen));
}

#[test]
fn hurry_ends_a_wait() {
    let mut run = Run::new(Kind::Standalone);
    run.refuse(refused(401));
    run.tell(Input::Hurry);
    assert_eq!(run.reconnect(), Duration::ZERO);
    run.fail(Trouble::Reset);
    run.tell(Input::Hurry);
    assert_eq!(run.reconnect(), Duration::ZERO);
}

/// A session that its client has opened.
fn session() -> Run {
    let mut run = Run::new(Kind::Session);
    run.tell(Input::Opened);
    run
}

#[test]
fn a_session_that_is_lost_ten_times_is_parked() {
    let mut run = session();
    for loss in 1..=10 {
        run.fail(Trouble::Ended);
        assert_eq!(run.engine.health(run.now).unproductive, loss);
        if loss == 10 {
            break;
        }
        let (_, attempt) = run.attempt();
        assert_eq!(attempt.opening, Opening::Session);
        run.tell(Input::Opened);
    }
    assert_eq!(run.parking(), Some(Parking::OutOfBudget));
    let (waited, _) = run.attempt();
    assert!((48 * SECOND..=72 * SECOND).contains(&waited));
}

#[test]
fn a_message_or_a_long_time_makes_a_session_productive() {
    let mut run = session();
    run.fail(Trouble::Ended);
    run.reconnect();
    run.engine.delivered();
    run.fail(Trouble::Ended);
    assert_eq!(run.engine.health(run.now).unproductive, 0);
    assert!(run.reconnect() < SECOND, "at once, but spread");
    run.fail(Trouble::Ended);
    run.reconnect();
    run.pass(30 * SECOND);
    run.fail(Trouble::Ended);
    assert_eq!(run.engine.health(run.now).unproductive, 0);
    // What comes while there is no session belongs to none.
    run.engine.delivered();
    run.reconnect();
    run.fail(Trouble::Ended);
    assert_eq!(run.engine.health(run.now).unproductive, 1);
}

#[test]
fn a_session_may_be_lost_before_it_was_ever_open() {
    let mut run = Run::new(Kind::Session);
    run.fail(Trouble::NoHead);
    let (waited, attempt) = run.attempt();
    assert!((SECOND..=2 * SECOND).contains(&waited), "{waited:?}");
    assert_eq!(attempt.number, 2);
    run.tell(Input::Opened);
    let away = std::iter::from_fn(|| run.engine.poll_transition()).find_map(|moved| moved.away);
    assert_eq!(away, Some(waited));
}

/// Its client's opening is an attempt, too.
#[test]
fn a_session_that_is_lost_at_once_is_not_made_anew_at_once() {
    let mut run = session();
    run.engine.delivered();
    run.fail(Trouble::Ended);
    assert!(run.reconnect() >= 250 * MS);
}

#[test]
fn a_server_that_wants_time_before_a_new_session_gets_it() {
    let mut run = session();
    run.fail(Trouble::Ended);
    run.attempt();
    let retry_after = Some(20 * SECOND);
    run.fail(Trouble::NoSession { retry_after });
    let (waited, _) = run.attempt();
    assert!((20 * SECOND..21 * SECOND).contains(&waited), "{waited:?}");
    let retry_after = None;
    run.fail(Trouble::NoSession { retry_after });
    assert!(run.reconnect() < 6 * SECOND);
    // The last hint counts even when nothing is tried soon.
    let mut run = session();
    run.fail(Trouble::Ended);
    for _ in 0..10 {
        run.refuse(Trouble::NoSession {
            retry_after: Some(200 * SECOND),
        });
    }
    let (waited, _) = run.attempt();
    assert!((200 * SECOND..201 * SECOND).contains(&waited), "{waited:?}");
}

#[test]
fn a_session_that_cannot_be_had_is_probed_whatever_the_reason() {
    for trouble in [
        Trouble::Tls,
        Trouble::Redirected { keeps_method: true },
        refused(401),
        refused(405),
    ] {
        let mut run = session();
        run.fail(Trouble::Ended);
        run.refuse(trouble);
        assert_eq!(run.engine.state(), StateName::Parked, "{trouble:?}");
        let (waited, _) = run.attempt();
        assert!((48 * SECOND..=72 * SECOND).contains(&waited));
    }
}

#[test]
fn a_listen_that_is_answered_is_done() {
    let mut run = Run::open(Kind::Listen);
    run.tell(Input::Answered);
    assert_eq!(run.poll(), Action::Finish(Finish::Done));
}

#[test]
fn a_listen_that_was_never_open_fails_like_any_request() {
    for (trouble, kind, executed) in [
        (refused(500), FaultKind::Status, Executed::Unknown),
        (refused(404), FaultKind::Status, Executed::No),
        (refused(401), FaultKind::Unauthorized, Executed::No),
        (
            Trouble::NoHead,
            FaultKind::ConnectionLost,
            Executed::Unknown,
        ),
        (
            Trouble::WrongType,
            FaultKind::ContentType,
            Executed::Unknown,
        ),
    ] {
        let mut run = Run::new(Kind::Listen);
        let (waited, attempt) = run.attempt();
        assert_eq!((waited, attempt.opening), (Duration::ZERO, Opening::Listen));
        run.fail(trouble);
        let fault = run.fault();
        assert_eq!(
            (fault.kind, fault.executed),
            (kind, executed),
            "{trouble:?}"
        );
    }
    let mut run = Run::new(Kind::Listen);
    run.refuse(Trouble::NoConnection);
    run.refuse(busy(429, 3));
    run.reconnect();
    run.fail(Trouble::Ended);
    assert!(run.reconnect() < 2 * SECOND, "issued again");
}

#[test]
fn a_listen_is_answered_with_or_without_a_stream() {
    let mut run = Run::new(Kind::Listen);
    run.attempt();
    run.tell(Input::Answered);
    assert_eq!(run.poll(), Action::Finish(Finish::Done));
}
