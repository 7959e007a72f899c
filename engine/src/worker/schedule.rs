//! What a worker polls next: its ports and rings in another order in every poll, so that none is first more
//! often than others (R23).

use crate::limits::{PORTS_MAX, WORKERS_MAX};

/// One worker's schedule. Sized once.
pub(super) struct Schedule {
    /// Counts polls, and so gives each its own order.
    polls: u64,
    /// Ports and, behind them, rings that are polled next, in this order.
    pub(super) order: Vec<u16>,
    /// A session has moved here: what is in the rings now goes first.
    pub(super) rings_first: bool,
    /// Frames received since the last flush.
    pub(super) unflushed_frames: usize,
}

impl Schedule {
    pub(super) fn new() -> Self {
        let order = Vec::with_capacity(PORTS_MAX + WORKERS_MAX);
        Self { polls: 0, order, rings_first: false, unflushed_frames: 0 }
    }

    /// Begins a poll of so many ports and rings.
    #[inline]
    pub(super) fn begin(&mut self, count: usize) {
        self.polls = self.polls.wrapping_add(1);
        self.order.clear();
        self.order.extend(PollOrder::new(count, self.polls));
    }
}

/// Each of `count` places once.
struct PollOrder {
    count: usize,
    mask: usize,
    next: usize,
    stride: usize,
    left: usize,
}

impl PollOrder {
    /// The order of this poll. Over as many polls as there are places (rounded up to a power of two)
    /// each place is the first once, and then the distances between them change: where only some places
    /// have something, these are first equally often, wherever they stand.
    fn new(count: usize, poll: u64) -> Self {
        let places = count.next_power_of_two();
        let round = poll >> places.trailing_zeros();
        // splitmix64's multiplier: any that leaves the high bits unlike each other.
        let stride = ((round >> 1).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40) as usize | 1;
        // Then the other way round, so that of any two each is ahead equally often.
        let stride = if round & 1 == 0 { stride } else { stride.wrapping_neg() };
        let mask = places - 1;
        Self { count, mask, next: poll as usize & mask, stride, left: places }
    }
}

impl Iterator for PollOrder {
    type Item = u16;

    #[inline]
    fn next(&mut self) -> Option<u16> {
        while self.left > 0 {
            self.left -= 1;
            let place = self.next;
            // Odd, and the number of places a power of two: each is met once.
            self.next = self.next.wrapping_add(self.stride) & self.mask;
            if place < self.count {
                return Some(place as u16);
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_place_has_its_turn_in_every_poll() {
        for count in 0..70 {
            for poll in [0, 1, 5, 1_000, u64::MAX - 3] {
                let mut seen: Vec<u16> = PollOrder::new(count, poll).collect();
                seen.sort_unstable();
                assert_eq!(seen, (0..count as u16).collect::<Vec<_>>());
            }
        }
    }

    #[test]
    fn of_any_few_places_each_is_first_equally_often() {
        for (count, few) in [(2, vec![0, 1]), (64, vec![0, 1, 40]), (37, vec![3_u16, 4, 5, 36])] {
            let polls = 64 * 400;
            let mut firsts = vec![0_u32; count];
            for poll in 0..polls {
                let first = PollOrder::new(count, poll).find(|place| few.contains(place));
                firsts[usize::from(first.expect("all are met"))] += 1;
            }
            let fair = polls as f64 / few.len() as f64;
            for place in few {
                let off = f64::from(firsts[usize::from(place)]) / fair;
                assert!((0.9..1.1).contains(&off), "{place} of {count}: {firsts:?}");
            }
        }
    }
}
