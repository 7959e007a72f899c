//! Peers whose key nobody wrote: which of them somebody may be who has proved who it is, and unknown peers.
//! It never takes anybody whom neither a pinned identity nor the policy lets in.

use strowger_crypto::{
    Identity, Psk,
    handshake::{self, xx},
    session::XxRole,
};
use strowger_frame::{Address, Mark};

use super::{
    super::base::Base, HandshakeOrigin, Links, Location, Peer, PeerError, PeerSpec, discard_of,
};
use crate::{
    Now, command::HandshakeDatagram, control::PortId, discard::Discard,
    limits::UNKNOWN_NUMBERS_PER_LINK,
};

impl Links {
    /// Whether a peer without a key may be looked for, and as whom.
    pub(super) fn check_discovered(&self, spec: &mut PeerSpec) -> Result<(), PeerError> {
        let peering = self.peering.as_ref().ok_or(PeerError::NoIdentity)?;
        if *spec.psk.expose() != *Psk::NONE.expose() {
            return Err(PeerError::PskWithoutKey);
        }
        let Some(identity) = &spec.identity else {
            let policy = peering.config.unknown_peers.ok_or(PeerError::UnknownPeer)?;
            spec.rights = policy.rights;
            return if spec.at.is_some() { Ok(()) } else { Err(PeerError::Unspecified) };
        };
        if identity == peering.config.local.identity() {
            return Err(PeerError::Ourselves);
        }
        if self.discovered_as(identity).is_some() { Err(PeerError::IdentityTaken) } else { Ok(()) }
    }

    /// Whether somebody is to be let in whose key nobody wrote.
    pub(super) fn expects_unknown_keys(&self) -> bool {
        self.peering.as_ref().is_some_and(|peering| {
            peering.config.unknown_peers.is_some() || peering.lookup.has_peers_without_key()
        })
    }

    /// The peer that is known by this identity alone.
    pub(super) fn discovered_as(&self, identity: &Identity) -> Option<Mark> {
        self.peering.as_ref()?.lookup.by_identity(&identity.to_bytes())
    }

    /// The peer that this may be, of those whose key is not known: by its identity, or as whoever is at
    /// that address.
    fn expected_by(&self, finish: &xx::Finish, datagram: &HandshakeDatagram) -> Option<Mark> {
        let there = Location { port: PortId(datagram.port), at: datagram.from };
        let is_there = |peer: &Peer| {
            peer.key.is_none() && peer.spec.is_any() && peer.location() == Some(there)
        };
        self.discovered_as(finish.identity()).or_else(|| {
            let peering = self.peering.as_ref().filter(|p| p.lookup.has_anybody())?;
            let mut peers = peering.peers.iter();
            peers.find(|(_, peer)| is_there(peer)).map(|(mark, _)| *mark)
        })
    }

    /// Somebody whose key nobody wrote has proved who it is, and that it receives where it sends from.
    pub(super) fn take_unknown(
        &mut self,
        finish: xx::Finish,
        datagram: &HandshakeDatagram,
        now: Now,
        base: &mut Base,
    ) -> Result<(), Discard> {
        let expected = self.expected_by(&finish, datagram);
        let peering = self.peering.as_mut().ok_or(Discard::Unhandled)?;
        let index = finish.our_index();
        if !peering.indices.take_index(index) {
            // The index was chosen without looking: the unknown peer starts again with another.
            return Err(Discard::OverBudget);
        }
        let taken = self.take_finish(finish, expected, datagram, now, base);
        if let Some(peering) = &mut self.peering
            && !peering.by_index.contains_key(&index)
        {
            peering.indices.give_back(index);
        }
        taken
    }

    fn take_finish(
        &mut self,
        finish: xx::Finish,
        expected: Option<Mark>,
        datagram: &HandshakeDatagram,
        now: Now,
        base: &mut Base,
    ) -> Result<(), Discard> {
        let port = PortId(datagram.port);
        let key = finish.peer().static_key;
        let proven = *finish.peer();
        let known = self.whose(&proven, expected)?;
        let peering = self.peering.as_mut().ok_or(Discard::Unhandled)?;
        let known_guard = known.and_then(|mark| Some(peering.peers.get(&mark)?.session.guard()));
        let mut guard = known_guard.unwrap_or_default();
        // A copy of what was accepted before ends here, before anything comes of it (R8).
        let accepted = finish.accept(&mut peering.checker, &mut guard);
        let established = accepted.map_err(discard_of)?;
        let mark = match known {
            Some(mark) => mark,
            None => self.let_in(&proven, port, None, now, base)?,
        };
        let by = HandshakeOrigin::of(datagram);
        // Its first frame under the new keys will tell where it is.
        let taken = self.with_session(
            mark,
            Some(by),
            now,
            |session, context, outputs| {
                session.adopt(context, established, XxRole::Responder { guard }, outputs)
            },
            base,
        );
        // It was the first: what we had begun towards it would take the place of what it has begun.
        self.drop_call(&key);
        taken
    }

    /// The link of whoever has proved by XX who it is: that of the peer whose key it has, or who it was
    /// expected to be; none, if the policy has a slot for it.
    pub(super) fn whose(
        &self,
        proven: &handshake::Peer,
        expected: Option<Mark>,
    ) -> Result<Option<Mark>, Discard> {
        let peering = self.peering.as_ref().ok_or(Discard::Unhandled)?;
        let key = proven.static_key;
        if let Some(mark) = peering.by_key.get(&key.0).copied().or(expected) {
            // Whom the operator gave a psk has to show that it has it, which XX cannot.
            return match peering.peers.get(&mark) {
                Some(peer) if *peer.spec.psk.expose() == *Psk::NONE.expose() => Ok(Some(mark)),
                _ => Err(Discard::NotAllowed),
            };
        }
        let policy = peering.config.unknown_peers.ok_or(Discard::UnknownPeer)?;
        let has_room = peering.lookup.unknown() < policy.links_max as usize;
        if has_room { Ok(None) } else { Err(Discard::OverBudget) }
    }

    /// How many numbers unknown peers may have together, those in quarantine and those kept over a restart
    /// included; no more than half of all.
    pub(super) fn unknown_numbers_max(&self, base: &Base) -> Option<usize> {
        let policy = self.peering.as_ref()?.config.unknown_peers?;
        let wanted = (policy.links_max as usize).saturating_mul(UNKNOWN_NUMBERS_PER_LINK);
        Some(wanted.min(base.slots.config().slot_max as usize / 2))
    }

    /// Gives an unknown peer a slot of its own, as the policy allows it.
    pub(super) fn let_in(
        &mut self,
        proven: &handshake::Peer,
        port: PortId,
        at: Option<Address>,
        now: Now,
        base: &mut Base,
    ) -> Result<Mark, Discard> {
        let peering = self.peering.as_ref().ok_or(Discard::Unhandled)?;
        let policy = peering.config.unknown_peers.ok_or(Discard::UnknownPeer)?;
        let key = proven.static_key;
        let mut spec = PeerSpec::new(proven.identity.peer_id().to_string(), key, port);
        (spec.rights, spec.liveness) = (policy.rights, policy.liveness);
        spec.at = at;
        let attached = self.attach_peer(spec, true, now, base);
        Ok(attached.map_err(|_| Discard::OverBudget)?.1)
    }
}
