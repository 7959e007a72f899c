//! Slot numbers while unknown peers come and go. The total of their numbers in use, in quarantine
//! and kept is limited, so that a configured peer gets a number. The tests run in virtual time.

use strowger_crypto::{
    IdentityKey, LocalIdentity, NetworkId, Secret, SeededEntropy,
    handshake::{LocalParams, Offer, xx},
};
use strowger_engine::{
    Now,
    control::{Attach, Event, SlotState, SwitchConfig, peering::UnknownPeerPolicy},
    limits::UNKNOWN_NUMBERS_PER_LINK,
    link::Behind,
};
use strowger_frame::Address;
use strowger_io::memory::wire;
use strowger_testkit::sim::{Node, NodeSpec, SECOND, SimNet, host};
use strowger_wire::{hello::Timestamp, link_header::SessionIndex, scheme};

/// A node that accepts unknown peers and has one configured peer.
struct Open {
    net: SimNet,
    node: Node,
    now: Now,
    came: u32,
}

impl Open {
    fn new(birth: &NodeSpec) -> Self {
        let (net, now) = (SimNet::default(), Now(SECOND));
        let mut node = Node::new(&net, birth, now);
        node.add_peer(1, false, now);
        let mut open = Self { net, node, now, came: 0 };
        open.advance(SECOND / 10);
        open
    }

    fn advance(&mut self, ns: u64) {
        self.now.0 += ns;
        for _ in 0..4 {
            self.node.poll(self.now);
        }
    }

    /// Lets a new unknown peer complete an XX handshake. The peer sends nothing more.
    fn come(&mut self) {
        self.came += 1;
        let mut seed = [7; 32];
        seed[..4].copy_from_slice(&self.came.to_be_bytes());
        let identity = IdentityKey::from_seed(&Secret::from_bytes(seed));
        let local = LocalIdentity::new(&identity, NetworkId::new(b"test").expect("short"));
        let offer = Offer::default();
        let mut entropy = SeededEntropy::new(u64::from(self.came));
        let index = SessionIndex::new(1_000 + self.came).expect("small");
        let ours =
            LocalParams { local: &local, offer: &offer, index, timestamp: Timestamp(self.now.0) };
        let (waiting, first) = xx::initiate(&ours, None, &mut entropy).expect("well-formed");
        let answer = self.ask(&first);
        let Some(answer) = answer.first() else { return };
        let discovered = waiting.read_response(&local, answer).expect("readable");
        let (_, msg3) = discovered.finish(&ours, None).expect("agreed");
        self.ask(&msg3);
    }

    fn ask(&mut self, bytes: &[u8]) -> Vec<Vec<u8>> {
        self.net.inject(host(66), self.node.at, bytes);
        self.advance(1_000);
        self.net.take_received(host(66)).into_iter().map(|datagram| datagram.bytes).collect()
    }

    /// In each of `seconds` seconds, `per_second` unknown peers complete a handshake.
    fn flood(&mut self, per_second: u64, seconds: u64) {
        for _ in 0..per_second * seconds {
            self.come();
            self.advance(SECOND / per_second);
            assert!(self.held() <= self.bound(), "{} numbers", self.held());
        }
    }

    /// The number of slot numbers that unknown peers have, or last had.
    fn held(&self) -> usize {
        self.node.switch.slots().iter().filter(|view| view.is_unknown).count()
    }

    fn bound(&self) -> usize {
        let slot_max = self.node.switch.config().slot_max() as usize;
        let links_max = UnknownPeerPolicy::default().links_max() as usize;
        (links_max * UNKNOWN_NUMBERS_PER_LINK).min(slot_max / 2)
    }

    /// Attaches a plain neighbour at any free number. The number must be usable immediately.
    fn attach(&mut self, name: &str) -> u32 {
        let (near, _far) = wire(4).expect("descriptors");
        let port = self.node.switch.plug_at(0, Box::new(near)).expect("a place");
        let attach = Attach::plain(port, Address::Only, Behind::Neighbour, name);
        let slot = self.node.switch.attach(attach).expect("the operator gets no number");
        assert_eq!(self.node.switch.opens_in(slot), None, "the operator waits for a number");
        self.advance(SECOND / 1_000);
        assert!(self.node.events.contains(&Event::SlotAttached(slot)));
        slot.number()
    }
}

fn open(scheme: scheme::Scheme, slot_max: u32) -> NodeSpec {
    let config = SwitchConfig::default().with_scheme(scheme).with_slot_max(slot_max);
    NodeSpec { unknown_peers: Some(UnknownPeerPolicy::default()), config, ..NodeSpec::new(2) }
}

#[test]
fn unknown_peers_leave_numbers_for_configured_peers() {
    let mut node = Open::new(&open(scheme::V3X5X8, 256));
    node.flood(10, 70);
    assert!(node.held() > node.bound() / 2, "the flood was too small: {}", node.held());
    for n in 0..100 {
        node.attach(&n.to_string());
    }
    // The flood continues. The configured peer and the neighbours keep their numbers.
    node.flood(10, 10);
    let views = node.node.switch.slots();
    let named = views.iter().filter(|view| view.state == SlotState::Attached && !view.is_unknown);
    assert_eq!(named.count(), 1 + 100);
    node.node.assert_even();
}

#[test]
fn a_switch_with_few_numbers_keeps_some_for_configured_peers() {
    let mut node = Open::new(&open(scheme::F4, 15));
    node.flood(2, 30);
    assert_eq!(node.held(), 7, "unknown peers have other than half of 15");
    for n in 0..7 {
        node.attach(&n.to_string());
    }
    // All numbers are in use. When unknown peers have freed theirs, one number stays reserved for
    // configured peers, so the next flood does not take it.
    for _ in 0..600 {
        node.advance(SECOND / 5);
    }
    assert_eq!(node.held(), 0);
    node.flood(2, 30);
    node.attach("the last");
    node.node.assert_even();
}

#[test]
fn r11_numbers_of_unknown_peers_are_bounded_over_restarts_too_and_are_theirs_as_long_as_there_is_room()
 {
    let birth = open(scheme::V3X5X8, 256);
    let mut node = Open::new(&birth);
    let mut snapshot = node.node.switch.snapshot(node.now);
    for life in 0..4 {
        node = Open::new(&birth);
        node.came = life * 1_000;
        let (net, now) = (node.net.clone(), node.now);
        let mut again = Node::without_port(&birth, now);
        again.switch.restore(&snapshot, now).expect("nothing is attached");
        let port = Box::new(net.port(again.at, 0)) as Box<dyn strowger_frame::Port>;
        again.port = again.switch.plug_everywhere(vec![port]).expect("a place");
        again.switch.accept_unknown(again.port, true);
        again.add_peer(1, false, now);
        node.node = again;
        node.advance(SECOND / 10);
        let kept = node.held();
        assert!(life == 0 || kept > 0, "the peers are not in the state");
        node.flood(10, 70);
        for n in 0..20 {
            node.attach(&format!("{life} {n}"));
        }
        snapshot = node.node.switch.snapshot(node.now);
        let unknown = snapshot.numbers.iter().filter(|kept| kept.unknown).count();
        assert!(unknown <= node.bound(), "{unknown}");
    }
}
