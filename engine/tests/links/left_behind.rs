//! What peers leave behind, and others find there: an address, a goodbye, a handshake's copy, stamps of
//! a clock that was set back since. Driven by hand with virtual time; nothing here sleeps.

use crate::air::{Air, Birth, Dice, MS, Node, Pair, SECOND, hop, host, key, path, receive, send};
use strowger_engine::{
    Now,
    control::{
        Event,
        peering::{LinkState, Liveness, PeerSpec, UnknownPeerPolicy},
    },
    link::Rights,
};
use strowger_frame::Address;

const FAST: Liveness = Liveness::new(std::time::Duration::from_nanos(100 * MS)).with_always(true);

fn turn(nodes: &mut [&mut Node], now: &mut Now, ns: u64) {
    now.0 += ns;
    for _ in 0..4 {
        nodes.iter_mut().for_each(|node| node.turn(*now));
    }
}

#[test]
fn an_address_that_one_peer_has_left_is_the_next_one_s_who_proves_to_be_there() {
    for recovered in [false, true] {
        let (air, mut now) = (Air::default(), Now(1));
        let [mut hub, mut old, mut new] =
            [1, 2, 3].map(|seed| Node::new(&air, &Birth::new(seed), now));
        hub.peer(2, true, now);
        let new_at_hub = hub.peer(3, true, now);
        old.peer(1, true, now);
        let hub_at_new = new.peer(1, true, now);
        let ((slot_hub, mut at_hub), (slot_new, mut at_new)) = (hub.endpoint(), new.endpoint());
        let to_new = path(&[hop(slot_hub, new_at_hub), hop(hub_at_new, slot_new)]);
        let to_hub = path(&[hop(slot_new, hub_at_new), hop(new_at_hub, slot_hub)]);
        for _ in 0..50 {
            turn(&mut [&mut hub, &mut old, &mut new], &mut now, 100 * MS);
        }
        assert!(hub.is_up());

        // The first is gone, or quiet, and says nothing of it; a translator of addresses gives the
        // second the one that it had.
        air.move_to(host(3), host(2));
        for _ in 0..20 {
            send(&mut at_new, to_hub, b"from here");
            turn(&mut [&mut hub, &mut new], &mut now, 100 * MS);
        }
        assert_eq!(hub.view(3).at, Some(Address::Udp(host(2))));
        if recovered {
            hub.switch.recover(now);
            turn(&mut [&mut hub, &mut new], &mut now, 100 * MS);
        }
        while receive(&mut at_new).is_some() || receive(&mut at_hub).is_some() {}
        send(&mut at_hub, to_new, b"to there");
        turn(&mut [&mut hub, &mut new], &mut now, MS);
        assert_eq!(receive(&mut at_new).as_deref(), Some(&b"to there"[..]), "{recovered}");

        // Both change places: whoever proves to be there last has it.
        air.move_to(host(3), host(4));
        for _ in 0..40 {
            send(&mut at_new, to_hub, b"from there");
            turn(&mut [&mut hub, &mut old, &mut new], &mut now, 100 * MS);
        }
        assert_eq!(hub.view(3).at, Some(Address::Udp(host(4))));
        for _ in 0..300 {
            turn(&mut [&mut hub, &mut old, &mut new], &mut now, SECOND);
        }
        let (slot_old, mut at_old) = old.endpoint();
        let hub_at_old = old.view(1).slot;
        let from_old = path(&[hop(slot_old, hub_at_old), hop(hub.view(2).slot, slot_hub)]);
        let to_old = path(&[hop(slot_hub, hub.view(2).slot), hop(hub_at_old, slot_old)]);
        for _ in 0..20 {
            send(&mut at_old, from_old, b"back again");
            turn(&mut [&mut hub, &mut old, &mut new], &mut now, SECOND);
        }
        send(&mut at_hub, to_old, b"you, too");
        turn(&mut [&mut hub, &mut old, &mut new], &mut now, MS);
        assert_eq!(receive(&mut at_old).as_deref(), Some(&b"you, too"[..]), "{recovered}");
        hub.assert_even();
    }
}

#[test]
fn a_peer_that_is_back_after_its_goodbye_is_woken_like_any_other() {
    let mut pair = Pair::new();
    pair.until_up();
    let slot = pair.b.view(1).slot;
    pair.b.switch.goodbye(slot, 3, 3_600, "not now");
    pair.wait(1);
    assert!(!pair.a.is_up());
    // It comes by itself, sooner than it has said.
    let now = pair.now;
    pair.b.switch.recover(now);
    pair.until_up();
    pair.wait(250);
    assert_eq!(pair.a.view(2).state, LinkState::Quiet);
    while receive(&mut pair.at_b).is_some() {}
    send(&mut pair.at_a, pair.to_b, b"are you there?");
    pair.wait(2);
    assert_eq!(receive(&mut pair.at_b).as_deref(), Some(&b"are you there?"[..]));
    pair.assert_even();
}

#[test]
fn r8_a_stranger_s_last_handshake_said_again_gets_no_slot() {
    let policy =
        UnknownPeerPolicy::default().with_rights(Rights::ALL).with_links_max(4).with_liveness(FAST);
    let (air, mut now) = (Air::default(), Now(1));
    let births = [1, 2].map(|seed| Birth { unknown_peers: Some(policy), ..Birth::new(seed) });
    let [mut a, mut b] = births.map(|birth| Node::new(&air, &birth, now));
    air.listen();
    let mut spec = PeerSpec::discovered("whoever is there", None, b.port);
    spec = spec.with_address(Address::Udp(host(1)));
    b.switch.add_peer(spec, now).expect("a slot");
    for _ in 0..20 {
        turn(&mut [&mut a, &mut b], &mut now, 100 * MS);
    }
    assert!(a.view(2).is_up());
    let heard = air.heard();
    let handshakes: Vec<_> =
        heard.iter().filter(|d| d.to == host(1) && d.bytes[0] >> 4 == 1).collect();
    assert!(handshakes.len() >= 2, "a first message and a third");
    air.cut(host(2), true);
    for _ in 0..80 {
        turn(&mut [&mut a, &mut b], &mut now, 100 * MS);
    }
    assert!(a.switch.peers().is_empty(), "it was seen off");
    a.events.clear();
    for datagram in handshakes {
        air.throw(host(2), host(1), &datagram.bytes);
        turn(&mut [&mut a], &mut now, MS);
        assert!(a.switch.peers().is_empty(), "a copy got a slot");
    }
    let attached = a.events.iter().any(|event| matches!(event, Event::SlotAttached(_)));
    assert!(!attached, "{:?}", a.events);
    a.assert_even();
}

#[test]
fn a_silent_peer_that_moves_to_another_worker_s_flow_is_followed_by_its_probes() {
    let births = [Birth::new(1), Birth { workers: 2, ..Birth::new(2) }];
    let mut pair = Pair::with(births[0], births[1], |own, spec| {
        spec.with_liveness(Liveness::default().with_always(own == 1))
    });
    pair.until_up();
    pair.wait(30);
    let outer = host(9);
    pair.air.move_to(host(1), outer);
    pair.air.steer(host(2), outer, 1);
    pair.a.events.clear();
    pair.wait(60);
    assert_eq!(pair.b.view(1).at, Some(Address::Udp(outer)));
    let down = |event: &Event| matches!(event, Event::LinkDown(_));
    assert!(!pair.a.events.iter().any(down), "{:?}", pair.a.events);
    assert!(pair.talks());
    pair.assert_even();
}

/// B begins again with a wall clock that shows another time; until A takes its handshake, in
/// nanoseconds.
fn begins_again(wall: u64, keeps: bool) -> u64 {
    const HOUR: u64 = 3_600 * SECOND;
    let first = Birth { wall: 1_000 * HOUR, ..Birth::new(2) };
    // It is B that begins, so it is B's stamps that A remembers.
    let mut pair = Pair::with(Birth::new(1), first, |own, spec| {
        let at = spec.address().filter(|_| own == 2);
        spec.with_address(at)
    });
    pair.until_up();
    pair.wait(5);
    let snapshot = pair.b.switch.snapshot(pair.now);
    let mut last = snapshot.clone();
    // Until the node dies its stamps stay below what was last to be written down.
    for _ in 0..4 {
        pair.chat(200);
        let stamp = 1_000 * HOUR + pair.now.0;
        assert!(stamp < last.stamps_until, "{stamp} {last:?}");
        last = pair.b.switch.snapshot(pair.now);
    }
    assert!(last.stamps_until > snapshot.stamps_until);
    // Nobody has to renew keys in the meantime.
    while pair.now.0 - pair.a.view(2).keys_since.expect("keys").0 > 30 * SECOND {
        pair.chat(1);
    }
    let birth = Birth { lives: 1, wall: wall * HOUR, ..Birth::new(2) };
    let air = pair.air.clone();
    pair.b = Node::new(&air, &birth, pair.now);
    if keeps {
        pair.b.switch.restore(&last, pair.now).expect("its own");
        let again = pair.b.switch.snapshot(pair.now);
        assert!(again.stamps_until > last.stamps_until);
    }
    pair.b.peer(1, true, pair.now);
    let (began, before) = (pair.now.0, pair.a.view(2).handshakes);
    while pair.a.view(2).handshakes == before {
        pair.pass(100 * MS);
        assert!(pair.now.0 - began < 100 * SECOND, "{:?}", pair.a.view(2));
        if pair.now.0 - began > 10 * SECOND {
            break;
        }
    }
    assert_eq!(pair.a.view(2).key, Some(key(2)));
    pair.now.0 - began
}

#[test]
fn a_wall_clock_that_was_set_back_over_a_restart_keeps_nobody_out_whose_stamps_are_written_down() {
    assert!(begins_again(1_001, false) < SECOND, "a clock that goes on");
    assert!(begins_again(999, false) > 10 * SECOND, "refused, as a replay would be");
    assert!(begins_again(999, true) < SECOND);
    assert!(begins_again(0, true) < SECOND);
    assert!(begins_again(1_001, true) < SECOND);
}

/// One hub and two peers that change places, vanish, fall quiet, say goodbye, and panic, in a command that
/// dice decide.
#[test]
fn whatever_peers_do_to_a_hub_they_are_found_again_and_every_frame_is_counted() {
    // The last two have found what now has a comment in the code.
    for seed in (1..=8).chain([36, 82]) {
        let mut dice = Dice::new(seed);
        let (air, mut now) = (Air::default(), Now(1));
        let birth = Birth { workers: 2, ..Birth::new(1) };
        let mut hub = Node::new(&air, &birth, now);
        let (slot_hub, mut at_hub) = hub.endpoint();
        let mut rim = [2, 3].map(|seed| {
            let mut node = Node::new(&air, &Birth::new(seed), now);
            let far = hub.peer(seed, true, now);
            let near = node.peer(1, true, now);
            let (slot, endpoint) = node.endpoint();
            let there = path(&[hop(slot_hub, far), hop(near, slot)]);
            let back = path(&[hop(slot, near), hop(far, slot_hub)]);
            (node, endpoint, there, back)
        });
        let mut pass = |hub: &mut Node, rim: &mut [(Node, _, _, _); 2], ns| {
            let [(a, ..), (b, ..)] = rim;
            turn(&mut [hub, a, b], &mut now, ns);
        };
        let clear = |at_hub: &mut _, rim: &mut [(Node, _, _, _); 2]| {
            while receive(at_hub).is_some() {}
            rim.iter_mut().for_each(|(_, end, ..)| while receive(end).is_some() {});
        };
        pass(&mut hub, &mut rim, MS);
        let free = hub.free();
        for _ in 0..60 {
            let who = dice.below(2);
            match dice.below(10) {
                0 => {
                    let outer = host([2, 3, 11, 12][dice.below(4)]);
                    air.move_to(host(2 + who as u8), outer);
                    air.steer(host(1), outer, dice.below(2));
                }
                1 => air.cut(host(2 + who as u8), dice.below(2) == 0),
                2 => hub.fuse.light(1 + dice.word() % 4),
                3 => rim[who].0.fuse.light(1 + dice.word() % 4),
                4 => {
                    let slot = hub.view(2 + who as u8).slot;
                    hub.switch.goodbye(slot, 3, dice.below(40) as u32, "not now");
                }
                5 => {
                    let slot = rim[who].0.view(1).slot;
                    rim[who].0.switch.goodbye(slot, 3, dice.below(40) as u32, "not now");
                }
                6 => (0..250).for_each(|_| pass(&mut hub, &mut rim, SECOND)),
                _ => {
                    for _ in 0..dice.below(100) {
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
            air.cut(at, false);
            air.move_to(at, at);
            air.steer(host(1), at, dice.below(2));
            node.fuse.light(0);
        }
        hub.fuse.light(0);
        // Longer than any goodbye, and than the longest pause between two attempts.
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
        assert_eq!(hub.free(), free, "seed {seed}: memory comes home");
    }
}
