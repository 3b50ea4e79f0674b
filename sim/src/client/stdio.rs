//! A client on a pair of pipes: one message a line.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use serde_json::Value;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, ReadHalf, WriteHalf};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::modern::{Subscription, is_modern};
use super::{INITIALIZED, PATIENCE, Received, cancelled, initialize, left, receive, request};
use crate::ledger::{CallKey, Ledger};
use crate::plan::Plan;
use crate::wire::Wire;

/// See the [module](self).
pub(crate) struct StdioClient {
    plan: Arc<Plan>,
    ledger: Arc<Ledger>,
    lines: mpsc::UnboundedSender<String>,
    waiting: Mutex<BTreeMap<CallKey, oneshot::Sender<()>>>,
    greeting: Mutex<Option<oneshot::Sender<Value>>>,
    /// 2026-07-28: the subscription, and how many there were.
    subscription: Mutex<(Option<Subscription>, u32)>,
}

impl StdioClient {
    /// Shakes hands, makes the calls of the plan and stays until `over`; then closes its end and
    /// reads what still comes.
    pub(crate) async fn run(
        plan: Arc<Plan>,
        ledger: Arc<Ledger>,
        wire: Wire,
        ready: mpsc::UnboundedSender<usize>,
        over: CancellationToken,
    ) {
        let (read, write) = tokio::io::split(wire);
        let (lines, queue) = mpsc::unbounded_channel();
        let this = Arc::new(Self {
            plan,
            ledger,
            lines,
            waiting: Mutex::default(),
            greeting: Mutex::default(),
            subscription: Mutex::default(),
        });
        let leaving = CancellationToken::new();
        let reading = tokio::spawn(Arc::clone(&this).read(read));
        tokio::spawn(write_all(write, queue, leaving.clone()));
        let mut tasks = JoinSet::new();
        let theirs = &this.plan.clients[0];
        if is_modern(&this.plan) || this.greet().await {
            this.subscribe();
            for number in 0..theirs.calls.len() {
                tasks.spawn(Arc::clone(&this).call(CallKey { client: 0, number }));
            }
            if let Some(after) = theirs.leaves_early {
                tokio::select! {
                    () = async { while tasks.join_next().await.is_some() {} } => {}
                    () = tokio::time::sleep(after) => {
                        left(&this.ledger, 0);
                        leaving.cancel();
                        // What the proxy still says; then its end of the pipe closes.
                        let _ = reading.await;
                        let _ = ready.send(0);
                        return;
                    }
                }
            }
        } else {
            this.ledger.violation("the client got no session");
        }
        while tasks.join_next().await.is_some() {}
        let _ = ready.send(0);
        over.cancelled().await;
        left(&this.ledger, 0);
        leaving.cancel();
        let _ = reading.await;
    }

    fn say(&self, line: String) {
        let _ = self.lines.send(line);
    }

    /// Subscribes, where that is how one listens.
    fn subscribe(&self) {
        if !is_modern(&self.plan) {
            return;
        }
        let mut current = self.subscription.lock();
        current.1 += 1;
        let subscription = Subscription::new(&self.plan, 0, current.1);
        self.say(subscription.request.clone());
        current.0 = Some(subscription);
    }

    /// Looks at what may belong to the subscription; false if it is not for it alone.
    fn subscribed(self: &Arc<Self>, message: &Value) -> bool {
        let is_response = message["method"].is_null();
        let ours = message["id"]
            .as_str()
            .is_some_and(|id| id.starts_with("listen-"));
        let tagged =
            message["params"]["_meta"]["io.modelcontextprotocol/subscriptionId"].is_string();
        if !(is_response && ours || !is_response && tagged) {
            return false;
        }
        let mut current = self.subscription.lock();
        let Some(subscription) = &mut current.0 else {
            self.ledger
                .violation(format!("nobody subscribed to {message}"));
            return true;
        };
        if subscription.see(&self.ledger, 0, message) {
            current.0 = None;
            let this = Arc::clone(self);
            tokio::spawn(async move {
                tokio::time::sleep(Duration::from_secs(5)).await;
                if !this.has_left() {
                    this.subscribe();
                }
            });
            return true;
        }
        false
    }

    fn has_left(&self) -> bool {
        self.ledger.with(|facts| facts.left.contains_key(&0))
    }

    async fn greet(&self) -> bool {
        for attempt in 0..60 {
            let (sender, receiver) = oneshot::channel();
            *self.greeting.lock() = Some(sender);
            self.say(initialize(&self.plan, 0, attempt));
            let answer = tokio::time::timeout(PATIENCE, receiver).await;
            let Ok(Ok(answer)) = answer else {
                self.ledger
                    .violation("the client got no answer to initialize");
                return false;
            };
            self.ledger
                .note(format_args!("client 0 initialize {answer}"));
            if answer["error"].is_null() {
                self.say(INITIALIZED.to_owned());
                return true;
            }
            tokio::time::sleep(Duration::from_secs(5)).await;
        }
        false
    }

    async fn call(self: Arc<Self>, key: CallKey) {
        let plan = self.plan.clients[0].calls[key.number].clone();
        tokio::time::sleep(plan.at).await;
        if self.has_left() {
            return;
        }
        let now = self.ledger.now();
        self.ledger
            .note(format_args!("client 0 {key} sends {}", plan.method));
        self.ledger.call(key, |call| call.sent = Some(now));
        let (sender, mut receiver) = oneshot::channel();
        self.waiting.lock().insert(key, sender);
        self.say(request(&self.plan, key, &plan));
        if let Some(after) = plan.cancels_after {
            if tokio::time::timeout(after, &mut receiver).await.is_ok() {
                return;
            }
            let now = self.ledger.now();
            self.ledger.note(format_args!("client 0 {key} cancels"));
            self.ledger.call(key, |call| call.cancelled = Some(now));
            self.say(cancelled(key));
            let _ = tokio::time::timeout(Duration::from_secs(40), receiver).await;
            return;
        }
        let _ = tokio::time::timeout(PATIENCE, receiver).await;
    }

    async fn read(self: Arc<Self>, read: ReadHalf<Wire>) {
        let mut lines = BufReader::new(read).lines();
        while let Ok(Some(line)) = lines.next_line().await {
            let Ok(message) = serde_json::from_str::<Value>(&line) else {
                self.ledger
                    .violation(format!("the client got a line that is no JSON: {line}"));
                continue;
            };
            if message["id"]
                .as_str()
                .is_some_and(|id| id.starts_with("init-"))
            {
                if let Some(greeting) = self.greeting.lock().take() {
                    let _ = greeting.send(message);
                }
                continue;
            }
            if self.subscribed(&message) {
                continue;
            }
            match receive(&self.ledger, 0, None, &message) {
                Received::Ask(answer) => {
                    let this = Arc::clone(&self);
                    tokio::spawn(async move {
                        tokio::time::sleep(Duration::from_millis(700)).await;
                        this.say(answer);
                    });
                }
                Received::Outcome(key) => {
                    if let Some(waiting) = self.waiting.lock().remove(&key) {
                        let _ = waiting.send(());
                    }
                }
                Received::Other => {}
            }
        }
        self.waiting.lock().clear();
    }
}

async fn write_all(
    mut write: WriteHalf<Wire>,
    mut queue: mpsc::UnboundedReceiver<String>,
    leaving: CancellationToken,
) {
    loop {
        let line = tokio::select! {
            biased;
            () = leaving.cancelled() => break,
            line = queue.recv() => line,
        };
        let Some(line) = line else { break };
        if write
            .write_all(format!("{line}\n").as_bytes())
            .await
            .is_err()
        {
            return;
        }
    }
    let _ = write.shutdown().await;
}
