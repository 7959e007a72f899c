//! Values that a node computes once per known peer, as WireGuard does for configured peers.
//!
//! The shared secret of both static keys, one of the five curve operations of an IK handshake, is
//! the same every time; the first handshake stores it. The peer's identity proof has the same bytes
//! every time; if the bytes and the static key equal those verified before, the stored result is
//! used.
//!
//! Only peers that the caller adds are stored, which bounds the table. An attacker who reads its
//! secrets learns no more than from the static key in the same memory.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use strowger_wire::limits::KEY_BYTES;

use crate::domain::Domain;
use crate::identity::{Identity, IdentityProof, IdentityRefused, StaticPublic};
use crate::secret::Secret;

/// The known peers by static key. A table belongs to one static key of this node, and so to one
/// domain.
#[derive(Default)]
pub(crate) struct PrecomputedPeers(Mutex<BTreeMap<StaticPublic, Box<Peer>>>);

/// The values of one peer. They are boxed, so that the tree leaves no copy of a secret behind when
/// it moves entries.
#[derive(Default)]
struct Peer {
    shared: Option<Secret>,
    proved: Option<(IdentityProof, Identity)>,
}

impl PrecomputedPeers {
    pub(crate) fn add(&self, peer: &StaticPublic) {
        self.peers().entry(*peer).or_default();
    }

    pub(crate) fn remove(&self, peer: &StaticPublic) {
        self.peers().remove(peer);
    }

    /// Copies the shared secret with `peer` into `out`. Returns `false` if none is stored.
    pub(crate) fn shared(&self, peer: &StaticPublic, out: &mut [u8; KEY_BYTES]) -> bool {
        let peers = self.peers();
        let shared = peers.get(peer).and_then(|peer| peer.shared.as_ref());
        if let Some(shared) = shared {
            out.copy_from_slice(shared.expose());
        }
        shared.is_some()
    }

    /// Stores the shared secret with `peer`, if the peer was added.
    pub(crate) fn keep_shared(&self, peer: &StaticPublic, shared: &[u8; KEY_BYTES]) {
        if let Some(peer) = self.peers().get_mut(peer) {
            peer.shared = Some(Secret::from_bytes(*shared));
        }
    }

    /// The identity that `proof` claims, if it signed `peer`'s key.
    pub(crate) fn identify(
        &self,
        domain: Domain,
        proof: &IdentityProof,
        peer: &StaticPublic,
    ) -> Result<Identity, IdentityRefused> {
        match self.peers().get(peer).and_then(|peer| peer.proved.as_ref()) {
            Some((proved, identity)) if proved == proof => return Ok(*identity),
            _ => {}
        }
        let identity = proof.verify_in(domain, peer)?;
        if let Some(peer) = self.peers().get_mut(peer) {
            peer.proved = Some((*proof, identity));
        }
        Ok(identity)
    }

    fn peers(&self) -> MutexGuard<'_, BTreeMap<StaticPublic, Box<Peer>>> {
        // A panic while the lock is held leaves no half-written entry.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entropy::SeededEntropy;
    use crate::identity::IdentityKey;

    #[test]
    fn only_added_peers_are_stored_and_only_until_removed() {
        let precomputed = PrecomputedPeers::default();
        let (added, other) = (StaticPublic([1; 32]), StaticPublic([2; 32]));
        let mut out = [0; 32];
        precomputed.add(&added);
        for peer in [&added, &other] {
            assert!(!precomputed.shared(peer, &mut out));
            precomputed.keep_shared(peer, &[7; 32]);
        }
        assert!(precomputed.shared(&added, &mut out));
        assert_eq!(out, [7; 32]);
        assert!(!precomputed.shared(&other, &mut out));
        precomputed.add(&added);
        assert!(precomputed.shared(&added, &mut out), "adding a peer twice loses nothing");
        precomputed.remove(&added);
        assert!(!precomputed.shared(&added, &mut out));
    }

    #[test]
    fn a_verified_proof_stands_for_its_own_key_alone() {
        let mut entropy = SeededEntropy::new(5);
        let [one, other] = [(); 2].map(|()| IdentityKey::generate(&mut entropy).expect("seeded"));
        let (key, other_key) = (*one.static_key().public(), *other.static_key().public());
        let precomputed = PrecomputedPeers::default();
        precomputed.add(&key);
        precomputed.add(&other_key);
        let proof = one.prove(&key);
        for _ in 0..2 {
            assert_eq!(precomputed.identify(Domain::Link, &proof, &key), Ok(one.public()));
            // The proof that was just verified, for another known key.
            let moved = precomputed.identify(Domain::Link, &proof, &other_key);
            assert_eq!(moved, Err(IdentityRefused::BadSignature));
            for bit in [7, 8 * 20, 8 * 60, 8 * 104 - 1] {
                let mut touched = proof;
                touched.0[bit / 8] ^= 1 << (bit % 8);
                assert!(precomputed.identify(Domain::Link, &touched, &key).is_err(), "bit {bit}");
            }
        }
        // Another identity's proof for the same key replaces the first.
        let new = other.prove(&key);
        assert_eq!(precomputed.identify(Domain::Link, &new, &key), Ok(other.public()));
        assert_eq!(precomputed.identify(Domain::Link, &proof, &key), Ok(one.public()));
    }
}
