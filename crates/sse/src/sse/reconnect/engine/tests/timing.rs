//! Waits, polls, hints and silence.

use super::*;

fn productive(kind: Kind) -> Run {
    let mut run = Run::open(kind);
    run.event(Some("1"), "x");
    run.pass(2 * SECOND);
    run
}

#[test]
fn after_a_productive_connection_it_returns_at_once_but_spread() {
    let mut run = productive(Kind::Standalone);
    run.fail(Trouble::Reset);
    let (waited, attempt) = run.attempt();
    assert!(waited < 300 * MS, "{waited:?}");
    assert_eq!(attempt.number, 1);
}

#[test]
fn failures_wait_longer_and_longer() {
    let mut run = Run::new(Kind::Standalone);
    run.refuse(refused(500));
    for least in [1, 2, 4, 8, 16, 30, 30, 30] {
        let waited = run.refuse(refused(500));
        let least = least * SECOND;
        assert!(
            waited >= least && waited <= least.mul_f64(1.3),
            "{waited:?}"
        );
    }
}

#[test]
fn a_200_does_not_reset_the_count() {
    let mut run = Run::new(Kind::Standalone);
    for least in [0, 1, 2, 4] {
        let waited = run.reconnect();
        assert!(waited >= least * SECOND, "{waited:?}");
        run.item(&Item::Comment);
        run.fail(Trouble::Ended);
    }
}

#[test]
fn thirty_seconds_open_are_productive() {
    let mut run = Run::new(Kind::Standalone);
    for _ in 0..5 {
        run.refuse(refused(500));
    }
    run.reconnect();
    run.pass(30 * SECOND);
    run.fail(Trouble::Reset);
    let (waited, _) = run.attempt();
    assert!(waited < 300 * MS, "{waited:?}");
}

#[test]
fn two_attempts_start_250_ms_apart() {
    let policy = Policy {
        initial: MS,
        ..Policy::default()
    };
    let mut run = Run::with(Kind::Standalone, policy);
    run.reconnect();
    for _ in 0..5 {
        run.event(None, "x");
        let from = run.now;
        run.fail(Trouble::Reset);
        run.reconnect();
        assert!(run.now - from >= 250 * MS);
    }
    run.event(None, "x");
    run.pass(SECOND);
    run.fail(Trouble::Reset);
    assert!(run.reconnect() <= MS, "it was open for a second");
}

#[test]
fn retry_is_clamped_from_below() {
    let mut run = productive(Kind::Standalone);
    run.item(&Item::Retry(Duration::ZERO));
    run.fail(Trouble::Reset);
    let (waited, _) = run.attempt();
    assert!((250 * MS..450 * MS).contains(&waited), "{waited:?}");
}

#[test]
fn retry_is_clamped_from_above() {
    let mut run = productive(Kind::Standalone);
    run.item(&Item::Retry(Duration::from_secs(3600)));
    run.fail(Trouble::Reset);
    let (waited, _) = run.attempt();
    assert!(
        (300 * SECOND..=301 * SECOND).contains(&waited),
        "{waited:?}"
    );
}

#[test]
fn the_latest_retry_wins_and_lasts() {
    let mut run = productive(Kind::Standalone);
    run.item(&Item::Retry(10 * SECOND));
    run.item(&Item::Retry(2 * SECOND));
    run.fail(Trouble::Reset);
    let waited = run.reconnect();
    assert!((2 * SECOND..3 * SECOND).contains(&waited), "{waited:?}");
    run.event(Some("2"), "y");
    run.fail(Trouble::Reset);
    assert!(run.reconnect() >= 2 * SECOND);
}

/// What no clock can tell is waited for all the same.
#[test]
fn no_wait_overflows() {
    let endless = |kind, status, max_attempts| {
        let policy = Policy {
            hint_max: Duration::MAX,
            max_attempts,
            ..Policy::default()
        };
        let mut run = Run::with(kind, policy);
        run.refuse(busy(status, u64::MAX));
        let action = run.poll();
        let far = run.now + Duration::from_secs(1 << 31);
        assert!(
            matches!(action, Action::Wait(Some(until)) if until > far),
            "{kind:?} {status}: {action:?}"
        );
        run.engine.state()
    };
    for status in [429, 503] {
        assert_eq!(endless(Kind::Standalone, status, 10), StateName::Backoff);
        assert_eq!(endless(Kind::Standalone, status, 1), StateName::Parked);
        assert_eq!(endless(Kind::Response, status, 10), StateName::Backoff);
    }
}

#[test]
fn an_endless_spread_is_given_up() {
    let policy = Policy {
        jitter: f64::MAX,
        ..Policy::default()
    };
    let mut run = Run::with(Kind::Response, policy);
    run.attempt();
    run.tell(Input::Failed(Trouble::NoConnection));
    assert_eq!(run.fault().kind, FaultKind::Connect);
}

#[test]
fn retry_after_is_honoured_and_clamped() {
    for (asked, granted) in [(7, 7), (100_000, 300)] {
        let mut run = Run::new(Kind::Standalone);
        run.refuse(busy(429, asked));
        let (waited, _) = run.attempt();
        let granted = granted * SECOND;
        assert!((granted..=granted + SECOND).contains(&waited), "{waited:?}");
    }
}

#[test]
fn a_503_with_retry_after_holds_the_other_streams_but_no_post() {
    let mut run = Run::open(Kind::Standalone);
    let mut other = Engine::new(Kind::Standalone, Policy::default(), 9);
    let action = other.poll(run.now, &mut run.origin, Waker::noop());
    assert!(matches!(action, Action::Connect(_)));
    let input = Input::Failed(busy(503, 20));
    other.handle(run.now, &mut run.origin, input).unwrap();
    let mut post = Engine::new(Kind::Response, Policy::default(), 10);
    let action = post.poll(run.now, &mut run.origin, Waker::noop());
    assert!(matches!(action, Action::Connect(_)));
    run.event(None, "x");
    run.fail(Trouble::Reset);
    let (waited, _) = run.attempt();
    assert!(waited >= 20 * SECOND, "{waited:?}");
}

#[test]
fn a_429_holds_only_its_own_stream() {
    let mut run = productive(Kind::Standalone);
    let mut other = Engine::new(Kind::Standalone, Policy::default(), 9);
    other.poll(run.now, &mut run.origin, Waker::noop());
    let input = Input::Failed(busy(429, 20));
    other.handle(run.now, &mut run.origin, input).unwrap();
    run.fail(Trouble::Reset);
    assert!(run.attempt().0 < SECOND);
}

#[test]
fn a_poll_is_no_failure() {
    let mut run = Run::open(Kind::Response);
    run.item(&event(Some("p"), ""));
    for _ in 0..10 {
        run.item(&Item::Retry(500 * MS));
        run.fail(Trouble::Ended);
        let (waited, attempt) = run.attempt();
        assert!((500 * MS..700 * MS).contains(&waited), "{waited:?}");
        assert_eq!(attempt.number, 1);
        run.tell(Input::Opened);
    }
    assert_eq!(run.engine.counters().polls, 10);
    assert_eq!(run.engine.counters().drops, 0);
}

#[test]
fn a_new_id_makes_a_poll_too() {
    let mut run = Run::open(Kind::Response);
    for id in ["a", "b", "c"] {
        run.item(&event(Some(id), ""));
        run.fail(Trouble::Ended);
        let (_, attempt) = run.attempt();
        assert_eq!(attempt.number, 1);
        run.tell(Input::Opened);
    }
}

#[test]
fn polls_without_a_message_slow_down() {
    let mut run = Run::open(Kind::Response);
    run.item(&event(Some("p"), ""));
    let mut waits = Vec::new();
    for _ in 0..40 {
        run.item(&Item::Retry(500 * MS));
        run.fail(Trouble::Ended);
        waits.push(run.reconnect());
    }
    assert!(waits[..10].iter().all(|wait| *wait < SECOND), "{waits:?}");
    assert!(waits[10..].iter().all(|wait| *wait >= 5 * SECOND));
    run.event(Some("m"), "message");
    run.item(&Item::Retry(500 * MS));
    run.fail(Trouble::Ended);
    assert!(run.reconnect() < SECOND, "a message makes it fast again");
}

#[test]
fn a_reset_is_no_poll() {
    let mut run = Run::open(Kind::Response);
    run.item(&event(Some("p"), ""));
    run.fail(Trouble::Reset);
    let (waited, attempt) = run.attempt();
    assert!(waited >= SECOND);
    assert_eq!(attempt.number, 2);
}

#[test]
fn a_connection_that_does_not_come_about_is_given_up() {
    let mut run = Run::new(Kind::Standalone);
    run.attempt();
    assert_eq!(run.poll(), Action::AwaitHead(Some(run.now + 15 * SECOND)));
    run.tell(Input::Connected);
    assert_eq!(run.poll(), Action::AwaitHead(Some(run.now + 10 * SECOND)));
    run.pass(10 * SECOND);
    assert!(matches!(run.poll(), Action::Wait(Some(_))));
}

#[test]
fn a_post_s_head_has_no_deadline_of_ours() {
    let mut run = Run::new(Kind::Response);
    run.attempt();
    run.tell(Input::Connected);
    assert_eq!(run.poll(), Action::AwaitHead(None));
}

#[test]
fn silence_is_death_where_a_reconnect_costs_nothing() {
    for (kind, dies) in [
        (Kind::Standalone, true),
        (Kind::Listen, true),
        (Kind::Response, false),
        (Kind::ModernResponse, false),
        (Kind::LegacySse, false),
        (Kind::Session, false),
    ] {
        let mut run = Run::open(kind);
        let until = dies.then_some(run.now + 300 * SECOND);
        assert_eq!(run.poll(), Action::Read(until), "{kind:?}");
    }
    let mut run = productive(Kind::Response);
    assert_eq!(run.poll(), Action::Read(Some(run.now + 300 * SECOND)));
    run.pass(300 * SECOND);
    assert!(matches!(run.poll(), Action::Wait(Some(_))));
}

#[test]
fn comments_tell_the_period() {
    let mut run = Run::open(Kind::ModernResponse);
    run.item(&Item::Comment);
    for seen in 0..3 {
        let until = (seen > 1).then_some(run.now + 12 * SECOND);
        assert_eq!(run.poll(), Action::Read(until), "{seen}");
        run.pass(4 * SECOND);
        run.item(&Item::Comment);
    }
    let health = run.engine.health(run.now);
    assert_eq!(health.comment_period, Some(4 * SECOND));
}

#[test]
fn a_short_period_still_gets_five_seconds() {
    let mut run = Run::open(Kind::Standalone);
    for _ in 0..5 {
        run.poll();
        run.pass(SECOND);
        run.item(&Item::Comment);
    }
    assert_eq!(run.poll(), Action::Read(Some(run.now + 5 * SECOND)));
}

#[test]
fn a_slow_reader_of_ours_is_no_silence() {
    let mut run = Run::open(Kind::Standalone);
    run.poll();
    run.item(&event(Some("1"), "x"));
    run.pass(3600 * SECOND);
    run.engine.commit();
    assert_eq!(run.poll(), Action::Read(Some(run.now + 300 * SECOND)));
}

#[test]
fn comments_that_waited_for_our_reader_tell_no_period() {
    let mut run = Run::open(Kind::ModernResponse);
    run.pass(60 * SECOND);
    for _ in 0..5 {
        run.item(&Item::Comment);
        run.pass(MS);
    }
    assert_eq!(run.poll(), Action::Read(None));
}

#[test]
fn our_own_close_of_a_silent_stream_leaves_the_count_alone() {
    let mut run = Run::new(Kind::Standalone);
    run.refuse(refused(500));
    run.reconnect();
    for _ in 0..4 {
        run.poll();
        run.pass(SECOND);
        run.item(&Item::Comment);
    }
    run.poll();
    run.pass(5 * SECOND);
    let (_, attempt) = run.attempt();
    assert_eq!(attempt.number, 2);
}

#[test]
fn health_says_how_alive_a_stream_seems() {
    let mut run = Run::open(Kind::Standalone);
    run.event(Some("1"), "x");
    run.poll();
    let health = run.engine.health(run.now);
    assert_eq!(health.liveness, Liveness::Healthy);
    assert!(health.resumable);
    assert_eq!(run.engine.degrades_at(), Some(run.now + 150 * SECOND));
    run.pass(149 * SECOND);
    assert_eq!(run.engine.health(run.now).liveness, Liveness::Healthy);
    run.pass(SECOND);
    let health = run.engine.health(run.now);
    assert_eq!(health.liveness, Liveness::Degraded);
    assert_eq!(health.last_byte_age, Some(150 * SECOND));
    run.pass(150 * SECOND);
    assert_eq!(run.engine.health(run.now).liveness, Liveness::Dead);
    run.poll();
    let health = run.engine.health(run.now);
    assert_eq!((health.state, health.open_for), (StateName::Backoff, None));
    assert_eq!(run.engine.degrades_at(), None);
}
