//! Random numbers for tests: SplitMix64 (Steele, Lea, Flood 2014).

/// Random numbers from a seed. If the test panics, the seed is printed.
#[derive(Debug)]
pub struct Rng {
    seed: u64,
    state: u64,
}

impl Rng {
    /// Starts the sequence of this seed.
    pub fn new(seed: u64) -> Self {
        Self { seed, state: seed }
    }

    /// The next 64 bits.
    pub fn next_u64(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number from 0 to `end` - 1. `end` must not be 0.
    pub fn below(&mut self, end: usize) -> usize {
        assert!(end > 0, "no number is below 0");
        ((u128::from(self.next_u64()) * end as u128) >> 64) as usize
    }

    /// `true` with probability 1/`n`.
    pub fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }

    /// Returns this many random bytes.
    pub fn bytes(&mut self, len: usize) -> Vec<u8> {
        (0..len).map(|_| self.next_u64() as u8).collect()
    }
}

impl Drop for Rng {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("the seed of the random numbers was {:#x}", self.seed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The expected values are the first outputs of the reference implementation for seed 1234567.
    #[test]
    fn the_sequence_is_that_of_the_reference() {
        let mut rng = Rng::new(1_234_567);
        let first: Vec<u64> = (0..3).map(|_| rng.next_u64()).collect();
        assert_eq!(
            first,
            [6_457_827_717_110_365_317, 3_203_168_211_198_807_973, 9_817_491_932_198_370_423]
        );
    }

    #[test]
    fn numbers_stay_below_the_end_and_reach_each_value() {
        let mut rng = Rng::new(1);
        let mut counts = [0; 7];
        (0..7_000).for_each(|_| counts[rng.below(7)] += 1);
        assert!(counts.iter().all(|count| (800..1_200).contains(count)), "{counts:?}");
    }
}
