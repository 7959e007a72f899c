//! The order in which a worker polls its ports and rings. The order is shuffled in every poll, so
//! that no port or ring is first more often than another (R23).

use crate::limits::{PORTS_MAX, WORKERS_MAX};

/// One worker's schedule. It never grows.
pub(super) struct Schedule {
    /// The state of the random number generator that shuffles the order.
    random: u64,
    /// The ports and, after them, the rings, in the order in which they are polled next.
    pub(super) order: Vec<u16>,
    /// Whether a session was just added to this worker. If so, the next poll processes the frames
    /// in the rings first.
    pub(super) rings_first: bool,
    /// The number of frames received since the last flush.
    pub(super) unflushed_frames: usize,
}

impl Schedule {
    pub(super) fn new() -> Self {
        let order = Vec::with_capacity(PORTS_MAX + WORKERS_MAX);
        Self { random: 0, order, rings_first: false, unflushed_frames: 0 }
    }

    /// Begins a poll of `count` ports and rings: all orders are equally likely (Fisher and Yates,
    /// as in Knuth, "Seminumerical Algorithms", 3.4.2, algorithm P).
    ///
    /// A rotation by a fixed step is biased: with four ports, the second and the fourth then follow
    /// the first more often than the third does. If the first port is idle, the third gets less
    /// than its share.
    #[inline]
    pub(super) fn begin(&mut self, count: usize) {
        if self.order.len() != count {
            self.order.clear();
            self.order.extend(0..count as u16);
        }
        for last in (1..count).rev() {
            let other = self.below(last + 1);
            self.order.swap(last, other);
        }
    }

    /// Returns a pseudorandom number below `bound`, which is at most 2^16. The numbers must be uniform;
    /// they need not be unpredictable.
    #[inline]
    fn below(&mut self, bound: usize) -> usize {
        // Knuth's linear congruential generator (MMIX). Only its high bits are random enough.
        self.random = self
            .random
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        ((self.random >> 32) as usize * bound) >> 32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_place_has_its_turn_in_every_poll() {
        let mut schedule = Schedule::new();
        for count in 0..70 {
            for _ in 0..5 {
                schedule.begin(count);
                let mut seen = schedule.order.clone();
                seen.sort_unstable();
                assert_eq!(seen, (0..count as u16).collect::<Vec<_>>());
            }
        }
    }

    #[test]
    fn of_any_few_places_each_is_first_equally_often() {
        for (count, few) in [
            (2, vec![0, 1]),
            (4, vec![1, 2, 3]),
            (5, vec![1, 2, 3]),
            (8, vec![1, 4, 6]),
            (64, vec![0, 1, 40]),
            (37, vec![3_u16, 4, 5, 36]),
        ] {
            let polls = 64 * 400;
            let mut schedule = Schedule::new();
            // By place: the number of times that it precedes all others of `few`, and that it
            // follows all of them.
            let (mut firsts, mut lasts) = (vec![0_u32; count], vec![0_u32; count]);
            for _ in 0..polls {
                schedule.begin(count);
                let mut met = schedule.order.iter().filter(|place| few.contains(place));
                let first = *met.next().expect("all are met");
                firsts[usize::from(first)] += 1;
                lasts[usize::from(*met.next_back().expect("all are met"))] += 1;
            }
            let fair = f64::from(polls) / few.len() as f64;
            for place in few {
                for times in [&firsts, &lasts] {
                    let off = f64::from(times[usize::from(place)]) / fair;
                    assert!((0.96..1.04).contains(&off), "{place} of {count}: {times:?}");
                }
            }
        }
    }
}
