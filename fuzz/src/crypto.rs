//! Properties of link crypto: providers agree byte for byte, parsers accept any input without a
//! panic, and the replay window equals its model.
//!
//! By default these are plain tests. They are coverage-guided with
//! `cargo bolero test -p strowger-fuzz crypto::<name>`.

use std::collections::HashSet;
use std::sync::Mutex;

use bolero::check;
use strowger_crypto::aead::{Aead, Provider};
use strowger_crypto::beacon::{self, UnverifiedBeacon};
use strowger_crypto::handshake::{
    Admission, CookieChecker, FieldBytes, Hello, LISTS_BYTES_MAX, Load, LocalParams, Offer,
    ProtocolBytes, TimestampGuard, ik, xx,
};
use strowger_crypto::limits::REPLAY_WINDOW_PACKETS;
use strowger_crypto::replay::{Stale, Window};
use strowger_crypto::{
    Certificate, Domain, IdentityKey, LocalIdentity, Nanos, NetworkId, PeerId, Psk,
    SEALED_OVERHEAD_BYTES, Sealed, Secret, SeededEntropy, StaticPublic,
};
use strowger_wire::{
    certificate::KeyRole,
    connection::{HelloFields, TableEntries},
    hello::Timestamp,
    limits::{HELLO_PAYLOAD_BYTES_MAX, INITIATION_BYTES, PROTOCOLS_BYTES_MAX},
    link_header::{LinkHeader, LinkHeaderError, SessionIndex},
};

const NOW: Nanos = Nanos::ZERO;
const DOMAINS: [Domain; 2] = [Domain::Link, Domain::Connection];

fn local(seed: u64) -> LocalIdentity {
    let key = IdentityKey::generate(&mut SeededEntropy::new(seed)).expect("seeded");
    LocalIdentity::new(&key, NetworkId::new(b"fuzz").expect("short"))
}

/// For any key, nonce, associated data and body: all providers seal to the same bytes, each opens
/// what another sealed, and all refuse an altered packet.
#[test]
fn providers_agree_byte_for_byte() {
    type Input = (([u8; 32], [u8; 12]), (Vec<u8>, Vec<u8>), u16);
    check!().with_type::<Input>().for_each(|((key, nonce), (aad, body), touch)| {
        let mut results = Vec::new();
        for provider in Provider::ALL {
            let key = provider.key(&Secret::from_bytes(*key));
            let mut sealed = body.clone();
            let tag = key.seal(nonce, aad, &mut sealed);
            results.push((sealed, tag));
        }
        let (sealed, tag) = &results[0];
        for (provider, result) in Provider::ALL.iter().zip(&results) {
            assert_eq!(result, &results[0], "{}", provider.name());
            let key = provider.key(&Secret::from_bytes(*key));
            let mut opened = sealed.clone();
            assert_eq!(key.open(nonce, aad, &mut opened, tag), Ok(()));
            assert_eq!(&opened, body);
            let mut touched = sealed.clone();
            let mut touched_tag = *tag;
            let place = usize::from(*touch) % (touched.len() + touched_tag.len());
            match touched.get_mut(place) {
                Some(byte) => *byte ^= 1,
                None => touched_tag[place - sealed.len()] ^= 1,
            }
            assert!(key.open(nonce, aad, &mut touched, &touched_tag).is_err());
        }
    });
}

/// Parses any bytes as a link header; a valid header encodes to the same bytes.
#[test]
fn link_headers_parse_totally() {
    check!().for_each(|bytes: &[u8]| match LinkHeader::parse(bytes) {
        Ok(header) => assert_eq!(header.to_bytes(), bytes[..8]),
        Err(LinkHeaderError::Runt) => assert!(bytes.len() < 8),
        Err(LinkHeaderError::UnknownKind) => assert!(!(1..=9).contains(&(bytes[0] >> 4))),
    });
}

/// Parses any bytes as a hello. A valid hello encodes to bytes that are no longer than the input
/// and parse to the same hello.
#[test]
fn hellos_parse_totally() {
    check!().for_each(|bytes: &[u8]| {
        for domain in DOMAINS {
            let Ok(hello) = Hello::parse(domain, bytes) else { continue };
            let again = hello.encode(0).expect("its lists are bounded");
            assert!(bytes.len() >= again.len());
            assert_eq!(Hello::parse(domain, &again), Ok(hello));
        }
    });
}

/// Parses a valid hello with some bytes changed. If it parses, its encoding parses to the same
/// hello. Every truncation of a valid hello must be refused.
#[test]
fn altered_hellos_parse_totally() {
    let good = good_hello();
    check!().with_type::<(Vec<(u16, u8)>, u16)>().for_each(|(changes, cut)| {
        let mut bytes = good.clone();
        for (place, value) in changes {
            let place = usize::from(*place) % bytes.len();
            bytes[place] = *value;
        }
        for domain in DOMAINS {
            if let Ok(hello) = Hello::parse(domain, &bytes) {
                let again = hello.encode(0).expect("its lists are bounded");
                assert_eq!(Hello::parse(domain, &again), Ok(hello));
            }
            assert!(Hello::parse(domain, &good[..usize::from(*cut) % good.len()]).is_err());
        }
    });
}

/// Puts a protocol table of any length, and any fields behind it, into the hello of a connection.
/// Encoding succeeds exactly if both fit into a message. Parsing succeeds exactly if the fields are
/// well formed, and leaves both lists unchanged. The same bytes are always valid as the hello of a
/// link, which skips the fields.
#[test]
fn lists_of_a_connection_survive_a_hello() {
    let good = Hello::parse(Domain::Link, &good_hello()).expect("valid");
    let good = Offer { scheme: Default::default(), ..good.offer };
    let hello = Hello::parse(Domain::Link, &good_hello()).expect("valid");
    check!().with_type::<(u8, Vec<(u8, Vec<u8>)>, Vec<u8>, u16)>().for_each(
        |(way, list, rest, table)| {
            let mut bytes = Vec::new();
            for (kind, value) in list {
                // Three of four types are known.
                bytes.push(if way % 4 == 0 { *kind } else { kind % 8 });
                bytes.extend_from_slice(&(value.len() as u16).to_be_bytes());
                bytes.extend_from_slice(value);
            }
            if way % 2 == 0 {
                bytes.extend_from_slice(rest);
            }
            // Entries of four bytes; the last one may be incomplete.
            let table = b"\0\x02/a".repeat(PROTOCOLS_BYTES_MAX / 4 + 1)
                [..usize::from(*table) % (PROTOCOLS_BYTES_MAX + 1)]
                .to_vec();
            let Ok(fields) = FieldBytes::new(&bytes) else {
                assert!(bytes.len() > LISTS_BYTES_MAX);
                return;
            };
            let protocols = ProtocolBytes::new(&table).expect("bounded");
            let offer = Offer { protocols, fields, ..good.clone() };
            let hello = Hello { offer, ..hello.clone() };
            let fits = table.len() + bytes.len() <= LISTS_BYTES_MAX;
            let Ok(encoded) = hello.encode(0) else {
                assert!(!fits);
                return;
            };
            assert!(fits && encoded.len() <= HELLO_PAYLOAD_BYTES_MAX);
            let is_right =
                HelloFields::parse(&bytes).is_ok() && TableEntries::parse(&table).is_ok();
            match Hello::parse(Domain::Connection, &encoded) {
                Ok(read) => assert!(is_right && read == hello, "{read:?}"),
                Err(why) => assert!(!is_right, "{why:?}"),
            }
            let of_link = Hello::parse(Domain::Link, &encoded).expect("links skip the fields");
            assert_eq!(of_link.offer, Offer { fields: FieldBytes::default(), ..hello.offer });
        },
    );
}

/// Verifies any bytes as an identity certificate. They verify only if the identity has signed them
/// for this role and this network.
#[test]
fn certificates_parse_totally_and_verify_only_if_signed() {
    let network = NetworkId::new(b"fuzz").expect("short");
    let key = IdentityKey::generate(&mut SeededEntropy::new(6)).expect("seeded");
    let good = key.certify_connection_key(7, &network);
    check!().for_each(|bytes: &[u8]| {
        // The input is tested as it is, written over a valid certificate, and XORed with one.
        let mut over = *good.as_bytes();
        let mut turned = over;
        for (place, byte) in bytes.iter().enumerate().take(over.len()) {
            over[place] = *byte;
            turned[place] ^= byte;
        }
        for bytes in [bytes, &over, &turned] {
            for role in [KeyRole::Link, KeyRole::Connection, KeyRole::Node] {
                let read = Certificate::verify(bytes, role, &network);
                let is_good = bytes == good.as_bytes() && role == KeyRole::Connection;
                assert_eq!(read.is_ok(), is_good);
            }
        }
    });
}

/// Parses any bytes as a beacon. It verifies only if the identity that it names has signed it, with
/// or without a valid MAC of the network.
#[test]
fn beacons_parse_totally_and_verify_only_if_signed() {
    let ours = local(4);
    let good = beacon::encode(&ours);
    check!().for_each(|bytes: &[u8]| {
        // The input is tested as it is, written over a valid beacon, and XORed with a valid beacon.
        let mut over = good;
        let mut turned = good;
        for (place, byte) in bytes.iter().enumerate().take(good.len()) {
            over[place] = *byte;
            turned[place] ^= byte;
        }
        for message in [bytes, &over, &turned] {
            let Ok(claim) = UnverifiedBeacon::parse(message) else { continue };
            let (network, signed) = (ours.network(), 12..140);
            let is_good = message[signed.clone()] == good[signed];
            assert_eq!(claim.verify(network).is_ok_and(|who| who == *ours.identity()), is_good);
            assert_eq!(claim.is_for_network(network), message == good);
        }
    });
}

fn connection(seed: u64) -> LocalIdentity {
    let key = IdentityKey::generate(&mut SeededEntropy::new(seed)).expect("seeded");
    LocalIdentity::for_connections(&key, NetworkId::new(b"fuzz").expect("short"))
}

/// A valid hello, built byte by byte.
fn good_hello() -> Vec<u8> {
    let mut bytes = vec![0, 0, 1, 1, 1, 0, 1, 0, 1]; // versions, suites, seal, widths, flags, lanes
    bytes.extend_from_slice(&1400u16.to_be_bytes());
    bytes.extend_from_slice(&7u32.to_be_bytes()); // index
    bytes.extend_from_slice(&9u64.to_be_bytes()); // timestamp
    bytes.extend_from_slice(&[3; 104]); // proof
    bytes.extend_from_slice(&[4, b's', b'c', b'h', b'm', 0, 2, b'p', b'q']);
    let length = (bytes.len() - 2) as u16;
    bytes[..2].copy_from_slice(&length.to_be_bytes());
    assert!(Hello::parse(Domain::Link, &bytes).is_ok());
    bytes
}

/// Passes any bytes to the cookie checker and to both initiators.
///
/// The bytes are refused without a reply (R8), and a valid message is still accepted afterwards.
#[test]
fn handshake_messages_parse_totally() {
    let (a, b) = (local(1), local(2));
    let entropy = &mut SeededEntropy::new(3);
    let checker = CookieChecker::new(&b, NOW, entropy).expect("seeded");
    let of_connections = connection(2);
    let mut checker_of_connections =
        CookieChecker::new(&of_connections, NOW, entropy).expect("seeded");
    checker_of_connections.accept_without_peer_id(&of_connections);
    let offer = Offer::default();
    let ours = |local| LocalParams {
        local,
        offer: &offer,
        index: SessionIndex::new(5).expect("24 bits"),
        timestamp: Timestamp(1),
    };
    let (known, initiation) =
        ik::initiate(&ours(&a), b.static_public(), &Psk::NONE, None, entropy).expect("begun");
    let (discover, _) = xx::initiate(&ours(&a), None, entropy).expect("begun");
    let waiting = Mutex::new(Some((known, discover)));
    check!().for_each(|bytes: &[u8]| {
        let mut padded = bytes.to_vec();
        padded.resize(INITIATION_BYTES, 0);
        for message in [bytes, &padded] {
            for load in [Load::Normal, Load::Heavy] {
                for checker in [&checker, &checker_of_connections] {
                    assert!(checker.admit(b"source", message, load).is_err(), "a reply to junk");
                }
            }
            let (known, discover) =
                waiting.lock().expect("one thread").take().expect("put back below");
            assert!(known.read_cookie(message).is_err() && discover.read_cookie(message).is_err());
            let known = known.read_response(message).expect_err("junk").state;
            let discover = discover.read_response(&a, message).expect_err("junk").state;
            *waiting.lock().expect("one thread") = Some((*known, *discover));
        }
    });
    let Ok(Admission::Admitted(admitted)) = checker.admit(b"source", &initiation, Load::Normal)
    else {
        panic!("an honest initiation was not admitted");
    };
    let initiation = ik::read(&b, &admitted).expect("honest");
    let (_, response) = initiation
        .accept(&ours(&b), &Psk::NONE, &mut TimestampGuard::default(), entropy)
        .expect("honest");
    let (known, _) = waiting.into_inner().expect("one thread").expect("put back above");
    assert!(known.read_response(&response).is_ok(), "a forged message ended a handshake");
}

/// Opens any bytes. An opener accepts each packet of its peer exactly once, and no other bytes.
#[test]
fn openers_accept_each_sealed_packet_once_and_nothing_else() {
    let (a, b) = (local(1), local(2));
    let entropy = &mut SeededEntropy::new(4);
    let offer = Offer::default();
    let index = SessionIndex::new(5).expect("24 bits");
    let ours = |local| LocalParams { local, offer: &offer, index, timestamp: Timestamp(1) };
    let (state, message) =
        ik::initiate(&ours(&a), b.static_public(), &Psk::NONE, None, entropy).expect("begun");
    let checker = CookieChecker::new(&b, NOW, entropy).expect("seeded");
    let Ok(Admission::Admitted(admitted)) = checker.admit(b"", &message, Load::Normal) else {
        panic!("an honest initiation was not admitted");
    };
    let (there, response) = ik::read(&b, &admitted)
        .expect("honest")
        .accept(&ours(&b), &Psk::NONE, &mut TimestampGuard::default(), entropy)
        .expect("honest");
    let here =
        state.read_response(&response).expect("honest").into_transport(NOW, Provider::DEFAULT);
    let there = there.into_transport(NOW, Provider::Portable);
    let ends = Mutex::new((here.sealers, there.openers));
    check!().with_type::<(Vec<u8>, Vec<u8>)>().for_each(|(rubbish, body)| {
        let (sealers, openers) = &mut *ends.lock().expect("one thread");
        assert!(openers.open(NOW, &mut rubbish.clone()).is_err());
        let mut packet = vec![0; body.len() + SEALED_OVERHEAD_BYTES];
        packet[8..8 + body.len()].copy_from_slice(body);
        sealers[0].seal(NOW, Sealed::Data, &mut packet).expect("sealed");
        let mut headed = packet[..8].to_vec();
        headed.extend_from_slice(rubbish);
        assert!(openers.open(NOW, &mut headed).is_err(), "opened a packet that was not sealed");
        let mut again = packet.clone();
        assert_eq!(openers.open(NOW, &mut packet).expect("sealed by the peer").body(), body);
        assert!(openers.open(NOW, &mut again).is_err(), "opened twice");
    });
}

/// Compares the replay window with a set of all accepted counters, over random sequences of
/// counters.
#[test]
fn the_replay_window_agrees_with_its_model() {
    check!().with_type::<(u8, Vec<(bool, u16)>)>().for_each(|(start, walk)| {
        let mut window = Window::new();
        let mut model = HashSet::new();
        // Two thirds of the walks start shortly before the low 32 bits of the counter wrap.
        let mut newest = match start % 3 {
            0 => 0u64,
            1 => (1 << 32) - 500,
            _ => (1 << 32) - REPLAY_WINDOW_PACKETS - 1,
        };
        // Moves the window to the start first, because it cannot identify counters more than 2^32
        // ahead.
        let first = window.rebuild(newest as u32).expect("nothing was seen yet");
        assert_eq!(window.accept(first), Ok(()));
        model.insert(newest);
        for (back, step) in walk {
            let counter = match back {
                true => newest.saturating_sub(u64::from(*step) % (REPLAY_WINDOW_PACKETS + 64)),
                false => newest + u64::from(*step) % 9_000,
            };
            let got = window.rebuild(counter as u32);
            if counter + REPLAY_WINDOW_PACKETS < window.edge() {
                // The counter is below the window, so it is never reconstructed as itself.
                assert_ne!(got.map(|fresh| fresh.counter()), Ok(counter));
            } else if model.insert(counter) {
                let fresh = got.expect("new in the model");
                assert_eq!(fresh.counter(), counter);
                assert_eq!(window.accept(fresh), Ok(()));
                newest = newest.max(counter);
            } else {
                assert_eq!(got, Err(Stale::Replayed));
            }
        }
    });
}

/// Parses any text as a key file, a peer name or a key. The parsed value is written as the same
/// text, except that the case of a key's digits may differ.
#[test]
fn keys_and_names_parse_totally() {
    let good = IdentityKey::generate(&mut SeededEntropy::new(5)).expect("seeded");
    let file = good.to_key_file().to_string();
    let name = good.public().peer_id().to_string();
    check!().with_type::<(Vec<u8>, Vec<(u8, u8)>)>().for_each(|(bytes, changes)| {
        let altered = |text: &str| {
            let mut bytes = text.as_bytes().to_vec();
            for (place, value) in changes {
                let place = usize::from(*place) % bytes.len();
                bytes[place] = *value;
            }
            String::from_utf8_lossy(&bytes).into_owned()
        };
        for text in [String::from_utf8_lossy(bytes).into_owned(), altered(&file), altered(&name)] {
            if let Ok(key) = IdentityKey::from_key_file(&text) {
                assert!(key.to_key_file().trim_end().eq_ignore_ascii_case(text.trim_end()));
            }
            if let Ok(peer) = text.parse::<PeerId>() {
                assert_eq!(peer.to_string(), text);
            }
            if let Ok(key) = text.parse::<StaticPublic>() {
                assert!(key.to_string().eq_ignore_ascii_case(&text));
            }
        }
    });
}
