//! Relays in two network namespaces that listen on all addresses. They reply from the address to
//! which a datagram was sent. A listener at `[::]` also serves IPv4.

use strowger_testkit::harness::{
    netns::{self, *},
    relay::*,
};

const CLIENT: &str = "10.77.0.9:7000";

/// A configuration with an endpoint at slot 4 and a peer over UDP at slot 2. `peer` is the line
/// with its address, or empty.
fn config(key: &str, listen: &str, peer: &str) -> String {
    format!(
        "[identity]\nkey = \"DIR/key\"\nnetwork = \"test\"\n\
         [[udp]]\naddress = \"{listen}\"\n\
         [[unix]]\nname = \"local\"\npath = \"DIR/local\"\nslot = 4\n\
         [[peer]]\nname = \"peer\"\nkey = \"{key}\"\nslot = 2\n{peer}"
    )
}

/// An IPv4 client sends to the second of the server's addresses, and accepts replies only from that
/// address, like a client behind a stateful firewall.
fn asked_at_the_second_address(listen: &str) {
    let Some([near, far]) = pair() else { return };
    for (Namespace(name), at) in [(&near, "10.77.0.9"), (&far, "10.77.0.1"), (&far, "10.77.0.2")] {
        netns::run(&format!("ip -n {name} addr add {at}/24 dev e0")).unwrap();
    }
    // The client has no route to the server's first address, so its kernel drops packets from there
    // (strict reverse path filter, RFC 3704).
    netns::run(&format!("ip -n {} route add blackhole 10.77.0.1/32", near.0)).unwrap();
    let strict = "sysctl -qw net.ipv4.conf.all.rp_filter=1";
    netns::run(&format!("ip netns exec {} {strict}", near.0)).unwrap();
    let (client, server) = (Home::new(), Home::new());
    let (client_key, server_key) = (client.key.clone(), server.key.clone());
    let server = Relay::within(&far, server, &config(&client_key, listen, ""));
    let peer = "address = \"10.77.0.2:7000\"\n";
    let client = Relay::within(&near, client, &config(&server_key, CLIENT, peer));
    until_up([&client, &server]);
    assert_relays_exchange(&client, &server);
    let at = |relay: &Relay| relay.ask(r#"{"show":"peers"}"#)["peers"][0]["address"].clone();
    assert_eq!((at(&client), at(&server)), ("10.77.0.2:7000".into(), CLIENT.into()));
}

/// wire.md: W8-6, W8-7.
#[test]
fn a_relay_at_all_addresses_answers_from_the_one_that_was_asked() {
    asked_at_the_second_address("0.0.0.0:7000");
}

#[test]
fn a_wildcard_for_ipv6_serves_ipv4_as_well() {
    asked_at_the_second_address("[::]:7000");
}
