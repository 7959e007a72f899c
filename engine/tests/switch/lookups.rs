//! Announcements of endpoints, and requests about peers (wire.md 5.5), at one switch in virtual
//! time. Slot 2 is a neighbour on a plain UDP link; the other slots are endpoints.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use strowger_crypto::{
    AnnouncePlace, Certificate, IdentityKey, LocalIdentity, NetworkId, SeededEntropy, find_tag,
};
use strowger_engine::{
    Now,
    control::{
        Attach, Event, Switch, SwitchConfig,
        messages::{KnownPeer, Resolver},
        peering::PeeringConfig,
    },
    discard::Discard,
    link::{Behind, Rights},
    worker::Worker,
};
use strowger_frame::{Address, Burst, ChunkClass, Mark, Pool, PoolSpec, Port};
use strowger_io::{MemoryPort, memory};
use strowger_testkit::sim::{SimNet, host};
use strowger_wire::{
    Label, Slot,
    certificate::KeyRole,
    control::{AnnounceVerdict, Message, ResolveTarget, ResolvedLabel},
    label::AnyLabel,
    limits::CONTROL_BYTES_MAX,
    scheme::V3X5X8,
    switch_header::{Flags, HeaderRepr},
};

use crate::control_messages::{MS, way};

const SECOND: u64 = 1_000 * MS;

/// The slot of the neighbour.
const NEIGHBOUR: u32 = 2;

fn key(seed: u64) -> IdentityKey {
    IdentityKey::generate(&mut SeededEntropy::new(seed)).expect("seeded")
}

fn network() -> NetworkId {
    NetworkId::new(b"home").expect("short")
}

struct Node {
    switch: Switch,
    worker: Worker,
    events: Vec<Event>,
}

struct Bench {
    node: Node,
    net: SimNet,
    ends: BTreeMap<u32, MemoryPort>,
    pool: Pool,
    now: Now,
}

impl Bench {
    /// A switch with a neighbour on slot 2 and endpoints on the slots 3, 4 and 100.
    fn new() -> Bench {
        Bench::with_rights(Rights::ALL)
    }

    fn with_rights(rights: Rights) -> Bench {
        let mut bench = Bench::without_identity(rights);
        let local = LocalIdentity::new(&key(100), network());
        let config = PeeringConfig::new(local, Box::new(SeededEntropy::new(7)));
        bench.node.switch.set_identity(config, bench.now).expect("one worker");
        bench
    }

    fn without_identity(rights: Rights) -> Bench {
        let pool = PoolSpec { trains: 0, singles: 64, huge_pages: false };
        let pool = Pool::new(&pool).expect("memory");
        let (net, ends) = (SimNet::default(), BTreeMap::new());
        let memory = PoolSpec { trains: 4, singles: 128, huge_pages: false };
        let memory = Pool::new(&memory).expect("memory");
        let (switch, mut workers) =
            Switch::new(SwitchConfig::default(), vec![memory]).expect("sane");
        let mut node = Node { switch, worker: workers.remove(0), events: Vec::new() };
        let port = node.switch.plug_at(0, Box::new(net.port(host(1), 0))).expect("room");
        let attach = Attach::plain(port, Address::Udp(host(2)), Behind::Neighbour, "neighbour");
        let attach = attach.with_rights(rights).with_slot(Slot::new(NEIGHBOUR));
        node.switch.attach(attach).expect("free");
        let mut bench = Bench { node, net, ends, pool, now: Now(1) };
        for slot in [3, 4, 100] {
            bench.attach(slot, Rights::ALL);
        }
        bench
    }

    fn attach(&mut self, slot: u32, rights: Rights) {
        let (near, mut far) = memory::wire(64).expect("descriptors");
        far.admit(Mark(0), Address::Only).expect("no other neighbour");
        let port = self.node.switch.plug_at(0, Box::new(near)).expect("room");
        let attach = Attach::plain(port, Address::Only, Behind::Endpoint, format!("on {slot}"));
        let attach = attach.with_rights(rights).with_slot(Slot::new(slot));
        assert_eq!(self.node.switch.attach(attach), Ok(Slot::new(slot)));
        self.ends.insert(slot, far);
        self.pass(MS);
        self.node.events.clear();
    }

    fn pass(&mut self, ns: u64) {
        for _ in 0..20 {
            self.now.0 += ns / 20;
            self.net.deliver_until(self.now.0);
            self.node.worker.poll(self.now);
            self.node.events.extend(self.node.switch.poll(self.now));
        }
    }

    /// Sends a message from a slot along `label`, and returns the control messages that the slot
    /// receives.
    fn ask_along(&mut self, slot: u32, label: Label, message: &[u8]) -> Vec<Vec<u8>> {
        let (label, shift) = label.depart().expect("short");
        let flags = Flags { control: true, ..Flags::default() };
        let header = HeaderRepr { flags, ..HeaderRepr::new(label, shift, 9) };
        let mut packet = vec![0; 24 + message.len()];
        packet[..8].copy_from_slice(&[0x60, 0, 0, 0, 0, 0, 0, 1]);
        header.emit(&mut packet[8..]).expect("room").copy_from_slice(message);
        let replies: Vec<Vec<u8>> = if slot == NEIGHBOUR {
            self.net.inject(host(2), host(1), &packet);
            self.pass(MS);
            let datagrams = self.net.take_received(host(2));
            datagrams.into_iter().map(|datagram| datagram.bytes).collect()
        } else {
            let chunk = self.pool.take(ChunkClass::Single).expect("all frames are returned");
            let mut frame = chunk.into_frame(256, packet.len());
            frame.bytes_mut().copy_from_slice(&packet);
            let mut burst: Burst = [frame].into_iter().collect();
            let end = self.ends.get_mut(&slot).expect("attached");
            end.tx_burst(Mark(0), &mut burst);
            end.flush();
            self.pass(MS);
            let mut burst = Burst::new();
            let end = self.ends.get_mut(&slot).expect("attached");
            end.rx_burst(&mut self.pool, &mut burst);
            burst.iter().map(|frame| frame.bytes().to_vec()).collect()
        };
        let balance = self.node.switch.balance();
        assert!(balance.is_even(), "R3: {balance:?}");
        for reply in &replies {
            assert!(reply.len() <= packet.len(), "R4: longer than the question");
        }
        replies.into_iter().map(|reply| reply[24..].to_vec()).collect()
    }

    /// Sends a message from a slot to the switch itself.
    fn ask(&mut self, slot: u32, message: &Message<'_>) -> Vec<Vec<u8>> {
        self.ask_along(slot, Label::here(), &message.to_bytes())
    }

    /// Announces an identity at `slot`, and returns the verdict and the seconds.
    fn announce(
        &mut self,
        slot: u32,
        who: &IdentityKey,
        seconds: u32,
        stamp: u64,
    ) -> (AnnounceVerdict, u32) {
        let certificate = who.certify_connection_key(1, &network());
        self.announce_as(slot, slot, who, &certificate, seconds, stamp)
    }

    fn announce_as(
        &mut self,
        slot: u32,
        stated: u32,
        who: &IdentityKey,
        certificate: &Certificate,
        seconds: u32,
        stamp: u64,
    ) -> (AnnounceVerdict, u32) {
        // The budget is one a second.
        self.pass(SECOND);
        let (network, switch) = (network(), key(100).public());
        let place = AnnouncePlace { network: &network, switch: &switch, slot: stated };
        let made = who.announce(&place, certificate, seconds, stamp);
        let replies = self.ask_along(slot, Label::here(), &made.message(77));
        let [reply] = &replies[..] else { panic!("{replies:?}") };
        match Message::parse(reply) {
            Ok(Message::Announced { id: 77, verdict, seconds }) => (verdict, seconds),
            other => panic!("{other:?}"),
        }
    }

    /// Requests a peer with a find message. Returns width and director, the seconds, and the
    /// certificate.
    fn find(&mut self, slot: u32, who: &IdentityKey) -> Option<((u8, u64), u32, Vec<u8>)> {
        let nonce = [9; 16];
        let tag = find_tag(&nonce, &who.public().peer_id().ip6());
        let replies = self.ask(slot, &Message::Find { nonce: &nonce, tag: &tag });
        let [reply] = &replies[..] else { panic!("{replies:?}") };
        let Ok(Message::Found { nonce: again, host }) = Message::parse(reply) else {
            panic!("{reply:?}")
        };
        assert_eq!(*again, nonce);
        let host = host?;
        Some(((host.width, host.director), host.seconds, host.certificate.to_vec()))
    }

    /// Requests labels to a peer, by key and by address; both answers must be equal.
    fn resolve(&mut self, slot: u32, who: &IdentityKey) -> Resolved {
        let (key, address) = (who.public().to_bytes(), who.public().peer_id().ip6().octets());
        let targets = [ResolveTarget::Peer(&key), ResolveTarget::Address(&address)];
        let [by_key, by_address] = targets.map(|target| {
            let replies = self.ask(slot, &Message::Resolve { id: 5, target });
            let [reply] = &replies[..] else { panic!("{replies:?}") };
            let Ok(Message::Resolved { id: 5, resolution }) = Message::parse(reply) else {
                panic!("{reply:?}")
            };
            Resolved {
                identity: *resolution.identity,
                certificate: resolution.certificate.map(|bytes| bytes.to_vec()),
                labels: resolution.labels.iter().flatten().copied().collect(),
            }
        });
        assert_eq!(by_key, by_address);
        by_key
    }

    fn count(&self, discard: Discard) -> u64 {
        self.node.switch.balance().discards[discard as usize]
    }
}

#[derive(Debug, PartialEq, Eq)]
struct Resolved {
    identity: [u8; 32],
    certificate: Option<Vec<u8>>,
    labels: Vec<ResolvedLabel>,
}

impl Resolved {
    fn nothing() -> Resolved {
        Resolved { identity: [0; 32], certificate: None, labels: Vec::new() }
    }
}

const TAKEN: AnnounceVerdict = AnnounceVerdict::TAKEN;

/// wire.md: W5-3, W5-95, W5-98, W5-99.
#[test]
fn a_peer_that_announced_itself_is_found_by_its_neighbours_only_by_its_tag() {
    let mut bench = Bench::new();
    let (ours, other) = (key(1), key(2));
    assert_eq!(bench.find(NEIGHBOUR, &ours), None);
    assert_eq!(bench.announce(3, &ours, 300, 10), (TAKEN, 300));
    let peer = ours.public().peer_id();
    let announced = Event::Announced { slot: Slot::new(3), peer };
    assert!(bench.node.events.contains(&announced), "{:?}", bench.node.events);
    let certificate = ours.certify_connection_key(1, &network());
    let code = |width| V3X5X8.encode(Slot::new(3), width).expect("fits").bits();
    let wanted = |width| Some(((width, code(width)), 300, certificate.as_bytes().to_vec()));
    assert_eq!(bench.find(NEIGHBOUR, &ours), wanted(4));
    assert_eq!(bench.find(NEIGHBOUR, &other), None);
    // The director is wide enough for the slot by which the request arrived.
    assert_eq!(bench.find(100, &ours).map(|found| found.0), Some((10, code(10))));
    // A label back to the slot of the node that asks is of no use.
    assert_eq!(bench.find(3, &ours), None);
    let view = bench.node.switch.slots().into_iter().find(|view| view.slot.number() == 3);
    let views = view.expect("attached").announcements;
    assert_eq!((views.len(), views[0].peer, views[0].seconds), (1, peer, 300));
}

/// wire.md: W5-92.
#[test]
fn an_announcement_is_refused_with_its_reason() {
    let mut bench = Bench::new();
    let (ours, other) = (key(1), key(2));
    let valid = ours.certify_connection_key(1, &network());
    let refused = |why| (why, 0);
    let moved = bench.announce_as(3, 4, &ours, &valid, 300, 10);
    assert_eq!(moved, refused(AnnounceVerdict::OTHER_SLOT));
    let link = ours.certify(KeyRole::Link, &[7; 32], 1, &network());
    let away = ours.certify_connection_key(1, &NetworkId::new(b"away").expect("short"));
    for certificate in [link, away] {
        let bad = bench.announce_as(3, 3, &ours, &certificate, 300, 10);
        assert_eq!(bad, refused(AnnounceVerdict::BAD_CERTIFICATE));
    }
    // A local program claims the identity of another.
    let stolen = bench.announce_as(3, 3, &other, &valid, 300, 10);
    assert_eq!(stolen, refused(AnnounceVerdict::BAD_SIGNATURE));
    let verdict = AnnounceVerdict::BAD_SIGNATURE;
    let event = Event::AnnounceRefused { slot: Slot::new(3), verdict };
    assert!(bench.node.events.contains(&event), "{:?}", bench.node.events);
    assert_eq!(bench.find(NEIGHBOUR, &ours), None);
    // A neighbour that is no endpoint.
    let neighbour = bench.announce(NEIGHBOUR, &ours, 300, 10);
    assert_eq!(neighbour, refused(AnnounceVerdict::OTHER_SLOT));

    let mut plain = Bench::without_identity(Rights::ALL);
    assert_eq!(plain.announce(3, &ours, 300, 10), refused(AnnounceVerdict::NO_IDENTITY));
}

/// wire.md: W5-93, W5-95, W5-102.
#[test]
fn a_newer_announcement_replaces_the_older_one_and_no_older_one_a_newer() {
    let mut bench = Bench::new();
    let ours = key(1);
    assert_eq!(bench.announce(3, &ours, 300, 10), (TAKEN, 300));
    // The same again, a second later: the answer was lost.
    assert_eq!(bench.announce(3, &ours, 300, 10), (TAKEN, 299));
    let stale = (AnnounceVerdict::STALE, 0);
    assert_eq!(bench.announce(3, &ours, 300, 9), stale);
    assert_eq!(bench.announce(4, &ours, 300, 10), stale);
    assert_eq!(bench.announce(3, &ours, 500, 11), (TAKEN, 500));
    // A second slot of the same node: the newest one is found.
    assert_eq!(bench.announce(4, &ours, 300, 12), (TAKEN, 300));
    let code = V3X5X8.encode(Slot::new(4), 4).expect("fits").bits();
    assert_eq!(bench.find(NEIGHBOUR, &ours).map(|found| found.0), Some((4, code)));
    let resolved = bench.resolve(100, &ours);
    let egress = |slot| AnyLabel::W64(way(&[(100, slot)]));
    let labels: Vec<_> = resolved.labels.iter().map(|label| label.label).collect();
    assert_eq!(labels, [egress(4), egress(3)]);
}

/// wire.md: W5-96, W5-97.
#[test]
fn announcements_end_by_their_time_by_withdrawal_and_with_their_slot() {
    let mut bench = Bench::new();
    let (ours, peer) = (key(1), key(1).public().peer_id());
    let ended = Event::AnnouncementEnded { slot: Slot::new(3), peer };
    assert_eq!(bench.announce(3, &ours, 10, 10), (TAKEN, 10));
    bench.pass(9 * SECOND);
    assert_eq!(bench.find(NEIGHBOUR, &ours).map(|found| found.1), Some(1));
    bench.node.events.clear();
    // The switch wakes by itself at the end of the announcement.
    let due = bench.node.switch.next_timeout().expect("a timer");
    assert!(due.0 <= bench.now.0 + SECOND, "{due:?}");
    bench.pass(SECOND);
    assert_eq!(bench.node.events, std::slice::from_ref(&ended));
    assert_eq!(bench.find(NEIGHBOUR, &ours), None);

    assert_eq!(bench.announce(3, &ours, u32::MAX, 11), (TAKEN, 3_600));
    assert_eq!(bench.announce(3, &ours, 0, 12), (TAKEN, 0));
    assert!(bench.node.events.contains(&ended));
    assert_eq!(bench.find(NEIGHBOUR, &ours), None);

    assert_eq!(bench.announce(3, &ours, 300, 13), (TAKEN, 300));
    bench.node.switch.detach(Slot::new(3)).expect("attached");
    bench.pass(MS);
    assert_eq!(bench.find(NEIGHBOUR, &ours), None);
    // The next user of the number has announced nothing.
    bench.pass(61 * SECOND);
    bench.attach(3, Rights::ALL);
    assert_eq!(bench.find(NEIGHBOUR, &ours), None);
    let views = bench.node.switch.slots();
    assert!(views.iter().all(|view| view.announcements.is_empty()));
    assert_eq!(bench.announce(3, &ours, 300, 13), (TAKEN, 300));
    // A slot that drains gets no new labels.
    bench.node.switch.drain(Slot::new(3), std::time::Duration::from_secs(60)).expect("attached");
    bench.pass(MS);
    assert_eq!(bench.find(NEIGHBOUR, &ours), None);
    assert!(bench.resolve(4, &ours).labels.is_empty());
}

/// wire.md: W5-94.
#[test]
fn a_slot_has_eight_announcements_at_most() {
    let mut bench = Bench::new();
    for seed in 1..=8 {
        assert_eq!(bench.announce(3, &key(seed), 300, 10), (TAKEN, 300));
    }
    assert_eq!(bench.announce(3, &key(9), 300, 10), (AnnounceVerdict::FULL, 0));
    assert_eq!(bench.announce(3, &key(8), 300, 11), (TAKEN, 300), "it replaces its own");
    assert_eq!(bench.announce(4, &key(9), 300, 10), (TAKEN, 300), "another slot has its own");
    for seed in 1..=9 {
        assert!(bench.find(NEIGHBOUR, &key(seed)).is_some());
        bench.pass(SECOND);
    }
}

/// wire.md: W5-106.
#[test]
fn announcements_and_finds_have_rates_of_their_own() {
    let mut bench = Bench::new();
    let ours = key(1);
    assert_eq!(bench.announce(3, &ours, 300, 10), (TAKEN, 300));
    let nonce = [1; 16];
    let find = Message::Find { nonce: &nonce, tag: &[0; 16] };
    // Several requests in one millisecond.
    let answered: usize = (0..64).map(|_| bench.ask(NEIGHBOUR, &find).len()).sum();
    assert!((32..=34).contains(&answered), "{answered}");
    assert_eq!(bench.count(Discard::OverBudget), 64 - answered as u64);
    assert!(bench.find(100, &ours).is_some(), "another link has a budget of its own");

    let before = bench.count(Discard::OverBudget);
    let certificate = ours.certify_connection_key(1, &network());
    let (network, switch) = (network(), key(100).public());
    let place = AnnouncePlace { network: &network, switch: &switch, slot: 4 };
    let answered: usize = (0..40)
        .map(|stamp| {
            let made = ours.announce(&place, &certificate, 300, 100 + stamp);
            bench.ask_along(4, Label::here(), &made.message(1)).len()
        })
        .sum();
    assert_eq!(answered, 16);
    assert_eq!(bench.count(Discard::OverBudget) - before, 24);
}

/// wire.md: W5-55, W5-99, W5-105.
#[test]
fn a_link_learns_of_no_slot_that_its_rights_do_not_lead_to() {
    let ours = key(1);
    let mut bench = Bench::with_rights(Rights { endpoints: false, ..Rights::ALL });
    bench.attach(5, Rights { endpoints: false, ..Rights::ALL });
    bench.attach(6, Rights { transit: false, ..Rights::ALL });
    assert_eq!(bench.announce(3, &ours, 300, 10), (TAKEN, 300));
    assert_eq!(bench.find(NEIGHBOUR, &ours), None);
    assert_eq!(bench.resolve(5, &ours), Resolved::nothing());
    assert_eq!(bench.resolve(6, &ours).labels.len(), 1);

    let far = key(2);
    let over = AnyLabel::W64(way(&[(1, NEIGHBOUR), (5, 7)]));
    let own = AnyLabel::W64(way(&[(1, 4)]));
    bench.node.switch.set_resolver(Some(Box::new(Book::new(&far, &[over, own], None))));
    let seen = |bench: &mut Bench, slot| -> Vec<AnyLabel> {
        bench.resolve(slot, &far).labels.iter().map(|label| label.label).collect()
    };
    assert_eq!(seen(&mut bench, 3), [over, own]);
    assert_eq!(seen(&mut bench, 5), [over]);
    assert_eq!(seen(&mut bench, 6), [own]);
    assert_eq!(seen(&mut bench, 4), [over], "no label back to the slot that asks");

    // Without the right to ask, the answer is the error about an empty slot.
    let mut bench = Bench::with_rights(Rights { control: false, ..Rights::ALL });
    assert_eq!(bench.announce(3, &ours, 300, 10), (TAKEN, 300));
    let nonce = [9; 16];
    let tag = find_tag(&nonce, &ours.public().peer_id().ip6());
    let replies = bench.ask(NEIGHBOUR, &Message::Find { nonce: &nonce, tag: &tag });
    assert_eq!(replies[0][..4], [1, 7, 4, 0]);
    assert_eq!(bench.count(Discard::NotAllowed), 1);
}

/// A resolver that knows one peer.
struct Book {
    target: IdentityKey,
    known: KnownPeer,
}

impl Book {
    fn new(who: &IdentityKey, labels: &[AnyLabel], certificate: Option<&Certificate>) -> Book {
        let labels = labels.iter().enumerate().map(|(place, &label)| ResolvedLabel {
            label,
            cost: place as u32,
            mtu: 1_400,
            seconds: 0,
        });
        let known = KnownPeer {
            identity: who.public().to_bytes(),
            certificate: certificate.map(|certificate| *certificate.as_bytes()),
            labels: labels.collect(),
        };
        let target = IdentityKey::from_seed(&strowger_crypto::Secret::from_bytes([0; 32]));
        Book { target, known }
    }

    fn address(&self) -> [u8; 16] {
        let identity = strowger_crypto::Identity::from_bytes(&self.known.identity);
        identity.map_or(self.target.public().peer_id(), |one| one.peer_id()).ip6().octets()
    }
}

impl Resolver for Book {
    fn resolve(&mut self, target: &ResolveTarget<'_>, _: Now) -> Option<KnownPeer> {
        let is_known = match target {
            ResolveTarget::Peer(key) => **key == self.known.identity,
            ResolveTarget::Address(address) => **address == self.address(),
        };
        is_known.then(|| self.known.clone())
    }
}

/// wire.md: W5-102, W5-103, W5-104.
#[test]
fn a_resolve_is_answered_with_four_labels_from_the_slot_that_asks() {
    let mut bench = Bench::new();
    let (ours, unknown) = (key(1), key(2));
    let certificate = ours.certify_connection_key(1, &network());
    let over = |slot| AnyLabel::W64(way(&[(1, NEIGHBOUR), (5, slot)]));
    let empty = AnyLabel::W64(way(&[(1, 20), (5, 7)]));
    let itself = AnyLabel::W64(Label::here());
    let labels = [empty, itself, over(4), over(5), over(6), over(7), over(8)];
    let book = Book::new(&ours, &labels, Some(&certificate));
    bench.node.switch.set_resolver(Some(Box::new(book)));
    assert_eq!(bench.resolve(3, &unknown), Resolved::nothing());
    let resolved = bench.resolve(3, &ours);
    assert_eq!(resolved.identity, ours.public().to_bytes());
    assert_eq!(resolved.certificate.as_deref(), Some(&certificate.as_bytes()[..]));
    let seen: Vec<_> = resolved.labels.iter().map(|label| (label.label, label.cost)).collect();
    assert_eq!(seen, [(over(4), 2), (over(5), 3), (over(6), 4), (over(7), 5)]);
    assert!(resolved.labels.iter().all(|label| (label.mtu, label.seconds) == (1_400, 0)));

    // From slot 100 the first director must have 10 bits.
    let wide = |slot| AnyLabel::W64(way(&[(100, NEIGHBOUR), (5, slot)]));
    let seen: Vec<_> = bench.resolve(100, &ours).labels.iter().map(|label| label.label).collect();
    assert_eq!(seen, [4, 5, 6, 7].map(wide));

    // An own slot comes first, and each label once.
    assert_eq!(bench.announce(4, &ours, 300, 10), (TAKEN, 300));
    let seen: Vec<_> = bench.resolve(3, &ours).labels.iter().map(|label| label.label).collect();
    let own = AnyLabel::W64(way(&[(3, 4)]));
    assert_eq!(seen, [own, over(4), over(5), over(6)]);
    bench.node.switch.set_resolver(Some(Box::new(Book::new(&ours, &[own], None))));
    let resolved = bench.resolve(3, &ours);
    assert_eq!(resolved.labels.len(), 1);
    assert_eq!((resolved.labels[0].cost, resolved.labels[0].seconds), (0, 300));
}

/// wire.md: W5-91, W5-100, W5-101, W5-107.
#[test]
fn only_the_neighbour_itself_announces_resolves_and_learns_its_address() {
    let mut bench = Bench::new();
    let ours = key(1);
    assert_eq!(bench.announce(3, &ours, 300, 10), (TAKEN, 300));
    let seen = |replies: Vec<Vec<u8>>| -> Option<SocketAddr> {
        let [reply] = &replies[..] else { panic!("{replies:?}") };
        match Message::parse(reply) {
            Ok(Message::ObservedReply { id: 8, address }) => address,
            other => panic!("{other:?}"),
        }
    };
    let observed = Message::ObservedRequest { id: 8 };
    assert_eq!(seen(bench.ask(NEIGHBOUR, &observed)), Some(host(2)));
    assert_eq!(seen(bench.ask(3, &observed)), None);

    // A sender behind the neighbour: its return path is longer.
    let from_afar = |bench: &mut Bench, message: &Message<'_>| {
        let (label, shift) = (Label::new(0x9000_0000_0000_0001), 8);
        let flags = Flags { control: true, ..Flags::default() };
        let header = HeaderRepr { flags, ..HeaderRepr::<u64>::new(label, shift, 9) };
        let bytes = message.to_bytes();
        let mut packet = vec![0; 24 + bytes.len()];
        packet[..8].copy_from_slice(&[0x60, 0, 0, 0, 0, 0, 0, 1]);
        header.emit(&mut packet[8..]).expect("room").copy_from_slice(&bytes);
        bench.net.inject(host(2), host(1), &packet);
        bench.pass(MS);
        bench.net.take_received(host(2)).len()
    };
    assert_eq!(from_afar(&mut bench, &Message::Ping { id: 1, payload: &[0; 64] }), 1);
    let before = bench.count(Discard::Unhandled);
    let identity = ours.public().to_bytes();
    let certificate = ours.certify_connection_key(1, &network());
    let (network, switch) = (network(), key(100).public());
    let place = AnnouncePlace { network: &network, switch: &switch, slot: NEIGHBOUR };
    let made = ours.announce(&place, &certificate, 300, 100);
    for message in [
        observed,
        Message::Resolve { id: 1, target: ResolveTarget::Peer(&identity) },
        Message::Announce { id: 1, announcement: made.fields() },
    ] {
        assert_eq!(from_afar(&mut bench, &message), 0, "{message:?}");
    }
    assert_eq!(bench.count(Discard::Unhandled) - before, 3);

    // A plain link to another switch gets no labels.
    let target = ResolveTarget::Peer(&identity);
    let replies = bench.ask(NEIGHBOUR, &Message::Resolve { id: 1, target });
    assert_eq!(replies[0][..4], [1, 7, 4, 0]);
    assert_eq!(bench.count(Discard::NotAllowed), 1);
    assert!(CONTROL_BYTES_MAX > replies[0].len());
}
