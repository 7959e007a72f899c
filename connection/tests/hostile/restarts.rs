//! Tables and ids in handshakes by PeerId, in a connection that exists and with a peer that has
//! restarted.

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
};

use strowger_connection::{ConnectOptions, Event, ListenOptions, SocketId};

use crate::{
    traffic::Traffic,
    world::{MS, Place, SECOND, World, peer, seeds},
};

const FIRST: &str = "/first/1";
/// A name that also gets number 1 in a table with both names, which is sorted by name.
const OTHER: &str = "/another/1";

/// Bytes of a packet of kind 4 without a message: switch header, connection header, tag.
const CONFIRMATION: usize = 16 + 24;
/// Bytes of a packet of kind 4 with a `table_ack`.
const TABLE_ACK: usize = CONFIRMATION + 1 + 4;

fn first_byte(packet: &[u8]) -> u8 {
    packet[16]
}

fn is_sealed_message(packet: &[u8]) -> bool {
    first_byte(packet) >> 4 == 4
}

/// The packets that the relay discards.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Discards {
    Nothing,
    /// Initiations by static key, challenges and responses to challenges.
    AllButXx,
    /// The packets of `AllButXx`, and all sealed messages to end 0.
    MessagesToo,
}

/// A relay, and the first packet of items to end 0, which it held back.
struct Relay {
    discards: Rc<Cell<Discards>>,
    held: Rc<RefCell<Option<Vec<u8>>>>,
}

impl Relay {
    fn in_world(world: &mut World) -> Relay {
        let relay = Relay {
            discards: Rc::new(Cell::new(Discards::Nothing)),
            held: Rc::new(RefCell::new(None)),
        };
        let (discards, held) = (relay.discards.clone(), relay.held.clone());
        world.tap = Some(Box::new(move |to, packet| {
            let is_item = is_sealed_message(packet) && packet.len() > CONFIRMATION;
            if to == Place::End(0) && is_item && held.borrow().is_none() {
                *held.borrow_mut() = Some(packet.to_vec());
                return Vec::new();
            }
            let kind = first_byte(packet);
            let is_control = packet[1] & 0x40 != 0;
            let is_lost = !is_control
                && match discards.get() {
                    Discards::Nothing => false,
                    _ if kind == 0x10 || kind >> 4 >= 8 => true,
                    Discards::AllButXx => false,
                    Discards::MessagesToo => to == Place::End(0) && kind >> 4 == 4,
                };
            if is_lost { Vec::new() } else { vec![packet.to_vec()] }
        }));
        relay
    }
}

/// A connection by PeerId whose keys are 6 seconds old.
fn connected(seed: u64) -> (World, Relay, Traffic, SocketId) {
    let mut world = World::two_paths(seed);
    let relay = Relay::in_world(&mut world);
    world.listen(1, FIRST, ListenOptions::new());
    let label = world.ahead(1);
    let socket = world.connect(0, 1, label, FIRST);
    let mut traffic = Traffic::default();
    for _ in 0..6 {
        world.run(SECOND);
        traffic.send(&mut world, (0, 1), socket, FIRST).unwrap();
    }
    world.run(100 * MS);
    assert_eq!(world.info(0, &peer(2)).handshakes, 1);
    assert_eq!(world.info(0, &peer(2)).their_protocols.len(), 1);
    (world, relay, traffic, socket)
}

/// Sends messages until this end has completed another handshake.
fn send_until_new_keys(world: &mut World, traffic: &mut Traffic, socket: SocketId) {
    for _ in 0..3_000 {
        if world.now.is_multiple_of(100 * MS) {
            let _ = traffic.send(world, (0, 1), socket, FIRST);
        }
        world.run(MS);
        if world.info(0, &peer(2)).handshakes == 2 {
            return;
        }
    }
    panic!("no handshake within 3 s");
}

/// Both ends connect by PeerId at once. The end with the smaller key keeps its own handshake, and
/// opens the packets that the other end sent after its third message.
///
/// wire.md: W6-29, W6-139, W6-213.
#[test]
fn no_message_behind_a_crossing_third_message_is_lost() {
    for seed in seeds(6) {
        let mut world = World::two_paths(seed);
        let (ahead, behind) = (world.ahead(1), world.behind(1));
        world.listen(0, OTHER, ListenOptions::new());
        world.listen(1, FIRST, ListenOptions::new());
        let mut traffic = Traffic::default();
        let one = world.connect(0, 1, ahead, FIRST);
        world.run(world_pause(seed));
        let other = world.connect(1, 0, behind, OTHER);
        let mut sent = vec![
            (1, traffic.send(&mut world, (0, 1), one, FIRST).unwrap()),
            (0, traffic.send(&mut world, (1, 0), other, OTHER).unwrap()),
        ];
        for _ in 0..40 {
            world.run(5 * MS);
            sent.push((1, traffic.send(&mut world, (0, 1), one, FIRST).unwrap()));
            sent.push((0, traffic.send(&mut world, (1, 0), other, OTHER).unwrap()));
        }
        world.run(2 * SECOND);
        for (end, message) in &sent {
            assert!(Traffic::has_arrived(&world, *end, message), "seed {seed}, end {end}");
        }
        traffic.check(&world);
        // Both ends keep the same keys, and neither assumes that the other has restarted.
        assert!(!has_restarted(&world, 0) && !has_restarted(&world, 1), "seed {seed}");
        let third = |end: usize| {
            world.ends[end].sent.iter().filter(|seen| first_byte(&seen.packet) == 0x12).count()
        };
        assert!(third(0) >= 1 && third(1) >= 1, "seed {seed}: they have crossed");
        world.assert_balanced();
    }
}

/// The pause between the two connects, in nanoseconds: less than the delay of a path.
fn world_pause(seed: u64) -> u64 {
    seed % 5 * 2 * MS
}

fn has_restarted(world: &World, end: usize) -> bool {
    world.has(end, |event| matches!(event, Event::PeerRestarted { .. }))
}

/// The peer restarts, with other protocol numbers. Only handshakes by PeerId arrive, but no packets
/// that the responder sends after them. A table of the former process arrives late.
///
/// wire.md: W6-141, W6-202.
#[test]
fn r19_no_number_of_a_former_table_is_used_after_a_handshake_by_peer_id() {
    for seed in seeds(4) {
        let (mut world, relay, mut traffic, socket) = connected(seed);
        world.restart(1);
        world.listen(1, OTHER, ListenOptions::new());
        world.listen(1, FIRST, ListenOptions::new());
        relay.discards.set(Discards::MessagesToo);
        send_until_new_keys(&mut world, &mut traffic, socket);
        let former = relay.held.borrow().clone().expect("a packet of items");
        if seed % 2 == 0 {
            world.arrive_at(0, Place::End(0), 3, former.clone());
        }
        for _ in 0..5 {
            world.run(20 * MS);
            traffic.send(&mut world, (0, 1), socket, FIRST).unwrap();
        }
        world.run(100 * MS);
        traffic.check(&world);
        assert!(!has_restarted(&world, 0), "seed {seed}: it cannot know yet");
        relay.discards.set(Discards::Nothing);
        world.run(3 * SECOND);
        world.arrive_at(0, Place::End(0), 3, former);
        world.run(SECOND);
        assert!(has_restarted(&world, 0), "seed {seed}");
        assert_eq!(world.info(0, &peer(2)).their_protocols.len(), 2, "seed {seed}");
        let last = traffic.send(&mut world, (0, 1), socket, FIRST).unwrap();
        world.run(SECOND);
        assert!(Traffic::has_arrived(&world, 1, &last), "seed {seed}");
        traffic.check(&world);
        world.assert_balanced();
    }
}

/// The peer is unreachable for a while and has not restarted. The end connects by static key first,
/// and then by PeerId, which succeeds. The peer sends its table again, and no restart is reported.
///
/// wire.md: W6-122, W6-141, W6-207.
#[test]
fn a_renewal_by_peer_id_states_the_table_again() {
    for seed in seeds(2) {
        let (mut world, relay, mut traffic, socket) = connected(seed);
        relay.discards.set(Discards::AllButXx);
        world.wire(0, 3).is_cut = true;
        let before = world.ends[0].sent.len();
        for _ in 0..15 {
            let _ = traffic.send(&mut world, (0, 1), socket, FIRST);
            world.run(100 * MS);
        }
        world.wire(0, 3).is_cut = false;
        send_until_new_keys(&mut world, &mut traffic, socket);
        let sent = world.ends[0].sent[before..].iter().map(|seen| first_byte(&seen.packet));
        let initiations: Vec<u8> = sent.filter(|byte| byte >> 4 == 1).take(2).collect();
        assert_eq!(initiations, [0x10, 0x11], "seed {seed}");
        relay.discards.set(Discards::Nothing);
        world.run(2 * SECOND);
        assert_eq!(world.info(0, &peer(2)).their_protocols.len(), 1, "seed {seed}");
        assert!(!has_restarted(&world, 0) && !has_restarted(&world, 1), "seed {seed}");
        let before = world.ends[0].sent.len();
        let last = traffic.send(&mut world, (0, 1), socket, FIRST).unwrap();
        let packet = world.ends[0].sent[before].packet.len();
        assert_eq!(packet, 16 + 25 + last.len(), "by number again");
        world.run(SECOND);
        assert!(Traffic::has_arrived(&world, 1, &last), "seed {seed}");
        traffic.check(&world);
        world.assert_balanced();
    }
}

/// While the third message of XX is repeated, its table is not repeated as items. The handshake
/// acknowledges tables of hellos. Items that need no answer cause no challenge.
///
/// wire.md: W6-153, W6-209, W6-210.
#[test]
fn tables_of_hellos_are_not_sent_as_items() {
    for by_key in [false, true] {
        let mut world = World::two_paths(1);
        world.listen(1, FIRST, ListenOptions::new());
        let label = world.ahead(1);
        let relay = Relay::in_world(&mut world);
        if !by_key {
            relay.discards.set(Discards::MessagesToo);
        }
        let _ = match by_key {
            false => world.connect(0, 1, label, FIRST),
            true => world.connect_by_key(0, 1, label, FIRST, ConnectOptions::new()),
        };
        world.run(SECOND);
        let lengths = |world: &World, end: usize| {
            let sent = world.ends[end].sent.iter().filter(|seen| is_sealed_message(&seen.packet));
            sent.map(|seen| seen.packet.len()).collect::<Vec<_>>()
        };
        assert!(lengths(&world, 0).iter().all(|bytes| *bytes == CONFIRMATION), "by key: {by_key}");
        relay.discards.set(Discards::Nothing);
        world.run(3 * SECOND);
        let allowed = [CONFIRMATION, TABLE_ACK];
        assert!(lengths(&world, 0).iter().all(|bytes| allowed.contains(bytes)));
        if by_key {
            assert!(lengths(&world, 1).iter().all(|bytes| *bytes == CONFIRMATION));
        }
        let from = world.ends.iter().map(|end| end.sent.len()).collect::<Vec<_>>();
        world.listen(1, OTHER, ListenOptions::new());
        world.drive(1);
        world.run(5 * SECOND);
        assert_eq!(world.info(0, &peer(2)).their_protocols.len(), 2);
        for (end, from) in from.into_iter().enumerate() {
            let sent = &world.ends[end].sent[from..];
            assert!(!sent.is_empty());
            assert!(sent.iter().all(|seen| is_sealed_message(&seen.packet)), "no challenge");
        }
        world.assert_balanced();
    }
}
