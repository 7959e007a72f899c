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
//! | kept for somebody, over a restart | nowhere: "gone" | coming |
//!
//! R1 hangs on the order of the last steps, so each is allowed by a token that only the step before
//! it makes, and that is used up:
//!
//! ```text
//! withdraw ─► Withdrawn ─(tables were given)─► Informed ─(all workers reported)─► Unnamed
//!   ─(all workers dropped the link, and reported)─► Detached ─► rest ─(time)─► Rested ─► free
//! ```
//!
//! The right order:
//!
//! ```
//! use strowger_engine::{Now, control::{ledger::Ledger, numbers::{Detached, Numbers, Unnamed, Wish}}};
//! use strowger_frame::Mark;
//!
//! let mut ledger = Ledger::new(0);
//! let mut numbers = Numbers::new(256);
//! let given = numbers.give(Wish::default(), Mark::new(0, 0), Now(1))?;
//! numbers.publish(given, Now(1));
//! let withdrawn = numbers.withdraw(Mark::new(0, 0)).expect("it was there");
//! let _ = numbers.leads(); // into the workers' tables
//! let told = numbers.told(withdrawn);
//! let unnamed = Unnamed::after(ledger.pass(ledger.wait_for_all(told)).expect("no workers"));
//! let detached = Detached::after(ledger.pass(ledger.wait_for_all(unnamed)).expect("no workers"));
//! numbers.rest(detached, Now(2), 60);
//! assert!(numbers.rested(Now(61)).is_empty());
//! for rested in numbers.rested(Now(62)) {
//!     numbers.free(rested);
//! }
//! # Ok::<(), strowger_engine::control::AttachError>(())
//! ```
//!
//! Quarantine before all workers dropped the link is not written:
//!
//! ```compile_fail,E0308
//! use strowger_engine::{Now, control::numbers::{Numbers, Withdrawn}};
//! fn too_early(numbers: &mut Numbers, withdrawn: Withdrawn) {
//!     numbers.rest(withdrawn, Now(2), 60); // expected `Detached`
//! }
//! ```
//!
//! nor is a token made where nothing was proved, here freeing a number whose quarantine has not
//! ended:
//!
//! ```compile_fail,E0451
//! use strowger_engine::control::numbers::{Numbers, Rested};
//! fn too_early(numbers: &mut Numbers) {
//!     numbers.free(Rested { slot: 2, generation: 1 });
//! }
//! ```
//!
//! nor is one used twice:
//!
//! ```compile_fail,E0382
//! use strowger_engine::{Now, control::numbers::{Detached, Numbers}};
//! fn twice(numbers: &mut Numbers, detached: Detached) {
//!     numbers.rest(detached, Now(2), 60);
//!     numbers.rest(detached, Now(9), 60);
//! }
//! ```

pub(super) mod salvage;

use std::collections::BTreeMap;

use strowger_frame::Mark;

use super::{AttachError, ledger::Passed};
use crate::{Now, director::Slot};

/// Who has a number, as it is known again after a restart.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Who {
    /// The peer with this static key.
    Key([u8; 32]),
    /// What is called so: an endpoint, or a neighbour behind a plain link.
    Name(String),
}

/// Which number is wanted, and by whom.
#[derive(Clone, Copy, Debug, Default)]
pub struct Wish<'a> {
    /// This one; else the one kept for `who`, else the lowest free one.
    pub slot: Option<u32>,
    /// By whom.
    pub who: Option<&'a Who>,
}

/// Where labels that name a number lead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lead {
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
    /// Given, not published.
    Coming(Mark),
    /// In use.
    Live(Mark),
    /// In use, and given up at this time.
    Draining(Mark, Now),
    /// The former number of a user.
    Alias(Mark),
    /// On its way out.
    Withdrawn,
    /// In quarantine until then.
    Resting(Now),
    /// Kept over a restart.
    Kept,
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
    Resting {
        until: Now,
    },
    Kept {
        who: Option<Who>,
        until: Now,
    },
}

#[derive(Debug)]
struct Entry {
    /// How many numbers had been given when this one was.
    generation: u64,
    usage: Usage,
}

/// A number that was given and is not published yet.
#[derive(Debug)]
#[must_use = "a number that is not published leads nowhere"]
pub struct Given {
    slot: u32,
    generation: u64,
    user: Mark,
}

impl Given {
    /// The number.
    pub fn slot(&self) -> u32 {
        self.slot
    }

    /// Who it was given to.
    pub fn user(&self) -> Mark {
        self.user
    }

    /// The state of [`Numbers::generation`] that includes it.
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
    Later(Given),
    /// It was withdrawn meanwhile.
    Never,
}

/// A former number whose user's new one is being written by the workers.
#[derive(Debug)]
#[must_use = "an alias that is not retired stays for ever"]
pub struct Retiring {
    slot: u32,
    generation: u64,
    to: u32,
    user: Mark,
}

impl Retiring {
    /// The former number.
    pub fn slot(&self) -> u32 {
        self.slot
    }

    /// The new one.
    pub fn to(&self) -> u32 {
        self.to
    }

    /// Whose they are.
    pub fn user(&self) -> Mark {
        self.user
    }
}

/// Numbers that tables made from now on do not lead by.
#[derive(Debug)]
#[must_use = "a withdrawn number that does not come to rest is lost"]
pub struct Withdrawn {
    numbers: Vec<(u32, u64)>,
    leaving: Vec<Mark>,
    version: u64,
}

impl Withdrawn {
    /// The numbers.
    pub fn slots(&self) -> impl Iterator<Item = u32> {
        self.numbers.iter().map(|&(slot, _)| slot)
    }
}

/// The same, when every worker has been given such a table.
#[derive(Debug)]
#[must_use = "a withdrawn number that does not come to rest is lost"]
pub struct Informed {
    numbers: Vec<(u32, u64)>,
    leaving: Vec<Mark>,
}

/// Numbers that no worker's table leads by any more.
#[derive(Debug)]
#[must_use = "a withdrawn number that does not come to rest is lost"]
pub struct Unnamed {
    numbers: Vec<(u32, u64)>,
    leaving: Vec<Mark>,
}

/// Numbers whose former user no worker knows under them any more: they may come to rest.
#[derive(Debug)]
#[must_use = "a withdrawn number that does not come to rest is lost"]
pub struct Detached {
    numbers: Vec<(u32, u64)>,
}

/// A number whose quarantine has ended: it may be given again.
#[derive(Debug)]
#[must_use = "a number that has rested is free only when it is freed"]
pub struct Rested {
    slot: u32,
    generation: u64,
}

impl Rested {
    /// The number.
    pub fn slot(&self) -> u32 {
        self.slot
    }
}

impl Unnamed {
    /// Once every worker has reported the table that it was given.
    pub fn after(passed: Passed<Informed>) -> Self {
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
    pub fn after(passed: Passed<Unnamed>) -> Self {
        Self { numbers: passed.into_inner().numbers }
    }
}

/// All slot numbers of one switch.
#[derive(Debug)]
pub struct Numbers {
    slot_max: u32,
    entries: BTreeMap<u32, Entry>,
    generation: u64,
    /// Withdrawals so far, and how many of them the tables last made know of.
    version: u64,
    in_tables: u64,
}

impl Numbers {
    /// None given; the highest that will be is `slot_max`.
    pub fn new(slot_max: u32) -> Self {
        Self { slot_max, entries: BTreeMap::new(), generation: 0, version: 0, in_tables: 0 }
    }

    /// How many numbers were ever given, over restarts.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// Numbers up to this one may be given from now on. It never falls.
    pub fn raise_max(&mut self, slot_max: u32) {
        self.slot_max = self.slot_max.max(slot_max);
    }

    /// Gives a number to a user.
    ///
    /// # Errors
    /// [`AttachError`]; nothing has changed then.
    pub fn give(&mut self, wish: Wish<'_>, user: Mark, now: Now) -> Result<Given, AttachError> {
        let slot = match wish.slot {
            Some(slot) => slot,
            None => self.unpinned(wish.who, now)?,
        };
        let not_before = self.openable(slot, wish.who)?;
        self.generation += 1;
        let generation = self.generation;
        let usage = Usage::Coming { user, not_before };
        self.entries.insert(slot, Entry { generation, usage });
        Ok(Given { slot, generation, user })
    }

    /// When a number may be published, if it may be given to `who` at all.
    fn openable(&self, slot: u32, who: Option<&Who>) -> Result<Now, AttachError> {
        if slot == Slot::SWITCH.number() || slot > self.slot_max {
            return Err(AttachError::NoSuchSlot(slot));
        }
        match self.entries.get(&slot).map(|entry| &entry.usage) {
            None => Ok(Now(0)),
            Some(Usage::Kept { who: Some(kept), .. }) if Some(kept) == who => Ok(Now(0)),
            // Whoever had it before the restart does not get it: its labels must be gone first.
            Some(Usage::Kept { until, .. }) => Ok(*until),
            Some(Usage::Coming { .. } | Usage::Live { .. } | Usage::Alias { .. }) => {
                Err(AttachError::SlotTaken(slot))
            }
            Some(Usage::Withdrawn { .. } | Usage::Resting { .. }) => {
                Err(AttachError::SlotQuarantined(slot))
            }
        }
    }

    /// The number kept for `who`, the lowest that nobody has, or the lowest kept in vain.
    fn unpinned(&self, who: Option<&Who>, now: Now) -> Result<u32, AttachError> {
        let kept = |wanted: &dyn Fn(&Option<Who>, Now) -> bool| {
            let mut all = self.entries.iter();
            all.find(|(_, entry)| {
                matches!(&entry.usage, Usage::Kept { who, until } if wanted(who, *until))
            })
            .map(|(&slot, _)| slot)
            .filter(|&slot| slot <= self.slot_max)
        };
        if let Some(slot) = kept(&|kept, _| kept.is_some() && kept.as_ref() == who) {
            return Ok(slot);
        }
        // Both are ascending, so the first number that the map skips is free.
        let mut taken = self.entries.keys().copied().peekable();
        (0..=self.slot_max)
            .filter(|&slot| slot != Slot::SWITCH.number())
            .find(|slot| taken.next_if_eq(slot).is_none())
            .or_else(|| kept(&|_, until| until <= now))
            .ok_or(AttachError::SlotsFull)
    }

    fn entry(&mut self, slot: u32, generation: u64) -> &mut Entry {
        let entry = self.entries.get_mut(&slot).expect("a token's number is not freed before it");
        assert_eq!(entry.generation, generation, "a token is for one giving of its number");
        entry
    }

    /// Lets tables lead to a number's user: every worker must have the link.
    pub fn publish(&mut self, given: Given, now: Now) -> Published {
        let Some(entry) = self.entries.get_mut(&given.slot) else { return Published::Never };
        match entry.usage {
            Usage::Coming { user, not_before }
                if entry.generation == given.generation && not_before <= now =>
            {
                entry.usage = Usage::Live { user, drained: None };
                Published::Now
            }
            Usage::Coming { .. } if entry.generation == given.generation => Published::Later(given),
            _ => Published::Never,
        }
    }

    /// The number by which a user is known: that which is live, else that which is coming.
    pub fn of_user(&self, user: Mark) -> Option<u32> {
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
    pub fn user_of(&self, slot: u32) -> Option<Mark> {
        match self.entries.get(&slot)?.usage {
            Usage::Coming { user, .. } | Usage::Live { user, .. } => Some(user),
            _ => None,
        }
    }

    /// Whether tables lead by a number to its user.
    pub fn is_live(&self, slot: u32) -> bool {
        matches!(self.entries.get(&slot).map(|entry| &entry.usage), Some(Usage::Live { .. }))
    }

    /// Whose former number this is.
    pub fn alias_of(&self, slot: u32) -> Option<Mark> {
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
            Usage::Coming { user: other, .. } | Usage::Alias { user: other, until: None } => {
                other != user
            }
            _ => true,
        });
        at_rest && live == 1
    }

    /// Makes a user's old number an alias of the one just published. `None` if either was
    /// withdrawn meanwhile.
    pub fn retire(&mut self, slot: u32, to: u32) -> Option<Retiring> {
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
        let retiring = Retiring { slot, generation: entry.generation, to, user };
        if let Some(Entry { usage: Usage::Live { drained: place, .. }, .. }) =
            self.entries.get_mut(&to)
        {
            *place = drained;
        }
        Some(retiring)
    }

    /// Every worker writes the new number into ways back: the old one's time begins. `false` if it
    /// was withdrawn meanwhile.
    pub fn retired(&mut self, passed: Passed<Retiring>, until: Now) -> bool {
        let Retiring { slot, generation, .. } = passed.into_inner();
        match self.entries.get_mut(&slot) {
            Some(Entry { generation: same, usage: Usage::Alias { until: end, .. } })
                if *same == generation =>
            {
                *end = Some(until);
                true
            }
            _ => false,
        }
    }

    /// Lets a live number serve until then. `false` if it is not live.
    pub fn drain(&mut self, slot: u32, until: Now) -> bool {
        match self.entries.get_mut(&slot).map(|entry| &mut entry.usage) {
            Some(Usage::Live { drained, .. }) => {
                *drained = Some(until);
                true
            }
            _ => false,
        }
    }

    /// Numbers that have served as long as they were to.
    pub fn drained(&self, now: Now) -> Vec<u32> {
        let is_over = |entry: &Entry| matches!(entry.usage, Usage::Live { drained: Some(end), .. } if end <= now);
        self.entries.iter().filter(|(_, entry)| is_over(entry)).map(|(&slot, _)| slot).collect()
    }

    /// Takes all numbers of a user away. `None` if it has none (any more).
    pub fn withdraw(&mut self, user: Mark) -> Option<Withdrawn> {
        self.withdraw_where(vec![user], |usage| match *usage {
            Usage::Live { user: other, .. } | Usage::Alias { user: other, .. } => {
                (other == user).then_some(Now(0))
            }
            Usage::Coming { user: other, not_before } => (other == user).then_some(not_before),
            _ => None,
        })
    }

    /// Takes the aliases away whose time is over. `None` if there are none.
    pub fn expire(&mut self, now: Now) -> Option<Withdrawn> {
        self.withdraw_where(Vec::new(), |usage| match *usage {
            Usage::Alias { until: Some(end), .. } if end <= now => Some(Now(0)),
            _ => None,
        })
    }

    fn withdraw_where(
        &mut self,
        leaving: Vec<Mark>,
        which: impl Fn(&Usage) -> Option<Now>,
    ) -> Option<Withdrawn> {
        let mut numbers = Vec::new();
        for (&slot, entry) in &mut self.entries {
            if let Some(not_before) = which(&entry.usage) {
                entry.usage = Usage::Withdrawn { not_before };
                numbers.push((slot, entry.generation));
            }
        }
        if numbers.is_empty() {
            return None;
        }
        self.version += 1;
        Some(Withdrawn { numbers, leaving, version: self.version })
    }

    /// What the next tables are made of: where each number leads that leads, or led, anywhere.
    pub fn leads(&mut self) -> BTreeMap<u32, Lead> {
        self.in_tables = self.version;
        let lead = |usage: &Usage| match *usage {
            Usage::Live { user, .. } => Lead::User(user),
            Usage::Alias { user, .. } => Lead::Alias(user),
            Usage::Coming { not_before: Now(0), .. } => Lead::Empty,
            Usage::Coming { .. }
            | Usage::Withdrawn { .. }
            | Usage::Resting { .. }
            | Usage::Kept { .. } => Lead::Gone,
        };
        self.entries.iter().map(|(&slot, entry)| (slot, lead(&entry.usage))).collect()
    }

    /// The withdrawal is in the tables that were given last.
    ///
    /// # Panics
    /// If no tables were made since: a bug of the caller's, which would end in misdelivery.
    pub fn told(&self, withdrawn: Withdrawn) -> Informed {
        let Withdrawn { numbers, leaving, version } = withdrawn;
        assert!(self.in_tables >= version, "tables are given before they are waited for");
        Informed { numbers, leaving }
    }

    /// Puts numbers into quarantine. Those that were never published, too: what came in by the link
    /// meanwhile bears them in its way back.
    pub fn rest(&mut self, detached: Detached, now: Now, quarantine_ns: u64) {
        for (slot, generation) in detached.numbers {
            let entry = self.entry(slot, generation);
            let Usage::Withdrawn { not_before } = entry.usage else {
                unreachable!("only what was withdrawn has such a token")
            };
            let until = Now(now.0.saturating_add(quarantine_ns)).max(not_before);
            entry.usage = Usage::Resting { until };
        }
    }

    /// Numbers whose quarantine has ended.
    pub fn rested(&self, now: Now) -> Vec<Rested> {
        let is_over = |usage: &Usage| match usage {
            Usage::Resting { until } | Usage::Kept { who: None, until } => *until <= now,
            _ => false,
        };
        let over = self.entries.iter().filter(|(_, entry)| is_over(&entry.usage));
        over.map(|(&slot, entry)| Rested { slot, generation: entry.generation }).collect()
    }

    /// Lets a number be given again.
    pub fn free(&mut self, rested: Rested) {
        let entry = self.entry(rested.slot, rested.generation);
        let may_go = matches!(entry.usage, Usage::Resting { .. } | Usage::Kept { .. });
        assert!(may_go, "what has rested is not in use");
        self.entries.remove(&rested.slot);
    }

    /// Keeps a number over a restart: for `who`, if anybody, and from everybody else until then.
    /// `false` if the number is in use already, or cannot be given.
    pub fn keep(&mut self, slot: u32, who: Option<Who>, until: Now) -> bool {
        if slot == Slot::SWITCH.number() || self.entries.contains_key(&slot) {
            return false;
        }
        let generation = self.generation;
        self.entries.insert(slot, Entry { generation, usage: Usage::Kept { who, until } });
        true
    }

    /// After a restart: goes on counting from here.
    pub fn count_from(&mut self, generation: u64) {
        self.generation = self.generation.max(generation);
    }

    /// All numbers that are not free, with their generations and standings.
    pub fn all(&self) -> impl Iterator<Item = (u32, u64, Standing)> {
        self.entries.iter().map(|(&slot, entry)| {
            let standing = match entry.usage {
                Usage::Coming { user, .. } => Standing::Coming(user),
                Usage::Live { user, drained: None } => Standing::Live(user),
                Usage::Live { user, drained: Some(until) } => Standing::Draining(user, until),
                Usage::Alias { user, .. } => Standing::Alias(user),
                Usage::Withdrawn { .. } => Standing::Withdrawn,
                Usage::Resting { until } => Standing::Resting(until),
                Usage::Kept { .. } => Standing::Kept,
            };
            (slot, entry.generation, standing)
        })
    }

    /// What is to be kept over a restart of each number: for whom, and until when not for others.
    /// `who` names users.
    pub fn to_keep(
        &self,
        who: impl Fn(Mark) -> Option<Who>,
        now: Now,
        [alias_ns, quarantine_ns]: [u64; 2],
    ) -> Vec<(u32, Option<Who>, u64)> {
        let left = |until: Now| until.0.saturating_sub(now.0);
        let whole = |usage: &Usage| match usage {
            // Whose labels are about: what was withdrawn a moment ago is still named by some.
            Usage::Coming { user, not_before } => {
                (who(*user), left(*not_before).max(quarantine_ns))
            }
            Usage::Live { user, .. } => (who(*user), quarantine_ns),
            Usage::Alias { until, .. } => {
                (None, until.map_or(alias_ns, left).saturating_add(quarantine_ns))
            }
            Usage::Withdrawn { .. } => (None, quarantine_ns),
            Usage::Resting { until } => (None, left(*until)),
            Usage::Kept { who, until } => (who.clone(), left(*until)),
        };
        let kept = self.entries.iter();
        kept.map(|(&slot, entry)| (slot, whole(&entry.usage)))
            .map(|(slot, (who, ns))| (slot, who, ns))
            .collect()
    }
}
