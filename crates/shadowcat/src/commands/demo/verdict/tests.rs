#![allow(clippy::unwrap_used, reason = "a test's failure is a panic")]

use std::time::Duration;

use serde_json::json;
use shadowcat_testkit::client::Lost;
use tokio::time::Instant;

use super::*;
use crate::commands::demo::plan::Call;

fn progress(nonce: &str, number: u64) -> Value {
    let params = json!({"progressToken": nonce, "progress": number});
    json!({"method": "notifications/progress", "params": params})
}

fn result(nonce: &str) -> Value {
    json!({"id": 1, "result": {"structuredContent": {"nonce": nonce}}})
}

fn played(tool: Tool, messages: Vec<Value>, answer: Result<Value, Lost>) -> Played {
    let now = Instant::now();
    Played {
        call: Call {
            client: 0,
            nonce: "n".into(),
            tool,
            after: Duration::ZERO,
        },
        outcome: Some(Outcome {
            messages,
            answer,
            streamed: true,
        }),
        begun: now,
        ended: now,
    }
}

fn judged(played: Played, ledger: &[Entry]) -> Verdict {
    let mut books = Books::default();
    books.played(played);
    judge(&books, ledger)
}

const SLOW: Tool = Tool::Slow { ms: 1, steps: 3 };

fn fault(saveable: bool) -> Entry {
    Entry::Fault {
        fault: "drop",
        to: "n".into(),
        saveable,
    }
}

fn executed() -> Entry {
    Entry::Executed {
        session: 1,
        tool: "slow".into(),
        nonce: Some("n".into()),
    }
}

#[test]
fn what_is_whole_is_answered_and_its_fault_recovered() {
    let messages = (1..=3).map(|number| progress("n", number)).collect();
    let ledger = [fault(true), executed()];
    let verdict = judged(played(SLOW, messages, Ok(result("n"))), &ledger);
    assert_eq!(verdict.failure(), None);
    assert_eq!((verdict.answered, verdict.recovered), (1, 1));
}

#[test]
fn what_is_missing_double_or_misplaced_is_seen() {
    for (numbers, wrong) in [
        (&[1, 3][..], "1 lost"),
        (&[1, 2, 2, 3], "1 twice"),
        (&[2, 1, 3], "1 out of order"),
    ] {
        let messages = numbers
            .iter()
            .map(|number| progress("n", *number))
            .collect();
        let verdict = judged(played(SLOW, messages, Ok(result("n"))), &[fault(true)]);
        assert_eq!(verdict.failure().as_deref(), Some(wrong));
        assert_eq!(verdict.recovered, 0);
        assert_eq!(verdict.complaints.len(), 1);
    }
}

#[test]
fn another_s_messages_and_results_are_seen() {
    let messages = vec![progress("m", 1)];
    let verdict = judged(played(Tool::Echo, messages, Ok(result("n"))), &[]);
    assert_eq!(verdict.misplaced, 1);
    let verdict = judged(played(Tool::Echo, Vec::new(), Ok(result("m"))), &[]);
    assert_eq!((verdict.misplaced, verdict.answered), (1, 0));
}

#[test]
fn an_error_is_excused_only_where_nothing_could_be_saved() {
    let error = || Ok(json!({"id": 1, "error": {"code": -32603, "message": "gone"}}));
    let verdict = judged(
        played(SLOW, vec![progress("n", 1)], error()),
        &[fault(false)],
    );
    assert_eq!((verdict.failure(), verdict.unavoidable), (None, 1));
    let verdict = judged(played(SLOW, Vec::new(), error()), &[fault(true)]);
    assert_eq!(verdict.avoidable, 1);
    assert!(verdict.failure().unwrap().contains("could have been saved"));
    // A gap in what came before the error is a loss all the same.
    let verdict = judged(
        played(SLOW, vec![progress("n", 2)], error()),
        &[fault(false)],
    );
    assert_eq!(verdict.lost, 1);
}

#[test]
fn no_answer_a_hang_and_a_second_execution_are_failures() {
    let broken = Err(Lost::Broken("gone".into()));
    let verdict = judged(played(SLOW, Vec::new(), broken), &[fault(false)]);
    assert_eq!(verdict.failure().as_deref(), Some("1 lost"));
    let hangs = Played {
        outcome: None,
        ..played(SLOW, Vec::new(), Ok(result("n")))
    };
    assert_eq!(judged(hangs, &[]).failure().as_deref(), Some("1 hanging"));
    let messages = (1..=3).map(|number| progress("n", number)).collect();
    let twice = [executed(), executed()];
    let verdict = judged(played(SLOW, messages, Ok(result("n"))), &twice);
    assert_eq!(verdict.failure().as_deref(), Some("1 twice"));
}

#[test]
fn announcements_are_counted_on_the_standalone_stream() {
    let announcement = |number: u64| {
        let data = json!({"nonce": "n", "number": number});
        json!({"method": "notifications/message", "params": {"data": data}})
    };
    let verdict = |numbers: &[u64]| {
        let mut books = Books::default();
        let tool = Tool::Announce { count: 2 };
        books.played(played(tool, Vec::new(), Ok(result("n"))));
        books.standalone(0, numbers.iter().map(|it| announcement(*it)).collect());
        judge(&books, &[]).failure()
    };
    assert_eq!(verdict(&[1, 2]), None);
    assert_eq!(verdict(&[1]).as_deref(), Some("1 lost"));
    assert_eq!(
        verdict(&[1, 2, 1]).as_deref(),
        Some("1 twice, 1 out of order")
    );
}
