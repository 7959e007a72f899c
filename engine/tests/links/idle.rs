//! Idle links send nothing, and the first packets after the idle time are not lost. The tests run
//! in virtual time.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use strowger_engine::{
    Now,
    control::{
        Attach, Event,
        peering::{LinkState, Liveness},
    },
    discard::Discard,
    link::Behind,
};
use strowger_frame::{Address, Wake};
use strowger_io::{EndpointSpec, endpoint};
use strowger_testkit::sim::{
    MS, Node, NodeSpec, Pair, SECOND, SimNet, hop, host, path, receive, send,
};

const PER_LINK: usize = 4;
const IN_ALL: usize = 32;

/// A pair whose link is idle.
fn idle_pair() -> Pair {
    let mut pair = Pair::new();
    become_idle(&mut pair);
    pair
}

fn become_idle(pair: &mut Pair) {
    pair.until_up();
    pair.run_for(250);
    assert_eq!(states(pair), [LinkState::Idle; 2]);
    assert!(pair.a.events.contains(&Event::LinkIdle(pair.a.peer_view(2).slot)));
    assert!(!pair.a.events.iter().any(|event| matches!(event, Event::LinkDown(_))));
    pair.a.events.clear();
    pair.b.events.clear();
}

fn states(pair: &Pair) -> [LinkState; 2] {
    [pair.a.peer_view(2).state, pair.b.peer_view(1).state]
}

fn refused(node: &Node) -> u64 {
    [Discard::LinkDown, Discard::KeysExpired, Discard::NoSession]
        .map(|why| node.count(why))
        .iter()
        .sum()
}

/// wire.md: W3-43, W4-103, W4-106, W4-107.
#[test]
fn an_hour_of_idleness_costs_nothing_and_the_next_packet_gets_through() {
    for (from_a, chats) in [(true, false), (false, false), (true, true)] {
        let mut pair = Pair::new();
        pair.net.set_mtu(1_472);
        pair.until_up();
        // The path MTU is found once, even if no packet is sent.
        pair.run_for(20);
        if chats {
            pair.run_with_traffic(130);
        }
        // In the next 200 seconds, searches and rekeys in progress end, and the keys are renewed at
        // most once.
        pair.net.start_log();
        pair.run_for(200);
        let after: usize = pair.net.take_log().iter().map(|d| d.bytes.len()).sum();
        assert!(after < 4_000, "{after} bytes after the last packet");
        pair.run_for(3_600);
        let bytes: usize = pair.net.take_log().iter().map(|d| d.bytes.len()).sum();
        assert!(bytes <= 60 * 8, "{bytes} bytes in an hour");
        assert_eq!(states(&pair), [LinkState::Idle; 2]);

        while receive(&mut pair.at_a).is_some() || receive(&mut pair.at_b).is_some() {}
        let (before, now) = (refused(&pair.a) + refused(&pair.b), pair.now.0);
        if from_a {
            send(&mut pair.at_a, pair.to_b, b"after the silence");
        } else {
            send(&mut pair.at_b, pair.to_a, b"after the silence");
        }
        let arrived = loop {
            pair.advance(MS);
            let at = if from_a { &mut pair.at_b } else { &mut pair.at_a };
            if let Some(payload) = receive(at) {
                break payload;
            }
            assert!(pair.now.0 - now < SECOND, "{:?}", pair.a.switch.peers());
        };
        assert_eq!(arrived, b"after the silence");
        assert_eq!(refused(&pair.a) + refused(&pair.b), before, "nothing was lost");
        pair.run_for(1);
        assert_eq!(states(&pair), [LinkState::Up; 2]);
        assert!(pair.carries_packets());
        pair.assert_even();
    }
}

#[test]
fn both_ends_wake_at_once() {
    let mut pair = idle_pair();
    send(&mut pair.at_a, pair.to_b, b"you");
    send(&mut pair.at_b, pair.to_a, b"me");
    pair.run_for(2);
    assert_eq!(receive(&mut pair.at_b).as_deref(), Some(&b"you"[..]));
    assert_eq!(receive(&mut pair.at_a).as_deref(), Some(&b"me"[..]));
    assert_eq!(refused(&pair.a) + refused(&pair.b), 0);
    assert!(pair.carries_packets());
    pair.assert_even();
}

#[test]
fn the_first_packet_gets_through_at_30_percent_loss_of_handshake_messages() {
    let mut pair = Pair::new();
    for seed in 1..=30 {
        pair.net.set_loss(0, 0);
        become_idle(&mut pair);
        pair.net.set_handshake_loss(300_000, seed);
        send(&mut pair.at_a, pair.to_b, &seed.to_be_bytes());
        let began = pair.now.0;
        let arrived = loop {
            pair.advance(100 * MS);
            if let Some(payload) = receive(&mut pair.at_b) {
                break payload;
            }
            assert!(pair.now.0 - began < 12 * SECOND, "seed {seed}");
        };
        assert_eq!(arrived, seed.to_be_bytes());
        assert_eq!(refused(&pair.a) + refused(&pair.b), 0, "seed {seed}");
    }
    pair.net.set_loss(0, 0);
    pair.run_for(30);
    pair.assert_even();
}

/// wire.md: W4-106.
#[test]
fn r7_pending_frames_leave_first_and_in_order_and_excess_ones_are_counted() {
    let mut pair = idle_pair();
    for number in 0..10_u8 {
        send(&mut pair.at_a, pair.to_b, &[number]);
        pair.a.workers[0].poll(pair.now);
    }
    let more = 10 - PER_LINK as u64;
    assert_eq!(pair.a.count(Discard::LinkDown), more, "no room for those packets");
    for number in 10..20_u8 {
        pair.advance(1_000);
        send(&mut pair.at_a, pair.to_b, &[number]);
    }
    pair.run_for(1);
    let arrived: Vec<u8> = std::iter::from_fn(|| receive(&mut pair.at_b)).map(|p| p[0]).collect();
    assert!(arrived.is_sorted(), "{arrived:?}");
    assert_eq!(arrived[..PER_LINK], [0, 1, 2, 3]);
    assert_eq!(arrived.len() as u64, 20 - refused(&pair.a));
    pair.assert_even();
}

/// wire.md: W4-97, W4-106, W4-107.
#[test]
fn an_idle_link_that_does_not_wake_is_down_and_pending_frames_are_counted() {
    let mut pair = idle_pair();
    let free = pair.a.free_chunks();
    pair.net.cut(host(2), true);
    for number in 0..PER_LINK as u8 {
        send(&mut pair.at_a, pair.to_b, &[number]);
    }
    pair.run_for(1);
    assert_eq!(
        (refused(&pair.a), pair.a.peer_view(2).state),
        (0, LinkState::Idle),
        "the packets wait"
    );
    pair.run_for(11);
    assert_eq!(pair.a.peer_view(2).state, LinkState::Down);
    let slot = pair.a.peer_view(2).slot;
    let [Event::LinkDown(down), Event::LinkTrouble(trouble, why)] = pair.a.events[..] else {
        panic!("{:?}", pair.a.events);
    };
    assert_eq!((down, trouble, why.name()), (slot, slot, "no_answer"));
    assert_eq!(pair.a.count(Discard::LinkDown), PER_LINK as u64);
    // Frames to a peer whose link is down do not wait.
    send(&mut pair.at_a, pair.to_b, b"anybody?");
    pair.advance(MS);
    assert_eq!(pair.a.count(Discard::LinkDown), PER_LINK as u64 + 1);
    assert_eq!(pair.a.free_chunks(), free);
    pair.assert_even();
    pair.net.cut(host(2), false);
    let took = pair.until_up();
    assert!(took < 20 * SECOND, "{took} ns");
    pair.assert_even();
}

/// wire.md: W4-107.
#[test]
fn a_peer_that_moved_while_idle_is_found_when_it_sends() {
    let mut pair = idle_pair();
    pair.net.move_socket(host(1), host(11));
    send(&mut pair.at_a, pair.to_b, b"from elsewhere");
    pair.run_for(1);
    assert_eq!(receive(&mut pair.at_b).as_deref(), Some(&b"from elsewhere"[..]));
    assert_eq!(pair.b.peer_view(1).at, Some(Address::Udp(host(11))));
    assert!(pair.carries_packets());
    pair.assert_even();
}

#[test]
fn frames_that_wait_at_a_detached_slot_are_counted() {
    let mut pair = idle_pair();
    let free = pair.a.free_chunks();
    pair.net.cut(host(2), true);
    send(&mut pair.at_a, pair.to_b, b"too late");
    pair.a.workers[0].poll(pair.now);
    let slot = pair.a.peer_view(2).slot;
    pair.a.switch.detach(slot).expect("the slot is there");
    pair.run_for(1);
    assert_eq!(pair.a.count(Discard::ExitGone), 1);
    assert_eq!(pair.a.free_chunks(), free);
    pair.a.assert_even();
}

/// wire.md: W4-103.
#[test]
fn a_rarely_used_link_loses_nothing_and_one_with_constant_liveness_is_never_idle() {
    let mut pair = Pair::new();
    pair.until_up();
    for gap in [50, 59, 61, 100, 121, 141, 170, 175, 178, 179, 180, 181, 185, 189, 190, 200, 400] {
        for number in 0..4_u8 {
            // Each packet is sent a little later in the lifetime of a key, so that the test covers
            // different ages.
            pair.advance(u64::from(number) * 30 * MS);
            send(&mut pair.at_a, pair.to_b, &[number]);
            pair.run_for(gap);
            assert_eq!(receive(&mut pair.at_b).as_deref(), Some(&[number][..]), "{gap} s apart");
        }
    }
    assert_eq!(refused(&pair.a) + refused(&pair.b), 0);
    pair.assert_even();

    let always = Liveness::default().with_always(true);
    let mut pair = Pair::with(NodeSpec::new(1), NodeSpec::new(2), |own, spec| {
        if own == 1 { spec.with_liveness(always) } else { spec }
    });
    pair.until_up();
    pair.run_for(1_000);
    assert_eq!(states(&pair), [LinkState::Up; 2]);
    assert!(pair.a.peer_view(2).handshakes >= 7);
}

#[test]
fn few_frames_wait_in_all() {
    let (net, mut now) = (SimNet::default(), Now(1));
    let mut hub = Node::new(&net, &NodeSpec::new(1), now);
    let (own, mut at_hub) = hub.add_endpoint();
    let mut rim: Vec<Node> =
        (2..12).map(|seed| Node::new(&net, &NodeSpec::new(seed), now)).collect();
    let slots: Vec<u32> = (2..12).map(|seed| hub.add_peer(seed, true, now)).collect();
    for node in &mut rim {
        node.add_peer(1, true, now);
    }
    let mut turn = |hub: &mut Node, now: &mut Now, tenths: u64| {
        for _ in 0..tenths {
            now.0 += 100 * MS;
            hub.poll(*now);
            rim.iter_mut().for_each(|node| node.poll(*now));
        }
    };
    turn(&mut hub, &mut now, 50);
    assert!(hub.is_up());
    turn(&mut hub, &mut now, 2_500);
    let is_idle = |hub: &Node| hub.switch.peers().iter().all(|p| p.state == LinkState::Idle);
    assert!(is_idle(&hub));
    let free = hub.free_chunks();
    net.cut(host(1), true);
    for slot in &slots {
        let label = path(&[hop(own, *slot), hop(2, 2)]);
        (0..PER_LINK).for_each(|_| send(&mut at_hub, label, b"data"));
        hub.poll(now);
    }
    let sent = slots.len() * PER_LINK;
    assert_eq!(hub.count(Discard::LinkDown), (sent - IN_ALL) as u64);
    turn(&mut hub, &mut now, 150);
    assert_eq!(hub.count(Discard::LinkDown), sent as u64);
    assert_eq!(hub.free_chunks(), free);
    hub.assert_even();
}

#[test]
fn no_frame_waits_for_a_peer_that_was_never_up() {
    let (net, mut now) = (SimNet::default(), Now(1));
    let mut alone = Node::new(&net, &NodeSpec::new(1), now);
    let (own, mut endpoint) = alone.add_endpoint();
    // One peer has no known address and never connected. The other end does not respond.
    for (seed, is_known) in [(2, false), (3, true)] {
        let slot = alone.add_peer(seed, is_known, now);
        let before = alone.count(Discard::LinkDown);
        for _ in 0..4 {
            now.0 += SECOND;
            alone.poll(now);
        }
        send(&mut endpoint, path(&[hop(own, slot), hop(2, 2)]), b"anybody?");
        alone.poll(now);
        assert_eq!(alone.count(Discard::LinkDown), before + 1, "{is_known}");
        assert_eq!(alone.peer_view(seed).state, LinkState::Down);
    }
    alone.assert_even();
}

/// A waker that records whether it was called.
#[derive(Default)]
struct Woken(AtomicBool);

impl Wake for Woken {
    fn wake(&self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn a_link_is_shown_as_up_only_when_every_worker_passes_data() {
    let (net, mut now) = (SimNet::default(), Now(1));
    let mut a = Node::new(&net, &NodeSpec { workers: 2, ..NodeSpec::new(1) }, now);
    let mut b = Node::new(&net, &NodeSpec::new(2), now);
    let (b_at_a, a_at_b) = (a.add_peer(2, true, now), b.add_peer(1, true, now));
    let (port, mut at_a) = endpoint::pair(&EndpointSpec::default()).expect("memory");
    let port = a.switch.plug_at(1, Box::new(port)).expect("room");
    let attach = Attach::plain(port, Address::Only, Behind::Endpoint, "at the second worker");
    let slot_a = a.switch.attach(attach).expect("a slot");
    let (slot_b, mut at_b) = b.add_endpoint();
    net.set_handshake_loss(1_000_000, 0);
    for _ in 0..20 {
        now.0 += MS;
        a.poll(now);
        b.poll(now);
    }
    assert!(a.switch.is_settled() && b.switch.is_settled());

    // The second worker of A is not polled while the link comes up.
    net.set_handshake_loss(0, 0);
    for _ in 0..100 {
        now.0 += 100 * MS;
        a.workers[0].poll(now);
        a.events.extend(a.switch.poll(now));
        b.poll(now);
    }
    assert!(b.is_up(), "both have confirmed their keys: {:?}", a.switch.peers());
    let is_up = |event: &Event| matches!(event, Event::LinkUp(_));
    assert!(!a.is_up() && !a.events.iter().any(is_up), "a worker lets no data pass yet");

    // An endpoint sends as soon as the link is shown as up. The slow path is polled only when the
    // worker wakes it.
    let woken = Arc::new(Woken::default());
    a.workers[1].set_slow_path_waker(woken.clone());
    let mut turns = 0;
    while !a.is_up() {
        turns += 1;
        assert!(turns < 50, "the link does not come up");
        a.workers[1].poll(now);
        if woken.0.swap(false, Ordering::Relaxed) {
            a.events.extend(a.switch.poll(now));
        }
    }
    assert_eq!(a.events.iter().filter(|event| is_up(event)).count(), 1);
    send(&mut at_a, path(&[hop(slot_a.number(), b_at_a), hop(a_at_b, slot_b)]), b"at once");
    for _ in 0..4 {
        a.poll(now);
        b.poll(now);
    }
    assert_eq!(receive(&mut at_b).as_deref(), Some(&b"at once"[..]));
    assert_eq!(a.count(Discard::LinkDown), 0);
    a.assert_even();
    b.assert_even();
}

#[test]
fn a_link_that_goes_idle_before_every_worker_passes_data_was_never_shown_as_up() {
    let (net, mut now) = (SimNet::default(), Now(1));
    let mut a = Node::new(&net, &NodeSpec { workers: 2, ..NodeSpec::new(1) }, now);
    let mut b = Node::new(&net, &NodeSpec::new(2), now);
    a.add_peer(2, true, now);
    b.add_peer(1, true, now);
    let mut pass = |a: &mut Node, b: &mut Node, workers: usize| {
        now.0 += 100 * MS;
        a.workers[..workers].iter_mut().for_each(|worker| _ = worker.poll(now));
        a.events.extend(a.switch.poll(now));
        b.poll(now);
    };
    (0..20).for_each(|_| pass(&mut a, &mut b, 1));
    assert!(b.is_up());
    (0..2_500).for_each(|_| pass(&mut a, &mut b, 1));
    assert_eq!(a.peer_view(2).state, LinkState::Idle);
    // A later poll of the second worker does not report the link as up.
    (0..50).for_each(|_| pass(&mut a, &mut b, 2));
    assert!(a.switch.is_settled());
    assert_eq!(a.peer_view(2).state, LinkState::Idle);
    let (up, idle) = (Event::LinkUp(a.peer_view(2).slot), Event::LinkIdle(a.peer_view(2).slot));
    assert!(!a.events.contains(&up) && a.events.contains(&idle), "{:?}", a.events);
    a.assert_even();
}
