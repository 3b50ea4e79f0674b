//! The real binary before a small server, and an HTTP client that is just a socket.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

pub(crate) const SERVER: &str = include_str!("server.sh");

/// The parameters of an `initialize`.
pub(crate) const INITIALIZE: &str =
    r#"{"protocolVersion":"2025-06-18","capabilities":{},"clientInfo":{"name":"t","version":"1"}}"#;

/// Nothing here takes longer on a loaded machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// Ends on drop, whatever the test did.
pub(crate) struct Proxy {
    process: Child,
    stderr: Receiver<String>,
    seen: Vec<String>,
}

pub(crate) fn shadowcat(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_shadowcat"));
    command.args(arguments);
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("SHADOWCAT_")) {
        command.env_remove(name);
    }
    command.env_remove("RUST_LOG");
    command
}

impl Proxy {
    pub(crate) fn start(arguments: &[&str]) -> Self {
        let mut process = shadowcat(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(process.stderr.take().unwrap()).lines();
        let (sender, stderr) = channel();
        std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        Self {
            process,
            stderr,
            seen: Vec::new(),
        }
    }

    /// `reverse` on a free port before the server, with more options.
    pub(crate) fn reverse(options: &[&str], command: &[&str]) -> (Self, Http) {
        Self::listening(&["reverse", "--listen", "127.0.0.1:0"], options, command)
    }

    /// As [`Self::reverse`], for a mode and an address.
    pub(crate) fn listening(mode: &[&str], options: &[&str], command: &[&str]) -> (Self, Http) {
        let mut arguments = mode.to_vec();
        arguments.extend(options);
        arguments.push("--");
        arguments.extend(command);
        let mut proxy = Self::start(&arguments);
        let line = proxy.until("listening on http://");
        let address = line.split("http://").nth(1).unwrap();
        let address = address.split('/').next().unwrap();
        let address = address.replace("0.0.0.0", "127.0.0.1");
        (proxy, Http { address })
    }

    /// Where the operator's endpoint is; it was told before the client edge's.
    pub(crate) fn admin(&self) -> String {
        let line = self
            .seen
            .iter()
            .find(|line| line.contains("health and metrics"));
        let address = line.unwrap().split("http://").nth(1).unwrap();
        address.trim_end_matches('/').to_owned()
    }

    /// Waits for a line on stderr that contains this.
    pub(crate) fn until(&mut self, what: &str) -> String {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.stderr.recv_timeout(left) {
                Ok(line) => {
                    self.seen.push(line.clone());
                    if line.contains(what) {
                        return line;
                    }
                }
                Err(_) => panic!("no {what:?} in {:#?}", self.seen),
            }
        }
    }

    pub(crate) fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.process.id()).unwrap();
        kill_process(Pid::from_raw(pid).unwrap(), signal).unwrap();
    }

    pub(crate) fn process(&mut self) -> &mut Child {
        &mut self.process
    }

    pub(crate) fn wait(&mut self) -> ExitStatus {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.process.try_wait().unwrap() {
                return status;
            }
            assert!(Instant::now() < deadline, "it does not end");
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[derive(Clone)]
pub(crate) struct Http {
    address: String,
}

/// A response, read to its end.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: String,
}

impl Http {
    pub(crate) fn at(address: &str) -> Self {
        let address = address.to_owned();
        Self { address }
    }

    /// Everything that a plain GET brings.
    pub(crate) fn get(&self, path: &str) -> String {
        let mut socket = TcpStream::connect(&self.address).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        let address = &self.address;
        write!(
            socket,
            "GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n"
        )
        .unwrap();
        let mut text = String::new();
        socket.read_to_string(&mut text).unwrap();
        text
    }

    pub(crate) fn exchange(&self, method: &str, fields: &str, body: &str) -> Answer {
        let mut socket = self.open(method, fields, body);
        let mut text = String::new();
        socket.read_to_string(&mut text).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        Answer {
            status: head[9..12].parse().unwrap(),
            head: head.to_ascii_lowercase(),
            body: body.to_owned(),
        }
    }

    /// Sends a request and leaves the rest to the caller.
    pub(crate) fn open(&self, method: &str, fields: &str, body: &str) -> TcpStream {
        let mut socket = TcpStream::connect(&self.address).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        let (address, length) = (&self.address, body.len());
        write!(
            socket,
            "{method} /mcp HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\
             Accept: application/json, text/event-stream\r\nContent-Type: application/json\r\n\
             Content-Length: {length}\r\n{fields}\r\n{body}"
        )
        .unwrap();
        socket
    }

    /// An `initialize`, whatever comes of it.
    pub(crate) fn initialize(&self) -> Answer {
        self.exchange("POST", "", &request(1, "initialize", INITIALIZE))
    }

    pub(crate) fn session(&self) -> Session {
        let answer = self.initialize();
        assert_eq!(answer.status, 200, "{answer:?}");
        let id = answer
            .head
            .lines()
            .find_map(|line| line.strip_prefix("mcp-session-id: "))
            .unwrap_or_else(|| panic!("no session: {answer:?}"));
        let session = Session {
            http: self.clone(),
            id: id.to_owned(),
        };
        let initialized = r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#;
        assert_eq!(session.post(initialized).status, 202);
        session
    }

    /// A request of protocol version 2026-07-28.
    pub(crate) fn modern(&self, id: i64, method: &str) -> Answer {
        let (fields, body) = modern(id, method);
        self.exchange("POST", &fields, &body)
    }
}

/// The fields and the body of a modern call of the tool `t`, whose argument is mirrored.
pub(crate) fn modern_call(region: &str, header: &str) -> (String, String) {
    let fields = format!(
        "MCP-Protocol-Version: 2026-07-28\r\nMcp-Method: tools/call\r\nMcp-Name: t\r\n{header}\r\n"
    );
    let meta = r#""_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientCapabilities":{}}"#;
    let params = format!(r#"{{{meta},"name":"t","arguments":{{"region":"{region}"}}}}"#);
    (fields, request(1, "tools/call", &params))
}

/// The fields and the body of a modern request, with a progress token equal to its id.
pub(crate) fn modern(id: i64, method: &str) -> (String, String) {
    let fields = format!("MCP-Protocol-Version: 2026-07-28\r\nMcp-Method: {method}\r\n");
    let meta = format!(
        r#"{{"_meta":{{"progressToken":{id},"io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientCapabilities":{{}}}}}}"#
    );
    (fields, request(id, method, &meta))
}

pub(crate) struct Session {
    http: Http,
    id: String,
}

impl Session {
    pub(crate) fn fields(&self) -> String {
        format!("Mcp-Session-Id: {}\r\n", self.id)
    }

    pub(crate) fn post(&self, body: &str) -> Answer {
        self.http.exchange("POST", &self.fields(), body)
    }

    pub(crate) fn call(&self, id: i64, method: &str) -> Answer {
        self.post(&request(id, method, "{}"))
    }

    /// The process that serves this session.
    pub(crate) fn pid(&self, id: i64) -> i32 {
        pid_in(&self.call(id, "x/pid").body)
    }

    pub(crate) fn delete(&self) -> Answer {
        self.http.exchange("DELETE", &self.fields(), "")
    }
}

pub(crate) fn pid_in(body: &str) -> i32 {
    let rest = body.split(r#""pid":"#).nth(1);
    let rest = rest.unwrap_or_else(|| panic!("no process id: {body}"));
    rest.split('}').next().unwrap().parse().unwrap()
}

pub(crate) fn request(id: i64, method: &str, params: &str) -> String {
    format!(r#"{{"jsonrpc":"2.0","id":{id},"method":"{method}","params":{params}}}"#)
}

/// Whether a process runs; one that only waits to be reaped does not.
pub(crate) fn runs(pid: i32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"));
    stat.is_ok_and(|stat| !stat.rsplit(')').next().unwrap().starts_with(" Z"))
}

pub(crate) fn eventually(what: &str, condition: impl Fn() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < deadline, "never: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// A file that the server makes at the end of its stdin.
pub(crate) struct Mark(std::path::PathBuf);

/// A path where no file is.
fn no_file(name: &str) -> std::path::PathBuf {
    let name = format!("stdio-{name}-{}", std::process::id());
    let path = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    let _ = std::fs::remove_file(&path);
    path
}

impl Mark {
    pub(crate) fn new(name: &str) -> Self {
        Self(no_file(name))
    }

    pub(crate) fn variable(&self) -> String {
        format!("MARK={}", self.0.display())
    }

    pub(crate) fn is_made(&self) -> bool {
        std::fs::read_to_string(&self.0).is_ok_and(|text| text == "end of stdin\n")
    }
}

/// A file to which the server adds a line at each start.
pub(crate) struct Starts(std::path::PathBuf);

impl Starts {
    pub(crate) fn new(name: &str) -> Self {
        Self(no_file(name))
    }

    pub(crate) fn variable(&self) -> String {
        format!("STARTS={}", self.0.display())
    }

    pub(crate) fn count(&self) -> usize {
        std::fs::read_to_string(&self.0).map_or(0, |text| text.lines().count())
    }
}

impl Drop for Starts {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

impl Drop for Mark {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}
