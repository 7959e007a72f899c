//! Handshakes of connections: three ways to address the responder, and the separation from links.

use super::*;
use crate::handshake::cookie::Way;
use crate::identity::StaticKey;
use crate::limits::{CONNECTION_LANES_MAX, SOURCE_BYTES_MAX};
use strowger_wire::hello::HelloMalformed;

fn key(seed: u64) -> IdentityKey {
    IdentityKey::generate(&mut SeededEntropy::new(seed)).expect("seeded")
}

fn network() -> NetworkId {
    NetworkId::new(b"test").expect("short")
}

fn peer(seed: u64) -> LocalIdentity {
    LocalIdentity::for_connections(&key(seed), network())
}

/// Two ends of a connection; `b` responds.
struct Pair {
    a: LocalIdentity,
    b: LocalIdentity,
    checker: CookieChecker,
    entropy: SeededEntropy,
}

fn pair() -> Pair {
    let mut entropy = SeededEntropy::new(7);
    let b = peer(2);
    let checker = CookieChecker::new(&b, NOW, &mut entropy).expect("seeded");
    Pair { a: peer(1), b, checker, entropy }
}

fn offer() -> Offer {
    let fields = FieldBytes::new(&[1, 0, 8, 1, 2, 3, 4, 5, 6, 7, 8]).expect("short");
    Offer { lanes: Lanes::new(2).expect("2"), fields, ..Offer::default() }
}

impl Pair {
    fn by_peer_id(&mut self) -> (xx::AwaitResponse, Vec<u8>) {
        let offer = offer();
        let ours = ours(&self.a, &offer, 11, 1);
        xx::initiate_by_peer_id(&ours, self.b.identity(), None, &mut self.entropy).expect("begun")
    }

    fn by_static_key(&mut self, offer: &Offer) -> (ik::AwaitResponse, Vec<u8>) {
        let ours = ours(&self.a, offer, 11, 1);
        ik::initiate(&ours, self.b.static_public(), &Psk::NONE, None, &mut self.entropy)
            .expect("begun")
    }

    fn answer(&self, message: &[u8]) -> Result<Vec<u8>, Refused> {
        let admitted = go(&self.checker, message);
        xx::answer(&self.checker, &self.b, &offer(), SOURCE, &admitted)
    }

    /// Completes XX. Returns both ends, first that of the initiator.
    fn complete(&mut self, state: xx::AwaitResponse, first: &[u8]) -> [Established; 2] {
        let answer = self.answer(first).expect("answered");
        let offer = offer();
        let discovered = state.read_response(&self.a, &answer).expect("the peer's response");
        let (a, third) = discovered.finish(&ours(&self.a, &offer, 11, 1), None).expect("finished");
        let admitted = go(&self.checker, &third);
        let finish = xx::read_finish(&self.checker, &self.b, &offer, SOURCE, &admitted);
        let finish = finish.expect("read");
        assert_eq!(finish.way(), admitted.way());
        assert_eq!((finish.timestamp(), finish.offer()), (Timestamp(1), &offer));
        let b = finish.accept(&mut self.checker, &mut TimestampGuard::default());
        [a, b.expect("accepted")]
    }
}

fn refused<T: core::fmt::Debug>(admission: Result<T, Refused>) -> Refused {
    admission.expect_err("refused")
}

/// wire.md: W6-10, W6-11, W6-23.
#[test]
fn a_peer_is_reached_by_its_peer_id_alone() {
    let mut pair = pair();
    let (state, first) = pair.by_peer_id();
    assert_eq!(first.len(), INITIATION_BYTES);
    assert_eq!(go(&pair.checker, &first).way(), Way::PeerId);
    let [a, b] = pair.complete(state, &first);
    assert_eq!((a.peer().identity, b.peer().identity), (*pair.b.identity(), *pair.a.identity()));
    assert_eq!(a.transcript(), b.transcript());
    assert_eq!(a.their_offer(), &offer());
    assert_eq!(format!("{:?}", offer().fields), "FieldBytes(11 bytes)");
    exchange(a, b);
}

/// wire.md: W6-10.
#[test]
fn a_peer_is_reached_by_its_static_key() {
    let mut pair = pair();
    let (state, first) = pair.by_static_key(&offer());
    let admitted = go(&pair.checker, &first);
    assert_eq!(admitted.way(), Way::StaticKey);
    let initiation = ik::read(&pair.b, &admitted).expect("read");
    assert_eq!((initiation.timestamp(), initiation.offer()), (Timestamp(1), &offer()));
    let mut guard = TimestampGuard::default();
    assert!(initiation.is_newer_than(&guard));
    let (offer, b) = (offer(), &pair.b);
    let accepted =
        initiation.accept(&ours(b, &offer, 22, 0), &Psk::NONE, &mut guard, &mut pair.entropy);
    let (b, response) = accepted.expect("accepted");
    let again = ik::read(&pair.b, &admitted).expect("read");
    assert!(!again.is_newer_than(&guard), "a replay is not fresh");
    let a = state.read_response(&response).expect("the peer's response");
    assert_eq!((a.their_timestamp(), b.their_timestamp()), (Timestamp(0), Timestamp(1)));
    assert_eq!(a.their_offer().fields, offer.fields);
    exchange(a, b);
}

/// wire.md: W6-10, W6-121.
#[test]
fn a_peer_is_reached_by_label_alone_only_if_it_accepts_that() {
    let mut pair = pair();
    let offer = offer();
    let (state, first) =
        xx::initiate(&ours(&pair.a, &offer, 11, 1), None, &mut pair.entropy).expect("begun");
    for load in [Load::Normal, Load::Heavy] {
        assert_eq!(refused(pair.checker.admit(SOURCE, &first, load)), Refused::WrongMac);
    }
    pair.checker.accept_without_peer_id(&pair.b);
    assert_eq!(go(&pair.checker, &first).way(), Way::LabelAlone);
    let [a, b] = pair.complete(state, &first);
    exchange(a, b);
    // The other ways still work.
    let (state, first) = pair.by_peer_id();
    assert_eq!(go(&pair.checker, &first).way(), Way::PeerId);
    let [a, b] = pair.complete(state, &first);
    exchange(a, b);
}

/// wire.md: W6-10.
#[test]
fn a_node_does_not_answer_an_initiator_that_asks_for_another_peer_id() {
    let mut pair = pair();
    let (offer, third) = (offer(), peer(3));
    let ours = ours(&pair.a, &offer, 11, 1);
    let begun = xx::initiate_by_peer_id(&ours, third.identity(), None, &mut pair.entropy);
    let (_, first) = begun.expect("begun");
    assert_eq!(refused(pair.checker.admit(SOURCE, &first, Load::Normal)), Refused::WrongMac);
    let own = xx::initiate_by_peer_id(&ours, pair.a.identity(), None, &mut pair.entropy);
    assert_eq!(own.err(), Some(HandshakeError::Peer(Refused::Ourselves)));
}

/// wire.md: W6-11.
#[test]
fn the_answer_of_another_identity_leaves_the_attempt_waiting() {
    let mut pair = pair();
    let (state, first) = pair.by_peer_id();
    // C knows the PeerId of B, answers in its place, and makes the macs of B.
    let c = peer(3);
    let checker = CookieChecker::new(&c, NOW, &mut pair.entropy).expect("seeded");
    let keys =
        |of: &LocalIdentity| MacKeys::to(Domain::Connection, &of.identity().to_bytes(), &network());
    let mac_of = |of: &LocalIdentity, mut message: Vec<u8>, macs: usize| {
        message.truncate(message.len() - macs * MAC_BYTES);
        keys(of).append_mac1(&mut message);
        if macs == 2 {
            MacKeys::append_mac2(&mut message, None);
        }
        message
    };
    let to_c = mac_of(&c, first.clone(), 2);
    let answer = xx::answer(&checker, &c, &offer(), SOURCE, &go(&checker, &to_c));
    let answer = answer.expect("answered");
    // A response with the macs of C is refused.
    let rejected = state.read_response(&pair.a, &answer).expect_err("another mac");
    assert_eq!(rejected.why, Refused::WrongMac);
    let answer = mac_of(&pair.b, answer, 1);
    let rejected = rejected.state.read_response(&pair.a, &answer).expect_err("another identity");
    assert_eq!(rejected.why, Refused::OtherIdentity(c.identity().peer_id()));
    let [a, b] = pair.complete(*rejected.state, &first);
    exchange(a, b);
}

/// A begun attempt of IK or XX, and its first message.
type Begun = (Result<ik::AwaitResponse, xx::AwaitResponse>, Vec<u8>);
type Begin<'a> = &'a dyn Fn(&mut Pair, Option<&Cookie>) -> Begun;

/// wire.md: W6-13, W6-24.
#[test]
fn cookies_work_in_every_way_and_belong_to_an_opaque_source() {
    let mut pair = pair();
    pair.checker.accept_without_peer_id(&pair.b);
    let source = [9; SOURCE_BYTES_MAX];
    let offer = offer();
    let by_static_key = |pair: &mut Pair, cookie: Option<&Cookie>| {
        let ours = ours(&pair.a, &offer, 11, 1);
        let to = *pair.b.static_public();
        let begun = ik::initiate(&ours, &to, &Psk::NONE, cookie, &mut pair.entropy);
        let (state, message) = begun.expect("begun");
        (Ok(state), message)
    };
    let by_peer_id = |pair: &mut Pair, cookie: Option<&Cookie>| {
        let ours = ours(&pair.a, &offer, 11, 1);
        let to = *pair.b.identity();
        let begun = xx::initiate_by_peer_id(&ours, &to, cookie, &mut pair.entropy);
        let (state, message) = begun.expect("begun");
        (Err(state), message)
    };
    let by_label = |pair: &mut Pair, cookie: Option<&Cookie>| {
        let ours = ours(&pair.a, &offer, 11, 1);
        let (state, message) = xx::initiate(&ours, cookie, &mut pair.entropy).expect("begun");
        (Err(state), message)
    };
    let ways: [Begin<'_>; 3] = [&by_static_key, &by_peer_id, &by_label];
    for begin in ways {
        let (state, message) = begin(&mut pair, None);
        let Ok(Admission::CookieReply(reply)) = pair.checker.admit(&source, &message, Load::Heavy)
        else {
            panic!("no cookie reply");
        };
        let cookie = match &state {
            Ok(ik) => ik.read_cookie(&reply),
            Err(xx) => xx.read_cookie(&reply),
        };
        let (_, message) = begin(&mut pair, Some(&cookie.expect("ours")));
        let admission = pair.checker.admit(&source, &message, Load::Heavy);
        assert!(matches!(admission, Ok(Admission::Admitted(_))));
        let elsewhere = pair.checker.admit(&source[1..], &message, Load::Heavy);
        assert!(matches!(elsewhere, Ok(Admission::CookieReply(_))));
        let long = pair.checker.admit(&[9; SOURCE_BYTES_MAX + 1], &message, Load::Normal);
        assert_eq!(refused(long), Refused::Malformed);
    }
}

/// wire.md: W6-24.
#[test]
fn the_load_is_heavy_from_half_of_the_budget_on() {
    for (used, budget, load) in [
        (0, 200, Load::Normal),
        (99, 200, Load::Normal),
        (100, 200, Load::Heavy),
        (1, 3, Load::Normal),
        (2, 3, Load::Heavy),
        (0, 0, Load::Heavy),
    ] {
        assert_eq!(Load::of(used, budget), load, "{used} of {budget}");
    }
}

/// Returns two identities for each domain. The domains use the same seeds, and even the same X25519
/// keys.
fn twins() -> [LocalIdentity; 4] {
    let of = |domain, seed: u64| {
        let secret = Secret::from_bytes([seed as u8; KEY_BYTES]);
        let static_key = StaticKey::from_secret(&secret);
        LocalIdentity::with_static_key(domain, &key(seed), static_key, network())
    };
    [of(Domain::Link, 1), of(Domain::Link, 2), of(Domain::Connection, 1), of(Domain::Connection, 2)]
}

/// wire.md: W6-22.
#[test]
fn no_message_of_one_domain_is_accepted_in_the_other() {
    let [link_a, link_b, connection_a, connection_b] = twins();
    let offer = Offer::default();
    let entropy = &mut SeededEntropy::new(5);
    for (from, to) in [(&link_a, &connection_b), (&connection_a, &link_b)] {
        let mut checker = CookieChecker::new(to, NOW, entropy).expect("seeded");
        checker.accept_without_peer_id(to);
        let ours_from = ours(from, &offer, 11, 1);
        let (known, by_key) =
            ik::initiate(&ours_from, to.static_public(), &Psk::NONE, None, entropy).expect("begun");
        let (_, by_peer_id) =
            xx::initiate_by_peer_id(&ours_from, to.identity(), None, entropy).expect("begun");
        let (_, by_label) = xx::initiate(&ours_from, None, entropy).expect("begun");
        for message in [&by_key, &by_peer_id, &by_label] {
            for load in [Load::Normal, Load::Heavy] {
                // Not even `OtherNetwork`: the key hint differs, too.
                assert_eq!(refused(checker.admit(SOURCE, message, load)), Refused::WrongMac);
            }
        }
        // An attacker that knows all public keys recomputes the macs. The prologue still differs.
        let repaired = |message: &[u8], receiver: &[u8; KEY_BYTES]| {
            let mut message = message[..message.len() - 2 * MAC_BYTES].to_vec();
            MacKeys::to(to.domain(), receiver, &network()).append_mac1(&mut message);
            MacKeys::append_mac2(&mut message, None);
            message
        };
        let message = repaired(&by_key, &to.static_public().0);
        let read = ik::read(to, &go(&checker, &message));
        assert_eq!(refused(read), Refused::Unreadable);
        // The first message of XX has nothing to decrypt. The answer is in the other domain, and
        // cannot be read.
        let (state, first) = xx::initiate(&ours_from, None, entropy).expect("begun");
        let message = repaired(&first, &NO_KEY.0);
        let answer = xx::answer(&checker, to, &offer, SOURCE, &go(&checker, &message));
        let mut answer = answer.expect("answered");
        let rejected = state.read_response(from, &answer).expect_err("another mac");
        assert_eq!(rejected.why, Refused::WrongMac);
        answer.truncate(answer.len() - MAC_BYTES);
        MacKeys::from_us(from, &NO_KEY.0).append_mac1(&mut answer);
        let rejected = rejected.state.read_response(from, &answer).expect_err("another domain");
        assert_eq!(rejected.why, Refused::Unreadable);
        // The twin in the right domain answers the waiting initiator.
        let twin = if to.domain() == Domain::Link { &connection_b } else { &link_b };
        let checker = CookieChecker::new(twin, NOW, entropy).expect("seeded");
        let read = ik::read(twin, &go(&checker, &by_key)).expect("its own domain");
        let guard = &mut TimestampGuard::default();
        let accepted = read.accept(&ours(twin, &offer, 22, 0), &Psk::NONE, guard, entropy);
        assert!(known.read_response(&accepted.expect("accepted").1).is_ok());
    }
}

/// wire.md: W6-22.
#[test]
fn equal_direction_keys_give_other_lane_keys_in_the_other_domain() {
    let direction = Secret::from_bytes([5; KEY_BYTES]);
    let of = |domain| crate::sealer::lane_key(domain, &direction, Lane::ZERO);
    assert!(of(Domain::Link) != of(Domain::Connection));
}

/// wire.md: W6-16, W6-22.
#[test]
fn a_proof_of_one_domain_is_no_proof_in_the_other() {
    let key = key(4);
    let (link, connection) = (key.static_key(), key.connection_key());
    assert_ne!(link.public(), connection.public());
    assert_eq!(peer(4).static_public(), connection.public());
    for domain in [Domain::Link, Domain::Connection] {
        let other = if domain == Domain::Link { Domain::Connection } else { Domain::Link };
        let proof = key.prove_in(domain, connection.public());
        assert_eq!(proof.verify_in(domain, connection.public()), Ok(key.public()));
        let refused = proof.verify_in(other, connection.public());
        assert_eq!(refused, Err(IdentityRefused::BadSignature));
    }
}

/// wire.md: W6-11, W6-22.
#[test]
fn a_proof_for_links_is_refused_in_the_hello_of_a_connection() {
    // A sends the proof of a link for its connection key in the hello of the third message.
    let mut pair = pair();
    let wrong = Refused::Identity(IdentityRefused::BadSignature);
    let proof = key(1).prove(pair.a.static_public());
    let hello = |local: &LocalIdentity, number| {
        let offer = offer();
        let hello = ours(local, &offer, number, 1).hello(Timestamp(1));
        Hello { proof, ..hello }.encode(0).expect("fits")
    };
    let (mut noise, first) = {
        let mut noise = Noise::initiator(
            &noise::XX,
            &pair.a.prologue(),
            &pair.a,
            None,
            Secret::from_bytes([7; KEY_BYTES]),
        );
        let mut message = vec![0x11, 0, 0, 0, 0, 0, 0, 11];
        noise.write(&[0; 824], &mut message).expect("nothing can fail yet");
        MacKeys::from_us(&pair.a, &pair.b.identity().to_bytes()).append_mac1(&mut message);
        MacKeys::append_mac2(&mut message, None);
        (noise, message)
    };
    let answer = pair.answer(&first).expect("answered");
    noise.read(&answer[LINK_HEADER_BYTES..answer.len() - MAC_BYTES]).expect("read");
    let mut third = vec![0x12];
    third.extend_from_slice(&answer[5..8]);
    third.extend_from_slice(&[0, 0, 0, 11]);
    third.extend_from_slice(&first[LINK_HEADER_BYTES..LINK_HEADER_BYTES + KEY_BYTES]);
    noise.write(&hello(&pair.a, 11), &mut third).expect("an honest key");
    MacKeys::from_us(&pair.a, &pair.b.identity().to_bytes()).append_mac1(&mut third);
    MacKeys::append_mac2(&mut third, None);
    let admitted = go(&pair.checker, &third);
    let read = xx::read_finish(&pair.checker, &pair.b, &offer(), SOURCE, &admitted);
    assert_eq!(refused(read), wrong);
    // Such a proof of a responder of XX, and of either end of IK, is refused as well.
    let link_proof_of_b = LocalIdentity::with_proof(&key(2), key(2).prove(pair.b.static_public()));
    let (state, first) = pair.by_peer_id();
    let answer =
        xx::answer(&pair.checker, &link_proof_of_b, &offer(), SOURCE, &go(&pair.checker, &first));
    let rejected = state.read_response(&pair.a, &answer.expect("answered")).expect_err("refused");
    assert_eq!(rejected.why, wrong);
    let (state, first) = pair.by_static_key(&offer());
    let initiation = ik::read(&pair.b, &go(&pair.checker, &first)).expect("read");
    let offer = offer();
    let accepted = initiation.accept(
        &ours(&link_proof_of_b, &offer, 22, 0),
        &Psk::NONE,
        &mut TimestampGuard::default(),
        &mut pair.entropy,
    );
    let (_, response) = accepted.expect("accepted");
    assert_eq!(state.read_response(&response).expect_err("refused").why, wrong);
    let link_proof_of_a = LocalIdentity::with_proof(&key(1), key(1).prove(pair.a.static_public()));
    let begun = ik::initiate(
        &ours(&link_proof_of_a, &offer, 11, 2),
        pair.b.static_public(),
        &Psk::NONE,
        None,
        &mut pair.entropy,
    );
    let (_, first) = begun.expect("begun");
    let initiation = ik::read(&pair.b, &go(&pair.checker, &first)).expect("read");
    assert_eq!(refused(initiation.identity()), wrong);
}

/// wire.md: W6-22.
#[test]
fn a_connection_key_makes_no_beacon() {
    use crate::beacon::{self, BeaconRefused, UnverifiedBeacon};
    let bytes = beacon::encode(&peer(1));
    let claim = UnverifiedBeacon::parse(&bytes).expect("well formed");
    let refused = Err(BeaconRefused::Identity(IdentityRefused::BadSignature));
    assert_eq!(claim.verify(&network()), refused);
}

/// wire.md: W6-17.
#[test]
fn the_hello_of_a_connection_has_its_own_bounds() {
    let local = peer(1);
    let parsed = |change: fn(&mut Offer)| {
        let mut offer = offer();
        change(&mut offer);
        let bytes = ours(&local, &offer, 11, 1).hello(Timestamp(1)).encode(0).expect("fits");
        // A link accepts each of these hellos.
        assert!(Hello::parse(Domain::Link, &bytes).is_ok());
        Hello::parse(Domain::Connection, &bytes).map(|hello| hello.offer)
    };
    let bad = Err(HelloMalformed::BadField);
    assert_eq!(parsed(|_| ()), Ok(offer()));
    assert_eq!(parsed(|o| o.seal = SealWish::MustHeaderOnly), bad);
    assert_eq!(parsed(|o| o.same_scheme = true), bad);
    assert_eq!(parsed(|o| o.scheme = SchemeBytes::new(b"x").expect("short")), bad);
    assert_eq!(parsed(|o| o.lanes = Lanes::new(CONNECTION_LANES_MAX + 1).expect("5")), bad);
    let most = parsed(|o| o.lanes = Lanes::new(CONNECTION_LANES_MAX).expect("4"));
    assert_eq!(most.map(|offer| offer.lanes.number()), Ok(CONNECTION_LANES_MAX));
    // The fields of a link's hello are skipped.
    let bytes = ours(&local, &offer(), 11, 1).hello(Timestamp(1)).encode(0).expect("fits");
    let of_link = Hello::parse(Domain::Link, &bytes).expect("read").offer;
    assert_eq!(of_link.fields, FieldBytes::default());
}

/// A field of an unknown type, with this total length.
fn unknown_field(bytes: usize) -> FieldBytes {
    let [high, low] = ((bytes - 3) as u16).to_be_bytes();
    let field = [&[200, high, low][..], &vec![7; bytes - 3]].concat();
    FieldBytes::new(&field).expect("short")
}

/// A table of entries with names of 126 bytes, which has this length: a multiple of 128.
fn long_table(bytes: usize) -> Vec<u8> {
    let entry = |number: u8| [&[0, 126, b'/', b'a' + number][..], &[b'x'; 124]].concat();
    (0..(bytes / 128) as u8).flat_map(entry).collect()
}

/// wire.md: W6-30, W6-70.
#[test]
fn a_malformed_table_makes_the_hello_of_a_connection_malformed() {
    let local = peer(1);
    let parsed = |table: &[u8]| {
        let offer = Offer { protocols: ProtocolBytes::new(table).expect("short"), ..offer() };
        let bytes = ours(&local, &offer, 11, 1).hello(Timestamp(1)).encode(0).expect("fits");
        assert!(Hello::parse(Domain::Link, &bytes).is_ok(), "links accept any table");
        Hello::parse(Domain::Connection, &bytes).map(|hello| hello.offer == offer)
    };
    for good in [&b""[..], b"\0\x02/a", b"\xff\x02/a\0\x03/bc"] {
        assert_eq!(parsed(good), Ok(true), "{good:?}");
    }
    for bad in [&b"\0"[..], b"\0\x03/a", b"\0\x02aa", b"\0\x01/", b"\0\x02/ "] {
        assert_eq!(parsed(bad), Err(HelloMalformed::BadField), "{bad:?}");
    }
}

/// wire.md: W6-17, W6-125.
#[test]
fn a_response_of_xx_that_states_protocols_is_refused() {
    let mut pair = pair();
    let table = ProtocolBytes::new(b"\0\x02/a").expect("short");
    let offer = Offer { protocols: table, ..offer() };
    let (state, first) = pair.by_peer_id();
    let admitted = go(&pair.checker, &first);
    let answer = xx::answer_with_table(&pair.checker, &pair.b, &offer, SOURCE, &admitted);
    let refused = state.read_response(&pair.a, &answer).expect_err("it has a table");
    assert_eq!(refused.why, Refused::from(HelloMalformed::BadField));
    let answer = xx::answer(&pair.checker, &pair.b, &offer, SOURCE, &admitted).expect("answered");
    assert!(refused.state.read_response(&pair.a, &answer).is_ok(), "the attempt stays pending");
}

/// wire.md: W6-125.
#[test]
fn a_response_of_xx_states_no_protocols() {
    let mut pair = pair();
    let table = ProtocolBytes::new(b"\0\x02/a").expect("short");
    let offer = Offer { protocols: table.clone(), ..offer() };
    let (state, first) = pair.by_peer_id();
    let answer = {
        let admitted = go(&pair.checker, &first);
        xx::answer(&pair.checker, &pair.b, &offer, SOURCE, &admitted).expect("answered")
    };
    let discovered = state.read_response(&pair.a, &answer).expect("no table");
    assert_eq!(discovered.their_offer().protocols, ProtocolBytes::default());
    let (_, third) = discovered.finish(&ours(&pair.a, &offer, 11, 1), None).expect("finished");
    let admitted = go(&pair.checker, &third);
    let finish = xx::read_finish(&pair.checker, &pair.b, &offer, SOURCE, &admitted);
    assert_eq!(finish.expect("read").offer().protocols, table, "the third message has the table");
}

/// wire.md: W6-17.
#[test]
fn malformed_fields_make_the_hello_of_a_connection_malformed() {
    let local = peer(1);
    let parsed = |fields: &[u8]| {
        let offer = Offer { fields: FieldBytes::new(fields).expect("short"), ..offer() };
        let bytes = ours(&local, &offer, 11, 1).hello(Timestamp(1)).encode(300).expect("fits");
        assert!(Hello::parse(Domain::Link, &bytes).is_ok(), "links skip the fields");
        Hello::parse(Domain::Connection, &bytes).map(|hello| hello.offer.fields == offer.fields)
    };
    assert_eq!(parsed(&[]), Ok(true));
    assert_eq!(parsed(&[200, 0, 1, 9, 5, 0, 2, 1, 0]), Ok(true), "unknown types are skipped");
    assert_eq!(parsed(&[5, 0, 2, 1]), Err(HelloMalformed::Cut));
    assert_eq!(parsed(&[5, 0]), Err(HelloMalformed::Cut));
    assert_eq!(parsed(&[5, 0, 2, 1, 0, 5, 0, 2, 1, 0]), Err(HelloMalformed::BadField));
    assert_eq!(parsed(&[5, 0, 1, 1]), Err(HelloMalformed::BadField));
}

/// wire.md: W6-17.
#[test]
fn a_hello_of_a_connection_is_not_longer_than_a_message() {
    let local = peer(1);
    let offer = |protocols: usize, fields: usize| Offer {
        protocols: ProtocolBytes::new(&long_table(protocols)).expect("short"),
        fields: unknown_field(fields),
        ..Offer::default()
    };
    let most = LISTS_BYTES_MAX - PROTOCOLS_BYTES_MAX;
    assert_eq!(FieldBytes::new(&[0; LISTS_BYTES_MAX + 1]), Err(TooLong));
    let mut entropy = SeededEntropy::new(1);
    let b = peer(2);
    for (fields, is_right) in [(most, true), (most + 1, false)] {
        let offer = offer(PROTOCOLS_BYTES_MAX, fields);
        assert_eq!(offer.check_length().is_ok(), is_right);
        let begun = ik::initiate(
            &ours(&local, &offer, 11, 1),
            b.static_public(),
            &Psk::NONE,
            None,
            &mut entropy,
        );
        match begun {
            Ok((_, message)) => assert!(is_right && message.len() == INITIATION_BYTES),
            Err(why) => {
                assert!(!is_right);
                assert_eq!(why, HandshakeError::Peer(Refused::OwnHelloTooLong));
            }
        }
    }
    // Another implementation could put a longer hello into an IK response.
    let longest = offer(PROTOCOLS_BYTES_MAX, most);
    let mut bytes = ours(&local, &longest, 11, 1).hello(Timestamp(1)).encode(0).expect("fits");
    assert!(Hello::parse(Domain::Connection, &bytes).is_ok());
    let longer = [&[200, 0, 119 - 3][..], &[7; 119 - 3]].concat();
    bytes.truncate(bytes.len() - most);
    bytes.extend_from_slice(&longer);
    let length = (bytes.len() - 2) as u16;
    bytes[..2].copy_from_slice(&length.to_be_bytes());
    assert_eq!(Hello::parse(Domain::Connection, &bytes).err(), Some(HelloMalformed::BadField));
}

/// wire.md: W6-17.
#[test]
fn the_seal_wish_of_a_connection_accepts_pass_through_messages() {
    let mut pair = pair();
    for (wish, accepts) in [(SealWish::Full, false), (SealWish::MayHeaderOnly, true)] {
        let offer = Offer { seal: wish, ..offer() };
        assert_eq!(offer.accepts_pass_through(), accepts);
        let (state, first) = pair.by_static_key(&offer);
        let initiation = ik::read(&pair.b, &go(&pair.checker, &first)).expect("read");
        let accepted = initiation.accept(
            &ours(&pair.b, &offer, 22, 0),
            &Psk::NONE,
            &mut TimestampGuard::default(),
            &mut pair.entropy,
        );
        let (b, response) = accepted.expect("accepted");
        let a = state.read_response(&response).expect("read");
        for end in [&a, &b] {
            // Packets are sealed in full even where both ends accept pass-through messages.
            assert_eq!(end.agreement().seal, SealMode::Full);
            assert_eq!(end.their_offer().accepts_pass_through(), accepts);
        }
        assert_eq!(a.into_transport(NOW, Provider::DEFAULT).openers.mode(), SealMode::Full);
    }
}

/// wire.md: W6-25.
#[test]
fn both_ends_derive_the_same_psk_of_a_direct_link() {
    let mut pair = pair();
    let (state, first) = pair.by_peer_id();
    let ends = pair.complete(state, &first);
    let transcript = *ends[0].transcript();
    let [a, b] = ends.map(|end| {
        end.into_transport(NOW, Provider::DEFAULT).exporter.expect("a connection has one")
    });
    let asks = DirectEnd { link_key: *local(1).static_public(), nonce: [1; 16] };
    let answers = DirectEnd { link_key: *local(2).static_public(), nonce: [2; 16] };
    assert_eq!(format!("{a:?}"), "Exporter(..)");
    let psk = a.direct_psk(&asks, &answers);
    assert!(psk == b.direct_psk(&asks, &answers));
    assert!(psk != b.direct_psk(&answers, &asks));
    assert_ne!(*psk.expose(), transcript);
    for changed in [
        a.direct_psk(&DirectEnd { nonce: [3; 16], ..asks }, &answers),
        a.direct_psk(&asks, &DirectEnd { nonce: [3; 16], ..answers }),
        a.direct_psk(&DirectEnd { link_key: answers.link_key, ..asks }, &answers),
        a.direct_psk(&asks, &DirectEnd { link_key: asks.link_key, ..answers }),
    ] {
        assert!(psk != changed);
    }
    // Another session of the same two ends gives another psk.
    let (state, first) = pair.by_peer_id();
    let [other, _] = pair.complete(state, &first);
    let other = other.into_transport(NOW, Provider::DEFAULT).exporter.expect("a connection");
    assert!(psk != other.direct_psk(&asks, &answers));
    let (link, _) = ends_of_links();
    assert!(link.into_transport(NOW, Provider::DEFAULT).exporter.is_none());
}

fn ends_of_links() -> (Established, Established) {
    super::ends().ik(&Offer::default(), &Offer::default())
}

/// wire.md: W6-26.
#[test]
fn a_third_message_by_peer_id_completes_once_in_its_epoch() {
    let mut pair = pair();
    let offer = offer();
    let (state, first) = pair.by_peer_id();
    let answer = pair.answer(&first).expect("answered");
    assert_eq!(pair.answer(&first).expect("answered"), answer, "the responder keeps no state");
    let discovered = state.read_response(&pair.a, &answer).expect("read");
    let (_, third) = discovered.finish(&ours(&pair.a, &offer, 11, 1), None).expect("finished");
    let complete = |pair: &mut Pair, message: &[u8]| {
        let admitted = go(&pair.checker, message);
        let finish = xx::read_finish(&pair.checker, &pair.b, &offer, SOURCE, &admitted)?;
        finish.accept(&mut pair.checker, &mut TimestampGuard::default()).map(|_| ())
    };
    assert_eq!(complete(&mut pair, &third), Ok(()));
    // 65,535 other handshakes complete in the same epoch, and the first one is still remembered.
    let epoch = pair.checker.current_epoch().number;
    for mark in 1..COMPLETED_HANDSHAKES_MAX as u128 {
        assert_eq!(pair.checker.complete(epoch, &mark.to_be_bytes()), Ok(()));
    }
    assert_eq!(pair.checker.completed_handshakes(), 65_536);
    assert_eq!(complete(&mut pair, &third), Err(Refused::Stale));
    let (state, first) = pair.by_peer_id();
    let answer = pair.answer(&first).expect("answered");
    let discovered = state.read_response(&pair.a, &answer).expect("read");
    let (_, fresh) = discovered.finish(&ours(&pair.a, &offer, 11, 2), None).expect("finished");
    assert_eq!(complete(&mut pair, &fresh), Err(Refused::XxMemoryFull));
    assert_eq!(complete(&mut pair, &third), Err(Refused::Stale), "nothing was forgotten");
}

/// wire.md: W6-13.
#[test]
fn the_answer_and_the_third_message_belong_to_one_source() {
    let mut pair = pair();
    let offer = offer();
    let (state, first) = pair.by_peer_id();
    let answer = pair.answer(&first).expect("answered");
    let elsewhere =
        xx::answer(&pair.checker, &pair.b, &offer, b"elsewhere", &go(&pair.checker, &first));
    assert_ne!(elsewhere.expect("answered"), answer);
    let discovered = state.read_response(&pair.a, &answer).expect("read");
    let (_, third) = discovered.finish(&ours(&pair.a, &offer, 11, 1), None).expect("finished");
    let admitted = go(&pair.checker, &third);
    let read = xx::read_finish(&pair.checker, &pair.b, &offer, b"elsewhere", &admitted);
    assert_eq!(refused(read), Refused::NotOurs);
}
