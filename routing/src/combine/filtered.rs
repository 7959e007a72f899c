//! A source whose results are filtered by a predicate.

use core::fmt;

use strowger_crypto::Nanos;
use strowger_wire::label::AnyLabel;

use crate::{
    candidate::{Candidate, Route},
    peer_routing::{LookupResult, LookupTarget, Outcome, PeerRouting},
    question::{ControlReply, QuestionQueue},
    switch_routing::{Constraints, Path, PathError, Paths, SwitchRouting},
};

/// Exactly the candidates of a source that fulfil a predicate. For [`SwitchRouting`], exactly the
/// paths that fulfil it.
pub struct Filtered<A, F> {
    source: A,
    allows: F,
}

impl<A, F> Filtered<A, F> {
    /// Keeps the candidates or paths of `source` for which `allows` returns `true`.
    pub const fn new(source: A, allows: F) -> Filtered<A, F> {
        Filtered { source, allows }
    }
}

impl<A: fmt::Debug, F> fmt::Debug for Filtered<A, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Filtered").field("source", &self.source).finish_non_exhaustive()
    }
}

impl<A: PeerRouting, F: FnMut(&Candidate) -> bool + Send> PeerRouting for Filtered<A, F> {
    fn lookup(&mut self, now: Nanos, target: LookupTarget, out: &mut QuestionQueue) {
        self.source.lookup(now, target, out);
    }

    fn cancel(&mut self, target: &LookupTarget) {
        self.source.cancel(target);
    }

    fn handle_reply(&mut self, now: Nanos, reply: &ControlReply<'_>, out: &mut QuestionQueue) {
        self.source.handle_reply(now, reply, out);
    }

    fn poll(&mut self, now: Nanos, out: &mut QuestionQueue) -> Option<LookupResult> {
        loop {
            let mut result = self.source.poll(now, out)?;
            result.candidates.retain(|candidate| (self.allows)(candidate));
            if !result.candidates.is_empty() || result.end.is_some() {
                return Some(result);
            }
        }
    }

    fn feedback(&mut self, now: Nanos, route: &Route, outcome: &Outcome) {
        self.source.feedback(now, route, outcome);
    }

    fn next_timeout(&self) -> Option<Nanos> {
        self.source.next_timeout()
    }
}

impl<A: SwitchRouting, F: FnMut(&Path) -> bool + Send> SwitchRouting for Filtered<A, F> {
    fn paths(&mut self, now: Nanos, to: &Candidate, constraints: &Constraints) -> Paths {
        let mut paths = self.source.paths(now, to, constraints);
        paths.paths.retain(|path| (self.allows)(path));
        paths
    }

    /// A repaired label is a new path about which nothing is known yet, so the predicate is not
    /// applied to it.
    fn repair(&mut self, now: Nanos, label: &AnyLabel, error: &PathError) -> Option<AnyLabel> {
        self.source.repair(now, label, error)
    }

    fn next_timeout(&self) -> Option<Nanos> {
        self.source.next_timeout()
    }
}
