//! Floods of handshakes, while peers have no configured address: each source gets its share. The
//! tests run in virtual time.

use strowger_crypto::{
    Psk, SeededEntropy,
    handshake::{LocalParams, Offer, ik},
};
use strowger_engine::{Now, discard::Discard};
use strowger_testkit::sim::{MS, Node, NodeSpec, SECOND, SimNet, host, identity, key};
use strowger_wire::{hello::Timestamp, link_header::SessionIndex};

fn kind(bytes: &[u8]) -> u8 {
    bytes[0] >> 4
}

/// A hub and twenty peers. The hub has the keys of these peers, and no address of them.
struct Hub {
    net: SimNet,
    hub: Node,
    peers: Vec<Node>,
    now: Now,
}

impl Hub {
    fn new() -> Self {
        let (net, now) = (SimNet::default(), Now(1));
        let mut hub = Node::new(&net, &NodeSpec::new(2), now);
        for peer in 10..30 {
            hub.add_peer(peer, false, now);
        }
        Self { net, hub, peers: Vec::new(), now }
    }

    fn deliver_until(&mut self) {
        for peer in 10..30 {
            let mut node = Node::new(&self.net, &NodeSpec::new(peer), self.now);
            node.add_peer(2, true, self.now);
            self.peers.push(node);
        }
    }

    /// Advances the time. The hub receives the injected datagrams before those of the peers.
    fn advance(&mut self, ns: u64) {
        self.now.0 += ns;
        if (self.now.0 / MS).is_multiple_of(10) {
            self.peers.iter_mut().for_each(|peer| peer.poll(self.now));
        }
        for _ in 0..2 {
            self.hub.poll(self.now);
        }
    }

    fn up(&self) -> usize {
        self.peers.iter().filter(|peer| peer.is_up()).count()
    }
}

/// A sender that floods from one real address. It obtains a cookie and repeats the same valid
/// initiation with it.
struct Flooder {
    at: u8,
    cookie: Option<strowger_crypto::handshake::Cookie>,
    message: Vec<u8>,
    state: ik::AwaitResponse,
}

impl Flooder {
    fn new(at: u8) -> Self {
        let (state, message) = Self::initiation(None, at);
        Self { at, cookie: None, message, state }
    }

    fn initiation(
        cookie: Option<&strowger_crypto::handshake::Cookie>,
        at: u8,
    ) -> (ik::AwaitResponse, Vec<u8>) {
        let (local, offer) = (identity(9), Offer::default());
        let index = SessionIndex::new(77).expect("small");
        let ours = LocalParams { local: &local, offer: &offer, index, timestamp: Timestamp(5) };
        let mut entropy = SeededEntropy::new(u64::from(at));
        ik::initiate(&ours, &key(2), &Psk::NONE, cookie, &mut entropy).expect("well-formed")
    }

    fn flood(&mut self, hub: &Hub, messages: u32) {
        for answer in hub.net.take_received(host(self.at)) {
            if kind(&answer.bytes) == 3
                && let Ok(cookie) = self.state.read_cookie(&answer.bytes)
            {
                (self.state, self.message) = Self::initiation(Some(&cookie), self.at);
                self.cookie = Some(cookie);
            }
        }
        for _ in 0..messages {
            hub.net.inject(host(self.at), host(2), &self.message);
        }
    }
}

/// wire.md: W4-79.
#[test]
fn r12_three_thousand_copies_a_second_from_one_address_block_no_other() {
    let mut hub = Hub::new();
    let mut flooder = Flooder::new(66);
    for _ in 0..1_000 {
        flooder.flood(&hub, 3);
        hub.advance(MS);
    }
    assert!(flooder.cookie.is_some(), "the flooding node receives at its own address");
    hub.deliver_until();
    let began = hub.now.0;
    while hub.up() < 20 && hub.now.0 - began < 3 * SECOND {
        flooder.flood(&hub, 3);
        hub.advance(MS);
    }
    let took_ms = (hub.now.0 - began) / MS;
    assert_eq!(hub.up(), 20, "up of 20 within {took_ms} ms");
    assert!(hub.hub.count(Discard::OverBudget) > 3_000, "the flood is limited");
    hub.hub.assert_even();
}

/// wire.md: W4-79.
#[test]
fn r12_one_address_does_not_have_all_the_cookies() {
    let mut hub = Hub::new();
    let mut message = Flooder::new(66).message;
    let flood = |hub: &Hub, message: &mut Vec<u8>| {
        for _ in 0..40 {
            hub.net.inject(host(66), host(2), message);
        }
    };
    // The flood sends 40,000 initiations per second and uses no cookie.
    for _ in 0..200 {
        flood(&hub, &mut message);
        hub.advance(MS);
    }
    hub.deliver_until();
    let began = hub.now.0;
    while hub.up() < 20 && hub.now.0 - began < 6 * SECOND {
        flood(&hub, &mut message);
        hub.advance(MS);
        let cookies = hub.net.take_received(host(66));
        assert!(cookies.iter().all(|d| kind(&d.bytes) == 3 && d.bytes.len() == 64));
    }
    assert_eq!(hub.up(), 20, "of 20");
    hub.hub.assert_even();
}

/// wire.md: W4-16.
#[test]
fn r12_copies_of_a_peer_s_initiation_use_none_of_its_budget() {
    let mut hub = Hub::new();
    hub.advance(MS);
    let begin = |timestamp: u64| {
        let (local, offer) = (identity(10), Offer::default());
        let (index, timestamp) = (SessionIndex::new(77).expect("small"), Timestamp(timestamp));
        let ours = LocalParams { local: &local, offer: &offer, index, timestamp };
        let mut entropy = SeededEntropy::new(timestamp.0);
        ik::initiate(&ours, &key(2), &Psk::NONE, None, &mut entropy).expect("well-formed").1
    };
    let responses = |hub: &mut Hub, message: &[u8]| {
        hub.net.inject(host(10), host(2), message);
        (0..4).for_each(|_| hub.advance(1)); // to read it, and to send the response
        hub.net.take_received(host(10)).iter().filter(|d| kind(&d.bytes) == 2).count()
    };
    let first = begin(5);
    assert_eq!(responses(&mut hub, &first), 1);
    // These are more copies than the number of initiations that a peer may send in a second.
    for _ in 0..40 {
        assert_eq!(responses(&mut hub, &first), 0);
    }
    assert_eq!(hub.hub.count(Discard::HandshakeStale), 40);
    assert_eq!(responses(&mut hub, &begin(6)), 1, "the peer's next initiation");
}

/// The queue to the slow path has 64 places. Without a handshake socket, a flood from one address
/// could fill it in every poll before the messages of other sources arrive.
#[test]
fn r23_one_sender_does_not_have_all_places_of_the_queue_for_unknown_senders() {
    for ports in [1, 200] {
        let mut hub = Hub::new();
        let mut noise = Flooder::new(66).message;
        *noise.last_chunk_mut().expect("long") = [7; 32];
        hub.deliver_until();
        while hub.up() < 20 && hub.now.0 < 4 * SECOND {
            for n in 0..200 {
                let mut from = host(66);
                from.set_port(7_000 + n % ports);
                hub.net.inject(from, host(2), &noise);
            }
            hub.now.0 += 10 * MS;
            hub.peers.iter_mut().for_each(|peer| peer.poll(hub.now));
            for _ in 0..8 {
                for worker in &mut hub.hub.workers {
                    worker.poll(hub.now);
                }
            }
            hub.hub.poll(hub.now);
        }
        assert_eq!(hub.up(), 20, "of 20, and the flood comes from {ports} ports");
        assert!(hub.hub.count(Discard::PuntFull) > 0, "the flood had its share");
        hub.hub.assert_even();
    }
}
