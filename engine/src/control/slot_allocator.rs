//! Slot numbers and their users: the steps by which a number is allocated, moved, withdrawn, put
//! into quarantine and freed. The module is a pure state machine: it uses no workers and no clock.
//!
//! | state of a number | labels with it lead | next state |
//! |---|---|---|
//! | coming (allocated) | nowhere yet | live, when it is published |
//! | live | to its user | an alias, or withdrawn |
//! | an alias | to its user, which now has another number | withdrawn |
//! | withdrawn | nowhere or, with an old table, still to the user | quarantined |
//! | quarantined | nowhere: "gone" | free |
//! | kept for its last user, over a restart | nowhere: "gone" | coming, or returning |
//! | former, kept over a restart | nowhere: "gone" | returning |
//! | returning | nowhere: "gone" | an alias, when its user's number is published |
//!
//! R1 depends on the order of the last steps. Each step consumes a token that only the previous
//! step makes:
//!
//! ```text
//! withdraw ─► Withdrawn ─(tables sent to all workers)─► Informed ─(all workers completed)─► Unnamed
//!   ─(all workers removed the link)─► Detached ─► quarantine ─(time)─► Quarantined ─► free
//! ```
//!
//! Code with the right order compiles:
//!
//! ```
//! use strowger_engine::{Now, control::{grace_period::GracePeriods, slot_allocator::{Detached, SlotAllocator, Unnamed, SlotRequest}}};
//! use strowger_frame::Mark;
//!
//! let mut grace_periods = GracePeriods::new(0);
//! let mut numbers = SlotAllocator::new(256);
//! let allocated = numbers.allocate(SlotRequest::default(), Mark::new(0, 0), Now(1))?;
//! numbers.publish(allocated, Now(1));
//! let withdrawn = numbers.withdraw(Mark::new(0, 0)).expect("the number is live");
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
//! Code that begins a quarantine before all workers have removed the link does not compile:
//!
//! ```compile_fail,E0308
//! use strowger_engine::{Now, control::slot_allocator::{SlotAllocator, Withdrawn}};
//! fn too_early(numbers: &mut SlotAllocator, withdrawn: Withdrawn) {
//!     numbers.quarantine(withdrawn, Now(2), 60); // expected `Detached`
//! }
//! ```
//!
//! Code that makes a token without a proof does not compile either. The code in this example would
//! free a number whose quarantine has not ended:
//!
//! ```compile_fail,E0451
//! use strowger_engine::control::slot_allocator::{SlotAllocator, Quarantined};
//! fn too_early(numbers: &mut SlotAllocator) {
//!     numbers.free(Quarantined { slot: 2, generation: 1 });
//! }
//! ```
//!
//! A token cannot be used twice:
//!
//! ```compile_fail,E0382
//! use strowger_engine::{Now, control::slot_allocator::{Detached, SlotAllocator}};
//! fn twice(numbers: &mut SlotAllocator, detached: Detached) {
//!     numbers.quarantine(detached, Now(2), 60);
//!     numbers.quarantine(detached, Now(9), 60);
//! }
//! ```

mod numbers;
mod tokens;

use std::{
    cell::Cell,
    collections::{BTreeMap, HashSet},
};

use strowger_frame::Mark;
use strowger_wire::Slot;

use self::numbers::{Entry, Usage};
pub use self::numbers::{Numbers, Standing};
pub use self::tokens::{
    Allocated, Detached, Informed, Published, Quarantined, Retiring, Unnamed, Withdrawn,
};
use super::{AttachError, NotFree, grace_period::Quiesced};
use crate::Now;

/// The identity by which a number's user is recognized after a restart.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Who {
    /// The peer with this static key.
    Key([u8; 32]),
    /// The endpoint, or the neighbour on a plain link, with this name.
    Name(String),
}

impl Who {
    /// Makes the identity from the key or, if there is none, from the name.
    pub fn new(key: Option<[u8; 32]>, name: &str) -> Self {
        key.map_or_else(|| Self::Name(name.to_owned()), Self::Key)
    }
}

/// A request for a number.
#[derive(Clone, Copy, Debug, Default)]
pub struct SlotRequest<'a> {
    /// The requested number. `None` requests the number kept for `who`, or the lowest free one.
    pub slot: Option<Slot>,
    /// The user.
    pub who: Option<&'a Who>,
    /// For an unknown peer: the maximum number of slot numbers that all unknown peers may have
    /// together, including those in quarantine and those kept over a restart.
    pub unknown_max: Option<usize>,
    /// Whether the user accepts a number that is not free yet. Such a number leads to the user once
    /// it is free.
    pub may_wait: bool,
}

/// The target of labels that name a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// None: the number was free, and is not published yet.
    Empty,
    /// The user of the number.
    User(Mark),
    /// A user that now has another number.
    Alias(Mark),
    /// None: the number is in quarantine or will be soon, or it is kept over a restart.
    Gone,
}

/// The steps to repeat after a recovery.
#[must_use = "numbers whose steps are not repeated are lost"]
pub(in crate::control) struct Recovered {
    /// Numbers that are not published yet.
    pub(in crate::control) allocated: Vec<Allocated>,
    /// Former numbers. The new numbers of their users must be written into return paths.
    pub(in crate::control) retiring: Vec<Retiring>,
    /// Withdrawn numbers, at any step before quarantine.
    pub(in crate::control) withdrawn: Withdrawn,
}

/// The numbers of one user.
#[derive(Default)]
struct Holding {
    /// Live numbers, as pairs of generation and number. The newest pair is therefore the greatest.
    live: Vec<(u64, Slot)>,
    coming: Vec<(u64, Slot)>,
}

/// All slot numbers of one switch.
#[derive(Debug)]
pub struct SlotAllocator {
    numbers: Numbers,
    generation: u64,
    /// The time at which the first drain, alias or quarantine ends. The outer `Option` is `None` if
    /// the time must be computed again.
    due: Cell<Option<Option<Now>>>,
    /// The number of withdrawals so far.
    version: u64,
    /// The number of withdrawals that the latest tables contain.
    in_tables: u64,
}

impl SlotAllocator {
    /// Makes an allocator without allocated numbers. `slot_max` is the highest number that it will
    /// allocate.
    pub fn new(slot_max: u32) -> Self {
        Self {
            numbers: Numbers::new(Slot::new(slot_max)),
            generation: 0,
            due: Cell::new(None),
            version: 0,
            in_tables: 0,
        }
    }

    /// The number of allocations so far, including those before restarts.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// The table of numbers.
    pub fn numbers(&self) -> &Numbers {
        &self.numbers
    }

    /// Raises the highest number that may be allocated. The highest number never decreases.
    pub fn raise_max(&mut self, slot_max: u32) {
        self.numbers.slot_max = self.numbers.slot_max.max(Slot::new(slot_max));
    }

    fn entry(&mut self, slot: Slot, generation: u64) -> &mut Entry {
        self.due.set(None);
        let entry = self
            .numbers
            .entries
            .get_mut(&slot)
            .expect("a number is freed only with its last token");
        assert_eq!(entry.generation, generation, "a token is for one allocation of its number");
        entry
    }

    /// Allocates a number for a user.
    ///
    /// # Errors
    /// [`AttachError`]; the state is then unchanged.
    pub fn allocate(
        &mut self,
        request: SlotRequest<'_>,
        user: Mark,
        now: Now,
    ) -> Result<Allocated, AttachError> {
        let slot = match request.slot {
            Some(slot) => slot,
            None => self.numbers.unpinned(request, now)?,
        };
        let not_before = self.numbers.openable(slot, request.who, now)?;
        if not_before > now && !request.may_wait {
            return Err(numbers::not_free(slot, NotFree::Kept, Some(not_before), now));
        }
        self.due.set(None);
        self.generation += 1;
        let generation = self.generation;
        let usage = Usage::Coming { user, not_before };
        self.numbers
            .entries
            .insert(slot, Entry { generation, usage, unknown: request.unknown_max.is_some() });
        self.numbers.aliases.remove(&slot);
        while self.numbers.low == Slot::SWITCH
            || self.numbers.entries.contains_key(&self.numbers.low)
        {
            self.numbers.low = Slot::new(self.numbers.low.number() + 1);
        }
        Ok(Allocated { slot, generation, user })
    }

    /// Publishes a number: tables may lead to its user, because every worker has the user's link.
    pub fn publish(&mut self, allocated: Allocated, now: Now) -> Published {
        let Some(entry) = self.numbers.entries.get_mut(&allocated.slot) else {
            return Published::Never;
        };
        match entry.usage {
            Usage::Coming { user, not_before }
                if entry.generation == allocated.generation && not_before <= now =>
            {
                entry.usage = Usage::Live { user, drained: None };
                self.restore_former(user);
                Published::Now
            }
            Usage::Coming { .. } if entry.generation == allocated.generation => {
                Published::Later(allocated)
            }
            _ => Published::Never,
        }
    }

    /// Makes the numbers that a user had before the restart lead to it again.
    fn restore_former(&mut self, user: Mark) {
        self.due.set(None);
        for slot in &self.numbers.aliases {
            if let Some(entry) = self.numbers.entries.get_mut(slot)
                && let Usage::Returning { user: of, alias_until, .. } = entry.usage
                && of == user
            {
                entry.usage = Usage::Alias { user, until: Some(alias_until) };
            }
        }
    }

    /// Turns a user's old number into an alias of the new one. Returns `None` if either number was
    /// withdrawn in the meantime.
    pub fn retire(&mut self, slot: Slot, to: Slot) -> Option<Retiring> {
        self.due.set(None);
        let user = match self.numbers.entries.get(&to)?.usage {
            Usage::Live { user, .. } => user,
            _ => return None,
        };
        let entry = self.numbers.entries.get_mut(&slot)?;
        let Usage::Live { user: other, drained } = entry.usage else { return None };
        if other != user || slot == to {
            return None;
        }
        entry.usage = Usage::Alias { user, until: None };
        self.numbers.aliases.insert(slot);
        let retiring = Retiring { slot, generation: entry.generation, to, user };
        if let Some(Entry { usage: Usage::Live { drained: place, .. }, .. }) =
            self.numbers.entries.get_mut(&to)
        {
            *place = drained;
        }
        Some(retiring)
    }

    /// Starts the lifetime of an alias, because every worker now writes the new number into return
    /// paths. Returns `false` if the alias was withdrawn in the meantime.
    pub fn retired(&mut self, passed: Quiesced<Retiring>, until: Now) -> bool {
        self.due.set(None);
        let Retiring { slot, generation, .. } = passed.into_inner();
        match self.numbers.entries.get_mut(&slot) {
            Some(Entry { generation: same, usage: Usage::Alias { until: end, .. }, .. })
                if *same == generation =>
            {
                *end = Some(until);
                true
            }
            _ => false,
        }
    }

    /// Sets the time at which the drain of a live number ends. Returns `false` if the number is not
    /// live.
    pub fn drain(&mut self, slot: Slot, until: Now) -> bool {
        self.due.set(None);
        match self.numbers.entries.get_mut(&slot).map(|entry| &mut entry.usage) {
            Some(Usage::Live { drained, .. }) => {
                *drained = Some(until);
                true
            }
            _ => false,
        }
    }

    /// Withdraws all numbers of a user. Returns `None` if the user has none.
    pub fn withdraw(&mut self, user: Mark) -> Option<Withdrawn> {
        self.withdraw_all(&[user])
    }

    /// Withdraws all numbers of several users, in one pass over all numbers. Returns `None` if none
    /// of them has any.
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

    /// Withdraws the aliases whose lifetime has ended. Returns `None` if there are none.
    pub fn expire(&mut self, now: Now) -> Option<Withdrawn> {
        self.withdraw_where(|usage| match *usage {
            Usage::Alias { until: Some(end), .. } if end <= now => Some(Now(0)),
            _ => None,
        })
    }

    /// Withdraws the numbers for which `which` returns the earliest time at which they may be
    /// allocated again. Assumes that the users of withdrawn aliases stay attached.
    fn withdraw_where(
        &mut self,
        mut which: impl FnMut(&Usage) -> Option<Now>,
    ) -> Option<Withdrawn> {
        self.due.set(None);
        let (mut numbers, mut staying) = (Vec::new(), Vec::new());
        for (&slot, entry) in &mut self.numbers.entries {
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
        self.numbers.targets()
    }

    /// Makes the next token, after the caller has sent tables without the withdrawn numbers to all
    /// workers.
    ///
    /// # Panics
    /// If no tables were made since the withdrawal. This is a bug of the caller that would
    /// misdeliver packets.
    pub fn inform(&self, withdrawn: Withdrawn) -> Informed {
        let Withdrawn { numbers, leaving, version, .. } = withdrawn;
        assert!(
            self.in_tables >= version,
            "the tables with a withdrawal are made before the wait for them"
        );
        Informed { numbers, leaving }
    }

    /// Puts numbers into quarantine. Numbers that were never published are included, because
    /// packets that arrived on the link may carry them in their return paths.
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

    /// The numbers whose quarantine has ended.
    pub fn out_of_quarantine(&self, now: Now) -> Vec<Quarantined> {
        let is_over = |usage: &Usage| match usage {
            Usage::Quarantined { until }
            | Usage::Kept { who: None, until }
            | Usage::Former { until, .. } => *until <= now,
            _ => false,
        };
        let over = self.numbers.entries.iter().filter(|(_, entry)| is_over(&entry.usage));
        over.map(|(&slot, entry)| Quarantined { slot, generation: entry.generation }).collect()
    }

    /// The time at which the first drain, alias or quarantine ends.
    pub fn next_timeout(&self) -> Option<Now> {
        let due = self.due.get().unwrap_or_else(|| self.numbers.first_end());
        self.due.set(Some(due));
        due
    }

    /// Frees a number.
    pub fn free(&mut self, number: Quarantined) {
        let entry = self.entry(number.slot, number.generation);
        let may_go = matches!(
            entry.usage,
            Usage::Quarantined { .. } | Usage::Kept { .. } | Usage::Former { .. }
        );
        assert!(may_go, "a number out of quarantine is not in use");
        self.numbers.entries.remove(&number.slot);
        self.numbers.aliases.remove(&number.slot);
        self.numbers.low = self.numbers.low.min(number.slot);
    }

    /// Continues the count of allocations from this value, after a restart.
    pub fn count_from(&mut self, generation: u64) {
        self.generation = self.generation.max(generation);
    }

    /// Makes the numbers that this user had before the restart lead to it again, as soon as its own
    /// number is published. Its former numbers lead to it for their remaining lifetime. If the user
    /// now has another number, its last number leads to it until `alias_until`.
    pub fn adopt(&mut self, who: &Who, user: Mark, alias_until: Now, now: Now) {
        let Some(numbers) = self.numbers.kept_for.get(who) else { return };
        self.due.set(None);
        for slot in numbers {
            let Some(entry) = self.numbers.entries.get_mut(slot) else { continue };
            let (alias_until, until) = match &entry.usage {
                Usage::Former { who: kept, alias_until, until } if kept == who => {
                    (*alias_until, *until)
                }
                Usage::Kept { who: Some(kept), until } if kept == who => (alias_until, *until),
                _ => continue,
            };
            if alias_until > now {
                entry.usage = Usage::Returning { user, alias_until, until };
                self.numbers.aliases.insert(*slot);
            }
        }
    }

    /// Keeps a number over a restart. If `who` is given, the number is kept for this user. No other
    /// user may have it before `until`. `unknown` is `true` if an unknown peer had it. Returns
    /// `false` if the number is slot 1, or is not free.
    pub fn keep(&mut self, slot: Slot, who: Option<Who>, until: Now, unknown: bool) -> bool {
        if slot == Slot::SWITCH || self.numbers.entries.contains_key(&slot) {
            return false;
        }
        self.due.set(None);
        if let Some(who) = &who {
            self.numbers.kept_for.entry(who.clone()).or_default().push(slot);
        }
        let generation = self.generation;
        self.numbers
            .entries
            .insert(slot, Entry { generation, usage: Usage::Kept { who, until }, unknown });
        true
    }

    /// Marks a kept number without a user as a former alias of `who`, which leads to that user
    /// again when the user returns. Returns `false` if no such number is kept, or if it is kept
    /// with a user.
    pub fn keep_former(&mut self, slot: Slot, who: Who, alias_until: Now) -> bool {
        self.due.set(None);
        let Some(entry) = self.numbers.entries.get_mut(&slot) else { return false };
        let Usage::Kept { who: None, until } = entry.usage else { return false };
        self.numbers.kept_for.entry(who.clone()).or_default().push(slot);
        entry.usage = Usage::Former { who, alias_until, until: until.max(alias_until) };
        true
    }

    /// Checks every number. Withdraws numbers whose users do not exist any more, and numbers that
    /// contradict each other. Restarts the quarantines, because their start times are not certain.
    pub(in crate::control) fn recover(
        &mut self,
        is_there: impl Fn(Mark) -> bool,
        now: Now,
        quarantine_ns: u64,
    ) -> Recovered {
        self.due.set(None);
        let mut users: BTreeMap<Mark, Holding> = BTreeMap::new();
        for (&slot, entry) in &self.numbers.entries {
            let stamp = (entry.generation, slot);
            match entry.usage {
                Usage::Live { user, .. } => users.entry(user).or_default().live.push(stamp),
                Usage::Coming { user, .. } => users.entry(user).or_default().coming.push(stamp),
                _ => (),
            }
        }
        users.retain(|user, _| is_there(*user));
        let newest = |stamps: &[(u64, Slot)]| stamps.iter().max().map(|&(_, slot)| slot);
        let (mut allocated, mut retiring, mut numbers) = (Vec::new(), Vec::new(), Vec::new());
        let quarantine_end = Now(now.0.saturating_add(quarantine_ns));
        for (&slot, entry) in &mut self.numbers.entries {
            let generation = entry.generation;
            self.generation = self.generation.max(generation);
            let mut leave = |usage: &mut Usage, not_before| {
                *usage = Usage::Withdrawn { not_before };
                numbers.push((slot, generation));
            };
            match entry.usage {
                Usage::Live { user, .. } => match users.get(&user).map(|has| newest(&has.live)) {
                    Some(own) if own == Some(slot) => (),
                    // The old number of a user that was changing its number.
                    Some(Some(to)) => {
                        entry.usage = Usage::Alias { user, until: None };
                        self.numbers.aliases.insert(slot);
                        retiring.push(Retiring { slot, generation, to, user });
                    }
                    _ => leave(&mut entry.usage, Now(0)),
                },
                Usage::Coming { user, not_before } => match users.get(&user) {
                    Some(has) if newest(&has.coming) == Some(slot) => {
                        allocated.push(Allocated { slot, generation, user });
                    }
                    _ => leave(&mut entry.usage, not_before),
                },
                Usage::Alias { user, until } => {
                    match (users.get(&user).and_then(|has| newest(&has.live)), until) {
                        (None, _) => leave(&mut entry.usage, Now(0)),
                        (Some(_), Some(_)) => (),
                        (Some(to), None) => retiring.push(Retiring { slot, generation, to, user }),
                    }
                }
                Usage::Withdrawn { not_before } => leave(&mut entry.usage, not_before),
                // A returning number leads nowhere yet: it becomes an alias when its user's own
                // number is published.
                Usage::Returning { user, until, .. } if !users.contains_key(&user) => {
                    leave(&mut entry.usage, until);
                }
                Usage::Quarantined { ref mut until }
                | Usage::Kept { ref mut until, .. }
                | Usage::Former { ref mut until, .. }
                | Usage::Returning { ref mut until, .. } => *until = quarantine_end.max(*until),
            }
        }
        self.version += 1;
        let (leaving, staying, version) = (Vec::new(), Vec::new(), self.version);
        let withdrawn = Withdrawn { numbers, leaving, staying, version };
        Recovered { allocated, retiring, withdrawn }
    }
}
