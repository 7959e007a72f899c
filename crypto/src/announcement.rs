//! Announcements of endpoints to their own switch, and the tags with which a node asks a switch for
//! a peer (wire.md 5.5).
//!
//! An announcement states that an identity is at a slot of a switch. The identity signs the
//! announcement, because the connection key is an X25519 key and cannot sign. The signature covers
//! the switch and the slot, so an announcement is of no use to another program or at another
//! switch.
//!
//! ```
//! use strowger_crypto::{
//!     AnnouncePlace, IdentityKey, NetworkId, SeededEntropy, verify_announcement, find_tag,
//! };
//! use strowger_crypto::wire::control::Message;
//!
//! let mut entropy = SeededEntropy::new(7);
//! let key = IdentityKey::generate(&mut entropy).unwrap();
//! let switch = IdentityKey::generate(&mut entropy).unwrap().public();
//! let network = NetworkId::new(b"home").unwrap();
//!
//! let certificate = key.certify_connection_key(1_700_000_000_000_000_000, &network);
//! let place = AnnouncePlace { network: &network, switch: &switch, slot: 4 };
//! let bytes = key.announce(&place, &certificate, 300, 1_700_000_000_000_000_001).message(9);
//!
//! let Ok(Message::Announce { id: 9, announcement }) = Message::parse(&bytes) else { panic!() };
//! assert_eq!(verify_announcement(&announcement, &place), Ok(certificate));
//! # let _ = find_tag(&[0; 16], &key.public().peer_id().ip6());
//! ```

use core::net::Ipv6Addr;

use strowger_wire::certificate::{CERTIFICATE_BYTES, KeyRole};
use strowger_wire::control::{ANNOUNCE_BYTES, Announcement, Message};
use strowger_wire::limits::{FIND_NONCE_BYTES, FIND_TAG_BYTES, SIGNATURE_BYTES};

use crate::certificate::{Certificate, CertificateRefused};
use crate::identity::{Identity, IdentityKey, NetworkId};
use crate::secret::mac;

/// The first bytes of the signed text.
const DOMAIN: &[u8; 20] = b"strowger-announce-1:";

/// The slot at which an endpoint announces itself.
#[derive(Clone, Copy, Debug)]
pub struct AnnouncePlace<'a> {
    /// The network of the switch and the endpoint.
    pub network: &'a NetworkId,
    /// The identity of the switch.
    pub switch: &'a Identity,
    /// The number of the slot.
    pub slot: u32,
}

/// A signed announcement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignedAnnouncement {
    slot: u32,
    seconds: u32,
    stamp: u64,
    certificate: [u8; CERTIFICATE_BYTES],
    signature: [u8; SIGNATURE_BYTES],
}

/// Why an announcement is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum AnnouncementRefused {
    /// The announcement is for another slot.
    #[error("the announcement is for another slot")]
    OtherSlot,
    /// The certificate is not valid.
    #[error(transparent)]
    Certificate(#[from] CertificateRefused),
    /// The certified identity has not signed these fields for this switch.
    #[error("the announcement is not signed by its identity for this switch")]
    BadSignature,
}

impl IdentityKey {
    /// Announces this identity at a slot for `seconds`; 0 withdraws the announcement. `stamp` is
    /// the time in nanoseconds since 1970. A switch accepts only announcements whose stamp is
    /// greater than that of the last one.
    pub fn announce(
        &self,
        place: &AnnouncePlace<'_>,
        certificate: &Certificate,
        seconds: u32,
        stamp: u64,
    ) -> SignedAnnouncement {
        let certificate = *certificate.as_bytes();
        let slot = place.slot;
        let text = signed_bytes(place, slot, seconds, stamp, &certificate);
        let signature = self.sign(&text);
        SignedAnnouncement { slot, seconds, stamp, certificate, signature }
    }
}

impl SignedAnnouncement {
    /// The control message, with the identifier `id`. Send it to slot 1 of the own switch, which is
    /// the label `0001`.
    pub fn message(&self, id: u32) -> [u8; ANNOUNCE_BYTES] {
        let mut bytes = [0; ANNOUNCE_BYTES];
        let message = Message::Announce { id, announcement: self.fields() };
        message.emit(&mut bytes).expect("the message has this length");
        bytes
    }

    /// The fields.
    pub const fn fields(&self) -> Announcement<'_> {
        Announcement {
            slot: self.slot,
            seconds: self.seconds,
            stamp: self.stamp,
            certificate: &self.certificate,
            signature: &self.signature,
        }
    }
}

/// Verifies an announcement at the switch and slot `place`. Returns the certificate of the
/// connection key. Costs the verification of two signatures if the slot is right.
///
/// # Errors
/// [`AnnouncementRefused`].
pub fn verify_announcement(
    announcement: &Announcement<'_>,
    place: &AnnouncePlace<'_>,
) -> Result<Certificate, AnnouncementRefused> {
    let Announcement { slot, seconds, stamp, certificate, signature } = *announcement;
    if slot != place.slot {
        return Err(AnnouncementRefused::OtherSlot);
    }
    let verified = Certificate::verify(certificate, KeyRole::Connection, place.network)?;
    let text = signed_bytes(place, slot, seconds, stamp, certificate);
    let checked = verified.identity().check(&text, signature);
    checked.map_err(|_| AnnouncementRefused::BadSignature)?;
    Ok(verified)
}

fn signed_bytes(
    place: &AnnouncePlace<'_>,
    slot: u32,
    seconds: u32,
    stamp: u64,
    certificate: &[u8; CERTIFICATE_BYTES],
) -> Vec<u8> {
    let network = place.network.as_bytes();
    [
        &DOMAIN[..],
        // The name of a network has at most 32 bytes.
        &[network.len() as u8],
        network,
        &place.switch.to_bytes(),
        &slot.to_be_bytes(),
        &seconds.to_be_bytes(),
        &stamp.to_be_bytes(),
        certificate,
    ]
    .concat()
}

/// The tag of a find message: a keyed hash of the IPv6 address of the wanted peer
/// ([`PeerId::ip6`](crate::PeerId::ip6)) under the nonce. A switch that does not know the peer
/// cannot learn from the tag which peer is wanted.
pub fn find_tag(nonce: &[u8; FIND_NONCE_BYTES], address: &Ipv6Addr) -> [u8; FIND_TAG_BYTES] {
    let [_, _, hash @ ..] = address.octets();
    let full = mac(nonce, "strowger find", &[&hash]);
    let mut tag = [0; FIND_TAG_BYTES];
    tag.copy_from_slice(&full[..FIND_TAG_BYTES]);
    tag
}

#[cfg(test)]
mod tests {
    use strowger_testkit::wire_md::example;

    use super::*;
    use crate::entropy::SeededEntropy;

    fn key(seed: u64) -> IdentityKey {
        IdentityKey::generate(&mut SeededEntropy::new(seed)).expect("seeded")
    }

    fn network(name: &[u8]) -> NetworkId {
        NetworkId::new(name).expect("short")
    }

    /// wire.md: W5-81.
    #[test]
    fn an_announcement_is_valid_at_its_switch_slot_and_network_only() {
        let (ours, switch, home) = (key(1), key(2).public(), network(b"home"));
        let certificate = ours.certify_connection_key(9, &home);
        let place = AnnouncePlace { network: &home, switch: &switch, slot: 4 };
        let made = ours.announce(&place, &certificate, 300, 10);
        assert_eq!(verify_announcement(&made.fields(), &place), Ok(certificate));

        let other = AnnouncePlace { slot: 5, ..place };
        let refused = verify_announcement(&made.fields(), &other);
        assert_eq!(refused, Err(AnnouncementRefused::OtherSlot));
        let moved = Announcement { slot: 5, ..made.fields() };
        let bad = Err(AnnouncementRefused::BadSignature);
        assert_eq!(verify_announcement(&moved, &other), bad);
        let elsewhere = key(3).public();
        let other = AnnouncePlace { switch: &elsewhere, ..place };
        assert_eq!(verify_announcement(&made.fields(), &other), bad);
        for changed in [
            Announcement { seconds: 301, ..made.fields() },
            Announcement { stamp: 11, ..made.fields() },
            Announcement { signature: &[0; 64], ..made.fields() },
        ] {
            assert_eq!(verify_announcement(&changed, &place), bad);
        }
        // A certificate of another network, role or identity.
        let away = network(b"away");
        let other = AnnouncePlace { network: &away, ..place };
        let refused = verify_announcement(&made.fields(), &other);
        assert!(matches!(refused, Err(AnnouncementRefused::Certificate(_))), "{refused:?}");
        let link = ours.certify(KeyRole::Link, &[7; 32], 9, &home);
        let made = ours.announce(&place, &link, 300, 10);
        let refused = verify_announcement(&made.fields(), &place);
        assert!(matches!(refused, Err(AnnouncementRefused::Certificate(_))), "{refused:?}");
        let victim = key(4).certify_connection_key(9, &home);
        let made = ours.announce(&place, &victim, 300, 10);
        assert_eq!(verify_announcement(&made.fields(), &place), bad);
    }

    /// The bytes in the document were computed with hashlib and cryptography of Python.
    ///
    /// wire.md: W5-81, W5-84.
    #[test]
    fn the_signature_and_the_tag_are_those_of_the_document() {
        let key = |byte| IdentityKey::from_seed(&crate::Secret::from_bytes([byte; 32]));
        let (a, b, network) = (key(0xa0), key(0xb0).public(), network(b"example"));
        let certificate = example("identity-certificate");
        let certificate =
            Certificate::verify(&certificate, KeyRole::Connection, &network).expect("valid");
        let place = AnnouncePlace { network: &network, switch: &b, slot: 4 };
        let made = a.announce(&place, &certificate, 300, 1_700_000_001_000_000_000);
        assert_eq!(made.message(0x0102_0304)[..], example("control-announce"));
        let find = example("control-find");
        let nonce = find[4..20].try_into().expect("16 bytes");
        assert_eq!(find_tag(nonce, &a.public().peer_id().ip6()), find[20..36]);
    }

    /// wire.md: W5-84.
    #[test]
    fn a_tag_depends_on_the_nonce_and_the_peer() {
        let (ours, other) = (key(1).public().peer_id(), key(2).public().peer_id());
        let tag = find_tag(&[7; 16], &ours.ip6());
        assert_eq!(tag, find_tag(&[7; 16], &ours.ip6()));
        assert_ne!(tag, find_tag(&[8; 16], &ours.ip6()));
        assert_ne!(tag, find_tag(&[7; 16], &other.ip6()));
    }
}
