//! The choice of a number for a user, and the time at which it may lead there: after the labels of the
//! number's last user are gone. Some numbers are reserved for configured peers.

use core::time::Duration;

use strowger_frame::Mark;
use strowger_wire::Slot;

use super::{Allocated, Entry, SlotAllocator, SlotRequest, Usage, Who};
use crate::{
    Now,
    control::{AttachError, NotFree},
    limits::{NUMBERS_RESERVED_DIVISOR, NUMBERS_RESERVED_MIN},
};

impl SlotAllocator {
    /// Allocates a number for a user.
    ///
    /// # Errors
    /// [`AttachError`]; nothing is changed then.
    pub fn allocate(
        &mut self,
        wish: SlotRequest<'_>,
        user: Mark,
        now: Now,
    ) -> Result<Allocated, AttachError> {
        let slot = match wish.slot {
            Some(slot) => slot,
            None => self.unpinned(wish, now)?,
        };
        let not_before = self.openable(slot, wish.who, now)?;
        if not_before > now && !wish.may_wait {
            return Err(not_free(slot, NotFree::Kept, Some(not_before), now));
        }
        self.due.set(None);
        self.generation += 1;
        let generation = self.generation;
        let usage = Usage::Coming { user, not_before };
        self.entries.insert(slot, Entry { generation, usage, unknown: wish.unknown_max.is_some() });
        self.aliases.remove(&slot);
        while self.low == Slot::SWITCH || self.entries.contains_key(&self.low) {
            self.low = Slot::new(self.low.number() + 1);
        }
        Ok(Allocated { slot, generation, user })
    }

    /// When a number may be published, if it may be allocated for `who`.
    fn openable(&self, slot: Slot, who: Option<&Who>, now: Now) -> Result<Now, AttachError> {
        if slot == Slot::SWITCH || slot > self.slot_max {
            return Err(AttachError::NoSuchSlot(slot));
        }
        let refused = |why, until| Err(not_free(slot, why, until, now));
        match self.entries.get(&slot).map(|entry| &entry.usage) {
            None => Ok(Now(0)),
            Some(Usage::Kept { who: Some(kept), .. } | Usage::Former { who: kept, .. })
                if Some(kept) == who =>
            {
                Ok(Now(0))
            }
            // Another user than before the restart: the labels must be gone first.
            Some(Usage::Kept { until, .. } | Usage::Former { until, .. }) => Ok(*until),
            Some(Usage::Coming { .. } | Usage::Live { .. }) => Err(AttachError::SlotTaken(slot)),
            Some(Usage::Alias { until, .. }) => refused(NotFree::Former, *until),
            Some(Usage::Returning { alias_until, .. }) => {
                refused(NotFree::Former, Some(*alias_until))
            }
            Some(Usage::Withdrawn { .. }) => refused(NotFree::Quarantined, None),
            Some(Usage::Quarantined { until }) => refused(NotFree::Quarantined, Some(*until)),
        }
    }

    /// The number kept for `who`, the lowest free one, or the lowest kept one whose time is over; if the
    /// request may wait, the one that is free first.
    fn unpinned(&self, wish: SlotRequest<'_>, now: Now) -> Result<Slot, AttachError> {
        let kept = |wanted: &dyn Fn(&Entry, &Option<Who>, Now) -> bool| {
            let mut all = self.entries.range(..=self.slot_max);
            all.find(|(_, entry)| {
                matches!(&entry.usage, Usage::Kept { who, until } if wanted(entry, who, *until))
            })
            .map(|(&slot, _)| slot)
        };
        if let Some(slot) = wish.who.and_then(|who| self.kept_for(who)) {
            return Ok(slot);
        }
        let free = self.lowest_free();
        let idle = || kept(&|_, _, until| until <= now);
        let Some(unknown_max) = wish.unknown_max else {
            let first = || if wish.may_wait { self.next_free() } else { None };
            return free.or_else(idle).or_else(first).ok_or(AttachError::SlotsFull);
        };
        // Unknown peers leave the reserved numbers to configured ones, and share a bound.
        let numbers = self.slot_max.index();
        let reserved = (numbers / NUMBERS_RESERVED_DIVISOR).max(NUMBERS_RESERVED_MIN);
        if self.available(now) <= reserved {
            return Err(AttachError::SlotsFull);
        }
        if self.held_by_unknown() < unknown_max {
            return free.or_else(idle).ok_or(AttachError::SlotsFull);
        }
        kept(&|entry, _, until| entry.unknown && until <= now).ok_or(AttachError::SlotsFull)
    }

    /// The lowest number that is kept for `who` over a restart.
    fn kept_for(&self, who: &Who) -> Option<Slot> {
        let is_kept = |slot: &Slot| {
            let usage = self.entries.get(slot).map(|entry| &entry.usage);
            matches!(usage, Some(Usage::Kept { who: Some(kept), .. }) if kept == who)
        };
        let numbers = self.kept_for.get(who)?.iter().copied();
        numbers.filter(|slot| *slot <= self.slot_max && is_kept(slot)).min()
    }

    /// The lowest number that has no user and is not in quarantine.
    fn lowest_free(&self) -> Option<Slot> {
        // Both are ascending, so the first number that the map skips is free.
        let mut taken = self.entries.range(self.low..).map(|(&slot, _)| slot).peekable();
        (self.low.number()..=self.slot_max.number())
            .map(Slot::new)
            .filter(|slot| !slot.is_switch())
            .find(|slot| taken.next_if_eq(slot).is_none())
    }

    /// The number kept over a restart that another user gets first: one without a user, or of an unknown
    /// peer, before one whose user may still return.
    fn next_free(&self) -> Option<Slot> {
        let kept = self.entries.range(..=self.slot_max).filter_map(|(&slot, entry)| {
            let (is_somebody_s, until) = match &entry.usage {
                Usage::Kept { who, until } => (who.is_some() && !entry.unknown, *until),
                Usage::Former { until, .. } => (false, *until),
                _ => return None,
            };
            Some((is_somebody_s, until, slot))
        });
        kept.min().map(|(_, _, slot)| slot)
    }

    /// The count of numbers that may be allocated and published at once.
    fn available(&self, now: Now) -> usize {
        let is_busy =
            |entry: &&Entry| !matches!(entry.usage, Usage::Kept { until, .. } if until <= now);
        let busy = self.entries.range(..=self.slot_max).filter(|(_, e)| is_busy(e)).count();
        // All but slot 1, which has no entry.
        self.slot_max.index().saturating_sub(busy)
    }

    /// The count of numbers that unknown peers have, or had so lately that no other user may have them.
    pub fn held_by_unknown(&self) -> usize {
        self.entries.values().filter(|entry| entry.unknown).count()
    }

    /// When an allocated number may lead to its user, if it is not published yet.
    pub fn opens_at(&self, slot: Slot) -> Option<Now> {
        match self.entries.get(&slot)?.usage {
            Usage::Coming { not_before, .. } => Some(not_before),
            _ => None,
        }
    }

    /// How long before an allocated number may lead to its user; `None` if it may.
    pub fn opens_in(&self, slot: Slot, now: Now) -> Option<u64> {
        match self.entries.get(&slot)?.usage {
            Usage::Coming { not_before, .. } if not_before > now => Some(not_before.0 - now.0),
            _ => None,
        }
    }
}

fn not_free(slot: Slot, why: NotFree, until: Option<Now>, now: Now) -> AttachError {
    let opens_in = until.map(|at| Duration::from_nanos(at.0.saturating_sub(now.0)));
    AttachError::SlotNotFree { slot, why, opens_in }
}
