//! Tests of what an endpoint must not learn, keep, deliver or answer.

use strowger_crypto::handshake::{FieldBytes, TimestampGuard};
use strowger_wire::connection::{ConnectionId, HelloFields, TableState};
use strowger_wire::control::{Message, Reason};
use strowger_wire::hello::Timestamp;
use strowger_wire::switch_header::{Flags, HeaderRepr};

use super::*;
use crate::connection::drive::Role;
use crate::counters::Discard;
use crate::limits::STAMPS_KEPT_MAX;
use crate::memory::Memory;
use crate::shared::Shared;

/// Two nodes that have exchanged a message.
fn connected(by_key: bool) -> (Net, SocketId) {
    let mut net = Net::new(2, 5);
    net.listen(1, "/echo/1");
    let to = if by_key { net.destination_by_key(1) } else { net.destination(1) };
    let options = ConnectOptions::new();
    let socket = net.nodes[0].endpoint.connect(net.now, to, names(["/echo/1"]), options);
    net.drive(0);
    let socket = socket.expect("a socket");
    net.send(0, socket, b"hello");
    net.run(200);
    assert_eq!(net.take(1), [b"hello"]);
    (net, socket)
}

/// Runs `work`; returns the packets sent meanwhile, none of which arrive.
fn held_back(net: &mut Net, work: impl FnOnce(&mut Net)) -> Vec<Packet> {
    let before = net.capture.len();
    net.is_lost = Box::new(|_| true);
    work(net);
    net.is_lost = Box::new(|_| false);
    net.capture[before..].to_vec()
}

/// Passes a packet to a node as if it came in by this slot; returns the result.
fn receive(net: &mut Net, node: usize, ingress: u32, bytes: &[u8]) -> Result<(), Discard> {
    let mut frame = net.frame(bytes);
    frame.set_mark(Mark(ingress));
    let received = net.nodes[node].endpoint.receive(net.now, frame);
    net.drive(node);
    match received {
        Received::Message { .. } | Received::Consumed => Ok(()),
        Received::Discarded(why) => Err(why),
    }
}

/// The packet with a return path of more bits than an answer can have.
fn without_return_path(packet: &[u8]) -> Vec<u8> {
    let mut packet = packet.to_vec();
    let AnyHeader::W64(mut header) = AnyHeader::parse(&mut packet).expect("a header") else {
        panic!("64 bits")
    };
    header.set_shift(63);
    packet
}

/// wire.md: W6-130.
#[test]
fn a_label_without_an_answer_is_not_learnt_and_gets_none() {
    let mut net = Net::new(2, 5);
    net.listen(1, "/echo/1");
    let initiation = held_back(&mut net, |net| {
        net.connect(0, 1, "/echo/1");
    });
    let packet = without_return_path(&initiation[0].bytes);
    assert_eq!(receive(&mut net, 1, 2, &packet), Err(Discard::NoReturnPath));
    assert!(net.nodes[1].sent == 0 && net.nodes[1].endpoint.peers().is_empty());
    // A packet that would be answered with kind 7.
    let mut unknown = initiation[0].bytes[..16].to_vec();
    unknown.extend([0x40, 1, 2, 3, 4, 5, 6, 7]);
    unknown.extend([0; 24]);
    let packet = without_return_path(&unknown);
    assert_eq!(receive(&mut net, 1, 2, &packet), Err(Discard::NoReturnPath));
    assert_eq!(net.nodes[1].sent, 0);
    assert_eq!(receive(&mut net, 1, 2, &unknown), Err(Discard::NoSession));
    assert_eq!(net.nodes[1].sent, 1);

    let (mut net, socket) = connected(false);
    let peer = net.peer(0);
    let labels = |net: &Net| {
        let info = net.nodes[1].endpoint.connection(&peer).expect("open");
        info.paths.iter().map(|path| path.label).collect::<Vec<_>>()
    };
    let before = labels(&net);
    let packets = held_back(&mut net, |net| net.send(0, socket, b"one"));
    assert_eq!(receive(&mut net, 1, 2, &without_return_path(&packets[0].bytes)), Ok(()));
    assert_eq!(labels(&net), before);
    // By another slot the return label differs.
    let packets = held_back(&mut net, |net| net.send(0, socket, b"two"));
    assert_eq!(receive(&mut net, 1, 9, &packets[0].bytes), Ok(()));
    assert_eq!(labels(&net), [before, vec![label_to(9)]].concat());
}

/// wire.md: W6-146.
#[test]
fn timestamps_are_kept_and_the_greatest_dropped_one_is_the_floor() {
    let mut memory = Memory::default();
    let peer = |number: usize| {
        let mut seed = [0; 32];
        seed[..8].copy_from_slice(&(number as u64).to_be_bytes());
        IdentityKey::from_seed(&Secret::from_bytes(seed)).public().peer_id()
    };
    let guard = |number: usize| TimestampGuard { newest: Some(Timestamp(number as u64 + 10)) };
    let first = [peer(0), peer(1), peer(2)];
    for number in 0..STAMPS_KEPT_MAX {
        let peer = first.get(number).copied().unwrap_or_else(|| peer(number));
        memory.keep_stamp(Nanos(number as u64), peer, guard(number));
    }
    assert!(first.iter().all(|peer| memory.guard(peer).newest.is_some()));
    assert!(!memory.is_below_floor(Timestamp(1)), "nothing was dropped");
    // The first timestamp is used again, so the second is the oldest.
    memory.keep_stamp(Nanos::from_secs(1), first[0], guard(500));
    memory.keep_stamp(Nanos::from_secs(20), peer(STAMPS_KEPT_MAX), guard(600));
    assert_eq!(memory.guard(&first[0]).newest, guard(500).newest);
    assert_eq!(memory.guard(&first[1]).newest, None);
    assert_eq!(memory.guard(&first[2]).newest, guard(2).newest);
    assert!(memory.is_below_floor(Timestamp(11)) && !memory.is_below_floor(Timestamp(12)));
    // A lower timestamp that is dropped later does not lower the floor.
    memory.keep_stamp(Nanos::from_secs(21), peer(STAMPS_KEPT_MAX + 1), guard(601));
    assert!(memory.is_below_floor(Timestamp(12)) && !memory.is_below_floor(Timestamp(13)));
}

/// After the goodbye, a message that was in flight arrives, the goodbye is repeated, and a packet
/// arrives after the keys were dropped.
///
/// wire.md: W6-165.
#[test]
fn after_a_goodbye_no_message_is_delivered_and_only_goodbyes_are_answered() {
    let (mut net, socket) = connected(false);
    let late = held_back(&mut net, |net| {
        net.send(0, socket, b"late");
        net.send(0, socket, b"later");
        net.send(0, socket, b"latest");
    });
    let peer = net.peer(0);
    net.nodes[1].endpoint.close_connection(net.now, &peer, Goodbye::default());
    // The answers of node 0 are lost, so the goodbye is repeated.
    net.is_lost = Box::new(|packet| packet.from == 2);
    net.drive(1);
    assert_eq!(receive(&mut net, 1, 2, &late[0].bytes), Err(Discard::Closed));
    let before = net.nodes[0].sent;
    net.run(900);
    assert_eq!(net.nodes[0].sent - before, 3, "a goodbye_ack to each goodbye, and nothing else");
    assert_eq!(receive(&mut net, 1, 2, &late[1].bytes), Err(Discard::Closed));
    assert_eq!(net.try_send(0, socket, b"refused"), Err(SendRefused::NoSocket));
    net.run(200);
    for node in &net.nodes {
        assert!(node.endpoint.peers().is_empty(), "the connection is forgotten after a second");
    }
    assert_eq!(receive(&mut net, 1, 2, &late[2].bytes), Err(Discard::NoSession));
    assert_eq!(net.take(1), [b""; 0]);

    // Messages that wait are refused.
    let mut net = Net::new(2, 5);
    net.is_lost = Box::new(|_| true);
    let socket = net.connect(0, 1, "/echo/1");
    net.send(0, socket, b"waits");
    let peer = net.peer(1);
    assert_eq!(net.nodes[0].endpoint.counters().waiting(), 1);
    net.nodes[0].endpoint.close_connection(net.now, &peer, Goodbye::default());
    let counters = net.nodes[0].endpoint.counters();
    assert_eq!((counters.waiting(), counters.waited_lost()), (0, 1));
}

/// wire.md: W6-187.
#[test]
fn control_messages_are_neither_delivered_nor_answered_and_hints_have_a_budget() {
    let (mut net, socket) = connected(false);
    net.send(1, net.accepted(1), b"a packet that errors are about");
    net.run(20);
    net.take(0);
    let seen = net.capture.last().expect("a packet").bytes.clone();
    let control = |message: &Message<'_>| {
        let AnyLabel::W64(label) = label_to(3) else { panic!("64 bits") };
        let (label, shift) = label.depart().expect("short");
        let header = HeaderRepr {
            flags: Flags { control: true, ..Flags::default() },
            ..HeaderRepr::new(label, shift, 64)
        };
        let mut packet = vec![0; header.wire_bytes()];
        header.emit(&mut packet).expect("room");
        packet.extend_from_slice(message.to_bytes().as_ref());
        packet
    };
    let before = net.nodes[1].sent;
    let other = [0; 16];
    for message in [
        Message::Ping { id: 1, payload: b"ping" },
        Message::Pong { id: 1, payload: b"pong" },
        Message::TraceRequest { id: 2 },
        Message::IdentityRequest { id: 3 },
        Message::IdentityReply { id: 3, identity: &[1; 32], link_key: &[2; 32] },
        Message::Error { why: Reason::EMPTY_SLOT, offending: &other },
    ] {
        let packet = control(&message);
        let received = receive(&mut net, 1, 2, &packet);
        assert!(
            matches!(received, Err(Discard::Unsolicited | Discard::Unhandled)),
            "{message:?}: {received:?}"
        );
    }
    let mut packet = control(&Message::Ping { id: 1, payload: b"" });
    packet.truncate(16);
    assert_eq!(receive(&mut net, 1, 2, &packet), Err(Discard::Unhandled));
    assert_eq!((net.nodes[1].sent, net.take(1).len()), (before, 0));
    // Hints about a packet that node 1 has sent.
    let hint = control(&Message::Error { why: Reason::EMPTY_SLOT, offending: &seen[..16] });
    let handled: Vec<_> = (0..25).map(|_| receive(&mut net, 1, 2, &hint)).collect();
    assert!(handled[..20].iter().all(Result::is_ok), "{handled:?}");
    assert!(handled[20..].iter().all(|handled| *handled == Err(Discard::OverBudget)));
    net.run(1_000);
    net.send(0, socket, b"it works");
    net.run(20);
    assert_eq!(net.take(1), [b"it works"]);
}

/// The active label is no longer validated, and no packet has come by it since.
///
/// wire.md: W6-174.
#[test]
fn what_the_limit_of_a_label_forbids_is_sent_later() {
    let (mut net, socket) = connected(false);
    let (now, peer) = (net.now, net.peer(1));
    let packets = held_back(&mut net, |net| {
        let reset = net.nodes[0].endpoint.with_connection(now, &peer, |connection, shared| {
            connection.paths.restart(now, label_to(77));
            connection.publish(shared);
            true
        });
        reset.expect("a connection");
        net.drive(0);
        net.send(0, socket, b"waits");
        // Adds an entry to the own table, which causes a `table` item.
        net.listen(0, "/new/1");
    });
    let lengths: Vec<usize> = packets.iter().map(|packet| packet.bytes.len()).collect();
    assert_eq!(lengths, [48], "the challenge alone");
    assert_eq!(net.nodes[0].endpoint.counters().waiting(), 1);
    net.run(2_500);
    assert_eq!(net.take(1), [b"waits"]);
    let theirs = net.nodes[1].endpoint.connection(&net.peer(0)).expect("open").their_protocols;
    assert!(theirs.contains(&"/new/1".to_owned()), "{theirs:?}");
}

/// A relay holds back a packet of an earlier process of the peer.
///
/// wire.md: W6-140.
#[test]
fn packets_of_a_former_process_are_not_opened_after_a_restart() {
    for by_key in [true, false] {
        let (mut net, socket) = connected(by_key);
        let accepted = net.accepted(1);
        let held = held_back(&mut net, |net| {
            net.send(1, accepted, b"one");
            net.send(1, accepted, b"two");
        });
        assert_eq!(receive(&mut net, 0, 3, &held[0].bytes), Ok(()), "the keys are there");
        net.run(6_000);
        net.restart(1, config(2).hide_identity(!by_key));
        net.listen(1, "/echo/1");
        net.send(0, socket, b"to nobody");
        net.run(6_000);
        let restarted = Event::PeerRestarted { peer: net.peer(1) };
        assert!(net.has_event(0, |event| *event == restarted), "by key {by_key}");
        let late = receive(&mut net, 0, 3, &held[1].bytes);
        assert_eq!(late, Err(Discard::NoSession), "by key {by_key}");
        net.send(0, socket, b"open");
        net.run(20);
        assert_eq!(net.take(1).last().map(Vec::as_slice), Some(&b"open"[..]));
    }
}

/// A packet of kind 7 about a packet that was sealed with former keys has an effect for 10 s.
///
/// wire.md: W6-143.
#[test]
fn kind_7_about_former_keys_is_used_for_ten_seconds() {
    for (wait_ms, is_used) in [(6_000, true), (9_900, true), (10_020, false)] {
        let (mut net, socket) = connected(true);
        let sealed = held_back(&mut net, |net| net.send(0, socket, b"never arrives"));
        net.run(6_000);
        let (now, peer) = (net.now, net.peer(1));
        let renewed = net.nodes[0].endpoint.with_connection(now, &peer, |connection, shared| {
            let due = strowger_crypto::session::Input::RekeyDue;
            connection.drive(now, due, None, shared).is_ok()
        });
        renewed.expect("a connection");
        net.drive(0);
        net.run(10);
        let handshakes =
            |net: &Net| net.nodes[0].endpoint.connection(&peer).expect("open").handshakes;
        assert_eq!(handshakes(&net), 2);
        net.run(wait_ms - 10);
        let answer =
            strowger_wire::connection::UnknownConnection::answer_to(&sealed[0].bytes[16..]);
        let AnyLabel::W64(label) = label_to(2) else { panic!("64 bits") };
        let (label, shift) = label.depart().expect("short");
        let mut packet = vec![0; 16];
        HeaderRepr::new(label, shift, 64).emit(&mut packet).expect("room");
        packet.extend_from_slice(&answer.expect("an answer").to_bytes());
        let received = receive(&mut net, 0, 3, &packet);
        assert_eq!(received, if is_used { Ok(()) } else { Err(Discard::Unsolicited) });
        net.run(100);
        assert_eq!(handshakes(&net), 2 + u64::from(is_used), "after {wait_ms} ms");
    }
}

/// wire.md: W6-208.
#[test]
fn a_response_without_an_id_is_one_with_zeros_and_other_fields_have_no_meaning() {
    let offer = |fields: &HelloFields<'_>, shared: &Shared| {
        let mut bytes = vec![0; fields.wire_bytes()];
        fields.emit(&mut bytes).expect("room");
        let mut offer = Shared::base_offer(&shared.config);
        offer.fields = FieldBytes::new(&bytes).expect("short");
        offer
    };
    // In an IK response: no id, zeros, the id of the connection.
    for (number, has_restarted) in [(0, true), (1, true), (2, false)] {
        let (mut net, _) = connected(true);
        let (now, peer) = (net.now, net.peer(1));
        let taken = net.nodes[0].endpoint.with_connection(now, &peer, |connection, shared| {
            let id = [None, Some(ConnectionId::UNKNOWN), Some(connection.id)][number];
            let before = connection.id;
            let offer = offer(&HelloFields { id, ..HelloFields::default() }, shared);
            let index = connection.session.current_index().expect("keys");
            connection.take_hello(now, index, Role::AskedByKey, &offer, shared);
            assert_eq!(connection.id, before, "it keeps its id");
            true
        });
        taken.expect("a connection");
        net.drive(0);
        let restarted = Event::PeerRestarted { peer };
        assert_eq!(net.has_event(0, |event| *event == restarted), has_restarted, "case {number}");
    }
    // In XX 2: an id, and a state of the table that would be a conflict.
    let (mut net, socket) = connected(false);
    let (now, peer) = (net.now, net.peer(1));
    let taken = net.nodes[0].endpoint.with_connection(now, &peer, |connection, shared| {
        let before = connection.id;
        let state = TableState { count: connection.theirs.count(), digest: Default::default() };
        let fields = HelloFields {
            id: Some(ConnectionId([7; 8])),
            table: Some(state),
            ..HelloFields::default()
        };
        let index = connection.session.current_index().expect("keys");
        let offer = offer(&fields, shared);
        connection.take_hello(now, index, Role::AskedByPeerId, &offer, shared);
        assert!(connection.id == before && !connection.has_conflict);
        true
    });
    taken.expect("a connection");
    net.drive(0);
    net.run(100);
    assert!(!net.has_event(0, |event| matches!(event, Event::PeerRestarted { .. })));
    net.send(0, socket, b"still open");
    net.run(20);
    assert_eq!(net.take(1), [b"still open"]);
}
