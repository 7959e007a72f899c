//! The share of a contended egress queue that each ingress holds.

use arrayvec::ArrayVec;

use crate::limits::{
    EGRESS_CONTROL_FRAMES_MAX, EGRESS_DATA_FOR_CONTROL, EGRESS_FRAMES_MAX, FRAME_WEIGHT_BYTES,
};

/// The maximum number of ingresses that have a frame in one queue.
const SHARES_MAX: usize = EGRESS_FRAMES_MAX + EGRESS_CONTROL_FRAMES_MAX;

/// The weight of a frame: one for the work that any frame causes, plus one per full 256 bytes.
#[inline]
pub(crate) fn weight(frame_bytes: usize) -> u16 {
    (1 + frame_bytes / FRAME_WEIGHT_BYTES) as u16
}

/// The charge of a frame in its queue.
///
/// A control frame is charged more than a data frame, because it is sent sooner: the 16 places for
/// control get a quarter of the rate of a contended link, and the 64 places for data get three
/// quarters.
fn charge(weight: u16, is_control: bool) -> u16 {
    weight.saturating_mul(if is_control { CONTROL_CHARGE } else { DATA_CHARGE })
}

const DATA_CHARGE: u16 = EGRESS_DATA_FOR_CONTROL;
const CONTROL_CHARGE: u16 = EGRESS_DATA_FOR_CONTROL + 1;
// The share of the link per place: for control it is a quarter for 16 places (4/256 each), and for
// data it is three quarters for 64 places (3/256 each).
const _: () = assert!(EGRESS_FRAMES_MAX == 4 * EGRESS_CONTROL_FRAMES_MAX);

/// The part of a queue that one ingress holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Share {
    /// The ingress slot.
    pub(crate) slot: u16,
    /// The sum of the charges of its frames, including control frames.
    pub(crate) held: u16,
    /// The number of its control frames.
    pub(crate) control: u16,
}

/// The shares of all ingresses that have frames in one queue.
#[derive(Debug, Default)]
pub(crate) struct Shares(ArrayVec<Share, SHARES_MAX>);

impl Shares {
    /// The share of this ingress.
    pub(crate) fn of(&self, slot: u16) -> Share {
        let found = self.0.iter().find(|share| share.slot == slot);
        found.copied().unwrap_or(Share { slot, ..Share::default() })
    }

    /// The largest share of all ingresses except this one.
    pub(crate) fn heaviest_but(&self, slot: u16) -> Option<Share> {
        let others = self.0.iter().filter(|share| share.slot != slot);
        others.max_by_key(|share| share.held).copied()
    }

    /// The share with the most control frames, of all ingresses except this one.
    pub(crate) fn most_control_but(&self, slot: u16) -> Option<Share> {
        let others = self.0.iter().filter(|share| share.slot != slot);
        others.max_by_key(|share| share.control).copied()
    }

    /// Whether this ingress, with one more data frame of `weight`, would hold less than `other`
    /// holds.
    pub(crate) fn is_below(&self, slot: u16, weight: u16, other: Share) -> bool {
        self.of(slot).held.saturating_add(charge(weight, false)) < other.held
    }

    /// Adds a frame.
    pub(crate) fn add(&mut self, slot: u16, weight: u16, is_control: bool) {
        let at = self.0.iter().position(|share| share.slot == slot);
        if at.is_none() {
            let is_new = self.0.try_push(Share { slot, ..Share::default() });
            debug_assert!(is_new.is_ok(), "each share has a frame, and a place");
        }
        let share = match at {
            Some(at) => self.0.get_mut(at),
            None => self.0.last_mut().filter(|share| share.slot == slot),
        };
        if let Some(share) = share {
            share.held = share.held.saturating_add(charge(weight, is_control));
            share.control += u16::from(is_control);
        }
    }

    /// Subtracts a frame.
    pub(crate) fn sub(&mut self, slot: u16, weight: u16, is_control: bool) {
        let Some(at) = self.0.iter().position(|share| share.slot == slot) else { return };
        let share = &mut self.0[at];
        share.held = share.held.saturating_sub(charge(weight, is_control));
        share.control = share.control.saturating_sub(u16::from(is_control));
        if share.held == 0 {
            self.0.swap_remove(at);
        }
    }

    /// Counts one of the ingress' control frames as data from now on.
    pub(crate) fn demote(&mut self, slot: u16, weight: u16) {
        if let Some(share) = self.0.iter_mut().find(|share| share.slot == slot) {
            share.control = share.control.saturating_sub(1);
            share.held = share.held.saturating_sub(charge(weight, true) - charge(weight, false));
        }
    }

    /// Removes all shares.
    pub(crate) fn clear(&mut self) {
        self.0.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_largest_share_is_found_and_an_empty_one_is_removed() {
        let mut shares = Shares::default();
        shares.add(2, 1, false);
        shares.add(3, 6, true);
        shares.add(3, 1, false);
        assert_eq!(shares.of(3), Share { slot: 3, held: 27, control: 1 });
        assert_eq!(shares.of(9), Share { slot: 9, held: 0, control: 0 });
        assert!(shares.is_below(2, 7, shares.of(3)) && !shares.is_below(2, 8, shares.of(3)));
        assert_eq!(shares.heaviest_but(9).map(|share| share.slot), Some(3));
        assert_eq!(shares.heaviest_but(3).map(|share| share.slot), Some(2));
        assert_eq!(shares.most_control_but(2), Some(shares.of(3)));
        shares.demote(3, 6);
        assert_eq!(shares.of(3), Share { slot: 3, held: 21, control: 0 });
        shares.sub(3, 6, false);
        shares.sub(3, 1, false);
        shares.sub(2, 1, false);
        assert_eq!((shares.heaviest_but(9), shares.0.len()), (None, 0));
    }

    #[test]
    fn a_frame_weighs_its_bytes_and_one_for_itself() {
        let begun = FRAME_WEIGHT_BYTES;
        assert_eq!([0, begun - 1, begun, 3 * begun].map(weight), [1, 1, 2, 4]);
    }
}
