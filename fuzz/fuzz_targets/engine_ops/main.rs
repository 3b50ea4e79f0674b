//! Any sequence of operations on up to three engines of one origin.
//!
//! No panic; what is unexpected changes nothing; memory is bounded; a cursor that is sent is the
//! last one that was committed, never an earlier one; no event is delivered twice within the
//! window; a POST that may have been processed is never sent again; no wait is over before it
//! began, so that there is no hot loop; the same calls give the same answers.
//!
//! Input: one byte for the policy, one for the kinds, then operations of one or more bytes.

#![no_main]

mod input;
mod oracle;

use std::task::Waker;
use std::time::{Duration, Instant};

use input::{Input as Bytes, Operation};
use libfuzzer_sys::fuzz_target;
use oracle::Oracle;
use shadowcat_sse::reconnect::{
    Action, Engine, Input, Kind, Origin, OriginPolicy, Policy, StateName,
};

fuzz_target!(|data: &[u8]| {
    let start = Instant::now();
    assert_eq!(run(data, start), run(data, start), "the same twice");
});

/// Plays the operations; returns what the engines said.
fn run(data: &[u8], start: Instant) -> Vec<String> {
    let mut bytes = Bytes::new(data);
    let (policy, origin) = policies(bytes.byte());
    let kinds = bytes.byte();
    let mut game = Game {
        now: start,
        origin: Origin::new(origin),
        streams: streams(kinds, &policy),
        policy,
        said: Vec::new(),
        show: std::env::var_os("SHOW_OPERATIONS").is_some(),
    };
    while let Some((stream, operation)) = bytes.operation() {
        game.play(usize::from(stream), operation);
    }
    game.said
}

fn policies(byte: u8) -> (Policy, OriginPolicy) {
    let policy = Policy {
        max_attempts: u32::from(byte & 3) + 1,
        dedup_window: [0, 1, 4, 1000][usize::from(byte >> 2 & 3)],
        empty_data_primes: byte & 16 == 0,
        ..Policy::default()
    };
    let origin = match byte & 32 {
        0 => OriginPolicy::default(),
        _ => OriginPolicy {
            rate: 2.0,
            burst: 1,
            connects: 1,
            herd: 2,
        },
    };
    (policy, origin)
}

const KINDS: [Kind; 6] = [
    Kind::Standalone,
    Kind::Response,
    Kind::Listen,
    Kind::ModernResponse,
    Kind::LegacySse,
    Kind::Session,
];

fn streams(kinds: u8, policy: &Policy) -> Vec<Stream> {
    let kinds = [kinds % 6, kinds / 6 % 6, kinds / 36 % 6];
    let kinds = kinds.map(|kind| KINDS[usize::from(kind)]);
    kinds.map(|kind| Stream::new(kind, policy)).into()
}

struct Stream {
    engine: Engine,
    oracle: Oracle,
    action: Option<Action>,
}

impl Stream {
    fn new(kind: Kind, policy: &Policy) -> Self {
        Self {
            engine: Engine::new(kind, policy.clone(), kind as u64),
            oracle: Oracle::new(kind, policy.clone()),
            action: None,
        }
    }
}

struct Game {
    now: Instant,
    origin: Origin,
    streams: Vec<Stream>,
    policy: Policy,
    said: Vec<String>,
    /// Prints what is done; for a person who reads a crash.
    show: bool,
}

impl Game {
    fn play(&mut self, stream: usize, operation: Operation) {
        let (now, origin) = (self.now, &mut self.origin);
        let count = self.streams.len();
        let Stream {
            engine,
            oracle,
            action,
        } = &mut self.streams[stream % count];
        if self.show {
            eprintln!("{now:?} stream {}: {operation:?}", stream % count);
        }
        match operation {
            Operation::Pass(time) => self.now += time,
            Operation::Poll => {
                let next = engine.poll(now, origin, Waker::noop());
                oracle.action(now, &next);
                if self.show {
                    eprintln!("  {next:?}");
                }
                self.said.push(format!("{next:?}"));
                *action = Some(next);
            }
            Operation::UntilDue => {
                let until = match action {
                    Some(Action::AwaitHead(until) | Action::Read(until) | Action::Wait(until)) => {
                        *until
                    }
                    _ => None,
                };
                self.now = until.map_or(now + Duration::from_millis(1), |until| until.max(now));
            }
            Operation::Tell(input) => {
                let before = (engine.state(), engine.counters(), engine.health(now));
                match engine.handle(now, origin, input) {
                    Ok(()) => oracle.told(now, input, before.0),
                    Err(unexpected) => {
                        assert_eq!(unexpected.state, before.0);
                        assert_ne!(input, Input::Close, "closing is always possible");
                        let after = (engine.state(), engine.counters(), engine.health(now));
                        assert_eq!(after, before, "{unexpected}");
                    }
                }
            }
            Operation::Received => engine.received(now),
            Operation::Item(item) => match engine.item(now, &item) {
                Ok(verdict) => {
                    oracle.item(&item, verdict);
                    self.said.push(format!("{verdict:?}"));
                }
                Err(unexpected) => assert_eq!(unexpected.state, engine.state()),
            },
            Operation::Commit => {
                engine.commit();
                oracle.accepted();
            }
            Operation::Skip => {
                engine.skip();
                oracle.accepted();
            }
            Operation::Deadline(time) => engine.set_deadline(time.map(|time| now + time)),
            Operation::Replace => {
                let kind = engine.kind();
                self.streams[stream % count] = Stream::new(kind, &self.policy);
                return self.check();
            }
            Operation::Look => {
                let _ = engine.take_gap();
                let moves: Vec<_> = std::iter::from_fn(|| engine.poll_transition()).collect();
                assert!(moves.len() <= 64);
                let joined = moves.windows(2).all(|two| two[0].to == two[1].from);
                assert!(joined, "a move is missing: {moves:?}");
            }
        }
        oracle.check(engine, now);
        self.check();
    }

    /// What the origin counts is what there is.
    fn check(&self) {
        let summary = self.origin.summary(self.now);
        let states = self.streams.iter().map(|stream| stream.engine.state());
        let count = |state| states.clone().filter(|known| *known == state).count();
        assert_eq!(summary.open, count(StateName::Open));
        assert_eq!(summary.waiting, count(StateName::Queued));
        assert!(summary.connecting <= count(StateName::Connecting));
    }
}
