//! Numbers over a restart: what a snapshot has of them, and what happens when their users return. No number
//! leads to another user before its quarantine has ended.

use strowger_frame::Mark;
use strowger_wire::Slot;

use super::{Entry, SlotAllocator, Usage, Who};
use crate::{Now, control::snapshot::Former};

impl SlotAllocator {
    /// Whether a number is kept for this user over a restart.
    pub fn is_kept_for(&self, who: &Who) -> bool {
        self.entries.values().any(|entry| match &entry.usage {
            Usage::Kept { who: Some(kept), .. } | Usage::Former { who: kept, .. } => kept == who,
            _ => false,
        })
    }

    /// Numbers that this user had before the restart lead to it again as soon as its own number does: former
    /// ones as long as they would have, and its last number, if it has another one now, until `alias_until`.
    pub fn adopt(&mut self, who: &Who, user: Mark, alias_until: Now, now: Now) {
        let Some(numbers) = self.kept_for.get(who) else { return };
        self.due.set(None);
        for slot in numbers {
            let Some(entry) = self.entries.get_mut(slot) else { continue };
            let (alias_until, until) = match &entry.usage {
                Usage::Former { who: kept, alias_until, until } if kept == who => {
                    (*alias_until, *until)
                }
                Usage::Kept { who: Some(kept), until } if kept == who => (alias_until, *until),
                _ => continue,
            };
            if alias_until > now {
                entry.usage = Usage::Returning { user, alias_until, until };
                self.aliases.insert(*slot);
            }
        }
    }

    /// Keeps a number over a restart: for `who`, if given, and from other users until `until`. `unknown` if
    /// an unknown peer had it. Returns `false` if the number is in use already, or cannot be allocated.
    pub fn keep(&mut self, slot: Slot, who: Option<Who>, until: Now, unknown: bool) -> bool {
        if slot == Slot::SWITCH || self.entries.contains_key(&slot) {
            return false;
        }
        self.due.set(None);
        if let Some(who) = &who {
            self.kept_for.entry(who.clone()).or_default().push(slot);
        }
        let generation = self.generation;
        self.entries.insert(slot, Entry { generation, usage: Usage::Kept { who, until }, unknown });
        true
    }

    /// A kept number without a user was the alias of `who`, and leads to it again when it returns. Returns
    /// `false` if the number is not kept without a user.
    pub fn keep_former(&mut self, slot: Slot, who: Who, alias_until: Now) -> bool {
        self.due.set(None);
        let Some(entry) = self.entries.get_mut(&slot) else { return false };
        let Usage::Kept { who: None, until } = entry.usage else { return false };
        self.kept_for.entry(who.clone()).or_default().push(slot);
        entry.usage = Usage::Former { who, alias_until, until: until.max(alias_until) };
        true
    }

    /// The part of each number that a snapshot keeps: its user, for how long no other may have it, and
    /// whether an unknown peer had it. `who` names users.
    pub fn to_keep(
        &self,
        who: impl Fn(Mark) -> Option<Who>,
        now: Now,
        [alias_ns, quarantine_ns]: [u64; 2],
    ) -> Vec<(Slot, Option<Who>, u64, bool)> {
        let left = |until: Now| until.0.saturating_sub(now.0);
        let whole = |usage: &Usage| match usage {
            // Labels may name these numbers, also one that was withdrawn a moment ago.
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

    /// The former numbers that lead to their users, after a restart too, and for how long.
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
}
