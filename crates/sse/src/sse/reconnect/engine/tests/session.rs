//! Events that other streams of the session bring, or have brought.

use super::super::super::SessionWindow;
use super::*;

#[test]
fn what_is_left_to_another_stream_is_as_if_it_had_not_come() {
    let mut run = Run::open(Kind::Response);
    run.event(Some("1"), "one");
    run.fail(Trouble::Reset);
    run.reconnect();
    for _ in 0..2 {
        assert_eq!(run.item(&event(Some("b1"), "other")), Verdict::Deliver);
        run.engine.leave();
    }
    let counters = run.engine.counters();
    assert_eq!((counters.delivered, counters.committed), (1, 1));
    assert_eq!(counters.duplicates, 0);
    run.fail(Trouble::Reset);
    let (_, attempt) = run.attempt();
    assert_eq!(cursor(&attempt).as_deref(), Some("1"));
    assert_eq!(attempt.number, 2, "unproductive");
}

#[test]
fn what_is_left_does_not_drive_out_what_is_remembered() {
    let policy = Policy {
        dedup_window: 2,
        ..Policy::default()
    };
    let mut run = Run::with(Kind::Response, policy);
    run.reconnect();
    run.event(Some("1"), "one");
    run.event(Some("2"), "two");
    run.fail(Trouble::Reset);
    run.reconnect();
    for id in ["b1", "b2", "b3"] {
        run.item(&event(Some(id), "other"));
        run.engine.leave();
    }
    assert_eq!(run.event(Some("1"), "one"), Verdict::Duplicate);
    assert_eq!(run.event(Some("2"), "two"), Verdict::Duplicate);
    assert_eq!(run.engine.counters().window_overflow, 0);
}

#[test]
fn what_another_stream_delivered_is_a_duplicate() {
    let mut run = Run::open(Kind::Standalone);
    run.event(Some("1"), "one");
    run.fail(Trouble::Reset);
    run.reconnect();
    run.item(&event(Some("b1"), "other"));
    run.engine.repeated();
    let counters = run.engine.counters();
    assert_eq!((counters.delivered, counters.duplicates), (1, 1));
    run.fail(Trouble::Reset);
    assert_eq!(run.next_cursor().as_deref(), Some("1"));
}

#[test]
fn what_another_stream_was_ahead_with_is_the_stream_s_own() {
    let mut run = Run::open(Kind::Standalone);
    run.item(&event(Some("1"), "one"));
    run.engine.repeated();
    assert_eq!(run.engine.counters().duplicates, 1);
    run.fail(Trouble::Reset);
    let (_, attempt) = run.attempt();
    assert_eq!(cursor(&attempt).as_deref(), Some("1"));
    assert_eq!(attempt.number, 2, "unproductive");
}

#[test]
fn an_end_in_order_after_nothing_of_its_own_is_no_poll() {
    let mut run = Run::open(Kind::Response);
    run.event(Some("1"), "one");
    run.fail(Trouble::Reset);
    run.reconnect();
    run.item(&event(Some("b1"), "other"));
    run.engine.leave();
    run.fail(Trouble::Ended);
    assert_eq!(run.engine.counters().polls, 0);
}

#[test]
fn a_message_without_an_id_can_be_left_too() {
    let mut run = Run::open(Kind::Response);
    run.event(Some("1"), "one");
    run.item(&event(None, "other"));
    assert_eq!(run.engine.key(), None);
    run.engine.leave();
    run.fail(Trouble::Reset);
    run.reconnect();
    assert_eq!(run.event(Some("1"), "one"), Verdict::Duplicate);
}

#[test]
fn leaving_what_was_accepted_is_nothing() {
    let mut run = Run::open(Kind::Response);
    run.event(Some("1"), "one");
    run.engine.leave();
    assert_eq!(run.engine.counters().delivered, 1);
    run.fail(Trouble::Reset);
    assert_eq!(run.next_cursor().as_deref(), Some("1"));
}

#[test]
fn only_a_connection_at_a_cursor_is_resumed() {
    let mut run = Run::open(Kind::Standalone);
    assert!(!run.engine.is_resumed());
    run.fail(Trouble::Reset);
    run.reconnect();
    assert!(!run.engine.is_resumed(), "without a cursor");
    run.event(Some("1"), "one");
    run.fail(Trouble::Reset);
    assert!(!run.engine.is_resumed(), "not open");
    run.reconnect();
    assert!(run.engine.is_resumed());
}

#[test]
fn streams_of_one_session_make_the_same_keys() {
    let window = SessionWindow::new(10, 1);
    let key = |digests: Option<&_>, id| {
        let mut run = Run::open(Kind::Response);
        if let Some(digests) = digests {
            run.engine.digest_with(Digests::clone(digests));
        }
        run.item(&event(Some(id), "one"));
        run.engine.key().unwrap()
    };
    let digests = window.digests();
    let digests = Some(&digests);
    assert_eq!(key(digests, "1"), key(digests, "1"));
    assert_ne!(key(digests, "1"), key(digests, "2"));
    assert_ne!(key(digests, "1"), key(None, "1"));
}

#[test]
fn a_key_is_of_the_last_item_and_of_no_duplicate() {
    let mut run = Run::open(Kind::Response);
    run.item(&event(Some("p"), ""));
    assert!(run.engine.key().is_some(), "priming");
    run.item(&Item::Comment);
    assert_eq!(run.engine.key(), None);
    run.item(&event(Some("p"), ""));
    assert_eq!(run.engine.key(), None);
    let policy = Policy {
        dedup_window: 0,
        ..Policy::default()
    };
    let mut run = Run::with(Kind::Response, policy);
    run.reconnect();
    run.item(&event(Some("1"), "one"));
    assert_eq!(run.engine.key(), None);
}
