//! One running process: what goes in and out, how its death is noticed, how it is ended.
//!
//! A task of its own owns the process ([`Life`]). Death is noticed by whichever comes first: the
//! process's exit (even while a descendant holds its pipes open), the end of its stdout, or a
//! stdin that takes nothing any more. Everybody who waits is answered at once; then what is left
//! of the process group is ended.

use std::process::ExitStatus;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use shadowcat_mcp::fault::Fault;
use shadowcat_mcp::message::Message;
use tokio::io::AsyncRead;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Instant, timeout};
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::AbortOnDropHandle;
use tracing::{debug, info, warn};

use super::faults::{self, Death};
use super::group::Ask;
use super::last_line::LastLine;
use super::output::{self, Emptied};
use super::process::{Process, Started};
use super::{Audience, Shared};
use crate::lines::{self, LineSender, LineWriter};
use crate::metrics::{ByteLabels, Reason};
use crate::upstream::pipe::{Clients, Router};
use crate::upstream::{Incoming, Reply, RequestContext};

/// How long a process that closed a pipe may take to exit, so that the error can say how.
const LAST_WORDS: Duration = Duration::from_millis(400);
/// How long what is left in the pipe of a dead process may take to be read.
const REST: Duration = Duration::from_millis(250);
/// How long the last line on a dead process's stderr may take to be read.
const LAST_LINE: Duration = Duration::from_millis(100);
/// How long a process that is to end may take nothing of what still waits for it.
const FINISH_PATIENCE: Duration = Duration::from_millis(500);
/// How long a group may take to end after its stdin was closed, after SIGTERM, and after SIGKILL. The
/// first is less than the 2 s after which the official SDKs' clients send SIGTERM to what they
/// started, which may be us.
const GRACE: [(Option<Ask>, Duration); 3] = [
    (None, Duration::from_millis(1500)),
    (Some(Ask::Terminate), Duration::from_secs(2)),
    (Some(Ask::Kill), Duration::from_secs(1)),
];
/// Exit statuses by which a launcher says that it could not run the command.
const LAUNCHER_STATUSES: [i32; 2] = [126, 127];

/// A handle on a process. Dropping it ends the process.
pub(super) struct Child {
    router: Router,
    lines: LineSender,
    ending: CancellationToken,
    gone: CancellationToken,
    /// Whether it was passed on and has had no handshake since.
    passed_on: AtomicBool,
    _end_when_dropped: DropGuard,
}

impl Child {
    /// Starts a process; `room` is given back when it has ended.
    pub(super) async fn start(
        shared: Arc<Shared>,
        clients: Clients,
        room: OwnedSemaphorePermit,
    ) -> Result<Self, Fault> {
        let not_started = |error| faults::not_started(&shared.name, &error);
        let started = shared.processes.start(shared.config.command()).await;
        let Started {
            stdin,
            stdout,
            stderr,
            process,
        } = started.map_err(not_started)?;
        let labels = ByteLabels {
            leg: "upstream",
            direction: "sent",
        };
        let sent = shared.metrics.bytes.get_or_create(&labels).clone();
        let writer = lines::writer(stdin, move |count| {
            sent.inc_by(count);
        });
        let lines = writer.sender();
        let (own, metrics) = (writer.sender(), Arc::clone(&shared.metrics));
        let router = Router::new(clients, Arc::clone(&shared.metrics), move |message| {
            if !own.try_send(message.as_line()) {
                metrics.undelivered_messages.inc();
            }
        });
        let (ending, gone) = (CancellationToken::new(), CancellationToken::new());
        debug!(server = shared.name, process = process.id(), "started");
        let life = Life {
            running: Some(Running::new(&shared, room)),
            process,
            writer: Some(writer),
            router: router.clone(),
            answers: lines.clone(),
            ending: ending.clone(),
            productive: Arc::default(),
            complaint: Arc::default(),
            last_line: Arc::new(LastLine::new(&shared.config.environment)),
            stdout_emptied: Emptied::default(),
            stderr_emptied: Emptied::default(),
            started: Instant::now(),
            died: Instant::now(),
            shared,
            _gone: gone.clone().drop_guard(),
        };
        tokio::spawn(life.run(stdout, stderr));
        Ok(Self {
            router,
            lines,
            gone,
            passed_on: AtomicBool::new(false),
            _end_when_dropped: ending.clone().drop_guard(),
            ending,
        })
    }

    /// Writes a request; the reply gets what belongs to it.
    pub(super) async fn request(
        &self,
        request: &Message,
        mut context: RequestContext,
    ) -> Result<Reply, Fault> {
        let begun = self.router.begin(request)?;
        // It fails when the process is dead, and then the router tells the reply, with the cause.
        let _ = self
            .lines
            .send(begun.message.as_line(), Some(begun.mark))
            .await;
        context.dispatched.fire();
        Ok(Reply::Pipe(begun.incoming))
    }

    /// Writes a notification or a response.
    pub(super) async fn send(&self, message: &Message) -> Result<(), Fault> {
        self.router.observe(message);
        let sent = self.lines.send(message.as_line(), None).await;
        sent.map_err(|_| {
            let ended = self.router.ended();
            ended.unwrap_or_else(|| Death::InputClosed.fault("its stdin", None, true))
        })
    }

    /// Whether these clients can have it in place of whoever used it: it lives, nothing is open on
    /// it, and it has said nothing but its answers.
    pub(super) fn pass_to(&self, clients: Clients) -> bool {
        let passed = self.router.pass_to(clients);
        self.passed_on.store(passed, Ordering::Relaxed);
        passed
    }

    /// Whether it was passed on and has had no handshake since; one begins.
    pub(super) fn is_untried(&self) -> bool {
        self.passed_on.load(Ordering::Relaxed) && self.passed_on.swap(false, Ordering::Relaxed)
    }

    pub(super) fn standalone(&self) -> Incoming {
        self.router.standalone()
    }

    pub(super) fn set_standalone_open(&self, open: bool) {
        self.router.set_standalone_open(open);
    }

    /// Waits until it is dead; what it died of.
    pub(super) async fn died(&self) -> Fault {
        self.router.died().await
    }

    /// Ends the process and waits until it is gone.
    pub(super) async fn end(&self) {
        self.ending.cancel();
        self.gone.cancelled().await;
    }
}

/// A process's place among the running ones.
struct Running {
    shared: Arc<Shared>,
    ending: bool,
    _room: OwnedSemaphorePermit,
}

impl Running {
    fn new(shared: &Arc<Shared>, room: OwnedSemaphorePermit) -> Self {
        shared.metrics.children.inc();
        Self {
            shared: Arc::clone(shared),
            ending: false,
            _room: room,
        }
    }

    /// Its place will be free soon.
    fn set_ending(&mut self) {
        if !std::mem::replace(&mut self.ending, true) {
            self.shared.ending.fetch_add(1, Ordering::SeqCst);
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.shared.metrics.children.dec();
        if self.ending {
            self.shared.ending.fetch_sub(1, Ordering::SeqCst);
        }
    }
}

/// The owner of a process, from its start until nothing of it is left.
struct Life {
    shared: Arc<Shared>,
    process: Box<dyn Process>,
    /// Until its stdin is closed.
    writer: Option<LineWriter>,
    router: Router,
    answers: LineSender,
    ending: CancellationToken,
    /// Whether it sent a message.
    productive: Arc<Mutex<bool>>,
    /// Why the launcher could not run the command.
    complaint: Arc<Mutex<Option<String>>>,
    /// What it said last.
    last_line: Arc<LastLine>,
    stdout_emptied: Emptied,
    stderr_emptied: Emptied,
    started: Instant,
    /// When its death was noticed, once it was.
    died: Instant,
    /// Until it exits.
    running: Option<Running>,
    _gone: DropGuard,
}

impl Life {
    async fn run(
        mut self,
        stdout: impl AsyncRead + Send + Unpin + 'static,
        stderr: impl AsyncRead + Send + Unpin + 'static,
    ) {
        let mut reading = AbortOnDropHandle::new(tokio::spawn(output::messages(
            stdout,
            Arc::clone(&self.shared),
            self.router.clone(),
            self.answers.clone(),
            Arc::clone(&self.productive),
            self.stdout_emptied.clone(),
        )));
        let mut relaying = AbortOnDropHandle::new(tokio::spawn(output::relay(
            stderr,
            Arc::clone(&self.shared),
            Arc::clone(&self.complaint),
            Arc::clone(&self.last_line),
            self.stderr_emptied.clone(),
        )));
        match self.death(&mut reading, &mut relaying).await {
            Some(death) => self.died(&death),
            None => {
                self.count_exit("stopped");
                self.router.end(faults::closed());
            }
        }
        self.bury().await;
        if !relaying.is_finished() {
            let _ = timeout(REST, &mut relaying).await;
        }
    }

    /// Waits until the process is dead, `None` if it is to be ended.
    async fn death(
        &mut self,
        reading: &mut AbortOnDropHandle<()>,
        relaying: &mut AbortOnDropHandle<()>,
    ) -> Option<Death> {
        let broken = async {
            match &mut self.writer {
                Some(writer) => writer.broken().await,
                None => std::future::pending().await,
            }
        };
        let first = tokio::select! {
            biased;
            () = self.ending.cancelled() => return None,
            status = self.process.wait() => Err(status),
            _ = &mut *reading => Ok(Death::OutputClosed),
            _ = broken => Ok(Death::InputClosed),
        };
        self.died = Instant::now();
        self.router.hurry();
        if let Some(writer) = &self.writer {
            // Whoever comes now has still done nothing.
            writer.refuse();
        }
        let status = match first {
            Err(status) => status,
            Ok(closed) => {
                if matches!(closed, Death::InputClosed) {
                    self.writer = None;
                }
                match timeout(LAST_WORDS, self.process.wait()).await {
                    Ok(status) => status,
                    Err(_) => return Some(closed),
                }
            }
        };
        self.running = None;
        output::rest(reading, &self.stdout_emptied, REST).await;
        Some(match status {
            Ok(status) => self.exited(status, relaying).await,
            Err(error) => Death::Lost(error),
        })
    }

    /// Tells a command that could not be run from one that ran and exited.
    async fn exited(&self, status: ExitStatus, relaying: &mut AbortOnDropHandle<()>) -> Death {
        let code = status.code();
        let launcher = code.is_some_and(|code| LAUNCHER_STATUSES.contains(&code));
        let patience = if launcher { REST } else { LAST_LINE };
        output::rest(relaying, &self.stderr_emptied, patience).await;
        match self.complaint.lock().take() {
            Some(why) if launcher => Death::NotRun(why),
            _ => Death::Exited(status),
        }
    }

    /// It ended by itself: everybody who waits is told.
    fn died(&self, death: &Death) {
        let name = &self.shared.name;
        let last_line = self.last_line.about(self.died);
        let last_line = last_line.as_deref();
        let productive = *self.productive.lock();
        let fault = death.fault(name, None, productive);
        let metrics = &self.shared.metrics;
        metrics.child_crashes.inc();
        self.count_exit(death.cause());
        let lived = self.started.elapsed();
        warn!(server = name, %fault, last_line, ?lived, "a server's process ended by itself");
        let told = match self.shared.config.audience {
            Audience::LocalUser => death.fault(name, last_line, productive),
            Audience::Anyone => fault,
        };
        let rarely = {
            let mut crashes = self.shared.crashes.lock();
            crashes.crashed(Instant::now(), lived, productive)
        };
        // Whoever hears of it may start the next process: all is counted before.
        self.router.end(told);
        if rarely {
            // No stream and no session is given up by this: those have engines that tell of it.
            info!(
                server = name,
                "it ended too often before it answered anything; from now on it is started once a minute"
            );
        }
    }

    fn count_exit(&self, cause: &'static str) {
        let exits = &self.shared.metrics.child_exits;
        exits.get_or_create(&Reason::of(cause)).inc();
    }

    /// Ends the process and its descendants: closes stdin, asks, kills.
    async fn bury(&mut self) {
        if let Some(running) = &mut self.running {
            running.set_ending();
        }
        if let Some(writer) = self.writer.take() {
            let _ = writer.finish(FINISH_PATIENCE).await;
        }
        for (ask, grace) in GRACE {
            if let Some(ask) = ask {
                self.tell_asked(ask);
                self.process.ask(ask);
            }
            if timeout(grace, self.over()).await.is_ok() {
                return;
            }
        }
        warn!(
            server = self.shared.name,
            "a process of the server cannot be killed"
        );
    }

    /// Many servers run on after the end of their stdin; one that runs on after SIGTERM is rare.
    fn tell_asked(&self, ask: Ask) {
        let (server, signal) = (&self.shared.name, ask.signal());
        match ask {
            Ask::Terminate => debug!(
                server,
                signal, "ending the server's process, which runs on after the end of its stdin"
            ),
            Ask::Kill => info!(
                server,
                signal, "ending the server's process, which runs on after SIGTERM"
            ),
        }
    }

    /// Ends when neither the process nor any of its group is left.
    async fn over(&mut self) {
        let _ = self.process.wait().await;
        self.running = None;
        let mut pause = Duration::from_millis(2);
        while !self.process.is_alone() {
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(Duration::from_millis(100));
        }
    }
}
