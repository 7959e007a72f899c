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

#[test]
fn r8_a_stranger_s_last_handshake_said_again_gets_no_slot() {
    let policy = StrangerPolicy { rights: Rights::ALL, links_max: 4, liveness: FAST };
    let (air, mut now) = (Air::default(), Now(1));
    let births = [1, 2].map(|seed| Birth { strangers: Some(policy), ..Birth::new(seed) });
    let [mut a, mut b] = births.map(|birth| Node::new(&air, &birth, now));
    air.listen();
    let mut spec = PeerSpec::discovered("whoever is there", None, b.port);
    spec.at = Some(Address::Udp(host(1)));
    b.switch.add_peer(spec, now).expect("a slot");
    for _ in 0..20 {
        turn(&mut [&mut a, &mut b], &mut now, 100 * MS);
    }
    assert!(a.view(2).is_up());
    let heard = air.heard();
    let knocks: Vec<_> = heard.iter().filter(|d| d.to == host(1) && d.bytes[0] >> 4 == 1).collect();
    assert!(knocks.len() >= 2, "a first message and a third");
    air.cut(host(2), true);
    for _ in 0..80 {
        turn(&mut [&mut a, &mut b], &mut now, 100 * MS);
    }
    assert!(a.switch.peers().is_empty(), "it was seen off");
    a.events.clear();
    for knock in knocks {
        air.throw(host(2), host(1), &knock.bytes);
        turn(&mut [&mut a], &mut now, MS);
        assert!(a.switch.peers().is_empty(), "a copy got a slot");
    }
    let attached = a.events.iter().any(|event| matches!(event, Event::SlotAttached(_)));
    assert!(!attached, "{:?}", a.events);
    a.assert_even();
}
