//! Handshakes of two ends in memory, and attacks on them.

mod connection_formats;
mod connections;
mod examples;
mod refusals;

use strowger_wire::{
    hello::{SealWish, Versions, Widths},
    limits::{INITIATION_BYTES, PROTOCOLS_BYTES_MAX, SCHEME_BYTES_MAX, TAG_BYTES},
    link_header::LINK_HEADER_BYTES,
};

use super::cookie::{MAC_BYTES, MacKeys, NO_KEY};
use super::*;
use crate::entropy::SeededEntropy;
use crate::identity::{IdentityKey, NetworkId, StaticPublic};
use crate::limits::{COMPLETED_HANDSHAKES_MAX, COOKIE_SECRET_LIFE};
use crate::sealer::{SEALED_OVERHEAD_BYTES, Sealed};
use crate::secret::Psk;

const NOW: Nanos = Nanos::from_secs(5);
const SOURCE: &[u8] = b"192.0.2.7:4000";

pub(super) fn local(seed: u64) -> LocalIdentity {
    let key = IdentityKey::generate(&mut SeededEntropy::new(seed)).expect("seeded");
    LocalIdentity::new(&key, NetworkId::new(b"test").expect("short"))
}

/// The mac keys of messages on a link to the owner of this static key.
fn mac_keys(receiver: &StaticPublic, network: &NetworkId) -> MacKeys {
    MacKeys::to(Domain::Link, &receiver.0, network)
}

/// The prologue of links.
fn prologue(network: &NetworkId) -> Vec<u8> {
    Domain::Link.prologue(network)
}

fn index(number: u32) -> SessionIndex {
    SessionIndex::new(number).expect("24 bits")
}

struct Ends {
    a: LocalIdentity,
    b: LocalIdentity,
    checker: CookieChecker,
    entropy: SeededEntropy,
    psk: Psk,
}

fn ends() -> Ends {
    let mut entropy = SeededEntropy::new(7);
    let b = local(2);
    let checker = CookieChecker::new(&b, NOW, &mut entropy).expect("seeded");
    Ends { a: local(1), b, checker, entropy, psk: Psk::from_bytes([3; 32]) }
}

fn ours<'a>(
    local: &'a LocalIdentity,
    offer: &'a Offer,
    number: u32,
    timestamp: u64,
) -> LocalParams<'a> {
    LocalParams { local, offer, index: index(number), timestamp: Timestamp(timestamp) }
}

fn go<'m>(checker: &CookieChecker, message: &'m [u8]) -> Admitted<'m> {
    match checker.admit(SOURCE, message, Load::Normal) {
        Ok(Admission::Admitted(admitted)) => admitted,
        other => panic!("not admitted: {other:?}"),
    }
}

impl Ends {
    fn ik_initiate(&mut self, offer: &Offer, timestamp: u64) -> (ik::AwaitResponse, Vec<u8>) {
        let ours = ours(&self.a, offer, 11, timestamp);
        ik::initiate(&ours, self.b.static_public(), &self.psk, None, &mut self.entropy)
            .expect("begun")
    }

    fn ik_accept(
        &mut self,
        offer: &Offer,
        message: &[u8],
        guard: &mut TimestampGuard,
    ) -> Result<(Established, Vec<u8>), HandshakeError> {
        let initiation = ik::read(&self.b, &go(&self.checker, message))?;
        assert_eq!(initiation.static_key(), self.a.static_public());
        let ours = ours(&self.b, offer, 22, 0);
        initiation.accept(&ours, &self.psk, guard, &mut self.entropy)
    }

    fn ik(&mut self, mine: &Offer, their: &Offer) -> (Established, Established) {
        let (state, message) = self.ik_initiate(mine, 1);
        let (b, response) =
            self.ik_accept(their, &message, &mut TimestampGuard::default()).expect("accepted");
        (state.read_response(&response).expect("the peer's response"), b)
    }

    fn xx_initiate(&mut self, offer: &Offer) -> (xx::AwaitResponse, Vec<u8>) {
        xx::initiate(&ours(&self.a, offer, 11, 1), None, &mut self.entropy).expect("begun")
    }

    fn xx_finish(&self, offer: &Offer, message: &[u8]) -> Result<xx::Finish, Refused> {
        xx::read_finish(&self.checker, &self.b, offer, SOURCE, &go(&self.checker, message))
    }

    fn xx(&mut self, mine: &Offer, their: &Offer) -> (Established, Established) {
        let (state, message) = self.xx_initiate(mine);
        let response =
            xx::answer(&self.checker, &self.b, their, SOURCE, &go(&self.checker, &message))
                .expect("answered");
        let discovered = state.read_response(&self.a, &response).expect("the peer's response");
        assert_eq!(discovered.peer().identity, *self.b.identity());
        let (a, msg3) = discovered.finish(&ours(&self.a, mine, 11, 1), None).expect("finished");
        let finish = self.xx_finish(their, &msg3).expect("read");
        assert_eq!(finish.peer().static_key, *self.a.static_public());
        let b = finish.accept(&mut self.checker, &mut TimestampGuard::default()).expect("accepted");
        (a, b)
    }
}

/// An offer with every field at its longest.
fn longest() -> Offer {
    Offer {
        seal: SealWish::MayHeaderOnly,
        lanes: Lanes::new(16).expect("16"),
        widths: Widths::ALL,
        scheme: SchemeBytes::new(&[1; SCHEME_BYTES_MAX]).expect("fits"),
        protocols: ProtocolBytes::new(&[2; PROTOCOLS_BYTES_MAX]).expect("fits"),
        ..Offer::default()
    }
}

fn exchange(a: Established, b: Established) {
    // The two ends may use different providers.
    let mut ends =
        [a.into_transport(NOW, Provider::Portable), b.into_transport(NOW, Provider::DEFAULT)];
    for (from, to) in [(0, 1), (1, 0)] {
        for lane in 0..ends[from].sealers.len() {
            let mut packet = [7u8; 100 + SEALED_OVERHEAD_BYTES];
            ends[from].sealers[lane].seal(NOW, Sealed::Data, &mut packet).expect("sealed");
            let opened = ends[to].openers.open(NOW, &mut packet).expect("opened");
            assert_eq!(opened.body(), [7; 100]);
        }
    }
}

/// Runs one handshake from a seed; returns its two messages and its transcript.
fn ik_bytes(ends: &mut Ends, timestamp: u64) -> (Vec<u8>, Vec<u8>, [u8; KEY_BYTES]) {
    ends.entropy = SeededEntropy::new(timestamp);
    let offer = Offer::default();
    let (state, message) = ends.ik_initiate(&offer, timestamp);
    let (b, response) =
        ends.ik_accept(&offer, &message, &mut TimestampGuard::default()).expect("accepted");
    let a = state.read_response(&response).expect("the peer's response");
    assert_eq!(a.transcript(), b.transcript());
    assert_eq!(a.peer().identity, *ends.b.identity());
    assert_eq!(b.peer().identity, *ends.a.identity());
    let transcript = *a.transcript();
    exchange(a, b);
    (message, response, transcript)
}

#[test]
fn precomputed_peers_change_no_byte_of_a_handshake() {
    let (mut new_peers, mut known_peers) = (ends(), ends());
    known_peers.a.add_peer(known_peers.b.static_public());
    known_peers.b.add_peer(known_peers.a.static_public());
    // The first handshake fills the precomputed values, the second uses them, and the third runs
    // after one end removed its peer.
    for timestamp in 1..=3 {
        if timestamp == 3 {
            known_peers.b.remove_peer(known_peers.a.static_public());
        }
        assert_eq!(ik_bytes(&mut new_peers, timestamp), ik_bytes(&mut known_peers, timestamp));
    }
}

/// wire.md: W4-39.
#[test]
fn an_initiator_without_the_secret_of_a_known_key_is_refused() {
    let mut ends = ends();
    ends.b.add_peer(ends.a.static_public());
    ik_bytes(&mut ends, 1);
    // An initiator that shows a public key without having the secret that belongs to it.
    let pretender = LocalIdentity::impersonating(&local(3), &local(1));
    let offer = Offer::default();
    let begun = ik::initiate(
        &ours(&pretender, &offer, 11, 9),
        ends.b.static_public(),
        &ends.psk,
        None,
        &mut ends.entropy,
    );
    let (_, message) = begun.expect("begun");
    let read = ik::read(&ends.b, &go(&ends.checker, &message));
    assert!(matches!(read, Err(Refused::Unreadable)), "{read:?}");
}

/// Recomputes the macs of an altered message, as an attacker that knows all public keys can do.
fn with_macs(mut message: Vec<u8>, receiver: &StaticPublic, macs: usize) -> Vec<u8> {
    let network = NetworkId::new(b"test").expect("short");
    message.truncate(message.len() - macs * MAC_BYTES);
    mac_keys(receiver, &network).append_mac1(&mut message);
    if macs == 2 {
        MacKeys::append_mac2(&mut message, None);
    }
    message
}

/// wire.md: W4-56, W4-57, W4-62, W4-64.
#[test]
fn both_handshakes_give_both_ends_the_same_session() {
    for (mine, their) in [
        (Offer::default(), Offer::default()),
        (longest(), Offer::default()),
        (Offer::default(), longest()),
        (longest(), longest()),
    ] {
        for xx in [false, true] {
            let mut ends = ends();
            let (a, b) = if xx { ends.xx(&mine, &their) } else { ends.ik(&mine, &their) };
            assert_eq!(a.transcript(), b.transcript());
            assert_eq!(a.agreement(), b.agreement());
            assert_eq!((a.our_index(), a.their_index()), (b.their_index(), b.our_index()));
            assert_eq!(a.peer().identity, *ends.b.identity());
            assert_eq!(b.peer().identity, *ends.a.identity());
            assert_eq!(a.peer().static_key, *ends.b.static_public());
            assert_eq!(b.peer().static_key, *ends.a.static_public());
            assert_eq!((a.their_offer(), b.their_offer()), (&their, &mine));
            assert!(a.is_initiator() && !b.is_initiator());
            exchange(a, b);
        }
    }
}

/// wire.md: W4-49, W4-62, W4-63.
#[test]
fn header_only_needs_both_ends_and_a_forced_mismatch_is_refused() {
    use SealWish::{Full, MayHeaderOnly, MustHeaderOnly};
    for mine in [Full, MayHeaderOnly, MustHeaderOnly] {
        for their in [Full, MayHeaderOnly, MustHeaderOnly] {
            let offer = |seal| Offer { seal, ..Offer::default() };
            let mut ends = ends();
            let (state, message) = ends.ik_initiate(&offer(mine), 1);
            let accepted = ends.ik_accept(&offer(their), &message, &mut TimestampGuard::default());
            if matches!((mine, their), (Full, MustHeaderOnly) | (MustHeaderOnly, Full)) {
                let why = HandshakeError::Peer(Refused::Disagreement(Disagreement::SealMode));
                assert_eq!(accepted.err(), Some(why));
                continue;
            }
            let (b, response) = accepted.expect("agreed");
            let a = state.read_response(&response).expect("agreed");
            let both = mine != Full && their != Full;
            let mode = if both { SealMode::HeaderOnly } else { SealMode::Full };
            assert_eq!((a.agreement().seal, b.agreement().seal), (mode, mode));
            let sealers = a.into_transport(NOW, Provider::DEFAULT).sealers;
            assert_eq!(sealers[0].mode(), mode);
        }
    }
}

/// Offsets of the fields in an encoded hello, as in the table of `strowger_wire::hello`.
const VERSIONS_AT: usize = 2;
const SEAL_AT: usize = 5;
const WIDTHS_AT: usize = 6;
const FLAGS_AT: usize = 7;
const SCHEME_AT: usize = 2 + 21 + 104 + 1;
const FIELDS: [(&str, usize); 5] = [
    ("version", VERSIONS_AT),
    ("seal mode", SEAL_AT),
    ("width", WIDTHS_AT),
    ("scheme", SCHEME_AT),
    ("same scheme", FLAGS_AT),
];

/// wire.md: W4-39.
#[test]
fn a_downgrade_of_version_scheme_seal_mode_or_width_is_refused() {
    let offer = longest();
    let ik_payload = LINK_HEADER_BYTES + KEY_BYTES + KEY_BYTES + TAG_BYTES;
    let response_payload = LINK_HEADER_BYTES + KEY_BYTES;
    let xx_response_payload = response_payload + KEY_BYTES + TAG_BYTES;
    for (what, place) in FIELDS {
        // IK, initiation: the responder refuses it.
        let mut ends_ik = ends();
        let (state, message) = ends_ik.ik_initiate(&offer, 1);
        let mut touched = message.clone();
        touched[ik_payload + place] ^= 1;
        let touched = with_macs(touched, ends_ik.b.static_public(), 2);
        let guard = &mut TimestampGuard::default();
        let refused = HandshakeError::Peer(Refused::Unreadable);
        assert_eq!(ends_ik.ik_accept(&offer, &touched, guard).err(), Some(refused), "{what}");
        assert_eq!(guard.newest, None);
        // IK, response: the initiator makes no session, and still accepts the unaltered response.
        let (_, response) = ends_ik.ik_accept(&offer, &message, guard).expect("accepted");
        let mut touched = response.clone();
        touched[response_payload + place] ^= 1;
        let touched = with_macs(touched, ends_ik.a.static_public(), 1);
        let rejected = state.read_response(&touched).expect_err("altered");
        assert_eq!(rejected.why, Refused::Unreadable, "{what}");
        assert!(rejected.state.read_response(&response).is_ok());

        // XX, second and third message.
        let mut ends_xx = ends();
        let (state, message) = ends_xx.xx_initiate(&offer);
        let answer = xx::answer(
            &ends_xx.checker,
            &ends_xx.b,
            &offer,
            SOURCE,
            &go(&ends_xx.checker, &message),
        )
        .expect("answered");
        let mut touched = answer.clone();
        touched[xx_response_payload + place] ^= 1;
        let rejected =
            state.read_response(&ends_xx.a, &with_macs(touched, &NO_KEY, 1)).expect_err("altered");
        assert_eq!(rejected.why, Refused::Unreadable, "{what}");
        let discovered =
            rejected.state.read_response(&ends_xx.a, &answer).expect("the true response");
        let (_, msg3) = discovered.finish(&ours(&ends_xx.a, &offer, 11, 1), None).expect("agreed");
        let mut touched = msg3.clone();
        touched[LINK_HEADER_BYTES + KEY_BYTES + KEY_BYTES + TAG_BYTES + place] ^= 1;
        let touched = with_macs(touched, &NO_KEY, 2);
        assert_eq!(ends_xx.xx_finish(&offer, &touched).err(), Some(Refused::Unreadable), "{what}");
        assert!(ends_xx.xx_finish(&offer, &msg3).is_ok());
    }
}

/// wire.md: W4-62, W4-63.
#[test]
fn incompatible_offers_are_refused_with_their_reason() {
    type Change = fn(&mut Offer);
    let changes: [(Change, Disagreement); 4] = [
        (|o| o.versions = Versions::new(2, 3).expect("a range"), Disagreement::Version),
        (|o| o.seal = SealWish::MustHeaderOnly, Disagreement::SealMode),
        (|o| o.widths = Widths::W128, Disagreement::Width),
        (
            |o| {
                o.same_scheme = true;
                o.scheme = SchemeBytes::new(b"other").expect("short");
            },
            Disagreement::Scheme,
        ),
    ];
    for (change, expected) in changes {
        let mut theirs = Offer::default();
        change(&mut theirs);
        for (mine, their) in [(Offer::default(), theirs.clone()), (theirs, Offer::default())] {
            let mut ends = ends();
            let (_, message) = ends.ik_initiate(&mine, 1);
            let guard = &mut TimestampGuard::default();
            let refused = HandshakeError::Peer(Refused::Disagreement(expected));
            assert_eq!(ends.ik_accept(&their, &message, guard).err(), Some(refused));
            assert_eq!(guard.newest, None);
            let (state, message) = ends.xx_initiate(&mine);
            let answer =
                xx::answer(&ends.checker, &ends.b, &their, SOURCE, &go(&ends.checker, &message))
                    .expect("answered");
            let discovered = state.read_response(&ends.a, &answer).expect("read");
            let refused = discovered.finish(&ours(&ends.a, &mine, 11, 1), None);
            assert_eq!(refused.err(), Some(Refused::Disagreement(expected)));
        }
    }
}

/// wire.md: W4-39, W4-43.
#[test]
fn every_altered_byte_of_a_handshake_is_refused() {
    let offer = longest();
    let mut ends = ends();
    let (mut state, message) = ends.ik_initiate(&offer, 1);
    let (_, response) =
        ends.ik_accept(&offer, &message, &mut TimestampGuard::default()).expect("accepted");
    for place in (0..INITIATION_BYTES - 2 * MAC_BYTES).step_by(13) {
        let mut touched = message.clone();
        touched[place] ^= 0x10;
        let macs = with_macs(touched.clone(), ends.b.static_public(), 2);
        assert!(ends.checker.admit(SOURCE, &touched, Load::Normal).is_err(), "{place}: mac1");
        if let Ok(Admission::Admitted(admitted)) = ends.checker.admit(SOURCE, &macs, Load::Normal) {
            assert!(ik::read(&ends.b, &admitted).is_err(), "byte {place}");
        }
    }
    for place in (0..response.len() - MAC_BYTES).step_by(13) {
        let mut touched = response.clone();
        touched[place] ^= 0x10;
        for touched in [touched.clone(), with_macs(touched, ends.a.static_public(), 1)] {
            match state.read_response(&touched) {
                Ok(_) => panic!("byte {place}"),
                Err(rejected) => state = *rejected.state,
            }
        }
    }
    for length in (0..response.len()).step_by(29) {
        let cut = &response[..length];
        state = *state.read_response(cut).expect_err("cut").state;
        assert!(ends.checker.admit(SOURCE, cut, Load::Normal).is_err());
    }
    assert!(state.read_response(&response).is_ok(), "a forged response ended the handshake");
}

/// wire.md: W4-28, W4-29.
#[test]
fn the_session_index_comes_from_the_authenticated_hello() {
    // The index in the link header is altered, and the macs are recomputed. Both ends still use the
    // index of the hello, which the transcript covers.
    let offer = Offer::default();
    let mut ends = ends();
    let (state, mut message) = ends.ik_initiate(&offer, 1);
    message[LINK_HEADER_BYTES - 1] ^= 1;
    let message = with_macs(message, ends.b.static_public(), 2);
    let (b, mut response) =
        ends.ik_accept(&offer, &message, &mut TimestampGuard::default()).expect("accepted");
    assert_eq!(b.their_index(), index(11));
    response[LINK_HEADER_BYTES - 1] ^= 1;
    let a = state.read_response(&with_macs(response, ends.a.static_public(), 1)).expect("read");
    assert_eq!(a.their_index(), index(22));

    let (state, message) = ends.xx_initiate(&offer);
    let mut answer =
        xx::answer(&ends.checker, &ends.b, &offer, SOURCE, &go(&ends.checker, &message))
            .expect("answered");
    let true_index = LinkHeader::parse(&answer).expect("a header").low;
    answer[LINK_HEADER_BYTES - 1] ^= 2;
    let discovered = state.read_response(&ends.a, &with_macs(answer, &NO_KEY, 1)).expect("read");
    let (a, _) = discovered.finish(&ours(&ends.a, &offer, 11, 1), None).expect("agreed");
    assert_eq!(a.their_index().number(), true_index);
}

/// wire.md: W4-17, W4-22, W4-24, W4-39, W4-43.
#[test]
fn a_wrong_psk_network_or_key_is_refused() {
    let offer = Offer::default();
    let mut ends = ends();
    let (state, message) = ends.ik_initiate(&offer, 1);
    ends.psk = Psk::NONE;
    let (_, response) =
        ends.ik_accept(&offer, &message, &mut TimestampGuard::default()).expect("not seen yet");
    assert_eq!(state.read_response(&response).expect_err("psk").why, Refused::Unreadable);

    let key = IdentityKey::generate(&mut SeededEntropy::new(2)).expect("seeded");
    let elsewhere = LocalIdentity::new(&key, NetworkId::new(b"other").expect("short"));
    let checker = CookieChecker::new(&elsewhere, NOW, &mut ends.entropy).expect("seeded");
    let (_, message) = ends.ik_initiate(&offer, 1);
    let refused = checker.admit(SOURCE, &message, Load::Normal).expect_err("other network");
    assert_eq!(refused, Refused::OtherNetwork, "the key hint is ours");
    let mut altered = message.clone();
    altered[3] ^= 1;
    let refused = checker.admit(SOURCE, &altered, Load::Normal).expect_err("altered");
    assert_eq!(refused, Refused::WrongMac, "the key hint differs too");
    // The macs are correct, but the prologue still differs.
    let mut message = message;
    message.truncate(INITIATION_BYTES - 2 * MAC_BYTES);
    mac_keys(elsewhere.static_public(), elsewhere.network()).append_mac1(&mut message);
    MacKeys::append_mac2(&mut message, None);
    let refused = ik::read(&elsewhere, &go(&checker, &message)).expect_err("other prologue");
    assert_eq!(refused, Refused::Unreadable);

    let (_, message) = ends.ik_initiate(&offer, 1);
    let third = local(3);
    let checker = CookieChecker::new(&third, NOW, &mut ends.entropy).expect("seeded");
    assert_eq!(checker.admit(SOURCE, &message, Load::Normal).err(), Some(Refused::WrongMac));
}

/// wire.md: W4-16.
#[test]
fn a_replayed_initiation_is_refused() {
    let offer = Offer::default();
    let mut ends = ends();
    let mut guard = TimestampGuard::default();
    let (_, first) = ends.ik_initiate(&offer, 10);
    let (_, second) = ends.ik_initiate(&offer, 11);
    assert!(ends.ik_accept(&offer, &second, &mut guard).is_ok());
    let stale = Some(HandshakeError::Peer(Refused::Stale));
    assert_eq!(ends.ik_accept(&offer, &second, &mut guard).err(), stale);
    assert_eq!(ends.ik_accept(&offer, &first, &mut guard).err(), stale);
    let (_, third) = ends.ik_initiate(&offer, 12);
    assert!(ends.ik_accept(&offer, &third, &mut guard).is_ok());
}

/// wire.md: W4-61.
#[test]
fn our_own_reflected_messages_are_refused() {
    let offer = Offer::default();
    let mut ends = ends();
    let us = local(2); // the same node as b
    let (state, message) =
        xx::initiate(&ours(&us, &offer, 9, 1), None, &mut ends.entropy).expect("begun");
    let answer = xx::answer(&ends.checker, &ends.b, &offer, SOURCE, &go(&ends.checker, &message))
        .expect("answered");
    assert_eq!(state.read_response(&us, &answer).expect_err("ourselves").why, Refused::Ourselves);
    let begun = ik::initiate(
        &ours(&us, &offer, 9, 1),
        us.static_public(),
        &Psk::NONE,
        None,
        &mut ends.entropy,
    );
    assert_eq!(begun.err(), Some(HandshakeError::Peer(Refused::Ourselves)));
}

/// wire.md: W4-28, W4-42, W4-73, W4-76, W4-77.
#[test]
fn a_cookie_is_valid_for_one_source_and_a_limited_time() {
    let offer = Offer::default();
    let mut ends = ends();
    let (state, message) = ends.ik_initiate(&offer, 1);
    let Ok(Admission::CookieReply(reply)) = ends.checker.admit(SOURCE, &message, Load::Heavy)
    else {
        panic!("no cookie under load");
    };
    for place in 0..reply.len() {
        let mut touched = reply;
        touched[place] ^= 0x08;
        // Only the last four bytes of the link header, which a cookie reply does not use, may
        // differ.
        let unused = (4..LINK_HEADER_BYTES).contains(&place);
        assert_eq!(state.read_cookie(&touched).is_ok(), unused, "byte {place}");
    }
    let cookie = state.read_cookie(&reply).expect("ours");
    let (other, _) = ends.ik_initiate(&offer, 2);
    assert!(other.read_cookie(&reply).is_err(), "a cookie reply answers one initiation");

    let again = |ends: &mut Ends| {
        let ours = ours(&ends.a, &offer, 11, 3);
        let peer = *ends.b.static_public();
        ik::initiate(&ours, &peer, &ends.psk, Some(&cookie), &mut ends.entropy).expect("begun").1
    };
    let heavy = |ends: &Ends, source: &[u8], message: &[u8]| {
        matches!(ends.checker.admit(source, message, Load::Heavy), Ok(Admission::Admitted(_)))
    };
    let message = again(&mut ends);
    assert!(heavy(&ends, SOURCE, &message));
    assert!(!heavy(&ends, b"192.0.2.7:4001", &message), "another port");
    assert!(!heavy(&ends, b"192.0.2.8:4000", &message), "another address");
    // The cookie is valid after one rotation of the secret, and invalid after two.
    let mut now = NOW;
    assert!(ends.checker.rotate(now, &mut ends.entropy).is_ok());
    let early = again(&mut ends);
    assert!(heavy(&ends, SOURCE, &early), "not due yet");
    now = now.plus(COOKIE_SECRET_LIFE);
    assert_eq!(ends.checker.rotates_at(), now);
    ends.checker.rotate(now, &mut ends.entropy).expect("seeded");
    let message = again(&mut ends);
    assert!(heavy(&ends, SOURCE, &message));
    ends.checker.rotate(now.plus(COOKIE_SECRET_LIFE), &mut ends.entropy).expect("seeded");
    assert!(!heavy(&ends, SOURCE, &message));
}

/// wire.md: W4-72, W4-78.
#[test]
fn xx_works_under_load_with_cookies() {
    let offer = Offer::default();
    let mut ends = ends();
    let (state, message) = ends.xx_initiate(&offer);
    let Ok(Admission::CookieReply(reply)) = ends.checker.admit(SOURCE, &message, Load::Heavy)
    else {
        panic!("no cookie under load");
    };
    let cookie = state.read_cookie(&reply).expect("ours");
    let (state, message) =
        xx::initiate(&ours(&ends.a, &offer, 11, 1), Some(&cookie), &mut ends.entropy)
            .expect("begun");
    let Ok(Admission::Admitted(admitted)) = ends.checker.admit(SOURCE, &message, Load::Heavy)
    else {
        panic!("the cookie was not taken");
    };
    let answer = xx::answer(&ends.checker, &ends.b, &offer, SOURCE, &admitted).expect("answered");
    let discovered = state.read_response(&ends.a, &answer).expect("read");
    let (_, msg3) =
        discovered.finish(&ours(&ends.a, &offer, 11, 1), Some(&cookie)).expect("agreed");
    assert!(matches!(ends.checker.admit(SOURCE, &msg3, Load::Heavy), Ok(Admission::Admitted(_))));
}

/// wire.md: W4-6, W4-67.
#[test]
fn r8_unauthenticated_bytes_create_no_state() {
    // admit, ik::read, xx::answer and xx::read_finish take the checker by shared reference. The
    // following code checks that it does not change.
    let offer = Offer::default();
    let mut ends = ends();
    let before = format!("{:?}", ends.checker);
    let mut random = SeededEntropy::new(99);
    for round in 0..2_000 {
        let mut bytes = vec![0; (random.next_u64() % 1000) as usize];
        random.fill_for_test(&mut bytes);
        if let Some(first) = bytes.first_mut() {
            *first = 0x10 | (*first & 3);
        }
        if round % 3 == 0 {
            bytes.resize(INITIATION_BYTES, 0);
        }
        assert!(ends.checker.admit(SOURCE, &bytes, Load::Normal).is_err());
        assert!(ends.checker.admit(SOURCE, &bytes, Load::Heavy).is_err(), "a reply to junk");
    }
    let (_, message) = ends.xx_initiate(&offer);
    let answer = |ends: &Ends| {
        xx::answer(&ends.checker, &ends.b, &offer, SOURCE, &go(&ends.checker, &message))
            .expect("answered")
    };
    let once = answer(&ends);
    for _ in 0..20 {
        assert_eq!(answer(&ends), once, "the same message gets the same response");
    }
    let (_, message) = ends.ik_initiate(&offer, 1);
    for _ in 0..20 {
        ik::read(&ends.b, &go(&ends.checker, &message)).expect("read");
    }
    assert_eq!(format!("{:?}", ends.checker), before);
    assert_eq!(ends.checker.completed_handshakes(), 0);
}

/// wire.md: W4-110.
#[test]
fn under_load_a_third_message_whose_index_is_that_of_its_source_needs_no_cookie() {
    let offer = Offer::default();
    let mut ends = ends();
    let (state, message) = ends.xx_initiate(&offer);
    let answer = xx::answer(&ends.checker, &ends.b, &offer, SOURCE, &go(&ends.checker, &message));
    let discovered = state.read_response(&ends.a, &answer.expect("answered")).expect("read");
    let (_, msg3) = discovered.finish(&ours(&ends.a, &offer, 11, 1), None).expect("agreed");
    let is_admitted = |checker: &CookieChecker, source: &[u8], message: &[u8]| match checker.admit(
        source,
        message,
        Load::Heavy,
    ) {
        Ok(Admission::Admitted(_)) => true,
        Ok(Admission::CookieReply(_)) => false,
        Err(why) => panic!("a right mac1: {why}"),
    };
    assert!(is_admitted(&ends.checker, SOURCE, &msg3));
    assert!(!is_admitted(&ends.checker, b"another source", &msg3));
    assert!(!is_admitted(&ends.checker, SOURCE, &message), "a first message needs one");
    // Change the receiver's index, the initiator's index or the ephemeral key `e`.
    for place in [1, 3, 7, 8, 39] {
        let mut other = msg3[..msg3.len() - 2 * MAC_BYTES].to_vec();
        other[place] ^= 2;
        mac_keys(&NO_KEY, ends.b.network()).append_mac1(&mut other);
        MacKeys::append_mac2(&mut other, None);
        assert!(!is_admitted(&ends.checker, SOURCE, &other), "byte {place}");
    }
    for life in 1..=2 {
        let now = NOW.plus(Nanos(life * COOKIE_SECRET_LIFE.0));
        ends.checker.rotate(now, &mut ends.entropy).expect("seeded");
        assert_eq!(is_admitted(&ends.checker, SOURCE, &msg3), life < 2, "{life} secrets later");
    }
}

/// wire.md: W4-111.
#[test]
fn a_secret_is_due_for_erasure_until_no_completed_handshake_depends_on_it() {
    let (mine, mut ends) = (Offer::default(), ends());
    assert_eq!(ends.checker.erases_at(), None);
    ends.xx(&mine, &mine);
    for life in 1..=2 {
        let due = NOW.plus(Nanos(life * COOKIE_SECRET_LIFE.0));
        assert_eq!(ends.checker.erases_at(), Some(due));
        ends.checker.rotate(due, &mut ends.entropy).expect("seeded");
    }
    assert_eq!(ends.checker.erases_at(), None);
}

/// wire.md: W4-3, W4-27.
#[test]
fn r8_no_reply_is_longer_than_its_request() {
    let offer = longest();
    let mut ends = ends();
    for mine in [Offer::default(), longest()] {
        let (_, message) = ends.ik_initiate(&mine, 1);
        assert_eq!(message.len(), INITIATION_BYTES);
        let (_, response) =
            ends.ik_accept(&offer, &message, &mut TimestampGuard::default()).expect("accepted");
        assert!(response.len() <= message.len());
        let Ok(Admission::CookieReply(cookie)) = ends.checker.admit(SOURCE, &message, Load::Heavy)
        else {
            panic!("no cookie under load");
        };
        assert!(cookie.len() <= message.len());
        let (_, message) = ends.xx_initiate(&mine);
        assert_eq!(message.len(), INITIATION_BYTES);
        let answer =
            xx::answer(&ends.checker, &ends.b, &offer, SOURCE, &go(&ends.checker, &message))
                .expect("answered");
        assert!(answer.len() <= message.len());
    }
    // The shortest third message is longer than a cookie reply.
    let (state, message) = ends.xx_initiate(&Offer::default());
    let answer = xx::answer(&ends.checker, &ends.b, &offer, SOURCE, &go(&ends.checker, &message))
        .expect("answered");
    let discovered = state.read_response(&ends.a, &answer).expect("read");
    let plain = Offer::default();
    let ours = ours(&ends.a, &plain, 11, 1);
    let (_, msg3) = discovered.finish(&ours, None).expect("agreed");
    let Ok(Admission::CookieReply(cookie)) = ends.checker.admit(b"else", &msg3, Load::Heavy) else {
        panic!("no cookie under load");
    };
    assert!(cookie.len() <= msg3.len());
    // A message too short for macs gets no reply.
    let mut short = msg3[..70].to_vec();
    mac_keys(&NO_KEY, ends.b.network()).append_mac1(&mut short);
    MacKeys::append_mac2(&mut short, None);
    match ends.checker.admit(SOURCE, &short, Load::Heavy) {
        Ok(Admission::CookieReply(reply)) => assert!(reply.len() <= short.len()),
        other => assert!(other.is_err()),
    }
    let mut shortest = msg3[..LINK_HEADER_BYTES].to_vec();
    mac_keys(&NO_KEY, ends.b.network()).append_mac1(&mut shortest);
    MacKeys::append_mac2(&mut shortest, None);
    assert!(ends.checker.admit(SOURCE, &shortest, Load::Heavy).is_err());
}

/// All handshake messages from fixed seeds. A change of these bytes is a change of the wire format.
/// Either receivers of the previous version ignore the change (as with the key hint, W4-17), or it
/// needs a new version.
#[test]
fn the_wire_is_as_it_was() {
    let offer = longest();
    let mut ends = ends();
    let mut messages = Vec::new();
    let (state, message) = ends.ik_initiate(&offer, 1);
    let Ok(Admission::CookieReply(cookie)) = ends.checker.admit(SOURCE, &message, Load::Heavy)
    else {
        panic!("no cookie under load");
    };
    let (_, response) =
        ends.ik_accept(&offer, &message, &mut TimestampGuard::default()).expect("accepted");
    let a = state.read_response(&response).expect("read");
    messages.extend([message, cookie.to_vec(), response]);
    let mut sealers = a.into_transport(NOW, Provider::DEFAULT).sealers;
    for what in [Sealed::Data, Sealed::PathChallenge, Sealed::PathResponse] {
        let mut packet = vec![7; 100 + SEALED_OVERHEAD_BYTES];
        sealers[15].seal(NOW, what, &mut packet).expect("sealed");
        messages.push(packet);
    }
    let (state, message) = ends.xx_initiate(&offer);
    let answer = xx::answer(&ends.checker, &ends.b, &offer, SOURCE, &go(&ends.checker, &message))
        .expect("answered");
    let discovered = state.read_response(&ends.a, &answer).expect("read");
    let (_, msg3) = discovered.finish(&ours(&ends.a, &offer, 11, 1), None).expect("agreed");
    messages.extend([message, answer, msg3]);
    let lengths: Vec<usize> = messages.iter().map(Vec::len).collect();
    assert_eq!(lengths, [896, 64, 778, 124, 124, 124, 896, 826, 842]);
    let parts: Vec<&[u8]> = messages.iter().map(Vec::as_slice).collect();
    let hash = crate::test_support::to_hex(&crate::secret::mac(&[0; 32], "wire", &parts));
    assert_eq!(hash, "3a26708c15ee19f7b07ade19c1c66cc28103106f43b7ab5715e7b3e29fbc61ce");
}

/// wire.md: W4-66, W4-68, W4-69.
#[test]
fn an_xx_handshake_completes_once() {
    let offer = Offer::default();
    let mut ends = ends();
    let msg3_of = |ends: &mut Ends| {
        let (state, message) = ends.xx_initiate(&offer);
        let answer =
            xx::answer(&ends.checker, &ends.b, &offer, SOURCE, &go(&ends.checker, &message))
                .expect("answered");
        let discovered = state.read_response(&ends.a, &answer).expect("read");
        discovered.finish(&ours(&ends.a, &offer, 11, 1), None).expect("agreed").1
    };
    let msg3 = msg3_of(&mut ends);
    let complete = |ends: &mut Ends, msg3: &[u8], guard: &mut TimestampGuard| {
        let finish = ends.xx_finish(&offer, msg3)?;
        finish.accept(&mut ends.checker, guard).map(|_| ())
    };
    assert_eq!(complete(&mut ends, &msg3, &mut TimestampGuard::default()), Ok(()));
    // The caller may have removed the peer and its timestamp, but the checker still has the record.
    let again = complete(&mut ends, &msg3, &mut TimestampGuard::default());
    assert_eq!(again, Err(Refused::Stale));
    // For another source, the index of the third message does not match. For another offer, the
    // message cannot be decrypted.
    let fresh = msg3_of(&mut ends);
    let moved =
        xx::read_finish(&ends.checker, &ends.b, &offer, b"elsewhere", &go(&ends.checker, &fresh));
    assert_eq!(moved.err(), Some(Refused::NotOurs));
    assert_eq!(ends.xx_finish(&longest(), &fresh).err(), Some(Refused::Unreadable));
    // The record is kept over one rotation of the secret, and is gone after two.
    let later = NOW.plus(COOKIE_SECRET_LIFE);
    ends.checker.rotate(later, &mut ends.entropy).expect("seeded");
    assert_eq!(complete(&mut ends, &fresh, &mut TimestampGuard::default()), Ok(()));
    assert_eq!(complete(&mut ends, &msg3, &mut TimestampGuard::default()), Err(Refused::Stale));
    let fresh = msg3_of(&mut ends);
    for turns in 1..3 {
        let later = later.plus(Nanos(COOKIE_SECRET_LIFE.0 * turns));
        ends.checker.rotate(later, &mut ends.entropy).expect("seeded");
    }
    assert_eq!(complete(&mut ends, &fresh, &mut TimestampGuard::default()), Err(Refused::NotOurs));
    assert_eq!(ends.checker.completed_handshakes(), 0);
    // A full list refuses new handshakes and does not grow.
    let epoch = ends.checker.current_epoch().number;
    for mark in 0..COMPLETED_HANDSHAKES_MAX as u128 {
        assert_eq!(ends.checker.complete(epoch, &mark.to_be_bytes()), Ok(()));
    }
    let fresh = msg3_of(&mut ends);
    let busy = complete(&mut ends, &fresh, &mut TimestampGuard::default());
    assert_eq!(busy, Err(Refused::XxMemoryFull));
    assert_eq!(ends.checker.completed_handshakes(), COMPLETED_HANDSHAKES_MAX);
}

/// wire.md: W4-67.
#[test]
fn a_changed_xx_response_has_another_ephemeral_key() {
    let mut ends = ends();
    let (_, message) = ends.xx_initiate(&Offer::default());
    let admitted = go(&ends.checker, &message);
    let answer = |offer: &Offer, source: &[u8]| {
        xx::answer(&ends.checker, &ends.b, offer, source, &admitted).expect("answered")
    };
    let e = |answer: &[u8]| answer[LINK_HEADER_BYTES..LINK_HEADER_BYTES + KEY_BYTES].to_vec();
    let one = answer(&Offer::default(), SOURCE);
    assert_ne!(e(&one), e(&answer(&longest(), SOURCE)));
    assert_ne!(e(&one), e(&answer(&Offer::default(), b"elsewhere")));
}

/// The forms in which {:?} might print these bytes.
fn shown(bytes: &[u8]) -> Vec<String> {
    const BASE64: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let lower = crate::test_support::to_hex(bytes);
    let decimal: Vec<String> = bytes.iter().map(u8::to_string).collect();
    let mut base64 = String::new();
    for three in bytes.chunks_exact(3) {
        let word = u32::from_be_bytes([0, three[0], three[1], three[2]]);
        for place in [18, 12, 6, 0] {
            base64.push(char::from(BASE64[(word >> place) as usize & 63]));
        }
    }
    vec![lower.to_uppercase(), lower, decimal.join(", "), decimal.join(",\n"), base64]
}

#[test]
fn debug_output_shows_no_secret() {
    use crate::session::{Context, Input, Session, SessionConfig, SessionTimes};

    let seed = [0xc7; 32];
    let offer = Offer::default();
    let mut ends = ends();
    let key = IdentityKey::from_seed(&Secret::from_bytes(seed));
    let static_key = key.static_key();
    let mut secrets: Vec<(&str, Vec<u8>)> = vec![
        ("seed", seed.to_vec()),
        ("static key", static_key.expose().to_vec()),
        ("psk", ends.psk.expose().to_vec()),
        ("epoch", ends.checker.current_epoch().secret.expose().to_vec()),
    ];
    let mut texts: Vec<(&str, String, String)> = Vec::new();
    let mut print = |name, value: &dyn core::fmt::Debug| {
        texts.push((name, format!("{value:?}"), format!("{value:#?}")));
    };
    print("Secret", &Secret::from_bytes(seed));
    print("Psk", &ends.psk);
    print("IdentityKey", &key);
    print("StaticKey", &static_key);
    let network = NetworkId::new(b"test").expect("short");
    print("LocalIdentity", &LocalIdentity::new(&key, network));
    print("CookieChecker", &ends.checker);
    print("SeededEntropy", &ends.entropy);
    for provider in Provider::ALL {
        print("AeadKey", &provider.key(&Secret::from_bytes(seed)));
    }

    let (state, message) = ends.ik_initiate(&offer, 1);
    print("ik::AwaitResponse", &state);
    let Ok(Admission::CookieReply(reply)) = ends.checker.admit(SOURCE, &message, Load::Heavy)
    else {
        panic!("no cookie under load");
    };
    print("Cookie", &state.read_cookie(&reply).expect("ours"));
    print("Initiation", &ik::read(&ends.b, &go(&ends.checker, &message)).expect("read"));
    let (b, response) =
        ends.ik_accept(&offer, &message, &mut TimestampGuard::default()).expect("accepted");
    let a = state.read_response(&response).expect("read");
    for (established, name) in [(a, "Established a"), (b, "Established b")] {
        print(name, &established);
        for direction in [&established.keys.send, &established.keys.receive] {
            secrets.push(("direction", direction.expose().to_vec()));
            let lane = crate::sealer::lane_key(Domain::Link, direction, Lane::ZERO);
            secrets.push(("lane", lane.expose().to_vec()));
        }
        let transport = established.into_transport(NOW, Provider::DEFAULT);
        print("Transport", &transport);
    }
    let (state, message) = ends.xx_initiate(&offer);
    print("xx::AwaitResponse", &state);
    let answer = xx::answer(&ends.checker, &ends.b, &offer, SOURCE, &go(&ends.checker, &message));
    let discovered = state.read_response(&ends.a, &answer.expect("answered")).expect("read");
    print("Discovered", &discovered);
    let (_, msg3) = discovered.finish(&ours(&ends.a, &offer, 11, 1), None).expect("agreed");
    print("Finish", &ends.xx_finish(&offer, &msg3).expect("read"));

    let mut session = Session::new(SessionConfig {
        peer: Some(*ends.b.static_public()),
        identity: None,
        psk: Psk::from_bytes([3; 32]),
        offer,
        provider: Provider::DEFAULT,
        wall_at_zero: 0,
        times: &SessionTimes::LINK,
    });
    let mut outputs = Vec::new();
    let mut indices = |_: &mut dyn crate::entropy::Entropy| Some(index(77));
    let mut context = Context {
        now: NOW,
        local: &ends.a,
        entropy: &mut ends.entropy,
        indices: &mut indices,
        is_free: &|_| true,
    };
    session.handle(&mut context, Input::Wanted, &mut outputs).expect("begun");
    print("Session", &session);
    print("Context", &context);

    for (name, one_line, pretty) in &texts {
        for (secret, bytes) in &secrets {
            for piece in bytes.chunks(8).chain([&bytes[..]]) {
                for form in shown(piece).iter().filter(|form| form.len() > 8) {
                    let found = one_line.contains(form) || pretty.contains(form);
                    let squeezed: String = pretty.split_whitespace().collect();
                    let bare: String = form.split_whitespace().collect();
                    assert!(!found && !squeezed.contains(&bare), "{name} shows the {secret}");
                }
            }
        }
    }
    // The check itself detects a printed secret.
    assert!(shown(&seed).iter().any(|form| format!("{seed:?}").contains(form)));
}

impl SeededEntropy {
    fn fill_for_test(&mut self, bytes: &mut [u8]) {
        crate::entropy::Entropy::fill(self, bytes).expect("seeded entropy does not fail");
    }
}
