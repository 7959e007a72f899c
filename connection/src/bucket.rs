//! A token bucket in one word (RFC 2697).

use strowger_crypto::Nanos;

/// A token bucket. Its content is stored as the time at which it is full again, as in the generic
/// cell rate algorithm (ITU-T I.371).
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bucket {
    full_at: Nanos,
}

/// The tokens that a bucket gains per second, and the number that it can hold.
#[derive(Clone, Copy, Debug)]
pub(crate) struct BucketRate {
    pub(crate) per_second: u32,
    pub(crate) at_once: u32,
}

impl BucketRate {
    const fn token_ns(self) -> u64 {
        1_000_000_000 / if self.per_second == 0 { 1 } else { self.per_second as u64 }
    }
}

impl Bucket {
    /// A full bucket.
    pub(crate) const FULL: Bucket = Bucket { full_at: Nanos::ZERO };

    /// Takes one token, if there is one. Returns whether there was one. All calls on one bucket
    /// pass the same rate.
    pub(crate) fn take(&mut self, now: Nanos, rate: BucketRate) -> bool {
        let missing = self.missing_ns(now, rate) + rate.token_ns();
        let has = missing <= rate.token_ns() * u64::from(rate.at_once);
        if has {
            self.full_at = now.plus(Nanos(missing));
        }
        has
    }

    /// Whether there is a token. Takes none.
    pub(crate) fn has(&self, now: Nanos, rate: BucketRate) -> bool {
        self.missing_ns(now, rate) + rate.token_ns() <= rate.token_ns() * u64::from(rate.at_once)
    }

    /// Whether at most half of the tokens are left.
    pub(crate) fn is_half_empty(&self, now: Nanos, rate: BucketRate) -> bool {
        2 * self.missing_ns(now, rate) >= rate.token_ns() * u64::from(rate.at_once)
    }

    fn missing_ns(&self, now: Nanos, rate: BucketRate) -> u64 {
        let missing = self.full_at.since(now).0;
        // If more tokens are missing than the bucket can hold, the clock was set back.
        if missing > rate.token_ns() * u64::from(rate.at_once) { 0 } else { missing }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RATE: BucketRate = BucketRate { per_second: 10, at_once: 4 };

    fn taken(bucket: &mut Bucket, now: u64, wanted: usize) -> usize {
        (0..wanted).filter(|_| bucket.take(Nanos(now), RATE)).count()
    }

    #[test]
    fn a_bucket_gives_what_it_holds_and_then_its_rate() {
        let mut bucket = Bucket::FULL;
        assert_eq!(taken(&mut bucket, 1, 9), 4);
        assert!(!bucket.has(Nanos(100_000_000), RATE));
        assert_eq!(taken(&mut bucket, 100_000_000, 9), 0);
        assert!(bucket.has(Nanos(100_000_001), RATE));
        assert_eq!(taken(&mut bucket, 100_000_001, 9), 1);
        assert_eq!(taken(&mut bucket, 9_000_000_000, 9), 4, "it holds no more");
    }

    #[test]
    fn half_of_it_is_used_after_half_of_its_tokens() {
        let mut bucket = Bucket::FULL;
        for used in 0..4 {
            assert_eq!(bucket.is_half_empty(Nanos(1), RATE), used >= 2, "{used}");
            assert!(bucket.take(Nanos(1), RATE));
        }
    }

    #[test]
    fn a_clock_that_is_set_back_blocks_nothing() {
        let mut bucket = Bucket::FULL;
        assert_eq!(taken(&mut bucket, 3_600_000_000_000, 9), 4);
        assert_eq!(taken(&mut bucket, 1, 9), 4);
    }
}
