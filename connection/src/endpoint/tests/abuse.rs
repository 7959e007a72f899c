//! Peers that have keys and abuse them.

use strowger_wire::connection::item::UnsupportedCode;
use strowger_wire::connection::{
    ControlItem, EntryFlags, EntryNumber, ProtocolName, TableEntries, TableEntry,
};

use strowger_wire::link_header::Lane;

use super::*;
use crate::path::Traffic;

/// Sends any items in one packet to node 1.
fn send_items(net: &mut Net, items: &[ControlItem<'_>]) {
    let (now, peer) = (net.now, net.peer(1));
    let sent = net.nodes[0].endpoint.with_connection(now, &peer, |connection, shared| {
        connection.send_items(now, Traffic::Unanswered, items, shared)
    });
    sent.expect("sent");
    net.drive(0);
}

fn entry(name: &str) -> Vec<u8> {
    let name = ProtocolName::new(name.as_bytes()).expect("a name");
    let entry = TableEntry { flags: EntryFlags::NONE, name };
    let mut bytes = vec![0; entry.wire_bytes()];
    entry.emit(&mut bytes).expect("room");
    bytes
}

/// Two nodes that have exchanged a message.
fn connected() -> (Net, SocketId) {
    let mut net = Net::new(2, 5);
    net.listen(1, "/echo/1");
    let socket = net.connect(0, 1, "/echo/1");
    net.send(0, socket, b"hello");
    net.run(200);
    assert_eq!(net.take(1), [b"hello"]);
    (net, socket)
}

/// The goodbye closes the connection. The table conflict must not stay due: the endpoint would poll
/// without end.
#[test]
fn a_conflict_and_a_goodbye_in_one_packet_leave_no_work_at_once() {
    let (mut net, _) = connected();
    let bytes = entry("/other/1");
    let entries = TableEntries::parse(&bytes).expect("an entry");
    let conflict = ControlItem::Table { first: EntryNumber::FIRST, entries };
    let goodbye = ControlItem::Goodbye { retry_after_s: 0, code: 0, protocol: None, text: "" };
    send_items(&mut net, &[conflict, goodbye]);
    net.run(3_000);
    assert!(net.nodes[1].endpoint.peers().is_empty());
}

/// One packet holds all acknowledgements of a packet and is not longer. Equal items get one
/// acknowledgement.
///
/// wire.md: W6-97, W6-156, W6-166, W6-214.
#[test]
fn a_packet_of_many_items_gets_one_packet_of_acknowledgements() {
    /// Bytes of the items.
    const TABLE_ACK: usize = 4;
    const GOODBYE_ACK: usize = 5;
    let (mut net, _) = connected();
    net.run(2_000);
    let number = |number| EntryNumber::new(number).expect("a number");
    let goodbye = |protocol| ControlItem::Goodbye { retry_after_s: 0, code: 1, protocol, text: "" };
    let table = || {
        let entries = TableEntries::parse(&[]).expect("no entries");
        ControlItem::Table { first: number(2), entries }
    };
    let of_protocols = (2..=41).map(|protocol| goodbye(Some(number(protocol))));
    let items: Vec<_> = std::iter::repeat_with(table).take(40).chain(of_protocols).collect();
    // The second time the connection closes, the third time it is closing.
    for (items, acks) in [
        (items, TABLE_ACK + 40 * GOODBYE_ACK),
        (vec![goodbye(None), goodbye(None), goodbye(None)], GOODBYE_ACK),
        (vec![goodbye(None), goodbye(None)], GOODBYE_ACK),
    ] {
        let from = net.capture.len();
        send_items(&mut net, &items);
        net.run(50);
        let [packet, answer] = &net.capture[from..] else {
            panic!("{} packets", net.capture.len() - from)
        };
        assert!(answer.from != packet.from && answer.bytes.len() <= packet.bytes.len());
        assert_eq!(answer.bytes.len(), 16 + 24 + 1 + acks);
    }
}

/// The end that detects the conflict sends a goodbye and drops the keys. Its socket stays, and its
/// next message begins a connection with another id.
///
/// wire.md: W6-36.
#[test]
fn after_a_conflict_of_tables_sockets_stay_and_open_another_connection() {
    let (mut net, socket) = connected();
    net.listen(0, "/echo/1");
    net.run(100);
    let (accepted, peer) = (net.accepted(1), net.peer(0));
    let id = |net: &Net| {
        let connections = &net.nodes[1].endpoint.connections;
        let place = connections.of_peer(&peer).expect("a connection");
        connections.get(place).expect("a connection").id
    };
    let before = id(&net);
    let bytes = entry("/other/1");
    let entries = TableEntries::parse(&bytes).expect("an entry");
    send_items(&mut net, &[ControlItem::Table { first: EntryNumber::FIRST, entries }]);
    net.run(20);
    assert_eq!(net.nodes[1].endpoint.counters().table_conflicts(), 1);
    assert!(!net.nodes[1].endpoint.connection(&peer).expect("it is kept").has_keys);
    assert_ne!(id(&net), before);
    let closed = net.has_event(0, |event| {
        matches!(event, Event::SocketClosed { socket: s, reason: CloseReason::ByPeer(goodbye) }
            if *s == socket && goodbye.code() == GoodbyeCode::UNSPECIFIED)
    });
    assert!(closed, "the peer gets a goodbye");
    // The connection has no keys and no traffic, and its socket stays for longer than any limit.
    net.run(400_000);
    assert!(!net.has_event(1, |event| matches!(event, Event::SocketClosed { .. })));
    let info = net.nodes[1].endpoint.socket(accepted).expect("open");
    assert_eq!((info.state, &*info.protocol), (SocketState::Open, "/echo/1"));
    net.send(1, accepted, b"again");
    net.run(100);
    assert_eq!(net.take(0), [b"again"]);
    let back = net.accepted(0);
    net.send(0, back, b"and back");
    net.run(100);
    assert_eq!(net.take(1), [b"and back"]);
    assert_ne!(id(&net), before);
    // Without sockets the connection is removed.
    net.nodes[1].endpoint.close_socket(net.now, accepted);
    net.drive(1);
    net.run(400_000);
    assert!(net.nodes[1].endpoint.peers().is_empty());
}

/// Only the last item of each kind and lane becomes an event, so a peer cannot fill the queue of
/// events with a few packets.
///
/// wire.md: W6-168, W6-215.
#[test]
fn a_packet_of_many_items_is_one_event_for_each_kind_and_lane() {
    let (mut net, _) = connected();
    let (mut items, from) = (Vec::new(), net.nodes[1].events.len());
    for at in 1..=20_u8 {
        let lane = Lane::new(at % 2).expect("a lane");
        let (packets, marked_ce, newest) = (u64::from(at), 0, 0);
        items.push(ControlItem::Leaving { seconds: u16::from(at), code: 1, text: "" });
        items.push(ControlItem::Stay { weight: at });
        items.push(ControlItem::ReceiveReport { lane, packets, marked_ce, newest });
    }
    send_items(&mut net, &items);
    net.run(50);
    let peer = net.peer(0);
    let report = |lane: u8, packets| Event::Report {
        peer,
        lane: Lane::new(lane).expect("a lane"),
        packets,
        marked_ce: 0,
        newest: 0,
    };
    let leaving =
        Event::Leaving { peer, seconds: 20, goodbye: Goodbye::new(GoodbyeCode::STOPPING) };
    let expected = [leaving, Event::Stay { peer, weight: 20 }, report(0, 20), report(1, 19)];
    assert_eq!(net.nodes[1].events[from..], expected);
}

/// A response says that the peer does not accept the protocol of an early message. The socket waits
/// for another table of the peer, and the time limit of the connect is over.
#[test]
fn a_refused_early_message_leaves_no_deadline() {
    let mut net = Net::new(2, 5);
    let listener = net.nodes[1].endpoint.listen(
        net.now,
        names(["/echo/1"]),
        ListenOptions::new().idempotent(true),
    );
    let socket = net.connect(0, 1, "/echo/1");
    net.send(0, socket, b"hello");
    net.run(200);
    let (now, peer) = (net.now, net.peer(1));
    net.nodes[0].endpoint.close_connection(now, &peer, Goodbye::new(GoodbyeCode::STOPPING));
    net.drive(0);
    net.run(3_000);
    let now = net.now;
    net.nodes[1].endpoint.close_listener(now, listener.expect("a listener"));
    net.drive(1);
    let (to, options) = (net.destination_by_key(1), ConnectOptions::new().early(b"early".to_vec()));
    let socket = net.nodes[0].endpoint.connect(now, to, names(["/echo/1"]), options);
    net.drive(0);
    let socket = socket.expect("a socket");
    net.run(1_000);
    let is_connected =
        |event: &Event| matches!(event, Event::Connected { socket: s, .. } if *s == socket);
    assert!(net.has_event(0, is_connected), "the program waits for it");
    assert!(net.has_event(0, |event| *event == Event::Unsupported { socket }));
    net.run(30_000);
}

/// Items about numbers that no socket has change nothing.
#[test]
fn refusals_of_any_number_leave_no_deadline() {
    let (mut net, _) = connected();
    for number in 1..=254 {
        let protocol = strowger_wire::connection::item::ProtocolRef::Number(
            EntryNumber::new(number).expect("a number"),
        );
        let code = UnsupportedCode::UNKNOWN_PROTOCOL;
        send_items(&mut net, &[ControlItem::Unsupported { code, protocol }]);
    }
    net.run(30_000);
}

/// An endpoint that closes accepts no connection, so it is closed in time.
#[test]
fn an_endpoint_that_closes_accepts_no_connection() {
    for by_key in [false, true] {
        let mut net = Net::new(3, 5);
        net.listen(1, "/echo/1");
        let now = net.now;
        net.nodes[1].endpoint.close(now, Goodbye::new(GoodbyeCode::STOPPING));
        net.drive(1);
        let to = if by_key { net.destination_by_key(1) } else { net.destination(1) };
        let options = ConnectOptions::new();
        let socket = net.nodes[0].endpoint.connect(now, to, names(["/echo/1"]), options);
        net.drive(0);
        net.send(0, socket.expect("a socket"), b"late");
        net.run(1_500);
        assert!(net.nodes[1].endpoint.is_closed(), "by key: {by_key}");
        assert!(net.nodes[1].endpoint.peers().is_empty());
        assert_eq!(net.take(1), [b""; 0]);
    }
}
