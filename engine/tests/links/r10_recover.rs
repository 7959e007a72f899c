//! R10: the slow path panics, in the midst of whatever it was doing, and is reset by
//! `Switch::recover`: workers forward all the while, links are kept or remade within a second,
//! and the counters are even. Driven by hand with virtual time; nothing here sleeps.

use crate::air::{Birth, Fuse, MS, Node, Pair, SECOND, receive, send};
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

/// Rings by panicking.
struct Alarm(Fuse);

impl Wake for Alarm {
    fn wake(&self) {
        self.0.burn();
    }
}

/// Two switches whose link is never quiet.
fn busy() -> Pair {
    Pair::with(Birth::new(1), Birth::new(2), |_, spec| {
        spec.with_liveness(Liveness::default().with_always(true))
    })
}

/// Whether packets go both ways, with whatever time that takes.
fn is_well(pair: &mut Pair) -> bool {
    pair.a.is_up() && pair.b.is_up() && pair.talks()
}

/// Until the link works again after a panic; in nanoseconds.
#[track_caller]
fn mended(pair: &mut Pair) -> u64 {
    let began = pair.now.0;
    while !is_well(pair) {
        pair.pass(10 * MS);
        assert!(pair.now.0 - began < 60 * SECOND, "{:?}", pair.a.switch.peers());
    }
    pair.now.0 - began
}

#[test]
fn r10_a_panic_in_any_draw_of_randomness_leaves_a_link_that_works_within_a_second() {
    // Every draw of the first handshake, of those that renew the keys, and of what lies between.
    for draw in 1..=24 {
        let mut pair = busy();
        pair.a.fuse.light(draw);
        for _ in 0..100 {
            if is_well(&mut pair) {
                break;
            }
            pair.pass(10 * MS);
        }
        for _ in 0..10_000 {
            if !pair.a.fuse.is_lit() {
                break;
            }
            pair.pass(100 * MS);
        }
        assert_eq!(pair.a.restarts, 1, "draw {draw} was not reached");
        let took = mended(&mut pair);
        assert!(took <= SECOND, "draw {draw}: {took} ns");
        pair.wait(1);
        assert!(pair.a.switch.is_settled());
        pair.assert_even();
    }
}

#[test]
fn r10_forwarding_goes_on_and_no_packet_is_lost_while_the_slow_path_begins_anew() {
    let mut pair = Pair::with(Birth { workers: 2, ..Birth::new(1) }, Birth::new(2), |_, spec| spec);
    pair.until_up();
    let handshakes = pair.a.view(2).handshakes;
    let (mut sent, mut received) = (0, 0);
    let mut handoff_rings = |pair: &mut Pair| {
        for _ in 0..5 {
            send(&mut pair.at_a, pair.to_b, b"there");
            send(&mut pair.at_b, pair.to_a, b"back");
            sent += 2;
        }
        pair.pass(MS);
        while receive(&mut pair.at_a).is_some() || receive(&mut pair.at_b).is_some() {
            received += 1;
        }
    };
    for _ in 0..50 {
        handoff_rings(&mut pair);
    }
    // Nothing of the slow path runs here: it has died, and nobody has noticed.
    for worker in pair.a.workers.iter_mut().chain(&mut pair.b.workers) {
        worker.poll(pair.now);
    }
    let now = pair.now;
    pair.a.switch.recover(now);
    for _ in 0..1_000 {
        handoff_rings(&mut pair);
    }
    pair.wait(1);
    while receive(&mut pair.at_a).is_some() || receive(&mut pair.at_b).is_some() {
        received += 1;
    }
    assert_eq!(sent, received, "{:?}", pair.a.switch.balance());
    assert!(pair.a.view(2).handshakes > handshakes, "new keys were made");
    assert!(pair.a.events.contains(&Event::SlowPathRestarted));
    let down = |event: &Event| matches!(event, Event::LinkDown(_));
    assert!(!pair.a.events.iter().chain(&pair.b.events).any(down), "the link was kept");
    pair.assert_even();
}

#[test]
fn r10_keys_that_outlived_their_session_are_dropped_when_they_are_too_old() {
    let mut pair = busy();
    pair.until_up();
    pair.air.listen();
    assert!(pair.talks());
    let mut copies = pair.air.heard();
    copies.retain(|copy| copy.to == crate::air::host(1) && copy.bytes[0] >> 4 >= 4);
    let copy = copies.pop().expect("B has sent something");
    let throw = |pair: &mut Pair| {
        pair.air.throw(crate::air::host(2), crate::air::host(1), &copy.bytes);
        pair.pass(MS);
        (pair.a.count(Discard::Replayed), pair.a.count(Discard::NoSession))
    };
    for _ in 0..20 {
        let now = pair.now;
        pair.a.switch.recover(now);
        pair.wait(1);
        assert!(is_well(&mut pair));
    }
    let (replayed, unknown) = throw(&mut pair);
    assert_eq!(replayed, 1, "its keys and its window are there yet");
    pair.wait(200);
    assert_eq!(throw(&mut pair), (replayed, unknown + 1), "and now they are not");
    assert!(is_well(&mut pair));
    pair.assert_even();
}

#[test]
fn r10_a_dead_peer_s_link_goes_down_though_no_session_knows_its_keys() {
    let mut pair = busy();
    pair.until_up();
    let now = pair.now;
    pair.a.switch.recover(now);
    pair.air.cut(crate::air::host(2), true);
    pair.wait(200);
    assert!(!pair.a.view(2).is_up());
    pair.air.cut(crate::air::host(2), false);
    pair.wait(20);
    assert!(is_well(&mut pair));
    pair.assert_even();
}

#[test]
fn r10_a_peer_that_came_by_itself_is_found_again_and_a_stranger_too() {
    let policy = UnknownPeerPolicy::default().with_rights(Rights::ALL).with_links_max(4);
    let first = Birth { unknown_peers: Some(policy), ..Birth::new(1) };
    let mut pair = Pair::with(first, Birth::new(2), |own, spec| {
        let spec = spec.with_liveness(Liveness::default().with_always(true));
        if own == 1 { spec.with_address(None::<Address>) } else { spec }
    });
    pair.until_up();
    assert_eq!(pair.a.view(2).at, Some(Address::Udp(crate::air::host(2))));
    for _ in 0..3 {
        let now = pair.now;
        pair.a.switch.recover(now);
        assert!(mended(&mut pair) <= SECOND);
        pair.wait(1);
    }
    pair.wait(400);
    assert!(is_well(&mut pair));
    pair.assert_even();
}

#[test]
fn r10_r3_the_frame_that_a_panicking_slow_path_held_is_counted_as_abandoned() {
    let mut pair = busy();
    // B alone begins: its initiation is in A's hand when A's randomness panics.
    pair.air.cut(crate::air::host(1), true);
    pair.pass(MS);
    pair.air.cut(crate::air::host(1), false);
    pair.until_up();
    // The next handshake is B's, forced; A answers it.
    let mut abandoned = 0;
    for draw in 1..=6 {
        let now = pair.now;
        pair.b.switch.recover(now);
        pair.a.fuse.light(draw);
        pair.wait(2);
        abandoned = pair.a.count(Discard::Abandoned);
        assert!(mended(&mut pair) <= SECOND);
        pair.wait(6);
        pair.a.assert_even();
    }
    assert!(abandoned > 0, "a frame was in hand");
    pair.assert_even();
}

#[test]
fn r10_what_was_being_attached_moved_or_taken_away_is_finished() {
    // Bells are rung between steps, so each ring is another place to stop at.
    let mut seen = [0; 3];
    for rings in 1..=16 {
        for (what, panics) in seen.iter_mut().enumerate() {
            let mut pair =
                Pair::with(Birth { workers: 2, ..Birth::new(1) }, Birth::new(2), |_, spec| spec);
            pair.until_up();
            let fuse = pair.a.fuse.clone();
            let (slot, _spare) = pair.a.endpoint();
            let alarm = std::sync::Arc::new(Alarm(fuse.clone()));
            if what > 0 {
                pair.wait(1);
            }
            pair.a.switch.set_waker(0, alarm.clone());
            pair.a.switch.set_waker(1, alarm);
            fuse.light(rings);
            let to = match what {
                0 => slot,
                1 => pair.a.switch.renumber(slot, None).expect("a number"),
                _ => {
                    pair.a.switch.detach(slot).expect("it is there");
                    slot
                }
            };
            pair.wait(1);
            // The last ring may have been a moment ago.
            for _ in 0..20 {
                if !pair.a.switch.is_settled() {
                    pair.pass(MS);
                }
            }
            *panics += pair.a.restarts;
            assert!(pair.a.switch.is_settled(), "{what} at {rings}");
            let view =
                pair.a.switch.slots().into_iter().find(|view| view.slot == to).expect("known");
            let wanted = if what == 2 { SlotState::Quarantined } else { SlotState::Attached };
            assert_eq!(view.state, wanted, "{what} at {rings}: {view:?}");
            assert!(pair.a.events.contains(&match what {
                0 => Event::SlotAttached(slot),
                1 => Event::SlotMoved(slot, to),
                _ => Event::SlotDetached(slot),
            }));
            fuse.light(0);
            assert!(mended(&mut pair) <= SECOND, "{what} at {rings}");
            pair.assert_even();
        }
    }
    assert!(seen.iter().all(|&panics| panics >= 4), "places were met: {seen:?}");
}

#[test]
fn r10_a_panic_upon_a_panic_is_no_worse_than_one() {
    let mut pair = busy();
    pair.until_up();
    for draws in 1..=4 {
        pair.a.fuse.light(draws);
        let now = pair.now;
        // Twice before the workers have answered, and again by the handshakes that follow.
        pair.a.switch.recover(now);
        pair.a.switch.recover(now);
        assert!(mended(&mut pair) <= SECOND);
        pair.wait(1);
        assert!(pair.a.switch.is_settled());
    }
    assert!(pair.a.restarts >= 3);
    pair.assert_even();
}

#[test]
fn r1_quarantines_begin_again_when_the_slow_path_does() {
    let mut node = Node::bare(&Birth::new(1), Now(1));
    let (slot, endpoint) = node.endpoint();
    // In steps, as time passes: a leap would not count.
    let mut now = 1;
    let mut turn = |node: &mut Node, at: u64| {
        while now < at {
            now = at.min(now + SECOND);
            (0..8).for_each(|_| node.turn(Now(now)));
        }
    };
    turn(&mut node, SECOND);
    node.switch.detach(slot).expect("it is there");
    turn(&mut node, 2 * SECOND);
    let quarantine = node.switch.config().quarantine().as_nanos() as u64;
    node.switch.recover(Now(2 * SECOND + quarantine / 2));
    turn(&mut node, 2 * SECOND + quarantine);
    let views = node.switch.slots();
    assert!(views.iter().any(|v| v.slot == slot && v.state == SlotState::Quarantined));
    turn(&mut node, 2 * SECOND + 2 * quarantine);
    assert!(node.switch.slots().iter().all(|view| view.slot != slot), "free at last");
    drop(endpoint);
}
