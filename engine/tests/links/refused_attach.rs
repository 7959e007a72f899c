//! A refused attach leaves no peer, session, handshake or neighbour at any worker's port. Its slot
//! number is in quarantine. The tests run in virtual time.

use strowger_engine::{
    Now,
    control::{Attach, Event, SlotState},
    link::Behind,
};
use strowger_frame::{Address, port::AdmitError};
use strowger_testkit::sim::{Node, NodeSpec, SECOND, SimNet, host, key};
use strowger_wire::Slot;

fn advance(node: &mut Node, now: &mut Now, seconds: u64) {
    for _ in 0..10 * seconds {
        now.0 += SECOND / 10;
        (0..4).for_each(|_| node.poll(*now));
    }
}

/// An address that the ports of this test refuse.
const REFUSED: Address = Address::Ether([2, 0, 0, 0, 0, 1]);

#[test]
fn a_peer_that_a_port_refuses_leaves_nothing_behind() {
    let (net, mut now) = (SimNet::default(), Now(SECOND));
    let mut node = Node::new(&net, &NodeSpec { workers: 2, ..NodeSpec::new(2) }, now);
    advance(&mut node, &mut now, 1);
    let mut spec = node.peer_spec(1, true);
    spec = spec.with_address(REFUSED);
    let slot = node.switch.add_peer(spec, now).expect("a slot");
    advance(&mut node, &mut now, 1);
    assert!(node.events.contains(&Event::AttachRefused(slot, AdmitError::WrongKind)));
    let made = node.switch.balance().frames_made;
    advance(&mut node, &mut now, 20);
    assert_eq!(node.switch.peers().len(), 0, "no peer");
    assert_eq!(node.switch.balance().frames_made, made, "nothing is sent");
    let kept = node.switch.snapshot(now).numbers;
    assert!(kept.iter().all(|kept| kept.who.is_none()), "nothing is saved: {kept:?}");
    let states: Vec<_> = node.switch.slots().iter().map(|view| (view.slot, view.state)).collect();
    assert_eq!(states, [(slot, SlotState::Quarantined)], "labels may still name the number");
    // The same key and name are attached again, with an address that the port accepts.
    let again = node.switch.add_peer(node.peer_spec(1, true), now).expect("the key is free");
    advance(&mut node, &mut now, 1);
    assert!(again != slot && node.events.contains(&Event::SlotAttached(again)));
    assert_eq!(node.peer_view(1).at, Some(Address::Udp(host(1))));
    assert_eq!(node.peer_view(1).key, Some(key(1)));
    advance(&mut node, &mut now, 60);
    assert!(node.switch.slots().iter().all(|view| view.slot != slot), "the address is free again");
    node.assert_even();
}

#[test]
fn a_peer_that_one_worker_s_port_refuses_is_taken_back_from_the_others() {
    // At the second worker's port, another neighbour already has the address. The first worker's
    // port accepts the peer.
    let (net, mut now) = (SimNet::default(), Now(SECOND));
    let mut node = Node::without_port(&NodeSpec { workers: 2, ..NodeSpec::new(2) }, now);
    let ports = [0, 1].map(|worker| {
        let mut port = Box::new(net.port(node.at, worker));
        if worker == 1 {
            let taken = strowger_frame::Mark::new(77, 7);
            strowger_frame::Port::admit(&mut *port, taken, Address::Udp(host(1))).expect("free");
        }
        port as Box<dyn strowger_frame::Port>
    });
    node.port = node.switch.plug_everywhere(ports.into()).expect("a place");
    advance(&mut node, &mut now, 1);
    let slot = node.switch.add_peer(node.peer_spec(1, true), now).expect("a slot");
    advance(&mut node, &mut now, 1);
    assert!(node.events.contains(&Event::AttachRefused(slot, AdmitError::Taken)));
    assert_eq!(node.switch.peers().len(), 0);
    // At the first worker's port, the peer's address was removed again, so no frame is sent to it.
    let made = node.switch.balance().frames_made;
    advance(&mut node, &mut now, 20);
    assert_eq!(node.switch.balance().frames_made, made, "nothing is sent");
    let plain = Attach::plain(node.port, Address::Udp(host(3)), Behind::Neighbour, "peer 1")
        .with_slot(Slot::new(9));
    assert_eq!(node.switch.attach(plain), Ok(Slot::new(9)));
    advance(&mut node, &mut now, 1);
    assert!(node.events.contains(&Event::SlotAttached(Slot::new(9))));
    node.assert_even();
}
