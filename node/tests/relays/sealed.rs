//! Two relays as processes, with a sealed link over the loopback and a unix endpoint on each. Only
//! a peer with the correct keys gets a link.

use std::{
    fs,
    io::{BufRead as _, BufReader, Write as _},
    net::{SocketAddr, UdpSocket},
    os::unix::{fs::PermissionsExt as _, net::UnixStream},
    sync::atomic::{AtomicBool, AtomicU8, Ordering},
    thread,
    time::Duration,
};

use serde_json::Value;

use strowger_testkit::{
    DEADLINE, eventually,
    harness::{packet, relay::*},
};

#[test]
fn endpoints_of_two_relays_exchange_packets_over_a_sealed_link() {
    let (a, b) = (Home::new(), Home::new());
    let first = a.start(&b.key, Some(b.at), "");
    // The second relay learns the first one's address from its handshake.
    let second = b.start(&a.key, None, "");
    until_up([&first, &second]);
    let (mut at_a, mut at_b) = (first.client(), second.client());
    for _ in 0..20 {
        assert_exchange(&mut at_a, &mut at_b);
    }
    let link = first.ask(r#"{"show":"links"}"#)["links"][0].take();
    assert_eq!((&link["sealed"], &link["seal"]), (&true.into(), &"full".into()));
    assert_eq!(first.ask(r#"{"show":"status"}"#)["sealed"], true);
    first.show("peers", &["peer", "up", "transit,endpoints", &b.key, "this relay is 12D3KooW"]);
    first.show("links", &["full", "up", "last received"]);
    first.show("events", &["link_up", "slot 2", "slot_attached"]);
    first.stop();
    second.stop();
}

#[test]
fn several_workers_share_a_sealed_link_and_headers_alone_may_be_sealed() {
    // With several workers at one end or both, the worker on which a session's packets arrive must
    // be able to open them.
    for (workers_a, workers_b) in [(2, 1), (2, 2), (3, 2)] {
        let (a, b) = (Home::new(), Home::new());
        let workers = |n| format!("seal = \"header-only\"\n[switch]\nworkers = {n}");
        let first = a.start(&b.key, Some(b.at), &workers(workers_a));
        let second = b.start(&a.key, Some(a.at), &workers(workers_b));
        until_up([&first, &second]);
        let (mut at_a, mut at_b) = (first.client(), second.client());
        for _ in 0..20 {
            assert_exchange(&mut at_a, &mut at_b);
        }
        let link = first.ask(r#"{"show":"links"}"#)["links"][0].take();
        assert_eq!(link["seal"], "header-only");
        first.stop();
        second.stop();
    }
    // Only one end allows header-only seals, so the link uses full ones.
    let (a, b) = (Home::new(), Home::new());
    let first = a.start(&b.key, Some(b.at), "seal = \"header-only\"");
    let second = b.start(&a.key, Some(a.at), "");
    until_up([&first, &second]);
    assert_exchange(&mut first.client(), &mut second.client());
    assert_eq!(first.ask(r#"{"show":"links"}"#)["links"][0]["seal"], "full");
    first.stop();
    second.stop();
}

/// Copies datagrams between the senders to `near` and the address `far` until `done`. Each change
/// of `renewals` replaces the socket towards `far`, like a NAT that loses its state.
fn translate(near: &UdpSocket, far: SocketAddr, renewals: &AtomicU8, done: &AtomicBool) {
    let mut back = None;
    let outer = || {
        let socket = UdpSocket::bind((far.ip(), 0)).unwrap();
        socket.set_nonblocking(true).unwrap();
        socket
    };
    near.set_nonblocking(true).unwrap();
    let (mut socket, mut age) = (outer(), renewals.load(Ordering::Relaxed));
    let mut bytes = [0; 2048];
    while !done.load(Ordering::Relaxed) {
        if renewals.load(Ordering::Relaxed) != age {
            age = renewals.load(Ordering::Relaxed);
            socket = outer();
        }
        if let Ok((len, from)) = near.recv_from(&mut bytes) {
            back = Some(from);
            let _ = socket.send_to(&bytes[..len], far);
        }
        if let (Ok((len, _)), Some(back)) = (socket.recv_from(&mut bytes), back) {
            let _ = near.send_to(&bytes[..len], back);
        }
        thread::yield_now();
    }
}

#[test]
fn a_peer_whose_address_changes_is_followed() {
    let (a, b) = (Home::new(), Home::new());
    let near = UdpSocket::bind("127.0.0.1:0").unwrap();
    let near_at = near.local_addr().unwrap();
    let (renewals, done) = (AtomicU8::new(0), AtomicBool::new(false));
    thread::scope(|scope| {
        let _end = End(&done);
        scope.spawn(|| translate(&near, b.at, &renewals, &done));
        let second = b.start(&a.key, None, "");
        let first = a.start(&b.key, Some(near_at), "");
        until_up([&first, &second]);
        let (mut at_a, mut at_b) = (first.client(), second.client());
        assert_exchange(&mut at_a, &mut at_b);
        for moves in 1..=3 {
            renewals.fetch_add(1, Ordering::Relaxed);
            assert_passes(&mut at_a, &mut at_b, b"from elsewhere");
            eventually("the peer has moved", || {
                let events = second.ask(r#"{"show":"events"}"#);
                let events = events["events"].as_array().unwrap();
                let roamed = events.iter().filter(|event| event["event"] == "roamed").count();
                (roamed > moves).then_some(())
            });
            // Repeat: the event may precede the worker's update of the address.
            eventually("the relay sends a packet to the new address", || {
                let back = packet(&[(4, 2), (2, 4)], b"to elsewhere");
                assert!(at_b.send(&back, DEADLINE).unwrap());
                at_a.receive(&mut [0; 2048], Duration::from_millis(200)).unwrap()
            });
        }
        assert_eq!(second.ask(r#"{"show":"peers"}"#)["peers"][0]["up"], true);
        first.stop();
        second.stop();
    });
}

/// Ends a loop when it is dropped, also if the test panics.
struct End<'d>(&'d AtomicBool);

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn after_a_kill_the_link_comes_back() {
    let (a, b) = (Home::new(), Home::new());
    let first = a.start(&b.key, Some(b.at), "");
    let second = b.start(&a.key, Some(a.at), "");
    until_up([&first, &second]);
    let mut at_a = first.client();
    assert_exchange(&mut at_a, &mut second.client());

    // Dropping it kills the process: no goodbye is sent.
    drop(second);
    eventually("its death is detected", || (!first.is_up()).then_some(()));
    let _ = fs::remove_file(b.file("local"));
    let second = b.start(&a.key, Some(a.at), "");
    until_up([&first, &second]);
    assert_exchange(&mut at_a, &mut second.client());
    let events = first.ask(r#"{"show":"events"}"#);
    let events = events["events"].as_array().unwrap();
    let of_link: Vec<&str> = events
        .iter()
        .filter_map(|event| event["event"].as_str())
        .filter(|name| ["link_up", "link_down"].contains(name))
        .collect();
    assert_eq!(of_link[..3], ["link_up", "link_down", "link_up"]);
    first.stop();
    second.stop();
}

#[test]
fn the_wrong_key_or_psk_gets_nowhere_and_is_counted() {
    // The peer has another key than the configured one, so its handshake is refused.
    let (a, b, other) = (Home::new(), Home::new(), Home::new());
    let first = a.start(&b.key, None, "");
    let wrong = other.start(&a.key, Some(a.at), "");
    eventually("the refusal is counted", || (first.discards("unknown_peer") > 0).then_some(()));
    let shown = strowger(&["show", "discards", "--socket", a.file("control").to_str().unwrap()]);
    assert!(
        String::from_utf8(shown.stdout).unwrap().contains("unknown_peer"),
        "the text output shows it, too"
    );
    assert!(!first.is_up() && !wrong.is_up());
    assert_eq!(first.ask(r#"{"show":"slots"}"#)["slots"].as_array().unwrap().len(), 2);
    wrong.stop();
    first.stop();

    // The keys are right, but only one end has a PSK, or the PSKs differ.
    let psk = |home: &Home| {
        let file = home.file("psk");
        assert!(strowger(&["key", "psk", file.to_str().unwrap()]).status.success());
        format!("psk = \"{}\"", file.to_str().unwrap())
    };
    let (psk_a, psk_b) = (psk(&a), psk(&b));
    for theirs in ["", &psk_b] {
        let first = a.start(&b.key, Some(b.at), &psk_a);
        let second = b.start(&a.key, Some(a.at), theirs);
        eventually("the refusal is counted", || {
            let unreadable = |relay: &Relay| relay.discards("handshake_unreadable");
            (unreadable(&first) + unreadable(&second) > 0).then_some(())
        });
        assert!(!first.is_up() && !second.is_up());
        first.stop();
        second.stop();
    }

    // Both ends have the same PSK.
    fs::copy(a.file("psk"), b.file("psk")).unwrap();
    let first = a.start(&b.key, Some(b.at), &psk_a);
    let second = b.start(&a.key, Some(a.at), &psk_b);
    until_up([&first, &second]);
    assert_exchange(&mut first.client(), &mut second.client());
    first.stop();
    second.stop();
}

#[test]
fn an_unknown_peer_gets_no_byte() {
    let (a, b) = (Home::new(), Home::new());
    let relay = a.start(&b.key, None, "");
    let unknown = UdpSocket::bind("127.0.0.1:0").unwrap();
    let mut sent = 0;
    // The datagrams have each kind of the link header, at several lengths.
    for kind in 0..16_u8 {
        for length in [0, 1, 8, 24, 64, 896, 1200] {
            let mut bytes = vec![0x5a; length];
            if let Some(first) = bytes.first_mut() {
                *first = kind << 4;
            }
            unknown.send_to(&bytes, a.at).unwrap();
            sent += 1;
        }
    }
    eventually("each datagram is counted", || {
        let balance = relay.ask(r#"{"show":"discards"}"#)["balance"].take();
        (balance["discarded"] == sent && balance["balanced"] == true).then_some(())
    });
    unknown.set_nonblocking(true).unwrap();
    assert!(unknown.recv_from(&mut [0; 2048]).is_err(), "not a byte came back");
    relay.stop();
}

#[test]
fn events_are_reported_as_peers_are_added_and_removed() {
    let (a, b) = (Home::new(), Home::new());
    let first = a.start(&b.key, None, "");
    let mut stream = UnixStream::connect(a.file("control")).unwrap();
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    writeln!(stream, r#"{{"watch":"events"}}"#).unwrap();
    let mut lines = BufReader::new(stream).lines();
    let mut next = || -> Value { serde_json::from_str(&lines.next().unwrap().unwrap()).unwrap() };
    assert_eq!(next()["watching"], "events");
    let second = b.start(&a.key, Some(a.at), "");
    let mut until = |event: &str, slot: u32| loop {
        let row = next();
        if row["event"] == event && row["slot"] == slot {
            return row;
        }
    };
    until("link_up", 2);

    // Another peer is attached while the relay runs, and is then detached.
    let third = Home::new();
    let control = a.file("control");
    let control = control.to_str().unwrap();
    let attach = ["slot", "attach", "third", "--slot", "7", "--key", &third.key];
    let attach = [&attach[..], &["--rights", "transit", "--socket", control]].concat();
    assert!(strowger(&attach).status.success());
    assert_eq!(until("slot_attached", 7)["name"], "third");
    let its = third.start(&a.key, Some(a.at), "");
    until("link_up", 7);
    assert_exchange(&mut first.client(), &mut second.client());
    assert!(strowger(&["slot", "detach", "7", "--socket", control]).status.success());
    until("slot_detached", 7);
    let plain = strowger(&["slot", "attach", "plain", "127.0.0.1:9", "--socket", control]);
    assert_eq!(plain.status.code(), Some(5), "a sealed listener has no plain links: {plain:?}");
    its.stop();
    first.stop();
    second.stop();
}

#[test]
fn keys_that_others_can_read_start_no_relay() {
    let home = Home::new();
    let dir = home.path().to_str().unwrap().to_owned();
    let config = format!(
        "control.socket = \"{dir}/control\"\n[identity]\nkey = \"{dir}/key\"\n\
         [[udp]]\naddress = \"127.0.0.1:0\"\n"
    );
    fs::write(home.file("relay.toml"), config).unwrap();
    fs::set_permissions(home.file("key"), fs::Permissions::from_mode(0o644)).unwrap();
    let output = strowger(&["relay", "--config", home.file("relay.toml").to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(3));
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(stderr.lines().count() == 1 && stderr.contains("chmod 600 "), "{stderr}");
}

#[test]
fn a_label_is_pinged_and_traced_over_a_sealed_link() {
    let (a, b) = (Home::new(), Home::new());
    let rights = "rights = [\"transit\", \"endpoints\", \"control\"]";
    let first = a.start(&b.key, Some(b.at), "");
    // The second relay grants the right `control` to the first. The first accepts the replies
    // without granting that right to the second.
    let second = b.start(&a.key, Some(a.at), rights);
    until_up([&first, &second]);

    let ping = ["ping", "--count", "3", "--interval", "0"];
    let (pings, code) = probe(&first, &ping, &[(1, 2), (2, 1)]);
    assert!(pings.iter().all(|ping| ping["pong"] == true), "{pings:?}");
    assert_eq!((pings.len(), code), (3, Some(0)));

    let (trace, code) = probe(&first, &["trace"], &[(1, 2), (2, 4)]);
    let hops = trace[0]["hops"].as_array().unwrap();
    assert_eq!((hops.len(), &hops[1]["behind"], code), (2, &"endpoint".into(), Some(0)));

    let (identity, code) = probe(&first, &["identify"], &[(1, 2), (2, 1)]);
    assert_eq!((&identity[0]["peer_id"], code), (&b.peer_id.as_str().into(), Some(0)));
    assert_eq!(identity[0]["key"], b.key);
    let (identity, code) = probe(&second, &["identify"], &[(1, 2), (2, 1)]);
    assert_eq!(
        (&identity[0]["discard"], code),
        (&"empty_slot".into(), Some(1)),
        "the peer has no right to control"
    );

    // Slot 200 of the second relay is empty. The reply contains the hop and the drop reason.
    let (trace, code) = probe(&first, &["trace"], &[(1, 2), (2, 200)]);
    assert_eq!((&trace[0]["hops"][1]["discard"], code), (&"empty_slot".into(), Some(1)));
    assert_eq!(trace[0]["why"], "discarded at hop 1: empty_slot (slot 200)");
    assert_eq!(second.discards("empty_slot"), 0, "its own end is hops_spent");
    assert!(second.discards("hops_spent") >= 2);

    // The second relay has no right to send requests to the first.
    let (pings, code) = probe(&second, &["ping", "--count", "1"], &[(1, 2), (2, 1)]);
    assert_eq!((&pings[0]["discard"], code), (&"empty_slot".into(), Some(1)));
    first.stop();
    second.stop();
}
