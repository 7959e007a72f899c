//! What a switch wants to find again after a restart: who has which number, which numbers must rest,
//! and how far its stamps have come. Plain data; where it is written is not the engine's business.

use std::fmt;

use strowger_wire::Scheme;
use strowger_wire::Slot;

use super::slot_allocator::{SlotAllocator, Who};
use crate::Now;

/// One number that is not free.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kept {
    /// The number.
    pub slot: Slot,
    /// Whose it is; nobody's in quarantine.
    pub who: Option<Who>,
    /// How long nobody else may have it, in nanoseconds.
    pub rests_ns: u64,
    /// Whether an unknown peer has or had it: how many such numbers there are is bounded.
    pub unknown: bool,
}

/// A former number that leads to its user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Former {
    /// The number; it is also among the numbers that are kept for no user.
    pub slot: Slot,
    /// Whose it was.
    pub who: Who,
    /// How long it leads there, in nanoseconds.
    pub left_ns: u64,
}

/// A switch's slot numbers, as they are to be found again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// How slot numbers are written.
    pub scheme: Scheme,
    /// How many numbers were ever given.
    pub generation: u64,
    /// All numbers that are not free, ascending.
    pub numbers: Vec<Kept>,
    /// Those among them that lead to whose former number they are.
    pub former: Vec<Former>,
    /// No handshake of this node bears a later stamp before it is to be written down again, in
    /// nanoseconds since 1970; 0 without an identity.
    pub stamps_until: u64,
}

/// Why a snapshot could not be taken up. Nothing has changed then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RestoreError {
    /// SlotAllocator have been given already.
    Late,
    /// It names a number twice, or one that is nobody's to have.
    Number(Slot),
    /// The switch's scheme reads this number's code otherwise than the scheme that it was given under:
    /// labels of before would lead elsewhere (R1).
    Scheme(Slot),
}

impl fmt::Display for RestoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Late => f.write_str("the switch has given out slots already"),
            Self::Scheme(slot) => write!(
                f,
                "the scheme is another than before, and reads what was written for slot {slot} \
                 otherwise"
            ),
            Self::Number(slot) => write!(f, "slot {slot} stands there twice, or cannot be given"),
        }
    }
}

impl std::error::Error for RestoreError {}

impl Snapshot {
    /// The numbers as they are kept from `now` on.
    pub(super) fn to_numbers(
        &self,
        slot_max: u32,
        now: Now,
    ) -> Result<SlotAllocator, RestoreError> {
        let mut numbers = SlotAllocator::new(slot_max);
        numbers.count_from(self.generation);
        for kept in &self.numbers {
            let until = Now(now.0.saturating_add(kept.rests_ns));
            if !numbers.keep(kept.slot, kept.who.clone(), until, kept.unknown) {
                return Err(RestoreError::Number(kept.slot));
            }
        }
        for Former { slot, who, left_ns } in &self.former {
            let until = Now(now.0.saturating_add(*left_ns));
            if !numbers.keep_former(*slot, who.clone(), until) {
                return Err(RestoreError::Number(*slot));
            }
        }
        Ok(numbers)
    }
}
