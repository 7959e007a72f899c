//! Handshakes and packets from given keys and counters: for test vectors, **never for a network**.
//!
//! Only the feature `vectors` exports this module. It exposes secrets, and it seals with counters
//! that the caller chooses, so a caller can use a nonce twice. Handshakes with given ephemeral keys
//! need only [`direction_keys`] from this module: the caller passes its own
//! [`Entropy`](crate::Entropy).

use strowger_wire::{
    limits::{IDENTITY_PROOF_BYTES, KEY_BYTES, LANES_MAX, MAC_BYTES, TAG_BYTES},
    link_header::{Kind, LINK_HEADER_BYTES, Lane, LinkHeader, SessionIndex, Step},
};

pub use crate::handshake::vectors::{
    Examples, by_peer_id, by_static_key, examples as connection_examples,
};

use crate::cipher::Provider;
use crate::domain::Domain;
use crate::handshake::{Admitted, Cookie, Established, LocalParams, Refused, cookie::MacKeys, xx};
use crate::identity::{IdentityKey, IdentityProof, LocalIdentity, NetworkId, StaticKey};
use crate::opener::{OpenRefused, Opened, Openers, refused};
use crate::replay::Window;
use crate::sealer::{self, SealMode, SealRefused, Sealed, Sealer};
use crate::secret::{self, Secret};
use crate::time::Nanos;

/// MAC(key, label, parts) of W4-18. `None` unless the key has 16 or 32 bytes.
pub fn mac(key: &[u8], label: &str, parts: &[&[u8]]) -> Option<[u8; KEY_BYTES]> {
    matches!(key.len(), MAC_BYTES | KEY_BYTES).then(|| secret::mac(key, label, parts))
}

/// The private half of a static key.
pub fn static_private(key: &StaticKey) -> &[u8; KEY_BYTES] {
    key.expose()
}

/// The identity of a node with this identity key and this static key, or connection key.
pub fn local_identity(
    domain: Domain,
    key: &IdentityKey,
    static_key: StaticKey,
    network: NetworkId,
) -> LocalIdentity {
    LocalIdentity::with_static_key(domain, key, static_key, network)
}

/// The bytes of an identity proof.
pub const fn proof_bytes(proof: &IdentityProof) -> &[u8; IDENTITY_PROOF_BYTES] {
    &proof.0
}

/// The identity proof with these bytes, which are not verified.
pub const fn proof(bytes: [u8; IDENTITY_PROOF_BYTES]) -> IdentityProof {
    IdentityProof(bytes)
}

/// mac1 of a message whose K (W4-40, W6-10) is `receiver`. `message` ends before mac1.
pub fn mac1(
    domain: Domain,
    receiver: &[u8; KEY_BYTES],
    network: &NetworkId,
    message: &[u8],
) -> [u8; MAC_BYTES] {
    MacKeys::to(domain, receiver, network).append_mac1(&mut message.to_vec())
}

/// mac2 of a message that ends before mac2.
pub fn mac2(cookie: &Cookie, message: &[u8]) -> [u8; MAC_BYTES] {
    let mut whole = message.to_vec();
    MacKeys::append_mac2(&mut whole, Some(cookie));
    *whole.last_chunk().expect("mac2 was appended")
}

/// The key hint of an initiation with this ephemeral public key to this static key.
pub fn key_hint(
    domain: Domain,
    receiver: &[u8; KEY_BYTES],
    ephemeral: &[u8; KEY_BYTES],
) -> SessionIndex {
    let message = [&[0; LINK_HEADER_BYTES][..], ephemeral].concat();
    let keys = MacKeys::to(domain, receiver, &NetworkId::new(b"").expect("short"));
    keys.key_hint(&message).expect("the message has a key")
}

/// The cookie with these bytes.
pub const fn cookie(bytes: [u8; MAC_BYTES]) -> Cookie {
    Cookie::from_bytes(bytes)
}

/// Opens a cookie reply to the message with this mac1, whose K (W4-74, W6-10) is `receiver`.
/// `index` is the session index of that message.
pub fn read_cookie(
    (domain, receiver): (Domain, &[u8; KEY_BYTES]),
    network: &NetworkId,
    (step, index): (Step, SessionIndex),
    mac1: &[u8; MAC_BYTES],
    reply: &[u8],
) -> Result<[u8; MAC_BYTES], Refused> {
    let keys = MacKeys::to(domain, receiver, network);
    Cookie::read(&keys, step, index, mac1, reply).map(|cookie| *cookie.bytes())
}

/// The response (XX 2) of a responder whose ephemeral private key and index (`ours.index`) are
/// given.
pub fn xx_answer(
    ours: &LocalParams<'_>,
    ephemeral: Secret,
    first: &Admitted<'_>,
) -> Result<Vec<u8>, Refused> {
    xx::answer_with(ours, ephemeral, first)
}

/// The session, after the third message (XX 3), of a responder whose ephemeral private key and
/// index are given.
pub fn xx_establish(
    ours: &LocalParams<'_>,
    ephemeral: Secret,
    third: &Admitted<'_>,
) -> Result<Established, Refused> {
    xx::establish_with(ours, ephemeral, third)
}

/// The keys of the two directions: initiator to responder, responder to initiator.
pub const fn direction_keys(session: &Established) -> [&[u8; KEY_BYTES]; 2] {
    let [there, back] = session.direction_keys();
    [there.expose(), back.expose()]
}

/// The key of one lane of a direction.
pub fn lane_key(domain: Domain, direction: &Secret, lane: Lane) -> [u8; KEY_BYTES] {
    *sealer::lane_key(domain, direction, lane).expose()
}

/// Seals a body: link header, sealed body, tag. `None` if packets of this kind are not sealed.
pub fn seal(
    (domain, direction): (Domain, &Secret),
    kind: Kind,
    (lane, to): (Lane, SessionIndex),
    counter: u64,
    body: &[u8],
) -> Option<Result<Vec<u8>, SealRefused>> {
    let (mode, what) = match kind {
        Kind::SealedData => (SealMode::Full, Sealed::Data),
        Kind::SealedHeaderData => (SealMode::HeaderOnly, Sealed::Data),
        Kind::PathChallenge => (SealMode::Full, Sealed::PathChallenge),
        Kind::PathResponse => (SealMode::Full, Sealed::PathResponse),
        _ => return None,
    };
    let mut sealer =
        Sealer::new((domain, direction), lane, to, mode, Nanos::ZERO, Provider::DEFAULT);
    sealer.skip_to(counter);
    let mut packet = [&[0; LINK_HEADER_BYTES][..], body, &[0; TAG_BYTES]].concat();
    Some(sealer.seal(Nanos::ZERO, what, &mut packet).map(|_| packet))
}

/// Opens a packet in place, as a receiver that has accepted the counter `edge - 1` and no other
/// counter of the window.
pub fn open<'a>(
    (domain, direction): (Domain, &Secret),
    edge: u64,
    packet: &'a mut [u8],
) -> Result<Opened<'a>, OpenRefused> {
    let mode = match LinkHeader::parse(packet) {
        Ok(LinkHeader { kind: Kind::SealedHeaderData, .. }) => SealMode::HeaderOnly,
        _ => SealMode::Full,
    };
    let mut openers =
        Openers::new((domain, direction), LANES_MAX as u8, mode, Nanos::ZERO, Provider::DEFAULT);
    openers.set_windows(edge);
    openers.open(Nanos::ZERO, packet)
}

/// The counter that a receiver reconstructs from its low half. The receiver has accepted the
/// counter `edge - 1` and the older counters in `older`.
pub fn counter(edge: u64, older: &[u64], low: u32) -> Result<u64, OpenRefused> {
    let fresh = Window::at(edge, older).rebuild(low);
    fresh.map(|fresh| fresh.counter()).map_err(refused)
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: [u8; KEY_BYTES] = [7; KEY_BYTES];

    #[test]
    fn what_is_sealed_is_opened_at_every_counter() {
        let (lane, to) = (Lane::new(3).expect("a lane"), SessionIndex::new(9).expect("24 bits"));
        for kind in Kind::ALL {
            for counter in [0, 1, u64::from(u32::MAX), 1 << 40] {
                let key = Secret::from_bytes(KEY);
                let Some(sealed) = seal((Domain::Link, &key), kind, (lane, to), counter, b"body")
                else {
                    assert!(!kind.is_sealed());
                    continue;
                };
                let mut packet = sealed.expect("not exhausted");
                let opened = open((Domain::Link, &key), counter, &mut packet).expect("authentic");
                assert_eq!((opened.counter(), opened.kind()), (counter, kind));
                assert_eq!(opened.body(), b"body");
            }
        }
    }

    #[test]
    fn a_window_refuses_the_counters_that_it_has_seen() {
        assert_eq!(counter(0, &[], 5), Ok(5));
        assert_eq!(counter(6, &[], 5), Err(OpenRefused::Replayed));
        assert_eq!(counter(6, &[3], 3), Err(OpenRefused::Replayed));
        assert_eq!(counter(6, &[3], 4), Ok(4));
        assert_eq!(counter(1 << 32, &[], 0), Ok(1 << 32));
        assert_eq!(counter(u64::MAX, &[], 0), Err(OpenRefused::TooOld));
    }

    #[test]
    fn a_mac_has_a_key_of_16_or_32_bytes() {
        assert_eq!(mac(&KEY, "label", &[b"part"]), Some(secret::mac(&KEY, "label", &[b"part"])));
        assert!(mac(&KEY[..16], "label", &[]).is_some());
        assert!(mac(&KEY[..17], "label", &[]).is_none());
    }
}
