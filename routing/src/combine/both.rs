//! The union of two sources.

use std::collections::BTreeMap;

use strowger_crypto::Nanos;
use strowger_wire::label::AnyLabel;

use crate::{
    candidate::{Candidate, Candidates, Route},
    limits::{CANDIDATES_MAX, PATHS_MAX, UNION_ROUTES_MAX},
    peer_routing::{LookupEnd, LookupResult, LookupTarget, Outcome, PeerRouting},
    question::{ControlReply, QuestionQueue},
    switch_routing::{Constraints, Path, PathError, Paths, SwitchRouting},
};

/// The union of two sources, without duplicates. Routes that are known at the same time come best
/// first.
///
/// If both sources have found the same route before the caller gets it, the route has the smaller
/// of the two costs. One lookup gives at most [`UNION_ROUTES_MAX`] routes.
#[derive(Debug)]
pub struct Both<A, B> {
    one: A,
    other: B,
    lookups: BTreeMap<LookupTarget, Union>,
}

/// The state of one lookup.
#[derive(Debug, Default)]
struct Union {
    ends: [Option<LookupEnd>; 2],
    /// Candidates that have not been returned to the caller.
    waiting: Vec<Candidate>,
    /// Peers and routes that have been returned to the caller.
    given: Vec<(strowger_crypto::PeerId, Route)>,
}

impl<A, B> Both<A, B> {
    /// Combines these two sources.
    pub const fn new(one: A, other: B) -> Both<A, B> {
        Both { one, other, lookups: BTreeMap::new() }
    }

    fn take(&mut self, source: usize, result: LookupResult) {
        let Some(union) = self.lookups.get_mut(&result.target) else { return };
        for candidate in result.candidates {
            union.add(candidate);
        }
        if result.end.is_some() {
            union.ends[source] = result.end;
        }
    }
}

impl Union {
    fn add(&mut self, candidate: Candidate) {
        let key = (candidate.peer, candidate.route);
        if self.given.contains(&key) {
            return;
        }
        let known = self.waiting.iter().position(|other| (other.peer, other.route) == key);
        match known {
            Some(place) if candidate.rank() < self.waiting[place].rank() => {
                self.waiting[place] = candidate;
            }
            Some(_) => {}
            None if self.given.len() + self.waiting.len() < UNION_ROUTES_MAX => {
                self.waiting.push(candidate);
            }
            None => {}
        }
    }

    fn is_ready(&self) -> bool {
        !self.waiting.is_empty() || self.ends.iter().all(Option::is_some)
    }

    /// The best candidates, and the end if no more follow.
    fn next(&mut self, now: Nanos) -> (Candidates, Option<LookupEnd>) {
        self.waiting.retain(|candidate| !candidate.is_expired(now));
        self.waiting.sort_by_key(Candidate::rank);
        let count = self.waiting.len().min(CANDIDATES_MAX);
        let candidates: Candidates = self.waiting.drain(..count).collect();
        self.given.extend(candidates.iter().map(|candidate| (candidate.peer, candidate.route)));
        let end = match (self.waiting.is_empty(), self.ends) {
            // If a source refused the lookup, its end is returned, because not all sources were
            // asked.
            (true, [Some(LookupEnd::Complete), Some(end)] | [Some(end), Some(_)]) => Some(end),
            _ => None,
        };
        (candidates, end)
    }
}

impl<A: PeerRouting, B: PeerRouting> PeerRouting for Both<A, B> {
    fn lookup(&mut self, now: Nanos, target: LookupTarget, out: &mut QuestionQueue) {
        if self.lookups.contains_key(&target) {
            return;
        }
        self.lookups.insert(target, Union::default());
        self.one.lookup(now, target, out);
        self.other.lookup(now, target, out);
    }

    fn cancel(&mut self, target: &LookupTarget) {
        if let Some(union) = self.lookups.remove(target) {
            // A source that has ended has no lookup for this target.
            if union.ends[0].is_none() {
                self.one.cancel(target);
            }
            if union.ends[1].is_none() {
                self.other.cancel(target);
            }
        }
    }

    fn handle_reply(&mut self, now: Nanos, reply: &ControlReply<'_>, out: &mut QuestionQueue) {
        self.one.handle_reply(now, reply, out);
        self.other.handle_reply(now, reply, out);
    }

    fn poll(&mut self, now: Nanos, out: &mut QuestionQueue) -> Option<LookupResult> {
        while let Some(result) = self.one.poll(now, out) {
            self.take(0, result);
        }
        while let Some(result) = self.other.poll(now, out) {
            self.take(1, result);
        }
        loop {
            let (&target, union) = self.lookups.iter_mut().find(|(_, union)| union.is_ready())?;
            let (candidates, end) = union.next(now);
            if end.is_some() {
                self.lookups.remove(&target);
            }
            if end.is_some() || !candidates.is_empty() {
                return Some(LookupResult { target, candidates, end });
            }
        }
    }

    fn feedback(&mut self, now: Nanos, route: &Route, outcome: &Outcome) {
        self.one.feedback(now, route, outcome);
        self.other.feedback(now, route, outcome);
    }

    fn next_timeout(&self) -> Option<Nanos> {
        [self.one.next_timeout(), self.other.next_timeout()].into_iter().flatten().min()
    }
}

impl<A: SwitchRouting, B: SwitchRouting> SwitchRouting for Both<A, B> {
    fn paths(&mut self, now: Nanos, to: &Candidate, constraints: &Constraints) -> Paths {
        let one = self.one.paths(now, to, constraints);
        let other = self.other.paths(now, to, constraints);
        let mut all: Vec<Path> = Vec::with_capacity(2 * PATHS_MAX);
        for path in one.paths.into_iter().chain(other.paths) {
            match all.iter_mut().find(|known| known.label == path.label) {
                Some(known) if path.cost < known.cost => *known = path,
                Some(_) => {}
                None => all.push(path),
            }
        }
        all.sort_by_key(|path| path.cost);
        let is_pending = one.is_pending || other.is_pending;
        Paths { paths: all.into_iter().take(PATHS_MAX).collect(), is_pending }
    }

    fn repair(&mut self, now: Nanos, label: &AnyLabel, error: &PathError) -> Option<AnyLabel> {
        let repaired = self.one.repair(now, label, error);
        repaired.or_else(|| self.other.repair(now, label, error))
    }

    fn next_timeout(&self) -> Option<Nanos> {
        [self.one.next_timeout(), self.other.next_timeout()].into_iter().flatten().min()
    }
}
