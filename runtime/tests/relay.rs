//! Tests of a relay as programs use it: packets between relays, changes while a relay runs, events,
//! and the ways in which a relay ends.
#![allow(clippy::unwrap_used)] // functions that only tests call count as tests

use std::{
    error::Error as _,
    net::UdpSocket,
    time::{Duration, Instant},
};

use strowger_engine::control::{Event as SwitchEvent, SwitchConfig};
use strowger_io::{
    memory,
    unix::{Greeting, TrainClient},
};
use strowger_runtime::{
    Address, Burst, CallError, CustomPort, EventKind, Events, Hop, IdentityKey, Label,
    LocalPortSpec, Neighbor, NeighborError, OsEntropy, Packet, PacketError, Peer, PortClosed,
    Relay, RelayBuilder, RelayHandle, Scheme, Slot, SlotError, StartError, UnixSocket,
};

/// The maximum time for any step, even on a busy machine.
const DEADLINE: Duration = Duration::from_secs(60);

fn builder() -> RelayBuilder {
    Relay::builder().workers(1)
}

fn local(name: &str, slot: u32) -> LocalPortSpec {
    LocalPortSpec::new(name).slot(slot)
}

fn label(hops: &[(u32, u32)]) -> Label {
    let scheme = &Scheme::default();
    let hop =
        |&(ingress, egress)| Hop { scheme, ingress: Slot::new(ingress), egress: Slot::new(egress) };
    let hops: Vec<Hop<'_>> = hops.iter().map(hop).collect();
    Label::build(&hops).unwrap().0
}

/// Blocks until the switch reports this event.
fn until(events: &mut Events, what: &SwitchEvent) {
    let deadline = Instant::now() + DEADLINE;
    while Instant::now() < deadline {
        let event = events.recv_timeout(DEADLINE).expect("an event comes");
        if matches!(&event.kind, EventKind::Switch(event) if event == what) {
            return;
        }
    }
    panic!("event did not come: {what:?}");
}

/// Two relays with two workers each. A memory wire at slot 2 joins them, and each has a local port
/// at slot 3.
fn joined() -> [RelayHandle; 2] {
    let (left, right) = memory::wire(256).unwrap();
    [left, right].map(|port| {
        Relay::builder()
            .workers(2)
            .custom_port(CustomPort::at_worker("wire", 1, Box::new(port)).trains(64))
            .neighbor(Neighbor::new("other", Address::Only).behind("wire").slot(2))
            .local_port_spec(local("app", 3))
            .start()
            .unwrap()
    })
}

#[test]
fn packets_cross_two_relays_and_their_answers_come_back() {
    let relays = joined();
    let [(mut one_tx, mut one_rx), (mut two_tx, mut two_rx)] =
        [0, 1].map(|at| relays[at].take_port("app").unwrap().split());
    let to = label(&[(3, 2), (2, 3)]);
    for number in 0..1_000_u32 {
        one_tx.send_to(to, &number.to_be_bytes()).unwrap();
        let packet = two_rx.recv_timeout(DEADLINE).unwrap().expect("it arrives");
        assert_eq!((packet.payload(), packet.ingress()), (&number.to_be_bytes()[..], 2));
        two_tx.reply(&packet, packet.payload()).unwrap();
        let answer = one_rx.recv_timeout(DEADLINE).unwrap().expect("the packet comes back");
        assert_eq!(answer.payload(), number.to_be_bytes());
    }
    for relay in relays {
        let stats = relay.stats().unwrap();
        assert_eq!((stats.totals.discarded(), stats.frames_copied), (0, 0));
        let wire = stats.ports.iter().find(|port| port.name == "wire").unwrap();
        assert_eq!(wire.port.queues.iter().map(|queue| queue.frames_out).sum::<u64>(), 1_000);
        assert!(stats.links.iter().all(|link| link.is_up()), "{:?}", stats.links);
        assert!(relay.shutdown().unwrap().totals.is_even());
    }
}

#[test]
fn bursts_keep_their_order_and_excess_frames_stay() {
    let relay = builder()
        .local_port_spec(local("one", 2).depth_frames(8))
        .local_port_spec(local("two", 3))
        .start()
        .unwrap();
    let (mut sender, _receiver) = relay.take_port("one").unwrap().split();
    let (_sender, mut receiver) = relay.take_port("two").unwrap().split();
    let (mut burst, mut number, mut expected) = (Burst::new(), 0_u8, 0_u8);
    while expected < 200 {
        while number < 200 && !burst.is_full() {
            let mut buffer = sender.buffer(label(&[(2, 3)]), 1).unwrap();
            buffer.payload_mut()[0] = number;
            burst.push(buffer.into_frame());
            number += 1;
        }
        sender.send_burst(&mut burst).unwrap();
        let mut received = Burst::new();
        receiver.recv_burst(&mut received).unwrap();
        for packet in received.drain(..).filter_map(Packet::from_frame) {
            assert_eq!(packet.payload(), [expected]);
            expected += 1;
        }
    }
    assert!(matches!(
        sender.buffer(label(&[(2, 3)]), 70_000),
        Err(PacketError::TooLong { bytes: 70_000 })
    ));
}

#[test]
fn a_running_relay_is_changed_and_events_report_the_result() {
    let relay = builder().local_port_spec(local("app", 2)).start().unwrap();
    let mut events = relay.events();
    let (mut sender, _app) = relay.take_port("app").unwrap().split();
    let (_later, mut later) = relay.attach_local(local("later", 3)).unwrap().split();
    until(&mut events, &SwitchEvent::SlotAttached(Slot::new(3)));
    sender.send_to(label(&[(2, 3)]), b"one").unwrap();
    assert_eq!(later.recv_timeout(DEADLINE).unwrap().unwrap().payload(), b"one");

    assert_eq!(relay.renumber(3, Some(Slot::new(5))).unwrap(), Slot::new(5));
    until(&mut events, &SwitchEvent::SlotMoved(Slot::new(3), Slot::new(5)));
    for (slot, payload) in [(3, b"by the former number"), (5, b"by the number of now")] {
        sender.send_to(label(&[(2, slot)]), payload).unwrap();
        assert_eq!(later.recv_timeout(DEADLINE).unwrap().unwrap().payload(), payload);
    }
    let taken = relay.attach_local(local("later", 9)).unwrap_err();
    assert!(
        matches!(&taken, NeighborError::NameTaken { slot, .. } if slot.number() == 5),
        "the name belongs to the slot of now, not to its former number: {taken}"
    );
    relay.detach(5).unwrap();
    until(&mut events, &SwitchEvent::SlotDetached(Slot::new(5)));
    assert!(matches!(later.recv(), Err(PortClosed)), "its port is unplugged with it");
    assert!(matches!(relay.detach(5), Err(SlotError::Detach(_))));
    relay.shutdown().unwrap();
    while events.recv().is_some() {}
    assert!(events.is_ended());
}

#[test]
fn every_end_of_a_relay_closes_its_ports_and_frees_its_address() {
    type End = fn(RelayHandle);
    let ends: [End; 3] = [
        |relay| drop(relay.shutdown().unwrap()),
        drop,
        |relay| {
            relay.stop();
            let clone = relay.clone();
            drop(relay);
            assert!(clone.wait().is_ok() && clone.shutdown().is_ok(), "each call returns");
            assert_eq!(clone.stats().unwrap_err(), CallError::Stopped);
        },
    ];
    for end in ends {
        let udp = "127.0.0.1:0".parse().unwrap();
        let key = IdentityKey::generate(&mut OsEntropy).unwrap();
        let relay = builder().identity(key).udp(udp).local_port("app").start().unwrap();
        let at = relay.ports().unwrap()[0].local_address().unwrap();
        assert!(UdpSocket::bind(at).is_err());
        let (mut sender, mut receiver) = relay.take_port("app").unwrap().split();
        let waits = std::thread::spawn(move || receiver.recv().err());
        end(relay);
        assert_eq!(waits.join().unwrap(), Some(PortClosed));
        let sent = sender.send_to(label(&[(2, 3)]), b"late");
        assert!(matches!(sent, Err(PacketError::Closed(_))), "{sent:?}");
        UdpSocket::bind(at).expect("its socket is closed");
    }
}

#[test]
fn a_call_that_panics_is_an_error_and_the_relay_continues() {
    let relay = builder().local_port_spec(local("app", 2)).start().unwrap();
    let mut events = relay.events();
    assert_eq!(relay.call(|slow_path| slow_path.switch().slots().len()), Ok(1));
    let panicked = relay.call(|_| -> u32 { std::panic::resume_unwind(Box::new("on purpose")) });
    assert_eq!(panicked, Err(CallError::Panicked));
    let clone = relay.clone();
    let inside = relay.call(move |_| clone.stats().map(drop));
    assert_eq!(inside, Ok(Err(CallError::SlowPathThread)));
    let panic = loop {
        let event = events.recv_timeout(DEADLINE).expect("an event arrives");
        if let EventKind::SlowPathRestarted { panic } = event.kind {
            break panic;
        }
    };
    assert_eq!(panic, "on purpose");
    let (mut sender, mut receiver) = relay.take_port("app").unwrap().split();
    let (_tx, mut other) = relay.attach_local(local("other", 3)).unwrap().split();
    while !relay.is_up("other").unwrap() {
        events.recv_timeout(DEADLINE).expect("the local port comes up");
    }
    sender.send_to(label(&[(2, 3)]), b"still here").unwrap();
    assert_eq!(other.recv_timeout(DEADLINE).unwrap().unwrap().payload(), b"still here");
    assert!(receiver.try_recv().unwrap().is_none());
    assert_eq!(relay.stats().unwrap().slow_path_restarts, 1);
    relay.shutdown().unwrap();
}

#[test]
fn a_sealed_peer_is_attached_while_the_relay_runs() {
    let [one, two] = [(); 2].map(|()| IdentityKey::generate(&mut OsEntropy).unwrap());
    let (one_id, two_id) = (one.public().peer_id(), two.public().peer_id());
    let start = |key, slot| {
        let udp = "127.0.0.1:0".parse().unwrap();
        builder().identity(key).network("n").udp(udp).local_port_spec(local("app", slot)).start()
    };
    let (one, two) = (start(one, 4).unwrap(), start(two, 5).unwrap());
    let at = two.ports().unwrap()[0].local_address().unwrap();
    let mut events = one.events();
    assert_eq!(two.attach(Peer::new(one_id).name("one").slot(7)).unwrap(), Slot::new(7));
    assert_eq!(one.attach(Peer::new(two_id).name("two").at(at).slot(6)).unwrap(), Slot::new(6));
    while !one.is_up("two").unwrap() {
        events.recv_timeout(DEADLINE).expect("the link comes up");
    }
    let (mut sender, _receiver) = one.take_port("app").unwrap().split();
    let (_sender, mut receiver) = two.take_port("app").unwrap().split();
    sender.send_to(label(&[(4, 6), (7, 5)]), b"sealed").unwrap();
    assert_eq!(receiver.recv_timeout(DEADLINE).unwrap().unwrap().payload(), b"sealed");
    assert!(matches!(
        one.attach(Peer::new(two_id).name("again")),
        Err(NeighborError::Peer(_) | NeighborError::Switch(_))
    ));
    one.shutdown().unwrap();
    two.shutdown().unwrap();
}

#[test]
fn a_start_that_fails_gives_a_reason_and_leaves_nothing_open() {
    let taken = UdpSocket::bind("127.0.0.1:0").unwrap();
    let at = taken.local_addr().unwrap();
    let error = builder().udp(at).start().unwrap_err();
    assert!(matches!(error, StartError::Port { kind: "udp", .. }) && error.source().is_some());
    assert!(error.to_string().contains("in use by another socket"), "{error}");

    let key = IdentityKey::generate(&mut OsEntropy).unwrap();
    let peer_id = key.public().peer_id();
    let cases = [
        (builder().local_port("a").local_port("a"), "is used twice"),
        (builder().local_port(""), "is empty"),
        (builder().local_port("a\u{1b}"), "cannot be shown"),
        (builder().cores([4_095]), "core 4095"),
        (builder().identity(key).network("n".repeat(33)), "longer than 32 bytes"),
        (builder().peer(Peer::new(peer_id)), "has no port for an address"),
        (
            builder()
                .udp("127.0.0.1:0".parse().unwrap())
                .neighbor(Neighbor::new("n", "192.0.2.1:7000")),
            "links behind udp 127.0.0.1:0 are sealed",
        ),
        (
            builder()
                .udp("127.0.0.1:0".parse().unwrap())
                .peer(Peer::new(peer_id).at("255.255.255.255:7000")),
            "broadcast address",
        ),
        (
            builder().udp("127.0.0.1:0".parse().unwrap()).peer(Peer::new(peer_id).at("a name")),
            "is not an address",
        ),
        (builder().unix("a", "/nowhere/at/all"), "/nowhere"),
        (
            builder().local_port_spec(local("a", 2)).local_port_spec(local("b", 2)),
            "b cannot be attached",
        ),
    ];
    for (builder, words) in cases {
        let error = builder.start().expect_err(words);
        assert!(error.to_string().contains(words), "{error}");
    }
    let relay = builder().local_port("app").start().unwrap();
    assert!(relay.take_port("ap").unwrap_err().to_string().contains("no local port \"ap\""));
    let _app = relay.take_port("app").unwrap();
    assert!(relay.take_port("app").unwrap_err().to_string().contains("taken already"));
}

/// A scheme with a free prefix, and the same with one form more.
const GROWABLE: [u8; 5] = [0x61, 0x14, 0xc5, 0x81, 0x00];
const GROWN: [u8; 7] = [0x61, 0x14, 0xc5, 0x81, 0x30, 0x20, 0x01];

/// wire.md: W8-41, W8-43, W8-45, W8-48.
#[test]
fn processes_exchange_trains_and_a_greeting_follows_slot_and_scheme() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let key = IdentityKey::generate(&mut OsEntropy).unwrap();
    let identity = key.public().to_bytes();
    let scheme = Scheme::parse(&GROWABLE).unwrap();
    let relay = builder()
        .switch(SwitchConfig::default().with_scheme(scheme).with_slot_max(255))
        .identity(key)
        .unix_socket(UnixSocket::new("one", at("one")).slot(4))
        .unix_socket(UnixSocket::new("two", at("two")).slot(2))
        .start()
        .unwrap();
    let mut events = relay.events();
    let mut one = TrainClient::connect(at("one"), DEADLINE).unwrap();
    let mut two = TrainClient::connect(at("two"), DEADLINE).unwrap();
    let greeting = one.greeting().expect("this switch knows the second form").clone();
    assert_eq!((greeting.slot, greeting.packet_bytes_max), (4, 2048));
    assert_eq!((&greeting.scheme[..], greeting.identity), (&GROWABLE[..], identity));
    assert_eq!(two.greeting().unwrap().slot, 2);

    // Label 17: slot 2 in this scheme, and the endpoint there. 30 packets of 700 bytes and one of 24.
    let mut packet = vec![0; 700];
    packet[..16].copy_from_slice(&[0x60, 0, 0, 0, 0, 0, 0, 0, 0x10, 0, 0x40, 0, 0, 1, 0, 0]);
    packet[16..24].copy_from_slice(&[0x80, 0, 0, 0, 0, 0, 0, 0x17]);
    let mut packets = packet.repeat(30);
    packets.extend(&packet[..24]);
    assert_eq!(one.send(&packets, 700, DEADLINE).unwrap(), packets.len());
    let mut buffer = vec![0; 65_535];
    let mut lengths = Vec::new();
    while lengths.len() < 31 {
        let train = two.receive(&mut buffer, DEADLINE).unwrap().expect("in time");
        assert_eq!(train.ingress, 4);
        lengths.extend(train.packets(&buffer).map(<[u8]>::len));
    }
    assert_eq!(lengths, [vec![700; 30], vec![24]].concat());

    let mut greeting_with = |what: &str, right: &dyn Fn(&Greeting) -> bool| {
        let deadline = Instant::now() + DEADLINE;
        while !right(one.greeting().unwrap()) {
            assert!(Instant::now() < deadline, "{what}: {:?}", one.greeting());
            one.ask_greeting().unwrap();
            one.receive(&mut [], Duration::from_millis(10)).unwrap();
        }
    };
    relay
        .call(|slow_path| {
            let grown = Scheme::parse(&GROWN).unwrap();
            slow_path.switch().grow_scheme(grown, 2_000)
        })
        .unwrap()
        .unwrap();
    greeting_with("the grown scheme", &|greeting| greeting.scheme[..] == GROWN);
    relay.renumber(4, Some(Slot::new(7))).unwrap();
    greeting_with("the new number", &|greeting| greeting.slot == 7);
    until(&mut events, &SwitchEvent::SlotMoved(Slot::new(4), Slot::new(7)));
    relay.detach(7).unwrap();
    greeting_with("no number", &|greeting| greeting.slot == 0);
    assert!(relay.shutdown().unwrap().totals.is_even());
}
