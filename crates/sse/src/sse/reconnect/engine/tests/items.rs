//! Cursor and deduplication.

use super::*;

#[test]
fn the_cursor_is_what_was_accepted() {
    let mut run = Run::open(Kind::Standalone);
    run.event(Some("1"), "one");
    assert_eq!(run.item(&event(Some("2"), "two")), Verdict::Deliver);
    run.fail(Trouble::Reset);
    assert_eq!(run.next_cursor().as_deref(), Some("1"));
}

#[test]
fn an_event_without_id_keeps_the_cursor_over_reconnects() {
    let mut run = Run::open(Kind::Standalone);
    run.event(Some("1"), "one");
    for _ in 0..3 {
        run.fail(Trouble::Reset);
        assert_eq!(run.next_cursor().as_deref(), Some("1"));
        run.tell(Input::Opened);
        run.event(None, "no id");
    }
}

#[test]
fn an_empty_id_resets_the_cursor() {
    let mut run = Run::open(Kind::Standalone);
    run.event(Some("1"), "one");
    run.event(Some(""), "reset");
    run.fail(Trouble::Reset);
    assert_eq!(run.next_cursor(), None);
}

#[test]
fn events_without_id_are_never_duplicates() {
    let mut run = Run::open(Kind::Standalone);
    run.event(Some("1"), "one");
    for _ in 0..3 {
        assert_eq!(run.event(None, "same"), Verdict::Deliver);
        assert_eq!(run.event(Some(""), "same"), Verdict::Deliver);
    }
}

#[test]
fn a_replay_is_dropped_and_does_not_move_the_cursor() {
    let mut run = Run::open(Kind::Standalone);
    for id in ["1", "2", "3"] {
        run.event(Some(id), id);
    }
    run.fail(Trouble::Reset);
    run.reconnect();
    assert_eq!(run.event(Some("1"), "1"), Verdict::Duplicate);
    assert_eq!(run.event(Some("2"), "2"), Verdict::Duplicate);
    run.fail(Trouble::Reset);
    assert_eq!(run.next_cursor().as_deref(), Some("3"));
    assert_eq!(run.engine.counters().duplicates, 2);
}

#[test]
fn an_event_that_was_handed_over_is_not_handed_over_again() {
    let mut run = Run::open(Kind::Standalone);
    run.event(Some("1"), "one");
    assert_eq!(run.item(&event(Some("2"), "two")), Verdict::Deliver);
    run.fail(Trouble::Reset);
    run.reconnect();
    assert_eq!(run.event(Some("2"), "two"), Verdict::Duplicate);
}

#[test]
fn a_reused_id_is_delivered_and_counted() {
    let mut run = Run::open(Kind::Standalone);
    run.event(Some("1"), "one");
    assert_eq!(run.event(Some("1"), "other"), Verdict::Deliver);
    assert_eq!(run.engine.counters().reused_ids, 1);
}

#[test]
fn a_full_window_is_counted() {
    let policy = Policy {
        dedup_window: 2,
        ..Policy::default()
    };
    let mut run = Run::with(Kind::Standalone, policy);
    run.reconnect();
    for id in ["1", "2", "3"] {
        run.event(Some(id), "x");
    }
    assert_eq!(run.engine.counters().window_overflow, 1);
}

#[test]
fn priming_moves_the_cursor_and_is_no_message() {
    for priming in [event(Some("p"), ""), Item::IdOnly(Bytes::from_static(b"p"))] {
        let mut run = Run::open(Kind::Response);
        assert_eq!(run.item(&priming), Verdict::Noted);
        run.fail(Trouble::Reset);
        assert_eq!(run.next_cursor().as_deref(), Some("p"));
        assert_eq!(run.engine.counters().delivered, 0);
    }
}

#[test]
fn priming_does_not_commit_what_is_on_its_way() {
    let mut run = Run::open(Kind::Standalone);
    run.event(Some("1"), "one");
    run.item(&event(Some("2"), "two"));
    run.item(&event(Some("p"), ""));
    run.fail(Trouble::Reset);
    assert_eq!(run.next_cursor().as_deref(), Some("1"));
}

#[test]
fn priming_that_is_replayed_does_not_move_the_cursor_back() {
    let mut run = Run::open(Kind::Standalone);
    run.item(&event(Some("p"), ""));
    run.event(Some("1"), "one");
    run.fail(Trouble::Reset);
    run.reconnect();
    assert_eq!(run.item(&event(Some("p"), "")), Verdict::Duplicate);
    run.fail(Trouble::Reset);
    assert_eq!(run.next_cursor().as_deref(), Some("1"));
}

#[test]
fn empty_data_can_be_an_event_like_others() {
    let policy = Policy {
        empty_data_primes: false,
        ..Policy::default()
    };
    let mut run = Run::with(Kind::Standalone, policy);
    run.reconnect();
    assert_eq!(run.event(Some("1"), ""), Verdict::Deliver);
}

#[test]
fn an_id_that_cannot_be_sent_is_counted() {
    let mut run = Run::open(Kind::Standalone);
    run.event(Some("1"), "one");
    run.event(Some("\u{1}"), "two");
    assert_eq!(run.engine.counters().unusable_ids, 1);
    run.fail(Trouble::Reset);
    assert_eq!(run.next_cursor().as_deref(), Some("1"));
}

#[test]
fn what_is_skipped_moves_the_cursor_but_proves_nothing() {
    let mut run = Run::open(Kind::Standalone);
    run.item(&event(Some("1"), "no message"));
    run.engine.skip();
    run.fail(Trouble::Reset);
    let (_, attempt) = run.attempt();
    assert_eq!(cursor(&attempt).as_deref(), Some("1"));
    assert_eq!(attempt.number, 2, "unproductive");
    assert_eq!(run.engine.counters().skipped, 1);
}

#[test]
fn a_commit_of_nothing_is_nothing() {
    let mut run = Run::open(Kind::Standalone);
    run.engine.commit();
    run.engine.skip();
    run.fail(Trouble::Reset);
    let (_, attempt) = run.attempt();
    assert_eq!(attempt.number, 2);
    assert_eq!(run.engine.counters().committed, 0);
}

#[test]
fn a_stream_can_start_where_another_program_left_it() {
    let start = Cursor::parse(b"41").unwrap();
    let mut run = Run::new(Kind::Standalone);
    run.engine = Engine::starting_at(&start, Policy::default(), 1);
    assert_eq!(run.next_cursor().as_deref(), Some("41"));
}

#[test]
fn kinds_without_a_cursor_never_send_one() {
    for kind in [Kind::Listen, Kind::LegacySse, Kind::Session] {
        let mut run = Run::open(kind);
        run.event(Some("1"), "one");
        run.fail(Trouble::Reset);
        assert_eq!(run.next_cursor(), None, "{kind:?}");
        run.tell(Input::Opened);
        assert_eq!(run.event(Some("1"), "one"), Verdict::Deliver);
    }
}
