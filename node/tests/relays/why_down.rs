//! The reason why a link is down, in `show peers`, the journal and the counters of both ends.

use serde_json::Value;
use strowger_testkit::{
    eventually,
    harness::{netns::*, relay::*},
};

fn peer(key: &str, at: Option<&Home>, more: &str) -> String {
    let address = at.map(|home| format!("address = \"{}\"\n", home.at)).unwrap_or_default();
    format!("[[peer]]\nname = \"peer\"\nslot = 2\nkey = \"{key}\"\n{address}{more}\n")
}

fn first_peer(relay: &Relay) -> Value {
    relay.ask(r#"{"show":"peers"}"#)["peers"][0].take()
}

/// Waits until the relay reports this reason. The sentence, the event and the text output contain
/// these words.
fn assert_reason(relay: &Relay, reason: &str, words: &[&str]) {
    let row = eventually(reason, || {
        let row = first_peer(relay);
        (row["down_reason"] == reason).then_some(row)
    });
    let sentence = row["down_text"].as_str().unwrap();
    assert!(words.iter().all(|word| sentence.contains(word)), "{sentence}");
    relay.show("peers", &[&["peer (slot 2) is down: "], words].concat());
    let told = eventually("the event reports it", || {
        let events = relay.events("link_trouble").into_iter();
        events.rev().find(|event| event["detail"].as_str().unwrap().contains(words[0]))
    });
    assert_eq!(told["slot"], 2, "{told}");
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
    // Our handshakes are encrypted for `other`, but arrive at `b`.
    assert_reason(&second, "not_for_us", &["another key than ours"]);
    assert_counted(&second, "handshake_mac");
    first.stop();
    second.stop();
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
