//! What peers leave behind, and others find there: an address, a goodbye, a handshake's copy, stamps of
//! a clock that was set back since. Driven by hand with virtual time; nothing here sleeps.

mod air;

use air::{Air, Birth, MS, Node, Pair, SECOND, hop, host, key, path, receive, send};
use strowger_engine::{
    Now,
    control::{
        Event,
        peering::{LinkState, Liveness, PeerSpec, StrangerPolicy},
    },
    link::Rights,
};
use strowger_frame::Address;

const FAST: Liveness = Liveness { interval_ns: 100 * MS, multiplier: 3, always: true };

fn turn(nodes: &mut [&mut Node], now: &mut Now, ns: u64) {
    now.0 += ns;
    for _ in 0..4 {
        nodes.iter_mut().for_each(|node| node.turn(*now));
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
    pair.b.switch.salvage(now);
    pair.until_up();
    pair.wait(250);
    assert_eq!(pair.a.view(2).state, LinkState::Quiet);
    while receive(&mut pair.at_b).is_some() {}
    send(&mut pair.at_a, pair.to_b, b"are you there?");
    pair.wait(2);
    assert_eq!(receive(&mut pair.at_b).as_deref(), Some(&b"are you there?"[..]));
    pair.assert_even();
}
