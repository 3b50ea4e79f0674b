//! Progress increases, over two executions too.

use super::*;

/// A safe request whose first execution told 1 and 3, and whose second one tells these.
fn judge_second(told: &[u32]) -> Vec<String> {
    judge_until(s(5), told)
}

/// The same, with the outcome at that time; the second execution tells at 4 s.
fn judge_until(over: Duration, told: &[u32]) -> Vec<String> {
    let mut plan = plan();
    plan.clients[0].calls[0].method = "tools/list";
    judge_in(&plan, |call| {
        call.posts = vec![
            visit(1, streamed(false, Some((2, How::Reset)), false)),
            visit(3, streamed(false, None, true)),
        ];
        call.executions = 2;
        call.with_id = Vec::new();
        call.progress = [(1, 1), (1, 2), (2, 1), (2, 2), (2, 3)]
            .into_iter()
            .zip([1, 3, 1, 3, 5])
            .collect();
        call.sent_whole = call.progress.keys().copied().collect();
        call.got = vec![(s(1), (1, 1)), (s(1), (1, 2))];
        call.got.extend(told.iter().map(|n| (s(4), (2, *n))));
        call.outcomes = vec![(over, Outcome::Result(2))];
    })
}

#[test]
fn only_what_is_news_is_told_and_that_is_told() {
    assert_eq!(judge_second(&[3]), Vec::<String>::new());
    let anew = judge_second(&[1, 2, 3]);
    assert_eq!(anew, ["0-0 was told progress 1 after 3"]);
    let equal = judge_second(&[2, 3]);
    assert_eq!(equal, ["0-0 was told progress 3 after 3"]);
    let lost = judge_second(&[]);
    assert!(
        lost.iter()
            .any(|one| one.contains("lost messages [(2, 3)]")),
        "{lost:?}"
    );
}

#[test]
fn what_comes_after_the_outcome_is_no_progress_of_the_call() {
    let about = |found: &[String]| found.iter().any(|one| one.contains("told progress"));
    assert!(about(&judge_until(s(5), &[1])));
    assert!(!about(&judge_until(s(3), &[1])));
}
