//! Relays in two network namespaces, joined by a veth pair, that find each other by beacons,
//! without configured addresses.

use serde_json::Value;

use strowger_testkit::{
    eventually,
    harness::{
        netns::{self, *},
        relay::*,
    },
};

const GROUP: &str = "03:73:74:72:6f:77";

/// The configuration of [`by_ethernet`], with beacons.
fn with_beacons(key: &str, backend: &str) -> String {
    let config = by_ethernet(key, None, backend, "");
    config.replace("[[unix]]", "beacon = true\nbeacon_s = 1\n[[unix]]")
}

fn events(relay: &Relay, name: &str) -> Vec<Value> {
    let mut events = relay.ask(r#"{"show":"events"}"#);
    let mut events: Vec<Value> = serde_json::from_value(events["events"].take()).unwrap();
    events.retain(|event| event["event"] == name);
    events
}

/// wire.md: W10-6, W10-28.
#[test]
fn relays_that_know_but_each_other_s_keys_find_each_other() {
    let Some([near, far]) = pair() else { return };
    for backends in [["af_xdp", "af_xdp"], ["af_packet", "af_packet"], ["af_xdp", "af_packet"]] {
        let (a, b) = (Home::new(), Home::new());
        let (key_a, key_b) = (a.key.clone(), b.key.clone());
        let first = Relay::within(&near, a, &with_beacons(&key_b, backends[0]));
        let second = Relay::within(&far, b, &with_beacons(&key_a, backends[1]));
        assert!(first.printed.contains("a beacon every 1 s"), "{}", first.printed);
        let groups = netns::run(&format!("ip -n {} maddr show dev e0", near.0)).unwrap();
        assert!(groups.contains(GROUP), "{groups}");
        until_up([&first, &second]);
        for (relay, mac) in [(&first, MACS[1]), (&second, MACS[0])] {
            eventually("each relay has the other's address", || {
                let peers = relay.ask(r#"{"show":"peers"}"#);
                (peers["peers"][0]["address"] == mac).then_some(())
            });
        }
        assert_relays_exchange(&first, &second);
        // At least one of the two relays has reported its peer, with the address.
        let suggestions =
            [events(&first, "peer_suggested"), events(&second, "peer_suggested")].concat();
        let detail = suggestions[0]["detail"].as_str().unwrap();
        assert!(detail.contains(" at 02:00:00:00:00:0"), "{detail}");
        let ports = first.ask(r#"{"show":"status"}"#)["ports"].take();
        assert_eq!(ports[0]["beacon_s"], 1, "{ports}");
        first.stop();
        second.stop();
    }
}

#[test]
fn unknown_peers_find_each_other_where_both_accept_them() {
    let Some([near, far]) = pair() else { return };
    let open = "[identity]\nkey = \"DIR/key\"\nnetwork = \"test\"\n[unknown_peers]\nallow = true\n\
                [[ethernet]]\nname = \"lan\"\ninterface = \"e0\"\nbeacon = true\nbeacon_s = 1\n";
    for backend in ["af_xdp", "af_packet"] {
        let (a, b) = (Home::new(), Home::new());
        let (key_a, key_b) = (a.key.clone(), b.key.clone());
        let config = format!("{open}backend = \"{backend}\"\n");
        let first = Relay::within(&near, a, &config);
        let second = Relay::within(&far, b, &config);
        until_up([&first, &second]);
        for (relay, key) in [(&first, &key_b), (&second, &key_a)] {
            let peers = relay.ask(r#"{"show":"peers"}"#)["peers"].take();
            assert_eq!(peers.as_array().unwrap().len(), 1, "{peers}");
            assert_eq!((&peers[0]["key"], &peers[0]["unknown"]), (&(**key).into(), &true.into()));
        }
        first.stop();
        second.stop();
    }
}

#[test]
fn a_relay_without_beacons_enabled_reads_none() {
    let Some([near, far]) = pair() else { return };
    let (a, b) = (Home::new(), Home::new());
    let (key_a, key_b) = (a.key.clone(), b.key.clone());
    let first = Relay::within(&near, a, &with_beacons(&key_b, "af_xdp"));
    // Beacons are not enabled on the second relay.
    let second = Relay::within(&far, b, &by_ethernet(&key_a, None, "af_xdp", ""));
    eventually("three beacons were received and dropped", || {
        let discards = second.ask(r#"{"show":"discards"}"#);
        (discards["discards"]["unknown_sender"].as_u64() >= Some(3)).then_some(())
    });
    assert!(!first.is_up() && !second.is_up());
    assert!(events(&second, "peer_suggested").is_empty());
    first.stop();
    second.stop();
}
