//! The reason why a link is down is in `show peers`, in the journal and in the counters.

use std::net::UdpSocket;

use serde_json::Value;
use strowger_crypto::{
    IdentityKey, LocalIdentity, NetworkId, OsEntropy, Psk,
    handshake::{LocalParams, Offer, ik},
};
use strowger_testkit::{
    eventually,
    harness::{netns::*, relay::*},
};
use strowger_wire::{
    hello::{Timestamp, Versions},
    link_header::SessionIndex,
};

fn peer(key: &str, at: Option<&Home>, more: &str) -> String {
    let address = at.map(|home| format!("address = \"{}\"\n", home.at)).unwrap_or_default();
    format!("[[peer]]\nname = \"peer\"\nslot = 2\nkey = \"{key}\"\n{address}{more}\n")
}

fn first_peer(relay: &Relay) -> Value {
    relay.ask(r#"{"show":"peers"}"#)["peers"][0].take()
}

/// Waits until the relay reports this reason. Asserts that the sentence, the event and the text
/// output contain these words.
fn assert_reason(relay: &Relay, reason: &str, words: &[&str]) {
    let row = eventually(reason, || {
        let row = first_peer(relay);
        (row["down_reason"] == reason).then_some(row)
    });
    let sentence = row["down_text"].as_str().unwrap();
    assert!(words.iter().all(|word| sentence.contains(word)), "{sentence}");
    relay.show("peers", &[&["peer (slot 2) is down: "], words].concat());
    let event = eventually("the event reports it", || {
        let events = relay.events("link_trouble").into_iter();
        events.rev().find(|event| event["detail"].as_str().unwrap().contains(words[0]))
    });
    assert_eq!(event["slot"], 2, "{event}");
}

fn assert_counted(relay: &Relay, reason: &str) {
    eventually(reason, || (relay.discards(reason) > 0).then_some(()));
    let ports = relay.ask(r#"{"show":"ports"}"#);
    assert!(ports.to_string().contains(reason), "it is counted at a port: {ports}");
    assert_eq!(relay.discards("bad_seal"), 0);
}

#[test]
fn an_unused_peer_address_is_shown_as_no_answer() {
    let (a, b) = (Home::new(), Home::new());
    let relay = a.start_with(&peer(&b.key, Some(&b), ""));
    assert_reason(&relay, "no_answer", &["no answer from", &b.at.to_string()]);
    // Pings say that the link is down, by the name that was given.
    let label = strowger(&["label", "build", "2:2"]);
    let label = String::from_utf8(label.stdout).unwrap();
    let label = label.lines().next().unwrap().strip_prefix("label ").unwrap().to_owned();
    for (target, what) in [("peer", "peer is down: "), (&label, "the first link of 0000.")] {
        let output = relay.command(&["ping", "--count=2", "--interval=0", target]);
        let error = String::from_utf8(output.stderr).unwrap();
        assert!(error.contains(what), "{error}");
        assert!(error.contains("is down: see `strowger show peers`"), "{error}");
        assert_eq!(output.status.code(), Some(1));
    }
    relay.stop();
}

#[test]
fn a_peer_without_an_address_starts_the_handshake() {
    let (a, b) = (Home::new(), Home::new());
    let relay = a.start_with(&peer(&b.key, None, ""));
    assert_eq!(first_peer(&relay)["down_reason"], "no_address");
    assert!(relay.events("link_trouble").is_empty(), "nothing is wrong yet");
    relay.stop();
}

#[test]
fn another_network_name_is_shown_at_the_responder() {
    let (a, b) = (Home::new(), Home::new());
    let first = a.start_in("test", &peer(&b.key, Some(&b), ""));
    let second = b.start_in("tests", &peer(&a.key, Some(&a), ""));
    for relay in [&first, &second] {
        assert_reason(relay, "other_network", &["network of another name", "`network`"]);
        assert_counted(relay, "handshake_network");
    }
    first.stop();
    second.stop();
}

#[test]
fn another_psk_is_shown_at_both_ends() {
    let (a, b) = (Home::new(), Home::new());
    let psk = |home: &Home| {
        let file = home.file("psk");
        let file = file.to_str().unwrap();
        assert!(strowger(&["key", "psk", file]).status.success());
        format!("psk = \"{file}\"\n")
    };
    let first = a.start_with(&peer(&b.key, Some(&b), &psk(&a)));
    let second = b.start_with(&peer(&a.key, None, &psk(&b)));
    assert_reason(&first, "other_psk", &["cannot be decrypted", "`psk`"]);
    assert_counted(&first, "handshake_unreadable");
    assert_reason(&second, "no_confirmation", &["used none of", "`psk`"]);
    first.stop();
    second.stop();
}

#[test]
fn another_key_at_the_peer_s_address_is_named() {
    let (a, b, other) = (Home::new(), Home::new(), Home::new());
    let first = a.start_with(&peer(&other.key, Some(&b), ""));
    let second = b.start_with(&peer(&a.key, Some(&a), ""));
    assert_reason(&first, "other_key", &["another key", &b.key]);
    assert_counted(&first, "unknown_peer");
    let refused =
        eventually("the relay reports the refusal", || first.events("unknown_peer_refused").pop());
    assert!(refused["detail"].as_str().unwrap().contains(&b.key), "{refused}");
    // The first relay's handshakes are encrypted to `other`'s key, but arrive at `b`.
    assert_reason(&second, "not_for_us", &["another key than ours"]);
    assert_counted(&second, "handshake_mac");
    first.stop();
    second.stop();
}

/// Asserts that this relay, which has no peer, reports the handshakes of `caller` as those of an
/// unknown peer, and keeps no state of it.
#[track_caller]
fn assert_names_its_caller(alone: &Relay, caller: &Home) {
    let refused = eventually("the relay reports it", || alone.events("unknown_peer_refused").pop());
    assert!(refused["detail"].as_str().unwrap().contains(&caller.key), "{refused}");
    assert_counted(alone, "unknown_peer");
    assert_eq!(alone.discards("unknown_sender"), 0);
    assert_eq!(alone.ask(r#"{"show":"peers"}"#)["peers"], serde_json::json!([]));
}

#[test]
fn a_relay_without_peers_names_the_node_that_it_refuses() {
    let (a, b) = (Home::new(), Home::new());
    let alone = a.start_with("");
    let caller = b.start(&a.key, Some(a.at), "");
    assert_names_its_caller(&alone, &b);
    assert!(!caller.is_up());
    alone.stop();
    caller.stop();
}

#[test]
fn a_relay_without_peers_names_the_node_that_it_refuses_over_ethernet() {
    let Some([near, far]) = pair() else { return };
    for backend in ["af_xdp", "af_packet"] {
        let (a, b) = (Home::new(), Home::new());
        let call = by_ethernet(&a.key, Some(MACS[0]), backend, "");
        let without_peer = call.split("[[peer]]").next().unwrap();
        let alone = Relay::within(&near, a, without_peer);
        let caller = Relay::within(&far, b.clone(), &call);
        assert_names_its_caller(&alone, &b);
        alone.stop();
        caller.stop();
    }
}

/// wire.md: W13-4.
#[test]
fn a_peer_of_another_version_is_named() {
    let home = Home::new();
    let mut entropy = OsEntropy;
    let identity = IdentityKey::generate(&mut entropy).unwrap();
    let local = LocalIdentity::new(&identity, NetworkId::new(b"test").unwrap());
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let at = socket.local_addr().unwrap();
    let key = local.static_public();
    let relay = home.start_with(&format!(
        "[[peer]]\nname = \"peer\"\nslot = 2\nkey = \"{key}\"\naddress = \"{at}\"\n"
    ));
    // The key of the relay, as its peers configure it.
    let theirs = home.key.parse().unwrap();
    let offer = Offer { versions: Versions::new(2, 3).unwrap(), ..Offer::default() };
    let index = SessionIndex::new(7).unwrap();
    let mut stamp = 0;
    eventually("the relay refuses the version", || {
        stamp += 1;
        let timestamp = Timestamp(stamp);
        let ours = LocalParams { local: &local, offer: &offer, index, timestamp };
        let (_, message) = ik::initiate(&ours, &theirs, &Psk::NONE, None, &mut entropy).unwrap();
        socket.send_to(&message, home.at).unwrap();
        (relay.discards("handshake_disagreement") > 0).then_some(())
    });
    assert_reason(&relay, "disagreement", &["cannot agree", "no protocol version in common"]);
    assert_counted(&relay, "handshake_disagreement");
    relay.show("links", &["down"]);
    relay.stop();
}

#[test]
fn an_address_without_a_route_is_shown_with_the_kernel_s_reason() {
    let Some([near, _far]) = pair() else { return };
    let directory = Home::new();
    let key = Home::new().key.clone();
    let config = format!(
        "[identity]\nkey = \"DIR/key\"\nnetwork = \"test\"\n[[udp]]\naddress = \"0.0.0.0:7000\"\n\
         [[peer]]\nname = \"peer\"\nslot = 2\nkey = \"{key}\"\naddress = \"198.51.100.9:7000\"\n"
    );
    let relay = Relay::within(&near, directory, &config);
    let row = eventually("the reason is shown", || {
        let row = relay.ask(r#"{"show":"peers"}"#)["peers"][0].take();
        (row["down_reason"] == "unreachable").then_some(row)
    });
    let sentence = row["down_text"].as_str().unwrap();
    assert!(sentence.contains("198.51.100.9:7000 is not reachable"), "{sentence}");
    assert!(sentence.contains("Network is unreachable"), "{sentence}");
    relay.stop();
}
