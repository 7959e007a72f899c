//! R22: changes of the path.

use strowger_connection::{ListenOptions, crypto::Nanos};

use crate::{
    changes::Load,
    world::{MS, SECOND, Seen, World, packet, peer, seeds},
};

/// The first challenge along a label that is new to the receiver: the response goes along the
/// return label and along the active path, and the receiver's own challenge uses none of its byte
/// credit.
///
/// wire.md: W6-42, W6-175.
#[test]
fn the_response_to_a_challenge_goes_along_a_label_that_is_not_validated_too() {
    for seed in seeds(2) {
        let mut world = World::two_paths(seed);
        world.listen(1, "/echo/1", ListenOptions::new());
        let label = world.ahead(1);
        let socket = world.connect(0, 1, label, "/echo/1");
        world.send(0, socket, b"hello").unwrap();
        world.run(2 * SECOND);
        let [active, other] = [1, 3].map(|by| packet(&world, 1, world.behind(by), &[]));
        let (before, now, label) = (world.ends[1].sent.len(), Nanos(world.now), world.ahead(3));
        world.endpoint(0).set_label(now, &peer(2), label).unwrap();
        world.drive(0);
        // The challenge needs 15 ms.
        world.run(16 * MS);
        let along = |kind: u8, path: &[u8]| {
            let is_it =
                |seen: &&Seen| seen.packet[16] >> 4 == kind && seen.packet[8..16] == path[8..16];
            let sent = world.ends[1].sent[before..].iter();
            sent.filter(is_it).map(|seen| seen.packet.len()).collect::<Vec<_>>()
        };
        assert_eq!((along(9, &other), along(9, &active)), (vec![48], vec![48]), "seed {seed}");
        assert_eq!(along(8, &other), [48], "the challenge that is allowed besides");
        world.run(SECOND);
        assert_eq!(world.info(1, &peer(1)).paths[0].label, world.behind(3), "seed {seed}");
        world.assert_balanced();
    }
}

/// wire.md: W6-178.
#[test]
fn r22_a_change_to_another_label_loses_nothing() {
    for seed in seeds(4) {
        let mut load = Load::new(seed, seed % 2 == 0);
        for turn in 0..6 {
            let label = load.world.ahead(if turn % 2 == 0 { 3 } else { 1 });
            let now = Nanos(load.world.now);
            load.world.endpoint(0).set_label(now, &peer(2), label).unwrap();
            load.world.drive(0);
            load.run(500 * MS, 2 * MS);
        }
        let info = load.world.info(0, &peer(2));
        assert_eq!(info.paths[0].label, load.world.ahead(1), "seed {seed}");
        assert_eq!((load.lost(), load.refused), (Vec::new(), 0), "seed {seed}");
        load.assert_open();
    }
}

/// A label that leads nowhere does not displace one that works.
///
/// wire.md: W6-178.
#[test]
fn r22_a_wrong_label_changes_nothing() {
    for seed in seeds(2) {
        let mut load = Load::new(seed, false);
        load.world.sink((1, 5));
        for label in [load.world.label(0, &[3, 5]), "0000.0000.0000.0fff".parse().unwrap()] {
            let now = Nanos(load.world.now);
            load.world.endpoint(0).set_label(now, &peer(2), label).unwrap();
            load.world.drive(0);
            load.run(3 * SECOND, 5 * MS);
        }
        let info = load.world.info(0, &peer(2));
        assert_eq!(info.paths[0].label, load.world.ahead(1), "seed {seed}");
        assert_eq!((load.lost(), load.refused), (Vec::new(), 0), "seed {seed}");
        load.assert_open();
    }
}

/// The path is cut in both directions while routing knows another one.
///
/// wire.md: W6-45.
#[test]
fn r22_a_cut_path_is_left_within_a_second_and_a_half() {
    for seed in seeds(4) {
        let mut load = Load::new(seed, seed % 2 == 0);
        let both = vec![load.world.ahead(1), load.world.ahead(3)];
        load.world.ends[0].labels.set(peer(2), both);
        load.run(SECOND, 5 * MS);
        let cut = load.world.now;
        load.world.wire(0, 3).is_cut = true;
        load.world.wire(1, 2).is_cut = true;
        load.run(5 * SECOND, 5 * MS);
        let lost = load.lost();
        let last = lost.iter().max().copied().unwrap_or(cut);
        assert!(last < cut + 1_500 * MS, "seed {seed}: {} ms", (last - cut) / MS);
        assert!(lost.iter().all(|at| *at + 20 * MS >= cut), "seed {seed}: lost before the cut");
        load.assert_open();
    }
}

/// A slot of a relay gets another number: errors inform the sender, and routing has the new label.
///
/// wire.md: W6-44, W6-184.
#[test]
fn r22_a_slot_that_was_renumbered_is_followed() {
    for seed in seeds(4) {
        let mut load = Load::new(seed, seed % 2 == 0);
        let cut = load.world.now;
        load.world.renumber(1, 3, 6);
        let label = load.world.label(0, &[3, 6, 3]);
        load.world.ends[0].labels.set(peer(2), vec![label]);
        load.run(5 * SECOND, 5 * MS);
        let lost = load.lost();
        let last = lost.iter().max().copied().unwrap_or(cut);
        // Detection by silence alone would take at least 150 ms.
        assert!(last < cut + 120 * MS, "seed {seed}: {} ms", (last - cut) / MS);
        load.assert_open();
    }
}
