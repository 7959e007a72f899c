//! Sealed links: who a peer is, the handshakes that give a link its keys, whether it is still
//! there, and where. Sans I/O: it never reads a clock or a socket, and seals or opens no packet; the
//! workers do, with the keys they are given here.
//!
//! What moves what:
//!
//! | seen | done |
//! |---|---|
//! | a handshake message of a peer | keys; never an address (wire.md section 4) |
//! | a fresh authenticated packet from a new address | a path challenge goes there; nothing moves yet |
//! | the answer, from there | the link's location moves: its address, and its port |
//! | a beacon of a peer whose link is down | one handshake message goes there; nothing moves |
//! | nothing for `interval` although something was sent | a probe: a path challenge to the address it has |
//! | no data for a while | the keys grow old, and the link is quiet; the next packet wakes it |
//! | the answer to a long path challenge | the path takes frames of that length |
//! | nothing for `interval` times `multiplier` | the link is down (RFC 5880, section 6.8.4); a handshake begins |

mod alternate;
mod beacons;
mod conflict;
mod diagnosis;
mod discovery;
mod indices;
mod intake;
mod location;
mod lookup;
mod path_mtu;
mod peers;
mod presence;
mod recover;
mod rest;
mod schedule;
mod sources;
mod spec;
mod stamps;

use std::collections::HashMap;

use strowger_crypto::{
    LocalIdentity, Nanos, Psk, StaticPublic,
    handshake::{CookieChecker, HandshakeError, Offer, SchemeBytes},
    session::{Context, Input, NewKeys, Output, Session, SessionConfig},
};
use strowger_frame::{Address, Mark};
use strowger_wire::Slot;
use strowger_wire::{
    Scheme,
    hello::{Lanes, Mtu, Widths},
    link_header::{Kind, LinkHeader, SessionIndex},
};

use super::{Attach, Event, PortId, base::Base, workers::Step};
use crate::{
    Now,
    command::{Command, HandshakeDatagram, Punt, PuntKind},
    discard::Discard,
    limits::FRAME_BYTES_MAX,
    link::Behind,
    rate::RateLimiter,
    session::RxSession,
};

/// An unknown peer that has finished its handshake is heard within this, if it is ever: it confirms its keys
/// every second.
const HEARD_WITHIN_NS: u64 = 5_000_000_000;

/// See the module.
#[derive(Default)]
pub(super) struct Links {
    /// `None` before the identity is set.
    peering: Option<Peering>,
    /// Answers to handshakes. They leave by the handshake sockets after the workers have the keys.
    answers: Vec<(PortId, Address, Vec<u8>)>,
}

/// Sealed links and what is known of those behind them.
struct Peering {
    config: PeeringConfig,
    checker: CookieChecker,
    offer: Offer,
    peers: Peers,
    by_key: HashMap<[u8; 32], Mark>,
    lookup: Lookup,
    by_index: HashMap<SessionIndex, Seated>,
    /// Who is where, as the ports know it: at each address one.
    by_address: HashMap<Location, Mark>,
    alternates: Alternates,
    indices: Indices,
    /// Of those at known addresses, and of all others.
    budgets: [Budgets; 2],
    /// Of all others, by where they are.
    sources: Sources,
    beacons: Beacons,
    schedule: Schedule,
    /// Indices that no session knows of any more, and when workers are to drop their keys.
    waning: Vec<(Nanos, SessionIndex)>,
    /// When an event last said that an unknown peer was refused.
    unknown_told: Option<Now>,
    /// Sessions have forgotten their keys, and are to make new ones at once.
    begins_anew: bool,
}

struct Peer {
    spec: PeerSpec,
    /// Its static key, as far as it is known; in `by_key`, too.
    key: Option<StaticPublic>,
    session: Session,
    /// The worker that its frames come in by, as far as is proved; what the link itself says leaves by it.
    owner: u8,
    /// The port that it is behind now.
    port: PortId,
    at: Option<Address>,
    reach: Reach,
    conflict: Conflict,
    state: LinkState,
    /// What is shown: it is up only once every worker lets data pass.
    shown: LinkState,
    is_unknown: bool,
    keys_since: Option<Now>,
    handshakes: u64,
    /// The peer has shown that it has the newest keys.
    is_shown: bool,
    /// What the last handshake agreed on, and with whom.
    agreed: Option<Agreed>,
    /// What may be done in a second for those who send from where it is.
    budgets: Budgets,
    /// Initiations of its own from elsewhere that may be accepted.
    elsewhere: RateLimiter,
    challenge: Option<Challenge>,
    suggested: Suggested,
    liveness: PeerLiveness,
    /// What explains why its link is not up.
    diagnosis: Diagnosis,
    /// When it was last told that somebody else has its key.
    refusal_told: Option<Now>,
    /// An unknown peer that has no link since then gives its slot back.
    down_since: Now,
    usage: Usage,
    /// None before the first keys.
    path: Option<PathMtu>,
    /// Whether it was changed since its deadline was last computed ([`Peers`]).
    is_touched: bool,
}

impl Peer {
    /// Where it is, as far as is known.
    fn location(&self) -> Option<Location> {
        self.at.map(|at| Location { port: self.port, at })
    }

    /// Whether there is somewhere to send an initiation to.
    fn is_somewhere(&self) -> bool {
        self.at.is_some() || self.reach.written.is_some()
    }

    /// Whether its link has been down for so long that a handshake would have brought it up.
    fn has_waited(&self, now: Now) -> bool {
        now.0.saturating_sub(self.down_since.0) >= HEARD_WITHIN_NS
    }
}

/// Where a session's frames are opened.
struct Seated {
    link: Mark,
    owner: u8,
    /// The worker that it is on its way to.
    moving: Option<u8>,
}

/// Where a handshake message came from, and by which worker: where its answer goes.
#[derive(Clone, Copy)]
struct HandshakeOrigin {
    from: Location,
    worker: u8,
    bytes: usize,
    is_response: bool,
}

impl HandshakeOrigin {
    fn of(datagram: &HandshakeDatagram) -> Self {
        let from = Location { port: PortId(datagram.port), at: datagram.from };
        let bytes = datagram.frame.bytes();
        let is_response = LinkHeader::parse(bytes).is_ok_and(|h| h.kind == Kind::Response);
        Self { from, worker: datagram.worker, bytes: bytes.len(), is_response }
    }
}

fn scheme_bytes(scheme: &Scheme) -> SchemeBytes {
    SchemeBytes::new(scheme.serialize().as_bytes()).unwrap_or_default()
}

fn nanos(now: Now) -> Nanos {
    Nanos(now.0)
}

pub use self::diagnosis::DownReason;
use self::{
    alternate::Alternates,
    beacons::{Beacons, Suggested},
    conflict::Conflict,
    diagnosis::{Diagnosis, discard_of},
    indices::{Asker, Indices},
    intake::{Budgets, KNOWN_PER_SECOND, KNOWN_PER_SECOND_EACH, UNKNOWN_PER_SECOND},
    location::Reach,
    lookup::{Lookup, know},
    path_mtu::PathMtu,
    peers::Peers,
    presence::{Challenge, PeerLiveness},
    rest::Usage,
    schedule::Schedule,
    sources::Sources,
};
pub use self::{
    location::Location,
    rest::LinkState,
    spec::{
        Agreed, BeaconSpec, Liveness, PeerError, PeerSpec, PeerView, PeeringConfig,
        UnknownPeerPolicy,
    },
};

impl Links {
    /// Handles a worker's punt about a link.
    pub(super) fn handle(&mut self, punt: Punt, now: Now, base: &mut Base) {
        match punt {
            Punt::LinkMessage { worker, link, kind, from, frame } => {
                base.note_taken(link, worker, PuntKind::LinkMessage);
                base.held.count(Discard::Handled);
                let from = from.map(|(port, at)| Location { port: PortId(port), at });
                self.take_link_message(link, kind, from, &frame, now, base);
            }
            Punt::FirstFrame(session) => self.take_heard(session, now, base),
            Punt::Roamed { link, port, from: at, bytes } => {
                let from = Location { port: PortId(port), at };
                self.take_roamed(link, from, usize::from(bytes), now, base);
            }
            Punt::Migrate(session, worker) => self.take_strayed(session, worker, base),
            Punt::RekeyDue(link) => self.take_rekey_due(link, now, base),
            Punt::Unsealed(link) => self.wake(link, now, base),
            Punt::SendFailed { port, to, errno } => {
                let link = self.link_at(PortId(port), to);
                self.note_reason(link, DownReason::Unreachable { to, errno }, now);
            }
            // For control messages.
            Punt::Packet { .. } | Punt::Dropped(_) | Punt::AliasUsed { .. } => (),
        }
    }

    /// Handles the handshakes and beacons that have arrived, then what is due by the clock.
    pub(super) fn poll(&mut self, now: Now, base: &mut Base) {
        self.take_handshakes(now, base);
        self.read_handshake_sockets(now, base);
        self.turn_peering(now, base);
        self.turn_beacons(now, base);
    }

    /// When [`poll`](Self::poll) has something to do.
    pub(super) fn next_timeout(&self, base: &Base) -> Option<Now> {
        let due = self.peers_due(base).into_iter().chain(self.beacons_due()).min();
        due.map(|due| Now(due.0))
    }

    /// Sends the answers to handshakes. A port that is gone by now sends none.
    pub(super) fn send_answers(&mut self, base: &mut Base) {
        for (port, to, message) in std::mem::take(&mut self.answers) {
            base.ports.send(port, to, &message);
        }
    }

    /// Forgets the peers whose slots are being detached.
    pub(super) fn drop_detached(&mut self, base: &mut Base) {
        for mark in base.slots.take_left() {
            self.drop_peer(mark, base);
        }
    }

    /// Whether the peer behind a link is known. Without an identity nothing is sealed.
    pub(super) fn has_peer(&self, mark: Mark) -> bool {
        self.peering.as_ref().is_none_or(|peering| peering.has_peer(mark))
    }

    pub(super) fn set_identity(
        &mut self,
        mut config: PeeringConfig,
        now: Now,
        base: &Base,
    ) -> Result<(), PeerError> {
        let lanes = u8::try_from(base.out.workers.len()).ok().and_then(Lanes::new);
        let lanes = lanes.ok_or(PeerError::TooManyWorkers)?;
        let checker = CookieChecker::new(&config.local, nanos(now), &mut *config.entropy)
            .map_err(|_| PeerError::NoIdentity)?;
        let offer = Offer {
            lanes,
            scheme: scheme_bytes(&base.slots.config().scheme),
            widths: Widths::ALL,
            // Who answers XX does not know yet for whom; what a peer's spec says bounds its end.
            mtu: Mtu::new(FRAME_BYTES_MAX as u16).unwrap_or(Mtu::MIN),
            ..Offer::default()
        };
        self.peering = Some(Peering {
            config,
            checker,
            offer,
            peers: Peers::default(),
            by_key: HashMap::new(),
            lookup: Lookup::default(),
            by_index: HashMap::new(),
            by_address: HashMap::new(),
            alternates: Alternates::default(),
            indices: Indices::new(base.out.workers.awaited_places()),
            budgets: [KNOWN_PER_SECOND, UNKNOWN_PER_SECOND].map(Budgets::new),
            sources: Sources::new(),
            beacons: Beacons::default(),
            schedule: Schedule::default(),
            waning: Vec::new(),
            unknown_told: None,
            begins_anew: false,
        });
        Ok(())
    }

    /// The scheme has grown: links made from now on say so. Older ones go on saying the old one,
    /// all of whose codes are still good.
    pub(super) fn offer_scheme(&mut self, base: &Base) {
        let scheme = scheme_bytes(&base.slots.config().scheme);
        if let Some(peering) = &mut self.peering {
            peering.offer.scheme = scheme;
        }
    }

    pub(super) fn add_peer(
        &mut self,
        mut spec: PeerSpec,
        now: Now,
        base: &mut Base,
    ) -> Result<Slot, PeerError> {
        let peering = self.peering.as_ref().ok_or(PeerError::NoIdentity)?;
        match &spec.key {
            Some(key) if key == peering.config.local.static_public() => {
                return Err(PeerError::Ourselves);
            }
            Some(key) if peering.by_key.contains_key(&key.0) => return Err(PeerError::KeyTaken),
            Some(_) => {}
            None => self.check_discovered(&mut spec)?,
        }
        let (slot, _) = self.attach_peer(spec, false, now, base)?;
        Ok(slot)
    }

    fn attach_peer(
        &mut self,
        spec: PeerSpec,
        is_unknown: bool,
        now: Now,
        base: &mut Base,
    ) -> Result<(Slot, Mark), PeerError> {
        let attach = Attach {
            port: spec.port,
            at: spec.at,
            behind: Behind::Neighbour,
            sealed: true,
            rights: spec.rights,
            frame_bytes_max: spec.frame_bytes_max,
            slot: spec.slot,
            name: spec.name.clone(),
            key: spec.key.map(|key| key.0),
            unknown_max: self.unknown_numbers_max(base).filter(|_| is_unknown),
        };
        let attached = base.slots.attach(attach, &base.ports, &mut base.out);
        let (slot, mark) = attached.map_err(PeerError::Attach)?;
        let owner = base.ports.home(spec.port).unwrap_or(0);
        let Some(peering) = &mut self.peering else { return Err(PeerError::NoIdentity) };
        let mut offer = peering.offer.clone();
        offer.seal = spec.seal;
        offer.mtu = Mtu::new(spec.frame_bytes_max).unwrap_or(Mtu::MIN);
        let config = SessionConfig {
            peer: spec.key,
            identity: spec.identity,
            psk: Psk::from_bytes(*spec.psk.expose()),
            offer,
            provider: peering.config.provider,
            wall_at_zero: peering.config.wall_at_zero,
        };
        let key = spec.key;
        know(&mut peering.by_key, &peering.config.local, mark, None, key);
        let written = spec.at.map(|at| Location { port: spec.port, at });
        let peer = Peer {
            port: spec.port,
            reach: Reach::new(written),
            conflict: Conflict::default(),
            is_shown: false,
            spec,
            key,
            session: Session::new(config),
            owner,
            at: None,
            state: LinkState::Down,
            shown: LinkState::Down,
            is_unknown,
            keys_since: None,
            handshakes: 0,
            agreed: None,
            budgets: Budgets::of_a_peer(),
            elsewhere: RateLimiter::per_second(KNOWN_PER_SECOND_EACH),
            challenge: None,
            suggested: Suggested::default(),
            liveness: PeerLiveness::default(),
            diagnosis: Diagnosis::default(),
            refusal_told: None,
            down_since: now,
            usage: Usage::default(),
            path: None,
            is_touched: false,
        };
        peering.lookup.add(mark, &peer.spec, is_unknown);
        peering.peers.insert(mark, peer);
        peering.settle(mark, written);
        self.want(mark, now, base);
        Ok((slot, mark))
    }

    /// Tells a peer's session what happened, and does what it says.
    fn drive(
        &mut self,
        mark: Mark,
        input: Input<'_>,
        by: Option<HandshakeOrigin>,
        now: Now,
        base: &mut Base,
    ) -> Result<(), Discard> {
        self.with_session(
            mark,
            by,
            now,
            |session, context, outputs| session.handle(context, input, outputs),
            base,
        )
    }

    /// Lets `what` work with a peer's session, and does what comes of it; why it took no message.
    fn with_session(
        &mut self,
        mark: Mark,
        by: Option<HandshakeOrigin>,
        now: Now,
        what: impl FnOnce(
            &mut Session,
            &mut Context<'_>,
            &mut Vec<Output>,
        ) -> Result<(), HandshakeError>,
        base: &mut Base,
    ) -> Result<(), Discard> {
        let peering = self.peering.as_mut().ok_or(Discard::Unhandled)?;
        let Peering { config, indices, peers, by_key, .. } = peering;
        let peer = peers.get_mut(&mark).ok_or(Discard::Unhandled)?;
        let (mut outputs, mut drawn) = (Vec::new(), None);
        let mut context = Context {
            now: nanos(now),
            local: &config.local,
            entropy: &mut *config.entropy,
            indices: &mut |entropy| {
                drawn = indices.draw(entropy);
                drawn
            },
            is_free: &|key| !by_key.contains_key(&key.0),
        };
        let taken = what(&mut peer.session, &mut context, &mut outputs);
        // An attempt is what comes last, if one is begun.
        if let Some(index) = drawn.filter(|index| peer.session.awaits(*index)) {
            indices.await_answer(index, Asker::Peer(mark));
        }
        let key = peer.session.peer().copied();
        if key != peer.key {
            // It was found out, or is another by now.
            know(by_key, &config.local, mark, std::mem::replace(&mut peer.key, key), key);
        }
        self.carry(mark, outputs, by, now, base);
        taken.map_err(|why| self.refusal(mark, why, now, base))
    }

    fn carry(
        &mut self,
        mark: Mark,
        outputs: Vec<Output>,
        by: Option<HandshakeOrigin>,
        now: Now,
        base: &mut Base,
    ) {
        for output in outputs {
            let Some(peer) = self.peering.as_mut().and_then(|p| p.peers.get_mut(&mark)) else {
                return;
            };
            let owner = usize::from(peer.owner);
            match output {
                Output::Send(message) => self.send_handshake(mark, message, by, now, base),
                Output::Open { index, openers } => {
                    let owner = by.map_or(owner, |by| usize::from(by.worker));
                    if let Some(by) = by {
                        self.note_handshake(mark, index, by);
                    }
                    let seated = Seated { link: mark, owner: owner as u8, moving: None };
                    if let Some(peering) = &mut self.peering {
                        peering.indices.settle(index);
                        peering.by_index.insert(index, seated);
                    }
                    for worker in 0..base.out.workers.len() {
                        if worker != owner {
                            base.out
                                .workers
                                .command(worker, Command::OpenAtWorker(index, owner as u8));
                        }
                    }
                    let session = Box::new(RxSession::new(index, mark, openers));
                    base.out.workers.command(owner, Command::Open(session));
                }
                Output::Seal(keys) => {
                    // The handshake is the peer's, and of now: it is proved by which worker it comes in.
                    let seated = self.peering.as_mut().and_then(|p| {
                        Some((p.by_index.get(&keys.index)?.owner, p.peers.get_mut(&mark)?))
                    });
                    if let Some((owner, peer)) = seated {
                        peer.owner = owner;
                    }
                    self.take_keys(mark, *keys, now, base);
                }
                Output::Confirm => self.confirm(mark, base),
                Output::Close(index) => self.close_session(index, base),
                Output::Expired => self.take_expiry(mark, now, base),
            }
        }
    }

    fn take_keys(&mut self, mark: Mark, keys: NewKeys, now: Now, base: &mut Base) {
        let NewKeys { sealers, agreement, peer: proven, confirmed, .. } = keys;
        let slot = base.slots.slot_of(mark);
        let Some(peer) = self.peering.as_mut().and_then(|p| p.peers.get_mut(&mark)) else { return };
        // Of one that only was quiet it is still known what its path takes.
        // Who answers XX does not know yet for whom, and offers what it offers all.
        let ours = peer.spec.frame_bytes_max.min(FRAME_BYTES_MAX as u16);
        let agreed = agreement.mtu.bytes().min(ours);
        let is_known = peer.state != LinkState::Down;
        let path = peer.path.take().filter(|path| is_known && path.agreed() == agreed);
        let path = peer.path.insert(path.unwrap_or_else(|| PathMtu::new(agreed)));
        let limit = path.limit();
        peer.handshakes += 1;
        peer.agreed = Some(Agreed {
            peer_id: proven.identity.peer_id(),
            seal: agreement.seal,
            frame_bytes_max: agreed,
        });
        peer.keys_since = Some(now);
        peer.liveness.asked = 0;
        peer.is_shown = confirmed;
        peer.reach.gave_up = false;
        peer.usage.note_keys(now);
        if peer.state == LinkState::Up {
            base.out.events.extend(slot.map(Event::Rekeyed));
        } else if confirmed && peer.reach.is_validated {
            self.set_state(mark, LinkState::Up, now, base);
        }
        for (worker, sealer) in sealers.into_iter().enumerate() {
            base.out.workers.command(worker, Command::SetMtu(mark, limit));
            base.out.workers.command(worker, Command::Seal(mark, Box::new(sealer)));
        }
    }

    /// The first frame under a session's keys was opened.
    pub(super) fn take_heard(&mut self, session: SessionIndex, now: Now, base: &mut Base) {
        let mark = self.peering.as_ref().and_then(|p| p.by_index.get(&session)).map(|s| s.link);
        if let Some(mark) = mark {
            self.take_receipt(mark, session, now, base);
            let _ = self.drive(mark, Input::Opened(session), None, now, base);
            let peer = self.peering.as_mut().and_then(|peering| peering.peers.get_mut(&mark));
            let Some(peer) = peer.filter(|peer| peer.session.is_up()) else { return };
            peer.is_shown |= peer.session.current_index() == Some(session);
            if peer.reach.is_validated {
                self.set_state(mark, LinkState::Up, now, base);
            }
        }
    }

    /// A link's sealer has sealed so much that new keys are wanted.
    pub(super) fn take_rekey_due(&mut self, link: Mark, now: Now, base: &mut Base) {
        let _ = self.drive(link, Input::RekeyDue, None, now, base);
    }

    /// A session's authenticated frames come in by another worker than opens them: it moves there.
    pub(super) fn take_strayed(&mut self, session: SessionIndex, worker: u8, base: &mut Base) {
        let Some(peering) = &mut self.peering else { return };
        let Some(seated) = peering.by_index.get_mut(&session) else { return };
        if seated.owner == worker || seated.moving.is_some() {
            return;
        }
        seated.moving = Some(worker);
        let owner = usize::from(seated.owner);
        // Comes back with its keys and windows in a report, and goes on from there.
        base.out.workers.command(owner, Command::Close(session));
        base.out.workers.after_all(worker, Step::Moved);
    }

    /// Keys that a worker gave back: of a session that is over, or that moves to another worker.
    pub(super) fn take_session_back(&mut self, seat: Box<RxSession>, base: &mut Base) {
        let Some(peering) = &mut self.peering else { return };
        let index = seat.index;
        let Some(seated) = peering.by_index.get_mut(&index) else { return };
        let Some(to) = seated.moving.filter(|_| seated.link == seat.link) else { return };
        seated.owner = to;
        if let Some(peer) = peering.peers.get_mut(&seat.link) {
            peer.owner = to;
        }
        for worker in 0..base.out.workers.len() {
            if worker != usize::from(to) {
                base.out.workers.command(worker, Command::OpenAtWorker(index, to));
            }
        }
        base.out.workers.command(usize::from(to), Command::Open(seat));
        base.out.workers.after_all(to, Step::Moved);
    }

    /// Everything has moved that was to.
    pub(super) fn end_moves(&mut self, to: u8) {
        let Some(peering) = &mut self.peering else { return };
        for seated in peering.by_index.values_mut() {
            seated.moving.take_if(|moving| *moving == to);
        }
    }

    /// New secrets, where they are due: before handshakes are judged by them. Nothing else depends on when.
    pub(super) fn renew_secrets(&mut self, now: Now) {
        let Some(peering) = &mut self.peering else { return };
        let _ = peering.checker.rotate(nanos(now), &mut *peering.config.entropy);
        peering.sources.turn(nanos(now), &mut *peering.config.entropy);
    }

    /// All sealed links, in order of their slots.
    pub(super) fn peers(&self, base: &Base) -> Vec<PeerView> {
        let Some(peering) = &self.peering else { return Vec::new() };
        let view = |(mark, peer): (&Mark, &Peer)| {
            Some(PeerView {
                name: peer.spec.name.clone(),
                slot: base.slots.slot_of(*mark)?,
                key: peer.key,
                port: peer.port,
                at: peer.at,
                key_on_two_nodes: peer
                    .conflict
                    .locations(base.clock.now())
                    .map(|two| two.map(|location| location.at)),
                suggested: peer.suggested.address().filter(|_| peer.state == LinkState::Down),
                state: peer.shown,
                down: self.down_reason(peer, base),
                rights: peer.spec.rights,
                keys_since: peer.keys_since,
                handshakes: peer.handshakes,
                agreed: peer.agreed,
                frame_bytes_max: peer.path.as_ref().map(PathMtu::limit),
                is_path_found: peer.path.as_ref().is_some_and(PathMtu::is_found),
                is_unknown: peer.is_unknown,
            })
        };
        let mut views: Vec<_> = peering.peers.iter().filter_map(view).collect();
        views.sort_by_key(|view| view.slot);
        views
    }

    /// Forgets a peer whose slot is being detached.
    pub(super) fn drop_peer(&mut self, mark: Mark, base: &mut Base) {
        let Some(peering) = &mut self.peering else { return };
        peering.settle(mark, None);
        let Some(mut peer) = peering.peers.remove(&mark) else { return };
        peering.lookup.remove(&peer.spec, peer.is_unknown);
        know(&mut peering.by_key, &peering.config.local, mark, peer.key, None);
        let mut outputs = Vec::new();
        peer.session.close(&mut outputs);
        for output in outputs {
            if let Output::Close(index) = output {
                self.close_session(index, base);
            }
        }
    }

    /// Has every worker drop a session's keys, if it has any, and lets its place be used again.
    fn close_session(&mut self, index: SessionIndex, base: &mut Base) {
        if let Some(peering) = &mut self.peering {
            peering.by_index.remove(&index);
            if peering.indices.give_back(index) {
                return;
            }
        }
        base.out.workers.command_all(|_| Command::Close(index));
    }

    /// Who this node is, where it was said.
    pub(super) fn local_identity(&self) -> Option<&LocalIdentity> {
        self.peering.as_ref().map(|peering| &peering.config.local)
    }
}
