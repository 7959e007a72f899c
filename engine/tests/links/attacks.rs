//! Links under attack: packets that are replayed, reflected, truncated, corrupted or forged, and
//! floods. Hostile packets are neither delivered nor forwarded, leave no state, and are counted.
//! The tests run in virtual time.

use std::{
    collections::{HashMap, HashSet},
    net::SocketAddr,
};

use strowger_crypto::{
    Nanos, Psk, SEALED_OVERHEAD_BYTES, Sealed, SeededEntropy,
    aead::Provider,
    handshake::{LocalParams, Offer, Transport, ik, xx},
};
use strowger_engine::{
    Now,
    control::{
        Event,
        peering::{Liveness, PeerSpec, UnknownPeerPolicy},
    },
    discard::Discard,
    link::Rights,
};
use strowger_frame::{Address, Port};
use strowger_io::{
    Endpoint,
    fault::{Fault, FaultSpec, Faults},
    memory,
};
use strowger_testkit::{
    Rng,
    sim::{
        Datagram, MS, Node, NodeSpec, Pair, SECOND, SimNet, hop, host, identity, key, packet, path,
        receive, send,
    },
};
use strowger_wire::{Label, hello::Timestamp, link_header::SessionIndex};

/// The number of hostile packets. With the default, a test takes a few seconds.
fn attacks() -> u64 {
    std::env::var("STROWGER_ATTACKS").ok().and_then(|n| n.parse().ok()).unwrap_or(100_000)
}

fn kind(bytes: &[u8]) -> u8 {
    bytes[0] >> 4
}

/// Three switches in a row, with an endpoint at each end.
struct Row {
    net: SimNet,
    nodes: Vec<Node>,
    first: Endpoint,
    last: Endpoint,
    there: Label,
    now: Now,
}

impl Row {
    fn new() -> Self {
        let (net, now) = (SimNet::default(), Now(1));
        let mut nodes: Vec<Node> =
            (1..=3).map(|seed| Node::new(&net, &NodeSpec::new(seed), now)).collect();
        let b_at_a = nodes[0].add_peer(2, true, now);
        let (a_at_b, c_at_b) = (nodes[1].add_peer(1, true, now), nodes[1].add_peer(3, true, now));
        let b_at_c = nodes[2].add_peer(2, true, now);
        let ((slot_a, first), (slot_c, last)) = (nodes[0].add_endpoint(), nodes[2].add_endpoint());
        let there = path(&[hop(slot_a, b_at_a), hop(a_at_b, c_at_b), hop(b_at_c, slot_c)]);
        let mut row = Self { net, nodes, first, last, there, now };
        for _ in 0..50 {
            row.advance(100 * MS);
        }
        assert!(row.nodes.iter().all(Node::is_up));
        row
    }

    fn advance(&mut self, ns: u64) {
        self.now.0 += ns;
        for _ in 0..3 {
            for node in &mut self.nodes {
                node.poll(self.now);
            }
        }
    }
}

/// The number of resident pages of this process.
fn resident_pages() -> u64 {
    let text = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    text.split(' ').nth(1).and_then(|pages| pages.parse().ok()).unwrap_or(0)
}

/// Returns a hostile version of a recorded datagram.
fn bent(rng: &mut Rng, of: &Datagram, hosts: &[SocketAddr]) -> Datagram {
    let mut d = of.clone();
    match rng.below(8) {
        0 | 1 => (),                                     // replayed from its source
        2 => (d.from, d.to) = (d.to, d.from),            // reflected
        3 => d.bytes.truncate(rng.below(d.bytes.len())), // truncated
        4 => {
            let bit = rng.below(8 * d.bytes.len());
            d.bytes[bit / 8] ^= 1 << (bit % 8);
        }
        5 => d.from = host(66),                    // from another address
        6 => d.to = hosts[rng.below(hosts.len())], // to another node
        _ => {
            let more = 1 + rng.below(40);
            d.bytes.extend(rng.bytes(more));
        }
    }
    d
}

/// wire.md: W3-8.
#[test]
fn r6_a_replayed_packet_is_neither_delivered_nor_forwarded_twice() {
    let mut row = Row::new();
    let mut rng = Rng::new(0x06);
    let hosts: Vec<SocketAddr> = row.nodes.iter().map(|node| node.at).collect();
    let before: Vec<_> = row.nodes.iter_mut().map(Node::free_chunks).collect();
    let mut memory = 0;
    row.net.start_log();
    // The capture holds recent datagrams, and some old ones sealed with keys that have expired.
    let mut captured: Vec<Datagram> = Vec::new();
    let mut delivered = HashSet::new();
    let (mut sent, mut hostile, mut forwarded) = (0_u64, 0_u64, 0_u64);
    let wanted = attacks();
    while hostile < wanted {
        sent += 1;
        send(&mut row.first, row.there, &[&sent.to_be_bytes()[..], &[0x5a; 100]].concat());
        for _ in 0..32 {
            if captured.is_empty() {
                break;
            }
            // Most of the hostile packets are made from recent datagrams in random order, so that
            // the replay window must reject copies.
            let newest = captured.len() - 1 - rng.below(captured.len().min(200));
            let any = rng.below(captured.len());
            let at = if rng.below(4) > 0 { newest } else { any };
            let Datagram { from, to, bytes } = bent(&mut rng, &captured[at], &hosts);
            row.net.inject(from, to, &bytes);
            hostile += 1;
        }
        // The steps are so long that the whole run includes a few rekeys.
        row.advance((600 * SECOND).saturating_mul(32) / wanted.max(3_200));
        row.net.take_received(host(66));
        for d in row.net.take_log() {
            forwarded += u64::from(kind(&d.bytes) == 4 && d.to == hosts[2] && d.bytes.len() > 100);
            if captured.len() < 4_000 {
                captured.push(d);
            } else {
                let at = if rng.below(8) > 0 { 2_000 + rng.below(2_000) } else { rng.below(2_000) };
                captured[at] = d;
            }
        }
        while let Some(payload) = receive(&mut row.last) {
            let number = u64::from_be_bytes(payload[..8].try_into().expect("eight"));
            assert!(payload[8..] == [0x5a; 100] && number <= sent, "a forgery was delivered");
            assert!(delivered.insert(number), "packet {number} was delivered twice");
        }
        assert!(receive(&mut row.first).is_none(), "no packet was sent there");
        if hostile >= wanted / 4 && memory == 0 {
            memory = resident_pages();
        }
    }
    for _ in 0..10 {
        row.advance(100 * MS);
        while receive(&mut row.last).is_some() {}
    }
    assert_eq!(
        (delivered.len() as u64, forwarded),
        (sent, sent),
        "each packet once, despite the hostile ones"
    );
    let replayed: u64 = row.nodes.iter().map(|node| node.count(Discard::Replayed)).sum();
    let forged: u64 = row.nodes.iter().map(|node| node.count(Discard::BadSeal)).sum();
    assert!(replayed > hostile / 8 && forged > hostile / 500, "{replayed} {forged}");
    for (node, before) in row.nodes.iter_mut().zip(&before) {
        node.assert_even();
        assert_eq!(node.free_chunks(), *before, "memory at {}", node.at);
    }
    assert_eq!(row.nodes.iter().map(|node| node.switch.peers().len()).sum::<usize>(), 4);
    let delivered_bytes = delivered.capacity() as u64 * 16;
    let grown = resident_pages().saturating_sub(memory) * 4_096;
    // A long run must be alone in its process, so check its memory only then. In a short run, other
    // tests share the process.
    let is_alone = wanted >= 1_000_000;
    assert!(
        !is_alone || grown < delivered_bytes + (4 << 20),
        "{grown} bytes more than after a quarter of the run"
    );
}

/// wire.md: W3-8.
#[test]
fn r6_each_packet_arrives_at_most_once_over_a_wire_that_repeats_corrupts_and_reorders() {
    let faults = Faults {
        loss_per_million: 50_000,
        duplicate_per_million: 400_000,
        reorder_per_million: 300_000,
        corrupt_per_million: 300_000,
        delay_per_million: 50_000,
        delay_calls_max: 5,
    };
    let mut now = Now(1);
    let mut nodes: Vec<Node> =
        (1..=3).map(|seed| Node::without_port(&NodeSpec::new(seed), now)).collect();
    let before: Vec<_> = nodes.iter_mut().map(Node::free_chunks).collect();
    let mut join = |left: usize, seed: u64| {
        let (near, far) = memory::wire(512).expect("descriptors");
        let spec = FaultSpec { seed, rx: faults, tx: faults };
        let ports = [Fault::new(near, &spec), Fault::new(far, &FaultSpec { seed: !seed, ..spec })];
        let [near, far] = ports.map(|port| port.expect("memory"));
        let mut attach = |at: usize, of: usize, port: Box<dyn Port>| {
            let port = nodes[at].switch.plug_at(0, port).expect("a place");
            let mut spec = PeerSpec::new("peer", key(of as u8 + 1), port);
            spec = spec.with_address(Address::Only);
            nodes[at].switch.add_peer(spec, now).expect("a slot")
        };
        (attach(left, left + 1, Box::new(near)), attach(left + 1, left, Box::new(far)))
    };
    let ((b_at_a, a_at_b), (c_at_b, b_at_c)) = (join(0, 3), join(1, 4));
    let ((slot_a, mut first), (slot_c, mut last)) =
        (nodes[0].add_endpoint(), nodes[2].add_endpoint());
    let there = path(&[
        hop(slot_a, b_at_a.number()),
        hop(a_at_b.number(), c_at_b.number()),
        hop(b_at_c.number(), slot_c),
    ]);
    let mut delivered = HashSet::new();
    let mut sent = 0_u64;
    // Each packet crosses two links, and each link may duplicate it.
    let wanted = attacks() / 4;
    while sent < wanted {
        for _ in 0..16 {
            sent += 1;
            send(&mut first, there, &sent.to_be_bytes());
        }
        now.0 += (600 * SECOND).saturating_mul(16) / wanted.max(16_000);
        for _ in 0..2 {
            nodes.iter_mut().for_each(|node| node.poll(now));
        }
        while let Some(payload) = receive(&mut last) {
            let number = u64::from_be_bytes(payload[..8].try_into().expect("eight"));
            assert!(number <= sent, "a forgery was delivered");
            assert!(delivered.insert(number), "packet {number} was delivered twice");
        }
        assert!(receive(&mut first).is_none());
    }
    for _ in 0..200 {
        now.0 += MS;
        nodes.iter_mut().for_each(|node| node.poll(now));
        while receive(&mut last).is_some() {}
    }
    assert!(delivered.len() as u64 > sent / 10, "{} of {sent}", delivered.len());
    for hostile in [Discard::Replayed, Discard::BadSeal] {
        let met: u64 = nodes.iter().map(|node| node.count(hostile)).sum();
        assert!(met > sent / 4, "{met} {hostile} of {sent}");
    }
    for (node, before) in nodes.iter_mut().zip(&before) {
        node.assert_even();
        assert_eq!(node.free_chunks(), *before, "memory at {}", node.at);
    }
}

/// wire.md: W3-4, W3-35.
#[test]
fn r5_no_counter_of_a_lane_is_used_twice_across_workers_and_rekeyings() {
    let two = |seed| NodeSpec { workers: 2, ..NodeSpec::new(seed) };
    let mut pair = Pair::with(two(1), two(2), |_, spec| spec);
    // The second endpoint of A is on the other worker, so its packets use the other lane.
    let (slot, mut other) = {
        let spec = strowger_io::EndpointSpec::default();
        let (port, endpoint) = strowger_io::endpoint::pair(&spec).expect("memory");
        let port = pair.a.switch.plug_at(1, Box::new(port)).expect("room");
        let behind = strowger_engine::link::Behind::Endpoint;
        let attach = strowger_engine::control::Attach::plain(port, Address::Only, behind, "other");
        (pair.a.switch.attach(attach).expect("a slot"), endpoint)
    };
    let (b_at_a, a_at_b) = (pair.a.peer_view(2).slot, pair.b.peer_view(1).slot);
    let slot_b = pair.b.switch.slots().iter().find(|s| s.slot != a_at_b).expect("two").slot;
    let to_b = path(&[hop(slot.number(), b_at_a.number()), hop(a_at_b.number(), slot_b.number())]);
    pair.until_up();
    pair.net.start_log();
    pair.net.set_loss(100_000, 9);
    let mut seen = HashSet::new();
    let mut lanes: HashMap<(SocketAddr, u8), u32> = HashMap::new();
    for round in 0..6_000_u32 {
        send(&mut pair.at_a, pair.to_b, b"on one lane");
        send(&mut other, to_b, b"on another");
        send(&mut pair.at_b, pair.to_a, b"and back");
        if round % 50 == 0 {
            // Meanwhile, the kernel moves flows between workers.
            pair.net.steer(host(2), host(1), round as usize / 50 % 2);
            pair.net.steer(host(1), host(2), round as usize / 100 % 2);
        }
        pair.advance(100 * MS);
        for d in pair.net.take_log().into_iter().filter(|d| matches!(kind(&d.bytes), 4 | 5 | 8 | 9))
        {
            *lanes.entry((d.from, d.bytes[0] & 15)).or_default() += 1;
            // No two packets may be sealed with the same receiver, lane, session and counter.
            let header = [d.bytes[0] & 15, d.bytes[1], d.bytes[2], d.bytes[3]];
            let counter: [u8; 4] = d.bytes[4..8].try_into().expect("eight bytes");
            assert!(seen.insert((d.to, header, counter)), "R5: {:?} in round {round}", d);
        }
        while receive(&mut pair.at_a).is_some() || receive(&mut pair.at_b).is_some() {}
    }
    assert!(lanes[&(host(1), 0)] > 4_000 && lanes[&(host(1), 1)] > 4_000, "{lanes:?}");
    assert!(pair.a.peer_view(2).handshakes >= 4);
    pair.assert_even();
}

/// A node whose only configured peer is absent. An unknown peer has the address host 66.
struct Alone {
    net: SimNet,
    node: Node,
    now: Now,
}

impl Alone {
    fn new(unknown_peers: Option<UnknownPeerPolicy>) -> Self {
        let (net, now) = (SimNet::default(), Now(1));
        let mut node = Node::new(&net, &NodeSpec { unknown_peers, ..NodeSpec::new(2) }, now);
        node.add_peer(1, false, now);
        let mut alone = Self { net, node, now };
        alone.advance(MS);
        alone.advance(MS);
        alone
    }

    fn advance(&mut self, ns: u64) {
        self.now.0 += ns;
        for _ in 0..4 {
            self.node.poll(self.now);
        }
    }

    /// Sends these bytes from this address and returns the replies to it.
    fn ask(&mut self, from: SocketAddr, bytes: &[u8]) -> Vec<Vec<u8>> {
        self.net.inject(from, self.node.at, bytes);
        self.advance(1_000);
        self.net.take_received(from).into_iter().map(|d| d.bytes).collect()
    }

    /// The sizes of all state that hostile packets could make grow.
    fn state(&mut self) -> (usize, usize, Vec<(usize, usize)>) {
        (self.node.switch.peers().len(), self.node.switch.slots().len(), self.node.free_chunks())
    }

    /// Runs the initiator of an XX handshake at address `from`. Returns the session, if one
    /// results.
    fn discover(&mut self, from: SocketAddr, seed: u8) -> Option<Transport> {
        let (local, offer) = (identity(seed), Offer::default());
        let mut entropy = SeededEntropy::new(u64::from(seed) ^ self.now.0);
        let index = SessionIndex::new(1_000 + u32::from(seed)).expect("small");
        for _ in 0..4 {
            let timestamp = Timestamp(self.now.0);
            let ours = LocalParams { local: &local, offer: &offer, index, timestamp };
            let (waiting, first) = xx::initiate(&ours, None, &mut entropy).expect("well-formed");
            let answers = self.ask(from, &first);
            let answer = answers.first()?;
            assert!(answers.len() == 1 && answer.len() <= first.len(), "R8");
            let discovered = waiting.read_response(&local, answer).expect("readable");
            let (established, msg3) = discovered.finish(&ours, None).expect("agreed");
            let known = self.node.switch.peers().len();
            assert!(self.ask(from, &msg3).len() <= 1);
            let knows =
                |node: &Node| node.switch.peers().iter().any(|peer| peer.key == Some(key(seed)));
            if knows(&self.node) {
                return Some(established.into_transport(Nanos(self.now.0), Provider::DEFAULT));
            }
            assert_eq!(self.node.switch.peers().len(), known);
        }
        None
    }
}

/// Returns an initiation to the node with seed `to`, with the static key of the node with seed
/// `from`.
fn initiation(from: u8, to: u8, at: u64) -> Vec<u8> {
    let (local, offer) = (identity(from), Offer::default());
    let index = SessionIndex::new(77).expect("small");
    let ours = LocalParams { local: &local, offer: &offer, index, timestamp: Timestamp(at) };
    let mut entropy = SeededEntropy::new(at);
    ik::initiate(&ours, &key(to), &Psk::NONE, None, &mut entropy).expect("well-formed").1
}

#[test]
fn r8_unauthenticated_bytes_create_no_state_and_get_at_most_one_reply_no_larger() {
    for unknown_peers in [None, Some(UnknownPeerPolicy::default().with_links_max(4))] {
        let mut alone = Alone::new(unknown_peers);
        let mut rng = Rng::new(0x08);
        let before = alone.state();
        let stranger = initiation(9, 2, 5);
        for round in 0..4_000 {
            let mut bytes = match round % 4 {
                // Random bytes, some with the lengths of handshake messages.
                0 => rng.bytes(896),
                1 => {
                    let len = rng.below(1_500);
                    rng.bytes(len)
                }
                // A valid initiation of an unknown peer, with one bit flipped.
                2 => {
                    let mut bytes = stranger.clone();
                    let bit = rng.below(8 * bytes.len());
                    bytes[bit / 8] ^= 1 << (bit % 8);
                    bytes
                }
                _ => stranger.clone(),
            };
            if let (Some(first), 0 | 1) = (bytes.first_mut(), round % 4) {
                *first = ((round / 4 % 9 + 1) as u8) << 4 | (round / 36 % 4) as u8;
            }
            let answers = alone.ask(host(66), &bytes);
            assert!(answers.len() <= 1, "{} answers", answers.len());
            for answer in answers {
                assert!(answer.len() <= bytes.len(), "{} for {}", answer.len(), bytes.len());
                assert!(unknown_peers.is_some() || kind(&answer) == 3, "unknown_peers are off");
            }
            alone.now.0 += 20 * MS;
        }
        assert_eq!(alone.state(), before);
        alone.node.assert_even();
    }
}

#[test]
fn r8_junk_addressed_to_a_handshake_is_no_occasion_for_an_initiation() {
    let mut pair = Pair::new();
    pair.net.start_log();
    pair.net.set_loss(1_000_000, 0); // nothing arrives, so A keeps trying
    let (mut awaited, mut tries): (Option<[u8; 4]>, u32) = (None, 0);
    for _ in 0..600 {
        pair.advance(50 * MS);
        // Junk is sent to the session index of A's latest initiation, also just before A retries.
        for d in pair.net.take_log().iter().filter(|d| d.from == host(1) && kind(&d.bytes) == 1) {
            assert_ne!(d.to, host(66), "an answer was sent");
            awaited = Some(d.bytes[4..8].try_into().expect("an initiation"));
            tries += 1;
        }
        if let Some(index) = awaited {
            for (first, rest) in [(0x20, 392), (0x30, 56)] {
                let junk =
                    [&[first, index[1], index[2], index[3]], &vec![0; 4 + rest][..]].concat();
                pair.net.inject(host(66), host(1), &junk);
            }
        }
        pair.now.0 += 400 * MS;
        pair.a.poll(pair.now);
        pair.a.poll(pair.now);
    }
    assert!(tries > 10, "{tries}");
    let unproved =
        [Discard::HandshakeMac, Discard::HandshakeUnreadable].map(|reason| pair.a.count(reason));
    assert!(unproved.iter().sum::<u64>() > 500, "{unproved:?}");
}

/// wire.md: W4-72.
#[test]
fn r8_cookies_under_load_admit_senders_that_receive_at_their_address() {
    let mut alone = Alone::new(None);
    let flood = initiation(9, 2, 5);
    let before = alone.state();
    let (mut initiations, mut replies) = (0, 0);
    let mut spoofed = 0_u8;
    let run = |alone: &mut Alone, ns: u64, initiations: &mut u64, replies: &mut u64, n: &mut u8| {
        for _ in 0..100 {
            // The flood has source addresses that return no cookie.
            *n = n.wrapping_add(1);
            alone.net.inject(host(100 + *n % 100), host(2), &flood);
            *initiations += 1;
        }
        alone.advance(ns);
        for n in 100..200 {
            for d in alone.net.take_received(host(n)) {
                assert!(kind(&d.bytes) == 3 && d.bytes.len() == 64, "a reply other than a cookie");
                *replies += 1;
            }
        }
    };
    for _ in 0..100 {
        run(&mut alone, 10 * MS, &mut initiations, &mut replies, &mut spoofed);
    }
    assert!(
        replies > initiations / 20 && replies <= initiations,
        "{replies} replies to {initiations} initiations"
    );
    assert_eq!(alone.state(), before, "a flood leaves state behind");
    // The peer starts from an unknown address in the middle of the flood.
    let mut peer = Node::new(&alone.net, &NodeSpec::new(1), alone.now);
    peer.add_peer(2, true, alone.now);
    let began = alone.now.0;
    while !(peer.is_up() && alone.node.peer_view(1).is_up()) {
        run(&mut alone, 10 * MS, &mut initiations, &mut replies, &mut spoofed);
        peer.poll(alone.now);
        run(&mut alone, 1, &mut initiations, &mut replies, &mut spoofed);
        peer.poll(alone.now);
        assert!(alone.now.0 - began < 20 * SECOND, "the flood kept the peer out");
    }
    alone.node.assert_even();
}

#[test]
fn r12_handshakes_with_wrong_macs_use_no_budget() {
    let mut alone = Alone::new(None);
    let mut noise = initiation(9, 2, 5);
    *noise.last_chunk_mut().expect("long") = [7; 32]; // both macs
    let throw = |alone: &Alone| {
        for n in 0..20 {
            alone.net.inject(host(100 + n), host(2), &noise);
        }
    };
    for _ in 0..1_000 {
        throw(&alone);
        alone.advance(MS);
    }
    let mut peer = Node::new(&alone.net, &NodeSpec::new(1), alone.now);
    peer.add_peer(2, true, alone.now);
    for round in 0..300 {
        throw(&alone);
        alone.advance(MS);
        peer.poll(alone.now);
        alone.advance(1);
        peer.poll(alone.now);
        if peer.is_up() && alone.node.is_up() {
            assert!(round < 10, "in {round} rounds");
            return;
        }
    }
    panic!("the noise kept the peer out");
}

#[test]
fn r12_a_flood_of_unknown_peers_does_not_delay_a_known_peer_s_new_keys() {
    let mut pair = Pair::new();
    pair.until_up();
    pair.run_for(100);
    let before = pair.a.peer_view(2).handshakes;
    let mut noise = initiation(9, 2, 5);
    *noise.last_chunk_mut().expect("long") = [7; 32];
    for _ in 0..250 {
        send(&mut pair.at_a, pair.to_b, b"as ever");
        pair.now.0 += 100 * MS;
        for _ in 0..4 {
            // The junk arrives before A's messages, and exceeds the queue.
            for n in 0..200 {
                pair.net.inject(host(100 + n % 100), host(2), &noise);
            }
            pair.a.poll(pair.now);
            pair.b.poll(pair.now);
        }
        while receive(&mut pair.at_b).is_some() {}
    }
    assert!(pair.a.peer_view(2).handshakes > before, "no new keys");
    assert!(pair.b.count(Discard::PuntFull) > 0, "the flood was larger than its queue");
    assert!(pair.carries_packets());
    pair.assert_even();
}

#[test]
fn r12_a_known_peer_s_flood_of_handshakes_does_not_keep_another_from_its_new_keys() {
    let mut pair = Pair::new();
    pair.b.add_peer(3, true, pair.now);
    while !(pair.a.is_up() && pair.b.peer_view(1).is_up()) {
        pair.advance(100 * MS);
    }
    pair.run_for(100);
    let before = pair.a.peer_view(2).handshakes;
    // A valid initiation from another peer.
    let mut flood = initiation(3, 2, 5);
    pair.net.start_log();
    for turn in 0..250 {
        send(&mut pair.at_a, pair.to_b, b"as ever");
        pair.now.0 += 100 * MS;
        for quarter in 0..4 {
            if turn % 10 == 0 {
                flood = initiation(3, 2, 6 + 4 * turn + quarter);
            }
            for _ in 0..200 {
                pair.net.inject(host(3), host(2), &flood);
            }
            pair.a.poll(pair.now);
            pair.b.poll(pair.now);
        }
        while receive(&mut pair.at_b).is_some() {}
    }
    assert!(pair.a.peer_view(2).handshakes > before, "no new keys");
    let log = pair.net.take_log();
    let cookies = |to| log.iter().filter(|d| d.to == host(to) && kind(&d.bytes) == 3).count();
    assert_eq!(cookies(1), 0, "a source below its rate gets no cookie");
    assert!(cookies(3) > 0, "a flooding source gets cookies");
    assert!(pair.b.count(Discard::OverBudget) > 0);
    pair.assert_even();
}

/// wire.md: W4-6, W4-9, W4-116.
#[test]
fn unknown_peers_get_nothing_without_a_policy() {
    let mut alone = Alone::new(None);
    let before = alone.state();
    assert!(alone.discover(host(66), 9).is_none());
    assert!(alone.ask(host(66), &initiation(9, 2, 5)).is_empty());
    assert_eq!(alone.state(), before);
    assert!(alone.node.count(Discard::UnknownPeer) >= 2);
}

/// A control request to a switch (wire.md 5).
const PING: [u8; 8] = [1, 1, 0, 0, 0, 0, 0, 9];

/// Returns a sealed frame of an unknown peer.
fn sealed(keys: &mut Transport, what: Sealed, body: &[u8], now: Now) -> Vec<u8> {
    let mut bytes = vec![0; body.len() + SEALED_OVERHEAD_BYTES];
    bytes[8..8 + body.len()].copy_from_slice(body);
    keys.sealers[0].seal(Nanos(now.0), what, &mut bytes).expect("fresh keys");
    bytes
}

#[test]
fn an_unknown_peer_has_a_slot_and_reaches_nothing_through_it() {
    let policy = UnknownPeerPolicy::default().with_links_max(4);
    let mut alone = Alone::new(Some(policy));
    let (slot, mut endpoint) = alone.node.add_endpoint();
    alone.advance(MS);
    alone.advance(MS);
    let mut keys = alone.discover(host(66), 9).expect("a session");
    let view = alone.node.peer_view(9);
    assert!(view.is_unknown && view.rights == Rights::NONE);
    alone.advance(MS);
    let other = alone.node.peer_view(1).slot;
    for (n, to) in [slot, other.number(), 1].into_iter().enumerate() {
        let label = match to {
            1 => Label::here(),
            to => path(&[hop(view.slot.number(), to)]),
        };
        let mut bytes = packet(label, &PING);
        bytes[8 + 1] |= 0x40; // a control message
        bytes[8 + 4..8 + 6].fill(0); // the packet starts at the sender: no bits are used yet
        bytes[16..24].copy_from_slice(&label.register().to_be_bytes());
        let frame = sealed(&mut keys, Sealed::Data, &bytes[8..], alone.now);
        alone.net.inject(host(66), host(2), &frame);
        alone.advance(MS);
        alone.advance(MS);
        assert_eq!(alone.node.count(Discard::NotAllowed), n as u64 + 1, "to {to}");
        assert!(receive(&mut endpoint).is_none());
    }
    alone.node.assert_even();
}

/// wire.md: W4-70.
#[test]
fn unknown_peers_are_bounded_and_release_their_slots() {
    let policy = UnknownPeerPolicy::default().with_links_max(3);
    let mut alone = Alone::new(Some(policy));
    let got = (10..30).filter(|&n| alone.discover(host(n), n).is_some()).count();
    assert_eq!((got, alone.node.switch.peers().len()), (3, 1 + 3));
    // The peers fall silent. Their links go down and are removed, and other peers may connect.
    for _ in 0..3_000 {
        alone.advance(100 * MS);
    }
    assert_eq!((alone.node.switch.peers().len(), alone.node.switch.slots().len()), (1, 1));
    assert!(alone.discover(host(40), 40).is_some());
    alone.node.assert_even();
}

#[test]
fn a_silent_unknown_peer_releases_its_slot_within_seconds() {
    let liveness = Liveness::new(std::time::Duration::from_nanos(200 * MS));
    let policy = UnknownPeerPolicy::default().with_links_max(1).with_liveness(liveness);
    let mut alone = Alone::new(Some(policy));
    for n in 10..14 {
        assert!(alone.discover(host(n), n).is_some());
        assert!(alone.discover(host(n + 50), n + 50).is_none(), "only one link at a time");
        let waited = (0..100).find(|_| {
            alone.advance(100 * MS);
            alone.node.switch.peers().len() == 1
        });
        assert!(
            (45..60).contains(&waited.expect("it went")),
            "waited {waited:?} tenths of a second"
        );
    }
    alone.node.assert_even();
}

/// wire.md: W4-27, W4-67, W4-69, W4-96.
#[test]
fn a_replayed_third_message_of_an_unknown_peer_makes_no_second_session() {
    let policy = UnknownPeerPolicy::default().with_links_max(4);
    let mut alone = Alone::new(Some(policy));
    let (local, offer) = (identity(9), Offer::default());
    let index = SessionIndex::new(1_009).expect("small");
    let mut entropy = SeededEntropy::new(9);
    let ours = LocalParams { local: &local, offer: &offer, index, timestamp: Timestamp(5) };
    let (waiting, first) = xx::initiate(&ours, None, &mut entropy).expect("well-formed");
    let answer = alone.ask(host(66), &first).remove(0);
    let again = alone.ask(host(66), &first).remove(0);
    assert_eq!(again, answer, "the same request gets the same reply");
    let msg3 = waiting.read_response(&local, &answer).expect("readable").finish(&ours, None);
    let msg3 = msg3.expect("agreed").1;
    assert!(alone.ask(host(66), &msg3).is_empty(), "the last message gets no reply");
    let view = alone.node.peer_view(9);
    for _ in 0..10 {
        alone.ask(host(66), &msg3);
        alone.ask(host(67), &msg3);
        assert_eq!(alone.node.peer_view(9).slot, view.slot);
        assert_eq!(alone.node.switch.peers().len(), 2);
    }
}

/// wire.md: W4-111.
#[test]
fn the_secret_of_a_completed_handshake_is_erased_although_no_message_arrives() {
    let policy = UnknownPeerPolicy::default().with_links_max(4);
    let (net, now) = (SimNet::default(), Now(1));
    let spec = NodeSpec { unknown_peers: Some(policy), ..NodeSpec::new(2) };
    let node = Node::new(&net, &spec, now);
    let mut alone = Alone { net, node, now };
    alone.advance(0);
    assert_eq!(alone.node.switch.next_timeout(), None, "without a handshake there is no timer");
    assert!(alone.discover(host(66), 9).is_some());
    let mut dues = Vec::new();
    for _ in 0..1_000 {
        let Some(due) = alone.node.switch.next_timeout() else { break };
        dues.push(due.0 / SECOND);
        alone.now = alone.now.max(due);
        alone.advance(1);
    }
    // Two lives of a secret.
    let renewals = [120, 240].map(|due| dues.iter().filter(|at| **at == due).count());
    assert_eq!(renewals, [1, 1], "{dues:?}");
}

/// wire.md: W4-70.
#[test]
fn a_peer_s_key_without_its_psk_is_refused_by_xx() {
    let policy = UnknownPeerPolicy::default().with_links_max(4);
    let mut alone = Alone::new(Some(policy));
    let mut spec = alone.node.peer_spec(5, false);
    spec = spec.with_psk(Psk::from_bytes([5; 32]));
    alone.node.switch.add_peer(spec, alone.now).expect("a slot");
    alone.discover(host(66), 5); // a response shows only whether the peer is known
    for _ in 0..20 {
        alone.advance(100 * MS);
    }
    assert_eq!(alone.node.peer_view(5).handshakes, 0);
    assert!(alone.node.count(Discard::NotAllowed) > 0);
}

/// wire.md: W4-60.
#[test]
fn a_pinned_identity_is_the_only_one() {
    for (pinned, comes_up) in [(2, true), (7, false)] {
        let mut pair = Pair::with(NodeSpec::new(1), NodeSpec::new(2), |own, spec| {
            if own == 1 { spec.with_identity(*identity(pinned).identity()) } else { spec }
        });
        pair.run_for(30);
        assert_eq!(pair.a.is_up() && pair.b.is_up(), comes_up);
        let who = identity(2).identity().peer_id();
        let refusal = Event::PeerRefused(pair.a.peer_view(2).slot, who);
        let reports = pair.a.events.iter().filter(|event| **event == refusal).count();
        assert_eq!(reports, usize::from(!comes_up), "the refusal is reported once");
        assert_eq!(pair.a.count(Discard::HandshakeIdentity) > 1, !comes_up);
    }
}

/// wire.md: W3-47.
#[test]
fn r12_a_peer_that_shouts_drowns_out_no_other() {
    let policy = UnknownPeerPolicy::default().with_links_max(4);
    let liveness = Liveness::new(std::time::Duration::from_nanos(200 * MS)).with_always(true);
    let birth = NodeSpec { unknown_peers: Some(policy), ..NodeSpec::new(2) };
    let mut pair = Pair::with(NodeSpec::new(1), birth, |_, spec| spec.with_liveness(liveness));
    pair.until_up();
    // An unknown peer with a session floods B with challenges and keepalives, which B must read.
    let Pair { net, b, now, a, at_a, at_b, to_b, to_a } = pair;
    let mut alone = Alone { net: net.clone(), node: b, now };
    let mut keys = alone.discover(host(66), 9).expect("a session");
    let mut pair = Pair { net, b: alone.node, now: alone.now, a, at_a, at_b, to_b, to_a };
    pair.b.events.clear();
    pair.a.events.clear();
    for round in 0..600 {
        for n in 0..400 {
            let (what, body) = if n % 2 == 0 {
                (Sealed::PathChallenge, &[7_u8; 8][..])
            } else {
                (Sealed::Data, &[][..])
            };
            let frame = sealed(&mut keys, what, body, pair.now);
            pair.net.inject(host(66), host(2), &frame);
        }
        pair.advance(10 * MS);
        let answers = pair.net.take_received(host(66)).len();
        assert!(answers <= 100, "{answers} replies in round {round}");
    }
    let is_down = |event: &Event| matches!(event, Event::LinkDown(_));
    assert!(!pair.a.events.iter().any(is_down), "{:?}", pair.a.events);
    assert!(!pair.b.events.iter().any(is_down), "{:?}", pair.b.events);
    assert!(pair.b.count(Discard::OverBudget) > 0);
    assert!(pair.carries_packets());
    pair.assert_even();
}

#[test]
fn r12_r23_a_flood_for_the_switch_itself_takes_down_no_link() {
    let rights = Rights { control: true, ..Rights::NONE };
    let policy = UnknownPeerPolicy::default().with_links_max(4).with_rights(rights);
    let liveness = Liveness::new(std::time::Duration::from_nanos(200 * MS)).with_always(true);
    let birth = NodeSpec { unknown_peers: Some(policy), ..NodeSpec::new(2) };
    let mut pair = Pair::with(NodeSpec::new(1), birth, |_, spec| spec.with_liveness(liveness));
    pair.until_up();
    let Pair { net, b, now, a, at_a, at_b, to_b, to_a } = pair;
    let mut alone = Alone { net: net.clone(), node: b, now };
    let mut keys = alone.discover(host(66), 9).expect("a session");
    let mut pair = Pair { net, b: alone.node, now: alone.now, a, at_a, at_b, to_b, to_a };
    let mut ping = packet(Label::here(), &PING);
    ping[8 + 1] |= 0x40; // a control message
    pair.b.events.clear();
    pair.a.events.clear();
    let slot = pair.b.peer_view(1).slot;
    let discards = |pair: &Pair| {
        pair.b.switch.slots().iter().find(|view| view.slot == slot).expect("its slot").discards
    };
    let before = discards(&pair);
    for round in 0..300 {
        for _ in 0..600 {
            let frame = sealed(&mut keys, Sealed::Data, &ping[8..], pair.now);
            pair.net.inject(host(66), host(2), &frame);
        }
        // The worker reads all these frames before the slow path is polled.
        for _ in 0..4 {
            pair.b.workers[0].poll(pair.now);
        }
        if round % 10 == 0 {
            // The peer moves, so it receives a challenge and responds.
            let outer = host(1 + 10 * (round / 10 % 2) as u8);
            pair.net.move_socket(host(1), outer);
        }
        pair.a.poll(pair.now);
        pair.b.workers[0].poll(pair.now);
        pair.advance(20 * MS);
        pair.net.take_received(host(66));
    }
    let is_down = |event: &Event| matches!(event, Event::LinkDown(_));
    assert!(!pair.a.events.iter().any(is_down), "{:?}", pair.a.events);
    assert!(!pair.b.events.iter().any(is_down), "{:?}", pair.b.events);
    assert_eq!(discards(&pair), before, "a packet of the well-behaved peer was refused");
    assert!(pair.b.count(Discard::OverBudget) + pair.b.count(Discard::PuntFull) > 100_000);
    // The peer has just moved. A challenge that was lost in the move is discarded after 5 s.
    (0..300).for_each(|_| pair.advance(20 * MS));
    assert!(pair.carries_packets());
    pair.assert_even();
}

/// wire.md: W1.2-12.
#[test]
fn each_right_opens_one_way_and_no_other() {
    let rights = [
        ("transit", Rights { transit: true, ..Rights::NONE }),
        ("endpoints", Rights { endpoints: true, ..Rights::NONE }),
        ("control", Rights { control: true, ..Rights::NONE }),
        ("none", Rights::NONE),
    ];
    for (name, rights) in rights {
        let (net, now) = (SimNet::default(), Now(1));
        let mut nodes: Vec<Node> =
            (1..=3).map(|seed| Node::new(&net, &NodeSpec::new(seed), now)).collect();
        let b_at_a = nodes[0].add_peer(2, true, now);
        let mut spec = nodes[1].peer_spec(1, true);
        spec = spec.with_rights(rights);
        let a_at_b = nodes[1].switch.add_peer(spec, now).expect("a slot");
        let c_at_b = nodes[1].add_peer(3, true, now);
        let b_at_c = nodes[2].add_peer(2, true, now);
        let (slot_a, first) = nodes[0].add_endpoint();
        let (slot_b, mut at_b) = nodes[1].add_endpoint();
        let (slot_c, last) = nodes[2].add_endpoint();
        let there = path(&[hop(slot_a, b_at_a), hop(a_at_b.number(), c_at_b), hop(b_at_c, slot_c)]);
        let mut row = Row { net, nodes, first, last, there, now };
        for _ in 0..30 {
            row.advance(100 * MS);
        }
        let refused = |row: &Row| row.nodes[1].count(Discard::NotAllowed);

        send(&mut row.first, row.there, b"through");
        row.advance(MS);
        assert_eq!(receive(&mut row.last).is_some(), rights.transit, "{name}: transit");
        assert_eq!(refused(&row), u64::from(!rights.transit), "{name}: transit");

        let before = refused(&row);
        send(
            &mut row.first,
            path(&[hop(slot_a, b_at_a), hop(a_at_b.number(), slot_b)]),
            b"to the endpoint",
        );
        row.advance(MS);
        assert_eq!(receive(&mut at_b).is_some(), rights.endpoints, "{name}: endpoints");
        assert_eq!(refused(&row) - before, u64::from(!rights.endpoints), "{name}: endpoints");

        // A request to the switch itself gets a reply only if the sender has the right `control`.
        let to_switch = path(&[hop(slot_a, b_at_a), hop(a_at_b.number(), 1)]);
        let mut request = packet(to_switch, &PING);
        request[8 + 1] |= 0x40;
        let mut frame = row.first.frame(request.len()).expect("memory");
        frame.bytes_mut().copy_from_slice(&request);
        let before = refused(&row);
        row.first.send(frame).expect("room");
        row.advance(MS);
        row.advance(MS);
        assert_eq!(refused(&row) - before, u64::from(!rights.control), "{name}: control");
        row.nodes.iter().for_each(Node::assert_even);
    }
}
