//! `shadowcat demo` does what it shows.
#![allow(clippy::unwrap_used, reason = "a test's failure is a panic")]

use std::process::{Command, Output};

fn demo(seed: &str) -> (Output, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_shadowcat"))
        .args(["demo", "--seed", seed])
        // No proxy of the environment stands between the demo's parts.
        .env("HTTP_PROXY", "http://127.0.0.1:9")
        .env("http_proxy", "http://127.0.0.1:9")
        .output()
        .unwrap();
    let stdout = String::from_utf8(output.stdout.clone()).unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "seed {seed}: {stdout}{stderr}");
    (output, stdout)
}

/// The number before a word of the summary.
fn number(summary: &str, word: &str) -> u64 {
    let before = summary.split(word).next().unwrap();
    before.split_whitespace().last().unwrap().parse().unwrap()
}

#[test]
fn nothing_is_lost_whatever_the_seed() {
    for seed in ["1", "2"] {
        let (_, summary) = demo(seed);
        assert!(number(&summary, " made: ") > 100, "{summary}");
        assert!(number(&summary, " injected: ") > 50, "{summary}");
        for kind in [
            "drop",
            "end",
            "503 with Retry-After",
            "duplicates",
            "inclusive replay",
        ] {
            assert!(
                number(&summary, &format!(" {kind}")) > 0,
                "{kind}: {summary}"
            );
        }
        assert!(number(&summary, " events sent twice") > 50, "{summary}");
        assert!(number(&summary, " of ") > 0, "{summary}");
        assert_eq!(number(&summary, " lost\n"), 0, "{summary}");
        assert_eq!(number(&summary, " seen twice"), 0, "{summary}");
        assert_eq!(number(&summary, " messages, "), 0, "{summary}");
    }
}
