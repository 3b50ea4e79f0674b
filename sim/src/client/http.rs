//! A client over Streamable HTTP that follows the specification: a broken stream is fetched again
//! by GET with the last event id, after the time that the server asked for.

use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use shadowcat_transport::downstream::http::Accept;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::events::Events;
use super::modern::{self, Subscription, is_modern};
use super::{INITIALIZED, PATIENCE, Received, cancelled, initialize, left, receive, request};
use crate::http1::{self, Conn, Head};
use crate::ledger::{CallKey, Ledger, Outcome};
use crate::plan::{CallPlan, ClientCut, Plan};
use crate::wire::{self, Manner, Wire};

/// Where clients connect to.
#[derive(Clone)]
pub(crate) struct Edge {
    sender: mpsc::UnboundedSender<Wire>,
    manners: [Manner; 2],
}

/// The other side of an [`Edge`].
pub(crate) struct Listener(mpsc::UnboundedReceiver<Wire>);

impl Edge {
    pub(crate) fn new(manners: [Manner; 2]) -> (Self, Listener) {
        let (sender, receiver) = mpsc::unbounded_channel();
        (Self { sender, manners }, Listener(receiver))
    }

    fn connect(&self) -> Conn {
        let [client, proxy] = self.manners;
        let (near, far) = wire::connection(client, proxy);
        // Nobody accepts any more: the wire is dropped, and the client sees it closed.
        let _ = self.sender.send(far);
        Conn::new(near)
    }
}

impl Accept for Listener {
    type Io = Wire;

    async fn accept(&mut self) -> std::io::Result<Wire> {
        match self.0.recv().await {
            Some(wire) => Ok(wire),
            None => std::future::pending().await,
        }
    }
}

/// See the [module](self).
pub(crate) struct HttpClient {
    plan: Arc<Plan>,
    ledger: Arc<Ledger>,
    edge: Edge,
    client: usize,
    session: String,
}

/// How far a stream was read.
#[derive(Default)]
struct Progress {
    last_id: Option<String>,
    retry: Option<Duration>,
    /// Old connections that are left open, unread.
    abandoned: Vec<Conn>,
}

/// How reading one connection ended.
enum Read {
    /// The outcome was on it.
    Answered,
    /// It ended or broke.
    Broke,
    /// A status without a stream.
    Status(u16),
}

impl HttpClient {
    /// Shakes hands, makes the calls of the plan, and stays until `over`; then ends its session.
    /// `ready` is told when all calls are done.
    pub(crate) async fn run(
        plan: Arc<Plan>,
        ledger: Arc<Ledger>,
        edge: Edge,
        client: usize,
        ready: mpsc::UnboundedSender<usize>,
        over: CancellationToken,
    ) {
        let mut this = Self {
            plan,
            ledger,
            edge,
            client,
            session: String::new(),
        };
        let greeted = is_modern(&this.plan) || this.greet().await;
        let this = Arc::new(this);
        let listening = CancellationToken::new();
        let mut tasks = JoinSet::new();
        if greeted {
            let theirs = &this.plan.clients[client];
            if theirs.listens && is_modern(&this.plan) {
                tokio::spawn(Arc::clone(&this).subscribe(listening.clone()));
            } else if theirs.listens {
                tokio::spawn(Arc::clone(&this).listen(listening.clone()));
            }
            for number in 0..theirs.calls.len() {
                tasks.spawn(Arc::clone(&this).call(CallKey { client, number }));
            }
            if let Some(after) = theirs.leaves_early {
                tokio::select! {
                    () = async { while tasks.join_next().await.is_some() {} } => {}
                    () = tokio::time::sleep(after) => this.leave().await,
                }
            }
        } else {
            this.ledger
                .violation(format!("client {client} got no session"));
        }
        while tasks.join_next().await.is_some() {}
        let _ = ready.send(client);
        over.cancelled().await;
        if greeted {
            this.leave().await;
        }
        listening.cancel();
    }

    async fn leave(&self) {
        left(&self.ledger, self.client);
        if is_modern(&self.plan) {
            return;
        }
        let request = http1::request("DELETE", &self.fields(None), "");
        let _ = self.exchange(&request).await;
    }

    fn fields<'a>(&'a self, cursor: Option<&'a str>) -> Vec<(&'static str, &'a str)> {
        let mut fields = vec![("accept", "application/json, text/event-stream")];
        if !self.session.is_empty() {
            fields.push(("mcp-session-id", self.session.as_str()));
        }
        if self.plan.server.version >= "2025-06-18" {
            fields.push(("mcp-protocol-version", self.plan.server.version));
        }
        if let Some(cursor) = cursor {
            fields.push(("last-event-id", cursor));
        }
        fields
    }

    async fn exchange(&self, request: &[u8]) -> std::io::Result<(Head, Vec<u8>)> {
        let mut conn = self.edge.connect();
        conn.write(request).await?;
        let head = conn
            .head()
            .await?
            .ok_or(std::io::ErrorKind::UnexpectedEof)?;
        let body = conn.collect(&head).await?;
        Ok((head, body))
    }

    async fn greet(&mut self) -> bool {
        for attempt in 0..60 {
            let message = initialize(&self.plan, self.client, attempt);
            let fields = [("accept", "application/json, text/event-stream")];
            let answer = self
                .exchange(&http1::request("POST", &fields, &message))
                .await;
            let Ok((head, body)) = answer else {
                self.ledger.violation(format!(
                    "client {} got no answer to initialize",
                    self.client
                ));
                return false;
            };
            let body: Value = serde_json::from_slice(&body).unwrap_or_default();
            self.ledger.note(format_args!(
                "client {} initialize {} {body}",
                self.client, head.line
            ));
            if let (Some(session), true) = (head.get("mcp-session-id"), body["error"].is_null()) {
                session.clone_into(&mut self.session);
                return self.post_one_way(INITIALIZED).await;
            }
            tokio::time::sleep(Duration::from_secs(5)).await;
        }
        false
    }

    async fn post_one_way(&self, message: &str) -> bool {
        let request = http1::request("POST", &self.fields(None), message);
        match self.exchange(&request).await {
            Ok((head, _)) if head.status() == 202 => true,
            other => {
                let status = other.map(|(head, _)| head.status());
                self.ledger.note(format_args!(
                    "client {} not accepted: {status:?} {message}",
                    self.client
                ));
                if !self.has_left() {
                    self.ledger.violation(format!(
                        "client {} not accepted: {status:?} {message}",
                        self.client
                    ));
                }
                false
            }
        }
    }

    fn has_left(&self) -> bool {
        self.ledger
            .with(|facts| facts.left.contains_key(&self.client))
    }

    async fn call(self: Arc<Self>, key: CallKey) {
        let plan = self.plan.clients[key.client].calls[key.number].clone();
        tokio::time::sleep(plan.at).await;
        if self.has_left() {
            return;
        }
        let now = self.ledger.now();
        self.ledger.note(format_args!(
            "client {} {key} sends {}",
            self.client, plan.method
        ));
        self.ledger.call(key, |call| call.sent = Some(now));
        let cancelling = async {
            match plan.cancels_after {
                Some(after) => tokio::time::sleep(after).await,
                None => std::future::pending().await,
            }
            let now = self.ledger.now();
            self.ledger.call(key, |call| call.cancelled = Some(now));
            self.ledger
                .note(format_args!("client {} {key} cancels", self.client));
            if is_modern(&self.plan) {
                // Its stream is closed, which says it.
                return;
            }
            self.post_one_way(&cancelled(key)).await;
            tokio::time::sleep(Duration::from_secs(40)).await;
        };
        let fetching = tokio::time::timeout(PATIENCE, self.fetch(key, &plan));
        tokio::select! {
            biased;
            outcome = fetching => {
                if let Ok(Some(outcome)) = outcome {
                    let now = self.ledger.now();
                    self.ledger.note(format_args!("client {} {key} outcome {outcome:?}", self.client));
                    self.ledger.call(key, |call| call.outcomes.push((now, outcome)));
                }
            }
            () = cancelling => {}
        }
    }

    /// Sends a call and follows its stream. `None` when the outcome is in the ledger already.
    async fn fetch(&self, key: CallKey, plan: &CallPlan) -> Option<Outcome> {
        let mut cuts = plan.client_cuts.iter().copied();
        let mut progress = Progress::default();
        let mut fields = self.fields(None);
        if is_modern(&self.plan) {
            fields.extend(modern::routing(plan));
        }
        let named = key.to_string();
        fields.push(("x-call", &named));
        let mut request = http1::request("POST", &fields, &request(&self.plan, key, plan));
        loop {
            let cut = cuts.next();
            match self.read(&request, Some(key), cut, &mut progress).await {
                Read::Answered => return None,
                Read::Status(status) => return Some(Outcome::Status(status)),
                Read::Broke => {}
            }
            let Some(id) = progress.last_id.clone() else {
                return Some(Outcome::Abandoned);
            };
            self.wait_away(cut, &progress).await;
            self.ledger.hit("client resumes");
            self.ledger.note(format_args!(
                "client {} {key} resumes after {id}",
                self.client
            ));
            request = http1::request("GET", &self.fields(Some(&id)), "");
        }
    }

    async fn wait_away(&self, cut: Option<ClientCut>, progress: &Progress) {
        let retry = progress.retry.unwrap_or(Duration::from_secs(1));
        let away = cut.map_or(Duration::ZERO, |cut| cut.away);
        tokio::time::sleep(retry.max(away)).await;
    }

    /// Reads one connection.
    async fn read(
        &self,
        request: &[u8],
        key: Option<CallKey>,
        cut: Option<ClientCut>,
        progress: &mut Progress,
    ) -> Read {
        let mut conn = self.edge.connect();
        conn.allow(cut.map(|cut| cut.after));
        let read = self.read_on(&mut conn, request, key, progress).await;
        if conn.is_cut() {
            self.ledger
                .note(format_args!("client {} cuts its connection", self.client));
            if cut.is_some_and(|cut| cut.takes_over) {
                self.ledger.hit("client stops reading and comes back");
                progress.abandoned.push(conn);
            } else {
                self.ledger.hit("client connection reset");
                conn.wire.cutter().reset();
            }
        }
        read.unwrap_or(Read::Broke)
    }

    async fn read_on(
        &self,
        conn: &mut Conn,
        request: &[u8],
        key: Option<CallKey>,
        progress: &mut Progress,
    ) -> std::io::Result<Read> {
        conn.write(request).await?;
        let Some(head) = conn.head().await? else {
            return Ok(Read::Broke);
        };
        let kind = head.get("content-type").unwrap_or_default();
        let tells = is_modern(&self.plan) && kind.starts_with("application/json");
        if head.status() != 200 && !tells {
            return Ok(Read::Status(head.status()));
        }
        if kind.starts_with("application/json") {
            let body = conn.collect(&head).await?;
            let message = serde_json::from_slice(&body).unwrap_or_default();
            receive(&self.ledger, self.client, key, &message);
            return Ok(Read::Answered);
        }
        let (mut events, mut body) = (Events::default(), Conn::body(&head));
        while let Some(bytes) = conn.data(&mut body).await? {
            events.push(&bytes);
            while let Some(event) = events.next() {
                if let Some(id) = event.id {
                    progress.last_id = Some(id);
                }
                if let Some(retry) = event.retry {
                    progress.retry = Some(Duration::from_millis(retry));
                }
                if event.data.is_empty() {
                    continue;
                }
                let Ok(message) = serde_json::from_str(&event.data) else {
                    self.ledger.violation(format!(
                        "client {} got an event that is no JSON",
                        self.client
                    ));
                    continue;
                };
                match receive(
                    &self.ledger,
                    self.client,
                    self.stream_of(key, &message),
                    &message,
                ) {
                    Received::Ask(answer) => self.answer_later(answer),
                    Received::Outcome(_) => return Ok(Read::Answered),
                    Received::Other => {}
                }
            }
        }
        Ok(Read::Broke)
    }

    /// The call whose stream must bring a message, if it is known. What names no request may come on
    /// any where the server has one stream for everything.
    fn stream_of(&self, key: Option<CallKey>, message: &Value) -> Option<CallKey> {
        let shared = self.plan.server.transport.is_pipe();
        let asks = message["method"].is_string() && !message["id"].is_null();
        key.filter(|_| !(shared && asks))
    }

    /// Keeps one subscription; where it cannot be had, asks again after a while.
    async fn subscribe(self: Arc<Self>, over: CancellationToken) {
        let mut number = 0;
        let subscribing = async {
            loop {
                number += 1;
                let mut subscription = Subscription::new(&self.plan, self.client, number);
                if let Err(error) = self.follow(&mut subscription).await {
                    self.ledger
                        .violation(format!("{} broke: {error}", subscription.id));
                }
                tokio::time::sleep(Duration::from_secs(5)).await;
            }
        };
        tokio::select! {
            biased;
            () = over.cancelled() => {}
            () = subscribing => {}
        }
    }

    /// Reads a subscription's stream to its end.
    async fn follow(&self, subscription: &mut Subscription) -> std::io::Result<()> {
        let mut conn = self.edge.connect();
        let mut fields = self.fields(None);
        fields.push(("mcp-method", "subscriptions/listen"));
        let request = http1::request("POST", &fields, &subscription.request);
        conn.write(&request).await?;
        let head = conn
            .head()
            .await?
            .ok_or(std::io::ErrorKind::UnexpectedEof)?;
        let (mut events, mut body) = (Events::default(), Conn::body(&head));
        let kind = head.get("content-type").unwrap_or_default();
        if !kind.starts_with("text/event-stream") {
            let body = conn.collect(&head).await?;
            let message = serde_json::from_slice(&body).unwrap_or_default();
            subscription.see(&self.ledger, self.client, &message);
            return Ok(());
        }
        while let Some(bytes) = conn.data(&mut body).await? {
            events.push(&bytes);
            while let Some(event) = events.next() {
                let message = serde_json::from_str(&event.data).unwrap_or_default();
                if subscription.see(&self.ledger, self.client, &message) {
                    return Ok(());
                }
                receive(&self.ledger, self.client, None, &message);
            }
        }
        self.ledger
            .violation(format!("{} ended without a response", subscription.id));
        Ok(())
    }

    /// Answers a request of the server's after a moment.
    fn answer_later(&self, answer: String) {
        let this = Self {
            plan: Arc::clone(&self.plan),
            ledger: Arc::clone(&self.ledger),
            edge: self.edge.clone(),
            client: self.client,
            session: self.session.clone(),
        };
        tokio::spawn(async move {
            tokio::time::sleep(Duration::from_millis(700)).await;
            this.post_one_way(&answer).await;
        });
    }

    /// Follows the standalone stream.
    async fn listen(self: Arc<Self>, over: CancellationToken) {
        let mut cuts = self.plan.clients[self.client].standing_cuts.iter().copied();
        let mut progress = Progress::default();
        let following = async {
            loop {
                let cut = cuts.next();
                let cursor = progress.last_id.clone();
                let request = http1::request("GET", &self.fields(cursor.as_deref()), "");
                let read = self.read(&request, None, cut, &mut progress).await;
                if let Read::Status(status) = read {
                    if !self.has_left() {
                        self.ledger.violation(format!(
                            "client {}'s GET after {cursor:?} got {status}",
                            self.client
                        ));
                    }
                    return;
                }
                if progress.last_id.is_none() {
                    self.ledger.with(|facts| facts.blind.insert(self.client));
                }
                self.wait_away(cut, &progress).await;
            }
        };
        tokio::select! {
            biased;
            () = following => {}
            () = over.cancelled() => {}
        }
    }
}
