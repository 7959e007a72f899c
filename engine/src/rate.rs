//! A rate limit in one word: so much a second, and so much at once. It never reads a clock.

use crate::Now;

/// A token bucket (RFC 2697, in the form of the generic cell rate algorithm, ITU-T I.371): what it has
/// is kept as the time at which it is full again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct TokenBucket {
    full_at: u64,
}

impl TokenBucket {
    /// Takes `tokens` out, if there are as many. It gets `per_second` of them, and holds `at_once`.
    pub(crate) fn take(&mut self, tokens: u32, per_second: u32, at_once: u32, now: Now) -> bool {
        let ns = |tokens: u32| u64::from(tokens) * 1_000_000_000 / u64::from(per_second.max(1));
        let empty_for = ns(at_once);
        // A time further ahead than an empty bucket's is of a clock that has gone back.
        let behind = match self.full_at.saturating_sub(now.0) {
            behind if behind > empty_for => 0,
            behind => behind,
        };
        let after = behind + ns(tokens);
        let has = after <= empty_for;
        if has {
            self.full_at = now.0 + after;
        }
        has
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taken(bucket: &mut TokenBucket, now: u64, wanted: usize) -> usize {
        (0..wanted).filter(|_| bucket.take(1, 10, 4, Now(now))).count()
    }

    #[test]
    fn so_many_at_once_and_then_so_many_a_second() {
        let mut bucket = TokenBucket::default();
        assert_eq!(taken(&mut bucket, 1, 9), 4);
        assert_eq!(taken(&mut bucket, 100_000_000, 9), 0);
        assert_eq!(taken(&mut bucket, 100_000_001, 9), 1);
        assert_eq!(taken(&mut bucket, 9_000_000_000, 9), 4, "it holds no more");
    }

    #[test]
    fn what_costs_more_than_there_is_takes_nothing() {
        let mut bucket = TokenBucket::default();
        assert!(!bucket.take(5, 10, 4, Now(1)));
        assert_eq!(taken(&mut bucket, 1, 9), 4);
    }

    #[test]
    fn a_clock_that_goes_back_shuts_nobody_out() {
        let mut bucket = TokenBucket::default();
        assert_eq!(taken(&mut bucket, 3_600_000_000_000, 9), 4);
        assert_eq!(taken(&mut bucket, 1, 9), 4);
    }
}
