//! R15 and R16: a message arrives at most once, at the socket of its peer and protocol name.

use strowger_connection::{DatagramId, Event, ListenOptions, SocketId};

use crate::{
    traffic::{DATAGRAMS, Traffic},
    world::{MS, Place, SECOND, World, seeds},
};

const NAMES: [&str; 2] = ["/first/1", "/second/1"];

/// The sockets between two ends, including accepted ones.
fn sockets(world: &mut World, end: usize) -> Vec<(SocketId, usize, String)> {
    let ids: Vec<SocketId> = world.ends[end]
        .events
        .iter()
        .filter_map(|event| match event {
            Event::Connected { socket, .. } | Event::Accepted { socket, .. } => Some(*socket),
            _ => None,
        })
        .collect();
    let peers: Vec<_> = world.ends.iter().map(|end| crate::world::peer(end.seed)).collect();
    let endpoint = world.endpoint(end);
    ids.into_iter()
        .filter_map(|id| {
            let socket = endpoint.socket(id)?;
            let peer = peers.iter().position(|peer| *peer == socket.peer)?;
            Some((id, peer, socket.protocol))
        })
        .collect()
}

/// Three ends: 0 and 1 as in [`World::two_paths`], and 2 at the switch of 1.
fn three_ends(seed: u64) -> World {
    let mut world = World::two_paths(seed);
    world.end(3, (2, 5));
    world
}

/// wire.md: W6-159.
#[test]
fn r15_messages_arrive_once_and_in_order_over_a_quiet_path() {
    for seed in seeds(3) {
        let mut world = World::two_paths(seed);
        let mut traffic = Traffic::default();
        world.listen(1, NAMES[0], ListenOptions::new());
        let label = world.ahead(1);
        let socket = world.connect(0, 1, label, NAMES[0]);
        let sent: Vec<_> =
            (0..10).map(|_| traffic.send(&mut world, (0, 1), socket, NAMES[0]).unwrap()).collect();
        world.run(SECOND);
        assert!(world.is_connected(0, socket), "seed {seed}: {:?}", world.ends[0].events);
        let got: Vec<_> = world.ends[1].got.iter().map(|got| got.bytes.clone()).collect();
        assert_eq!(got, sent, "seed {seed}");
        traffic.check(&world);
        world.assert_balanced();
    }
}

/// The network loses, delays, repeats and reorders packets. An attacker replays packets at once and
/// later, from other slots and with other return paths. Ends restart without a goodbye, and connect
/// simultaneously.
#[test]
fn r15_r16_a_message_arrives_at_most_once_and_at_its_socket_in_a_hostile_network() {
    for seed in seeds(6) {
        let mut world = three_ends(seed);
        let mut traffic = Traffic::default();
        let (loss, repeats) = (world.rng.below(300), world.rng.below(300));
        let jitter = 1 + world.rng.below(200) as u64 * MS;
        for link in world.links() {
            (link.loss, link.repeats, link.jitter) = (loss, repeats, jitter);
        }
        let mut datagrams = start_all(&mut world);
        for _ in 0..400 {
            world.run(20 * MS);
            step(&mut world, &mut traffic, &mut datagrams);
            traffic.check(&world);
        }
        world.assert_balanced();
        // Without loss and attacks, the connections work again.
        for link in world.links() {
            (link.loss, link.repeats, link.jitter) = (0, 0, 0);
        }
        world.run(20 * SECOND);
        // Each end has detected restarts of the others by now, or detects them with this message.
        for (from, to) in [(0, 1), (1, 0), (2, 1)] {
            ask(&mut world, &mut traffic, from, to);
        }
        world.run(20 * SECOND);
        for (from, to) in [(0, 1), (1, 0), (2, 1)] {
            let last = ask(&mut world, &mut traffic, from, to);
            let arrives = |world: &World| Traffic::has_arrived(world, to, &last);
            assert!(world.run_until(10 * SECOND, arrives), "seed {seed}: {from} to {to} is broken");
        }
        world.run(SECOND);
        traffic.check(&world);
        world.assert_balanced();
    }
}

/// Sends a message from one end to another, on an existing socket or a new one.
fn ask(world: &mut World, traffic: &mut Traffic, from: usize, to: usize) -> Vec<u8> {
    let known =
        sockets(world, from).into_iter().find(|(_, peer, name)| *peer == to && name == NAMES[0]);
    let socket = match known {
        Some((socket, ..)) => socket,
        None => connect(world, from, to, NAMES[0]).expect("there is no socket for the name"),
    };
    traffic.send(world, (from, to), socket, NAMES[0]).expect("the socket takes a message")
}

fn label(
    world: &World,
    from: usize,
    to: usize,
    by: usize,
) -> strowger_connection::wire::label::AnyLabel {
    match (from, to, by) {
        (0, 1, by) => world.ahead(by),
        (1, 0, by) => world.behind(by),
        (2, 1, _) => world.label(2, &[3]),
        (1, 2, _) => world.label(1, &[5]),
        (0, 2, 1) => world.label(0, &[3, 3, 5]),
        (0, 2, _) => world.label(0, &[4, 3, 5]),
        (2, 0, 1) => world.label(2, &[2, 2, 2]),
        (2, 0, _) => world.label(2, &[4, 2, 2]),
        _ => unreachable!(),
    }
}

fn connect(world: &mut World, from: usize, to: usize, name: &str) -> Option<SocketId> {
    let by = if world.rng.one_in(2) { 1 } else { 3 };
    let label = label(world, from, to, by);
    let now = strowger_connection::crypto::Nanos(world.now);
    let peer = crate::world::peer(world.ends[to].seed);
    let mut to_peer = strowger_connection::Destination::from(peer);
    to_peer = match world.rng.one_in(2) {
        true => to_peer.label(label),
        false => to_peer.label_with_key(label, world.certificate(to)),
    };
    let options = strowger_connection::ConnectOptions::new();
    let socket = world.endpoint(from).connect(now, to_peer, crate::world::names(name), options);
    world.drive(from);
    socket.ok()
}

/// Accepts the protocols at an end, and returns its datagram socket.
fn listen(world: &mut World, end: usize) -> DatagramId {
    for name in NAMES {
        world.listen(end, name, ListenOptions::new());
    }
    let now = strowger_connection::crypto::Nanos(world.now);
    world.endpoint(end).datagram_socket(now, crate::world::names(DATAGRAMS)).unwrap()
}

fn start_all(world: &mut World) -> Vec<DatagramId> {
    let datagrams = (0..3).map(|end| listen(world, end)).collect();
    for from in 0..3 {
        for to in (0..3).filter(|to| *to != from) {
            let labels = [1, 3].map(|by| label(world, from, to, by)).to_vec();
            let peer = crate::world::peer(world.ends[to].seed);
            world.ends[from].labels.set(peer, labels);
        }
    }
    for (from, to) in [(0, 1), (1, 0), (0, 2), (2, 1)] {
        for name in NAMES {
            connect(world, from, to, name);
        }
    }
    datagrams
}

/// One random action: a message, a replay, a restart or a new socket.
fn step(world: &mut World, traffic: &mut Traffic, datagrams: &mut [DatagramId]) {
    let end = world.rng.below(3);
    match world.rng.below(100) {
        0..15 => {
            let to = (end + 1 + world.rng.below(2)) % 3;
            let _ = traffic.send_to(world, (end, to), datagrams[end]);
        }
        15..70 => {
            let known = sockets(world, end);
            if !known.is_empty() {
                let (socket, to, name) = known[world.rng.below(known.len())].clone();
                let _ = traffic.send(world, (end, to), socket, &name);
            }
        }
        70..95 => replay(world, end),
        95..98 => {
            let to = (end + 1 + world.rng.below(2)) % 3;
            let name = NAMES[world.rng.below(2)];
            connect(world, end, to, name);
        }
        _ => {
            world.restart(end);
            world.ends[end].events.clear();
            datagrams[end] = listen(world, end);
        }
    }
}

/// Replays a packet that this end has received, or that another end has sent: unchanged, changed,
/// by another slot, or with another return path.
fn replay(world: &mut World, end: usize) {
    let from = if world.rng.one_in(4) { world.rng.below(3) } else { end };
    let count = world.ends[from].received.len();
    if count == 0 {
        return;
    }
    let first = if world.rng.one_in(2) { 0 } else { count.saturating_sub(200) };
    let at = first + world.rng.below(count - first);
    let mut seen = world.ends[from].received[at].clone();
    let mut ingress = seen.ingress;
    match world.rng.below(4) {
        0 => {}
        1 => {
            let byte = world.rng.below(seen.packet.len());
            seen.packet[byte] ^= 1 << world.rng.below(8);
        }
        2 => ingress = [2, 3, 4, 5][world.rng.below(4)],
        _ => seen.packet[8] ^= world.rng.below(256) as u8,
    }
    let delay = world.rng.below(300) as u64 * MS;
    world.arrive_at(delay, Place::End(end), ingress, seen.packet);
}
