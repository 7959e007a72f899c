//! Path MTU discovery between two relays in two network namespaces, also if the path's MTU is below
//! that of one end's interface. The relays find, show and respect the path MTU.

use serde_json::Value;

use crate::STROWGER;
use strowger_testkit::{
    DEADLINE, eventually,
    harness::{
        netns::{self, *},
        packet,
        relay::*,
    },
};

/// The number of bytes of a frame in addition to the payload: link header, switch header, tag.
const AROUND: usize = 8 + 16 + 16;

/// A configuration with an endpoint at slot 4 and a peer over UDP at slot 2.
fn by_udp(key: &str, own: u8, peer: u8) -> String {
    format!(
        "[identity]\nkey = \"DIR/key\"\nnetwork = \"test\"\n\
         [[udp]]\naddress = \"10.77.0.{own}:7000\"\n\
         [[unix]]\nname = \"local\"\npath = \"DIR/local\"\nslot = 4\n\
         [[peer]]\nname = \"peer\"\nkey = \"{key}\"\nslot = 2\naddress = \"10.77.0.{peer}:7000\"\n"
    )
}

fn link(relay: &Relay) -> Value {
    relay.ask(r#"{"show":"links"}"#)["links"][0].take()
}

fn too_big(relay: &Relay) -> u64 {
    relay.ask(r#"{"show":"discards"}"#)["discards"]["too_big"].as_u64().unwrap_or_default()
}

/// Asserts that each relay finds its path MTU, shows it, and drops longer frames. `found` has the
/// expected values in bytes.
fn assert_found(relays: &[Relay; 2], found: [usize; 2]) {
    until_up([&relays[0], &relays[1]]);
    for (relay, bytes) in relays.iter().zip(found) {
        // A search takes a large part of the deadline, so the first part has its own deadline.
        eventually("the search finds a first bound", || {
            let link = link(relay);
            (link["mtu"] != 1452 || link["mtu_found"] == true).then_some(())
        });
        eventually("the search finds the path MTU", || {
            let link = link(relay);
            (link["mtu"] == bytes && link["mtu_found"] == true).then_some(())
        });
        assert_eq!(link(relay)["mtu_agreed"], 9216);
        let socket = relay.path("control");
        let shown =
            netns::run(&format!("{STROWGER} show links --socket {}", socket.display())).unwrap();
        assert!(shown.contains(&format!(" {bytes} ")), "{shown}");
        // Wait, because a separate thread writes the journal.
        eventually("the journal has the result", || relay.events("path_mtu").pop());
    }
    let [a, b] = relays;
    let (mut at_a, mut at_b) = (a.client(), b.client());
    let way = [(4, 2), (2, 4)];
    for _ in 0..20 {
        assert_passes_along(&way, &mut at_a, &mut at_b, &vec![1; found[0] - AROUND]);
        assert_passes_along(&way, &mut at_b, &mut at_a, &vec![2; found[1] - AROUND]);
    }
    assert!(at_a.send(&packet(&way, &vec![3; found[0] - AROUND + 1]), DEADLINE).unwrap());
    eventually("a frame with one byte more is dropped", || (too_big(a) == 1).then_some(()));
    assert_eq!(too_big(b), 0);
}

/// The reasons of the UDP port's drops, except for handled frames and probes of the path MTU.
/// Asserts that `show discards` has the same reasons. Waits until the counters balance.
fn failures(relay: &Relay) -> Vec<String> {
    let answer = eventually("no frame is in flight", || {
        let answer = relay.ask(r#"{"show":"discards"}"#);
        (answer["balance"]["balanced"] == true).then_some(answer)
    });
    let udp = answer["ports"].as_array().unwrap().iter().find(|port| port["name"] == "udp");
    let reasons = udp.unwrap()["discards"].as_object().unwrap().keys().cloned();
    let failures: Vec<String> =
        reasons.filter(|reason| !matches!(&**reason, "handled" | "path_probe")).collect();
    let socket = relay.path("control");
    let shown =
        netns::run(&format!("{STROWGER} show discards --socket {}", socket.display())).unwrap();
    let rows = shown.lines().filter(|line| line.starts_with("udp "));
    let shown: Vec<&str> = rows.filter_map(|row| row.split_whitespace().nth(1)).collect();
    assert_eq!(shown, failures, "{answer}");
    failures
}

#[test]
fn a_path_that_takes_less_than_the_interface_is_found_out() {
    let Some([near, far]) = pair() else { return };
    // The far end's interface silently drops received frames that exceed its MTU by more than the 4
    // bytes of a VLAN tag. When the far end sends, its own kernel refuses frames above the MTU.
    for (Namespace(name), mtu, at) in [(&near, 9_000, 1), (&far, 1_400, 2)] {
        netns::run(&format!("ip -n {name} link set dev e0 mtu {mtu}")).unwrap();
        netns::run(&format!("ip -n {name} addr add 10.77.0.{at}/24 dev e0")).unwrap();
    }
    let (a, b) = (Home::new(), Home::new());
    let (key_a, key_b) = (a.key.clone(), b.key.clone());
    let relays = [
        Relay::within(&near, a, &by_udp(&key_b, 1, 2)),
        Relay::within(&far, b, &by_udp(&key_a, 2, 1)),
    ];
    assert_found(&relays, [1_404 - 20 - 8, 1_400 - 20 - 8]);
    let [a, b] = relays;
    // The far end's kernel refused its longest probes. They count as `path_probe` and not as a
    // failure.
    let answer = b.ask(r#"{"show":"discards"}"#);
    assert!(answer["discards"]["path_probe"].as_u64() > Some(0), "{answer}");
    for relay in [&a, &b] {
        assert!(failures(relay).is_empty(), "{answer}");
    }
    a.stop();
    b.stop();
}

#[test]
fn an_ethernet_port_takes_the_mtu_of_its_interface() {
    let Some([near, far]) = pair() else { return };
    for backend in ["af_packet", "af_xdp"] {
        let (a, b) = (Home::new(), Home::new());
        let (key_a, key_b) = (a.key.clone(), b.key.clone());
        let relays = [
            Relay::within(&near, a, &by_ethernet(&key_b, Some(MACS[1]), backend, "")),
            Relay::within(&far, b, &by_ethernet(&key_a, Some(MACS[0]), backend, "")),
        ];
        // The length field before each packet takes 2 bytes of the MTU.
        assert_found(&relays, [1_500 - 2; 2]);
        let [a, b] = relays;
        a.stop();
        b.stop();
    }
}
