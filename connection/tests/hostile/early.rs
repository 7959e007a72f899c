//! Early messages arrive at most once, despite repetitions, restarts and wrong clocks.

use strowger_connection::{
    ConnectOptions, Event, Goodbye, GoodbyeCode, ListenOptions, SocketId, crypto::Nanos,
};

use crate::{
    secrecy::{FIRST, assert_secret, send_some, watched},
    world::{MS, Place, SECOND, World, peer, seeds},
};

const NAME: &str = "/test/1";

/// Two ends that have been connected, so that 0 has seen that 1 accepts early messages; 1 has run
/// for more than 10 s.
fn acquainted(seed: u64, skew: i64) -> World {
    let mut world = World::two_paths(seed);
    world.ends[0].skew = skew;
    world.restart(0);
    world.listen(1, NAME, ListenOptions::new().idempotent(true));
    let label = world.ahead(1);
    let socket = world.connect_by_key(0, 1, label, NAME, ConnectOptions::new());
    world.run(21 * SECOND);
    assert!(world.is_connected(0, socket), "seed {seed}");
    let now = Nanos(world.now);
    world.endpoint(0).close_connection(now, &peer(2), Goodbye::new(GoodbyeCode(1)));
    world.drive(0);
    world.run(5 * SECOND);
    world
}

fn connect_early(world: &mut World, message: &[u8]) -> SocketId {
    let label = world.ahead(1);
    let options = ConnectOptions::new().early(message.to_vec());
    world.connect_by_key(0, 1, label, NAME, options)
}

fn arrived(world: &World, message: &[u8], early: bool) -> usize {
    let got = world.ends[1].got.iter();
    got.filter(|got| got.bytes == message && got.early == early).count()
}

/// wire.md: W6-20, W6-147, W6-148.
#[test]
fn an_early_message_is_delivered_once_though_initiations_are_repeated() {
    for seed in seeds(6) {
        let mut world = acquainted(seed, 0);
        for link in world.links() {
            (link.repeats, link.jitter) = (500, 30 * MS);
        }
        // Responses are lost for a while, so that the initiation is sent again.
        let lasts = world.rng.below(1_500) as u64 * MS;
        world.wire(2, 2).is_cut = true;
        let start = world.now;
        connect_early(&mut world, b"early");
        world.run(lasts);
        world.wire(2, 2).is_cut = false;
        world.run(10 * SECOND);
        assert_eq!(arrived(&world, b"early", true), 1, "seed {seed}");
        assert_eq!(arrived(&world, b"early", false), 0, "seed {seed}: the result was delivered");
        // Replay all packets of end 0.
        let again: Vec<_> =
            world.ends[1].received.iter().filter(|seen| seen.at >= start).cloned().collect();
        for seen in again {
            world.arrive_at(0, Place::End(1), seen.ingress, seen.packet);
        }
        world.run(SECOND);
        assert_eq!(arrived(&world, b"early", true), 1, "seed {seed}");
        world.assert_balanced();
    }
}

/// wire.md: W6-21, W6-149.
#[test]
fn an_early_message_needs_clocks_that_are_at_most_10_seconds_apart() {
    for (seconds, is_taken) in [(9, true), (-9, true), (11, false), (-11, false), (3_600, false)] {
        let mut world = acquainted(1, seconds * SECOND as i64);
        let socket = connect_early(&mut world, b"early");
        world.run(2 * SECOND);
        assert_eq!(arrived(&world, b"early", true), usize::from(is_taken), "{seconds} s");
        assert_eq!(arrived(&world, b"early", false), usize::from(!is_taken), "{seconds} s");
        let is_refused =
            |event: &Event| matches!(event, Event::EarlyRefused { socket: s } if *s == socket);
        assert_eq!(world.has(0, is_refused), !is_taken, "{seconds} s");
        world.assert_balanced();
    }
}

/// wire.md: W6-21.
#[test]
fn an_early_message_is_not_delivered_again_after_a_restart() {
    for seed in seeds(4) {
        let mut world = acquainted(seed, [0, 9, -9][seed as usize % 3] * SECOND as i64);
        let start = world.now;
        connect_early(&mut world, b"early");
        world.run(SECOND);
        assert_eq!(arrived(&world, b"early", true), 1, "seed {seed}");
        let recorded: Vec<_> =
            world.ends[1].received.iter().filter(|seen| seen.at >= start).cloned().collect();
        let pause = world.rng.below(9_000) as u64 * MS;
        world.run(pause);
        world.restart(1);
        world.listen(1, NAME, ListenOptions::new().idempotent(true));
        for _ in 0..20 {
            for seen in &recorded {
                world.arrive_at(0, Place::End(1), seen.ingress, seen.packet.clone());
            }
            world.run(SECOND);
        }
        assert_eq!(arrived(&world, b"early", true), 1, "seed {seed}");
        world.assert_balanced();
    }
}

/// If a protocol does not accept early messages, the message is sent sealed.
///
/// wire.md: W6-20.
#[test]
fn an_early_message_goes_sealed_where_none_is_accepted() {
    let mut world = World::two_paths(3);
    world.listen(1, NAME, ListenOptions::new());
    let label = world.ahead(1);
    let options = ConnectOptions::new().early(b"early".to_vec());
    world.run(15 * SECOND);
    world.connect_by_key(0, 1, label, NAME, options);
    world.run(SECOND);
    assert_eq!((arrived(&world, b"early", true), arrived(&world, b"early", false)), (0, 1));
    world.assert_balanced();
}

#[test]
fn r14_no_relay_sees_an_early_message() {
    for seed in seeds(2) {
        let mut world = watched(seed);
        let mut messages = Vec::new();
        world.listen(1, FIRST, ListenOptions::new().idempotent(true));
        world.run(20 * SECOND);
        let label = world.ahead(1);
        let socket = world.connect_by_key(0, 1, label, FIRST, ConnectOptions::new());
        for _ in 0..4 {
            send_some(&mut world, 0, socket, &mut messages);
        }
        let now = Nanos(world.now);
        let second = peer(2);
        world.endpoint(0).close_connection(now, &second, Goodbye::new(GoodbyeCode(1)));
        world.drive(0);
        world.run(5 * SECOND);
        let early = world.rng.bytes(200);
        let options = ConnectOptions::new().early(early.clone());
        let socket = world.connect_by_key(0, 1, label, FIRST, options);
        world.run(SECOND);
        messages.push(early.clone());
        for _ in 0..8 {
            send_some(&mut world, 0, socket, &mut messages);
        }
        let arrived = world.ends[1].got.iter().filter(|got| got.bytes == early).count();
        assert_eq!(arrived, 1, "seed {seed}");
        assert_secret(&world, &messages);
        world.assert_balanced();
    }
}
