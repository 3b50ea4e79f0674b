//! How a table is written.
//!
//! ```text
//! options: --max-sessions 1        before the first row: what both proxies are started with
//! server: stdio                    ... and that the server is a command, of which nothing is seen
//!
//! == a name                        a row begins; its requests share one connection
//! session 2025-06-18               a handshake, on a connection of its own; $session is its id
//! > POST                           a request; the method's usual headers are added
//! > accept: */*                    ... a header in place of the usual one, or besides it
//! > -content-type                  ... a usual header left out
//! > {"jsonrpc":"2.0", ...}         ... the body
//! < 400                            the response: its status
//! < allow: POST                    ... a header it has
//! < -mcp-session-id                ... a header it has not
//! < {"jsonrpc":"2.0", ...}         ... the whole body
//! | id: 1-0                        ... one line of a body that is an event stream; a $ at its end
//!                                      stands after a space
//! | end                            ... its end; without it the stream stays open
//! ^ POST                           what the server was asked last: the method
//! ^ x-kept: 1                      ... a header it got
//! ^ -cookie                        ... a header it did not get
//! ^ {"jsonrpc":"2.0", ...}         ... the whole body
//! ```
//!
//! In requests `$session` is the row's session id, `$meta` the `_meta` of a modern request, `$a*N$`
//! the letter N times, `\n` and `\xNN` in a body a byte. A response of 4xx must not have reached the
//! server, unless the row has lines about that.

/// One file.
#[derive(Debug, Default)]
pub struct Table {
    pub options: Vec<String>,
    /// Whether the server is a command, not a URL.
    pub stdio: bool,
    pub rows: Vec<Row>,
}

/// Requests on one connection.
#[derive(Debug, Default)]
pub struct Row {
    pub name: String,
    /// The version of its session, if it has one.
    pub session: Option<String>,
    pub exchanges: Vec<Exchange>,
}

/// A request and what must come of it.
#[derive(Debug, Default)]
pub struct Exchange {
    pub method: String,
    pub target: String,
    pub headers: Vec<(String, String)>,
    pub without: Vec<String>,
    pub body: Option<String>,
    pub response: Expected,
    pub upstream: Option<Expected>,
}

/// What must be seen.
#[derive(Debug, Default)]
pub struct Expected {
    /// A status, or a method.
    pub first: String,
    pub headers: Vec<(String, String)>,
    pub without: Vec<String>,
    pub body: Option<String>,
    /// Whether the body is the whole of a stream, which has ended.
    pub ended: bool,
}

/// Reads a file.
pub fn parse(text: &str) -> Table {
    let mut table = Table::default();
    for line in text.lines().map(str::trim_end) {
        if let Some(options) = line.strip_prefix("options: ") {
            table.options = options.split(' ').map(str::to_owned).collect();
        } else if line == "server: stdio" {
            table.stdio = true;
        } else if let Some(name) = line.strip_prefix("== ") {
            table.rows.push(Row {
                name: name.to_owned(),
                ..Row::default()
            });
        } else if !line.is_empty() && !line.starts_with('#') {
            let row = table.rows.last_mut();
            row.unwrap_or_else(|| panic!("before the first row: {line}"))
                .read(line);
        }
    }
    table
}

impl Row {
    fn read(&mut self, line: &str) {
        let name = &self.name;
        let (mark, rest) = line.split_once(' ').unwrap_or((line, ""));
        if mark == "session" {
            self.session = Some(rest.to_owned());
            return;
        }
        if mark == ">" && rest.starts_with(|first: char| first.is_ascii_uppercase()) {
            let (method, target) = rest.split_once(' ').unwrap_or((rest, "/mcp"));
            self.exchanges.push(Exchange {
                method: method.to_owned(),
                target: target.to_owned(),
                ..Exchange::default()
            });
            return;
        }
        let exchange = self.exchanges.last_mut();
        let exchange = exchange.unwrap_or_else(|| panic!("{name}: before a request: {line}"));
        match mark {
            ">" => match part(rest) {
                Part::Header(header, value) => exchange.headers.push((header, value)),
                Part::Without(header) => exchange.without.push(header),
                Part::Other(body) => exchange.body = Some(body),
            },
            "<" => exchange.response.read(rest),
            "^" => exchange.upstream.get_or_insert_default().read(rest),
            "|" if rest == "end" => exchange.response.ended = true,
            "|" => {
                let body = exchange.response.body.get_or_insert_default();
                body.push_str(rest.strip_suffix('$').unwrap_or(rest));
                body.push('\n');
            }
            _ => panic!("{name}: what is this? {line}"),
        }
    }
}

impl Expected {
    fn read(&mut self, text: &str) {
        match part(text) {
            Part::Header(header, value) => self.headers.push((header, value)),
            Part::Without(header) => self.without.push(header),
            Part::Other(text) if self.first.is_empty() => self.first = text,
            Part::Other(text) => self.body = Some(text),
        }
    }
}

enum Part {
    Header(String, String),
    Without(String),
    Other(String),
}

/// A header's name is in lower case, which tells it from a body.
fn part(text: &str) -> Part {
    let is_name = |name: &str| {
        name.starts_with(|first: char| first.is_ascii_lowercase())
            && name
                .bytes()
                .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
    };
    match (text.strip_prefix('-'), text.split_once(':')) {
        (Some(name), _) if is_name(name) => Part::Without(name.to_owned()),
        (_, Some((name, value))) if is_name(name) => {
            Part::Header(name.to_owned(), value.trim_start().to_owned())
        }
        _ => Part::Other(text.to_owned()),
    }
}
