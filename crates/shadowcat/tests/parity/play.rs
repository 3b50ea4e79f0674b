//! How a table is played.

use crate::server;
use crate::support::client::{Client, Response, Session};
use crate::support::process::Proxy;
use crate::support::upstream::{Request, Upstream};
use crate::support::{MODES, until};
use crate::table::{Exchange, Expected, Row, Table};

/// Plays every row in both modes; returns how many there are.
pub async fn table(table: &Table) -> usize {
    let mut stages = Vec::new();
    for mode in MODES {
        stages.push(Stage::start(mode, table).await);
    }
    let mut failures = Vec::new();
    for row in &table.rows {
        let mut seen = Vec::new();
        for stage in &stages {
            let shown = stage.play(row).await;
            let why = shown.failures.iter();
            failures.extend(why.map(|why| format!("{} ({}): {why}", row.name, stage.mode)));
            seen.push(shown);
        }
        let (client, upstream) = (&seen[0].client, &seen[0].upstream);
        if *client != seen[1].client || *upstream != seen[1].upstream {
            failures.push(format!("{}: the modes differ: {seen:#?}", row.name));
        }
    }
    for stage in &stages {
        let panics = stage.proxy.process.stderr();
        let panics = panics.iter().find(|line| line.contains("panicked"));
        failures.extend(panics.map(|line| format!("{}: {line}", stage.mode)));
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
    table.rows.len()
}

/// A proxy in one mode, and the server behind it.
struct Stage {
    mode: &'static str,
    proxy: Proxy,
    /// None where it is a command.
    upstream: Option<Upstream>,
}

/// The command.
const STDIO: &str = include_str!("../stdio_upstream/server.sh");

/// All bytes that a row brought to either side, without what differs between any two runs.
#[derive(Debug, Default)]
struct Shown {
    client: Vec<String>,
    upstream: Vec<String>,
    /// Where it is not what the table says.
    failures: Vec<String>,
}

impl Stage {
    async fn start(mode: &'static str, table: &Table) -> Self {
        let options: Vec<_> = table.options.iter().map(String::as_str).collect();
        let (proxy, upstream) = if table.stdio {
            let command = ["--", "sh", "-c", STDIO];
            (Proxy::start(mode, &options, &command).await, None)
        } else {
            let upstream = Upstream::start(server::answer).await;
            let proxy = Proxy::start(mode, &options, &[&upstream.url()]).await;
            (proxy, Some(upstream))
        };
        Self {
            mode,
            proxy,
            upstream,
        }
    }

    async fn play(&self, row: &Row) -> Shown {
        let mut shown = Shown::default();
        let session = match &row.session {
            Some(version) => Some(self.session(version).await),
            None => None,
        };
        let mut client = Client::connect(self.proxy.address).await;
        for exchange in &row.exchanges {
            let before = self.asked().len();
            client.send(bytes(exchange, session.as_ref())).await;
            let response = self.response(&mut client, exchange).await;
            let named = self.without_names(&response, session.as_ref());
            shown.client.push(format!("{}{}", named.head, named.body));
            let asked = || {
                let mut asked = self.asked().split_off(before);
                // The end of a refused session reaches the server when it does.
                asked.retain(|request| request.method != "DELETE" || exchange.method == "DELETE");
                asked
            };
            if exchange
                .upstream
                .as_ref()
                .is_some_and(|asked| asked.first != "nothing")
            {
                // What is accepted with 202 is on its way.
                until("the server is asked", || !asked().is_empty()).await;
            }
            let asked = asked();
            shown.upstream.extend(asked.iter().map(in_one_piece));
            for checked in [
                check_response(&exchange.response, &named),
                check_upstream(exchange, response.status, &asked),
            ] {
                if let Err(why) = checked {
                    let Exchange { method, body, .. } = exchange;
                    shown.failures.push(format!("{method} {body:?}: {why}"));
                }
            }
            if is_open(exchange) {
                // What a stream left behind belongs to no later response.
                client = Client::connect(self.proxy.address).await;
            }
        }
        shown
    }

    /// What the server was asked so far.
    fn asked(&self) -> Vec<Request> {
        self.upstream
            .as_ref()
            .map(Upstream::seen)
            .unwrap_or_default()
    }

    /// A session whose server has seen the whole handshake.
    async fn session(&self, version: &str) -> Session {
        let Some(upstream) = &self.upstream else {
            return Session::open(self.proxy.address, version).await;
        };
        let initialized = || upstream.calls("notifications/initialized").len();
        let before = initialized();
        let session = Session::open(self.proxy.address, version).await;
        until("the server sees the handshake", || initialized() > before).await;
        session
    }

    /// The response: whole, or as much of a stream as the row knows.
    async fn response(&self, client: &mut Client, exchange: &Exchange) -> Response {
        let mut response = client.head().await;
        if !is_open(exchange) || !response.is_stream() {
            return client.body(response).await;
        }
        let wanted = exchange.response.body.as_deref().unwrap_or_default();
        while response.body.len() < wanted.len() {
            match client.try_chunk().await {
                Ok(Some(chunk)) => response.body.push_str(&chunk),
                Ok(None) | Err(_) => response.body.push_str("(the end, too early)"),
            }
        }
        response
    }

    /// Session ids, ports and dates replaced by words.
    fn without_names(&self, response: &Response, session: Option<&Session>) -> Response {
        let mut names = Vec::new();
        names.extend(session.map(|session| (session.id.clone(), "<session>")));
        names.extend(
            response
                .header("mcp-session-id")
                .map(|id| (id.to_owned(), "<session>")),
        );
        names.extend(
            response
                .header("date")
                .map(|date| (date.to_owned(), "<date>")),
        );
        // After the session ids: the digits of a port may stand in one.
        names.push((self.proxy.address.port().to_string(), "<port>"));
        names.extend(self.upstream.as_ref().map(|upstream| {
            let port = upstream.address.port().to_string();
            (port, "<server's port>")
        }));
        let rename = |text: &str| {
            let mut text = text.to_owned();
            for (from, to) in &names {
                text = text.replace(from, to);
            }
            text
        };
        Response {
            status: response.status,
            head: rename(&response.head),
            body: rename(&response.body),
        }
    }
}

/// Whether the row leaves the response's stream open.
fn is_open(exchange: &Exchange) -> bool {
    let expected = &exchange.response;
    let kind = expected
        .headers
        .iter()
        .find(|(name, _)| name == "content-type");
    kind.is_some_and(|(_, kind)| kind == "text/event-stream") && !expected.ended
}

const META: &str = r#""_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientCapabilities":{},"io.modelcontextprotocol/clientInfo":{"name":"raw","version":"1"}}"#;

/// The request's bytes.
fn bytes(exchange: &Exchange, session: Option<&Session>) -> Vec<u8> {
    let mut headers = vec![("host".to_owned(), "localhost".to_owned())];
    let mut usual = |name: &str, value: &str| headers.push((name.to_owned(), value.to_owned()));
    match exchange.method.as_str() {
        "POST" => {
            usual("accept", "application/json, text/event-stream");
            usual("content-type", "application/json");
        }
        "GET" => usual("accept", "text/event-stream"),
        _ => {}
    }
    if let Some(session) = session {
        usual("mcp-session-id", &session.id);
        if session.version.as_str() >= "2025-06-18" {
            usual("mcp-protocol-version", &session.version);
        }
    }
    headers.retain(|(name, _)| {
        !exchange.without.contains(name) && exchange.headers.iter().all(|(own, _)| own != name)
    });
    headers.extend(exchange.headers.iter().cloned());
    let body = exchange
        .body
        .as_deref()
        .map(|body| unescaped(&substituted(body, session)));
    let chunked = headers.iter().any(|(name, _)| name == "transfer-encoding");
    if let Some(body) = body.as_ref().filter(|_| !chunked) {
        headers.push(("content-length".to_owned(), body.len().to_string()));
    }
    let mut text = format!("{} {} HTTP/1.1\r\n", exchange.method, exchange.target);
    for (name, value) in headers {
        text.push_str(&format!("{name}: {}\r\n", substituted(&value, session)));
    }
    text.push_str("\r\n");
    let mut bytes = text.into_bytes();
    let body = body.unwrap_or_default();
    if chunked {
        for chunk in body.chunks(1000) {
            bytes.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
            bytes.extend_from_slice(chunk);
            bytes.extend_from_slice(b"\r\n");
        }
        bytes.extend_from_slice(b"0\r\n\r\n");
    } else {
        bytes.extend_from_slice(&body);
    }
    bytes
}

fn substituted(text: &str, session: Option<&Session>) -> String {
    let id = session.map_or("$session", |session| &session.id);
    let mut text = text.replace("$session", id).replace("$meta", META);
    while let Some((before, rest)) = text.split_once("$a*") {
        let (number, after) = rest.split_once('$').unwrap();
        let letters = "a".repeat(number.parse().unwrap());
        text = format!("{before}{letters}{after}");
    }
    text
}

/// `\n` and `\xNN` as bytes.
fn unescaped(text: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        rest = after;
        match (first, after) {
            (b'\\', [b'n', after @ ..]) => {
                bytes.push(b'\n');
                rest = after;
            }
            (b'\\', [b'x', high, low, after @ ..]) => {
                let digits = [*high, *low];
                let digits = std::str::from_utf8(&digits).unwrap();
                bytes.push(u8::from_str_radix(digits, 16).unwrap());
                rest = after;
            }
            _ => bytes.push(first),
        }
    }
    bytes
}

fn check_response(expected: &Expected, response: &Response) -> Result<(), String> {
    if response.status.to_string() != expected.first {
        return Err(format!("not {}: {response:?}", expected.first));
    }
    for (name, value) in &expected.headers {
        if response.header(name) != Some(value) {
            return Err(format!("not {name}: {value}: {}", response.head));
        }
    }
    for name in &expected.without {
        if response.header(name).is_some() {
            return Err(format!("has {name}: {}", response.head));
        }
    }
    let body = expected.body.as_deref().unwrap_or_default();
    if response.body != body {
        return Err(format!("the body is not\n{body}\nbut\n{}", response.body));
    }
    Ok(())
}

fn check_upstream(exchange: &Exchange, status: u16, asked: &[Request]) -> Result<(), String> {
    let Some(expected) = &exchange.upstream else {
        return match asked.first() {
            Some(request) if (400..500).contains(&status) => {
                Err(format!("reached the server: {request:?}"))
            }
            _ => Ok(()),
        };
    };
    if expected.first == "nothing" {
        return match asked.first() {
            Some(request) => Err(format!("reached the server: {request:?}")),
            None => Ok(()),
        };
    }
    let request = asked.last().ok_or("the server was not asked")?;
    if request.method != expected.first {
        return Err(format!("not {}: {request:?}", expected.first));
    }
    for (name, value) in &expected.headers {
        if request.header(name) != Some(value) {
            return Err(format!("not {name}: {value}: {request:?}"));
        }
    }
    for name in &expected.without {
        if request.header(name).is_some() {
            return Err(format!("has {name}: {request:?}"));
        }
    }
    match &expected.body {
        Some(body) if request.body != substituted(body, None) => {
            Err(format!("not {body}: {request:?}"))
        }
        _ => Ok(()),
    }
}

/// A request as text, without what differs between any two runs.
fn in_one_piece(request: &Request) -> String {
    let fields = request.headers.iter().filter(|(name, _)| name != "host");
    let fields: Vec<_> = fields
        .map(|(name, value)| format!("{name}: {value}"))
        .collect();
    format!(
        "{} {}\n{}\n\n{}",
        request.method,
        request.target,
        fields.join("\n"),
        request.body
    )
}
