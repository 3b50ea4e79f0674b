//! Where randomness comes from: a generator that the operating system seeds, or a seed in a simulation.

use std::sync::atomic::{AtomicU64, Ordering};

/// A source of random bits, shared by everything in one process.
pub trait Entropy: Send + Sync + 'static {
    /// 64 bits.
    fn bits(&self) -> u64;

    /// A number in `[0, 1)`.
    fn fraction(&self) -> f64 {
        // 53 bits are what an f64 holds exactly.
        (self.bits() >> 11) as f64 / (1_u64 << 53) as f64
    }
}

/// A cryptographic generator of each thread's own, which the operating system seeds, and seeds
/// anew now and then: asking the system itself is a call into the kernel for every number. Session ids come
/// from here. A thread that gets no seed panics: no session id would be safe.
#[derive(Debug, Default, Clone, Copy)]
pub struct OsEntropy;

impl Entropy for OsEntropy {
    fn bits(&self) -> u64 {
        rand::random()
    }
}

/// A repeatable sequence (SplitMix64). For simulations and tests only.
#[derive(Debug)]
pub struct SeededEntropy(AtomicU64);

impl SeededEntropy {
    /// The sequence of this seed.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self(AtomicU64::new(seed))
    }
}

impl Entropy for SeededEntropy {
    fn bits(&self) -> u64 {
        const GAMMA: u64 = 0x9e37_79b9_7f4a_7c15;
        let mut z = self
            .0
            .fetch_add(GAMMA, Ordering::Relaxed)
            .wrapping_add(GAMMA);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}
