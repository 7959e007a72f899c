//! The tests count the polls of a slow path that is polled only when `next_timeout` is due or its
//! waker was called. The tests run in virtual time.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use strowger_engine::{
    Now,
    control::{
        Attach, Event, SlotState,
        peering::{LinkState, Liveness, PeerSpec, PeerView},
    },
    link::Behind,
};
use strowger_frame::{Address, Wake};
use strowger_testkit::sim::{MS, Node, NodeSpec, SECOND, SimNet, hop, host, path, receive, send};
use strowger_wire::Slot;

const MINUTES: usize = 11;

/// A waker that records whether it was called.
#[derive(Default)]
struct Woken(AtomicBool);

impl Wake for Woken {
    fn wake(&self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// A node that is polled only when `next_timeout` is due or its waker was called.
struct Driven {
    node: Node,
    woken: Arc<Woken>,
    polls: u64,
}

impl Driven {
    fn new(mut node: Node) -> Self {
        let woken = Arc::new(Woken::default());
        for worker in &mut node.workers {
            worker.set_slow_path_waker(woken.clone());
        }
        Self { node, woken, polls: 0 }
    }

    fn poll(&mut self, now: Now) {
        self.node.workers.iter_mut().for_each(|worker| {
            worker.poll(now);
        });
        while self.woken.0.swap(false, Ordering::Relaxed)
            || self.node.switch.next_timeout().is_some_and(|due| due <= now)
        {
            self.polls += 1;
            assert!(self.polls < 1_000_000, "the node never comes to rest");
            self.node.events.extend(self.node.switch.poll(now));
            self.node.workers.iter_mut().for_each(|worker| {
                worker.poll(now);
            });
        }
    }

    /// The number of polls since the last call.
    fn polled(&mut self) -> u64 {
        std::mem::take(&mut self.polls)
    }
}

/// A hub and its peers. Each slow path is polled only when its timeout is due or its waker was
/// called.
struct Town {
    net: SimNet,
    hub: Driven,
    rim: Vec<Driven>,
    now: Now,
}

impl Town {
    fn new(rim: u8, tune: impl Fn(PeerSpec) -> PeerSpec) -> Self {
        let (net, now) = (SimNet::default(), Now(1));
        let mut hub = Node::new(&net, &NodeSpec::new(1), now);
        let mut nodes: Vec<Node> =
            (2..2 + rim).map(|seed| Node::new(&net, &NodeSpec::new(seed), now)).collect();
        for (seed, node) in (2..).zip(&mut nodes) {
            for (from, of) in [(&mut hub, seed), (&mut *node, 1)] {
                let spec = tune(from.peer_spec(of, true));
                from.switch.add_peer(spec, now).expect("a slot");
            }
        }
        let rim = nodes.into_iter().map(Driven::new).collect();
        Self { net, hub: Driven::new(hub), rim, now }
    }

    fn advance(&mut self, ns: u64) {
        self.now.0 += ns;
        for _ in 0..3 {
            self.hub.poll(self.now);
            self.rim.iter_mut().for_each(|node| node.poll(self.now));
        }
    }

    /// The number of polls of the hub in each minute.
    fn minutes(&mut self) -> [u64; MINUTES] {
        std::array::from_fn(|_| {
            (0..6_000).for_each(|_| self.advance(10 * MS));
            self.hub.polled()
        })
    }

    fn states(&self) -> Vec<LinkState> {
        self.hub.node.switch.peers().iter().map(|peer| peer.state).collect()
    }
}

#[test]
fn without_links_and_with_plain_ones_it_is_never_polled() {
    let mut town = Town::new(0, |spec| spec);
    town.advance(SECOND);
    town.hub.polled();
    assert_eq!(town.minutes(), [0; MINUTES]);
    assert_eq!(town.hub.node.switch.next_timeout(), None);

    let node = &mut town.hub.node;
    let at = Address::Udp(host(9));
    let plain = Attach::plain(node.port, at, Behind::Neighbour, "plain");
    node.switch.attach(plain).expect("a slot");
    assert!(node.switch.next_timeout().is_some(), "the change is due");
    town.advance(SECOND);
    assert!(town.hub.node.events.iter().any(|e| matches!(e, Event::SlotAttached(_))));
    town.hub.polled();
    assert_eq!(town.minutes(), [0; MINUTES]);
}

#[test]
fn idle_sealed_links_with_keys_cost_two_polls_a_minute_each_and_none_without() {
    for links in [1_u8, 10] {
        let mut town = Town::new(links, |spec| spec);
        let minutes = town.minutes();
        // In the first minute, the keys are made and the path MTU is found.
        assert!(minutes[0] <= 60 * u64::from(links), "{minutes:?}");
        assert!(minutes[1..4].iter().all(|polls| *polls <= 2 * u64::from(links)), "{minutes:?}");
        assert!(town.states().iter().all(|state| *state == LinkState::Idle));
        assert_eq!(minutes[4..], [0; MINUTES - 4]);
        assert_eq!(town.hub.node.switch.next_timeout(), None, "no keys, and none needed");
    }
}

#[test]
fn a_peer_that_does_not_answer_costs_two_polls_for_each_attempt_at_a_handshake() {
    let mut town = Town::new(1, |spec| spec);
    town.net.cut(host(2), true);
    let minutes = town.minutes();
    // The node makes an attempt every 12 to 16 s. It awaits the response for 10 s and then frees
    // the index.
    assert!(minutes[2..].iter().all(|polls| (3..=10).contains(polls)), "{minutes:?}");
    let trouble = |event: &Event| matches!(event, Event::LinkTrouble(..));
    assert_eq!(town.hub.node.events.iter().filter(|e| trouble(e)).count(), 1);
}

/// wire.md: W4-108.
#[test]
fn a_link_that_is_asked_always_is_asked_once_an_interval() {
    let liveness = Liveness::new(std::time::Duration::from_nanos(10 * SECOND)).with_always(true);
    let mut town = Town::new(1, |spec| spec.with_liveness(liveness));
    let minutes = town.minutes();
    // The hub receives at most one probe and one response per interval. These are 12 datagrams per
    // minute, and each causes one more poll.
    assert!(minutes[1..].iter().all(|polls| *polls <= 40), "{minutes:?}");
    assert_eq!(town.states(), [LinkState::Up]);
    // The switch detects in time that the peer is dead, although it is polled only at its timeouts
    // and when it is woken.
    town.net.cut(host(2), true);
    let since = town.now.0;
    while town.states() == [LinkState::Up] {
        town.advance(10 * MS);
    }
    let took = town.now.0 - since;
    assert!(took <= liveness.detection().as_nanos() as u64 + SECOND, "{took} ns");
}

#[test]
fn frames_that_a_worker_moves_wake_it_and_the_death_of_a_link_in_use_is_noticed_in_time() {
    let mut town = Town::new(1, |spec| spec);
    let (own, mut here) = town.hub.node.add_endpoint();
    let (far, mut there) = town.rim[0].node.add_endpoint();
    let view = |node: &Node, of| -> PeerView { node.peer_view(of) };
    (0..30).for_each(|_| town.advance(100 * MS));
    let (to, at_far) = (view(&town.hub.node, 2).slot, view(&town.rim[0].node, 1).slot);
    let label = path(&[hop(own, to.number()), hop(at_far.number(), far)]);
    // The link carries no frames, and its keys are still valid.
    (0..1_000).for_each(|_| town.advance(100 * MS));
    assert_eq!(town.states(), [LinkState::Up]);
    town.hub.polled();
    send(&mut here, label, b"there");
    town.advance(MS);
    assert!(receive(&mut there).is_some());
    assert!(town.hub.polled() > 0, "a worker woke the slow path");
    (0..100).for_each(|_| town.advance(100 * MS));
    assert!(town.hub.polled() <= 12, "after one probe and its response the link sends nothing");

    town.net.cut(host(2), true);
    let since = town.now.0;
    send(&mut here, label, b"is lost");
    while town.states() == [LinkState::Up] {
        town.advance(10 * MS);
        assert!(town.now.0 - since < 60 * SECOND, "the death is not detected");
    }
    let took = town.now.0 - since;
    assert!(took <= Liveness::default().detection().as_nanos() as u64 + 6 * SECOND, "{took} ns");
}

/// wire.md: W4-103, W4-104.
#[test]
fn keys_of_a_link_in_use_are_renewed_by_timeouts_alone() {
    let mut town = Town::new(1, |spec| spec);
    let (own, mut here) = town.hub.node.add_endpoint();
    let (far, mut there) = town.rim[0].node.add_endpoint();
    (0..30).for_each(|_| town.advance(100 * MS));
    let (to, at_far) = (town.hub.node.peer_view(2).slot, town.rim[0].node.peer_view(1).slot);
    let label = path(&[hop(own, to.number()), hop(at_far.number(), far)]);
    for _ in 0..60 {
        send(&mut here, label, b"every ten seconds");
        (0..100).for_each(|_| town.advance(100 * MS));
        assert!(receive(&mut there).is_some());
    }
    let view = town.hub.node.peer_view(2);
    assert!((4..=7).contains(&view.handshakes), "{view:?}");
    assert_eq!(view.state, LinkState::Up);
}

#[test]
fn a_slot_number_s_quarantine_ends_at_the_time_given() {
    let mut town = Town::new(0, |spec| spec);
    let (slot, _endpoint) = town.hub.node.add_endpoint();
    town.advance(SECOND);
    town.hub.node.switch.detach(Slot::new(slot)).expect("the slot is there");
    town.advance(SECOND);
    town.hub.polled();
    let began = town.now.0;
    let free = |town: &Town| town.hub.node.events.contains(&Event::SlotFree(Slot::new(slot)));
    while !free(&town) {
        town.advance(10 * MS);
        assert!(town.now.0 - began <= 61 * SECOND);
    }
    let polls = town.hub.polled();
    // A jump of the clock must not end the quarantine, so one step counts for at most five seconds.
    assert!(town.now.0 - began >= 58 * SECOND && polls <= 15, "{polls} polls");
    let is_idle = |town: &Town| {
        let slots = town.hub.node.switch.slots();
        slots.iter().all(|view| view.state == SlotState::Attached)
    };
    assert!(is_idle(&town));
    assert_eq!(town.hub.node.switch.next_timeout(), None);
}
