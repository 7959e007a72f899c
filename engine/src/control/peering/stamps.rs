//! Stamps over restarts: peers refuse a handshake whose stamp is no later than the last one's. So it is
//! written down, ahead and in coarse steps, how far ours may have come; a node whose wall clock was set
//! back meanwhile begins from there. A wall clock that is set forward while the node runs is followed.
//! Never reads a clock and writes nothing itself.

use super::{super::Switch, Peering};
use crate::Now;

/// Stamps are written down so far ahead: rarely enough for any disk, and a node that is started again
/// and again is not far ahead of its clock.
const STEP_NS: u64 = 300_000_000_000;

impl Switch {
    /// No stamp of ours is later than this before it grows, which [`snapshot`](Self::snapshot) is to
    /// be taken and written down for; in nanoseconds since 1970, 0 without an identity.
    pub fn stamps_until(&self, now: Now) -> u64 {
        let Some(peering) = &self.peering else { return 0 };
        let stamp = peering.config.wall_at_zero.saturating_add(self.clock.now().0.max(now.0));
        (stamp / STEP_NS).saturating_add(2).saturating_mul(STEP_NS)
    }

    /// The wall clock shows `wall_ns`, in nanoseconds since 1970. If it was set forward, stamps follow:
    /// a node that started with a clock that was never set is heard once it is right. If it was set
    /// back, they go on from where they are.
    pub fn set_wall_clock(&mut self, wall_ns: u64, now: Now) {
        let now = self.clock.turn(now);
        if let Some(peering) = &mut self.peering {
            peering.raise_wall(wall_ns.saturating_sub(now.0));
        }
    }

    /// From now on stamps are later than this, whatever the wall clock shows.
    pub(in crate::control) fn stamp_from(&mut self, stamps_until: u64) {
        let now = self.clock.now();
        if let Some(peering) = &mut self.peering {
            peering.raise_wall(stamps_until.saturating_sub(now.0));
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
