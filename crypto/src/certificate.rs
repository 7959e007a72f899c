//! Identity certificates: an identity signs that a key belongs to it, in the format of
//! [`strowger_wire::certificate`].
//!
//! A certificate lets a node reach an identity by its static key, without an earlier handshake by
//! PeerId. A certificate is no proof of presence: anyone may pass it on.

use core::fmt;

use strowger_wire::certificate::{CERTIFICATE_BYTES, CertificateError, CertificateFields, KeyRole};
use strowger_wire::limits::KEY_BYTES;

use crate::identity::{Identity, IdentityKey, IdentityRefused, NetworkId, StaticPublic};

/// Why a certificate is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum CertificateRefused {
    /// Wrong length, or a role that this version does not know.
    #[error(transparent)]
    Malformed(CertificateError),
    /// The certificate is for another role than the expected one.
    #[error("the identity certificate is for a key of another role")]
    OtherRole(KeyRole),
    /// The identity is invalid, or has not signed these bytes in this network.
    #[error(transparent)]
    Identity(#[from] IdentityRefused),
}

/// An identity certificate whose signature is valid.
///
/// Only [`IdentityKey::certify`] and [`verify`](Self::verify) make one.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Certificate {
    bytes: [u8; CERTIFICATE_BYTES],
    role: KeyRole,
    stamp: u64,
    identity: Identity,
    key: [u8; KEY_BYTES],
}

impl IdentityKey {
    /// Signs that `key` belongs to this identity in `network`. `stamp` is the time of signing, in
    /// nanoseconds since 1970.
    pub fn certify(
        &self,
        role: KeyRole,
        key: &[u8; KEY_BYTES],
        stamp: u64,
        network: &NetworkId,
    ) -> Certificate {
        let identity = self.public();
        let name = identity.to_bytes();
        let fields = CertificateFields { role, flags: 0, stamp, identity: &name, key };
        let signed = fields.signed(network.as_bytes()).expect("a network's name is short");
        let bytes = fields.emit(&self.sign(&signed));
        Certificate { bytes, role, stamp, identity, key: *key }
    }

    /// Signs the connection key of this identity.
    pub fn certify_connection_key(&self, stamp: u64, network: &NetworkId) -> Certificate {
        self.certify(KeyRole::Connection, &self.connection_key().public().0, stamp, network)
    }
}

impl Certificate {
    /// Parses a certificate and verifies its signature. Returns a certificate or an error for any
    /// bytes. Verifies a signature only if the form and the role are right.
    pub fn verify(
        bytes: &[u8],
        role: KeyRole,
        network: &NetworkId,
    ) -> Result<Certificate, CertificateRefused> {
        let (fields, signature) =
            CertificateFields::parse(bytes).map_err(CertificateRefused::Malformed)?;
        if fields.role != role {
            return Err(CertificateRefused::OtherRole(fields.role));
        }
        let identity = Identity::from_bytes(fields.identity)?;
        let signed = fields.signed(network.as_bytes()).expect("a network's name is short");
        identity.check(&signed, signature)?;
        let CertificateFields { stamp, key, .. } = fields;
        let bytes = bytes.try_into().map_err(|_| {
            CertificateRefused::Malformed(CertificateError::Length) // excluded by `parse`
        })?;
        Ok(Certificate { bytes, role, stamp, identity, key: *key })
    }

    /// The bytes.
    pub const fn as_bytes(&self) -> &[u8; CERTIFICATE_BYTES] {
        &self.bytes
    }

    /// The role of the key.
    pub const fn role(&self) -> KeyRole {
        self.role
    }

    /// The time of signing, in nanoseconds since 1970. Of two certificates of one identity and
    /// role, the one with the greater stamp is the newer one.
    pub const fn stamp(&self) -> u64 {
        self.stamp
    }

    /// The identity that signed.
    pub const fn identity(&self) -> &Identity {
        &self.identity
    }

    /// The key that belongs to the identity.
    pub const fn key(&self) -> &[u8; KEY_BYTES] {
        &self.key
    }

    /// The key as an X25519 key; `None` for the key of a node.
    pub fn static_key(&self) -> Option<StaticPublic> {
        match self.role {
            KeyRole::Link | KeyRole::Connection => Some(StaticPublic(self.key)),
            KeyRole::Node => None,
        }
    }
}

impl fmt::Debug for Certificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Certificate")
            .field("role", &self.role)
            .field("stamp", &self.stamp)
            .field("identity", &self.identity)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entropy::SeededEntropy;

    fn key(seed: u64) -> IdentityKey {
        IdentityKey::generate(&mut SeededEntropy::new(seed)).expect("seeded")
    }

    fn network(name: &[u8]) -> NetworkId {
        NetworkId::new(name).expect("short")
    }

    const ROLES: [KeyRole; 3] = [KeyRole::Link, KeyRole::Connection, KeyRole::Node];

    #[test]
    fn what_is_certified_is_verified() {
        let (ours, home) = (key(1), network(b"home"));
        for role in ROLES {
            let made = ours.certify(role, &[7; KEY_BYTES], 9, &home);
            let read = Certificate::verify(made.as_bytes(), role, &home);
            assert_eq!(read, Ok(made));
            assert_eq!((made.role(), made.stamp(), made.key()), (role, 9, &[7; KEY_BYTES]));
            assert_eq!(*made.identity(), ours.public());
            let is_x25519 = role != KeyRole::Node;
            assert_eq!(made.static_key(), is_x25519.then_some(StaticPublic([7; KEY_BYTES])));
        }
        let made = ours.certify_connection_key(9, &home);
        assert_eq!(made.static_key(), Some(*ours.connection_key().public()));
        assert_eq!(made.role(), KeyRole::Connection);
    }

    /// wire.md: W6-100, W6-102, W6-103.
    #[test]
    fn every_flipped_bit_and_every_cut_is_refused() {
        let home = network(b"home");
        let made = key(1).certify_connection_key(9, &home);
        for bit in 0..8 * CERTIFICATE_BYTES {
            let mut touched = *made.as_bytes();
            touched[bit / 8] ^= 1 << (bit % 8);
            let read = Certificate::verify(&touched, KeyRole::Connection, &home);
            assert!(read.is_err(), "bit {bit}");
        }
        for length in 0..CERTIFICATE_BYTES {
            let cut = Certificate::verify(&made.as_bytes()[..length], KeyRole::Connection, &home);
            assert_eq!(cut, Err(CertificateRefused::Malformed(CertificateError::Length)));
        }
    }

    /// wire.md: W6-102, W6-103, W6-104.
    #[test]
    fn a_certificate_is_valid_in_its_network_and_role_only() {
        let (ours, home) = (key(1), network(b"home"));
        let bad = Err(CertificateRefused::Identity(IdentityRefused::BadSignature));
        for role in ROLES {
            let made = ours.certify(role, &[7; KEY_BYTES], 9, &home);
            for other in [&b"hom"[..], b"home2", b""] {
                assert_eq!(Certificate::verify(made.as_bytes(), role, &network(other)), bad);
            }
            for other in ROLES.into_iter().filter(|other| *other != role) {
                let read = Certificate::verify(made.as_bytes(), other, &home);
                assert_eq!(read, Err(CertificateRefused::OtherRole(role)));
                let mut turned = *made.as_bytes();
                turned[0] = other as u8;
                assert_eq!(Certificate::verify(&turned, other, &home), bad);
            }
        }
    }

    #[test]
    fn neither_a_proof_nor_a_beacon_is_a_certificate() {
        // All three are signatures of the identity over a key. Their texts differ.
        let (ours, home) = (key(1), network(b"home"));
        let connection = ours.connection_key();
        let proof = ours.prove_in(crate::Domain::Connection, connection.public());
        let local = crate::LocalIdentity::new(&ours, home);
        for signature in [proof.0.last_chunk::<64>().expect("104 bytes"), local.beacon_signature()]
        {
            let mut bytes = *ours.certify_connection_key(9, &home).as_bytes();
            bytes[74..].copy_from_slice(signature);
            let read = Certificate::verify(&bytes, KeyRole::Connection, &home);
            assert_eq!(read, Err(CertificateRefused::Identity(IdentityRefused::BadSignature)));
        }
    }

    /// wire.md: W6-103.
    #[test]
    fn a_weak_identity_certifies_nothing() {
        // The neutral point verifies the signature (R = B, S = 1) over every text.
        let home = network(b"home");
        let mut bytes = *key(1).certify_connection_key(9, &home).as_bytes();
        bytes[10..42].fill(0);
        bytes[10] = 1;
        let read = Certificate::verify(&bytes, KeyRole::Connection, &home);
        assert_eq!(read, Err(CertificateRefused::Identity(IdentityRefused::BadKey)));
    }
}
