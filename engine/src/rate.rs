//! Rate limits: a token bucket in one word. The caller passes the time.

use core::time::Duration;

use crate::Now;

/// The number of tokens that a bucket gains per second, and the number that it can hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    token_ns: u64,
    burst_ns: u64,
}

impl Rate {
    /// Makes the rate of a bucket that gains `tokens` per second and holds at most `burst`.
    ///
    /// Zero `tokens` count as one.
    pub const fn per_second(tokens: u32, burst: u32) -> Self {
        let tokens = if tokens == 0 { 1 } else { tokens };
        Self::every(Duration::from_nanos(1_000_000_000 / tokens as u64), burst)
    }

    /// Makes the rate of a bucket that gains one token per `interval` and holds at most `burst`.
    pub const fn every(interval: Duration, burst: u32) -> Self {
        let token_ns = interval.as_nanos() as u64;
        Self { token_ns, burst_ns: token_ns.saturating_mul(burst as u64) }
    }

    const fn cost_ns(self, tokens: u32) -> u64 {
        self.token_ns.saturating_mul(tokens as u64)
    }
}

/// A token bucket (RFC 2697), implemented as the generic cell rate algorithm (ITU-T I.371): its
/// content is stored as the time at which it will be full again.
///
/// A new bucket is full. All calls on one bucket must pass the same [`Rate`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TokenBucket {
    full_at: Now,
}

impl TokenBucket {
    /// Takes one token, if the bucket has one.
    pub fn take(&mut self, rate: Rate, now: Now) -> bool {
        self.take_many(1, rate, now)
    }

    /// Takes `tokens`, if the bucket has that number; otherwise it takes none.
    pub(crate) fn take_many(&mut self, tokens: u32, rate: Rate, now: Now) -> bool {
        let missing_ns = self.missing_ns(rate, now).saturating_add(rate.cost_ns(tokens));
        let has = missing_ns <= rate.burst_ns;
        if has {
            self.full_at = Now(now.0.saturating_add(missing_ns));
        }
        has
    }

    /// Whether the bucket has `tokens`. It takes none.
    pub fn has(&self, tokens: u32, rate: Rate, now: Now) -> bool {
        self.missing_ns(rate, now).saturating_add(rate.cost_ns(tokens)) <= rate.burst_ns
    }

    /// Whether the bucket is full.
    pub fn is_full(&self, rate: Rate, now: Now) -> bool {
        self.missing_ns(rate, now) == 0
    }

    /// The time until the bucket is full.
    fn missing_ns(&self, rate: Rate, now: Now) -> u64 {
        match self.full_at.0.saturating_sub(now.0) {
            // An empty bucket needs no more than `burst_ns`, so the clock was set back.
            missing if missing > rate.burst_ns => 0,
            missing => missing,
        }
    }
}

/// A token bucket together with its rate, for buckets whose rates differ.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RateLimiter {
    rate: Rate,
    bucket: TokenBucket,
}

impl RateLimiter {
    /// Allows `events` per second, with a burst of one second.
    pub(crate) fn per_second(events: u32) -> Self {
        Self { rate: Rate::per_second(events, events), bucket: TokenBucket::default() }
    }

    /// Takes one token, if there is one.
    pub(crate) fn take(&mut self, now: Now) -> bool {
        self.bucket.take(self.rate, now)
    }

    /// Whether at least this part of the tokens is left in the bucket.
    pub(crate) fn has_percent(&self, percent: u32, now: Now) -> bool {
        let used_max = self.rate.burst_ns / 100 * u64::from(100 - percent.min(100));
        self.bucket.missing_ns(self.rate, now) <= used_max
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RATE: Rate = Rate::per_second(10, 4);

    fn taken(bucket: &mut TokenBucket, now: u64, wanted: usize) -> usize {
        (0..wanted).filter(|_| bucket.take(RATE, Now(now))).count()
    }

    #[test]
    fn a_bucket_gives_its_burst_and_then_its_rate() {
        let mut bucket = TokenBucket::default();
        assert_eq!(taken(&mut bucket, 1, 9), 4);
        assert_eq!(taken(&mut bucket, 100_000_000, 9), 0);
        assert_eq!(taken(&mut bucket, 100_000_001, 9), 1);
        assert_eq!(taken(&mut bucket, 9_000_000_000, 9), 4, "it holds no more");
    }

    #[test]
    fn a_request_for_more_than_the_content_takes_nothing() {
        let mut bucket = TokenBucket::default();
        assert!(!bucket.take_many(5, RATE, Now(1)));
        assert!(bucket.has(4, RATE, Now(1)) && !bucket.has(5, RATE, Now(1)));
        assert_eq!(taken(&mut bucket, 1, 9), 4);
    }

    #[test]
    fn a_clock_that_is_set_back_blocks_no_one() {
        let mut bucket = TokenBucket::default();
        assert_eq!(taken(&mut bucket, 3_600_000_000_000, 9), 4);
        assert_eq!(taken(&mut bucket, 1, 9), 4);
    }

    #[test]
    fn a_bucket_is_full_again_after_one_interval_per_token() {
        let rate = Rate::every(Duration::from_secs(10), 2);
        let mut bucket = TokenBucket::default();
        assert!(bucket.is_full(rate, Now(0)));
        assert!(bucket.take(rate, Now(0)) && bucket.take(rate, Now(0)));
        assert!(!bucket.is_full(rate, Now(19_999_999_999)));
        assert!(bucket.is_full(rate, Now(20_000_000_000)));
    }

    #[test]
    fn a_limiter_knows_which_part_is_left() {
        let mut limiter = RateLimiter::per_second(100);
        assert!(limiter.has_percent(100, Now(1)));
        assert_eq!((0..30).filter(|_| limiter.take(Now(1))).count(), 30);
        assert!(limiter.has_percent(70, Now(1)) && !limiter.has_percent(71, Now(1)));
        assert!(limiter.has_percent(100, Now(300_000_001)));
    }
}
