//! Limits the lookups of a source.

use std::collections::BTreeSet;

use strowger_crypto::Nanos;

use crate::{
    candidate::Route,
    ends::Ends,
    peer_routing::{LookupEnd, LookupResult, LookupTarget, Outcome, PeerRouting},
    question::{ControlReply, QuestionQueue},
};

/// Limits the lookups that a source gets. Further lookups end immediately, with the reason.
#[derive(Debug)]
pub struct Budgeted<A> {
    source: A,
    budget: Budget,
    lookups: BTreeSet<LookupTarget>,
    ends: Ends,
    /// The unused budget as a time, `1 s / per_second` for each lookup; at most a burst.
    saved: Nanos,
    /// The time at which `saved` was computed; `None` before the first lookup.
    counted: Option<Nanos>,
}

/// The limits on the lookups that a source gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Budget {
    /// Lookups per second; at least 1.
    pub per_second: u32,
    /// Maximum number of lookups in immediate succession after a time without lookups; at least 1.
    pub burst: u32,
    /// Maximum number of lookups that are in progress at the same time.
    pub in_progress: usize,
}

impl<A> Budgeted<A> {
    /// Limits the lookups of `source` to this budget.
    pub fn new(source: A, budget: Budget) -> Budgeted<A> {
        let (per_second, burst) = (budget.per_second.max(1), budget.burst.max(1));
        let budget = Budget { per_second, burst, ..budget };
        let mut budgeted = Budgeted {
            source,
            budget,
            lookups: BTreeSet::new(),
            ends: Ends::new(),
            saved: Nanos::ZERO,
            counted: None,
        };
        budgeted.saved = budgeted.burst();
        budgeted
    }

    /// The time in which the budget allows one more lookup.
    fn each(&self) -> Nanos {
        Nanos((Nanos::from_secs(1).0).div_ceil(u64::from(self.budget.per_second)))
    }

    fn burst(&self) -> Nanos {
        Nanos(self.each().0.saturating_mul(u64::from(self.budget.burst)))
    }

    /// Takes one lookup from the budget.
    fn take(&mut self, now: Nanos) -> Result<(), LookupEnd> {
        if self.lookups.len() >= self.budget.in_progress {
            return Err(LookupEnd::TooMany);
        }
        let since = self.counted.map_or(Nanos::ZERO, |counted| now.since(counted));
        self.counted = Some(now);
        self.saved = self.saved.plus(since).min(self.burst());
        let left = self.saved.0.checked_sub(self.each().0).ok_or(LookupEnd::TooOften)?;
        self.saved = Nanos(left);
        Ok(())
    }
}

impl<A: PeerRouting> PeerRouting for Budgeted<A> {
    fn lookup(&mut self, now: Nanos, target: LookupTarget, out: &mut QuestionQueue) {
        if self.lookups.contains(&target) || self.ends.has(&target) {
            return;
        }
        match self.take(now) {
            Ok(()) => {
                self.lookups.insert(target);
                self.source.lookup(now, target, out);
            }
            Err(end) => self.ends.push(LookupResult::ended(target, end)),
        }
    }

    fn cancel(&mut self, target: &LookupTarget) {
        self.ends.cancel(target);
        if self.lookups.remove(target) {
            self.source.cancel(target);
        }
    }

    fn handle_reply(&mut self, now: Nanos, reply: &ControlReply<'_>, out: &mut QuestionQueue) {
        self.source.handle_reply(now, reply, out);
    }

    fn poll(&mut self, now: Nanos, out: &mut QuestionQueue) -> Option<LookupResult> {
        if let Some(result) = self.ends.pop() {
            return Some(result);
        }
        let result = self.source.poll(now, out)?;
        if result.end.is_some() {
            self.lookups.remove(&result.target);
        }
        Some(result)
    }

    fn feedback(&mut self, now: Nanos, route: &Route, outcome: &Outcome) {
        self.source.feedback(now, route, outcome);
    }

    fn next_timeout(&self) -> Option<Nanos> {
        self.source.next_timeout()
    }
}
