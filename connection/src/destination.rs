//! Destinations of connects.

use arrayvec::ArrayVec;
use strowger_crypto::{Certificate, PeerId};
use strowger_routing::{Candidate, Candidates, LookupTarget, PeerAddress, Route, Source};
use strowger_wire::label::AnyLabel;

/// A peer, and the routes to it that the caller knows. If a route is given, the endpoint asks
/// routing only after that route has failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Destination {
    target: LookupTarget,
    routes: Candidates,
}

impl Destination {
    /// A peer without known routes.
    pub fn new(target: LookupTarget) -> Destination {
        Destination { target, routes: ArrayVec::new() }
    }

    /// Adds a route. Routes to another peer, and more than eight, are ignored.
    #[must_use]
    pub fn route(mut self, candidate: Candidate) -> Destination {
        if self.target.is(&candidate.peer) {
            let _ = self.routes.try_push(candidate);
        }
        self
    }

    /// Adds a label, if the PeerId is known.
    #[must_use]
    pub fn label(self, label: AnyLabel) -> Destination {
        match self.target {
            LookupTarget::Peer(peer) => {
                self.route(Candidate::new(peer, Route::Label(label), Source::Program))
            }
            LookupTarget::Address(_) => self,
        }
    }

    /// Adds a label and the certificate of the peer's connection key, so that connecting is
    /// possible by static key.
    #[must_use]
    pub fn label_with_key(self, label: AnyLabel, certificate: Certificate) -> Destination {
        let peer = certificate.identity().peer_id();
        let mut candidate = Candidate::new(peer, Route::Label(label), Source::Program);
        candidate.certificate = Some(certificate);
        self.route(candidate)
    }

    /// The peer.
    pub const fn target(&self) -> &LookupTarget {
        &self.target
    }

    /// The known routes.
    pub fn routes(&self) -> &[Candidate] {
        &self.routes
    }
}

impl From<PeerId> for Destination {
    fn from(peer: PeerId) -> Destination {
        Destination::new(peer.into())
    }
}

impl From<Candidate> for Destination {
    fn from(candidate: Candidate) -> Destination {
        Destination::new(candidate.peer.into()).route(candidate)
    }
}

impl TryFrom<&PeerAddress> for Destination {
    type Error = strowger_routing::address::NeedsPeer;

    fn try_from(address: &PeerAddress) -> Result<Destination, Self::Error> {
        let destination = Destination::from(address.peer()?);
        Ok(match Candidate::of_address(address, Source::Program) {
            Some(candidate) => destination.route(candidate),
            None => destination,
        })
    }
}
