//! Rules that the hostile tests do not reach.

use super::*;
use crate::counters::Discard;

fn connected(net: &mut Net, name: &str) -> (SocketId, SocketId) {
    net.listen(1, name);
    let socket = net.connect(0, 1, name);
    net.send(0, socket, b"first");
    net.run(100);
    net.take(1);
    (socket, net.accepted(1))
}

/// wire.md: W6-163, W6-164.
#[test]
fn a_closed_socket_ends_at_the_other_end_too() {
    let mut net = Net::new(2, 10);
    let (socket, accepted) = connected(&mut net, "/echo/1");
    net.send(1, accepted, b"so that the number is known");
    net.run(100);
    net.nodes[0].endpoint.close_socket(net.now, socket);
    net.drive(0);
    net.run(100);
    let is_closed = |event: &Event| {
        matches!(event, Event::SocketClosed { socket, reason: CloseReason::ByPeer(_) }
            if *socket == accepted)
    };
    assert!(net.has_event(1, is_closed));
    assert_eq!(net.try_send(0, socket, b"late"), Err(SendRefused::NoSocket));
    // The connection stays, and a new socket works at once.
    let again = net.connect(0, 1, "/echo/1");
    net.send(0, again, b"again");
    net.run(10);
    assert_eq!(net.take(1), [b"again"]);
}

/// After a handshake by PeerId, the peer's table arrives after the keys: until then the closed
/// socket's number is unknown.
#[test]
fn a_socket_that_is_closed_before_its_number_is_known_ends_at_the_other_end_too() {
    let mut net = Net::new(2, 10);
    net.listen(1, "/echo/1");
    let socket = net.connect(0, 1, "/echo/1");
    net.send(0, socket, b"the only one");
    for _ in 0..1_000 {
        if net.has_event(0, |event| matches!(event, Event::Connected { .. })) {
            break;
        }
        net.run(1);
    }
    assert_eq!(net.nodes[0].endpoint.shared.data.sockets[socket.index()].number, 0);
    net.nodes[0].endpoint.close_socket(net.now, socket);
    net.drive(0);
    net.run(200);
    assert_eq!(net.take(1), [b"the only one"]);
    let accepted = net.accepted(1);
    let is_closed = |event: &Event| {
        matches!(event, Event::SocketClosed { socket, reason: CloseReason::ByPeer(_) }
            if *socket == accepted)
    };
    assert!(net.has_event(1, is_closed));
}

/// wire.md: W6-164, W6-166.
#[test]
fn a_goodbye_closes_the_connection_at_both_ends() {
    let mut net = Net::new(2, 10);
    let (socket, _) = connected(&mut net, "/echo/1");
    let peer = net.peer(1);
    let goodbye = Goodbye::new(GoodbyeCode::STOPPING).retry_after_s(5).text("enough");
    let at = net.now;
    net.nodes[1].endpoint.close(at, goodbye.clone());
    net.drive(1);
    assert!(!net.nodes[1].endpoint.is_closed());
    net.run(20);
    assert!(net.nodes[1].endpoint.is_closed());
    let reason = CloseReason::ByPeer(goodbye.clone());
    assert!(
        net.has_event(0, |event| *event == Event::SocketClosed { socket, reason: reason.clone() })
    );
    assert!(net.has_event(0, |event| *event == Event::PeerClosed { peer, reason: reason.clone() }));
    net.run(1_000);
    assert!(net.nodes[0].endpoint.peers().is_empty());
    // The program gets the goodbye as the error, until the time has passed.
    let to = net.destination(1);
    let refused =
        net.nodes[0].endpoint.connect(net.now, to, names(["/echo/1"]), ConnectOptions::new());
    assert_eq!(refused, Err(ConnectError::Refused(goodbye)));
    net.run(5_000);
    net.connect(0, 1, "/echo/1");
}

/// A peer that has closed its connection, or whose connection is idle, still uses the budget of
/// known peers.
///
/// wire.md: W6-188.
#[test]
fn the_label_of_a_closed_connection_is_known_for_180_seconds() {
    let mut net = Net::new(2, 10);
    let (_, accepted) = connected(&mut net, "/echo/1");
    let label = label_to(net.nodes[0].slot);
    let is_known = |net: &Net| net.nodes[1].endpoint.shared.known_labels.contains(net.now, &label);
    assert!(is_known(&net));
    let peer = net.peer(0);
    net.nodes[1].endpoint.close_socket(net.now, accepted);
    net.nodes[1].endpoint.close_connection(net.now, &peer, Goodbye::default());
    net.drive(1);
    net.run(2_000);
    assert!(net.nodes[1].endpoint.connection(&peer).is_none());
    assert!(is_known(&net), "the connection has just been forgotten");
    net.run(176_000);
    assert!(is_known(&net));
    net.run(4_000);
    assert!(!is_known(&net));
    connected(&mut net, "/idle/1");
    net.run(170_000);
    assert!(is_known(&net));
    net.run(20_000);
    assert!(net.nodes[1].endpoint.connection(&peer).is_some() && !is_known(&net));
}

/// wire.md: W6-152.
#[test]
fn there_is_one_socket_for_each_peer_and_name() {
    let mut net = Net::new(2, 10);
    connected(&mut net, "/echo/1");
    let to = net.destination(1);
    let second =
        net.nodes[0].endpoint.connect(net.now, to, names(["/echo/1"]), ConnectOptions::new());
    assert_eq!(second, Err(ConnectError::AlreadyOpen));
}

/// wire.md: W6-34.
#[test]
fn a_connect_with_several_names_uses_the_first_that_the_peer_accepts() {
    for by_key in [false, true] {
        let mut net = Net::new(2, 10);
        net.listen(1, "/echo/1");
        net.listen(1, "/echo/2");
        let to = if by_key { net.destination_by_key(1) } else { net.destination(1) };
        let wanted = names(["/echo/3", "/echo/2", "/echo/1"]);
        let socket = net.nodes[0].endpoint.connect(net.now, to, wanted, ConnectOptions::new());
        let socket = socket.expect("a socket");
        net.drive(0);
        net.send(0, socket, b"message");
        net.run(if by_key { 30 } else { 50 });
        assert_eq!(net.take(1), [b"message"]);
        let name = net.nodes[0].events.iter().find_map(|event| match event {
            Event::Connected { name, .. } => Some(*name),
            _ => None,
        });
        assert_eq!(name, Some(1));
        let info = net.nodes[0].endpoint.socket(socket).expect("open");
        assert_eq!(info.protocol, "/echo/2");
        let to = net.destination(1);
        let none = names(["/other/2", "/other/1"]);
        let socket = net.nodes[0].endpoint.connect(net.now, to, none, ConnectOptions::new());
        let socket = socket.expect("a socket");
        net.drive(0);
        let error = ConnectError::Unsupported;
        assert!(
            net.has_event(0, |event| *event
                == Event::ConnectFailed { socket, error: error.clone() })
        );
    }
}

/// wire.md: W6-133.
#[test]
fn a_connect_fails_with_its_reason_within_ten_seconds() {
    let mut net = Net::new(2, 10);
    // No node is at the label.
    let to = Destination::from(net.peer(1)).label(label_to(9));
    let socket =
        net.nodes[0].endpoint.connect(net.now, to, names(["/echo/1"]), ConnectOptions::new());
    let socket = socket.expect("a socket");
    net.drive(0);
    // No label is known.
    let to = Destination::from(key(77).public().peer_id());
    let none =
        net.nodes[0].endpoint.connect(net.now, to, names(["/echo/1"]), ConnectOptions::new());
    let none = none.expect("a socket");
    net.drive(0);
    net.run(10_000);
    let error = ConnectError::Timeout { stage: ConnectStage::Handshake };
    assert!(
        net.has_event(0, |event| *event == Event::ConnectFailed { socket, error: error.clone() })
    );
    assert!(net.has_event(0, |event| *event
        == Event::ConnectFailed { socket: none, error: ConnectError::NoRoute }));
    net.run(60_000);
    let peers = net.nodes[0].endpoint.peers();
    assert!(peers.is_empty(), "nothing wants the connections: {peers:?}");
}

/// wire.md: W6-201.
#[test]
fn a_peer_that_may_not_connect_gets_a_reason_within_ten_seconds() {
    let mut net = Net::new(1, 10);
    let nobody = Arc::new(Only::new([]));
    net.add(9, config(9), nobody, Box::new(NoRouting::default()));
    net.listen(1, "/echo/1");
    // By PeerId, XX 2 arrives, and XX 3 is refused.
    let socket = net.connect(0, 1, "/echo/1");
    net.run(8_900);
    assert!(net.nodes[0].endpoint.socket(socket).is_some(), "it may still be confirmed");
    net.run(100);
    let reason = CloseReason::NotConfirmed;
    assert!(reason.to_string().contains("may not allow this PeerId"), "{reason}");
    assert!(
        net.has_event(0, |event| *event == Event::SocketClosed { socket, reason: reason.clone() })
    );
    assert!(net.nodes[0].endpoint.socket(socket).is_none());
    assert!(net.nodes[1].endpoint.counters().discarded(Discard::NotAllowed) > 0);
    let sent = net.capture.len();
    net.run(60_000);
    assert_eq!(net.capture.len(), sent, "nothing wants keys");
    // By static key the initiation is refused; after that the initiator tries by PeerId (W6-122).
    let to = net.destination_by_key(1);
    let socket =
        net.nodes[0].endpoint.connect(net.now, to, names(["/echo/1"]), ConnectOptions::new());
    let socket = socket.expect("a socket");
    net.drive(0);
    net.run(10_000);
    let text = net.nodes[0].events.iter().find_map(|event| match event {
        Event::ConnectFailed { socket: failed, error } if *failed == socket => {
            Some(error.to_string())
        }
        Event::SocketClosed { socket: closed, reason } if *closed == socket => {
            Some(reason.to_string())
        }
        _ => None,
    });
    let text = text.expect("a reason");
    assert!(text.contains("may not allow this PeerId"), "{text}");
    let text = ConnectError::Timeout { stage: ConnectStage::Handshake }.to_string();
    for cause in ["may not run", "another node", "may not allow this PeerId", "another network"] {
        assert!(text.contains(cause), "{text}");
    }
}

/// Each connect ends at its own time limit, even a long one or one in a connection that an earlier
/// connect started.
///
/// wire.md: W6-201.
#[test]
fn a_connect_that_is_not_confirmed_ends_at_its_own_time_limit() {
    for seconds in [1, 12, 25] {
        let mut net = Net::new(1, 10);
        let nobody = Arc::new(Only::new([]));
        net.add(9, config(9), nobody, Box::new(NoRouting::default()));
        net.listen(1, "/echo/1");
        for pause_s in [0, 4] {
            net.run(pause_s * 1_000);
            let options = ConnectOptions::new().timeout(Nanos::from_secs(seconds));
            let to = net.destination(1);
            let socket = net.nodes[0].endpoint.connect(net.now, to, names(["/echo/1"]), options);
            let socket = socket.expect("a socket");
            net.drive(0);
            net.run(seconds * 1_000 - 1);
            assert!(net.nodes[0].endpoint.socket(socket).is_some(), "{seconds} s, {pause_s} s");
            net.run(1);
            let reason = CloseReason::NotConfirmed;
            assert!(
                net.has_event(0, |event| *event
                    == Event::SocketClosed { socket, reason: reason.clone() }),
                "{seconds} s, {pause_s} s: {:?}",
                net.nodes[0].events
            );
        }
        net.run(60_000);
        assert!(net.nodes[0].endpoint.peers().is_empty(), "nothing wants the connection");
    }
}

/// Allows all peers, or none.
struct Switchable(std::sync::atomic::AtomicBool);

impl Policy for Switchable {
    fn may_connect(&self, _: &PeerId) -> bool {
        self.0.load(std::sync::atomic::Ordering::Relaxed)
    }
}

/// No message is sealed with keys that the peer has refused: the next connect starts a new
/// handshake.
///
/// wire.md: W6-201.
#[test]
fn a_connect_after_one_that_was_refused_loses_no_message() {
    let mut net = Net::new(1, 10);
    let policy = Arc::new(Switchable(false.into()));
    net.add(9, config(9), policy.clone(), Box::new(NoRouting::default()));
    net.listen(1, "/echo/1");
    let (to, options) = (net.destination(1), ConnectOptions::new().timeout(Nanos::from_secs(1)));
    let refused = net.nodes[0].endpoint.connect(net.now, to, names(["/echo/1"]), options);
    refused.expect("a socket");
    net.drive(0);
    net.run(1_000);
    let (peer, reason) = (net.peer(1), CloseReason::NotConfirmed);
    assert!(net.has_event(0, |event| *event == Event::PeerClosed { peer, reason: reason.clone() }));
    assert!(net.nodes[0].endpoint.peers().is_empty());
    policy.0.store(true, std::sync::atomic::Ordering::Relaxed);
    let socket = net.connect(0, 1, "/echo/1");
    net.send(0, socket, b"hello");
    net.run(100);
    assert_eq!(net.take(1), [b"hello"]);
}

/// A peer that sends no messages has confirmed the keys, too.
#[test]
fn a_quiet_socket_stays_open_after_the_time_limit_of_its_connect() {
    for by_key in [false, true] {
        let mut net = Net::new(2, 10);
        net.listen(1, "/echo/1");
        let to = if by_key { net.destination_by_key(1) } else { net.destination(1) };
        let socket =
            net.nodes[0].endpoint.connect(net.now, to, names(["/echo/1"]), ConnectOptions::new());
        net.drive(0);
        net.run(60_000);
        assert!(net.nodes[0].endpoint.socket(socket.expect("a socket")).is_some());
    }
}

/// wire.md: W6-131.
#[test]
fn a_socket_that_was_full_is_writable_when_the_messages_have_left() {
    let mut net = Net::new(2, 10);
    net.listen(1, "/echo/1");
    let socket = net.connect(0, 1, "/echo/1");
    for number in 0..64_u8 {
        net.send(0, socket, &[number]);
    }
    assert_eq!(net.try_send(0, socket, b"more"), Err(SendRefused::Full));
    let is_writable = |event: &Event| *event == Event::Writable { socket };
    assert!(!net.has_event(0, is_writable));
    net.run(100);
    assert_eq!(net.take(1).len(), 64);
    assert_eq!(net.nodes[0].events.iter().filter(|event| is_writable(event)).count(), 1);
    net.send(0, socket, b"more");
}

#[test]
fn a_datagram_socket_exchanges_messages_with_all_peers() {
    let mut net = Net::new(3, 10);
    let mut sockets = Vec::new();
    for node in 0..3 {
        let socket = net.nodes[node].endpoint.datagram_socket(net.now, names(["/gossip/1"]));
        sockets.push(socket.expect("a socket"));
    }
    for to in 1..3 {
        // Without a label the endpoint asks routing; here a connect supplies the label.
        net.connect(0, to, "/other/1");
    }
    net.run(100);
    for round in 0..3_u8 {
        for to in 1..3 {
            let peer = net.peer(to);
            let frame = net.frame(&[round, to as u8]);
            let sent = net.nodes[0].endpoint.send_to(net.now, sockets[0], &peer, frame);
            net.launch(0, sent.expect("sent"));
            net.drive(0);
        }
        net.run(50);
        for (to, socket) in sockets.iter().copied().enumerate().skip(1) {
            let from = net.peer(0);
            let got: Vec<Got> = net.nodes[to].got.drain(..).collect();
            assert_eq!(got.len(), 1, "round {round}");
            assert_eq!(got[0].to, MessageTo::Datagram(socket, from));
            assert_eq!(got[0].message, [round, to as u8]);
            let frame = net.frame(b"back");
            let back = net.nodes[to].endpoint.send_to(net.now, socket, &from, frame);
            net.launch(to, back.expect("sent"));
            net.drive(to);
        }
        net.run(50);
        assert_eq!(net.take(0), [b"back", b"back"]);
    }
}

#[test]
fn a_peer_identifies_itself_and_answers_pings() {
    let mut net = Net::new(2, 10);
    connected(&mut net, "/echo/1");
    let peer = net.peer(1);
    net.nodes[0].endpoint.identify(net.now, &peer).expect("a connection");
    net.drive(0);
    let ping = net.nodes[0].endpoint.ping(net.now, &peer, 500).expect("a connection");
    net.drive(0);
    net.run(20);
    assert!(net.has_event(0, |event| matches!(event, Event::Identified { agent, label, .. }
        if agent.starts_with("strowger ") && *label == label_to(2))));
    let rtt = Nanos::from_millis(20);
    assert!(net.has_event(0, |event| *event == Event::Pong { peer, id: ping, rtt }));
    let none = key(99).public().peer_id();
    assert_eq!(net.nodes[0].endpoint.identify(net.now, &none), Err(NoConnection));
}

/// wire.md: W6-168.
#[test]
fn reports_and_intentions_reach_the_other_program() {
    let mut net = Net::new(2, 10);
    let (socket, _) = connected(&mut net, "/echo/1");
    let (first, second) = (net.peer(0), net.peer(1));
    for _ in 0..5 {
        net.send(0, socket, b"message");
    }
    net.run(50);
    net.nodes[1].endpoint.report(net.now, &first).expect("a connection");
    net.nodes[1].endpoint.stay(net.now, &first, 7).expect("a connection");
    let goodbye = Goodbye::new(GoodbyeCode::RESTARTING).text("update");
    net.nodes[1].endpoint.leave(net.now, &first, 30, &goodbye).expect("a connection");
    net.drive(1);
    net.run(20);
    assert!(net.has_event(0, |event| matches!(event, Event::Report { packets, marked_ce: 0, .. }
        if *packets >= 6)));
    assert!(net.has_event(0, |event| *event == Event::Stay { peer: second, weight: 7 }));
    assert!(net.has_event(0, |event| *event
        == Event::Leaving { peer: second, seconds: 30, goodbye: goodbye.clone() }));
    // Within a second, and without a message since, there is no second report.
    let reports = |net: &Net| {
        net.nodes[0].events.iter().filter(|event| matches!(event, Event::Report { .. })).count()
    };
    assert_eq!(reports(&net), 1);
    net.nodes[1].endpoint.report(net.now, &first).expect("a connection");
    net.run(2_000);
    net.nodes[1].endpoint.report(net.now, &first).expect("a connection");
    net.drive(1);
    net.run(50);
    assert_eq!(reports(&net), 1);
}

/// wire.md: W6-159.
#[test]
fn a_full_backlog_drops_messages_and_counts_them() {
    let mut net = Net::new(3, 10);
    let options = ListenOptions::new().backlog(1);
    net.nodes[2].endpoint.listen(net.now, names(["/echo/1"]), options).expect("a listener");
    for from in 0..2 {
        let socket = net.connect(from, 2, "/echo/1");
        net.send(from, socket, b"hello");
        net.run(100);
    }
    assert_eq!(net.take(2).len(), 1);
    let counters = net.nodes[2].endpoint.counters();
    assert_eq!(counters.discarded(Discard::NoSocket), 1);
    let accepted = net.accepted(2);
    net.nodes[2].endpoint.take_accepted(accepted);
}

/// The goodbye of the closed socket is lost, and the peer continues to send.
///
/// wire.md: W6-167.
#[test]
fn messages_to_a_closed_socket_get_a_goodbye_or_unsupported_once_a_second() {
    for has_number in [true, false] {
        let mut net = Net::new(2, 10);
        let (socket, accepted) = connected(&mut net, "/echo/1");
        net.send(1, accepted, b"so that the number is known");
        net.run(100);
        let listener = net.nodes[1].events.iter().find_map(|event| match event {
            Event::Accepted { listener, .. } => Some(*listener),
            _ => None,
        });
        // All packets of node 1 are lost.
        net.is_lost = Box::new(|packet| packet.from == 3);
        net.nodes[1].endpoint.close_listener(net.now, listener.expect("accepted"));
        net.nodes[1].endpoint.close_socket(net.now, accepted);
        net.drive(1);
        net.run(2_000);
        let (now, peer) = (net.now, net.peer(0));
        let changed = net.nodes[1].endpoint.with_connection(now, &peer, |connection, _| {
            if !has_number {
                connection.theirs.reset();
            }
            true
        });
        changed.expect("a connection");
        let before = net.nodes[1].sent;
        for _ in 0..6 {
            net.send(0, socket, b"late");
            net.run(20);
        }
        let counters = net.nodes[1].endpoint.counters();
        assert_eq!(counters.discarded(Discard::NoSocket), 6);
        assert_eq!(net.nodes[1].sent - before, 1, "one answer, not repeated yet");
        net.is_lost = Box::new(|_| false);
        net.run(2_000);
        // If node 1 knows the number, it sends a goodbye, whose copy now closes the socket.
        let sent = net.try_send(0, socket, b"another");
        assert_eq!(sent.is_ok(), !has_number);
        net.run(40);
        let goodbye = Goodbye::new(GoodbyeCode::NOT_WANTED);
        let event = match has_number {
            true => Event::SocketClosed { socket, reason: CloseReason::ByPeer(goodbye) },
            false => Event::Unsupported { socket },
        };
        assert!(net.has_event(0, |reported| *reported == event), "has a number: {has_number}");
        assert_eq!(net.take(1), [b""; 0]);
    }
}

/// wire.md: W6-132.
#[test]
fn an_idle_connection_sends_nothing_and_is_small() {
    let mut net = Net::new(2, 10);
    let (socket, _) = connected(&mut net, "/echo/1");
    net.run(10_000);
    let with_keys = net.nodes[0].endpoint.connection(&net.peer(1)).expect("open").memory;
    let before = net.capture.len();
    net.run(600_000);
    assert_eq!(net.capture.len(), before, "nothing is sent");
    let info = net.nodes[0].endpoint.connection(&net.peer(1)).expect("its socket is open");
    assert!(!info.has_keys);
    net.send(0, socket, b"awake");
    net.run(40);
    assert_eq!(net.take(1), [b"awake"]);
    assert!(info.memory <= 2_048, "{}", info.memory);
    assert!(with_keys <= 6_144, "{with_keys}");
}
