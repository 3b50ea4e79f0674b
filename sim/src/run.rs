//! One scenario from its seed to its verdict: the real pipeline between scripted peers.

use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, Uri};
use shadowcat_mcp::version::VersionPolicy;
use shadowcat_proxy::config::Config;
use shadowcat_proxy::entropy::{Entropy, SeededEntropy};
use shadowcat_proxy::session::Shared;
use shadowcat_proxy::{forward, reverse};
use shadowcat_store::Limits;
use shadowcat_store::memory::MemoryLog;
use shadowcat_transport::downstream::http::HttpEdgeConfig;
use shadowcat_transport::metrics::Metrics;
use shadowcat_transport::upstream::Upstream;
use shadowcat_transport::upstream::http::{HttpUpstream, HttpUpstreamConfig, Policy};
use shadowcat_transport::upstream::stdio::{Audience, Launcher, StdioConfig, StdioUpstream};
use tokio::sync::mpsc;
use tokio::task::{JoinHandle, JoinSet};
use tokio_util::sync::CancellationToken;

use crate::client::{Edge, HttpClient, StdioClient};
use crate::ledger::Ledger;
use crate::oracle;
use crate::plan::{Draw, Mode, Plan, Transport};
use crate::report::Report;
use crate::server::{Children, Network, Server};
use crate::watch;
use crate::wire;

/// Bytes of a message.
const MAX_MESSAGE_SIZE: usize = 16 * 1024 * 1024;
/// The most simulated time that clients may take for their calls.
const CAP: Duration = Duration::from_secs(3 * 3600);
/// What a server may have asked for at most, in `retry` and `Retry-After`.
pub(crate) const HINT_MAX: Duration = Duration::from_secs(30);
/// After the last call: so that what is parked has been probed.
const SETTLE: Duration = Duration::from_secs(160);
/// After the last notification: so that a stream that is away is back.
const LAST: Duration = Duration::from_secs(100);
/// How long the end may take.
const ENDING: Duration = Duration::from_secs(120);
/// How long a shutdown may wait for what is open.
const DRAIN: Duration = Duration::from_secs(10);

/// Runs one seed.
#[must_use]
pub fn run(seed: u64, draw: Draw, trace: bool) -> Report {
    let report = in_paused_time(async {
        let plan = Arc::new(Plan::draw(seed, draw));
        let ledger = Arc::new(Ledger::new(trace));
        scenario(&plan, &ledger).await
    });
    report.unwrap_or_else(|error| Report::broken(seed, error))
}

/// Runs on a clock that jumps to the next thing that happens.
///
/// # Errors
/// When there is no runtime to be had.
pub(crate) fn in_paused_time<T>(running: impl Future<Output = T>) -> Result<T, String> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .map_err(|error| format!("no runtime: {error}"))?;
    Ok(runtime.block_on(Box::pin(running)))
}

/// Runs a plan and judges it.
pub(crate) async fn scenario(plan: &Arc<Plan>, ledger: &Arc<Ledger>) -> Report {
    watch::begin();
    ledger.note(format_args!("{plan:#?}"));
    let played = tokio::select! {
        biased;
        () = ledger.overrun.cancelled() => Ok(()),
        played = play(plan, ledger) => played,
    };
    match played {
        Ok(()) => Report::of(plan, ledger),
        Err(error) => Report::broken(plan.seed, error),
    }
}

async fn play(plan: &Arc<Plan>, ledger: &Arc<Ledger>) -> Result<(), String> {
    let server = Server::new(Arc::clone(plan), Arc::clone(ledger));
    let metrics = Arc::new(Metrics::default());
    let shared = pipeline(plan, &server, &metrics)?;
    let suffering = tokio::spawn(Arc::clone(&server).suffer());
    let (ready, mut done) = mpsc::unbounded_channel();
    let cast = Cast {
        plan: Arc::clone(plan),
        ledger: Arc::clone(ledger),
        ready,
        over: CancellationToken::new(),
    };
    let mut clients = JoinSet::new();
    let proxy = match plan.mode {
        Mode::Reverse => cast.reverse(shared, &mut clients),
        Mode::Forward => cast.forward(shared, &mut clients),
    };
    let calls = async {
        for _ in 0..plan.clients.len() {
            done.recv().await;
        }
        let _ = suffering.await;
    };
    if tokio::time::timeout(CAP, calls).await.is_err() {
        ledger.violation("the clients' calls did not end");
    }
    server.calm_down();
    for wait in [SETTLE, SETTLE] {
        tokio::time::sleep(wait).await;
        server.notice_all();
    }
    tokio::time::sleep(LAST).await;
    cast.over.cancel();
    let ending = async {
        while clients.join_next().await.is_some() {}
        let _ = proxy.await;
    };
    if tokio::time::timeout(ENDING, ending).await.is_err() {
        ledger.violation("the proxy did not end");
    }
    server.reset();
    tokio::time::sleep(Duration::from_secs(10)).await;
    oracle::leaks(ledger, &metrics);
    oracle::judge(plan, ledger);
    Ok(())
}

/// Who plays.
struct Cast {
    plan: Arc<Plan>,
    ledger: Arc<Ledger>,
    /// Told by each client whose calls are done.
    ready: mpsc::UnboundedSender<usize>,
    /// When the clients are to leave.
    over: CancellationToken,
}

impl Cast {
    /// HTTP clients, and the proxy between.
    fn reverse(&self, shared: Arc<Shared>, clients: &mut JoinSet<()>) -> JoinHandle<()> {
        let (edge, listener) = Edge::new(self.plan.client_wire);
        for client in 0..self.plan.clients.len() {
            clients.spawn(HttpClient::run(
                Arc::clone(&self.plan),
                Arc::clone(&self.ledger),
                edge.clone(),
                client,
                self.ready.clone(),
                self.over.clone(),
            ));
        }
        let config = HttpEdgeConfig::default();
        let (over, ledger) = (self.over.clone(), Arc::clone(&self.ledger));
        let shutdown = async move {
            over.cancelled().await;
            // The clients go first.
            tokio::time::sleep(Duration::from_secs(2)).await;
            ledger.note(format_args!("proxy    shuts down"));
        };
        tokio::spawn(reverse::http(shared, listener, config, shutdown, DRAIN))
    }

    /// A client on a pair of pipes, and the proxy behind them.
    fn forward(&self, shared: Arc<Shared>, clients: &mut JoinSet<()>) -> JoinHandle<()> {
        let [client, proxy] = self.plan.client_wire;
        let (near, far) = wire::connection(client, proxy);
        clients.spawn(StdioClient::run(
            Arc::clone(&self.plan),
            Arc::clone(&self.ledger),
            near,
            self.ready.clone(),
            self.over.clone(),
        ));
        let (input, output) = tokio::io::split(far);
        tokio::spawn(async move {
            forward::stdio(shared, input, output, CancellationToken::new(), DRAIN).await;
        })
    }
}

fn pipeline(
    plan: &Plan,
    server: &Arc<Server>,
    metrics: &Arc<Metrics>,
) -> Result<Arc<Shared>, String> {
    let policy = Policy {
        initial: Duration::from_secs(1),
        max: Duration::from_secs(30),
        jitter: 0.3,
        hint_max: HINT_MAX,
        idle_timeout: plan.idle_timeout,
        ..Policy::default()
    };
    let upstream = match plan.server.transport {
        Transport::Stdio => on_pipes(policy, server, metrics),
        _ => over_http(plan, policy, server, metrics)?,
    };
    let config = Config {
        request_timeout: plan.request_timeout,
        versions: VersionPolicy::default(),
        ..Config::default()
    };
    // What a full log gives up is the store's contract; here nothing may be lost.
    let log = MemoryLog::new(Limits {
        stream_bytes: 16 * 1024 * 1024,
        ..Limits::default()
    });
    let entropy = Arc::new(SeededEntropy::new(plan.seed ^ 2));
    Ok(Shared::new(
        config,
        upstream,
        Arc::new(log),
        Arc::clone(metrics),
        entropy,
    ))
}

fn over_http(
    plan: &Plan,
    reconnect: Policy,
    server: &Arc<Server>,
    metrics: &Arc<Metrics>,
) -> Result<Arc<dyn Upstream>, String> {
    let config = HttpUpstreamConfig {
        url: Uri::from_static("http://server/mcp"),
        headers: HeaderMap::new(),
        max_message_size: MAX_MESSAGE_SIZE,
        reconnect: Arc::new(reconnect),
        forward_auth: false,
        http_clients: true,
        max_connections: 1000,
    };
    let jitter = SeededEntropy::new(plan.seed ^ 1);
    let dial = Arc::new(Network(Arc::clone(server)));
    let random = Arc::new(move || jitter.bits());
    let upstream = HttpUpstream::new(config, dial, random, Arc::clone(metrics));
    Ok(Arc::new(upstream.map_err(|error| error.to_string())?))
}

fn on_pipes(reconnect: Policy, server: &Arc<Server>, metrics: &Arc<Metrics>) -> Arc<dyn Upstream> {
    let config = StdioConfig {
        program: "server".into(),
        arguments: Vec::new(),
        environment: Vec::new(),
        directory: None,
        audience: Audience::Anyone,
        launcher: Launcher::default(),
        max_children: 100,
        reconnect,
        max_message_size: MAX_MESSAGE_SIZE,
    };
    let processes = Arc::new(Children(Arc::clone(server)));
    Arc::new(StdioUpstream::with_processes(
        config,
        processes,
        Arc::clone(metrics),
    ))
}
