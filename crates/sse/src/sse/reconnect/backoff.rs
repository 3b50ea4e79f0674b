//! How long to wait before the next attempt: a function of numbers only.

use std::time::{Duration, Instant};

use super::policy::{MAX_RETRY_JITTER, PROBE_EVERY, PROBE_SPREAD, Policy};

/// A uniform random number in `[0, 1)`, drawn outside or from a [`Draws`].
pub type Draw = f64;

/// The sequence of random numbers that follows from a seed (SplitMix64: Steele, Lea and Flood,
/// "Fast splittable pseudorandom number generators", 2014). Good for spreading load; no secret.
#[derive(Debug, Clone)]
pub struct Draws(u64);

impl Draws {
    /// The sequence of `seed`.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next 64 random bits.
    pub fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// The next number in `[0, 1)`.
    #[allow(clippy::cast_precision_loss)]
    pub fn draw(&mut self) -> Draw {
        (self.bits() >> 11) as f64 / (1_u64 << 53) as f64
    }
}

/// `duration * factor`, for a factor of any value: negative and not-a-number count as zero, and
/// what would overflow is the longest duration.
#[must_use]
pub(crate) fn scaled(duration: Duration, factor: f64) -> Duration {
    Duration::try_from_secs_f64(duration.as_secs_f64() * factor.max(0.0)).unwrap_or(Duration::MAX)
}

/// What stands for never where a wait is longer than a clock can tell.
const NEVER: Duration = Duration::from_secs(100 * 365 * 24 * 60 * 60);

/// When a wait of any length is over that begins `now`.
#[must_use]
pub fn after(now: Instant, wait: Duration) -> Instant {
    now.checked_add(wait).unwrap_or_else(|| now + NEVER)
}

/// `initial * 2^(n-1)`, at most `max`; zero at `n` = 0.
#[must_use]
pub fn exponential(initial: Duration, max: Duration, n: u32) -> Duration {
    match n.checked_sub(1) {
        None => Duration::ZERO,
        Some(doublings) => 1_u32
            .checked_shl(doublings)
            .and_then(|factor| initial.checked_mul(factor))
            .map_or(max, |delay| delay.min(max)),
    }
}

/// The wait after `n` unproductive connections in a row.
///
/// `retry` is the server's reconnection time, already clamped; the result is never below it.
/// After a productive connection (`n` = 0) the wait is that time with little jitter, or without
/// one nothing but a spread.
#[must_use]
pub fn delay(policy: &Policy, n: u32, retry: Option<Duration>, draw: Draw) -> Duration {
    match (n, retry) {
        (0, None) => scaled(policy.initial, policy.jitter * draw),
        (0, Some(retry)) => {
            retry.saturating_add(scaled(retry, policy.jitter * draw).min(MAX_RETRY_JITTER))
        }
        (n, retry) => {
            let own = exponential(policy.initial, policy.max, n);
            let delay = own.max(retry.unwrap_or_default());
            delay.saturating_add(scaled(delay, policy.jitter * draw))
        }
    }
}

/// The wait that a server asked for with `Retry-After`, clamped, and spread as after a productive
/// connection.
#[must_use]
pub fn asked(policy: &Policy, hint: Duration, draw: Draw) -> Duration {
    let spread = scaled(policy.initial, policy.jitter * draw);
    policy.clamp_hint(hint).saturating_add(spread)
}

/// The wait before the next look at what was given up: [`PROBE_EVERY`], spread by [`PROBE_SPREAD`]
/// to either side.
#[must_use]
pub fn probe(draw: Draw) -> Duration {
    scaled(PROBE_EVERY, 1.0 - PROBE_SPREAD + 2.0 * PROBE_SPREAD * draw)
}

#[cfg(test)]
mod tests {
    use super::super::policy::MIN_HINT;
    use super::*;
    use proptest::prelude::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn the_default_delays_double_up_to_the_cap() {
        let policy = Policy::default();
        let delays: Vec<u64> = (0..8)
            .map(|n| delay(&policy, n, None, 0.0).as_secs())
            .collect();
        assert_eq!(delays, [0, 1, 2, 4, 8, 16, 30, 30]);
    }

    #[test]
    fn a_productive_connection_returns_at_once_but_spread() {
        let policy = Policy::default();
        assert_eq!(delay(&policy, 0, None, 0.5), Duration::from_millis(150));
        assert!(delay(&policy, 0, None, 0.999) < Duration::from_millis(300));
    }

    #[test]
    fn a_retry_after_a_productive_connection_gets_little_jitter() {
        let policy = Policy::default();
        let retry = Duration::from_secs(10);
        assert_eq!(
            delay(&policy, 0, Some(retry), 0.999),
            retry + MAX_RETRY_JITTER
        );
        assert_eq!(
            delay(&policy, 0, Some(SECOND), 0.5),
            Duration::from_millis(1150)
        );
    }

    #[test]
    fn no_number_of_failures_overflows() {
        let policy = Policy {
            initial: Duration::MAX,
            max: Duration::MAX,
            ..Policy::default()
        };
        assert_eq!(delay(&policy, u32::MAX, None, 0.9), Duration::MAX);
        assert_eq!(exponential(SECOND, SECOND * 30, u32::MAX), SECOND * 30);
        assert_eq!(exponential(SECOND, SECOND * 30, 33), SECOND * 30);
    }

    #[test]
    fn a_jitter_that_is_no_number_is_none() {
        let policy = Policy {
            jitter: f64::NAN,
            ..Policy::default()
        };
        assert_eq!(delay(&policy, 1, None, 0.9), SECOND);
        let negative = Policy {
            jitter: -4.0,
            ..Policy::default()
        };
        assert_eq!(delay(&negative, 1, None, 0.9), SECOND);
    }

    #[test]
    fn what_a_server_asks_for_is_clamped_and_spread() {
        let policy = Policy::default();
        assert_eq!(asked(&policy, SECOND * 7, 0.5), Duration::from_millis(7150));
        assert_eq!(asked(&policy, Duration::MAX, 0.0), policy.hint_max);
        assert_eq!(asked(&policy, Duration::ZERO, 0.0), MIN_HINT);
    }

    #[test]
    fn probes_are_a_minute_apart_give_or_take_a_fifth() {
        assert_eq!(probe(0.0), SECOND * 48);
        assert_eq!(probe(0.5), SECOND * 60);
        assert!(probe(0.999) < SECOND * 72);
    }

    /// A chi-square test of the jitter over ten bins; 27.9 is the 0.1 % point at nine degrees.
    #[test]
    fn jitter_is_uniform() {
        let policy = Policy::default();
        let mut draws = Draws::new(7);
        let mut bins = [0_i32; 10];
        for _ in 0..20_000 {
            let jitter = delay(&policy, 1, None, draws.draw()) - SECOND;
            let share = jitter.as_secs_f64() / 0.3;
            assert!((0.0..1.0).contains(&share));
            bins[(share * 10.0) as usize] += 1;
        }
        let chi: f64 = bins
            .iter()
            .map(|count| f64::from(count - 2000).powi(2) / 2000.0)
            .sum();
        assert!(chi < 27.9, "chi-square {chi}, bins {bins:?}");
    }

    proptest! {
        #[test]
        fn a_delay_stays_within_its_bounds(
            n in 0_u32..100,
            draw in 0.0..1.0_f64,
            initial in 1_u64..10_000,
            max in 1_u64..100_000,
            jitter in 0.0..2.0_f64,
            retry in proptest::option::of(250_u64..300_000),
        ) {
            let policy = Policy {
                initial: Duration::from_millis(initial),
                max: Duration::from_millis(max),
                jitter,
                ..Policy::default()
            };
            let retry = retry.map(Duration::from_millis);
            let wait = delay(&policy, n, retry, draw);
            let least = exponential(policy.initial, policy.max, n).max(retry.unwrap_or_default());
            prop_assert!(wait >= least);
            let base = if n == 0 && retry.is_none() { policy.initial } else { least };
            let slack = Duration::from_micros(1);
            prop_assert!(wait <= least + base.mul_f64(jitter) + slack);
            if n == 0 && retry.is_some() {
                prop_assert!(wait <= least + MAX_RETRY_JITTER);
            }
        }

        #[test]
        fn draws_are_in_range(seed: u64) {
            let mut draws = Draws::new(seed);
            for _ in 0..100 {
                prop_assert!((0.0..1.0).contains(&draws.draw()));
            }
        }
    }
}
