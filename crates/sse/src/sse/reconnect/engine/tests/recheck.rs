//! Resumed answers whose server says nothing more on the stream.

use super::*;

/// An answer that broke at event 1 and was resumed; nothing came since.
fn resumed() -> Run {
    resumed_with(Policy::default())
}

fn resumed_with(policy: Policy) -> Run {
    let mut run = Run::with(Kind::Response, policy);
    run.reconnect();
    run.event(Some("1"), "progress");
    run.fail(Trouble::Reset);
    run.reconnect();
    run
}

/// Reads in vain until the engine closes the connection; how long that took.
#[track_caller]
fn silence(run: &mut Run) -> Duration {
    let from = run.now;
    for _ in 0..1000 {
        match run.poll() {
            Action::Read(Some(until)) => run.now = until,
            Action::Wait(Some(_)) => return run.now - from,
            other => panic!("{other:?}"),
        }
    }
    panic!("nothing happens");
}

/// The same, and the way back.
#[track_caller]
fn recheck(run: &mut Run) -> Duration {
    let silent = silence(run);
    run.reconnect();
    silent
}

fn unproductive(run: &Run) -> u32 {
    run.engine.health(run.now).unproductive
}

#[test]
fn a_resumed_answer_that_stays_silent_is_asked_for_again_soon() {
    let mut run = resumed();
    let silent: Vec<_> = (0..6).map(|_| recheck(&mut run).as_secs()).collect();
    assert_eq!(silent, [2, 4, 8, 10, 10, 10]);
    run.event(Some("2"), "result");
    run.tell(Input::Answered);
    let counters = run.engine.counters();
    assert_eq!(counters.rechecks, 6);
}

#[test]
fn it_is_our_own_doing_and_no_failure() {
    let mut run = resumed();
    run.fail(Trouble::Reset);
    run.reconnect();
    assert_eq!(unproductive(&run), 1);
    let before = run.engine.counters();
    for _ in 0..50 {
        silence(&mut run);
        let (waited, attempt) = run.attempt();
        assert!((250 * MS..=325 * MS).contains(&waited), "{waited:?}");
        assert_eq!(cursor(&attempt).as_deref(), Some("1"));
        run.tell(Input::Opened);
    }
    assert_eq!(unproductive(&run), 1);
    let after = run.engine.counters();
    assert_eq!(after.drops, before.drops);
    assert_eq!(after.polls, before.polls);
    assert_eq!(after.resumed, before.resumed);
    assert_eq!(after.exhausted, 0);
    let transitions = std::iter::from_fn(|| run.engine.poll_transition());
    let moved: Vec<_> = transitions
        .filter(|moved| moved.from == StateName::Open)
        .collect();
    assert!(moved.iter().all(|moved| moved.cause == Cause::Recheck));
}

#[test]
fn only_a_resumed_answer_is_rechecked() {
    let mut run = Run::open(Kind::Response);
    run.event(Some("1"), "progress");
    assert_eq!(silence(&mut run), 300 * SECOND, "the POST's own stream");
    let mut run = Run::open(Kind::Standalone);
    run.event(Some("1"), "x");
    run.fail(Trouble::Reset);
    run.reconnect();
    assert_eq!(silence(&mut run), 300 * SECOND);
}

#[test]
fn an_answer_whose_cursor_was_reset_is_not_rechecked() {
    let mut run = resumed();
    run.event(Some(""), "reset");
    assert_eq!(run.poll(), Action::Read(None));
}

/// They show that the connection stands, not that the server will use it for the answer.
#[test]
fn what_brings_nothing_new_is_silence() {
    for noise in [
        Item::Comment,
        Item::Retry(300 * MS),
        event(Some("1"), "progress"),
        event(Some("1"), ""),
        event(None, ""),
    ] {
        let mut run = resumed();
        // After a pause of a second a repeated event is no replay.
        for pause in [1000, 400, 400] {
            assert!(matches!(run.poll(), Action::Read(Some(_))));
            run.pass(pause * MS);
            if run.item(&noise) == Verdict::Deliver {
                run.engine.skip();
            }
        }
        assert_eq!(silence(&mut run), 200 * MS, "{noise:?}");
        assert_eq!(run.engine.counters().rechecks, 1);
    }
}

#[test]
fn an_event_that_is_on_its_way_is_waited_for() {
    let mut run = resumed();
    for _ in 0..10 {
        run.poll();
        run.pass(SECOND);
        run.engine.received(run.now);
        run.engine.holds_part();
    }
    assert_eq!(run.poll(), Action::Read(Some(run.now + 5 * SECOND)));
    assert_eq!(run.event(Some("2"), "long"), Verdict::Deliver);
    run.poll();
    assert_eq!(run.engine.counters().rechecks, 0);
    // Bytes that are no part of one are no sign.
    let mut run = resumed();
    run.poll();
    run.pass(1500 * MS);
    run.engine.received(run.now);
    assert_eq!(silence(&mut run), 500 * MS);
}

#[test]
fn a_slow_reader_of_ours_is_no_silent_server() {
    let mut run = resumed();
    run.poll();
    assert_eq!(run.item(&event(Some("2"), "x")), Verdict::Deliver);
    run.pass(3600 * SECOND);
    run.engine.commit();
    assert_eq!(run.poll(), Action::Read(Some(run.now + 2 * SECOND)));
}

/// The server replays and says no more: what came at once is no sign that it will.
#[test]
fn a_replayed_message_is_asked_after_soon_again() {
    let mut run = resumed();
    for _ in 0..3 {
        recheck(&mut run);
    }
    run.event(Some("2"), "progress");
    assert_eq!(recheck(&mut run), 2 * SECOND);
    assert_eq!(recheck(&mut run), 4 * SECOND);
}

#[test]
fn a_replayed_message_is_new_all_the_same() {
    let mut run = resumed();
    run.fail(Trouble::Reset);
    run.reconnect();
    assert_eq!(unproductive(&run), 1);
    run.event(Some("2"), "progress");
    recheck(&mut run);
    assert_eq!(unproductive(&run), 0);
}

/// The server has shown that it speaks on a resumed stream.
#[test]
fn a_message_that_comes_by_itself_makes_it_rare() {
    let mut run = resumed();
    run.poll();
    run.pass(1500 * MS);
    run.event(Some("2"), "progress");
    run.event(Some("3"), "progress");
    assert_eq!(recheck(&mut run), 30 * SECOND);
    assert_eq!(recheck(&mut run), 30 * SECOND);
    // What came on the POST's own stream says nothing about resumed ones.
    let mut run = Run::open(Kind::Response);
    run.poll();
    run.pass(1500 * MS);
    run.event(Some("1"), "progress");
    run.fail(Trouble::Reset);
    run.reconnect();
    assert_eq!(recheck(&mut run), 2 * SECOND);
}

#[test]
fn a_server_that_spoke_may_fall_silent() {
    let mut run = resumed();
    run.poll();
    run.pass(1500 * MS);
    run.event(Some("2"), "progress");
    recheck(&mut run);
    // What was in the store though the connection stood tells that it does not.
    run.event(Some("3"), "progress");
    assert_eq!(recheck(&mut run), 2 * SECOND);
}

/// The server says that it still holds the stream that we had: it would have spoken there.
#[test]
fn a_conflict_makes_it_rare() {
    let mut run = resumed();
    silence(&mut run);
    run.refuse(refused(409));
    assert!(run.reconnect() >= 5 * SECOND);
    assert_eq!(recheck(&mut run), 30 * SECOND);
    assert_eq!(unproductive(&run), 0, "it was open for 30 s");
}

#[test]
fn idle_timeout_may_be_shorter() {
    let policy = Policy {
        idle_timeout: 3 * SECOND,
        ..Policy::default()
    };
    let mut run = resumed_with(policy);
    assert_eq!(recheck(&mut run), 2 * SECOND);
    assert_eq!(silence(&mut run), 3 * SECOND);
    assert_eq!(run.engine.counters().rechecks, 1);
    assert_eq!(run.engine.counters().drops, 2);
}

/// A stream is not away for more than a quarter of the time because of us.
#[test]
fn what_takes_long_is_done_rarely() {
    let mut run = resumed();
    run.item(&Item::Retry(5 * SECOND));
    let silent = silence(&mut run);
    assert!((15 * SECOND..16 * SECOND).contains(&silent), "{silent:?}");
    let (waited, _) = run.attempt();
    assert!(waited >= 5 * SECOND, "the server's own time is kept");

    let mut run = resumed();
    silence(&mut run);
    run.attempt();
    run.pass(4 * SECOND);
    run.tell(Input::Opened);
    let silent = silence(&mut run);
    assert!((12 * SECOND..13 * SECOND).contains(&silent), "{silent:?}");
}

#[test]
fn one_that_would_meet_the_deadline_is_put_off_until_then() {
    let mut run = resumed();
    let deadline = run.now + 2100 * MS;
    run.engine.set_deadline(Some(deadline));
    assert_eq!(run.poll(), Action::Read(Some(deadline)));
    // It was moved meanwhile: the engine is asked again then.
    run.now = deadline;
    run.engine.set_deadline(Some(deadline + 60 * SECOND));
    assert!(matches!(run.poll(), Action::Wait(Some(_))));
    assert_eq!(run.engine.counters().rechecks, 1);
}

#[test]
fn one_that_fails_is_a_drop_from_then_on() {
    let mut run = resumed();
    silence(&mut run);
    run.refuse(Trouble::NoConnection);
    assert_eq!(unproductive(&run), 1);
    let (waited, _) = run.attempt();
    run.tell(Input::Opened);
    let transitions = std::iter::from_fn(|| run.engine.poll_transition());
    let opened = transitions.filter(|moved| moved.to == StateName::Open);
    let away = opened.last().unwrap().away;
    assert_eq!(away, Some(waited));
    assert_eq!(run.engine.counters().resumed, 2);
}

/// Whoever has lost a stream goes first, be it one that nobody waits for.
#[test]
fn a_recheck_stands_last_in_line() {
    let mut run = resumed();
    silence(&mut run);
    let mut others: Vec<_> = (0..30)
        .map(|seed| Engine::new(Kind::Standalone, Policy::default(), seed))
        .collect();
    run.pass(SECOND);
    assert!(matches!(run.poll(), Action::Connect(_)), "nobody waits");
    run.tell(Input::Opened);
    silence(&mut run);
    run.pass(SECOND);
    for other in &mut others {
        other.poll(run.now, &mut run.origin, Waker::noop());
    }
    assert!(matches!(run.poll(), Action::Wait(Some(_))));
    assert_eq!(run.engine.state(), StateName::Queued);
    assert!(run.origin.summary(run.now).waiting > 1);
}

/// All drop at once, all are resumed, and none hears anything for two minutes.
#[test]
fn five_hundred_silent_answers_are_no_storm() {
    let mut run = Run::new(Kind::Response);
    let mut engines: Vec<_> = (0..500)
        .map(|seed| Engine::new(Kind::Response, Policy::default(), seed))
        .collect();
    let broken = Input::Failed(Trouble::Reset);
    for engine in &mut engines {
        engine.poll(run.now, &mut run.origin, Waker::noop());
        let opened = engine.handle(run.now, &mut run.origin, Input::Opened);
        opened.unwrap();
        engine.item(run.now, &event(Some("1"), "x")).unwrap();
        engine.commit();
    }
    for engine in &mut engines {
        engine.handle(run.now, &mut run.origin, broken).unwrap();
    }
    let (step, steps) = (50 * MS, 120 * 20);
    let mut opens = [0; 120];
    let mut away = 0;
    for n in 0..steps {
        run.pass(step);
        for engine in &mut engines {
            while let Action::Connect(_) = engine.poll(run.now, &mut run.origin, Waker::noop()) {
                let opened = engine.handle(run.now, &mut run.origin, Input::Opened);
                opened.unwrap();
                opens[n / 20] += 1;
            }
            let open = engine.state() == StateName::Open;
            away += usize::from(n >= steps / 4 && !open);
        }
    }
    let most = opens.iter().max().unwrap();
    assert!(*most <= 70, "{opens:?}");
    let share = away as f64 / (500 * steps * 3 / 4) as f64;
    assert!(share < 0.25, "{share}");
}

#[test]
fn a_replay_of_the_whole_session_is_waited_for() {
    let mut run = resumed();
    for n in 0..100 {
        run.poll();
        run.pass(100 * MS);
        assert_eq!(
            run.item(&event(Some(&format!("b{n}")), "x")),
            Verdict::Deliver
        );
        run.engine.leave();
    }
    assert_eq!(run.engine.counters().rechecks, 0);
    assert_eq!(silence(&mut run), 2 * SECOND);
}

#[test]
fn a_replay_from_the_beginning_is_waited_for() {
    let mut run = resumed();
    for _ in 0..100 {
        run.poll();
        run.pass(100 * MS);
        assert_eq!(run.event(Some("1"), "progress"), Verdict::Duplicate);
    }
    assert_eq!(run.engine.counters().rechecks, 0);
    assert_eq!(silence(&mut run), 2 * SECOND);
}

/// They would be told twice: nothing shows that they were here before.
#[test]
fn events_without_an_id_are_not_replayed_without_need() {
    let mut run = resumed();
    run.event(None, "no id");
    run.poll();
    run.pass(60 * SECOND);
    run.poll();
    assert_eq!(run.engine.counters().rechecks, 0);
    run.event(Some("2"), "id");
    assert_eq!(silence(&mut run), 30 * SECOND, "it speaks by itself");
}

#[test]
fn other_streams_that_go_on_do_not_speak_for_this_one() {
    let mut run = resumed();
    run.poll();
    run.pass(1500 * MS);
    for n in 0..4 {
        run.item(&event(Some(&format!("b{n}")), "x"));
        run.engine.leave();
        run.poll();
        run.pass(100 * MS);
    }
    assert_eq!(silence(&mut run), 100 * MS);
}
