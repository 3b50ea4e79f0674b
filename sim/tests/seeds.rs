//! A few hundred seeds with every `cargo test`; the thousands are the binary's.

use shadowcat_sim::{Draw, run};

#[track_caller]
fn all_pass(seeds: std::ops::Range<u64>, draw: Draw) {
    for seed in seeds {
        let report = run(seed, draw, false);
        assert!(
            report.violations.is_empty(),
            "seed {seed}: {:#?}",
            report.violations
        );
    }
}

#[test]
fn nothing_goes_wrong_when_nothing_goes_wrong() {
    all_pass(0..100, Draw::Calm);
}

#[test]
fn a_seed_is_the_same_run_every_time() {
    for seed in 0..40 {
        let (one, other) = (run(seed, Draw::All, false), run(seed, Draw::All, false));
        assert_eq!(one.digest, other.digest, "seed {seed}");
    }
}
