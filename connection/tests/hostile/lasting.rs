//! The end of a connection, the state that is kept after it, and the disclosure of protocol names.

use std::sync::Arc;

use strowger_connection::{
    CloseReason, ConnectOptions, Destination, Event, Goodbye, ListenOptions, Policy,
    crypto::{Nanos, PeerId},
};

use crate::{
    changes::Load,
    traffic::Traffic,
    world::{MS, SECOND, World, peer},
};

const FIRST: &str = "/first/1";
const OTHER: &str = "/other/1";

fn initiations(world: &World, end: usize) -> Vec<u8> {
    let sent = world.ends[end].sent.iter().map(|seen| seen.packet[16]);
    sent.filter(|byte| byte >> 4 == 1).collect()
}

/// A silence of minutes, in which the keys expire, ends no connection and no socket.
///
/// wire.md: W6-169.
#[test]
fn a_silence_of_minutes_ends_nothing() {
    for by_key in [false, true] {
        let mut load = Load::new(1, by_key);
        load.run(2 * SECOND, 100 * MS);
        for link in load.world.links() {
            link.is_cut = true;
        }
        load.run(400 * SECOND, 5 * SECOND);
        for link in load.world.links() {
            link.is_cut = false;
        }
        load.run(20 * SECOND, SECOND);
        let restored = load.world.now;
        load.run(5 * SECOND, 100 * MS);
        assert!(load.lost().iter().all(|at| *at < restored), "by key {by_key}");
        load.assert_open();
    }
}

/// A connection without sockets ends 300 s after the last message, without a packet. A connection
/// with a socket stays.
///
/// wire.md: W6-170.
#[test]
fn a_connection_without_sockets_is_forgotten_after_its_idle_time() {
    for is_open in [false, true] {
        let mut world = World::two_paths(2);
        world.listen(1, FIRST, ListenOptions::new());
        let label = world.ahead(1);
        let socket = world.connect(0, 1, label, FIRST);
        world.run(SECOND);
        world.send(0, socket, b"message").unwrap();
        world.run(SECOND);
        let last = world.now - SECOND;
        if !is_open {
            let now = Nanos(world.now);
            world.endpoint(0).close_socket(now, socket);
            world.drive(0);
        }
        world.run(last + 299 * SECOND - world.now);
        let sent: Vec<usize> = world.ends.iter().map(|end| end.sent.len()).collect();
        for end in 0..2 {
            assert_eq!(world.endpoint(end).peers().len(), 1, "end {end}");
        }
        world.run(10 * SECOND);
        for (end, before) in sent.into_iter().enumerate() {
            let count = usize::from(is_open);
            assert_eq!(world.endpoint(end).peers().len(), count, "end {end}");
            assert_eq!(world.ends[end].sent.len(), before, "no goodbye");
            let is_idle = |event: &Event| {
                matches!(event, Event::PeerClosed { reason: CloseReason::Idle, .. })
            };
            assert_eq!(world.has(end, is_idle), !is_open);
        }
        world.assert_balanced();
    }
}

/// The key of a peer is remembered, so the next connection begins by static key.
///
/// wire.md: W6-134, W6-198.
#[test]
fn the_key_of_a_former_peer_is_remembered() {
    let mut world = World::two_paths(3);
    world.listen(1, FIRST, ListenOptions::new());
    world.listen(1, OTHER, ListenOptions::new());
    let label = world.ahead(1);
    world.connect(0, 1, label, FIRST);
    world.run(SECOND);
    let count = initiations(&world, 0).len();
    assert_eq!(initiations(&world, 0)[0], 0x11, "by PeerId");
    let second = world.connect(0, 1, label, OTHER);
    world.run(SECOND);
    assert!(world.is_connected(0, second));
    assert_eq!(initiations(&world, 0).len(), count, "in the connection that there is");
    assert_eq!((world.endpoint(0).peers().len(), world.endpoint(1).peers().len()), (1, 1));
    let now = Nanos(world.now);
    world.endpoint(0).close_connection(now, &peer(2), Goodbye::default());
    world.drive(0);
    world.run(5 * SECOND);
    assert!(world.endpoint(0).peers().is_empty());
    world.ends[0].sent.clear();
    let socket = world.connect(0, 1, label, FIRST);
    world.run(SECOND);
    assert!(world.is_connected(0, socket));
    assert_eq!(initiations(&world, 0), [0x10]);
    world.assert_balanced();
}

/// An endpoint that hides its identity always connects by PeerId. Rekeying along two labels loses
/// no message, although the first label answers late.
///
/// wire.md: W6-199.
#[test]
fn an_endpoint_that_hides_its_identity_begins_by_peer_id_always() {
    let mut world = World::two_paths(4);
    world.ends[0].hides_identity = true;
    world.restart(0);
    world.listen(1, FIRST, ListenOptions::new().idempotent(true));
    let certificate = world.certificate(1);
    let to = Destination::from(peer(2))
        .label_with_key(world.ahead(1), certificate)
        .label(world.ahead(3));
    let options = ConnectOptions::new().early(b"early".to_vec());
    let socket = world.connect_to(0, to, FIRST, options);
    let mut traffic = Traffic::default();
    world.run(2 * SECOND);
    world.wire(0, 3).delay = 300 * MS;
    let mut sent = Vec::new();
    for _ in 0..800 {
        sent.push(traffic.send(&mut world, (0, 1), socket, FIRST).unwrap());
        world.run(500 * MS);
    }
    world.run(2 * SECOND);
    let lost = sent.iter().filter(|message| !Traffic::has_arrived(&world, 1, message)).count();
    assert_eq!(lost, 0);
    assert!(world.info(0, &peer(2)).handshakes >= 3);
    assert!(!initiations(&world, 0).contains(&0x10));
    assert!(!world.has(0, |event| matches!(event, Event::PathLost { .. })));
    let first = world.ends[1].got.remove(0);
    assert_eq!((&first.bytes[..], first.early), (&b"early"[..], false), "it was sealed");
    traffic.check(&world);
    world.assert_balanced();
}

/// Peer 1 may use one protocol only.
struct OneProtocol;

impl Policy for OneProtocol {
    fn may_connect(&self, _: &PeerId) -> bool {
        true
    }

    fn may_use(&self, peer: &PeerId, protocol: &str) -> bool {
        *peer != crate::world::peer(1) || protocol == FIRST
    }
}

/// A table has only the names that the peer may use.
///
/// wire.md: W6-32.
#[test]
fn a_table_has_only_what_the_peer_may_use() {
    for by_key in [false, true] {
        let mut world = World::two_paths(5);
        let end = world.end_with(4, (2, 5), Arc::new(OneProtocol), false);
        world.listen(end, OTHER, ListenOptions::new());
        world.listen(end, FIRST, ListenOptions::new());
        let label = world.label(0, &[3, 3, 5]);
        let socket = match by_key {
            true => world.connect_by_key(0, end, label, FIRST, ConnectOptions::new()),
            false => world.connect(0, end, label, FIRST),
        };
        world.run(SECOND);
        assert!(world.is_connected(0, socket));
        assert_eq!(world.info(0, &peer(4)).their_protocols, [FIRST], "by key {by_key}");
        world.listen(end, "/late/1", ListenOptions::new());
        world.drive(end);
        world.run(SECOND);
        assert_eq!(world.info(0, &peer(4)).their_protocols, [FIRST], "by key {by_key}");
        world.assert_balanced();
    }
}

/// `identify` is answered at most four times in a second.
///
/// wire.md: W6-171.
#[test]
fn identify_is_answered_four_times_in_a_second() {
    let mut world = World::two_paths(6);
    world.listen(1, FIRST, ListenOptions::new());
    let label = world.ahead(1);
    world.connect_by_key(0, 1, label, FIRST, ConnectOptions::new());
    world.run(SECOND);
    let before = world.ends[1].sent.len();
    for _ in 0..20 {
        let now = Nanos(world.now);
        world.endpoint(0).identify(now, &peer(2)).unwrap();
        world.drive(0);
        world.run(MS);
    }
    world.run(100 * MS);
    // Only answers are longer than a confirmation.
    let answers = world.ends[1].sent[before..].iter().filter(|seen| seen.packet.len() > 50);
    assert_eq!(answers.count(), 4);
    assert!(world.has(0, |event| matches!(event, Event::Identified { .. })));
    world.run(SECOND);
    world.assert_balanced();
}

/// Initiations with a wrong mac1 or a wrong length use no budget: the endpoint demands no cookie.
///
/// wire.md: W6-190.
#[test]
fn initiations_with_a_wrong_mac_use_no_budget() {
    let mut world = World::two_paths(7);
    world.listen(1, FIRST, ListenOptions::new());
    let label = world.ahead(1);
    world.connect(0, 1, label, FIRST);
    world.run(15 * MS);
    let initiation = world.ends[1].received[0].clone();
    assert_eq!(initiation.packet[16], 0x11);
    world.run(SECOND);
    let (before, received) = (world.ends[1].sent.len(), initiation.packet.len());
    for number in 0..1_000 {
        let mut packet = initiation.packet.clone();
        match number % 2 {
            0 => packet[received - 20] ^= 1,
            _ => packet.truncate(received - 1),
        }
        world.arrive_at(number * MS / 2, crate::world::Place::End(1), 3, packet);
    }
    world.run(500 * MS);
    assert_eq!(world.ends[1].sent.len(), before);
    // A valid initiation is answered with a response, not with a cookie.
    world.arrive_at(0, crate::world::Place::End(1), 3, initiation.packet);
    world.run(MS);
    assert_eq!(world.ends[1].sent.last().unwrap().packet[16] >> 4, 2);
    world.assert_balanced();
}
