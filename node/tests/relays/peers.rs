//! Only some peers get a link to a relay: those with the pinned identity, and unknown peers within
//! the policy. A peer is notified of the reason when its link ends.

use serde_json::Value;
use strowger_testkit::{
    DEADLINE, eventually,
    harness::{packet, relay::*},
};

/// A `[[peer]]` section at slot 2, with these lines.
fn peer(words: &str) -> String {
    format!("[[peer]]\nname = \"peer\"\nslot = 2\n{words}\n")
}

fn at(home: &Home) -> String {
    format!("address = \"{}\"\n", home.at)
}

fn pin(home: &Home) -> String {
    format!("peer_id = \"{}\"\n", home.peer_id)
}

fn peers(relay: &Relay) -> Vec<Value> {
    serde_json::from_value(relay.ask(r#"{"show":"peers"}"#)["peers"].take()).unwrap()
}

fn slots(relay: &Relay) -> usize {
    relay.ask(r#"{"show":"slots"}"#)["slots"].as_array().unwrap().len()
}

#[test]
fn a_peer_must_have_the_pinned_identity_from_either_side() {
    let (a, b) = (Home::new(), Home::new());
    let first = a.start(&b.key, Some(b.at), &pin(&b));
    let second = b.start(&a.key, None, &pin(&a));
    until_up([&first, &second]);
    assert_exchange(&mut first.client(), &mut second.client());
    first.stop();
    second.stop();

    // The key is correct, but its owner does not have the pinned identity.
    let other = Home::new();
    for (a_at, b_at) in [(Some(a.at), None), (None, Some(b.at))] {
        let first = a.start(&b.key, b_at, &pin(&other));
        let second = b.start(&a.key, a_at, "");
        let refused = eventually("the relay reports it", || first.events("peer_refused").pop());
        assert_eq!((&refused["slot"], &refused["name"]), (&2.into(), &"peer".into()));
        assert!(refused["detail"].as_str().unwrap().contains(&b.peer_id), "{refused}");
        assert!(first.discards("handshake_identity") > 0);
        assert!(!first.is_up());
        first.stop();
        second.stop();
    }
}

#[test]
fn a_peer_with_only_a_peer_id_gets_a_link() {
    let (a, b, third) = (Home::new(), Home::new(), Home::new());
    let first = a.start_with(&peer(&[pin(&b), at(&b)].concat()));
    let second = b.start_with(&peer(&pin(&a)));
    until_up([&first, &second]);
    let (mut at_a, mut at_b) = (first.client(), second.client());
    assert_exchange(&mut at_a, &mut at_b);
    let shown = &peers(&first)[0];
    assert_eq!((&shown["key"], &shown["peer_id"]), (&b.key.clone().into(), &b.peer_id[..].into()));
    assert_eq!(shown["unknown"], false);
    // Another peer is added at run time.
    let attach = ["slot", "attach", "third", "--slot", "7", "--peer-id", &third.peer_id];
    first.command_json(&attach);
    let its = third.start_with(&peer(&[pin(&a), at(&a)].concat()));
    eventually("the link is up", || {
        peers(&first).iter().all(|row| row["up"] == true).then_some(())
    });
    its.stop();

    // Another node, which accepts any peer, now has that address.
    second.stop();
    let other = Home::new();
    let address = format!("[[udp]]\nname = \"there\"\naddress = \"{}\"\n", b.at);
    let unknown_peers = "[unknown_peers]\nallow = true\n";
    let whoever = [&address, unknown_peers].concat();
    let impostor = other.start_with(&whoever);
    let refused = eventually("the relay reports it", || first.events("peer_refused").pop());
    assert!(refused["detail"].as_str().unwrap().contains(&other.peer_id), "{refused}");
    assert_eq!(peers(&first)[0]["up"], false);
    impostor.stop();
    first.stop();
}

#[test]
fn unknown_peers_get_what_the_policy_allows_and_no_more() {
    // A relay that connects to an unknown peer needs a policy for unknown peers.
    let looks = |home: &Home| {
        let all = "[unknown_peers]\nallow = true\nrights = [\"transit\", \"endpoints\"]\n";
        [peer(&at(home)), all.to_owned()].concat()
    };
    let fast = "[unknown_peers]\nallow = true\nmax = 1\ninterval_ms = 500\nmultiplier = 3\nalways = true\n";

    // The policy is off by default. A relay reads the handshake and refuses it, with or without
    // another peer, and keeps no state of the node.
    let (a, b) = (Home::new(), Home::new());
    let guest = a.start_with(&looks(&b));
    let known = peer(&format!("key = \"{}\"", Home::new().key));
    for (others, count) in [("", 0), (&known[..], 1)] {
        let host = b.start_with(others);
        eventually("the relay refuses it", || (host.discards("unknown_peer") > 0).then_some(()));
        assert_eq!((slots(&host), peers(&host).len()), (1 + count, count));
        let attached = || host.events("slot_attached").len();
        eventually("the journal has the slots", || (attached() > count).then_some(()));
        assert!(!guest.is_up() && attached() == 1 + count);
        host.stop();
    }

    // With the policy, the peer gets a slot but no rights.
    let host = b.start_with(fast);
    eventually("the link is up", || (guest.is_up() && peers(&host).len() == 1).then_some(()));
    let row = peers(&host).remove(0);
    assert_eq!((&row["unknown"], &row["rights"]), (&true.into(), &serde_json::json!([])));
    assert_eq!((&row["name"], &row["peer_id"]), (&a.peer_id[..].into(), &a.peer_id[..].into()));
    let slot = u32::try_from(row["slot"].as_u64().unwrap()).unwrap();
    let (mut at_guest, _at_host) = (guest.client(), host.client());
    let before = host.discards("not_allowed");
    let way = packet(&[(4, 2), (slot, 4)], b"let me in");
    assert!(at_guest.send(&way, DEADLINE).unwrap());
    eventually("the relay refuses it", || (host.discards("not_allowed") > before).then_some(()));
    // For this peer, the relay reports each of these slots as empty.
    for to in [1, 4, 200] {
        let (pings, code) = probe(&guest, &["ping", "--count=1"], &[(1, 2), (slot, to)]);
        assert_eq!((&pings[0]["discard"], code), (&"empty_slot".into(), Some(1)), "slot {to}");
    }
    // The policy allows only one unknown peer at a time.
    let c = Home::new();
    let second = c.start_with(&looks(&b));
    eventually("the relay refuses it", || (host.discards("over_budget") > 0).then_some(()));
    assert!(!second.is_up() && peers(&host).len() == 1);
    // When the peer ends, its slot becomes free, and the next peer connects.
    drop(guest);
    eventually("the next peer has its link", || {
        let rows = peers(&host);
        (rows.len() == 1 && rows[0]["peer_id"] == c.peer_id && second.is_up()).then_some(())
    });
    host.stop();

    // With the right to endpoints, the peer reaches them.
    let host = b.start_with(&format!("{fast}rights = [\"endpoints\"]\n"));
    eventually("the link is up", || (second.is_up() && peers(&host).len() == 1).then_some(()));
    let slot = u32::try_from(peers(&host)[0]["slot"].as_u64().unwrap()).unwrap();
    let (mut at_second, mut at_host) = (second.client(), host.client());
    assert!(at_second.send(&packet(&[(4, 2), (slot, 4)], b"may I"), DEADLINE).unwrap());
    assert!(at_host.receive(&mut [0; 2048], DEADLINE).unwrap().is_some());
    host.stop();
    second.stop();
}

#[test]
fn a_goodbye_ends_its_link_and_no_other() {
    let (a, b, c) = (Home::new(), Home::new(), Home::new());
    let both = |ends: [(&Home, &str, u32); 2]| -> String {
        let section = |(home, name, slot): (&Home, &str, u32)| {
            let (key, at) = (&home.key, home.at);
            format!(
                "[[peer]]\nname = \"{name}\"\nkey = \"{key}\"\naddress = \"{at}\"\nslot = {slot}\n"
            )
        };
        ends.map(section).concat()
    };
    let middle = b.start_with(&both([(&a, "left", 2), (&c, "right", 3)]));
    let left = a.start(&b.key, Some(b.at), "");
    let right = c.start(&b.key, Some(b.at), "");
    until_up([&left, &right]);
    eventually("both are up", || peers(&middle).iter().all(|row| row["up"] == true).then_some(()));

    // A relay that stops sends its peer a goodbye with the reason.
    left.stop();
    let event = eventually("the relay reports it", || middle.events("goodbye").pop());
    assert_eq!((&event["slot"], &event["name"]), (&2.into(), &"left".into()));
    assert_eq!(event["detail"], "code 1, stopping, retry after 0 s: the relay stops");
    // An operator detaches a slot: its peer also receives a goodbye.
    middle.command_json(&["slot", "detach", "3"]);
    let event = eventually("the peer receives the goodbye", || right.events("goodbye").pop());
    assert_eq!((&event["slot"], &event["name"]), (&2.into(), &"peer".into()));
    assert_eq!(
        event["detail"],
        "code 3, by the operator, retry after 60 s: detached by the operator"
    );
    let trouble = eventually("the peer says when it tries again", || {
        let events = right.events("link_trouble").into_iter();
        events.rev().find(|event| event["detail"].as_str().unwrap().contains("ended the link"))
    });
    assert!(trouble["detail"].as_str().unwrap().contains("handshake 60 s after"), "{trouble}");
    assert!(!right.is_up());

    // The end of the left link did not affect the right link.
    let downs = middle.events("link_down");
    assert!(downs.iter().all(|event| event["slot"] == 2), "{downs:?}");
    middle.stop();
    right.stop();
}
