//! Stamps over restarts: peers refuse a handshake whose stamp is no later than the last one's. So it is
//! written down, ahead and in coarse steps, how far ours may have come; a node whose wall clock was set
//! back meanwhile begins from there. A wall clock that is set forward while the node runs is followed.
//! Never reads a clock and writes nothing itself.

use super::{Links, Peering};
use crate::Now;

/// Stamps are written down so far ahead: rarely enough for any disk, and a node that is started again
/// and again is not far ahead of its clock.
const STEP_NS: u64 = 300_000_000_000;

impl Links {
    /// No stamp of ours is later than this before a snapshot has to be written again.
    pub(in crate::control) fn stamps_until(&self, now: Now) -> u64 {
        let Some(peering) = &self.peering else { return 0 };
        let stamp = peering.config.wall_at_zero.saturating_add(now.0);
        (stamp / STEP_NS).saturating_add(2).saturating_mul(STEP_NS)
    }

    /// From now on stamps are later than this, in nanoseconds since 1970.
    pub(in crate::control) fn stamp_from(&mut self, wall_ns: u64, now: Now) {
        if let Some(peering) = &mut self.peering {
            peering.raise_wall(wall_ns.saturating_sub(now.0));
        }
    }
}

impl Peering {
    fn raise_wall(&mut self, wall_at_zero: u64) {
        if wall_at_zero > self.config.wall_at_zero {
            self.config.wall_at_zero = wall_at_zero;
            for (_, peer) in &mut self.peers {
                peer.session.advance_wall_clock(wall_at_zero);
            }
        }
    }
}
