//! Programs that are killed under load.

use strowger_testkit::eventually;

use crate::{
    line::{FIRST, LAST, Line, Links, Program, User, discards},
    load::{IN_FLIGHT_MAX, Load},
};

/// Connects a sender at the first relay with a receiver at the last one.
fn load(line: &Line, sender: &User, receiver: &User, protocol: &str) -> (Load, [u32; 2]) {
    let before = line.program_slots(FIRST);
    let (accepting, slot) = line.receive(receiver, &[protocol, "--from", &sender.peer_id]);
    // Replace the entry of the receiver, whose slot may have changed.
    sender.knows_only("receiver", &receiver.peer_id, &[line.label_to(slot)]);
    let send = ["send", "receiver", protocol, "--timeout", "60"];
    let sending = Program::start(&mut line.gateway(FIRST, sender, &send));
    let mut load = Load::new(sending, accepting);
    load.until_through("the first messages", 300);
    load.receiver.expect_error("has connected");
    let own = eventually("the sender has a slot", || {
        line.program_slots(FIRST).into_iter().find(|slot| !before.contains(slot))
    });
    (load, [own.0, slot])
}

/// Whether no program has this slot.
fn is_free(line: &Line, relay: usize, slot: u32) -> bool {
    line.program_slots(relay).iter().all(|(number, _)| *number != slot)
}

#[test]
fn a_program_killed_under_load_frees_its_slot_and_harms_no_other() {
    let Some(line) = Line::new(Links::default()) else { return };
    let users: Vec<User> = (1..=4).map(User::new).collect();
    let (mut kept, _) = load(&line, &users[0], &users[1], "/kept/1");
    for round in 1..=2 {
        let (mut killed, [of_sender, of_receiver]) =
            load(&line, &users[2], &users[3], &format!("/killed/{round}"));
        // Kill the sender first, then the receiver.
        for (relay, slot) in [(FIRST, of_sender), (LAST, of_receiver)] {
            for _ in 0..200 {
                killed.step();
                kept.step();
            }
            let program = if relay == FIRST { &mut killed.sender } else { &mut killed.receiver };
            program.child.kill().unwrap(); // SIGKILL
            kept.until("its slot is free", |_| is_free(&line, relay, slot));
            kept.until_through("the other goes on", 200);
            if relay == FIRST {
                program.child.wait().unwrap();
                let sender = &users[2];
                // A program with the same key connects to the receiver.
                let send = ["send", "receiver", &format!("/killed/{round}")];
                killed.sender = Program::start(&mut line.gateway(FIRST, sender, &send));
            }
        }
        kept.assert_open();
        // Stop both programs, and wait until their slots are free.
        drop(killed);
        for relay in [FIRST, LAST] {
            kept.until("the other programs have no slot", |_| line.program_slots(relay).len() == 1);
        }
    }
    let lost = kept.lost(1, kept.highest - IN_FLIGHT_MAX);
    eprintln!("{} of {} messages of the other programs lost", lost.len(), kept.sent);
    assert_eq!(lost, [0; 0]);
    for relay in [FIRST, LAST] {
        let why = discards(line.relay(relay));
        assert_eq!(why["pool_empty"].as_u64().unwrap_or(0), 0, "{why}");
    }
    let Load { sender, receiver, .. } = kept;
    let (sent, received) = (sender.end(), receiver.wait());
    assert!(sent.status.success() && received.status.success(), "{sent:?} {received:?}");
    for relay in [FIRST, LAST] {
        eventually("no program has a slot", || line.program_slots(relay).is_empty().then_some(()));
    }
    line.stop();
}
