//! R14: the plaintext that relays can see.

use strowger_connection::{
    ConnectOptions, Goodbye, GoodbyeCode, ListenOptions, SocketId, crypto::Nanos,
};

use crate::world::{SECOND, World, key, peer, seeds};

pub(crate) const FIRST: &str = "/a-secret-protocol/1";
const GROWN: &str = "/another-secret-one/2";
const BACK: &str = "/in-the-other-direction/3";
const PARTING: &str = "a text that is for the peer alone";

/// A world whose log has every packet on every wire.
pub(crate) fn watched(seed: u64) -> World {
    let mut world = World::two_paths(seed);
    world.log = Some(Vec::new());
    world
}

pub(crate) fn send_some(
    world: &mut World,
    end: usize,
    socket: SocketId,
    secrets: &mut Vec<Vec<u8>>,
) {
    for _ in 0..5 {
        let len = 16 + world.rng.below(1_000);
        let message = world.rng.bytes(len);
        let sent = world.send(end, socket, &message);
        sent.unwrap_or_else(|why| panic!("{why} {:#?}", world.ends[end].events));
        secrets.push(message);
        world.run(SECOND / 10);
    }
}

/// Fails if 8 bytes of a message, a PeerId, a connection key, a protocol name or a text occur in a
/// packet.
pub(crate) fn assert_secret(world: &World, messages: &[Vec<u8>]) {
    let keys: Vec<[u8; 32]> =
        world.ends.iter().map(|end| key(end.seed).public().to_bytes()).collect();
    let statics: Vec<[u8; 32]> =
        world.ends.iter().map(|end| key(end.seed).connection_key().public().0).collect();
    let mut secrets: Vec<&[u8]> = messages.iter().map(Vec::as_slice).collect();
    secrets.extend([FIRST, GROWN, BACK, PARTING].map(str::as_bytes));
    secrets.extend(keys.iter().map(|key| &key[..]));
    secrets.extend(statics.iter().map(|key| &key[..]));
    let leaks = world.leaks(&secrets);
    assert!(leaks.is_empty(), "R14: {} packets, the first: {}", leaks.len(), leaks[0]);
    let log = world.log.as_ref().unwrap();
    assert!(log.len() > 100, "only {} packets were seen", log.len());
}

/// The search for secrets finds a secret that is present.
#[test]
fn r14_a_secret_in_a_packet_is_found() {
    let mut world = watched(1);
    let label = world.ahead(1);
    let packet = crate::world::packet(&world, 0, label, b"....xx in-the-other-directi");
    world.inject(0, 0, 2, &packet);
    world.run(SECOND);
    assert_eq!(world.leaks(&[BACK.as_bytes()]).len(), 3, "at each of three switches");
    assert_eq!(world.leaks(&[FIRST.as_bytes()]).len(), 0);
}

#[test]
fn r14_no_relay_sees_a_message_a_peer_id_or_a_protocol_name() {
    for seed in seeds(3) {
        for by_key in [false, true] {
            let mut world = watched(seed);
            let mut messages = Vec::new();
            world.listen(1, FIRST, ListenOptions::new());
            world.listen(0, BACK, ListenOptions::new());
            let label = world.ahead(1);
            let options = ConnectOptions::new();
            let socket = match by_key {
                false => world.connect(0, 1, label, FIRST),
                true => world.connect_by_key(0, 1, label, FIRST, options),
            };
            send_some(&mut world, 0, socket, &mut messages);
            assert!(world.is_connected(0, socket), "seed {seed}");
            // The table grows, and the other end connects.
            world.listen(1, GROWN, ListenOptions::new());
            world.run(SECOND);
            let label = world.ahead(1);
            let grown = world.connect(0, 1, label, GROWN);
            send_some(&mut world, 0, grown, &mut messages);
            let label = world.behind(3);
            let back = world.connect(1, 0, label, BACK);
            send_some(&mut world, 1, back, &mut messages);
            // Items, another path, a restart, new keys, a goodbye.
            let now = Nanos(world.now);
            let (first, second) = (peer(1), peer(2));
            let other = world.ahead(3);
            let endpoint = world.endpoint(0);
            endpoint.identify(now, &second).unwrap();
            let _ = endpoint.set_label(now, &second, other);
            let _ = endpoint.leave(now, &second, 9, &Goodbye::new(GoodbyeCode(2)).text(PARTING));
            world.drive(0);
            send_some(&mut world, 0, socket, &mut messages);
            world.restart(1);
            world.listen(1, FIRST, ListenOptions::new());
            for _ in 0..10 {
                send_some(&mut world, 0, socket, &mut messages);
            }
            world.run(121 * SECOND);
            send_some(&mut world, 0, socket, &mut messages);
            let now = Nanos(world.now);
            let goodbye = Goodbye::new(GoodbyeCode(3)).text(PARTING);
            world.endpoint(1).close_connection(now, &first, goodbye);
            world.drive(1);
            world.run(SECOND);
            assert!(world.ends[1].got.len() > 30, "seed {seed}: few messages arrived");
            assert_secret(&world, &messages);
            world.assert_balanced();
        }
    }
}
