//! Recovery of numbers whose tokens were lost in a panic of the slow path: checks each number, and makes the
//! tokens for the steps to repeat. Proofs from before the panic do not count, so every number starts again at
//! the first step.

use std::collections::BTreeMap;

use strowger_frame::Mark;
use strowger_wire::Slot;

use super::{Allocated, Retiring, SlotAllocator, Usage, Withdrawn};
use crate::Now;

/// The steps to repeat.
#[must_use = "numbers whose steps are not repeated are lost"]
pub(in crate::control) struct Recovered {
    /// Not published yet.
    pub(in crate::control) given: Vec<Allocated>,
    /// Former numbers whose users' new numbers are to be written into return paths.
    pub(in crate::control) retiring: Vec<Retiring>,
    /// Withdrawn, at whatever step they were.
    pub(in crate::control) withdrawn: Withdrawn,
}

/// The numbers of one user.
#[derive(Default)]
struct Holding {
    /// With their generations, so that the newest is the greatest.
    live: Vec<(u64, Slot)>,
    coming: Vec<(u64, Slot)>,
}

impl SlotAllocator {
    /// Checks every number. Numbers of users that are gone, and numbers that contradict each other, are
    /// withdrawn. Quarantines begin again, because their start is not certain.
    pub(in crate::control) fn recover(
        &mut self,
        is_there: impl Fn(Mark) -> bool,
        now: Now,
        quarantine_ns: u64,
    ) -> Recovered {
        self.due.set(None);
        let mut users: BTreeMap<Mark, Holding> = BTreeMap::new();
        for (&slot, entry) in &self.entries {
            let stamp = (entry.generation, slot);
            match entry.usage {
                Usage::Live { user, .. } => users.entry(user).or_default().live.push(stamp),
                Usage::Coming { user, .. } => users.entry(user).or_default().coming.push(stamp),
                _ => (),
            }
        }
        users.retain(|user, _| is_there(*user));
        let newest = |stamps: &[(u64, Slot)]| stamps.iter().max().map(|&(_, slot)| slot);
        let (mut given, mut retiring, mut numbers) = (Vec::new(), Vec::new(), Vec::new());
        let rested = Now(now.0.saturating_add(quarantine_ns));
        for (&slot, entry) in &mut self.entries {
            let generation = entry.generation;
            self.generation = self.generation.max(generation);
            let mut leave = |usage: &mut Usage, not_before| {
                *usage = Usage::Withdrawn { not_before };
                numbers.push((slot, generation));
            };
            match entry.usage {
                Usage::Live { user, .. } => match users.get(&user).map(|has| newest(&has.live)) {
                    Some(own) if own == Some(slot) => (),
                    // The old number of a user that was moving.
                    Some(Some(to)) => {
                        entry.usage = Usage::Alias { user, until: None };
                        self.aliases.insert(slot);
                        retiring.push(Retiring { slot, generation, to, user });
                    }
                    _ => leave(&mut entry.usage, Now(0)),
                },
                Usage::Coming { user, not_before } => match users.get(&user) {
                    Some(has) if newest(&has.coming) == Some(slot) => {
                        given.push(Allocated { slot, generation, user });
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
                // Its user's number is not published: otherwise this would be an alias.
                Usage::Returning { user, until, .. } if !users.contains_key(&user) => {
                    leave(&mut entry.usage, until);
                }
                Usage::Quarantined { ref mut until }
                | Usage::Kept { ref mut until, .. }
                | Usage::Former { ref mut until, .. }
                | Usage::Returning { ref mut until, .. } => *until = rested.max(*until),
            }
        }
        self.version += 1;
        let (leaving, staying, version) = (Vec::new(), Vec::new(), self.version);
        let withdrawn = Withdrawn { numbers, leaving, staying, version };
        Recovered { given, retiring, withdrawn }
    }
}
