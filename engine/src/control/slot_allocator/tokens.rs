//! Tokens: each allows one step of a number's way, is made by the step before it, and is used up. Only
//! [`SlotAllocator`](super::SlotAllocator) and its submodules make them.

use strowger_frame::Mark;
use strowger_wire::Slot;

use crate::control::grace_period::Quiesced;

/// A number that was given and is not published yet.
#[derive(Debug)]
#[must_use = "a number that is not published leads nowhere"]
pub struct Allocated {
    pub(super) slot: Slot,
    pub(super) generation: u64,
    pub(super) user: Mark,
}

impl Allocated {
    /// The number.
    pub fn slot(&self) -> Slot {
        self.slot
    }

    /// Who it was given to.
    pub fn user(&self) -> Mark {
        self.user
    }

    /// The state of the generation of the numbers that includes it.
    pub fn generation(&self) -> u64 {
        self.generation
    }
}

/// What became of a number that was to be published.
#[derive(Debug)]
#[must_use = "a number that must wait is to be published later"]
pub enum Published {
    /// Tables made from now on lead to its user.
    Now,
    /// Its last user's labels may still be on their way: to be tried again.
    Later(Allocated),
    /// It was withdrawn meanwhile.
    Never,
}

/// A former number whose user's new one is being written by the workers.
#[derive(Debug)]
#[must_use = "an alias that is not retired stays for ever"]
pub struct Retiring {
    pub(super) slot: Slot,
    pub(super) generation: u64,
    pub(super) to: Slot,
    pub(super) user: Mark,
}

impl Retiring {
    /// The former number.
    pub fn slot(&self) -> Slot {
        self.slot
    }

    /// The new one.
    pub fn to(&self) -> Slot {
        self.to
    }

    /// Whose they are.
    pub fn user(&self) -> Mark {
        self.user
    }
}

/// SlotAllocator that tables made from now on do not lead by.
#[derive(Debug)]
#[must_use = "a withdrawn number that does not come to rest is lost"]
pub struct Withdrawn {
    pub(super) numbers: Vec<(Slot, u64)>,
    pub(super) leaving: Vec<Mark>,
    /// Users who stay, and lose a former number.
    pub(super) staying: Vec<Mark>,
    pub(super) version: u64,
}

impl Withdrawn {
    /// The numbers.
    pub fn slots(&self) -> impl Iterator<Item = Slot> {
        self.numbers.iter().map(|&(slot, _)| slot)
    }

    /// The users who stay attached and lose a former number: no worker may write it into return paths
    /// any more.
    pub fn staying(&self) -> &[Mark] {
        &self.staying
    }
}

/// The same, when every worker has been given such a table.
#[derive(Debug)]
#[must_use = "a withdrawn number that does not come to rest is lost"]
pub struct Informed {
    pub(super) numbers: Vec<(Slot, u64)>,
    pub(super) leaving: Vec<Mark>,
}

/// SlotAllocator that no worker's table leads by any more.
#[derive(Debug)]
#[must_use = "a withdrawn number that does not come to rest is lost"]
pub struct Unnamed {
    pub(super) numbers: Vec<(Slot, u64)>,
    pub(super) leaving: Vec<Mark>,
}

/// SlotAllocator whose former user no worker knows under them any more: they may come to rest.
#[derive(Debug)]
#[must_use = "a withdrawn number that does not come to rest is lost"]
pub struct Detached {
    pub(super) numbers: Vec<(Slot, u64)>,
}

/// A number whose quarantine has ended: it may be given again.
#[derive(Debug)]
#[must_use = "a number that has rested is free only when it is freed"]
pub struct Quarantined {
    pub(super) slot: Slot,
    pub(super) generation: u64,
}

impl Quarantined {
    /// The number.
    pub fn slot(&self) -> Slot {
        self.slot
    }
}

impl Unnamed {
    /// Once every worker has reported the table that it was given.
    pub fn after(passed: Quiesced<Informed>) -> Self {
        let Informed { numbers, leaving } = passed.into_inner();
        Self { numbers, leaving }
    }

    /// The users who are to be dropped by every worker now. None if only aliases go.
    pub fn leaving(&self) -> &[Mark] {
        &self.leaving
    }

    /// These users are to be dropped as well: no table leads to them either.
    pub fn and_leaving(mut self, more: impl IntoIterator<Item = Mark>) -> Self {
        self.leaving.extend(more);
        self
    }

    /// Only aliases go, and their user stays: there is no link to drop.
    ///
    /// # Errors
    /// Gives it back if a user leaves.
    pub fn without_user(self) -> Result<Detached, Self> {
        if self.leaving.is_empty() { Ok(Detached { numbers: self.numbers }) } else { Err(self) }
    }
}

impl Detached {
    /// Once every worker has reported that it dropped the link.
    pub fn after(passed: Quiesced<Unnamed>) -> Self {
        Self { numbers: passed.into_inner().numbers }
    }
}
