//! A few seeds with every `cargo test`; the thousands are the binary's.

use shadowcat_sim::{Draw, herd, run};

#[track_caller]
fn all_pass(seeds: std::ops::Range<u64>, draw: Draw) {
    for seed in seeds {
        let report = run(seed, draw, false);
        let wrong = report.violations;
        assert!(wrong.is_empty(), "seed {seed}: {wrong:#?}");
    }
}

#[test]
fn nothing_goes_wrong_when_nothing_goes_wrong() {
    all_pass(0..40, Draw::Calm);
}

#[test]
fn nothing_is_lost_when_everything_goes_wrong() {
    all_pass(0..80, Draw::All);
}

#[test]
fn a_seed_is_the_same_run_every_time() {
    for seed in 0..12 {
        let (one, other) = (run(seed, Draw::All, false), run(seed, Draw::All, false));
        assert_eq!(one.digest, other.digest, "seed {seed}");
    }
}

#[test]
fn a_mass_drop_is_spread_and_survived() {
    let herd = herd(1, 100);
    let wrong = herd.report.violations;
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert_eq!(herd.attempts, 100);
}
