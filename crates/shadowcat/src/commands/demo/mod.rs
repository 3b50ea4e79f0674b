//! `demo`: the proxy at work on a server that breaks.
//!
//! Three parts in this process, joined by sockets on the loopback interface and by nothing else:
//! the built-in MCP server ([`shadowcat_testkit::fixture`]), the pipeline that `reverse` runs, and
//! clients ([`shadowcat_testkit::client`]). What is called and what breaks follows from the seed
//! ([`plan`]). Server and clients write down what they said, did and got; from these books alone
//! the verdict is drawn ([`verdict`]). Neither shares code with the proxy.

mod books;
mod plan;
mod report;
mod verdict;

use std::io::Write as _;
use std::sync::Arc;
use std::time::Duration;

use shadowcat_proxy::reverse;
use shadowcat_testkit::client::Client;
use shadowcat_testkit::fixture::{Answers, Fixture, Options};
use shadowcat_transport::downstream::http::{PATH, Tcp};
use shadowcat_transport::upstream::http::NetDial;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{Instant, timeout, timeout_at};
use tokio_util::sync::CancellationToken;

use crate::cli::{self, Demo, Invocation};
use crate::failure::Failure;
use crate::{assembly, listen};
use books::{Books, Played};
use plan::{Break, Call, Round};

/// A call without an answer after this time hangs.
const PATIENCE: Duration = Duration::from_secs(20);
/// What was announced has to be there so long after the calls of its round.
const STRAGGLERS: Duration = Duration::from_secs(5);

/// Plays to the end and says how it went.
///
/// # Errors
/// [`Failure`] when something was lost, came twice, or hung.
pub(crate) async fn run(demo: Demo) -> Result<(), Failure> {
    let broken = |error: std::io::Error| Failure::Runtime(format!("cannot start: {error}"));
    let options = Options {
        answers: Answers::Mixed,
        seed: demo.seed,
        ..Options::default()
    };
    let server = Fixture::start(options).await.map_err(broken)?;
    let proxy = Proxy::start(&server.url()).await?;
    say(&format!(
        "a server that breaks at {}, the proxy before it at {}, {} clients; seed {}",
        server.url(),
        proxy.url,
        plan::CLIENTS,
        demo.seed
    ));
    let mut books = Books::default();
    let mut clients = Vec::new();
    let mut listening = JoinSet::new();
    for _ in 0..plan::CLIENTS {
        let client = Client::connect(&proxy.url)
            .await
            .map_err(|lost| Failure::Runtime(format!("no session with the proxy: {lost}")))?;
        let stream = client.listen();
        listening.spawn(async move { stream.await.ok() });
        clients.push(client);
    }
    for round in plan::rounds(demo.seed) {
        play(&server, &clients, &round, &mut books).await;
        say(&report::round(&round, &books));
    }
    for (number, client) in clients.iter().enumerate() {
        books.standalone(number, client.standalone());
        // A session that does not end is the registry's to find; here only messages count.
        let _ = timeout(STRAGGLERS, client.close()).await;
    }
    listening.abort_all();
    proxy.stop().await;
    let verdict = verdict::judge(&books, &server.ledger().entries());
    crate::print(report::summary(&books, &verdict).as_bytes())?;
    verdict.failure().map_or(Ok(()), |text| {
        Err(Failure::Runtime(format!(
            "{text}; see it again with \"shadowcat demo --seed {}\"",
            demo.seed
        )))
    })
}

/// One round: its calls, what breaks meanwhile, and what was announced.
async fn play(server: &Fixture, clients: &[Client], round: &Round, books: &mut Books) {
    server.faults().follow(round.faults);
    let started = Instant::now();
    let mut running = JoinSet::new();
    for call in round.calls.clone() {
        let client = clients[call.client].clone();
        running.spawn(async move {
            tokio::time::sleep_until(started + call.after).await;
            let begun = Instant::now();
            let outcome = timeout(PATIENCE, make(&client, &call)).await.ok();
            Played {
                call,
                outcome,
                begun,
                ended: Instant::now(),
            }
        });
    }
    if let Some(broken) = round.breaks {
        tokio::time::sleep_until(started + plan::BREAK_AFTER).await;
        match broken {
            Break::Restart => server.forget_sessions(),
            Break::RestartWithLog => server.cut_all(),
        }
        books.broke(broken, Instant::now());
    }
    while let Some(played) = running.join_next().await {
        if let Ok(played) = played {
            books.played(played);
        }
    }
    server.faults().follow(None);
    let deadline = Instant::now() + STRAGGLERS;
    for (number, client) in clients.iter().enumerate() {
        let announced = books.announced_to(number);
        let enough = |messages: &[serde_json::Value]| {
            messages
                .iter()
                .filter(|it| books::is_announcement(it))
                .count()
                >= announced
        };
        // What does not come is found missing by the verdict.
        let _ = timeout_at(deadline, client.standalone_until(enough)).await;
    }
}

async fn make(client: &Client, call: &Call) -> shadowcat_testkit::client::Outcome {
    client
        .call(call.tool.name(), &call.arguments(), &call.nonce)
        .await
}

/// The proxy, as `reverse` assembles it.
struct Proxy {
    url: String,
    stop: CancellationToken,
    serving: JoinHandle<()>,
}

impl Proxy {
    async fn start(server: &str) -> Result<Self, Failure> {
        // Short delays, so that the demo is; everything else as a user gets it.
        let words = [
            "reverse",
            "--listen",
            "127.0.0.1:0",
            "--retry-initial",
            "100ms",
            server,
        ];
        let words = words.map(std::ffi::OsString::from).to_vec();
        let Invocation::Proxy(proxy) = cli::parse(words)? else {
            return Err(Failure::Runtime("reverse is no proxy".into()));
        };
        let direct = Arc::new(NetDial::direct());
        let shared = assembly::pipeline_through(&proxy, direct)?;
        let Some(address) = &proxy.listen else {
            return Err(Failure::Runtime("reverse listens nowhere".into()));
        };
        let listener = listen::bind("--listen", address).await?;
        let bound = listener
            .local_addr()
            .map_err(|error| Failure::Runtime(format!("cannot tell the port: {error}")))?;
        let stop = CancellationToken::new();
        let serving = tokio::spawn(reverse::http(
            shared,
            Tcp(listener),
            assembly::http_edge(&proxy.options),
            stop.clone().cancelled_owned(),
            Duration::from_secs(1),
        ));
        Ok(Self {
            url: format!("http://{bound}{PATH}"),
            stop,
            serving,
        })
    }

    async fn stop(self) {
        self.stop.cancel();
        let _ = timeout(STRAGGLERS, self.serving).await;
    }
}

/// Progress, for who waits.
fn say(line: &str) {
    // A closed stderr is no reason to stop.
    let _ = writeln!(std::io::stderr(), "{line}");
}
