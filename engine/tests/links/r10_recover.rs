//! R10: the slow path panics at any point and is reset by `Switch::recover`. Workers forward
//! meanwhile, links are kept or come up again within a second, and the counters balance. The tests
//! run in virtual time.

use strowger_engine::{
    Now,
    control::{
        Event, SlotState,
        peering::{Liveness, UnknownPeerPolicy},
    },
    discard::Discard,
    link::Rights,
};
use strowger_frame::{Address, Wake};
use strowger_testkit::sim::{Fuse, MS, Node, NodeSpec, Pair, SECOND, receive, send};
use strowger_wire::Slot;

/// A waker that panics.
struct Alarm(Fuse);

impl Wake for Alarm {
    fn wake(&self) {
        self.0.tick();
    }
}

/// Two switches whose link is never idle.
fn busy() -> Pair {
    Pair::with(NodeSpec::new(1), NodeSpec::new(2), |_, spec| {
        spec.with_liveness(Liveness::default().with_always(true))
    })
}

/// Whether both ends show the link as up, and packets pass in both directions.
fn is_well(pair: &mut Pair) -> bool {
    pair.a.is_up() && pair.b.is_up() && pair.carries_packets()
}

/// Runs until the link works again after a panic. Returns the time in nanoseconds.
#[track_caller]
fn mended(pair: &mut Pair) -> u64 {
    let began = pair.now.0;
    while !is_well(pair) {
        pair.advance(10 * MS);
        assert!(pair.now.0 - began < 60 * SECOND, "{:?}", pair.a.switch.peers());
    }
    pair.now.0 - began
}

#[test]
fn r10_a_panic_in_any_draw_of_randomness_leaves_a_link_that_works_within_a_second() {
    // The panic happens when the node draws random bytes: in the first handshake, in a rekey, or
    // between them.
    for draw in 1..=24 {
        let mut pair = busy();
        pair.a.fuse.arm(draw);
        for _ in 0..100 {
            if is_well(&mut pair) {
                break;
            }
            pair.advance(10 * MS);
        }
        for _ in 0..10_000 {
            if !pair.a.fuse.is_armed() {
                break;
            }
            pair.advance(100 * MS);
        }
        assert_eq!(pair.a.restarts, 1, "the run ended before draw {draw}");
        let took = mended(&mut pair);
        assert!(took <= SECOND, "draw {draw}: {took} ns");
        pair.run_for(1);
        assert!(pair.a.switch.is_settled());
        pair.assert_even();
    }
}

#[test]
fn r10_forwarding_loses_no_packet_while_the_slow_path_recovers() {
    let mut pair =
        Pair::with(NodeSpec { workers: 2, ..NodeSpec::new(1) }, NodeSpec::new(2), |_, spec| spec);
    pair.until_up();
    let handshakes = pair.a.peer_view(2).handshakes;
    let (mut sent, mut received) = (0, 0);
    let mut exchange = |pair: &mut Pair| {
        for _ in 0..5 {
            send(&mut pair.at_a, pair.to_b, b"there");
            send(&mut pair.at_b, pair.to_a, b"back");
            sent += 2;
        }
        pair.advance(MS);
        while receive(&mut pair.at_a).is_some() || receive(&mut pair.at_b).is_some() {
            received += 1;
        }
    };
    for _ in 0..50 {
        exchange(&mut pair);
    }
    // The slow path has ended and is not recovered yet.
    for worker in pair.a.workers.iter_mut().chain(&mut pair.b.workers) {
        worker.poll(pair.now);
    }
    let now = pair.now;
    pair.a.switch.recover(now);
    for _ in 0..1_000 {
        exchange(&mut pair);
    }
    pair.run_for(1);
    while receive(&mut pair.at_a).is_some() || receive(&mut pair.at_b).is_some() {
        received += 1;
    }
    assert_eq!(sent, received, "{:?}", pair.a.switch.balance());
    assert!(pair.a.peer_view(2).handshakes > handshakes, "new keys were made");
    assert!(pair.a.events.contains(&Event::SlowPathRestarted));
    let down = |event: &Event| matches!(event, Event::LinkDown(_));
    assert!(!pair.a.events.iter().chain(&pair.b.events).any(down), "the link was kept");
    pair.assert_even();
}

#[test]
fn r10_keys_that_outlived_their_session_are_dropped_when_they_are_too_old() {
    let mut pair = busy();
    pair.until_up();
    pair.net.start_log();
    assert!(pair.carries_packets());
    let mut copies = pair.net.take_log();
    copies.retain(|copy| copy.to == strowger_testkit::sim::host(1) && copy.bytes[0] >> 4 >= 4);
    let copy = copies.pop().expect("B has sent something");
    let throw = |pair: &mut Pair| {
        pair.net.inject(
            strowger_testkit::sim::host(2),
            strowger_testkit::sim::host(1),
            &copy.bytes,
        );
        pair.advance(MS);
        (pair.a.count(Discard::Replayed), pair.a.count(Discard::NoSession))
    };
    for _ in 0..20 {
        let now = pair.now;
        pair.a.switch.recover(now);
        pair.run_for(1);
        assert!(is_well(&mut pair));
    }
    let (replayed, unknown) = throw(&mut pair);
    assert_eq!(replayed, 1, "the keys and the window still exist");
    pair.run_for(200);
    assert_eq!(throw(&mut pair), (replayed, unknown + 1), "the keys and the window are gone");
    assert!(is_well(&mut pair));
    pair.assert_even();
}

#[test]
fn r10_a_dead_peer_s_link_goes_down_although_no_session_has_its_keys() {
    let mut pair = busy();
    pair.until_up();
    let now = pair.now;
    pair.a.switch.recover(now);
    pair.net.cut(strowger_testkit::sim::host(2), true);
    pair.run_for(200);
    assert!(!pair.a.peer_view(2).is_up());
    pair.net.cut(strowger_testkit::sim::host(2), false);
    pair.run_for(20);
    assert!(is_well(&mut pair));
    pair.assert_even();
}

#[test]
fn r10_a_peer_without_an_address_is_found_again_and_so_is_an_unknown_one() {
    let policy = UnknownPeerPolicy::default().with_rights(Rights::ALL).with_links_max(4);
    let first = NodeSpec { unknown_peers: Some(policy), ..NodeSpec::new(1) };
    let mut pair = Pair::with(first, NodeSpec::new(2), |own, spec| {
        let spec = spec.with_liveness(Liveness::default().with_always(true));
        if own == 1 { spec.with_address(None::<Address>) } else { spec }
    });
    pair.until_up();
    assert_eq!(pair.a.peer_view(2).at, Some(Address::Udp(strowger_testkit::sim::host(2))));
    for _ in 0..3 {
        let now = pair.now;
        pair.a.switch.recover(now);
        assert!(mended(&mut pair) <= SECOND);
        pair.run_for(1);
    }
    pair.run_for(400);
    assert!(is_well(&mut pair));
    pair.assert_even();
}

#[test]
fn r10_r3_the_frame_that_a_panicking_slow_path_held_is_counted_as_abandoned() {
    let mut pair = busy();
    // Only B begins a handshake. A's random source panics while A handles B's initiation.
    pair.net.cut(strowger_testkit::sim::host(1), true);
    pair.advance(MS);
    pair.net.cut(strowger_testkit::sim::host(1), false);
    pair.until_up();
    // The recovery makes B begin the next handshake, to which A responds.
    let mut abandoned = 0;
    for draw in 1..=6 {
        let now = pair.now;
        pair.b.switch.recover(now);
        pair.a.fuse.arm(draw);
        pair.run_for(2);
        abandoned = pair.a.count(Discard::Abandoned);
        assert!(mended(&mut pair) <= SECOND);
        pair.run_for(6);
        pair.a.assert_even();
    }
    assert!(abandoned > 0, "the slow path held a frame");
    pair.assert_even();
}

#[test]
fn r10_attachments_moves_and_detachments_in_progress_are_completed() {
    // The slow path calls wakers between its steps, so each call is another place for a panic.
    let mut seen = [0; 3];
    for rings in 1..=16 {
        for (what, panics) in seen.iter_mut().enumerate() {
            let mut pair = Pair::with(
                NodeSpec { workers: 2, ..NodeSpec::new(1) },
                NodeSpec::new(2),
                |_, spec| spec,
            );
            pair.until_up();
            let fuse = pair.a.fuse.clone();
            let (slot, _spare) = pair.a.add_endpoint();
            let alarm = std::sync::Arc::new(Alarm(fuse.clone()));
            if what > 0 {
                pair.run_for(1);
            }
            pair.a.switch.set_waker(0, alarm.clone());
            pair.a.switch.set_waker(1, alarm);
            fuse.arm(rings);
            let to = match what {
                0 => slot,
                1 => (pair.a.switch.renumber(Slot::new(slot), None).expect("a number")).number(),
                _ => {
                    pair.a.switch.detach(Slot::new(slot)).expect("the slot is there");
                    slot
                }
            };
            pair.run_for(1);
            // The last panic may have happened only just now.
            for _ in 0..20 {
                if !pair.a.switch.is_settled() {
                    pair.advance(MS);
                }
            }
            *panics += pair.a.restarts;
            assert!(pair.a.switch.is_settled(), "{what} at {rings}");
            let view = pair
                .a
                .switch
                .slots()
                .into_iter()
                .find(|view| view.slot == Slot::new(to))
                .expect("known");
            let wanted = if what == 2 { SlotState::Quarantined } else { SlotState::Attached };
            assert_eq!(view.state, wanted, "{what} at {rings}: {view:?}");
            assert!(pair.a.events.contains(&match what {
                0 => Event::SlotAttached(Slot::new(slot)),
                1 => Event::SlotMoved(Slot::new(slot), Slot::new(to)),
                _ => Event::SlotDetached(Slot::new(slot)),
            }));
            fuse.arm(0);
            assert!(mended(&mut pair) <= SECOND, "{what} at {rings}");
            pair.assert_even();
        }
    }
    assert!(seen.iter().all(|&panics| panics >= 4), "points reached: {seen:?}");
}

#[test]
fn r10_a_panic_upon_a_panic_is_no_worse_than_one() {
    let mut pair = busy();
    pair.until_up();
    for draws in 1..=4 {
        pair.a.fuse.arm(draws);
        let now = pair.now;
        // The slow path recovers twice before the workers have replied, and again during the
        // handshakes that follow.
        pair.a.switch.recover(now);
        pair.a.switch.recover(now);
        assert!(mended(&mut pair) <= SECOND);
        pair.run_for(1);
        assert!(pair.a.switch.is_settled());
    }
    assert!(pair.a.restarts >= 3);
    pair.assert_even();
}

#[test]
fn r1_quarantines_restart_when_the_slow_path_recovers() {
    let mut node = Node::without_port(&NodeSpec::new(1), Now(1));
    let (slot, endpoint) = node.add_endpoint();
    // Time advances in steps, because the quarantine ignores jumps of the clock.
    let mut now = 1;
    let mut turn = |node: &mut Node, at: u64| {
        while now < at {
            now = at.min(now + SECOND);
            (0..8).for_each(|_| node.poll(Now(now)));
        }
    };
    turn(&mut node, SECOND);
    node.switch.detach(Slot::new(slot)).expect("the slot is there");
    turn(&mut node, 2 * SECOND);
    let quarantine = node.switch.config().quarantine().as_nanos() as u64;
    node.switch.recover(Now(2 * SECOND + quarantine / 2));
    turn(&mut node, 2 * SECOND + quarantine);
    let views = node.switch.slots();
    assert!(views.iter().any(|v| v.slot == Slot::new(slot) && v.state == SlotState::Quarantined));
    turn(&mut node, 2 * SECOND + 2 * quarantine);
    assert!(
        node.switch.slots().iter().all(|view| view.slot != Slot::new(slot)),
        "the slot is free"
    );
    drop(endpoint);
}
