//! Links whose peers move, fall silent, die and return, or whose frames arrive at another worker.
//! The tests run in virtual time.

use strowger_engine::{
    Now,
    control::{
        Event, SwitchConfig,
        peering::{Liveness, PeerSpec},
    },
    discard::Discard,
};
use strowger_frame::Address;
use strowger_testkit::{
    Rng,
    sim::{MS, Node, NodeSpec, Pair, SECOND, SimNet, hop, host, packet, path, receive, send},
};

fn at(number: u8) -> Option<Address> {
    Some(Address::Udp(host(number)))
}

fn kind(bytes: &[u8]) -> u8 {
    bytes[0] >> 4
}

/// Sends a packet from A to B, and holds its datagram back. Returns the datagram.
fn snatched(pair: &mut Pair, payload: &[u8]) -> Vec<u8> {
    pair.net.start_log();
    pair.net.take_log();
    pair.net.set_loss(1_000_000, 0);
    send(&mut pair.at_a, pair.to_b, payload);
    pair.advance(1_000);
    pair.net.set_loss(0, 0);
    let log = pair.net.take_log();
    log.into_iter().rfind(|d| kind(&d.bytes) == 4 && d.to == host(2)).expect("sent").bytes
}

/// wire.md: W4-107.
#[test]
fn a_link_comes_up_when_both_ends_start_at_once() {
    let mut pair = Pair::new();
    let took = pair.until_up();
    assert!(took < SECOND, "{took} ns");
    assert!(pair.a.events.iter().any(|event| matches!(event, Event::LinkUp(_))));
    pair.run_for(10);
    assert_eq!(pair.a.peer_view(2).handshakes, pair.b.peer_view(1).handshakes);
    assert!(pair.a.peer_view(2).handshakes <= 2, "{:?}", pair.a.peer_view(2));
    // Handshakes and keepalives count as handled, and not as discards of the slot.
    assert!(pair.a.count(Discard::Handled) > 0);
    assert!(pair.a.switch.slots().iter().all(|slot| slot.discards == 0));
    pair.assert_even();
}

/// wire.md: W3-27, W3-48, W3-53, W3-54.
#[test]
fn a_peer_that_has_moved_is_followed_by_fresh_data_and_an_answered_challenge() {
    let mut pair = Pair::new();
    pair.until_up();
    pair.net.move_socket(host(1), host(11));
    send(&mut pair.at_a, pair.to_b, b"from elsewhere");
    pair.advance(1_000);
    assert_eq!(receive(&mut pair.at_b).as_deref(), Some(&b"from elsewhere"[..]));
    pair.run_for(1);
    assert_eq!(pair.b.peer_view(1).at, at(11));
    assert!(pair.b.events.contains(&Event::Roamed(pair.b.peer_view(1).slot, at(11).expect("one"))));
    assert!(pair.carries_packets(), "both ways, at once");
    assert_eq!(pair.a.peer_view(2).at, at(2));
    pair.assert_even();
}

/// wire.md: W3-27, W3-53, W3-54.
#[test]
fn data_from_another_address_alone_does_not_move_a_peer() {
    let mut pair = Pair::new();
    pair.until_up();
    // This packet is fresh and authentic but comes from another address, as if an attacker relayed
    // it.
    let fresh = snatched(&mut pair, b"relayed");
    pair.net.inject(host(66), host(2), &fresh);
    pair.advance(1_000);
    assert_eq!(
        receive(&mut pair.at_b).as_deref(),
        Some(&b"relayed"[..]),
        "the packet is the peer's"
    );
    let challenges = pair.net.take_received(host(66));
    assert_eq!(challenges.iter().map(|d| kind(&d.bytes)).collect::<Vec<_>>(), [8], "one challenge");
    pair.run_for(10);
    assert_eq!(pair.b.peer_view(1).at, at(1));
    assert!(pair.carries_packets());
    pair.assert_even();
}

/// wire.md: W3-53.
#[test]
fn a_replayed_packet_from_another_address_causes_no_challenge() {
    let mut pair = Pair::new();
    pair.until_up();
    pair.net.start_log();
    assert!(pair.carries_packets());
    let log = pair.net.take_log();
    let copies: Vec<_> = log.iter().filter(|d| d.to == host(2) && kind(&d.bytes) >= 4).collect();
    assert!(!copies.is_empty());
    let before = pair.b.count(Discard::Replayed);
    for copy in &copies {
        pair.net.inject(host(66), host(2), &copy.bytes);
    }
    pair.run_for(1);
    assert!(pair.net.take_received(host(66)).is_empty());
    assert_eq!(pair.b.count(Discard::Replayed), before + copies.len() as u64);
    assert_eq!(pair.b.peer_view(1).at, at(1));
    pair.assert_even();
}

#[test]
fn an_attacker_that_relays_a_packet_and_the_challenge_does_not_keep_the_link() {
    let mut pair = Pair::new();
    pair.until_up();
    let fresh = snatched(&mut pair, b"relayed");
    pair.net.inject(host(66), host(2), &fresh);
    pair.advance(1_000);
    // The attacker relays for a moment: the challenge reaches the peer, and the peer's response
    // returns.
    for challenge in pair.net.take_received(host(66)) {
        pair.net.inject(host(66), host(1), &challenge.bytes);
    }
    pair.advance(1_000);
    for answer in pair.net.take_received(host(66)) {
        pair.net.inject(host(66), host(2), &answer.bytes);
    }
    pair.run_for(1);
    // The peer's next packets move the link back.
    for _ in 0..20 {
        send(&mut pair.at_a, pair.to_b, b"still here");
        pair.advance(100 * MS);
    }
    assert_eq!(pair.b.peer_view(1).at, at(1));
    assert!(pair.carries_packets());
    pair.assert_even();
}

/// wire.md: W3-54, W4-85.
#[test]
fn no_handshake_and_no_cookie_moves_a_peer() {
    let mut pair = Pair::new();
    pair.net.start_log();
    pair.until_up();
    // All recorded handshake messages are sent again from an unknown address while the next
    // handshake is in progress.
    let mut handshakes = pair.net.take_log();
    pair.run_with_traffic(119);
    for _ in 0..300 {
        pair.advance(100 * MS);
        handshakes.extend(pair.net.take_log());
        for d in handshakes.iter().filter(|d| kind(&d.bytes) <= 3) {
            pair.net.inject(host(66), d.to, &d.bytes);
        }
        handshakes.retain(|d| kind(&d.bytes) <= 3);
        assert_eq!((pair.a.peer_view(2).at, pair.b.peer_view(1).at), (at(2), at(1)));
    }
    assert!(pair.a.peer_view(2).handshakes >= 2 && handshakes.len() >= 4);
    assert!(pair.carries_packets());
    for d in pair.net.take_received(host(66)) {
        assert!(kind(&d.bytes) <= 3, "an unknown peer got more than the answer of a handshake");
    }
    pair.assert_even();
}

/// wire.md: W4-85.
#[test]
fn an_initiation_copied_from_another_address_makes_keys_and_moves_no_peer() {
    // An attacker delivers A's initiation from another address, before A's own datagram arrives.
    let net = SimNet::default();
    let mut now = Now(1);
    let mut a = Node::new(&net, &NodeSpec::new(1), now);
    let mut b = Node::new(&net, &NodeSpec::new(2), now);
    b.add_peer(1, true, now);
    b.poll(now);
    net.take_received(host(1));
    net.start_log();
    a.add_peer(2, true, now);
    net.cut(host(2), true); // the attacker sees A's datagrams, and they do not arrive
    for _ in 0..3 {
        a.poll(now);
    }
    net.cut(host(2), false);
    let first = net.take_log();
    assert!(first.is_empty(), "a packet got through a cut");
    net.set_loss(1_000_000, 0);
    for _ in 0..30 {
        now.0 += 100 * MS;
        a.poll(now);
    }
    net.set_loss(0, 0);
    let first = net.take_log().into_iter().rfind(|d| d.to == host(2)).expect("A retries");
    assert_eq!(kind(&first.bytes), 1);
    net.inject(host(66), host(2), &first.bytes);
    for _ in 0..20 {
        now.0 += 100 * MS;
        b.poll(now);
        assert_eq!(b.peer_view(1).at, at(1));
    }
    for _ in 0..100 {
        now.0 += 100 * MS;
        a.poll(now);
        b.poll(now);
    }
    assert!(a.is_up() && b.is_up());
    assert_eq!((a.peer_view(2).at, b.peer_view(1).at), (at(2), at(1)));
}

/// wire.md: W3-23, W4-103, W4-112.
#[test]
fn a_peer_without_an_address_gets_that_of_its_first_sealed_packet() {
    let net = SimNet::default();
    let mut now = Now(1);
    let mut a = Node::new(&net, &NodeSpec::new(1), now);
    let mut b = Node::new(&net, &NodeSpec::new(2), now);
    // Both ends probe and renew keys even without data, so the link does not become idle.
    let always = Liveness::default().with_always(true);
    for (node, of, is_known) in [(&mut a, 2, true), (&mut b, 1, false)] {
        let spec = node.peer_spec(of, is_known).with_liveness(always);
        node.switch.add_peer(spec, now).expect("a slot");
    }
    for _ in 0..20 {
        now.0 += 100 * MS;
        a.poll(now);
        b.poll(now);
    }
    assert!(a.is_up() && b.is_up());
    assert_eq!(b.peer_view(1).at, at(1));
    // The link stays up through several rekeys, although no data is sent.
    for _ in 0..6_000 {
        now.0 += 100 * MS;
        a.poll(now);
        b.poll(now);
        assert!(a.is_up() && b.is_up(), "after {} s", now.0 / SECOND);
    }
    assert!(b.peer_view(1).handshakes >= 5);
}

const FAST: Liveness = Liveness::new(std::time::Duration::from_nanos(50 * MS));

fn fast() -> Pair {
    Pair::with(NodeSpec::new(1), NodeSpec::new(2), |_, spec| spec.with_liveness(FAST))
}

/// wire.md: W4-107, W4-108.
#[test]
fn a_dead_peer_is_noticed_within_interval_times_multiplier_and_the_link_comes_back() {
    for (liveness, step) in [(FAST, MS), (Liveness::default(), 20 * MS)] {
        let tune = |_, spec: PeerSpec| spec.with_liveness(liveness);
        let mut pair = Pair::with(NodeSpec::new(1), NodeSpec::new(2), tune);
        pair.until_up();
        pair.run_for(2);
        assert!(pair.carries_packets());
        pair.net.cut(host(2), true);
        let died = pair.now.0;
        let detection = liveness.detection().as_nanos() as u64;
        while pair.a.is_up() {
            send(&mut pair.at_a, pair.to_b, b"anybody?");
            pair.advance(step);
            assert!(pair.now.0 - died < 2 * detection, "not noticed");
        }
        let took = pair.now.0 - died;
        assert!(took <= detection + detection / 4, "{took} ns of {detection}");
        assert!(took > detection / 2, "{took} ns: too soon");
        let down = Event::LinkDown(pair.a.peer_view(2).slot);
        assert!(pair.a.events.contains(&down));
        pair.run_for(60);
        pair.net.cut(host(2), false);
        let back = pair.until_up();
        assert!(back < 20 * SECOND, "{back} ns");
        pair.assert_even();
    }
}

/// wire.md: W4-102, W4-108.
#[test]
fn a_live_peer_with_one_way_traffic_is_not_declared_dead() {
    let mut pair = fast();
    pair.until_up();
    for _ in 0..2_000 {
        send(&mut pair.at_a, pair.to_b, b"one way");
        pair.advance(10 * MS);
        while receive(&mut pair.at_b).is_some() {}
        assert!(pair.a.is_up() && pair.b.is_up());
    }
    assert!(!pair.a.events.iter().any(|event| matches!(event, Event::LinkDown(_))));
    pair.assert_even();
}

/// wire.md: W4-102, W4-108.
#[test]
fn a_lost_probe_or_two_is_no_death() {
    let mut pair = Pair::new();
    pair.until_up();
    pair.net.cut(host(2), true);
    for _ in 0..110 {
        send(&mut pair.at_a, pair.to_b, b"into the void");
        pair.advance(100 * MS);
    }
    pair.net.cut(host(2), false);
    pair.run_for(10);
    assert!(!pair.a.events.iter().any(|event| matches!(event, Event::LinkDown(_))));
    assert!(pair.carries_packets());
}

/// wire.md: W4-97, W4-107, W5-13, W5-74.
#[test]
fn after_a_goodbye_no_handshake_starts_before_its_retry_time() {
    for (who_says, retry_after_s) in [(1, 30), (2, 30), (1, 0)] {
        let mut pair = fast();
        pair.until_up();
        // The keys are now so old that new ones may be requested immediately.
        pair.run_for(6);
        let (a, b) = (pair.a.peer_view(2).slot, pair.b.peer_view(1).slot);
        let (says, slot) = if who_says == 1 { (&mut pair.a, a) } else { (&mut pair.b, b) };
        says.switch.goodbye(slot, 3, retry_after_s, "not now");
        pair.net.start_log();
        pair.advance(MS);
        let (hears, slot) = if who_says == 1 { (&pair.b, b) } else { (&pair.a, a) };
        let text = "not now".to_owned();
        let goodbye = Event::Goodbye { slot, code: 3, retry_after_s, text };
        assert!(hears.events.contains(&goodbye), "{:?}", hears.events);
        assert!(hears.events.contains(&Event::LinkDown(slot)) && !hears.is_up());
        let from = hears.at;
        let asks = |pair: &mut Pair, seconds| {
            pair.net.take_log();
            pair.run_for(seconds);
            pair.net.take_log().iter().filter(|d| d.from == from && kind(&d.bytes) == 1).count()
        };
        if retry_after_s == 0 {
            // The minimum pause is one second, because the node that sent the goodbye may still
            // respond for a moment.
            pair.advance(900 * MS);
            let early = pair.net.take_log();
            assert!(!early.iter().any(|d| d.from == from && kind(&d.bytes) == 1), "{early:?}");
        } else {
            assert_eq!(asks(&mut pair, u64::from(retry_after_s) - 1), 0);
        }
        assert!(asks(&mut pair, 10) > 0);
        pair.until_up();
        pair.assert_even();
    }
}

/// wire.md: W5-63.
#[test]
fn a_node_that_has_got_a_goodbye_answers_handshakes_of_the_other_end() {
    let mut pair = Pair::new();
    pair.until_up();
    pair.run_for(6);
    let a_at_b = pair.b.peer_view(1).slot;
    pair.b.switch.goodbye(a_at_b, 2, 60, "back in a minute");
    pair.advance(MS);
    assert!(!pair.a.is_up());
    // The other end restarts immediately, and begins a handshake.
    let birth = NodeSpec { restarts_before: 1, ..NodeSpec::new(2) };
    pair.b = Node::new(&pair.net.clone(), &birth, pair.now);
    pair.b.add_peer(1, true, pair.now);
    let from = pair.a.at;
    pair.net.start_log();
    pair.run_for(5);
    assert!(pair.a.is_up() && pair.b.is_up(), "{:?}", pair.a.peer_view(2));
    let early = pair.net.take_log().iter().any(|d| d.from == from && kind(&d.bytes) == 1);
    assert!(!early, "an initiation before the time of the goodbye");
}

/// wire.md: W4-104, W4-105.
#[test]
fn rekeying_at_30_percent_loss_costs_no_packet_of_either_way() {
    let mut pair = Pair::new();
    pair.until_up();
    pair.net.set_loss(300_000, 5);
    for number in 0..4_000_u32 {
        send(&mut pair.at_a, pair.to_b, &number.to_be_bytes());
        send(&mut pair.at_b, pair.to_a, &number.to_be_bytes());
        pair.advance(SECOND / 4);
        while receive(&mut pair.at_a).is_some() || receive(&mut pair.at_b).is_some() {}
    }
    assert!(pair.a.peer_view(2).handshakes >= 7, "{:?}", pair.a.peer_view(2));
    for node in [&pair.a, &pair.b] {
        for refused in
            [Discard::LinkDown, Discard::KeysExpired, Discard::BadSeal, Discard::NoSession]
        {
            assert_eq!(node.count(refused), 0, "{refused} refused at {}", node.at);
        }
        assert!(!node.events.iter().any(|event| matches!(event, Event::LinkDown(_))));
        node.assert_even();
    }
}

#[test]
fn a_switch_that_restarts_gets_its_link_back() {
    // Either the restarted node initiates, or it has no address of the other node, which must then
    // initiate.
    for knows_where in [true, false] {
        let mut pair = Pair::new();
        pair.until_up();
        pair.run_for(5);
        let birth = NodeSpec { restarts_before: 1, ..NodeSpec::new(2) };
        let net = pair.net.clone();
        pair.b = Node::new(&net, &birth, pair.now);
        let a_at_b = pair.b.add_peer(1, knows_where, pair.now);
        let (slot_b, at_b) = pair.b.add_endpoint();
        let b_at_a = pair.a.peer_view(2).slot;
        let slot_a = pair.a.switch.slots().iter().find(|s| s.slot != b_at_a).expect("two").slot;
        pair.at_b = at_b;
        pair.to_b = path(&[hop(slot_a.number(), b_at_a.number()), hop(a_at_b, slot_b)]);
        pair.to_a = path(&[hop(slot_b, a_at_b), hop(b_at_a.number(), slot_a.number())]);
        let began = pair.now.0;
        while !pair.carries_packets() {
            pair.advance(100 * MS);
            let most = if knows_where { 3 * SECOND } else { 25 * SECOND };
            assert!(pair.now.0 - began < most, "{:?}", pair.a.peer_view(2));
        }
        pair.assert_even();
    }
}

fn two_workers() -> Pair {
    let b = NodeSpec { workers: 2, ..NodeSpec::new(2) };
    let mut pair = Pair::with(NodeSpec::new(1), b, |_, spec| spec);
    pair.until_up();
    // Run until the path MTU is known, so that all frames that are lost later are data.
    pair.run_for(1);
    pair
}

fn number(bytes: &[u8]) -> u32 {
    u32::from_be_bytes(bytes[..4].try_into().expect("four bytes"))
}

#[test]
fn a_flow_received_by_another_worker_is_handed_off_and_then_owned_there() {
    let mut pair = two_workers();
    let before = pair.b.count(Discard::NoSession);
    let (mut last, mut arrived) = (0, 0_u32);
    let mut run = |pair: &mut Pair, from: u32, to: u32| {
        for n in from..to {
            send(&mut pair.at_a, pair.to_b, &n.to_be_bytes());
            pair.advance(3 * MS);
            while let Some(payload) = receive(&mut pair.at_b) {
                let n = number(&payload);
                assert!(n > last || n == 0, "R7: {n} after {last}");
                (last, arrived) = (n, arrived + 1);
            }
        }
    };
    run(&mut pair, 1, 100);
    // The kernel moves the flow repeatedly.
    for turn in 1..=20_u32 {
        pair.net.steer(host(2), host(1), turn as usize % 2);
        run(&mut pair, 100 * turn, 100 * turn + 100);
    }
    let lost = u64::from(2_100 - 1 - arrived);
    assert_eq!(pair.b.count(Discard::NoSession) - before, lost, "lost packets are counted");
    assert!(lost <= 20 * 4, "{lost} lost in 20 moves");
    assert_eq!(pair.b.count(Discard::Replayed), 0);
    assert!(pair.carries_packets());
    pair.assert_even();
}

#[test]
fn r7_order_is_kept_while_a_busy_flow_s_ownership_moves() {
    for seed in 1..=8 {
        let mut rng = Rng::new(seed);
        let mut pair = two_workers();
        let ended = [Discard::NoSession, Discard::HandoffFull, Discard::EgressFull];
        let lost = |pair: &Pair| ended.iter().map(|&why| pair.b.count(why)).sum::<u64>();
        let before = lost(&pair);
        let (mut sent, mut last, mut arrived) = (0_u32, 0, 0_u32);
        for round in 0..3_000 {
            if rng.below(40) == 0 {
                // The order of frames in two kernel queues is undefined, so both queues must be
                // empty when the flow moves.
                for worker in &mut pair.b.workers {
                    worker.poll(pair.now);
                }
                let worker = rng.below(2);
                pair.net.steer(host(2), host(1), worker);
            }
            for _ in 0..rng.below(8) {
                sent += 1;
                send(&mut pair.at_a, pair.to_b, &sent.to_be_bytes());
            }
            pair.now.0 += 3 * MS;
            pair.a.poll(pair.now);
            // The workers and the slow path of B are polled in random order.
            for _ in 0..rng.below(6) {
                match rng.below(3) {
                    2 => pair.b.events.extend(pair.b.switch.poll(pair.now)),
                    worker => drop(pair.b.workers[worker].poll(pair.now)),
                }
            }
            if round == 2_999 {
                pair.run_for(1);
            }
            while let Some(payload) = receive(&mut pair.at_b) {
                let n = number(&payload);
                assert!(n > last, "R7: {n} after {last}");
                (last, arrived) = (n, arrived + 1);
            }
        }
        let lost = lost(&pair) - before;
        assert_eq!(u64::from(sent), u64::from(arrived) + lost, "lost packets are counted");
        assert!(lost < u64::from(sent) / 20, "{lost} of {sent}");

        // The session moves to the worker that receives the flow. This worker then opens the frames
        // without a handoff.
        pair.net.steer(host(2), host(1), 1);
        for _ in 0..20 {
            assert!(pair.carries_packets());
            pair.advance(10 * MS);
        }
        let opened = |pair: &Pair| {
            let slot = pair.b.peer_view(1).slot;
            pair.b.switch.slots().iter().find(|view| view.slot == slot).expect("its slot").frames_in
        };
        let before = opened(&pair);
        send(&mut pair.at_a, pair.to_b, b"by the other one");
        pair.a.poll(pair.now);
        pair.b.workers[1].poll(pair.now);
        assert_eq!(opened(&pair), before + 1);
        pair.advance(MS);
        pair.assert_even();
    }
}

#[test]
fn a_peer_whose_frames_alternate_between_workers_stays_with_one() {
    let mut rng = Rng::new(1);
    let mut pair = two_workers();
    let mut arrived = 0_u32;
    for n in 0..2_000_u32 {
        // The packets arrive on two queues in turn, like those of a peer with two lanes.
        pair.net.steer(host(2), host(1), n as usize % 2);
        send(&mut pair.at_a, pair.to_b, &n.to_be_bytes());
        pair.now.0 += 3 * MS;
        pair.a.poll(pair.now);
        // The workers and the slow path of B are polled in random order.
        for _ in 0..rng.below(6) {
            match rng.below(3) {
                2 => pair.b.events.extend(pair.b.switch.poll(pair.now)),
                worker => drop(pair.b.workers[worker].poll(pair.now)),
            }
        }
        while receive(&mut pair.at_b).is_some() {
            arrived += 1;
        }
    }
    pair.advance(MS);
    while receive(&mut pair.at_b).is_some() {
        arrived += 1;
    }
    assert_eq!((arrived, pair.b.count(Discard::NoSession)), (2_000, 0));
    pair.assert_even();
}

#[test]
fn r8_a_forged_frame_at_another_worker_moves_no_session() {
    let mut pair = two_workers();
    pair.run_for(3);
    let fresh = snatched(&mut pair, b"to be forged");
    pair.net.steer(host(2), host(66), 1);
    pair.net.steer(host(2), host(67), 1);
    for round in 0..200_u32 {
        let mut forged = fresh.clone();
        let at = forged.len() - 1 - round as usize % 16;
        forged[at] ^= 1;
        pair.net.inject(host(66), host(2), &forged);
        // The attacker also sends unsolicited handshake messages to the same session.
        forged[0] = if round % 2 == 0 { 0x20 } else { 0x30 };
        pair.net.inject(host(67), host(2), &forged);
        pair.now.0 += MS;
        let mut arrived = Vec::new();
        for n in 0..8 {
            send(&mut pair.at_a, pair.to_b, &(8 * round + n).to_be_bytes());
            pair.a.poll(pair.now);
            pair.b.poll(pair.now);
        }
        pair.advance(1_000);
        while let Some(payload) = receive(&mut pair.at_b) {
            arrived.push(number(&payload));
        }
        assert_eq!(arrived, (8 * round..8 * round + 8).collect::<Vec<_>>(), "no packet is lost");
    }
    assert_eq!(pair.b.count(Discard::BadSeal), 200);
    assert_eq!(pair.b.count(Discard::NoSession) + pair.b.count(Discard::Malformed), 200);
    assert!(
        pair.net.take_received(host(66)).is_empty() && pair.net.take_received(host(67)).is_empty()
    );
    pair.assert_even();
}

#[test]
fn r23_frames_forged_under_a_visible_session_leave_others_the_ring() {
    let mut pair = two_workers();
    pair.run_for(3);
    let fresh = snatched(&mut pair, b"to be forged");
    // The peer's packets arrive at a worker that does not own its session, and so do the forged
    // packets.
    for from in [1, 66, 67] {
        pair.net.steer(host(2), host(from), 1);
    }
    let before = pair.b.count(Discard::HandoffFull);
    let mut arrived = 0;
    for round in 0..100_u32 {
        for n in 0..600_u32 {
            let mut forged = fresh.clone();
            let at = forged.len() - 1 - n as usize % 16;
            forged[at] ^= 1;
            pair.net.inject(host(66 + (n % 2) as u8), host(2), &forged);
        }
        for _ in 0..3 {
            pair.b.workers[1].poll(pair.now);
        }
        for n in 0..4 {
            send(&mut pair.at_a, pair.to_b, &(4 * round + n).to_be_bytes());
        }
        pair.a.poll(pair.now);
        pair.b.workers[1].poll(pair.now);
        for _ in 0..2 {
            pair.b.workers[0].poll(pair.now);
        }
        while receive(&mut pair.at_b).is_some() {
            arrived += 1;
        }
    }
    assert!(pair.b.count(Discard::HandoffFull) - before > 10_000);
    assert_eq!(arrived, 400, "no packet of the peer is lost");
    pair.advance(1);
    pair.assert_even();
}

#[test]
fn a_clock_that_jumps_both_ways_causes_no_panic_and_the_link_comes_back() {
    let jumps: [i128; 8] = [
        -3_600_000_000_000,
        3_600_000_000_000,
        -1,
        86_400_000_000_000 * 400,
        -(86_400_000_000_000 * 400),
        i128::from(u64::MAX),
        -i128::from(u64::MAX),
        600_000_000_000,
    ];
    let mut pair = Pair::new();
    pair.now = Now(7_200 * SECOND);
    pair.until_up();
    for jump in jumps {
        let now = (i128::from(pair.now.0) + jump).clamp(0, i128::from(u64::MAX) - 1);
        // First the clock of A jumps, then that of B.
        for _ in 0..5 {
            pair.a.poll(Now(now as u64));
            pair.b.poll(pair.now);
        }
        pair.now = Now((now as u64).min(u64::MAX - 1_000 * SECOND));
        let took = pair.until_up();
        assert!(took < 60 * SECOND, "{took} ns after {jump}");
        // The link continues to work: timers run, and keys are renewed.
        let before = pair.a.peer_view(2).handshakes;
        pair.run_with_traffic(150);
        assert!(pair.a.peer_view(2).handshakes > before, "no new keys after {jump}");
        assert!(pair.carries_packets(), "after {jump}");
        pair.assert_even();
    }
}

/// wire.md: W3-10.
#[test]
fn r10_workers_go_on_without_a_slow_path_until_their_keys_are_old() {
    let mut pair = Pair::new();
    pair.until_up();
    // The slow path is not polled, as if it had ended. Only the workers are polled, for almost the
    // lifetime of the keys.
    let began = pair.now.0;
    let mut arrived = 0;
    let mut sent = 0;
    while pair.now.0 - began < 170 * SECOND {
        send(&mut pair.at_a, pair.to_b, b"on and on");
        sent += 1;
        pair.now.0 += 100 * MS;
        for _ in 0..3 {
            pair.a.workers[0].poll(pair.now);
            pair.b.workers[0].poll(pair.now);
        }
        arrived += u32::from(receive(&mut pair.at_b).is_some());
    }
    assert_eq!((sent, arrived), (1_700, 1_700));
    // The slow path is polled again, and the link continues.
    pair.until_up();
    assert!(pair.carries_packets());
    pair.assert_even();
}

/// wire.md: W3-10.
#[test]
fn r10_workers_without_a_slow_path_forward_until_the_keys_expire_and_count_later_drops() {
    let mut pair = Pair::new();
    pair.until_up();
    let Pair { a, mut b, mut at_a, mut at_b, to_b, mut now, .. } = pair;
    let Node { switch, mut workers, .. } = a;
    drop(switch);
    let born = now.0;
    let (mut in_time, mut late) = (0, 0);
    for _ in 0..300 {
        send(&mut at_a, to_b, b"data");
        now.0 += SECOND;
        for _ in 0..3 {
            workers[0].poll(now);
            b.poll(now);
        }
        let arrived = u32::from(receive(&mut at_b).is_some());
        if now.0 - born < 175 * SECOND { in_time += arrived } else { late += arrived }
    }
    assert!(in_time >= 174, "{in_time}");
    assert!(late <= 10, "{late} packets under expired keys");
    b.assert_even();
}

#[test]
fn a_loop_made_on_purpose_costs_its_hop_budget_and_no_more() {
    let turning = |seed| {
        let config = SwitchConfig::default().with_u_turns(true);
        NodeSpec { config, ..NodeSpec::new(seed) }
    };
    let mut pair = Pair::with(turning(1), turning(2), |_, spec| spec);
    pair.until_up();
    let (b_at_a, a_at_b) = (pair.a.peer_view(2).slot, pair.b.peer_view(1).slot);
    let slot_a = pair.a.switch.slots().iter().find(|s| s.slot != b_at_a).expect("two").slot;
    // The packet goes back and forth between two switches, once for each director of its label.
    let mut hops = vec![hop(slot_a.number(), b_at_a.number())];
    hops.extend((0..12).map(|n| {
        if n % 2 == 0 {
            hop(a_at_b.number(), a_at_b.number())
        } else {
            hop(b_at_a.number(), b_at_a.number())
        }
    }));
    let label = path(&hops);
    pair.net.start_log();
    for hops_left in 1..=20_u8 {
        let spent =
            |pair: &Pair| pair.a.count(Discard::HopsSpent) + pair.b.count(Discard::HopsSpent);
        let before = spent(&pair);
        pair.net.take_log();
        let mut bytes = packet(label, b"round and round");
        bytes[8 + 2] = hops_left;
        let mut frame = pair.at_a.frame(bytes.len()).expect("memory");
        frame.bytes_mut().copy_from_slice(&bytes);
        pair.at_a.send(frame).expect("room");
        for _ in 0..10 {
            pair.advance(1_000);
        }
        let crossed = pair
            .net
            .take_log()
            .iter()
            .filter(|d| kind(&d.bytes) == 4 && d.bytes.len() > 24)
            .count();
        // Each crossing uses one hop. Without a hop limit, the packet crosses 13 times.
        assert_eq!(crossed, usize::from(hops_left).min(13), "{hops_left} hops");
        assert_eq!(spent(&pair) - before, u64::from(hops_left <= 13));
    }
    pair.assert_even();
}
