//! Sealed links between switches driven by hand, with virtual time and a seed: handshakes, data,
//! rekeying, replay, rights. Nothing here sleeps or reads a clock.

use strowger_crypto::{IdentityKey, LocalIdentity, NetworkId, Secret, SeededEntropy};
use strowger_engine::{
    Now,
    control::{
        Attach, Event, Switch, SwitchConfig,
        peering::{PeerSpec, PeeringConfig, UnknownPeerPolicy},
    },
    discard::Discard,
    link::{Behind, plain_header},
    worker::Worker,
};
use strowger_frame::{Address, Pool, PoolSpec, Port};
use strowger_io::{
    Endpoint, EndpointSpec, endpoint,
    fault::{Fault, FaultSpec, Faults},
    memory,
};
use strowger_wire::{Hop, Label, Slot, scheme, switch_header::HeaderRepr};

const SECOND: u64 = 1_000_000_000;

struct Node {
    switch: Switch,
    worker: Worker,
    events: Vec<Event>,
}

fn identity(seed: u8) -> LocalIdentity {
    let key = IdentityKey::from_seed(&Secret::from_bytes([seed; 32]));
    LocalIdentity::new(&key, NetworkId::new(b"test").expect("short"))
}

impl Node {
    fn new(seed: u8, unknown_peers: Option<UnknownPeerPolicy>) -> Self {
        let pool =
            Pool::new(&PoolSpec { trains: 16, singles: 256, huge_pages: false }).expect("memory");
        let (mut switch, mut workers) =
            Switch::new(SwitchConfig::default(), vec![pool]).expect("sane");
        let config =
            PeeringConfig::new(identity(seed), Box::new(SeededEntropy::new(u64::from(seed))))
                .with_wall_at_zero(1)
                .with_unknown_peers(unknown_peers);
        switch.set_identity(config, Now(1)).expect("an identity");
        Self { switch, worker: workers.remove(0), events: Vec::new() }
    }

    fn turn(&mut self, now: Now) {
        for _ in 0..4 {
            self.worker.poll(now);
            self.events.extend(self.switch.poll(now));
        }
    }

    fn peer(&mut self, port: impl Port + 'static, of: u8, at: Option<Address>, now: Now) -> u32 {
        let port = self.switch.plug_at(0, Box::new(port)).expect("room");
        let mut spec = PeerSpec::new("peer", *identity(of).static_public(), port);
        spec = spec.with_address(at);
        self.switch.add_peer(spec, now).expect("a slot")
    }

    fn endpoint(&mut self) -> (u32, Endpoint) {
        let (port, endpoint) = endpoint::pair(&EndpointSpec::default()).expect("memory");
        let port = self.switch.plug_at(0, Box::new(port)).expect("room");
        let attach = Attach::plain(port, Address::Only, Behind::Endpoint, "endpoint");
        (self.switch.attach(attach).expect("a slot"), endpoint)
    }
}

/// Two switches, an endpoint on each, and a wire between them that may lose what it carries.
struct Pair {
    a: Node,
    b: Node,
    at_a: Endpoint,
    at_b: Endpoint,
    label: Label,
    now: Now,
}

impl Pair {
    fn new(loss_per_million: u32, seed: u64) -> Self {
        let (mut a, mut b) = (Node::new(1, None), Node::new(2, None));
        let (near, far) = memory::wire(512).expect("descriptors");
        let faults = Faults { loss_per_million, ..Faults::default() };
        let spec = FaultSpec { seed, rx: faults, tx: Faults::default() };
        let near = Fault::new(near, &spec).expect("rates");
        let far = Fault::new(far, &FaultSpec { seed: seed ^ 1, ..spec }).expect("rates");
        let now = Now(1);
        let to_b = a.peer(near, 2, Some(Address::Only), now);
        let to_a = b.peer(far, 1, Some(Address::Only), now);
        let (slot_a, at_a) = a.endpoint();
        let (slot_b, at_b) = b.endpoint();
        let hop = |ingress, egress| Hop {
            scheme: &scheme::V3X5X8,
            ingress: Slot::new(ingress),
            egress: Slot::new(egress),
        };
        let (label, _) = Label::build(&[hop(slot_a, to_b), hop(to_a, slot_b)]).expect("two hops");
        Self { a, b, at_a, at_b, label, now }
    }

    fn pass(&mut self, ns: u64) {
        self.now.0 += ns;
        for _ in 0..3 {
            self.a.turn(self.now);
            self.b.turn(self.now);
        }
    }

    fn until_up(&mut self) {
        for _ in 0..600 {
            self.pass(SECOND / 10);
            if [&self.a, &self.b].iter().all(|node| node.switch.peers()[0].is_up()) {
                return;
            }
        }
        panic!("no link: {:?} {:?}", self.a.switch.balance(), self.b.switch.balance());
    }

    fn send(&mut self, text: &[u8]) {
        let mut frame = self.at_a.frame(24 + text.len()).expect("memory");
        let (label, shift) = self.label.depart().expect("short");
        frame.bytes_mut()[..8].copy_from_slice(&plain_header(0));
        let payload =
            HeaderRepr::new(label, shift, 9).emit(&mut frame.bytes_mut()[8..]).expect("room");
        payload.copy_from_slice(text);
        self.at_a.send(frame).expect("room");
    }

    fn received(&mut self) -> Option<Vec<u8>> {
        let frame = self.at_b.receive().expect("the switch is there")?;
        Some(frame.bytes()[24..].to_vec())
    }
}

#[test]
fn a_sealed_link_comes_up_and_carries_data() {
    let mut pair = Pair::new(0, 7);
    pair.until_up();
    pair.send(b"sealed");
    pair.pass(1_000);
    assert_eq!(pair.received().as_deref(), Some(&b"sealed"[..]));
    assert!(pair.a.events.iter().any(|event| matches!(event, Event::LinkUp(_))));
    assert!(pair.a.switch.balance().is_even(), "{:?}", pair.a.switch.balance());
    assert!(pair.b.switch.balance().is_even(), "{:?}", pair.b.switch.balance());
}

#[test]
fn rekeying_under_loss_refuses_no_data() {
    let mut pair = Pair::new(300_000, 11);
    pair.until_up();
    // Twenty minutes, with a packet twice a second: some ten rekeyings.
    for round in 0..2_400_u32 {
        pair.send(&round.to_be_bytes());
        pair.pass(SECOND / 2);
        while pair.received().is_some() {}
    }
    assert!(pair.a.switch.peers()[0].handshakes >= 8, "{:?}", pair.a.switch.peers());
    for node in [&pair.a, &pair.b] {
        let balance = node.switch.balance();
        assert!(balance.is_even(), "{balance:?}");
        for refused in [Discard::LinkDown, Discard::KeysExpired, Discard::BadSeal] {
            assert_eq!(balance.discards[refused as usize], 0, "{refused}: {balance:?}");
        }
    }
}
