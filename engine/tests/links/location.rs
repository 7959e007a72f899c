//! Addresses of peers: the traffic to an unvalidated address, links that change port or address
//! family, and peers that move and die. The tests run in virtual time.

use std::net::SocketAddr;

use strowger_engine::{
    Now,
    control::{
        Attach, Event,
        peering::{LinkState, Liveness},
    },
    discard::Discard,
    link::Behind,
};
use strowger_frame::{Address, Port};
use strowger_io::{Endpoint, EndpointSpec, endpoint};
use strowger_testkit::sim::{
    Datagram, MS, Node, NodeSpec, Pair, SECOND, SimNet, hop, host, path, receive, send,
};
use strowger_wire::Label;
use strowger_wire::Slot;

const FAST: Liveness = Liveness::new(std::time::Duration::from_nanos(500 * MS));

/// The slots of the peer and of the endpoint, on each node.
const PEER: u32 = 2;
const ENDPOINT: u32 = 4;

fn kind(bytes: &[u8]) -> u8 {
    bytes[0] >> 4
}

fn victim() -> SocketAddr {
    host(66)
}

fn other_listener() -> SocketAddr {
    host(102)
}

fn v6_listener() -> SocketAddr {
    SocketAddr::from(([0x2001, 0xdb8, 0, 0, 0, 0, 0, 2], 7_000))
}

fn total<'d>(datagrams: impl IntoIterator<Item = &'d Datagram>) -> usize {
    datagrams.into_iter().map(|datagram| datagram.bytes.len()).sum()
}

/// Another port of a node, with a queue at every worker or at one worker.
#[derive(Clone, Copy, Debug)]
struct More {
    at: SocketAddr,
    worker: Option<usize>,
}

/// A client A that has the address of a server B. Each has an endpoint.
struct Couple {
    net: SimNet,
    a: Node,
    b: Node,
    at_a: Endpoint,
    at_b: Endpoint,
    way: Label,
    now: Now,
}

fn endpoint_of(node: &mut Node) -> Endpoint {
    let (port, end) = endpoint::pair(&EndpointSpec::default()).expect("memory");
    let port = node.switch.plug_at(0, Box::new(port)).expect("room");
    let attach = Attach::plain(port, Address::Only, Behind::Endpoint, "endpoint");
    node.switch.attach(attach.with_slot(Slot::new(ENDPOINT))).expect("a slot");
    end
}

impl Couple {
    /// `seeks` is B's address in A's configuration, and `written` is A's address in B's
    /// configuration. `more` lists further listeners of B.
    fn new(workers: usize, more: &[More], seeks: SocketAddr, written: Option<SocketAddr>) -> Self {
        let (net, now) = (SimNet::default(), Now(1));
        let mut b = Node::new(&net, &NodeSpec { workers, ..NodeSpec::new(2) }, now);
        for &More { at, worker } in more {
            let queue = |worker| Box::new(net.port(at, worker)) as Box<dyn Port>;
            let id = match worker {
                Some(worker) => b.switch.plug_at(worker, queue(worker)),
                None => b.switch.plug_everywhere((0..workers).map(queue).collect()),
            };
            b.switch.accept_unknown(id.expect("a place"), true);
        }
        let at = written.map(Address::Udp);
        let spec =
            b.peer_spec(1, false).with_address(at).with_slot(Slot::new(PEER)).with_liveness(FAST);
        b.switch.add_peer(spec, now).expect("a slot");
        let at_b = endpoint_of(&mut b);
        let (a, at_a) = Self::client(&net, (0, 1), seeks, now);
        let way = path(&[hop(ENDPOINT, PEER), hop(PEER, ENDPOINT)]);
        Self { net, a, b, at_a, at_b, way, now }
    }

    fn client(net: &SimNet, life: (u64, u64), seeks: SocketAddr, now: Now) -> (Node, Endpoint) {
        let (restarts_before, wall) = life;
        let mut a = Node::new(net, &NodeSpec { restarts_before, wall, ..NodeSpec::new(1) }, now);
        // The simulated network has no address families: the single socket of A reaches all
        // listeners of B.
        let at = Some(Address::Udp(seeks));
        let spec =
            a.peer_spec(2, false).with_address(at).with_slot(Slot::new(PEER)).with_liveness(FAST);
        a.switch.add_peer(spec, now).expect("a slot");
        let at_a = endpoint_of(&mut a);
        (a, at_a)
    }

    /// Restarts A, with `seeks` as the configured address of B.
    fn reborn(&mut self, restarts_before: u64, seeks: SocketAddr) {
        self.reborn_at(restarts_before, 1, seeks);
    }

    /// Like `reborn`, with a wall clock that shows `wall` at time 0.
    fn reborn_at(&mut self, restarts_before: u64, wall: u64, seeks: SocketAddr) {
        (self.a, self.at_a) = Self::client(&self.net, (restarts_before, wall), seeks, self.now);
    }

    fn advance(&mut self, ns: u64) {
        self.now.0 += ns;
        for _ in 0..4 {
            self.a.poll(self.now);
            self.b.poll(self.now);
        }
    }

    fn run_for(&mut self, seconds: u64) {
        for _ in 0..10 * seconds {
            self.advance(100 * MS);
        }
    }

    /// Sends `count` packets in each direction. Returns the numbers of packets that arrived at A
    /// and at B.
    fn exchange(&mut self, count: u32) -> (u32, u32) {
        let mut arrived = (0, 0);
        while receive(&mut self.at_a).is_some() || receive(&mut self.at_b).is_some() {}
        for _ in 0..count {
            send(&mut self.at_a, self.way, b"to the server");
            send(&mut self.at_b, self.way, b"to the client");
            self.advance(MS);
            while receive(&mut self.at_a).is_some() {
                arrived.0 += 1;
            }
            while receive(&mut self.at_b).is_some() {
                arrived.1 += 1;
            }
        }
        arrived
    }

    fn assert_even(&self) {
        self.a.assert_even();
        self.b.assert_even();
    }
}

/// A completes a handshake with B from its own address, but each sealed packet of A is injected
/// with the victim's address as its source. The victim does not respond, and B has much data for A.
/// Returns the numbers of bytes from and to the victim's address.
fn flood(couple: &mut Couple) -> (usize, usize) {
    let (mut came, mut went) = (0, 0);
    couple.net.start_log();
    couple.net.take_log();
    for round in 0..600 {
        couple.net.set_loss(1_000_000, 0);
        if round % 20 == 0 {
            send(&mut couple.at_a, couple.way, b"");
        }
        couple.now.0 += 50 * MS;
        couple.a.poll(couple.now);
        couple.net.set_loss(0, 0);
        let datagrams: Vec<_> =
            couple.net.take_log().into_iter().filter(|d| d.from == host(1)).collect();
        for datagram in &datagrams {
            let is_sealed = kind(&datagram.bytes) > 3;
            let from = if is_sealed { victim() } else { host(1) };
            came += if is_sealed { datagram.bytes.len() } else { 0 };
            couple.net.inject(from, host(2), &datagram.bytes);
        }
        // After the first rounds, in which the handshake takes place, B's datagrams to A's own
        // address are lost.
        couple.net.cut(host(1), round > 3);
        for _ in 0..8 {
            send(&mut couple.at_b, couple.way, &[0; 1_000]);
        }
        couple.b.poll(couple.now);
        couple.net.cut(host(1), false);
        let to_victim = |d: &&Datagram| d.to == victim();
        went += total(couple.net.take_log().iter().filter(to_victim));
    }
    (came, went)
}

/// wire.md: W3-50, W3-51.
#[test]
fn r8_an_unanswered_address_is_sent_no_more_than_came_from_it() {
    // In one case, the first packet of the peer already comes from the victim's address. In the
    // other case, only later packets do, after many from the peer's own address.
    for (is_late, written) in
        [(false, None), (true, None), (false, Some(host(1))), (true, Some(host(1)))]
    {
        let mut couple = Couple::new(1, &[], host(2), written);
        if is_late {
            couple.run_for(2);
            assert_eq!(couple.exchange(10), (10, 10));
        } else {
            // A initiates and B responds, but A has sent no sealed packet yet.
            for _ in 0..3 {
                couple.a.poll(couple.now);
            }
            for _ in 0..3 {
                couple.b.poll(couple.now);
            }
        }
        let (came, went) = flood(&mut couple);
        assert!(came > 100 && went > 0, "the address is challenged: {came} and {went}");
        assert!(went <= came, "late {is_late}, written {written:?}: {went} for {came} bytes");
        assert_ne!(couple.b.peer_view(1).at, Some(Address::Udp(victim())));
        couple.b.assert_even();
    }
}

/// wire.md: W3-50, W4-109.
#[test]
fn r8_a_configured_address_that_never_answered_is_sent_only_initiations() {
    // The configured address now belongs to another node. The peer connects from a different
    // address.
    let mut couple = Couple::new(1, &[], host(2), Some(victim()));
    couple.net.start_log();
    couple.run_for(2);
    let (to_client, to_server) = couple.exchange(100);
    assert_eq!((to_client, to_server), (100, 100));
    couple.run_for(30);
    let log = couple.net.take_log();
    let there: Vec<_> = log.iter().filter(|d| d.to == victim()).collect();
    assert!(there.iter().all(|d| kind(&d.bytes) == 1), "{there:?}");
    assert!(there.len() <= 3, "{}", there.len());
    couple.assert_even();
}

/// wire.md: W3-56, W4-107.
#[test]
fn a_link_that_is_down_sends_only_what_brings_it_up() {
    let mut pair =
        Pair::with(NodeSpec::new(1), NodeSpec::new(2), |_, spec| spec.with_liveness(FAST));
    pair.until_up();
    pair.run_for(1);
    pair.net.cut(host(2), true);
    while pair.a.peer_view(2).state != LinkState::Down {
        send(&mut pair.at_a, pair.to_b, b"anybody?");
        pair.advance(50 * MS);
    }
    let refused = pair.a.count(Discard::LinkDown);
    pair.net.cut(host(2), false);
    pair.net.start_log();
    pair.net.set_loss(1_000_000, 0);
    for _ in 0..600 {
        send(&mut pair.at_a, pair.to_b, b"into the void");
        pair.advance(50 * MS);
    }
    let log = pair.net.take_log();
    let sealed: Vec<_> = log.iter().filter(|d| d.from == host(1) && kind(&d.bytes) > 3).collect();
    assert!(sealed.is_empty(), "{} sealed packets, {} bytes", sealed.len(), total(sealed));
    assert!(
        log.iter().any(|d| d.from == host(1) && kind(&d.bytes) == 1),
        "A tries to find the peer"
    );
    assert_eq!(pair.a.count(Discard::LinkDown) - refused, 600, "each packet is counted");
    pair.net.set_loss(0, 0);
    pair.until_up();
    pair.assert_even();
}

/// wire.md: W4-109.
#[test]
fn a_peer_that_moved_and_died_is_looked_for_where_it_is_written_too() {
    let mut couple = Couple::new(1, &[], host(2), Some(host(1)));
    couple.run_for(2);
    couple.net.move_socket(host(1), host(11));
    assert!(couple.exchange(100).1 > 0);
    couple.run_for(2);
    assert_eq!(couple.b.peer_view(1).at, Some(Address::Udp(host(11))));
    // The peer restarts at its first address, and has no address of B.
    couple.net.move_socket(host(1), host(1));
    couple.a =
        Node::new(&couple.net, &NodeSpec { restarts_before: 1, ..NodeSpec::new(1) }, couple.now);
    let spec = couple.a.peer_spec(2, false).with_slot(Slot::new(PEER)).with_liveness(FAST);
    couple.a.switch.add_peer(spec, couple.now).expect("a slot");
    couple.at_a = endpoint_of(&mut couple.a);
    for _ in 0..400 {
        send(&mut couple.at_b, couple.way, b"where are you?");
        couple.advance(100 * MS);
    }
    assert!(couple.b.is_up() && couple.a.is_up(), "{:?}", couple.b.peer_view(1));
    assert_eq!(couple.b.peer_view(1).at, Some(Address::Udp(host(1))));
    assert_eq!(couple.exchange(50), (50, 50));
    couple.assert_even();
}

/// wire.md: W4-109, W4-115.
#[test]
fn a_peer_s_former_address_is_not_tried_for_ever() {
    let mut couple = Couple::new(1, &[], host(2), Some(host(1)));
    couple.run_for(2);
    couple.net.move_socket(host(1), host(11));
    couple.exchange(100);
    couple.run_for(2);
    couple.net.cut(host(11), true);
    couple.net.cut(host(1), true);
    for _ in 0..100 {
        send(&mut couple.at_b, couple.way, b"where are you?");
        couple.advance(100 * MS);
    }
    couple.run_for(700);
    couple.net.cut(host(11), false);
    couple.net.cut(host(1), false);
    couple.net.set_loss(1_000_000, 0);
    couple.net.start_log();
    couple.run_for(100);
    let log = couple.net.take_log();
    assert!(log.iter().any(|d| d.from == host(2) && d.to == host(1)));
    assert!(!log.iter().any(|d| d.from == host(2) && d.to == host(11)));
    assert_eq!(couple.b.peer_view(1).at, Some(Address::Udp(host(1))));
}

#[test]
fn a_peer_at_another_listener_or_family_is_answered_there_and_its_data_follows() {
    for (workers, at, worker) in [
        (1, other_listener(), None),
        (1, v6_listener(), None),
        (2, other_listener(), None),
        (2, v6_listener(), Some(0)),
        (2, other_listener(), Some(1)),
        (3, v6_listener(), Some(2)),
    ] {
        let more = More { at, worker };
        // B has no address of the peer, or an address at which the peer does not respond.
        for written in [None, Some(victim())] {
            let mut couple = Couple::new(workers, &[more], at, written);
            if let Some(worker) = worker {
                couple.net.steer(at, host(1), worker);
            }
            couple.run_for(3);
            let arrived = couple.exchange(200);
            assert_eq!(arrived, (200, 200), "{workers} workers, {more:?}, written {written:?}");
            let slots = couple.b.switch.slots();
            let slot = slots.iter().find(|slot| slot.slot == Slot::new(PEER)).expect("attached");
            assert_eq!(slot.port, Some(couple.b.peer_view(1).port));
            assert_ne!(couple.b.peer_view(1).port, couple.b.port);
            couple.assert_even();
        }
    }
}

#[test]
fn a_link_that_is_up_moves_from_listener_to_listener_and_back_with_its_flow() {
    for (workers, worker) in [(1, None), (2, None), (2, Some(1)), (3, Some(2))] {
        let more = More { at: other_listener(), worker };
        let mut couple = Couple::new(workers, &[more], host(2), None);
        couple.net.steer(other_listener(), host(1), worker.unwrap_or(workers - 1));
        couple.run_for(3);
        assert_eq!(couple.exchange(50), (50, 50));
        for restarts_before in 1..=6 {
            let to = if restarts_before % 2 == 1 { other_listener() } else { host(2) };
            couple.reborn(restarts_before, to);
            couple.run_for(4);
            let arrived = couple.exchange(100);
            assert_eq!(
                arrived,
                (100, 100),
                "{workers} workers, restarts {restarts_before}, {more:?}"
            );
            let is_other = couple.b.peer_view(1).port != couple.b.port;
            assert_eq!(is_other, restarts_before % 2 == 1, "restarts {restarts_before}");
        }
        let roamed = couple.b.events.iter().filter(|e| matches!(e, Event::Roamed(..))).count();
        assert!(roamed >= 7, "{roamed}");
        couple.assert_even();
    }
}

/// A current wall-clock time, in nanoseconds since 1970.
const TODAY: u64 = 1_750_000_000 * SECOND;

#[test]
fn a_node_that_starts_with_a_clock_of_1970_gets_its_link_once_the_clock_is_right() {
    let mut couple = Couple::new(1, &[], host(2), None);
    couple.run_for(2);
    couple.reborn_at(1, TODAY, host(2));
    couple.run_for(20);
    assert_eq!(couple.exchange(20), (20, 20));
    // A's address changes, so that B does not find A, and A's clock starts in 1970.
    couple.net.move_socket(host(1), host(11));
    couple.reborn_at(2, 0, host(2));
    couple.run_for(60);
    assert!(!couple.a.is_up(), "B has seen later handshakes");
    couple.a.switch.set_wall_clock(TODAY + couple.now.0, couple.now);
    couple.run_for(20);
    assert_eq!(couple.exchange(20), (20, 20));
    // The clock is set back. Handshakes must continue.
    couple.a.switch.set_wall_clock(TODAY / 2, couple.now);
    let made = couple.b.peer_view(1).handshakes;
    for _ in 0..40 {
        couple.exchange(1);
        couple.run_for(10);
    }
    assert!(couple.b.peer_view(1).handshakes >= made + 3, "{:?}", couple.b.peer_view(1));
    assert_eq!(couple.exchange(20), (20, 20));
    couple.assert_even();
}

#[test]
fn a_silent_node_whose_address_changes_is_followed_before_it_has_data() {
    for is_idle in [false, true] {
        let mut pair = Pair::new();
        pair.until_up();
        pair.run_for(if is_idle { 400 } else { 2 });
        let state = if is_idle { LinkState::Idle } else { LinkState::Up };
        assert_eq!(pair.a.peer_view(2).state, state);
        pair.net.move_socket(host(1), host(11));
        pair.a.switch.show_where_we_are(pair.now);
        pair.run_for(3);
        assert_eq!(pair.b.peer_view(1).at, Some(Address::Udp(host(11))), "idle {is_idle}");
        send(&mut pair.at_b, pair.to_a, b"there you are");
        pair.run_for(1);
        assert_eq!(receive(&mut pair.at_a).as_deref(), Some(&b"there you are"[..]));
        pair.assert_even();
    }
}

#[test]
fn one_key_on_two_nodes_is_detected_and_reported() {
    let mut couple = Couple::new(1, &[], host(2), None);
    couple.run_for(3);
    // A copy of A, with A's key, runs at another address.
    let elsewhere = host(9);
    let mut twin = Node::without_port(
        &NodeSpec { restarts_before: 1, wall: 1_000, ..NodeSpec::new(1) },
        couple.now,
    );
    let port = twin.switch.plug_everywhere(vec![Box::new(couple.net.port(elsewhere, 0))]);
    twin.port = port.expect("a place");
    twin.switch.accept_unknown(twin.port, true);
    let spec = twin.peer_spec(2, true).with_slot(Slot::new(PEER)).with_liveness(FAST);
    twin.switch.add_peer(spec, couple.now).expect("a slot");
    let mut at_twin = endpoint_of(&mut twin);
    for _ in 0..600 {
        send(&mut couple.at_a, couple.way, b"here I am");
        send(&mut at_twin, couple.way, b"no, here");
        twin.poll(couple.now);
        couple.advance(100 * MS);
        while receive(&mut couple.at_b).is_some() {}
    }
    let reports: Vec<_> =
        couple.b.events.iter().filter(|e| matches!(e, Event::KeyOnTwoNodes(..))).collect();
    assert_eq!(reports.len(), 1, "{:?}", couple.b.events);
    let Event::KeyOnTwoNodes(_, two) = reports[0] else { panic!("{reports:?}") };
    let places = [Address::Udp(host(1)), Address::Udp(elsewhere)];
    assert!(two.iter().all(|at| places.contains(at)) && two[0] != two[1], "{two:?}");
    assert!(couple.b.peer_view(1).key_on_two_nodes.is_some());
    // The copy stops. After ten minutes, the report ends.
    couple.net.cut(elsewhere, true);
    couple.run_for(700);
    assert_eq!(couple.b.peer_view(1).key_on_two_nodes, None);
}

#[test]
fn a_peer_that_does_not_answer_is_asked_from_another_local_port_and_its_link_follows() {
    let mut couple = Couple::new(1, &[], host(2), None);
    couple.run_for(3);
    assert_eq!(couple.exchange(20), (20, 20));
    let wanted = |couple: &Couple| {
        couple.a.events.iter().filter(|e| matches!(e, Event::WantsAlternate(_))).count()
    };
    // The router of A has stale state for A's port.
    couple.net.cut(host(1), true);
    for _ in 0..50 {
        couple.exchange(1);
        couple.run_for(1);
    }
    assert_eq!(wanted(&couple), 0, "A asks for no other port yet");
    couple.run_for(40);
    assert!(!couple.a.is_up());
    assert_eq!(wanted(&couple), 1, "{:?}", couple.a.events);
    for (nth, at) in [host(21), host(22)].into_iter().enumerate() {
        let port = couple.a.switch.plug_everywhere(vec![Box::new(couple.net.port(at, 0))]);
        let port = port.expect("a place");
        couple.a.switch.accept_unknown(port, true);
        couple.a.switch.set_alternate(couple.a.port, port);
        couple.run_for(30);
        assert_eq!(couple.exchange(50), (50, 50), "by {at}");
        assert_eq!(couple.a.peer_view(2).port, port);
        assert_eq!(couple.b.peer_view(1).at, Some(Address::Udp(at)));
        // Later, the state for this port becomes stale, too.
        couple.net.cut(at, true);
        for _ in 0..400 {
            couple.exchange(1);
            couple.run_for(1);
        }
        assert!(wanted(&couple) > 1 + nth, "A asks for another port");
    }
    // The first port works again. The others do not.
    couple.net.cut(host(1), false);
    couple.run_for(40);
    assert_eq!(couple.exchange(50), (50, 50));
    assert_eq!(couple.a.peer_view(2).port, couple.a.port);
    couple.assert_even();
}

#[test]
fn a_peer_that_restarts_right_after_a_handshake_is_answered_at_once() {
    // The node that restarts has the smaller key in one case, and the larger key in the other.
    for of in [1, 2] {
        let mut pair =
            Pair::with(NodeSpec::new(1), NodeSpec::new(2), |_, spec| spec.with_liveness(FAST));
        pair.until_up();
        let (dies, restarts_before) = if of == 1 { (host(1), 2) } else { (host(2), 1) };
        pair.net.cut(dies, true);
        let is_up =
            |pair: &Pair| if restarts_before == 1 { pair.a.is_up() } else { pair.b.is_up() };
        while is_up(&pair) {
            send(&mut pair.at_a, pair.to_b, b"anybody?");
            send(&mut pair.at_b, pair.to_a, b"anybody?");
            pair.advance(20 * MS);
        }
        assert!(pair.now.0 < 4 * SECOND, "the keys are new");
        pair.net.cut(dies, false);
        let net = pair.net.clone();
        let birth = NodeSpec { restarts_before: 1, ..NodeSpec::new(of) };
        let (mut node, other) = (Node::new(&net, &birth, pair.now), 3 - of);
        let spec = node.peer_spec(other, true).with_liveness(FAST);
        node.switch.add_peer(spec, pair.now).expect("a slot");
        let (_, end) = node.add_endpoint();
        if of == 1 {
            (pair.a, pair.at_a) = (node, end)
        } else {
            (pair.b, pair.at_b) = (node, end)
        }
        let began = pair.now.0;
        while !pair.carries_packets() {
            pair.advance(20 * MS);
            assert!(pair.now.0 - began < 1_400 * MS, "{of}: {:?}", pair.a.peer_view(2));
        }
        pair.assert_even();
    }
}
