//! A server with one long call, whose stream can be resumed and breaks as the test says.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};

use crate::support::client::{Broken, Client, Event, Events, Session};
use crate::support::upstream::{self, Answer, Request, Step};

/// Messages of the call before its response.
pub const MESSAGES: u64 = 5;

/// The call.
pub fn call() -> String {
    json!({
        "jsonrpc": "2.0", "id": "long", "method": "tools/call",
        "params": {"name": "long", "_meta": {"progressToken": "t"}},
    })
    .to_string()
}

/// Message `number` of the call, from 1; the one after the last is the response.
pub fn message(number: u64) -> Value {
    if number > MESSAGES {
        return upstream::text(&json!("long"), "done");
    }
    let params = json!({"progressToken": "t", "progress": number, "message": "zwölf Bärte"});
    json!({"jsonrpc": "2.0", "method": "notifications/progress", "params": params})
}

/// Whether a server repeats the event that the cursor names, or everything.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Replay {
    Exclusive,
    Inclusive,
    FromZero,
}

/// What happens to one connection of the call's stream.
#[derive(Debug, Clone)]
pub enum Fault {
    /// Bytes of the stream until this position, then the end.
    Cut(At, End),
    /// These bytes in place of an answer, then the end.
    Instead(String, End),
    /// These bytes first, then the stream.
    First(String),
    /// Piece by piece, this many bytes each.
    Slowly(usize),
    /// What there is until message n, then nothing more: the rest goes into the store only.
    Mute(u64),
}

/// Where a stream is cut.
#[derive(Debug, Clone, Copy)]
pub enum At {
    /// After the whole event of message n; 0 is the priming event.
    After(u64),
    /// This many bytes before the end of the event of message n.
    Inside(u64, usize),
    /// Right after the first occurrence of these bytes in the event of message n.
    Behind(u64, &'static str, usize),
}

/// How a connection ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// The stream is complete, as HTTP counts.
    Clean,
    /// The socket is closed in the middle.
    Close,
    /// The socket is reset.
    Reset,
}

/// The server's script.
#[derive(Debug, Clone)]
pub struct Script {
    pub replay: Replay,
    pub line_end: &'static str,
    /// One for each connection of the call's stream; afterwards all goes well.
    pub faults: Arc<Mutex<VecDeque<Fault>>>,
}

impl Script {
    pub fn new(faults: impl IntoIterator<Item = Fault>) -> Self {
        Self {
            replay: Replay::Exclusive,
            line_end: "\n",
            faults: Arc::new(Mutex::new(faults.into_iter().collect())),
        }
    }

    /// Answers one request.
    pub fn answer(&self, request: &Request) -> Answer {
        let cursor = request
            .header("last-event-id")
            .and_then(|id| id.strip_prefix("up-"));
        match (request.method.as_str(), request.tool().as_str(), cursor) {
            ("POST", "long", _) => self.stream(0, true),
            ("GET", _, Some(cursor)) => self.stream(cursor.parse().unwrap(), false),
            _ => upstream::basics(request).unwrap_or_default(),
        }
    }

    /// The event of message `number`; 0 is the priming event.
    fn event(&self, number: u64) -> String {
        let data = match number {
            0 => String::new(),
            number => message(number).to_string(),
        };
        let end = self.line_end;
        format!("id: up-{number}{end}data: {data}{end}{end}")
    }

    /// The stream after `cursor`; the answer to the POST begins with the priming event.
    fn stream(&self, cursor: u64, primes: bool) -> Answer {
        let first = match self.replay {
            _ if primes => 0,
            Replay::Exclusive => cursor + 1,
            Replay::Inclusive => cursor,
            Replay::FromZero => 1,
        };
        let numbers = first..=MESSAGES + 1;
        let whole = |numbers: std::ops::RangeInclusive<u64>| -> String {
            numbers.map(|number| self.event(number)).collect()
        };
        let fault = self.faults.lock().unwrap().pop_front();
        match fault {
            None => Answer::events().chunk(whole(numbers)).end(),
            Some(Fault::First(bytes)) => Answer::events().chunk(bytes + &whole(numbers)).end(),
            Some(Fault::Slowly(bytes)) => {
                let text = whole(numbers);
                let pieces = text.as_bytes().chunks(bytes);
                let slowly =
                    |answer: Answer, piece| answer.chunk(piece).wait(Duration::from_micros(200));
                pieces.fold(Answer::events(), slowly).end()
            }
            Some(Fault::Mute(number)) => {
                let text = whole(first..=number);
                Answer::events().chunk(text).then(Step::Hang)
            }
            Some(Fault::Instead(bytes, end)) => ended(Answer::raw(bytes), end, false),
            Some(Fault::Cut(at, end)) => {
                let text = match at {
                    At::After(number) => whole(first..=number),
                    At::Inside(number, bytes) => {
                        let text = whole(first..=number);
                        return ended(
                            Answer::events().chunk(&text.as_bytes()[..text.len() - bytes]),
                            end,
                            true,
                        );
                    }
                    At::Behind(number, needle, more) => {
                        let (text, event) = (whole(first..=number - 1), self.event(number));
                        let at = event.find(needle).unwrap() + needle.len();
                        let cut = [text.as_bytes(), &event.as_bytes()[..at + more]].concat();
                        return ended(Answer::events().chunk(cut), end, true);
                    }
                };
                ended(Answer::events().chunk(text), end, true)
            }
        }
    }
}

fn ended(answer: Answer, end: End, chunked: bool) -> Answer {
    match end {
        End::Clean if chunked => answer.end(),
        End::Clean => answer,
        End::Close => answer.then(Step::Close),
        // What was written must arrive before the reset does.
        End::Reset => answer.wait(Duration::from_millis(20)).then(Step::Reset),
    }
}

/// A client of the call: what it has seen of the stream so far.
#[derive(Debug, Default)]
pub struct Seen {
    /// The last event id that came with a whole event.
    pub cursor: Option<String>,
    /// Events with data.
    pub messages: Vec<Value>,
}

impl Seen {
    /// Takes an event; true for the response.
    pub fn take(&mut self, event: &Event) -> bool {
        if let Some(id) = &event.id {
            self.cursor = Some(id.clone());
        }
        if event.data.is_empty() {
            return false;
        }
        self.messages.push(event.json());
        self.messages
            .last()
            .is_some_and(|last| !last["id"].is_null())
    }

    /// Reads the next event with data, and what stands before it.
    pub async fn read_one(&mut self, client: &mut Client) {
        let (mut events, before) = (Events::default(), self.messages.len());
        while self.messages.len() == before {
            let event = client.event(&mut events).await.unwrap().unwrap();
            self.take(&event);
        }
    }

    /// Reads to the response.
    pub async fn read(&mut self, client: &mut Client) -> Result<(), Broken> {
        let mut events = Events::default();
        while let Some(event) = client.event(&mut events).await? {
            if self.take(&event) {
                return Ok(());
            }
        }
        Err(Broken)
    }

    /// Opens the stream again where it was left, and reads to the response.
    pub async fn resume(&mut self, session: &Session) {
        let mut client = Client::connect(session.address).await;
        client.send(session.get(self.cursor.as_deref())).await;
        let head = client.head().await;
        assert!(head.is_stream(), "{head:?}");
        self.read(&mut client).await.unwrap();
    }

    /// Every message once, in order.
    pub fn check(&self) {
        let expected: Vec<_> = (1..=MESSAGES + 1).map(message).collect();
        assert_eq!(self.messages, expected);
    }
}
