//! Results of lookups that need no question: they wait for the next poll.

use std::collections::VecDeque;

use crate::peer_routing::{LookupResult, LookupTarget};

/// Complete results that wait for the next poll, at most one for each target.
#[derive(Clone, Debug, Default)]
pub(crate) struct Ends(VecDeque<LookupResult>);

impl Ends {
    pub(crate) const fn new() -> Ends {
        Ends(VecDeque::new())
    }

    /// Adds the result of a lookup. If a result for the same target already waits, the lookup was
    /// repeated, and the new result is dropped.
    ///
    /// The queue itself has no bound: each entry belongs to a lookup whose caller has not polled
    /// yet.
    pub(crate) fn push(&mut self, result: LookupResult) {
        if !self.has(&result.target) {
            self.0.push_back(result);
        }
    }

    pub(crate) fn has(&self, target: &LookupTarget) -> bool {
        self.0.iter().any(|waiting| waiting.target == *target)
    }

    pub(crate) fn cancel(&mut self, target: &LookupTarget) {
        self.0.retain(|waiting| waiting.target != *target);
    }

    pub(crate) fn pop(&mut self) -> Option<LookupResult> {
        self.0.pop_front()
    }
}
