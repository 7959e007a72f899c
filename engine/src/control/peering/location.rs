//! Where a peer is: a port and an address behind it, whether the peer has shown that it receives there,
//! and how much may be sent to an address where it has not. It never
//! decides when anything is sent.
//!
//! An address is validated as in RFC 9000, section 8:
//!
//! | seen | shows |
//! |---|---|
//! | the answer to a path challenge, from where the challenge went | the peer receives there |
//! | an answer to a handshake that went to one location and to no other | the same, of that location |
//! | the first packet under new keys | the same, of where our answer to that handshake went |
//!
//! Before that, data is not sent there, and all else is no more than what came from there. The initiations
//! that a configured address gets are the exception: they keep to their pace.

use arrayvec::ArrayVec;
use strowger_crypto::{Nanos, Sealed, limits::NEXT_MAX};
use strowger_frame::{Address, Mark};
use strowger_wire::{
    limits::TAG_BYTES,
    link_header::{Kind, LINK_HEADER_BYTES, LinkHeader, SessionIndex, Step},
};

use super::{
    super::{Event, PortId, base::Base},
    HandshakeOrigin, LinkState, Links, Peer, Peering, nanos,
};
use crate::{Now, command::Command};

/// Locations that the messages of one handshake go to: where the peer was last, where the operator wrote
/// that it is, where a beacon came from, and the second by another port.
const ASKED_MAX: usize = 4;

/// A link that has been down for this long is not looked for any more where its peer had moved to, if the
/// operator wrote where it is.
const LEARNT_KEPT_NS: u64 = 600_000_000_000;

/// A port and an address behind it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Location {
    /// The port.
    pub port: PortId,
    /// The address.
    pub at: Address,
}

/// Bytes that came from one address that is not validated, less those that were sent there.
#[derive(Debug, Default)]
struct Credit {
    to: Option<Location>,
    bytes: usize,
}

impl Credit {
    /// Something authentic came from there. What came from elsewhere before is forgotten, so that no
    /// address is sent what another has paid for.
    fn receive(&mut self, from: Location, bytes: usize) {
        if self.to.replace(from) != Some(from) {
            self.bytes = 0;
        }
        self.bytes = self.bytes.saturating_add(bytes);
    }

    /// Whether so much may be sent there, which is then counted.
    fn spend(&mut self, to: Location, bytes: usize) -> bool {
        let left = if self.to == Some(to) { self.bytes.checked_sub(bytes) } else { None };
        self.bytes = left.unwrap_or(self.bytes);
        left.is_some()
    }
}

/// What is known of where a peer can be reached, beside its location.
#[derive(Debug, Default)]
pub(super) struct Reach {
    /// What the operator wrote.
    pub(super) written: Option<Location>,
    /// The peer has shown that it receives at its location.
    pub(super) is_validated: bool,
    /// Where initiations went since the link last went up or down; and whether there were more.
    asked: ArrayVec<Location, ASKED_MAX>,
    asked_more: bool,
    /// Where our answers went to the handshakes that made these sessions. A recorded initiation is answered,
    /// too, so one place is kept for each answer that the peer may still take.
    answered: ArrayVec<(SessionIndex, Location), NEXT_MAX>,
    /// Where the peer's last handshake message came from.
    pub(super) counterpart: Option<Location>,
    credit: Credit,
    /// Keys came, and no address was validated in time: a new handshake has begun.
    pub(super) gave_up: bool,
    /// The last initiation went by an alternate port.
    by_alternate: bool,
}

impl Reach {
    pub(super) fn new(written: Option<Location>) -> Self {
        Self { written, ..Self::default() }
    }

    /// An initiation goes there.
    pub(super) fn note_asked(&mut self, to: Location) {
        if !self.asked.contains(&to) && self.asked.try_push(to).is_err() {
            self.asked_more = true;
        }
    }

    /// Whether an initiation went there.
    pub(super) fn has_asked(&self, at: Location) -> bool {
        self.asked.contains(&at)
    }

    /// An initiation was answered: this location alone was asked, so who receives there has answered.
    pub(super) fn is_sole(&self, at: Location) -> bool {
        !self.asked_more && self.asked.as_slice() == [at]
    }

    /// Whether it is the alternate port's turn: every other initiation goes by it.
    fn take_turn(&mut self) -> bool {
        self.by_alternate = !self.by_alternate;
        self.by_alternate
    }

    /// Keys of this session are the peer's when it uses them, and then it receives where our answer went.
    pub(super) fn note_answered(&mut self, index: SessionIndex, to: Location) {
        if self.answered.is_full() {
            self.answered.remove(0);
        }
        self.answered.push((index, to));
    }

    /// The peer has used the keys of this session: where our answer went that made them.
    pub(super) fn take_answered(&mut self, index: SessionIndex) -> Option<Location> {
        let place = self.answered.iter().position(|(of, _)| *of == index)?;
        Some(self.answered.remove(place).1)
    }

    /// Something authentic of so many bytes came from there.
    pub(super) fn receive(&mut self, from: Location, bytes: usize) {
        self.credit.receive(from, bytes);
    }

    /// Whether so many bytes may be sent to an address that is not validated, which is then counted.
    pub(super) fn may_send(&mut self, to: Location, bytes: usize) -> bool {
        self.credit.spend(to, bytes)
    }

    /// Nothing that was asked or answered before means anything any more.
    pub(super) fn forget_attempts(&mut self) {
        self.asked.clear();
        self.asked_more = false;
    }

    /// Called when the slow path recovers from a panic.
    pub(super) fn reset(&mut self) {
        self.forget_attempts();
        self.answered.clear();
        self.credit = Credit::default();
    }
}

/// Who else has to do with a peer's move.
struct Displaced {
    /// Who was known where it is now.
    former: Option<Mark>,
    /// Who is to be known from now on where the peer was: it was displaced there.
    heir: Option<(Mark, Location)>,
}

impl Peering {
    /// A peer is there from now on; or nowhere. Where another is known, that one stays.
    pub(super) fn settle(&mut self, mark: Mark, to: Option<Location>) {
        let Some(peer) = self.peers.get_mut(&mark) else { return };
        let was = peer.location();
        peer.at = to.map(|to| to.at);
        if let Some(to) = to {
            peer.port = to.port;
        }
        if let Some(was) = was
            && self.by_address.get(&was) == Some(&mark)
        {
            self.by_address.remove(&was);
        }
        if let Some(to) = to {
            self.by_address.entry(to).or_insert(mark);
        }
    }

    /// Whether the ports know this as where the peer is.
    pub(super) fn is_known_at(&self, mark: Mark, at: Location) -> bool {
        let Some(peer) = self.peers.get(&mark) else { return false };
        peer.location() == Some(at) && self.by_address.get(&at) == Some(&mark)
    }

    /// Whether the peer has shown that it receives there, and the ports know it there.
    pub(super) fn is_validated_at(&self, mark: Mark, at: Location) -> bool {
        self.is_known_at(mark, at) && self.peers.get(&mark).is_some_and(|p| p.reach.is_validated)
    }

    /// The same as [`settle`](Self::settle), even if another peer is known there.
    fn take_place(&mut self, mark: Mark, to: Location) -> Option<Displaced> {
        let peer = self.peers.get(&mark)?;
        let was = peer.location().filter(|was| *was != to);
        self.settle(mark, Some(to));
        let former = self.by_address.insert(to, mark).filter(|other| *other != mark);
        let left = was.filter(|was| !self.by_address.contains_key(was));
        let heir = left.and_then(|left| {
            let (&heir, _) = self.peers.iter().find(|(_, peer)| peer.location() == Some(left))?;
            self.by_address.insert(left, heir);
            Some((heir, left))
        });
        Some(Displaced { former, heir })
    }
}

impl Links {
    /// Tells all workers where a link is.
    pub(super) fn readdress(&mut self, link: Mark, to: Location, base: &mut Base) {
        let home = base.ports.home(to.port);
        for worker in 0..base.out.workers.len() {
            let order = Command::SetAddress { link, port: to.port.0, home, at: to.at };
            base.out.workers.command(worker, order);
        }
        if let Some(attachment) = base.slots.user(link) {
            (attachment.port, attachment.at) = (to.port, Some(to.at));
        }
    }

    /// The peer has shown that it is there. The ports forget a peer that was there
    /// before, which is asked there until it proves to be somewhere. A peer that this one displaced at
    /// its former location may be there again.
    pub(super) fn move_to(&mut self, link: Mark, to: Location, now: Now, base: &mut Base) {
        let Some(peering) = &mut self.peering else { return };
        let is_new = !peering.is_known_at(link, to);
        if is_new {
            let Some(Displaced { former, heir }) = peering.take_place(link, to) else { return };
            for worker in 0..base.out.workers.len() {
                if let Some(former) = former {
                    base.out.workers.command(worker, Command::ClearAddress(former));
                }
            }
            self.readdress(link, to, base);
            if let Some((heir, at)) = heir {
                self.readdress(heir, at, base);
            }
        }
        if let Some(peer) = self.peering.as_mut().and_then(|p| p.peers.get_mut(&link)) {
            peer.challenge = None;
            peer.reach.is_validated = true;
        }
        if is_new {
            self.forget_path(link, base);
            let slot = base.slots.slot_of(link);
            base.out.events.extend(slot.map(|slot| Event::Roamed(slot, to.at)));
        }
        let peer = self.peering.as_ref().and_then(|p| p.peers.get(&link));
        if peer.is_some_and(|peer| peer.is_shown && peer.session.is_up()) {
            self.set_state(link, LinkState::Up, now, base);
        }
    }

    /// Sends a handshake message. An answer goes to where the question came from; what we begin
    /// ourselves, which any bytes may have been the occasion of, never does (R8).
    pub(super) fn send_handshake(
        &mut self,
        mark: Mark,
        message: Vec<u8>,
        by: Option<HandshakeOrigin>,
        now: Now,
        base: &mut Base,
    ) {
        let Some(peer) = self.peering.as_mut().and_then(|p| p.peers.get_mut(&mark)) else { return };
        let Ok(header) = LinkHeader::parse(&message) else { return };
        let (owner, here) = (peer.owner, peer.location());
        if header.kind == Kind::Response {
            peer.diagnosis.note_answer();
            // By the socket that the question came in by: it knows which of our addresses was asked.
            if let Some(by) = by.filter(|by| base.ports.has_handshake_socket(by.from.port)) {
                self.answers.push((by.from.port, by.from.at, message));
                return;
            }
            let answer = by.map(|by| (by.from, usize::from(by.worker)));
            let to = answer.or(here.map(|here| (here, base.ports.sender(owner, here.port))));
            if let Some((Location { port, at }, worker)) = to {
                base.out.workers.command(worker, Command::Send(port.0, at, message));
            }
            return;
        }
        let is_third = Step::from_lane(header.lane) == Some(Step::Finish);
        let third = peer.reach.counterpart.filter(|at| is_third && peer.reach.has_asked(*at));
        // A peer that has moved and is down may be back where the operator wrote that it is.
        let written = peer.reach.written.filter(|_| peer.state == LinkState::Down && !is_third);
        let written = written.filter(|written| here != Some(*written));
        let suggested = if is_third { None } else { peer.suggested.next.take() };
        let alternate = if is_third { None } else { self.alternate_of(mark, base) };
        let Some(peer) = self.peering.as_mut().and_then(|p| p.peers.get_mut(&mark)) else { return };
        if let Some(by) = suggested {
            peer.suggested.tried = Some(by.from);
        }
        let mut to: ArrayVec<(Location, Option<u8>), ASKED_MAX> = ArrayVec::new();
        match alternate.filter(|_| peer.reach.take_turn()) {
            // Alone: of two copies the peer answers the one that comes first, which may be by the way that
            // no answer comes back.
            Some(alternate) => to.push((alternate, None)),
            None => {
                to.extend(third.or(here).map(|at| (at, None)));
                to.extend(written.map(|at| (at, None)));
            }
        }
        to.extend(suggested.map(|by| (by.from, Some(by.worker))));
        for (at, _) in &to {
            peer.reach.note_asked(*at);
        }
        if let Some((Location { at, .. }, _)) = to.first() {
            peer.diagnosis.note_attempt(*at, now);
        }
        for (Location { port, at }, worker) in to {
            let worker = worker.map_or_else(|| base.ports.sender(owner, port), usize::from);
            base.out.workers.command(worker, Command::Send(port.0, at, message.clone()));
        }
    }

    /// A handshake message was good, and has made keys: what that shows of where the peer is.
    pub(super) fn note_handshake(&mut self, mark: Mark, index: SessionIndex, by: HandshakeOrigin) {
        let Some(peer) = self.peering.as_mut().and_then(|p| p.peers.get_mut(&mark)) else { return };
        peer.reach.receive(by.from, by.bytes);
        peer.reach.counterpart = Some(by.from);
        let here = peer.location();
        if !by.is_response {
            peer.reach.note_answered(index, by.from);
        } else if here.is_some_and(|here| peer.reach.is_sole(here)) {
            peer.reach.is_validated = true;
        } else if peer.state == LinkState::Down && here != Some(by.from) {
            // No answer has come from where it was since.
            peer.reach.is_validated = false;
        }
    }

    /// The peer has answered a handshake from one of several places where it was asked: whether it is
    /// there is for a path challenge to find out.
    pub(super) fn follow_answer(&mut self, mark: Mark, from: Location, now: Now, base: &mut Base) {
        let Some(peering) = &mut self.peering else { return };
        let Some(peer) = peering.peers.get_mut(&mark) else { return };
        let is_suggested = peer.suggested.tried.take() == Some(from);
        let is_asked = is_suggested || peer.reach.has_asked(from);
        if is_asked && !peering.is_validated_at(mark, from) {
            self.challenge(mark, Some(from), now, base);
        }
    }

    /// Sends a keepalive under the newest keys, so that the peer knows that we have them: to where the
    /// handshake was, as long as data goes nowhere.
    pub(super) fn confirm(&mut self, mark: Mark, base: &mut Base) {
        let Some(peer) = self.peering.as_mut().and_then(|p| p.peers.get_mut(&mark)) else { return };
        let (owner, mut port, reach) = (peer.owner, peer.port, &mut peer.reach);
        let mut to = None;
        if !reach.is_validated {
            let Some(at) = reach.counterpart else { return };
            if !reach.may_send(at, LINK_HEADER_BYTES + TAG_BYTES) {
                return;
            }
            (to, port) = (Some((at.port.0, at.at)), at.port);
        }
        base.out.workers.command(
            base.ports.sender(owner, port),
            Command::SendLinkMessage(mark, Sealed::Data, to, ArrayVec::new()),
        );
    }

    /// The peer has used the keys that our answer to its handshake made: it receives where that went.
    /// Only one that is nowhere moves there at once; another is asked.
    pub(super) fn take_receipt(
        &mut self,
        link: Mark,
        session: SessionIndex,
        now: Now,
        base: &mut Base,
    ) {
        let Some(peering) = &mut self.peering else { return };
        let Some(peer) = peering.peers.get_mut(&link) else { return };
        let Some(at) = peer.reach.take_answered(session) else { return };
        let age_ns = peer.keys_since.map_or(u64::MAX, |since| now.0.saturating_sub(since.0));
        let is_found_out = peer.conflict.note(at, age_ns, now);
        let two = peer.conflict.locations(now).filter(|_| is_found_out);
        let (here, is_down) = (peer.location(), peer.state == LinkState::Down);
        let is_free = here.is_none() && !peering.by_address.contains_key(&at);
        if is_free || peering.is_known_at(link, at) {
            self.move_to(link, at, now, base);
        } else if is_down && let Some(peer) = peering.peers.get_mut(&link) {
            // No answer has come from where it was since.
            peer.reach.is_validated = false;
        }
        if let (Some(slot), Some(two)) = (base.slots.slot_of(link), two) {
            base.out.events.push(Event::KeyOnTwoNodes(slot, two.map(|location| location.at)));
        }
    }

    /// Shows all peers this node's new address.
    pub(in crate::control) fn show_where_we_are(&mut self, now: Now, base: &mut Base) {
        let Some(peering) = &self.peering else { return };
        let all: Vec<_> = peering.peers.iter().map(|(&mark, peer)| (mark, peer.state)).collect();
        for (mark, state) in all {
            match state {
                LinkState::Up => self.challenge(mark, None, now, base),
                LinkState::Quiet => self.ask_anew(mark, now, base),
                LinkState::Down => (),
            }
        }
    }

    /// Where the location of a link that has been down for long was learnt, and another is written: the
    /// peer is looked for there alone.
    pub(super) fn return_to_written(&mut self, mark: Mark, now: Now, base: &mut Base) {
        let Some(peering) = &mut self.peering else { return };
        let Some(peer) = peering.peers.get_mut(&mark) else { return };
        let down_ns = now.0.saturating_sub(peer.down_since.0);
        let (Some(written), here) = (peer.reach.written, peer.location()) else { return };
        if peer.state != LinkState::Down || here == Some(written) || down_ns < LEARNT_KEPT_NS {
            return;
        }
        self.look_where_written(mark, base);
    }

    /// The peer is taken to be where the operator wrote, and has shown nothing yet.
    pub(super) fn look_where_written(&mut self, mark: Mark, base: &mut Base) {
        let Some(peering) = &mut self.peering else { return };
        let Some(peer) = peering.peers.get_mut(&mark) else { return };
        let Some(written) = peer.reach.written else { return };
        peer.reach.is_validated = false;
        peering.settle(mark, Some(written));
        if peering.is_known_at(mark, written) {
            self.readdress(mark, written, base);
        } else {
            base.out.workers.command_all(|_| Command::ClearAddress(mark));
        }
    }
}

impl Peer {
    /// When [`Links::return_to_written`] has something to do.
    pub(super) fn return_due(&self) -> Option<Nanos> {
        let elsewhere = self.reach.written.is_some() && self.location() != self.reach.written;
        let is_lost = self.state == LinkState::Down && elsewhere;
        is_lost.then(|| nanos(self.down_since).plus(Nanos(LEARNT_KEPT_NS)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(port: u16) -> Location {
        Location { port: PortId(port), at: Address::Only }
    }

    #[test]
    fn nothing_is_sent_on_credit_and_nothing_on_what_another_address_has_paid() {
        let mut credit = Credit::default();
        assert!(!credit.spend(at(1), 1));
        credit.receive(at(1), 40);
        assert!(!credit.spend(at(2), 1));
        assert!(credit.spend(at(1), 32) && !credit.spend(at(1), 32));
        credit.receive(at(1), 24);
        assert!(credit.spend(at(1), 32), "8 were left");
        credit.receive(at(1), 1_000);
        credit.receive(at(2), 10);
        assert!(!credit.spend(at(1), 10) && !credit.spend(at(2), 11));
    }

    #[test]
    fn an_answer_shows_where_its_question_went_only_if_it_went_nowhere_else() {
        let mut reach = Reach::default();
        assert!(!reach.is_sole(at(1)));
        reach.note_asked(at(1));
        reach.note_asked(at(1));
        assert!(reach.is_sole(at(1)) && !reach.is_sole(at(2)));
        reach.note_asked(at(2));
        assert!(!reach.is_sole(at(1)) && reach.has_asked(at(2)));
        reach.forget_attempts();
        for port in 0..=ASKED_MAX as u16 {
            reach.note_asked(at(port));
        }
        assert!(!reach.is_sole(at(0)) && reach.asked_more);
    }
}
