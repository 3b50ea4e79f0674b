//! From a seed to a plan.

use std::time::Duration;

use super::{
    CallPlan, ClientCut, ClientPlan, Framing, Ids, Mode, Personality, Plan, Replay, Transport,
};
use super::{modern, sse, stdio};
use crate::fault::Disaster;
use crate::rng::Rng;
use crate::wire::Manner;

mod faults;

pub(super) use faults::spot;
use faults::{get_fault, handshake_fault, may_hang, post_fault, standing_fault};

/// Which plans are drawn.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Draw {
    /// Everything.
    #[default]
    All,
    /// Nothing goes wrong.
    Calm,
}

const SAFE_METHODS: [&str; 4] = ["tools/list", "resources/read", "prompts/get", "ping"];

pub(super) fn ms(low: u64, high: u64, rng: &mut Rng) -> Duration {
    Duration::from_millis(rng.range(low, high))
}

/// A time out of one of these ranges in milliseconds.
fn span(rng: &mut Rng, ranges: &[(u64, u64)]) -> Duration {
    let (low, high) = rng.pick(ranges);
    ms(low, high, rng)
}

impl Plan {
    pub(crate) fn draw(seed: u64, draw: Draw) -> Self {
        let mut rng = Rng::new(seed);
        let mode = if rng.chance(60) {
            Mode::Reverse
        } else {
            Mode::Forward
        };
        let server = server(&mut rng.fork(), seed, mode);
        let troubled = draw == Draw::All && !rng.chance(5);
        let mut clients = clients(&mut rng, mode, &server, troubled);
        let disasters = if troubled && rng.chance(45) {
            disasters(&mut rng.fork())
        } else {
            Vec::new()
        };
        speak(&mut clients, mode, &server);
        let on_pipes = server.transport == Transport::Stdio;
        let children = match on_pipes {
            true => stdio::children(&mut Rng::new(!seed), troubled),
            false => Vec::new(),
        };
        let hangs =
            children.iter().any(stdio::may_hang) || requests_may_hang(&clients, server.transport);
        let timed = hangs || !disasters.is_empty() || rng.chance(30);
        if !timed {
            ask_where_answers_come(&mut clients, &server);
        }
        let mut upstream_wire = manners(&mut rng);
        if on_pipes {
            // What is written to a pipe is there.
            for manner in &mut upstream_wire {
                (manner.latency, manner.pace) = (Duration::ZERO, Duration::ZERO);
            }
        }
        Self {
            seed,
            mode,
            upstream_wire,
            client_wire: manners(&mut rng),
            server,
            clients,
            children,
            disasters,
            request_timeout: timed.then(|| Duration::from_secs(rng.range(100, 200))),
            idle_timeout: Duration::from_secs(rng.range(8, 40)),
        }
    }
}

impl Plan {
    /// So many clients that listen and do nothing else, and a server that can resume.
    pub(crate) fn herd(seed: u64, clients: usize) -> Self {
        let mut plan = Self::draw(seed, Draw::Calm);
        plan.mode = Mode::Reverse;
        plan.request_timeout = None;
        plan.idle_timeout = Duration::from_secs(600);
        plan.upstream_wire = [Manner::PLAIN; 2];
        plan.client_wire = [Manner::PLAIN; 2];
        plan.server = Personality {
            transport: Transport::Streamable,
            version: "2025-11-25",
            sessions: true,
            ids: Ids::All,
            replay: Replay::Exclusive,
            counts: false,
            priming: true,
            standalone: true,
            framing: Framing::Chunked,
            line_end: "\n",
            bom: false,
            noise: false,
            retry: None,
            store_only: false,
            stalls: false,
            comments: None,
        };
        let client = ClientPlan {
            calls: Vec::new(),
            listens: true,
            notices: vec![Duration::from_secs(40)],
            standing_faults: Vec::new(),
            handshake_faults: Vec::new(),
            standing_cuts: Vec::new(),
            leaves_early: None,
        };
        plan.clients = vec![client; clients];
        plan
    }
}

fn manners(rng: &mut Rng) -> [Manner; 2] {
    let latency = if rng.chance(40) {
        ms(1, 80, rng)
    } else {
        Duration::ZERO
    };
    let chunk = rng.pick(&[usize::MAX, usize::MAX, usize::MAX, 1400, 7, 1]);
    let pace = if chunk > 100 && rng.chance(10) {
        ms(1, 100, rng)
    } else {
        Duration::ZERO
    };
    let manner = Manner {
        latency,
        chunk,
        pace,
    };
    [
        manner,
        Manner {
            latency,
            ..Manner::PLAIN
        },
    ]
}

/// The server. What has a source of its own moves nothing else that a seed means.
fn server(rng: &mut Rng, seed: u64, mode: Mode) -> Personality {
    let mut server = personality(rng);
    // Behind what has no id nothing is asked for again.
    server.store_only = server.transport == Transport::Streamable
        && server.ids == Ids::All
        && Rng::new(!seed).chance(20);
    server.stalls =
        server.transport != Transport::Stdio && Rng::new(seed.rotate_left(13)).chance(20);
    odd_ids(&mut Rng::new(seed.rotate_left(7)), mode, &mut server);
    server
}

fn personality(rng: &mut Rng) -> Personality {
    let streamable = streamable(rng);
    let modern = rng.chance(12);
    if rng.chance(12) {
        sse::server(streamable)
    } else if modern {
        modern::server(streamable)
    } else if rng.chance(14) {
        stdio::server(streamable)
    } else {
        streamable
    }
}

fn streamable(rng: &mut Rng) -> Personality {
    let version = rng.pick(&["2025-11-25", "2025-11-25", "2025-06-18", "2025-03-26"]);
    let ids = rng.pick(&[Ids::All, Ids::All, Ids::All, Ids::All, Ids::Some, Ids::None]);
    Personality {
        transport: Transport::Streamable,
        version,
        sessions: rng.chance(85),
        ids,
        replay: rng.pick(&[
            Replay::Exclusive,
            Replay::Exclusive,
            Replay::Inclusive,
            Replay::FromZero,
        ]),
        counts: false,
        priming: ids != Ids::None && version == "2025-11-25" && rng.chance(75),
        standalone: rng.chance(85),
        framing: rng.pick(&[Framing::Chunked, Framing::Chunked, Framing::UntilClose]),
        line_end: rng.pick(&["\n", "\n", "\r\n", "\r"]),
        bom: rng.chance(10),
        noise: rng.chance(25),
        retry: rng
            .chance(35)
            .then(|| rng.pick(&[0, 1, 500, 1000, 3000, 3_600_000])),
        store_only: false,
        stalls: false,
        comments: rng.chance(30).then(|| ms(1000, 4000, rng)),
    }
}

/// Servers that replay whole sessions, and servers whose ids are not unique in one.
fn odd_ids(rng: &mut Rng, mode: Mode, server: &mut Personality) {
    if server.transport != Transport::Streamable || server.ids != Ids::All {
        return;
    }
    match rng.range(0, 6) {
        0 => server.replay = Replay::Session,
        // Only HTTP clients can say which stream they mean.
        1 if mode == Mode::Reverse => server.counts = true,
        _ => {}
    }
}

fn clients(rng: &mut Rng, mode: Mode, server: &Personality, troubled: bool) -> Vec<ClientPlan> {
    let count = match mode {
        Mode::Forward => 1,
        Mode::Reverse => rng.pick(&[1, 1, 1, 2, 2, 3]),
    };
    let count = if server.sessions { count } else { 1 };
    (0..count)
        .map(|_| client(&mut rng.fork(), mode, server, troubled))
        .collect()
}

/// Leaves the clients what they can do, and what can befall them, with this server.
fn speak(clients: &mut [ClientPlan], mode: Mode, server: &Personality) {
    match server.transport {
        Transport::Streamable => {}
        Transport::Sse => sse::speak(clients, server.comments.is_some()),
        Transport::Modern => modern::speak(clients, mode),
        Transport::Stdio => stdio::speak(clients),
    }
    if server.replay == Replay::Session {
        one_log(clients, mode);
    }
}

/// What a replay of the session can be asked for: nothing tells whose a question is.
fn one_log(clients: &mut [ClientPlan], mode: Mode) {
    for client in clients {
        for call in &mut client.calls {
            call.asks_before = None;
        }
        if mode == Mode::Forward {
            // Without a header a cursor tells the stream, and a notice may be on any.
            client.notices.clear();
        }
    }
}

/// Whether a request may wait for an answer that never comes.
fn requests_may_hang(clients: &[ClientPlan], transport: Transport) -> bool {
    clients.iter().any(|client| {
        let mut posts = client.calls.iter().flat_map(|call| &call.post_faults);
        posts.any(may_hang)
            || transport == Transport::Sse && client.standing_faults.iter().any(may_hang)
    })
}

/// Where no deadline ends a call, the server asks only if the answer is sure to find it: in a session
/// over Streamable HTTP.
fn ask_where_answers_come(clients: &mut [ClientPlan], server: &Personality) {
    let asks = server.sessions && server.transport == Transport::Streamable;
    for call in clients.iter_mut().flat_map(|client| &mut client.calls) {
        call.asks_before = call.asks_before.filter(|_| asks);
    }
}

fn client(rng: &mut Rng, mode: Mode, server: &Personality, troubled: bool) -> ClientPlan {
    let calls = rng.range(1, 6);
    let listens = mode == Mode::Forward || rng.chance(70);
    let notices = (0..rng.range(0, 12)).map(|_| ms(0, 60_000, rng)).collect();
    let faulty = |rng: &mut Rng, percent, most| {
        let some = troubled && rng.chance(percent);
        (0..if some { rng.range(1, most) } else { 0 }).collect::<Vec<_>>()
    };
    ClientPlan {
        calls: (0..calls)
            .map(|_| call(&mut rng.fork(), mode, server, troubled))
            .collect(),
        listens,
        notices,
        standing_faults: faulty(rng, 50, 5)
            .iter()
            .map(|_| standing_fault(rng))
            .collect(),
        handshake_faults: faulty(rng, 8, 2)
            .iter()
            .map(|_| handshake_fault(rng))
            .collect(),
        standing_cuts: faulty(rng, 40, 3)
            .iter()
            .map(|_| client_cut(rng, 4000))
            .collect(),
        leaves_early: (troubled && rng.chance(6)).then(|| ms(0, 20_000, rng)),
    }
}

fn call(rng: &mut Rng, mode: Mode, server: &Personality, troubled: bool) -> CallPlan {
    let method = if rng.chance(75) {
        "tools/call"
    } else {
        rng.pick(&SAFE_METHODS)
    };
    let json = rng.chance(20);
    let messages = if json {
        0
    } else {
        rng.pick(&[0, 1, 2, 3, 5, 8, 12]) as u32
    };
    let fault = |rng: &mut Rng, percent| troubled && rng.chance(percent);
    let posts = if fault(rng, 55) {
        rng.pick(&[1, 1, 1, 2, 3])
    } else {
        0
    };
    let gets = if fault(rng, 50) {
        rng.pick(&[1, 1, 2, 2, 3, 4])
    } else {
        0
    };
    let cuts = if mode == Mode::Reverse && fault(rng, 35) {
        rng.pick(&[1, 1, 2, 3])
    } else {
        0
    };
    CallPlan {
        method,
        at: ms(0, 30_000, rng),
        messages,
        gap: span(rng, &[(0, 0), (1, 50), (50, 3000), (1000, 9000)]),
        padding: if rng.chance(1) {
            300_000
        } else {
            rng.pick(&[0, 10, 100, 100, 1000, 20_000])
        },
        asks_before: (method == "tools/call" && messages > 0 && rng.chance(20))
            .then(|| rng.range(1, u64::from(messages)) as u32),
        json,
        polls_after: (server.priming && fault(rng, 20)).then(|| rng.range(0, 3) as u32),
        post_faults: (0..posts)
            .map(|_| post_fault(rng, json, messages))
            .collect(),
        get_faults: (0..gets).map(|_| get_fault(rng, messages)).collect(),
        client_cuts: (0..cuts).map(|_| client_cut(rng, 1500)).collect(),
        cancels_after: (troubled && rng.chance(4)).then(|| ms(0, 8000, rng)),
    }
}

fn client_cut(rng: &mut Rng, most: u64) -> ClientCut {
    ClientCut {
        after: rng.range(0, most) as usize,
        away: span(rng, &[(0, 0), (0, 2000), (0, 60_000)]),
        takes_over: rng.chance(15),
    }
}

fn disasters(rng: &mut Rng) -> Vec<(Duration, Disaster)> {
    (0..rng.pick(&[1, 1, 2, 3]))
        .map(|_| {
            let down = span(rng, &[(100, 3000), (2000, 9000), (5000, 40_000)]);
            let disaster = rng.pick(&[
                Disaster::Refuse(down),
                Disaster::HangDial(down),
                Disaster::ResetAll,
                Disaster::ResetAll,
                Disaster::Restart {
                    down,
                    keeps_log: true,
                },
                Disaster::Restart {
                    down,
                    keeps_log: true,
                },
                Disaster::Restart {
                    down,
                    keeps_log: false,
                },
                Disaster::ForgetAll,
            ]);
            (ms(500, 60_000, rng), disaster)
        })
        .collect()
}
