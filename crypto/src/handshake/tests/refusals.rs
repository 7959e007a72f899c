//! Messages of a hand-made initiator or responder, which an honest end does not send.

use strowger_testkit::wire_md::example;
use strowger_wire::hello::{Mtu, Suites};

use super::super::noise::{IK, Noise, XX};
use super::*;
use crate::identity::{IdentityProof, IdentityRefused};

/// A point of order 8 (RFC 7748, section 7).
const ORDER_8: [u8; 32] = [
    0xe0, 0xeb, 0x7a, 0x7c, 0x3b, 0x41, 0xb8, 0xae, 0x16, 0x56, 0xe3, 0xfa, 0xf1, 0x9f, 0xc4, 0x6a,
    0xda, 0x09, 0x8d, 0xeb, 0x9c, 0x32, 0xb1, 0xfd, 0x86, 0x62, 0x05, 0x16, 0x5f, 0x49, 0xb8, 0x00,
];

/// Bytes of the payload of an IK initiation.
const IK_PAYLOAD: usize = 760;

fn ephemeral(byte: u8) -> Secret {
    Secret::from_bytes([byte; 32])
}

/// An IK initiation from `from` to `to` with this payload.
fn ik_message(from: &LocalIdentity, to: &LocalIdentity, payload: &[u8]) -> (Noise, Vec<u8>) {
    let prologue = prologue(to.network());
    let key = to.static_public();
    let mut noise = Noise::initiator(&IK, &prologue, from, Some(key), ephemeral(9));
    let mut message = vec![0x10, 0, 0, 0, 0, 0, 0, 11];
    noise.write(payload, &mut message).expect("an honest key");
    mac_keys(key, to.network()).append_mac1(&mut message);
    MacKeys::append_mac2(&mut message, None);
    (noise, message)
}

/// An IK response to `message`, with this payload, and with `psk`.
fn ik_response(by: &LocalIdentity, message: &[u8], payload: &[u8], psk: &Psk) -> Vec<u8> {
    let mut noise = Noise::responder(&IK, &prologue(by.network()), by);
    let end = message.len() - 2 * MAC_BYTES;
    noise.read(&message[LINK_HEADER_BYTES..end]).expect("an honest initiation");
    let peer = noise.peer().expect("read");
    noise.set_ephemeral(ephemeral(8));
    noise.set_psk(psk);
    let mut response = vec![0x20, 0, 0, 11, 0, 0, 0, 22];
    noise.write(payload, &mut response).expect("an honest key");
    mac_keys(&peer, by.network()).append_mac1(&mut response);
    response
}

/// A first message of XX with this payload. It has valid macs.
fn xx_first(from: &LocalIdentity, payload: &[u8]) -> (Noise, Vec<u8>) {
    let mut noise = Noise::initiator(&XX, &prologue(from.network()), from, None, ephemeral(7));
    let mut message = vec![0x11, 0, 0, 0, 0, 0, 0, 11];
    noise.write(payload, &mut message).expect("nothing can fail yet");
    mac_keys(&NO_KEY, from.network()).append_mac1(&mut message);
    MacKeys::append_mac2(&mut message, None);
    (noise, message)
}

/// The third message of `from`, which answers B with this hello.
fn xx_third(ends: &Ends, from: &LocalIdentity, offer: &Offer, hello: &[u8]) -> Vec<u8> {
    let (mut noise, first) = xx_first(from, &[0; 824]);
    let answer = xx::answer(&ends.checker, &ends.b, offer, SOURCE, &go(&ends.checker, &first));
    let answer = answer.expect("answered");
    noise.read(&answer[LINK_HEADER_BYTES..answer.len() - MAC_BYTES]).expect("read");
    let header = LinkHeader::parse(&answer).expect("a header");
    let mut third = vec![0x12];
    third.extend_from_slice(&header.low.to_be_bytes()[1..]);
    third.extend_from_slice(&[0, 0, 0, 11]);
    third.extend_from_slice(&first[LINK_HEADER_BYTES..LINK_HEADER_BYTES + KEY_BYTES]);
    noise.write(hello, &mut third).expect("an honest key");
    mac_keys(&NO_KEY, from.network()).append_mac1(&mut third);
    MacKeys::append_mac2(&mut third, None);
    third
}

fn hello(local: &LocalIdentity, offer: &Offer, number: u32, timestamp: u64) -> Hello {
    ours(local, offer, number, timestamp).hello(Timestamp(timestamp))
}

/// wire.md: W4-28, W4-30, W4-35.
#[test]
fn a_first_message_of_xx_needs_an_index_and_a_payload_of_zeros() {
    let (offer, ends) = (Offer::default(), ends());
    let answer = |message: &[u8]| {
        xx::answer(&ends.checker, &ends.b, &offer, SOURCE, &go(&ends.checker, message))
    };
    let (_, message) = xx_first(&ends.a, &[0; 824]);
    let right = answer(&message).expect("answered");
    for (index, is_right) in [(0_u32, false), (1, true), (0xff_ffff, true), (0x100_0000, false)] {
        let mut message = message.clone();
        message[4..8].copy_from_slice(&index.to_be_bytes());
        let answer = answer(&with_macs(message, &NO_KEY, 2));
        match answer {
            Ok(answer) => assert!(is_right && answer[1..4] == index.to_be_bytes()[1..]),
            Err(why) => assert!(!is_right && why == Refused::Malformed, "{index}: {why}"),
        }
    }
    for place in [0, 411, 823] {
        let mut payload = [0; 824];
        payload[place] = 1;
        let (_, message) = xx_first(&ends.a, &payload);
        assert_eq!(answer(&message), Err(Refused::Malformed), "{place}");
    }
    // The receiver's index in a first message has no meaning.
    let mut touched = message;
    touched[1..4].copy_from_slice(&[1, 2, 3]);
    assert_eq!(answer(&with_macs(touched, &NO_KEY, 2)), Ok(right));
}

/// wire.md: W4-31, W4-68.
#[test]
fn a_third_message_of_xx_has_the_indices_of_its_hello_and_of_the_response() {
    let (offer, ends) = (Offer::default(), ends());
    let third = |number| {
        xx_third(
            &ends,
            &ends.a,
            &offer,
            &hello(&ends.a, &offer, number, 1).encode(0).expect("fits"),
        )
    };
    assert!(ends.xx_finish(&offer, &third(11)).is_ok());
    assert_eq!(ends.xx_finish(&offer, &third(12)).err(), Some(Refused::OtherIndex));
    for place in 1..LINK_HEADER_BYTES {
        let mut touched = third(11);
        touched[place] ^= 1;
        let refused = ends.xx_finish(&offer, &with_macs(touched, &NO_KEY, 2)).err();
        let expected = if place == 4 { Refused::Malformed } else { Refused::NotOurs };
        assert_eq!(refused, Some(expected), "byte {place}");
    }
}

/// wire.md: W4-44, W4-72.
#[test]
fn mac2_is_checked_only_under_load() {
    let mut ends = ends();
    let (_, mut message) = ends.ik_initiate(&Offer::default(), 1);
    message[880..].fill(7);
    let admit = |load| ends.checker.admit(SOURCE, &message, load);
    assert!(matches!(admit(Load::Normal), Ok(Admission::Admitted(_))));
    let Ok(Admission::CookieReply(reply)) = admit(Load::Heavy) else { panic!("no cookie") };
    assert_eq!(reply[..8], [0x30, 0, 0, 11, 0, 0, 0, 0]);
    message[864] ^= 1; // mac1
    message[1..4].fill(0); // no key hint
    for load in [Load::Normal, Load::Heavy] {
        let refused = ends.checker.admit(SOURCE, &message, load).err();
        assert_eq!(refused, Some(Refused::WrongMac), "{load:?}");
    }
}

/// wire.md: W4-20.
#[test]
fn keys_of_small_order_end_a_handshake() {
    let offer = Offer::default();
    for point in [[0; 32], ORDER_8] {
        let mut ends = ends();
        let begun = ik::initiate(
            &ours(&ends.a, &offer, 11, 1),
            &StaticPublic(point),
            &Psk::NONE,
            None,
            &mut ends.entropy,
        );
        assert_eq!(begun.err(), Some(HandshakeError::Peer(Refused::Unreadable)));
        // The ephemeral key of an initiation of IK, and of a first message of XX.
        let (_, mut message) = ends.ik_initiate(&offer, 1);
        message[8..40].copy_from_slice(&point);
        let message = with_macs(message, ends.b.static_public(), 2);
        let read = ik::read(&ends.b, &go(&ends.checker, &message));
        assert_eq!(read.err(), Some(Refused::Unreadable));
        let (_, mut message) = ends.xx_initiate(&offer);
        message[8..40].copy_from_slice(&point);
        let message = with_macs(message, &NO_KEY, 2);
        let answer =
            xx::answer(&ends.checker, &ends.b, &offer, SOURCE, &go(&ends.checker, &message));
        assert_eq!(answer, Err(Refused::Unreadable));
        // The ephemeral key of a response.
        let (state, message) = ends.ik_initiate(&offer, 1);
        let guard = &mut TimestampGuard::default();
        let (_, mut response) = ends.ik_accept(&offer, &message, guard).expect("accepted");
        response[8..40].copy_from_slice(&point);
        let response = with_macs(response, ends.a.static_public(), 1);
        assert_eq!(state.read_response(&response).expect_err("refused").why, Refused::Unreadable);
    }
}

/// wire.md: W4-21, W4-58.
#[test]
fn signatures_are_verified_strictly() {
    let key = IdentityKey::from_seed(&Secret::from_bytes([0xb0; 32]));
    let (link, of_key) = (key.static_key(), key.public());
    let proof = |name| {
        let bytes: [u8; 104] = example(name).try_into().expect("104 bytes");
        IdentityProof(bytes).verify(link.public())
    };
    assert_eq!(proof("identity-proof-b"), Ok(of_key));
    assert_eq!(proof("identity-proof-refused-r"), Err(IdentityRefused::BadSignature));
    assert_eq!(proof("identity-proof-refused-key"), Err(IdentityRefused::BadKey));
    assert_eq!(proof("identity-proof-refused-s"), Err(IdentityRefused::BadSignature));
}

/// wire.md: W4-58.
#[test]
fn a_proof_of_another_static_key_is_refused_in_every_message() {
    let (offer, mut ends) = (Offer::default(), ends());
    let third = local(3);
    let bad = Refused::Identity(IdentityRefused::BadSignature);
    let stolen = |number, timestamp| hello(&third, &offer, number, timestamp);
    let (_, message) =
        ik_message(&ends.a, &ends.b, &stolen(11, 1).encode(IK_PAYLOAD).expect("fits"));
    let refused = ends.ik_accept(&offer, &message, &mut TimestampGuard::default()).err();
    assert_eq!(refused, Some(HandshakeError::Peer(bad)));
    let (state, message) = ends.ik_initiate(&offer, 1);
    let response =
        ik_response(&ends.b, &message, &stolen(22, 0).encode(0).expect("fits"), &ends.psk);
    assert_eq!(state.read_response(&response).expect_err("refused").why, bad);
    let message = xx_third(&ends, &ends.a, &offer, &stolen(11, 1).encode(0).expect("fits"));
    assert_eq!(ends.xx_finish(&offer, &message).err(), Some(bad));
}

/// wire.md: W4-61.
#[test]
fn a_sender_with_the_receiver_s_own_key_is_refused() {
    let (offer, ends) = (Offer::default(), ends());
    let us = local(2); // the same node as b
    let (_, message) =
        ik_message(&us, &ends.b, &hello(&us, &offer, 11, 1).encode(IK_PAYLOAD).expect("fits"));
    let read = ik::read(&ends.b, &go(&ends.checker, &message));
    assert_eq!(read.err(), Some(Refused::Ourselves));
    let message = xx_third(&ends, &us, &offer, &hello(&us, &offer, 11, 1).encode(0).expect("fits"));
    assert_eq!(ends.xx_finish(&offer, &message).err(), Some(Refused::Ourselves));
}

/// wire.md: W4-45, W4-46.
#[test]
fn padding_is_allowed_in_every_message_and_only_zeros_are_padding() {
    let (offer, mut ends) = (Offer::default(), ends());
    for is_right in [true, false] {
        let payload = |hello: Hello, length: usize| {
            let mut bytes = hello.encode(length).expect("fits");
            *bytes.last_mut().expect("long") = u8::from(!is_right);
            bytes
        };
        let expected =
            (!is_right).then_some(Refused::Hello(strowger_wire::hello::HelloMalformed::BadPadding));
        let message = payload(hello(&ends.a, &offer, 11, 1), IK_PAYLOAD);
        let (_, message) = ik_message(&ends.a, &ends.b, &message);
        assert_eq!(ik::read(&ends.b, &go(&ends.checker, &message)).err(), expected);
        let (state, message) = ends.ik_initiate(&offer, 1);
        let hello_b = payload(hello(&ends.b, &offer, 22, 0), 300);
        let response = ik_response(&ends.b, &message, &hello_b, &ends.psk);
        let read = state.read_response(&response).map_err(|rejected| rejected.why);
        assert_eq!(read.err(), expected);
        let hello_a = payload(hello(&ends.a, &offer, 11, 1), 300);
        let message = xx_third(&ends, &ends.a, &offer, &hello_a);
        assert_eq!(ends.xx_finish(&offer, &message).err(), expected);
    }
}

/// wire.md: W13-1.
#[test]
fn a_prologue_of_another_version_is_another_handshake() {
    let (offer, ends) = (Offer::default(), ends());
    let key = ends.b.static_public();
    for version in [1, 2] {
        let mut prologue = prologue(ends.b.network());
        assert_eq!(prologue[13], 1, "behind the 13 bytes of the name");
        prologue[13] = version;
        let mut noise = Noise::initiator(&IK, &prologue, &ends.a, Some(key), ephemeral(9));
        let mut message = vec![0x10, 0, 0, 0, 0, 0, 0, 11];
        let payload = hello(&ends.a, &offer, 11, 1).encode(IK_PAYLOAD).expect("fits");
        noise.write(&payload, &mut message).expect("an honest key");
        mac_keys(key, ends.b.network()).append_mac1(&mut message);
        MacKeys::append_mac2(&mut message, None);
        let read = ik::read(&ends.b, &go(&ends.checker, &message));
        assert_eq!(read.err(), (version != 1).then_some(Refused::Unreadable));
    }
}

/// wire.md: W4-55.
#[test]
fn an_initiator_ignores_the_timestamp_of_a_response() {
    let (offer, mut ends) = (Offer::default(), ends());
    for timestamp in [0, 1, u64::MAX] {
        let (state, message) = ends.ik_initiate(&offer, 1);
        let hello = hello(&ends.b, &offer, 22, timestamp).encode(0).expect("fits");
        let response = ik_response(&ends.b, &message, &hello, &ends.psk);
        assert!(state.read_response(&response).is_ok(), "{timestamp}");
    }
}

/// wire.md: W4-16.
#[test]
fn a_third_message_that_is_not_newer_is_refused() {
    let (offer, mut ends) = (Offer::default(), ends());
    for (timestamp, is_newer) in [(9, false), (10, false), (11, true)] {
        let hello = hello(&ends.a, &offer, 11, timestamp).encode(0).expect("fits");
        let message = xx_third(&ends, &ends.a, &offer, &hello);
        let finish = ends.xx_finish(&offer, &message).expect("read");
        let mut guard = TimestampGuard { newest: Some(Timestamp(10)) };
        let accepted = finish.accept(&mut ends.checker, &mut guard);
        assert_eq!(accepted.err(), (!is_newer).then_some(Refused::Stale), "{timestamp}");
        assert_eq!(guard.newest, Some(Timestamp(timestamp.max(10))));
    }
}

/// wire.md: W4-48, W4-50, W4-53, W4-62, W13-10.
#[test]
fn bits_that_one_end_does_not_know_have_no_effect() {
    let mut ends = ends();
    let mtu = |bytes| Mtu::new(bytes).expect("large enough");
    let later = Offer {
        suites: Suites::from_bits(0xff),
        widths: Widths::from_bits(0xf9),
        mtu: mtu(65_535),
        ..Offer::default()
    };
    let now = Offer { widths: Widths::ALL, mtu: mtu(576), ..Offer::default() };
    for (mine, their) in [(&later, &now), (&now, &later)] {
        let (a, b) = ends.ik(mine, their);
        assert_eq!(a.agreement(), b.agreement());
        let agreed = a.agreement();
        assert_eq!((agreed.suite, agreed.widths), (Suites::CHACHA20_POLY1305, Widths::W64));
        assert_eq!(agreed.mtu, Mtu::MIN);
    }
}

/// wire.md: W4-63.
#[test]
fn a_response_that_does_not_agree_leaves_the_attempt_pending() {
    let (offer, mut ends) = (Offer::default(), ends());
    let (state, message) = ends.ik_initiate(&offer, 1);
    let other = Offer { widths: Widths::W128, ..Offer::default() };
    let answer = |offer: &Offer| {
        ik_response(
            &ends.b,
            &message,
            &hello(&ends.b, offer, 22, 0).encode(0).expect("fits"),
            &ends.psk,
        )
    };
    let rejected = state.read_response(&answer(&other)).expect_err("no common width");
    assert_eq!(rejected.why, Refused::Disagreement(Disagreement::Width));
    assert_eq!(rejected.state.index(), index(11));
}

/// An XX response of `by` to `first`, with this hello.
fn xx_response(by: &LocalIdentity, first: &[u8], hello: &[u8]) -> Vec<u8> {
    let mut noise = Noise::responder(&XX, &prologue(by.network()), by);
    noise.set_ephemeral(ephemeral(6));
    noise.read(&first[LINK_HEADER_BYTES..first.len() - 2 * MAC_BYTES]).expect("honest");
    let mut response = vec![0x21];
    response.extend_from_slice(&first[5..8]);
    response.extend_from_slice(&[0, 0, 0, 33]);
    noise.write(hello, &mut response).expect("honest");
    mac_keys(&NO_KEY, by.network()).append_mac1(&mut response);
    response
}

/// wire.md: W4-45, W4-58, W4-61, W4-87.
#[test]
fn a_refused_response_of_xx_leaves_room_for_that_of_the_peer() {
    let (offer, mut ends) = (Offer::default(), ends());
    let third = local(3);
    let malformed = Refused::Hello(strowger_wire::hello::HelloMalformed::Cut);
    let stolen = Refused::Identity(IdentityRefused::BadSignature);
    let proof_of_b = hello(&ends.b, &offer, 33, 0).encode(0).expect("fits");
    let ours = hello(&local(1), &offer, 33, 0).encode(0).expect("fits");
    for (by, hello, why) in [
        (&third, &[][..], malformed),
        (&third, &proof_of_b[..], stolen),
        (&local(1), &ours[..], Refused::Ourselves),
    ] {
        let (state, first) = ends.xx_initiate(&offer);
        let rejected =
            state.read_response(&ends.a, &xx_response(by, &first, hello)).expect_err("refused");
        assert_eq!(rejected.why, why);
        let answer = xx::answer(&ends.checker, &ends.b, &offer, SOURCE, &go(&ends.checker, &first));
        let read = rejected.state.read_response(&ends.a, &answer.expect("answered"));
        let discovered = read.expect("the peer's own answer");
        assert_eq!(discovered.peer().identity, *ends.b.identity());
    }
}
