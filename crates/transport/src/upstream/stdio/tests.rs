//! A child whose process is the test's.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::process::{Command, ExitStatus};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use shadowcat_mcp::fault::{Executed, Fault, FaultKind};
use shadowcat_mcp::message::Message;
use shadowcat_mcp::version::Era;
use shadowcat_sse::reconnect::Policy;
use tokio::io::{AsyncWriteExt as _, DuplexStream, duplex};
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use super::*;
use crate::upstream::{Item, Reply, RequestContext};

/// Starts processes that do nothing by themselves.
#[derive(Clone, Default)]
pub(super) struct Puppets(pub(super) Arc<Mutex<Vec<Puppet>>>);

/// A process as the test holds it.
pub(super) struct Puppet {
    pub(super) stdin: DuplexStream,
    pub(super) stdout: Option<DuplexStream>,
    pub(super) exit: CancellationToken,
}

struct Running {
    exit: CancellationToken,
}

impl Processes for Puppets {
    fn start(&self, _command: Command) -> BoxFuture<io::Result<Started>> {
        let (stdin, read) = duplex(1024);
        let (written, stdout) = duplex(1024);
        let exit = CancellationToken::new();
        self.0.lock().push(Puppet {
            stdin: read,
            stdout: Some(written),
            exit: exit.clone(),
        });
        Box::pin(std::future::ready(Ok(Started {
            stdin: Box::new(stdin),
            stdout: Box::new(stdout),
            stderr: Box::new(tokio::io::empty()),
            process: Box::new(Running { exit }),
        })))
    }
}

impl Process for Running {
    fn id(&self) -> Option<u32> {
        None
    }

    fn wait(&mut self) -> Pin<Box<dyn Future<Output = io::Result<ExitStatus>> + Send + '_>> {
        Box::pin(async {
            self.exit.cancelled().await;
            Ok(ExitStatus::default())
        })
    }

    fn ask(&mut self, ask: Ask) {
        if ask == Ask::Kill {
            self.exit.cancel();
        }
    }

    fn is_alone(&mut self) -> bool {
        true
    }
}

pub(super) fn upstream(puppets: &Puppets, metrics: &Arc<Metrics>) -> StdioUpstream {
    let config = StdioConfig {
        program: "puppet".into(),
        arguments: Vec::new(),
        environment: Vec::new(),
        directory: None,
        audience: Audience::LocalUser,
        launcher: Launcher::default(),
        max_children: 1,
        reconnect: Policy::default(),
        max_message_size: 1000,
    };
    StdioUpstream::with_processes(config, Arc::new(puppets.clone()), Arc::clone(metrics))
}

/// What a call comes to first.
async fn call(leg: Arc<dyn Leg>, id: u32) -> Result<Message, Fault> {
    let call = format!(r#"{{"jsonrpc":"2.0","id":{id},"method":"tools/call"}}"#);
    let call = Message::parse(Bytes::from(call)).unwrap();
    match leg.request(call, RequestContext::default()).await {
        Ok(Reply::Pipe(mut incoming)) => match incoming.next().await {
            Some(Ok(Item::Message(message))) => Ok(message),
            Some(Err(fault)) => Err(fault),
            other => panic!("got {other:?}"),
        },
        other => panic!("got {other:?}"),
    }
}

/// Whoever dies after the answer has answered.
#[tokio::test(start_paused = true)]
async fn what_a_process_wrote_before_it_died_is_read() {
    let (puppets, metrics) = (Puppets::default(), Arc::default());
    let leg = upstream(&puppets, &metrics).leg(Era::Legacy);
    let calling = tokio::spawn(call(leg, 1));
    sleep(Duration::from_secs(1)).await;
    let mut puppet = puppets.0.lock().pop().unwrap();
    puppet.exit.cancel();
    let answer = br#"{"jsonrpc":"2.0","id":1,"result":{}}"#;
    let mut stdout = puppet.stdout.take().unwrap();
    stdout.write_all(answer).await.unwrap();
    drop(stdout);
    let answered = calling.await.unwrap();
    assert!(answered.is_ok(), "{answered:?}");
}

/// A process without a stdout can answer nothing. While it is waited for to say why, nothing more
/// is said to it.
#[tokio::test(start_paused = true)]
async fn a_process_that_closed_its_stdout_gets_no_more_requests() {
    let (puppets, metrics) = (Puppets::default(), Arc::default());
    let leg = upstream(&puppets, &metrics).leg(Era::Legacy);
    let before = tokio::spawn(call(Arc::clone(&leg), 1));
    sleep(Duration::from_secs(1)).await;
    puppets.0.lock()[0].stdout = None;
    let closed = Instant::now();
    sleep(Duration::from_millis(100)).await;
    let after = call(leg, 2).await.unwrap_err();
    let before = before.await.unwrap().unwrap_err();
    let kind = FaultKind::ChildExited;
    assert_eq!((before.kind, before.executed), (kind, Executed::Unknown));
    assert_eq!((after.kind, after.executed), (kind, Executed::No));
    assert!(closed.elapsed() < Duration::from_secs(1));
    // It did not end when asked, and was killed.
    sleep(Duration::from_secs(10)).await;
    assert_eq!(metrics.children.get(), 0);
}
