//! Relays in network namespaces while the network changes: the machine's own addresses, or a
//! router.

use serde_json::Value;

use crate::{STROWGER, clocks::Shim};
use strowger_testkit::{
    eventually,
    harness::{
        netns::{self, *},
        relay::*,
    },
    skip,
};

/// A configuration with an endpoint at slot 4 and a peer at slot 2. `liveness` is the text of a
/// section `[liveness]`.
fn config(at: &str, key: &str, peer: Option<&str>, liveness: &str) -> String {
    let address = peer.map(|peer| format!("address = \"{peer}\"\n")).unwrap_or_default();
    format!(
        "[identity]\nkey = \"DIR/key\"\nnetwork = \"test\"\n{liveness}\
         [[udp]]\nname = \"wan\"\naddress = \"{at}\"\n\
         [[unix]]\nname = \"local\"\npath = \"DIR/local\"\nslot = 4\n\
         [[peer]]\nname = \"peer\"\nkey = \"{key}\"\nslot = 2\n{address}"
    )
}

const ALWAYS: &str = "[liveness]\ninterval_ms = 500\nmultiplier = 3\nalways = true\n";
const SELDOM: &str = "[liveness]\ninterval_ms = 600000\nmultiplier = 3\n";

fn events(relay: &Relay, name: &str) -> Vec<Value> {
    let mut events = relay.ask(r#"{"show":"events"}"#);
    let mut events: Vec<Value> = serde_json::from_value(events["events"].take()).unwrap();
    events.retain(|event| event["event"] == name);
    events
}

fn address_of_peer(relay: &Relay) -> String {
    let peers = relay.ask(r#"{"show":"peers"}"#);
    peers["peers"][0]["address"].as_str().unwrap_or_default().to_owned()
}

fn ip(Namespace(name): &Namespace, words_: &str) {
    netns::run(&format!("ip -n {name} {words_}")).unwrap();
}

/// Starts relay A, which listens on `listens`, and relay B, which listens on 198.51.100.2. Waits
/// until their link is up.
fn two(spaces: &[Namespace; 2], listens: &str, liveness: &str) -> [Relay; 2] {
    ip(&spaces[0], "addr add 198.51.100.1/24 dev e0");
    ip(&spaces[1], "addr add 198.51.100.2/24 dev e0");
    let (dir_a, dir_b) = (Home::new(), Home::new());
    let (key_a, key_b) = (dir_a.key.clone(), dir_b.key.clone());
    let to_b = Some("198.51.100.2:7000");
    let b = Relay::within(&spaces[1], dir_b, &config("198.51.100.2:7000", &key_a, None, liveness));
    let a = Relay::within(&spaces[0], dir_a, &config(listens, &key_b, to_b, liveness));
    until_up([&a, &b]);
    assert_relays_exchange(&a, &b);
    [a, b]
}

#[test]
fn a_wildcard_listener_follows_the_machine_s_address_even_if_idle() {
    for liveness in [ALWAYS, SELDOM] {
        let Some(spaces) = pair() else { return };
        let [a, b] = two(&spaces, "0.0.0.0:7000", liveness);
        ip(&spaces[0], "addr del 198.51.100.1/24 dev e0");
        ip(&spaces[0], "addr add 198.51.100.7/24 dev e0");
        eventually("B has A's new address", || {
            (address_of_peer(&b) == "198.51.100.7:7000").then_some(())
        });
        assert_relays_exchange(&b, &a);
        a.stop();
        b.stop();
    }
}

#[test]
fn a_listener_without_its_address_reports_it_and_works_again_when_it_is_back() {
    let Some(spaces) = pair() else { return };
    let [a, b] = two(&spaces, "198.51.100.1:7000", ALWAYS);
    ip(&spaces[0], "addr del 198.51.100.1/24 dev e0");
    ip(&spaces[0], "addr add 198.51.100.7/24 dev e0");
    let event =
        eventually("the relay reports the lost address", || events(&a, "port_trouble").pop());
    let text = event["detail"].as_str().unwrap();
    assert!(text.contains("wan") && text.contains("198.51.100.1"), "{text}");
    eventually("the link is down", || (!a.is_up() && !b.is_up()).then_some(()));
    ip(&spaces[0], "addr del 198.51.100.7/24 dev e0");
    ip(&spaces[0], "addr add 198.51.100.1/24 dev e0");
    eventually("the relay reports the restored address", || events(&a, "port_back").pop());
    until_up([&a, &b]);
    assert_relays_exchange(&a, &b);
    assert_eq!(events(&a, "port_trouble").len(), 1);
    a.stop();
    b.stop();
}

/// Makes `router` translate source addresses (NAT) from A's network to the public address `public`.
fn translate(router: &Namespace, public: &str) {
    let file = tempfile::NamedTempFile::new().unwrap();
    let rules = format!(
        "flush ruleset\ntable ip n {{ chain p {{ type nat hook postrouting priority 100; \
         oifname \"wan\" snat to {public}; }}; }}\n"
    );
    std::fs::write(file.path(), rules).unwrap();
    netns::run(&format!("ip netns exec {} nft -f {}", router.0, file.path().display())).unwrap();
}

#[test]
fn a_link_behind_a_router_with_stale_state_comes_back_by_another_local_port() {
    let spaces = || -> Result<[Namespace; 3], String> {
        netns::run("nft --version")?;
        Ok([Namespace::new()?, Namespace::new()?, Namespace::new()?])
    };
    let [near, router, far] = match spaces() {
        Ok(spaces) => spaces,
        Err(why) => return skip(&why),
    };
    let link = |[a, at_a]: [&str; 2], [b, at_b]: [&str; 2]| {
        netns::run(&format!("ip link add {at_a} netns {a} type veth peer name {at_b} netns {b}"))
            .unwrap();
        netns::run(&format!("ip -n {a} link set {at_a} up")).unwrap();
        netns::run(&format!("ip -n {b} link set {at_b} up")).unwrap();
    };
    link([&near.0, "e0"], [&router.0, "lan"]);
    link([&router.0, "wan"], [&far.0, "e0"]);
    ip(&near, "addr add 192.168.7.2/24 dev e0");
    ip(&router, "addr add 192.168.7.1/24 dev lan");
    ip(&router, "addr add 198.51.100.1/24 dev wan");
    ip(&far, "addr add 198.51.100.9/24 dev e0");
    ip(&near, "route add default via 192.168.7.1");
    netns::run(&format!("ip netns exec {} sysctl -qw net.ipv4.ip_forward=1", router.0)).unwrap();
    translate(&router, "198.51.100.1");

    let Some(shim) = Shim::build() else { return };
    let (dir_a, dir_b) = (Home::new(), Home::new());
    let (key_a, key_b) = (dir_a.key.clone(), dir_b.key.clone());
    let to_b = Some("198.51.100.9:7000");
    let b = Relay::within(&far, dir_b, &config("198.51.100.9:7000", &key_a, None, ALWAYS));
    let with_shim = format!("ip netns exec {} {}", near.0, shim.before(STROWGER));
    let a = Relay::start(&with_shim, dir_a, &config("0.0.0.0:7000", &key_b, to_b, ALWAYS));
    until_up([&a, &b]);
    assert_relays_exchange(&a, &b);

    // The provider assigns another address to the router. As long as the relay sends, the router
    // keeps the old translation of this flow.
    translate(&router, "198.51.100.77");
    ip(&router, "addr del 198.51.100.1/24 dev wan");
    ip(&router, "addr add 198.51.100.77/24 dev wan");
    eventually("the link is down", || (!a.is_up()).then_some(()));
    // A relay tries the port that it has for a minute.
    assert_eq!(events(&a, "alternate_port").len(), 0);
    shim.set("boot", 60);
    let event = eventually("the relay opens another port", || events(&a, "alternate_port").pop());
    assert!(event["detail"].as_str().unwrap().contains("wan"), "{event}");
    until_up([&a, &b]);
    assert_relays_exchange(&a, &b);
    let at = address_of_peer(&b);
    assert!(at.starts_with("198.51.100.77:"), "{at}");
    let peers = a.ask(r#"{"show":"peers"}"#);
    assert!(peers["peers"][0]["behind"].as_str().unwrap().starts_with("wan at port "), "{peers}");
    a.stop();
    b.stop();
}
