//! Links between today's relay and one of an earlier commit (wire.md 13). The environment variable
//! `STROWGER_OLD_RELAY` names the command of that commit; `.ci/run` builds it.

use std::{
    env, fs,
    process::{Command, Output},
    sync::Arc,
};

use serde_json::Value;
use strowger_testkit::{
    eventually,
    harness::{label, netns::*, relay::*},
    unsupported,
};
use strowger_wire::scheme::V3X5X8;

use crate::{STROWGER, clocks::Shim};

const VARIABLE: &str = "STROWGER_OLD_RELAY";
/// The clocks of the two relays: today's counts the time in which the machine is suspended.
const CLOCKS: [&str; 2] = ["boot", "mono"];
const RIGHTS: &str = "rights = [\"transit\", \"endpoints\", \"control\"]\n";

/// The command of the earlier commit. Returns `None` and skips the test if there is none.
fn old_command() -> Option<String> {
    let path = env::var(VARIABLE).ok();
    if path.is_none() {
        unsupported(&format!("{VARIABLE} names no relay of an earlier commit"));
    }
    path
}

/// A relay, its command, and the clocks of its process.
struct Node {
    command: String,
    clocks: Shim,
    home: Arc<Home>,
}

impl Node {
    fn new(command: &str) -> Option<Self> {
        Some(Self { command: command.to_owned(), clocks: Shim::build()?, home: Home::new() })
    }

    /// Starts the relay with a unix endpoint at slot 4 and these sections.
    fn start(&self, sections: &str) -> Relay {
        let config = format!(
            "[identity]\nkey = \"DIR/key\"\nnetwork = \"test\"\n\
             [liveness]\ninterval_ms = 500\nmultiplier = 3\nalways = true\n\
             [[udp]]\naddress = \"{}\"\n\
             [[unix]]\nname = \"local\"\npath = \"DIR/local\"\nslot = 4\n{sections}",
            self.home.at
        );
        Relay::start(&self.clocks.before(&self.command), self.home.clone(), &config)
    }

    /// The section of a peer at slot 2: this node, with its address or without.
    fn section(&self, has_address: bool, lines: &str) -> String {
        let key = &self.home.key;
        let address =
            if has_address { format!("address = \"{}\"\n", self.home.at) } else { String::new() };
        format!("[[peer]]\nname = \"peer\"\nslot = 2\nkey = \"{key}\"\n{address}{RIGHTS}{lines}")
    }

    /// Runs `ping` or `trace` with the relay's own command along this path, and returns the output.
    fn probe(&self, verb: &[&str], path: &[(u32, u32)]) -> Output {
        let label = label(&V3X5X8, path).to_string();
        let socket = self.home.file("control");
        let mut command = Command::new(&self.command);
        command.args(verb).args([&label, "--json", "--socket", socket.to_str().unwrap()]);
        command.output().expect("the command runs")
    }

    /// Asserts that a ping along the first path is answered, and a trace along the second one reaches
    /// its end.
    fn assert_probes(&self, to_switch: &[(u32, u32)], to_endpoint: &[(u32, u32)]) {
        let ping = self.probe(&["ping", "--count=3", "--interval=0"], to_switch);
        let text = String::from_utf8_lossy(&ping.stdout);
        assert!(ping.status.success() && text.matches("\"pong\":true").count() == 3, "{ping:?}");
        let trace = self.probe(&["trace"], to_endpoint);
        let hops: Value = serde_json::from_slice(&trace.stdout).unwrap();
        assert!(trace.status.success(), "{trace:?}");
        assert_eq!(hops["hops"].as_array().map(Vec::len), Some(to_endpoint.len()), "{hops}");
    }
}

/// A node of the present code and a node of the earlier commit.
fn nodes() -> Option<[Node; 2]> {
    let old = old_command()?;
    Some([Node::new(STROWGER)?, Node::new(&old)?])
}

fn handshakes(relay: &Relay) -> u64 {
    relay.ask(r#"{"show":"peers"}"#)["peers"][0]["handshakes"].as_u64().unwrap()
}

/// Asserts that packets, pings and traces pass in both directions between peers at slot 2.
fn assert_links(nodes: &[Node; 2], relays: [&Relay; 2]) {
    until_up(relays);
    assert_relays_exchange(relays[0], relays[1]);
    for node in nodes {
        node.assert_probes(&[(1, 2), (2, 1)], &[(1, 2), (2, 4)]);
    }
}

/// Asserts that each end renews the keys when they are due by its own clock, and that the link
/// never goes down.
fn assert_rekeys(nodes: &[Node; 2], [new, old]: [&Relay; 2]) {
    for (node, clock) in nodes.iter().zip(CLOCKS) {
        let before = handshakes(new);
        // By this clock the keys are then due for renewal, but can still seal.
        node.clocks.set(clock, 150);
        eventually("new keys are made", || (handshakes(new) > before).then_some(()));
        assert_relays_exchange(new, old);
    }
    assert!(new.events("link_down").is_empty(), "a rekey costs no link");
}

/// Starts two relays with each other's keys. Both ends have the other's address, or only one end
/// has it. `lines` are more lines of the peers' sections. Asserts that the relays link, and that
/// they renew the keys.
fn assert_known_peers_link(lines: &dyn Fn(&Node) -> String, seal: &str) {
    for addresses in [[true, true], [true, false], [false, true]] {
        let Some(nodes) = nodes() else { return };
        let sections = [
            nodes[1].section(addresses[0], &lines(&nodes[0])),
            nodes[0].section(addresses[1], &lines(&nodes[0])),
        ];
        let [new, old] = [nodes[0].start(&sections[0]), nodes[1].start(&sections[1])];
        assert_links(&nodes, [&new, &old]);
        assert_eq!(new.ask(r#"{"show":"links"}"#)["links"][0]["seal"], seal);
        assert_rekeys(&nodes, [&new, &old]);
        old.kill();
        new.stop();
    }
}

#[test]
fn known_peers_of_two_versions_link() {
    assert_known_peers_link(&|_| String::new(), "full");
}

#[test]
fn known_peers_of_two_versions_link_with_a_psk() {
    let psk = |node: &Node| {
        let file = node.home.file("psk");
        let file = file.to_str().unwrap();
        if !fs::exists(file).unwrap() {
            assert!(strowger(&["key", "psk", file]).status.success());
        }
        format!("psk = \"{file}\"\n")
    };
    assert_known_peers_link(&psk, "full");
}

#[test]
fn known_peers_of_two_versions_link_with_sealed_headers_alone() {
    assert_known_peers_link(&|_| "seal = \"header-only\"\n".to_owned(), "header-only");
}

/// The policy for unknown peers, whose section has another name in the earlier commit.
fn policy(section: &str) -> String {
    format!("[{section}]\nallow = true\ninterval_ms = 500\nmultiplier = 3\nalways = true\n{RIGHTS}")
}

#[test]
fn unknown_peers_of_two_versions_link() {
    for new_begins in [true, false] {
        let Some(nodes) = nodes() else { return };
        let guest_at = usize::from(!new_begins);
        let host_at = 1 - guest_at;
        let section = |at: usize| if at == 0 { "unknown_peers" } else { "strangers" };
        let host = nodes[host_at].start(&policy(section(host_at)));
        let address = nodes[host_at].home.at;
        let searches = format!("[[peer]]\nname = \"peer\"\nslot = 2\naddress = \"{address}\"\n");
        let guest = nodes[guest_at].start(&[searches, policy(section(guest_at))].concat());
        until_up([&guest, &host]);
        let slot = host.ask(r#"{"show":"peers"}"#)["peers"][0]["slot"].as_u64().unwrap();
        let slot = u32::try_from(slot).unwrap();
        let (mut at_guest, mut at_host) = (guest.client(), host.client());
        assert_passes_along(&[(4, 2), (slot, 4)], &mut at_guest, &mut at_host, b"to the host");
        assert_passes_along(&[(4, slot), (2, 4)], &mut at_host, &mut at_guest, b"to the guest");
        nodes[guest_at].assert_probes(&[(1, 2), (slot, 1)], &[(1, 2), (slot, 4)]);
        nodes[host_at].assert_probes(&[(1, slot), (2, 1)], &[(1, slot), (2, 4)]);
        // Only the end that knows an address renews the keys.
        let before = handshakes(&host);
        nodes[guest_at].clocks.set(CLOCKS[guest_at], 150);
        eventually("new keys are made", || (handshakes(&host) > before).then_some(()));
        assert_passes_along(&[(4, 2), (slot, 4)], &mut at_guest, &mut at_host, b"to the host");
        assert_passes_along(&[(4, slot), (2, 4)], &mut at_host, &mut at_guest, b"to the guest");
        drop((at_guest, at_host));
        let (new, old) = if new_begins { (guest, host) } else { (host, guest) };
        assert!(new.events("link_down").is_empty(), "a rekey costs no link");
        old.kill();
        new.stop();
    }
}

#[test]
fn relays_of_two_versions_find_each_other_by_beacons() {
    let Some(old_command) = old_command() else { return };
    let Some([near, far]) = pair() else { return };
    let with_beacons = |key: &str| {
        let config = by_ethernet(key, None, "af_packet", RIGHTS);
        config.replace("[[unix]]", "beacon = true\nbeacon_s = 1\n[[unix]]")
    };
    let (a, b) = (Home::new(), Home::new());
    let (key_a, key_b) = (a.key.clone(), b.key.clone());
    let new = Relay::within(&near, a, &with_beacons(&key_b));
    let command = format!("ip netns exec {} {old_command}", far.0);
    let old = Relay::start(&command, b, &with_beacons(&key_a));
    until_up([&new, &old]);
    assert_relays_exchange(&new, &old);
    let (pings, code) = probe(&new, &["ping", "--count=1"], &[(1, 2), (2, 1)]);
    assert_eq!((&pings[0]["pong"], code), (&true.into(), Some(0)));
    let (trace, code) = probe(&new, &["trace"], &[(1, 2), (2, 4)]);
    assert_eq!((trace[0]["hops"].as_array().map(Vec::len), code), (Some(2), Some(0)));
    old.kill();
    new.stop();
}
