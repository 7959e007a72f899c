//! State that remains after a peer has left: its address, a goodbye, a copy of a handshake,
//! timestamps of a clock that was set back. The tests run in virtual time.

use strowger_engine::{
    Now,
    control::{
        Event,
        peering::{LinkState, Liveness, PeerSpec, UnknownPeerPolicy},
    },
    link::Rights,
};
use strowger_frame::Address;
use strowger_testkit::{
    Rng,
    sim::{MS, Node, NodeSpec, Pair, SECOND, SimNet, hop, host, key, path, receive, send},
};

const FAST: Liveness = Liveness::new(std::time::Duration::from_nanos(100 * MS)).with_always(true);

fn poll(nodes: &mut [&mut Node], now: &mut Now, ns: u64) {
    now.0 += ns;
    for _ in 0..4 {
        nodes.iter_mut().for_each(|node| node.poll(*now));
    }
}

/// wire.md: W3-55.
#[test]
fn an_address_that_a_peer_has_left_goes_to_the_next_peer_that_proves_it() {
    for recovered in [false, true] {
        let (net, mut now) = (SimNet::default(), Now(1));
        let [mut hub, mut old, mut new] =
            [1, 2, 3].map(|seed| Node::new(&net, &NodeSpec::new(seed), now));
        hub.add_peer(2, true, now);
        let new_at_hub = hub.add_peer(3, true, now);
        old.add_peer(1, true, now);
        let hub_at_new = new.add_peer(1, true, now);
        let ((slot_hub, mut at_hub), (slot_new, mut at_new)) =
            (hub.add_endpoint(), new.add_endpoint());
        let to_new = path(&[hop(slot_hub, new_at_hub), hop(hub_at_new, slot_new)]);
        let to_hub = path(&[hop(slot_new, hub_at_new), hop(new_at_hub, slot_hub)]);
        for _ in 0..50 {
            poll(&mut [&mut hub, &mut old, &mut new], &mut now, 100 * MS);
        }
        assert!(hub.is_up());

        // The first peer has vanished or is idle, and has sent no goodbye. The NAT assigns its
        // address to the second peer.
        net.move_socket(host(3), host(2));
        for _ in 0..20 {
            send(&mut at_new, to_hub, b"from here");
            poll(&mut [&mut hub, &mut new], &mut now, 100 * MS);
        }
        assert_eq!(hub.peer_view(3).at, Some(Address::Udp(host(2))));
        if recovered {
            hub.switch.recover(now);
            poll(&mut [&mut hub, &mut new], &mut now, 100 * MS);
        }
        while receive(&mut at_new).is_some() || receive(&mut at_hub).is_some() {}
        send(&mut at_hub, to_new, b"to there");
        poll(&mut [&mut hub, &mut new], &mut now, MS);
        assert_eq!(receive(&mut at_new).as_deref(), Some(&b"to there"[..]), "{recovered}");

        // The second peer moves on, and the first peer uses its own address again. An address
        // belongs to the peer that proved it last.
        net.move_socket(host(3), host(4));
        for _ in 0..40 {
            send(&mut at_new, to_hub, b"from there");
            poll(&mut [&mut hub, &mut old, &mut new], &mut now, 100 * MS);
        }
        assert_eq!(hub.peer_view(3).at, Some(Address::Udp(host(4))));
        for _ in 0..300 {
            poll(&mut [&mut hub, &mut old, &mut new], &mut now, SECOND);
        }
        let (slot_old, mut at_old) = old.add_endpoint();
        let hub_at_old = old.peer_view(1).slot;
        let from_old = path(&[
            hop(slot_old, hub_at_old.number()),
            hop(hub.peer_view(2).slot.number(), slot_hub),
        ]);
        let to_old = path(&[
            hop(slot_hub, hub.peer_view(2).slot.number()),
            hop(hub_at_old.number(), slot_old),
        ]);
        for _ in 0..20 {
            send(&mut at_old, from_old, b"back again");
            poll(&mut [&mut hub, &mut old, &mut new], &mut now, SECOND);
        }
        send(&mut at_hub, to_old, b"you, too");
        poll(&mut [&mut hub, &mut old, &mut new], &mut now, MS);
        assert_eq!(receive(&mut at_old).as_deref(), Some(&b"you, too"[..]), "{recovered}");
        hub.assert_even();
    }
}

#[test]
fn a_peer_that_is_back_after_its_goodbye_is_woken_like_any_other() {
    let mut pair = Pair::new();
    pair.until_up();
    let slot = pair.b.peer_view(1).slot;
    pair.b.switch.goodbye(slot, 3, 3_600, "not now");
    pair.run_for(1);
    assert!(!pair.a.is_up());
    // The peer begins a handshake earlier than its goodbye announced.
    let now = pair.now;
    pair.b.switch.recover(now);
    pair.until_up();
    pair.run_for(250);
    assert_eq!(pair.a.peer_view(2).state, LinkState::Idle);
    while receive(&mut pair.at_b).is_some() {}
    send(&mut pair.at_a, pair.to_b, b"are you there?");
    pair.run_for(2);
    assert_eq!(receive(&mut pair.at_b).as_deref(), Some(&b"are you there?"[..]));
    pair.assert_even();
}

#[test]
fn r8_a_replayed_last_handshake_of_an_unknown_peer_gets_no_slot() {
    let policy =
        UnknownPeerPolicy::default().with_rights(Rights::ALL).with_links_max(4).with_liveness(FAST);
    let (net, mut now) = (SimNet::default(), Now(1));
    let births = [1, 2].map(|seed| NodeSpec { unknown_peers: Some(policy), ..NodeSpec::new(seed) });
    let [mut a, mut b] = births.map(|birth| Node::new(&net, &birth, now));
    net.start_log();
    let mut spec = PeerSpec::discovered("unknown", None, b.port);
    spec = spec.with_address(Address::Udp(host(1)));
    b.switch.add_peer(spec, now).expect("a slot");
    for _ in 0..20 {
        poll(&mut [&mut a, &mut b], &mut now, 100 * MS);
    }
    assert!(a.peer_view(2).is_up());
    let log = net.take_log();
    let handshakes: Vec<_> =
        log.iter().filter(|d| d.to == host(1) && d.bytes[0] >> 4 == 1).collect();
    assert!(handshakes.len() >= 2, "a first and a third message");
    net.cut(host(2), true);
    for _ in 0..80 {
        poll(&mut [&mut a, &mut b], &mut now, 100 * MS);
    }
    assert!(a.switch.peers().is_empty(), "the peer is detached");
    a.events.clear();
    for datagram in handshakes {
        net.inject(host(2), host(1), &datagram.bytes);
        poll(&mut [&mut a], &mut now, MS);
        assert!(a.switch.peers().is_empty(), "a copy got a slot");
    }
    let attached = a.events.iter().any(|event| matches!(event, Event::SlotAttached(_)));
    assert!(!attached, "{:?}", a.events);
    a.assert_even();
}

#[test]
fn a_silent_peer_that_moves_to_another_worker_s_flow_is_followed_by_its_probes() {
    let births = [NodeSpec::new(1), NodeSpec { workers: 2, ..NodeSpec::new(2) }];
    let mut pair = Pair::with(births[0], births[1], |own, spec| {
        spec.with_liveness(Liveness::default().with_always(own == 1))
    });
    pair.until_up();
    pair.run_for(30);
    let outer = host(9);
    pair.net.move_socket(host(1), outer);
    pair.net.steer(host(2), outer, 1);
    pair.a.events.clear();
    pair.run_for(60);
    assert_eq!(pair.b.peer_view(1).at, Some(Address::Udp(outer)));
    let down = |event: &Event| matches!(event, Event::LinkDown(_));
    assert!(!pair.a.events.iter().any(down), "{:?}", pair.a.events);
    assert!(pair.carries_packets());
    pair.assert_even();
}

/// Restarts B with a wall clock of `wall` hours, and with its saved state if `keeps` is set.
/// Returns the time, in nanoseconds, until A accepts B's handshake, or a little more than ten
/// seconds if A does not accept it.
fn begins_again(wall: u64, keeps: bool) -> u64 {
    const HOUR: u64 = 3_600 * SECOND;
    let first = NodeSpec { wall: 1_000 * HOUR, ..NodeSpec::new(2) };
    // B starts the handshake, so A remembers B's timestamps.
    let mut pair = Pair::with(NodeSpec::new(1), first, |own, spec| {
        let at = spec.address().filter(|_| own == 2);
        spec.with_address(at)
    });
    pair.until_up();
    pair.run_for(5);
    let snapshot = pair.b.switch.snapshot(pair.now);
    let mut last = snapshot.clone();
    // As long as the node runs, its timestamps stay below the limit in its latest snapshot.
    for _ in 0..4 {
        pair.run_with_traffic(200);
        let stamp = 1_000 * HOUR + pair.now.0;
        assert!(stamp < last.stamps_until, "{stamp} {last:?}");
        last = pair.b.switch.snapshot(pair.now);
    }
    assert!(last.stamps_until > snapshot.stamps_until);
    // Run until the keys are so new that no renewal is due during the rest of the test.
    while pair.now.0 - pair.a.peer_view(2).keys_since.expect("keys").0 > 30 * SECOND {
        pair.run_with_traffic(1);
    }
    let birth = NodeSpec { restarts_before: 1, wall: wall * HOUR, ..NodeSpec::new(2) };
    let net = pair.net.clone();
    pair.b = Node::new(&net, &birth, pair.now);
    if keeps {
        pair.b.switch.restore(&last, pair.now).expect("the node's own state");
        let again = pair.b.switch.snapshot(pair.now);
        assert!(again.stamps_until > last.stamps_until);
    }
    pair.b.add_peer(1, true, pair.now);
    let (began, before) = (pair.now.0, pair.a.peer_view(2).handshakes);
    while pair.a.peer_view(2).handshakes == before {
        pair.advance(100 * MS);
        assert!(pair.now.0 - began < 100 * SECOND, "{:?}", pair.a.peer_view(2));
        if pair.now.0 - began > 10 * SECOND {
            break;
        }
    }
    assert_eq!(pair.a.peer_view(2).key, Some(key(2)));
    pair.now.0 - began
}

/// wire.md: W4-16, W4-71.
#[test]
fn a_wall_clock_set_back_over_a_restart_blocks_no_peer_with_saved_timestamps() {
    assert!(begins_again(1_001, false) < SECOND, "a clock that continues");
    assert!(begins_again(999, false) > 10 * SECOND, "refused, as a replay would be");
    assert!(begins_again(999, true) < SECOND);
    assert!(begins_again(0, true) < SECOND);
    assert!(begins_again(1_001, true) < SECOND);
}

/// A hub and its peers, which exchange addresses, vanish, become idle, send goodbyes and panic, in
/// random order.
#[test]
fn peers_of_a_hub_are_found_again_after_any_event_and_every_frame_is_counted() {
    // The last two seeds have found faults earlier.
    for seed in (1..=8).chain([36, 82]) {
        let mut rng = Rng::new(seed);
        let (net, mut now) = (SimNet::default(), Now(1));
        let birth = NodeSpec { workers: 2, ..NodeSpec::new(1) };
        let mut hub = Node::new(&net, &birth, now);
        let (slot_hub, mut at_hub) = hub.add_endpoint();
        let mut rim = [2, 3].map(|seed| {
            let mut node = Node::new(&net, &NodeSpec::new(seed), now);
            let far = hub.add_peer(seed, true, now);
            let near = node.add_peer(1, true, now);
            let (slot, endpoint) = node.add_endpoint();
            let there = path(&[hop(slot_hub, far), hop(near, slot)]);
            let back = path(&[hop(slot, near), hop(far, slot_hub)]);
            (node, endpoint, there, back)
        });
        let mut pass = |hub: &mut Node, rim: &mut [(Node, _, _, _); 2], ns| {
            let [(a, ..), (b, ..)] = rim;
            poll(&mut [hub, a, b], &mut now, ns);
        };
        let clear = |at_hub: &mut _, rim: &mut [(Node, _, _, _); 2]| {
            while receive(at_hub).is_some() {}
            rim.iter_mut().for_each(|(_, end, ..)| while receive(end).is_some() {});
        };
        pass(&mut hub, &mut rim, MS);
        let free = hub.free_chunks();
        for _ in 0..60 {
            let who = rng.below(2);
            match rng.below(10) {
                0 => {
                    let outer = host([2, 3, 11, 12][rng.below(4)]);
                    net.move_socket(host(2 + who as u8), outer);
                    net.steer(host(1), outer, rng.below(2));
                }
                1 => net.cut(host(2 + who as u8), rng.below(2) == 0),
                2 => hub.fuse.arm(1 + rng.next_u64() % 4),
                3 => rim[who].0.fuse.arm(1 + rng.next_u64() % 4),
                4 => {
                    let slot = hub.peer_view(2 + who as u8).slot;
                    hub.switch.goodbye(slot, 3, rng.below(40) as u32, "not now");
                }
                5 => {
                    let slot = rim[who].0.peer_view(1).slot;
                    rim[who].0.switch.goodbye(slot, 3, rng.below(40) as u32, "not now");
                }
                6 => (0..250).for_each(|_| pass(&mut hub, &mut rim, SECOND)),
                _ => {
                    for _ in 0..rng.below(100) {
                        for (_, end, there, back) in &mut rim {
                            send(&mut at_hub, *there, b"there");
                            send(end, *back, b"back");
                        }
                        pass(&mut hub, &mut rim, 100 * MS);
                        clear(&mut at_hub, &mut rim);
                    }
                }
            }
            pass(&mut hub, &mut rim, 10 * MS);
        }
        for (node, ..) in &rim {
            let at = node.at;
            net.cut(at, false);
            net.move_socket(at, at);
            net.steer(host(1), at, rng.below(2));
            node.fuse.arm(0);
        }
        hub.fuse.arm(0);
        // This time is longer than any pause in the goodbyes of this test, and longer than the
        // longest back-off between two attempts.
        for _ in 0..1_200 {
            for (_, end, there, back) in &mut rim {
                send(&mut at_hub, *there, b"there");
                send(end, *back, b"back");
            }
            pass(&mut hub, &mut rim, 100 * MS);
            clear(&mut at_hub, &mut rim);
        }
        for (node, end, there, back) in &mut rim {
            send(&mut at_hub, *there, b"there");
            send(end, *back, b"back");
            assert!(hub.is_up() && node.is_up(), "seed {seed}: {:?}", hub.switch.peers());
        }
        pass(&mut hub, &mut rim, MS);
        pass(&mut hub, &mut rim, MS);
        for (_, end, ..) in &mut rim {
            assert_eq!(receive(end).as_deref(), Some(&b"there"[..]), "seed {seed}");
            assert_eq!(receive(&mut at_hub).as_deref(), Some(&b"back"[..]), "seed {seed}");
        }
        pass(&mut hub, &mut rim, MS);
        hub.assert_even();
        rim.iter().for_each(|(node, ..)| node.assert_even());
        clear(&mut at_hub, &mut rim);
        assert_eq!(hub.free_chunks(), free, "seed {seed}: all memory is returned");
    }
}
