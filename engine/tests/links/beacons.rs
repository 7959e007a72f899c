//! Link beacons: discovery, and attempts to misuse beacons. The tests run in virtual time. A
//! segment is an address whose datagrams the test copies to all nodes.

use std::net::SocketAddr;

use strowger_crypto::{
    Nanos, SeededEntropy, beacon,
    handshake::{Admission, CookieChecker, Load},
};
use strowger_engine::{
    Now,
    control::{
        Event,
        peering::{BeaconSpec, LinkState, Liveness, UnknownPeerPolicy},
    },
    discard::Discard,
    limits::{BEACON_CALLS_MAX, BEACONS_PER_SECOND_AND_PORT},
    link::Rights,
};
use strowger_frame::Address;
use strowger_testkit::sim::{
    Datagram, MS, Node, NodeSpec, Pair, SECOND, SimNet, host, identity, key,
};
use strowger_wire::{
    beacon::BEACON_BYTES,
    limits::{INITIATION_BYTES, MAC_BYTES},
};

/// The group address of beacons.
const GROUP: u8 = 255;
const INTERVAL: u64 = 10 * SECOND;

fn unknown_peers() -> Option<UnknownPeerPolicy> {
    Some(UnknownPeerPolicy::default().with_rights(Rights::ALL).with_links_max(4))
}

fn hears(node: &mut Node) {
    let to = Address::Udp(host(GROUP));
    node.switch.set_beacon(
        node.port,
        Some(BeaconSpec::new(to, std::time::Duration::from_nanos(INTERVAL))),
    );
}

fn kind(bytes: &[u8]) -> u8 {
    bytes[0] >> 4
}

fn at(number: u8) -> Option<Address> {
    Some(Address::Udp(host(number)))
}

/// Delivers the datagrams that were sent to the group to these addresses. Returns the datagrams.
fn deliver(net: &SimNet, to: &[SocketAddr]) -> Vec<Datagram> {
    let beacons = net.take_received(host(GROUP));
    for beacon in &beacons {
        for &to in to.iter().filter(|to| **to != beacon.from) {
            net.inject(beacon.from, to, &beacon.bytes);
        }
    }
    beacons
}

/// Advances the time, and delivers beacons to both nodes.
fn run_for(pair: &mut Pair, seconds: u64) {
    for _ in 0..10 * seconds {
        pair.advance(100 * MS);
        deliver(&pair.net, &[pair.a.at, pair.b.at]);
        pair.advance(1_000);
    }
}

/// A node that receives beacons. It has one configured peer, with seed 1, whose key it knows.
struct Listener {
    net: SimNet,
    node: Node,
    now: Now,
}

impl Listener {
    fn new(unknown_peers: Option<UnknownPeerPolicy>) -> Self {
        let (net, now) = (SimNet::default(), Now(1));
        let mut node = Node::new(&net, &NodeSpec { unknown_peers, ..NodeSpec::new(2) }, now);
        node.add_peer(1, false, now);
        hears(&mut node);
        let mut listener = Self { net, node, now };
        listener.advance(SECOND);
        listener.net.take_received(host(GROUP));
        listener
    }

    fn advance(&mut self, ns: u64) {
        self.now.0 += ns;
        for _ in 0..4 {
            self.node.poll(self.now);
        }
    }

    /// Delivers these bytes from this address. Returns the datagrams that the node then sends to
    /// the address.
    fn hear(&mut self, from: SocketAddr, bytes: &[u8]) -> Vec<Datagram> {
        self.net.inject(from, self.node.at, bytes);
        self.advance(1_000);
        self.net.take_received(from)
    }

    fn state(&mut self) -> (usize, usize, Vec<(usize, usize)>) {
        (self.node.switch.peers().len(), self.node.switch.slots().len(), self.node.free_chunks())
    }
}

/// Returns a beacon whose bytes from `at` on are replaced by `over`. The forger knows the network's
/// name, so the MAC is valid.
fn forged(mut bytes: [u8; BEACON_BYTES], over: &[u8], at: usize) -> [u8; BEACON_BYTES] {
    bytes[at..at + over.len()].copy_from_slice(over);
    let (covered, mac) = bytes.split_at_mut(BEACON_BYTES - MAC_BYTES);
    mac.copy_from_slice(&beacon::network_mac(identity(1).network(), covered));
    bytes
}

/// wire.md: W10-3, W10-10, W10-12, W10-15, W10-30.
#[test]
fn beacons_are_sent_only_on_enabled_ports_rarely_and_with_jitter() {
    let mut listener = Listener::new(None);
    let mut beacons = Vec::new();
    for _ in 0..4_000 {
        listener.advance(100 * MS);
        beacons.extend(
            listener.net.take_received(host(GROUP)).into_iter().map(|d| (listener.now.0, d)),
        );
    }
    assert!((35..=45).contains(&beacons.len()), "{} in 400 s", beacons.len());
    assert!(beacons.iter().all(|(_, d)| d.bytes == beacon::encode(&identity(2))));
    let gaps: Vec<u64> = beacons.windows(2).map(|pair| pair[1].0 - pair[0].0).collect();
    let early_to_late = INTERVAL * 3 / 4..=INTERVAL * 5 / 4 + SECOND;
    assert!(gaps.iter().all(|gap| early_to_late.contains(gap)), "{gaps:?}");
    assert!(gaps.iter().any(|gap| gap.abs_diff(gaps[0]) > SECOND), "in step: {gaps:?}");

    listener.node.switch.set_beacon(listener.node.port, None);
    for _ in 0..600 {
        listener.advance(100 * MS);
    }
    assert!(listener.net.take_received(host(GROUP)).is_empty());
    let kinds = listener.node.count(Discard::BadLinkKind);
    assert!(listener.hear(host(1), &beacon::encode(&identity(1))).is_empty());
    assert_eq!(listener.node.count(Discard::BadLinkKind), kinds + 1);

    // A port sends its first beacon within a second.
    hears(&mut listener.node);
    (0..11).for_each(|_| listener.advance(100 * MS));
    assert_eq!(listener.net.take_received(host(GROUP)).len(), 1);
    listener.node.assert_even();
}

/// wire.md: W10-12, W10-15.
#[test]
fn beacons_are_neither_sent_nor_read_by_default() {
    let mut pair = Pair::with(NodeSpec::new(1), NodeSpec::new(2), |_, spec| {
        spec.with_address(None::<Address>)
    });
    pair.run_for(60);
    assert!(pair.net.take_received(host(GROUP)).is_empty());
    pair.net.inject(host(2), host(1), &beacon::encode(&identity(2)));
    pair.run_for(1);
    assert_eq!(pair.a.count(Discard::BadLinkKind), 1);
    assert!(!pair.a.is_up() && pair.net.take_received(host(2)).is_empty());
    pair.assert_even();
}

/// wire.md: W10-28.
#[test]
fn peers_with_only_each_other_s_keys_find_each_other() {
    // Only node 1, only node 2, or both send beacons.
    for who in 1..4 {
        let mut pair = Pair::with(NodeSpec::new(1), NodeSpec::new(2), |_, spec| {
            spec.with_address(None::<Address>)
        });
        hears(&mut pair.a);
        hears(&mut pair.b);
        if who != 3 {
            // The beacons of both nodes are lost. The test injects a beacon of one node.
            pair.net.cut(host(GROUP), true);
        }
        let says = |pair: &Pair, number: u8| {
            let bytes = beacon::encode(&identity(number));
            let to = if number == 1 { host(2) } else { host(1) };
            pair.net.inject(host(number), to, &bytes);
        };
        run_for(&mut pair, 2);
        if who != 3 {
            assert!(!pair.a.is_up() && !pair.b.is_up());
            says(&pair, who);
            run_for(&mut pair, 3);
        }
        assert!(
            pair.carries_packets(),
            "case {who}: {:?} {:?}",
            pair.a.switch.peers(),
            pair.b.switch.peers()
        );
        assert_eq!((pair.a.peer_view(2).at, pair.b.peer_view(1).at), (at(2), at(1)));
        let is_told = |event: &Event| matches!(event, Event::PeerSuggested { slot: Some(_), .. });
        let [a, b] = [&pair.a, &pair.b].map(|node| node.events.iter().any(is_told));
        assert!(if who == 3 { a || b } else { (a, b) == (who == 2, who == 1) });
        // The link stays up while its keys are renewed.
        run_for(&mut pair, 400);
        assert!(pair.carries_packets() && pair.a.peer_view(2).handshakes >= 2);
        pair.assert_even();
    }
}

/// wire.md: W10-13, W10-19, W10-26.
#[test]
fn a_link_that_is_up_is_not_moved_by_a_beacon() {
    let mut pair = Pair::new();
    hears(&mut pair.a);
    pair.until_up();
    let before = pair.a.count(Discard::Handled);
    pair.net.inject(host(66), host(1), &beacon::encode(&identity(2)));
    pair.advance(1_000);
    run_for(&mut pair, 20);
    assert!(pair.net.take_received(host(66)).is_empty(), "no datagram is sent there");
    assert!(pair.a.count(Discard::Handled) > before);
    assert_eq!(pair.a.peer_view(2).at, at(2));
    assert!(pair.carries_packets());
    // The same holds for a link that is idle.
    run_for(&mut pair, 400);
    assert_eq!(pair.a.peer_view(2).state, LinkState::Idle);
    let before = pair.a.count(Discard::Handled);
    pair.net.inject(host(66), host(1), &beacon::encode(&identity(2)));
    run_for(&mut pair, 20);
    assert!(pair.net.take_received(host(66)).is_empty());
    assert!(pair.a.count(Discard::Handled) > before);
    assert_eq!((pair.a.peer_view(2).at, pair.a.peer_view(2).state), (at(2), LinkState::Idle));
    assert!(!pair.a.events.iter().any(|event| matches!(event, Event::PeerSuggested { .. })));
    pair.assert_even();
}

/// wire.md: W10-5, W10-13, W10-28.
#[test]
fn a_peer_whose_link_is_down_is_tried_at_its_beacon_s_source() {
    let liveness = Liveness::new(std::time::Duration::from_nanos(SECOND)).with_always(true);
    let mut pair =
        Pair::with(NodeSpec::new(1), NodeSpec::new(2), |_, spec| spec.with_liveness(liveness));
    hears(&mut pair.a);
    pair.until_up();
    // B restarts at another address and does not know A's address.
    pair.net.cut(host(2), true);
    pair.run_for(20);
    assert!(!pair.a.is_up());
    pair.net.cut(host(2), false);
    pair.net.move_socket(host(2), host(22));
    pair.b = Node::new(&pair.net, &NodeSpec { restarts_before: 1, ..NodeSpec::new(2) }, pair.now);
    let slot = pair.b.add_peer(1, false, pair.now);
    let (_, at_b) = pair.b.add_endpoint();
    pair.at_b = at_b;
    assert_eq!(slot, 0);

    // A copied beacon from another address causes one message to that address, and does not change
    // the peer's address.
    pair.net.inject(host(66), host(1), &beacon::encode(&identity(2)));
    pair.run_for(30);
    let there = pair.net.take_received(host(66));
    assert_eq!(there.len(), 1);
    assert!(kind(&there[0].bytes) == 1 && there[0].bytes.len() <= BEACON_BYTES);
    assert_eq!((pair.a.peer_view(2).at, pair.a.is_up()), (at(2), false));
    assert_eq!(pair.a.peer_view(2).suggested, at(66));

    pair.net.inject(host(22), host(1), &beacon::encode(&identity(2)));
    pair.run_for(20);
    assert_eq!((pair.a.peer_view(2).at, pair.a.peer_view(2).suggested), (at(22), None));
    assert!(pair.carries_packets(), "{:?}", pair.a.switch.peers());
    pair.assert_even();
}

/// wire.md: W10-29.
#[test]
fn a_peer_with_only_a_pinned_identity_is_found_by_its_beacon() {
    let mut pair = Pair::with(NodeSpec::new(1), NodeSpec::new(2), |own, spec| {
        spec.with_address(None::<Address>)
            .with_key(None::<strowger_crypto::StaticPublic>)
            .with_identity(*identity(3 - own).identity())
    });
    hears(&mut pair.a);
    // First the beacon of an unexpected peer arrives, then that of the expected peer.
    pair.net.inject(host(66), host(1), &beacon::encode(&identity(9)));
    pair.run_for(1);
    assert!(pair.net.take_received(host(66)).is_empty());
    pair.net.inject(host(2), host(1), &beacon::encode(&identity(2)));
    pair.run_for(5);
    assert!(pair.carries_packets(), "{:?} {:?}", pair.a.switch.peers(), pair.b.switch.peers());
    assert_eq!((pair.a.switch.peers()[0].at, pair.b.switch.peers()[0].at), (at(2), at(1)));
    pair.assert_even();
}

#[test]
fn r10_beacons_continue_after_a_recovery() {
    let mut listener = Listener::new(unknown_peers());
    // A handshake that a beacon has caused is in progress. The recovery must free its session
    // index.
    assert_eq!(listener.hear(host(9), &beacon::encode(&identity(9))).len(), 1);
    listener.node.switch.recover(listener.now);
    let mut beacons = 0;
    for _ in 0..400 {
        listener.advance(100 * MS);
        beacons += listener.net.take_received(host(GROUP)).len();
    }
    assert!((3..=6).contains(&beacons), "{beacons} beacons in 40 s");
    let there = listener.hear(host(1), &beacon::encode(&identity(1)));
    assert_eq!(there.iter().map(|d| kind(&d.bytes)).collect::<Vec<_>>(), [1]);
    listener.advance(20 * SECOND);
    listener.node.assert_even();
}

#[test]
fn a_beacon_received_by_another_worker_is_answered_by_it() {
    let birth = NodeSpec { workers: 2, ..NodeSpec::new(1) };
    let mut pair =
        Pair::with(birth, NodeSpec::new(2), |_, spec| spec.with_address(None::<Address>));
    hears(&mut pair.a);
    pair.advance(MS);
    pair.net.steer(host(1), host(2), 1);
    pair.net.inject(host(2), host(1), &beacon::encode(&identity(2)));
    pair.run_for(5);
    assert!(pair.carries_packets(), "{:?} {:?}", pair.a.switch.peers(), pair.b.switch.peers());
    assert_eq!((pair.a.peer_view(2).at, pair.b.peer_view(1).at), (at(2), at(1)));
    pair.assert_even();
}

/// wire.md: W10-24.
#[test]
fn r8_an_unsigned_beacon_is_never_followed() {
    for unknown_peers in [None, unknown_peers()] {
        let mut listener = Listener::new(unknown_peers);
        let before = listener.state();
        let (ours, other) = (beacon::encode(&identity(1)), beacon::encode(&identity(9)));
        // The key, the identity or the signature is another node's. The MAC of the network is valid
        // in each of these beacons.
        for (from, to) in [(12, 44), (44, 76), (76, 140)] {
            let bytes = forged(ours, &other[from..to], from);
            let seals = listener.node.count(Discard::BadSeal);
            let refused = listener.node.count(Discard::NotAllowed);
            assert!(listener.hear(host(66), &bytes).is_empty());
            let counted = listener.node.count(Discard::BadSeal) - seals
                + (listener.node.count(Discard::NotAllowed) - refused);
            assert_eq!(counted, 1, "byte {from}");
        }
        // In beacons with a flipped bit, the network's MAC is wrong. A beacon that is too short is
        // refused as well.
        for bit in 0..8 * BEACON_BYTES {
            let mut bytes = ours;
            bytes[bit / 8] ^= 1 << (bit % 8);
            if kind(&bytes) == 7 {
                assert!(listener.hear(host(66), &bytes).is_empty(), "bit {bit}");
            }
        }
        assert!(listener.hear(host(66), &ours[..BEACON_BYTES - 1]).is_empty());
        listener.advance(SECOND);
        assert_eq!(listener.state(), before);
        listener.node.assert_even();
    }
}

/// wire.md: W10-25.
#[test]
fn a_key_with_a_known_identity_is_not_accepted_from_another_identity() {
    let (net, now) = (SimNet::default(), Now(1));
    let mut node = Node::new(&net, &NodeSpec::new(2), now);
    let mut spec = node.peer_spec(1, false);
    spec = spec.with_identity(*identity(9).identity());
    node.switch.add_peer(spec, now).expect("a slot");
    hears(&mut node);
    let mut listener = Listener { net, node, now };
    listener.advance(SECOND);
    // The beacon is valid, but the operator has configured this key for another identity.
    assert!(listener.hear(host(1), &beacon::encode(&identity(1))).is_empty());
    assert_eq!(listener.node.count(Discard::NotAllowed), 1);
    listener.node.assert_even();
}

/// wire.md: W10-5, W10-13.
#[test]
fn r8_a_replayed_beacon_causes_one_shorter_initiation_and_no_state() {
    let mut listener = Listener::new(None);
    let before = listener.state();
    let bytes = beacon::encode(&identity(1));
    let mut answers = 0;
    for round in 0..200 {
        let from = host(60 + round % 40);
        for answer in listener.hear(from, &bytes) {
            assert!(kind(&answer.bytes) == 1 && answer.bytes.len() <= bytes.len());
            answers += 1;
        }
        listener.advance(SECOND);
        for number in 60..100 {
            answers += listener.net.take_received(host(number)).len();
        }
    }
    // The node sends at most one initiation per retry, and the intervals between retries grow.
    assert!((5..=30).contains(&answers), "{answers}");
    listener.advance(SECOND);
    assert_eq!((listener.node.peer_view(1).at, listener.node.is_up()), (None, false));
    assert_eq!(listener.state(), before);
    listener.node.assert_even();
}

/// wire.md: W10-22, W10-23.
#[test]
fn r12_a_flood_of_beacons_stays_within_its_budget_and_blocks_no_peer() {
    let mut listener = Listener::new(unknown_peers());
    let before = listener.state();
    listener.net.start_log();
    // The attacker has the beacons of 100 identities, and sends each from a separate address.
    let beacons: Vec<_> = (100..200).map(|seed| beacon::encode(&identity(seed))).collect();
    for round in 0..200 {
        for (number, bytes) in beacons.iter().enumerate() {
            listener.net.inject(host(number as u8 + 100), listener.node.at, bytes);
        }
        listener.advance(50 * MS);
        if round == 100 {
            // Handshakes from other nodes are accepted meanwhile.
            let handshakes = listener.node.count(Discard::Handled);
            let mut peer = Node::new(&listener.net, &NodeSpec::new(1), listener.now);
            peer.add_peer(2, true, listener.now);
            for _ in 0..40 {
                peer.poll(listener.now);
                listener.advance(MS);
            }
            assert!(peer.is_up() && listener.node.peer_view(1).is_up());
            assert!(listener.node.count(Discard::Handled) > handshakes);
        }
    }
    let began = listener.net.take_log();
    let calls = began.iter().filter(|d| d.from == host(2) && d.to.port() == 7_000);
    let calls: Vec<_> = calls.filter(|d| kind(&d.bytes) == 1).collect();
    // The flood lasts ten seconds, and the node keeps each handshake for five.
    assert!((1..=3 * BEACON_CALLS_MAX).contains(&calls.len()), "{}", calls.len());
    assert!(calls.iter().all(|d| d.bytes.len() == INITIATION_BYTES));
    let refused = listener.node.count(Discard::OverBudget) + listener.node.count(Discard::PuntFull);
    assert!(refused > 10_000, "{refused}");
    assert_eq!(listener.node.switch.peers().len(), before.0, "no slot without an answer");
    listener.advance(10 * SECOND);
    listener.advance(SECOND);
    assert_eq!(listener.node.free_chunks(), before.2);
    listener.node.assert_even();

    // Beacons with bad signatures arrive at a high rate. The node checks as many signatures as its
    // budget allows.
    let bytes = forged(beacon::encode(&identity(3)), &[0; 64], 76);
    let seals = listener.node.count(Discard::BadSeal);
    for _ in 0..1_000 {
        listener.net.inject(host(66), listener.node.at, &bytes);
        listener.advance(MS);
    }
    let looked = listener.node.count(Discard::BadSeal) - seals;
    let budget = u64::from(BEACONS_PER_SECOND_AND_PORT);
    assert!((budget..=2 * budget + 1).contains(&looked), "{looked}");
    listener.node.assert_even();
}

/// wire.md: W10-20, W10-29.
#[test]
fn unknown_peers_find_each_other_by_beacons_where_both_accept_them() {
    for (policies, who) in [
        ([unknown_peers(), unknown_peers()], 2),
        ([unknown_peers(), unknown_peers()], 3),
        ([None, unknown_peers()], 2),
        ([unknown_peers(), None], 2),
    ] {
        let births = [NodeSpec::new(1), NodeSpec::new(2)];
        let (net, mut now) = (SimNet::default(), Now(1));
        let mut nodes: Vec<Node> = births
            .iter()
            .zip(policies)
            .map(|(birth, unknown_peers)| {
                Node::new(&net, &NodeSpec { unknown_peers, ..*birth }, now)
            })
            .collect();
        for node in &mut nodes {
            hears(node);
        }
        let mut run_rounds = |nodes: &mut Vec<Node>, rounds: u32| {
            for _ in 0..rounds {
                now.0 += 50 * MS;
                for _ in 0..4 {
                    nodes.iter_mut().for_each(|node| node.poll(now));
                }
                let beacons = net.take_received(host(GROUP));
                for beacon in beacons.iter().filter(|d| who == 3 || d.from == host(who)) {
                    for node in nodes.iter().filter(|node| node.at != beacon.from) {
                        net.inject(beacon.from, node.at, &beacon.bytes);
                    }
                }
            }
        };
        run_rounds(&mut nodes, 400);
        let both = policies.iter().all(Option::is_some);
        for (node, other) in [(0, 2), (1, 1)] {
            let views = nodes[node].switch.peers();
            if !both {
                assert!(views.is_empty(), "{views:?}");
                continue;
            }
            let [view] = views.as_slice() else { panic!("{who}: {views:?}") };
            assert!(view.is_up() && view.is_unknown && view.key == Some(key(other)), "{view:?}");
            assert_eq!(view.at, at(other));
        }
        let refused: u64 = nodes
            .iter()
            .map(|node| node.count(Discard::NotAllowed) + node.count(Discard::UnknownPeer))
            .sum();
        assert_eq!(refused > 0, !both);
        if both {
            // The nodes renew their keys several times.
            run_rounds(&mut nodes, 20 * 400);
            assert!(nodes.iter().all(|node| node.is_up() && node.switch.peers().len() == 1));
            // One node stops. The other node removes the peer and frees its slot.
            let gone = nodes.pop().expect("two");
            gone.assert_even();
            drop(gone);
            run_rounds(&mut nodes, 20 * 500);
            assert!(nodes[0].switch.peers().is_empty(), "{:?}", nodes[0].switch.peers());
        }
        nodes.iter().for_each(Node::assert_even);
    }
}

/// wire.md: W10-29.
#[test]
fn an_unknown_peer_s_answer_is_accepted_only_from_the_called_address_and_identity() {
    let mut listener = Listener::new(unknown_peers());
    let before = listener.state();
    let called = listener.hear(host(9), &beacon::encode(&identity(9)));
    let [call] = called.as_slice() else { panic!("one call: {called:?}") };
    // Another node, which accepts unknown peers, receives the initiation.
    let birth = NodeSpec { unknown_peers: unknown_peers(), ..NodeSpec::new(8) };
    let mut other = Node::new(&listener.net, &birth, listener.now);
    listener.net.inject(host(9), other.at, &call.bytes);
    for _ in 0..4 {
        other.poll(listener.now);
    }
    let answers = listener.net.take_received(host(9));
    let [answer] = answers.as_slice() else { panic!("one reply: {answers:?}") };
    // The response of the other node arrives first from a wrong address, then from the right one.
    // It is refused first because of its address, and then because its identity is not that of the
    // beacon.
    assert!(listener.hear(host(66), &answer.bytes).is_empty());
    assert_eq!(listener.node.count(Discard::NoSession), 1);
    assert!(listener.hear(host(9), &answer.bytes).is_empty());
    assert_eq!(listener.node.count(Discard::NotAllowed), 1);
    assert_eq!(listener.state(), before);
    listener.node.assert_even();
}

/// wire.md: W10-2, W10-7, W10-8, W10-16, W10-17, W10-18, W10-20, W10-24, W13-11.
#[test]
fn the_first_check_that_fails_decides_how_a_beacon_is_counted() {
    let mut listener = Listener::new(None);
    let (peer, unknown) = (beacon::encode(&identity(1)), beacon::encode(&identity(9)));
    let with_other_mac = |mut bytes: [u8; BEACON_BYTES]| {
        bytes[BEACON_BYTES - 1] ^= 1;
        bytes
    };
    let other_version = forged(peer, &[2], 8);
    let longer = [&peer[..], &[0]].concat();
    let cases: [(&str, &[u8], Discard); 10] = [
        ("one byte less", &peer[..BEACON_BYTES - 1], Discard::Malformed),
        ("one byte more", &longer, Discard::Malformed),
        ("a lane", &forged(peer, &[0x71], 0), Discard::Malformed),
        ("a counter", &forged(peer, &[1], 7), Discard::Malformed),
        ("another version", &other_version, Discard::Malformed),
        ("another version and mac", &with_other_mac(other_version), Discard::Malformed),
        ("another mac, of an unknown node", &with_other_mac(unknown), Discard::BadSeal),
        ("its own", &beacon::encode(&identity(2)), Discard::Handled),
        ("an unknown node's, not signed", &forged(unknown, &[0; 64], 76), Discard::NotAllowed),
        ("the peer's, not signed", &forged(peer, &[0; 64], 76), Discard::BadSeal),
    ];
    for (case, bytes, wanted) in cases {
        let before = listener.node.switch.balance().discards;
        assert!(listener.hear(host(66), bytes).is_empty(), "{case}");
        let after = listener.node.switch.balance().discards;
        let counted: Vec<_> = (0..after.len()).filter(|&at| after[at] != before[at]).collect();
        assert_eq!(counted, [wanted as usize], "{case}");
    }
    // The three bytes behind the version and the field of zeros may have any value.
    let later = forged(forged(peer, &[7; 3], 9), &[7; 740], 140);
    let there = listener.hear(host(1), &later);
    assert_eq!(there.iter().map(|d| kind(&d.bytes)).collect::<Vec<_>>(), [1]);
    listener.node.assert_even();
}

/// wire.md: W10-21, W10-22.
#[test]
fn a_second_beacon_during_a_handshake_is_ignored_and_the_ninth_handshake_is_refused() {
    let mut listener = Listener::new(unknown_peers());
    for seed in 0..BEACON_CALLS_MAX as u8 {
        let bytes = beacon::encode(&identity(100 + seed));
        assert_eq!(listener.hear(host(100 + seed), &bytes).len(), 1);
        let handled = listener.node.count(Discard::Handled);
        assert!(listener.hear(host(100 + seed), &bytes).is_empty());
        assert!(listener.hear(host(66), &bytes).is_empty());
        assert_eq!(listener.node.count(Discard::Handled), handled + 2);
    }
    let refused = listener.node.count(Discard::OverBudget);
    assert!(listener.hear(host(99), &beacon::encode(&identity(99))).is_empty());
    assert_eq!(listener.node.count(Discard::OverBudget), refused + 1);
    listener.node.assert_even();

    // No unknown peer is allowed beyond the limit.
    let mut listener = Listener::new(unknown_peers().map(|policy| policy.with_links_max(0)));
    assert!(listener.hear(host(99), &beacon::encode(&identity(99))).is_empty());
    assert_eq!(listener.node.count(Discard::OverBudget), 1);
    listener.node.assert_even();
}

/// wire.md: W10-14.
#[test]
fn r8_a_cookie_for_a_beacon_s_handshake_is_not_answered() {
    let mut listener = Listener::new(unknown_peers());
    let bytes = beacon::encode(&identity(9));
    let called = listener.hear(host(9), &bytes);
    let [call] = called.as_slice() else { panic!("one initiation: {called:?}") };
    let mut entropy = SeededEntropy::new(7);
    let checker = CookieChecker::new(&identity(9), Nanos::ZERO, &mut entropy).expect("seeded");
    let Ok(Admission::CookieReply(cookie)) = checker.admit(&[], &call.bytes, Load::Heavy) else {
        panic!("no cookie under load");
    };
    assert!(listener.hear(host(9), &cookie).is_empty());
    assert_eq!(listener.node.count(Discard::NoSession), 1);
    // When the node has given up the handshake, the next beacon causes another one, without the
    // cookie.
    for _ in 0..6 {
        listener.advance(SECOND);
    }
    assert!(listener.net.take_received(host(9)).is_empty());
    let again = listener.hear(host(9), &bytes);
    let [again] = again.as_slice() else { panic!("one initiation: {again:?}") };
    assert_eq!((again.bytes.len(), &again.bytes[880..]), (INITIATION_BYTES, &[0; 16][..]));
    listener.node.assert_even();
}
