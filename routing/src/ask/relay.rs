//! Asks the own switch.

use core::fmt;

use strowger_crypto::{Entropy, Nanos, NetworkId};
use strowger_wire::{
    Label,
    control::{Message, Resolution, ResolveTarget},
    label::AnyLabel,
};

use super::{certificate_of, expiry, known_mtu, wanted};
use crate::{
    candidate::{Candidate, Candidates, Route, Source},
    ends::Ends,
    limits::{ASK_REPLY_S, ASK_TRIES, LOOKUPS_ASKED_MAX},
    peer_routing::{LookupEnd, LookupResult, LookupTarget, Outcome, PeerRouting},
    question::{ControlReply, Question, QuestionQueue},
    switch_routing::{OffendingHeader, PathError},
};

/// The default [`PeerRouting`] of a node on a slot: asks the switch of the slot by resolve messages.
///
/// The switch answers with up to four labels from this slot, from its own slots and its address
/// book, or from its router. A lookup ends with the first answer. Without an answer the question is
/// sent again after a second, twice.
///
/// A certificate in an answer is verified. A certificate that is not valid for the peer is dropped.
pub struct AskRelay {
    network: NetworkId,
    entropy: Box<dyn Entropy + Send>,
    asked: Vec<Asked>,
    ends: Ends,
}

/// A question that waits for its answer.
#[derive(Debug)]
struct Asked {
    target: LookupTarget,
    id: u32,
    due: Nanos,
    tries: u8,
}

impl fmt::Debug for AskRelay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AskRelay").field("asked", &self.asked).finish_non_exhaustive()
    }
}

/// The label of the own switch.
const OWN_SWITCH: AnyLabel = AnyLabel::W64(Label::here());

impl AskRelay {
    /// Asks the own switch of a node in `network`. The source of randomness makes the ids of
    /// questions.
    pub fn new(network: NetworkId, entropy: Box<dyn Entropy + Send>) -> AskRelay {
        AskRelay { network, entropy, asked: Vec::new(), ends: Ends::new() }
    }

    fn is_active(&self, target: &LookupTarget) -> bool {
        self.ends.has(target) || self.asked.iter().any(|asked| asked.target == *target)
    }

    /// The candidates of an answer, best first.
    fn candidates(
        &self,
        now: Nanos,
        target: &LookupTarget,
        resolution: &Resolution<'_>,
    ) -> Candidates {
        let Some(peer) = wanted(target, resolution.identity) else { return Candidates::new() };
        let certificate = resolution
            .certificate
            .and_then(|certificate| certificate_of(&peer, certificate, &self.network));
        let labels = resolution.labels.iter().flatten().filter(|label| !label.label.is_zero());
        let mut found: Candidates = labels
            .map(|label| Candidate {
                cost: label.cost,
                mtu: known_mtu(label.mtu),
                expires: expiry(now, label.seconds),
                certificate,
                ..Candidate::new(peer, Route::Label(label.label), Source::Relay)
            })
            .collect();
        found.sort_by_key(|candidate| candidate.cost);
        found
    }
}

/// Sends the question. If the queue has no room, it is sent with the next try.
fn ask(asked: &Asked, out: &mut QuestionQueue) {
    let (key, address);
    let target = match &asked.target {
        LookupTarget::Peer(peer) => {
            let (_, bytes) = peer.as_bytes().split_at(peer.as_bytes().len() - 32);
            key = <[u8; 32]>::try_from(bytes).unwrap_or_default();
            ResolveTarget::Peer(&key)
        }
        LookupTarget::Address(ip6) => {
            address = ip6.octets();
            ResolveTarget::Address(&address)
        }
    };
    let message = Message::Resolve { id: asked.id, target }.to_bytes().to_vec();
    let _ = out.push(Question { to: OWN_SWITCH, message });
}

impl PeerRouting for AskRelay {
    fn lookup(&mut self, now: Nanos, target: LookupTarget, out: &mut QuestionQueue) {
        if self.is_active(&target) {
            return;
        }
        if self.asked.len() >= LOOKUPS_ASKED_MAX {
            return self.ends.push(LookupResult::ended(target, LookupEnd::TooMany));
        }
        let mut id = [0; 4];
        if self.entropy.fill(&mut id).is_err() {
            return self.ends.push(LookupResult::ended(target, LookupEnd::Complete));
        }
        let due = now.plus(Nanos::from_secs(ASK_REPLY_S));
        let asked = Asked { target, id: u32::from_be_bytes(id), due, tries: 1 };
        ask(&asked, out);
        self.asked.push(asked);
    }

    fn cancel(&mut self, target: &LookupTarget) {
        self.ends.cancel(target);
        self.asked.retain(|asked| asked.target != *target);
    }

    fn handle_reply(&mut self, now: Nanos, reply: &ControlReply<'_>, _: &mut QuestionQueue) {
        if reply.from != OWN_SWITCH {
            return;
        }
        match reply.message {
            Message::Resolved { id, ref resolution } => {
                let Some(place) = self.asked.iter().position(|asked| asked.id == id) else {
                    return;
                };
                let Asked { target, .. } = self.asked.remove(place);
                let candidates = self.candidates(now, &target, resolution);
                let end = Some(LookupEnd::Complete);
                self.ends.push(LookupResult { target, candidates, end });
            }
            ref message => {
                // An error about a question: the switch does not answer it.
                let Some(error) = PathError::of(message) else { return };
                let OffendingHeader { flow, .. } = error.offending;
                let is_cause = |asked: &Asked| asked.id as u16 == flow;
                // Only the end marker was left of the label.
                let is_to_own_switch = error.offending.bits_left() == 1;
                let place = self.asked.iter().position(is_cause).filter(|_| is_to_own_switch);
                let Some(place) = place else { return };
                let Asked { target, .. } = self.asked.remove(place);
                self.ends.push(LookupResult::ended(target, LookupEnd::Complete));
            }
        }
    }

    fn poll(&mut self, now: Nanos, out: &mut QuestionQueue) -> Option<LookupResult> {
        let mut place = 0;
        while let Some(asked) = self.asked.get_mut(place) {
            if now < asked.due {
                place += 1;
            } else if asked.tries < ASK_TRIES {
                asked.tries += 1;
                asked.due = now.plus(Nanos::from_secs(ASK_REPLY_S));
                ask(asked, out);
                place += 1;
            } else {
                let Asked { target, .. } = self.asked.remove(place);
                self.ends.push(LookupResult::ended(target, LookupEnd::Complete));
            }
        }
        let mut result = self.ends.pop()?;
        result.candidates.retain(|candidate| !candidate.is_expired(now));
        Some(result)
    }

    fn feedback(&mut self, _: Nanos, _: &Route, _: &Outcome) {}

    fn next_timeout(&self) -> Option<Nanos> {
        self.asked.iter().map(|asked| asked.due).min()
    }
}
