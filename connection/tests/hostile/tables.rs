//! R19: a protocol number means the receiver's name or nothing, after any loss.

use std::{cell::Cell, rc::Rc};

use strowger_connection::ListenOptions;

use crate::{
    traffic::Traffic,
    world::{MS, SECOND, World, seeds},
};

/// Tables grow at both ends while packets are lost: a mask selects each subset of the next eight.
/// All messages arrive under their names, and later messages are not refused.
///
/// wire.md: W6-34, W6-150, W6-154, W6-156.
#[test]
fn r19_any_lost_items_leave_no_number_with_another_meaning() {
    for seed in seeds(24) {
        let mut world = World::two_paths(seed);
        let mut traffic = Traffic::default();
        let mask = world.rng.below(256) as u32;
        let (count, is_on) = (Rc::new(Cell::new(0u32)), Rc::new(Cell::new(false)));
        let (seen, on) = (count.clone(), is_on.clone());
        world.tap = Some(Box::new(move |_, packet| {
            if !on.get() {
                return vec![packet.to_vec()];
            }
            let number = seen.get();
            seen.set(number + 1);
            let is_lost = number < 8 && mask >> number & 1 == 1;
            if is_lost { Vec::new() } else { vec![packet.to_vec()] }
        }));
        world.listen(1, "/first/1", ListenOptions::new());
        let label = world.ahead(1);
        let first = world.connect(0, 1, label, "/first/1");
        // After a handshake by PeerId the first table comes in items, too.
        let is_up = |world: &World| world.is_connected(0, first);
        assert!(world.run_until(SECOND, is_up), "seed {seed}");
        is_on.set(true);
        let mut sockets = vec![(first, "/first/1".to_owned())];
        for number in 0..4 {
            let name = format!("/grown-{number}/1");
            world.listen(1, &name, ListenOptions::new());
            let pause = world.rng.below(300) as u64 * MS;
            world.run(pause);
            sockets.push((world.connect(0, 1, label, &name), name));
            for (socket, name) in &mut sockets {
                // A connect fails if the peer's table is complete without the name, as it is while
                // the growth is lost.
                if world.endpoint(0).socket(*socket).is_none() {
                    *socket = world.connect(0, 1, label, name);
                }
                let _ = traffic.send(&mut world, (0, 1), *socket, name);
            }
            traffic.check(&world);
        }
        world.run(20 * SECOND);
        for (socket, name) in &mut sockets {
            if world.endpoint(0).socket(*socket).is_none() {
                *socket = world.connect(0, 1, label, name);
            }
            let last = traffic.send(&mut world, (0, 1), *socket, name);
            let last = last.unwrap_or_else(|why| panic!("seed {seed}: {name}: {why}"));
            world.run(SECOND);
            assert!(Traffic::has_arrived(&world, 1, &last), "seed {seed}: {name}");
        }
        let info = world.info(0, &crate::world::peer(2));
        assert_eq!(info.their_protocols.len(), 5, "seed {seed}: {:?}", info.their_protocols);
        assert!(info.are_their_protocols_complete, "seed {seed}");
        traffic.check(&world);
        world.assert_balanced();
    }
}
