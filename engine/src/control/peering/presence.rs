//! Whether a peer is still there, and where: probes, path challenges, and what their answers prove. A
//! handshake never moves an address; only the answer from it does.

use std::mem;

use strowger_crypto::{
    Nanos, Sealed,
    limits::{ATTEMPT_LIFE, RETRY_AFTER},
    session::Input,
};
use strowger_frame::{Frame, Mark};
use strowger_wire::{
    limits::TAG_BYTES,
    link_header::{Kind, LINK_HEADER_BYTES},
};

use super::{
    super::base::Base, LinkState, Links, Liveness, Location, Peer, nanos, path_mtu::TOKEN_BYTES,
};
use crate::{Now, command::Command};

/// A path challenge that was not answered is forgotten after this long.
const CHALLENGE_LIFE: Nanos = Nanos::from_secs(5);

/// Bytes of the shortest path challenge, and of its answer (wire.md W3-21).
const CHALLENGE_BYTES: usize = LINK_HEADER_BYTES + TOKEN_BYTES + TAG_BYTES;

/// Bytes of a probe: where its sender's address is new to the peer, they pay for the answer and for a
/// challenge of the peer's own.
const PROBE_BYTES: u16 = 2 * CHALLENGE_BYTES as u16;

/// A peer that has keys and whose address is not validated is asked again after this.
const ASKED_AGAIN_AFTER: Nanos = RETRY_AFTER;

/// And with other keys after this.
const VALIDATED_WITHIN: Nanos = ATTEMPT_LIFE;

/// A question to an address: are you the peer?
pub(super) struct Challenge {
    pub(super) token: [u8; TOKEN_BYTES],
    pub(super) to: Location,
    pub(super) since: Nanos,
}

impl Challenge {
    /// Whether its answer may still be on its way.
    pub(super) fn is_fresh(&self, now: Now) -> bool {
        nanos(now).since(self.since) < CHALLENGE_LIFE
    }
}

/// What liveness is judged by.
#[derive(Default)]
pub(super) struct PeerLiveness {
    pub(super) heard_ns: u64,
    pub(super) frames_out: u64,
    pub(super) asked: u8,
    pub(super) asked_at: u64,
    /// It has spoken since frames were last counted, though in no data.
    pub(super) answered: bool,
}

impl Links {
    /// An authenticated frame of a link of so many bytes came from elsewhere than the link is.
    pub(in crate::control) fn take_roamed(
        &mut self,
        link: Mark,
        from: Location,
        bytes: usize,
        now: Now,
        base: &mut Base,
    ) {
        let Some(peering) = &mut self.peering else { return };
        if peering.is_validated_at(link, from) {
            return;
        }
        let Some(peer) = peering.peers.get_mut(&link) else { return };
        peer.reach.receive(from, bytes);
        if peer.challenge.as_ref().is_some_and(|c| c.to == from && c.is_fresh(now)) {
            return;
        }
        self.challenge(link, Some(from), now, base);
    }

    /// Asks the node at `to`, or where the link is, to show that it is the peer. Until it has shown that,
    /// no more is sent there than came from there (RFC 9000, section 8.1).
    pub(super) fn challenge(
        &mut self,
        link: Mark,
        to: Option<Location>,
        now: Now,
        base: &mut Base,
    ) {
        let Some(peering) = &mut self.peering else { return };
        let Some(peer) = peering.peers.get(&link) else { return };
        let Some(at) = to.or(peer.location()) else { return };
        // Displaced there by another that answered, it is asked there all the same.
        let is_validated = peer.reach.is_validated && peer.location() == Some(at);
        let Some(peer) = peering.peers.get_mut(&link) else { return };
        // A probe does not take the place of a challenge that is on its way to somewhere else: the
        // peer that has moved is asked there.
        if to.is_none() && peer.challenge.as_ref().is_some_and(|c| c.to != at && c.is_fresh(now)) {
            return;
        }
        let mut token = [0; TOKEN_BYTES];
        if peering.config.entropy.fill(&mut token).is_err() {
            return;
        }
        if !is_validated && !peer.reach.may_send(at, CHALLENGE_BYTES) {
            return;
        }
        // Asked once more, it is the same question: the answer to the first may be under way.
        let again = peer.challenge.as_ref().filter(|c| !is_validated && c.to == at);
        let token = again.filter(|c| c.is_fresh(now)).map_or(token, |c| c.token);
        peer.challenge = Some(Challenge { token, to: at, since: nanos(now) });
        let (owner, to) = (peer.owner, (at.port.0, at.at));
        let order = if is_validated {
            Command::Probe(link, to, token, PROBE_BYTES)
        } else {
            Command::SendLinkMessage(
                link,
                Sealed::PathChallenge,
                Some(to),
                token.into_iter().collect(),
            )
        };
        base.out.workers.command(base.ports.sender(owner, at.port), order);
    }

    /// A link has keys, and its peer has not shown yet where it receives: it is asked again, and after a
    /// while a new handshake begins.
    pub(super) fn seek_validation(&mut self, mark: Mark, now: Now, base: &mut Base) {
        let Some(peering) = &mut self.peering else { return };
        let Some(peer) = peering.peers.get_mut(&mark) else { return };
        if peer.state.is_up() || peer.reach.is_validated || !peer.session.is_up() {
            return;
        }
        let age = peer.keys_since.map_or(0, |since| now.0.saturating_sub(since.0));
        if age >= VALIDATED_WITHIN.0 {
            if !mem::replace(&mut peer.reach.gave_up, true) {
                self.give_up(mark, base);
                let _ = self.drive(mark, Input::Lost, None, now, base);
            }
            return;
        }
        let last = peer.challenge.as_ref().map(|challenge| (challenge.to, challenge.since));
        let (to, since) = match last {
            Some((to, since)) => (Some(to), since),
            None => (peer.reach.counterpart.or(peer.location()), Nanos::ZERO),
        };
        if to.is_some() && nanos(now).since(since) >= ASKED_AGAIN_AFTER {
            self.challenge(mark, to, now, base);
        }
    }

    /// A link's own message: a challenge, or the answer to one.
    pub(in crate::control) fn take_link_message(
        &mut self,
        link: Mark,
        kind: Kind,
        from: Option<Location>,
        frame: &Frame,
        now: Now,
        base: &mut Base,
    ) {
        let bytes = frame.len() + TAG_BYTES;
        let Some(peer) = self.peering.as_mut().and_then(|p| p.peers.get_mut(&link)) else { return };
        let token = frame.bytes().get(LINK_HEADER_BYTES..).unwrap_or_default();
        peer.liveness.heard_ns = now.0;
        peer.liveness.asked = 0;
        peer.liveness.answered = true;
        match kind {
            Kind::PathChallenge => {
                // What follows it is padding, which only has to arrive.
                let token = token.first_chunk::<TOKEN_BYTES>();
                let (Some(token), Some(from), owner) = (token, from, peer.owner) else { return };
                // Back to where it came from, which may be an address that no peer has yet; it is no
                // longer than the question.
                peer.reach.receive(from, bytes);
                peer.reach.may_send(from, CHALLENGE_BYTES);
                let to = Some((from.port.0, from.at));
                let answer = Command::SendLinkMessage(
                    link,
                    Sealed::PathResponse,
                    to,
                    token.iter().copied().collect(),
                );
                base.out.workers.command(base.ports.sender(owner, from.port), answer);
                // As fresh and authentic as data is, so it tells as well where the peer may be now;
                // else whoever moves and is silent is sent to where it was.
                self.take_roamed(link, from, 0, now, base);
            }
            Kind::PathResponse => {
                let answered = peer.challenge.take_if(|c| c.token == token && from == Some(c.to));
                match answered {
                    Some(Challenge { to, .. }) => {
                        peer.is_shown = true;
                        self.move_to(link, to, now, base);
                    }
                    None if from == peer.location() => {
                        self.take_path_response(link, token, now, base)
                    }
                    None => (),
                }
            }
            _ => (),
        }
    }

    /// When a frame last came in by a link, and how many have left by it.
    fn traffic_of(&self, mark: Mark, base: &Base) -> Option<(u64, u64)> {
        let tallies = &base.slots.user_of(mark)?.tallies;
        let heard = tallies.iter().map(|tally| tally.heard_ns.read()).max();
        Some((heard.unwrap_or(0), tallies.iter().map(|tally| tally.frames_out.read()).sum()))
    }

    /// When [`check_liveness`](Self::check_liveness) has something to do, as long as no frame crosses the link.
    pub(super) fn liveness_due(&self, mark: Mark, peer: &Peer, base: &Base) -> Option<Nanos> {
        if !peer.state.is_up() {
            return None;
        }
        if peer.liveness.answered {
            return Some(Nanos::ZERO);
        }
        let (_, frames_out) = self.traffic_of(mark, base)?;
        let spoke = frames_out > peer.liveness.frames_out || peer.liveness.asked > 0;
        (spoke || peer.spec.liveness.always).then(|| Nanos(peer.asked_next_ns()))
    }

    /// Whether a peer is still there (RFC 5880: a detection time of interval times multiplier).
    pub(super) fn check_liveness(&mut self, mark: Mark, now: Now, base: &mut Base) {
        let Some((heard, frames_out)) = self.traffic_of(mark, base) else { return };
        let Some(peer) = self.peering.as_mut().and_then(|p| p.peers.get_mut(&mark)) else { return };
        if peer.state != LinkState::Up {
            peer.liveness.frames_out = frames_out;
            return;
        }
        let liveness = &mut peer.liveness;
        let Liveness { multiplier, always, .. } = peer.spec.liveness;
        // A worker may have seen the clock before it was put right.
        let heard = heard.min(now.0);
        if heard > liveness.heard_ns {
            (liveness.heard_ns, liveness.asked) = (heard, 0);
            liveness.answered = true;
        }
        if mem::take(&mut liveness.answered) {
            liveness.frames_out = frames_out;
        }
        let spoke = always || frames_out > liveness.frames_out || liveness.asked > 0;
        let intervals = u64::from(multiplier.max(2));
        if !spoke || now.0 < peer.asked_next_ns() {
            return;
        }
        let liveness = &mut peer.liveness;
        if u64::from(liveness.asked) < intervals {
            liveness.asked += 1;
            liveness.asked_at = now.0;
            self.challenge(mark, None, now, base);
        } else {
            self.set_state(mark, LinkState::Down, now, base);
            self.want(mark, now, base);
            // Its keys go on opening what may yet come; a handshake finds out whether it is there.
            let _ = self.drive(mark, Input::Lost, None, now, base);
        }
    }
}

impl Peer {
    /// When a peer that says nothing is asked, or given up: the first question comes after one interval of
    /// silence; then as many as intervals, and the last one unanswered, in what is left of the detection time.
    fn asked_next_ns(&self) -> u64 {
        let Liveness { interval_ns, multiplier, .. } = self.spec.liveness;
        let intervals = u64::from(multiplier.max(2));
        let (since, pause) = match self.liveness.asked {
            0 => (self.liveness.heard_ns.max(self.keys_since.map_or(0, |n| n.0)), interval_ns),
            _ => (self.liveness.asked_at, interval_ns / intervals * (intervals - 1)),
        };
        since.saturating_add(pause)
    }

    /// When [`Links::seek_validation`] has something to do.
    pub(super) fn validation_due(&self) -> Option<Nanos> {
        let is_sought = !self.state.is_up() && !self.reach.is_validated && self.session.is_up();
        if !is_sought || self.reach.gave_up {
            return None;
        }
        let given_up = self.keys_since.map(|since| nanos(since).plus(VALIDATED_WITHIN));
        let last = self.challenge.as_ref().map(|challenge| challenge.since);
        let may_ask = last.is_some() || self.reach.counterpart.or(self.location()).is_some();
        let asked =
            may_ask.then(|| last.map_or(Nanos::ZERO, |since| since.plus(ASKED_AGAIN_AFTER)));
        given_up.into_iter().chain(asked).min()
    }
}
