//! What was lost, what came twice, and what could not be saved.

use std::collections::{BTreeMap, HashMap, HashSet};

use serde_json::Value;
use shadowcat_testkit::client::Outcome;
use shadowcat_testkit::fixture::Entry;

use super::books::{Books, Played, is_announcement};
use super::plan::{Break, Tool};

/// The sums.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Verdict {
    /// Calls with their result.
    pub(super) answered: usize,
    /// Calls with a clear error, where nothing could be saved.
    pub(super) unavoidable: usize,
    /// Calls with an error though they could have been saved.
    pub(super) avoidable: usize,
    /// Calls without any answer.
    pub(super) unanswered: usize,
    /// Calls that nothing ended in time.
    pub(super) hung: usize,
    /// Calls that the server carried out more than once.
    pub(super) executed_twice: usize,
    /// Messages that did not come.
    pub(super) lost: usize,
    /// Messages that came more than once.
    pub(super) twice: usize,
    /// Messages that came at the wrong place.
    pub(super) misplaced: usize,
    /// Messages that clients got, by kind.
    pub(super) messages: BTreeMap<String, usize>,
    /// What the server did wrong, by kind.
    pub(super) faults: BTreeMap<&'static str, usize>,
    /// Faults whose call or stream came through whole all the same.
    pub(super) recovered: usize,
    /// Events that the server wrote again.
    pub(super) repeated: usize,
    /// The first few things that went wrong.
    pub(super) complaints: Vec<String>,
}

/// Complaints that are shown.
const SHOWN: usize = 5;

impl Verdict {
    /// What is wrong, if anything is.
    pub(super) fn failure(&self) -> Option<String> {
        let counts = [
            (self.lost + self.unanswered, "lost"),
            (self.twice + self.executed_twice, "twice"),
            (self.misplaced, "out of order"),
            (self.hung, "hanging"),
            (self.avoidable, "failed that could have been saved"),
        ];
        let wrong = counts.iter().filter(|(count, _)| *count > 0);
        let wrong: Vec<_> = wrong
            .map(|(count, what)| format!("{count} {what}"))
            .collect();
        (!wrong.is_empty()).then(|| wrong.join(", "))
    }

    fn complain(&mut self, text: impl FnOnce() -> String) {
        if self.complaints.len() < SHOWN {
            self.complaints.push(text());
        }
    }
}

/// Compares what the clients got with what the server did.
pub(super) fn judge(books: &Books, ledger: &[Entry]) -> Verdict {
    let mut verdict = Verdict::default();
    let server = Server::read(ledger, &mut verdict);
    let mut whole = HashSet::new();
    for played in &books.calls {
        let before = (verdict.lost, verdict.twice, verdict.misplaced);
        judge_call(&mut verdict, played, &server, books);
        let after = (verdict.lost, verdict.twice, verdict.misplaced);
        if played.result().is_some() && before == after {
            whole.insert(played.call.nonce.as_str());
        }
    }
    let before = verdict.lost + verdict.twice + verdict.misplaced;
    for (client, messages) in &books.standalone {
        judge_standalone(&mut verdict, *client, messages, books);
    }
    let streams_whole = before == verdict.lost + verdict.twice + verdict.misplaced;
    for struck in &server.faults {
        let is_call = books
            .calls
            .iter()
            .any(|played| played.call.nonce == struck.0);
        let recovered = if is_call {
            whole.contains(struck.0)
        } else {
            streams_whole
        };
        verdict.recovered += usize::from(recovered);
    }
    for (broken, _) in &books.breaks {
        let name = match broken {
            Break::Restart => "restart",
            Break::RestartWithLog => "restart with its log",
        };
        *verdict.faults.entry(name).or_default() += 1;
        verdict.recovered += usize::from(streams_whole);
    }
    verdict
}

/// What the server's ledger says.
struct Server<'a> {
    executed: HashMap<&'a str, usize>,
    /// Faults by what they struck.
    faults: Vec<(&'a str, bool)>,
}

impl<'a> Server<'a> {
    fn read(ledger: &'a [Entry], verdict: &mut Verdict) -> Self {
        let mut server = Self {
            executed: HashMap::new(),
            faults: Vec::new(),
        };
        for entry in ledger {
            match entry {
                Entry::Executed {
                    nonce: Some(nonce), ..
                } => *server.executed.entry(nonce).or_default() += 1,
                Entry::Fault {
                    fault,
                    to,
                    saveable,
                } => {
                    *verdict.faults.entry(fault).or_default() += 1;
                    server.faults.push((to, *saveable));
                }
                Entry::Repeated { events } => verdict.repeated += events,
                _ => {}
            }
        }
        server
    }

    fn beyond_saving(&self, nonce: &str) -> bool {
        self.faults
            .iter()
            .any(|(to, saveable)| *to == nonce && !saveable)
    }
}

fn judge_call(verdict: &mut Verdict, played: &Played, server: &Server<'_>, books: &Books) {
    let nonce = &*played.call.nonce;
    let executed = server.executed.get(nonce).copied().unwrap_or(0);
    if executed > 1 {
        verdict.executed_twice += 1;
        verdict.complain(|| format!("{nonce} was carried out {executed} times"));
    }
    let Some(outcome) = &played.outcome else {
        verdict.hung += 1;
        verdict.complain(|| format!("{nonce} ({}) hangs", played.call.tool.name()));
        return;
    };
    for message in &outcome.messages {
        let kind = message["method"].as_str().unwrap_or("response");
        *verdict.messages.entry(kind.to_owned()).or_default() += 1;
    }
    let marks = outcome.messages.iter().filter_map(|it| mark(it, nonce));
    let found: Vec<u64> = marks.collect();
    let foreign = outcome.messages.len() - found.len();
    if foreign > 0 {
        verdict.misplaced += foreign;
        verdict.complain(|| format!("{nonce} got {foreign} messages of others"));
    }
    let complete = played.result().is_some();
    let expected = if complete {
        expected(played)
    } else {
        found.iter().copied().max().unwrap_or(0)
    };
    count(verdict, nonce, &found, expected);
    judge_answer(
        verdict,
        played,
        outcome,
        server.beyond_saving(nonce) || books.forgotten(played),
    );
}

fn judge_answer(verdict: &mut Verdict, played: &Played, outcome: &Outcome, excused: bool) {
    let nonce = &*played.call.nonce;
    let tool = played.call.tool.name();
    if let Some(result) = played.result() {
        *verdict.messages.entry("response".into()).or_default() += 1;
        if result["structuredContent"]["nonce"] == *nonce {
            verdict.answered += 1;
        } else {
            verdict.misplaced += 1;
            verdict.complain(|| format!("{nonce} ({tool}) got another's result: {result}"));
        }
    } else if let Some(error) = played.error() {
        *verdict.messages.entry("error".into()).or_default() += 1;
        if excused && error["code"].is_i64() && error["message"].is_string() {
            verdict.unavoidable += 1;
        } else {
            verdict.avoidable += 1;
            verdict.complain(|| format!("{nonce} ({tool}) failed: {error}"));
        }
    } else {
        verdict.unanswered += 1;
        let why = outcome.answer.as_ref().err().map(ToString::to_string);
        let why = why.unwrap_or_else(|| "an answer that is none".into());
        verdict.complain(|| format!("{nonce} ({tool}) was not answered: {why}"));
    }
}

/// The number that a message of this call carries; a question is the first and only one.
fn mark(message: &Value, nonce: &str) -> Option<u64> {
    let params = &message["params"];
    match message["method"].as_str()? {
        "notifications/progress" if params["progressToken"] == *nonce => {
            params["progress"].as_u64()
        }
        "notifications/message" => params["data"]["number"].as_u64(),
        "elicitation/create" if params["message"] == *nonce => Some(1),
        "sampling/createMessage" if params["messages"][0]["content"]["text"] == *nonce => Some(1),
        _ => None,
    }
}

/// How many messages come before a call's result.
fn expected(played: &Played) -> u64 {
    match played.call.tool {
        Tool::Echo | Tool::Announce { .. } => 0,
        Tool::Slow { steps, .. } => steps,
        Tool::Burst { count } | Tool::Log { count } => count,
        Tool::Ask | Tool::Sample => 1,
    }
}

/// Numbered messages ought to be 1 to `expected`, each once, in order.
fn count(verdict: &mut Verdict, of: &str, found: &[u64], expected: u64) {
    let distinct: HashSet<_> = found.iter().copied().collect();
    let twice = found.len() - distinct.len();
    let lost = (1..=expected)
        .filter(|number| !distinct.contains(number))
        .count();
    let misplaced = found.windows(2).filter(|pair| pair[0] > pair[1]).count();
    verdict.twice += twice;
    verdict.lost += lost;
    verdict.misplaced += misplaced;
    if twice + lost + misplaced > 0 {
        verdict.complain(|| format!("{of} got {found:?} of 1 to {expected}"));
    }
}

fn judge_standalone(verdict: &mut Verdict, client: usize, messages: &[Value], books: &Books) {
    let mut found: HashMap<&str, Vec<u64>> = HashMap::new();
    for message in messages {
        let kind = message["method"].as_str().unwrap_or("response");
        *verdict.messages.entry(kind.to_owned()).or_default() += 1;
        if is_announcement(message) {
            let data = &message["params"]["data"];
            let nonce = data["nonce"].as_str().unwrap_or_default();
            found
                .entry(nonce)
                .or_default()
                .extend(data["number"].as_u64());
        }
    }
    for played in books.calls.iter().filter(|it| it.call.client == client) {
        let Tool::Announce { count: announced } = played.call.tool else {
            continue;
        };
        let found = found.remove(&*played.call.nonce).unwrap_or_default();
        let expected = if played.result().is_some() {
            announced
        } else {
            found.iter().copied().max().unwrap_or(0)
        };
        count(verdict, &played.call.nonce, &found, expected);
    }
    let strange: usize = found.values().map(Vec::len).sum();
    if strange > 0 {
        verdict.misplaced += strange;
        verdict.complain(|| format!("client {client} got {strange} announcements of others"));
    }
}

#[cfg(test)]
mod tests;
