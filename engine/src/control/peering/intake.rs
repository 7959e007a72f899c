//! Handshake messages from any address. A message creates no state for its sender until the sender
//! is authenticated. It gets at most one reply, which is no longer than the message (R8).

use strowger_crypto::{
    Nanos, StaticPublic,
    handshake::{
        Admission, Admitted, CookieChecker, Established, Load, Refused, TimestampGuard,
        could_be_handshake, ik, xx,
    },
    session::{Input, XxRole},
};
use strowger_frame::{Address, Mark};
use strowger_wire::link_header::{Kind, LinkHeader, Step};

use super::{
    DownReason, HandshakeOrigin, PeerError, PeeringConfig, beacons::Beacons, diagnosis::discard_of,
    indices::Asker, nanos, peers::Peers, sources::Sources, table::LinkTable,
};
use crate::{
    Now,
    command::{Command, HandshakeDatagram},
    control::{Event, PortId, base::Base},
    discard::Discard,
    limits::COOKIES_PER_SECOND_AND_HOST,
    rate::RateLimiter,
};

/// The maximum number of handshake messages read per second: from peers at their known locations,
/// and from all other senders. Each message costs the slow path about 0.3 ms, so unknown peers use
/// at most a third of its time.
const KNOWN_PER_SECOND: u32 = 1_500;
const UNKNOWN_PER_SECOND: u32 = 1_000;

/// The maximum number of handshake messages read per second and peer, from the peer's known
/// location. This limit prevents one peer from using up the common budget. It is far more than a
/// peer needs to send.
pub(super) const KNOWN_PER_SECOND_EACH: u32 = 20;

/// When less than this percentage of a budget is left, a sender must first prove with a cookie that
/// it receives at its source address (WireGuard, section 5.3).
const CALM_BUDGET_PERCENT: u32 = 75;

/// The maximum number of cookie replies sent per second to known locations, and separately to all
/// other addresses. A cookie reply costs the slow path 7 us. If the port has no handshake socket,
/// it also costs a worker one send. The limit for one peer's location is that for one host.
const COOKIES_PER_SECOND: u32 = 2_000;

/// The minimum time, in nanoseconds (ten seconds), between two events about refused unknown peers.
const UNKNOWN_REPORTED_EVERY_NS: u64 = 10_000_000_000;

/// Rate limits for handshake messages that are read, and for cookie replies.
pub(super) struct HandshakeBudgets {
    reads: RateLimiter,
    cookies: RateLimiter,
}

impl HandshakeBudgets {
    fn new(reads_per_second: u32) -> Self {
        Self {
            reads: RateLimiter::per_second(reads_per_second),
            cookies: RateLimiter::per_second(COOKIES_PER_SECOND),
        }
    }

    /// The budgets of one peer.
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

/// Decides which handshake messages are read.
pub(super) struct Intake {
    checker: CookieChecker,
    /// The budgets of senders at known locations, and those of all other senders.
    budgets: [HandshakeBudgets; 2],
    /// The budgets of senders at other locations, by source address.
    sources: Sources,
    /// The time of the last event about a refused unknown peer; `None` before the first one.
    unknown_reported: Option<Now>,
    /// The time at which the secrets were last checked.
    checked: Nanos,
}

impl Intake {
    pub(super) fn new(config: &mut PeeringConfig, now: Now) -> Result<Self, PeerError> {
        let checker = CookieChecker::new(&config.local, nanos(now), &mut *config.entropy);
        Ok(Self {
            checker: checker.map_err(|_| PeerError::NoIdentity)?,
            budgets: [KNOWN_PER_SECOND, UNKNOWN_PER_SECOND].map(HandshakeBudgets::new),
            sources: Sources::new(),
            unknown_reported: None,
            checked: nanos(now),
        })
    }

    /// Rotates the secrets whose rotation is due, before handshakes are checked with them.
    pub(super) fn renew_secrets(&mut self, config: &mut PeeringConfig, now: Now) {
        let _ = self.checker.rotate(nanos(now), &mut *config.entropy);
        self.checked = nanos(now);
        self.sources.rotate(nanos(now), &mut *config.entropy);
    }

    /// The time at which [`renew_secrets`](Self::renew_secrets) has work even if no handshake
    /// message arrives.
    pub(super) fn next_timeout(&self) -> Option<Nanos> {
        self.checker.erases_at()
    }

    /// Whether one more handshake message may be read from this sender. If so, the message is
    /// counted. The sender's own budget is checked first, so that one peer's excess does not use
    /// the common budget.
    fn may_read(&mut self, link: Mark, peers: &mut Peers, now: Now) -> bool {
        peers.budgets_mut(link).is_none_or(|budgets| budgets.reads.take(now))
            && self.budgets[usize::from(link.is_unknown())].reads.take(now)
    }

    /// Whether a cookie reply may be sent. The sender's own share is checked first, as in
    /// [`may_read`](Self::may_read).
    fn may_send_cookie(&mut self, link: Mark, from: Address, peers: &mut Peers, now: Now) -> bool {
        let may = match peers.budgets_mut(link) {
            Some(budgets) => budgets.cookies.take(now),
            None => self.sources.may_have_cookie(from, nanos(now)),
        };
        may && self.budgets[usize::from(link.is_unknown())].cookies.take(now)
    }

    /// Whether the rate limit of a source address allows one more message from it. The sender has
    /// proved that it receives at this address. This limit does not apply to a peer at its known
    /// location, which has its own budget.
    fn may_read_source(&mut self, link: Mark, from: Address, now: Now) -> bool {
        !link.is_unknown() || self.sources.may_read(from, nanos(now))
    }

    /// The load: heavy if less than `CALM_BUDGET_PERCENT` is left of the sender's own budget, or of
    /// the budget of all senders of its kind.
    fn load(&self, link: Mark, peers: &mut Peers, now: Now) -> Load {
        let own = peers.budgets_mut(link).map_or(Load::Normal, |budgets| budgets.load(now));
        match self.budgets[usize::from(link.is_unknown())].load(now) {
            Load::Normal => own,
            Load::Heavy => Load::Heavy,
        }
    }

    /// Handles a handshake message. Returns the drop reason if the message is dropped.
    pub(super) fn handle(
        &mut self,
        datagram: &HandshakeDatagram,
        beacons: &mut Beacons,
        table: &mut LinkTable,
        now: Now,
        base: &mut Base,
    ) -> Result<(), Discard> {
        let message = datagram.frame.bytes();
        let header = LinkHeader::parse(message).map_err(|_| Discard::Malformed)?;
        if !could_be_handshake(&header, message.len()) {
            return Err(Discard::Malformed);
        }
        if header.kind != Kind::Initiation {
            return handle_answer(header, datagram, beacons, table, now, base);
        }
        // The same address on two ports counts as two sources.
        let mut source = datagram.from.to_bytes();
        source.extend(datagram.port.to_be_bytes());
        let Some(admitted) = self.admit(datagram, &source, table, now, base)? else {
            return Ok(());
        };
        match admitted.step() {
            Step::Known => self.handle_known(&admitted, datagram, table, now, base),
            Step::Discover => {
                if !table.expects_unknown_keys() {
                    return Err(Discard::UnknownPeer);
                }
                let shared = table.shared();
                let answer =
                    xx::answer(&self.checker, shared.local(), &shared.offer, &source, &admitted);
                send_answer(datagram, answer.map_err(discard_of)?, base);
                Ok(())
            }
            Step::Finish => {
                let shared = table.shared();
                let local = shared.local();
                let finish =
                    xx::read_finish(&self.checker, local, &shared.offer, &source, &admitted);
                let finish = finish.map_err(discard_of)?;
                self.handle_finish(finish, datagram, beacons, table, now, base)
            }
        }
    }

    /// Checks the macs of an initiation, and the budgets. Returns `None` if a cookie reply was sent
    /// instead. Only messages that are read use the read budget, so neither invalid messages nor
    /// senders with forged addresses can use it up.
    fn admit<'m>(
        &mut self,
        datagram: &'m HandshakeDatagram,
        source: &[u8],
        table: &mut LinkTable,
        now: Now,
        base: &mut Base,
    ) -> Result<Option<Admitted<'m>>, Discard> {
        let (link, from) = (datagram.link, datagram.from);
        let load = self.load(link, table.peers_mut(), now);
        match self.checker.admit(source, datagram.frame.bytes(), load) {
            Err(why) => Err(refuse(datagram, why, table, now)),
            Ok(Admission::CookieReply(cookie)) => {
                if !self.may_send_cookie(link, from, table.peers_mut(), now) {
                    return Err(Discard::OverBudget);
                }
                send_answer(datagram, cookie.to_vec(), base);
                Ok(None)
            }
            Ok(Admission::Admitted(admitted)) => {
                // Under load, apply the limit of the sender's address: the sender has proved that
                // it receives there.
                let may_read = load == Load::Normal || self.may_read_source(link, from, now);
                if !may_read || !self.may_read(link, table.peers_mut(), now) {
                    return Err(Discard::OverBudget);
                }
                Ok(Some(admitted))
            }
        }
    }

    /// Handles an initiation of IK, whose sender knows this node's static key.
    fn handle_known(
        &mut self,
        admitted: &Admitted<'_>,
        datagram: &HandshakeDatagram,
        table: &mut LinkTable,
        now: Now,
        base: &mut Base,
    ) -> Result<(), Discard> {
        let initiation = match ik::read(table.shared().local(), admitted) {
            Ok(initiation) => initiation,
            Err(why) => return Err(refuse(datagram, why, table, now)),
        };
        let key = *initiation.static_key();
        let mark = match table.shared().keys.get(&key) {
            Some(mark) => Some(mark),
            // This node may know the sender only by its identity.
            None if table.expects_unknown_keys() => {
                let identity = initiation.identity().map_err(discard_of)?;
                table.peers().by_identity(&identity)
            }
            None => None,
        };
        let Some(mark) = mark else {
            return Err(self.refuse_unknown(datagram, key, table, now, base));
        };
        let (peer, mut link) = table.link(mark, now, base).ok_or(Discard::Unhandled)?;
        let newest = peer.session().guard().newest;
        if newest.is_some_and(|newest| initiation.timestamp() <= newest) {
            // A replayed initiation does not use the peer's budget.
            peer.status_mut().note_reason(DownReason::StampRefused, now);
            return Err(Discard::HandshakeStale);
        }
        if datagram.link != mark && !peer.may_initiate_elsewhere(now) {
            return Err(Discard::OverBudget);
        }
        let input = Input::Initiation(Box::new(initiation));
        peer.drive(input, Some(HandshakeOrigin::of(datagram)), &mut link)
    }

    /// Reports a handshake from a node whose key is not configured.
    fn refuse_unknown(
        &mut self,
        datagram: &HandshakeDatagram,
        key: StaticPublic,
        table: &mut LinkTable,
        now: Now,
        base: &mut Base,
    ) -> Discard {
        if let Some(peer) = table.peers_mut().get_mut(datagram.link) {
            peer.status_mut().note_reason(DownReason::OtherKey { key }, now);
        }
        let is_due = |last: Now| now.0.saturating_sub(last.0) >= UNKNOWN_REPORTED_EVERY_NS;
        if self.unknown_reported.is_none_or(is_due) {
            self.unknown_reported = Some(now);
            let (port, at) = (PortId(datagram.port), datagram.from);
            base.out.events.push(Event::UnknownRefused { port, at, key });
        }
        Discard::UnknownPeer
    }

    /// Handles the last message of XX. It proves the identity of a node whose key is not
    /// configured, and that the node receives at its address.
    fn handle_finish(
        &mut self,
        finish: xx::Finish,
        datagram: &HandshakeDatagram,
        beacons: &mut Beacons,
        table: &mut LinkTable,
        now: Now,
        base: &mut Base,
    ) -> Result<(), Discard> {
        let expected = table.expected_by(finish.identity(), datagram);
        let index = finish.our_index();
        if !table.shared_mut().sessions.indices().take_index(index) {
            // The place of this index is in use. The sender will begin another handshake, with
            // another index.
            return Err(Discard::OverBudget);
        }
        let key = finish.peer().static_key;
        let port = PortId(datagram.port);
        let taken = match self.accept(finish, expected, port, table, now, base) {
            Ok((mark, established, guard)) => {
                // The peer's first frame with the new keys validates its location.
                let by = Some(HandshakeOrigin::of(datagram));
                let (peer, mut link) = table.link(mark, now, base).ok_or(Discard::Unhandled)?;
                let taken = peer.with_session(by, &mut link, |session, context, outputs| {
                    session.adopt(context, established, XxRole::Responder { guard }, outputs)
                });
                // Abandon a call to the same node, because its session would replace this one.
                beacons.drop_call(&key, table.shared_mut());
                taken
            }
            Err(why) => Err(why),
        };
        let sessions = &mut table.shared_mut().sessions;
        if sessions.link_of(index).is_none() {
            sessions.indices().give_back(index);
        }
        taken
    }

    /// Accepts the last message of XX, and finds or adds its peer.
    fn accept(
        &mut self,
        finish: xx::Finish,
        expected: Option<Mark>,
        port: PortId,
        table: &mut LinkTable,
        now: Now,
        base: &mut Base,
    ) -> Result<(Mark, Established, TimestampGuard), Discard> {
        let proven = *finish.peer();
        let known = table.find_proven(&proven, expected)?;
        let known_guard = known.and_then(|mark| Some(table.peers().get(mark)?.session().guard()));
        let mut guard = known_guard.unwrap_or_default();
        // `accept` refuses a copy of a message that was already accepted, so the copy has no effect
        // (R8).
        let accepted = finish.accept(&mut self.checker, &mut guard);
        let established = accepted.map_err(discard_of)?;
        let mark = match known {
            Some(mark) => mark,
            None => table.admit_unknown(&proven, port, None, now, base)?,
        };
        Ok((mark, established, guard))
    }
}

/// Handles a response or a cookie reply. The index identifies the attempt. The message is read only
/// if its mac is valid, and a response only if the attempt may read further responses. Dropping any
/// other message costs almost nothing.
fn handle_answer(
    header: LinkHeader,
    datagram: &HandshakeDatagram,
    beacons: &mut Beacons,
    table: &mut LinkTable,
    now: Now,
    base: &mut Base,
) -> Result<(), Discard> {
    let message = datagram.frame.bytes();
    let awaited = table.shared_mut().sessions.indices().awaited(header.index);
    let asker = awaited.ok_or(Discard::NoSession)?.asker;
    let Asker::Peer(mark) = asker else {
        return beacons.handle_answer(header, datagram, table, now, base);
    };
    let peer = table.peers().get(mark).ok_or(Discard::NoSession)?;
    peer.session().check_response(message).map_err(discard_of)?;
    let by = HandshakeOrigin::of(datagram);
    let was_contacted = peer.reach().has_contacted(by.from);
    let awaited = table.shared_mut().sessions.indices().awaited(header.index);
    // The call of `check_response` has already read a cookie reply.
    if header.kind == Kind::Response && !awaited.is_some_and(|a| a.may_read(was_contacted)) {
        return Err(Discard::OverBudget);
    }
    let (peer, mut link) = table.link(mark, now, base).ok_or(Discard::NoSession)?;
    let taken = peer.drive(Input::Message(message), Some(by), &mut link);
    if taken == Err(Discard::HandshakeUnreadable) && header.lane == Step::Known.lane() {
        // The peer has another psk: the mac is valid, so the sender knows this node's public key,
        // and only the peer can have decrypted this node's initiation.
        peer.status_mut().note_reason(DownReason::OtherPsk, now);
    }
    taken?;
    if header.kind == Kind::Response {
        table.follow_answer(mark, by.from, now, base);
    }
    Ok(())
}

/// Records the reason for the refusal at the peer that has the source location, and returns the
/// drop reason. The source is not authenticated, so the record only informs operators.
fn refuse(datagram: &HandshakeDatagram, why: Refused, table: &mut LinkTable, now: Now) -> Discard {
    let reason = match (why, LinkHeader::parse(datagram.frame.bytes()).map(|head| head.lane)) {
        // The mac of XX depends only on the network's name.
        (Refused::WrongMac, Ok(lane)) if Step::from_lane(lane) != Some(Step::Known) => {
            Some(DownReason::OtherNetwork)
        }
        _ => DownReason::of_refusal(why),
    };
    if let Some(reason) = reason
        && let Some(peer) = table.peers_mut().get_mut(datagram.link)
    {
        peer.status_mut().note_reason(reason, now);
    }
    discard_of(why)
}

/// Sends the reply to a handshake message: through the port's handshake socket if it has one,
/// otherwise through the worker.
fn send_answer(datagram: &HandshakeDatagram, message: Vec<u8>, base: &mut Base) {
    if !base.ports.send(PortId(datagram.port), datagram.from, &message) {
        let command = Command::Send(datagram.port, datagram.from, message);
        base.out.workers.command(usize::from(datagram.worker), command);
    }
}
