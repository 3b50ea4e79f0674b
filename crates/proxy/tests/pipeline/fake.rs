//! A server under the test's control: every call of a leg waits for the test to answer it.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use http::StatusCode;
use parking_lot::Mutex;
use shadowcat_mcp::fault::{Executed, Fault, FaultKind, Side};
use shadowcat_mcp::headers::Fields;
use shadowcat_mcp::message::{Message, RequestId};
use shadowcat_mcp::method::Method;
use shadowcat_mcp::version::{Era, ProtocolVersion};
use shadowcat_transport::upstream::{
    BoxFuture, Dispatched, Incoming, Item, Leg, Reply, RequestContext, SendContext, Source,
    Upstream,
};
use tokio::sync::{mpsc, oneshot};

use crate::json::{message, text};

/// What a fake server does by itself.
#[derive(Clone)]
pub struct Habits {
    /// Whether it has no response heads.
    pub pipe: bool,
    /// The version that it answers `initialize` with; one per leg, the last for all others.
    pub versions: Vec<&'static str>,
    /// Its capabilities.
    pub capabilities: &'static str,
    /// Whether `initialize` and what follows it is left to the test.
    pub by_hand: bool,
    /// How long the end of a leg takes.
    pub close: Duration,
}

impl Default for Habits {
    fn default() -> Self {
        Self {
            pipe: false,
            versions: vec!["2025-11-25"],
            capabilities: r#"{"tools":{"listChanged":true},"resources":{"listChanged":true,"subscribe":true}}"#,
            by_hand: false,
            close: Duration::ZERO,
        }
    }
}

/// Modern legs are numbered from here, legacy ones from 0.
pub const MODERN: usize = 1000;

pub struct FakeServer {
    habits: Habits,
    legs: AtomicUsize,
    modern_legs: AtomicUsize,
    calls: mpsc::UnboundedSender<Call>,
    waiting: tokio::sync::Mutex<mpsc::UnboundedReceiver<Call>>,
    seen: Mutex<Vec<String>>,
    /// Faults for the legs to come: their `initialize` fails with it.
    pub broken: Mutex<HashMap<usize, Fault>>,
    /// Whether an `initialize` is heard and never answered.
    pub deaf: AtomicBool,
    pub standalone_open: AtomicBool,
}

/// A call that waits for the test.
pub enum Call {
    Request(Request),
    Sent(Sent),
    Standalone(Standalone),
}

pub struct Request {
    pub leg: usize,
    pub message: Message,
    dispatched: Dispatched,
    reply: oneshot::Sender<Result<Reply, Fault>>,
}

pub struct Sent {
    pub leg: usize,
    pub message: Message,
    done: oneshot::Sender<Result<(), Fault>>,
}

pub struct Standalone {
    pub leg: usize,
    reply: oneshot::Sender<Option<Incoming>>,
}

impl FakeServer {
    pub fn new(habits: Habits) -> Arc<Self> {
        let (calls, waiting) = mpsc::unbounded_channel();
        Arc::new(Self {
            habits,
            legs: AtomicUsize::new(0),
            modern_legs: AtomicUsize::new(0),
            calls,
            waiting: tokio::sync::Mutex::new(waiting),
            seen: Mutex::default(),
            broken: Mutex::default(),
            deaf: AtomicBool::new(false),
            standalone_open: AtomicBool::new(false),
        })
    }

    pub fn is_pipe(&self) -> bool {
        self.habits.pipe
    }

    /// What came, in order: `<leg> <method or "answer">`.
    pub fn seen(&self) -> Vec<String> {
        self.seen.lock().clone()
    }

    pub fn count(&self, what: &str) -> usize {
        self.seen.lock().iter().filter(|seen| *seen == what).count()
    }

    /// The next call that is left to the test; within a minute of test time.
    pub async fn call(&self) -> Call {
        let mut waiting = self.waiting.lock().await;
        let next = tokio::time::timeout(Duration::from_secs(60), waiting.recv());
        next.await
            .unwrap_or_else(|_| panic!("the server was not called: {:?}", self.seen()))
            .expect("open")
    }

    pub async fn request(&self) -> Request {
        match self.call().await {
            Call::Request(request) => request,
            Call::Sent(sent) => panic!("expected a request, got {}", text(&sent.message)),
            Call::Standalone(_) => panic!("expected a request, got a standalone stream"),
        }
    }

    pub async fn sent(&self) -> Sent {
        match self.call().await {
            Call::Sent(sent) => sent,
            Call::Request(request) => panic!("expected a message, got {}", text(&request.message)),
            Call::Standalone(_) => panic!("expected a message, got a standalone stream"),
        }
    }

    pub async fn standalone(&self) -> Standalone {
        match self.call().await {
            Call::Standalone(standalone) => standalone,
            Call::Request(request) => panic!("expected a GET, got {}", text(&request.message)),
            Call::Sent(sent) => panic!("expected a GET, got {}", text(&sent.message)),
        }
    }

    /// Whether nothing is left to the test now, and nothing will be for `time`.
    pub async fn is_quiet(&self, time: Duration) -> bool {
        let mut waiting = self.waiting.lock().await;
        tokio::time::timeout(time, waiting.recv()).await.is_err()
    }

    fn note(&self, leg: usize, what: &str) {
        self.seen.lock().push(format!("{leg} {what}"));
    }

    fn version(&self, leg: usize) -> &'static str {
        let versions = &self.habits.versions;
        versions[leg.min(versions.len() - 1)]
    }
}

/// The upstream that a pipeline gets: a handle of the server.
pub struct FakeUpstream(pub Arc<FakeServer>);

impl Upstream for FakeUpstream {
    fn leg(&self, era: Era) -> Arc<dyn Leg> {
        let (counter, first) = match era {
            Era::Legacy => (&self.0.legs, 0),
            Era::Modern => (&self.0.modern_legs, MODERN),
        };
        Arc::new(FakeLeg {
            number: first + counter.fetch_add(1, Ordering::SeqCst),
            server: Arc::clone(&self.0),
        })
    }

    fn probe(&self) -> BoxFuture<Result<(), String>> {
        Box::pin(async { Ok(()) })
    }

    fn name(&self) -> &str {
        "fake"
    }
}

struct FakeLeg {
    number: usize,
    server: Arc<FakeServer>,
}

impl Leg for FakeLeg {
    fn request(
        &self,
        message: Message,
        context: RequestContext,
    ) -> BoxFuture<Result<Reply, Fault>> {
        let (server, leg) = (Arc::clone(&self.server), self.number);
        server.note(leg, message.method().map_or("?", Method::as_str));
        if message.method() == Some(&Method::Initialize) && !server.habits.by_hand {
            if server.deaf.load(Ordering::SeqCst) {
                return Box::pin(std::future::pending());
            }
            let broken = server.broken.lock().get(&leg).cloned();
            let id = message.id().expect("id").to_json();
            let answer = crate::json::parse(&format!(
                r#"{{"jsonrpc":"2.0","id":{id},"result":{{"protocolVersion":"{}","capabilities":{},"serverInfo":{{"name":"fake","version":"1"}}}}}}"#,
                server.version(leg),
                server.habits.capabilities,
            ));
            let pipe = server.habits.pipe;
            return Box::pin(async move {
                match broken {
                    Some(fault) => Err(fault),
                    None if pipe => Ok(Reply::Pipe(only(answer))),
                    None => Ok(json(answer)),
                }
            });
        }
        let (reply, answered) = oneshot::channel();
        let request = Request {
            leg,
            message,
            dispatched: context.dispatched,
            reply,
        };
        Box::pin(async move {
            server
                .calls
                .send(Call::Request(request))
                .expect("test runs");
            answered.await.unwrap_or_else(|_| Err(connection_lost()))
        })
    }

    fn send(&self, message: Message, _context: SendContext) -> BoxFuture<Result<(), Fault>> {
        let (server, leg) = (Arc::clone(&self.server), self.number);
        let what = message.method().map_or("answer", Method::as_str);
        server.note(leg, what);
        if message.method() == Some(&Method::Initialized) && !server.habits.by_hand {
            return Box::pin(async { Ok(()) });
        }
        let (done, answered) = oneshot::channel();
        let sent = Sent { leg, message, done };
        Box::pin(async move {
            server.calls.send(Call::Sent(sent)).expect("test runs");
            answered.await.unwrap_or_else(|_| Err(connection_lost()))
        })
    }

    fn negotiated(&self, version: ProtocolVersion) {
        self.server.note(self.number, &format!("= {version}"));
    }

    fn standalone(&self) -> BoxFuture<Option<Incoming>> {
        let (server, leg) = (Arc::clone(&self.server), self.number);
        server.note(leg, "standalone");
        let (reply, answered) = oneshot::channel();
        Box::pin(async move {
            let call = Call::Standalone(Standalone { leg, reply });
            server.calls.send(call).expect("test runs");
            answered.await.unwrap_or(None)
        })
    }

    fn has_response_heads(&self) -> bool {
        !self.server.habits.pipe
    }

    fn set_standalone_open(&self, open: bool) {
        self.server.standalone_open.store(open, Ordering::SeqCst);
    }

    fn close(&self) -> BoxFuture<()> {
        self.server.note(self.number, "close");
        let (server, leg) = (Arc::clone(&self.server), self.number);
        Box::pin(async move {
            if !server.habits.close.is_zero() {
                tokio::time::sleep(server.habits.close).await;
            }
            server.note(leg, "closed");
        })
    }
}

impl Request {
    pub fn method(&self) -> &str {
        self.message.method().map_or("?", Method::as_str)
    }

    pub fn id(&self) -> &RequestId {
        self.message.id().expect("a request has an id")
    }

    /// It was written.
    pub fn leaves(&mut self) {
        self.dispatched.fire();
    }

    /// Answers with one JSON body.
    pub fn json(mut self, result: &str) {
        self.leaves();
        let id = self.id().to_json();
        let answer = format!(r#"{{"jsonrpc":"2.0","id":{id},"result":{result}}}"#);
        let _ = self.reply.send(Ok(json(crate::json::parse(&answer))));
    }

    pub fn reply(mut self, reply: Reply) {
        self.leaves();
        let _ = self.reply.send(Ok(reply));
    }

    pub fn fail(mut self, fault: Fault) {
        self.leaves();
        let _ = self.reply.send(Err(fault));
    }

    /// Answers with an event stream, or on the pipe.
    pub fn stream(mut self, pipe: bool) -> Feeder {
        self.leaves();
        let id = self.id().to_json();
        let (feeder, incoming) = feeder(id);
        let reply = if pipe {
            Reply::Pipe(incoming)
        } else {
            Reply::Stream {
                headers: Fields::default(),
                incoming,
            }
        };
        let _ = self.reply.send(Ok(reply));
        feeder
    }
}

impl Sent {
    pub fn method(&self) -> &str {
        self.message.method().map_or("answer", Method::as_str)
    }

    pub fn accept(self) {
        let _ = self.done.send(Ok(()));
    }
}

impl Standalone {
    pub fn refuse(self) {
        let _ = self.reply.send(None);
    }

    pub fn stream(self) -> Feeder {
        let (feeder, incoming) = feeder(String::new());
        let _ = self.reply.send(Some(incoming));
        feeder
    }
}

/// What a stream brings, one item at a time: giving waits until the one before was asked for.
pub struct Feeder {
    items: mpsc::Sender<Result<Item, Fault>>,
    id: String,
}

impl Feeder {
    pub async fn item(&self, item: Result<Item, Fault>) {
        let sent = tokio::time::timeout(Duration::from_secs(3600), self.items.send(item));
        sent.await.expect("the stream is not read").expect("open");
    }

    pub async fn message(&self, json: &str) {
        self.item(Ok(Item::Message(message(json)))).await;
    }

    pub async fn respond(&self, result: &str) {
        let id = &self.id;
        self.message(&format!(r#"{{"id":{id},"result":{result}}}"#))
            .await;
    }

    pub async fn fail(&self, fault: Fault) {
        self.item(Err(fault)).await;
    }

    /// The next item if there is room for it at once.
    pub fn try_message(&self, json: &str) -> bool {
        self.items
            .try_send(Ok(Item::Message(message(json))))
            .is_ok()
    }

    /// Ends when nobody reads any more.
    pub async fn closed(&self) {
        let closed = tokio::time::timeout(Duration::from_secs(3600), self.items.closed());
        closed.await.expect("the stream is still read");
    }
}

fn feeder(id: String) -> (Feeder, Incoming) {
    let (items, queue) = mpsc::channel(1);
    (Feeder { items, id }, Incoming::new(Queue(queue)))
}

struct Queue(mpsc::Receiver<Result<Item, Fault>>);

impl Source for Queue {
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Item, Fault>>> {
        self.0.poll_recv(cx)
    }
}

fn only(message: Message) -> Incoming {
    let (feeder, incoming) = feeder(String::new());
    feeder
        .items
        .try_send(Ok(Item::Message(message)))
        .expect("room");
    incoming
}

pub fn json(message: Message) -> Reply {
    Reply::Json {
        status: StatusCode::OK,
        headers: Fields::default(),
        message,
    }
}

pub fn fault(kind: FaultKind, executed: Executed) -> Fault {
    Fault::new(Side::Upstream, kind, executed).because("as the test says")
}

/// The server refuses the session.
pub fn session_lost() -> Fault {
    fault(FaultKind::SessionLost, Executed::No)
}

fn connection_lost() -> Fault {
    fault(FaultKind::ConnectionLost, Executed::Unknown)
}
