//! Whether a peer is still there, and where: probes, path challenges, and what their answers prove. A
//! handshake never moves an address; only the answer from it does.

use std::mem;

use strowger_crypto::{
    Nanos, Sealed,
    link_header::{Kind, LINK_HEADER_BYTES},
    session::Input,
};
use strowger_frame::{Address, Frame, Mark};

use super::{
    super::{Event, Switch},
    LinkState, Peer, Peering, nanos,
    path_mtu::TOKEN_BYTES,
};
use crate::{Now, orders::Order};

/// A path challenge that was not answered is forgotten after this long.
const CHALLENGE_LIFE: Nanos = Nanos::from_secs(5);

/// How soon it is noticed that a link is dead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Liveness {
    /// After this long without a frame from it, although some were sent to it, a peer is asked.
    pub interval_ns: u64,
    /// After this many intervals, two at least, without a sign of it the link is down.
    pub multiplier: u8,
    /// Whether it is asked even when nothing was sent to it.
    pub always: bool,
}

impl Liveness {
    /// How long a peer may be silent that was asked, and is still taken for alive.
    pub fn detection_ns(&self) -> u64 {
        self.interval_ns.saturating_mul(u64::from(self.multiplier.max(2)))
    }
}

impl Default for Liveness {
    /// A minute's silence costs nothing; a link in use that dies is noticed within 15 seconds.
    fn default() -> Self {
        Self { interval_ns: 5_000_000_000, multiplier: 3, always: false }
    }
}

/// A question to an address: are you the peer?
pub(super) struct Challenge {
    pub(super) token: [u8; TOKEN_BYTES],
    pub(super) to: Address,
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
pub(super) struct Pulse {
    pub(super) heard_ns: u64,
    pub(super) frames_out: u64,
    pub(super) asked: u8,
    pub(super) asked_at: u64,
    /// It has spoken since frames were last counted, though in no data.
    pub(super) answered: bool,
}

/// Who else has to do with a peer's move.
struct Displaced {
    /// Who was known where it is now.
    former: Option<Mark>,
    /// Who is to be known from now on where the peer was: it was displaced there.
    heir: Option<(Mark, Address)>,
}

impl Peering {
    /// A peer is at this address from now on; without one, nowhere. Where another is known, that one
    /// stays.
    pub(super) fn settle(&mut self, mark: Mark, at: Option<Address>) {
        let Some(peer) = self.peers.get_mut(&mark) else { return };
        let port = peer.spec.port;
        let was = mem::replace(&mut peer.at, at);
        if let Some(was) = was.map(|was| (port, was))
            && self.by_address.get(&was) == Some(&mark)
        {
            self.by_address.remove(&was);
        }
        if let Some(at) = at {
            self.by_address.entry((port, at)).or_insert(mark);
        }
    }

    /// Whether the ports know this address as the peer's.
    pub(super) fn is_known_at(&self, mark: Mark, at: Address) -> bool {
        let Some(peer) = self.peers.get(&mark) else { return false };
        peer.at == Some(at) && self.by_address.get(&(peer.spec.port, at)) == Some(&mark)
    }

    /// The same as [`settle`](Self::settle), whoever is known there.
    fn take_place(&mut self, mark: Mark, at: Address) -> Option<Displaced> {
        let peer = self.peers.get(&mark)?;
        let (port, was) = (peer.spec.port, peer.at.filter(|was| *was != at));
        self.settle(mark, Some(at));
        let former = self.by_address.insert((port, at), mark).filter(|other| *other != mark);
        let left = was.filter(|was| !self.by_address.contains_key(&(port, *was)));
        let heir = left.and_then(|left| {
            let is_heir = |peer: &Peer| peer.spec.port == port && peer.at == Some(left);
            let (&heir, _) = self.peers.iter().find(|(_, peer)| is_heir(peer))?;
            self.by_address.insert((port, left), heir);
            Some((heir, left))
        });
        Some(Displaced { former, heir })
    }
}

impl Switch {
    /// Authenticated frames of a link come from another address than it has.
    pub(in crate::control) fn take_roamed(&mut self, link: Mark, to: Address, now: Now) {
        let Some(peering) = &mut self.peering else { return };
        let Some(peer) = peering.peers.get(&link) else { return };
        if peering.is_known_at(link, to) {
            return;
        }
        if peer.at.is_none() && !peering.by_address.contains_key(&(peer.spec.port, to)) {
            // Nobody was there before, and the frame that told was fresh and authentic.
            return self.move_to(link, to);
        }
        if peer.challenge.as_ref().is_some_and(|c| c.to == to && c.is_fresh(now)) {
            return;
        }
        self.challenge(link, Some(to), now);
    }

    /// Asks whoever is at `to`, or where the link is, to show that it is the peer.
    pub(super) fn challenge(&mut self, link: Mark, to: Option<Address>, now: Now) {
        let Some(peering) = &mut self.peering else { return };
        let Some(peer) = peering.peers.get_mut(&link) else { return };
        let Some(at) = to.or(peer.at) else { return };
        // A probe does not take the place of a challenge that is on its way to somewhere else: the
        // peer that has moved is asked there.
        if to.is_none() && peer.challenge.as_ref().is_some_and(|c| c.to != at && c.is_fresh(now)) {
            return;
        }
        let mut token = [0; TOKEN_BYTES];
        if peering.config.entropy.fill(&mut token).is_err() {
            return;
        }
        let owner = usize::from(peer.owner);
        peer.challenge = Some(Challenge { token, to: at, since: nanos(now) });
        let bytes = token.into_iter().collect();
        self.give(owner, Order::Say(link, Sealed::PathChallenge, Some(at), bytes));
    }

    /// The peer has shown that it is there. Whoever was there before is not any more: the ports forget
    /// it, and it is asked there until it proves to be somewhere. And who was displaced so where the
    /// peer was may be there again.
    pub(super) fn move_to(&mut self, link: Mark, to: Address) {
        let slot = self.slot_of(link);
        let displaced = self.peering.as_mut().and_then(|peering| peering.take_place(link, to));
        let Some(Displaced { former, heir }) = displaced else { return };
        for worker in 0..self.workers.len() {
            if let Some(former) = former {
                self.give(worker, Order::Unaddress(former));
            }
            self.give(worker, Order::Readdress(link, to));
            if let Some((heir, at)) = heir {
                self.give(worker, Order::Readdress(heir, at));
            }
        }
        if let Some(peer) = self.peering.as_mut().and_then(|p| p.peers.get_mut(&link)) {
            peer.challenge = None;
        }
        self.forget_path(link);
        if let Some(Some(attachment)) = self.attached.get_mut(link.index()).map(|(_, a)| a) {
            attachment.at = Some(to);
        }
        self.events.extend(slot.map(|slot| Event::Roamed(slot, to)));
    }

    /// A link's own message: a challenge, or the answer to one.
    pub(in crate::control) fn take_saying(
        &mut self,
        link: Mark,
        kind: Kind,
        from: Option<Address>,
        frame: &Frame,
        now: Now,
    ) {
        let Some(peer) = self.peering.as_mut().and_then(|p| p.peers.get_mut(&link)) else { return };
        let token = frame.bytes().get(LINK_HEADER_BYTES..).unwrap_or_default();
        peer.pulse.heard_ns = now.0;
        peer.pulse.asked = 0;
        peer.pulse.answered = true;
        match kind {
            Kind::PathChallenge => {
                // What follows it is padding, which only has to arrive.
                let token = token.first_chunk::<TOKEN_BYTES>();
                let (Some(bytes), owner) = (token, usize::from(peer.owner)) else { return };
                // Back to where it came from, which may be an address that nobody has yet.
                let bytes = bytes.iter().copied().collect();
                self.give(owner, Order::Say(link, Sealed::PathAnswer, from, bytes));
                // As fresh and authentic as data is, so it tells as well where the peer may be now;
                // else whoever moves and is silent is sent to where it was.
                if let Some(from) = from {
                    self.take_roamed(link, from, now);
                }
            }
            Kind::PathAnswer => {
                let answered = peer.challenge.take_if(|c| c.token == token && from == Some(c.to));
                match answered {
                    Some(Challenge { to, .. }) => {
                        let peering = self.peering.as_ref();
                        if !peering.is_some_and(|peering| peering.is_known_at(link, to)) {
                            self.move_to(link, to);
                        }
                    }
                    None if from == peer.at => self.take_path_answer(link, token, now),
                    None => (),
                }
            }
            _ => (),
        }
    }

    /// Whether a peer is still there (RFC 5880: a detection time of interval times multiplier).
    pub(super) fn feel_pulse(&mut self, mark: Mark, now: Now) {
        let Some(attachment) = self.attached.get(mark.index()).and_then(|(_, a)| a.as_ref()) else {
            return;
        };
        let heard = attachment.tallies.iter().map(|tally| tally.heard_ns.read()).max();
        let frames_out: u64 = attachment.tallies.iter().map(|t| t.frames_out.read()).sum();
        let Some(peer) = self.peering.as_mut().and_then(|p| p.peers.get_mut(&mark)) else { return };
        if peer.state != LinkState::Up {
            peer.pulse.frames_out = frames_out;
            return;
        }
        let pulse = &mut peer.pulse;
        let Liveness { interval_ns, multiplier, always } = peer.spec.liveness;
        // A worker may have seen the clock before it was put right.
        let heard = heard.unwrap_or(0).min(now.0);
        if heard > pulse.heard_ns {
            (pulse.heard_ns, pulse.asked) = (heard, 0);
            pulse.answered = true;
        }
        if mem::take(&mut pulse.answered) {
            pulse.frames_out = frames_out;
        }
        let spoke = always || frames_out > pulse.frames_out || pulse.asked > 0;
        // The first question after one interval of silence; then as many as intervals, and the last
        // one unanswered, in what is left of the detection time.
        let intervals = u64::from(multiplier.max(2));
        let (since, pause) = match pulse.asked {
            0 => (pulse.heard_ns.max(peer.keys_since.map_or(0, |n| n.0)), interval_ns),
            _ => (pulse.asked_at, interval_ns / intervals * (intervals - 1)),
        };
        if !spoke || now.0.saturating_sub(since) < pause {
            return;
        }
        if u64::from(pulse.asked) < intervals {
            pulse.asked += 1;
            pulse.asked_at = now.0;
            self.challenge(mark, None, now);
        } else {
            self.set_state(mark, LinkState::Down, now);
            self.want(mark, now);
            // Its keys go on opening what may yet come; a handshake finds out whether it is there.
            let _ = self.drive(mark, Input::Lost, None, now);
        }
    }
}
