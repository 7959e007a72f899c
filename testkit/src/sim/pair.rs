//! Two nodes with a sealed link, and packets along labels.

use strowger_engine::{Now, control::peering::PeerSpec, link::plain_header};
use strowger_io::Endpoint;
use strowger_wire::{Hop, Label, Slot, scheme::V3X5X8, switch_header::HeaderRepr};

use super::{HEADERS_BYTES, MS, Node, NodeSpec, SimNet};

/// A hop with these ingress and egress slots.
pub fn hop(ingress: u32, egress: u32) -> Hop<'static> {
    Hop { scheme: &V3X5X8, ingress: Slot::new(ingress), egress: Slot::new(egress) }
}

/// The label of these hops. Panics if they do not fit.
pub fn path(hops: &[Hop<'static>]) -> Label {
    Label::build(hops).expect("the hops fit into a label").0
}

/// A packet with this label and payload, as an endpoint sends it.
pub fn packet(label: Label, payload: &[u8]) -> Vec<u8> {
    let (label, shift) = label.depart().expect("short");
    let mut bytes = vec![0; HEADERS_BYTES];
    bytes[..8].copy_from_slice(&plain_header(0));
    HeaderRepr::new(label, shift, 64).emit(&mut bytes[8..]).expect("room");
    bytes.extend_from_slice(payload);
    bytes
}

/// Sends a packet.
pub fn send(from: &mut Endpoint, label: Label, payload: &[u8]) {
    let bytes = packet(label, payload);
    let mut frame = from.frame(bytes.len()).expect("memory");
    frame.bytes_mut().copy_from_slice(&bytes);
    from.send(frame).expect("room");
}

/// Receives the payload of the next packet, if there is one.
pub fn receive(at: &mut Endpoint) -> Option<Vec<u8>> {
    let frame = at.receive().expect("the switch is there")?;
    Some(frame.bytes()[HEADERS_BYTES..].to_vec())
}

/// Two nodes with a sealed link, an endpoint on each, and the labels between these endpoints.
#[derive(Debug)]
pub struct Pair {
    /// The network.
    pub net: SimNet,
    /// The node with seed 1, or the first node of [`with`](Self::with).
    pub a: Node,
    /// The node with seed 2, or the second node of [`with`](Self::with).
    pub b: Node,
    /// The endpoint on `a`.
    pub at_a: Endpoint,
    /// The endpoint on `b`.
    pub at_b: Endpoint,
    /// The label from `at_a` to `at_b`.
    pub to_b: Label,
    /// The label from `at_b` to `at_a`.
    pub to_a: Label,
    /// The virtual time.
    pub now: Now,
}

impl Default for Pair {
    fn default() -> Self {
        Self::new()
    }
}

impl Pair {
    /// Nodes with seeds 1 and 2 that know each other's addresses. The link is not up yet.
    pub fn new() -> Self {
        Self::with(NodeSpec::new(1), NodeSpec::new(2), |_, spec| spec)
    }

    /// Nodes with these specifications. `tune` gets the seed of a node and changes its
    /// specification of the other node.
    pub fn with(a: NodeSpec, b: NodeSpec, tune: impl Fn(u8, PeerSpec) -> PeerSpec) -> Self {
        let (net, now) = (SimNet::default(), Now(1));
        let (mut a, mut b) = (Node::new(&net, &a, now), Node::new(&net, &b, now));
        let add = |node: &mut Node, of: u8, own: u8| {
            let spec = tune(own, node.peer_spec(of, true));
            node.switch.add_peer(spec, now).expect("a slot")
        };
        let (b_at_a, a_at_b) = (add(&mut a, 2, 1), add(&mut b, 1, 2));
        let ((slot_a, at_a), (slot_b, at_b)) = (a.add_endpoint(), b.add_endpoint());
        let to_b = path(&[hop(slot_a, b_at_a.number()), hop(a_at_b.number(), slot_b)]);
        let to_a = path(&[hop(slot_b, a_at_b.number()), hop(b_at_a.number(), slot_a)]);
        Self { net, a, b, at_a, at_b, to_b, to_a, now }
    }

    /// Advances the time, and polls both nodes four times, so that they exchange their replies.
    pub fn advance(&mut self, ns: u64) {
        self.now.0 += ns;
        for _ in 0..4 {
            self.a.poll(self.now);
            self.b.poll(self.now);
        }
    }

    /// Advances the time in steps of 100 ms.
    pub fn run_for(&mut self, seconds: u64) {
        for _ in 0..10 * seconds {
            self.advance(100 * MS);
        }
    }

    /// Like `run_for`, with a packet in each direction every 20 s.
    pub fn run_with_traffic(&mut self, seconds: u64) {
        for second in 0..seconds {
            if second % 20 == 0 {
                send(&mut self.at_a, self.to_b, b"data");
                send(&mut self.at_b, self.to_a, b"data");
            }
            self.run_for(1);
        }
    }

    /// Advances the time until the link is up and carries packets. Returns the elapsed virtual time
    /// in nanoseconds.
    #[track_caller]
    pub fn until_up(&mut self) -> u64 {
        let began = self.now.0;
        for _ in 0..3_000 {
            if self.a.is_up() && self.b.is_up() && self.carries_packets() {
                return self.now.0 - began;
            }
            self.advance(100 * MS);
        }
        panic!(
            "the link does not come up: {:?} {:?}",
            self.a.switch.peers(),
            self.b.switch.peers()
        );
    }

    /// Whether packets arrive in both directions.
    pub fn carries_packets(&mut self) -> bool {
        while receive(&mut self.at_a).is_some() || receive(&mut self.at_b).is_some() {}
        send(&mut self.at_a, self.to_b, b"to b");
        send(&mut self.at_b, self.to_a, b"to a");
        self.advance(1_000);
        self.advance(1_000);
        let there = receive(&mut self.at_b).as_deref() == Some(b"to b");
        let back = receive(&mut self.at_a).as_deref() == Some(b"to a");
        there && back
    }

    /// Asserts R3 for both nodes.
    #[track_caller]
    pub fn assert_even(&self) {
        self.a.assert_even();
        self.b.assert_even();
    }
}
