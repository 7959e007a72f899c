//! A node and a scripted peer, which sends what the test wants with the keys of a real handshake:
//! path challenges and responses, confirmations, generations of keys, and offers of other versions.
//! The tests run in virtual time.

use std::net::SocketAddr;

use strowger_crypto::{
    LocalIdentity, Nanos, Psk, SealMode, Sealed, Sealer, SeededEntropy,
    aead::Provider,
    handshake::{
        Admission, CookieChecker, Disagreement, Established, Load, LocalParams, Offer,
        TimestampGuard, Transport, ik, xx,
    },
};
use strowger_engine::{
    Now,
    control::{
        Attach, Event,
        peering::{DownReason, LinkState, Liveness, PeerSpec, UnknownPeerPolicy},
    },
    discard::Discard,
    link::Behind,
};
use strowger_frame::Address;
use strowger_testkit::sim::{
    Datagram, MS, Node, NodeSpec, SECOND, SimNet, hop, host, identity, key, packet, path, receive,
    send,
};
use strowger_wire::{
    hello::{Lanes, Mtu, SealWish, Timestamp, Versions, Widths},
    link_header::SessionIndex,
};

const TOKEN: [u8; 8] = *b"a token!";
const EMPTY_BYTES: usize = 8 + 16;

fn kind(bytes: &[u8]) -> u8 {
    bytes[0] >> 4
}

fn offer() -> Offer {
    Offer {
        widths: Widths::ALL,
        lanes: Lanes::new(2).expect("1 to 16"),
        mtu: Mtu::new(1_400).expect("large enough"),
        ..Offer::default()
    }
}

fn versions(oldest: u8, newest: u8) -> Offer {
    Offer { versions: Versions::new(oldest, newest).expect("a range"), ..offer() }
}

/// Node 1 of the simulation, and the state with which the test acts as its peer 2.
struct Scene {
    net: SimNet,
    now: Now,
    node: Node,
    local: LocalIdentity,
    checker: CookieChecker,
    entropy: SeededEntropy,
    stamp: u64,
    index: u32,
}

impl Scene {
    /// The node has its peer's key. It also has the peer's address, unless `tune` removes the
    /// address.
    fn new(tune: impl FnOnce(PeerSpec) -> PeerSpec) -> Self {
        let (net, now) = (SimNet::default(), Now(SECOND));
        let mut node = Node::new(&net, &NodeSpec::new(1), now);
        let spec = tune(node.peer_spec(2, true));
        node.switch.add_peer(spec, now).expect("a slot");
        let (local, mut entropy) = (identity(2), SeededEntropy::new(2));
        let checker = CookieChecker::new(&local, Nanos(now.0), &mut entropy).expect("seeded");
        Self { net, now, node, local, checker, entropy, stamp: 0, index: 0x10_0000 }
    }

    /// A node that never begins a handshake, because it has no address of its peer.
    fn that_waits() -> Self {
        Self::new(|spec| spec.with_address(None::<Address>))
    }

    fn advance(&mut self, ns: u64) {
        self.now.0 += ns;
        for _ in 0..4 {
            self.node.poll(self.now);
        }
    }

    /// Delivers a packet to the node.
    fn send(&mut self, from: SocketAddr, packet: &[u8]) {
        self.net.inject(from, host(1), packet);
        self.advance(0);
    }

    /// The packets of these kinds that the node has sent to an address.
    fn take(&mut self, at: SocketAddr, kinds: &[u8]) -> Vec<Vec<u8>> {
        let all = self.net.take_received(at).into_iter().map(|d: Datagram| d.bytes);
        all.filter(|bytes| kinds.contains(&kind(bytes))).collect()
    }

    /// A new index and a newer timestamp.
    fn next(&mut self) -> (SessionIndex, Timestamp) {
        (self.index, self.stamp) = (self.index + 1, self.stamp + 1);
        (SessionIndex::new(self.index).expect("24 bits"), Timestamp(self.stamp))
    }

    /// Sends an initiation with this offer.
    fn initiate(&mut self, from: SocketAddr, offer: &Offer) -> ik::AwaitResponse {
        let (index, timestamp) = self.next();
        let ours = LocalParams { local: &self.local, offer, index, timestamp };
        let begun = ik::initiate(&ours, &key(1), &Psk::NONE, None, &mut self.entropy);
        let (waiting, initiation) = begun.expect("a sane key");
        self.take(from, &[]);
        self.send(from, &initiation);
        waiting
    }

    /// Makes keys by a handshake that the peer begins from this address. The peer repeats its
    /// initiation until the node no longer prefers its own handshake.
    fn begin_later(&mut self, from: SocketAddr) -> Transport {
        for _ in 0..20 {
            self.advance(100 * MS);
            let waiting = self.initiate(from, &offer());
            if let Some(response) = self.take(from, &[2]).pop() {
                return self.transport(waiting.read_response(&response).expect("valid"));
            }
        }
        panic!("no response");
    }

    /// Makes keys by a handshake that the peer begins from this address.
    fn begin(&mut self, from: SocketAddr, offer: &Offer) -> Transport {
        let waiting = self.initiate(from, offer);
        let responses = self.take(from, &[2]);
        assert_eq!(responses.len(), 1, "one response");
        self.transport(waiting.read_response(&responses[0]).expect("valid"))
    }

    fn transport(&self, established: Established) -> Transport {
        established.into_transport(Nanos(self.now.0), Provider::DEFAULT)
    }

    /// Returns the peer's keys and its response to an initiation of the node.
    fn answer(&mut self, initiation: &[u8], offer: &Offer) -> (Transport, Vec<u8>) {
        let (index, _) = self.next();
        let admitted = self.checker.admit(b"", initiation, Load::Normal);
        let Ok(Admission::Admitted(admitted)) = admitted else { panic!("an honest initiation") };
        let initiation = ik::read(&self.local, &admitted).expect("an honest initiation");
        let timestamp = Timestamp::default();
        let ours = LocalParams { local: &self.local, offer, index, timestamp };
        let mut guard = TimestampGuard::default();
        let accepted = initiation.accept(&ours, &Psk::NONE, &mut guard, &mut self.entropy);
        let (established, response) = accepted.expect("well-formed");
        (self.transport(established), response)
    }

    /// Seals a body with a sealer of the peer and returns the packet.
    fn seal(&self, sealer: &mut Sealer, what: Sealed, body: &[u8]) -> Vec<u8> {
        let mut packet = [&[0; 8], body, &[0; 16]].concat();
        sealer.seal(Nanos(self.now.0), what, &mut packet).expect("young keys");
        packet
    }

    /// Opens a packet of the node and returns its body.
    fn open(&self, keys: &mut Transport, packet: &[u8]) -> Vec<u8> {
        let mut packet = packet.to_vec();
        keys.openers.open(Nanos(self.now.0), &mut packet).expect("authentic").into_body().to_vec()
    }

    /// Sends a keepalive of the peer from its address.
    fn confirm(&mut self, keys: &mut Transport) {
        let keepalive = self.seal(&mut keys.sealers[0], Sealed::Data, &[]);
        self.send(host(2), &keepalive);
    }
}

/// wire.md: W3-21, W3-44, W3-45, W3-46, W3-51, W3-52, W3-53, W13-12.
#[test]
fn a_challenge_is_answered_with_its_token_at_its_source() {
    let mut scene = Scene::that_waits();
    let mut keys = scene.begin(host(2), &offer());
    scene.confirm(&mut keys);
    assert!(scene.node.is_up());
    for (padding, fill) in [(0, 0), (32, 0), (32, 0xff), (500, 1)] {
        let elsewhere = host(60 + (padding / 16) as u8 + fill % 2);
        let body = [&TOKEN[..], &vec![fill; padding]].concat();
        let challenge = scene.seal(&mut keys.sealers[1], Sealed::PathChallenge, &body);
        scene.send(elsewhere, &challenge);
        let sent = scene.take(elsewhere, &[4, 5, 8, 9]);
        let responses: Vec<_> = sent.iter().filter(|bytes| kind(bytes) == 9).collect();
        assert_eq!(responses.len(), 1, "{padding}: {sent:?}");
        assert_eq!((responses[0].len(), scene.open(&mut keys, responses[0])), (32, TOKEN.into()));
        // The source may be a new address of the peer. The node challenges this address if it has
        // received enough bytes from there.
        let challenges: Vec<_> = sent.iter().filter(|bytes| kind(bytes) == 8).collect();
        assert_eq!(challenges.len(), usize::from(padding > 0), "{sent:?}");
        assert!(challenges.iter().all(|bytes| bytes.len() == 32));
        assert!(sent.iter().map(Vec::len).sum::<usize>() <= challenge.len());
        // After a second, the rate limit allows more challenges.
        scene.advance(SECOND);
    }
    for length in 0..8 {
        let short = scene.seal(&mut keys.sealers[0], Sealed::PathChallenge, &TOKEN[..length]);
        scene.send(host(70), &short);
        assert_eq!(scene.take(host(70), &[9]), Vec::<Vec<u8>>::new(), "{length} bytes");
        scene.advance(SECOND);
    }
    assert_eq!(scene.node.peer_view(2).at, Some(Address::Udp(host(2))), "nothing was answered");
    scene.node.assert_even();
}

/// wire.md: W3-47.
#[test]
fn challenges_above_the_rate_are_discarded() {
    let mut scene = Scene::that_waits();
    let mut keys = scene.begin(host(2), &offer());
    scene.confirm(&mut keys);
    scene.take(host(2), &[]);
    for _ in 0..40 {
        let challenge = scene.seal(&mut keys.sealers[0], Sealed::PathChallenge, &TOKEN);
        scene.send(host(2), &challenge);
    }
    assert_eq!(scene.take(host(2), &[9]).len(), 16);
    assert_eq!(scene.node.count(Discard::OverBudget), 24);
    scene.node.assert_even();
}

/// wire.md: W3-23, W3-48, W3-54.
#[test]
fn a_response_counts_only_with_its_token_and_from_the_challenged_address() {
    let mut scene = Scene::that_waits();
    let mut keys = scene.begin(host(2), &offer());
    scene.confirm(&mut keys);
    let body = [&TOKEN[..], &[0; 32]].concat();
    let moved = scene.seal(&mut keys.sealers[0], Sealed::PathChallenge, &body);
    scene.send(host(11), &moved);
    let challenge = scene.take(host(11), &[8]).pop().expect("a challenge");
    let token = scene.open(&mut keys, &challenge);
    let at = |scene: &Scene| scene.node.peer_view(2).at;
    let mut wrong = token.clone();
    wrong[7] ^= 1;
    for (body, from) in [(&wrong, 11), (&token, 12), (&token, 2), (&TOKEN.to_vec(), 11)] {
        let response = scene.seal(&mut keys.sealers[0], Sealed::PathResponse, body);
        scene.send(host(from), &response);
        assert_eq!(at(&scene), Some(Address::Udp(host(2))), "{body:?} from {from}");
    }
    let response = scene.seal(&mut keys.sealers[0], Sealed::PathResponse, &token);
    scene.send(host(11), &response);
    assert_eq!(at(&scene), Some(Address::Udp(host(11))));
    scene.node.assert_even();
}

/// wire.md: W3-51, W3-53.
#[test]
fn data_right_after_a_keepalive_from_a_new_address_causes_a_challenge_there() {
    let mut scene = Scene::that_waits();
    let mut keys = scene.begin(host(2), &offer());
    scene.confirm(&mut keys);
    // The keepalive of 24 bytes is shorter than a challenge, so it alone allows none. The data that
    // follows it allows one.
    for body in [&[][..], &[0; 100]] {
        let packet = scene.seal(&mut keys.sealers[0], Sealed::Data, body);
        scene.send(host(11), &packet);
    }
    assert_eq!(scene.take(host(11), &[8]).len(), 1);
    scene.node.assert_even();
}

/// wire.md: W3-49, W3-50, W3-51, W3-57, W4-107.
#[test]
fn an_address_without_a_response_is_challenged_each_second_with_one_token() {
    // The peer is configured at host 2, and begins a handshake from host 5.
    let mut scene = Scene::new(|spec| spec);
    scene.net.cut(host(2), true);
    let mut keys = scene.begin_later(host(5));
    let keepalive = scene.seal(&mut keys.sealers[0], Sealed::Data, &[]);
    scene.send(host(5), &keepalive);
    let first = scene.take(host(5), &[8]).pop().expect("a challenge at once");
    let (mut tokens, mut times) = (vec![scene.open(&mut keys, &first)], Vec::new());
    for _ in 0..90 {
        scene.advance(100 * MS);
        for challenge in scene.take(host(5), &[8]) {
            assert_eq!(challenge.len(), 32);
            tokens.push(scene.open(&mut keys, &challenge));
            times.push(scene.now.0 / (100 * MS));
        }
        assert!(!scene.node.is_up(), "no address is validated");
    }
    assert!(times.len() >= 8 && times.windows(2).all(|two| two[1] - two[0] >= 10), "{times:?}");
    tokens.dedup();
    assert_eq!(tokens.len(), 1, "one token");
    let response = scene.seal(&mut keys.sealers[0], Sealed::PathResponse, &tokens[0]);
    scene.send(host(5), &response);
    assert!(scene.node.is_up());
    assert_eq!(scene.node.peer_view(2).at, Some(Address::Udp(host(5))));
    scene.node.assert_even();
}

/// wire.md: W3-57.
#[test]
fn keys_without_a_validated_address_cause_one_new_handshake() {
    let mut scene = Scene::new(|spec| spec);
    scene.net.cut(host(2), true);
    let mut keys = scene.begin_later(host(5));
    let keepalive = scene.seal(&mut keys.sealers[0], Sealed::Data, &[]);
    scene.send(host(5), &keepalive);
    scene.net.cut(host(2), false);
    scene.take(host(2), &[]);
    for _ in 0..95 {
        scene.advance(100 * MS);
    }
    assert!(scene.take(host(2), &[1]).is_empty(), "within ten seconds");
    scene.advance(SECOND);
    assert!(!scene.take(host(2), &[1]).is_empty(), "a new handshake");
}

/// wire.md: W3-24, W3-25, W3-27, W3-29, W3-30, W3-33, W3-34, W3-37, W3-38, W3-42, W3-43, W3-64,
/// W3-65, W3-66, W3-67, W13-14.
#[test]
fn wrong_packets_are_counted_by_their_fault_and_not_answered() {
    for wish in [SealWish::Full, SealWish::MustHeaderOnly] {
        let mut scene = Scene::new(|spec| spec.with_address(None::<Address>).with_seal(wish));
        let mut keys = scene.begin(host(2), &Offer { seal: wish, ..offer() });
        let full = wish == SealWish::Full;
        let mode = if full { SealMode::Full } else { SealMode::HeaderOnly };
        assert_eq!(keys.openers.mode(), mode);
        scene.confirm(&mut keys);
        scene.advance(SECOND);
        scene.take(host(2), &[]);
        let keepalive = scene.seal(&mut keys.sealers[1], Sealed::Data, &[]);
        assert_eq!((keepalive.len(), kind(&keepalive)), (EMPTY_BYTES, if full { 4 } else { 5 }));
        let with = |place: usize, byte: u8| {
            let mut packet = keepalive.clone();
            packet[place] = byte;
            packet
        };
        let [first, .., last] = keepalive[..] else { panic!("24 bytes") };
        let other_kind = if full { 0x51 } else { 0x41 };
        let plain = [&[0x60, 0, 0, 0, 0, 0, 0, 1][..], &[0; 16]].concat();
        let short_body =
            scene.seal(&mut keys.sealers[0], Sealed::Data, &[0x10, 0, 1, 0, 0, 0, 0, 0, 0]);
        let elsewhere = host(66);
        for (name, packet, from, reason) in [
            ("kind 0", with(0, 0x01), host(2), Discard::BadLinkKind),
            ("kind 10", with(0, 0xa1), host(2), Discard::BadLinkKind),
            ("kind 15", with(0, 0xf1), host(2), Discard::BadLinkKind),
            ("a beacon", with(0, 0x70), host(2), Discard::BadLinkKind),
            ("another mode", with(0, other_kind), host(2), Discard::BadLinkKind),
            ("7 bytes", keepalive[..7].to_vec(), host(2), Discard::TooShort),
            ("23 bytes", keepalive[..23].to_vec(), host(2), Discard::TooShort),
            ("another index", with(2, !keepalive[2]), host(2), Discard::NoSession),
            ("lane 2 of 2", with(0, first & 0xf0 | 2), host(2), Discard::BadSeal),
            ("a wrong tag", with(EMPTY_BYTES - 1, !last), host(2), Discard::BadSeal),
            ("no label", short_body, host(2), Discard::TooShort),
            ("plain data of a sealed link", plain.clone(), host(2), Discard::BadLinkKind),
            ("plain data from an unknown address", plain, elsewhere, Discard::UnknownSender),
            // The original is a keepalive, and its copy is a replay. A copy that also fails an
            // earlier check is counted by that check.
            ("a keepalive", keepalive.clone(), host(2), Discard::Handled),
            ("a copy", keepalive.clone(), host(2), Discard::Replayed),
            ("a copy with a wrong tag", with(EMPTY_BYTES - 1, !last), host(2), Discard::Replayed),
            ("a copy on lane 2", with(0, first & 0xf0 | 2), host(2), Discard::BadSeal),
            ("a copy of another mode", with(0, other_kind), host(2), Discard::BadLinkKind),
        ] {
            let before = scene.node.count(reason);
            scene.send(from, &packet);
            assert_eq!(scene.node.count(reason), before + 1, "{mode:?}: {name}");
            assert_eq!(scene.take(from, &[1, 2, 3, 6, 7, 8, 9]), Vec::<Vec<u8>>::new(), "{name}");
        }
        assert!(scene.node.is_up());
        scene.node.assert_even();
    }
}

/// wire.md: W3-2, W3-3, W3-29, W13-12.
#[test]
fn plain_data_has_a_count_and_is_accepted_only_from_a_plain_neighbour() {
    let (net, now) = (SimNet::default(), Now(SECOND));
    let unknown_peers = Some(UnknownPeerPolicy::default());
    let mut node = Node::new(&net, &NodeSpec { unknown_peers, ..NodeSpec::new(1) }, now);
    let at = Address::Udp(host(3));
    let attach = Attach::plain(node.port, at, Behind::Neighbour, "plain");
    let slot = node.switch.attach(attach).expect("a slot").number();
    let (of_endpoint, mut endpoint) = node.add_endpoint();
    let poll = |node: &mut Node| (0..4).for_each(|_| node.poll(now));
    poll(&mut node);
    let out = path(&[hop(of_endpoint, slot), hop(0, 4)]);
    for counter in 1..=3 {
        send(&mut endpoint, out, b"out");
        poll(&mut node);
        let sent = net.take_received(host(3)).pop().expect("sent").bytes;
        assert_eq!(sent[..8], [0x60, 0, 0, 0, 0, 0, 0, counter]);
    }
    // Any lane, index and counter are accepted.
    let into = path(&[hop(slot, of_endpoint)]);
    for header in [[0x60, 0, 0, 0, 0, 0, 0, 1], [0x6f, 1, 2, 3, 0xff, 0xff, 0xff, 0xff]] {
        let mut bytes = packet(into, b"in");
        bytes[..8].copy_from_slice(&header);
        net.inject(host(3), host(1), &bytes);
        poll(&mut node);
        assert_eq!(receive(&mut endpoint).as_deref(), Some(&b"in"[..]), "{header:?}");
    }
    let slots = node.switch.slots().len();
    net.inject(host(66), host(1), &packet(into, b"in"));
    poll(&mut node);
    assert_eq!(receive(&mut endpoint), None);
    assert_eq!(node.count(Discard::UnknownSender), 1);
    assert_eq!(node.switch.slots().len(), slots, "no plain link for an unknown peer");
    node.assert_even();
}

/// wire.md: W5-1, W13-15.
#[test]
fn control_messages_of_other_versions_and_kinds_get_no_answer() {
    let mut scene = Scene::new(|spec| {
        spec.with_address(None::<Address>).with_rights(strowger_engine::link::Rights::ALL)
    });
    let mut keys = scene.begin(host(2), &offer());
    scene.confirm(&mut keys);
    scene.take(host(2), &[]);
    for (version, kind, is_answered) in [(1, 1, true), (2, 1, false), (0, 1, false), (1, 13, false)]
    {
        // A switch header with the flag C, and with the label of the switch itself.
        let header = [0x10, 0x40, 64, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
        let message = [version, kind, 0, 0, 0, 0, 0, 7];
        let body = [&header[..], &message].concat();
        let request = scene.seal(&mut keys.sealers[0], Sealed::Data, &body);
        let before = scene.node.count(Discard::Unhandled);
        scene.send(host(2), &request);
        let replies = scene.take(host(2), &[4]);
        let replies = replies.iter().filter(|reply| reply.len() > EMPTY_BYTES).count();
        assert_eq!(replies, usize::from(is_answered), "version {version}, kind {kind}");
        let unhandled = scene.node.count(Discard::Unhandled) - before;
        assert_eq!(unhandled, u64::from(!is_answered), "version {version}, kind {kind}");
    }
    scene.node.assert_even();
}

/// wire.md: W4-91, W4-94, W4-95, W4-97, W4-98.
#[test]
fn an_initiator_confirms_its_keys_at_once_and_each_second_until_it_is_answered() {
    for answered_after in [Some(3), None] {
        let mut scene = Scene::new(|spec| spec);
        scene.advance(0);
        let initiation = scene.take(host(2), &[1]).pop().expect("an initiation");
        let (mut keys, response) = scene.answer(&initiation, &offer());
        scene.send(host(2), &response);
        assert!(scene.node.is_up(), "a response of IK proves the keys");
        let mut times = Vec::new();
        for tenth in 0..300 {
            for keepalive in scene.take(host(2), &[4]) {
                assert_eq!(scene.open(&mut keys, &keepalive), Vec::<u8>::new());
                times.push(tenth);
            }
            if answered_after.is_some_and(|count| times.len() == count) {
                scene.confirm(&mut keys);
            }
            scene.advance(100 * MS);
        }
        let count = answered_after.unwrap_or(20);
        let wanted: Vec<_> = (0..count).map(|second| 10 * second).collect();
        assert_eq!(times, wanted, "answered after {answered_after:?}");
        scene.node.assert_even();
    }
}

/// wire.md: W4-91, W4-96, W4-101.
#[test]
fn a_responder_seals_nothing_before_a_packet_under_the_keys_and_answers_keepalives() {
    let mut scene = Scene::that_waits();
    let mut keys = scene.begin(host(2), &offer());
    for _ in 0..100 {
        scene.advance(100 * MS);
    }
    assert_eq!(scene.take(host(2), &[4, 5, 8, 9]), Vec::<Vec<u8>>::new());
    let mut times = Vec::new();
    for tenth in 0..40 {
        scene.confirm(&mut keys);
        for answer in scene.take(host(2), &[4]) {
            assert_eq!(scene.open(&mut keys, &answer), Vec::<u8>::new());
            times.push(tenth);
        }
        scene.advance(100 * MS);
    }
    assert_eq!(times[0], 0, "at once");
    assert!(times.windows(2).all(|two| two[1] - two[0] >= 5), "{times:?}");
    assert!((7..=8).contains(&times.len()), "{times:?}");
    scene.node.assert_even();
}

/// wire.md: W3-41, W4-12, W4-86, W4-92, W4-93.
#[test]
fn the_former_keys_open_and_older_ones_only_after_a_crossing() {
    for (pause, oldest_opens) in [(10, false), (2, true)] {
        let mut scene = Scene::that_waits();
        let mut generations = Vec::new();
        for _ in 0..3 {
            let mut keys = scene.begin(host(2), &offer());
            scene.confirm(&mut keys);
            generations.push(keys);
            scene.advance(pause * SECOND);
        }
        let before = [Discard::Handled, Discard::NoSession].map(|why| scene.node.count(why));
        for keys in &mut generations {
            scene.confirm(keys);
        }
        let after = [Discard::Handled, Discard::NoSession].map(|why| scene.node.count(why));
        let closed = u64::from(!oldest_opens);
        assert_eq!([after[0] - before[0], after[1] - before[1]], [3 - closed, closed], "{pause} s");
        // A receiver removes keys at the age of 190 seconds.
        let born = scene.now;
        let mut keys = scene.begin(host(2), &offer());
        scene.confirm(&mut keys);
        let early = scene.seal(&mut keys.sealers[0], Sealed::Data, &[]);
        let late = scene.seal(&mut keys.sealers[0], Sealed::Data, &[]);
        for (age, packet, reason) in
            [(189, early, Discard::Handled), (191, late, Discard::NoSession)]
        {
            scene.advance(born.0 + age * SECOND - scene.now.0);
            let before = scene.node.count(reason);
            scene.send(host(2), &packet);
            assert_eq!(scene.node.count(reason), before + 1, "{age} s");
        }
        scene.node.assert_even();
    }
}

/// wire.md: W3-45, W4-91, W4-96.
#[test]
fn the_first_packet_under_new_keys_may_be_a_challenge() {
    let mut scene = Scene::that_waits();
    let mut keys = scene.begin(host(2), &offer());
    let challenge = scene.seal(&mut keys.sealers[0], Sealed::PathChallenge, &TOKEN);
    scene.send(host(2), &challenge);
    let response = scene.take(host(2), &[9]).pop().expect("a response");
    assert_eq!(scene.open(&mut keys, &response), TOKEN);
    assert!(scene.node.is_up());
    scene.node.assert_even();
}

/// wire.md: W4-10, W4-80, W4-81, W4-87, W4-95.
#[test]
fn answers_count_for_the_last_three_initiations_and_for_ten_seconds() {
    // Each case states which initiation is answered, the number of initiations that the node has
    // sent, the age of the last one in tenths of a second, and whether the answer counts.
    for (answered, sent, age, counts) in [
        (0, 1, 0, true),
        (0, 3, 0, true),
        (1, 4, 0, true),
        (0, 4, 0, false),
        (11, 12, 99, true),
        (11, 12, 101, false),
    ] {
        let mut scene = Scene::new(|spec| spec);
        let mut initiations = Vec::new();
        while initiations.len() < sent {
            scene.advance(100 * MS);
            initiations.append(&mut scene.take(host(2), &[1]));
        }
        let unique = |bytes: std::ops::Range<usize>| {
            let mut all: Vec<_> = initiations.iter().map(|sent| &sent[bytes.clone()]).collect();
            all.sort_unstable();
            all.dedup();
            all.len()
        };
        assert_eq!([unique(5..8), unique(8..40)], [sent; 2], "index and ephemeral key");
        scene.advance(age * 100 * MS);
        assert!(scene.take(host(2), &[1]).is_empty(), "no further one");
        let (_, response) = scene.answer(&initiations[answered], &offer());
        let before = scene.node.count(Discard::NoSession);
        // A copy with a wrong mac does not keep the node from accepting the answer.
        let mut forged = response.clone();
        *forged.last_mut().expect("a mac") ^= 1;
        scene.send(host(2), &forged);
        scene.send(host(2), &response);
        assert_eq!(scene.node.is_up(), counts, "{answered} of {sent}, {age}");
        let refused = scene.node.count(Discard::NoSession) - before;
        assert_eq!(refused, if counts { 0 } else { 2 }, "{answered} of {sent}, {age}");
        if counts {
            // A valid answer ends all attempts.
            let (_, response) = scene.answer(&initiations[sent - 1], &offer());
            scene.send(host(2), &response);
            assert_eq!(scene.node.count(Discard::NoSession), before + 1);
        }
        scene.node.assert_even();
    }
}

/// wire.md: W3-10, W4-82, W4-97, W4-104, W4-105, W4-107.
#[test]
fn keys_are_renewed_at_120_or_140_seconds_and_seal_until_180() {
    for (is_initiator, due) in [(true, 1_200), (false, 1_400)] {
        let always = Liveness::default().with_always(true);
        let mut scene = Scene::new(|spec| spec.with_liveness(always));
        scene.advance(0);
        let initiation = scene.take(host(2), &[1]).pop().expect("an initiation");
        let mut keys = if is_initiator {
            let (keys, response) = scene.answer(&initiation, &offer());
            scene.send(host(2), &response);
            keys
        } else {
            scene.begin_later(host(2))
        };
        scene.confirm(&mut keys);
        let born = scene.now.0;
        let (mut attempts, mut down) = (Vec::new(), None);
        for tenth in 1..=1_850 {
            scene.advance(born + tenth * 100 * MS - scene.now.0);
            if tenth % 10 == 0 && tenth < 1_790 {
                scene.confirm(&mut keys);
            }
            let sent = scene.take(host(2), &[1, 4, 5, 8, 9]);
            if sent.iter().any(|packet| kind(packet) == 1) {
                attempts.push(tenth);
            }
            let is_sealed = sent.iter().any(|packet| kind(packet) > 3);
            assert!(tenth <= 1_800 || !is_sealed, "sealed at {tenth}");
            if down.is_none() && !scene.node.is_up() {
                down = Some(tenth);
            }
        }
        assert!(attempts[0].abs_diff(due) <= 1, "{attempts:?}");
        let before_the_end = attempts.iter().filter(|at| **at < 1_800).count();
        let gaps: Vec<_> =
            attempts[..before_the_end].windows(2).map(|two| two[1] - two[0]).collect();
        assert!(gaps[..3].iter().all(|gap| (10..=14).contains(gap)), "{gaps:?}");
        assert!(gaps[3..].iter().all(|gap| (20..=27).contains(gap)), "one doubling: {gaps:?}");
        assert!(down.is_some_and(|at: u64| at.abs_diff(1_800) <= 1), "{down:?}");
        assert_eq!(scene.node.switch.peers()[0].state, LinkState::Down);
        scene.node.assert_even();
    }
}

/// wire.md: W3-52, W4-97, W4-102, W4-108.
#[test]
fn a_silent_peer_is_probed_three_times_and_is_down_after_fifteen_seconds() {
    for sends in [true, false] {
        let mut scene = Scene::that_waits();
        let (of_endpoint, mut endpoint) = scene.node.add_endpoint();
        let mut keys = scene.begin(host(2), &offer());
        scene.confirm(&mut keys);
        // The peer answers until the search for the path MTU has ended.
        for _ in 0..200 {
            scene.advance(100 * MS);
            for challenge in scene.take(host(2), &[8]) {
                let token = scene.open(&mut keys, &challenge)[..8].to_vec();
                let response = scene.seal(&mut keys.sealers[0], Sealed::PathResponse, &token);
                scene.send(host(2), &response);
            }
        }
        if sends {
            // The peer sends a last data packet. Then the node sends one, and expects another
            // packet from the peer.
            let data = scene.seal(&mut keys.sealers[0], Sealed::Data, &[0x10; 16]);
            scene.send(host(2), &data);
        }
        assert!(scene.node.is_up());
        let heard = scene.now.0;
        if sends {
            let slot = scene.node.peer_view(2).slot.number();
            send(&mut endpoint, path(&[hop(of_endpoint, slot), hop(0, 4)]), b"anybody?");
        }
        let (mut probes, mut down) = (Vec::new(), None);
        for tenth in 0..170 {
            scene.advance(heard + tenth * 100 * MS - scene.now.0);
            let sent = scene.take(host(2), &[8]);
            probes.extend(sent.iter().filter(|probe| probe.len() == 64).map(|_| tenth));
            if down.is_none() && !scene.node.is_up() {
                down = Some(tenth);
            }
        }
        if sends {
            assert_eq!((probes.len(), probes[0]), (3, 50), "{probes:?}");
            assert!(probes[1].abs_diff(84) <= 1 && probes[2].abs_diff(117) <= 2, "{probes:?}");
            assert!(down.is_some_and(|at: u64| at.abs_diff(150) <= 3), "{down:?}");
        } else {
            assert_eq!((probes.len(), down), (0, None), "nothing was sent to the peer");
        }
        scene.node.assert_even();
    }
}

/// wire.md: W4-12, W4-84.
#[test]
fn a_responder_keeps_the_keys_of_three_unused_initiations_until_one_is_used() {
    let mut scene = Scene::that_waits();
    let mut generations: Vec<_> = (0..4)
        .map(|_| {
            let keys = scene.begin(host(2), &offer());
            scene.advance(100 * MS);
            keys
        })
        .collect();
    let counts =
        |scene: &Scene| [Discard::Handled, Discard::NoSession].map(|why| scene.node.count(why));
    let use_keys = |scene: &mut Scene, keys: &mut Transport| {
        let before = counts(scene);
        scene.confirm(keys);
        let after = counts(scene);
        [after[0] - before[0], after[1] - before[1]]
    };
    assert_eq!(use_keys(&mut scene, &mut generations[0]), [0, 1], "there were three later ones");
    assert_eq!(use_keys(&mut scene, &mut generations[2]), [1, 0]);
    assert_eq!(use_keys(&mut scene, &mut generations[1]), [0, 1], "it was answered earlier");
    assert_eq!(use_keys(&mut scene, &mut generations[3]), [1, 0], "it was answered later");
    scene.node.assert_even();
}

/// wire.md: W4-6, W4-94, W4-95, W4-97, W4-98.
#[test]
fn an_initiator_of_xx_repeats_its_third_message_with_each_confirmation() {
    let mut scene = Scene::new(|spec| {
        spec.with_key(None::<strowger_crypto::StaticPublic>).with_identity(*identity(2).identity())
    });
    scene.advance(0);
    let first = scene.take(host(2), &[1]).pop().expect("a first message");
    let Ok(Admission::Admitted(admitted)) = scene.checker.admit(b"", &first, Load::Normal) else {
        panic!("an honest first message")
    };
    let response = xx::answer(&scene.checker, &scene.local, &offer(), b"", &admitted);
    scene.send(host(2), &response.expect("an honest first message"));
    let (mut thirds, mut keepalives) = (Vec::new(), Vec::new());
    for tenth in 0..62 {
        for packet in scene.take(host(2), &[1, 4]) {
            match packet[0] {
                0x12 => thirds.push((tenth, packet)),
                0x40 => keepalives.push(tenth),
                other => panic!("{other:#x} after {tenth}"),
            }
        }
        assert!(!scene.node.is_up(), "the peer has not confirmed");
        scene.advance(100 * MS);
    }
    let times: Vec<_> = thirds.iter().map(|(at, _)| *at).collect();
    assert_eq!(times, [0, 12, 22, 32, 42, 52]);
    assert!(thirds.iter().all(|(_, packet)| *packet == thirds[0].1), "the same bytes");
    assert_eq!(keepalives, [2, 12, 22, 32, 42, 52]);
    // After six copies a new handshake begins.
    scene.advance(200 * MS);
    let next = scene.take(host(2), &[1]);
    assert!(next.iter().all(|packet| packet.len() == 896 && packet[0] != 0x12), "{next:?}");
    assert_eq!(next.len(), 1);
    scene.node.assert_even();
}

/// wire.md: W4-113.
#[test]
fn a_third_message_goes_only_where_an_initiation_went() {
    for from in [2, 9] {
        let mut scene = Scene::new(|spec| {
            let spec = spec.with_key(None::<strowger_crypto::StaticPublic>);
            spec.with_identity(*identity(2).identity())
        });
        scene.advance(0);
        let first = scene.take(host(2), &[1]).pop().expect("a first message");
        let Ok(Admission::Admitted(first)) = scene.checker.admit(b"", &first, Load::Normal) else {
            panic!("an honest first message")
        };
        let response = xx::answer(&scene.checker, &scene.local, &offer(), b"", &first);
        scene.send(host(from), &response.expect("an honest first message"));
        (0..13).for_each(|_| scene.advance(100 * MS));
        let thirds = scene.take(host(2), &[1]);
        assert_eq!(thirds.iter().map(|m| m[0]).collect::<Vec<_>>(), [0x12, 0x12], "from {from}");
        assert_eq!(scene.take(host(9), &[1]), Vec::<Vec<u8>>::new());
    }
}

/// wire.md: W4-114.
#[test]
fn a_response_goes_to_the_source_of_its_initiation_whatever_the_link_s_address() {
    let mut scene = Scene::that_waits();
    let mut keys = scene.begin(host(2), &offer());
    scene.confirm(&mut keys);
    assert!(scene.node.is_up());
    scene.advance(SECOND);
    scene.take(host(2), &[]);
    scene.begin(host(9), &offer()); // asserts that one response arrives there
    assert_eq!(scene.take(host(2), &[2]), Vec::<Vec<u8>>::new());
}

/// wire.md: W4-94, W4-107, W4-108.
#[test]
fn a_late_keepalive_under_former_keys_does_not_confirm_those_of_an_initiator_of_xx() {
    let liveness = Liveness::new(std::time::Duration::from_secs(1)).with_always(true);
    let mut scene = Scene::new(|spec| {
        let spec = spec.with_key(None::<strowger_crypto::StaticPublic>).with_liveness(liveness);
        spec.with_identity(*identity(2).identity())
    });
    let mut former = scene.begin(host(2), &offer());
    scene.confirm(&mut former);
    assert!(scene.node.is_up());
    let first = (0..60).find_map(|_| {
        scene.advance(100 * MS);
        scene.take(host(2), &[1]).pop()
    });
    let first = first.expect("a silent peer is sought");
    assert_eq!((first[0], scene.node.is_up()), (0x11, false), "XX comes first");
    let Ok(Admission::Admitted(first)) = scene.checker.admit(b"", &first, Load::Normal) else {
        panic!("an honest first message")
    };
    let response = xx::answer(&scene.checker, &scene.local, &offer(), b"", &first);
    scene.send(host(2), &response.expect("an honest first message"));
    let third = scene.take(host(2), &[1]).pop().expect("a third message");
    assert_eq!(third[0], 0x12);
    scene.confirm(&mut former);
    assert!(!scene.node.is_up(), "the peer has not shown that it has the new keys");
    let Ok(Admission::Admitted(third)) = scene.checker.admit(b"", &third, Load::Normal) else {
        panic!("an honest third message")
    };
    let finish = xx::read_finish(&scene.checker, &scene.local, &offer(), b"", &third);
    let mut guard = TimestampGuard::default();
    let established = finish.expect("honest").accept(&mut scene.checker, &mut guard);
    let mut keys = scene.transport(established.expect("honest"));
    scene.confirm(&mut keys);
    assert!(scene.node.is_up());
    scene.node.assert_even();
}

/// wire.md: W4-99.
#[test]
fn the_smaller_static_key_ignores_an_initiation_for_a_second_after_its_own() {
    let mut scene = Scene::new(|spec| spec);
    scene.advance(0);
    let own = scene.take(host(2), &[1]).pop().expect("an initiation");
    let is_smaller = key(1) < key(2);
    let _ = scene.initiate(host(2), &offer());
    scene.advance(900 * MS);
    let _ = scene.initiate(host(2), &offer());
    assert_eq!(scene.take(host(2), &[2]).is_empty(), is_smaller, "{is_smaller}");
    assert!(is_smaller, "choose the seeds so that the node has the smaller key");
    // The same holds while the node's own keys are younger than a second.
    let (mut keys, response) = scene.answer(&own, &offer());
    scene.send(host(2), &response);
    scene.confirm(&mut keys);
    scene.advance(900 * MS);
    let _ = scene.initiate(host(2), &offer());
    assert!(scene.take(host(2), &[2]).is_empty());
    scene.advance(100 * MS);
    let _ = scene.initiate(host(2), &offer());
    assert_eq!(scene.take(host(2), &[2]).len(), 1);
    scene.node.assert_even();
}

/// wire.md: W4-13, W4-86, W4-100.
#[test]
fn the_smaller_static_key_keeps_its_own_keys_after_a_crossing() {
    let mut scene = Scene::new(|spec| spec);
    scene.advance(0);
    let own = scene.take(host(2), &[1]).pop().expect("an initiation");
    // The peer's handshake is answered, then that of the node completes.
    let mut theirs = scene.begin_later(host(2));
    let (mut ours, response) = scene.answer(&own, &offer());
    scene.send(host(2), &response);
    scene.take(host(2), &[]);
    let sealed_with_own = |scene: &mut Scene, ours: &mut Transport| {
        let token = scene.seal(&mut ours.sealers[0], Sealed::PathChallenge, &TOKEN);
        scene.send(host(2), &token);
        let response = scene.take(host(2), &[9]).pop().expect("a response");
        ours.openers.open(Nanos(scene.now.0), &mut response.clone()).is_ok()
    };
    let handled = scene.node.count(Discard::Handled);
    scene.confirm(&mut theirs);
    assert_eq!(scene.node.count(Discard::Handled), handled + 1, "both open");
    assert!(sealed_with_own(&mut scene, &mut ours));
    // When the node's own keys are older than five seconds, the peer's keys may replace them.
    scene.advance(6 * SECOND);
    let mut later = scene.begin(host(2), &offer());
    scene.confirm(&mut later);
    assert!(!sealed_with_own(&mut scene, &mut ours));
    scene.node.assert_even();
}

fn disagrees(scene: &Scene) -> bool {
    scene.node.switch.peers()[0].down == Some(DownReason::Disagreement(Disagreement::Version))
        && scene.node.events.iter().any(|event| {
            matches!(event, Event::LinkTrouble(_, DownReason::Disagreement(Disagreement::Version)))
        })
}

/// wire.md: W4-62, W4-63, W13-3, W13-4, W13-5.
#[test]
fn offers_of_other_versions_are_linked_or_refused_with_a_reason() {
    for (oldest, newest) in [(0, 1), (1, 1), (1, 2), (1, 255)] {
        let mut scene = Scene::that_waits();
        let mut keys = scene.begin(host(2), &versions(oldest, newest));
        scene.confirm(&mut keys);
        assert!(scene.node.is_up(), "{oldest} to {newest}");
    }
    for (oldest, newest) in [(2, 2), (2, 9), (0, 0)] {
        // The peer begins a handshake by IK and gets no answer.
        let mut scene = Scene::that_waits();
        let _ = scene.initiate(host(2), &versions(oldest, newest));
        assert_eq!(scene.node.count(Discard::HandshakeDisagreement), 1);
        assert!(scene.take(host(2), &[2]).is_empty());
        scene.advance(SECOND);
        assert!(disagrees(&scene) && !scene.node.is_up(), "{:?}", scene.node.switch.peers());
        scene.node.assert_even();

        // The node begins a handshake by XX. The peer gets no third message.
        let mut scene = Scene::new(|spec| {
            spec.with_key(None::<strowger_crypto::StaticPublic>)
                .with_identity(*identity(2).identity())
        });
        scene.advance(0);
        let first = scene.take(host(2), &[1]).pop().expect("a first message");
        let Ok(Admission::Admitted(admitted)) = scene.checker.admit(b"", &first, Load::Normal)
        else {
            panic!("an honest first message")
        };
        let theirs = versions(oldest, newest);
        let response = xx::answer(&scene.checker, &scene.local, &theirs, b"", &admitted);
        scene.send(host(2), &response.expect("an honest first message"));
        assert_eq!(scene.node.count(Discard::HandshakeDisagreement), 1);
        assert!(scene.take(host(2), &[1]).is_empty());
        scene.advance(100 * MS);
        assert!(disagrees(&scene) && !scene.node.is_up(), "{:?}", scene.node.switch.peers());

        // The node begins a handshake by IK. The peer finds no common version and does not answer.
        // Then the peer begins a handshake.
        let mut scene = Scene::new(|spec| spec);
        for _ in 0..80 {
            scene.advance(100 * MS);
        }
        let down = scene.node.switch.peers()[0].down;
        assert!(matches!(down, Some(DownReason::NoAnswer { .. })), "{down:?}");
        let _ = scene.initiate(host(2), &versions(oldest, newest));
        assert!(disagrees(&scene), "{:?}", scene.node.switch.peers());
    }
}
