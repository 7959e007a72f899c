//! The estimate of a path's round trip (RFC 6298, section 2; wire.md, W6-177).

use strowger_crypto::Nanos;

use crate::heap::Maybe;
use crate::limits::{INITIAL_RTT, SILENCE_MAX, SILENCE_MIN, SILENCE_ONE_WAY_MIN};

/// The smoothed round trip.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rtt {
    smoothed: Maybe,
}

impl Default for Rtt {
    fn default() -> Rtt {
        Rtt { smoothed: Maybe::NONE }
    }
}

impl Rtt {
    /// Adds a sample. The peer answers challenges at once, so there is no delay to subtract.
    pub(crate) fn measure(&mut self, latest: Nanos) {
        self.smoothed = Maybe::some(match self.smoothed() {
            None => latest,
            Some(before) => Nanos(before.0 - before.0 / 8 + latest.0 / 8),
        });
    }

    /// The smoothed round trip; `None` before the first measurement.
    pub(crate) const fn smoothed(&self) -> Option<Nanos> {
        self.smoothed.get()
    }

    /// The silence after which a path may have failed, while an answer is due (W6-45).
    pub(crate) fn silence(&self, is_one_way: bool) -> Nanos {
        let rtt = self.smoothed().unwrap_or(INITIAL_RTT).min(SILENCE_MAX);
        let (round_trips, least) =
            if is_one_way { (4, SILENCE_ONE_WAY_MIN) } else { (2, SILENCE_MIN) };
        Nanos(round_trips * rtt.0).clamp(least, SILENCE_MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(milliseconds: u64) -> Nanos {
        Nanos::from_millis(milliseconds)
    }

    /// The figures were computed by hand with the formula of RFC 6298, section 2.3.
    ///
    /// wire.md: W6-177.
    #[test]
    fn the_estimate_follows_rfc_6298() {
        let mut rtt = Rtt::default();
        assert_eq!(rtt.smoothed(), None);
        rtt.measure(ms(80));
        assert_eq!(rtt.smoothed(), Some(ms(80)));
        rtt.measure(ms(160));
        assert_eq!(rtt.smoothed(), Some(ms(90)));
        (0..200).for_each(|_| rtt.measure(ms(40)));
        assert!(rtt.smoothed().is_some_and(|rtt| rtt.0.abs_diff(ms(40).0) < 1_000));
    }

    /// wire.md: W6-45.
    #[test]
    fn the_silence_is_two_round_trips_and_four_in_one_way_traffic() {
        for (measured, silence, one_way) in [
            (0, 150, 1_000),
            (75, 150, 1_000),
            (100, 200, 1_000),
            (300, 600, 1_200),
            (3_000, 4_000, 4_000),
        ] {
            let mut rtt = Rtt::default();
            rtt.measure(ms(measured));
            assert_eq!(rtt.silence(false), ms(silence), "{measured} ms");
            assert_eq!(rtt.silence(true), ms(one_way), "{measured} ms");
        }
        assert_eq!(Rtt::default().silence(false), ms(666));
        let mut rtt = Rtt::default();
        rtt.measure(Nanos(u64::MAX));
        rtt.measure(Nanos(u64::MAX));
        assert_eq!((rtt.silence(false), rtt.silence(true)), (SILENCE_MAX, SILENCE_MAX));
    }
}
