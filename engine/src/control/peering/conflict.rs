//! Detection of one static key on two nodes: each node begins a handshake when the other node has
//! taken its link, so new keys come from two addresses in turn.

use strowger_crypto::limits::REKEY_AFTER;

use super::Location;
use crate::Now;

/// The number of returns to the former location, each with new keys, after which two nodes are
/// assumed. A single peer does not return in this way: a peer that restarts stays at its location,
/// and a peer that moves back and forth between two networks keeps its keys.
const RETURNS: u8 = 3;

/// The time since the last change of location, in nanoseconds (ten minutes), after which a peer
/// counts as one node again.
const FORGOTTEN_AFTER_NS: u64 = 600_000_000_000;

/// The sources of the handshakes that the peer has begun recently.
#[derive(Debug, Default)]
pub(super) struct Conflict {
    last: Option<Location>,
    before: Option<Location>,
    returns: u8,
    since: Now,
}

impl Conflict {
    /// Notes that new keys came from `from`, and that the previous keys had this age. Returns
    /// whether this shows, for the first time, that two nodes have the peer's key.
    pub(super) fn note(&mut self, from: Location, age_ns: u64, now: Now) -> bool {
        if self.last == Some(from) {
            return false;
        }
        if now.0.saturating_sub(self.since.0) >= FORGOTTEN_AFTER_NS {
            *self = Self::default();
        }
        let is_back = self.before == Some(from) && age_ns < REKEY_AFTER.0;
        let was = self.returns;
        self.returns = if is_back { was.saturating_add(1) } else { 0 };
        (self.before, self.last, self.since) = (self.last, Some(from), now);
        was < RETURNS && self.returns >= RETURNS
    }

    /// The locations of the two nodes, if there are two.
    pub(super) fn locations(&self, now: Now) -> Option<[Location; 2]> {
        let is_so =
            self.returns >= RETURNS && now.0.saturating_sub(self.since.0) < FORGOTTEN_AFTER_NS;
        if is_so { Some([self.before?, self.last?]) } else { None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::PortId;
    use strowger_frame::Address;

    const SECOND: u64 = 1_000_000_000;

    fn at(port: u16) -> Location {
        Location { port: PortId(port), at: Address::Only }
    }

    #[test]
    fn only_a_peer_that_returns_repeatedly_with_early_keys_is_two_nodes() {
        let mut conflict = Conflict::default();
        let mut now = Now(0);
        let mut note = |from: u16, after: u64| {
            now = Now(now.0 + after * SECOND);
            (conflict.note(at(from), after * SECOND, now), conflict.locations(now).is_some())
        };
        // A peer that restarts at one location, then moves to new locations, then moves back and
        // forth between two locations with each rekey.
        for place in [1, 1, 1, 1, 2, 3, 4, 5, 6] {
            assert_eq!(note(place, 20), (false, false));
        }
        for place in [1, 2, 1, 2, 1, 2] {
            assert_eq!(note(place, 121), (false, false));
        }
        assert_eq!(note(7, 1), (false, false));
        assert_eq!(note(8, 1), (false, false));
        assert_eq!(note(7, 20), (false, false));
        assert_eq!(note(8, 20), (false, false));
        assert_eq!(note(7, 20), (true, true));
        assert_eq!(note(8, 20), (false, true), "reported once");
        assert_eq!(note(8, 700), (false, false), "over");
        assert_eq!(note(7, 20), (false, false));
    }
}
