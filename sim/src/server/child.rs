//! The server as a process: one message a line on its stdin and stdout.
//!
//! A process is a session, and everything that it says comes on its one pipe. What befalls it is
//! planned ([`ChildPlan`]): it may refuse to start, start slowly, exit on the way to its first
//! answer, break off in the middle of any line, fall silent, or not want to end.

use std::future::Future;
use std::io;
use std::os::unix::process::ExitStatusExt as _;
use std::pin::Pin;
use std::process::{Command, ExitStatus};
use std::sync::Arc;

use serde_json::Value;
use shadowcat_transport::upstream::BoxFuture;
use shadowcat_transport::upstream::stdio::{Ask, Process, Processes, Started};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines};
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::answer::call_of;
use super::log::{Entry, What};
use super::visit::{Place, Ticket};
use super::{Server, Session, Subject};
use crate::fault::{ChildPlan, Fault, How, Spot, Start, Stubborn};
use crate::ledger::{Fate, StreamFate};
use crate::wire::{self, Manner, Wire};

/// SIGKILL, SIGTERM and SIGSEGV as a parent sees them.
const KILLED: i32 = 9;
const TERMINATED: i32 = 15;
const CRASHED: i32 = 11;

/// Starts the server's processes.
pub(crate) struct Children(pub(crate) Arc<Server>);

impl Processes for Children {
    fn start(&self, _command: Command) -> BoxFuture<io::Result<Started>> {
        let server = Arc::clone(&self.0);
        Box::pin(std::future::ready(server.start_child()))
    }
}

/// What its owner holds of a process.
struct Handle {
    number: u32,
    exited: watch::Receiver<Option<ExitStatus>>,
    signals: Signals,
    _killed_when_dropped: DropGuard,
}

/// How a process is told to end.
#[derive(Debug, Clone, Default)]
struct Signals {
    terminate: CancellationToken,
    kill: CancellationToken,
    /// Not by its owner.
    disaster: CancellationToken,
}

impl Process for Handle {
    fn id(&self) -> Option<u32> {
        Some(self.number)
    }

    fn wait(&mut self) -> Pin<Box<dyn Future<Output = io::Result<ExitStatus>> + Send + '_>> {
        Box::pin(async {
            let exited = self.exited.wait_for(Option::is_some).await;
            let status = exited.ok().and_then(|status| *status);
            status.ok_or_else(|| io::Error::other("nobody knows"))
        })
    }

    fn ask(&mut self, ask: Ask) {
        match ask {
            Ask::Terminate => self.signals.terminate.cancel(),
            Ask::Kill => self.signals.kill.cancel(),
        }
    }

    fn is_alone(&mut self) -> bool {
        true
    }
}

/// A process from inside.
struct Life<'a> {
    server: &'a Arc<Server>,
    session: Arc<Session>,
    opening: Ticket<'a>,
    plan: ChildPlan,
    number: u32,
    exit: &'a Exit,
}

/// Where its exit is seen.
type Exit = watch::Sender<Option<ExitStatus>>;

/// What its end of a pipe came to.
enum End {
    /// The process ends with this.
    Exit(ExitStatus),
    /// Its stdin has ended.
    Asked,
    /// It goes on without a stdout.
    Mute,
    /// It does nothing any more.
    Hang,
}

fn code(code: i32) -> ExitStatus {
    ExitStatus::from_raw(code << 8)
}

impl Server {
    fn start_child(self: Arc<Self>) -> io::Result<Started> {
        let now = Instant::now();
        let (number, plan, refused) = {
            let mut state = self.state.lock();
            state.dials += 1;
            let refused = state.refused_until.is_some_and(|until| now < until);
            let plan = match refused {
                true => ChildPlan::default(),
                false => state.children.pop_front().unwrap_or_default(),
            };
            (state.dials, plan, refused)
        };
        if let Some(name) = plan.start.name() {
            self.ledger.hit(name);
        }
        if refused || plan.start == Start::Refused {
            self.dial_failed(number, "does not start");
            Ticket::open(&self.ledger, Place::Opening, "", None).settle(Fate::NoHead);
            return Err(io::ErrorKind::PermissionDenied.into());
        }
        self.ledger.note(format_args!("server   process {number}"));
        let [reads, _] = self.plan.upstream_wire;
        let (stdin, input) = wire::connection(Manner::PLAIN, Manner::PLAIN);
        let (stdout, output) = wire::connection(reads, Manner::PLAIN);
        let signals = Signals::default();
        let (exit, exited) = watch::channel(None);
        self.state.lock().processes.push(signals.disaster.clone());
        let handle = Handle {
            number,
            exited,
            _killed_when_dropped: signals.kill.clone().drop_guard(),
            signals: signals.clone(),
        };
        tokio::spawn(async move {
            let status = self
                .live(number, plan, (input, output), signals, &exit)
                .await;
            let _ = exit.send(Some(status));
        });
        Ok(Started {
            stdin: Box::new(stdin),
            stdout: Box::new(stdout),
            stderr: Box::new(tokio::io::empty()),
            process: Box::new(handle),
        })
    }

    /// A process from its start to its end, when its pipes are closed and its session is gone.
    async fn live(
        self: &Arc<Self>,
        number: u32,
        plan: ChildPlan,
        (input, output): (Wire, Wire),
        signals: Signals,
        exit: &Exit,
    ) -> ExitStatus {
        let session = self.make_session();
        let stubborn = plan.stubborn;
        let life = Life {
            server: self,
            opening: Ticket::open(&self.ledger, Place::Opening, &session.name, None),
            session: Arc::clone(&session),
            plan,
            number,
            exit,
        };
        let terminated = async {
            signals.terminate.cancelled().await;
            if stubborn == Stubborn::Always {
                self.ledger.hit(stubborn.name());
                std::future::pending::<()>().await;
            }
        };
        life.opening.settle(Fate::Stream(StreamFate::default()));
        let (status, by_itself) = tokio::select! {
            biased;
            () = signals.kill.cancelled() => (ExitStatus::from_raw(KILLED), false),
            () = signals.disaster.cancelled() => (ExitStatus::from_raw(KILLED), true),
            () = terminated => (ExitStatus::from_raw(TERMINATED), false),
            ended = life.run(input, output) => ended,
        };
        self.ledger
            .note(format_args!("server   process {number} ends with {status}"));
        if by_itself {
            life.broke(How::Close);
        }
        self.forget(&session);
        status
    }
}

impl Life<'_> {
    /// How it ends, and whether by itself.
    async fn run(&self, input: Wire, output: Wire) -> (ExitStatus, bool) {
        match self.plan.start {
            Start::Exits => return (code(3), true),
            Start::Slow(time) => tokio::time::sleep(time).await,
            _ => {}
        }
        let hung = self.server.state.lock().hung_until;
        if let Some(until) = hung {
            tokio::time::sleep_until(until).await;
        }
        let (mut input, mut output) = (BufReader::new(input).lines(), output);
        let end = tokio::select! {
            biased;
            end = self.write(&mut output) => end,
            end = self.read(&mut input) => end,
        };
        match end {
            End::Exit(status) => (status, true),
            End::Asked => (self.asked_to_end().await, false),
            End::Hang => std::future::pending().await,
            End::Mute => {
                drop(output);
                self.broke(How::Close);
                self.server.forget(&self.session);
                while let Ok(Some(_)) = input.next_line().await {}
                (self.asked_to_end().await, false)
            }
        }
    }

    /// Nothing comes of it any more.
    fn broke(&self, how: How) {
        let at = self.server.ledger.now();
        self.opening.update(|fate| {
            if let Fate::Stream(stream) = fate {
                stream.broke.get_or_insert((at, how));
            }
        });
    }

    /// Its stdin has ended.
    async fn asked_to_end(&self) -> ExitStatus {
        if self.plan.stubborn != Stubborn::Never {
            self.server.ledger.hit(Stubborn::Once.name());
            return std::future::pending().await;
        }
        code(0)
    }

    /// Reads messages until the pipe ends, which is how a process is asked to end.
    async fn read(&self, lines: &mut Lines<BufReader<Wire>>) -> End {
        while let Ok(Some(line)) = lines.next_line().await {
            match serde_json::from_str::<Value>(&line) {
                Ok(message) => {
                    if let Some(end) = self.message(&message).await {
                        return end;
                    }
                }
                Err(error) => self
                    .server
                    .ledger
                    .violation(format!("the server got a line that is no JSON: {error}")),
            }
        }
        End::Asked
    }

    /// Does what a message asks for; the end if it ends with that.
    async fn message(&self, message: &Value) -> Option<End> {
        let (server, session) = (self.server, &self.session);
        let method = message["method"].as_str().unwrap_or_default();
        if method == "initialize" {
            return self.initialize(message).await;
        }
        let Some(key) = call_of(message) else {
            server.one_way(session, method, message);
            return None;
        };
        let ticket = Ticket::open(&server.ledger, Place::Post(key), &session.name, None);
        let plan = server.call_plan(key)?;
        let fault = server.next_fault(Subject::Post(key));
        if let Some(fault) = &fault {
            server.ledger.hit(fault.name());
        }
        match fault {
            Some(Fault::CloseUnexecuted | Fault::ResetUnexecuted) => {
                ticket.settle(Fate::NoHead);
                return Some(End::Exit(ExitStatus::from_raw(CRASHED)));
            }
            Some(Fault::Status { status, .. }) => {
                ticket.settle(Fate::Accepted);
                let id = &message["id"];
                let error = format!(
                    r#"{{"jsonrpc":"2.0","id":{id},"error":{{"code":-32050,"message":"the server's own error"}}}}"#
                );
                let what = What::Refusal(key, status);
                session.standalone.append(error, what, false);
                return None;
            }
            _ => {}
        }
        let exec = server.ledger.executes(key, &session.name);
        match fault {
            Some(Fault::ResetExecuted) => {
                ticket.settle(Fate::NoHead);
                Some(End::Exit(ExitStatus::from_raw(CRASHED)))
            }
            Some(Fault::HangHead) => {
                ticket.settle(Fate::Hangs);
                None
            }
            _ => {
                ticket.settle(Fate::Accepted);
                server.start(session, key, exec, plan.clone(), message["id"].clone());
                None
            }
        }
    }

    async fn initialize(&self, message: &Value) -> Option<End> {
        let (server, session) = (self.server, &self.session);
        let Some(client) = server
            .who(message)
            .filter(|_| session.client.get().is_none())
        else {
            server
                .ledger
                .violation(format!("an initialize that is no client's own: {message}"));
            return None;
        };
        let ticket = Ticket::open(
            &server.ledger,
            Place::Handshake(client),
            &session.name,
            None,
        );
        if self.plan.start == Start::ExitsInHandshake {
            ticket.settle(Fate::NoHead);
            return Some(End::Exit(code(1)));
        }
        if let Some(fault) = server.next_fault(Subject::Handshake(client)) {
            server.ledger.hit("handshake fault");
            let Fault::Status { status, .. } = fault else {
                ticket.settle(Fate::NoHead);
                return Some(End::Exit(ExitStatus::from_raw(CRASHED)));
            };
            ticket.settle(Fate::Status(status));
            let id = &message["id"];
            let error = format!(
                r#"{{"jsonrpc":"2.0","id":{id},"error":{{"code":-32603,"message":"not now"}}}}"#
            );
            session.standalone.append(error, What::Answer, false);
            return None;
        }
        server.give_session(session, client);
        let answer = server.initialized(message);
        session.standalone.append(answer, What::Greeting, false);
        ticket.settle(Fate::Accepted);
        None
    }

    /// Writes what the session says, until the plan breaks off.
    async fn write(&self, output: &mut Wire) -> End {
        let (server, session) = (self.server, &self.session);
        let log = &session.standalone;
        let mut position = 0;
        loop {
            let changed = log.changed.notified();
            let (Some(entry), _) = log.at(position) else {
                changed.await;
                continue;
            };
            let bytes = self.render(&entry, position);
            let cut = self.cut(&entry, position, &bytes);
            let out = &bytes[..cut.map_or(bytes.len(), |(_, at)| at)];
            if let Some((how, _)) = cut {
                self.exit_first(how, position, output, out);
            }
            if output.write_all(out).await.is_err() {
                return End::Mute;
            }
            // The last line of a pipe that ends needs no end of its own.
            let end = match cut {
                Some((How::Silence, _)) | None => 0,
                Some(_) => server.plan.server.line_end.len(),
            };
            if out.len() + end >= bytes.len() {
                server.left(session, log, position, &entry, &self.opening, false);
                self.said(entry.what);
            }
            if let Some((how, _)) = cut {
                self.server.fell_silent(session, how);
                return self.part(how);
            }
            position += 1;
        }
    }

    /// Whether who waits for the exit comes to its turn before who reads the pipe is chance: what is
    /// written last may be read after the exit was seen.
    fn exit_first(&self, how: How, position: usize, output: &Wire, last: &[u8]) {
        if let End::Exit(status) = self.part(how)
            && position.is_multiple_of(2)
            && last.len() <= output.room()
        {
            let _ = self.exit.send(Some(status));
        }
    }

    /// A line has left whole.
    fn said(&self, what: What) {
        match what {
            What::Greeting => self.opening.update(|fate| {
                if let Fate::Stream(stream) = fate {
                    stream.opened = true;
                }
            }),
            What::Refusal(key, status) => self.server.ledger.call(key, |call| {
                if let Some(post) = call.posts.last_mut() {
                    post.fate = Fate::Status(status);
                }
            }),
            _ => {}
        }
    }

    fn render(&self, entry: &Entry, position: usize) -> Vec<u8> {
        let server = &self.server.plan.server;
        let end = server.line_end;
        let noise = match position % 4 {
            0 if server.noise => format!("this is no JSON{end}"),
            1 if server.noise => end.to_owned(),
            _ => String::new(),
        };
        format!("{noise}{}{end}", entry.payload).into_bytes()
    }

    /// How it breaks off in this line, and after how many of its bytes.
    fn cut(&self, entry: &Entry, position: usize, bytes: &[u8]) -> Option<(How, usize)> {
        let ledger = &self.server.ledger;
        if entry.what == What::Greeting && self.plan.start == Start::ExitsInAnswer {
            return Some((How::Reset, bytes.len() / 2));
        }
        let (how, event, spot) = self.plan.cut?;
        if position != event as usize {
            return None;
        }
        let (spot, at) = match spot.find(bytes) {
            Some(at) => (spot, at),
            None => (Spot::Inside(128), bytes.len() / 2),
        };
        ledger.hit(ChildPlan::name(how));
        ledger.hit(spot.name());
        ledger.note(format_args!(
            "server   process {} {how:?} {spot:?} at byte {at} of {} of line {position}",
            self.number,
            bytes.len()
        ));
        Some((how, at))
    }

    /// What becomes of it when its output has broken off so.
    fn part(&self, how: How) -> End {
        match how {
            How::End => End::Exit(code(0)),
            How::Reset => End::Exit(ExitStatus::from_raw(CRASHED)),
            How::Close => End::Mute,
            How::Silence => End::Hang,
        }
    }
}
