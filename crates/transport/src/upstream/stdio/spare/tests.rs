//! Who goes on with a process that another leg has used. One process may run at once.

use bytes::Bytes;
use shadowcat_mcp::message::Message;
use shadowcat_mcp::version::Era;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::task::JoinHandle;

use super::super::tests::{Puppet, Puppets, upstream};
use super::super::*;
use super::PATIENCE;
use crate::upstream::{RequestContext, ask};

/// A command, and the process of it that the test plays.
struct Stage {
    puppets: Puppets,
    metrics: Arc<Metrics>,
    upstream: StdioUpstream,
}

type Answer = JoinHandle<Result<Message, Fault>>;

impl Stage {
    fn new() -> Self {
        let (puppets, metrics) = (Puppets::default(), Arc::default());
        Self {
            upstream: upstream(&puppets, &metrics),
            puppets,
            metrics,
        }
    }

    fn request(&self, leg: &Arc<dyn Leg>, method: &str) -> Answer {
        let json = format!(r#"{{"jsonrpc":"2.0","id":1,"method":"{method}"}}"#);
        let request = Message::parse(Bytes::from(json)).unwrap();
        let leg = Arc::clone(leg);
        let deadline = Instant::now() + PATIENCE;
        tokio::spawn(async move { ask(&*leg, request, deadline).await })
    }

    async fn next(&self) -> Puppet {
        for _ in 0..1000 {
            if let Some(puppet) = self.puppets.0.lock().pop() {
                return puppet;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("no process is started");
    }

    fn starts(&self) -> u64 {
        self.metrics.child_starts.get()
    }

    /// A process that has answered a modern leg's question, with `more`, and is for `era` now.
    async fn handed_on(&self, more: &str, era: Era) -> Puppet {
        let leg = self.upstream.leg(Era::Modern);
        let asked = self.request(&leg, "server/discover");
        let mut puppet = self.next().await;
        assert_eq!(puppet.hears().await, "server/discover");
        puppet.says(more).await;
        puppet.answers().await;
        asked.await.unwrap().unwrap();
        leg.hand_on(era).await;
        assert!(ask_again(&leg).await.is_err(), "the leg is over");
        puppet
    }
}

async fn ask_again(leg: &Arc<dyn Leg>) -> Result<(), Fault> {
    let ping = Message::parse(Bytes::from(r#"{"jsonrpc":"2.0","id":2,"method":"ping"}"#)).unwrap();
    leg.request(ping, RequestContext::default())
        .await
        .map(|_| ())
}

impl Puppet {
    /// The method of the next message.
    async fn hears(&mut self) -> String {
        let mut line = String::new();
        // Nothing comes before it was answered, so nothing is lost with the buffer.
        let read = BufReader::new(&mut self.stdin).read_line(&mut line).await;
        assert!(read.unwrap() > 0, "the end of stdin");
        let message = Message::parse(Bytes::from(line)).unwrap();
        message.method().unwrap().as_str().to_owned()
    }

    async fn says(&mut self, line: &str) {
        let stdout = self.stdout.as_mut().unwrap();
        stdout
            .write_all(format!("{line}\n").as_bytes())
            .await
            .unwrap();
    }

    async fn answers(&mut self) {
        self.says(r#"{"jsonrpc":"2.0","id":1,"result":{}}"#).await;
    }

    /// Whether it has been told to end, as it does then.
    async fn ends(mut self) {
        let mut line = String::new();
        let read = BufReader::new(&mut self.stdin).read_line(&mut line).await;
        assert_eq!((read.unwrap(), line.as_str()), (0, ""));
        self.exit.cancel();
    }
}

#[tokio::test(start_paused = true)]
async fn the_next_session_goes_on_with_the_process() {
    let stage = Stage::new();
    let mut puppet = stage.handed_on("", Era::Legacy).await;
    let leg = stage.upstream.leg(Era::Legacy);
    let initialized = stage.request(&leg, "initialize");
    assert_eq!(puppet.hears().await, "initialize");
    puppet.answers().await;
    initialized.await.unwrap().unwrap();
    assert!(leg.standalone().await.is_some());
    // It is this session's until its end, however long that takes, and nobody else's.
    tokio::time::sleep(PATIENCE * 2).await;
    let other = stage.upstream.leg(Era::Legacy);
    let refused = stage.request(&other, "initialize").await.unwrap();
    assert!(refused.unwrap_err().detail.contains("--max-children"));
    assert_eq!((stage.starts(), stage.metrics.children.get()), (1, 1));
    let closing = tokio::spawn(leg.close());
    puppet.ends().await;
    closing.await.unwrap();
    assert_eq!(stage.metrics.children.get(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_process_of_the_other_era_ends_and_makes_room() {
    for (handed_on, wanted) in [(Era::Modern, Era::Legacy), (Era::Legacy, Era::Modern)] {
        let stage = Stage::new();
        let puppet = stage.handed_on("", handed_on).await;
        let leg = stage.upstream.leg(wanted);
        let asked = stage.request(&leg, "x/y");
        puppet.ends().await;
        let mut second = stage.next().await;
        assert_eq!(second.hears().await, "x/y");
        second.answers().await;
        asked.await.unwrap().unwrap();
        assert_eq!((stage.starts(), stage.metrics.children.get()), (2, 1));
    }
}

#[tokio::test(start_paused = true)]
async fn modern_clients_go_on_with_the_process_that_answered_them() {
    let stage = Stage::new();
    let mut puppet = stage.handed_on("", Era::Modern).await;
    let leg = stage.upstream.leg(Era::Modern);
    let asked = stage.request(&leg, "tools/list");
    assert_eq!(puppet.hears().await, "tools/list");
    puppet.says(r#"{"jsonrpc":"2.0","id":2,"result":{}}"#).await;
    asked.await.unwrap().unwrap();
    assert_eq!(stage.starts(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_process_that_is_not_taken_ends() {
    let stage = Stage::new();
    let handed_on = stage.handed_on("", Era::Legacy).await;
    timeout(PATIENCE * 2, handed_on.ends()).await.unwrap();
    let handed_on = stage.handed_on("", Era::Legacy).await;
    let ending = tokio::spawn(stage.upstream.end());
    timeout(PATIENCE / 2, handed_on.ends()).await.unwrap();
    ending.await.unwrap();
    assert_eq!(stage.metrics.children.get(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_process_that_is_gone_is_replaced() {
    let stage = Stage::new();
    let puppet = stage.handed_on("", Era::Legacy).await;
    puppet.exit.cancel();
    drop(puppet);
    tokio::time::sleep(Duration::from_secs(1)).await;
    let leg = stage.upstream.leg(Era::Legacy);
    let asked = stage.request(&leg, "initialize");
    let mut second = stage.next().await;
    assert_eq!(second.hears().await, "initialize");
    second.answers().await;
    asked.await.unwrap().unwrap();
}

/// A server may refuse a question and end over it, and be asked for a session in between.
#[tokio::test(start_paused = true)]
async fn a_handshake_that_a_process_ends_over_goes_to_another_one() {
    let stage = Stage::new();
    let mut puppet = stage.handed_on("", Era::Legacy).await;
    let leg = stage.upstream.leg(Era::Legacy);
    let asked = stage.request(&leg, "initialize");
    assert_eq!(puppet.hears().await, "initialize");
    puppet.exit.cancel();
    drop(puppet);
    let mut second = stage.next().await;
    assert_eq!(second.hears().await, "initialize");
    second.answers().await;
    asked.await.unwrap().unwrap();
    // Of one that was not handed on this is its end.
    let asked = stage.request(&leg, "x/y");
    assert_eq!(second.hears().await, "x/y");
    second.exit.cancel();
    drop(second);
    assert!(asked.await.unwrap().is_err());
    assert_eq!(stage.starts(), 2);
}

/// What it said was for the session that it has not begun.
#[tokio::test(start_paused = true)]
async fn a_process_that_said_more_than_its_answer_is_not_handed_on() {
    let stage = Stage::new();
    let log = r#"{"jsonrpc":"2.0","id":7,"method":"roots/list"}"#;
    let mut puppet = stage.handed_on(log, Era::Legacy).await;
    let leg = stage.upstream.leg(Era::Legacy);
    let _asked = stage.request(&leg, "initialize");
    let mut line = String::new();
    let mut stdin = BufReader::new(&mut puppet.stdin);
    stdin.read_line(&mut line).await.unwrap();
    assert!(line.contains("error"), "{line}");
    drop(stdin);
    puppet.ends().await;
    stage.next().await;
}
