//! Connecting, and messages both ways.

use super::*;

#[test]
fn messages_go_both_ways_after_connecting_by_peer_id() {
    let mut net = Net::new(2, 10);
    net.listen(1, "/echo/1");
    let socket = net.connect(0, 1, "/echo/1");
    net.send(0, socket, b"first");
    let begun = net.now;
    net.run(20);
    // One round trip: the message left together with XX 3.
    assert_eq!(net.now.since(begun), Nanos::from_millis(20));
    assert!(net.has_event(0, |event| matches!(event, Event::Connected { name: 0, .. })));
    net.run(10);
    assert_eq!(net.take(1), [b"first"]);
    let accepted = net.accepted(1);
    net.send(1, accepted, b"answer");
    net.run(10);
    assert_eq!(net.take(0), [b"answer"]);
    net.run(1_000);
    for round in 0..10_u8 {
        net.send(0, socket, &[round; 100]);
        net.send(1, accepted, &[round; 200]);
        net.run(10);
        assert_eq!(net.take(1), [[round; 100]]);
        assert_eq!(net.take(0), [[round; 200]]);
    }
    let counters = net.nodes[0].endpoint.counters();
    assert_eq!(counters.all_discarded(), 0, "{counters:?}");
}

#[test]
fn messages_go_both_ways_after_connecting_by_static_key() {
    let mut net = Net::new(2, 10);
    net.listen(1, "/echo/1");
    let to = net.destination_by_key(1);
    let socket =
        net.nodes[0].endpoint.connect(net.now, to, names(["/echo/1"]), ConnectOptions::new());
    let socket = socket.expect("a socket");
    net.drive(0);
    net.send(0, socket, b"first");
    net.run(30);
    assert_eq!(net.take(1), [b"first"], "it left after one round trip");
    let accepted = net.accepted(1);
    net.send(1, accepted, b"answer");
    net.run(10);
    assert_eq!(net.take(0), [b"answer"]);
    // IK: one initiation, one response, then sealed packets.
    let kinds: Vec<u8> = net.capture.iter().map(|packet| packet.bytes[16] >> 4).collect();
    assert_eq!(&kinds[..3], [1, 2, 4], "{kinds:?}");
    net.run(2_000);
    let counters = net.nodes[1].endpoint.counters();
    assert_eq!(counters.all_discarded(), 0, "{counters:?}");
}

#[test]
fn a_connect_without_a_message_begins_at_once() {
    let mut net = Net::new(2, 10);
    net.listen(1, "/echo/1");
    net.connect(0, 1, "/echo/1");
    net.run(20);
    assert!(net.has_event(0, |event| matches!(event, Event::Connected { name: 0, .. })));
}

#[test]
fn a_connect_without_a_label_fails_at_once() {
    let mut net = Net::new(2, 10);
    let peer = net.peer(1);
    let begun = net.now;
    let socket = net.nodes[0].endpoint.connect(
        net.now,
        Destination::from(peer),
        names(["/echo/1"]),
        ConnectOptions::new(),
    );
    let socket = socket.expect("its event says why");
    net.drive(0);
    assert!(net.has_event(0, |event| {
        *event == Event::ConnectFailed { socket, error: ConnectError::NoRoute }
    }));
    assert_eq!(net.now, begun);
}

/// A process that ends sends a goodbye. The next process with its key connects at once, by PeerId
/// and by key: the goodbye keeps only its receiver from connecting.
#[test]
fn a_peer_that_has_said_goodbye_connects_again_at_once() {
    for by_key in [false, true] {
        let mut net = Net::new(2, 5);
        net.listen(1, "/chat/1");
        for round in 0..3 {
            let to = if by_key { net.destination_by_key(1) } else { net.destination(1) };
            let options = ConnectOptions::new();
            let socket = net.nodes[0].endpoint.connect(net.now, to, names(["/chat/1"]), options);
            let socket = socket.expect("a socket");
            net.drive(0);
            net.send(0, socket, b"hello");
            net.run(50);
            assert_eq!(net.take(1), [b"hello"], "by key: {by_key}, process {round}");
            let (now, goodbye) = (net.now, Goodbye::new(GoodbyeCode::STOPPING));
            net.nodes[0].endpoint.close(now, goodbye);
            net.drive(0);
            net.run(30);
            net.restart(0, config(1));
        }
    }
}
