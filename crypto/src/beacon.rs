//! Link beacons: "a node with this key is here", said to a whole segment. A beacon suggests a peer and
//! proves nothing: whoever hears one may begin a handshake, and only that shows who is there. The bytes are
//! those of [`strowger_wire::beacon`].
//!
//! The Ed25519 key signs the X25519 key under a text of its own, together with the network's name, so
//! that nobody can say of an identity what it has not said. It says nothing of time or place: a node
//! signs once, when it starts, and does not keep the key that signs. So a beacon can be said
//! again by anybody, anywhere, and then suggests a peer that is not there.
//!
//! The mac is keyed by the network's name alone. It keeps strangers to the network, who are the
//! cheapest to make, from costing a signature's verification.

pub use strowger_wire::beacon::{BEACON_BYTES, FIRST_BYTE};
use strowger_wire::{
    beacon::{Beacon, BeaconError, Fields},
    limits::KEY_BYTES,
};
use subtle::ConstantTimeEq;

use crate::identity::{Identity, IdentityRefused, LocalIdentity, NetworkId, StaticPublic};
use crate::secret::mac;
pub use strowger_wire::limits::MAC_BYTES;

/// Why bytes are no beacon, or none to be followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BeaconRefused {
    /// Of another length, or with another link header.
    #[error("not shaped like a beacon")]
    Malformed,
    /// Of a version that does not exist yet.
    #[error("a beacon of an unknown version")]
    UnknownVersion,
    /// The identity is none, or has not signed this.
    #[error(transparent)]
    Identity(#[from] IdentityRefused),
}

/// The beacon of this node: the same bytes whenever it is asked for.
pub fn encode(local: &LocalIdentity) -> [u8; BEACON_BYTES] {
    let fields = Fields {
        static_key: &local.static_public().0,
        identity: &local.identity().to_bytes(),
        signature: local.beacon_signature(),
    };
    fields.emit(|covered| network_mac(local.network(), covered))
}

/// What the last bytes of a beacon are, over all before them. Whoever knows the network's name can
/// compute it.
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

/// A beacon whose shape is right. Nothing of it is believed yet.
#[derive(Clone, Copy, Debug)]
pub struct UnverifiedBeacon<'m>(Beacon<'m>);

impl<'m> UnverifiedBeacon<'m> {
    /// Reads a beacon's shape. Total: any bytes give a claim or an error.
    pub fn parse(bytes: &'m [u8]) -> Result<UnverifiedBeacon<'m>, BeaconRefused> {
        Ok(UnverifiedBeacon(Beacon::parse(bytes)?))
    }

    /// The key that it names.
    pub fn static_key(&self) -> StaticPublic {
        StaticPublic(*self.0.fields().static_key)
    }

    /// The bytes of the identity that it names, whether or not they are one.
    pub fn identity_bytes(&self) -> [u8; KEY_BYTES] {
        *self.0.fields().identity
    }

    /// Whether whoever made it knows the network's name. Costs two short hashes; to be asked first.
    pub fn is_for_network(&self, network: &NetworkId) -> bool {
        let right = network_mac(network, self.0.covered());
        right.ct_eq(self.0.mac()).into()
    }

    /// Whose it is, if that identity has signed this key for this network.
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
    fn a_beacon_says_who_made_it_and_nobody_else_can() {
        let (ours, other) = (local(7, b"home"), local(8, b"home"));
        let bytes = encode(&ours);
        let beacon = UnverifiedBeacon::parse(&bytes).expect("our own");
        assert_eq!((bytes[0], beacon.static_key()), (FIRST_BYTE, *ours.static_public()));
        assert!(beacon.is_for_network(ours.network()));
        assert_eq!(beacon.verify(ours.network()), Ok(*ours.identity()));

        // Of another network: neither mac nor signature.
        let away = NetworkId::new(b"away").expect("short");
        assert!(!beacon.is_for_network(&away));
        let refused = Err(BeaconRefused::Identity(IdentityRefused::BadSignature));
        assert_eq!(beacon.verify(&away), refused);

        // Another's key under our signature, and ours under another's.
        for field in [STATIC_AT..IDENTITY_AT, IDENTITY_AT..SIGNATURE_AT] {
            let mut forged = bytes;
            forged[field.clone()].copy_from_slice(&encode(&other)[field]);
            let mac = network_mac(ours.network(), &forged[..MAC_AT]);
            forged[MAC_AT..].copy_from_slice(&mac);
            let beacon = UnverifiedBeacon::parse(&forged).expect("well-shaped");
            assert!(beacon.is_for_network(ours.network()));
            assert_eq!(beacon.verify(ours.network()), refused);
        }
        // The proof of the handshake is a signature under another text.
        let mut proof = bytes;
        let in_proof = &ours.proof().0[40..];
        proof[SIGNATURE_AT..SIGNATURE_AT + SIGNATURE_BYTES].copy_from_slice(in_proof);
        assert_eq!(UnverifiedBeacon::parse(&proof).map(|c| c.verify(ours.network())), Ok(refused));
    }

    #[test]
    fn a_changed_byte_is_seen_by_the_form_or_by_the_mac() {
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

    /// Computed from the page with Python's hashlib (BLAKE2s) and its `cryptography` (X25519, Ed25519).
    #[test]
    fn the_known_answer() {
        let bytes = encode(&local(7, b"home"));
        assert_eq!(hex(&bytes[..STATIC_AT]), "700000000000000001000000");
        assert_eq!(
            hex(&bytes[STATIC_AT..IDENTITY_AT]),
            "46b2a00b19c781a5826790e6c8ca7855995f65f6831b54613cea4943ac530a7c"
        );
        assert_eq!(
            hex(&bytes[IDENTITY_AT..SIGNATURE_AT]),
            "ea4a6c63e29c520abef5507b132ec5f9954776aebebe7b92421eea691446d22c"
        );
        assert_eq!(
            hex(&bytes[SIGNATURE_AT..SIGNATURE_AT + 64]),
            "f6546ba9e56c091d9f972b7480facd2775bf92e45099289636b3840d10d077c7cf8002511068d4e8fdc0fd66374f9dbb66372a87f3e975b15eb485d10af9a40d"
        );
        assert!(bytes[SIGNATURE_AT + 64..MAC_AT].iter().all(|byte| *byte == 0));
        assert_eq!(hex(&bytes[MAC_AT..]), "b92ec54b67da5b437cfff3e973e4cb3c");
    }
}
