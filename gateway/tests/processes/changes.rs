//! The path of a connection changes under load: no socket closes.

use std::{fs, path::PathBuf};

use strowger_testkit::{eventually, harness::netns, skip};

use crate::{
    line::{EAST, FIRST, LAST, Line, Links, MIDDLE, Program, User},
    load::{IN_FLIGHT_MAX, Load},
};

/// A preloaded library that moves the clock of a relay, as a suspended machine would.
struct Clock(tempfile::TempDir);

impl Clock {
    fn build() -> Option<Clock> {
        let folder = tempfile::tempdir().unwrap();
        let source = folder.path().join("clock.c");
        fs::write(&source, include_str!("../../../node/tests/relays/clock.c")).unwrap();
        let library = folder.path().join("clock.so");
        let line = format!("cc -shared -fPIC -O1 -o {} {}", library.display(), source.display());
        netns::run(&line).inspect_err(|why| skip(why)).ok()?;
        let clock = Clock(folder);
        clock.forward(0);
        Some(clock)
    }

    fn file(&self) -> PathBuf {
        self.0.path().join("boot")
    }

    fn forward(&self, seconds: u32) {
        let new = self.0.path().join("new");
        fs::write(&new, seconds.to_string()).unwrap();
        fs::rename(new, self.file()).unwrap();
    }

    fn before(&self) -> String {
        let library = self.0.path().join("clock.so");
        format!("env LD_PRELOAD={} CLOCK_OFF_BOOT={} ", library.display(), self.file().display())
    }
}

/// Asserts that every lost message was in flight at the change or sent before the path worked
/// again, and prints the number of lost messages.
fn assert_lost_only(load: &Load, what: &str, at: u64, through: u64) {
    let lost = load.lost(1, load.highest.saturating_sub(IN_FLIGHT_MAX));
    let here: Vec<&u64> = lost.iter().filter(|number| **number + IN_FLIGHT_MAX >= at).collect();
    eprintln!(
        "{what}: {} of {} messages lost, of {} sent from the change until messages arrived again",
        here.len(),
        load.sent,
        through - at
    );
    assert!(here.iter().all(|number| **number <= through), "{what}: {at} to {through}: {lost:?}");
}

/// Kills a relay, and starts it again after some messages.
fn restart(line: &mut Line, load: &mut Load, relay: usize, what: &str) {
    let at = load.sent;
    line.relays[relay].take().expect("it runs").kill();
    let away = load.sent + 300;
    load.until("messages are sent without the relay", |load| load.sent >= away);
    line.relays[relay] = Some(line.starter(relay)());
    let through = load.until_through(what, 300);
    assert_lost_only(load, what, at, through);
    load.assert_open();
}

/// A relay that starts again has the slots of its configuration. So after the restart behind the
/// change of a slot, the first label of the connection leads to the receiver again.
#[test]
fn relays_are_killed_and_started_again_under_load_and_no_connection_closes() {
    let Some(mut line) = Line::new(Links::default()) else { return };
    let (alice, bob) = (User::new(1), User::new(2));
    let (receiver, slot) = line.receive(&bob, &["/numbers/1", "--from", &alice.peer_id]);
    alice.knows("bob", &bob.peer_id, &[line.label_to(slot)]);
    let send = ["send", "bob", "/numbers/1", "--timeout", "60"];
    let sender = Program::start(&mut line.gateway(FIRST, &alice, &send));
    let mut load = Load::new(sender, receiver);
    load.until_through("the first messages", 500);
    load.receiver.expect_error("has connected");
    restart(&mut line, &mut load, MIDDLE, "after the restart of the middle relay");
    restart(&mut line, &mut load, FIRST, "after the restart of the first relay");
    restart(&mut line, &mut load, LAST, "after the restart of the last relay");

    let at = load.sent;
    line.relay(MIDDLE).command_json(&["slot", "renumber", &EAST.to_string(), "5"]);
    let middle = line.relay(MIDDLE);
    load.until("the former number ends", |_| !middle.events("alias_ended").is_empty());
    let through = load.until_through("after the end of the former number", 300);
    assert_lost_only(&load, "former number ended", at, through);
    load.assert_open();
    restart(&mut line, &mut load, MIDDLE, "after the restart with the former number");

    let Load { sender, receiver, .. } = load;
    let (sent, received) = (sender.end(), receiver.wait());
    assert!(sent.status.success() && received.status.success(), "{sent:?} {received:?}");
    for end in [FIRST, LAST] {
        eventually("no program has a slot", || line.program_slots(end).is_empty().then_some(()));
    }
    line.stop();
}

#[test]
fn slots_and_keys_of_the_path_change_under_load_and_no_connection_closes() {
    let Some(clock) = Clock::build() else { return };
    let links = Links { before: clock.before(), ..Links::default() };
    let Some(line) = Line::new(links) else { return };
    let (alice, bob) = (User::new(1), User::new(2));
    let (receiver, slot) = line.receive(&bob, &["/numbers/1", "--from", &alice.peer_id]);
    alice.knows("bob", &bob.peer_id, &[line.label_to(slot)]);
    let sender = Program::start(&mut line.gateway(
        FIRST,
        &alice,
        &["send", "bob", "/numbers/1", "--timeout", "60"],
    ));
    let mut load = Load::new(sender, receiver);
    load.until_through("the first messages", 500);
    load.receiver.expect_error("has connected");
    assert_eq!(load.lost(1, load.highest - IN_FLIGHT_MAX), [0; 0], "on a quiet path");

    // The slot of the middle relay to the last one.
    let at = load.sent;
    let middle = line.relay(MIDDLE);
    middle.command_json(&["slot", "renumber", &EAST.to_string(), "5"]);
    let through = load.until_through("after the new number", 300);
    assert_lost_only(&load, "slot renumbered", at, through);
    load.assert_open();
    let at = load.sent;
    load.until("the former number ends", |_| !middle.events("alias_ended").is_empty());
    let through = load.until_through("after the end of the former number", 300);
    assert_lost_only(&load, "former number ended", at, through);
    load.assert_open();

    // The keys of both links of the middle relay.
    let at = load.sent;
    let middle = line.relay(MIDDLE);
    let rekeyed = || middle.events("rekeyed").len();
    let before = rekeyed();
    clock.forward(150);
    load.until("both links have new keys", |_| rekeyed() >= before + 2);
    let through = load.until_through("with new keys", 300);
    assert_lost_only(&load, "links rekeyed", at, through);
    load.assert_open();

    let Load { sender, receiver, .. } = load;
    let (sent, received) = (sender.end(), receiver.wait());
    assert!(sent.status.success() && received.status.success(), "{sent:?} {received:?}");
    for end in [FIRST, LAST] {
        eventually("no program has a slot", || line.program_slots(end).is_empty().then_some(()));
    }
    line.stop();
}
