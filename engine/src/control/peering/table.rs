//! All links of a node that has an identity: the peers, and the state that they share. The table
//! finds the peer for each event. It also handles events that affect several peers: changes of
//! location, and the admission of new peers.

use strowger_crypto::{
    Identity, Psk,
    handshake::{self, Offer},
    session::{Input, Output, Session, SessionConfig, SessionTimes},
};
use strowger_frame::{Address, Frame, Mark};
use strowger_wire::{
    Slot,
    hello::{Lanes, Mtu, Widths},
    link_header::{Kind, LINK_HEADER_BYTES, SessionIndex},
};

use super::{
    LinkState, Location, PeerError, PeerSpec, PeerView, PeeringConfig,
    alternate::Alternates,
    context::{LinkContext, Shared},
    lookup::Keys,
    path_mtu::TOKEN_BYTES,
    peer::Peer,
    peers::{Displaced, Peers},
    scheme_bytes,
    sessions::Sessions,
};
use crate::{
    Now,
    command::{Command, HandshakeDatagram},
    control::{Attach, Event, PortId, base::Base, messages::Goodbye},
    discard::Discard,
    limits::{FRAME_BYTES_MAX, UNKNOWN_NUMBERS_PER_LINK},
    link::Behind,
    session::RxSession,
};

/// The step, in nanoseconds (five minutes), of the stored limit of handshake timestamps. The limit
/// lies one to two steps in the future. So a node that restarts repeatedly is not far ahead of its
/// clock, and the limit is written rarely.
const STAMP_STEP_NS: u64 = 300_000_000_000;

/// All links of a node that has an identity.
pub(super) struct LinkTable {
    peers: Peers,
    shared: Shared,
}

impl LinkTable {
    /// Makes a table without peers.
    pub(super) fn new(config: PeeringConfig, base: &Base) -> Result<Self, PeerError> {
        let lanes = u8::try_from(base.out.workers.len()).ok().and_then(Lanes::new);
        let offer = Offer {
            lanes: lanes.ok_or(PeerError::TooManyWorkers)?,
            scheme: scheme_bytes(&base.slots.config().scheme),
            widths: Widths::ALL,
            // The XX response is made before the peer is known, so it offers this length. The
            // length that is configured for the peer then limits only the frames that this node
            // sends.
            mtu: Mtu::new(FRAME_BYTES_MAX as u16).unwrap_or(Mtu::MIN),
            ..Offer::default()
        };
        let shared = Shared {
            config,
            offer,
            keys: Keys::default(),
            sessions: Sessions::new(base.out.workers.awaited_places()),
            alternates: Alternates::default(),
            answers: Vec::new(),
        };
        Ok(Self { peers: Peers::default(), shared })
    }

    pub(super) fn peers(&self) -> &Peers {
        &self.peers
    }

    pub(super) fn peers_mut(&mut self) -> &mut Peers {
        &mut self.peers
    }

    pub(super) fn shared(&self) -> &Shared {
        &self.shared
    }

    pub(super) fn shared_mut(&mut self) -> &mut Shared {
        &mut self.shared
    }

    /// The peer of a link, and the context in which it handles events.
    pub(super) fn link<'a>(
        &'a mut self,
        mark: Mark,
        now: Now,
        base: &'a mut Base,
    ) -> Option<(&'a mut Peer, LinkContext<'a>)> {
        let peer = self.peers.get_mut(mark)?;
        Some((peer, LinkContext { mark, now, shared: &mut self.shared, base }))
    }

    /// Offers the current scheme on links that are made from now on. Older links keep the old
    /// scheme, whose codes all stay valid.
    pub(super) fn offer_scheme(&mut self, base: &Base) {
        self.shared.offer.scheme = scheme_bytes(&base.slots.config().scheme);
    }

    /// Adds a configured peer.
    pub(super) fn add(
        &mut self,
        mut spec: PeerSpec,
        now: Now,
        base: &mut Base,
    ) -> Result<Slot, PeerError> {
        match &spec.key {
            Some(key) if key == self.shared.local().static_public() => {
                return Err(PeerError::Ourselves);
            }
            Some(key) if self.shared.keys.get(key).is_some() => return Err(PeerError::KeyTaken),
            Some(_) => {}
            None => self.check_discovered(&mut spec)?,
        }
        let (slot, _) = self.attach(spec, false, now, base)?;
        Ok(slot)
    }

    fn attach(
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
            is_passing: false,
        };
        let attached = base.slots.attach(attach, &base.ports, &mut base.out);
        let (slot, mark) = attached.map_err(PeerError::Attach)?;
        let owner = base.ports.home(spec.port).unwrap_or(0);
        let Shared { config, offer, keys, .. } = &mut self.shared;
        let session = Session::new(SessionConfig {
            peer: spec.key,
            identity: spec.identity,
            psk: Psk::from_bytes(*spec.psk.expose()),
            offer: Offer {
                seal: spec.seal,
                mtu: Mtu::new(spec.frame_bytes_max).unwrap_or(Mtu::MIN),
                ..offer.clone()
            },
            provider: config.provider,
            wall_at_zero: config.wall_at_zero,
            times: &SessionTimes::LINK,
        });
        keys.replace(&config.local, mark, None, spec.key);
        self.peers.insert(mark, Peer::new(spec, is_unknown, session, owner, now));
        if let Some((peer, mut link)) = self.link(mark, now, base) {
            peer.want(&mut link);
        }
        Ok((slot, mark))
    }

    /// Removes the peers whose slots are being detached.
    pub(super) fn drop_detached(&mut self, base: &mut Base) {
        for mark in base.slots.take_detached() {
            let Some(mut peer) = self.peers.remove(mark) else { continue };
            let Shared { config, keys, sessions, .. } = &mut self.shared;
            keys.replace(&config.local, mark, peer.key(), None);
            let mut outputs = Vec::new();
            peer.session_mut().close(&mut outputs);
            for output in outputs {
                if let Output::Close(index) = output {
                    sessions.close(index, &mut base.out);
                }
            }
        }
    }

    /// All links, in order of their slots.
    pub(super) fn views(&self, base: &Base) -> Vec<PeerView> {
        let now = base.clock.now();
        let view = |(mark, peer): (Mark, &Peer)| Some(peer.view(base.slots.slot_of(mark)?, now));
        let mut views: Vec<_> = self.peers.iter().filter_map(view).collect();
        views.sort_by_key(|view| view.slot);
        views
    }

    /// The link of the peer at this location or, if there is none, the mark of an unknown sender.
    pub(super) fn link_at(&self, at: Location) -> Mark {
        self.peers.at(at).unwrap_or(Mark::unknown(0))
    }

    /// Handles the first opened frame of a session.
    pub(super) fn handle_opened(&mut self, session: SessionIndex, now: Now, base: &mut Base) {
        let Some(mark) = self.shared.sessions.link_of(session) else { return };
        self.note_receipt(mark, session, now, base);
        if let Some((peer, mut link)) = self.link(mark, now, base) {
            peer.handle_opened(session, &mut link);
        }
    }

    /// Notes that the peer has used the keys from this node's response to its handshake. The peer
    /// therefore receives at the destination of that response. If the destination is the peer's
    /// location, that location is validated. A peer without a location moves to the destination,
    /// unless another peer is there. In all other cases the link does not move; if it is down, its
    /// location is no longer validated.
    fn note_receipt(&mut self, mark: Mark, session: SessionIndex, now: Now, base: &mut Base) {
        let Some(peer) = self.peers.get_mut(mark) else { return };
        let Some(at) = peer.reach_mut().take_answered(session) else { return };
        let two = peer.note_receipt(at, now);
        let is_nowhere = peer.reach().location().is_none();
        let is_free = is_nowhere && self.peers.at(at).is_none();
        if is_free || self.peers.is_known_at(mark, at) {
            self.move_to(mark, at, now, base);
        } else if let Some(peer) = self.peers.get_mut(mark)
            && peer.state() == LinkState::Down
        {
            // The handshake came from another location than the known one.
            peer.reach_mut().invalidate();
        }
        if let (Some(slot), Some(two)) = (base.slots.slot_of(mark), two) {
            base.out.events.push(Event::KeyOnTwoNodes(slot, two.map(|location| location.at)));
        }
    }

    /// Moves a peer to a location at which it has proved that it receives. If the ports admitted
    /// another peer there, they no longer do. Probes for that other peer are still sent there. A
    /// peer that the moving peer had displaced at the old location returns there.
    pub(super) fn move_to(&mut self, mark: Mark, to: Location, now: Now, base: &mut Base) {
        let is_new = !self.peers.is_known_at(mark, to);
        if is_new {
            let Some(Displaced { former, heir }) = self.peers.take_place(mark, to) else { return };
            if let Some(former) = former {
                base.out.workers.command_all(|_| Command::ClearAddress(former));
            }
            base.readdress(mark, to);
            if let Some((heir, at)) = heir {
                base.readdress(heir, at);
            }
        }
        let Some((peer, mut link)) = self.link(mark, now, base) else { return };
        peer.reach_mut().validate();
        if is_new {
            peer.forget_path(&mut link);
            link.report(|slot| Event::Roamed(slot, to.at));
        }
        peer.handle_validated(&mut link);
    }

    /// Handles an authenticated frame of this length that came from a location other than the
    /// link's.
    pub(super) fn handle_roamed(
        &mut self,
        mark: Mark,
        from: Location,
        bytes: usize,
        now: Now,
        base: &mut Base,
    ) {
        if self.peers.is_validated_at(mark, from) {
            return;
        }
        let Some((peer, mut link)) = self.link(mark, now, base) else { return };
        peer.reach_mut().receive(from, bytes);
        if !peer.reach().has_challenged(from, now) {
            peer.challenge(Some(from), &mut link);
        }
    }

    /// Handles a handshake response. If its source is a destination of an initiation and not the
    /// peer's validated location, a path challenge tests whether the peer receives there.
    pub(super) fn follow_answer(&mut self, mark: Mark, from: Location, now: Now, base: &mut Base) {
        let Some(peer) = self.peers.get_mut(mark) else { return };
        let was_contacted = peer.reach_mut().take_contacted(from);
        if was_contacted
            && !self.peers.is_validated_at(mark, from)
            && let Some((peer, mut link)) = self.link(mark, now, base)
        {
            peer.challenge(Some(from), &mut link);
        }
    }

    /// Handles a message of the link itself: a path challenge, or the response to one.
    pub(super) fn handle_link_message(
        &mut self,
        mark: Mark,
        kind: Kind,
        from: Option<Location>,
        frame: &Frame,
        now: Now,
        base: &mut Base,
    ) {
        let Some((peer, mut link)) = self.link(mark, now, base) else { return };
        peer.note_message(now);
        let token = frame.bytes().get(LINK_HEADER_BYTES..).unwrap_or_default();
        match kind {
            Kind::PathChallenge => {
                // The bytes after the token are padding.
                let token = token.first_chunk::<TOKEN_BYTES>();
                let (Some(token), Some(from)) = (token, from) else { return };
                peer.respond(token, from, frame, &mut link);
                // The challenge shows that the peer may have moved, because it is as fresh and
                // authentic as data. Without this call, a peer that moves and sends no data would
                // receive nothing.
                self.handle_roamed(mark, from, 0, now, base);
            }
            Kind::PathResponse => {
                if let Some(to) = peer.handle_path_response(token, from, &mut link) {
                    self.move_to(mark, to, now, base);
                }
            }
            _ => (),
        }
    }

    /// Handles a goodbye from the peer on a slot. It has no effect for a plain neighbour, which has
    /// no handshakes to delay.
    pub(super) fn handle_goodbye(&mut self, goodbye: Goodbye, now: Now, base: &mut Base) {
        let Some(mark) = base.slots.mark_of(goodbye.slot) else { return };
        if let Some((peer, mut link)) = self.link(mark, now, base) {
            peer.handle_goodbye(goodbye.retry_after_s, &mut link);
        }
    }

    /// Handles the keys of a session that a worker has returned.
    pub(super) fn take_session_back(&mut self, returned: Box<RxSession>, base: &mut Base) {
        let moved = self.shared.sessions.take_back(returned, &mut base.out);
        if let Some((mark, worker)) = moved
            && let Some(peer) = self.peers.get_mut(mark)
        {
            peer.set_owner(worker);
        }
    }

    /// Sets the alternate port. Every other initiation to a silent peer of `port` is sent through
    /// `alternate`. Peers that are down and were last reached through the previous alternate return
    /// to their configured location.
    pub(super) fn set_alternate(&mut self, port: PortId, alternate: PortId, base: &mut Base) {
        let former = self.shared.alternates.set(port, alternate, base.clock.now());
        let former = former.filter(|former| *former != alternate);
        let left =
            |peer: &Peer| peer.state() == LinkState::Down && former == Some(peer.reach().port());
        let links = self.peers.iter().filter(|(_, peer)| left(peer));
        let links: Vec<Mark> = links.map(|(mark, _)| mark).collect();
        for mark in links {
            self.return_to_written(mark, base);
        }
    }

    /// Moves the peer to its configured location, which is not validated.
    pub(super) fn return_to_written(&mut self, mark: Mark, base: &mut Base) {
        let Some(peer) = self.peers.get_mut(mark) else { return };
        let Some(written) = peer.reach().written() else { return };
        peer.reach_mut().invalidate();
        self.peers.settle(mark, Some(written));
        if self.peers.is_known_at(mark, written) {
            base.readdress(mark, written);
        } else {
            base.out.workers.command_all(|_| Command::ClearAddress(mark));
        }
    }

    /// Informs the peers of this node's new address: sends a probe on each link that is up, and
    /// begins a handshake on each idle link.
    pub(super) fn show_where_we_are(&mut self, now: Now, base: &mut Base) {
        for mark in self.peers.links() {
            // A link that is down stays unchanged.
            let state = self.peers.get(mark).map(Peer::state);
            if state.is_none_or(|state| state == LinkState::Down) {
                continue;
            }
            let Some((peer, mut link)) = self.link(mark, now, base) else { continue };
            if peer.state().is_up() {
                peer.challenge(None, &mut link);
            } else {
                peer.request_keys(&mut link);
            }
        }
    }

    /// The latest timestamp that this node's handshakes can carry before the next snapshot. Peers
    /// refuse a handshake whose timestamp is not later than the last one. After a restart,
    /// timestamps therefore continue from this value, even if the wall clock was set back in the
    /// meantime.
    pub(super) fn stamps_until(&self, now: Now) -> u64 {
        let stamp = self.shared.config.wall_at_zero.saturating_add(now.0);
        (stamp / STAMP_STEP_NS).saturating_add(2).saturating_mul(STAMP_STEP_NS)
    }

    /// Ensures that no later timestamp of a handshake is below `wall_ns`, in nanoseconds since
    /// 1970.
    pub(super) fn stamp_from(&mut self, wall_ns: u64, now: Now) {
        let wall_at_zero = wall_ns.saturating_sub(now.0);
        if wall_at_zero > self.shared.config.wall_at_zero {
            self.shared.config.wall_at_zero = wall_at_zero;
            for (_, peer) in self.peers.iter_mut() {
                peer.session_mut().advance_wall_clock(wall_at_zero);
            }
        }
    }

    /// Handles the expired timers of one link.
    pub(super) fn poll(&mut self, mark: Mark, now: Now, base: &mut Base) {
        let Some((peer, mut link)) = self.link(mark, now, base) else { return };
        peer.poll(&mut link);
        if peer.is_lost(now) {
            self.return_to_written(mark, base);
        }
        let is_gone = self.peers.get(mark).is_some_and(|peer| peer.is_gone(now));
        if let (true, Some(slot)) = (is_gone, base.slots.slot_of(mark)) {
            // This fails only if the slot is already being detached.
            let _ = base.slots.detach(slot, &mut base.out);
            self.drop_detached(base);
        }
    }

    /// Checks the configuration of a peer without a key. A peer without an identity gets the rights
    /// of unknown peers.
    fn check_discovered(&self, spec: &mut PeerSpec) -> Result<(), PeerError> {
        if *spec.psk.expose() != *Psk::NONE.expose() {
            return Err(PeerError::PskWithoutKey);
        }
        let Some(identity) = &spec.identity else {
            let policy = self.shared.config.unknown_peers.ok_or(PeerError::UnknownPeer)?;
            spec.rights = policy.rights;
            return if spec.at.is_some() { Ok(()) } else { Err(PeerError::Unspecified) };
        };
        if identity == self.shared.local().identity() {
            return Err(PeerError::Ourselves);
        }
        let is_taken = self.peers.by_identity(identity).is_some();
        if is_taken { Err(PeerError::IdentityTaken) } else { Ok(()) }
    }

    /// Whether the switch may accept handshakes of peers whose keys are not configured.
    pub(super) fn expects_unknown_keys(&self) -> bool {
        self.shared.config.unknown_peers.is_some() || self.peers.lookup().has_peers_without_key()
    }

    /// The configured peer without a key that has this identity or, if there is none, the peer that
    /// may be any node at the source of the datagram.
    pub(super) fn expected_by(
        &self,
        identity: &Identity,
        datagram: &HandshakeDatagram,
    ) -> Option<Mark> {
        let there = Location { port: PortId(datagram.port), at: datagram.from };
        let is_there = |(_, peer): &(Mark, &Peer)| {
            let is_any = peer.key().is_none() && peer.spec().is_any();
            is_any && peer.reach().location() == Some(there)
        };
        self.peers.by_identity(identity).or_else(|| {
            let mut peers = self.peers.iter().filter(|_| self.peers.lookup().has_any());
            peers.find(is_there).map(|(mark, _)| mark)
        })
    }

    /// The link of a node that has proved its identity in an XX handshake: the link of the peer
    /// with its key, or that of the `expected` peer. `None` if the node is an unknown peer, and the
    /// policy allows one more.
    pub(super) fn find_proven(
        &self,
        proven: &handshake::Peer,
        expected: Option<Mark>,
    ) -> Result<Option<Mark>, Discard> {
        if let Some(mark) = self.shared.keys.get(&proven.static_key).or(expected) {
            // Refuse a peer with a psk: an XX handshake cannot authenticate with a psk.
            return match self.peers.get(mark) {
                Some(peer) if *peer.spec().psk.expose() == *Psk::NONE.expose() => Ok(Some(mark)),
                _ => Err(Discard::NotAllowed),
            };
        }
        let policy = self.shared.config.unknown_peers.ok_or(Discard::UnknownPeer)?;
        let has_room = self.peers.lookup().unknown() < policy.links_max as usize;
        if has_room { Ok(None) } else { Err(Discard::OverBudget) }
    }

    /// The maximum number of slot numbers that all unknown peers may have together, including those
    /// in quarantine and those kept over a restart. It is at most half of all numbers.
    fn unknown_numbers_max(&self, base: &Base) -> Option<usize> {
        let policy = self.shared.config.unknown_peers?;
        let wanted = (policy.links_max as usize).saturating_mul(UNKNOWN_NUMBERS_PER_LINK);
        Some(wanted.min(base.slots.config().slot_max as usize / 2))
    }

    /// Gives an unknown peer a slot, if the policy allows it.
    pub(super) fn admit_unknown(
        &mut self,
        proven: &handshake::Peer,
        port: PortId,
        at: Option<Address>,
        now: Now,
        base: &mut Base,
    ) -> Result<Mark, Discard> {
        let policy = self.shared.config.unknown_peers.ok_or(Discard::UnknownPeer)?;
        let name = proven.identity.peer_id().to_string();
        let mut spec = PeerSpec::new(name, proven.static_key, port);
        (spec.rights, spec.liveness, spec.at) = (policy.rights, policy.liveness, at);
        let attached = self.attach(spec, true, now, base);
        Ok(attached.map_err(|_| Discard::OverBudget)?.1)
    }

    /// Begins handshakes after a recovery, with every peer whose link was up or needed keys and
    /// whose location is known.
    pub(super) fn request_all_keys(&mut self, now: Now, base: &mut Base) {
        for mark in self.peers.links() {
            let Some(peer) = self.peers.get(mark) else { continue };
            let has_link = peer.is_wanted() || peer.state().is_up();
            if !has_link || !peer.reach().is_somewhere() {
                continue;
            }
            let Some((peer, mut link)) = self.link(mark, now, base) else { continue };
            if peer.is_wanted() {
                // This cannot fail: `Wanted` contains no message that could be refused.
                let _ = peer.drive(Input::Wanted, None, &mut link);
            } else {
                peer.request_keys(&mut link);
            }
        }
    }

    /// Resets each peer after a panic ([`Peer::reset`](super::peer::Peer::reset)), and sends the
    /// state of each link to the workers again. Handshakes begin in
    /// [`request_all_keys`](Self::request_all_keys).
    pub(super) fn recover(&mut self, now: Now, base: &mut Base) {
        let workers = base.out.workers.len();
        self.peers.retain(|mark| base.slots.user(mark).is_some());
        let Shared { config, keys, sessions, .. } = &mut self.shared;
        keys.clear();
        for (mark, peer) in self.peers.iter_mut() {
            peer.reset(workers);
            keys.replace(&config.local, mark, None, peer.key());
        }
        let peers = &self.peers;
        sessions.reset(|index| peers.values().any(|peer| peer.session().owns(index)), now);

        let located = |(mark, peer): (Mark, &Peer)| Some((mark, peer.reach().location()?));
        let (there, displaced): (Vec<_>, Vec<_>) =
            peers.iter().filter_map(located).partition(|&(mark, at)| peers.is_known_at(mark, at));
        for &(mark, _) in &displaced {
            // Some worker may still have an address of the link.
            base.out.workers.command_all(|_| Command::ClearAddress(mark));
        }
        for (mark, peer) in self.peers.iter_mut() {
            let is_up = peer.state().is_up();
            base.out.workers.command_all(|_| Command::AllowData(mark, is_up));
            if peer.status_mut().recover() {
                base.out.workers.note_opening(mark);
            }
        }
        for (mark, at) in there {
            base.readdress(mark, at);
        }
    }

    /// Marks the listed sessions that belong to no peer as retired. These sessions end when their
    /// keys expire.
    pub(super) fn retire_unknown(&mut self, sessions: &[SessionIndex], now: Now) {
        let peers = &self.peers;
        let owns = |index| peers.values().any(|peer| peer.session().owns(index));
        self.shared.sessions.retire_unknown(sessions, owns, now);
    }
}
