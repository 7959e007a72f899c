//! R17: the limit of bytes to a label that is not validated.

use std::{cell::RefCell, rc::Rc};

use strowger_connection::{
    ListenOptions,
    wire::{
        Slot,
        label::{Hop, Label},
        scheme::V3X5X8,
    },
};

use crate::{
    traffic::Traffic,
    world::{MS, Place, SECOND, World, seeds, with_return_path},
};

const NAME: &str = "/test/1";

/// A path challenge with a token alone, in a packet with a 64-bit label.
const SHORT_CHALLENGE: usize = 16 + 32;

/// A relay between two ends changes the return path of some packets, before or instead of the
/// packets themselves, so that answers go to a program that never answers. Along each such label
/// the ends send at most as many bytes as came by it, plus one short challenge a second. If the
/// packets themselves arrive as well, no message is lost.
///
/// wire.md: W6-41, W6-42, W6-137, W6-175.
#[test]
fn r17_no_more_bytes_go_along_a_forged_return_path_than_came_by_it() {
    for seed in seeds(6) {
        let mut world = World::two_paths(seed);
        let mut traffic = Traffic::default();
        let sink = world.sink((1, 5));
        // The label from end 1: slot 2 of switch 2, then slot 5 of switch 1.
        let hop = Hop { scheme: &V3X5X8, ingress: Slot::new(3), egress: Slot::new(5) };
        let to_sink: Label<u64> = Label::build(&[hop]).unwrap().0;
        let forged = Rc::new(RefCell::new(Vec::new()));
        let clock = Rc::new(RefCell::new(0));
        let (kept, time) = (forged.clone(), clock.clone());
        let period = 1 + world.rng.below(4);
        let replaces = period > 2 && world.rng.one_in(2);
        let mut count = 0;
        world.tap = Some(Box::new(move |to, packet| {
            let mut all = vec![packet.to_vec()];
            if to == Place::Switch(2, 2) {
                count += 1;
                if count % period == 0 {
                    let copy = with_return_path(packet, to_sink);
                    kept.borrow_mut().push((*time.borrow(), copy.len()));
                    all = if replaces { vec![copy] } else { vec![copy, packet.to_vec()] };
                }
            }
            all
        }));
        world.listen(1, NAME, ListenOptions::new());
        let label = world.ahead(1);
        let by_key = world.rng.one_in(2);
        let socket = match by_key {
            true => world.connect_by_key(0, 1, label, NAME, Default::default()),
            false => world.connect(0, 1, label, NAME),
        };
        let mut sent = Vec::new();
        for _ in 0..1_000 {
            world.run(10 * MS);
            *clock.borrow_mut() = world.now;
            sent.extend(traffic.send(&mut world, (0, 1), socket, NAME));
        }
        world.run(SECOND);
        if !replaces {
            let lost = sent.iter().filter(|m| !Traffic::has_arrived(&world, 1, m)).count();
            assert_eq!((lost, sent.len()), (0, 1_000), "seed {seed}: a copy cut the connection");
        }
        let forged = forged.borrow();
        assert!(forged.len() > 50, "seed {seed}: the attacker did little: {}", forged.len());
        let mut sent = 0;
        for seen in &world.sinks[sink] {
            sent += seen.packet.len();
            let came: usize =
                forged.iter().filter(|(at, _)| *at <= seen.at).map(|(_, bytes)| bytes).sum();
            let seconds = (seen.at.saturating_sub(forged[0].0) / SECOND) as usize + 2;
            let allowed = came + seconds * SHORT_CHALLENGE;
            assert!(sent <= allowed, "R17, seed {seed}: {sent} bytes of {allowed} at {}", seen.at);
        }
        traffic.check(&world);
        world.assert_balanced();
    }
}

/// A replay of recorded packets with another return path has no effect, because the packets are not
/// fresh.
///
/// wire.md: W6-173.
#[test]
fn r17_replays_along_a_forged_return_path_cause_nothing_there() {
    for seed in seeds(4) {
        let mut world = World::two_paths(seed);
        let mut traffic = Traffic::default();
        let sink = world.sink((1, 5));
        let hop = Hop { scheme: &V3X5X8, ingress: Slot::new(3), egress: Slot::new(5) };
        let to_sink: Label<u64> = Label::build(&[hop]).unwrap().0;
        world.listen(1, NAME, ListenOptions::new());
        let label = world.ahead(1);
        let socket = world.connect(0, 1, label, NAME);
        for _ in 0..50 {
            world.run(10 * MS);
            traffic.send(&mut world, (0, 1), socket, NAME).unwrap();
        }
        world.run(SECOND);
        assert!(world.is_connected(0, socket), "seed {seed}");
        let sealed = |packet: &[u8]| packet[16] >> 4 == 4;
        let recorded: Vec<_> =
            world.ends[1].received.iter().filter(|seen| sealed(&seen.packet)).cloned().collect();
        assert!(recorded.len() >= 50);
        for seen in recorded {
            world.arrive_at(0, Place::End(1), 2, with_return_path(&seen.packet, to_sink));
        }
        world.run(5 * SECOND);
        assert_eq!(world.sinks[sink].len(), 0, "seed {seed}");
        traffic.check(&world);
        world.assert_balanced();
    }
}

/// Along a label to a program that never answers, an end sends only initiations, at the specified
/// intervals. The connect fails at its time limit.
#[test]
fn r17_a_label_without_an_answer_gets_a_few_initiations_and_nothing_else() {
    for seed in seeds(4) {
        let mut world = World::two_paths(seed);
        let sink = world.sink((1, 5));
        let label = world.label(0, &[3, 5]);
        let socket = world.connect(0, 1, label, NAME);
        for _ in 0..100 {
            let _ = world.send(0, socket, &[7; 100]);
        }
        world.run(12 * SECOND);
        assert!(world.has(0, |event| {
            matches!(event, strowger_connection::Event::ConnectFailed { socket: s, .. } if *s == socket)
        }));
        let seen = &world.sinks[sink];
        assert!((3..=8).contains(&seen.len()), "seed {seed}: {}", seen.len());
        assert!(seen.iter().all(|seen| seen.packet.len() == 16 + 896 && seen.packet[16] == 0x11));
        world.assert_balanced();
    }
}
