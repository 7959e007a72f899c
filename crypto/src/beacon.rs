//! Link beacons: a node announces its key to a whole segment, in the format of
//! [`strowger_wire::beacon`].
//!
//! A beacon suggests a peer but does not prove its presence: a receiver may start a handshake, and
//! only the handshake proves which node is at the other end.
//!
//! The Ed25519 key signs the X25519 key and the network's name under a separate domain, so a beacon
//! cannot attribute a key to another identity. A node signs once at start and then drops the
//! signing key, so the signature covers neither a time nor an address. Therefore any station can
//! replay a beacon anywhere, and the replay suggests a peer at a wrong address.
//!
//! The mac is keyed with the network's name alone. A receiver checks the mac before the signature:
//! a mac costs less to verify, and a sender that does not know the network's name cannot make one.

use strowger_wire::beacon::{BEACON_BYTES, Beacon, BeaconError, Fields};
use strowger_wire::limits::{KEY_BYTES, MAC_BYTES};
use subtle::ConstantTimeEq;

use crate::identity::{Identity, IdentityRefused, LocalIdentity, NetworkId, StaticPublic};
use crate::secret::mac;

/// Why a beacon is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BeaconRefused {
    /// Wrong length or link header.
    #[error("the beacon is malformed")]
    Malformed,
    /// A version that this node does not know.
    #[error("the beacon has an unknown version")]
    UnknownVersion,
    /// The identity is invalid or has not signed this beacon.
    #[error(transparent)]
    Identity(#[from] IdentityRefused),
}

/// Encodes the beacon of this node. The bytes are always the same.
pub fn encode(local: &LocalIdentity) -> [u8; BEACON_BYTES] {
    let fields = Fields {
        static_key: &local.static_public().0,
        identity: &local.identity().to_bytes(),
        signature: local.beacon_signature(),
    };
    fields.emit(|covered| network_mac(local.network(), covered))
}

/// The mac at the end of a beacon, over all bytes before it.
///
/// It depends only on the network's name and on those bytes.
pub fn network_mac(network: &NetworkId, covered: &[u8]) -> [u8; MAC_BYTES] {
    let key = mac(&[0; KEY_BYTES], "strowger beacon key", &[network.as_bytes()]);
    let full = mac(&key, "strowger beacon mac", &[covered]);
    core::array::from_fn(|place| full[place])
}

impl From<BeaconError> for BeaconRefused {
    fn from(why: BeaconError) -> BeaconRefused {
        match why {
            BeaconError::Malformed => BeaconRefused::Malformed,
            BeaconError::UnknownVersion => BeaconRefused::UnknownVersion,
        }
    }
}

/// A well-formed beacon; nothing in it is verified.
#[derive(Clone, Copy, Debug)]
pub struct UnverifiedBeacon<'m>(Beacon<'m>);

impl<'m> UnverifiedBeacon<'m> {
    /// Parses a beacon. Returns a beacon or an error for any bytes.
    pub fn parse(bytes: &'m [u8]) -> Result<UnverifiedBeacon<'m>, BeaconRefused> {
        Ok(UnverifiedBeacon(Beacon::parse(bytes)?))
    }

    /// The claimed static key.
    pub fn static_key(&self) -> StaticPublic {
        StaticPublic(*self.0.fields().static_key)
    }

    /// The bytes of the claimed identity; they may not be a valid key.
    pub fn identity_bytes(&self) -> [u8; KEY_BYTES] {
        *self.0.fields().identity
    }

    /// Whether the mac is right. A right mac shows that the maker of the beacon knew the network's
    /// name. Costs two hashes; check it before the signature.
    pub fn is_for_network(&self, network: &NetworkId) -> bool {
        let right = network_mac(network, self.0.covered());
        right.ct_eq(self.0.mac()).into()
    }

    /// Verifies the signature and returns the identity.
    pub fn verify(&self, network: &NetworkId) -> Result<Identity, BeaconRefused> {
        let identity = Identity::from_bytes(&self.identity_bytes())?;
        identity.check_beacon(&self.static_key(), network, self.0.fields().signature)?;
        Ok(identity)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::IdentityKey;
    use crate::secret::Secret;
    use strowger_wire::beacon::FIRST_BYTE;
    use strowger_wire::hex::Hex;

    const STATIC_AT: usize = 12;
    const IDENTITY_AT: usize = STATIC_AT + KEY_BYTES;
    const SIGNATURE_AT: usize = IDENTITY_AT + KEY_BYTES;
    const SIGNATURE_BYTES: usize = 64;
    const MAC_AT: usize = BEACON_BYTES - MAC_BYTES;

    fn local(seed: u8, network: &[u8]) -> LocalIdentity {
        let key = IdentityKey::from_seed(&Secret::from_bytes([seed; KEY_BYTES]));
        LocalIdentity::new(&key, NetworkId::new(network).expect("short"))
    }

    fn hex(bytes: &[u8]) -> String {
        Hex(bytes).to_string()
    }

    #[test]
    fn a_beacon_names_its_identity_and_cannot_be_forged() {
        let (ours, other) = (local(7, b"home"), local(8, b"home"));
        let bytes = encode(&ours);
        let beacon = UnverifiedBeacon::parse(&bytes).expect("our own");
        assert_eq!((bytes[0], beacon.static_key()), (FIRST_BYTE, *ours.static_public()));
        assert!(beacon.is_for_network(ours.network()));
        assert_eq!(beacon.verify(ours.network()), Ok(*ours.identity()));

        // In another network neither the mac nor the signature is valid.
        let away = NetworkId::new(b"away").expect("short");
        assert!(!beacon.is_for_network(&away));
        let refused = Err(BeaconRefused::Identity(IdentityRefused::BadSignature));
        assert_eq!(beacon.verify(&away), refused);

        // Our signature with the static key of another node, and with the identity of another node.
        for field in [STATIC_AT..IDENTITY_AT, IDENTITY_AT..SIGNATURE_AT] {
            let mut forged = bytes;
            forged[field.clone()].copy_from_slice(&encode(&other)[field]);
            let mac = network_mac(ours.network(), &forged[..MAC_AT]);
            forged[MAC_AT..].copy_from_slice(&mac);
            let beacon = UnverifiedBeacon::parse(&forged).expect("well-shaped");
            assert!(beacon.is_for_network(ours.network()));
            assert_eq!(beacon.verify(ours.network()), refused);
        }
        // The identity proof of the handshake is a signature under another domain.
        let mut proof = bytes;
        let in_proof = &ours.proof().0[40..];
        proof[SIGNATURE_AT..SIGNATURE_AT + SIGNATURE_BYTES].copy_from_slice(in_proof);
        assert_eq!(UnverifiedBeacon::parse(&proof).map(|c| c.verify(ours.network())), Ok(refused));
    }

    #[test]
    fn a_changed_byte_is_detected_by_the_format_or_the_mac() {
        let ours = local(7, b"home");
        let bytes = encode(&ours);
        for place in 0..BEACON_BYTES {
            let mut touched = bytes;
            touched[place] ^= 1;
            match UnverifiedBeacon::parse(&touched) {
                Ok(beacon) => assert!(!beacon.is_for_network(ours.network()), "byte {place}"),
                Err(_) => assert!(place < STATIC_AT, "byte {place}"),
            }
        }
    }

    /// The example was computed with Python: `hashlib` (BLAKE2s) and `cryptography` (X25519,
    /// Ed25519).
    ///
    /// wire.md: W10-1, W10-2, W10-3, W10-4, W10-7, W10-8.
    #[test]
    fn a_beacon_is_the_one_of_the_example() {
        let key = IdentityKey::from_seed(&Secret::from_bytes([7; KEY_BYTES]));
        assert_eq!(hex(key.static_key().expose()), STATIC_SECRET);
        strowger_testkit::wire_md::assert_example("beacon", &encode(&local(7, b"home")));
    }

    /// The X25519 secret key that wire.md 10.3 states for the seed.
    const STATIC_SECRET: &str = "eeaa39eb8e97c81ad41184258d237e35c66dc0d6f03fc43094a993d5bf929ac9";
}
