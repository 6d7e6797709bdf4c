//! Random delays that can be repeated.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// A small generator (splitmix64), seeded from `SKIFF_SEED` or the clock.
pub struct Chance {
    seed: u64,
    state: u64,
}

impl Chance {
    /// Seeds it and prints the seed, so that a failure can be repeated.
    pub fn announced() -> Self {
        let from_clock =
            || SystemTime::now().duration_since(UNIX_EPOCH).map_or(1, |time| u64::from(time.subsec_nanos()));
        let seed =
            std::env::var("SKIFF_SEED").ok().and_then(|text| text.parse().ok()).unwrap_or_else(from_clock);
        eprintln!("SKIFF_SEED={seed} repeats this run's delays");
        Self { seed, state: seed }
    }

    /// The seed.
    pub fn seed(&self) -> u64 {
        self.seed
    }

    /// A delay below `limit`.
    pub fn below(&mut self, limit: Duration) -> Duration {
        let part = (self.next() >> 11) as f64 / (1_u64 << 53) as f64;
        limit.mul_f64(part)
    }

    /// A number below `limit`, which is not 0.
    pub fn index(&mut self, limit: usize) -> usize {
        usize::try_from(self.next() % limit as u64).unwrap_or(0)
    }

    fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}
