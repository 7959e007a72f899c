//! Remembers answers for a time.

use std::collections::BTreeMap;

use strowger_crypto::Nanos;

use crate::{
    candidate::{Candidate, Candidates, Route},
    ends::Ends,
    limits::{CANDIDATES_MAX, NOT_FOUND_S},
    peer_routing::{LookupEnd, LookupResult, LookupTarget, Outcome, PeerRouting},
    question::{ControlReply, QuestionQueue},
};

/// Repeats the answers of a source for a time, without asking it again.
///
/// An answer consists of the best eight of the first 16 candidates of a complete lookup. An answer
/// without candidates is remembered for at most 10 s. A route that has failed is forgotten
/// immediately. If no route of an answer is left, the answer is forgotten, so that the next lookup
/// asks the source. If there is no room for another answer, the least recently used one is
/// forgotten.
#[derive(Debug)]
pub struct Cached<A> {
    source: A,
    entries_max: usize,
    life: Nanos,
    entries: BTreeMap<LookupTarget, Entry>,
    /// The candidates that the source has found so far, for each lookup in progress.
    lookups: BTreeMap<LookupTarget, Vec<Candidate>>,
    /// Remembered answers that wait for the next poll.
    ends: Ends,
    /// A counter that is incremented at each use of an answer, to find the least recently used one.
    uses: u64,
}

#[derive(Debug)]
struct Entry {
    candidates: Candidates,
    until: Nanos,
    used: u64,
}

impl<A> Cached<A> {
    /// Keeps at most `entries_max` answers of `source`, each for `life`.
    pub const fn new(source: A, entries_max: usize, life: Nanos) -> Cached<A> {
        Cached {
            source,
            entries_max,
            life,
            entries: BTreeMap::new(),
            lookups: BTreeMap::new(),
            ends: Ends::new(),
            uses: 0,
        }
    }

    /// Forgets all answers.
    pub fn clear(&mut self) {
        self.entries.clear();
    }

    fn remembered(&mut self, now: Nanos, target: &LookupTarget) -> Option<Candidates> {
        let entry = self.entries.get_mut(target)?;
        let had_some = !entry.candidates.is_empty();
        entry.candidates.retain(|candidate| !candidate.is_expired(now));
        if entry.until <= now || had_some && entry.candidates.is_empty() {
            self.entries.remove(target);
            return None;
        }
        self.uses += 1;
        entry.used = self.uses;
        Some(entry.candidates.clone())
    }

    fn remember(&mut self, now: Nanos, target: LookupTarget, mut found: Vec<Candidate>) {
        found.sort_by_key(Candidate::rank);
        let candidates: Candidates = found.into_iter().take(CANDIDATES_MAX).collect();
        let life = match candidates.is_empty() {
            true => self.life.min(Nanos::from_secs(NOT_FOUND_S)),
            false => self.life,
        };
        if self.entries.len() >= self.entries_max && !self.entries.contains_key(&target) {
            let oldest = self.entries.iter().min_by_key(|(_, entry)| entry.used);
            let Some(oldest) = oldest.map(|(target, _)| *target) else { return };
            self.entries.remove(&oldest);
        }
        self.uses += 1;
        self.entries.insert(target, Entry { candidates, until: now.plus(life), used: self.uses });
    }
}

impl<A: PeerRouting> PeerRouting for Cached<A> {
    fn lookup(&mut self, now: Nanos, target: LookupTarget, out: &mut QuestionQueue) {
        if self.lookups.contains_key(&target) || self.ends.has(&target) {
            return;
        }
        match self.remembered(now, &target) {
            Some(candidates) => {
                self.ends.push(LookupResult { target, candidates, end: Some(LookupEnd::Complete) });
            }
            None => {
                self.lookups.insert(target, Vec::new());
                self.source.lookup(now, target, out);
            }
        }
    }

    fn cancel(&mut self, target: &LookupTarget) {
        self.ends.cancel(target);
        if self.lookups.remove(target).is_some() {
            self.source.cancel(target);
        }
    }

    fn handle_reply(&mut self, now: Nanos, reply: &ControlReply<'_>, out: &mut QuestionQueue) {
        self.source.handle_reply(now, reply, out);
    }

    fn poll(&mut self, now: Nanos, out: &mut QuestionQueue) -> Option<LookupResult> {
        if let Some(mut result) = self.ends.pop() {
            // Time may have passed since the lookup.
            result.candidates.retain(|candidate| !candidate.is_expired(now));
            return Some(result);
        }
        while let Some(result) = self.source.poll(now, out) {
            let Some(found) = self.lookups.get_mut(&result.target) else { continue };
            // Only the first candidates are kept. The best of them are chosen at the end of the
            // lookup.
            let room = (2 * CANDIDATES_MAX).saturating_sub(found.len());
            found.extend(result.candidates.iter().take(room).cloned());
            if result.end.is_some() {
                let found = self.lookups.remove(&result.target).unwrap_or_default();
                if result.end == Some(LookupEnd::Complete) {
                    self.remember(now, result.target, found);
                }
            }
            return Some(result);
        }
        None
    }

    fn feedback(&mut self, now: Nanos, route: &Route, outcome: &Outcome) {
        if let Outcome::Failed(_) = outcome {
            self.entries.retain(|_, entry| {
                let before = entry.candidates.len();
                entry.candidates.retain(|candidate| candidate.route != *route);
                before == entry.candidates.len() || !entry.candidates.is_empty()
            });
        }
        self.source.feedback(now, route, outcome);
    }

    fn next_timeout(&self) -> Option<Nanos> {
        self.source.next_timeout()
    }
}
