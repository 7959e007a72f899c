//! Rules that can be checked on packets.

use std::collections::HashMap;

use strowger_connection::{
    ConnectOptions, Destination, ListenOptions, PathInfo, PathState, crypto::Nanos,
};

use crate::world::{MS, SECOND, Seen, World, names, peer, seeds};

const FIRST: &str = "/first/1";
const SECOND_NAME: &str = "/second/1";

fn kind(seen: &Seen) -> u8 {
    seen.packet[16] >> 4
}

fn flow(seen: &Seen) -> u16 {
    u16::from_be_bytes([seen.packet[6], seen.packet[7]])
}

/// Checks flags, flow, class and hops left of all packets between two ends.
///
/// wire.md: W6-4, W6-126, W6-127, W6-128, W6-129.
#[test]
fn switch_headers_have_the_flags_flows_and_hops_of_the_rules() {
    for by_key in [false, true] {
        let mut world = World::two_paths(1);
        world.listen(1, FIRST, ListenOptions::new());
        world.listen(1, SECOND_NAME, ListenOptions::new());
        let label = world.ahead(1);
        let first = match by_key {
            false => world.connect(0, 1, label, FIRST),
            true => world.connect_by_key(0, 1, label, FIRST, ConnectOptions::new()),
        };
        let second = world.connect(0, 1, label, SECOND_NAME);
        world.run(SECOND);
        let mut flows: HashMap<usize, Vec<u16>> = HashMap::new();
        for number in 0..20 {
            let socket = [first, second][number % 2];
            let before = world.ends[0].sent.len();
            world.send(0, socket, &[number as u8; 50]).unwrap();
            flows.entry(number % 2).or_default().push(flow(&world.ends[0].sent[before]));
        }
        let of = |socket: usize| flows[&socket].clone();
        assert!(of(0).iter().all(|flow| *flow == of(0)[0]) && of(0)[0] != of(1)[0]);
        assert!(of(1).iter().all(|flow| *flow == of(1)[0]));
        world.run(SECOND);
        // Handshakes and items have the flow of number 0.
        let zero = flow(&world.ends[0].sent[0]);
        for seen in &world.ends[0].sent {
            let is_of_a_socket = [of(0)[0], of(1)[0]].contains(&flow(seen));
            assert!(is_of_a_socket || flow(seen) == zero, "{:02x?}", &seen.packet[..24]);
        }
        for end in 0..2 {
            for seen in &world.ends[end].sent {
                let answers = matches!(kind(seen), 2 | 3 | 7);
                // E alone, or no flag; not ECN-capable.
                assert_eq!(seen.packet[1], if answers { 0x80 } else { 0 });
                assert_eq!((seen.packet[2], seen.packet[3]), (64, 0), "hops left, class");
                if answers {
                    assert_eq!(flow(seen), zero, "the flow of the initiation");
                }
            }
        }
        world.assert_balanced();
    }
}

/// An initiation goes along two labels, the first of which leads to a program that never answers.
/// The second copy has the same bytes, 150 ms later, and its label becomes active.
///
/// wire.md: W6-14, W6-135, W6-211.
#[test]
fn an_initiation_goes_along_the_next_label_150_ms_later() {
    for seed in seeds(3) {
        let mut world = World::two_paths(seed);
        let sink = world.sink((1, 5));
        world.listen(1, FIRST, ListenOptions::new());
        let (dead, good) = (world.label(0, &[3, 5]), world.ahead(3));
        let certificate = world.certificate(1);
        let to = Destination::from(peer(2));
        let to = match seed % 2 {
            0 => to.label(dead).label(good),
            _ => to.label_with_key(dead, certificate).label(good),
        };
        let start = world.now;
        let now = Nanos(world.now);
        let options = ConnectOptions::new();
        let socket = world.endpoint(0).connect(now, to, names(FIRST), options).unwrap();
        world.drive(0);
        assert!(world.run_until(SECOND, |world| world.is_connected(0, socket)), "seed {seed}");
        let sent = &world.ends[0].sent;
        let initiations: Vec<_> = sent.iter().filter(|seen| kind(seen) == 1).collect();
        let (one, other) = (initiations[0], initiations[1]);
        assert_eq!(other.at - one.at, 150 * MS);
        assert!(one.packet[16..] == other.packet[16..] && one.packet[8..16] != other.packet[8..16]);
        let finishes = sent.iter().filter(|seen| seen.packet[16] == 0x12);
        assert!(finishes.clone().all(|seen| seen.packet[8..16] == other.packet[8..16]));
        assert_eq!(finishes.count(), usize::from(one.packet[16] == 0x11), "XX 3 along one label");
        // Connected after the pause and one round trip.
        assert!(world.now - start <= 172 * MS, "seed {seed}: {} ms", (world.now - start) / MS);
        world.run(2 * SECOND);
        assert_eq!(world.info(0, &peer(2)).paths[0].label, good, "seed {seed}");
        assert!(world.sinks[sink].len() <= 4, "an initiation, and three challenges at most");
        world.assert_balanced();
    }
}

/// Copies of an initiation by static key that come by another label within 2 seconds get the same
/// response along that label, for at most three labels. Later copies get no answer.
///
/// wire.md: W6-136.
#[test]
fn copies_of_an_initiation_get_the_same_response() {
    let mut world = World::two_paths(4);
    world.listen(1, FIRST, ListenOptions::new());
    let label = world.ahead(1);
    world.connect_by_key(0, 1, label, FIRST, ConnectOptions::new());
    world.run(15 * MS);
    let initiation = world.ends[1].received[0].clone();
    assert_eq!(initiation.packet[16], 0x10);
    let responses = |world: &World| {
        world.ends[1].sent.iter().filter(|seen| kind(seen) == 2).cloned().collect::<Vec<_>>()
    };
    for slot in [3, 4, 5, 6, 7] {
        if slot != initiation.ingress {
            let at = crate::world::Place::End(1);
            world.arrive_at(0, at, slot, initiation.packet.clone());
            world.run(MS);
        }
    }
    let all = responses(&world);
    assert_eq!(all.len(), 3, "along three labels");
    assert!(all.iter().all(|seen| seen.packet[16..] == all[0].packet[16..]));
    world.run(3 * SECOND);
    world.arrive_at(0, crate::world::Place::End(1), 9, initiation.packet.clone());
    world.run(SECOND);
    assert_eq!(responses(&world).len(), 3);
    world.assert_balanced();
}

/// A message that is too long is refused with the limit, and all messages are counted.
///
/// wire.md: W6-182, W6-197.
#[test]
fn a_message_that_is_too_long_is_refused_and_counted() {
    let mut world = World::two_paths(5);
    world.listen(1, FIRST, ListenOptions::new());
    let label = world.ahead(1);
    let socket = world.connect(0, 1, label, FIRST);
    world.send(0, socket, &[1; 10]).unwrap();
    world.run(SECOND);
    let max = world.endpoint(0).socket(socket).unwrap().message_max;
    world.send(0, socket, &vec![2; max]).unwrap();
    let refused = world.send(0, socket, &vec![3; max + 1]);
    assert_eq!(refused, Err(strowger_connection::SendRefused::TooLong { max }));
    world.run(SECOND);
    assert_eq!(world.ends[1].got.last().unwrap().bytes.len(), max);
    let counters = world.endpoint(0).counters();
    assert_eq!((counters.messages(), counters.sealed(), counters.refused()), (3, 2, 1));
    world.assert_balanced();
}

/// Chosen labels along which no valid response came are challenged once there are keys.
///
/// wire.md: W6-212.
#[test]
fn all_chosen_labels_become_standby() {
    for by_key in [false, true] {
        let mut world = World::two_paths(6);
        world.listen(1, FIRST, ListenOptions::new());
        let (one, other, certificate) = (world.ahead(1), world.ahead(3), world.certificate(1));
        let to = Destination::from(peer(2));
        let to = match by_key {
            false => to.label(one).label(other),
            true => to.label_with_key(one, certificate).label(other),
        };
        world.connect_to(0, to, FIRST, ConnectOptions::new());
        world.run(SECOND);
        let paths = world.info(0, &peer(2)).paths;
        assert_eq!(paths.len(), 2);
        let is_validated = |path: &PathInfo| path.state == PathState::Validated;
        assert!(paths.iter().all(is_validated), "by key {by_key}: {paths:?}");
        world.assert_balanced();
    }
}

/// A message names its protocol until the number is known. A message that does not fit together
/// with the name waits.
///
/// wire.md: W6-157.
#[test]
fn messages_have_a_number_as_soon_as_it_is_known() {
    let mut world = World::two_paths(7);
    world.listen(1, FIRST, ListenOptions::new());
    let label = world.ahead(1);
    let socket = world.connect(0, 1, label, FIRST);
    assert!(world.run_until(SECOND, |world| world.is_connected(0, socket)));
    let max = world.endpoint(0).socket(socket).unwrap().message_max;
    let before = world.ends[0].sent.len();
    world.send(0, socket, &[1; 50]).unwrap();
    assert_eq!(world.ends[0].sent[before].packet.len(), 16 + 25 + 50 + 4 + FIRST.len());
    let before = world.ends[0].sent.len();
    world.send(0, socket, &vec![2; max]).unwrap();
    assert_eq!(world.ends[0].sent.len(), before, "it waits");
    world.run(SECOND);
    assert_eq!(world.ends[1].got.last().unwrap().bytes, vec![2; max]);
    let before = world.ends[0].sent.len();
    world.send(0, socket, &[3; 50]).unwrap();
    assert_eq!(world.ends[0].sent[before].packet.len(), 16 + 25 + 50);
    world.run(SECOND);
    assert_eq!(world.ends[1].got.len(), 3);
    world.assert_balanced();
}

/// A connect adds its name to the own table, which is sent to the peer, and fails if the table is
/// full.
///
/// wire.md: W6-151.
#[test]
fn a_connect_adds_its_name_to_the_own_table() {
    let mut world = World::two_paths(8);
    world.listen(1, FIRST, ListenOptions::new());
    let label = world.ahead(1);
    world.connect(0, 1, label, FIRST);
    world.run(SECOND);
    let theirs = world.info(1, &peer(1)).their_protocols;
    assert_eq!(theirs, [FIRST]);
    let now = Nanos(world.now);
    let to = Destination::from(peer(2));
    for number in 2..=255 {
        let name = names(&format!("/name-{number}/1"));
        let made = world.endpoint(0).connect(now, to.clone(), name, ConnectOptions::new());
        match number {
            255 => assert_eq!(made, Err(strowger_connection::ConnectError::TableFull)),
            _ => assert!(made.is_ok(), "{number}"),
        }
    }
}
