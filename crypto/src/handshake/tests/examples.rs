//! The examples of wire.md section 4, computed from their inputs and compared byte for byte.

use strowger_testkit::wire_md::{assert_example, example, table};
use strowger_wire::{
    hello::{Mtu, SealWish, Widths},
    link_header::LINK_HEADER_BYTES,
};

use super::super::cookie::MAC_BYTES;
use super::super::*;
use super::{mac_keys, prologue};
use crate::entropy::Entropy;
use crate::identity::{IdentityKey, NetworkId};
use crate::sealer::lane_key;
use crate::secret::{Psk, mac};

/// 192.0.2.7, UDP port 4000, and the number 3 of the receiver's own port.
const SOURCE: &[u8] = &[192, 0, 2, 7, 0x0f, 0xa0, 0, 3];
const A: u32 = 0x0a_0b0c;
const B: u32 = 0x1a_2b3c;
const SENT_AT: Timestamp = Timestamp(1_700_000_000_000_000_000);

/// An entropy source that fills the first draw with the byte `first`, and each later draw with the
/// next higher byte.
struct Repeated {
    first: u8,
}

impl Entropy for Repeated {
    fn fill(&mut self, bytes: &mut [u8]) -> Result<(), EntropyFailed> {
        bytes.fill(self.first);
        self.first += 1;
        Ok(())
    }
}

fn network() -> NetworkId {
    NetworkId::new(b"example").expect("short")
}

fn key(seed: u8) -> IdentityKey {
    IdentityKey::from_seed(&Secret::from_bytes([seed; 32]))
}

/// The two nodes of the examples, with their offers.
fn nodes() -> [(LocalIdentity, Offer); 2] {
    let scheme = || SchemeBytes::new(&[0x61, 0x14, 0x45, 0x81, 0x00]).expect("short");
    let lanes = |number| Lanes::new(number).expect("1 to 16");
    let mtu = |bytes| Mtu::new(bytes).expect("large enough");
    let of_a = Offer {
        widths: Widths::ALL,
        lanes: lanes(2),
        mtu: mtu(9_216),
        scheme: scheme(),
        ..Offer::default()
    };
    let of_b = Offer {
        seal: SealWish::MayHeaderOnly,
        lanes: lanes(1),
        mtu: mtu(1_400),
        scheme: scheme(),
        ..Offer::default()
    };
    [
        (LocalIdentity::new(&key(0xa0), network()), of_a),
        (LocalIdentity::new(&key(0xb0), network()), of_b),
    ]
}

fn params<'a>((local, offer): &'a (LocalIdentity, Offer), number: u32) -> LocalParams<'a> {
    let index = SessionIndex::new(number).expect("24 bits");
    LocalParams { local, offer, index, timestamp: SENT_AT }
}

/// The checker of B: its current secret is `c1*32`, of epoch 1.
fn checker(b: &LocalIdentity) -> CookieChecker {
    CookieChecker::new(b, Nanos::ZERO, &mut Repeated { first: 0xc1 }).expect("no source fails")
}

fn admit<'m>(checker: &CookieChecker, message: &'m [u8], load: Load) -> Admitted<'m> {
    match checker.admit(SOURCE, message, load) {
        Ok(Admission::Admitted(admitted)) => admitted,
        other => panic!("not admitted: {other:?}"),
    }
}

/// The direction keys, A to B first, and then the keys of the lanes that the hellos name.
fn keys(of_a: &Established, of_b: &Established) -> Vec<u8> {
    assert_eq!(of_a.keys.send, of_b.keys.receive);
    assert_eq!(of_a.keys.receive, of_b.keys.send);
    assert_eq!(of_a.transcript(), of_b.transcript());
    let mut bytes = [*of_a.keys.send.expose(), *of_b.keys.send.expose()].concat();
    for (direction, lanes) in [(&of_a.keys.send, 0..2), (&of_b.keys.send, 0..1)] {
        for lane in lanes {
            let key = lane_key(Domain::Link, direction, Lane::new(lane).expect("below 16"));
            bytes.extend_from_slice(key.expose());
        }
    }
    bytes
}

/// Runs IKpsk2 between the nodes of the examples. Returns both messages and both ends.
fn ik(psk: [u8; 32], cookie: Option<&Cookie>) -> (Vec<u8>, Vec<u8>, [Established; 2]) {
    let [a, b] = nodes();
    let psk = Psk::from_bytes(psk);
    let mut entropy = Repeated { first: 0xa1 };
    let begun = ik::initiate(&params(&a, A), b.0.static_public(), &psk, cookie, &mut entropy);
    let (state, message) = begun.expect("begun");
    let checker = checker(&b.0);
    let initiation = ik::read(&b.0, &admit(&checker, &message, Load::Normal)).expect("read");
    let mut guard = TimestampGuard::default();
    let mut entropy = Repeated { first: 0xb1 };
    let accepted = initiation.accept(&params(&b, B), &psk, &mut guard, &mut entropy);
    let (of_b, response) = accepted.expect("accepted");
    assert_eq!(guard.newest, Some(SENT_AT));
    let of_a = state.read_response(&response).expect("read");
    (message, response, [of_a, of_b])
}

/// wire.md: W4-18.
#[test]
fn the_mac() {
    assert_example("mac", &mac(&[1; 32], "label", &[b"ab", b"", b"c"]));
}

/// wire.md: W4-23.
#[test]
fn the_prologue() {
    assert_example("prologue", &prologue(&network()));
}

/// wire.md: W4-17, W4-40, W4-74.
#[test]
fn the_keys_of_the_macs() {
    let [_, b] = nodes();
    let keys = mac_keys(b.0.static_public(), &network());
    assert_example("mac1-key", &keys.mac1);
    assert_example("cookie-key", &keys.cookie);
    assert_example("key-hint-key", &keys.hint);
}

/// wire.md: W4-5, W4-59.
#[test]
fn the_keys_and_identities_of_the_nodes() {
    let mut all = Vec::new();
    let names = [(0xa0, "identity-proof-a"), (0xb0, "identity-proof-b")];
    for ((seed, proof), (local, _)) in names.into_iter().zip(nodes()) {
        all.extend(local.identity().to_bytes());
        all.extend(key(seed).static_key().expose());
        all.extend(local.static_public().0);
        assert_example(proof, &local.proof().0);
        let proved = local.proof().verify(local.static_public()).expect("its own proof");
        assert_eq!(proved, *local.identity());
    }
    assert_example("node-keys", &all);
    let rows = table("handshake-example");
    let row = rows.iter().find(|row| row[0] == "PeerId").expect("a row of PeerIds");
    let names = nodes().map(|(local, _)| format!("`{}`", local.identity().peer_id()));
    assert_eq!(row[1..], names);
}

/// wire.md: W4-4, W4-55.
#[test]
fn the_hellos() {
    let [a, b] = nodes();
    assert_example("hello-a", &params(&a, A).hello(SENT_AT).encode(0).expect("fits"));
    assert_example("hello-b", &params(&b, B).hello(Timestamp::default()).encode(0).expect("fits"));
}

/// wire.md: W4-2, W4-19, W4-25, W4-32, W4-33, W4-38, W4-40, W4-41, W4-64, W4-65.
#[test]
fn ik_without_a_psk() {
    let (message, response, [of_a, of_b]) = ik([0; 32], None);
    assert_example("ik-initiation", &message);
    assert_example("ik-response", &response);
    assert_example("ik-transcript", of_a.transcript());
    assert_example("ik-keys", &keys(&of_a, &of_b));
    // From the seal wishes 0 and 1 and the label widths 7 and 1, both ends compute the same
    // agreement.
    assert_eq!(of_a.agreement(), of_b.agreement());
    let agreed = *of_a.agreement();
    assert_eq!((agreed.version, agreed.seal, agreed.widths), (1, SealMode::Full, Widths::W64));
    assert_eq!(agreed.mtu.bytes(), 1_400);
}

/// wire.md: W4-24, W4-38.
#[test]
fn ik_with_a_psk() {
    let (message, response, [of_a, of_b]) = ik([3; 32], None);
    assert_example("ik-initiation", &message);
    assert_example("ik-psk-response", &response);
    let transcript = of_a.transcript();
    assert_example("ik-psk-keys", &[&transcript[..], &keys(&of_a, &of_b)].concat());
}

/// wire.md: W4-42, W4-73, W4-74, W4-75.
#[test]
fn a_cookie_and_its_mac2() {
    let [a, b] = nodes();
    let checker = checker(&b.0);
    let psk = Psk::NONE;
    let begin = |cookie: Option<&Cookie>| {
        let mut entropy = Repeated { first: 0xa1 };
        ik::initiate(&params(&a, A), b.0.static_public(), &psk, cookie, &mut entropy)
            .expect("begun")
    };
    let (state, first) = begin(None);
    let Ok(Admission::CookieReply(reply)) = checker.admit(SOURCE, &first, Load::Heavy) else {
        panic!("no cookie under load");
    };
    assert_example("cookie-reply", &reply);
    let cookie = state.read_cookie(&reply).expect("the answer to this initiation");
    assert_example("cookie", cookie.bytes());
    let (_, second) = begin(Some(&cookie));
    let (rest, mac2) = second.split_last_chunk::<MAC_BYTES>().expect("896 bytes");
    assert_eq!(*rest, example("ik-initiation")[..rest.len()]);
    assert_example("ik-mac2", mac2);
    admit(&checker, &second, Load::Heavy);
}

/// wire.md: W4-2, W4-15, W4-19, W4-25, W4-34, W4-36, W4-37, W4-38, W4-41, W4-64, W4-65.
#[test]
fn xx() {
    let [a, b] = nodes();
    let mut checker = checker(&b.0);
    let mut entropy = Repeated { first: 0xa1 };
    let (state, first) = xx::initiate(&params(&a, A), None, &mut entropy).expect("begun");
    assert_example("xx-1", &first);
    let admitted = admit(&checker, &first, Load::Normal);
    let answer = xx::answer(&checker, &b.0, &b.1, SOURCE, &admitted).expect("answered");
    assert_example("xx-2", &answer);
    let responder = xx::responder_of(&checker, &b.0, &b.1, SOURCE, &admitted);
    assert_example("xx-responder", &responder);
    assert_eq!(responder[2] & 1, 1, "the epoch");
    let discovered = state.read_response(&a.0, &answer).expect("read");
    let (of_a, third) = discovered.finish(&params(&a, A), None).expect("agreed");
    assert_example("xx-3", &third);
    assert_eq!(third[LINK_HEADER_BYTES..40], first[LINK_HEADER_BYTES..40]);
    let admitted = admit(&checker, &third, Load::Normal);
    let finish = xx::read_finish(&checker, &b.0, &b.1, SOURCE, &admitted).expect("read");
    let of_b = finish.accept(&mut checker, &mut TimestampGuard::default()).expect("accepted");
    assert_example("xx-transcript", of_a.transcript());
    assert_example("xx-keys", &keys(&of_a, &of_b));
}
