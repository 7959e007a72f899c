//! Asks the neighbours of the own switch.

use core::fmt;
use std::collections::{BTreeMap, BTreeSet};

use core::net::Ipv6Addr;

use strowger_crypto::{Entropy, Nanos, NetworkId, find_tag};
use strowger_wire::{
    Hop, Label, Scheme, Slot,
    control::{Host, Message},
    label::AnyLabel,
    limits::FIND_NONCE_BYTES,
};

use super::{address_of, certificate_of, expiry, known_mtu, wanted};
use crate::{
    candidate::{Candidate, Candidates, Route, Source},
    ends::Ends,
    limits::{
        ASK_NEIGHBOURS_S, ASK_REPLY_S, LOOKUPS_ASKED_MAX, NEIGHBOURS_ASKED_MAX, NOT_HERE_MAX,
        NOT_HERE_S,
    },
    peer_routing::{LookupEnd, LookupResult, LookupTarget, Outcome, PeerRouting},
    question::{ControlReply, Question, QuestionQueue},
};

/// Asks slot 1 of each neighbour of the own switch by find messages, for small networks. A peer
/// that is found is at an endpoint of the neighbour that answered.
///
/// At most 16 questions wait for an answer at a time, in all lookups together. A neighbour that says
/// "not here", or nothing within a second, is not asked for the same peer again for 30 s. A lookup
/// ends when a neighbour has the peer, when all have answered, or after 30 s.
///
/// No control message lists the slots of a switch. The caller, which knows its own switch, gives
/// them to [`set_neighbours`](AskNeighbours::set_neighbours).
pub struct AskNeighbours {
    network: NetworkId,
    entropy: Box<dyn Entropy + Send>,
    scheme: Scheme,
    own_slot: Slot,
    neighbours: BTreeSet<Slot>,
    /// The lookups in progress, in the order in which they ask.
    searches: Vec<Search>,
    /// For each open question of a lookup that has ended: the time until which its answer may come.
    /// These questions count towards the limit.
    left_over: Vec<Nanos>,
    /// The neighbours that do not have a peer, until this time.
    not_here: BTreeMap<(Ipv6Addr, Slot), Nanos>,
    ends: Ends,
}

/// A lookup in progress.
#[derive(Debug)]
struct Search {
    target: LookupTarget,
    /// Neighbours to ask, the next one last.
    to_ask: Vec<Slot>,
    asked: Vec<Asked>,
    until: Nanos,
}

/// A question that waits for its answer.
#[derive(Debug)]
struct Asked {
    slot: Slot,
    /// The label of the neighbour.
    label: Label,
    nonce: [u8; FIND_NONCE_BYTES],
    at: Nanos,
    due: Nanos,
}

impl fmt::Debug for AskNeighbours {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AskNeighbours").field("searches", &self.searches).finish_non_exhaustive()
    }
}

impl AskNeighbours {
    /// Asks the neighbours of a switch with this scheme, on which the node has the slot `own_slot`;
    /// slot 1 if the node is the switch itself. The source of randomness makes the nonces.
    pub fn new(
        network: NetworkId,
        scheme: Scheme,
        own_slot: Slot,
        entropy: Box<dyn Entropy + Send>,
    ) -> AskNeighbours {
        AskNeighbours {
            network,
            entropy,
            scheme,
            own_slot,
            neighbours: BTreeSet::new(),
            searches: Vec::new(),
            left_over: Vec::new(),
            not_here: BTreeMap::new(),
            ends: Ends::new(),
        }
    }

    /// Replaces the slots of the own switch that lead to neighbours. Lookups in progress keep the
    /// former slots.
    pub fn set_neighbours(&mut self, slots: impl IntoIterator<Item = Slot>) {
        self.neighbours = slots.into_iter().collect();
        self.neighbours.remove(&self.own_slot);
        self.neighbours.remove(&Slot::SWITCH);
        // A slot may have another neighbour now.
        self.not_here.retain(|(_, slot), _| self.neighbours.contains(slot));
    }

    /// Replaces the scheme and the own slot, after either has changed.
    pub fn set_place(&mut self, scheme: Scheme, own_slot: Slot) {
        (self.scheme, self.own_slot) = (scheme, own_slot);
    }

    fn is_active(&self, target: &LookupTarget) -> bool {
        self.ends.has(target) || self.searches.iter().any(|search| search.target == *target)
    }

    fn in_flight(&self) -> usize {
        self.searches.iter().map(|search| search.asked.len()).sum::<usize>() + self.left_over.len()
    }

    /// Ends a lookup. Answers to its questions are ignored from now on.
    fn remove(&mut self, search: usize) {
        let search = self.searches.remove(search);
        self.left_over.extend(search.asked.iter().map(|asked| asked.due));
    }

    fn note_not_here(&mut self, now: Nanos, target: &LookupTarget, slot: Slot) {
        if self.not_here.len() >= NOT_HERE_MAX {
            self.not_here.retain(|_, until| now < *until);
        }
        if self.not_here.len() < NOT_HERE_MAX {
            let until = now.plus(Nanos::from_secs(NOT_HERE_S));
            self.not_here.insert((address_of(target), slot), until);
        }
    }

    /// Sends questions, as far as there is room. Each lookup in turn sends one.
    fn ask(&mut self, now: Nanos, out: &mut QuestionQueue) {
        self.left_over.retain(|due| now < *due);
        let mut room = NEIGHBOURS_ASKED_MAX.saturating_sub(self.in_flight()).min(out.room());
        let mut without_work = 0;
        while room > 0 && without_work < self.searches.len() {
            let hop = |slot| Hop { scheme: &self.scheme, ingress: self.own_slot, egress: slot };
            let search = &mut self.searches[0];
            match search.to_ask.pop() {
                None => without_work += 1,
                Some(slot) => {
                    without_work = 0;
                    let mut nonce = [0; FIND_NONCE_BYTES];
                    if let Ok((label, _)) = Label::build(&[hop(slot)])
                        && self.entropy.fill(&mut nonce).is_ok()
                    {
                        let tag = find_tag(&nonce, &address_of(&search.target));
                        let message = Message::Find { nonce: &nonce, tag: &tag }.to_bytes();
                        let question = Question { to: label.into(), message: message.to_vec() };
                        let due = now.plus(Nanos::from_secs(ASK_REPLY_S)).min(search.until);
                        if out.push(question).is_ok() {
                            search.asked.push(Asked { slot, label, nonce, at: now, due });
                            room -= 1;
                        }
                    }
                }
            }
            self.searches.rotate_left(1);
        }
        let is_over = |search: &Search| search.to_ask.is_empty() && search.asked.is_empty();
        for over in self.searches.extract_if(.., |search| is_over(search)) {
            self.ends.push(LookupResult::ended(over.target, LookupEnd::Complete));
        }
    }

    /// The candidate of an answer, if it is for the peer that was asked for.
    fn candidate(
        &self,
        now: Nanos,
        target: &LookupTarget,
        asked: &Asked,
        host: &Host<'_>,
    ) -> Option<Candidate> {
        let key = host.certificate.get(10..42)?.try_into().ok()?;
        let peer = wanted(target, key)?;
        let certificate = certificate_of(&peer, host.certificate, &self.network)?;
        // The end marker above the director.
        let there = Label::new(1_u64.checked_shl(host.width.into())? | host.director);
        let label = Label::splice(there, asked.label).ok()?;
        Some(Candidate {
            // The round trip to the neighbour, in microseconds.
            cost: u32::try_from(now.since(asked.at).0 / 1_000).unwrap_or(u32::MAX),
            mtu: known_mtu(host.mtu),
            expires: Some(expiry(now, host.seconds)?),
            certificate: Some(certificate),
            ..Candidate::new(peer, Route::Label(AnyLabel::W64(label)), Source::Neighbour)
        })
    }

    /// Whether a reply with this return path came in by the slot of the question.
    fn is_from(&self, from: &AnyLabel, asked: &Asked) -> bool {
        let AnyLabel::W64(from) = from else { return false };
        from.decode(&self.scheme).is_ok_and(|first| first.slot() == asked.slot)
    }
}

impl PeerRouting for AskNeighbours {
    fn lookup(&mut self, now: Nanos, target: LookupTarget, out: &mut QuestionQueue) {
        if self.is_active(&target) {
            return;
        }
        if self.searches.len() >= LOOKUPS_ASKED_MAX {
            return self.ends.push(LookupResult::ended(target, LookupEnd::TooMany));
        }
        let address = address_of(&target);
        let has_not =
            |slot: &Slot| self.not_here.get(&(address, *slot)).is_some_and(|until| now < *until);
        let to_ask = self.neighbours.iter().rev().filter(|slot| !has_not(slot)).copied().collect();
        let until = now.plus(Nanos::from_secs(ASK_NEIGHBOURS_S));
        self.searches.push(Search { target, to_ask, asked: Vec::new(), until });
        self.ask(now, out);
    }

    fn cancel(&mut self, target: &LookupTarget) {
        self.ends.cancel(target);
        let search = self.searches.iter().position(|search| search.target == *target);
        if let Some(search) = search {
            self.remove(search);
        }
    }

    fn handle_reply(&mut self, now: Nanos, reply: &ControlReply<'_>, out: &mut QuestionQueue) {
        let Message::Found { nonce, ref host } = reply.message else { return };
        let place = self.searches.iter().enumerate().find_map(|(search, of)| {
            Some((search, of.asked.iter().position(|asked| asked.nonce == *nonce)?))
        });
        let Some((search, asked)) = place else { return };
        if !self.is_from(&reply.from, &self.searches[search].asked[asked]) {
            return;
        }
        let asked = self.searches[search].asked.remove(asked);
        let target = self.searches[search].target;
        let found = host.and_then(|host| self.candidate(now, &target, &asked, &host));
        match found {
            Some(candidate) => {
                self.remove(search);
                let candidates: Candidates = [candidate].into_iter().collect();
                let end = Some(LookupEnd::Complete);
                self.ends.push(LookupResult { target, candidates, end });
            }
            None => self.note_not_here(now, &target, asked.slot),
        }
        self.ask(now, out);
    }

    fn poll(&mut self, now: Nanos, out: &mut QuestionQueue) -> Option<LookupResult> {
        if self.next_timeout().is_some_and(|due| due <= now) {
            let mut silent = Vec::new();
            for search in &mut self.searches {
                if search.until <= now {
                    search.to_ask.clear();
                }
                let late = search.asked.extract_if(.., |asked| asked.due <= now);
                silent.extend(late.map(|asked| (search.target, asked.slot)));
            }
            for (target, slot) in silent {
                self.note_not_here(now, &target, slot);
            }
        }
        // The caller has taken questions out of the queue, or room was made.
        self.ask(now, out);
        let mut result = self.ends.pop()?;
        result.candidates.retain(|candidate| !candidate.is_expired(now));
        Some(result)
    }

    fn feedback(&mut self, _: Nanos, _: &Route, _: &Outcome) {}

    fn next_timeout(&self) -> Option<Nanos> {
        let times = self
            .searches
            .iter()
            .flat_map(|search| search.asked.iter().map(|asked| asked.due).chain([search.until]));
        let left_over = self.left_over.iter().copied().filter(|_| !self.searches.is_empty());
        times.chain(left_over).min()
    }
}
