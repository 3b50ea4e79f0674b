//! What the demo says to a human.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::books::Books;
use super::plan::Round;
use super::verdict::Verdict;

/// One line after a round.
pub(super) fn round(round: &Round, books: &Books) -> String {
    let last = books.calls.iter().rev().take(round.calls.len());
    let (mut answered, mut errors) = (0, 0);
    for played in last {
        answered += usize::from(played.result().is_some());
        errors += usize::from(played.error().is_some());
    }
    let calls = round.calls.len();
    let rest = calls - answered - errors;
    let mut line = format!("  {:<30} {calls} calls: {answered} answered", round.title);
    if errors > 0 {
        let _ = write!(line, ", {errors} refused clearly");
    }
    if rest > 0 {
        let _ = write!(line, ", {rest} without an answer");
    }
    line
}

/// The end of the demo.
pub(super) fn summary(books: &Books, verdict: &Verdict) -> String {
    let mut text = String::new();
    let mut line = |name: &str, rest: String| {
        let _ = writeln!(text, "{name:<12}{rest}");
    };
    line(
        "calls",
        format!(
            "{} made: {} answered, {} ended in a clear error that nothing could avoid, {} lost",
            books.calls.len(),
            verdict.answered,
            verdict.unavoidable,
            verdict.avoidable + verdict.unanswered + verdict.hung,
        ),
    );
    let messages: usize = verdict.messages.values().sum();
    line(
        "messages",
        format!("{messages} delivered: {}", list(&verdict.messages)),
    );
    let faults: usize = verdict.faults.values().sum();
    line(
        "faults",
        format!("{faults} injected: {}", list(&verdict.faults)),
    );
    line(
        "recovered",
        format!(
            "{} of {faults}; the others struck calls that cannot be repeated safely",
            verdict.recovered
        ),
    );
    line(
        "duplicates",
        format!(
            "{} events sent twice by the server, {} seen twice by a client; {} calls carried out \
             twice",
            verdict.repeated, verdict.twice, verdict.executed_twice
        ),
    );
    line(
        "lost",
        format!(
            "{} messages, {} out of order",
            verdict.lost, verdict.misplaced
        ),
    );
    for complaint in &verdict.complaints {
        line("", format!("- {complaint}"));
    }
    text
}

/// `3 of this, 2 of that`, the most frequent first.
fn list<K: AsRef<str> + Ord>(counts: &BTreeMap<K, usize>) -> String {
    let mut counts: Vec<_> = counts.iter().collect();
    counts.sort_by(|a, b| b.1.cmp(a.1).then(a.0.cmp(b.0)));
    let parts: Vec<_> = counts
        .into_iter()
        .map(|(name, count)| {
            format!(
                "{count} {}",
                name.as_ref().trim_start_matches("notifications/")
            )
        })
        .collect();
    parts.join(", ")
}
