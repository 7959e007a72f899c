//! A relay in a network namespace starts before the network is ready: its address, its interface
//! and the interface of a link-local peer appear later.

use std::{
    fs,
    io::{BufRead as _, BufReader, Read as _},
    process::{Command, Stdio},
};

use crate::STROWGER;
use strowger_testkit::{
    eventually,
    harness::{
        netns::{self, *},
        relay::*,
    },
    skip,
};

fn start(name: &str, dir: &str, sections: &str) -> KillOnDrop {
    let config = format!(
        "control.socket = \"{dir}/control\"\n[identity]\nkey = \"{dir}/key\"\nnetwork = \"t\"\n{sections}"
    );
    let file = format!("{dir}/relay.toml");
    fs::write(&file, config).unwrap();
    let mut relay = Command::new("ip");
    relay.args(["netns", "exec", name, STROWGER, "relay", "--config", &file]);
    KillOnDrop(relay.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap())
}

/// A namespace whose loopback is up. While it is down, the kernel has no table of local addresses
/// and allows a bind to any address.
fn namespace() -> Option<Namespace> {
    let make = || -> Result<Namespace, String> {
        let namespace = Namespace::new()?;
        netns::run(&format!("ip -n {} link set dev lo up", namespace.0))?;
        Ok(namespace)
    };
    make().inspect_err(|why| skip(why)).ok()
}

#[test]
fn an_address_and_an_interface_that_come_later_are_waited_for() {
    let Some(namespace) = namespace() else { return };
    let name = &namespace.0;
    let directory = Home::new();
    let key = directory.key.clone();
    let dir = directory.path().to_str().unwrap();
    let peer = format!("[[peer]]\nname = \"p\"\nkey = \"{key}\"\nlistener = \"udp\"\n")
        .replace(&key, &"07".repeat(32));
    let mut relay = start(
        name,
        dir,
        &format!(
            "[switch]\nwait_s = 600\n[[udp]]\naddress = \"198.51.100.1:7000\"\n\
             [[ethernet]]\ninterface = \"wan0\"\nbackend = \"af_packet\"\n{peer}\
             address = \"198.51.100.2:7000\"\n\
             [[udp]]\nname = \"six\"\naddress = \"[::1]:7000\"\n\
             [[peer]]\nname = \"q\"\nkey = \"{}\"\nlistener = \"six\"\naddress = \"[fe80::1%wan0]:7000\"\n",
            "08".repeat(32)
        ),
    );
    let mut lines = BufReader::new(relay.0.stderr.take().unwrap()).lines();
    let mut says = |what: &str| {
        let line = lines.next().expect("the relay logs another line").expect("text");
        assert!(line.contains(" waiting: ") && line.contains(what), "{what}: {line}");
    };
    says("address 198.51.100.1: not on this machine yet; the start waits 600 s for it");
    says("interface wan0: not on this machine yet");
    netns::run(&format!("ip link add wan0 netns {name} type veth peer name wan1 netns {name}"))
        .unwrap();
    for end in ["wan0", "wan1"] {
        netns::run(&format!("ip -n {name} link set dev {end} up")).unwrap();
    }
    says("interface wan0: is present");
    netns::run(&format!("ip -n {name} addr add 198.51.100.1/24 dev wan0")).unwrap();
    says("address 198.51.100.1: is present");
    let lines = BufReader::new(relay.0.stdout.take().unwrap()).lines().map_while(Result::ok);
    let lines: Vec<String> = lines.take_while(|line| line != "ready").collect();
    assert!(lines.iter().any(|line| line.contains("[fe80::1%wan0]:7000")), "{lines:#?}");
}

#[test]
fn a_start_that_waits_ends_by_a_signal_and_when_the_time_is_up() {
    let Some(namespace) = namespace() else { return };
    let directory = Home::new();
    let dir = directory.path().to_str().unwrap();
    let udp = "[[udp]]\naddress = \"198.51.100.1:7000\"\n";
    let mut relay = start(&namespace.0, dir, &format!("[switch]\nwait_s = 600\n{udp}"));
    let mut line = String::new();
    BufReader::new(relay.0.stderr.take().unwrap()).read_line(&mut line).unwrap();
    assert!(line.contains("waiting: address 198.51.100.1"), "{line}");
    netns::run(&format!("kill -TERM {}", relay.0.id())).unwrap();
    let status = eventually("the relay ends", || relay.0.try_wait().unwrap());
    assert!(status.success() && !directory.path().join("control").exists(), "{status}");

    for wait_s in [0, 1] {
        let mut relay = start(&namespace.0, dir, &format!("[switch]\nwait_s = {wait_s}\n{udp}"));
        let status = eventually("the relay ends", || relay.0.try_wait().unwrap());
        let mut stderr = String::new();
        relay.0.stderr.take().unwrap().read_to_string(&mut stderr).unwrap();
        assert_eq!(
            (status.code(), stderr.matches("waiting").count()),
            (Some(3), wait_s),
            "{stderr}"
        );
        assert!(stderr.lines().last().unwrap().contains("198.51.100.1"), "{stderr}");
    }
}
