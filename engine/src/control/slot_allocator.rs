//! Slot numbers and their users: allocated, moved, withdrawn, in quarantine, free again. A pure state machine
//! without workers and clock.
//!
//! | a number is | labels that name it lead | it becomes |
//! |---|---|---|
//! | coming | nowhere yet | live, once it is published |
//! | live | to its user | an alias, or withdrawn |
//! | an alias | to its user, who has another number now | withdrawn |
//! | withdrawn | nowhere, or by an old table still to the user | quarantined |
//! | quarantined | nowhere: "gone" | free |
//! | kept for its last user, over a restart | nowhere: "gone" | coming, or returning |
//! | former, kept over a restart | nowhere: "gone" | returning |
//! | returning | nowhere: "gone" | an alias, once its user's number is published |
//!
//! R1 depends on the order of the last steps. Each step takes a token that only the step before it makes:
//!
//! ```text
//! withdraw ─► Withdrawn ─(in tables for all workers)─► Informed ─(all workers completed)─► Unnamed
//!   ─(all workers dropped the link)─► Detached ─► quarantine ─(time)─► Quarantined ─► free
//! ```
//!
//! The right order:
//!
//! ```
//! use strowger_engine::{Now, control::{grace_period::GracePeriods, slot_allocator::{Detached, SlotAllocator, Unnamed, SlotRequest}}};
//! use strowger_frame::Mark;
//!
//! let mut grace_periods = GracePeriods::new(0);
//! let mut numbers = SlotAllocator::new(256);
//! let given = numbers.allocate(SlotRequest::default(), Mark::new(0, 0), Now(1))?;
//! numbers.publish(given, Now(1));
//! let withdrawn = numbers.withdraw(Mark::new(0, 0)).expect("it was there");
//! let _ = numbers.targets(); // into the workers' tables
//! let informed = numbers.inform(withdrawn);
//! let unnamed = Unnamed::after(grace_periods.pass(grace_periods.wait_for_all(informed)).expect("no workers"));
//! let detached = Detached::after(grace_periods.pass(grace_periods.wait_for_all(unnamed)).expect("no workers"));
//! numbers.quarantine(detached, Now(2), 60);
//! assert!(numbers.out_of_quarantine(Now(61)).is_empty());
//! for number in numbers.out_of_quarantine(Now(62)) {
//!     numbers.free(number);
//! }
//! # Ok::<(), strowger_engine::control::AttachError>(())
//! ```
//!
//! A quarantine before all workers have dropped the link does not compile:
//!
//! ```compile_fail,E0308
//! use strowger_engine::{Now, control::slot_allocator::{SlotAllocator, Withdrawn}};
//! fn too_early(numbers: &mut SlotAllocator, withdrawn: Withdrawn) {
//!     numbers.quarantine(withdrawn, Now(2), 60); // expected `Detached`
//! }
//! ```
//!
//! nor does a token without a proof, here to free a number whose quarantine has not ended:
//!
//! ```compile_fail,E0451
//! use strowger_engine::control::slot_allocator::{SlotAllocator, Quarantined};
//! fn too_early(numbers: &mut SlotAllocator) {
//!     numbers.free(Quarantined { slot: 2, generation: 1 });
//! }
//! ```
//!
//! nor a token that is used twice:
//!
//! ```compile_fail,E0382
//! use strowger_engine::{Now, control::slot_allocator::{Detached, SlotAllocator}};
//! fn twice(numbers: &mut SlotAllocator, detached: Detached) {
//!     numbers.quarantine(detached, Now(2), 60);
//!     numbers.quarantine(detached, Now(9), 60);
//! }
//! ```

mod choice;
mod kept;
pub(super) mod recover;
mod tokens;

use std::{
    cell::Cell,
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
};

use strowger_frame::Mark;
use strowger_wire::Slot;

pub use self::tokens::{
    Allocated, Detached, Informed, Published, Quarantined, Retiring, Unnamed, Withdrawn,
};
use super::grace_period::Quiesced;
use crate::Now;

/// The user of a number, as it is recognized after a restart.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Who {
    /// The peer with this static key.
    Key([u8; 32]),
    /// The endpoint, or the neighbour behind a plain link, with this name.
    Name(String),
}

impl Who {
    /// By key if there is one, else by name.
    pub fn new(key: Option<[u8; 32]>, name: &str) -> Self {
        key.map_or_else(|| Self::Name(name.to_owned()), Self::Key)
    }
}

/// A request for a number.
#[derive(Clone, Copy, Debug, Default)]
pub struct SlotRequest<'a> {
    /// The number. `None` for the one kept for `who`, or the lowest free one.
    pub slot: Option<Slot>,
    /// The user.
    pub who: Option<&'a Who>,
    /// For an unknown peer: how many numbers such peers may have together, those in quarantine and
    /// those kept over a restart included.
    pub unknown_max: Option<usize>,
    /// Whether the user accepts a number that is not free yet, and that leads to it as soon as it is.
    pub may_wait: bool,
}

/// Where labels with a number lead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// Nowhere: it is free.
    Empty,
    /// To its user.
    User(Mark),
    /// To a user that has another number now.
    Alias(Mark),
    /// Nowhere any more: it is in quarantine or on the way there.
    Gone,
}

/// The state of a number, for views.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Allocated, and not published before this time.
    Coming(Mark, Now),
    /// In use.
    Live(Mark),
    /// In use until this time.
    Draining(Mark, Now),
    /// The former number of a user; until this time, if it is known already.
    Alias(Mark, Option<Now>),
    /// Being detached.
    Withdrawn,
    /// In quarantine until this time.
    Quarantined(Now),
    /// Kept over a restart. No other user may have it before this time.
    Kept(Now),
}

#[derive(Debug)]
enum Usage {
    /// No table names it before `not_before`.
    Coming {
        user: Mark,
        not_before: Now,
    },
    Live {
        user: Mark,
        drained: Option<Now>,
    },
    /// `until` is known when every worker writes the user's new number.
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
    /// An alias kept over a restart, whose user has a number that is coming.
    Returning {
        user: Mark,
        alias_until: Now,
        until: Now,
    },
}

#[derive(Debug)]
struct Entry {
    /// Numbers that had been allocated when this one was.
    generation: u64,
    usage: Usage,
    /// Whether an unknown peer had it last.
    unknown: bool,
}

/// All slot numbers of one switch.
#[derive(Debug)]
pub struct SlotAllocator {
    slot_max: Slot,
    entries: BTreeMap<Slot, Entry>,
    /// Numbers that are aliases or become some again, and others that once were.
    aliases: BTreeSet<Slot>,
    /// Numbers that are kept for a user, and others that once were.
    kept_for: HashMap<Who, Vec<Slot>>,
    /// No number below is free.
    low: Slot,
    generation: u64,
    /// When time alone changes a number; `None` where it has to be computed again.
    due: Cell<Option<Option<Now>>>,
    /// Withdrawals so far, and how many of them are in the latest tables.
    version: u64,
    in_tables: u64,
}

impl SlotAllocator {
    /// No number allocated; `slot_max` is the highest that will be.
    pub fn new(slot_max: u32) -> Self {
        Self {
            slot_max: Slot::new(slot_max),
            entries: BTreeMap::new(),
            aliases: BTreeSet::new(),
            kept_for: HashMap::new(),
            low: Slot::new(0),
            generation: 0,
            due: Cell::new(None),
            version: 0,
            in_tables: 0,
        }
    }

    /// Numbers ever allocated, over restarts.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// Numbers up to this one may be allocated from now on. The bound never falls.
    pub fn raise_max(&mut self, slot_max: u32) {
        self.slot_max = self.slot_max.max(Slot::new(slot_max));
    }

    /// The former numbers of a user that lead to it, the latest first.
    pub fn former(&self, user: Mark) -> Vec<Slot> {
        let is_its =
            |entry: &Entry| matches!(entry.usage, Usage::Alias { user: of, .. } if of == user);
        let aliases = self.aliases.iter().filter_map(|slot| Some((slot, self.entries.get(slot)?)));
        let aliases = aliases.filter(|(_, entry)| is_its(entry));
        let mut aliases: Vec<_> = aliases.map(|(&slot, entry)| (entry.generation, slot)).collect();
        aliases.sort_unstable();
        aliases.into_iter().rev().map(|(_, slot)| slot).collect()
    }

    fn entry(&mut self, slot: Slot, generation: u64) -> &mut Entry {
        self.due.set(None);
        let entry =
            self.entries.get_mut(&slot).expect("a number is freed only with its last token");
        assert_eq!(entry.generation, generation, "a token is for one allocation of its number");
        entry
    }

    /// Publishes a number: tables may lead to its user, whose link every worker has.
    pub fn publish(&mut self, given: Allocated, now: Now) -> Published {
        let Some(entry) = self.entries.get_mut(&given.slot) else { return Published::Never };
        match entry.usage {
            Usage::Coming { user, not_before }
                if entry.generation == given.generation && not_before <= now =>
            {
                entry.usage = Usage::Live { user, drained: None };
                self.restore_former(user);
                Published::Now
            }
            Usage::Coming { .. } if entry.generation == given.generation => Published::Later(given),
            _ => Published::Never,
        }
    }

    /// A user's number leads to it, and so do the numbers that it had before the restart.
    fn restore_former(&mut self, user: Mark) {
        self.due.set(None);
        for slot in &self.aliases {
            if let Some(entry) = self.entries.get_mut(slot)
                && let Usage::Returning { user: of, alias_until, .. } = entry.usage
                && of == user
            {
                entry.usage = Usage::Alias { user, until: Some(alias_until) };
            }
        }
    }

    /// The number of a user: the live one, else the coming one.
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

    /// The user of a number that is coming or live.
    pub fn user_of(&self, slot: Slot) -> Option<Mark> {
        match self.entries.get(&slot)?.usage {
            Usage::Coming { user, .. } | Usage::Live { user, .. } => Some(user),
            _ => None,
        }
    }

    /// Whether a number is in use.
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

    /// Whether a user has a live number, and none that is coming or retiring.
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

    /// Makes a user's old number an alias of the new one. `None` if either was withdrawn meanwhile.
    pub fn retire(&mut self, slot: Slot, to: Slot) -> Option<Retiring> {
        self.due.set(None);
        let user = match self.entries.get(&to)?.usage {
            Usage::Live { user, .. } => user,
            _ => return None,
        };
        let entry = self.entries.get_mut(&slot)?;
        let Usage::Live { user: other, drained } = entry.usage else { return None };
        if other != user || slot == to {
            return None;
        }
        entry.usage = Usage::Alias { user, until: None };
        self.aliases.insert(slot);
        let retiring = Retiring { slot, generation: entry.generation, to, user };
        if let Some(Entry { usage: Usage::Live { drained: place, .. }, .. }) =
            self.entries.get_mut(&to)
        {
            *place = drained;
        }
        Some(retiring)
    }

    /// Every worker writes the new number into return paths: the lifetime of the alias begins. `false` if it
    /// was withdrawn meanwhile.
    pub fn retired(&mut self, passed: Quiesced<Retiring>, until: Now) -> bool {
        self.due.set(None);
        let Retiring { slot, generation, .. } = passed.into_inner();
        match self.entries.get_mut(&slot) {
            Some(Entry { generation: same, usage: Usage::Alias { until: end, .. }, .. })
                if *same == generation =>
            {
                *end = Some(until);
                true
            }
            _ => false,
        }
    }

    /// Ends the use of a live number at this time. `false` if it is not live.
    pub fn drain(&mut self, slot: Slot, until: Now) -> bool {
        self.due.set(None);
        match self.entries.get_mut(&slot).map(|entry| &mut entry.usage) {
            Some(Usage::Live { drained, .. }) => {
                *drained = Some(until);
                true
            }
            _ => false,
        }
    }

    /// Numbers whose drain time is over.
    pub fn drained(&self, now: Now) -> Vec<Slot> {
        let is_over = |entry: &Entry| matches!(entry.usage, Usage::Live { drained: Some(end), .. } if end <= now);
        self.entries.iter().filter(|(_, entry)| is_over(entry)).map(|(&slot, _)| slot).collect()
    }

    /// Withdraws all numbers of a user. `None` if it has none.
    pub fn withdraw(&mut self, user: Mark) -> Option<Withdrawn> {
        self.withdraw_all(&[user])
    }

    /// Withdraws all numbers of several users, in one pass over all numbers. `None` if none of them has any.
    pub fn withdraw_all(&mut self, users: &[Mark]) -> Option<Withdrawn> {
        let users: HashSet<Mark> = users.iter().copied().collect();
        let (mut leaving, mut seen) = (Vec::new(), HashSet::new());
        let mut withdrawn = self.withdraw_where(|usage| {
            let (user, not_before) = match *usage {
                Usage::Live { user, .. } | Usage::Alias { user, .. } => (user, Now(0)),
                Usage::Coming { user, not_before }
                | Usage::Returning { user, until: not_before, .. } => (user, not_before),
                _ => return None,
            };
            if !users.contains(&user) {
                return None;
            }
            if seen.insert(user) {
                leaving.push(user);
            }
            Some(not_before)
        })?;
        withdrawn.staying.clear();
        withdrawn.leaving = leaving;
        Some(withdrawn)
    }

    /// Withdraws the aliases whose lifetime is over. `None` if there are none.
    pub fn expire(&mut self, now: Now) -> Option<Withdrawn> {
        self.withdraw_where(|usage| match *usage {
            Usage::Alias { until: Some(end), .. } if end <= now => Some(Now(0)),
            _ => None,
        })
    }

    /// Withdraws numbers whose users stay.
    fn withdraw_where(
        &mut self,
        mut which: impl FnMut(&Usage) -> Option<Now>,
    ) -> Option<Withdrawn> {
        self.due.set(None);
        let (mut numbers, mut staying) = (Vec::new(), Vec::new());
        for (&slot, entry) in &mut self.entries {
            if let Some(not_before) = which(&entry.usage) {
                if let Usage::Alias { user, .. } = entry.usage {
                    staying.push(user);
                }
                entry.usage = Usage::Withdrawn { not_before };
                numbers.push((slot, entry.generation));
            }
        }
        if numbers.is_empty() {
            return None;
        }
        self.version += 1;
        staying.dedup();
        Some(Withdrawn { numbers, leaving: Vec::new(), staying, version: self.version })
    }

    /// The content of the next tables: the target of each number that is not free.
    pub fn targets(&mut self) -> BTreeMap<Slot, Target> {
        self.in_tables = self.version;
        let lead = |usage: &Usage| match *usage {
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
        self.entries.iter().map(|(&slot, entry)| (slot, lead(&entry.usage))).collect()
    }

    /// The latest tables, which were given to the workers, have the withdrawal.
    ///
    /// # Panics
    /// If no tables were made since the withdrawal: a bug of the caller that would misdeliver packets.
    pub fn inform(&self, withdrawn: Withdrawn) -> Informed {
        let Withdrawn { numbers, leaving, version, .. } = withdrawn;
        assert!(
            self.in_tables >= version,
            "the tables with a withdrawal are made before the wait for them"
        );
        Informed { numbers, leaving }
    }

    /// Puts numbers into quarantine, also those that were never published: packets that came in by the link
    /// have them in their return paths.
    pub fn quarantine(&mut self, detached: Detached, now: Now, quarantine_ns: u64) {
        for (slot, generation) in detached.numbers {
            let entry = self.entry(slot, generation);
            let Usage::Withdrawn { not_before } = entry.usage else {
                unreachable!("only a withdrawn number has this token")
            };
            let until = Now(now.0.saturating_add(quarantine_ns)).max(not_before);
            entry.usage = Usage::Quarantined { until };
        }
    }

    /// Numbers whose quarantine is over.
    pub fn out_of_quarantine(&self, now: Now) -> Vec<Quarantined> {
        let is_over = |usage: &Usage| match usage {
            Usage::Quarantined { until }
            | Usage::Kept { who: None, until }
            | Usage::Former { until, .. } => *until <= now,
            _ => false,
        };
        let over = self.entries.iter().filter(|(_, entry)| is_over(&entry.usage));
        over.map(|(&slot, entry)| Quarantined { slot, generation: entry.generation }).collect()
    }

    /// When the first drain, alias or quarantine ends.
    pub fn next_timeout(&self) -> Option<Now> {
        let compute = || {
            let end = |entry: &Entry| match &entry.usage {
                Usage::Live { drained: until, .. } | Usage::Alias { until, .. } => *until,
                Usage::Quarantined { until }
                | Usage::Kept { who: None, until }
                | Usage::Former { until, .. } => Some(*until),
                _ => None,
            };
            self.entries.values().filter_map(end).min()
        };
        let due = self.due.get().unwrap_or_else(compute);
        self.due.set(Some(due));
        due
    }

    /// Frees a number.
    pub fn free(&mut self, rested: Quarantined) {
        let entry = self.entry(rested.slot, rested.generation);
        let may_go = matches!(
            entry.usage,
            Usage::Quarantined { .. } | Usage::Kept { .. } | Usage::Former { .. }
        );
        assert!(may_go, "a number out of quarantine is not in use");
        self.entries.remove(&rested.slot);
        self.aliases.remove(&rested.slot);
        self.low = self.low.min(rested.slot);
    }

    /// Continues the count of allocations from here, after a restart.
    pub fn count_from(&mut self, generation: u64) {
        self.generation = self.generation.max(generation);
    }

    /// The state of a number; `None` if it is free.
    pub fn standing(&self, slot: Slot) -> Option<Standing> {
        self.entries.get(&slot).map(|entry| standing(&entry.usage))
    }

    /// All numbers that are not free, with generation and state, and whether an unknown peer has or had each.
    pub fn all(&self) -> impl Iterator<Item = (Slot, u64, Standing, bool)> {
        let entries = self.entries.iter();
        entries
            .map(|(&slot, entry)| (slot, entry.generation, standing(&entry.usage), entry.unknown))
    }
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
