//! Several programs on one `[[unix]]`, each with its own slot: they connect and disconnect, and one
//! is killed under load. No test sleeps for a verdict; every wait has a deadline.

use std::{
    fs,
    io::{BufRead as _, BufReader},
    process::{Command, Stdio},
    sync::Arc,
    time::Duration,
};

use serde_json::Value;
use strowger_io::unix::{Client, ClientError, ClientRefusal, TrainClient};
use strowger_wire::{
    link_header::LINK_HEADER_BYTES, scheme::V3X5X8, switch_header::HEADER_64_BYTES,
};

use strowger_testkit::{
    DEADLINE, eventually,
    harness::{label, packet, relay::*},
};

/// Sends packets to a slot of its switch as fast as it can, until it is killed.
const FLOOD: &str = r#"
import socket, sys
path, packet = sys.argv[1], bytes.fromhex(sys.argv[2])
client = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
client.connect(path)
while True:
    client.send(packet)
"#;

fn start(home: &Arc<Home>, clients: usize, quarantine_s: u32) -> Relay {
    home.start_with(&format!(
        "[[unix]]\nname = \"app\"\npath = \"DIR/app\"\nclients = {clients}\n\
         [switch]\nquarantine_s = {quarantine_s}\nworkers = 1\n"
    ))
}

/// Connects a program, and returns it with the slot that the greeting names.
fn connect(relay: &Relay) -> Result<(TrainClient, u32), ClientError> {
    let mut client = TrainClient::connect(relay.path("app"), DEADLINE)?;
    while client.greeting().is_none() {
        client.try_receive(&mut [0; 2048])?;
    }
    let slot = client.greeting().map(|greeting| greeting.slot).unwrap();
    Ok((client, slot))
}

/// Connects. Until the relay has detached a client that has left, it refuses the next one.
fn connected(relay: &Relay) -> (TrainClient, u32) {
    eventually("there is a place", || match connect(relay) {
        Err(ClientError::Refused(why)) if why.code == ClientRefusal::ALL_SERVED => None,
        connected => Some(connected.expect("the relay serves the client")),
    })
}

fn refused(relay: &Relay) -> ClientRefusal {
    match connect(relay) {
        Err(ClientError::Refused(why)) => why,
        other => panic!("{other:?}"),
    }
}

/// The state of a slot, and the number of frames received from it.
fn row(relay: &Relay, slot: u32) -> Option<(String, u64)> {
    let slots = relay.ask(r#"{"show":"slots"}"#);
    let row = slots["slots"].as_array().unwrap().iter().find(|row| row["slot"] == slot)?.clone();
    Some((row["state"].as_str().unwrap().to_owned(), row["frames_in"].as_u64().unwrap()))
}

/// Sends packets one at a time from a program to the endpoint at slot 4. Each must arrive.
fn send_each(client: &mut TrainClient, slot: u32, local: &mut Client, count: usize) {
    let sent = packet(&[(slot, 4)], b"from a client");
    let mut bytes = [0; 2048];
    for nth in 0..count {
        assert_eq!(client.send(&sent, sent.len(), DEADLINE).unwrap(), sent.len());
        let got = local.receive(&mut bytes, DEADLINE).unwrap();
        let got = got.unwrap_or_else(|| panic!("packet {nth} of {count}"));
        assert_eq!(got.ingress, slot);
        assert_eq!(&bytes[LINK_HEADER_BYTES + HEADER_64_BYTES..got.len], b"from a client");
    }
}

/// wire.md: W8-53.
#[test]
fn a_program_killed_under_load_frees_its_slot_and_the_other_loses_nothing() {
    const PACKETS: usize = 500;
    let home = Home::new();
    let relay = start(&home, 2, 600);
    let mut local = relay.client();
    let (mut first, slot) = connected(&relay);
    // The other program floods the switch itself with packets that are no requests.
    let flood: String = packet(&[(4, 250)], b"to an empty slot")
        .iter()
        .fold("00000000".to_owned(), |hex, byte| hex + &format!("{byte:02x}"));
    let mut other = KillOnDrop(
        Command::new("python3")
            .args(["-c", FLOOD, relay.path("app").to_str().unwrap(), &flood])
            .stdin(Stdio::null())
            .spawn()
            .expect("python3"),
    );
    let of_flood = eventually("the second program has a slot and sends", || {
        let slots = relay.ask(r#"{"show":"slots"}"#);
        let mut rows = slots["slots"].as_array().unwrap().iter();
        let row = rows.find(|row| {
            row["name"].as_str().unwrap().starts_with("app.")
                && row["slot"] != slot
                && row["frames_in"].as_u64() > Some(1_000)
        })?;
        row["slot"].as_u64()
    }) as u32;
    send_each(&mut first, slot, &mut local, PACKETS);
    let third = refused(&relay);
    assert_eq!((third.code, third.retry_after), (ClientRefusal::ALL_SERVED, Duration::ZERO));
    assert!(third.text.contains("app serves 2 clients"), "{third}");

    assert_eq!(row(&relay, of_flood).unwrap().0, "attached");
    other.0.kill().unwrap();
    send_each(&mut first, slot, &mut local, PACKETS);
    other.0.wait().unwrap();
    eventually("the number of the killed program is in quarantine", || {
        (row(&relay, of_flood)?.0 == "quarantined").then_some(())
    });
    eventually("all packets are counted", || {
        (row(&relay, slot)? == ("attached".to_owned(), 2 * PACKETS as u64)).then_some(())
    });

    // The place is free, and the next program gets another number.
    let (mut second, other_slot) = connected(&relay);
    assert!(![slot, of_flood].contains(&other_slot), "{other_slot}");
    send_each(&mut second, other_slot, &mut local, 10);
    send_each(&mut first, slot, &mut local, 10);
    let ports = relay.command(&["show", "ports"]);
    let ports = String::from_utf8(ports.stdout).unwrap();
    assert!(ports.contains("app.1") && ports.contains("app.2"), "{ports}");
    let attach = relay.command(&["slot", "attach", "u", "--listener", "app.1"]);
    let stderr = String::from_utf8(attach.stderr).unwrap();
    assert!(!attach.status.success() && stderr.contains("app.1 is for processes"), "{stderr}");
    drop((first, second, local));
    relay.stop();
}

/// wire.md: W8-53, W8-55.
#[test]
fn clients_that_come_and_go_leave_nothing_behind() {
    let home = Home::new();
    let relay = start(&home, 2, 0);
    let descriptors = || fs::read_dir(format!("/proc/{}/fd", relay.child.id())).unwrap().count();
    let slots = || -> Vec<Value> {
        let slots = relay.ask(r#"{"show":"slots"}"#);
        let rows = slots["slots"].as_array().unwrap().iter();
        rows.map(|row| row["slot"].clone()).collect()
    };
    let mut local = relay.client();
    let (before, before_slots) = (descriptors(), slots());
    let mut bytes = [0; 2048];
    for nth in 0..300 {
        let (mut client, slot) = connected(&relay);
        send_each(&mut client, slot, &mut local, 1);
        // Every third one leaves with packets that it has not read.
        if nth % 3 == 0 {
            assert!(local.send(&packet(&[(4, slot)], b"unread"), DEADLINE).unwrap());
        } else {
            let back = packet(&[(4, slot)], b"back");
            assert!(local.send(&back, DEADLINE).unwrap());
            assert!(client.receive(&mut bytes, DEADLINE).unwrap().is_some());
        }
    }
    eventually("the last slot is free", || (slots() == before_slots).then_some(()));
    // A connection of the control socket may have been counted before.
    eventually("all descriptors are closed", || (descriptors() <= before).then_some(()));
    relay.stop();
}

/// wire.md: W8-55.
#[test]
fn numbers_in_quarantine_bound_how_often_programs_may_connect() {
    let home = Home::new();
    let relay = start(&home, 1, 600);
    let mut seen = Vec::new();
    let why = loop {
        match connect(&relay) {
            Ok((_, slot)) => seen.push(slot),
            // The last client has not been detached yet.
            Err(ClientError::Refused(why)) if why.code == ClientRefusal::ALL_SERVED => {}
            Err(ClientError::Refused(why)) => break why,
            Err(other) => panic!("{other}"),
        }
    };
    assert_eq!(seen.len(), 4, "{seen:?}");
    let mut different = seen.clone();
    different.sort_unstable();
    different.dedup();
    assert_eq!(different.len(), 4, "no number was used twice: {seen:?}");
    assert_eq!(why.code, ClientRefusal::QUARANTINE);
    assert!((1..=600).contains(&why.retry_after.as_secs()) && why.text.contains("quarantine"));
    relay.stop();
}

/// The numbers of programs are in quarantine after a restart, and are not kept for the program that
/// connects first.
#[test]
fn a_restart_gives_the_number_of_a_program_to_no_other() {
    let home = Home::new();
    let section = "[[unix]]\nname = \"app\"\npath = \"DIR/app\"\nclients = 1\n\
                   [switch]\nstate = \"DIR/state\"\n";
    let relay = home.start_with(section);
    let (_client, slot) = connected(&relay);
    eventually("the slot is published", || (row(&relay, slot)?.0 == "attached").then_some(()));
    let home = relay.kill();
    let relay = home.start_with(section);
    let (_client, other) = connected(&relay);
    assert_ne!(slot, other);
    eventually("the number is kept", || (row(&relay, slot)?.0 == "kept").then_some(()));
    relay.stop();
}

/// The program of docs/unix-port.md, which needs only Python's standard library, sends a packet to
/// a second program, and prints why it is refused.
#[test]
fn the_program_of_the_guide_sends_and_receives_a_packet() {
    let page = include_str!("../../../docs/unix-port.md");
    let (_, program) = page.split_once("```python\n").expect("a program");
    let (program, _) = program.split_once("```").expect("its end");
    let home = Home::new();
    let relay = start(&home, 2, 600);
    fs::write(home.file("packet.py"), program).unwrap();
    let run = |arguments: &[&str]| {
        let mut child = Command::new("python3")
            .arg(home.file("packet.py"))
            .arg(relay.path("app"))
            .args(arguments)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("python3");
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        (KillOnDrop(child), lines.map(Result::unwrap))
    };
    let slot_in = |line: String| -> u32 {
        let words: Vec<&str> = line.split([' ', ',']).collect();
        assert_eq!(words[..2], ["on", "slot"], "{line}");
        words[2].parse().unwrap()
    };
    let (_receiver, mut received) = run(&[]);
    let to = slot_in(received.next().unwrap());
    // The numbers are given in order, and the relay has no other user of the next one.
    let from = (to + 1..).find(|&slot| slot != 4 && slot != 1).unwrap();
    let way = label(&V3X5X8, &[(from, to)]).to_string();
    let (_sender, mut sent) = run(&[&way, "hello"]);
    assert_eq!(slot_in(sent.next().unwrap()), from);
    assert_eq!(received.next().unwrap(), format!("packet in by slot {from}: b'hello'"));

    let (mut third, mut said) = run(&[]);
    assert_eq!(said.next(), None);
    let status = eventually("the third program ends", || third.0.try_wait().unwrap());
    let mut stderr = String::new();
    std::io::Read::read_to_string(&mut third.0.stderr.take().unwrap(), &mut stderr).unwrap();
    assert_eq!(status.code(), Some(1));
    assert!(stderr.starts_with("refused: app serves 2 clients already"), "{stderr}");
}
