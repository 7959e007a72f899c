//! Forgeries by relays: errors, packets of kind 7, and answers of other identities.

use strowger_connection::{
    ConnectError, ConnectOptions, Destination, Event, ListenOptions, Only, SocketId, crypto::Nanos,
    wire::control::Reason,
};

use crate::{
    traffic::Traffic,
    world::{MS, Place, SECOND, World, names, peer, seeds, with_return_path},
};

const NAME: &str = "/test/1";

/// A connection from 0 to 1 with messages each 10 ms while `attack` runs after each; returns the
/// world and the number of messages that were lost.
fn under(seed: u64, steps: usize, mut attack: impl FnMut(&mut World, usize)) -> (World, usize) {
    let mut world = World::two_paths(seed);
    let mut traffic = Traffic::default();
    world.listen(1, NAME, ListenOptions::new());
    let label = world.ahead(1);
    let socket = world.connect(0, 1, label, NAME);
    let mut sent = vec![traffic.send(&mut world, (0, 1), socket, NAME).unwrap()];
    world.run(SECOND);
    for step in 0..steps {
        sent.push(traffic.send(&mut world, (0, 1), socket, NAME).expect("it is taken"));
        world.run(10 * MS);
        attack(&mut world, step);
    }
    world.run(SECOND);
    traffic.check(&world);
    world.assert_balanced();
    let is_closed = |event: &Event| matches!(event, Event::SocketClosed { .. });
    assert!(!world.has(0, is_closed), "seed {seed}");
    let lost = sent.iter().filter(|message| !Traffic::has_arrived(&world, 1, message)).count();
    (world, lost)
}

/// wire.md: W6-143, W6-144, W6-145.
#[test]
fn a_forged_unknown_connection_costs_a_handshake_in_five_seconds_and_nothing_else() {
    for seed in seeds(2) {
        let (mut world, lost) = under(seed, 2_000, |world, step| {
            if step % 5 == 0 {
                let seen = world.ends[0].sent.last().unwrap().packet.clone();
                let mut answer = seen[..16].to_vec();
                answer.extend([0x70, 0, 0, 0, 0, 0, 0, 0]);
                answer.extend(&seen[16..24]);
                // Inject the forgery on the return path, as if it came from the peer.
                let back = world.ends[0].received.last().unwrap().clone();
                answer[..16].copy_from_slice(&back.packet[..16]);
                world.arrive_at(0, Place::End(0), back.ingress, answer);
            }
        });
        assert_eq!(lost, 0, "seed {seed}");
        let info = world.info(0, &peer(2));
        assert!((2..=6).contains(&info.handshakes), "seed {seed}: {}", info.handshakes);
    }
}

/// A relay forges errors of every kind, about packets of the connection and about others.
#[test]
fn forged_errors_end_nothing_and_lose_nothing() {
    for seed in seeds(2) {
        let (mut world, lost) = under(seed, 1_500, |world, step| {
            let seen = world.ends[0].sent.last().unwrap().packet.clone();
            let why = Reason::new(1 + (step % 14) as u8);
            world.forge_error(0, 2, &seen, why);
            if step % 7 == 0 {
                world.forge_too_big(0, 2, &seen, 100 + step);
            }
            let mut other = seen;
            other[6] ^= 0x40;
            world.forge_error(0, 2, &other, why);
        });
        assert_eq!(lost, 0, "seed {seed}");
        let info = world.info(0, &peer(2));
        assert!(info.message_max >= 896 - 25, "seed {seed}: {}", info.message_max);
        assert_eq!(info.handshakes, 1, "seed {seed}: no error begins a handshake");
    }
}

/// wire.md: W6-11, W6-133.
#[test]
fn another_peer_at_the_label_is_refused_and_named() {
    let mut world = World::two_paths(5);
    world.end(3, (2, 5));
    world.listen(2, NAME, ListenOptions::new());
    // The label leads to identity 3, which does not answer a handshake for the PeerId of 2. No end
    // here answers handshakes by label alone.
    let label = world.label(0, &[3, 3, 5]);
    let socket = world.connect(0, 1, label, NAME);
    world.run(10 * SECOND - MS);
    let failed = failure(&world, socket);
    assert!(matches!(failed, Some(ConnectError::Timeout { .. })), "{failed:?}");
    assert!(world.ends[2].got.is_empty() && world.ends[2].sent.is_empty());
    world.assert_balanced();
}

/// The error with which connecting failed; `None` if it has not failed.
fn failure(world: &World, socket: SocketId) -> Option<ConnectError> {
    world.ends[0].events.iter().find_map(|event| match event {
        Event::ConnectFailed { socket: failed, error } if *failed == socket => Some(error.clone()),
        _ => None,
    })
}

/// A relay changes each response. The connect fails within 10 s with this reason, and the next
/// connect works.
///
/// wire.md: W6-133.
#[test]
fn responses_that_do_not_authenticate_are_the_reason_of_a_failed_connect() {
    for by_key in [false, true] {
        let mut world = World::two_paths(8);
        world.listen(1, NAME, ListenOptions::new());
        let label = world.ahead(1);
        let connect = |world: &mut World| match by_key {
            true => world.connect_by_key(0, 1, label, NAME, ConnectOptions::new()),
            false => world.connect(0, 1, label, NAME),
        };
        world.tap = Some(Box::new(|to, packet| {
            let mut packet = packet.to_vec();
            if to == Place::End(0) && packet[16] >> 4 == 2 {
                packet[100] ^= 1;
            }
            vec![packet]
        }));
        let socket = connect(&mut world);
        world.run(10 * SECOND - MS);
        let failed = failure(&world, socket);
        let Some(ConnectError::NotAuthenticated { responses }) = failed else {
            panic!("by key {by_key}: {failed:?}")
        };
        assert!((2..=8).contains(&responses), "one to each initiation: {responses}");
        world.tap = None;
        let socket = connect(&mut world);
        world.run(10 * SECOND);
        assert!(world.is_connected(0, socket), "by key {by_key}: {:?}", world.ends[0].events);
        world.assert_balanced();
    }
}

/// wire.md: W6-192.
#[test]
fn a_peer_that_may_not_connect_gets_no_answer_by_key_and_no_connection_by_peer_id() {
    for by_key in [false, true] {
        let mut world = World::two_paths(6);
        let policy = std::sync::Arc::new(Only::new([peer(9)]));
        world.end_with(4, (2, 5), policy, false);
        world.listen(2, NAME, ListenOptions::new());
        let label = world.label(0, &[3, 3, 5]);
        let socket = match by_key {
            true => world.connect_by_key(0, 2, label, NAME, ConnectOptions::new()),
            false => world.connect(0, 2, label, NAME),
        };
        let _ = world.send(0, socket, b"message");
        world.run(11 * SECOND);
        // The only answers are responses to first messages of XX, and kind 7 to packets that the
        // initiator seals after them.
        let is_answer = |packet: &[u8]| matches!(packet[16], 0x21 | 0x70);
        assert!(world.ends[2].sent.iter().all(|seen| is_answer(&seen.packet)), "{by_key}");
        assert!(world.endpoint(2).peers().is_empty());
        assert!(world.ends[2].got.is_empty());
        world.assert_balanced();
    }
}

/// wire.md: W6-34, W6-35, W6-158.
#[test]
fn an_unknown_protocol_is_refused_until_it_is_there() {
    for by_key in [false, true] {
        let mut world = World::two_paths(7);
        world.listen(1, "/other/1", ListenOptions::new());
        let label = world.ahead(1);
        let socket = match by_key {
            true => world.connect_by_key(0, 1, label, NAME, ConnectOptions::new()),
            false => world.connect(0, 1, label, NAME),
        };
        let _ = world.send(0, socket, b"to nowhere");
        world.run(5 * SECOND);
        assert!(world.has(0, |event| match event {
            Event::Unsupported { socket: s } => *s == socket,
            Event::ConnectFailed { socket: s, error } =>
                *s == socket && *error == ConnectError::Unsupported,
            _ => false,
        }));
        assert!(world.ends[1].got.is_empty());
        let before = world.ends[1].sent.len();
        for _ in 0..100 {
            let _ = world.send(0, socket, b"to nowhere");
            world.run(10 * MS);
        }
        let answers = world.ends[1].sent.len() - before;
        assert!(answers <= 3, "{answers} answers to messages for an unknown protocol in a second");
        world.listen(1, NAME, ListenOptions::new());
        world.run(2 * SECOND);
        let now = Nanos(world.now);
        let to = Destination::from(peer(2)).label(label);
        let again = match world.send(0, socket, b"now it is there") {
            Ok(()) => socket,
            Err(_) => world
                .endpoint(0)
                .connect(now, to, names(NAME), ConnectOptions::new())
                .expect("the failed socket is gone"),
        };
        let _ = world.send(0, again, b"now it is there");
        world.run(SECOND);
        assert!(Traffic::has_arrived(&world, 1, b"now it is there"), "by key: {by_key}");
        world.assert_balanced();
    }
}

/// Forged pass-through packets with the visible index, with return paths to another program: no
/// label is learnt, nothing is sent to the program, and the messages are marked as pass-through.
///
/// wire.md: W6-43, W6-160.
#[test]
fn forged_pass_through_packets_teach_nothing() {
    for accepts in [false, true] {
        let mut world = World::two_paths(8);
        let sink = world.sink((1, 5));
        world.listen(1, NAME, ListenOptions::new().pass_through(accepts));
        let label = world.ahead(1);
        let socket = world.connect(0, 1, label, NAME);
        world.send(0, socket, b"sealed").unwrap();
        world.run(SECOND);
        let sealed = |packet: &[u8]| packet[16] >> 4 == 4;
        let seen = world.ends[1].received.iter().rfind(|seen| sealed(&seen.packet)).cloned();
        let seen = seen.expect("a sealed packet arrived");
        let hop = strowger_connection::wire::label::Hop {
            scheme: &strowger_connection::wire::scheme::V3X5X8,
            ingress: strowger_connection::wire::Slot::new(3),
            egress: strowger_connection::wire::Slot::new(5),
        };
        let to_sink = strowger_connection::wire::Label::build(&[hop]).unwrap().0;
        let before = world.ends[1].got.len();
        for number in 0..50 {
            let mut forged = with_return_path(&seen.packet[..20], to_sink);
            forged[16] = 0x60;
            forged.extend([0, 0, 0, 0, 1, 0x40, number, 1, 2, 3]);
            world.arrive_at(0, Place::End(1), 2, forged);
            world.run(10 * MS);
        }
        world.run(5 * SECOND);
        assert_eq!(world.sinks[sink].len(), 0);
        let got = &world.ends[1].got[before..];
        assert_eq!(got.len(), if accepts { 50 } else { 0 });
        assert!(got.iter().all(|got| got.pass_through));
        world.assert_balanced();
    }
}

/// Pass-through messages are sent unsealed only if both ends accept them and if they have a short
/// header.
///
/// wire.md: W6-160, W6-161.
#[test]
fn pass_through_messages_go_where_they_are_accepted() {
    for (accepts, first, passes) in [(true, 0x40, true), (true, 0xc0, false), (false, 0x40, false)]
    {
        let mut world = World::two_paths(9);
        world.listen(1, NAME, ListenOptions::new().pass_through(accepts));
        let label = world.ahead(1);
        let socket = world.connect(0, 1, label, NAME);
        world.send(0, socket, b"sealed").unwrap();
        world.run(SECOND);
        let message = [&[first][..], b"sealed by QUIC"].concat();
        world.send_pass_through(0, socket, &message).unwrap();
        world.run(SECOND);
        let got = world.ends[1].got.last().unwrap();
        assert_eq!((&got.bytes, got.pass_through), (&message, passes));
        let kinds = world.ends[0].sent.iter().filter(|seen| seen.packet[16] == 0x60).count();
        assert_eq!(kinds, usize::from(passes));
        world.assert_balanced();
    }
}
