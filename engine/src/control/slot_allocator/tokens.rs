//! Tokens: each permits one step of a number. The previous step returns the token, and the
//! permitted step consumes it. Only [`SlotAllocator`](super::SlotAllocator) and its submodules make
//! tokens.

use strowger_frame::Mark;
use strowger_wire::Slot;

use crate::control::grace_period::Quiesced;

/// An allocated number that is not published yet.
#[derive(Debug)]
#[must_use = "a number that is not published leads nowhere"]
pub struct Allocated {
    pub(super) slot: Slot,
    pub(super) generation: u64,
    pub(super) user: Mark,
}

impl Allocated {
    /// The slot number.
    pub fn slot(&self) -> Slot {
        self.slot
    }

    /// The user of the number.
    pub fn user(&self) -> Mark {
        self.user
    }

    /// The count of allocations when the number was allocated.
    pub fn generation(&self) -> u64 {
        self.generation
    }
}

/// The result of [`SlotAllocator::publish`](super::SlotAllocator::publish).
#[derive(Debug)]
#[must_use = "a number that must wait has to be published later"]
pub enum Published {
    /// The number is published: tables that are made from now on map it to its user.
    Now,
    /// Labels that name the number's last user may still be in use. The number must be published
    /// later.
    Later(Allocated),
    /// The number was withdrawn in the meantime.
    Never,
}

/// A former number, until every worker writes the new number of its user.
#[derive(Debug)]
#[must_use = "an alias that is not retired never ends"]
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

    /// The new number.
    pub fn to(&self) -> Slot {
        self.to
    }

    /// The user of both numbers.
    pub fn user(&self) -> Mark {
        self.user
    }
}

/// Numbers that tables made from now on do not contain.
#[derive(Debug)]
#[must_use = "a withdrawn number that does not go into quarantine is lost"]
pub struct Withdrawn {
    pub(super) numbers: Vec<(Slot, u64)>,
    pub(super) leaving: Vec<Mark>,
    /// Users that stay attached and lose a former number.
    pub(super) staying: Vec<Mark>,
    pub(super) version: u64,
}

impl Withdrawn {
    /// The slot numbers.
    pub fn slots(&self) -> impl Iterator<Item = Slot> {
        self.numbers.iter().map(|&(slot, _)| slot)
    }

    /// The users that stay attached and lose a former number. Workers must no longer write this
    /// number into return paths.
    pub fn staying(&self) -> &[Mark] {
        &self.staying
    }
}

/// Withdrawn numbers, after a table without them was sent to every worker.
#[derive(Debug)]
#[must_use = "a withdrawn number that does not go into quarantine is lost"]
pub struct Informed {
    pub(super) numbers: Vec<(Slot, u64)>,
    pub(super) leaving: Vec<Mark>,
}

/// Numbers that no worker's table contains any more.
#[derive(Debug)]
#[must_use = "a withdrawn number that does not go into quarantine is lost"]
pub struct Unnamed {
    pub(super) numbers: Vec<(Slot, u64)>,
    pub(super) leaving: Vec<Mark>,
}

/// Numbers whose users' links were removed by every worker. The numbers may go into quarantine.
#[derive(Debug)]
#[must_use = "a withdrawn number that does not go into quarantine is lost"]
pub struct Detached {
    pub(super) numbers: Vec<(Slot, u64)>,
}

/// A number whose quarantine has ended: it may be freed.
#[derive(Debug)]
#[must_use = "a number out of quarantine has to be freed"]
pub struct Quarantined {
    pub(super) slot: Slot,
    pub(super) generation: u64,
}

impl Quarantined {
    /// The slot number.
    pub fn slot(&self) -> Slot {
        self.slot
    }
}

impl Unnamed {
    /// Makes the token from the proof that every worker has the table without the numbers.
    pub fn after(passed: Quiesced<Informed>) -> Self {
        let Informed { numbers, leaving } = passed.into_inner();
        Self { numbers, leaving }
    }

    /// The users that every worker must remove now. If only aliases end, there are none.
    pub fn leaving(&self) -> &[Mark] {
        &self.leaving
    }

    /// Adds further users to remove, which are in no table.
    pub fn and_leaving(mut self, more: impl IntoIterator<Item = Mark>) -> Self {
        self.leaving.extend(more);
        self
    }

    /// Returns the next token if only aliases end. Their users stay attached, so there is no link
    /// to remove.
    ///
    /// # Errors
    /// Returns the present token if a user is being detached.
    pub fn without_user(self) -> Result<Detached, Self> {
        if self.leaving.is_empty() { Ok(Detached { numbers: self.numbers }) } else { Err(self) }
    }
}

impl Detached {
    /// Makes the token from the proof that every worker has removed the links.
    pub fn after(passed: Quiesced<Unnamed>) -> Self {
        Self { numbers: passed.into_inner().numbers }
    }
}
