//! Link beacons: saying that we are here, and what is done when another says so. A beacon only suggests
//! a peer: it moves no link, has no answer but the beginning of a handshake, no longer than itself,
//! and leaves behind no more than a few notes that are soon forgotten (R8).
//!
//! | a beacon names | what is done |
//! |---|---|
//! | a peer whose link is up, or quiet | nothing |
//! | a peer whose link is up, and of whom nobody knows where it is | a path challenge goes there |
//! | a peer whose link is down | a handshake begins; its next message goes there, too, once |
//! | a key that nobody has | XX begins there, where unknown peers are let in; a slot is given when it ends |
//! | a peer of whom the identity alone is known | the same as long as its key is not known; its slot it has |

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
    super::{Event, base::Base},
    BeaconSpec, HandshakeOrigin, LinkState, Links, Location, Peer, Peering, PeeringConfig,
    discard_of,
    indices::Asker,
    nanos,
};
use crate::{
    Now,
    command::{Command, HandshakeDatagram},
    control::PortId,
    discard::Discard,
    limits::{BEACON_CALLS_MAX, BEACONS_PER_SECOND, BEACONS_PER_SECOND_AND_PORT},
    rate::RateLimiter,
};

/// After this long without an answer an unknown peer that was called is given up.
const CALL_LIFE: Nanos = Nanos::from_secs(5);

/// The first beacon of a port follows within this.
const FIRST_WITHIN: Nanos = Nanos::from_secs(1);

/// All that beacons need.
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

/// An unknown peer that was called where its beacon came from.
struct Call {
    key: [u8; 32],
    to: HandshakeOrigin,
    since: Nanos,
    waiting: xx::AwaitResponse,
}

/// Where beacons have said that a peer is.
#[derive(Default)]
pub(super) struct Suggested {
    /// The next message that begins a handshake goes there as well: one for each beacon.
    pub(super) next: Option<HandshakeOrigin>,
    /// Where the last one went.
    pub(super) tried: Option<Location>,
}

impl Beacons {
    /// When a beacon is due, or a call is given up.
    pub(super) fn next_timeout(&self) -> Option<Nanos> {
        let calls = self.calls.iter().map(|call| call.since.plus(CALL_LIFE));
        self.ports.values().map(|port| port.due).chain(calls).min()
    }

    /// What is known of nobody's answers any more; where we are heard stays as it was wished for.
    pub(super) fn forget_calls(&mut self) {
        self.calls.clear();
    }
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

/// What is to be done about whom a beacon names.
enum Heard {
    Nothing,
    /// It is there already, and nobody knows where.
    AskWhere(Mark),
    Suggest(Mark),
    Call,
}

impl Links {
    /// Says at a port that we are here, and hears what others say there; with `None`, which is how a
    /// port begins, neither. Where anybody may be found so, the port has to
    /// [accept unknown peers](Self::accept_unknown).
    ///
    /// Without an identity, or such a port, nothing happens.
    pub(in crate::control) fn set_beacon(
        &mut self,
        port: PortId,
        spec: Option<BeaconSpec>,
        base: &mut Base,
    ) {
        if !base.ports.is_plugged(port) {
            return;
        }
        let now = nanos(base.clock.now());
        let Some(peering) = &mut self.peering else { return };
        let beacons = &mut peering.beacons;
        match spec {
            None => drop(beacons.ports.remove(&port)),
            Some(spec) => {
                let within = FIRST_WITHIN.0.min(spec.interval_ns);
                let due = now.plus(Nanos(random_below(&mut peering.config, within)));
                let budget = RateLimiter::per_second(BEACONS_PER_SECOND_AND_PORT);
                beacons.ports.insert(port, BeaconPort { spec, due, budget });
            }
        }
        base.out.workers.command_all(|_| Command::AcceptBeacons(port.0, spec.is_some()));
    }

    /// When [`turn_beacons`](Self::turn_beacons) has something to do.
    pub(in crate::control) fn beacons_due(&self) -> Option<Nanos> {
        self.peering.as_ref()?.beacons.next_timeout()
    }

    /// Sends the beacons that are due, and forgets the calls that nobody has answered.
    pub(in crate::control) fn turn_beacons(&mut self, now: Now, base: &mut Base) {
        let Some(peering) = &mut self.peering else { return };
        let Peering { beacons, config, indices, .. } = peering;
        beacons.calls.retain(|call| {
            let lives = nanos(now).since(call.since) < CALL_LIFE;
            if !lives {
                indices.give_back(call.waiting.index());
            }
            lives
        });
        let mut due = Vec::new();
        for (port, at) in beacons.ports.iter_mut().filter(|(_, at)| at.due <= nanos(now)) {
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
            let worker = base.ports.home(port).unwrap_or(0);
            base.out
                .workers
                .command(usize::from(worker), Command::Send(port.0, to, message.clone()));
        }
    }

    /// Workers may have been told where beacons are heard, or not.
    pub(super) fn tell_beacons(&mut self, base: &mut Base) {
        let Some(peering) = &self.peering else { return };
        let hears = |port| peering.beacons.ports.contains_key(&port);
        let ports = base.ports.ids();
        let all: Vec<_> = ports.map(|port| (port, hears(port))).collect();
        for (port, hears) in all {
            base.out.workers.command_all(|_| Command::AcceptBeacons(port.0, hears));
        }
    }

    /// A port is going: nothing is said there any more.
    pub(in crate::control) fn drop_beacon(&mut self, port: PortId) {
        if let Some(peering) = &mut self.peering {
            peering.beacons.ports.remove(&port);
        }
    }

    /// Judges a beacon: its shape and its network first, which cost next to nothing; then whether
    /// anything would follow from it; then the budgets; and only then its signature.
    pub(super) fn take_beacon(
        &mut self,
        datagram: &HandshakeDatagram,
        now: Now,
        base: &mut Base,
    ) -> Result<(), Discard> {
        let port = PortId(datagram.port);
        let peering = self.peering.as_mut().ok_or(Discard::Unhandled)?;
        let at_port = peering.beacons.ports.get_mut(&port).ok_or(Discard::BadLinkKind)?;
        let local = &peering.config.local;
        let from = Location { port, at: datagram.from };
        let claim =
            UnverifiedBeacon::parse(datagram.frame.bytes()).map_err(|_| Discard::Malformed)?;
        if !claim.is_for_network(local.network()) {
            return Err(Discard::BadSeal);
        }
        let key = claim.static_key();
        if key == *local.static_public() {
            return Ok(()); // our own, by another way
        }
        let by_key = peering.by_key.get(&key.0).copied();
        let mark = by_key.or_else(|| peering.lookup.by_identity(&claim.identity_bytes()));
        let known = mark.and_then(|mark| Some((mark, peering.peers.get(&mark)?)));
        let heard = match known {
            Some((_, peer)) if peer.state != LinkState::Down && peer.at.is_some() => Heard::Nothing,
            // What was suggested a moment ago is tried first: nobody takes its place by being louder.
            Some((_, peer)) if peer.state == LinkState::Up && is_asked(peer, now) => Heard::Nothing,
            Some((mark, peer)) if peer.state == LinkState::Up => Heard::AskWhere(mark),
            // Its handshake, or ours, is under way.
            Some((_, peer)) if peer.is_unknown && !peer.has_waited(now) => Heard::Nothing,
            Some((_, peer)) if peer.is_unknown || peer.key.is_none() => Heard::Call,
            // It is asked there anyway, for as long as it is wanted.
            Some((_, peer)) if peer.location() == Some(from) => Heard::Nothing,
            Some((_, peer)) if peer.suggested.next.is_some() => Heard::Nothing,
            Some((mark, _)) => Heard::Suggest(mark),
            None => Heard::Call,
        };
        if let Heard::Call = heard {
            let calls = &peering.beacons.calls;
            let mut is_full = calls.len() >= BEACON_CALLS_MAX;
            if known.is_none() {
                let policy = peering.config.unknown_peers.ok_or(Discard::NotAllowed)?;
                is_full |= peering.lookup.unknown() >= policy.links_max as usize;
            }
            if calls.iter().any(|call| call.key == key.0) {
                return Ok(());
            }
            if is_full {
                return Err(Discard::OverBudget);
            }
        }
        if let Heard::Nothing = heard {
            return Ok(());
        }
        // The port's first, so that one that is flooded leaves to the others what is theirs.
        if !at_port.budget.take(now) || !peering.beacons.budget.take(now) {
            return Err(Discard::OverBudget);
        }
        let identity = claim.verify(local.network()).map_err(|_| Discard::BadSeal)?;
        if let Some((_, peer)) = known {
            let pinned = peer.spec.identity.map(|identity| identity.peer_id());
            let expected = pinned.or(peer.agreed.map(|agreed| agreed.peer_id));
            if expected.is_some_and(|expected| expected != identity.peer_id()) {
                return Err(Discard::NotAllowed);
            }
        }
        let by = HandshakeOrigin::of(datagram);
        match heard {
            Heard::Nothing => return Ok(()),
            Heard::AskWhere(mark) => {
                self.take_roamed(mark, from, by.bytes, now, base);
            }
            Heard::Suggest(mark) => self.suggest(mark, by, now, base),
            Heard::Call => self.call(key.0, by, now, base)?,
        }
        let slot = mark.and_then(|mark| base.slots.slot_of(mark));
        let peer_id = identity.peer_id();
        base.out.events.push(Event::PeerSuggested { slot, port, at: datagram.from, peer_id });
        Ok(())
    }

    /// The peer may be there: the next message of its handshake goes there as well.
    fn suggest(&mut self, mark: Mark, by: HandshakeOrigin, now: Now, base: &mut Base) {
        let Some(peering) = &mut self.peering else { return };
        let Some(peer) = peering.peers.get_mut(&mark) else { return };
        peer.suggested.next = Some(by);
        self.seek(mark, now, base);
    }

    /// Begins XX with an unknown peer, without a slot and without a session: both come with its answer.
    fn call(
        &mut self,
        key: [u8; 32],
        to: HandshakeOrigin,
        now: Now,
        base: &mut Base,
    ) -> Result<(), Discard> {
        let peering = self.peering.as_mut().ok_or(Discard::Unhandled)?;
        let Peering { config, offer, indices, beacons, .. } = peering;
        let index = indices.draw(&mut *config.entropy).ok_or(Discard::Unhandled)?;
        let ours =
            LocalParams { local: &config.local, offer, index, timestamp: Timestamp::default() };
        let Ok((waiting, message)) = xx::initiate(&ours, None, &mut *config.entropy) else {
            indices.give_back(index);
            return Err(Discard::Unhandled);
        };
        indices.await_answer(index, Asker::Call);
        beacons.calls.push(Call { key, to, since: nanos(now), waiting });
        let Location { port, at } = to.from;
        base.out.workers.command(usize::from(to.worker), Command::Send(port.0, at, message));
        Ok(())
    }

    /// Whoever has this key is not called any more: it has come by itself.
    pub(super) fn drop_call(&mut self, key: &StaticPublic) {
        let Some(peering) = &mut self.peering else { return };
        let Peering { beacons, indices, .. } = peering;
        if let Some(place) = beacons.calls.iter().position(|call| call.key == key.0) {
            let call = beacons.calls.swap_remove(place);
            indices.give_back(call.waiting.index());
        }
    }

    /// An answer to a call.
    pub(super) fn take_call(
        &mut self,
        header: LinkHeader,
        datagram: &HandshakeDatagram,
        now: Now,
        base: &mut Base,
    ) -> Result<(), Discard> {
        let peering = self.peering.as_mut().ok_or(Discard::Unhandled)?;
        let calls = &mut peering.beacons.calls;
        let place = calls.iter().position(|call| call.waiting.index() == header.index);
        let place = place.ok_or(Discard::NoSession)?;
        let by = HandshakeOrigin::of(datagram);
        if header.kind != Kind::Response || calls[place].to.from != by.from {
            // A cookie: they are busy, and what we would send with it is longer than it (R8). Another
            // beacon is another occasion, as is ours for them.
            return Err(Discard::NoSession);
        }
        let calls = &mut peering.beacons.calls;
        calls[place].waiting.check(datagram.frame.bytes()).map_err(discard_of)?;
        let mut awaited = peering.indices.awaited(header.index);
        if !awaited.as_mut().is_some_and(|awaited| awaited.may_read(true)) {
            return Err(Discard::OverBudget);
        }
        let Call { key, to, since, waiting } = calls.swap_remove(place);
        let (waiting, why) = match waiting.read_response(datagram.frame.bytes()) {
            Ok(discovered) if discovered.peer().static_key.0 == key => {
                let adopted = self.adopt(discovered, header.index, by, now, base);
                if adopted.is_err()
                    && let Some(peering) = &mut self.peering
                {
                    peering.indices.give_back(header.index);
                }
                return adopted;
            }
            // Another node has answered, and may have been faster: the right one may still answer.
            Ok(discovered) => match discovered.resume_waiting(&peering.config.local) {
                Ok(waiting) => (waiting, Discard::NotAllowed),
                Err(_) => {
                    peering.indices.give_back(header.index);
                    return Err(Discard::NotAllowed);
                }
            },
            Err(rejected) => (*rejected.state, discard_of(rejected.why)),
        };
        calls.push(Call { key, to, since, waiting });
        Err(why)
    }

    /// An unknown peer has answered a call, and so shown that it is there, and who it is.
    fn adopt(
        &mut self,
        discovered: xx::Discovered,
        index: SessionIndex,
        by: HandshakeOrigin,
        now: Now,
        base: &mut Base,
    ) -> Result<(), Discard> {
        let peering = self.peering.as_mut().ok_or(Discard::Unhandled)?;
        let timestamp = Timestamp(peering.config.wall_at_zero.saturating_add(now.0));
        let (peer, config) = (*discovered.peer(), &peering.config);
        let ours = LocalParams { local: &config.local, offer: &peering.offer, index, timestamp };
        let finished = discovered.finish(&ours, None);
        let (established, msg3) = finished.map_err(|_| Discard::BadSeal)?;
        let expected = self.discovered_as(&peer.identity);
        let mark = match self.whose(&peer, expected)? {
            Some(mark) => mark,
            None => self.let_in(&peer, by.from.port, Some(by.from.at), now, base)?,
        };
        let peering = self.peering.as_mut().ok_or(Discard::Unhandled)?;
        if let Some(peer) = peering.peers.get_mut(&mark) {
            peer.reach.note_asked(by.from);
            if peer.at.is_none() {
                // It was not known where the peer is, and its answer from there shows it.
                self.move_to(mark, by.from, now, base);
            }
        }
        let role = XxRole::Initiator { msg3 };
        let adopted = self.with_session(
            mark,
            Some(by),
            now,
            |session, context, outputs| {
                // What fails once it has the index is tried again by itself.
                let adopted = session.adopt(context, established, role, outputs);
                if session.owns(index) { Ok(()) } else { adopted }
            },
            base,
        );
        adopted?;
        // We have begun it, so it is ours to keep its keys fresh, also while the link is idle: it would
        // have forgotten us, and we would have to be told of it anew.
        let _ = self.drive(mark, Input::Wanted, None, now, base);
        self.follow_answer(mark, by.from, now, base);
        Ok(())
    }
}

/// Whether the peer was asked, a moment ago, where it is.
fn is_asked(peer: &Peer, now: Now) -> bool {
    peer.challenge.as_ref().is_some_and(|challenge| challenge.is_fresh(now))
}

/// A number below this one, or 0 where there is no randomness.
fn random_below(config: &mut PeeringConfig, end: u64) -> u64 {
    let mut random = [0; 8];
    let _ = config.entropy.fill(&mut random);
    u64::from_be_bytes(random).checked_rem(end).unwrap_or(0)
}
