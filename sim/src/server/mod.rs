//! A scripted MCP server: Streamable HTTP of 2025-03-26 to 2025-11-25, with sessions, logs and
//! replay, HTTP+SSE of 2024-11-05, 2026-07-28, or a process with pipes, that does to each request
//! what the plan says.
//!
//! It writes its own HTTP, its own event streams and its own lines, byte by byte, and enters into
//! the ledger what it saw and what it did.

mod answer;
mod child;
mod get;
mod job;
mod log;
mod modern;
mod refuse;
mod sse;
mod stream;
mod visit;

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use http::Uri;
use parking_lot::Mutex;
use shadowcat_transport::upstream::BoxFuture;
use shadowcat_transport::upstream::http::{CONNECT_TIMEOUT, Dial, DialError, Wire as ProxyWire};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::fault::{ChildPlan, Disaster, Fault};
use crate::http1::Conn;
use crate::ledger::{CallKey, Ledger};
use crate::plan::{CallPlan, Ids, Plan, Replay, Transport};
use crate::wire::{self, Cutter};
pub(crate) use child::Children;
use log::{Log, What};

/// Whether the connection may carry another request.
type Kept = bool;

/// See the [module](self).
pub(crate) struct Server {
    plan: Arc<Plan>,
    ledger: Arc<Ledger>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    sessions: BTreeMap<String, Arc<Session>>,
    /// What is told to each subscription (2026-07-28), by the name that its client gave it.
    listeners: BTreeMap<String, Arc<Session>>,
    sessions_made: u32,
    connections: Vec<Cutter>,
    /// What kills each process that was started.
    processes: Vec<CancellationToken>,
    /// What befalls those to come.
    children: VecDeque<ChildPlan>,
    /// Connections that were wanted, or processes.
    dials: u32,
    refused_until: Option<Instant>,
    hung_until: Option<Instant>,
    faults: BTreeMap<Subject, VecDeque<Fault>>,
    /// Whether logs were lost: cursors from before mean nothing then.
    forgot: bool,
}

/// Whose request a fault is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Subject {
    Post(CallKey),
    Get(CallKey),
    Standing(usize),
    Handshake(usize),
}

/// A session of the server's.
struct Session {
    name: String,
    /// Whose it is, once that is known.
    client: OnceLock<usize>,
    streams: Mutex<Vec<Arc<Log>>>,
    /// Events so far.
    clock: Arc<AtomicU64>,
    standalone: Arc<Log>,
    /// Answers of the client to requests of the server, by request id.
    answers: Mutex<BTreeMap<String, u32>>,
    answered: tokio::sync::Notify,
    cancelled: Mutex<BTreeMap<CallKey, CancellationToken>>,
    gone: CancellationToken,
}

impl Session {
    fn new(name: String, client: Option<usize>) -> Self {
        let clock = Arc::default();
        Self {
            client: client.map(OnceLock::from).unwrap_or_default(),
            streams: Mutex::default(),
            standalone: Arc::new(Log::new(format!("{name}:sa"), None, &clock)),
            clock,
            answers: Mutex::default(),
            answered: tokio::sync::Notify::new(),
            cancelled: Mutex::default(),
            gone: CancellationToken::new(),
            name,
        }
    }
}

impl Server {
    pub(crate) fn new(plan: Arc<Plan>, ledger: Arc<Ledger>) -> Arc<Self> {
        let mut faults = BTreeMap::new();
        for (client, theirs) in plan.clients.iter().enumerate() {
            let queue = |faults: &[Fault]| faults.iter().cloned().collect::<VecDeque<_>>();
            faults.insert(Subject::Standing(client), queue(&theirs.standing_faults));
            faults.insert(Subject::Handshake(client), queue(&theirs.handshake_faults));
            for (number, call) in theirs.calls.iter().enumerate() {
                let key = CallKey { client, number };
                faults.insert(Subject::Post(key), queue(&call.post_faults));
                faults.insert(Subject::Get(key), queue(&call.get_faults));
            }
        }
        ledger.with(|facts| facts.one_log = plan.server.replay == Replay::Session);
        Arc::new(Self {
            state: Mutex::new(State {
                children: plan.children.iter().cloned().collect(),
                faults,
                ..State::default()
            }),
            plan,
            ledger,
        })
    }

    /// Lets the plan's disasters happen.
    pub(crate) async fn suffer(self: Arc<Self>) {
        let start = Instant::now();
        let mut disasters = self.plan.disasters.clone();
        disasters.sort_by_key(|(at, _)| *at);
        for (at, disaster) in disasters {
            tokio::time::sleep_until(start + at).await;
            self.happen(&disaster);
        }
    }

    fn happen(&self, disaster: &Disaster) {
        self.ledger.hit(disaster.name());
        self.ledger.note(format_args!("DISASTER {disaster:?}"));
        let now = Instant::now();
        let mut state = self.state.lock();
        let later = |until: Option<Instant>, by: Duration| until.max(Some(now + by));
        match *disaster {
            Disaster::Refuse(by) => state.refused_until = later(state.refused_until, by),
            Disaster::HangDial(by) => state.hung_until = later(state.hung_until, by),
            Disaster::ResetAll => self.reset_all(&mut state),
            Disaster::Restart { down, keeps_log } => {
                state.refused_until = later(state.refused_until, down);
                if !keeps_log {
                    self.forget_all(&mut state);
                }
                self.reset_all(&mut state);
            }
            Disaster::ForgetAll => self.forget_all(&mut state),
        }
    }

    fn reset_all(&self, state: &mut State) {
        let at = self.ledger.now();
        self.ledger.with(|facts| facts.resets.push(at));
        for cutter in state.connections.drain(..) {
            cutter.reset();
        }
        for process in state.processes.drain(..) {
            process.cancel();
        }
    }

    /// Breaks all connections.
    pub(crate) fn reset(&self) {
        self.reset_all(&mut self.state.lock());
    }

    fn forget_all(&self, state: &mut State) {
        state.forgot = true;
        for (_, session) in std::mem::take(&mut state.sessions) {
            self.lose(&session);
        }
        // A process is its session.
        for process in state.processes.drain(..) {
            process.cancel();
        }
    }

    fn forget(&self, session: &Session) {
        let mut state = self.state.lock();
        state.forgot = true;
        if state.sessions.remove(&session.name).is_some() {
            self.lose(session);
        }
    }

    fn lose(&self, session: &Session) {
        let at = self.ledger.now();
        self.ledger.with(|facts| {
            let facts = facts.sessions.entry(session.name.clone()).or_default();
            facts.lost.get_or_insert(at);
        });
        session.gone.cancel();
    }

    /// Nothing more goes wrong with requests that are still to come.
    pub(crate) fn calm_down(&self) {
        let mut state = self.state.lock();
        state.faults.clear();
        state.children.clear();
    }

    /// One more notification on the standalone stream of every session.
    pub(crate) fn notice_all(&self) {
        let sessions: Vec<_> = {
            let state = self.state.lock();
            let all = state.sessions.values().chain(state.listeners.values());
            all.cloned().collect()
        };
        for session in sessions {
            self.notice(&session);
        }
    }

    fn notice(&self, session: &Session) {
        if session.client.get().is_none() {
            return;
        }
        let name = &session.name;
        let number = self.ledger.with(|facts| {
            let facts = facts.sessions.entry(name.clone()).or_default();
            facts.notices += 1;
            facts.notices
        });
        let text = if self.plan.server.transport == Transport::Modern {
            modern::news(name, number)
        } else {
            format!(
                r#"{{"jsonrpc":"2.0","method":"notifications/message","params":{{"level":"info","data":{{"session":"{name}","notice":{number},"pad":"é"}}}}}}"#
            )
        };
        let with_id = self.gives_id(number);
        if with_id {
            self.ledger.with(|facts| {
                let facts = facts.sessions.entry(name.clone()).or_default();
                facts.notices_with_id.push(number);
            });
        }
        session
            .standalone
            .append(text, What::Notice(number), with_id);
    }

    fn gives_id(&self, number: u32) -> bool {
        match self.plan.server.ids {
            Ids::All => true,
            Ids::None => false,
            Ids::Some => !number.is_multiple_of(3),
        }
    }

    fn call_plan(&self, key: CallKey) -> Option<&CallPlan> {
        self.plan.clients.get(key.client)?.calls.get(key.number)
    }

    /// What is to go wrong with this request.
    fn next_fault(&self, subject: Subject) -> Option<Fault> {
        self.state.lock().faults.get_mut(&subject)?.pop_front()
    }

    async fn accept(self: Arc<Self>, number: u32) -> Result<wire::Wire, DialError> {
        let (refused, hung) = {
            let state = self.state.lock();
            (state.refused_until, state.hung_until)
        };
        let now = Instant::now();
        if hung.is_some_and(|until| now < until) {
            self.dial_failed(number, "hangs");
            tokio::time::sleep(CONNECT_TIMEOUT).await;
            return Err(DialError::Timeout);
        }
        if refused.is_some_and(|until| now < until) {
            self.dial_failed(number, "refused");
            return Err(DialError::Unreachable("refused".into()));
        }
        self.ledger
            .note(format_args!("server   connection {number}"));
        let [proxy, server] = self.plan.upstream_wire;
        let (near, far) = wire::connection(proxy, server);
        {
            let mut state = self.state.lock();
            state.connections.retain(Cutter::is_open);
            state.connections.push(far.cutter());
        }
        tokio::spawn(self.serve(Conn::new(far), number));
        Ok(near)
    }

    fn dial_failed(&self, number: u32, how: &str) {
        self.ledger
            .note(format_args!("server   connection {number} {how}"));
        let at = self.ledger.now();
        self.ledger.with(|facts| facts.dials_failed.push(at));
    }
}

/// The way to the server.
pub(crate) struct Network(pub(crate) Arc<Server>);

impl Dial for Network {
    fn dial(&self, _uri: &Uri) -> BoxFuture<Result<ProxyWire, DialError>> {
        let server = Arc::clone(&self.0);
        Box::pin(async move {
            let number = {
                let mut state = server.state.lock();
                state.dials += 1;
                state.dials
            };
            let latency = server.plan.upstream_wire[0].latency;
            if !latency.is_zero() {
                tokio::time::sleep(latency).await;
            }
            server.accept(number).await.map(ProxyWire::new)
        })
    }
}
