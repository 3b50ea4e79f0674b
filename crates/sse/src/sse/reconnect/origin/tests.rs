//! What streams of one origin may do together.

use super::super::engine::{Action, Engine, Input, Kind};
use super::super::{Policy, Trouble};
use super::*;

const SECOND: Duration = Duration::from_secs(1);

#[allow(clippy::disallowed_methods)]
fn instant() -> Instant {
    Instant::now()
}

fn enqueue(origin: &mut Origin, now: Instant, class: Class) -> Ticket {
    origin.enqueue(now, class, false, 0.5, Waker::noop())
}

fn poll(origin: &mut Origin, now: Instant, ticket: &Ticket) -> Admission {
    origin.poll(now, ticket, Waker::noop())
}

#[track_caller]
fn granted(admission: Admission) -> Slot {
    match admission {
        Admission::Granted(slot) => slot,
        other => panic!("not granted but {other:?}"),
    }
}

fn wide() -> Origin {
    Origin::new(OriginPolicy {
        connects: 10_000,
        ..OriginPolicy::default()
    })
}

#[test]
fn a_burst_goes_at_once_and_the_rest_at_the_rate() {
    let (mut origin, start) = (wide(), instant());
    let mut slots = Vec::new();
    for _ in 0..20 {
        let ticket = enqueue(&mut origin, start, Class::Standing);
        slots.push(granted(poll(&mut origin, start, &ticket)));
    }
    let ticket = enqueue(&mut origin, start, Class::Standing);
    let Admission::Wait(until) = poll(&mut origin, start, &ticket) else {
        panic!()
    };
    assert_eq!((until - start).as_millis(), 20);
    granted(poll(&mut origin, until, &ticket));
}

#[test]
fn connects_under_way_are_bounded() {
    let (mut origin, now) = (Origin::default(), instant());
    let mut slots = Vec::new();
    for _ in 0..16 {
        let ticket = enqueue(&mut origin, now, Class::Standing);
        slots.push(granted(poll(&mut origin, now, &ticket)));
    }
    let ticket = enqueue(&mut origin, now, Class::Standing);
    assert!(matches!(
        poll(&mut origin, now, &ticket),
        Admission::Wait(_)
    ));
    slots.pop();
    granted(poll(&mut origin, now, &ticket));
}

#[test]
fn who_leaves_the_line_is_forgotten() {
    let (mut origin, now) = (Origin::default(), instant());
    origin.hold(now + 300 * SECOND);
    let first = enqueue(&mut origin, now, Class::Standing);
    for _ in 0..10_000 {
        let ticket = enqueue(&mut origin, now, Class::Standing);
        assert!(matches!(
            poll(&mut origin, now, &ticket),
            Admission::Wait(_)
        ));
    }
    assert_eq!(origin.summary(now).waiting, 1);
    assert!(
        origin.line.len() <= 2 * FORESIGHT,
        "{} stand in line",
        origin.line.len()
    );
    granted(poll(&mut origin, now + 300 * SECOND, &first));
}

#[test]
fn resumes_go_before_standing_streams_before_probes() {
    let policy = OriginPolicy {
        burst: 1,
        ..OriginPolicy::default()
    };
    let (mut origin, start) = (Origin::new(policy), instant());
    let first = enqueue(&mut origin, start, Class::Standing);
    granted(poll(&mut origin, start, &first));
    let line = [
        ("probe", enqueue(&mut origin, start, Class::Probe)),
        ("standing", enqueue(&mut origin, start, Class::Standing)),
        ("resume", enqueue(&mut origin, start, Class::Resume)),
    ];
    let mut order = Vec::new();
    let mut now = start;
    while order.len() < 3 {
        now += Duration::from_millis(1);
        for (name, ticket) in &line {
            if !order.contains(name)
                && matches!(poll(&mut origin, now, ticket), Admission::Granted(_))
            {
                order.push(name);
            }
        }
    }
    assert_eq!(order, ["resume", "standing", "probe"]);
}

#[test]
fn who_left_the_line_holds_nobody_up() {
    let policy = OriginPolicy {
        burst: 1,
        ..OriginPolicy::default()
    };
    let (mut origin, now) = (Origin::new(policy), instant());
    drop(enqueue(&mut origin, now, Class::Resume));
    let ticket = enqueue(&mut origin, now, Class::Standing);
    granted(poll(&mut origin, now, &ticket));
}

#[test]
fn who_does_not_come_when_told_is_passed() {
    let policy = OriginPolicy {
        burst: 1,
        ..OriginPolicy::default()
    };
    let (mut origin, now) = (Origin::new(policy), instant());
    let _asleep = enqueue(&mut origin, now, Class::Resume);
    let ticket = enqueue(&mut origin, now, Class::Standing);
    assert!(matches!(
        poll(&mut origin, now, &ticket),
        Admission::Wait(_)
    ));
    granted(poll(&mut origin, now + 2 * SECOND, &ticket));
}

#[test]
fn a_hold_holds_everybody() {
    let (mut origin, now) = (Origin::default(), instant());
    origin.hold(now + 20 * SECOND);
    origin.hold(now + 10 * SECOND);
    let ticket = enqueue(&mut origin, now, Class::Resume);
    let Admission::Wait(until) = poll(&mut origin, now, &ticket) else {
        panic!()
    };
    assert_eq!(until, now + 20 * SECOND);
    granted(poll(&mut origin, until, &ticket));
}

fn broken(now: Instant) -> Origin {
    let mut origin = Origin::default();
    for failures in 0..5 {
        assert!(!origin.summary(now).down, "{failures}");
        origin.note_connect_failed(now);
    }
    assert!(origin.summary(now).down);
    origin
}

#[test]
fn a_dead_origin_sees_one_probe_at_a_time() {
    let now = instant();
    let mut origin = broken(now);
    let first = enqueue(&mut origin, now, Class::Standing);
    let second = enqueue(&mut origin, now, Class::Standing);
    let _probe = granted(poll(&mut origin, now, &first));
    assert!(matches!(
        poll(&mut origin, now, &second),
        Admission::Wait(_)
    ));
}

#[test]
fn a_failed_probe_counts_for_all_who_waited() {
    let now = instant();
    let mut origin = broken(now);
    let first = enqueue(&mut origin, now, Class::Standing);
    let second = enqueue(&mut origin, now, Class::Standing);
    let probe = granted(poll(&mut origin, now, &first));
    drop(probe);
    origin.note_connect_failed(now + SECOND);
    let admission = poll(&mut origin, now + SECOND, &second);
    assert!(matches!(admission, Admission::Failed));
}

#[test]
fn probes_are_250_ms_apart() {
    let now = instant();
    let mut origin = broken(now);
    let first = enqueue(&mut origin, now, Class::Standing);
    drop(granted(poll(&mut origin, now, &first)));
    origin.note_connect_failed(now);
    let second = enqueue(&mut origin, now, Class::Standing);
    let Admission::Wait(until) = poll(&mut origin, now, &second) else {
        panic!()
    };
    assert_eq!(until, now + Duration::from_millis(250));
    granted(poll(&mut origin, until, &second));
}

#[test]
fn a_connection_ends_the_outage_and_starts_slowly() {
    let now = instant();
    let mut origin = broken(now);
    origin.note_connected(now);
    assert!(!origin.summary(now).down && origin.summary(now).slow_start);
    let tickets: Vec<Ticket> = (0..60)
        .map(|_| enqueue(&mut origin, now, Class::Standing))
        .collect();
    let mut left: Vec<&Ticket> = tickets.iter().collect();
    let mut by_second = Vec::new();
    for millis in 0..6000 {
        let at = now + Duration::from_millis(millis);
        let before = left.len();
        left.retain(|ticket| !matches!(poll(&mut origin, at, ticket), Admission::Granted(_)));
        if millis % 1000 == 0 {
            by_second.push(0);
        }
        *by_second.last_mut().unwrap() += before - left.len();
    }
    assert!(by_second[0] <= 9, "{by_second:?}");
    assert!(left.is_empty(), "{by_second:?}");
    assert!(!origin.summary(now + 5 * SECOND).slow_start);
}

#[test]
fn an_origin_with_open_streams_is_not_dead() {
    let (mut origin, now) = (Origin::default(), instant());
    let _open = origin.opened();
    for _ in 0..20 {
        origin.note_connect_failed(now);
    }
    assert!(!origin.summary(now).down);
    assert_eq!(origin.summary(now).connect_failures, 20);
}

#[test]
fn who_waits_for_a_slot_is_woken() {
    use std::sync::atomic::AtomicBool;
    struct Flag(AtomicBool);
    impl std::task::Wake for Flag {
        fn wake(self: Arc<Self>) {
            self.0.store(true, Ordering::Relaxed);
        }
    }
    let policy = OriginPolicy {
        connects: 1,
        ..OriginPolicy::default()
    };
    let (mut origin, now) = (Origin::new(policy), instant());
    let first = enqueue(&mut origin, now, Class::Standing);
    let slot = granted(poll(&mut origin, now, &first));
    let flag = Arc::new(Flag(AtomicBool::new(false)));
    let waker = Waker::from(Arc::clone(&flag));
    let second = origin.enqueue(now, Class::Standing, false, 0.5, &waker);
    assert!(matches!(
        origin.poll(now, &second, &waker),
        Admission::Wait(_)
    ));
    drop(slot);
    origin.note_connected(now);
    assert!(flag.0.load(Ordering::Relaxed));
    granted(origin.poll(now, &second, &waker));
}

#[test]
fn a_few_streams_are_no_herd() {
    let (mut origin, now) = (Origin::default(), instant());
    let mark = origin.opened();
    origin.dropped(now);
    drop(mark);
    let ticket = origin.enqueue(now, Class::Standing, true, 0.99, Waker::noop());
    granted(origin.poll(now, &ticket, Waker::noop()));
}

#[test]
fn drops_that_are_not_half_are_no_herd() {
    let (mut origin, now) = (Origin::default(), instant());
    let mut marks: Vec<Slot> = (0..100).map(|_| origin.opened()).collect();
    for _ in 0..49 {
        origin.dropped(now);
        marks.pop();
    }
    assert!(origin.herd.window(now, 50.0).is_none());
    origin.dropped(now);
    marks.pop();
    assert_eq!(origin.herd.window(now, 50.0), Some((now, SECOND)));
}

#[test]
fn slow_drops_are_no_herd() {
    let (mut origin, start) = (Origin::default(), instant());
    let mut marks: Vec<Slot> = (0..100).map(|_| origin.opened()).collect();
    for second in 0..90 {
        origin.dropped(start + 2 * second * SECOND);
        marks.pop();
    }
    assert!(origin.herd.window(start + 180 * SECOND, 50.0).is_none());
}

/// 500 streams drop in one instant; each reconnect takes 20 ms.
#[test]
fn a_herd_of_500_streams_comes_back_spread_out() {
    const STREAMS: usize = 500;
    let start = instant();
    let mut origin = Origin::default();
    let mut engines: Vec<Engine> = (0..STREAMS as u64)
        .map(|seed| Engine::new(Kind::Standalone, Policy::default(), seed))
        .collect();
    let first = run(&mut engines, &mut origin, start);
    assert_eq!(first.len(), STREAMS);
    let dropped = start + 3600 * SECOND;
    for engine in &mut engines {
        engine
            .handle(dropped, &mut origin, Input::Failed(Trouble::Reset))
            .unwrap();
    }
    let attempts = run(&mut engines, &mut origin, dropped);
    assert_eq!(attempts.len(), STREAMS, "one attempt each");
    for starts in [&first, &attempts] {
        for (from, start) in starts.iter().enumerate() {
            for (until, end) in starts.iter().enumerate().skip(from) {
                let allowed = 20.0 + 50.0 * (*end - *start).as_secs_f64();
                let count = until - from + 1;
                assert!(
                    count as f64 <= allowed + 1.0,
                    "{count} within {:?}",
                    *end - *start
                );
            }
        }
    }
    let at = |share: usize| (attempts[(STREAMS - 1) * share / 100] - dropped).as_millis();
    println!(
        "500 streams back after (ms): first {}, half {}, nine tenths {}, last {}",
        at(0),
        at(50),
        at(90),
        at(100)
    );
    assert!(at(100) < 11_000, "the last after {} ms", at(100));
    assert!(at(50) > 3_000, "half after {} ms", at(50));
}

/// Lets all engines connect in steps of a millisecond; when their attempts began.
fn run(engines: &mut [Engine], origin: &mut Origin, start: Instant) -> Vec<Instant> {
    let mut starts = Vec::new();
    let mut under_way: Vec<(Instant, usize)> = Vec::new();
    let mut next: Vec<Option<Instant>> = vec![Some(start); engines.len()];
    let mut now = start;
    while next.iter().any(Option::is_some) || !under_way.is_empty() {
        under_way.retain(|(done, index)| {
            if *done <= now {
                engines[*index].handle(now, origin, Input::Opened).unwrap();
            }
            *done > now
        });
        for (index, engine) in engines.iter_mut().enumerate() {
            if next[index].is_none_or(|at| at > now) {
                continue;
            }
            next[index] = match engine.poll(now, origin, Waker::noop()) {
                Action::Wait(until) => until,
                Action::Connect(_) => {
                    starts.push(now);
                    under_way.push((now + Duration::from_millis(20), index));
                    None
                }
                other => panic!("{other:?}"),
            };
        }
        now += Duration::from_millis(1);
        assert!(now < start + 60 * SECOND, "not all came back");
    }
    starts
}
