//! The state of a switch that a restart needs: the users of slot numbers, the numbers in
//! quarantine, and the latest handshake timestamp. The snapshot is plain data. The caller decides
//! where to write it.

use std::fmt;

use strowger_wire::Scheme;
use strowger_wire::Slot;

use super::slot_allocator::{SlotAllocator, Who};
use crate::Now;

/// One number that is not free.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kept {
    /// The slot number.
    pub slot: Slot,
    /// The user; `None` for a former number and for a number in quarantine.
    pub who: Option<Who>,
    /// The time, in nanoseconds, for which no other user may have the number.
    pub rests_ns: u64,
    /// Whether the number belongs to an unknown peer, or last belonged to one. The number of such
    /// slot numbers is limited.
    pub unknown: bool,
}

/// A former number that leads to its user, or will do so when the user returns.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Former {
    /// The slot number. [`Snapshot::numbers`] also contains it, without a user.
    pub slot: Slot,
    /// The user of the number.
    pub who: Who,
    /// The remaining time, in nanoseconds, for which the number leads to the user.
    pub left_ns: u64,
}

/// The slot numbers and the latest handshake timestamp of a switch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// The scheme of slot numbers.
    pub scheme: Scheme,
    /// The number of allocations so far.
    pub generation: u64,
    /// All numbers that are not free, in ascending order.
    pub numbers: Vec<Kept>,
    /// The former numbers among [`numbers`](Self::numbers) that lead to their users, or will do so
    /// when the users return.
    pub former: Vec<Former>,
    /// The latest timestamp that this node's handshakes can carry before the next snapshot, in
    /// nanoseconds since 1970. 0 if the node has no identity.
    pub stamps_until: u64,
}

/// The reason why a snapshot was not restored. The switch is unchanged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum RestoreError {
    /// Slots have already been allocated.
    Late,
    /// The snapshot contains a number twice, or a number that cannot be allocated.
    Number(Slot),
    /// The switch's scheme reads the code of this number differently than the snapshot's scheme
    /// does. Existing labels would lead to other slots (R1).
    Scheme(Slot),
}

impl fmt::Display for RestoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Late => f.write_str(
                "slots have been allocated already; restore before anything is attached",
            ),
            Self::Scheme(slot) => write!(
                f,
                "the scheme has changed, and reads the code of slot {slot} in existing labels \
                 as another slot"
            ),
            Self::Number(slot) => write!(f, "slot {slot} occurs twice, or cannot be allocated"),
        }
    }
}

impl std::error::Error for RestoreError {}

impl Snapshot {
    /// Makes an allocator with these numbers, kept from `now` on.
    pub(super) fn to_allocator(
        &self,
        slot_max: u32,
        now: Now,
    ) -> Result<SlotAllocator, RestoreError> {
        let mut allocator = SlotAllocator::new(slot_max);
        allocator.count_from(self.generation);
        for kept in &self.numbers {
            let until = Now(now.0.saturating_add(kept.rests_ns));
            if !allocator.keep(kept.slot, kept.who.clone(), until, kept.unknown) {
                return Err(RestoreError::Number(kept.slot));
            }
        }
        for Former { slot, who, left_ns } in &self.former {
            let until = Now(now.0.saturating_add(*left_ns));
            if !allocator.keep_former(*slot, who.clone(), until) {
                return Err(RestoreError::Number(*slot));
            }
        }
        Ok(allocator)
    }
}
