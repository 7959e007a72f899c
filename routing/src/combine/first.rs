//! One source, and a second source if the first has found nothing.

use std::collections::BTreeMap;

use strowger_crypto::Nanos;
use strowger_wire::label::AnyLabel;

use crate::{
    candidate::{Candidate, Route},
    peer_routing::{LookupEnd, LookupResult, LookupTarget, Outcome, PeerRouting},
    question::{ControlReply, QuestionQueue},
    switch_routing::{Constraints, PathError, Paths, SwitchRouting},
};

/// The first source, and the second one only if the first has ended without a candidate.
#[derive(Debug)]
pub struct First<A, B> {
    first: A,
    second: B,
    lookups: BTreeMap<LookupTarget, Stage>,
}

/// The source that works on a lookup.
#[derive(Clone, Copy, Debug)]
enum Stage {
    First {
        found: bool,
    },
    /// The end of the first source, and whether the second has found something.
    Second {
        first_end: LookupEnd,
        found: bool,
    },
}

impl<A, B> First<A, B> {
    /// Asks `first`, and asks `second` if `first` has found nothing.
    pub const fn new(first: A, second: B) -> First<A, B> {
        First { first, second, lookups: BTreeMap::new() }
    }
}

impl<A: PeerRouting, B: PeerRouting> First<A, B> {
    /// Returns what the caller gets from a result of the first source. If the first source has
    /// ended without a candidate, the second one is asked.
    fn of_first(
        &mut self,
        now: Nanos,
        result: LookupResult,
        out: &mut QuestionQueue,
    ) -> Option<LookupResult> {
        let stage = self.lookups.get_mut(&result.target)?;
        let Stage::First { found } = stage else { return None };
        *found |= !result.candidates.is_empty();
        match result.end {
            Some(first_end) if !*found => {
                *stage = Stage::Second { first_end, found: false };
                self.second.lookup(now, result.target, out);
                None
            }
            Some(_) => {
                self.lookups.remove(&result.target);
                Some(result)
            }
            None => (!result.candidates.is_empty()).then_some(result),
        }
    }

    fn of_second(&mut self, mut result: LookupResult) -> Option<LookupResult> {
        let stage = self.lookups.get_mut(&result.target)?;
        let Stage::Second { first_end, found } = stage else { return None };
        *found |= !result.candidates.is_empty();
        if let Some(end) = &mut result.end {
            // If nothing was found, report to the caller that the first source refused.
            if !*found && *first_end != LookupEnd::Complete {
                *end = *first_end;
            }
            self.lookups.remove(&result.target);
        } else if result.candidates.is_empty() {
            return None;
        }
        Some(result)
    }
}

impl<A: PeerRouting, B: PeerRouting> PeerRouting for First<A, B> {
    fn lookup(&mut self, now: Nanos, target: LookupTarget, out: &mut QuestionQueue) {
        if self.lookups.contains_key(&target) {
            return;
        }
        self.lookups.insert(target, Stage::First { found: false });
        self.first.lookup(now, target, out);
    }

    fn cancel(&mut self, target: &LookupTarget) {
        match self.lookups.remove(target) {
            Some(Stage::First { .. }) => self.first.cancel(target),
            Some(Stage::Second { .. }) => self.second.cancel(target),
            None => {}
        }
    }

    fn handle_reply(&mut self, now: Nanos, reply: &ControlReply<'_>, out: &mut QuestionQueue) {
        self.first.handle_reply(now, reply, out);
        self.second.handle_reply(now, reply, out);
    }

    fn poll(&mut self, now: Nanos, out: &mut QuestionQueue) -> Option<LookupResult> {
        while let Some(result) = self.first.poll(now, out) {
            if let Some(result) = self.of_first(now, result, out) {
                return Some(result);
            }
        }
        while let Some(result) = self.second.poll(now, out) {
            if let Some(result) = self.of_second(result) {
                return Some(result);
            }
        }
        None
    }

    fn feedback(&mut self, now: Nanos, route: &Route, outcome: &Outcome) {
        self.first.feedback(now, route, outcome);
        self.second.feedback(now, route, outcome);
    }

    fn next_timeout(&self) -> Option<Nanos> {
        [self.first.next_timeout(), self.second.next_timeout()].into_iter().flatten().min()
    }
}

impl<A: SwitchRouting, B: SwitchRouting> SwitchRouting for First<A, B> {
    fn paths(&mut self, now: Nanos, to: &Candidate, constraints: &Constraints) -> Paths {
        let paths = self.first.paths(now, to, constraints);
        if !paths.paths.is_empty() || paths.is_pending {
            return paths;
        }
        self.second.paths(now, to, constraints)
    }

    fn repair(&mut self, now: Nanos, label: &AnyLabel, error: &PathError) -> Option<AnyLabel> {
        let repaired = self.first.repair(now, label, error);
        repaired.or_else(|| self.second.repair(now, label, error))
    }

    fn next_timeout(&self) -> Option<Nanos> {
        [self.first.next_timeout(), self.second.next_timeout()].into_iter().flatten().min()
    }
}
