//! What a switch wants to find again after a restart: who has which number, which numbers must rest,
//! and how far its stamps have come. Plain data; where it is written is not the engine's business.

use std::fmt;

use strowger_wire::{Scheme, Slot};

use super::{Switch, numbers::Who, renumber::read_otherwise};
use crate::Now;

/// One number that is not free.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kept {
    /// The number.
    pub slot: u32,
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
    pub slot: u32,
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
    /// Numbers have been given already.
    Late,
    /// It names a number twice, or one that is nobody's to have.
    Number(u32),
    /// The switch's scheme reads this number's code otherwise than the scheme that it was given under:
    /// labels of before would lead elsewhere (R1).
    Scheme(u32),
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

impl Switch {
    /// How many numbers were ever given, over restarts: tells whether there is news to write down.
    pub fn generation(&self) -> u64 {
        self.numbers.generation()
    }

    /// What is to be found again after a restart at this moment.
    pub fn snapshot(&self, now: Now) -> Snapshot {
        let who = |mark: strowger_frame::Mark| {
            self.attached.get(mark.index())?.1.as_ref().map(|user| user.who.clone())
        };
        let times = [self.config.alias_ns, self.config.quarantine_ns];
        let rest = self.clock.rest_at(now);
        let former = self.numbers.former_to_keep(who, rest, times[0]);
        let numbers = self.numbers.to_keep(who, rest, times);
        Snapshot {
            scheme: self.config.scheme,
            generation: self.numbers.generation(),
            numbers: numbers
                .into_iter()
                .map(|(slot, who, rests_ns, unknown)| Kept { slot, who, rests_ns, unknown })
                .collect(),
            former,
            stamps_until: self.stamps_until(now),
        }
    }

    /// Takes up a snapshot, before anything is attached. Whoever had a number gets it again, unless
    /// it asks for another; nobody else gets it before its quarantine has ended, and then last of
    /// all. A number that another is pinned to is that one's, and opens when it has rested; so does the
    /// first one that comes free, where no other is left. Former numbers lead to their users again when
    /// these are back, and so does a number whose user asks for another. Stamps go on from those of before if [`set_identity`](Self::set_identity) came first.
    ///
    /// # Errors
    /// [`RestoreError`].
    pub fn restore(&mut self, snapshot: &Snapshot, now: Now) -> Result<(), RestoreError> {
        if self.numbers.generation() > 0 {
            return Err(RestoreError::Late);
        }
        let slots = snapshot.numbers.iter().map(|kept| kept.slot);
        let is_changed =
            |slot: &u32| read_otherwise(*slot, &snapshot.scheme, &self.config.scheme).is_some();
        if let Some(slot) = slots.chain([Slot::SWITCH.number()]).find(is_changed) {
            return Err(RestoreError::Scheme(slot));
        }
        self.clock.turn(now);
        let now = self.clock.rest();
        self.now = now;
        let mut numbers = super::Numbers::new(self.config.slot_max);
        numbers.count_from(snapshot.generation);
        for kept in &snapshot.numbers {
            let until = Now(now.0.saturating_add(kept.rests_ns));
            if !numbers.keep(kept.slot, kept.who.clone(), until, kept.unknown) {
                return Err(RestoreError::Number(kept.slot));
            }
        }
        for Former { slot, who, left_ns } in &snapshot.former {
            let until = Now(now.0.saturating_add(*left_ns));
            if !numbers.keep_former(*slot, who.clone(), until) {
                return Err(RestoreError::Number(*slot));
            }
        }
        self.numbers = numbers;
        self.stamp_from(snapshot.stamps_until);
        self.give_tables();
        Ok(())
    }

    /// Whether a number is kept over the restart for the peer with this static key, or, without one, for
    /// what has this name: these get their numbers before others do.
    pub fn is_kept_for(&self, key: Option<[u8; 32]>, name: &str) -> bool {
        self.numbers.is_kept_for(&Who::new(key, name))
    }

    /// How long it is, in nanoseconds, before a slot that was given may lead to its user: labels that name
    /// the number's last user must be gone first. `None` if nothing has to be waited for.
    pub fn opens_in(&self, slot: u32) -> Option<u64> {
        self.numbers.opens_in(slot, self.now)
    }

    /// From now on no number leads anywhere before a snapshot that names it was written down, so
    /// that even a crash keeps all numbers that labels may name ([`Self::set_written`]).
    pub fn wait_for_writing(&mut self) {
        self.written.get_or_insert(0);
    }

    /// A snapshot of this generation was written down, or could not be: go on.
    pub fn set_written(&mut self, generation: u64) {
        if let Some(written) = &mut self.written {
            *written = generation.max(*written);
        }
    }
}
