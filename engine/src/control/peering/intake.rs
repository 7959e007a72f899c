//! Who handshakes: handshake messages and beacons, from anywhere. Until one of them has proved who sent it, it leaves no
//! trace here and gets at most one answer, no longer than itself (R8).

use strowger_crypto::{
    StaticPublic,
    handshake::{Admission, Load, Refused, could_be_handshake, ik, xx},
    session::Input,
};
use strowger_frame::{Address, Burst, Mark};
use strowger_wire::link_header::{Kind, LinkHeader, Step};

use super::{
    super::{Event, base::Base},
    DownReason, HandshakeOrigin, Links, Location, Peering, discard_of,
    indices::Asker,
    nanos,
};
use crate::{
    Now,
    command::{Command, HandshakeDatagram, PuntKind},
    control::PortId,
    discard::Discard,
    limits::{COOKIES_PER_SECOND_AND_HOST, HANDSHAKE_BURSTS_MAX},
    rate::RateLimiter,
};

/// Handshake messages a second that are read for peers at their known addresses, and for all
/// others. Each costs some 0.3 ms of the slow path, which so is never busy with unknown peers for more
/// than a third of its time.
pub(super) const KNOWN_PER_SECOND: u32 = 1_500;
pub(super) const UNKNOWN_PER_SECOND: u32 = 1_000;

/// Those a second that are read for each peer at its known address, so that none of them spends what is
/// there for all: many times what a peer has reason to send.
pub(super) const KNOWN_PER_SECOND_EACH: u32 = 20;

/// Below this part of a budget, whoever comes must first show that it receives at the
/// address it sends from (WireGuard, section 5.3).
const CALM_BUDGET_PERCENT: u32 = 75;

/// Cookies given out a second, to those at known addresses and to others each: a cookie costs the slow
/// path 7 us, and a worker a send where the port has no handshake socket. A sender that forges a peer's address gets no more
/// than one host does.
const COOKIES_PER_SECOND: u32 = 2_000;

/// An event says at most once in this time, ten seconds, that an unknown peer was refused.
const UNKNOWN_PEERS_TOLD_EVERY_NS: u64 = 10_000_000_000;

/// What may be done in a second for handshake datagrams.
pub(super) struct Budgets {
    reads: RateLimiter,
    cookies: RateLimiter,
}

impl Budgets {
    pub(super) fn new(reads_per_second: u32) -> Self {
        Self {
            reads: RateLimiter::per_second(reads_per_second),
            cookies: RateLimiter::per_second(COOKIES_PER_SECOND),
        }
    }

    /// What is done for one peer.
    pub(super) fn of_a_peer() -> Self {
        Self {
            reads: RateLimiter::per_second(KNOWN_PER_SECOND_EACH),
            cookies: RateLimiter::per_second(COOKIES_PER_SECOND_AND_HOST),
        }
    }

    fn load(&self, now: Now) -> Load {
        if self.reads.has_percent(CALM_BUDGET_PERCENT, now) { Load::Normal } else { Load::Heavy }
    }
}

impl Peering {
    /// Whether another handshake message of whoever is there may be read: its own budget first, so that
    /// what one peer has too much is not taken from the others.
    pub(super) fn may_read(&mut self, link: Mark, now: Now) -> bool {
        self.peers.budgets_mut(link).is_none_or(|budgets| budgets.reads.take(now))
            && self.budgets[usize::from(link.is_unknown())].reads.take(now)
    }

    /// Whether a cookie may be given out: its own share first, as above.
    fn may_give_cookie(&mut self, link: Mark, from: Address, now: Now) -> bool {
        let may = match self.peers.budgets_mut(link) {
            Some(budgets) => budgets.cookies.take(now),
            None => self.sources.may_have_cookie(from, nanos(now)),
        };
        may && self.budgets[usize::from(link.is_unknown())].cookies.take(now)
    }

    /// Whether one who has shown that it receives there may have another message read, as far as its
    /// source goes. A peer has a budget of its own at its address.
    fn may_read_source(&mut self, link: Mark, from: Address, now: Now) -> bool {
        !link.is_unknown() || self.sources.may_read(from, nanos(now))
    }

    /// How busy we are with all of its kind, or with it.
    fn load(&mut self, link: Mark, now: Now) -> Load {
        let own = self.peers.budgets_mut(link).map_or(Load::Normal, |budgets| budgets.load(now));
        match self.budgets[usize::from(link.is_unknown())].load(now) {
            Load::Normal => own,
            Load::Heavy => Load::Heavy,
        }
    }
}

impl Links {
    /// The link of the peer that is at this address behind the port: it is no unknown peer, and has a budget
    /// of its own.
    pub(in crate::control) fn link_at(&self, port: PortId, at: Address) -> Mark {
        let known = self.peering.as_ref().and_then(|p| p.by_address.get(&Location { port, at }));
        known.copied().unwrap_or(Mark::unknown(0))
    }

    /// Handles the handshakes that workers have punted: those from known addresses first.
    pub(super) fn take_handshakes(&mut self, now: Now, base: &mut Base) {
        let punts = base.out.workers.punts();
        for _ in 0..punts.handshakes.len() {
            let Some(datagram) = punts.handshakes.pop() else { break };
            base.note_taken(datagram.link, datagram.worker, PuntKind::HandshakeDatagram);
            base.held.hold(1);
            self.take_handshake(&datagram, now, base);
        }
        for _ in 0..punts.unknown_peers.len() {
            let Some(datagram) = punts.unknown_peers.pop() else { break };
            base.held.hold(1);
            self.take_handshake(&datagram, now, base);
        }
    }

    /// Reads the handshake sockets, a few bursts of each. What is left waits in the socket, or the kernel drops it.
    pub(super) fn read_handshake_sockets(&mut self, now: Now, base: &mut Base) {
        for port in base.ports.ids() {
            for _ in 0..HANDSHAKE_BURSTS_MAX {
                let Some(mut burst) = base.ports.receive(port) else { break };
                let is_last = !burst.is_full();
                self.take_burst(port, &mut burst, now, base);
                if is_last {
                    break;
                }
            }
        }
    }

    fn take_burst(&mut self, port: PortId, burst: &mut Burst, now: Now, base: &mut Base) {
        base.held.hold(burst.len() as u64);
        for frame in burst.drain(..) {
            if !LinkHeader::parse(frame.bytes()).is_ok_and(|head| head.kind.is_handshake()) {
                base.end_handshake(port, Discard::BadLinkKind);
                continue;
            }
            let origin = base.ports.origin(port, &frame, base.out.workers.len());
            let Some((from, worker)) = origin else { return };
            let link = self.link_at(port, from);
            let datagram = HandshakeDatagram { worker, port: port.0, link, from, frame };
            self.take_handshake(&datagram, now, base);
        }
    }

    /// Answers a handshake: by the port's handshake socket if it has one, else by the worker.
    fn answer_handshake(
        &mut self,
        datagram: &HandshakeDatagram,
        message: Vec<u8>,
        base: &mut Base,
    ) {
        if !base.ports.send(PortId(datagram.port), datagram.from, &message) {
            let command = Command::Send(datagram.port, datagram.from, message);
            base.out.workers.command(usize::from(datagram.worker), command);
        }
    }

    /// Somebody handshakes: a handshake message or a beacon, from anywhere.
    pub(in crate::control) fn take_handshake(
        &mut self,
        datagram: &HandshakeDatagram,
        now: Now,
        base: &mut Base,
    ) {
        let outcome = self.read_handshake(datagram, now, base).err().unwrap_or(Discard::Handled);
        base.end_handshake(PortId(datagram.port), outcome);
    }

    /// Notes what a refused handshake message says about the peer at whose address it was sent; returns the
    /// reason to count. The source is not proved, so this is for the operator alone.
    fn refuse(&mut self, datagram: &HandshakeDatagram, why: Refused, now: Now) -> Discard {
        let reason = match (why, LinkHeader::parse(datagram.frame.bytes()).map(|head| head.lane)) {
            // The mac of XX depends on the network's name alone.
            (Refused::WrongMac, Ok(lane)) if Step::from_lane(lane) != Some(Step::Known) => {
                Some(DownReason::OtherNetwork)
            }
            _ => DownReason::of_refusal(why),
        };
        if let (Some(reason), false) = (reason, datagram.link.is_unknown()) {
            self.note_reason(datagram.link, reason, now);
        }
        discard_of(why)
    }

    /// A handshake of a node whose key is not configured.
    fn refuse_unknown(
        &mut self,
        datagram: &HandshakeDatagram,
        key: StaticPublic,
        now: Now,
        base: &mut Base,
    ) -> Discard {
        if !datagram.link.is_unknown() {
            self.note_reason(datagram.link, DownReason::OtherKey { key }, now);
        }
        let Some(peering) = &mut self.peering else { return Discard::UnknownPeer };
        let is_due = |told: Now| now.0.saturating_sub(told.0) >= UNKNOWN_PEERS_TOLD_EVERY_NS;
        if peering.unknown_told.is_none_or(is_due) {
            peering.unknown_told = Some(now);
            let (port, at) = (PortId(datagram.port), datagram.from);
            base.out.events.push(Event::UnknownRefused { port, at, key });
        }
        Discard::UnknownPeer
    }

    fn read_handshake(
        &mut self,
        datagram: &HandshakeDatagram,
        now: Now,
        base: &mut Base,
    ) -> Result<(), Discard> {
        let message = datagram.frame.bytes();
        let header = LinkHeader::parse(message).map_err(|_| Discard::Malformed)?;
        if header.kind == Kind::Beacon {
            return self.take_beacon(datagram, now, base);
        }
        let peering = self.peering.as_mut().ok_or(Discard::Unhandled)?;
        let by = HandshakeOrigin::of(datagram);
        if !could_be_handshake(&header, message.len()) {
            return Err(Discard::Malformed);
        }
        if header.kind != Kind::Initiation {
            return self.take_handshake_answer(header, datagram, now, base);
        }
        let load = peering.load(datagram.link, now);
        let mut source = datagram.from.to_bytes();
        // The same address behind two ports is two sources.
        source.extend(datagram.port.to_be_bytes());
        // Only what is read is paid for from the budget of reading: neither noise nor those who do not
        // receive where they send from can spend what honest handshakes need.
        let admitted = match peering.checker.admit(&source, message, load) {
            Err(why) => return Err(self.refuse(datagram, why, now)),
            Ok(Admission::CookieReply(_))
                if !peering.may_give_cookie(datagram.link, datagram.from, now) =>
            {
                return Err(Discard::OverBudget);
            }
            Ok(Admission::CookieReply(cookie)) => {
                self.answer_handshake(datagram, cookie.to_vec(), base);
                return Ok(());
            }
            // Under load it has shown where it is, and is counted by that.
            Ok(Admission::Admitted(_))
                if load == Load::Heavy
                    && !peering.may_read_source(datagram.link, datagram.from, now) =>
            {
                return Err(Discard::OverBudget);
            }
            Ok(Admission::Admitted(_)) if !peering.may_read(datagram.link, now) => {
                return Err(Discard::OverBudget);
            }
            Ok(Admission::Admitted(admitted)) => admitted,
        };
        match admitted.step() {
            Step::Known => {
                let initiation = match ik::read(&peering.config.local, &admitted) {
                    Ok(initiation) => initiation,
                    Err(why) => return Err(self.refuse(datagram, why, now)),
                };
                let known = peering.by_key.get(&initiation.static_key().0).copied();
                let mark = match known {
                    Some(mark) => mark,
                    // It knows our key, and we its identity alone.
                    None if self.expects_unknown_keys() => {
                        let identity = initiation.identity().map_err(discard_of)?;
                        match self.discovered_as(&identity) {
                            Some(mark) => mark,
                            None => {
                                let key = *initiation.static_key();
                                return Err(self.refuse_unknown(datagram, key, now, base));
                            }
                        }
                    }
                    None => {
                        return Err(self.refuse_unknown(
                            datagram,
                            *initiation.static_key(),
                            now,
                            base,
                        ));
                    }
                };
                let peering = self.peering.as_mut().ok_or(Discard::Unhandled)?;
                let peer = peering.peers.get_mut(&mark).ok_or(Discard::Unhandled)?;
                let newest = peer.session.guard().newest;
                if newest.is_some_and(|newest| initiation.timestamp() <= newest) {
                    // A recorded one spends nothing of the peer's.
                    self.note_reason(mark, DownReason::StampRefused, now);
                    return Err(Discard::HandshakeStale);
                }
                if datagram.link != mark && !peer.elsewhere.take(now) {
                    return Err(Discard::OverBudget);
                }
                let input = Input::Initiation(Box::new(initiation));
                self.drive(mark, input, Some(by), now, base)
            }
            Step::Discover => {
                if !self.expects_unknown_keys() {
                    return Err(Discard::UnknownPeer);
                }
                let peering = self.peering.as_ref().ok_or(Discard::Unhandled)?;
                let (checker, local) = (&peering.checker, &peering.config.local);
                let answer = xx::answer(checker, local, &peering.offer, &source, &admitted);
                let answer = answer.map_err(discard_of)?;
                self.answer_handshake(datagram, answer, base);
                Ok(())
            }
            Step::Finish => {
                let (checker, local) = (&peering.checker, &peering.config.local);
                let finish = xx::read_finish(checker, local, &peering.offer, &source, &admitted)
                    .map_err(discard_of)?;
                self.take_unknown(finish, datagram, now, base)
            }
        }
    }
    /// A response or cookie. The index finds the attempt that it answers, then its mac is looked at, and only
    /// one whose mac is right is read, within the attempt's own number: nothing else costs anybody
    /// anything.
    fn take_handshake_answer(
        &mut self,
        header: LinkHeader,
        datagram: &HandshakeDatagram,
        now: Now,
        base: &mut Base,
    ) -> Result<(), Discard> {
        let message = datagram.frame.bytes();
        let peering = self.peering.as_mut().ok_or(Discard::Unhandled)?;
        let awaited = peering.indices.awaited(header.index).ok_or(Discard::NoSession)?;
        let Asker::Peer(mark) = awaited.asker else {
            return self.take_call(header, datagram, now, base);
        };
        let peer = peering.peers.get(&mark).ok_or(Discard::NoSession)?;
        peer.session.check_response(message).map_err(discard_of)?;
        let by = HandshakeOrigin::of(datagram);
        let was_asked = peer.reach.has_asked(by.from);
        // A cookie was read with its mac.
        if header.kind == Kind::Response && !awaited.may_read(was_asked) {
            return Err(Discard::OverBudget);
        }
        let taken = self.drive(mark, Input::Message(message), Some(by), now, base);
        if taken == Err(Discard::HandshakeUnreadable) && header.lane == Step::Known.lane() {
            // Its mac is right, so its sender knows our key; and only the peer can have read ours.
            self.note_reason(mark, DownReason::OtherPsk, now);
        }
        taken?;
        if header.kind == Kind::Response {
            self.follow_answer(mark, by.from, now, base);
        }
        Ok(())
    }
}
