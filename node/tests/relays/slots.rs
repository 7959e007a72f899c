//! Slots of a running relay are renumbered and drained, and their scheme grows, while packets pass.

use std::{fs, time::Duration};

use serde_json::{Value, json};
use strowger_io::unix::Client;
use strowger_wire::{
    Scheme,
    link_header::LINK_HEADER_BYTES,
    scheme::{Form, V3X5X8},
    switch_header::HEADER_64_BYTES,
};

use strowger_testkit::{
    DEADLINE, eventually,
    harness::{packet_in, relay::*},
};

/// Asserts that a packet passes between the endpoints at these two slot numbers.
fn assert_goes(scheme: &Scheme, way: (u32, u32), from: &mut Client, to: &mut Client) {
    let text = format!("from {} to {}", way.0, way.1);
    assert!(from.send(&packet_in(scheme, &[way], text.as_bytes()), DEADLINE).unwrap());
    let mut bytes = [0; 2048];
    let received = to.receive(&mut bytes, DEADLINE).unwrap().expect("a packet arrives");
    assert_eq!(&bytes[LINK_HEADER_BYTES + HEADER_64_BYTES..received.len], text.as_bytes());
    assert_eq!(received.ingress, way.0);
}

fn assert_refused(relay: &Relay, arguments: &[&str], word: &str) {
    let output = relay.command(arguments);
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(5), "{arguments:?}: {stderr}");
    assert!(stderr.lines().count() == 1 && stderr.contains(word), "{arguments:?}: {stderr}");
}

fn state_of(relay: &Relay, slot: u32) -> Value {
    let slots = relay.ask(r#"{"show":"slots"}"#);
    let row = slots["slots"].as_array().unwrap().iter().find(|row| row["slot"] == slot).cloned();
    row.map_or(Value::Null, |mut row| row["state"].take())
}

fn slot_of(relay: &Relay, name: &str) -> u64 {
    let slots = relay.ask(r#"{"show":"slots"}"#);
    let mut rows = slots["slots"].as_array().unwrap().iter();
    // Skip former numbers, which also have the name.
    let is_its = |row: &&Value| row["name"] == name && row["state"] != "retiring";
    rows.find(is_its).unwrap()["slot"].as_u64().unwrap()
}

fn second_endpoint(home: &Home, more: &str) -> String {
    let path = home.file("other");
    format!("[[unix]]\nname = \"other\"\npath = \"{}\"\n{more}", path.to_str().unwrap())
}

#[test]
fn a_slot_gets_another_number_and_is_found_by_its_former_one_for_a_while() {
    let home = Home::new();
    let relay = home.start_with(&second_endpoint(&home, "slot = 5\n[switch]\nalias_s = 1\n"));
    let (mut local, mut other) = (relay.client(), relay.client_of("other", 5));
    assert_goes(&V3X5X8, (4, 5), &mut local, &mut other);

    let done = relay.command_json(&["slot", "renumber", "5", "9"]);
    assert_eq!(
        done,
        json!({ "renumbered": { "slot": 5, "to": 9, "alias_s": 1, "narrow_bits": [4] } })
    );
    assert_goes(&V3X5X8, (4, 9), &mut local, &mut other);
    assert_goes(&V3X5X8, (9, 4), &mut other, &mut local);
    let moved = relay.events("slot_moved");
    assert_eq!((&moved[0]["slot"], &moved[0]["detail"]), (&json!(5), &json!("slot 9")));
    eventually("the former number ends", || relay.events("alias_ended").pop());
    // Repeat: the event may precede the worker's update.
    eventually("packets for it are counted", || {
        assert!(local.send(&packet_in(&V3X5X8, &[(4, 5)], b"late"), DEADLINE).unwrap());
        (relay.discards("slot_gone") > 0).then_some(())
    });
    while other.receive(&mut [0; 2048], Duration::ZERO).unwrap().is_some() {}

    // Without a number, the slot gets the lowest free one. This command prints text.
    let output = relay.command(&["slot", "renumber", "9"]);
    let stdout = String::from_utf8(output.stdout).unwrap();
    assert!(stdout.starts_with("slot 9 is slot 0 now"), "{stdout}");
    assert_goes(&V3X5X8, (4, 0), &mut local, &mut other);
    assert_goes(&V3X5X8, (4, 9), &mut local, &mut other); // while it is valid

    for (arguments, word) in [
        (["slot", "renumber", "77", "78"], "nothing is attached to slot 77"),
        (["slot", "renumber", "1", "78"], "slot 1 is the switch itself"),
        (["slot", "renumber", "4", "1"], "slot 1 is the switch itself"),
        (["slot", "renumber", "4", "0"], "slot 0 is taken"),
        (["slot", "renumber", "4", "4"], "slot 4 is taken"),
        (
            ["slot", "renumber", "4", "257"],
            "slot 257 is above the highest number of this switch, slot_max = 256",
        ),
        (["slot", "renumber", "4", "5"], "short while ago"),
        (["slot", "renumber", "4", "5"], "it is free in "),
        (["slot", "renumber", "4", "9"], "is the former number"),
        (["slot", "drain", "77", "--for=1"], "nothing is attached to slot 77"),
        (["slot", "drain", "1", "--for=1"], "slot 1 is the switch itself"),
        (["slot", "drain", "4", "--for=86401"], "0 to 86400"),
    ] {
        assert_refused(&relay, &arguments, word);
    }
    for (arguments, word) in [
        (["slot", "renumber", "bob", "4"], "need a slot number (strowger show slots)"),
        (["slot", "renumber", "4", "bob"], "need a slot number (strowger show slots)"),
        (["slot", "attach", "bob", "--slot=x"], "need a slot number (strowger show slots)"),
        (["slot", "drain", "bob", "--for=1"], "need a slot number (strowger show slots)"),
        (["slot", "drain", "77", "--for=x"], "need a whole number of seconds"),
    ] {
        let output = relay.command(&arguments);
        let error = String::from_utf8(output.stderr).unwrap();
        assert!(error.contains(word) && output.status.code() == Some(2), "{arguments:?}: {error}");
    }
    relay.stop();
}

/// If the new number does not fit into four bits, the return paths of some labels are lost when the
/// former number expires. The command warns of that. A number in quarantine is refused, and the
/// error contains the time until it is free.
#[test]
fn a_number_with_more_bits_is_reported_and_one_in_quarantine_is_refused_with_the_time() {
    let home = Home::new();
    let state = format!("[switch]\nstate = \"{}\"\n", home.file("state").to_str().unwrap());
    let sections = second_endpoint(&home, &state);
    let relay = home.start_with(&sections);
    let from = slot_of(&relay, "other").to_string();
    let output = relay.command(&["slot", "renumber", &from, "7"]);
    let stdout = String::from_utf8(output.stdout).unwrap();
    assert!(!stdout.contains("warning"), "{stdout}");
    let output = relay.command(&["slot", "renumber", "7", "9"]);
    let stdout = String::from_utf8(output.stdout).unwrap();
    assert!(stdout.contains("\nwarning: slot 9 does not fit 4 bits"), "{stdout}");
    drop(relay); // killed

    fs::remove_file(home.file("local")).unwrap();
    fs::remove_file(home.file("other")).unwrap();
    let relay = home.start_with(&sections);
    assert_eq!(slot_of(&relay, "other"), 9);
    assert_eq!((state_of(&relay, 7), state_of(&relay, 9)), (json!("retiring"), json!("attached")));
    let (mut local, mut other) = (relay.client(), relay.client_of("other", 9));
    assert_goes(&V3X5X8, (4, 7), &mut local, &mut other); // as before the restart
    relay.command_json(&["slot", "renumber", "9", "10"]);
    relay.command_json(&["slot", "detach", "10"]);
    drop((local, other, relay));

    // All three numbers are in quarantine. Each error contains the time until the number is free.
    fs::remove_file(home.file("local")).unwrap();
    fs::remove_file(home.file("other")).unwrap();
    let relay = home.start_with(&state);
    for kept in ["7", "9", "10"] {
        assert_refused(&relay, &["slot", "renumber", "4", kept], "it is free in ");
    }
    relay.stop();
}

#[test]
fn a_drained_slot_forwards_until_its_time_is_over() {
    let home = Home::new();
    let relay = home.start_with(&second_endpoint(&home, "slot = 5\n"));
    let (mut local, mut other) = (relay.client(), relay.client_of("other", 5));
    let draining = relay.command_json(&["slot", "drain", "5", "--for", "3600"]);
    assert_eq!(draining, json!({ "draining": { "slot": 5, "for_s": 3600 } }));
    assert_eq!(state_of(&relay, 5), "draining");
    assert_goes(&V3X5X8, (4, 5), &mut local, &mut other);
    // Wait, because a separate thread writes the journal.
    eventually("the event is in the journal", || relay.events("slot_draining").pop());
    assert_eq!(relay.events("slot_draining").len(), 1);
    // After a renumbering, the slot continues to drain.
    relay.command_json(&["slot", "renumber", "5", "6"]);
    assert_eq!(state_of(&relay, 6), "draining");
    let stdout = relay.command(&["slot", "drain", "6", "--for", "0"]).stdout;
    assert_eq!(String::from_utf8(stdout).unwrap(), "slot 6 drains and is detached in 0 s\n");
    eventually("the slot is detached", || relay.events("slot_detached").pop());
    assert_eq!(state_of(&relay, 4), "attached");
    relay.stop();
}

#[test]
fn r11_new_numbers_survive_a_kill_and_drained_slots_are_free() {
    let home = Home::new();
    let state = format!("[switch]\nstate = \"{}\"\n", home.file("state").to_str().unwrap());
    let peer = "[[peer]]\nname = \"far\"\nkey = \"KEY\"\n".replace("KEY", &Home::new().key);
    let sections = [second_endpoint(&home, ""), peer.clone(), state.clone()].concat();
    let relay = home.start_with(&sections);
    let [far, other] = ["far", "other"].map(|name| slot_of(&relay, name).to_string());
    relay.command_json(&["slot", "renumber", &other, "9"]);
    relay.command_json(&["slot", "renumber", &far, "10"]);
    relay.command_json(&["slot", "drain", "10", "--for", "0"]);
    eventually("the slot is detached", || relay.events("slot_detached").pop());
    drop(relay); // killed

    fs::remove_file(home.file("local")).unwrap();
    fs::remove_file(home.file("other")).unwrap();
    let relay = home.start_with(&sections);
    assert_eq!((slot_of(&relay, "local"), slot_of(&relay, "other")), (4, 9), "{:?}", relay.printed);
    let before = [far.parse().unwrap(), 10];
    assert!(
        !before.contains(&slot_of(&relay, "far")),
        "labels with those numbers may be in flight"
    );
    assert_eq!(state_of(&relay, 10), "kept", "kept without a user");
    relay.stop();
}

#[test]
fn a_scheme_grows_while_packets_go_on() {
    let forms = [(3, 1, 0b1), (5, 2, 0b10), (8, 3, 0b000)];
    let [narrow, between, wide] = forms.map(|(data, bits, prefix)| Form::new(data, bits, prefix));
    let small = Scheme::new(&[narrow, wide]).unwrap();
    let grown = Scheme::new(&[narrow, between, wide]).unwrap();
    let [small_text, grown_text] = [small, grown].map(|scheme| {
        let bytes = scheme.serialize();
        bytes.as_bytes().iter().map(|byte| format!("{byte:02x}")).collect::<String>()
    });
    let home = Home::new();
    let switch = format!("slot = 20\n[switch]\nscheme = \"{small_text}\"\nslot_max = 255\n");
    let relay = home.start_with(&second_endpoint(&home, &switch));
    let (mut local, mut other) = (relay.client_of("local", 4), relay.client_of("other", 20));
    assert_goes(&small, (4, 20), &mut local, &mut other);
    // The label uses a form that the scheme does not have yet.
    assert!(local.send(&packet_in(&grown, &[(4, 20)], b"too early"), DEADLINE).unwrap());
    eventually("the discard is counted", || (relay.discards("no_director") == 1).then_some(()));

    assert_refused(&relay, &["scheme", "grow", "v3x5x8"], "would not any more");
    assert_refused(&relay, &["scheme", "grow", &grown_text, "--slot-max", "99"], "up to 255");
    assert_refused(&relay, &["scheme", "grow", &grown_text, "--slot-max", "300"], "2 to 255");
    let done = relay.command_json(&["scheme", "grow", &grown_text]);
    assert_eq!(done, json!({ "grown": { "scheme": grown_text, "slot_max": 255 } }));
    assert_goes(&grown, (4, 20), &mut local, &mut other);
    assert_goes(&small, (20, 4), &mut other, &mut local);
    assert_eq!(relay.ask(r#"{"show":"status"}"#)["scheme"], grown_text.as_str());
    assert_eq!(relay.events("scheme_grown").len(), 1);
    let stdout = relay.command(&["scheme", "grow", &grown_text]).stdout;
    assert!(String::from_utf8(stdout).unwrap().contains("write both into the configuration"));
    let bad = relay.command(&["scheme", "grow", "v9"]);
    assert!(String::from_utf8(bad.stderr).unwrap().contains("f4, f8, v3x5x8, v4x8"));
    relay.stop();
}
