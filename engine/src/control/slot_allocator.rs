//! Slot numbers and who has them: given, moved, taken away, resting, free again. A pure state
//! machine: it never sees a frame, a worker or a clock.
//!
//! | a number is | labels that name it lead | it becomes |
//! |---|---|---|
//! | coming | nowhere yet | live, once it is published |
//! | live | to its user | an alias, withdrawn |
//! | an alias | to its user, who has another number now | withdrawn |
//! | withdrawn | nowhere, or by a table of before still to the user | resting |
//! | resting | nowhere: "gone" | free |
//! | kept for its last user, over a restart | nowhere: "gone" | coming, or returning |
//! | former, kept over a restart | nowhere: "gone" | returning |
//! | returning | nowhere: "gone" | an alias, once its user's number is published |
//!
//! R1 hangs on the order of the last steps, so each is allowed by a token that only the step before
//! it makes, and that is used up:
//!
//! ```text
//! withdraw ─► Withdrawn ─(tables were given)─► Informed ─(all workers reported)─► Unnamed
//!   ─(all workers dropped the link, and reported)─► Detached ─► rest ─(time)─► Quarantined ─► free
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
//! let told = numbers.inform(withdrawn);
//! let unnamed = Unnamed::after(grace_periods.pass(grace_periods.wait_for_all(told)).expect("no workers"));
//! let detached = Detached::after(grace_periods.pass(grace_periods.wait_for_all(unnamed)).expect("no workers"));
//! numbers.quarantine(detached, Now(2), 60);
//! assert!(numbers.out_of_quarantine(Now(61)).is_empty());
//! for rested in numbers.out_of_quarantine(Now(62)) {
//!     numbers.free(rested);
//! }
//! # Ok::<(), strowger_engine::control::AttachError>(())
//! ```
//!
//! Quarantine before all workers dropped the link is not written:
//!
//! ```compile_fail,E0308
//! use strowger_engine::{Now, control::slot_allocator::{SlotAllocator, Withdrawn}};
//! fn too_early(numbers: &mut SlotAllocator, withdrawn: Withdrawn) {
//!     numbers.quarantine(withdrawn, Now(2), 60); // expected `Detached`
//! }
//! ```
//!
//! nor is a token made where nothing was proved, here freeing a number whose quarantine has not
//! ended:
//!
//! ```compile_fail,E0451
//! use strowger_engine::control::slot_allocator::{SlotAllocator, Quarantined};
//! fn too_early(numbers: &mut SlotAllocator) {
//!     numbers.free(Quarantined { slot: 2, generation: 1 });
//! }
//! ```
//!
//! nor is one used twice:
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

/// Who has a number, as it is known again after a restart.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Who {
    /// The peer with this static key.
    Key([u8; 32]),
    /// What is called so: an endpoint, or a neighbour behind a plain link.
    Name(String),
}

impl Who {
    /// By its key if it has one, else by its name.
    pub fn new(key: Option<[u8; 32]>, name: &str) -> Self {
        key.map_or_else(|| Self::Name(name.to_owned()), Self::Key)
    }
}

/// Which number is wanted, and by whom.
#[derive(Clone, Copy, Debug, Default)]
pub struct SlotRequest<'a> {
    /// This one; else the one kept for `who`, else the lowest free one.
    pub slot: Option<Slot>,
    /// By whom.
    pub who: Option<&'a Who>,
    /// For an unknown peer: how many numbers such peers may have together, those in quarantine and
    /// those kept over a restart included.
    pub unknown_max: Option<usize>,
    /// Whether a number that is not free yet will do: it leads to its user as soon as it is.
    pub may_wait: bool,
}

/// Where labels that name a number lead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// Nowhere: nobody ever had it, or long ago.
    Empty,
    /// To its user.
    User(Mark),
    /// To a user who has another number now.
    Alias(Mark),
    /// Nowhere any more.
    Gone,
}

/// How far along a number is, for people.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Allocated, not published, and not before this time.
    Coming(Mark, Now),
    /// In use.
    Live(Mark),
    /// In use, and given up at this time.
    Draining(Mark, Now),
    /// The former number of a user, until this time if that is known already.
    Alias(Mark, Option<Now>),
    /// On its way out.
    Withdrawn,
    /// In quarantine until then.
    Quarantined(Now),
    /// Kept over a restart; until then no other user may have it.
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
    /// `until` is known once every worker writes the user's new number.
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
    /// An alias over a restart, whose user is not there yet.
    Former {
        who: Who,
        alias_until: Now,
        until: Now,
    },
    /// The same, whose user has a number that is coming.
    Returning {
        user: Mark,
        alias_until: Now,
        until: Now,
    },
}

#[derive(Debug)]
struct Entry {
    /// How many numbers had been given when this one was.
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
    /// SlotAllocator that are aliases or become some again, and others that once were.
    aliases: BTreeSet<Slot>,
    /// SlotAllocator that are kept for a user, and others that once were.
    kept_for: HashMap<Who, Vec<Slot>>,
    /// No number below is free.
    low: Slot,
    generation: u64,
    /// When time alone changes a number; `None` where it has to be computed again.
    due: Cell<Option<Option<Now>>>,
    /// Withdrawals so far, and how many of them the tables last made know of.
    version: u64,
    in_tables: u64,
}

impl SlotAllocator {
    /// None given; the highest that will be is `slot_max`.
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

    /// How many numbers were ever given, over restarts.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// SlotAllocator up to this one may be given from now on. It never falls.
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
        let entry = self.entries.get_mut(&slot).expect("a token's number is not freed before it");
        assert_eq!(entry.generation, generation, "a token is for one giving of its number");
        entry
    }

    /// Lets tables lead to a number's user: every worker must have the link.
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

    /// A user's number leads to it: those that it had before the restart do so, too.
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

    /// The number by which a user is known: that which is live, else that which is coming.
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

    /// Who has a number as its own, be it coming or live.
    pub fn user_of(&self, slot: Slot) -> Option<Mark> {
        match self.entries.get(&slot)?.usage {
            Usage::Coming { user, .. } | Usage::Live { user, .. } => Some(user),
            _ => None,
        }
    }

    /// Whether tables lead by a number to its user.
    pub fn is_live(&self, slot: Slot) -> bool {
        matches!(self.entries.get(&slot).map(|entry| &entry.usage), Some(Usage::Live { .. }))
    }

    /// Whose former number this is.
    pub fn alias_of(&self, slot: Slot) -> Option<Mark> {
        match self.entries.get(&slot)?.usage {
            Usage::Alias { user, .. } => Some(user),
            _ => None,
        }
    }

    /// Whether a user has a number that is live, and none that is coming or has not retired.
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

    /// Makes a user's old number an alias of the one just published. `None` if either was
    /// withdrawn meanwhile.
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

    /// Every worker writes the new number into return paths: the old one's time begins. `false` if it
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

    /// Lets a live number serve until then. `false` if it is not live.
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

    /// SlotAllocator that have served as long as they were to.
    pub fn drained(&self, now: Now) -> Vec<Slot> {
        let is_over = |entry: &Entry| matches!(entry.usage, Usage::Live { drained: Some(end), .. } if end <= now);
        self.entries.iter().filter(|(_, entry)| is_over(entry)).map(|(&slot, _)| slot).collect()
    }

    /// Takes all numbers of a user away. `None` if it has none (any more).
    pub fn withdraw(&mut self, user: Mark) -> Option<Withdrawn> {
        self.withdraw_all(&[user])
    }

    /// Takes all numbers of several users away, in one pass over all numbers. `None` if none of them has any.
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

    /// Takes the aliases away whose time is over. `None` if there are none.
    pub fn expire(&mut self, now: Now) -> Option<Withdrawn> {
        self.withdraw_where(|usage| match *usage {
            Usage::Alias { until: Some(end), .. } if end <= now => Some(Now(0)),
            _ => None,
        })
    }

    /// Takes numbers away whose users stay.
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

    /// What the next tables are made of: where each number leads that leads, or led, anywhere.
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

    /// The withdrawal is in the tables that were given last.
    ///
    /// # Panics
    /// If no tables were made since: a bug of the caller's, which would end in misdelivery.
    pub fn inform(&self, withdrawn: Withdrawn) -> Informed {
        let Withdrawn { numbers, leaving, version, .. } = withdrawn;
        assert!(self.in_tables >= version, "tables are given before they are waited for");
        Informed { numbers, leaving }
    }

    /// Puts numbers into quarantine. Those that were never published, too: what came in by the link
    /// meanwhile bears them in its return path.
    pub fn quarantine(&mut self, detached: Detached, now: Now, quarantine_ns: u64) {
        for (slot, generation) in detached.numbers {
            let entry = self.entry(slot, generation);
            let Usage::Withdrawn { not_before } = entry.usage else {
                unreachable!("only what was withdrawn has such a token")
            };
            let until = Now(now.0.saturating_add(quarantine_ns)).max(not_before);
            entry.usage = Usage::Quarantined { until };
        }
    }

    /// SlotAllocator whose quarantine has ended.
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

    /// When the first number has been drained, is an alias no longer, or has rested.
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

    /// Lets a number be given again.
    pub fn free(&mut self, rested: Quarantined) {
        let entry = self.entry(rested.slot, rested.generation);
        let may_go = matches!(
            entry.usage,
            Usage::Quarantined { .. } | Usage::Kept { .. } | Usage::Former { .. }
        );
        assert!(may_go, "what has rested is not in use");
        self.entries.remove(&rested.slot);
        self.aliases.remove(&rested.slot);
        self.low = self.low.min(rested.slot);
    }

    /// After a restart: goes on counting from here.
    pub fn count_from(&mut self, generation: u64) {
        self.generation = self.generation.max(generation);
    }

    /// How far along a number is; `None` if it is free.
    pub fn standing(&self, slot: Slot) -> Option<Standing> {
        self.entries.get(&slot).map(|entry| standing(&entry.usage))
    }

    /// All numbers that are not free, with their generations and standings, and whether an unknown peer
    /// has or had each.
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
