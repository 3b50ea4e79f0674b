//! The states and the inputs that have a place in them.

use super::*;

const INPUTS: [Input; 9] = [
    Input::Connected,
    Input::Opened,
    Input::Failed(Trouble::NoConnection),
    Input::Failed(Trouble::Reset),
    Input::Failed(Trouble::TooLarge),
    Input::Answered,
    Input::NewSession,
    Input::Hurry,
    Input::Close,
];

/// A stream of a kind in a state; `None` where the kind does not get there.
fn in_state(kind: Kind, state: StateName) -> Option<Run> {
    let mut run = Run::new(kind);
    if kind == Kind::Listen && matches!(state, StateName::Queued | StateName::Parked) {
        // Before it was open, a listen is a request.
        run.reconnect();
        run.fail(Trouble::Ended);
        run.pass(2 * SECOND);
    }
    match state {
        StateName::Idle => {}
        StateName::Connecting => {
            run.attempt();
        }
        StateName::Queued => {
            if kind.is_answer() {
                return None;
            }
            for _ in 0..16 {
                std::mem::forget(occupy(&mut run));
            }
            assert!(matches!(run.poll(), Action::Wait(Some(_))));
        }
        StateName::Open => {
            run.reconnect();
        }
        StateName::Backoff => {
            run.attempt();
            run.fail(Trouble::NoConnection);
        }
        StateName::Parked => {
            if kind.is_answer() {
                return None;
            }
            run.attempt();
            run.fail(refused(405));
        }
        StateName::Done => {
            if !kind.is_answer() {
                return None;
            }
            run.attempt();
            run.tell(Input::Answered);
        }
        StateName::Failed => {
            run.attempt();
            run.fail(lost_session());
        }
        StateName::Closed => run.tell(Input::Close),
    }
    assert_eq!(run.engine.state(), state, "{kind:?}");
    Some(run)
}

/// Another stream's connect that stays under way.
fn occupy(run: &mut Run) -> Engine {
    let mut other = Engine::new(Kind::Standalone, Policy::default(), 1);
    let action = other.poll(run.now, &mut run.origin, Waker::noop());
    assert!(matches!(action, Action::Connect(_)));
    other
}

/// The table of the type's documentation.
fn has_a_place(kind: Kind, state: StateName, input: Input) -> bool {
    let standing = matches!(kind, Kind::Standalone | Kind::Listen);
    match input {
        Input::Close => true,
        Input::Connected => state == StateName::Connecting,
        Input::Opened | Input::Failed(_) if kind == Kind::Session && state == StateName::Idle => {
            input != Input::Failed(Trouble::Reset)
        }
        Input::Opened => state == StateName::Connecting,
        Input::Failed(Trouble::NoConnection) => state == StateName::Connecting,
        Input::Failed(Trouble::Reset) => state == StateName::Open,
        Input::Failed(_) => matches!(state, StateName::Connecting | StateName::Open),
        Input::Answered if kind.is_answer() => {
            matches!(state, StateName::Connecting | StateName::Open)
        }
        Input::Answered => {
            kind == Kind::Listen && matches!(state, StateName::Connecting | StateName::Open)
        }
        Input::NewSession => standing && !matches!(state, StateName::Done | StateName::Closed),
        Input::Hurry => matches!(state, StateName::Backoff | StateName::Parked),
    }
}

#[test]
fn unlisted_inputs_are_errors_that_change_nothing() {
    for &kind in Kind::ALL {
        for &state in StateName::ALL {
            for input in INPUTS {
                let Some(mut run) = in_state(kind, state) else {
                    continue;
                };
                let told = run.try_tell(input);
                let expected = has_a_place(kind, state, input);
                assert_eq!(told.is_ok(), expected, "{kind:?} {state} {input:?}");
                if let Err(unexpected) = told {
                    assert_eq!(unexpected.state, state);
                    assert_eq!(unexpected.input, input.as_str());
                    assert_eq!(run.engine.state(), state);
                }
            }
        }
    }
}

#[test]
fn an_item_has_a_place_only_in_an_open_stream() {
    let mut run = Run::new(Kind::Standalone);
    let now = run.now;
    let error = run.engine.item(now, &Item::Comment).unwrap_err();
    assert_eq!(error.to_string(), "item has no place in state idle");
    run.reconnect();
    assert!(run.engine.item(now, &Item::Comment).is_ok());
}

#[test]
fn connected_comes_once() {
    let mut run = Run::new(Kind::Standalone);
    run.attempt();
    run.tell(Input::Connected);
    assert!(run.try_tell(Input::Connected).is_err());
}

#[test]
fn an_attempt_is_told_once() {
    let mut run = Run::new(Kind::Standalone);
    run.attempt();
    assert!(matches!(run.poll(), Action::AwaitHead(Some(_))));
    assert!(matches!(run.poll(), Action::AwaitHead(Some(_))));
}

#[test]
fn a_life_is_told_as_transitions() {
    let mut run = Run::open(Kind::Standalone);
    run.event(Some("1"), "one");
    run.pass(2 * SECOND);
    run.fail(Trouble::Reset);
    run.reconnect();
    run.tell(Input::Close);
    let mut told = Vec::new();
    while let Some(transition) = run.engine.poll_transition() {
        told.push((
            transition.from.as_str(),
            transition.to.as_str(),
            transition.cause.as_str(),
        ));
        if transition.to == StateName::Open && told.len() > 4 {
            assert!(transition.away.unwrap() < SECOND);
        }
    }
    assert_eq!(
        told,
        [
            ("idle", "queued", "due"),
            ("queued", "connecting", "admitted"),
            ("connecting", "open", "opened"),
            ("open", "backoff", "reset"),
            ("backoff", "queued", "due"),
            ("queued", "connecting", "admitted"),
            ("connecting", "open", "opened"),
            ("open", "closed", "close"),
        ]
    );
}

#[test]
fn transitions_that_nobody_takes_are_bounded() {
    let mut run = Run::open(Kind::Standalone);
    for _ in 0..100 {
        run.event(None, "x");
        run.fail(Trouble::Reset);
        run.reconnect();
    }
    let count = std::iter::from_fn(|| run.engine.poll_transition()).count();
    assert_eq!(count, 64);
}

#[test]
fn what_is_over_stays_over() {
    let mut run = Run::open(Kind::Response);
    run.tell(Input::Answered);
    run.tell(Input::Close);
    assert_eq!(run.poll(), Action::Finish(Finish::Done));
    let mut run = Run::new(Kind::Session);
    run.tell(Input::Close);
    assert_eq!(run.poll(), Action::Finish(Finish::Closed));
}

#[test]
fn an_engine_that_is_dropped_gives_everything_back() {
    let mut run = Run::open(Kind::Standalone);
    let connecting = occupy(&mut run);
    let summary = run.origin.summary(run.now);
    assert_eq!((summary.open, summary.connecting), (1, 1));
    run.engine = Engine::new(Kind::Standalone, Policy::default(), 1);
    drop(connecting);
    let summary = run.origin.summary(run.now);
    assert_eq!(
        (summary.open, summary.connecting, summary.waiting),
        (0, 0, 0)
    );
}
