//! The table of slot numbers, and queries of it: users, targets, the choice of a number for a
//! request, and the part that a snapshot keeps. [`SlotAllocator`](super::SlotAllocator) modifies
//! it.

use core::time::Duration;
use std::collections::{BTreeMap, BTreeSet, HashMap};

use strowger_frame::Mark;
use strowger_wire::Slot;

use super::{SlotRequest, Target, Who};
use crate::{
    Now,
    control::{AttachError, NotFree, snapshot::Former},
    limits::{NUMBERS_RESERVED_DIVISOR, NUMBERS_RESERVED_MIN},
};

/// The state of a number, as views show it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// The number is allocated. It will be published at this time at the earliest.
    Coming(Mark, Now),
    /// The number is live: labels with it lead to its user.
    Live(Mark),
    /// The number is live until this time, at which its drain ends.
    Draining(Mark, Now),
    /// The former number of a user. It leads to the user until this time, if the time is already
    /// known.
    Alias(Mark, Option<Now>),
    /// The number is withdrawn, and its quarantine has not begun.
    Withdrawn,
    /// In quarantine until this time.
    Quarantined(Now),
    /// Kept over a restart. No other user gets it before this time.
    Kept(Now),
}

/// The state of a number, with the data that its next step needs.
#[derive(Debug)]
pub(super) enum Usage {
    /// Allocated. No table leads to the user before `not_before`.
    Coming {
        user: Mark,
        not_before: Now,
    },
    Live {
        user: Mark,
        drained: Option<Now>,
    },
    /// A former number. `until` is set when every worker writes the user's new number into
    /// return paths.
    Alias {
        user: Mark,
        until: Option<Now>,
    },
    Withdrawn {
        not_before: Now,
    },
    Quarantined {
        until: Now,
    },
    Kept {
        who: Option<Who>,
        until: Now,
    },
    /// An alias kept over a restart, whose user has not returned.
    Former {
        who: Who,
        alias_until: Now,
        until: Now,
    },
    /// An alias kept over a restart, whose user has a number that is not published yet.
    Returning {
        user: Mark,
        alias_until: Now,
        until: Now,
    },
}

/// One number that is not free.
#[derive(Debug)]
pub(super) struct Entry {
    /// The count of allocations when this number was allocated.
    pub(super) generation: u64,
    pub(super) usage: Usage,
    /// Whether the number's last user is or was an unknown peer.
    pub(super) unknown: bool,
}

/// The table of slot numbers.
#[derive(Debug)]
pub struct Numbers {
    pub(super) slot_max: Slot,
    pub(super) entries: BTreeMap<Slot, Entry>,
    /// Numbers that are aliases or will become aliases again. The set may also contain numbers that
    /// were aliases earlier.
    pub(super) aliases: BTreeSet<Slot>,
    /// Numbers that are kept for a user. The map may also contain numbers that were kept earlier.
    pub(super) kept_for: HashMap<Who, Vec<Slot>>,
    /// No number below this one is free.
    pub(super) low: Slot,
}

impl Numbers {
    /// Makes a table without allocated numbers.
    pub(super) fn new(slot_max: Slot) -> Self {
        Self {
            slot_max,
            entries: BTreeMap::new(),
            aliases: BTreeSet::new(),
            kept_for: HashMap::new(),
            low: Slot::new(0),
        }
    }

    /// The former numbers that still lead to this user, the latest first.
    pub fn former(&self, user: Mark) -> Vec<Slot> {
        let is_its =
            |entry: &Entry| matches!(entry.usage, Usage::Alias { user: of, .. } if of == user);
        let aliases = self.aliases.iter().filter_map(|slot| Some((slot, self.entries.get(slot)?)));
        let aliases = aliases.filter(|(_, entry)| is_its(entry));
        let mut aliases: Vec<_> = aliases.map(|(&slot, entry)| (entry.generation, slot)).collect();
        aliases.sort_unstable();
        aliases.into_iter().rev().map(|(_, slot)| slot).collect()
    }

    /// The number of a user: its live number or, if it has none, the number that is not published
    /// yet.
    pub fn of_user(&self, user: Mark) -> Option<Slot> {
        let find = |live: bool| {
            self.entries.iter().find(|(_, entry)| match entry.usage {
                Usage::Live { user: other, .. } => live && other == user,
                Usage::Coming { user: other, .. } => !live && other == user,
                _ => false,
            })
        };
        find(true).or_else(|| find(false)).map(|(&slot, _)| slot)
    }

    /// The user of a number that is live or not published yet.
    pub fn user_of(&self, slot: Slot) -> Option<Mark> {
        match self.entries.get(&slot)?.usage {
            Usage::Coming { user, .. } | Usage::Live { user, .. } => Some(user),
            _ => None,
        }
    }

    /// Whether a number is live.
    pub fn is_live(&self, slot: Slot) -> bool {
        matches!(self.entries.get(&slot).map(|entry| &entry.usage), Some(Usage::Live { .. }))
    }

    /// The user of a former number.
    pub fn alias_of(&self, slot: Slot) -> Option<Mark> {
        match self.entries.get(&slot)?.usage {
            Usage::Alias { user, .. } => Some(user),
            _ => None,
        }
    }

    /// Whether a user has a live number, and its number is not being changed.
    pub fn may_move(&self, user: Mark) -> bool {
        let mut live = 0;
        let at_rest = self.entries.values().all(|entry| match entry.usage {
            Usage::Live { user: other, .. } => {
                live += usize::from(other == user);
                true
            }
            Usage::Coming { user: other, .. }
            | Usage::Returning { user: other, .. }
            | Usage::Alias { user: other, until: None } => other != user,
            _ => true,
        });
        at_rest && live == 1
    }

    /// Numbers whose drain time has ended.
    pub fn drained(&self, now: Now) -> Vec<Slot> {
        let is_over = |entry: &Entry| matches!(entry.usage, Usage::Live { drained: Some(end), .. } if end <= now);
        self.entries.iter().filter(|(_, entry)| is_over(entry)).map(|(&slot, _)| slot).collect()
    }

    /// The state of a number; `None` if it is free.
    pub fn standing(&self, slot: Slot) -> Option<Standing> {
        self.entries.get(&slot).map(|entry| standing(&entry.usage))
    }

    /// All numbers that are not free, each with its generation, its state, and whether an unknown
    /// peer has or had it.
    pub fn all(&self) -> impl Iterator<Item = (Slot, u64, Standing, bool)> {
        let entries = self.entries.iter();
        entries
            .map(|(&slot, entry)| (slot, entry.generation, standing(&entry.usage), entry.unknown))
    }

    /// The time from which a number may be published if it is allocated for `who`. Fails if the
    /// number may not be allocated for `who`.
    pub(super) fn openable(
        &self,
        slot: Slot,
        who: Option<&Who>,
        now: Now,
    ) -> Result<Now, AttachError> {
        if slot == Slot::SWITCH || slot > self.slot_max {
            return Err(AttachError::NoSuchSlot { slot, slot_max: self.slot_max });
        }
        let refused = |why, until| Err(not_free(slot, why, until, now));
        match self.entries.get(&slot).map(|entry| &entry.usage) {
            None => Ok(Now(0)),
            Some(Usage::Kept { who: Some(kept), .. } | Usage::Former { who: kept, .. })
                if Some(kept) == who =>
            {
                Ok(Now(0))
            }
            // Wait until the labels to the former user have expired: `who` is another user.
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

    /// Chooses a number for a request that names none: the number kept for `who`, the lowest free
    /// one, or the lowest kept one whose time has ended. If there is none and the request may wait,
    /// chooses the result of [`next_free`](Self::next_free). An unknown peer gets only a number
    /// within the limits of unknown peers.
    pub(super) fn unpinned(&self, request: SlotRequest<'_>, now: Now) -> Result<Slot, AttachError> {
        let kept = |wanted: &dyn Fn(&Entry, &Option<Who>, Now) -> bool| {
            let mut all = self.entries.range(..=self.slot_max);
            all.find(|(_, entry)| {
                matches!(&entry.usage, Usage::Kept { who, until } if wanted(entry, who, *until))
            })
            .map(|(&slot, _)| slot)
        };
        if let Some(slot) = request.who.and_then(|who| self.kept_for(who)) {
            return Ok(slot);
        }
        let free = self.lowest_free();
        let idle = || kept(&|_, _, until| until <= now);
        let Some(unknown_max) = request.unknown_max else {
            let first = || if request.may_wait { self.next_free() } else { None };
            return free.or_else(idle).or_else(first).ok_or(AttachError::SlotsFull);
        };
        // Unknown peers share a limit, so that they cannot use the numbers reserved for configured
        // peers.
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
        // Both sequences are ascending, so the first number that the map skips is free.
        let mut taken = self.entries.range(self.low..).map(|(&slot, _)| slot).peekable();
        (self.low.number()..=self.slot_max.number())
            .map(Slot::new)
            .filter(|slot| !slot.is_switch())
            .find(|slot| taken.next_if_eq(slot).is_none())
    }

    /// The kept number that another user gets first. Numbers kept for configured peers and
    /// endpoints come last. Within each group, the number that becomes free first is chosen.
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

    /// The number of slot numbers that may be allocated and published immediately.
    fn available(&self, now: Now) -> usize {
        let is_busy =
            |entry: &&Entry| !matches!(entry.usage, Usage::Kept { until, .. } if until <= now);
        let busy = self.entries.range(..=self.slot_max).filter(|(_, e)| is_busy(e)).count();
        // All numbers count except slot 1, which has no entry.
        self.slot_max.index().saturating_sub(busy)
    }

    /// The number of slot numbers that are not free and belong to an unknown peer, or last belonged
    /// to one.
    pub fn held_by_unknown(&self) -> usize {
        self.entries.values().filter(|entry| entry.unknown).count()
    }

    /// The time from which an allocated number may lead to its user. `None` if the number does not
    /// wait for its publication.
    pub fn opens_at(&self, slot: Slot) -> Option<Now> {
        match self.entries.get(&slot)?.usage {
            Usage::Coming { not_before, .. } => Some(not_before),
            _ => None,
        }
    }

    /// The time until an allocated number may lead to its user; `None` if it already may.
    pub fn opens_in(&self, slot: Slot, now: Now) -> Option<u64> {
        match self.entries.get(&slot)?.usage {
            Usage::Coming { not_before, .. } if not_before > now => Some(not_before.0 - now.0),
            _ => None,
        }
    }

    /// Whether a number is kept for this user over a restart.
    pub fn is_kept_for(&self, who: &Who) -> bool {
        self.entries.values().any(|entry| match &entry.usage {
            Usage::Kept { who: Some(kept), .. } | Usage::Former { who: kept, .. } => kept == who,
            _ => false,
        })
    }

    /// The part of each number that a snapshot keeps: its user, the time for which no other user
    /// may have it, and whether an unknown peer had it. `who` returns the identity of a user.
    pub fn to_keep(
        &self,
        who: impl Fn(Mark) -> Option<Who>,
        now: Now,
        [alias_ns, quarantine_ns]: [u64; 2],
    ) -> Vec<(Slot, Option<Who>, u64, bool)> {
        let left = |until: Now| until.0.saturating_sub(now.0);
        let whole = |usage: &Usage| match usage {
            // Keep these and the withdrawn numbers for a whole quarantine, because labels may name
            // them.
            Usage::Coming { user, not_before } => {
                (who(*user), left(*not_before).max(quarantine_ns))
            }
            Usage::Live { user, .. } => (who(*user), quarantine_ns),
            Usage::Alias { until, .. } => {
                (None, until.map_or(alias_ns, left).saturating_add(quarantine_ns))
            }
            Usage::Withdrawn { .. } => (None, quarantine_ns),
            Usage::Quarantined { until } => (None, left(*until)),
            Usage::Kept { who, until } => (who.clone(), left(*until)),
            Usage::Former { until, .. } | Usage::Returning { until, .. } => (None, left(*until)),
        };
        let kept = self.entries.iter();
        kept.map(|(&slot, entry)| (slot, whole(&entry.usage), entry.unknown))
            .map(|(slot, (who, ns), unknown)| (slot, who, ns, unknown))
            .collect()
    }

    /// The former numbers that lead to their users or will do so again after a restart, each with
    /// its remaining time.
    pub fn former_to_keep(
        &self,
        who: impl Fn(Mark) -> Option<Who>,
        now: Now,
        alias_ns: u64,
    ) -> Vec<Former> {
        let left = |until: Now| until.0.saturating_sub(now.0);
        let former = self.entries.iter().filter_map(|(&slot, entry)| {
            let (who, left_ns) = match &entry.usage {
                Usage::Alias { user, until } => (who(*user)?, until.map_or(alias_ns, left)),
                Usage::Returning { user, alias_until, .. } => (who(*user)?, left(*alias_until)),
                Usage::Former { who, alias_until, .. } => (who.clone(), left(*alias_until)),
                _ => return None,
            };
            Some(Former { slot, who, left_ns })
        });
        former.filter(|former| former.left_ns > 0).collect()
    }

    /// The time at which the first drain, alias or quarantine ends.
    pub(super) fn first_end(&self) -> Option<Now> {
        let end = |entry: &Entry| match &entry.usage {
            Usage::Live { drained: until, .. } | Usage::Alias { until, .. } => *until,
            Usage::Quarantined { until }
            | Usage::Kept { who: None, until }
            | Usage::Former { until, .. } => Some(*until),
            _ => None,
        };
        self.entries.values().filter_map(end).min()
    }

    /// The target of each number that is not free.
    pub(super) fn targets(&self) -> BTreeMap<Slot, Target> {
        let target = |usage: &Usage| match *usage {
            Usage::Live { user, .. } => Target::User(user),
            Usage::Alias { user, .. } => Target::Alias(user),
            Usage::Coming { not_before: Now(0), .. } => Target::Empty,
            Usage::Coming { .. }
            | Usage::Withdrawn { .. }
            | Usage::Quarantined { .. }
            | Usage::Kept { .. }
            | Usage::Former { .. }
            | Usage::Returning { .. } => Target::Gone,
        };
        self.entries.iter().map(|(&slot, entry)| (slot, target(&entry.usage))).collect()
    }
}

pub(super) fn not_free(slot: Slot, why: NotFree, until: Option<Now>, now: Now) -> AttachError {
    let opens_in = until.map(|at| Duration::from_nanos(at.0.saturating_sub(now.0)));
    AttachError::SlotNotFree { slot, why, opens_in }
}

fn standing(usage: &Usage) -> Standing {
    match *usage {
        Usage::Coming { user, not_before } => Standing::Coming(user, not_before),
        Usage::Live { user, drained: None } => Standing::Live(user),
        Usage::Live { user, drained: Some(until) } => Standing::Draining(user, until),
        Usage::Alias { user, until } => Standing::Alias(user, until),
        Usage::Withdrawn { .. } => Standing::Withdrawn,
        Usage::Quarantined { until } => Standing::Quarantined(until),
        Usage::Kept { until, .. }
        | Usage::Former { until, .. }
        | Usage::Returning { until, .. } => Standing::Kept(until),
    }
}
