//! Link beacons. The module sends this node's beacons through ports, and handles the beacons of
//! other nodes. A beacon only suggests a peer and does not move a link. It causes at most one
//! message to its sender: the first message of a handshake, which is no longer than the beacon. It
//! leaves a small amount of state that expires soon (R8).
//!
//! | a beacon names | action |
//! |---|---|
//! | a peer whose link is up or idle | none |
//! | a peer whose link is down | begin a handshake, or continue one; the next initiation is also sent to the beacon's sender, once |
//! | an unknown key | begin XX with the sender, if unknown peers are accepted; allocate a slot when it ends |
//! | a peer that is known only by its identity | as for an unknown key, until its key is known; the peer already has a slot |

use std::collections::BTreeMap;

use strowger_crypto::{
    Nanos, StaticPublic,
    beacon::{self, UnverifiedBeacon},
    handshake::{LocalParams, xx},
    session::{Input, XxRole},
};
use strowger_frame::{Address, Mark};
use strowger_wire::{
    hello::Timestamp,
    link_header::{Kind, LinkHeader, SessionIndex},
};

use super::{
    BeaconSpec, HandshakeOrigin, LinkState, Location, PeeringConfig, context::Shared,
    diagnosis::discard_of, indices::Asker, nanos, peer::Peer, table::LinkTable,
};
use crate::{
    Now,
    command::{Command, HandshakeDatagram},
    control::{Event, PortId, base::Base},
    discard::Discard,
    limits::{BEACON_CALLS_MAX, BEACONS_PER_SECOND, BEACONS_PER_SECOND_AND_PORT},
    rate::RateLimiter,
};

/// The time after which a call without a response is abandoned.
const CALL_LIFE: Nanos = Nanos::from_secs(5);

/// The first beacon of a port is sent within this time.
const FIRST_WITHIN: Nanos = Nanos::from_secs(1);

/// The beacons of each port, and the calls to senders of beacons.
pub(super) struct Beacons {
    ports: BTreeMap<PortId, BeaconPort>,
    budget: RateLimiter,
    calls: Vec<Call>,
}

struct BeaconPort {
    spec: BeaconSpec,
    due: Nanos,
    budget: RateLimiter,
}

/// An XX handshake that this node has begun with the sender of a beacon. The call has no slot and
/// no session. The response creates both.
struct Call {
    key: [u8; 32],
    to: HandshakeOrigin,
    since: Nanos,
    waiting: xx::AwaitResponse,
}

/// The locations that beacons have suggested for a peer.
#[derive(Debug, Default)]
pub(super) struct Suggested {
    /// The next initiation is also sent to this location. Each beacon causes at most one such
    /// initiation.
    pub(super) next: Option<HandshakeOrigin>,
    /// The location to which the last such initiation was sent; `None` once a response to a
    /// handshake has arrived from any location.
    pub(super) tried: Option<Location>,
}

impl Suggested {
    pub(super) fn address(&self) -> Option<Address> {
        self.next.map(|by| by.from).or(self.tried).map(|at| at.at)
    }
}

impl Default for Beacons {
    fn default() -> Self {
        Self {
            ports: BTreeMap::new(),
            budget: RateLimiter::per_second(BEACONS_PER_SECOND),
            calls: Vec::new(),
        }
    }
}

/// The action that follows a beacon.
enum Consequence {
    Nothing,
    Suggest(Mark),
    Call,
}

impl Beacons {
    /// The time at which a beacon is due, or a call times out.
    pub(super) fn next_timeout(&self) -> Option<Nanos> {
        let calls = self.calls.iter().map(|call| call.since.plus(CALL_LIFE));
        self.ports.values().map(|port| port.due).chain(calls).min()
    }

    /// Sends the beacons that are due, and abandons calls without a response.
    pub(super) fn poll(&mut self, shared: &mut Shared, now: Now, base: &mut Base) {
        let Shared { config, sessions, .. } = shared;
        self.calls.retain(|call| {
            let lives = nanos(now).since(call.since) < CALL_LIFE;
            if !lives {
                sessions.indices().give_back(call.waiting.index());
            }
            lives
        });
        let mut due = Vec::new();
        for (port, at) in self.ports.iter_mut().filter(|(_, at)| at.due <= nanos(now)) {
            let interval = at.spec.interval_ns;
            let jitter = random_below(config, interval / 2);
            at.due = nanos(now).plus(Nanos((interval - interval / 4).saturating_add(jitter)));
            due.push((*port, at.spec.to));
        }
        if due.is_empty() {
            return;
        }
        let message = beacon::encode(&config.local).to_vec();
        for (port, to) in due {
            let worker = usize::from(base.ports.home(port).unwrap_or(0));
            base.out.workers.command(worker, Command::Send(port.0, to, message.clone()));
        }
    }

    /// Sets whether beacons are sent and received on a port. With `None`, neither happens.
    pub(super) fn set(
        &mut self,
        port: PortId,
        spec: Option<BeaconSpec>,
        shared: &mut Shared,
        base: &mut Base,
    ) {
        match spec {
            None => drop(self.ports.remove(&port)),
            Some(spec) => {
                let within = FIRST_WITHIN.0.min(spec.interval_ns);
                let first_after = Nanos(random_below(&mut shared.config, within));
                let due = nanos(base.clock.now()).plus(first_after);
                let budget = RateLimiter::per_second(BEACONS_PER_SECOND_AND_PORT);
                self.ports.insert(port, BeaconPort { spec, due, budget });
            }
        }
        base.out.workers.command_all(|_| Command::AcceptBeacons(port.0, spec.is_some()));
    }

    /// Stops beacons on a port that is being unplugged.
    pub(super) fn drop_port(&mut self, port: PortId) {
        self.ports.remove(&port);
    }

    /// After a recovery, abandons all handshakes with senders of beacons, and tells the workers
    /// again which ports accept beacons.
    pub(super) fn recover(&mut self, base: &mut Base) {
        self.calls.clear();
        for port in base.ports.ids() {
            let hears = self.ports.contains_key(&port);
            base.out.workers.command_all(|_| Command::AcceptBeacons(port.0, hears));
        }
    }

    /// Handles a beacon. The checks are in order of cost. First come the beacon's format and
    /// network, at almost no cost. Then come its consequence and the budgets, and last its
    /// signature.
    pub(super) fn handle(
        &mut self,
        datagram: &HandshakeDatagram,
        table: &mut LinkTable,
        now: Now,
        base: &mut Base,
    ) -> Result<(), Discard> {
        let port = PortId(datagram.port);
        let at_port = self.ports.get_mut(&port).ok_or(Discard::BadLinkKind)?;
        let local = table.shared().local();
        let claim =
            UnverifiedBeacon::parse(datagram.frame.bytes()).map_err(|_| Discard::Malformed)?;
        if !claim.is_for_network(local.network()) {
            return Err(Discard::BadSeal);
        }
        let key = claim.static_key();
        if key == *local.static_public() {
            return Ok(()); // this node's own beacon, received on another path
        }
        let by_key = table.shared().keys.get(&key);
        let lookup = table.peers().lookup();
        let mark = by_key.or_else(|| lookup.by_identity(&claim.identity_bytes()));
        let known = mark.and_then(|mark| Some((mark, table.peers().get(mark)?)));
        let from = Location { port, at: datagram.from };
        let consequence = match known {
            Some((mark, peer)) => consequence(mark, peer, from, now),
            None => Consequence::Call,
        };
        if let Consequence::Nothing = consequence {
            return Ok(());
        }
        if let Consequence::Call = consequence {
            let mut is_full = self.calls.len() >= BEACON_CALLS_MAX;
            if known.is_none() {
                let policy = table.shared().config.unknown_peers.ok_or(Discard::NotAllowed)?;
                is_full |= lookup.unknown() >= policy.links_max as usize;
            }
            if self.calls.iter().any(|call| call.key == key.0) {
                return Ok(());
            }
            if is_full {
                return Err(Discard::OverBudget);
            }
        }
        // Check the port's budget first, so that a flood on one port does not use the common
        // budget.
        if !at_port.budget.take(now) || !self.budget.take(now) {
            return Err(Discard::OverBudget);
        }
        let identity = claim.verify(local.network()).map_err(|_| Discard::BadSeal)?;
        if let Some((_, peer)) = known {
            let pinned = peer.spec().identity.map(|identity| identity.peer_id());
            let expected = pinned.or(peer.agreed().map(|agreed| agreed.peer_id));
            if expected.is_some_and(|expected| expected != identity.peer_id()) {
                return Err(Discard::NotAllowed);
            }
        }
        let by = HandshakeOrigin::of(datagram);
        match consequence {
            Consequence::Nothing => return Ok(()),
            Consequence::Suggest(mark) => {
                // The next initiation to the peer is also sent to the sender of the beacon.
                if let Some((peer, mut link)) = table.link(mark, now, base) {
                    peer.reach_mut().suggested.next = Some(by);
                    peer.seek(&mut link);
                }
            }
            Consequence::Call => self.call(key.0, by, table.shared_mut(), now, base)?,
        }
        let slot = mark.and_then(|mark| base.slots.slot_of(mark));
        let peer_id = identity.peer_id();
        base.out.events.push(Event::PeerSuggested { slot, port, at: datagram.from, peer_id });
        Ok(())
    }

    /// Begins an XX handshake with the sender of a beacon.
    fn call(
        &mut self,
        key: [u8; 32],
        to: HandshakeOrigin,
        shared: &mut Shared,
        now: Now,
        base: &mut Base,
    ) -> Result<(), Discard> {
        let Shared { config, offer, sessions, .. } = shared;
        let indices = sessions.indices();
        let index = indices.draw(&mut *config.entropy).ok_or(Discard::Unhandled)?;
        let ours =
            LocalParams { local: &config.local, offer, index, timestamp: Timestamp::default() };
        let Ok((waiting, message)) = xx::initiate(&ours, None, &mut *config.entropy) else {
            indices.give_back(index);
            return Err(Discard::Unhandled);
        };
        indices.await_answer(index, Asker::Call);
        self.calls.push(Call { key, to, since: nanos(now), waiting });
        let Location { port, at } = to.from;
        base.out.workers.command(usize::from(to.worker), Command::Send(port.0, at, message));
        Ok(())
    }

    /// Abandons the call to the node with this key, because the node has begun a handshake itself.
    pub(super) fn drop_call(&mut self, key: &StaticPublic, shared: &mut Shared) {
        if let Some(place) = self.calls.iter().position(|call| call.key == key.0) {
            let call = self.calls.swap_remove(place);
            shared.sessions.indices().give_back(call.waiting.index());
        }
    }

    /// Handles the response to a call.
    pub(super) fn handle_answer(
        &mut self,
        header: LinkHeader,
        datagram: &HandshakeDatagram,
        table: &mut LinkTable,
        now: Now,
        base: &mut Base,
    ) -> Result<(), Discard> {
        let place = self.calls.iter().position(|call| call.waiting.index() == header.index);
        let place = place.ok_or(Discard::NoSession)?;
        let by = HandshakeOrigin::of(datagram);
        if header.kind != Kind::Response || self.calls[place].to.from != by.from {
            // This is a cookie reply from a node under load, or a response from another location.
            // Send nothing: an initiation with the cookie would be longer than the cookie reply
            // (R8). The next beacon begins another call, and a beacon of this node may make the
            // other node begin one.
            return Err(Discard::NoSession);
        }
        self.calls[place].waiting.check(datagram.frame.bytes()).map_err(discard_of)?;
        let mut awaited = table.shared_mut().sessions.indices().awaited(header.index);
        if !awaited.as_mut().is_some_and(|awaited| awaited.may_read(true)) {
            return Err(Discard::OverBudget);
        }
        let Call { key, to, since, waiting } = self.calls.swap_remove(place);
        let local = table.shared().local();
        let (waiting, why) = match waiting.read_response(local, datagram.frame.bytes()) {
            Ok(discovered) if discovered.peer().static_key.0 == key => {
                let adopted = adopt(discovered, header.index, by, table, now, base);
                if adopted.is_err() {
                    table.shared_mut().sessions.indices().give_back(header.index);
                }
                return adopted;
            }
            // Another node responded first. The right node may still respond.
            Ok(discovered) => match discovered.resume_waiting(table.shared().local()) {
                Ok(waiting) => (waiting, Discard::NotAllowed),
                Err(_) => {
                    table.shared_mut().sessions.indices().give_back(header.index);
                    return Err(Discard::NotAllowed);
                }
            },
            Err(rejected) => (*rejected.state, discard_of(rejected.why)),
        };
        self.calls.push(Call { key, to, since, waiting });
        Err(why)
    }
}

/// The action that follows the beacon of a known peer.
fn consequence(mark: Mark, peer: &Peer, from: Location, now: Now) -> Consequence {
    let here = peer.reach().location();
    match peer.state() {
        // A link that is up or idle has a validated location.
        LinkState::Up | LinkState::Idle => Consequence::Nothing,
        // A handshake may be in progress.
        _ if peer.is_unknown() && !peer.has_waited(now) => Consequence::Nothing,
        _ if peer.is_unknown() || peer.key().is_none() => Consequence::Call,
        // The beacon came from the present location of the peer. Initiations are sent to it anyway
        // while keys are needed.
        _ if here == Some(from) => Consequence::Nothing,
        _ if peer.reach().suggested.next.is_some() => Consequence::Nothing,
        _ => Consequence::Suggest(mark),
    }
}

/// Creates the session with a node that has responded to a call. If the node is not a peer yet, it
/// is added as an unknown peer. The response has proved the node's identity, and that the node
/// receives at its address.
fn adopt(
    discovered: xx::Discovered,
    index: SessionIndex,
    by: HandshakeOrigin,
    table: &mut LinkTable,
    now: Now,
    base: &mut Base,
) -> Result<(), Discard> {
    let proven = *discovered.peer();
    let Shared { config, offer, .. } = table.shared();
    let timestamp = Timestamp(config.wall_at_zero.saturating_add(now.0));
    let ours = LocalParams { local: &config.local, offer, index, timestamp };
    let finished = discovered.finish(&ours, None);
    let (established, msg3) = finished.map_err(|_| Discard::BadSeal)?;
    let expected = table.peers().by_identity(&proven.identity);
    let mark = match table.find_proven(&proven, expected)? {
        Some(mark) => mark,
        None => table.admit_unknown(&proven, by.from.port, Some(by.from.at), now, base)?,
    };
    if let Some(peer) = table.peers_mut().get_mut(mark) {
        peer.reach_mut().note_contacted(by.from);
        if peer.reach().location().is_none() {
            // The peer's location was unknown, and the response validates it.
            table.move_to(mark, by.from, now, base);
        }
    }
    let (peer, mut link) = table.link(mark, now, base).ok_or(Discard::Unhandled)?;
    peer.with_session(Some(by), &mut link, |session, context, outputs| {
        // If `adopt` fails after the session has taken the index, the session begins another
        // attempt.
        let role = XxRole::Initiator { msg3 };
        let adopted = session.adopt(context, established, role, outputs);
        if session.owns(index) { Ok(()) } else { adopted }
    })?;
    // This node has begun the session, so it must renew the keys even while the link is idle.
    // Otherwise the link would go down when the keys expire. A node removes such a link if the peer
    // is unknown to it, and only another beacon restores the link.
    let _ = peer.drive(Input::Wanted, None, &mut link);
    table.follow_answer(mark, by.from, now, base);
    Ok(())
}

/// A random number below `end`, or 0 if the random source fails.
fn random_below(config: &mut PeeringConfig, end: u64) -> u64 {
    let mut random = [0; 8];
    let _ = config.entropy.fill(&mut random);
    u64::from_be_bytes(random).checked_rem(end).unwrap_or(0)
}
